//! A store that moves to its owner's key in Azure: add, by workload identity federation; re-wrap; revoke; give back.

mod common;

use keystead::backend::{BackendError, ErrorCode, LockedBytes};
use keystead::{
    Backend, EpochState, Error, IdentityProvider, IdentityRequest, RewrapState, Store, StoreOptions,
};
use keystead_azure_key_vault::AzureKeyVaultBackend;
use keystead_managed::ManagedBackend;
use keystead_tests::emulators::{Azure, TENANT};
use keystead_tests::filled::{check, fill, value, wait_until_refused, wait_until_served};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const ISSUER: &str = "https://tokens.saas.example";
const AUDIENCE: &str = "api://AzureADTokenExchange";
const LIFETIME: Duration = Duration::from_secs(3);

/// The application as its own OpenID Connect issuer; the peer holds its signing key.
struct Issuer(&'static Azure);

impl IdentityProvider for Issuer {
    fn token(&self, request: &IdentityRequest<'_>) -> Result<LockedBytes, BackendError> {
        let subject = format!("saas:cmk:vault:{}", request.organization);
        let token = self.0.mint(ISSUER, &subject, request.audience, 600);
        let token = token.map_err(|error| BackendError::new(ErrorCode::Unavailable, error.to_string()))?;
        Ok(LockedBytes::copy_from(token.as_bytes()))
    }
}

fn options(azure: &'static Azure, directory: &Path, settings: Value) -> StoreOptions {
    Store::options()
        .backend(ManagedBackend::keyring(directory.join("managed.keyring")))
        .backend(Backend::new(AzureKeyVaultBackend::default()).settings(settings))
        .identity_provider(Issuer(azure))
        .key_lifetime(LIFETIME)
        .kms_timeout(Duration::from_secs(30))
}

#[test]
fn an_organization_brings_its_key_by_federation_rotates_revokes_and_gives_it_back() {
    let Some(azure) = Azure::shared_or_skip("a store under an Azure key, from add to revoke") else {
        return;
    };
    for vault in ["store.vault.azure.net", "store.managedhsm.azure.net"] {
        let (key, version) = azure.create_key(vault, "keystead").unwrap();
        let identity = azure.create_application().unwrap();
        azure.grant(&key, &identity, &["wrap", "unwrap"]).unwrap();
        azure
            .federate(&identity, ISSUER, "saas:cmk:vault:acme", AUDIENCE)
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let store = options(azure, directory.path(), azure.settings())
            .create(directory.path().join("store.keystead"))
            .unwrap();
        let acme = store.create_organization("acme").unwrap();
        fill(&acme, 200);
        let config = json!({
            "key_id": key, "tenant_id": TENANT, "client_id": identity.client_id,
            "workload_identity": { "audience": AUDIENCE },
        });
        let job = acme.keys().add("acme-cmk", "azure-key-vault", config).unwrap();
        // Reads go on while the data keys move.
        while job.status().unwrap().state != RewrapState::Done {
            assert_eq!(acme.get("s/7").unwrap().value, value(7).as_bytes());
        }
        let epochs = acme.epochs().unwrap();
        assert_eq!(
            (epochs[0].state, epochs[1].state, epochs[1].references),
            (EpochState::Retired, EpochState::Active, 200)
        );
        assert_eq!(
            epochs[1].kms_key_id,
            format!("{key}/{version}"),
            "pinned to the version that answered"
        );
        std::fs::remove_file(directory.path().join("managed.keyring")).unwrap();
        store.forget_epoch_keys();
        check(&acme, 200);

        // The key is rotated in the vault: what was wrapped goes on opening, and a rotation here uses the new version.
        let (_, second) = azure.create_key(vault, "keystead").unwrap();
        store.forget_epoch_keys();
        check(&acme, 200);
        acme.keys().rotate("acme-cmk").unwrap().wait().unwrap();
        let newest = acme.epochs().unwrap().pop().unwrap();
        assert_eq!(newest.kms_key_id, format!("{key}/{second}"));

        azure.set_enabled(&key, None, false).unwrap();
        let (error, _) = wait_until_refused(&acme, LIFETIME + Duration::from_secs(1));
        let Error::Kms {
            key: name, source, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!((name.as_str(), source.code), ("acme-cmk", ErrorCode::KeyDisabled));
        assert!(error.is_revoked(), "{error}");
        // Azure wraps with a disabled RSA key. The wrap is opened before anything rests on it, so no epoch is made.
        let before = acme.epochs().unwrap().len();
        assert!(acme.keys().rotate("acme-cmk").unwrap_err().is_revoked());
        assert_eq!(acme.epochs().unwrap().len(), before);
        assert_eq!(acme.list("", None, 1000).unwrap().items.len(), 200);

        azure.set_enabled(&key, None, true).unwrap();
        wait_until_served(&acme, Duration::from_secs(60));
        check(&acme, 200);
    }
}

#[test]
fn an_identity_of_one_organization_is_none_of_another() {
    let Some(azure) = Azure::shared_or_skip("another organization's Azure identity") else {
        return;
    };
    let (key, _) = azure.create_key("two.vault.azure.net", "keystead").unwrap();
    let identity = azure.create_application().unwrap();
    azure.grant(&key, &identity, &["wrap", "unwrap"]).unwrap();
    azure
        .federate(&identity, ISSUER, "saas:cmk:vault:acme", AUDIENCE)
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = options(azure, directory.path(), azure.settings())
        .create(directory.path().join("store.keystead"))
        .unwrap();
    let other = store.create_organization("other").unwrap();
    fill(&other, 3);
    let config = json!({
        "key_id": key, "tenant_id": TENANT, "client_id": identity.client_id, "workload_identity": { "audience": AUDIENCE },
    });
    let error = other.keys().add("cmk", "azure-key-vault", config).unwrap_err();
    assert!(error.is_revoked(), "{error}");
    assert!(error.to_string().contains("AADSTS700213"), "{error}");
    check(&other, 3);
    assert_eq!(other.epochs().unwrap().len(), 1);
}
