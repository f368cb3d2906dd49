//! A key that is added takes over, and the KMS of the one before it may vanish.

use crate::common::{Bench, assert_sound, check_filled, fill, key};
use crate::{PATIENCE, states, wrapped_by};
use keystead::EpochState;
use keystead::backend::ErrorCode;
use keystead_tests::kms::Calls;

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
