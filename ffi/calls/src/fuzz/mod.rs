//! Sequences of calls that follow from any bytes: on handles that are opened and freed in any order, on a store that is closed and
//! opened again, under a KMS that fails, with senseless arguments in between. A model says what each call must answer.
//!
//! Every call keeps the header's rules for what the library cannot check: pointers point to what they say, and nothing is used after
//! it was freed.

mod arguments;
mod model;
mod world;

use arbitrary::Unstructured;
use std::sync::{Mutex, PoisonError};
use world::World;

/// Calls of one input, at most: what comes behind them says nothing new.
const STEPS_MAX: usize = 96;

/// Makes the calls that follow from these bytes.
///
/// # Panics
///
/// When a call does not answer as it must.
pub fn run(input: &[u8]) {
    // The KMS is one for the whole process.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut input = Unstructured::new(input);
    let mut world = World::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() || world.step(&mut input).is_err() {
            break;
        }
    }
    world.end();
}
