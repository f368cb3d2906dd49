//! Keys, epochs, re-wrap: what an organization can do with its keys, and what holds at every instant of it.
//!
//! | file | claims |
//! | --- | --- |
//! | `taking_over.rs` | a key that is added takes over, and the KMS of the one before it may vanish |
//! | `believed.rs` | a KMS is believed what it was seen to do: no key that fails its probe, no wrap that does not open, no other epoch key |
//! | `changes.rs` | default, disable, rotate: what each change of an organization's keys moves, and what it leaves |
//! | `re_wrap.rs` | re-wrap jobs: what blocks one, what goes on beside it, and where it goes on after it was interrupted |
//! | `in_memory.rs` | keys in memory: dropped when they are revoked, for no longer than their lifetime, and got once for all who wait |

#[path = "../common/mod.rs"]
mod common;

mod believed;
mod changes;
mod in_memory;
mod re_wrap;
mod taking_over;

use keystead::{EpochState, KeyState, Organization};
use std::time::Duration;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn states(acme: &Organization) -> Vec<(u32, EpochState, u64)> {
    acme.epochs()
        .unwrap()
        .iter()
        .map(|epoch| (epoch.number.get(), epoch.state, epoch.references))
        .collect()
}

pub(crate) fn wrapped_by(acme: &Organization, epoch: u32) -> Vec<String> {
    let epochs = acme.epochs().unwrap();
    epochs[epoch as usize - 1]
        .wrapped_by
        .iter()
        .map(|wrap| wrap.key.clone())
        .collect()
}

pub(crate) fn key_state(acme: &Organization, name: &str) -> KeyState {
    acme.keys()
        .list()
        .unwrap()
        .into_iter()
        .find(|key| key.name == name)
        .unwrap()
        .state
}
