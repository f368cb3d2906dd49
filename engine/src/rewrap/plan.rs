//! Which epochs a re-wrap job moves, and where to: pure functions, no storage and no KMS.

use crate::names::EpochNumber;
use crate::storage::records::{SourceRecord, SourceState};

/// Where data keys are to go: a target epoch and the registered key that wraps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) epoch: EpochNumber,
    pub(crate) key: String,
}

/// The sources of a job after `moving` were given a new target: those that were moving before go on; those that were on
/// their way to an epoch that is itself moving now go where that one goes. `needs_hand_over` says whether another key than
/// the target's wraps an epoch.
pub(crate) fn merge(
    running: &[SourceRecord],
    moving: &[EpochNumber],
    target: &Target,
    needs_hand_over: impl Fn(EpochNumber, &str) -> bool,
) -> Vec<SourceRecord> {
    let source = |epoch| SourceRecord {
        epoch,
        state: if needs_hand_over(epoch, &target.key) {
            SourceState::HandOver
        } else {
            SourceState::Rewrap
        },
        target: target.epoch,
        target_key: target.key.clone(),
    };
    let mut merged: Vec<SourceRecord> = running
        .iter()
        .filter(|old| old.state != SourceState::Retired && !moving.contains(&old.epoch))
        .map(|old| {
            if moving.contains(&old.target) {
                source(old.epoch)
            } else {
                old.clone()
            }
        })
        .collect();
    merged.extend(moving.iter().map(|epoch| source(*epoch)));
    merged.sort_by_key(|source| source.epoch);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn running(epoch: u32, target: u32, state: SourceState) -> SourceRecord {
        SourceRecord {
            epoch: EpochNumber(epoch),
            state,
            target: EpochNumber(target),
            target_key: format!("k{target}"),
        }
    }

    #[test]
    fn what_was_on_its_way_to_a_moving_epoch_goes_where_that_one_goes() {
        let before = [
            running(1, 3, SourceState::Rewrap),
            running(2, 4, SourceState::HandOver),
        ];
        let target = Target {
            epoch: EpochNumber(5),
            key: "k5".into(),
        };
        let merged = merge(&before, &[EpochNumber(3)], &target, |epoch, _| epoch.0 == 1);
        assert_eq!(
            merged,
            [
                running(1, 5, SourceState::HandOver),
                running(2, 4, SourceState::HandOver),
                running(3, 5, SourceState::Rewrap)
            ]
        );
    }

    proptest! {
        #[test]
        fn no_epoch_is_moved_to_one_that_is_moving(
            pairs in proptest::collection::btree_map(1..20u32, 20..40u32, 0..10),
            moving in proptest::collection::btree_set(1..40u32, 0..10),
        ) {
            let before: Vec<_> = pairs.iter().map(|(e, t)| running(*e, *t, SourceState::Rewrap)).collect();
            let moving: Vec<_> = moving.into_iter().map(EpochNumber).collect();
            let target = Target { epoch: EpochNumber(50), key: "new".into() };
            let merged = merge(&before, &moving, &target, |_, _| false);
            for source in &merged {
                prop_assert!(merged.iter().all(|other| other.epoch != source.target));
            }
            for epoch in moving.iter().chain(before.iter().map(|s| &s.epoch)) {
                prop_assert_eq!(merged.iter().filter(|s| s.epoch == *epoch).count(), 1);
            }
        }
    }
}
