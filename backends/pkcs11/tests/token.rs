//! What is wrapped on a real token, what opens it, and what does not.

mod common;

use common::{
    CONTEXT, KEY, MECHANISMS, assert_fails, call, config, context, context_json, from_hex, hex, new_key,
    open, unwrap, wrap,
};
use keystead_backend::{Call, Context, ErrorCode, Wrapped};
use keystead_tests::emulators::SoftHsm;
use serde_json::json;
use std::time::Duration;

#[test]
fn what_is_wrapped_under_a_context_unwraps_under_it_alone() {
    let Some(hsm) = SoftHsm::shared_or_skip("contexts of wraps on a token") else {
        return;
    };
    new_key(&hsm, "contexts");
    for mechanism in MECHANISMS {
        let key = open(&hsm.settings(), &config("contexts", mechanism));
        for length in [1, 7, 8, 9, 16, 31, 32, 33, 255, 256] {
            let plaintext: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let wrapped = key.wrap(&call(), &context(), &plaintext).unwrap();
            assert_eq!(
                wrapped.key_id,
                "pkcs11:token=acme;object=contexts;id=%01;type=secret-key"
            );
            let opened = key.unwrap(&call(), &context(), &wrapped).unwrap();
            assert_eq!(opened.as_slice(), plaintext);
            let mut others = CONTEXT;
            others[2].1 = "2";
            for other in [
                Context::new(others),
                Context::new([("a", "b")]),
                Context::new(CONTEXT[..2].to_vec()),
            ] {
                assert_fails(
                    key.unwrap(&call(), &other, &wrapped),
                    ErrorCode::InvalidCiphertext,
                    &["contexts"],
                );
            }
        }
        for length in [0, 257] {
            assert_fails(
                key.wrap(&call(), &context(), &vec![1; length]),
                ErrorCode::InvalidConfig,
                &["1 to 256"],
            );
        }
    }
}

#[test]
fn no_bit_of_a_blob_can_be_changed_and_no_byte_be_cut_off_or_added() {
    let Some(hsm) = SoftHsm::shared_or_skip("damaged wraps on a token") else {
        return;
    };
    new_key(&hsm, "damage");
    for mechanism in MECHANISMS {
        let key = open(&hsm.settings(), &config("damage", mechanism));
        let wrapped = wrap(&*key).unwrap();
        let mut damaged: Vec<Wrapped> = Vec::new();
        for place in 0..wrapped.blob.len() {
            let mut other = wrapped.clone();
            other.blob[place] ^= 1 << (place % 8);
            damaged.push(other);
        }
        for length in 0..wrapped.blob.len() {
            let mut other = wrapped.clone();
            other.blob.truncate(length);
            damaged.push(other);
        }
        for more in [1, 8, 16, 500, 5000] {
            let mut other = wrapped.clone();
            other.blob.resize(wrapped.blob.len() + more, 0);
            damaged.push(other);
        }
        for place in 0..wrapped.metadata.len() {
            let mut other = wrapped.clone();
            other.metadata[place] ^= 1;
            damaged.push(other);
        }
        for metadata in [
            vec![],
            vec![1],
            vec![1, 1],
            vec![1; 18],
            vec![1, 2, 3],
            vec![1; 5000],
        ] {
            damaged.push(Wrapped {
                metadata,
                ..wrapped.clone()
            });
        }
        for other in &damaged {
            assert_fails(unwrap(&*key, other), ErrorCode::InvalidCiphertext, &[]);
        }
        assert_eq!(
            unwrap(&*key, &wrapped).unwrap(),
            KEY,
            "and the token is as it was"
        );
    }
}

#[test]
fn the_wrap_of_one_mechanism_is_not_opened_by_the_other_and_each_opens_whatever_the_config_says_now() {
    let Some(hsm) = SoftHsm::shared_or_skip("two mechanisms of one key on a token") else {
        return;
    };
    new_key(&hsm, "mechanisms");
    let [gcm, key_wrap] = MECHANISMS.map(|mechanism| open(&hsm.settings(), &config("mechanisms", mechanism)));
    let unsaid = open(
        &hsm.settings(),
        &json!({ "token": "acme", "key_label": "mechanisms" }),
    );
    let (by_gcm, by_key_wrap) = (wrap(&*gcm).unwrap(), wrap(&*key_wrap).unwrap());
    assert_eq!(by_gcm.metadata[..2], [1, 1]);
    assert_eq!(by_key_wrap.metadata, [1, 2]);
    assert_eq!(
        wrap(&*unsaid).unwrap().metadata[..2],
        [1, 1],
        "AES-GCM where the token has it"
    );
    for key in [&gcm, &key_wrap, &unsaid] {
        assert_eq!(unwrap(&**key, &by_gcm).unwrap(), KEY);
        assert_eq!(unwrap(&**key, &by_key_wrap).unwrap(), KEY);
    }
    let exchanged = Wrapped {
        metadata: by_key_wrap.metadata.clone(),
        ..by_gcm.clone()
    };
    assert_fails(unwrap(&*gcm, &exchanged), ErrorCode::InvalidCiphertext, &[]);
    let exchanged = Wrapped {
        metadata: by_gcm.metadata,
        ..by_key_wrap
    };
    assert_fails(unwrap(&*gcm, &exchanged), ErrorCode::InvalidCiphertext, &[]);
}

#[test]
fn a_second_client_opens_what_the_backend_wrapped_and_the_other_way_round() {
    let Some(hsm) = SoftHsm::shared_or_skip("the same token used by python-pkcs11") else {
        return;
    };
    new_key(&hsm, "cross");
    for mechanism in MECHANISMS {
        let key = open(&hsm.settings(), &config("cross", mechanism));
        let wrapped = wrap(&*key).unwrap();
        let about = json!({ "label": "cross", "id": "01", "context": context_json(),
            "blob": hex(&wrapped.blob), "metadata": hex(&wrapped.metadata) });
        assert_eq!(from_hex(&hsm.owner("unwrap", &about).unwrap()), KEY);
        let mut another = about;
        another["context"]["keystead:epoch"] = json!("2");
        hsm.owner("unwrap", &another)
            .expect_err("it checks the context, too");

        let about = json!({ "label": "cross", "id": "01", "context": context_json(),
            "mechanism": mechanism, "plaintext": hex(&KEY) });
        let theirs = hsm.owner("wrap", &about).unwrap();
        let theirs = Wrapped {
            blob: from_hex(&theirs["blob"]),
            metadata: from_hex(&theirs["metadata"]),
            key_id: wrapped.key_id,
        };
        assert_eq!(unwrap(&*key, &theirs).unwrap(), KEY);
    }
}

#[test]
fn the_key_with_the_greatest_id_wraps_and_the_recorded_one_unwraps() {
    let Some(hsm) = SoftHsm::shared_or_skip("versions of a key on a token") else {
        return;
    };
    new_key(&hsm, "versions");
    let key = open(&hsm.settings(), &config("versions", "aes-gcm"));
    let first = wrap(&*key).unwrap();
    hsm.owner("generate", &json!({ "label": "versions", "id": "02" }))
        .unwrap();
    let second = wrap(&*key).unwrap();
    assert!(
        first.key_id.contains("id=%01;") && second.key_id.contains("id=%02;"),
        "{second:?}"
    );
    assert_eq!(key.status(&call()).unwrap().key_id, second.key_id);
    assert_eq!(unwrap(&*key, &first).unwrap(), KEY);
    assert_eq!(unwrap(&*key, &second).unwrap(), KEY);
    // The recorded id goes to the token: a blob under another version's name does not open.
    let exchanged = Wrapped {
        key_id: second.key_id.clone(),
        ..first.clone()
    };
    assert_fails(unwrap(&*key, &exchanged), ErrorCode::InvalidCiphertext, &[]);

    let pinned = open(
        &hsm.settings(),
        &json!({ "token": "acme", "key_label": "versions", "key_id": "01" }),
    );
    assert_eq!(wrap(&*pinned).unwrap().key_id, first.key_id);
    assert_eq!(
        unwrap(&*pinned, &second).unwrap(),
        KEY,
        "an id pins what wraps, not what was wrapped"
    );

    hsm.owner("destroy", &json!({ "label": "versions", "id": "01" }))
        .unwrap();
    assert_fails(
        unwrap(&*key, &first),
        ErrorCode::KeyNotFound,
        &["versions", "id=%01"],
    );
    assert_eq!(unwrap(&*key, &second).unwrap(), KEY);

    hsm.owner("generate", &json!({ "label": "versions", "id": "02" }))
        .unwrap();
    let words = ["an id (CKA_ID) of its own"];
    assert_fails(wrap(&*key), ErrorCode::InvalidConfig, &words);
    assert_fails(unwrap(&*key, &second), ErrorCode::InvalidConfig, &words);
}

#[test]
fn a_wrap_of_another_key_token_or_backend_is_refused_before_the_token_is_asked() {
    let Some(hsm) = SoftHsm::shared_or_skip("wraps of other keys on a token") else {
        return;
    };
    for label in ["mine", "theirs"] {
        hsm.owner("generate", &json!({ "label": label, "id": "0a" }))
            .unwrap();
    }
    let mine = open(&hsm.settings(), &config("mine", "aes-gcm"));
    let theirs = open(&hsm.settings(), &config("theirs", "aes-gcm"));
    let by_id = open(&hsm.settings(), &json!({ "token": "acme", "key_id": "ff" }));
    let wrapped = wrap(&*theirs).unwrap();
    hsm.forget_calls();
    assert_fails(unwrap(&*mine, &wrapped), ErrorCode::WrongKey, &["object=theirs"]);
    assert_fails(unwrap(&*by_id, &wrapped), ErrorCode::WrongKey, &["object=theirs"]);
    for (key_id, code) in [
        (
            wrapped.key_id.replace("token=acme", "token=other"),
            ErrorCode::WrongKey,
        ),
        (
            "arn:aws:kms:eu-west-1:111122223333:key/1".into(),
            ErrorCode::InvalidCiphertext,
        ),
        (
            format!("{};module-path=/tmp/evil.so", wrapped.key_id),
            ErrorCode::InvalidCiphertext,
        ),
        (String::new(), ErrorCode::InvalidCiphertext),
    ] {
        let other = Wrapped {
            key_id,
            ..wrapped.clone()
        };
        assert_fails(unwrap(&*theirs, &other), code, &[]);
    }
    assert_eq!(hsm.calls_of("C_FindObjectsInit"), 0);
    // Under its own key's name, the blob of another key fails the tag.
    let renamed = Wrapped {
        key_id: wrapped.key_id.replace("theirs", "mine"),
        ..wrapped
    };
    assert_fails(unwrap(&*mine, &renamed), ErrorCode::InvalidCiphertext, &["mine"]);
}

#[test]
fn a_token_without_aes_gcm_wraps_by_key_wrap_and_one_without_either_says_so() {
    let Some(hsm) = SoftHsm::shared_or_skip("tokens that offer less") else {
        return;
    };
    new_key(&hsm, "less");
    // Settings of their own, as what a token offers is asked when a connection is made.
    let settings = |sessions: u32| {
        let mut settings = hsm.settings();
        settings["sessions_max"] = json!(sessions);
        settings
    };
    let unsaid = json!({ "token": "acme", "key_label": "less" });
    hsm.request(&["without 0x1087"]).unwrap();
    let key = open(&settings(11), &unsaid);
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(wrapped.metadata, [1, 2]);
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    assert!(
        key.status(&call())
            .unwrap()
            .detail
            .contains("aes-key-wrap on a token of SoftHSM")
    );
    let words = ["does not offer aes-gcm"];
    assert_fails(
        wrap(&*open(&settings(11), &config("less", "aes-gcm"))),
        ErrorCode::InvalidConfig,
        &words,
    );

    hsm.request(&["without 0x1087", "without 0x2109"]).unwrap();
    let key = open(&settings(12), &unsaid);
    assert_fails(
        wrap(&*key),
        ErrorCode::InvalidConfig,
        &["neither AES-GCM nor AES key wrap"],
    );
    assert_fails(key.status(&call()), ErrorCode::InvalidConfig, &[]);
}

#[test]
fn a_vector_that_the_token_makes_is_recorded_wherever_it_puts_it() {
    let Some(hsm) = SoftHsm::shared_or_skip("vectors that a token makes") else {
        return;
    };
    new_key(&hsm, "vectors");
    let mut settings = hsm.settings();
    settings["gcm_iv"] = json!("token");
    let key = open(&settings, &config("vectors", "aes-gcm"));
    let plain = open(&hsm.settings(), &config("vectors", "aes-gcm"));
    assert_fails(
        wrap(&*key),
        ErrorCode::InvalidConfig,
        &["made no initialization vector of its own"],
    );
    let mut seen = Vec::new();
    for (request, bytes) in [("iv written", 12), ("iv appended", 16)] {
        hsm.request(&[request]).unwrap();
        for _ in 0..2 {
            let wrapped = wrap(&*key).unwrap();
            assert_eq!(wrapped.blob.len(), KEY.len() + 16);
            let vector = wrapped.metadata[2..].to_vec();
            assert_eq!(vector.len(), bytes);
            assert!(!seen.contains(&vector) && vector.iter().any(|&byte| byte != 0));
            seen.push(vector);
            assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
            assert_eq!(unwrap(&*plain, &wrapped).unwrap(), KEY);
            let mut damaged = wrapped.clone();
            damaged.blob[0] ^= 1;
            assert_fails(unwrap(&*key, &damaged), ErrorCode::InvalidCiphertext, &[]);
        }
        assert_fails(
            wrap(&*plain),
            ErrorCode::InvalidConfig,
            &["CKR_MECHANISM_PARAM_INVALID", "gcm_iv"],
        );
    }
}

#[test]
fn no_two_wraps_share_a_vector() {
    let Some(hsm) = SoftHsm::shared_or_skip("vectors of wraps on a token") else {
        return;
    };
    new_key(&hsm, "fresh");
    let key = open(&hsm.settings(), &config("fresh", "aes-gcm"));
    let mut vectors: Vec<Vec<u8>> = (0..100).map(|_| wrap(&*key).unwrap().metadata).collect();
    vectors.sort();
    vectors.dedup();
    assert_eq!(vectors.len(), 100);
}

#[test]
fn a_call_without_time_or_already_cancelled_asks_nothing() {
    let Some(hsm) = SoftHsm::shared_or_skip("calls without time, on a token") else {
        return;
    };
    new_key(&hsm, "late");
    let key = open(&hsm.settings(), &config("late", "aes-gcm"));
    let wrapped = wrap(&*key).unwrap();
    hsm.forget_calls();
    let late = Call::with_timeout(Duration::ZERO);
    let cancelled = call();
    cancelled.cancel.cancel();
    for (call, code) in [(late, ErrorCode::Timeout), (cancelled, ErrorCode::Cancelled)] {
        assert_fails(key.wrap(&call, &context(), &KEY), code, &["wrapping with"]);
        assert_fails(
            key.unwrap(&call, &context(), &wrapped),
            code,
            &["unwrapping with"],
        );
        assert_fails(key.status(&call), code, &["looking at"]);
    }
    assert_eq!(hsm.calls_of("C_FindObjectsInit"), 0);
}
