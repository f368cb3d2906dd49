//! Re-wrap jobs: what blocks one, what goes on beside it, and where it goes on after it was interrupted.

use crate::common::{Bench, assert_sound, check_filled, fill, key, value};
use crate::{PATIENCE, key_state, states, wrapped_by};
use keystead::backend::ErrorCode;
use keystead::{AuditEvent, EpochState, KeyState, RewrapPhase, RewrapState};
use std::time::Duration;

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
    let is_blocked = || matches!(job.status().unwrap().state, RewrapState::Blocked(_));
    for _ in 0..1200 {
        if is_blocked() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
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
    let mut job = acme.keys().add("one", "customer-kms", key("one")).unwrap();
    let mut read = 0;
    loop {
        if job.status().unwrap().state == RewrapState::Done {
            if read > 20 {
                break;
            }
            // On a fast disk it is over in a blink.
            job = acme.keys().rotate("one").unwrap();
            continue;
        }
        let n = read % 5000;
        assert_eq!(acme.get(&format!("s/{n}")).unwrap().value, value(n).as_bytes());
        if read % 10 == 0 {
            acme.put(&format!("w/{read}"), "x").unwrap();
        }
        if read % 25 == 0 {
            let v = acme.put(&format!("s/{n}"), value(n)).unwrap();
            acme.destroy(&format!("s/{n}"), keystead::Version::new(v.get() - 1).unwrap())
                .unwrap();
        }
        read += 1;
    }
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
