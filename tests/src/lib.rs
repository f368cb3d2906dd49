//! What the tests of Keystead share.

pub mod built;
pub mod checkers;
pub mod contents;
pub mod counted;
pub mod damage;
pub mod direct;
pub mod disk;
pub mod emulators;
pub mod env;
pub mod example_c;
pub mod explore;
pub mod faults;
pub mod filled;
pub mod forge;
pub mod fuzzing;
pub mod gate;
pub mod interleave;
pub mod keys_in_time;
pub mod kms;
pub mod left_out;
pub mod life;
pub mod lives;
pub mod logs;
pub mod masking;
pub mod model;
pub mod notes;
pub mod observe;
pub mod past;
pub mod power;
#[path = "../../xtask/src/retry.rs"]
mod retry;
pub mod schedule;
pub mod scripted;
pub mod search;
pub mod soak;
pub mod suite;
pub mod threads;

/// The examples in the project's README compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
