//! Against real emulators of AWS: what the key's owner can do, and what comes of damage and confusion.

mod common;

use std::sync::mpsc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{KEY, assert_fails, call, context, open, unwrap, wrap};
use keystead_backend::{Call, Context, ErrorCode, KeyInstance, Wrapped};
use keystead_tests::emulators::{Emulator, Kind};
use serde_json::{Value, json};

/// An emulator and a key in it, opened.
fn key_in(kind: Kind, left_out: &str) -> Option<(&'static Emulator, String, Box<dyn KeyInstance>)> {
    let aws = Emulator::shared_or_skip(kind, left_out)?;
    let arn = aws.account().create_key().expect("the owner makes a key");
    let key = open(&aws.settings(), &json!({ "key_arn": arn }));
    Some((aws, arn, key))
}

#[test]
fn what_is_wrapped_unwraps_under_the_same_context_alone() {
    for kind in [Kind::Moto, Kind::Ministack] {
        let Some((_, arn, key)) = key_in(kind, "wrapping and unwrapping by an AWS KMS") else {
            return;
        };
        let wrapped = wrap(&*key).unwrap();
        assert_eq!(
            (wrapped.key_id.as_str(), wrapped.metadata.len()),
            (arn.as_str(), 0)
        );
        assert!(
            !wrapped.blob.windows(KEY.len()).any(|window| window == KEY),
            "the blob has the key in clear"
        );
        assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
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
                &[&arn],
            );
        }
    }
}

#[test]
fn a_wrap_opens_with_a_plain_decrypt_of_its_owner_and_the_pairs_of_the_context() {
    let Some((aws, arn, key)) = key_in(Kind::Moto, "the owner's view of a wrap") else {
        return;
    };
    let wrapped = wrap(&*key).unwrap();
    let pairs: serde_json::Map<String, Value> = context()
        .entries()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    let body =
        json!({ "KeyId": arn, "CiphertextBlob": STANDARD.encode(&wrapped.blob), "EncryptionContext": pairs });
    let opened = aws.account().kms("Decrypt", &body).unwrap();
    assert_eq!(opened["Plaintext"], json!(STANDARD.encode(KEY)));
}

#[test]
fn plaintexts_of_every_allowed_size_come_back() {
    let Some((_, _, key)) = key_in(Kind::Moto, "plaintexts of every allowed size") else {
        return;
    };
    for length in [1, 32, 256, 4096] {
        let plaintext: Vec<u8> = (0..length).map(|index: u32| index.to_le_bytes()[0]).collect();
        let wrapped = key.wrap(&call(), &context(), &plaintext).unwrap();
        assert_eq!(
            key.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
            plaintext,
            "{length} bytes"
        );
    }
}

#[test]
fn a_damaged_blob_is_refused_whatever_byte_is_hit() {
    let Some((_, _, key)) = key_in(Kind::Moto, "damaged blobs") else {
        return;
    };
    let wrapped = wrap(&*key).unwrap();
    for position in 0..wrapped.blob.len() {
        let mut damaged = wrapped.clone();
        damaged.blob[position] ^= 0x40;
        assert_fails(
            unwrap(&*key, &damaged),
            ErrorCode::InvalidCiphertext,
            &["damaged"],
        );
    }
    for length in [1, 35, wrapped.blob.len() - 1] {
        let cut = Wrapped {
            blob: wrapped.blob[..length].to_vec(),
            ..wrapped.clone()
        };
        assert_fails(unwrap(&*key, &cut), ErrorCode::InvalidCiphertext, &["damaged"]);
    }
}

#[test]
fn a_blob_of_another_key_is_refused() {
    let Some((aws, _, key)) = key_in(Kind::Moto, "blobs of other keys") else {
        return;
    };
    let other_arn = aws.account().create_key().unwrap();
    let other = open(&aws.settings(), &json!({ "key_arn": other_arn }));
    let wrapped = wrap(&*key).unwrap();
    assert_fails(
        unwrap(&*other, &wrapped),
        ErrorCode::WrongKey,
        &[&other_arn, &wrapped.key_id],
    );
    // Relabelled, it gets as far as KMS, which says IncorrectKeyException.
    let relabelled = Wrapped {
        key_id: other_arn,
        ..wrapped
    };
    assert_fails(unwrap(&*other, &relabelled), ErrorCode::WrongKey, &[]);
}

#[test]
fn a_disabled_key_is_refused_and_works_again_when_enabled() {
    let Some((aws, arn, key)) = key_in(Kind::Ministack, "disabled keys") else {
        return;
    };
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(key.status(&call()).unwrap().key_id, arn);

    aws.account().disable_key(&arn).unwrap();
    assert_fails(
        unwrap(&*key, &wrapped),
        ErrorCode::KeyDisabled,
        &[&arn, "enable the key"],
    );
    assert_fails(wrap(&*key), ErrorCode::KeyDisabled, &[&arn]);
    assert_fails(key.status(&call()), ErrorCode::KeyDisabled, &[&arn]);

    aws.account().enable_key(&arn).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    assert_eq!(key.status(&call()).unwrap().key_id, arn);
}

#[test]
fn a_key_pending_deletion_is_refused_as_that() {
    let Some((aws, arn, key)) = key_in(Kind::Ministack, "keys pending deletion") else {
        return;
    };
    let wrapped = wrap(&*key).unwrap();
    aws.account().schedule_key_deletion(&arn).unwrap();
    assert_fails(
        unwrap(&*key, &wrapped),
        ErrorCode::KeyPendingDeletion,
        &[&arn, "cancel-key-deletion"],
    );
    assert_fails(wrap(&*key), ErrorCode::KeyPendingDeletion, &[&arn]);

    aws.account().cancel_key_deletion(&arn).unwrap();
    assert_fails(unwrap(&*key, &wrapped), ErrorCode::KeyDisabled, &[&arn]);
    aws.account().enable_key(&arn).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn an_unknown_key_or_alias_is_not_found() {
    for kind in [Kind::Moto, Kind::Ministack] {
        let Some((aws, arn, _)) = key_in(kind, "unknown keys") else {
            return;
        };
        let (rest, last) = arn.split_at(arn.len() - 1);
        let unknown = format!("{rest}{}", if last == "0" { "1" } else { "0" });
        let key = open(&aws.settings(), &json!({ "key_arn": unknown }));
        assert_fails(wrap(&*key), ErrorCode::KeyNotFound, &[&unknown, "check the ARN"]);
        let alias = arn.replace(&arn[arn.rfind(":key/").unwrap()..], ":alias/nobody");
        let key = open(&aws.settings(), &json!({ "key_arn": alias }));
        assert_fails(wrap(&*key), ErrorCode::KeyNotFound, &[&alias]);
    }
}

#[test]
fn a_wrap_by_an_alias_names_the_key_that_answered_and_opens_after_the_alias_has_moved() {
    for kind in [Kind::Moto, Kind::Ministack] {
        let Some((aws, first, _)) = key_in(kind, "aliases") else {
            return;
        };
        let owner = aws.account();
        let second = owner.create_key().unwrap();
        let alias = owner.create_alias(&format!("moving-{kind:?}"), &first).unwrap();
        let key = open(&aws.settings(), &json!({ "key_arn": alias }));
        let before = wrap(&*key).unwrap();
        assert_eq!(before.key_id, first);

        owner.move_alias(&format!("moving-{kind:?}"), &second).unwrap();
        let after = wrap(&*key).unwrap();
        assert_eq!(after.key_id, second);
        assert_eq!(unwrap(&*key, &before).unwrap(), KEY);
        assert_eq!(unwrap(&*key, &after).unwrap(), KEY);
    }
}

#[test]
fn an_endpoint_where_nobody_listens_fails_as_unavailable_within_the_deadline() {
    let settings = json!({
        "endpoint_url": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "s", "max_attempts": 2,
    });
    let key = open(
        &settings,
        &json!({ "key_arn": "arn:aws:kms:eu-west-1:111122223333:key/1" }),
    );
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let brief = Call::with_timeout(Duration::from_secs(20));
        done.send(key.wrap(&brief, &context(), &KEY).map(drop))
    });
    let result = ended
        .recv_timeout(Duration::from_secs(60))
        .expect("the call overran its deadline by far");
    assert_fails(result, ErrorCode::Unavailable, &["cannot be reached", "efused"]);
}

#[test]
fn a_kms_that_hangs_is_a_timeout_and_one_that_comes_back_is_used_again() {
    let Some(aws) = Emulator::own_or_skip(Kind::Ministack, "a KMS that hangs") else {
        return;
    };
    let arn = aws.account().create_key().unwrap();
    let key = open(&aws.settings(), &json!({ "key_arn": arn }));
    let wrapped = wrap(&*key).unwrap();
    aws.pause().unwrap();
    let brief = Call::with_timeout(Duration::from_millis(400));
    assert_fails(
        key.unwrap(&brief, &context(), &wrapped),
        ErrorCode::Timeout,
        &[&arn],
    );
    aws.resume().unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn many_threads_use_one_instance_at_once() {
    let Some((_, _, key)) = key_in(Kind::Moto, "many threads on one instance") else {
        return;
    };
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let key = &*key;
            scope.spawn(move || {
                for turn in 0..10_u8 {
                    let plaintext = [thread, turn];
                    let wrapped = key.wrap(&call(), &context(), &plaintext).unwrap();
                    assert_eq!(
                        key.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
                        plaintext
                    );
                }
            });
        }
    });
}
