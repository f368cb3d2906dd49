//! The second key with real KMSs: each of the two dies and comes back, both are dead; one hangs, both do, and they go on; one key is
//! revoked, the second one is removed. `second_key.rs` has what simulated KMSs can show beyond that.

#![allow(
    clippy::disallowed_methods,
    reason = "it measures how long a KMS that hangs holds up"
)]

mod common;

use common::{Owned, assert_sound, check_filled, fill};
use keystead::backend::ErrorCode;
use keystead::{Error, Organization, Store, StoreOptions};
use keystead_managed::ManagedBackend;
use keystead_tests::emulators::Kms;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const SECRETS: u32 = 50;

/// The deadline of a call. A busy machine is no outage.
const DEADLINE: Duration = Duration::from_secs(20);
/// The same where one of them hangs: what each call to that one costs.
const DEADLINE_WHILE_ONE_HANGS: Duration = Duration::from_secs(10);
/// And where both do, so that nobody has to answer within it.
const DEADLINE_WHILE_BOTH_HANG: Duration = Duration::from_secs(1);
/// What a busy machine may take beyond the deadlines.
const SLACK: Duration = Duration::from_secs(12);

/// A store, and the KMSs of the organization's two keys `one` and `two`.
struct Bench {
    directory: tempfile::TempDir,
    two: [Owned; 2],
    deadline: Duration,
}

impl Bench {
    fn options(&self) -> StoreOptions {
        Store::options()
            .backend(ManagedBackend::keyring(
                self.directory.path().join("managed.keyring"),
            ))
            .backend(self.two[0].backend("kms-one"))
            .backend(self.two[1].backend("kms-two"))
            .kms_timeout(self.deadline)
            .kms_attempts_max(1)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store.keystead")
    }

    /// As a process that begins: nothing is in memory.
    fn reopen(&self, before: (Store, Organization)) -> (Store, Organization) {
        drop(before);
        let store = self.options().open(self.path()).unwrap();
        let acme = store.organization("acme").unwrap();
        (store, acme)
    }
}

const NAMES: [&str; 2] = ["one", "two"];

fn wraps(acme: &Organization) -> Vec<String> {
    let active = acme.epochs().unwrap().pop().unwrap();
    active.wrapped_by.into_iter().map(|wrap| wrap.key).collect()
}

/// The key that serves because the other does not answer, and what that one met.
fn standing_in(acme: &Organization) -> Option<(String, String)> {
    let second = acme.keys().second().unwrap().unwrap();
    second
        .standing_in
        .map(|standing_in| (standing_in.key, standing_in.because))
}

fn goes_on(acme: &Organization, note: &str) {
    check_filled(acme, SECRETS);
    acme.put("note", note).unwrap();
    assert_eq!(acme.get("note").unwrap().value, note.as_bytes());
}

/// Has the epoch's key forgotten, then reads and writes at once, which must take no longer than this and what a busy machine adds.
fn read_and_write(
    within: Duration,
    store: &Store,
    acme: &Organization,
    note: &str,
) -> [keystead::Result<()>; 2] {
    store.forget_epoch_keys();
    let began = Instant::now();
    let outcomes = std::thread::scope(|threads| {
        let read = threads.spawn(|| acme.get("s/7").map(drop));
        let written = acme.put("note", note).map(drop);
        [read.join().unwrap(), written]
    });
    let took = began.elapsed();
    assert!(took < within + SLACK, "{note}, {took:?}: {outcomes:?}");
    outcomes
}

fn all_goes_on(within: Duration, store: &Store, acme: &Organization, note: &str) {
    for outcome in read_and_write(within, store, acme, note) {
        outcome.unwrap_or_else(|error| panic!("{note}: {error}"));
    }
    check_filled(acme, SECRETS);
    assert_eq!(acme.get("note").unwrap().value, note.as_bytes());
}

/// A KMS that hangs takes calls and never answers, not even by a refusal: each call to it costs a whole deadline. (A peer that is paused
/// ends with its owner, whatever becomes of the test.)
fn one_hangs_then_both(bench: &mut Bench, before: (Store, Organization)) -> (Store, Organization) {
    bench.deadline = DEADLINE_WHILE_ONE_HANGS;
    let (store, acme) = bench.reopen(before);
    bench.two[0].owner.pause().unwrap();
    all_goes_on(DEADLINE_WHILE_ONE_HANGS, &store, &acme, "the first hangs");
    let (serves, because) = standing_in(&acme).unwrap();
    assert_eq!(serves, "two");
    assert!(because.contains("\"one\""), "{because}");

    bench.two[1].owner.pause().unwrap();
    bench.deadline = DEADLINE_WHILE_BOTH_HANG;
    let (store, acme) = bench.reopen((store, acme));
    for outcome in read_and_write(2 * DEADLINE_WHILE_BOTH_HANG, &store, &acme, "both hang") {
        let Err(error @ Error::Kms { source, .. }) = &outcome else {
            panic!("both hang, and it says {outcome:?}")
        };
        assert_eq!(source.code, ErrorCode::Timeout, "{error}");
        let text = error.to_string();
        assert!(text.contains("\"one\"") && text.contains("\"two\""), "{text}");
    }
    assert_eq!(
        acme.list("s/", None, 1000).unwrap().items.len(),
        SECRETS as usize,
        "what needs no key goes on"
    );

    // The second one hangs still: the first is enough, for a new epoch too, whose second wrap is missing until that one goes on.
    bench.two[0].owner.resume().unwrap();
    bench.deadline = DEADLINE_WHILE_ONE_HANGS;
    let (store, acme) = bench.reopen((store, acme));
    all_goes_on(Duration::ZERO, &store, &acme, "the first goes on");
    assert_eq!(standing_in(&acme), None);
    let began = Instant::now();
    let job = acme.keys().rotate("one").unwrap();
    let took = began.elapsed();
    assert!(took < DEADLINE_WHILE_ONE_HANGS + SLACK, "rotating took {took:?}");
    assert_eq!(acme.keys().second().unwrap().unwrap().missing, 1);
    assert_eq!(wraps(&acme), ["one"]);
    bench.two[1].owner.resume().unwrap();
    job.wait_for(PATIENCE, |_| {}).unwrap().unwrap();
    assert_eq!(wraps(&acme), NAMES);
    drop(job);

    bench.deadline = DEADLINE;
    let (store, acme) = bench.reopen((store, acme));
    goes_on(&acme, "both go on");
    assert_eq!(standing_in(&acme), None);
    (store, acme)
}

fn two_keys_in(all: [Kms; 2]) {
    let left_out = format!("keys in {all:?} that wrap the same epochs");
    let Some(two) = Owned::start_all_or_skip(all, &left_out) else {
        return;
    };
    let mut bench = Bench {
        directory: tempfile::tempdir().unwrap(),
        two,
        deadline: DEADLINE,
    };
    let store = bench.options().create(bench.path()).unwrap();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, SECRETS);
    let add = |which: usize| {
        let config = bench.two[which].key.config.clone();
        let job = acme
            .keys()
            .add(NAMES[which], &format!("kms-{}", NAMES[which]), config);
        job.unwrap().wait_for(PATIENCE, |_| {}).unwrap().unwrap();
    };
    add(0);
    add(1);
    assert_eq!(wraps(&acme), ["one"]);

    // The second key is set while the KMS of the first is dead: a job waits, says why, and is done when that KMS is back.
    bench.two[0].owner.kill().unwrap();
    store.forget_epoch_keys();
    let job = acme.keys().set_second("two", false).unwrap();
    assert!(job.number().is_some());
    let waits = job.run_here(|_| {}).unwrap();
    let second = acme.keys().second().unwrap().unwrap();
    assert_eq!((second.wrapped, second.missing), (0, 1));
    let blocked = second.blocked.unwrap_or_default();
    assert!(blocked.contains("\"one\""), "{blocked:?}, {waits:?}");
    bench.two[0].owner.restart().unwrap();
    job.wait_for(PATIENCE, |_| {}).unwrap().unwrap();
    let second = acme.keys().second().unwrap().unwrap();
    assert_eq!((second.wrapped, second.missing, second.blocked), (1, 0, None));
    assert_eq!(wraps(&acme), NAMES);
    drop(job);

    // One is dead: everything goes on, and is shown.
    let (mut store, mut acme) = bench.reopen((store, acme));
    for dead in [0, 1] {
        bench.two[dead].owner.kill().unwrap();
        (store, acme) = bench.reopen((store, acme));
        goes_on(&acme, &format!("{} is dead", NAMES[dead]));
        match (dead, standing_in(&acme)) {
            (0, Some((serves, because))) => {
                assert_eq!(serves, "two");
                assert!(because.contains("\"one\""), "{because}");
            }
            // The first one answers; the second is not asked.
            (1, None) => {}
            (_, shown) => panic!("{} is dead, and {shown:?} is shown", NAMES[dead]),
        }
        bench.two[dead].owner.restart().unwrap();
        store.forget_epoch_keys();
        goes_on(&acme, "both are there");
        assert_eq!(standing_in(&acme), None);
    }

    // Both are dead: an outage that names both, and nothing is lost.
    for back_first in [1, 0] {
        for owned in &mut bench.two {
            owned.owner.kill().unwrap();
        }
        (store, acme) = bench.reopen((store, acme));
        let read = acme.get("s/7").map(drop);
        for outcome in [read, acme.put("note", "in the dark").map(drop)] {
            let error = outcome.unwrap_err();
            assert!(error.is_retryable() && !error.is_revoked(), "{error}");
            let text = error.to_string();
            assert!(text.contains("\"one\"") && text.contains("\"two\""), "{text}");
        }
        assert_eq!(
            acme.list("s/", None, 1000).unwrap().items.len(),
            SECRETS as usize,
            "what needs no key goes on"
        );
        bench.two[back_first].owner.restart().unwrap();
        store.forget_epoch_keys();
        assert_eq!(acme.get("note").unwrap().value, b"both are there");
        goes_on(&acme, "one is back");
        assert_eq!(
            standing_in(&acme).map(|(serves, _)| serves).as_deref(),
            (back_first == 1).then_some("two")
        );
        bench.two[1 - back_first].owner.restart().unwrap();
        store.forget_epoch_keys();
        goes_on(&acme, "both are there");
        assert_eq!(standing_in(&acme), None);
    }

    (store, acme) = one_hangs_then_both(&mut bench, (store, acme));

    // Revoked means revoked, though the other key would open it.
    let revoked = &bench.two[0];
    revoked.owner.disable(&revoked.key).unwrap();
    (store, acme) = bench.reopen((store, acme));
    let read = acme.get("s/7").map(drop);
    for outcome in [read, acme.put("note", "in spite of it").map(drop)] {
        let error = outcome.unwrap_err();
        assert!(error.is_revoked(), "{error}");
        let Error::Kms { key, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(key.as_str(), "one");
    }
    assert_eq!(standing_in(&acme), None);
    revoked.owner.enable(&revoked.key).unwrap();
    store.forget_epoch_keys();
    goes_on(&acme, "given back");

    // Without the second key its KMS is not needed, and that of the first one is.
    bench.two[1].owner.kill().unwrap();
    acme.keys().remove_second().unwrap();
    assert_eq!(wraps(&acme), ["one"]);
    (store, acme) = bench.reopen((store, acme));
    assert_eq!(acme.keys().second().unwrap(), None);
    goes_on(&acme, "one key");
    assert_sound(&store);
    bench.two[1].owner.restart().unwrap();
    bench.two[0].owner.kill().unwrap();
    store.forget_epoch_keys();
    let error = acme.get("s/7").unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let Error::Kms { source, .. } = &error else {
        panic!("{error}")
    };
    assert!(
        matches!(source.code, ErrorCode::Unavailable | ErrorCode::Timeout),
        "{error}"
    );
    bench.two[0].owner.restart().unwrap();
    store.forget_epoch_keys();
    goes_on(&acme, "one key, back");
}

#[test]
fn an_outage_of_aws_or_of_transit_is_survived_and_of_both_is_none_but_an_outage() {
    two_keys_in([Kms::Aws, Kms::Transit]);
}

#[test]
fn an_outage_of_azure_or_of_a_token_is_survived_and_of_both_is_none_but_an_outage() {
    two_keys_in([Kms::AzureVault, Kms::Pkcs11]);
}

#[test]
fn an_outage_of_google_or_of_a_managed_hsm_is_survived_and_of_both_is_none_but_an_outage() {
    two_keys_in([Kms::Gcp, Kms::AzureHsm]);
}
