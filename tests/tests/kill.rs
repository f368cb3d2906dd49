//! A real process, killed by signal 9 while it re-wraps and writes, while it opens, closes or creates a store, and in the middle
//! of any kind of change: nothing acknowledged is lost, nothing is done twice.

#![allow(
    clippy::print_stdout,
    reason = "the seed, and what came of it, are part of the test"
)]
#![allow(clippy::disallowed_methods, reason = "it measures how long things take")]

mod common;

use common::{assert_sound, check_filled, fill};
use keystead::{AuditEvent, Backend, EpochState, Store, StoreOptions};
use keystead_managed::ManagedBackend;
use keystead_tests::observe::{observe, verify};
use keystead_tests::past::{Past, keyring_options};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SECRETS: u32 = 20_000;
const KILLS: u64 = 50;
/// Data keys that a process may move. One that is killed too late only writes from then on: a fast machine was done with the whole
/// job after 43 kills.
const SHARE: u64 = 300;
/// Data keys in a batch, at most: so few that a share takes a while.
const BATCH: u64 = 8;
/// Microseconds that a process works, at most; less where a share is moved sooner.
const WORKS: u64 = 30_000;

fn options(directory: &Path) -> StoreOptions {
    Store::options()
        .backend(Backend::new(ManagedBackend::keyring(directory.join("managed.keyring"))).named("managed"))
        .backend(
            Backend::new(ManagedBackend::keyring(directory.join("customer.keyring"))).named("customer-kms"),
        )
}

/// A number from a seed and an index, the same in every run.
fn random(seed: u64, index: u64) -> u64 {
    let hash = blake3::hash(&[seed.to_le_bytes(), index.to_le_bytes()].concat());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap())
}

/// `KEYSTEAD_SEED`, else one from the system, so that each run kills elsewhere. Printed, so that it can be repeated.
fn seed() -> u64 {
    let seed = std::env::var("KEYSTEAD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| {
            let mut bytes = [0; 8];
            std::fs::File::open("/dev/urandom")
                .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
                .unwrap();
            u64::from_le_bytes(bytes)
        });
    println!("KEYSTEAD_SEED={seed}");
    seed
}

#[test]
fn fifty_kills_during_a_re_wrap_of_20_000_secrets_lose_nothing_and_repeat_nothing() {
    let seed = seed();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.keystead");
    {
        let store = options(directory.path())
            .background_rewrap(false)
            .create(&path)
            .unwrap();
        let acme = store.create_organization("acme").unwrap();
        fill(&acme, SECRETS);
        acme.keys()
            .add("acme-cmk", "customer-kms", serde_json::json!({}))
            .unwrap();
        store.close().unwrap();
    }

    let mut acknowledged = BTreeMap::new();
    let (mut in_the_middle, mut works) = (0, WORKS);
    for run in 0..KILLS {
        let mut child = Command::new(env!("CARGO_BIN_EXE_crash-child"))
            .arg(&path)
            .arg(directory.path())
            .arg((1 + random(seed, KILLS + run) % BATCH).to_string())
            .args([SHARE.to_string(), run.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The clock starts when the store is open: what is to be killed is the work, not the start of a process.
        let (mut finished, mut moved_its_share) = (false, false);
        if run % 5 != 4 {
            assert_eq!(lines.next().unwrap().unwrap(), "open");
        }
        std::thread::sleep(Duration::from_micros(random(seed, run) % works));
        child.kill().unwrap();
        for line in lines {
            let line = line.unwrap();
            if let Some((path, value)) = line.strip_prefix("put ").and_then(|put| put.split_once(' ')) {
                acknowledged.insert(path.to_owned(), value.to_owned());
            }
            finished |= line == "done";
            moved_its_share |= line == "share";
        }
        child.wait().unwrap();
        assert!(!finished, "the job was done before the last kill");
        in_the_middle += u64::from(!moved_its_share);
        // Nine of ten are to be killed before they have moved their share, however fast the disk.
        works = match moved_its_share {
            true => (works / 4).max(100),
            false => (works * 9 / 8).min(WORKS),
        };
    }
    println!(
        "{in_the_middle} of {KILLS} processes were killed while they re-wrapped, the others while they wrote; {} puts were acknowledged",
        acknowledged.len()
    );
    assert!(
        in_the_middle >= KILLS / 2,
        "only {in_the_middle} were killed while they re-wrapped"
    );

    let store = options(directory.path())
        .background_rewrap(false)
        .open(&path)
        .unwrap();
    let moved_before = store
        .organization("acme")
        .unwrap()
        .rewrap_status()
        .unwrap()
        .unwrap()
        .done;
    println!("{moved_before} of {SECRETS} data keys were moved by those that were killed");
    assert!((1..u64::from(SECRETS)).contains(&moved_before));
    store.close().unwrap();
    drop(store);

    let store = options(directory.path()).open(&path).unwrap();
    let acme = store.organization("acme").unwrap();
    if let Ok(job) = acme.rewrap_job() {
        job.wait_for(Duration::from_secs(120), |_| {})
            .unwrap()
            .expect("the job finishes once nobody kills it");
    }
    check_filled(&acme, SECRETS);
    for (path, value) in &acknowledged {
        assert_eq!(
            acme.get(path).unwrap().value,
            value.as_bytes(),
            "{path} was acknowledged"
        );
    }
    let epochs = acme.epochs().unwrap();
    assert_eq!((epochs[0].state, epochs[0].references), (EpochState::Retired, 0));
    assert!(epochs[1].references >= u64::from(SECRETS) + acknowledged.len() as u64);
    assert_eq!(
        moved_in_batches(&acme),
        u64::from(SECRETS),
        "no data key was moved twice"
    );
    assert_sound(&store);
}

/// Data keys moved, by the audit records of the batches, whose numbers must be gapless: no batch was done twice.
fn moved_in_batches(acme: &keystead::Organization) -> u64 {
    let (mut moved_in_all, mut last_batch, mut after) = (0, 0, 0);
    loop {
        let records = acme.audit(after, 10_000).unwrap();
        let Some(last) = records.last() else {
            return moved_in_all;
        };
        after = last.sequence;
        for record in records {
            if let AuditEvent::RewrapBatch {
                batch, moved, failed, ..
            } = record.event
            {
                assert_eq!((batch, failed), (last_batch + 1, 0));
                last_batch = batch;
                moved_in_all += moved;
            }
        }
    }
}

/// What the process was doing when it was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    Opening,
    Working,
    Closing,
}

/// Actions of a run that nobody kills.
const ACTIONS: u64 = 12;

/// How long to wait at most before the next kill, by whether this one came too late.
fn next_wait(micros: u64, too_late: bool) -> u64 {
    if too_late {
        (micros / 2).max(500)
    } else {
        (micros * 3 / 2).min(1_000_000)
    }
}

#[test]
fn kills_while_it_opens_works_or_closes_lose_nothing_of_any_kind_of_change() {
    let seed = seed();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.keystead");
    drop(keyring_options(directory.path()).create(&path).unwrap());
    let mut past = Past::new(seed);
    let mut killed: BTreeMap<Doing, u64> = BTreeMap::new();
    let mut acknowledged = 0;
    // How long opening and closing take here, from the runs that were let go on.
    let mut usual = [
        (Doing::Opening, 5_000),
        (Doing::Working, 3_000),
        (Doing::Closing, 5_000),
    ];
    for run in 0..60 {
        let index = usize::try_from(run % 3).unwrap();
        let (doing, micros) = usual[index];
        let dice = random(seed, run);
        let mut child = Command::new(env!("CARGO_BIN_EXE_life-child"))
            .args(["live".as_ref(), path.as_os_str(), directory.path().as_os_str()])
            .args([seed.to_string(), past.to_string(), ACTIONS.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let mut seen: Vec<String> = Vec::new();
        let mut until = |line: &str, times: u64, seen: &mut Vec<String>| {
            let count = |seen: &Vec<String>| seen.iter().filter(|other| *other == line).count() as u64;
            while count(seen) < times {
                match lines.next() {
                    Some(next) => seen.push(next),
                    None => break,
                }
            }
        };
        match doing {
            Doing::Opening => until("opening", 1, &mut seen),
            Doing::Working => until("done", dice % ACTIONS, &mut seen),
            Doing::Closing => until("closing", 1, &mut seen),
        }
        let began = std::time::Instant::now();
        let is_watched = run < 3;
        if is_watched {
            let ends = [("open", 1), ("done", ACTIONS), ("closed", 1)][index];
            until(ends.0, ends.1, &mut seen);
            usual[index].1 = u64::try_from(began.elapsed().as_micros()).unwrap().max(500);
        } else {
            std::thread::sleep(Duration::from_micros(random(dice, 1) % (micros * 5 / 4)));
        }
        child.kill().unwrap();
        seen.extend(lines);
        child.wait().unwrap();
        let has = |line: &str| seen.iter().any(|other| other == line);
        let was = match (has("open"), has("closing"), has("closed")) {
            (_, _, true) => None,
            (_, true, false) => Some(Doing::Closing),
            (true, false, false) => Some(Doing::Working),
            (false, false, false) => Some(Doing::Opening),
        };
        if let Some(was) = was {
            *killed.entry(was).or_default() += 1;
        }
        if !is_watched {
            // What was measured once, on a machine that stood still, must not have all the others come too late.
            usual[index].1 = next_wait(micros, was.is_none_or(|was| was > doing));
        }

        let done = u32::try_from(seen.iter().filter(|line| *line == "done").count()).unwrap();
        acknowledged += done;
        let story =
            format!("KEYSTEAD_SEED={seed}, run {run} after {past}, {done} actions acknowledged, then killed");
        let (model, in_flight) = past.future().nth(done as usize).expect("the future has no end");
        // Every other run finds what was killed as it was left: a copy is looked at.
        let copy = directory.path().join("copy.keystead");
        let look_at = if run % 2 == 0 { &path } else { &copy };
        if run % 2 == 1 {
            std::fs::copy(&path, &copy).unwrap();
        }
        let store = keyring_options(directory.path())
            .open(look_at)
            .unwrap_or_else(|error| panic!("{story}: {error}"));
        let view = observe(&store)
            .unwrap_or_else(|wrong| panic!("{story}: {wrong}"))
            .view;
        if view == model.view {
            past.note(done);
        } else {
            assert!(
                view == model.after(&in_flight).view,
                "{story}: neither what was acknowledged nor that with {in_flight:?} is there"
            );
            past.note(done + 1);
        }
        verify(&store).unwrap_or_else(|wrong| panic!("{story}: {wrong}"));
    }
    println!("{acknowledged} changes acknowledged, 0 lost; killed while {killed:?}");
    for doing in [Doing::Opening, Doing::Working, Doing::Closing] {
        assert!(
            killed.contains_key(&doing),
            "never killed while {doing:?}: {killed:?}"
        );
    }
}

#[test]
fn a_process_killed_while_it_creates_a_store_leaves_one_or_none() {
    let seed = seed();
    let (mut whole, mut none) = (0, 0);
    let mut usual = 20_000;
    for run in 0..30 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.keystead");
        let mut child = Command::new(env!("CARGO_BIN_EXE_life-child"))
            .args(["create".as_ref(), path.as_os_str(), directory.path().as_os_str()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), "creating");
        let began = std::time::Instant::now();
        if run == 0 {
            assert_eq!(lines.next().unwrap(), "created");
            usual = u64::try_from(began.elapsed().as_micros()).unwrap();
        } else {
            std::thread::sleep(Duration::from_micros(random(seed, run) % (usual * 5 / 4)));
        }
        child.kill().unwrap();
        let created = run == 0 || lines.any(|line| line == "created");
        child.wait().unwrap();
        if run > 0 {
            usual = next_wait(usual, path.exists());
        }
        if path.exists() {
            whole += 1;
        } else {
            assert!(!created, "KEYSTEAD_SEED={seed}, run {run}: it was acknowledged");
            none += 1;
            for entry in std::fs::read_dir(directory.path()).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(
                    name.starts_with(".store.keystead.creating-"),
                    "{name} does not say what it was"
                );
            }
            drop(keyring_options(directory.path()).create(&path).unwrap());
        }
        let store = keyring_options(directory.path()).open(&path).unwrap();
        assert!(store.organizations(None, 10).unwrap().items.is_empty());
        let acme = store.create_organization("acme").unwrap();
        acme.put("a", "x").unwrap();
        verify(&store).unwrap();
    }
    println!("{none} were killed before the store was there, {whole} after it");
    assert!(none > 0, "nobody was killed while it created");
}
