//! A store that moves to its owner's key in Google Cloud KMS: add, by workload identity federation; re-wrap; revoke; give
//! back; rotate.

#![allow(clippy::print_stdout, reason = "the measured times are worth a look")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keystead::backend::{BackendError, ErrorCode, LockedBytes};
use keystead::{
    Backend, EpochState, Error, IdentityProvider, IdentityRequest, RewrapState, Store, StoreOptions,
};
use keystead_gcp_kms::GcpKmsBackend;
use keystead_managed::ManagedBackend;
use keystead_tests::direct::patient;
use keystead_tests::emulators::{Gcp, Provider};
use keystead_tests::filled::{check, fill, value, wait_until_refused, wait_until_served};
use serde_json::{Value, json};

const LIFETIME: Duration = Duration::from_secs(3);

/// The application as its own OpenID Connect issuer: a token for each organization, with the audience that the key's config
/// asks for.
struct Issuer {
    gcp: &'static Gcp,
    provider: Arc<Provider>,
}

impl IdentityProvider for Issuer {
    fn token(&self, request: &IdentityRequest<'_>) -> Result<LockedBytes, BackendError> {
        let subject = format!("cmk:{}:{}", request.key, request.organization);
        let token = self
            .gcp
            .mint(&self.provider, &subject, &json!({ "audience": request.audience }))
            .map_err(|error| BackendError::new(ErrorCode::Unavailable, error.to_string()))?;
        Ok(LockedBytes::copy_from(token.as_bytes()))
    }
}

fn options(directory: &Path, settings: Value, issuer: Issuer) -> StoreOptions {
    Store::options()
        .backend(ManagedBackend::keyring(directory.join("managed.keyring")))
        .backend(Backend::new(GcpKmsBackend::default()).settings(settings))
        .identity_provider(issuer)
        .key_lifetime(LIFETIME)
        .kms_timeout(Duration::from_secs(30))
}

#[test]
fn an_organization_brings_its_key_by_federation_revokes_it_and_gives_it_back() {
    let Some(gcp) = Gcp::shared_or_skip("a store under a key of Google Cloud KMS, from add to revoke") else {
        return;
    };
    let provider = Arc::new(gcp.provider("https://keystead.example", "gcp:acme").unwrap());
    let key = gcp.create_key().unwrap();
    let member = provider.principal("cmk:acme-cmk:acme");
    gcp.grant(&key, "cryptoKeyEncrypterDecrypter", &[&member])
        .unwrap();

    let directory = tempfile::tempdir().unwrap();
    let issuer = Issuer {
        gcp,
        provider: Arc::clone(&provider),
    };
    // The calls are counted: none must be made twice since the machine is busy.
    let settings = patient(&gcp.settings(), &["attempt_timeout_ms"]);
    let store = options(directory.path(), settings, issuer)
        .create(directory.path().join("store.keystead"))
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 500);
    let config = json!({ "key_name": key, "workload_identity_provider": provider.name,
        "web_identity": { "audience": provider.audience() } });
    let job = acme.keys().add("acme-cmk", "gcp-kms", config).unwrap();
    // Reads go on while the data keys move.
    while job.status().unwrap().state != RewrapState::Done {
        assert_eq!(acme.get("s/7").unwrap().value, value(7).as_bytes());
    }
    let epochs = acme.epochs().unwrap();
    assert_eq!(
        (epochs[0].state, epochs[1].state, epochs[1].references),
        (EpochState::Retired, EpochState::Active, 500)
    );
    let first = format!("{key}/cryptoKeyVersions/1");
    assert_eq!(epochs[1].kms_key_id, first, "the version that answered");
    let calls: Vec<String> = gcp
        .requests(&key)
        .unwrap()
        .iter()
        .filter_map(|request| request["rpc"].as_str().map(str::to_owned))
        .filter(|rpc| rpc == "Encrypt" || rpc == "Decrypt")
        .collect();
    println!("500 data keys moved to the key by these calls of Cloud KMS: {calls:?}");
    // The probe, the epoch that was handed over, the new one; and each is opened. However many data keys there are.
    assert_eq!(
        calls.iter().filter(|call| *call == "Encrypt").count(),
        3,
        "{calls:?}"
    );
    std::fs::remove_file(directory.path().join("managed.keyring")).unwrap();
    store.forget_epoch_keys();
    check(&acme, 500);

    gcp.disable(&first).unwrap();
    let (error, took) = wait_until_refused(&acme, LIFETIME + Duration::from_secs(2));
    println!("reads were refused {took:?} after the version was disabled; the lifetime is {LIFETIME:?}");
    let Error::Kms {
        key: name, source, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((name.as_str(), source.code), ("acme-cmk", ErrorCode::KeyDisabled));
    assert!(error.is_revoked(), "{error}");
    // Administration needs no key.
    assert_eq!(acme.list("", None, 1000).unwrap().items.len(), 500);

    gcp.enable(&first).unwrap();
    wait_until_served(&acme, Duration::from_secs(60));
    check(&acme, 500);

    // The grant is taken away instead of the key.
    gcp.grant(&key, "cryptoKeyEncrypterDecrypter", &[]).unwrap();
    store.forget_epoch_keys();
    let error = acme.get("s/7").unwrap_err();
    assert!(
        error.is_revoked() && error.to_string().contains("PERMISSION_DENIED"),
        "{error}"
    );
    gcp.grant(&key, "cryptoKeyEncrypterDecrypter", &[&member])
        .unwrap();
    wait_until_served(&acme, Duration::from_secs(60));
    check(&acme, 500);

    // Google rotates the key: what is there opens.
    gcp.rotate(&key).unwrap();
    store.forget_epoch_keys();
    check(&acme, 500);
}
