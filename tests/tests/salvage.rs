//! Salvage: what is whole in a damaged file is in the new store, what is not is named, and nothing is wrong.

use keystead::simulation::{Places, places};
use keystead::{
    Backend, Batch, Error, LossKind, Organization, RewrapState, SalvageOptions, SalvageReport, Store,
    StoreOptions, VerifyOptions, Version, VersionState,
};
use keystead_tests::contents::Contents;
use keystead_tests::disk::SimulatedDisk;
use keystead_tests::env::{Dice, SimulatedEnv, seed};
use keystead_tests::kms::SimulatedKms;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Numbers of tables, as the format's page lists them.
const STORE: u8 = 0;
const ORGANIZATIONS: u8 = 1;
const KEYS: u8 = 4;
const EPOCHS: u8 = 5;
const SECRETS: u8 = 6;
const VERSIONS: u8 = 7;
const DATA_KEYS: u8 = 8;
const CHUNKS: u8 = 9;
const AUDIT: u8 = 13;
const BLOCK: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Live(Vec<u8>),
    Deleted(Vec<u8>),
    Destroyed,
}

/// Organization, path, version.
type Name = (String, String, u32);

/// A store that was closed, and what it holds.
struct World {
    kms: SimulatedKms,
    image: Contents,
    places: Places,
    model: BTreeMap<Name, State>,
}

fn options(kms: &SimulatedKms, seed: u64) -> StoreOptions {
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
fn world(seed: u64, secrets: u64) -> World {
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

trait Run {
    fn wait_run(&self);
}

impl Run for keystead::RewrapJob {
    fn wait_run(&self) {
        assert_eq!(self.run_here(|_| {}).unwrap().state, RewrapState::Done);
    }
}

fn add_key(organization: &Organization) -> keystead::RewrapJob {
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

/// The rows of a store by table and key, for the oracle: what a value needs, and where it stands.
struct Oracle<'w> {
    rows: BTreeMap<(u8, &'w [u8]), &'w keystead::simulation::RowPlace>,
    organizations: BTreeMap<String, [u8; 4]>,
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 127) << shift;
        shift += 7;
        if byte < 128 {
            return value;
        }
    }
}

impl<'w> Oracle<'w> {
    fn new(places: &'w Places) -> Self {
        let rows: BTreeMap<_, _> = places
            .rows
            .iter()
            .map(|row| ((row.table, row.key.as_slice()), row))
            .collect();
        let organizations = rows
            .range((ORGANIZATIONS, &[][..])..(ORGANIZATIONS + 1, &[][..]))
            .map(|((_, key), row)| {
                let name = &row.row[2..2 + row.row[1] as usize];
                (
                    String::from_utf8(name.to_vec()).unwrap(),
                    (*key).try_into().unwrap(),
                )
            })
            .collect();
        Self { rows, organizations }
    }

    fn prefixed(&self, table: u8, prefix: &[u8]) -> impl Iterator<Item = &'w keystead::simulation::RowPlace> {
        let prefix = prefix.to_vec();
        self.rows
            .range((table, &[][..])..(table + 1, &[][..]))
            .map(|(_, row)| *row)
            .filter(move |row| row.key.starts_with(&prefix))
    }

    fn secret_id(&self, organization: &str, path: &str) -> u64 {
        let key = [&self.organizations[organization][..], path.as_bytes()].concat();
        varint(&mut &self.rows[&(SECRETS, key.as_slice())].row[1..])
    }

    /// The blocks that a value's rows need: its own, and those of its epoch, keys and organization.
    fn blocks(&self, name: &Name) -> BTreeSet<u64> {
        let organization = &self.organizations[&name.0][..];
        let secret_key = [organization, name.1.as_bytes()].concat();
        let secret_id = self.secret_id(&name.0, &name.1).to_be_bytes();
        let version_key = [organization, &secret_id, &name.2.to_be_bytes()].concat();
        let data_key = self.rows[&(DATA_KEYS, version_key.as_slice())];
        let epoch = u32::from_le_bytes(data_key.row[1..5].try_into().unwrap()).to_be_bytes();
        let epoch_key = [organization, &epoch].concat();
        let version = self.rows[&(VERSIONS, version_key.as_slice())];
        let mut needed = vec![
            self.rows[&(ORGANIZATIONS, organization)],
            self.rows[&(EPOCHS, epoch_key.as_slice())],
            self.rows[&(SECRETS, secret_key.as_slice())],
            version,
            data_key,
        ];
        needed.extend(self.prefixed(KEYS, organization));
        // Header: when, size, no content type, no labels, then the alternative.
        let mut header = &version.row[5..];
        varint(&mut header);
        varint(&mut header);
        assert_eq!(header[..2], [0, 0]);
        if header[2] == 1 {
            let value_id = &header[3 + 32..3 + 32 + 16];
            needed.extend(self.prefixed(CHUNKS, &[organization, value_id].concat()));
        }
        needed
            .into_iter()
            .flat_map(|row| row.blocks.iter().copied())
            .collect()
    }
}

fn destroy(image: &mut Contents, offset: u64, dice: &mut Dice) {
    let noise: Vec<u8> = (0..BLOCK).map(|_| dice.roll() as u8).collect();
    image.write(offset, &noise);
}

fn salvage(
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

fn assert_sound(store: &Store) {
    let report = store.verify(VerifyOptions { open_values: true }, |_| {}).unwrap();
    assert!(report.is_clean() && report.unopened.is_empty(), "{report:#?}");
}

/// What became of every version: read back from the new store.
fn found(store: &Store) -> BTreeMap<Name, Option<State>> {
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
struct Tally {
    versions: usize,
    whole: usize,
    recovered: usize,
    lost: usize,
    undecided: usize,
}

/// Salvages one damaged image, and checks the outcome against the model: every whole value is there, save where the blocks that say
/// which pages are of the newest state are destroyed as well. Then, unless it is asked for, one is left out of which nothing says any
/// more whether it was destroyed.
fn check(
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
fn go_on(store: &Store) {
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

/// The page that says which of the journal's records are news was destroyed, and those from before the last checkpoint were taken for
/// some: they undid that checkpoint.
#[test]
fn records_from_before_the_last_checkpoint_are_no_news() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 1);
    let acme = store.organization("acme").unwrap();
    let first = Version::new(1).unwrap();
    let last = (1..2000)
        .find(|n| {
            let path = format!("s/{n}");
            acme.put(&path, "to be destroyed").unwrap();
            let before = disk.changes();
            acme.destroy(&path, first).unwrap();
            // A journaled commit is a record, its mark, and a sync.
            disk.changes() - before > 8
        })
        .expect("one of them is a checkpoint");
    drop(acme);
    store.close().unwrap();
    let mut image = disk.contents();
    destroy_rows(&mut image, &disk, |row| row.table == STORE);
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default());
    assert!(report.is_complete(), "{report:#?}");
    assert_eq!((report.versions, report.destroyed), (1, last));
    let acme = salvaged.organization("acme").unwrap();
    for n in 1..=last {
        let gone = acme.get(&format!("s/{n}")).unwrap_err();
        assert!(matches!(gone, Error::VersionDestroyed { .. }), "{gone}");
    }
}

/// Epochs and jobs name keys: a salvaged store did not verify clean when one of those was lost.
#[test]
fn a_lost_key_leaves_its_name() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 20);
    let acme = store.organization("acme").unwrap();
    add_key(&acme).wait_run();
    acme.keys().disable_all().unwrap().wait_run();
    drop(acme);
    store.close().unwrap();
    let mut image = disk.contents();
    let mut dice = Dice::new(1);
    // Wherever it was ever written: its record, and the audit trail's word of it.
    for block in places(disk.clone()).unwrap().blocks {
        let mut bytes = [0; BLOCK];
        assert!(image.read(block, &mut bytes));
        if bytes.windows(12).any(|window| window == b"customer-kms") {
            destroy(&mut image, block, &mut dice);
        }
    }
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default());
    let lost: Vec<LossKind> = report.lost.iter().map(|loss| loss.kind).collect();
    assert!(lost.contains(&LossKind::Key), "{report:#?}");
    let acme = salvaged.organization("acme").unwrap();
    let keys = acme.keys().list().unwrap();
    let own = keys.iter().find(|key| key.name == "own").unwrap();
    assert_eq!(own.state, keystead::KeyState::Disabled);
}

/// The job that has a second key wrap what it does not wrap yet moves nothing, and a salvage took it for one that is over: nothing
/// went on to say that an outage of the first KMS would be the loss of those epochs' values.
#[test]
fn what_a_second_key_does_not_wrap_yet_is_missed_in_the_new_store_too() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 20);
    let acme = store.organization("acme").unwrap();
    add_key(&acme).wait_run();
    let config = serde_json::json!({ "key": "second" });
    acme.keys().add("second", "customer-kms", config).unwrap();
    acme.keys().set_second("second", false).unwrap();
    kms.fail("second", keystead::backend::ErrorCode::Unavailable);
    let status = acme.keys().rotate("own").unwrap().run_here(|_| {}).unwrap();
    assert!(matches!(status.state, RewrapState::Blocked(_)), "{status:?}");
    let missing = |acme: &Organization| acme.keys().second().unwrap().unwrap().missing;
    assert!(missing(&acme) > 0);
    drop(acme);
    store.close().unwrap();
    kms.restore("second");
    let (_, salvaged) = salvage_of(&kms, disk.contents(), &SalvageOptions::default());
    let acme = salvaged.organization("acme").unwrap();
    assert!(missing(&acme) > 0);
    let status = acme.rewrap_job().unwrap().run_here(|_| {}).unwrap();
    assert_eq!(status.state, RewrapState::Done);
    assert_eq!(missing(&acme), 0);
    assert_sound(&salvaged);
}

/// A small store of one organization, and the disk that it is on.
fn small(kms: &SimulatedKms, secrets: u32) -> (Store, Arc<SimulatedDisk>) {
    let disk = SimulatedDisk::new();
    let store = options(kms, 5).create_on_disk(disk.clone()).unwrap();
    let acme = store.create_organization("acme").unwrap();
    for n in 0..secrets {
        acme.put(&format!("s/{n}"), format!("value {n}")).unwrap();
    }
    (store, disk)
}

fn salvage_of(kms: &SimulatedKms, image: Contents, asked: &SalvageOptions) -> (SalvageReport, Store) {
    let new = SimulatedDisk::new();
    let report = options(kms, 6)
        .salvage_on_disks(SimulatedDisk::holding(image), new.clone(), asked)
        .unwrap();
    let store = options(kms, 7).open_on_disk(new).unwrap();
    assert_sound(&store);
    (report, store)
}

/// Destroys the blocks of the rows of this table that are wanted.
fn destroy_rows(
    image: &mut Contents,
    disk: &Arc<SimulatedDisk>,
    wanted: impl Fn(&keystead::simulation::RowPlace) -> bool,
) {
    let mut dice = Dice::new(3);
    let places = places(disk.clone()).unwrap();
    for row in places.rows.iter().filter(|row| wanted(row)) {
        for offset in &row.blocks {
            destroy(image, *offset, &mut dice);
        }
    }
}

#[test]
fn what_only_the_journal_has_is_salvaged() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 20);
    store
        .organization("acme")
        .unwrap()
        .destroy("s/3", Version::new(1).unwrap())
        .unwrap();
    // As a process that was killed leaves it.
    let image = disk.contents();
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default());
    assert!(report.is_complete(), "{report:#?}");
    assert_eq!((report.opened, report.destroyed), (19, 1));
    let acme = salvaged.organization("acme").unwrap();
    assert_eq!(acme.get("s/19").unwrap().value, b"value 19");
    assert!(matches!(acme.get("s/3"), Err(Error::VersionDestroyed { .. })));
}

#[test]
fn a_record_missing_from_the_journal_is_said_and_what_follows_it_is_kept() {
    let kms = SimulatedKms::new();
    let (_store, disk) = small(&kms, 6);
    let mut image = disk.contents();
    let mut journal = vec![0; 4 << 20];
    assert!(image.read(65_536, &mut journal));
    // The last two blocks hold marks.
    let records: Vec<usize> = (0..journal.len() - 2 * BLOCK)
        .step_by(512)
        .filter(|at| journal[*at..].starts_with(b"KJRN"))
        .collect();
    image.write(65_536 + records[records.len() - 3] as u64 + 100, &[0xee; 64]);
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default());
    assert_eq!(report.journal_records_lost, 1);
    let kinds: Vec<LossKind> = report.lost.iter().map(|loss| loss.kind).collect();
    assert!(
        kinds.contains(&LossKind::Journal) && kinds.contains(&LossKind::AuditRecords),
        "{report:#?}"
    );
    let acme = salvaged.organization("acme").unwrap();
    for n in [0, 1, 2, 4, 5] {
        assert_eq!(
            acme.get(&format!("s/{n}")).unwrap().value,
            format!("value {n}").as_bytes()
        );
    }
    assert!(acme.get("s/3").is_err());
}

#[test]
fn an_organization_whose_kms_is_out_of_reach_is_salvaged_by_its_tags() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 10);
    store.close().unwrap();
    kms.fail("managed", keystead::backend::ErrorCode::Unavailable);
    let new = SimulatedDisk::new();
    let report = options(&kms, 6)
        .salvage_on_disks(
            SimulatedDisk::holding(disk.contents()),
            new.clone(),
            &SalvageOptions::default(),
        )
        .unwrap();
    assert!(report.is_complete() && report.unopened.len() == 1, "{report:#?}");
    assert_eq!((report.opened, report.tagged, report.unproven), (0, 10, 0));
    kms.restore("managed");
    let store = options(&kms, 7).open_on_disk(new).unwrap();
    assert_sound(&store);
    assert_eq!(
        store.organization("acme").unwrap().get("s/9").unwrap().value,
        b"value 9"
    );
}

#[test]
fn values_whose_epoch_is_gone_are_lost_by_name_and_a_rotation_makes_the_organization_whole() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 4);
    store.close().unwrap();
    let mut image = disk.contents();
    // The first shred cell: that of the only wrap.
    image.write(8192, &[0x11; 64]);
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default());
    let lost: Vec<_> = report.lost.iter().filter_map(|loss| loss.path.clone()).collect();
    assert_eq!(lost, ["s/0", "s/1", "s/2", "s/3"]);
    assert!(report.lost.iter().any(|loss| loss.kind == LossKind::Epoch));
    let acme = salvaged.organization("acme").unwrap();
    assert!(matches!(acme.get("s/1"), Err(Error::VersionLost { .. })));
    acme.keys().rotate("managed").unwrap();
    acme.put("s/1", "again").unwrap();
    assert_eq!(
        acme.get("s/1").unwrap().version.get(),
        2,
        "no number is given twice"
    );
    assert_sound(&salvaged);
}

#[test]
fn a_lost_epoch_record_and_audit_records_leave_chains_that_say_so() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 200);
    let acme = store.organization("acme").unwrap();
    for _ in 0..3 {
        acme.keys().rotate("managed").unwrap().wait_run();
    }
    let before = acme.audit(0, 10_000).unwrap();
    drop(acme);
    store.close().unwrap();
    drop(store);
    let mut image = disk.contents();
    let middle =
        |row: &keystead::simulation::RowPlace| row.table == AUDIT && row.key.ends_with(&100u64.to_be_bytes());
    destroy_rows(&mut image, &disk, |row| middle(row));
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default());
    assert_eq!(report.versions, 200);
    let acme = salvaged.organization("acme").unwrap();
    let after = acme.audit(0, 10_000).unwrap();
    let kept = report.audit_kept as usize;
    assert!(kept < 100 && after[..kept] == before[..kept]);
    let keystead::AuditEvent::Salvaged {
        old_sequence,
        records_lost,
        ..
    } = &after[kept].event
    else {
        panic!("{:?}", after[kept]);
    };
    assert_eq!(*old_sequence as usize, before.len());
    assert_eq!(
        *records_lost,
        old_sequence - report.audit_kept - report.audit_carried
    );
    let carried: Vec<_> = after[kept + 1..].iter().collect();
    assert_eq!(carried.len() as u64, report.audit_carried);
    for record in carried {
        let keystead::AuditEvent::Carried {
            sequence,
            event,
            at_ms,
            ..
        } = &record.event
        else {
            panic!("{record:?}");
        };
        let old = &before[*sequence as usize - 1];
        assert_eq!((event.event().as_ref(), at_ms), (Some(&old.event), &old.at_ms));
    }

    // A salvaged store that is damaged and salvaged again carries nothing inside of what was carried.
    let mut image = disk.contents();
    destroy_rows(&mut image, &disk, |row| row.table == EPOCHS || middle(row));
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default());
    let epochs = salvaged.organization("acme").unwrap().epochs().unwrap();
    assert_eq!(epochs.len(), 4);
    let lost = report
        .lost
        .iter()
        .filter(|loss| loss.kind == LossKind::Epoch)
        .count();
    println!("{lost} epochs lost, {} values of 200 kept", report.versions);
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
