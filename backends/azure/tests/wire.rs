//! Wrapping and unwrapping over the wire: key vault and managed HSM, versions, damage; and Microsoft's own client beside it.

mod common;

use common::{KEY, Owned, assert_fails, call, context, open, try_open, unwrap, wrap};
use keystead_backend::{ErrorCode, Wrapped};
use keystead_tests::emulators::Azure;
use serde_json::json;
use std::sync::Arc;

const RSA: &str = "RSA-OAEP-256";
const AES: &str = "A256KW";

#[test]
fn a_key_comes_back_from_a_vault_and_from_a_managed_hsm_and_the_version_is_recorded() {
    let Some(azure) = Azure::shared_or_skip("wrapping with Azure, both algorithms") else {
        return;
    };
    for (vault, algorithm) in [("both.vault.azure.net", RSA), ("both.managedhsm.azure.net", AES)] {
        let owned = Owned::new(azure, vault);
        let key = owned.open();
        let wrapped = wrap(&*key).unwrap();
        assert_eq!(wrapped.key_id, owned.first_version());
        assert_eq!(wrapped.metadata, algorithm.as_bytes());
        assert!(
            !wrapped
                .blob
                .windows(KEY.len())
                .any(|window| window == KEY.as_slice())
        );
        assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
        // Another instance, as after a restart.
        assert_eq!(unwrap(&*owned.open(), &wrapped).unwrap(), KEY);
    }
}

#[test]
fn microsofts_client_opens_what_was_wrapped_here_and_the_other_way_round() {
    let Some(azure) = Azure::shared_or_skip("the cross check by Microsoft's own client") else {
        return;
    };
    for (vault, algorithm) in [
        ("cross.vault.azure.net", RSA),
        ("cross.managedhsm.azure.net", AES),
    ] {
        let owned = Owned::new(azure, vault);
        let key = owned.open();
        let ours = wrap(&*key).unwrap();
        let (key_id, opened) = azure
            .microsofts_client("unwrap", &owned.application, &ours.key_id, algorithm, &ours.blob)
            .unwrap();
        assert_eq!((key_id, opened), (ours.key_id, KEY.to_vec()));
        let (key_id, blob) = azure
            .microsofts_client(
                "wrap",
                &owned.application,
                &owned.first_version(),
                algorithm,
                &KEY,
            )
            .unwrap();
        let theirs = Wrapped {
            blob,
            key_id,
            metadata: algorithm.into(),
        };
        assert_eq!(unwrap(&*key, &theirs).unwrap(), KEY);
    }
}

#[test]
fn after_a_rotation_the_new_version_wraps_and_the_old_one_opens_what_it_wrapped() {
    let Some(azure) = Azure::own_or_skip("versions of an Azure key") else {
        return;
    };
    let owned = Owned::new(&azure, "versions.vault.azure.net");
    let key = owned.open();
    let old = wrap(&*key).unwrap();
    let (_, second) = azure.create_key("versions.vault.azure.net", "keystead").unwrap();
    let new = wrap(&*key).unwrap();
    assert_eq!(new.key_id, format!("{}/{second}", owned.key));
    azure.requests().unwrap();
    assert_eq!(unwrap(&*key, &old).unwrap(), KEY);
    assert_eq!(unwrap(&*key, &new).unwrap(), KEY);
    let requests = azure.requests().unwrap();
    let asked: Vec<_> = requests
        .iter()
        .map(|r| (r["operation"].as_str().unwrap(), r["version"].as_str().unwrap()))
        .collect();
    assert_eq!(
        asked,
        [("unwrapkey", owned.version.as_str()), ("unwrapkey", &second)],
        "one request each, to the version that is recorded"
    );
    // A config that names a version uses that one, and opens nothing of another.
    let pinned = open(&owned.settings, &json!({ "key_id": owned.first_version() }));
    assert_eq!(wrap(&*pinned).unwrap().key_id, owned.first_version());
    assert_eq!(unwrap(&*pinned, &old).unwrap(), KEY);
    assert_fails(unwrap(&*pinned, &new), ErrorCode::WrongKey, &[&new.key_id]);
}

#[test]
fn the_first_request_has_no_body_and_later_ones_are_one_for_each_call() {
    let Some(azure) = Azure::own_or_skip("the number of requests to Azure") else {
        return;
    };
    let owned = Owned::new(&azure, "requests.vault.azure.net");
    let key = owned.open();
    let wrapped = wrap(&*key).unwrap();
    let requests = azure.requests().unwrap();
    assert_eq!(
        requests
            .iter()
            .map(|r| r["operation"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["wrapkey", "token", "wrapkey"]
    );
    assert_eq!(
        (&requests[0]["authenticated"], &requests[0]["body"]),
        (&json!(false), &json!(false)),
        "nothing is told to a vault that has not said whom to sign in to"
    );
    for _ in 0..3 {
        unwrap(&*key, &wrapped).unwrap();
    }
    assert_eq!(azure.requests().unwrap().len(), 3);
}

#[test]
fn every_length_that_an_algorithm_takes_comes_back_and_others_are_refused_without_a_request() {
    let Some(azure) = Azure::shared_or_skip("lengths of what Azure wraps") else {
        return;
    };
    for (vault, good, bad) in [
        (
            "lengths.vault.azure.net",
            &[1, 16, 33, 64, 184][..],
            &[0, 185][..],
        ),
        (
            "lengths.managedhsm.azure.net",
            &[16, 24, 64, 184],
            &[0, 8, 33, 192],
        ),
    ] {
        let owned = Owned::new(azure, vault);
        let key = owned.open();
        for length in good {
            let plaintext = vec![7; *length];
            let wrapped = key.wrap(&call(), &context(), &plaintext).unwrap();
            assert_eq!(unwrap(&*key, &wrapped).unwrap(), plaintext, "{length} bytes");
        }
        for length in bad {
            let refused = key.wrap(&call(), &context(), &vec![7; *length]);
            assert_fails(refused, ErrorCode::InvalidConfig, &[&format!("{length} bytes")]);
        }
    }
}

#[test]
fn what_is_damaged_or_of_another_key_does_not_open() {
    let Some(azure) = Azure::shared_or_skip("damaged wraps of Azure") else {
        return;
    };
    for vault in ["damage.vault.azure.net", "damage.managedhsm.azure.net"] {
        let owned = Owned::new(azure, vault);
        let key = owned.open();
        let good = wrap(&*key).unwrap();
        for place in [0, good.blob.len() / 2, good.blob.len() - 1] {
            let mut damaged = good.clone();
            damaged.blob[place] ^= 1;
            assert_fails(
                unwrap(&*key, &damaged),
                ErrorCode::InvalidCiphertext,
                &[&good.key_id, "nothing was opened"],
            );
        }
        let with = |change: fn(&mut Wrapped)| {
            let mut changed = good.clone();
            change(&mut changed);
            unwrap(&*key, &changed)
        };
        for (changed, code) in [
            (with(|w| w.blob.clear()), ErrorCode::InvalidCiphertext),
            (with(|w| w.blob.resize(5000, 0)), ErrorCode::InvalidCiphertext),
            (with(|w| w.metadata.clear()), ErrorCode::InvalidCiphertext),
            (
                with(|w| w.metadata = b"RSA1_5".to_vec()),
                ErrorCode::InvalidCiphertext,
            ),
            (with(|w| w.key_id.clear()), ErrorCode::InvalidCiphertext),
            (
                with(|w| w.key_id = "https://evil.example/keys/k/1".into()),
                ErrorCode::WrongKey,
            ),
            (
                with(|w| w.key_id = w.key_id.replace("/keystead/", "/other/")),
                ErrorCode::WrongKey,
            ),
            // Without its version a wrap would be given to whatever is newest.
            (
                with(|w| w.key_id.truncate(w.key_id.rfind('/').unwrap())),
                ErrorCode::WrongKey,
            ),
        ] {
            assert_fails(changed, code, &[]);
        }
        // The right key, another version of it.
        azure.create_key(vault, "keystead").unwrap();
        let mut swapped = wrap(&*key).unwrap();
        swapped.key_id = good.key_id.clone();
        assert_fails(unwrap(&*key, &swapped), ErrorCode::InvalidCiphertext, &[]);
    }
}

#[test]
fn a_key_without_the_configs_algorithm_is_a_wrong_config() {
    let Some(azure) = Azure::shared_or_skip("an algorithm that the Azure key does not have") else {
        return;
    };
    let owned = Owned::new(azure, "algorithm.vault.azure.net");
    let key = open(&owned.settings, &json!({ "key_id": owned.key, "algorithm": AES }));
    assert_fails(
        wrap(&*key),
        ErrorCode::InvalidConfig,
        &["BadParameter", "A256KW a 256-bit AES key"],
    );
}

#[test]
fn the_status_names_the_current_version_and_tells_a_disabled_key_from_a_denied_look() {
    let Some(azure) = Azure::shared_or_skip("the status of an Azure key") else {
        return;
    };
    let owned = Owned::new(azure, "status.vault.azure.net");
    let key = owned.open();
    assert_fails(
        key.status(&call()),
        ErrorCode::AccessDenied,
        &["keys/read", "ForbiddenByRbac"],
    );
    azure.grant(&owned.key, &owned.application, &["read"]).unwrap();
    assert_eq!(key.status(&call()).unwrap().key_id, owned.first_version());
    azure.set_enabled(&owned.key, None, false).unwrap();
    assert_fails(
        key.status(&call()),
        ErrorCode::KeyDisabled,
        &[&owned.first_version()],
    );
}

#[test]
fn a_server_that_is_not_certified_for_the_vaults_name_gets_nothing() {
    let Some(azure) = Azure::own_or_skip("the certificate of a vault") else {
        return;
    };
    let owned = Owned::new(&azure, "certified.vault.azure.net");
    let mut settings = owned.settings.clone();
    settings["allowed_key_ids"] = json!(["https://certified.vault.example/keys/*"]);
    let stranger = json!({ "key_id": "https://certified.vault.example/keys/keystead" });
    assert_fails(
        wrap(&*open(&settings, &stranger)),
        ErrorCode::Unavailable,
        &["certificate"],
    );
    // Nor does one whose authority nobody trusts.
    let mut settings = owned.settings.clone();
    settings.as_object_mut().unwrap().remove("ca_file");
    let key = open(&settings, &json!({ "key_id": owned.key }));
    assert_fails(wrap(&*key), ErrorCode::Unavailable, &["certificate"]);
    assert_eq!(azure.requests().unwrap().len(), 0);
}

#[test]
fn a_vault_that_asks_for_a_token_for_another_service_gets_none() {
    let Some(azure) = Azure::own_or_skip("the challenge of a vault") else {
        return;
    };
    let owned = Owned::new(&azure, "challenge.vault.azure.net");
    let challenge = r#"Bearer authorization="https://login.microsoftonline.com/x", resource="https://management.azure.com""#;
    azure
        .inject(
            &json!({ "operation": "wrapkey", "status": 401, "headers": { "www-authenticate": challenge } }),
        )
        .unwrap();
    assert_fails(
        wrap(&*owned.open()),
        ErrorCode::InvalidConfig,
        &["management.azure.com"],
    );
    let requests = azure.requests().unwrap();
    assert!(
        requests.iter().all(|request| request["operation"] != "token"),
        "{requests:?}"
    );
}

#[test]
fn a_file_of_certificates_that_is_none_is_named() {
    let Some(azure) = Azure::shared_or_skip("a wrong file of certificates") else {
        return;
    };
    let owned = Owned::new(azure, "ca.vault.azure.net");
    for content in ["", "no certificate"] {
        let path = owned.directory().join("ca.pem");
        std::fs::write(&path, content).unwrap();
        let mut settings = owned.settings.clone();
        settings["ca_file"] = json!(path);
        let config = json!({ "key_id": owned.key });
        let key = try_open(Arc::default(), &settings, &config).unwrap();
        assert_fails(
            wrap(&*key),
            ErrorCode::InvalidConfig,
            &["ca_file", path.to_str().unwrap()],
        );
    }
}
