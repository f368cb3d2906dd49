//! A salvage, judged by the model of what the store held and by what was destroyed.

use crate::oracle::Oracle;
use crate::world::{Name, Run, State, World, assert_sound, options};
use keystead::{LossKind, SalvageOptions, SalvageReport, Store, VersionState};
use keystead_tests::contents::Contents;
use keystead_tests::disk::SimulatedDisk;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) fn salvage(
    world: &World,
    image: Contents,
    options_of: &SalvageOptions,
) -> (SalvageReport, Arc<SimulatedDisk>) {
    let (damaged, new) = (SimulatedDisk::holding(image.clone()), SimulatedDisk::new());
    let report = options(&world.kms, 77)
        .salvage_on_disks(damaged.clone(), new.clone(), options_of)
        .unwrap();
    assert_eq!(damaged.changes(), 0, "the damaged file is never written");
    (report, new)
}

/// What became of every version: read back from the new store.
pub(crate) fn found(store: &Store) -> BTreeMap<Name, Option<State>> {
    let mut found = BTreeMap::new();
    for organization in store.organizations(None, 1000).unwrap().items {
        let organization = store.organization(&organization.name).unwrap();
        for secret in organization.list("", None, 10_000).unwrap().items {
            for info in organization.history(&secret.path, None, 10_000).unwrap() {
                let read = || {
                    organization
                        .get_version(&secret.path, info.version)
                        .unwrap()
                        .value
                };
                let state = match info.state {
                    VersionState::Live => Some(State::Live(read().as_ref().to_vec())),
                    VersionState::Deleted { .. } => {
                        organization.undelete(&secret.path, info.version).unwrap();
                        let value = read().as_ref().to_vec();
                        organization.delete(&secret.path, info.version).unwrap();
                        Some(State::Deleted(value))
                    }
                    VersionState::Destroyed { .. } => Some(State::Destroyed),
                    VersionState::Lost { .. } => None,
                };
                let name = organization.name().to_string();
                found.insert((name, secret.path.clone(), info.version.get()), state);
            }
        }
    }
    found
}

/// How a round went.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) versions: usize,
    pub(crate) whole: usize,
    pub(crate) recovered: usize,
    pub(crate) lost: usize,
    pub(crate) undecided: usize,
}

/// Salvages one damaged image, and checks the outcome against the model: every whole value is there, save where the blocks that say
/// which pages are of the newest state are destroyed as well. Then, unless it is asked for, one is left out of which nothing says any
/// more whether it was destroyed.
pub(crate) fn check(
    world: &World,
    oracle: &Oracle<'_>,
    image: &Contents,
    destroyed: &BTreeSet<u64>,
    keep: bool,
) -> Tally {
    let asked = SalvageOptions::default().keep_undecided(keep);
    let (report, disk) = salvage(world, image.clone(), &asked);
    let store = options(&world.kms, 78).open_on_disk(disk).unwrap();
    assert_sound(&store);
    let found = found(&store);
    let mut lost = BTreeMap::new();
    let mut unnamed = BTreeSet::new();
    let mut organizations_lost = BTreeSet::new();
    for loss in &report.lost {
        match (loss.kind, &loss.organization, &loss.path, loss.version) {
            (LossKind::Organization, ..) => drop(organizations_lost.insert(loss.organization_id.unwrap())),
            (LossKind::Version | LossKind::Undecided, Some(organization), Some(path), Some(version)) => {
                lost.insert((organization.clone(), path.clone(), version.get()), loss.kind);
            }
            (LossKind::Version, _, None, Some(version)) => {
                unnamed.insert((
                    loss.organization_id.unwrap(),
                    loss.secret_id.unwrap(),
                    version.get(),
                ));
            }
            _ => {}
        }
    }
    let told = destroyed.is_disjoint(&world.places.witnesses.iter().copied().collect());
    let mut tally = Tally::default();
    for (name, state) in &world.model {
        let seen = found.get(name).cloned().flatten();
        if *state == State::Destroyed {
            let gone = matches!(seen, None | Some(State::Destroyed));
            assert!(gone || keep, "{name:?} was destroyed, and is there again");
            continue;
        }
        tally.versions += 1;
        let whole = oracle.blocks(name).is_disjoint(destroyed);
        tally.whole += usize::from(whole);
        match (&seen, state) {
            (Some(State::Live(seen) | State::Deleted(seen)), State::Live(put) | State::Deleted(put)) => {
                assert!(seen == put, "{name:?} has another value");
                assert!(!lost.contains_key(name), "{name:?} is there, and said to be lost");
                tally.recovered += 1;
            }
            (Some(State::Destroyed), _) => panic!("{name:?} was never destroyed"),
            _ => {
                let id = u32::from_be_bytes(oracle.organizations[&name.0]);
                let unnamed = unnamed.contains(&(id, oracle.secret_id(&name.0, &name.1), name.2));
                let kind = lost.get(name);
                assert!(kind.is_some() || unnamed, "{name:?} is gone and not named");
                assert!(
                    !whole || kind == Some(&LossKind::Undecided) && !keep && !told,
                    "{name:?} is whole and was not recovered: {:?}",
                    report
                        .lost
                        .iter()
                        .find(|loss| loss.path.as_ref() == Some(&name.1))
                );
                tally.undecided += usize::from(kind == Some(&LossKind::Undecided));
                tally.lost += 1;
            }
        }
    }
    assert_eq!(
        report.versions as usize,
        found
            .values()
            .filter(|state| matches!(state, Some(State::Live(_) | State::Deleted(_))))
            .count()
    );
    assert_eq!(report.opened, report.versions, "every KMS answered");
    go_on(&store);
    tally
}

/// A salvaged store is a store: writes go on, jobs end, keys rotate.
pub(crate) fn go_on(store: &Store) {
    for info in store.organizations(None, 1000).unwrap().items {
        let organization = store.organization(&info.name).unwrap();
        if let Ok(job) = organization.rewrap_job() {
            job.wait_run();
        }
        let default = organization
            .keys()
            .list()
            .unwrap()
            .into_iter()
            .find(|key| key.default)
            .unwrap();
        organization.keys().rotate(&default.name).unwrap().wait_run();
        let version = organization.put("after/salvage", "goes on").unwrap();
        assert_eq!(organization.get("after/salvage").unwrap().version, version);
    }
    assert_sound(store);
}
