//! Without the pages that lead to others, without redb's header, without the store's own: what is whole is found all the same.

use crate::judged::check;
use crate::oracle::{AUDIT, Oracle};
use crate::small::{salvage_of, small};
use crate::world::{BLOCK, World, destroy, options, world};
use keystead::{Error, SalvageOptions};
use keystead_tests::disk::SimulatedDisk;
use keystead_tests::env::{Dice, seed};
use keystead_tests::kms::SimulatedKms;
use std::collections::BTreeSet;

#[test]
fn with_every_branch_page_destroyed_the_leaves_are_found_and_what_was_destroyed_stays_so() {
    let seed = seed(4);
    let world = world(seed, 100);
    let oracle = Oracle::new(&world.places);
    let mut dice = Dice::new(seed);
    let mut image = world.image.clone();
    let mut destroyed = BTreeSet::new();
    let kind_of = |offset: u64| {
        let mut kind = [0];
        assert!(world.image.read(offset, &mut kind));
        kind[0]
    };
    let rows: BTreeSet<u64> = world
        .places
        .rows
        .iter()
        .flat_map(|row| row.blocks.iter().copied())
        .collect();
    for block in &world.places.blocks {
        let is_tables = kind_of(*block) == 2 && !rows.contains(block);
        if is_tables && !world.places.witnesses.contains(block) && destroyed.insert(*block) {
            destroy(&mut image, *block, &mut dice);
        }
    }
    let tally = check(&world, &oracle, &image, &destroyed, false);
    println!("{} branches destroyed: {tally:?}", destroyed.len());
    assert_eq!(
        (tally.recovered, tally.lost),
        (tally.versions, 0),
        "every leaf is whole"
    );

    // The audit trail is not needed for it.
    for row in world.places.rows.iter().filter(|row| row.table == AUDIT) {
        for block in &row.blocks {
            if destroyed.insert(*block) {
                destroy(&mut image, *block, &mut dice);
            }
        }
    }
    let tally = check(&world, &oracle, &image, &destroyed, false);
    println!("and the audit trail: {tally:?}");
    assert_eq!((tally.recovered, tally.undecided), (tally.versions, 0));

    // Nor what redb writes down of its pages.
    for block in &world.places.witnesses[1..] {
        if destroyed.insert(*block) {
            destroy(&mut image, *block, &mut dice);
        }
    }
    let tally = check(&world, &oracle, &image, &destroyed, false);
    println!("and what tells newer pages from older ones: {tally:?}");
    assert!(tally.undecided > 0);
    let tally = check(&world, &oracle, &image, &destroyed, true);
    println!("undecided ones kept: {tally:?}");
    assert_eq!(tally.undecided, 0);
}

#[test]
fn without_redbs_header_the_newest_state_is_found() {
    let seed = seed(5);
    let world = world(seed, 80);
    let oracle = Oracle::new(&world.places);
    let mut image = world.image.clone();
    image.write(world.places.witnesses[0], &[0xee; BLOCK]);
    let tally = check(&world, &oracle, &image, &BTreeSet::new(), false);
    println!("{tally:?}");
    assert_eq!(
        (tally.whole, tally.recovered, tally.lost),
        (tally.versions, tally.versions, 0)
    );
}

/// With the header gone and other pages as well, what is left may all be of an older state. It was taken for the newest.
#[test]
fn without_redbs_header_and_other_pages_what_was_destroyed_stays_so() {
    let seed = seed(6);
    let world = world(seed, 80);
    let oracle = Oracle::new(&world.places);
    for round in 0..4 {
        let mut dice = Dice::part(seed, round);
        let mut image = world.image.clone();
        let mut destroyed = BTreeSet::from([world.places.witnesses[0]]);
        destroyed.extend(table_definitions(&world).into_iter().filter(|_| round % 2 == 1));
        while destroyed.len() < 20 {
            destroyed.insert(*dice.choose(&world.places.blocks));
        }
        for block in &destroyed {
            destroy(&mut image, *block, &mut dice);
        }
        println!("{:?}", check(&world, &oracle, &image, &destroyed, false));
    }
}

/// Leaves of table definitions, of the newest state and of older ones.
fn table_definitions(world: &World) -> Vec<u64> {
    let is_one = |block: &&u64| {
        let mut bytes = [0; BLOCK];
        assert!(world.image.read(**block, &mut bytes));
        let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
        bytes[0] == 1 && has(b"organization_names") && has(b"rewrap_jobs")
    };
    world.places.blocks.iter().filter(is_one).copied().collect()
}

/// Everything was a hole then, and what an incomplete audit trail did not rule out was left out.
#[test]
fn without_the_leaf_of_table_definitions_every_whole_value_is_recovered() {
    let seed = seed(7);
    let world = world(seed, 100);
    let oracle = Oracle::new(&world.places);
    for round in 0..8 {
        let mut dice = Dice::part(seed, round);
        let mut image = world.image.clone();
        let mut destroyed: BTreeSet<u64> = table_definitions(&world).into_iter().collect();
        assert!(!destroyed.is_empty());
        while destroyed.len() < 100 {
            let block = *dice.choose(&world.places.blocks);
            if !world.places.witnesses.contains(&block) {
                destroyed.insert(block);
            }
        }
        for block in &destroyed {
            destroy(&mut image, *block, &mut dice);
        }
        let tally = check(&world, &oracle, &image, &destroyed, false);
        println!("round {round}: {tally:?}");
    }
}

#[test]
fn a_store_with_segments_of_cells_is_found_by_its_id_alone() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 3);
    for n in 0..900 {
        store.create_organization(&format!("organization {n}")).unwrap();
    }
    store
        .organization("organization 899")
        .unwrap()
        .put("p", "last")
        .unwrap();
    let id = store.id();
    store.close().unwrap();
    let mut image = disk.contents();
    image.write(0, &[0xee; 8192]);
    let refused = options(&kms, 6).salvage_on_disks(
        SimulatedDisk::holding(image.clone()),
        SimulatedDisk::new(),
        &SalvageOptions::default(),
    );
    assert!(matches!(refused, Err(Error::NotAStore { .. })));
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default().store_id(id));
    assert!(report.is_complete(), "{:#?}", report.lost.first());
    assert_eq!(
        salvaged
            .organization("organization 899")
            .unwrap()
            .get("p")
            .unwrap()
            .value,
        b"last"
    );
}

#[test]
fn any_bytes_are_a_page_or_nothing() {
    let seed = seed(9);
    let mut dice = Dice::new(seed);
    for _ in 0..20_000 {
        let mut page: Vec<u8> = (0..dice.below(9000)).map(|_| dice.roll() as u8 & 3).collect();
        if page.len() > 4 {
            page[0] = dice.below(3) as u8;
        }
        let whole: Vec<bool> = (0..dice.below(4)).map(|_| dice.once_in(2)).collect();
        assert!(keystead::simulation::parse_page(&page, &whole) <= page.len());
    }
}
