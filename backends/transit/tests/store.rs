//! A store that moves to its owner's key in Transit: add, by a role and tokens of the application; re-wrap; revoke in each way
//! that the owner has; give back.

#![allow(clippy::print_stdout, reason = "the measured times are worth a look")]

mod common;

use keystead::backend::{BackendError, ErrorCode, LockedBytes};
use keystead::{
    Backend, EpochState, Error, IdentityProvider, IdentityRequest, RewrapState, Store, StoreOptions,
};
use keystead_managed::ManagedBackend;
use keystead_tests::emulators::OpenBao;
use keystead_tests::filled::{check, fill, value, wait_until_refused, wait_until_served};
use keystead_transit::TransitBackend;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const LIFETIME: Duration = Duration::from_secs(3);

/// The application as its own OpenID Connect issuer: a token for each organization, with the audience that the key's config
/// asks for.
struct Issuer(&'static OpenBao);

impl IdentityProvider for Issuer {
    fn token(&self, request: &IdentityRequest<'_>) -> Result<LockedBytes, BackendError> {
        let subject = format!("cmk:{}:{}", request.key, request.organization);
        let token = self.0.identity_token(request.audience, &subject, &json!({}));
        Ok(LockedBytes::copy_from(token.unwrap().as_bytes()))
    }
}

fn options(bao: &'static OpenBao, directory: &Path) -> StoreOptions {
    Store::options()
        .backend(ManagedBackend::keyring(directory.join("managed.keyring")))
        .backend(Backend::new(TransitBackend::default()).settings(json!({ "address": bao.address() })))
        .identity_provider(Issuer(bao))
        .key_lifetime(LIFETIME)
        .kms_timeout(Duration::from_secs(30))
}

/// A namespace of the customer's with a key, and a role for tokens of the application about the organization acme.
fn customer(bao: &OpenBao, namespace: &str) -> Value {
    let there = Some(namespace);
    bao.create_namespace(namespace).unwrap();
    bao.enable_transit(there).unwrap();
    bao.create_key(there, "keystead").unwrap();
    bao.put_policy(there, "keystead", &OpenBao::grant("keystead"))
        .unwrap();
    bao.enable_jwt(there, "jwt", "keys").unwrap();
    bao.create_role(
        there,
        "jwt",
        "keystead",
        "bao:acme",
        "cmk:acme-cmk:acme",
        &json!({}),
    )
    .unwrap();
    json!({ "key": "keystead", "namespace": namespace, "role": "keystead", "identity_token": { "audience": "bao:acme" } })
}

#[test]
fn an_organization_brings_its_key_by_a_role_revokes_it_in_every_way_and_gives_it_back() {
    let Some(bao) = OpenBao::shared_or_skip("a store under a Transit key, from add to revoke") else {
        return;
    };
    let config = customer(bao, "acme");
    let there = Some("acme");
    let directory = tempfile::tempdir().unwrap();
    let store = options(bao, directory.path())
        .create(directory.path().join("store.keystead"))
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 200);
    let job = acme.keys().add("acme-cmk", "transit", config).unwrap();
    // Reads go on while the data keys move.
    while job.status().unwrap().state != RewrapState::Done {
        assert_eq!(acme.get("s/7").unwrap().value, value(7).as_bytes());
    }
    let epochs = acme.epochs().unwrap();
    assert_eq!(
        (epochs[0].state, epochs[1].state, epochs[1].references),
        (EpochState::Retired, EpochState::Active, 200)
    );
    assert_eq!(epochs[1].kms_key_id, "acme/transit/keys/keystead:1");
    std::fs::remove_file(directory.path().join("managed.keyring")).unwrap();
    store.forget_epoch_keys();
    check(&acme, 200);

    // A rotation in the server needs nothing here, and the next epoch is under the new version.
    bao.rotate(there, "keystead").unwrap();
    store.forget_epoch_keys();
    check(&acme, 200);

    let unlock_key = std::cell::RefCell::new(String::new());
    type Owner<'a> = Box<dyn Fn() + 'a>;
    let ways: [(&str, ErrorCode, Owner<'_>, Owner<'_>); 4] = [
        (
            "the policy is taken away",
            ErrorCode::AccessDenied,
            Box::new(|| {
                bao.put_policy(there, "keystead", "path \"x\" { capabilities = [\"read\"] }")
                    .unwrap()
            }),
            Box::new(|| {
                bao.put_policy(there, "keystead", &OpenBao::grant("keystead"))
                    .unwrap();
            }),
        ),
        (
            "the version is forbidden",
            ErrorCode::KeyDisabled,
            Box::new(|| {
                bao.configure_key(there, "keystead", &json!({ "min_decryption_version": 2 }))
                    .unwrap();
            }),
            Box::new(|| {
                bao.configure_key(there, "keystead", &json!({ "min_decryption_version": 1 }))
                    .unwrap();
            }),
        ),
        (
            "the key is soft-deleted",
            ErrorCode::KeyPendingDeletion,
            Box::new(|| bao.soft_delete(there, "keystead").unwrap()),
            Box::new(|| bao.restore(there, "keystead").unwrap()),
        ),
        (
            "the namespace is locked",
            ErrorCode::KeyDisabled,
            Box::new(|| *unlock_key.borrow_mut() = bao.lock_namespace("acme").unwrap()),
            Box::new(|| bao.unlock_namespace("acme", &unlock_key.borrow()).unwrap()),
        ),
    ];
    for (way, code, revoke, give_back) in ways {
        revoke();
        let (error, took) = wait_until_refused(&acme, LIFETIME + Duration::from_secs(1));
        println!("{way}: reads were refused after {took:?}; the lifetime is {LIFETIME:?}");
        let Error::Kms {
            key: name, source, ..
        } = &error
        else {
            panic!("{way}: {error}")
        };
        assert_eq!((name.as_str(), source.code), ("acme-cmk", code), "{way}: {error}");
        assert!(error.is_revoked(), "{way}: {error}");

        give_back();
        wait_until_served(&acme, Duration::from_secs(60));
        check(&acme, 200);
    }

    acme.keys().rotate("acme-cmk").unwrap().wait().unwrap();
    let newest = acme.epochs().unwrap().pop().unwrap();
    assert_eq!(newest.kms_key_id, "acme/transit/keys/keystead:2");
    check(&acme, 200);
}

#[test]
fn a_config_that_is_wrong_in_one_way_changes_nothing_and_says_what_to_fix() {
    let Some(bao) = OpenBao::shared_or_skip("wrong configs of Transit keys, against a store") else {
        return;
    };
    let good = customer(bao, "wrong");
    let directory = tempfile::tempdir().unwrap();
    let store = options(bao, directory.path())
        .create(directory.path().join("store.keystead"))
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 3);
    let before = (
        acme.audit_head().unwrap(),
        acme.epochs().unwrap(),
        acme.keys().list().unwrap(),
    );
    let with = |field: &str, value: Value| {
        let mut config = good.clone();
        config[field] = value;
        config
    };
    for (config, code, mentions) in [
        (with("key", json!("../sys")), ErrorCode::InvalidConfig, "key"),
        (
            with("key", json!("nobody")),
            ErrorCode::AccessDenied,
            "transit/encrypt/nobody",
        ),
        (
            with("namespace", json!("nobody")),
            ErrorCode::KeyNotFound,
            "nobody/transit",
        ),
        (
            with("role", json!("nobody")),
            ErrorCode::Unauthenticated,
            "nobody",
        ),
        (
            with("identity_token", json!({ "audience": "other" })),
            ErrorCode::Unauthenticated,
            "audience",
        ),
        (
            with("address", json!("https://evil.example")),
            ErrorCode::InvalidConfig,
            "address",
        ),
    ] {
        let error = acme.keys().add("acme-cmk", "transit", config).unwrap_err();
        let Error::Kms { source, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(source.code, code, "{error}");
        let text = error.to_string();
        assert!(text.contains(mentions) && text.contains("acme-cmk"), "{text}");
        println!("{text}");
    }
    assert_eq!(
        (
            acme.audit_head().unwrap(),
            acme.epochs().unwrap(),
            acme.keys().list().unwrap()
        ),
        before
    );
    acme.keys()
        .add("acme-cmk", "transit", good)
        .unwrap()
        .wait()
        .unwrap();
    check(&acme, 3);
}
