//! Keys, epochs, re-wrap: what an organization can do with its keys, and what holds at every instant of it.

mod common;

use common::{Bench, assert_sound, check_filled, fill, key};
use keystead::backend::ErrorCode;
use keystead::{AuditEvent, EpochState, Error, KeyState, Organization, RewrapPhase, RewrapState, Store};
use keystead_tests::kms::{Calls, Fault};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn states(acme: &Organization) -> Vec<(u32, EpochState, u64)> {
    acme.epochs()
        .unwrap()
        .iter()
        .map(|epoch| (epoch.number.get(), epoch.state, epoch.references))
        .collect()
}

fn wrapped_by(acme: &Organization, epoch: u32) -> Vec<String> {
    let epochs = acme.epochs().unwrap();
    epochs[epoch as usize - 1]
        .wrapped_by
        .iter()
        .map(|wrap| wrap.key.clone())
        .collect()
}

fn key_state(acme: &Organization, name: &str) -> KeyState {
    acme.keys()
        .list()
        .unwrap()
        .into_iter()
        .find(|key| key.name == name)
        .unwrap()
        .state
}

#[test]
fn the_first_own_key_becomes_the_default_and_takes_over_everything_by_itself() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 500);
    let job = acme.keys().add("acme-cmk", "customer-kms", key("acme")).unwrap();
    let status = job.wait_for(PATIENCE, |_| {}).unwrap().unwrap();
    assert_eq!((status.done, status.remaining, status.failed), (500, 0, 0));
    assert_eq!(
        states(&acme),
        [(1, EpochState::Retired, 0), (2, EpochState::Active, 500)]
    );
    assert!(wrapped_by(&acme, 1).is_empty());
    assert_eq!(wrapped_by(&acme, 2), ["acme-cmk"]);
    bench.kms.fail("managed", ErrorCode::KeyNotFound);
    store.forget_epoch_keys();
    check_filled(&acme, 500);
    acme.put("new", "x").unwrap();
    assert_sound(&store);
}

#[test]
fn a_hand_over_costs_two_unwraps_and_one_wrap_a_source_and_re_wrapping_costs_no_kms_call() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 300);
    store.forget_epoch_keys();
    let before = bench.kms.calls();
    let job = acme.keys().add("acme-cmk", "customer-kms", key("acme")).unwrap();
    job.wait_for(PATIENCE, |_| {}).unwrap().unwrap();
    check_filled(&acme, 300);
    let after = bench.kms.calls();
    // The probe: one wrap, one unwrap, one unwrap under a wrong context. The new epoch: one wrap, and one unwrap to see that it
    // opens. The source: one unwrap by the old key, and the same by the new one.
    let asked = Calls {
        wraps: after.wraps - before.wraps,
        unwraps: after.unwraps - before.unwraps,
    };
    assert_eq!(asked, Calls { wraps: 3, unwraps: 5 });
}

#[test]
fn from_the_hand_over_on_the_old_kms_may_vanish() {
    let bench = Bench::new();
    let store = bench
        .options()
        .background_rewrap(false)
        .create(bench.path())
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 100);
    let job = acme.keys().add("acme-cmk", "customer-kms", key("acme")).unwrap();
    // Nothing is re-wrapped yet, and already the managed key is not needed.
    assert_eq!(
        states(&acme),
        [(1, EpochState::Live, 100), (2, EpochState::Active, 0)]
    );
    assert_eq!(wrapped_by(&acme, 1), ["acme-cmk"]);
    bench.kms.fail("managed", ErrorCode::KeyNotFound);
    store.forget_epoch_keys();
    check_filled(&acme, 100);
    drop((job, acme, store));
    let store = bench.open();
    let acme = store.organization("acme").unwrap();
    check_filled(&acme, 100);
    acme.rewrap_job()
        .map(|job| job.wait_for(PATIENCE, |_| {}).unwrap().unwrap())
        .ok();
    assert_eq!(
        states(&acme),
        [(1, EpochState::Retired, 0), (2, EpochState::Active, 100)]
    );
    assert_sound(&store);
}

#[test]
fn a_key_that_fails_its_probe_changes_nothing() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 10);
    let before = (
        acme.audit_head().unwrap(),
        states(&acme),
        acme.keys().list().unwrap(),
    );
    for code in [
        ErrorCode::AccessDenied,
        ErrorCode::KeyDisabled,
        ErrorCode::KeyPendingDeletion,
        ErrorCode::KeyNotFound,
        ErrorCode::Unavailable,
        ErrorCode::Throttled,
        ErrorCode::Internal,
    ] {
        bench.kms.fail("acme", code);
        let error = acme
            .keys()
            .add("acme-cmk", "customer-kms", key("acme"))
            .unwrap_err();
        let Error::Kms { source, key, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((source.code, key.as_str()), (code, "acme-cmk"));
    }
    bench.kms.restore("acme");
    let unknown_field = serde_json::json!({ "key": "acme", "endpoint": "http://elsewhere" });
    let error = acme
        .keys()
        .add("acme-cmk", "customer-kms", unknown_field)
        .unwrap_err();
    assert!(error.to_string().contains("endpoint"), "{error}");
    let error = acme.keys().add("acme-cmk", "nowhere", key("acme")).unwrap_err();
    assert!(matches!(error, Error::BackendNotRegistered { .. }));
    let error = acme
        .keys()
        .add("managed", "customer-kms", key("acme"))
        .unwrap_err();
    assert!(matches!(error, Error::KeyExists { .. }));
    bench.kms.plan([Fault::WrongKey, Fault::WrongKey]);
    assert!(
        acme.keys()
            .add("acme-cmk", "customer-kms", serde_json::json!("no object"))
            .is_err()
    );
    assert_eq!(
        (
            acme.audit_head().unwrap(),
            states(&acme),
            acme.keys().list().unwrap()
        ),
        before
    );
    assert_sound(&store);
}

#[test]
fn a_kms_that_opens_a_wrap_under_any_context_is_refused() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    bench.kms.ignore_context();
    let error = acme
        .keys()
        .add("acme-cmk", "customer-kms", key("acme"))
        .unwrap_err();
    assert!(error.to_string().contains("another context"), "{error}");
}

#[test]
fn a_kms_that_says_that_it_binds_no_context_gets_a_framed_plaintext() {
    let bench = Bench::new();
    bench.kms.declare_no_context();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 10);
    acme.keys()
        .add("acme-cmk", "customer-kms", key("acme"))
        .unwrap()
        .wait()
        .unwrap();
    store.forget_epoch_keys();
    check_filled(&acme, 10);
    assert!(
        bench
            .kms
            .plaintexts("acme")
            .iter()
            .all(|plaintext| plaintext.len() == 64)
    );
}

#[test]
fn a_wrong_epoch_key_from_a_kms_is_named_so_and_not_taken_for_damage() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 1);
    store.forget_epoch_keys();
    bench.kms.plan([Fault::WrongKey]);
    let error = acme.get("s/0").unwrap_err();
    let Error::Kms { source, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(source.code, ErrorCode::WrongKey);
}

#[test]
fn a_key_whose_backend_is_not_registered_is_named_with_it_and_administration_goes_on() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 3);
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    drop((store, acme));
    let store = Store::options().open(bench.path()).unwrap();
    let acme = store.organization("acme").unwrap();
    let error = acme.get("s/0").unwrap_err();
    assert!(
        matches!(error, Error::BackendNotRegistered { ref backend, .. } if backend == "customer-kms"),
        "{error}"
    );
    assert_eq!(acme.list("", None, 10).unwrap().items.len(), 3);
    acme.epochs().unwrap();
    acme.destroy("s/0", keystead::Version::new(1).unwrap()).unwrap();
}

#[test]
fn set_default_opens_an_epoch_for_new_data_keys_and_leaves_the_others() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    fill(&acme, 10);
    assert_eq!(
        acme.keys()
            .add("two", "customer-kms", key("two"))
            .unwrap()
            .number(),
        None,
        "a second key changes nothing"
    );
    assert_eq!(acme.keys().set_default("two", false).unwrap().number(), None);
    acme.put("new", "x").unwrap();
    assert_eq!(
        states(&acme),
        [
            (1, EpochState::Retired, 0),
            (2, EpochState::Live, 10),
            (3, EpochState::Active, 1)
        ]
    );
    assert_eq!(wrapped_by(&acme, 2), ["one"]);
    acme.keys().set_default("one", true).unwrap().wait().unwrap();
    assert_eq!(
        states(&acme)[1..],
        [
            (2, EpochState::Retired, 0),
            (3, EpochState::Retired, 0),
            (4, EpochState::Active, 11)
        ]
    );
    assert_sound(&store);
}

#[test]
fn disabling_a_key_moves_what_it_holds_to_its_target_and_then_nothing_is_under_it() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    fill(&acme, 50);
    acme.keys().add("two", "customer-kms", key("two")).unwrap();
    let refused = acme.keys().disable("one", "two").unwrap_err();
    assert!(
        matches!(refused, Error::KeyRefused { .. }),
        "the default key is not disabled: {refused}"
    );
    acme.keys().set_default("two", false).unwrap();
    assert!(matches!(
        acme.keys().disable("one", "one"),
        Err(Error::KeyRefused { .. })
    ));
    assert!(matches!(
        acme.keys().disable("one", "three"),
        Err(Error::KeyNotFound { .. })
    ));
    acme.keys().disable("one", "two").unwrap().wait().unwrap();
    assert_eq!(key_state(&acme, "one"), KeyState::Disabled);
    assert_eq!(states(&acme)[2], (3, EpochState::Active, 50));
    bench.kms.fail("one", ErrorCode::KeyNotFound);
    store.forget_epoch_keys();
    check_filled(&acme, 50);
    assert!(matches!(
        acme.keys().set_default("one", false),
        Err(Error::KeyRefused { .. })
    ));
    assert_sound(&store);
}

#[test]
fn disabling_a_key_for_a_target_that_is_not_the_default_leaves_the_default() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    fill(&acme, 20);
    for name in ["two", "three"] {
        acme.keys().add(name, "customer-kms", key(name)).unwrap();
    }
    acme.keys().set_default("two", false).unwrap();
    acme.keys().disable("one", "three").unwrap().wait().unwrap();
    assert_eq!(
        states(&acme)[1..],
        [
            (2, EpochState::Retired, 0),
            (3, EpochState::Active, 0),
            (4, EpochState::Live, 20)
        ]
    );
    assert_eq!(wrapped_by(&acme, 4), ["three"]);
    acme.put("new", "x").unwrap();
    assert_eq!(states(&acme)[2], (3, EpochState::Active, 1));
    assert_sound(&store);
}

#[test]
fn disabling_all_goes_back_to_the_managed_key() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    assert!(acme.keys().disable_all().is_err());
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    acme.keys().add("two", "customer-kms", key("two")).unwrap();
    fill(&acme, 30);
    acme.keys().set_default("two", false).unwrap();
    acme.put("x", "x").unwrap();
    acme.keys().disable_all().unwrap().wait().unwrap();
    assert_eq!(states(&acme).last(), Some(&(4, EpochState::Active, 31)));
    assert_eq!(
        (key_state(&acme, "one"), key_state(&acme, "two")),
        (KeyState::Disabled, KeyState::Disabled)
    );
    bench.kms.fail("one", ErrorCode::KeyNotFound);
    bench.kms.fail("two", ErrorCode::KeyNotFound);
    store.forget_epoch_keys();
    check_filled(&acme, 30);
    // The first own key after that takes over again.
    acme.keys()
        .add("three", "customer-kms", key("three"))
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(states(&acme).last(), Some(&(5, EpochState::Active, 31)));
    assert_sound(&store);
}

#[test]
fn rotating_opens_a_new_epoch_under_the_same_key_at_its_newest_version() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    fill(&acme, 10);
    bench.kms.rotate("one");
    acme.keys().rotate("one").unwrap().wait().unwrap();
    let epochs = acme.epochs().unwrap();
    assert_eq!(
        (epochs[1].kms_key_id.as_str(), epochs[2].kms_key_id.as_str()),
        ("one/1", "one/2")
    );
    assert_eq!(
        states(&acme)[1..],
        [(2, EpochState::Retired, 0), (3, EpochState::Active, 10)]
    );
    store.forget_epoch_keys();
    check_filled(&acme, 10);
}

#[test]
fn an_old_kms_out_of_reach_blocks_its_epoch_alone_and_the_job_says_so() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 40);
    store.forget_epoch_keys();
    bench.kms.fail("managed", ErrorCode::Unavailable);
    let job = acme.keys().add("one", "customer-kms", key("one")).unwrap();
    acme.put("new", "x").unwrap();
    let status = job.wait_for(Duration::from_secs(2), |_| {}).unwrap();
    assert!(status.is_none());
    let status = job.status().unwrap();
    assert_eq!(status.phase, RewrapPhase::HandOver);
    let RewrapState::Blocked(reason) = &status.state else {
        panic!("{status:?}")
    };
    assert!(
        reason.contains("managed") && reason.contains("unavailable"),
        "{reason}"
    );
    assert_eq!(
        states(&acme),
        [(1, EpochState::Live, 40), (2, EpochState::Active, 1)]
    );
    assert_eq!(wrapped_by(&acme, 1), ["managed"]);
    // Administration goes on meanwhile.
    acme.keys().list().unwrap();
    acme.audit(0, 100).unwrap();
    bench.kms.restore("managed");
    let status = job.wait_for(PATIENCE, |_| {}).unwrap().unwrap();
    assert_eq!(status.done, 40);
    check_filled(&acme, 40);
    assert_sound(&store);
}

#[test]
fn a_blocked_job_can_be_given_another_target() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 20);
    store.forget_epoch_keys();
    bench.kms.fail("managed", ErrorCode::Unavailable);
    acme.keys().add("one", "customer-kms", key("one")).unwrap();
    acme.keys().add("two", "customer-kms", key("two")).unwrap();
    acme.keys().set_default("two", true).unwrap();
    assert_eq!(states(&acme).last().unwrap().1, EpochState::Active);
    bench.kms.fail("one", ErrorCode::KeyNotFound);
    bench.kms.restore("managed");
    acme.rewrap_job()
        .map(|job| job.wait_for(PATIENCE, |_| {}).unwrap().unwrap())
        .ok();
    assert_eq!(states(&acme).last(), Some(&(3, EpochState::Active, 20)));
    check_filled(&acme, 20);
    acme.keys()
        .disable("one", "two")
        .unwrap()
        .wait_for(PATIENCE, |_| {})
        .unwrap()
        .unwrap();
    assert_eq!(key_state(&acme, "one"), KeyState::Disabled);
    assert_sound(&store);
}

#[test]
fn readers_and_writers_go_on_during_a_re_wrap() {
    let bench = Bench::new();
    let store = bench.options().rewrap_batch(64).create(bench.path()).unwrap();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 5000);
    let job = acme.keys().add("one", "customer-kms", key("one")).unwrap();
    let mut read = 0;
    while job.status().unwrap().state != RewrapState::Done {
        let n = read % 5000;
        assert_eq!(
            acme.get(&format!("s/{n}")).unwrap().value,
            common::value(n).as_bytes()
        );
        if read % 10 == 0 {
            acme.put(&format!("w/{read}"), "x").unwrap();
        }
        if read % 25 == 0 {
            let v = acme.put(&format!("s/{n}"), common::value(n)).unwrap();
            acme.destroy(&format!("s/{n}"), keystead::Version::new(v.get() - 1).unwrap())
                .unwrap();
        }
        read += 1;
    }
    assert!(read > 20, "{read} reads");
    check_filled(&acme, 5000);
    assert_sound(&store);
}

#[test]
fn a_job_goes_on_when_the_store_is_opened_again_and_repeats_no_batch() {
    let bench = Bench::new();
    let store = bench
        .options()
        .rewrap_batch(10)
        .background_rewrap(false)
        .create(bench.path())
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 1000);
    acme.keys().add("one", "customer-kms", key("one")).unwrap();
    drop((acme, store));
    for _ in 0..3 {
        let store = bench.options().rewrap_batch(10).open(bench.path()).unwrap();
        let acme = store.organization("acme").unwrap();
        if let Ok(job) = acme.rewrap_job() {
            job.wait_for(Duration::from_millis(30), |_| {}).unwrap();
        }
    }
    let store = bench.options().open(bench.path()).unwrap();
    let acme = store.organization("acme").unwrap();
    if let Ok(job) = acme.rewrap_job() {
        job.wait_for(PATIENCE, |_| {}).unwrap().unwrap();
    }
    assert_eq!(
        states(&acme),
        [(1, EpochState::Retired, 0), (2, EpochState::Active, 1000)]
    );
    let moved: u64 = acme
        .audit(0, 10_000)
        .unwrap()
        .iter()
        .filter_map(|record| match record.event {
            AuditEvent::RewrapBatch { moved, .. } => Some(moved),
            _ => None,
        })
        .sum();
    assert_eq!(moved, 1000, "no data key was moved twice");
    check_filled(&acme, 1000);
    assert_sound(&store);
}

#[test]
fn a_revoked_key_is_dropped_from_memory_and_works_again_when_it_is_given_back() {
    let bench = Bench::new();
    let store = bench
        .options()
        .key_lifetime(Duration::from_millis(400))
        .create(bench.path())
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    fill(&acme, 5);
    bench.kms.fail("one", ErrorCode::KeyDisabled);
    std::thread::sleep(Duration::from_millis(500));
    let error = acme.get("s/1").unwrap_err();
    assert!(error.is_revoked(), "{error}");
    assert!(
        error.to_string().contains("\"one\"") && error.to_string().contains("key disabled"),
        "{error}"
    );
    assert!(acme.put("s/1", "x").unwrap_err().is_revoked());
    // Administration needs no key.
    acme.epochs().unwrap();
    acme.list("", None, 10).unwrap();
    acme.delete("s/4", keystead::Version::new(1).unwrap()).unwrap();
    acme.undelete("s/4", keystead::Version::new(1).unwrap()).unwrap();
    bench.kms.restore("one");
    std::thread::sleep(Duration::from_millis(150));
    check_filled(&acme, 5);
}

#[test]
fn a_key_leaves_memory_at_the_end_of_its_lifetime_though_nobody_asks() {
    let bench = Bench::new();
    let store = bench
        .options()
        .key_lifetime(Duration::from_millis(200))
        .create(bench.path())
        .unwrap();
    store.create_organization("acme").unwrap();
    assert_eq!(store.cached_epoch_keys(), 1);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(store.cached_epoch_keys(), 0);
}

#[test]
fn an_outage_is_survived_for_the_rest_of_a_keys_lifetime_and_no_longer() {
    let bench = Bench::new();
    let store = bench
        .options()
        .key_lifetime(Duration::from_secs(2))
        .create(bench.path())
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 3);
    bench.kms.fail("managed", ErrorCode::Unavailable);
    std::thread::sleep(Duration::from_millis(1300));
    check_filled(&acme, 3);
    std::thread::sleep(Duration::from_millis(1200));
    let error = acme.get("s/0").unwrap_err();
    assert!(error.is_retryable() && !error.is_revoked(), "{error}");
}

#[test]
fn sixty_four_threads_that_need_the_same_epoch_cost_one_kms_call() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 64);
    store.forget_epoch_keys();
    bench.kms.set_latency(Duration::from_millis(50));
    let before = bench.kms.calls().unwraps;
    std::thread::scope(|threads| {
        for n in 0..64 {
            let acme = &acme;
            threads.spawn(move || acme.get(&format!("s/{n}")).unwrap());
        }
    });
    assert_eq!(bench.kms.calls().unwraps - before, 1);
}

#[test]
fn two_organizations_do_not_touch_each_others_keys() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    let other = store.create_organization("other").unwrap();
    fill(&acme, 10);
    fill(&other, 10);
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(states(&other), [(1, EpochState::Active, 10)]);
    bench.kms.fail("one", ErrorCode::AccessDenied);
    store.forget_epoch_keys();
    assert!(acme.get("s/0").unwrap_err().is_revoked());
    check_filled(&other, 10);
}

#[test]
fn an_epoch_that_is_exhausted_takes_no_more_until_its_key_is_rotated() {
    let bench = Bench::new();
    let store = bench
        .options()
        .wraps_per_epoch_max(3)
        .create(bench.path())
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    for n in 0..3 {
        acme.put("a", [n]).unwrap();
    }
    assert!(matches!(acme.put("a", [3]), Err(Error::EpochExhausted { .. })));
    acme.keys().rotate("managed").unwrap();
}

fn open_again(bench: &Bench, store: Store, acme: Organization) -> (Store, Organization) {
    drop((store, acme));
    let store = bench.open();
    let acme = store.organization("acme").unwrap();
    (store, acme)
}

#[test]
fn epochs_are_a_chain_and_survive_reopening() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    acme.keys().rotate("managed").unwrap().wait().unwrap();
    acme.keys().rotate("managed").unwrap().wait().unwrap();
    let before = acme.epochs().unwrap();
    let (store, acme) = open_again(&bench, store, acme);
    assert_eq!(acme.epochs().unwrap(), before);
    assert_eq!(before.len(), 3);
    assert_sound(&store);
}

/// The story: a KMS that answered a wrap with bytes that mean nothing was believed. The epoch worked for as long as its key was
/// cached, and then nothing of it ever opened again; at a hand-over the old wraps were erased on the strength of such an answer. A
/// wrap is now opened once before anything rests on it.
#[test]
fn a_wrap_that_does_not_open_is_refused_before_anything_rests_on_it() {
    let bench = Bench::new();
    let store = bench.create();
    let unusable = [
        Fault::GarbageBlob,
        Fault::OversizedBlob(1 << 20),
        Fault::OversizedBlob(300),
    ];
    for fault in unusable.clone() {
        bench.kms.plan([fault]);
        let refused = store.create_organization("acme").unwrap_err();
        assert!(matches!(refused, Error::Kms { .. }), "{refused:?}");
    }
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 20);
    for fault in unusable {
        bench.kms.plan([fault]);
        let refused = acme.keys().rotate("managed").unwrap_err();
        assert!(matches!(refused, Error::Kms { .. }), "{refused:?}");
        assert_eq!(acme.epochs().unwrap().len(), 1);
    }
    store.forget_epoch_keys();
    check_filled(&acme, 20);
    assert_sound(&store);
}

/// The story: a rotation met a KMS key that had been disabled, and said so; what was cached under that key went on being read for
/// the rest of its lifetime, because only an unwrap that was refused emptied the cache. Whatever finds a key revoked does.
#[test]
fn a_key_that_is_found_revoked_while_wrapping_or_probing_is_dropped_from_memory_at_once() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 3);
    let refused_after = |meets_it: &dyn Fn() -> Error| {
        check_filled(&acme, 3);
        assert!(store.cached_epoch_keys() > 0);
        bench.kms.fail("managed", ErrorCode::KeyDisabled);
        let met = meets_it();
        assert!(matches!(met, Error::Kms { .. }), "{met:?}");
        assert_eq!(store.cached_epoch_keys(), 0);
        bench.kms.restore("managed");
        store.forget_epoch_keys();
    };
    refused_after(&|| acme.keys().rotate("managed").map(drop).unwrap_err());
    refused_after(&|| acme.keys().probe("managed").unwrap_err());
}
