//! Stores that were closed, and models of what they hold.

use keystead::simulation::{Places, places};
use keystead::{Backend, Batch, Organization, RewrapState, Store, StoreOptions, VerifyOptions, Version};
use keystead_tests::contents::Contents;
use keystead_tests::disk::SimulatedDisk;
use keystead_tests::env::{Dice, SimulatedEnv};
use keystead_tests::kms::SimulatedKms;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const BLOCK: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    Live(Vec<u8>),
    Deleted(Vec<u8>),
    Destroyed,
}

/// Organization, path, version.
pub(crate) type Name = (String, String, u32);

/// A store that was closed, and what it holds.
pub(crate) struct World {
    pub(crate) kms: SimulatedKms,
    pub(crate) image: Contents,
    pub(crate) places: Places,
    pub(crate) model: BTreeMap<Name, State>,
}

pub(crate) fn options(kms: &SimulatedKms, seed: u64) -> StoreOptions {
    Store::options()
        .backend(Backend::new(kms.clone()).named("managed"))
        .backend(Backend::new(kms.clone()).named("customer-kms"))
        .env(Arc::new(SimulatedEnv::new(seed)))
        .kms_attempts_max(1)
        .background_rewrap(false)
        .rewrap_batch(50)
}

fn value(dice: &mut Dice) -> Vec<u8> {
    let bytes = match dice.below(40) {
        0 => 17_000 + dice.below(200_000),
        1..3 => 5_000 + dice.below(11_000),
        3..6 => 1_000 + dice.below(3_000),
        _ => dice.below(200),
    };
    let mut value = vec![0; bytes as usize];
    value.iter_mut().for_each(|byte| *byte = dice.roll() as u8);
    value
}

/// Four organizations, of which one has changed its key, one is in the middle of it, and one has just begun.
pub(crate) fn world(seed: u64, secrets: u64) -> World {
    let (kms, disk) = (SimulatedKms::new(), SimulatedDisk::new());
    let mut dice = Dice::new(seed);
    let mut model = BTreeMap::new();
    let store = options(&kms, seed).create_on_disk(disk.clone()).unwrap();
    let names = ["moved", "moving", "beginning", "managed"];
    for name in names {
        store.create_organization(name).unwrap();
    }
    let put = |organization: &Organization, dice: &mut Dice, model: &mut BTreeMap<Name, State>| {
        let mut batch = Batch::new();
        let mut values = Vec::new();
        for _ in 0..1 + dice.below(8) {
            let path = format!("{}/s{}", dice.below(7), dice.below(secrets));
            let value = value(dice);
            batch = batch.put(&path, value.clone()).unwrap();
            values.push((path, value));
        }
        let versions = organization.commit(batch).unwrap();
        for ((path, value), version) in values.into_iter().zip(versions) {
            let name = (organization.name().to_string(), path, version.get());
            model.insert(name, State::Live(value));
        }
    };
    for round in 0..secrets {
        for name in names {
            let organization = store.organization(name).unwrap();
            put(&organization, &mut dice, &mut model);
        }
        if round == secrets / 2 {
            add_key(&store.organization("moved").unwrap()).wait_run();
        }
        if dice.once_in(2) {
            change(&store, &mut dice, &mut model);
        }
    }
    add_key(&store.organization("beginning").unwrap());
    add_key(&store.organization("moving").unwrap());
    store.close().unwrap();
    drop(store);
    // The job stops in the middle, since its target may wrap no more.
    let store = options(&kms, seed + 1)
        .wraps_per_epoch_max(secrets)
        .open_on_disk(disk.clone())
        .unwrap();
    let moving = store.organization("moving").unwrap();
    moving.rewrap_job().unwrap().run_here(|_| {}).unwrap_err();
    let status = moving.rewrap_status().unwrap().unwrap();
    assert!(status.done > 0 && status.remaining > 0, "{status:?}");
    drop(moving);
    store.close().unwrap();
    drop(store);
    World {
        kms,
        places: places(disk.clone()).unwrap(),
        image: disk.contents(),
        model,
    }
}

pub(crate) trait Run {
    fn wait_run(&self);
}

impl Run for keystead::RewrapJob {
    fn wait_run(&self) {
        assert_eq!(self.run_here(|_| {}).unwrap().state, RewrapState::Done);
    }
}

pub(crate) fn add_key(organization: &Organization) -> keystead::RewrapJob {
    let key = serde_json::json!({ "key": organization.name().as_str() });
    organization.keys().add("own", "customer-kms", key).unwrap()
}

/// Deletes, undeletes or destroys one version.
fn change(store: &Store, dice: &mut Dice, model: &mut BTreeMap<Name, State>) {
    let names: Vec<_> = model.keys().cloned().collect();
    let name = dice.choose(&names).clone();
    let (organization, path, version) = (
        store.organization(&name.0).unwrap(),
        &name.1,
        Version::new(name.2).unwrap(),
    );
    let state = model.get_mut(&name).unwrap();
    match (dice.below(3), state.clone()) {
        (_, State::Destroyed) => {}
        (0, State::Live(value)) => {
            organization.delete(path, version).unwrap();
            *state = State::Deleted(value);
        }
        (1, State::Deleted(value)) => {
            organization.undelete(path, version).unwrap();
            *state = State::Live(value);
        }
        _ => {
            organization.destroy(path, version).unwrap();
            *state = State::Destroyed;
        }
    }
}

pub(crate) fn destroy(image: &mut Contents, offset: u64, dice: &mut Dice) {
    let noise: Vec<u8> = (0..BLOCK).map(|_| dice.roll() as u8).collect();
    image.write(offset, &noise);
}

pub(crate) fn assert_sound(store: &Store) {
    let report = store.verify(VerifyOptions { open_values: true }, |_| {}).unwrap();
    assert!(report.is_clean() && report.unopened.is_empty(), "{report:#?}");
}
