//! The owner of each KMS, through a store and the KMS's dynamic plugin: its key wraps and unwraps, is refused while it is switched off,
//! is out of reach while the KMS is dead, and is there as before when it came back.

use keystead::{Backend, Organization, Store};
use keystead_managed::ManagedBackend;
use keystead_tests::built::plugin_or_leave_out;
use keystead_tests::emulators::{Kms, Owner};
use std::time::Duration;

/// What a secret of the store says after its epoch keys were forgotten.
fn read(store: &Store, acme: &Organization) -> keystead::Result<Vec<u8>> {
    store.forget_epoch_keys();
    acme.get("a/secret")
        .map(|secret| secret.value.as_slice().to_vec())
}

fn an_owner_of(kms: Kms) {
    let left_out = format!("the owner of {kms:?}: off and on, death and return");
    let Some(plugin) = plugin_or_leave_out(&kms.plugin_library(), &left_out) else {
        return;
    };
    let Some(mut owner) = Owner::start_or_skip(kms, &left_out) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let store = Store::options()
        .backend(ManagedBackend::keyring(directory.path().join("managed.keyring")))
        .backend(Backend::new(plugin).named("theirs").settings(owner.settings()))
        .kms_timeout(Duration::from_secs(20))
        .kms_attempts_max(1)
        .create(directory.path().join("store.keystead"))
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    acme.put("a/secret", "a value").unwrap();
    let (key, other) = (owner.new_key().unwrap(), owner.new_key().unwrap());
    assert_eq!(key.config != other.config, kms.has_many_keys());
    let add = |name: &str, config: &serde_json::Value| acme.keys().add(name, "theirs", config.clone());
    add("own", &key.config).unwrap().wait().unwrap();
    assert_eq!(read(&store, &acme).unwrap(), b"a value");

    owner.disable(&key).unwrap();
    let error = read(&store, &acme).unwrap_err();
    assert!(error.is_revoked(), "{error}");
    if kms.has_many_keys() {
        add("other", &other.config).unwrap();
    }
    owner.kill().unwrap();
    owner.restart().unwrap();
    let error = read(&store, &acme).unwrap_err();
    assert!(
        error.is_revoked(),
        "it came back with its key switched on: {error}"
    );
    owner.enable(&key).unwrap();
    assert_eq!(read(&store, &acme).unwrap(), b"a value");

    owner.kill().unwrap();
    let error = read(&store, &acme).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    owner.restart().unwrap();
    assert_eq!(read(&store, &acme).unwrap(), b"a value");

    if kms.is_apart() {
        owner.pause().unwrap();
        std::thread::scope(|threads| {
            let asked = threads.spawn(|| read(&store, &acme));
            std::thread::sleep(Duration::from_millis(200));
            if asked.is_finished() {
                panic!("a paused KMS answered: {:?}", asked.join());
            }
            owner.resume().unwrap();
            assert_eq!(asked.join().unwrap().unwrap(), b"a value");
        });
    }
}

macro_rules! owners {
    ($($name:ident: $kms:ident;)*) => {
        $(
            #[test]
            fn $name() {
                an_owner_of(Kms::$kms);
            }
        )*

        #[test]
        fn none_is_forgotten() {
            assert_eq!(Kms::ALL, [$(Kms::$kms),*]);
        }
    };
}

owners! {
    a_keyring_file: Managed;
    a_key_in_aws_kms: Aws;
    an_rsa_key_in_an_azure_key_vault: AzureVault;
    an_aes_key_in_an_azure_managed_hsm: AzureHsm;
    a_key_in_google_cloud_kms: Gcp;
    a_key_in_transit: Transit;
    a_key_on_a_token: Pkcs11;
    a_key_on_a_token_with_aes_key_wrap: Pkcs11KeyWrap;
}
