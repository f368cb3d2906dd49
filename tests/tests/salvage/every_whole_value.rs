//! Whatever blocks are destroyed, every whole value is recovered and every other one named.

use crate::judged::{check, found, go_on, salvage};
use crate::oracle::Oracle;
use crate::world::{assert_sound, destroy, options, world};
use keystead::{Organization, SalvageOptions};
use keystead_tests::disk::SimulatedDisk;
use keystead_tests::env::{Dice, seed};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn of_a_whole_file_everything_is_salvaged() {
    let seed = seed(1);
    let world = world(seed, 60);
    let (report, disk) = salvage(&world, world.image.clone(), &SalvageOptions::default());
    assert!(report.is_complete(), "{report:#?}");
    let store = options(&world.kms, 2).open_on_disk(disk).unwrap();
    assert_sound(&store);
    let found: BTreeMap<_, _> = found(&store)
        .into_iter()
        .map(|(name, state)| (name, state.unwrap()))
        .collect();
    assert!(found == world.model);
    let old = options(&world.kms, 3)
        .open_on_disk(SimulatedDisk::holding(world.image.clone()))
        .unwrap();
    assert_eq!(old.id(), store.id());
    for info in old.organizations(None, 1000).unwrap().items {
        let (before, after) = (
            old.organization(&info.name).unwrap(),
            store.organization(&info.name).unwrap(),
        );
        assert_eq!(before.keys().list().unwrap(), after.keys().list().unwrap());
        let trail = |organization: &Organization| organization.audit(0, 10_000).unwrap();
        let (before_trail, after_trail) = (trail(&before), trail(&after));
        assert!(
            after_trail.starts_with(&before_trail),
            "the trail goes on where it was"
        );
        let job = |organization: &Organization| {
            organization
                .rewrap_status()
                .unwrap()
                .map(|s| (s.job, s.done, s.remaining, s.sources))
        };
        assert_eq!(job(&before), job(&after));
    }
    go_on(&store);
}

#[test]
fn with_a_hundred_blocks_destroyed_every_whole_value_is_recovered_and_every_other_one_named() {
    let seed = seed(2);
    let rounds = std::env::var("KEYSTEAD_ROUNDS");
    let rounds = rounds.ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(24);
    destroy_a_hundred(seed, 0..rounds);
}

/// A loose page had an older record of a secret, which knew version 1 alone; the rows of version 2 were destroyed. Only the audit
/// trail still named it: it was neither salvaged nor said to be lost, and its number would have been given again.
#[test]
fn a_version_that_the_audit_trail_alone_still_knows_is_named() {
    destroy_a_hundred(14, 6..7);
}

#[allow(clippy::print_stdout, reason = "a test tells its figures")]
fn destroy_a_hundred(seed: u64, rounds: std::ops::Range<u64>) {
    let world = world(seed, 150);
    let oracle = Oracle::new(&world.places);
    let (versions, blocks) = (world.model.len(), world.places.blocks.len());
    println!("{versions} versions, {blocks} blocks written");
    for round in rounds {
        let mut dice = Dice::part(seed, round);
        let mut image = world.image.clone();
        let mut destroyed = BTreeSet::new();
        while destroyed.len() < 100 {
            let block = *dice.choose(&world.places.blocks);
            if destroyed.insert(block) {
                destroy(&mut image, block, &mut dice);
            }
        }
        let keep = round % 4 == 3;
        let tally = check(&world, &oracle, &image, &destroyed, keep);
        println!("round {round}, undecided ones kept: {keep}: {tally:?}");
    }
}
