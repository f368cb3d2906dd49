//! A real process, killed by signal 9 while it re-wraps and writes: nothing acknowledged is lost, nothing is done twice.

#![allow(
    clippy::print_stdout,
    reason = "the seed, and what came of it, are part of the test"
)]

mod common;

use common::{assert_sound, check_filled, fill};
use keystead::{AuditEvent, Backend, EpochState, Store, StoreOptions};
use keystead_managed::ManagedBackend;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SECRETS: u32 = 20_000;
const KILLS: u64 = 50;
/// Small, so that the job outlives the kills: 20,000 data keys are moved in a blink otherwise.
const BATCH: usize = 25;

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

#[test]
fn fifty_kills_during_a_re_wrap_of_20_000_secrets_lose_nothing_and_repeat_nothing() {
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
    let mut killed_at_work = 0;
    for run in 0..KILLS {
        let mut child = Command::new(env!("CARGO_BIN_EXE_crash-child"))
            .arg(&path)
            .arg(directory.path())
            .arg(BATCH.to_string())
            .arg(run.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The clock starts when the store is open: what is to be killed is the work, not the start of a process.
        let mut finished = false;
        if run % 5 != 4 {
            assert_eq!(lines.next().unwrap().unwrap(), "open");
        }
        std::thread::sleep(Duration::from_micros(random(seed, run) % 30_000));
        child.kill().unwrap();
        for line in lines {
            let line = line.unwrap();
            if let Some((path, value)) = line.strip_prefix("put ").and_then(|put| put.split_once(' ')) {
                acknowledged.insert(path.to_owned(), value.to_owned());
            }
            finished |= line == "done";
        }
        child.wait().unwrap();
        killed_at_work += u64::from(!finished);
    }
    println!(
        "{killed_at_work} of {KILLS} processes were killed at work; {} puts were acknowledged",
        acknowledged.len()
    );
    assert!(
        killed_at_work >= KILLS * 9 / 10,
        "the job was done too soon to be killed: make the batches smaller"
    );

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
