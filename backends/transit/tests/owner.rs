//! Against a real OpenBao server: what is wrapped and unwrapped, what the key's owner can do, and what comes of damage and
//! confusion.

mod common;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{KEY, Secret, assert_fails, call, context, granted, granted_of, open, settings, unwrap, wrap};
use keystead_backend::{Context, ErrorCode, Wrapped};
use keystead_tests::emulators::OpenBao;
use serde_json::json;

#[test]
fn what_is_wrapped_unwraps_under_the_same_context_alone_whatever_the_type_of_the_key() {
    for kind in [
        "aes256-gcm96",
        "aes128-gcm96",
        "chacha20-poly1305",
        "xchacha20-poly1305",
    ] {
        let name = format!("context-{kind}");
        let Some(granted) = granted_of(
            &name,
            &json!({ "type": kind }),
            "wrapping and unwrapping by Transit",
        ) else {
            return;
        };
        let key = &*granted.key;
        let wrapped = wrap(key).unwrap();
        assert_eq!(wrapped.key_id, format!("transit/keys/{name}:1"));
        assert!(wrapped.blob.starts_with(b"vault:v1:") && wrapped.metadata.is_empty());
        let text = String::from_utf8(wrapped.blob.clone()).unwrap();
        assert!(
            !text.contains(&STANDARD.encode(KEY)),
            "the blob has the key in clear"
        );
        assert_eq!(unwrap(key, &wrapped).unwrap(), KEY);
        let others = [
            Context::new([
                ("keystead:store", "00ff"),
                ("keystead:organization", "globex"),
                ("keystead:epoch", "1"),
            ]),
            Context::new([("keystead:store", "00ff"), ("keystead:organization", "acme")]),
            Context::new::<&str, &str>([]),
        ];
        for other in others {
            assert_fails(
                key.unwrap(&call(), &other, &wrapped),
                ErrorCode::InvalidCiphertext,
                &[&name, "another context"],
            );
        }
    }
}

#[test]
fn the_vendors_client_opens_what_was_wrapped_here_and_the_other_way_round() {
    let Some(granted) = granted("cross", "the vendor's own client beside this backend") else {
        return;
    };
    let associated = STANDARD.encode(context().canonical_bytes());
    let wrapped = wrap(&*granted.key).unwrap();
    let ciphertext = String::from_utf8(wrapped.blob).unwrap();
    let opened = granted
        .bao
        .client_unwrap(None, "cross", &associated, &ciphertext)
        .unwrap();
    assert_eq!(opened, STANDARD.encode(KEY));
    let wrong = STANDARD.encode("another context");
    let refused = granted
        .bao
        .client_unwrap(None, "cross", &wrong, &ciphertext)
        .unwrap_err();
    assert!(refused.to_string().contains("authentication failed"), "{refused}");

    let theirs = granted
        .bao
        .client_wrap(None, "cross", &associated, &STANDARD.encode("their key"))
        .unwrap();
    let wrapped = Wrapped {
        blob: theirs.into_bytes(),
        key_id: "transit/keys/cross:1".into(),
        metadata: Vec::new(),
    };
    assert_eq!(unwrap(&*granted.key, &wrapped).unwrap(), b"their key");
}

#[test]
fn plaintexts_of_every_allowed_size_come_back() {
    let Some(granted) = granted("sizes", "plaintexts of every allowed size") else {
        return;
    };
    for length in [1, 2, 3, 31, 32, 256, 4096] {
        let plaintext: Vec<u8> = (0..length).map(|index: u32| index.to_le_bytes()[0]).collect();
        let wrapped = granted.key.wrap(&call(), &context(), &plaintext).unwrap();
        assert!(wrapped.blob.len() <= 8192);
        let opened = granted.key.unwrap(&call(), &context(), &wrapped).unwrap();
        assert_eq!(opened.as_slice(), plaintext, "{length} bytes");
    }
}

#[test]
fn a_damaged_blob_is_refused_whatever_byte_is_hit() {
    let Some(granted) = granted("damage", "damaged blobs") else {
        return;
    };
    let wrapped = wrap(&*granted.key).unwrap();
    for position in 0..wrapped.blob.len() {
        let mut damaged = wrapped.clone();
        damaged.blob[position] ^= 0x01;
        match unwrap(&*granted.key, &damaged) {
            Err(error) => assert_eq!(
                error.code,
                ErrorCode::InvalidCiphertext,
                "byte {position}: {error}"
            ),
            Ok(opened) => panic!("byte {position} changed, and it opened to {opened:?}"),
        }
    }
    for length in [1, 9, 10, wrapped.blob.len() - 1] {
        let cut = Wrapped {
            blob: wrapped.blob[..length].to_vec(),
            ..wrapped.clone()
        };
        assert_fails(unwrap(&*granted.key, &cut), ErrorCode::InvalidCiphertext, &[]);
    }
}

#[test]
fn a_blob_of_another_key_is_refused_also_when_it_is_relabelled() {
    let Some(first) = granted("first", "blobs of other keys") else {
        return;
    };
    let second = granted("second", "").expect("it was there before");
    let wrapped = wrap(&*first.key).unwrap();
    assert_fails(
        unwrap(&*second.key, &wrapped),
        ErrorCode::WrongKey,
        &["transit/keys/first:1"],
    );
    let relabelled = Wrapped {
        key_id: "transit/keys/second:1".into(),
        ..wrapped
    };
    assert_fails(
        unwrap(&*second.key, &relabelled),
        ErrorCode::InvalidCiphertext,
        &[],
    );
}

#[test]
fn after_a_rotation_new_wraps_name_the_new_version_and_old_ones_open_until_the_owner_forbids_them() {
    let Some(granted) = granted("rotated", "rotations in Transit") else {
        return;
    };
    let (bao, key) = (granted.bao, &*granted.key);
    let old = wrap(key).unwrap();
    bao.rotate(None, "rotated").unwrap();
    let new = wrap(key).unwrap();
    assert_eq!(
        (old.key_id.as_str(), new.key_id.as_str()),
        ("transit/keys/rotated:1", "transit/keys/rotated:2")
    );
    assert_eq!(unwrap(key, &old).unwrap(), KEY);
    assert_eq!(unwrap(key, &new).unwrap(), KEY);
    let mislabelled = Wrapped {
        key_id: new.key_id.clone(),
        ..old.clone()
    };
    assert_fails(
        unwrap(key, &mislabelled),
        ErrorCode::InvalidCiphertext,
        &["version 1", "says 2"],
    );

    bao.configure_key(None, "rotated", &json!({ "min_decryption_version": 2 }))
        .unwrap();
    assert_fails(
        unwrap(key, &old),
        ErrorCode::KeyDisabled,
        &["rotated", "min_decryption_version"],
    );
    assert_eq!(unwrap(key, &new).unwrap(), KEY);
    bao.configure_key(None, "rotated", &json!({ "min_decryption_version": 1 }))
        .unwrap();
    assert_eq!(unwrap(key, &old).unwrap(), KEY);
}

#[test]
fn a_soft_deleted_key_is_refused_and_works_again_when_restored() {
    let Some(granted) = granted("softly", "soft-deleted keys") else {
        return;
    };
    let (bao, key) = (granted.bao, &*granted.key);
    let wrapped = wrap(key).unwrap();
    assert_eq!(key.status(&call()).unwrap().key_id, "transit/keys/softly:1");
    bao.soft_delete(None, "softly").unwrap();
    let words = ["softly", "soft-delete-restore"];
    assert_fails(unwrap(key, &wrapped), ErrorCode::KeyPendingDeletion, &words);
    assert_fails(wrap(key), ErrorCode::KeyPendingDeletion, &words);
    assert_fails(key.status(&call()), ErrorCode::KeyPendingDeletion, &words);
    bao.restore(None, "softly").unwrap();
    assert_eq!(unwrap(key, &wrapped).unwrap(), KEY);
}

#[test]
fn a_deleted_key_is_not_found_and_never_made_anew_by_a_wrap() {
    let Some(granted) = granted("deleted", "deleted keys") else {
        return;
    };
    let (bao, key) = (granted.bao, &*granted.key);
    let wrapped = wrap(key).unwrap();
    bao.delete_key(None, "deleted").unwrap();
    assert_fails(
        unwrap(key, &wrapped),
        ErrorCode::KeyNotFound,
        &["deleted", "check the key's name"],
    );
    // Under the least policy: "update" alone. With "create" the server would make a new key here.
    assert_fails(wrap(key), ErrorCode::AccessDenied, &["the key must exist"]);
    assert_fails(unwrap(key, &wrapped), ErrorCode::KeyNotFound, &[]);
    // Another key of the same name opens nothing of the first one's.
    bao.create_key(None, "deleted").unwrap();
    assert_fails(
        unwrap(key, &wrapped),
        ErrorCode::InvalidCiphertext,
        &["another key of this name"],
    );
}

#[test]
fn an_engine_that_is_gone_is_a_key_that_is_gone() {
    let Some(bao) = OpenBao::shared_or_skip("engines that are not there") else {
        return;
    };
    bao.put_policy(
        None,
        "nowhere",
        "path \"nowhere/*\" { capabilities = [\"update\"] }",
    )
    .unwrap();
    let token = Secret::new(&bao.token("nowhere", "1h").unwrap());
    let key = open(&settings(bao, &token), &json!({ "key": "a", "mount": "nowhere" }));
    assert_fails(wrap(&*key), ErrorCode::KeyNotFound, &["nowhere/keys/a", "mount"]);
    let key = open(
        &settings(bao, &token),
        &json!({ "key": "a", "namespace": "nobody" }),
    );
    assert_fails(wrap(&*key), ErrorCode::KeyNotFound, &["nobody/transit/keys/a"]);
}

#[test]
fn a_key_that_takes_no_associated_data_is_a_wrong_config() {
    for (name, parameters) in [
        ("rsa", json!({ "type": "rsa-2048" })),
        ("signing", json!({ "type": "ed25519" })),
        ("derived", json!({ "type": "aes256-gcm96", "derived": true })),
    ] {
        let Some(granted) = granted_of(name, &parameters, "keys without associated data") else {
            return;
        };
        assert_fails(
            wrap(&*granted.key),
            ErrorCode::InvalidConfig,
            &[name, "aes256-gcm96"],
        );
    }
}

#[test]
fn what_no_policy_allows_is_denied_and_says_what_to_allow() {
    let Some(granted) = granted("denied", "policies of Transit") else {
        return;
    };
    let (bao, key) = (granted.bao, &*granted.key);
    let wrapped = wrap(key).unwrap();
    bao.put_policy(
        None,
        "denied",
        "path \"transit/encrypt/denied\" { capabilities = [\"update\"] }",
    )
    .unwrap();
    assert_fails(
        unwrap(key, &wrapped),
        ErrorCode::AccessDenied,
        &["\"update\" on transit/decrypt/denied"],
    );
    wrap(key).unwrap();
    bao.put_policy(None, "denied", &OpenBao::grant("denied")).unwrap();
    assert_eq!(unwrap(key, &wrapped).unwrap(), KEY);
}

#[test]
fn a_namespace_has_keys_of_its_own_and_its_owner_can_lock_it() {
    let Some(bao) = OpenBao::shared_or_skip("namespaces") else {
        return;
    };
    bao.create_namespace("team").unwrap();
    bao.enable_transit(Some("team")).unwrap();
    bao.create_key(Some("team"), "same").unwrap();
    bao.create_key(None, "same").unwrap();
    let token = Secret::new(bao.root_token());
    let in_team = open(
        &settings(bao, &token),
        &json!({ "key": "same", "namespace": "team" }),
    );
    let in_root = open(&settings(bao, &token), &json!({ "key": "same" }));
    let wrapped = wrap(&*in_team).unwrap();
    assert_eq!(wrapped.key_id, "team/transit/keys/same:1");
    assert_eq!(unwrap(&*in_team, &wrapped).unwrap(), KEY);
    assert_fails(unwrap(&*in_root, &wrapped), ErrorCode::WrongKey, &["team/"]);
    let relabelled = Wrapped {
        key_id: "transit/keys/same:1".into(),
        ..wrapped.clone()
    };
    assert_fails(unwrap(&*in_root, &relabelled), ErrorCode::InvalidCiphertext, &[]);

    let unlock_key = bao.lock_namespace("team").unwrap();
    assert_fails(
        unwrap(&*in_team, &wrapped),
        ErrorCode::KeyDisabled,
        &["locked by an administrator", "unlock"],
    );
    wrap(&*in_root).unwrap();
    bao.unlock_namespace("team", &unlock_key).unwrap();
    assert_eq!(unwrap(&*in_team, &wrapped).unwrap(), KEY);
}

#[test]
fn many_threads_use_one_instance_at_once() {
    let Some(granted) = granted("threads", "many threads on one instance") else {
        return;
    };
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let key = &*granted.key;
            scope.spawn(move || {
                for turn in 0..10_u8 {
                    let plaintext = [thread, turn];
                    let wrapped = key.wrap(&call(), &context(), &plaintext).unwrap();
                    let opened = key.unwrap(&call(), &context(), &wrapped).unwrap();
                    assert_eq!(opened.as_slice(), plaintext);
                }
            });
        }
    });
}
