//! A KMS is believed what it was seen to do: no key that fails its probe, no wrap that does not open, no other epoch key.

use crate::common::{Bench, assert_sound, check_filled, fill, key};
use crate::states;
use keystead::Error;
use keystead::backend::ErrorCode;
use keystead_tests::kms::Fault;

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
