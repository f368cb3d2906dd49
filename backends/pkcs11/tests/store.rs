//! A store that moves to its owner's key on a token: add, re-wrap, rotate, switch off, give back.

#![allow(
    clippy::print_stdout,
    reason = "the measured times and messages are worth a look"
)]

mod common;

use keystead::backend::ErrorCode;
use keystead::{Backend, EpochState, Error, Store, StoreOptions};
use keystead_managed::ManagedBackend;
use keystead_pkcs11::Pkcs11Backend;
use keystead_tests::emulators::SoftHsm;
use keystead_tests::filled::{check, fill, wait_until_refused, wait_until_served};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const LIFETIME: Duration = Duration::from_secs(3);

fn options(directory: &Path, settings: Value) -> StoreOptions {
    Store::options()
        .backend(ManagedBackend::keyring(directory.join("managed.keyring")))
        .backend(Backend::new(Pkcs11Backend::default()).settings(settings))
        .key_lifetime(LIFETIME)
        .kms_timeout(Duration::from_secs(30))
}

#[test]
fn an_organization_brings_its_key_on_a_token_rotates_it_switches_it_off_and_on() {
    let Some(hsm) = SoftHsm::shared_or_skip("a store under a key on a token, from add to revoke") else {
        return;
    };
    for mechanism in common::MECHANISMS {
        let label = format!("store-{mechanism}");
        common::new_key(&hsm, &label);
        let directory = tempfile::tempdir().unwrap();
        let store = options(directory.path(), hsm.settings())
            .create(directory.path().join("store.keystead"))
            .unwrap();
        let acme = store.create_organization("acme").unwrap();
        fill(&acme, 200);

        let job = acme
            .keys()
            .add("acme-hsm", "pkcs11", common::config(&label, mechanism))
            .unwrap();
        job.wait().unwrap();
        let epochs = acme.epochs().unwrap();
        assert_eq!(
            (epochs[0].state, epochs[1].state, epochs[1].references),
            (EpochState::Retired, EpochState::Active, 200)
        );
        assert_eq!(
            epochs[1].kms_key_id,
            format!("pkcs11:token=acme;object={label};id=%01;type=secret-key")
        );
        std::fs::remove_file(directory.path().join("managed.keyring")).unwrap();
        store.forget_epoch_keys();
        check(&acme, 200);

        // The next version of the key, and a rotation onto it.
        hsm.owner("generate", &json!({ "label": label, "id": "02" }))
            .unwrap();
        acme.keys().rotate("acme-hsm").unwrap().wait().unwrap();
        let newest = acme.epochs().unwrap().last().unwrap().kms_key_id.clone();
        assert!(newest.contains("id=%02"), "{newest}");
        hsm.owner("destroy", &json!({ "label": label, "id": "01" }))
            .unwrap();
        store.forget_epoch_keys();
        check(&acme, 200);

        let uses = if mechanism == "aes-gcm" {
            ["encrypt", "decrypt"]
        } else {
            ["wrap", "unwrap"]
        };
        let switch = |is_on: bool| {
            let uses = json!({ uses[0]: is_on, uses[1]: is_on });
            hsm.owner("allow", &json!({ "label": label, "uses": uses }))
                .unwrap();
        };
        switch(false);
        let (error, took) = wait_until_refused(&acme, LIFETIME + Duration::from_secs(2));
        println!(
            "{mechanism}: reads were refused {took:?} after the key was switched off; the lifetime is {LIFETIME:?}: {error}"
        );
        let Error::Kms { source, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(source.code, ErrorCode::KeyDisabled);
        assert!(error.is_revoked());
        assert_eq!(acme.list("", None, 1000).unwrap().items.len(), 200);

        switch(true);
        wait_until_served(&acme, Duration::from_secs(60));
        check(&acme, 200);
    }
}

#[test]
fn a_config_that_is_wrong_in_one_way_changes_nothing_and_says_what_to_fix() {
    let Some(hsm) = SoftHsm::shared_or_skip("wrong configs of keys on a token, against a store") else {
        return;
    };
    hsm.owner(
        "generate",
        &json!({ "label": "only-decrypts", "id": "01", "uses": ["decrypt"] }),
    )
    .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut settings = hsm.settings();
    settings["tokens"]["gone"] = json!({ "pin_file": hsm.path("pin") });
    let store = options(directory.path(), settings)
        .create(directory.path().join("store.keystead"))
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    let before = (acme.audit_head().unwrap(), acme.keys().list().unwrap());
    for (config, code, mentions) in [
        (json!({}), ErrorCode::InvalidConfig, "token"),
        (
            json!({ "token": "unsaid", "key_label": "k" }),
            ErrorCode::InvalidConfig,
            "unsaid",
        ),
        (
            json!({ "token": "acme", "key_label": "k", "module": "/tmp/evil.so" }),
            ErrorCode::InvalidConfig,
            "module",
        ),
        (
            json!({ "token": "acme", "key_label": "none-such" }),
            ErrorCode::KeyNotFound,
            "none-such",
        ),
        (
            json!({ "token": "gone", "key_label": "k" }),
            ErrorCode::Unavailable,
            "gone",
        ),
        (
            json!({ "token": "acme", "key_label": "only-decrypts" }),
            ErrorCode::KeyDisabled,
            "CKA_ENCRYPT",
        ),
    ] {
        let error = acme.keys().add("acme-hsm", "pkcs11", config).unwrap_err();
        let Error::Kms { source, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(source.code, code, "{error}");
        assert!(error.to_string().contains(mentions), "{error}");
        println!("{error}");
    }
    assert_eq!((acme.audit_head().unwrap(), acme.keys().list().unwrap()), before);
}
