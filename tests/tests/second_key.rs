//! The second key: an outage of one KMS is survived, revocation is honoured, and nothing of it is left when it is removed.

mod common;

use common::{Bench, assert_sound, check_filled, fill, key};
use keystead::backend::ErrorCode;
use keystead::{Error, KeyState, Organization, RewrapState, Store};
use keystead_tests::kms::Calls;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Fifty secrets under the own key `one`, with `two` registered beside it.
fn two_keys(bench: &Bench) -> (Store, Organization) {
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 50);
    let add = |name: &str| acme.keys().add(name, "customer-kms", key(name)).unwrap();
    add("one").wait_for(PATIENCE, |_| {}).unwrap().unwrap();
    add("two");
    (store, acme)
}

fn with_second(bench: &Bench, either_opens: bool) -> (Store, Organization) {
    let (store, acme) = two_keys(bench);
    let job = acme.keys().set_second("two", either_opens).unwrap();
    assert_eq!(job.number(), None, "all was done at once");
    (store, acme)
}

/// The keys that wrap each live epoch.
fn wraps(acme: &Organization) -> Vec<Vec<String>> {
    let epochs = acme.epochs().unwrap().into_iter();
    epochs
        .map(|epoch| {
            epoch
                .wrapped_by
                .into_iter()
                .map(|wrap| wrap.key)
                .collect::<Vec<_>>()
        })
        .filter(|wraps| !wraps.is_empty())
        .collect()
}

fn code(error: &Error) -> ErrorCode {
    match error {
        Error::Kms { source, .. } => source.code,
        other => panic!("not an error of a KMS: {other}"),
    }
}

#[test]
fn either_key_opens_everything_while_the_other_is_out_of_reach_and_that_is_shown() {
    let bench = Bench::new();
    let (store, acme) = with_second(&bench, false);
    assert_eq!(wraps(&acme), [["one", "two"]]);
    let second = acme.keys().second().unwrap().unwrap();
    assert_eq!(
        (second.key.as_str(), second.wrapped, second.missing),
        ("two", 1, 0)
    );
    for (down, serves) in [("one", Some("two")), ("two", None)] {
        bench.kms.fail(down, ErrorCode::Unavailable);
        store.forget_epoch_keys();
        check_filled(&acme, 50);
        acme.put("written/in/the/outage", down).unwrap();
        let standing_in = acme.keys().second().unwrap().unwrap().standing_in;
        assert_eq!(
            standing_in.as_ref().map(|standing_in| standing_in.key.as_str()),
            serves
        );
        if let Some(standing_in) = standing_in {
            assert!(standing_in.because.contains("\"one\""), "{}", standing_in.because);
        }
        bench.kms.restore(down);
        store.forget_epoch_keys();
        check_filled(&acme, 50);
        assert_eq!(acme.keys().second().unwrap().unwrap().standing_in, None);
    }
    assert_sound(&store);
}

#[test]
fn both_out_of_reach_is_an_error_that_names_both_and_one_back_is_enough() {
    let bench = Bench::new();
    let (store, acme) = with_second(&bench, false);
    bench.kms.fail("one", ErrorCode::Timeout);
    bench.kms.fail("two", ErrorCode::Unavailable);
    store.forget_epoch_keys();
    let error = acme.get("s/1").unwrap_err();
    assert_eq!(code(&error), ErrorCode::Timeout);
    let text = error.to_string();
    assert!(text.contains("\"one\"") && text.contains("\"two\""), "{text}");
    bench.kms.restore("two");
    store.forget_epoch_keys();
    check_filled(&acme, 50);
    acme.put("new", "x").unwrap();
}

#[test]
fn revoked_means_revoked_though_the_second_key_would_open_it() {
    for revoked in [
        ErrorCode::KeyDisabled,
        ErrorCode::AccessDenied,
        ErrorCode::KeyNotFound,
    ] {
        let bench = Bench::new();
        let (store, acme) = with_second(&bench, false);
        bench.kms.fail("one", revoked);
        store.forget_epoch_keys();
        assert_eq!(code(&acme.get("s/1").unwrap_err()), revoked);
        bench.kms.restore("one");
        store.forget_epoch_keys();
        check_filled(&acme, 50);
        // The same of the second key, when it is the one that is asked.
        bench.kms.fail("one", ErrorCode::Unavailable);
        bench.kms.fail("two", revoked);
        store.forget_epoch_keys();
        assert_eq!(code(&acme.get("s/1").unwrap_err()), revoked);
    }
}

#[test]
fn where_either_opens_both_must_be_revoked() {
    let bench = Bench::new();
    let (store, acme) = with_second(&bench, true);
    assert!(acme.keys().second().unwrap().unwrap().either_opens);
    bench.kms.fail("one", ErrorCode::KeyDisabled);
    store.forget_epoch_keys();
    check_filled(&acme, 50);
    // Revoked and out of reach: an outage, which ends.
    bench.kms.fail("two", ErrorCode::Throttled);
    store.forget_epoch_keys();
    assert_eq!(code(&acme.get("s/1").unwrap_err()), ErrorCode::Throttled);
    bench.kms.fail("two", ErrorCode::KeyDisabled);
    store.forget_epoch_keys();
    assert_eq!(code(&acme.get("s/1").unwrap_err()), ErrorCode::KeyDisabled);
}

#[test]
fn a_wrap_that_does_not_open_is_no_loss_while_the_other_does() {
    let bench = Bench::new();
    let (store, acme) = with_second(&bench, false);
    bench.kms.lie("one");
    store.forget_epoch_keys();
    check_filled(&acme, 50);
    bench.kms.lie("two");
    store.forget_epoch_keys();
    assert_eq!(code(&acme.get("s/1").unwrap_err()), ErrorCode::WrongKey);
}

#[test]
fn new_epochs_and_hand_overs_keep_the_second_wrap() {
    let bench = Bench::new();
    let (store, acme) = with_second(&bench, false);
    let wait = |job: keystead::RewrapJob| job.wait_for(PATIENCE, |_| {}).unwrap();
    wait(acme.keys().rotate("one").unwrap());
    assert_eq!(wraps(&acme), [["one", "two"]]);
    acme.keys().add("three", "customer-kms", key("three")).unwrap();
    // The old key does not answer: the second one lets the move go on.
    bench.kms.fail("one", ErrorCode::Unavailable);
    store.forget_epoch_keys();
    wait(acme.keys().set_default("three", true).unwrap());
    assert_eq!(wraps(&acme), [["three", "two"]]);
    check_filled(&acme, 50);
    assert_sound(&store);
}

#[test]
fn what_the_second_key_could_not_wrap_its_job_adds_also_after_the_store_was_closed() {
    let bench = Bench::new();
    let (store, acme) = with_second(&bench, false);
    bench.kms.fail("two", ErrorCode::Unavailable);
    // Its outage does not keep the organization from changing its keys.
    let job = acme.keys().rotate("one").unwrap();
    let waits = job.run_here(|_| {}).unwrap();
    assert!(
        matches!(&waits.state, RewrapState::Blocked(reason) if reason.contains("\"two\"")),
        "{waits:?}"
    );
    let second = acme.keys().second().unwrap().unwrap();
    assert!(second.missing > 0 && second.blocked.is_some(), "{second:?}");
    drop((job, acme, store));
    bench.kms.restore("two");
    let store = bench.open();
    let acme = store.organization("acme").unwrap();
    if let Ok(job) = acme.rewrap_job() {
        job.wait_for(PATIENCE, |_| {}).unwrap().unwrap();
    }
    assert_eq!(wraps(&acme), [["one", "two"]]);
    assert_eq!(acme.keys().second().unwrap().unwrap().missing, 0);
    bench.kms.fail("one", ErrorCode::Unavailable);
    store.forget_epoch_keys();
    check_filled(&acme, 50);
    assert_sound(&store);
}

#[test]
fn an_epoch_whose_own_key_is_out_of_reach_is_wrapped_by_the_job_later() {
    let bench = Bench::new();
    let (store, acme) = two_keys(&bench);
    bench.kms.fail("one", ErrorCode::Unavailable);
    let job = acme.keys().set_second("two", false).unwrap();
    assert!(job.number().is_some());
    assert_eq!(acme.keys().second().unwrap().unwrap().missing, 1);
    let epochs = acme.epochs().unwrap().len();
    assert!(
        matches!(acme.keys().retarget("managed"), Err(Error::NoJob { .. })),
        "it moves nothing"
    );
    assert_eq!(acme.epochs().unwrap().len(), epochs);
    bench.kms.restore("one");
    job.wait_for(PATIENCE, |_| {}).unwrap().unwrap();
    assert_eq!(wraps(&acme), [["one", "two"]]);
    assert_sound(&store);
}

#[test]
fn a_removed_second_key_opens_nothing() {
    let bench = Bench::new();
    let (store, acme) = with_second(&bench, true);
    let before = bench.kms.calls();
    acme.keys().remove_second().unwrap();
    assert_eq!(bench.kms.calls(), before, "no KMS is needed for it");
    assert_eq!(wraps(&acme), [["one"]]);
    assert_eq!(acme.keys().second().unwrap(), None);
    bench.kms.fail("one", ErrorCode::Unavailable);
    store.forget_epoch_keys();
    assert_eq!(code(&acme.get("s/1").unwrap_err()), ErrorCode::Unavailable);
    bench.kms.restore("one");
    // It is a key like the others again.
    acme.keys().set_second("two", false).unwrap();
    acme.keys().remove_second().unwrap();
    acme.keys()
        .set_default("two", true)
        .unwrap()
        .wait_for(PATIENCE, |_| {})
        .unwrap();
    assert_eq!(wraps(&acme), [["two"]]);
    assert_sound(&store);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let bench = Bench::new();
    let (store, acme) = two_keys(&bench);
    let refused = |outcome: keystead::Result<()>, word: &str| {
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    };
    let set = |name: &str| acme.keys().set_second(name, false).map(drop);
    refused(set("managed"), "managed");
    refused(set("one"), "default");
    refused(set("none"), "none");
    refused(acme.keys().remove_second(), "has none");
    bench.kms.fail("two", ErrorCode::AccessDenied);
    refused(set("two"), "denied");
    bench.kms.restore("two");
    let before = acme.audit_head().unwrap();
    assert_eq!(wraps(&acme), [["one"]]);
    set("two").unwrap();
    assert_ne!(acme.audit_head().unwrap(), before);
    let before = acme.audit_head().unwrap();
    acme.keys().add("three", "customer-kms", key("three")).unwrap();
    let after_add = acme.audit_head().unwrap();
    assert_ne!(after_add, before);
    refused(set("three"), "\"two\" is the second key");
    refused(acme.keys().rotate("two").map(drop), "second key");
    refused(acme.keys().set_default("two", true).map(drop), "second key");
    refused(acme.keys().disable("two", "three").map(drop), "second key");
    refused(acme.keys().disable_all().map(drop), "second key");
    assert_eq!(acme.audit_head().unwrap(), after_add);
    let state = |name: &str| {
        let keys = acme.keys().list().unwrap();
        keys.into_iter().find(|key| key.name == name).unwrap().state
    };
    assert_eq!(
        (state("one"), state("two"), state("three")),
        (KeyState::Enabled, KeyState::Second, KeyState::Enabled)
    );
    assert_sound(&store);
}

#[test]
fn a_second_key_costs_two_calls_an_epoch_and_none_for_reading() {
    let bench = Bench::new();
    let (store, acme) = two_keys(&bench);
    let since = |before: Calls| {
        let asked = bench.kms.calls() - before;
        (asked.wraps, asked.unwraps)
    };
    let before = bench.kms.calls();
    acme.keys().set_second("two", false).unwrap();
    // The probe: one wrap, one unwrap, one unwrap under a wrong context. The epoch: one unwrap by its own key; one wrap by the second
    // key, and one unwrap to see that it opens.
    assert_eq!(since(before), (2, 4));
    store.forget_epoch_keys();
    let before = bench.kms.calls();
    check_filled(&acme, 50);
    assert_eq!(since(before), (0, 1));
}
