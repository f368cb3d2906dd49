//! Keys in memory: dropped when they are revoked, for no longer than their lifetime, and got once for all who wait.

use crate::common::{Bench, check_filled, fill, key, value};
use keystead::Error;
use keystead::backend::ErrorCode;
use std::time::{Duration, Instant};

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

#[test]
#[allow(clippy::disallowed_methods, reason = "a key's lifetime is real time")]
fn a_key_leaves_memory_at_the_end_of_its_lifetime_though_nobody_asks() {
    let bench = Bench::new();
    let store = bench
        .options()
        .key_lifetime(Duration::from_secs(2))
        .create(bench.path())
        .unwrap();
    let began = Instant::now();
    store.create_organization("acme").unwrap();
    let cached = store.cached_epoch_keys();
    assert!(cached == 1 || began.elapsed() >= Duration::from_secs(2));
    std::thread::sleep(Duration::from_secs(2));
    // The one who sees to it may be late on a busy machine.
    for _ in 0..600 {
        if store.cached_epoch_keys() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("it is still there");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a key's lifetime is real time")]
fn an_outage_is_survived_for_the_rest_of_a_keys_lifetime_and_no_longer() {
    let lifetime = Duration::from_secs(6);
    for _ in 0..5 {
        let bench = Bench::new();
        let store = bench
            .options()
            .key_lifetime(lifetime)
            .create(bench.path())
            .unwrap();
        let began = Instant::now();
        let acme = store.create_organization("acme").unwrap();
        fill(&acme, 3);
        bench.kms.fail("managed", ErrorCode::Unavailable);
        // Beyond its half, from which on its renewal is tried, and well before its end.
        std::thread::sleep(Duration::from_millis(3300));
        let read = acme.get("s/0");
        if began.elapsed() >= lifetime {
            // The machine stood still for so long: nothing is known of this one.
            continue;
        }
        assert_eq!(read.unwrap().value, value(0).as_bytes());
        std::thread::sleep(lifetime.saturating_sub(began.elapsed()) + Duration::from_millis(300));
        let error = acme.get("s/0").unwrap_err();
        assert!(error.is_retryable() && !error.is_revoked(), "{error}");
        return;
    }
    panic!("five times the machine stood still for the rest of a key's lifetime");
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
