//! A small store, its salvage, and the destruction of chosen rows.

use crate::world::{assert_sound, destroy, options};
use keystead::simulation::{RowPlace, places};
use keystead::{SalvageOptions, SalvageReport, Store};
use keystead_tests::contents::Contents;
use keystead_tests::disk::SimulatedDisk;
use keystead_tests::env::Dice;
use keystead_tests::kms::SimulatedKms;
use std::sync::Arc;

/// A small store of one organization, and the disk that it is on.
pub(crate) fn small(kms: &SimulatedKms, secrets: u32) -> (Store, Arc<SimulatedDisk>) {
    let disk = SimulatedDisk::new();
    let store = options(kms, 5).create_on_disk(disk.clone()).unwrap();
    let acme = store.create_organization("acme").unwrap();
    for n in 0..secrets {
        acme.put(&format!("s/{n}"), format!("value {n}")).unwrap();
    }
    (store, disk)
}

pub(crate) fn salvage_of(
    kms: &SimulatedKms,
    image: Contents,
    asked: &SalvageOptions,
) -> (SalvageReport, Store) {
    let new = SimulatedDisk::new();
    let report = options(kms, 6)
        .salvage_on_disks(SimulatedDisk::holding(image), new.clone(), asked)
        .unwrap();
    let store = options(kms, 7).open_on_disk(new).unwrap();
    assert_sound(&store);
    (report, store)
}

/// Destroys the blocks of the rows of this table that are wanted.
pub(crate) fn destroy_rows(
    image: &mut Contents,
    disk: &Arc<SimulatedDisk>,
    wanted: impl Fn(&RowPlace) -> bool,
) {
    let mut dice = Dice::new(3);
    let places = places(disk.clone()).unwrap();
    for row in places.rows.iter().filter(|row| wanted(row)) {
        for offset in &row.blocks {
            destroy(image, *offset, &mut dice);
        }
    }
}
