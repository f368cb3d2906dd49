//! A store that moves to its owner's key in AWS KMS: add, by role and web identity; re-wrap; revoke; give back.

#![allow(
    clippy::print_stdout,
    reason = "the measured times and messages are worth a look"
)]

mod common;

use keystead::backend::{BackendError, ErrorCode, LockedBytes};
use keystead::{
    Backend, EpochState, Error, IdentityProvider, IdentityRequest, RewrapState, Store, StoreOptions,
};
use keystead_aws_kms::AwsKmsBackend;
use keystead_managed::ManagedBackend;
use keystead_tests::emulators::{Emulator, Kind, allow, trust_web_identity, unsigned_token};
use keystead_tests::filled::{check, fill, value, wait_until_refused, wait_until_served};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const ISSUER: &str = "keystead.example";
const LIFETIME: Duration = Duration::from_secs(3);

/// The application as its own OpenID Connect issuer: a token for each organization, with the audience that the key's config
/// asks for.
struct Issuer;

impl IdentityProvider for Issuer {
    fn token(&self, request: &IdentityRequest<'_>) -> Result<LockedBytes, BackendError> {
        let subject = format!("cmk:{}:{}", request.key, request.organization);
        Ok(LockedBytes::copy_from(
            unsigned_token(ISSUER, request.audience, &subject).as_bytes(),
        ))
    }
}

fn options(directory: &Path, settings: Value) -> StoreOptions {
    Store::options()
        .backend(ManagedBackend::keyring(directory.join("managed.keyring")))
        .backend(Backend::new(AwsKmsBackend::default()).settings(settings))
        .identity_provider(Issuer)
        .key_lifetime(LIFETIME)
        .kms_timeout(Duration::from_secs(30))
}

#[test]
fn an_organization_brings_its_key_by_role_and_web_identity_revokes_it_and_gives_it_back() {
    let Some(aws) = Emulator::shared_or_skip(Kind::Ministack, "a store under an AWS key, from add to revoke")
    else {
        return;
    };
    let owner = aws.account_numbered("222222222222");
    let key = owner.create_key().unwrap();
    let trust = trust_web_identity(owner.number(), ISSUER, "aws:acme", "cmk:acme-cmk:acme");
    let role = owner.create_role("keystead-acme", &trust).unwrap();
    owner
        .put_role_policy("keystead-acme", &allow(&["kms:Encrypt", "kms:Decrypt"], &key))
        .unwrap();

    let directory = tempfile::tempdir().unwrap();
    let mut settings = aws.settings();
    for credential in ["access_key_id", "secret_access_key", "session_token"] {
        settings.as_object_mut().unwrap().remove(credential);
    }
    let store = options(directory.path(), settings)
        .create(directory.path().join("store.keystead"))
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 500);
    let config = json!({ "key_arn": key, "role_arn": role, "web_identity": { "audience": "aws:acme" } });
    let job = acme.keys().add("acme-cmk", "aws-kms", config).unwrap();
    // Reads go on while the data keys move.
    while job.status().unwrap().state != RewrapState::Done {
        assert_eq!(acme.get("s/7").unwrap().value, value(7).as_bytes());
    }
    let epochs = acme.epochs().unwrap();
    assert_eq!(
        (epochs[0].state, epochs[1].state, epochs[1].references),
        (EpochState::Retired, EpochState::Active, 500)
    );
    assert_eq!(epochs[1].kms_key_id, key, "pinned to what answered");
    std::fs::remove_file(directory.path().join("managed.keyring")).unwrap();
    store.forget_epoch_keys();
    check(&acme, 500);

    owner.disable_key(&key).unwrap();
    let (error, took) = wait_until_refused(&acme, LIFETIME + Duration::from_secs(1));
    println!("reads were refused {took:?} after the key was disabled; the lifetime is {LIFETIME:?}");
    let Error::Kms {
        key: name, source, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((name.as_str(), source.code), ("acme-cmk", ErrorCode::KeyDisabled));
    assert!(
        error.is_revoked() && error.to_string().contains("acme-cmk"),
        "{error}"
    );
    // Administration needs no key.
    assert_eq!(acme.list("", None, 1000).unwrap().items.len(), 500);
    acme.epochs().unwrap();

    owner.enable_key(&key).unwrap();
    wait_until_served(&acme, Duration::from_secs(60));
    check(&acme, 500);
}

#[test]
fn a_config_that_is_wrong_in_one_way_changes_nothing_and_says_what_to_fix() {
    let Some(aws) = Emulator::shared_or_skip(Kind::Ministack, "wrong configs of AWS keys, against a store")
    else {
        return;
    };
    let owner = aws.account();
    let key = owner.create_key().unwrap();
    let disabled = owner.create_key().unwrap();
    owner.disable_key(&disabled).unwrap();
    let denied = owner.create_key().unwrap();
    let user = owner.create_user("only-one-key").unwrap();
    owner
        .put_user_policy("only-one-key", &allow(&["kms:Encrypt", "kms:Decrypt"], &key))
        .unwrap();
    owner
        .put_user_policy("only-one-key", &allow(&["kms:Encrypt", "kms:Decrypt"], &disabled))
        .unwrap();
    let no_such_key = key.replace(&key[key.len() - 6..], "000000");

    let directory = tempfile::tempdir().unwrap();
    let mut unreachable = aws.settings();
    unreachable["endpoint_url"] = json!("http://127.0.0.1:9");
    let store = options(directory.path(), aws.settings())
        .backend(
            Backend::new(AwsKmsBackend::default())
                .named("aws-denied")
                .settings(aws.settings_for(&user)),
        )
        .backend(
            Backend::new(AwsKmsBackend::default())
                .named("aws-unreachable")
                .settings(unreachable),
        )
        .create(directory.path().join("store.keystead"))
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 3);
    let before = (
        acme.audit_head().unwrap(),
        acme.epochs().unwrap(),
        acme.keys().list().unwrap(),
    );
    let cases: [(&str, &str, Value, ErrorCode, &str); 7] = [
        (
            "bad ARN",
            "aws-kms",
            json!({ "key_arn": "arn:aws:kms:nowhere" }),
            ErrorCode::InvalidConfig,
            "key_arn",
        ),
        (
            "no such key",
            "aws-kms",
            json!({ "key_arn": no_such_key }),
            ErrorCode::KeyNotFound,
            &no_such_key,
        ),
        (
            "denied",
            "aws-denied",
            json!({ "key_arn": denied }),
            ErrorCode::AccessDenied,
            "kms:Encrypt",
        ),
        (
            "disabled",
            "aws-kms",
            json!({ "key_arn": disabled }),
            ErrorCode::KeyDisabled,
            &disabled,
        ),
        (
            "unreachable",
            "aws-unreachable",
            json!({ "key_arn": key }),
            ErrorCode::Unavailable,
            "",
        ),
        (
            "unknown field",
            "aws-kms",
            json!({ "key_arn": key, "endpoint": "x" }),
            ErrorCode::InvalidConfig,
            "endpoint",
        ),
        (
            "missing field",
            "aws-kms",
            json!({}),
            ErrorCode::InvalidConfig,
            "key_arn",
        ),
    ];
    for (what, backend, config, code, mentions) in cases {
        let error = acme.keys().add("acme-cmk", backend, config).unwrap_err();
        let Error::Kms { source, .. } = &error else {
            panic!("{what}: {error}")
        };
        assert_eq!(source.code, code, "{what}: {error}");
        assert!(
            error.to_string().contains(mentions) && error.to_string().contains("acme-cmk"),
            "{what}: {error}"
        );
        println!("{what}: {error}");
    }
    assert_eq!(
        (
            acme.audit_head().unwrap(),
            acme.epochs().unwrap(),
            acme.keys().list().unwrap()
        ),
        before
    );
    check(&acme, 3);
    acme.keys()
        .add("acme-cmk", "aws-kms", json!({ "key_arn": key }))
        .unwrap()
        .wait()
        .unwrap();
    check(&acme, 3);
}
