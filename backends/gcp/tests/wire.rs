//! Wrap, unwrap and status over the real protocol: what is bound, recorded and checked, and that Google's own client
//! understands the same.

mod common;

use common::{Granted, KEY, assert_fails, call, context, context_of, unwrap, wrap};
use keystead_backend::{ErrorCode, KeyInstance, Wrapped};
use keystead_tests::emulators::Gcp;
use serde_json::json;

#[test]
fn what_was_wrapped_unwraps_and_the_version_that_answered_is_recorded() {
    let Some(gcp) = Gcp::shared_or_skip("wrap and unwrap with Google Cloud KMS") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(wrapped.key_id, granted.version(1));
    assert!(wrapped.metadata.is_empty());
    assert!(!wrapped.blob.windows(32).any(|bytes| bytes == KEY));
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    // Another process: another instance, of another backend.
    assert_eq!(unwrap(&*granted.open(), &wrapped).unwrap(), KEY);
    assert_eq!(granted.calls(gcp), ["Encrypt", "Decrypt", "Decrypt"]);
}

#[test]
fn every_request_carries_the_checksums_of_what_it_sends_and_goes_to_the_key() {
    let Some(gcp) = Gcp::shared_or_skip("checksums of requests to Google Cloud KMS") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let wrapped = wrap(&*key).unwrap();
    unwrap(&*key, &wrapped).unwrap();
    let requests = gcp.requests(&granted.key).unwrap();
    for (rpc, fields) in [
        (
            "Encrypt",
            ["plaintextCrc32c", "additionalAuthenticatedDataCrc32c"],
        ),
        (
            "Decrypt",
            ["ciphertextCrc32c", "additionalAuthenticatedDataCrc32c"],
        ),
    ] {
        let request = requests.iter().find(|request| request["rpc"] == rpc).unwrap();
        for field in fields {
            assert!(request["request"][field].is_string(), "{rpc} has no {field}");
        }
        assert_eq!(request["request"]["name"], json!(granted.key));
        assert_eq!(request["member"], json!(granted.member));
    }
}

#[test]
fn a_wrap_opens_under_its_own_context_alone() {
    let Some(gcp) = Gcp::shared_or_skip("contexts of wraps of Google Cloud KMS") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let wrapped = wrap(&*key).unwrap();
    let other = key.unwrap(&call(), &context_of("2"), &wrapped);
    assert_fails(other, ErrorCode::InvalidCiphertext, &["another context"]);
}

#[test]
fn a_damaged_blob_does_not_open_wherever_it_is_damaged() {
    let Some(gcp) = Gcp::shared_or_skip("damaged wraps of Google Cloud KMS") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let wrapped = wrap(&*key).unwrap();
    for position in (0..wrapped.blob.len()).step_by(7) {
        let mut damaged = wrapped.clone();
        damaged.blob[position] ^= 1;
        let error = unwrap(&*key, &damaged).unwrap_err();
        assert!(
            matches!(error.code, ErrorCode::InvalidCiphertext | ErrorCode::WrongKey),
            "byte {position}: {error}"
        );
    }
    let cut = Wrapped {
        blob: wrapped.blob[..20].to_vec(),
        ..wrapped.clone()
    };
    assert!(unwrap(&*key, &cut).is_err());
}

#[test]
fn another_keys_wrap_is_refused_before_google_is_asked_and_by_google() {
    let Some(gcp) = Gcp::shared_or_skip("wraps of another key of Google Cloud KMS") else {
        return;
    };
    let (granted, other) = (Granted::new(gcp), Granted::new(gcp));
    let (key, others_key) = (granted.open(), other.open());
    let wrapped = wrap(&*others_key).unwrap();
    assert_fails(unwrap(&*key, &wrapped), ErrorCode::WrongKey, &[&other.key]);
    assert!(granted.calls(gcp).is_empty());
    // A store file that claims otherwise.
    let forged = Wrapped {
        key_id: granted.version(1),
        ..wrapped
    };
    assert_fails(
        unwrap(&*key, &forged),
        ErrorCode::WrongKey,
        &["correct CryptoKey"],
    );
}

#[test]
fn what_no_wrap_can_be_is_refused_before_google_is_asked() {
    let Some(gcp) = Gcp::shared_or_skip("impossible wraps of Google Cloud KMS") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let good = Wrapped {
        blob: vec![1; 60],
        key_id: granted.version(1),
        metadata: Vec::new(),
    };
    for (wrapped, code) in [
        (
            Wrapped {
                key_id: granted.key.clone(),
                ..good.clone()
            },
            ErrorCode::InvalidCiphertext,
        ),
        (
            Wrapped {
                key_id: format!("{}:decrypt?x=", granted.version(1)),
                ..good.clone()
            },
            ErrorCode::InvalidCiphertext,
        ),
        (
            Wrapped {
                blob: Vec::new(),
                ..good.clone()
            },
            ErrorCode::InvalidCiphertext,
        ),
        (
            Wrapped {
                blob: vec![1; 9000],
                ..good.clone()
            },
            ErrorCode::InvalidCiphertext,
        ),
        (
            Wrapped {
                metadata: vec![1],
                ..good
            },
            ErrorCode::InvalidCiphertext,
        ),
    ] {
        assert_fails(unwrap(&*key, &wrapped), code, &[]);
    }
    for size in [0, 4097] {
        assert_fails(
            key.wrap(&call(), &context(), &vec![7; size]),
            ErrorCode::InvalidConfig,
            &["1 to 4096"],
        );
    }
    assert!(granted.calls(gcp).is_empty());
}

#[test]
fn after_a_rotation_new_wraps_name_the_new_version_and_old_ones_open() {
    let Some(gcp) = Gcp::shared_or_skip("a rotation of a key of Google Cloud KMS") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let before = wrap(&*key).unwrap();
    let version = gcp.rotate(&granted.key).unwrap();
    let after = wrap(&*key).unwrap();
    assert_eq!(
        (before.key_id.as_str(), after.key_id.as_str()),
        (granted.version(1).as_str(), version.as_str())
    );
    let status = key.status(&call()).unwrap();
    assert_eq!(status.key_id, version);
    assert!(!status.detail.contains("older versions"), "{}", status.detail);
    for wrapped in [&before, &after] {
        assert_eq!(unwrap(&*key, wrapped).unwrap(), KEY);
    }
    // usedPrimary said that not all of them were the primary's.
    let status = key.status(&call()).unwrap();
    assert!(status.detail.contains("older versions"), "{}", status.detail);
    // The old version alone is switched off.
    gcp.disable(&before.key_id).unwrap();
    assert_fails(
        unwrap(&*key, &before),
        ErrorCode::KeyDisabled,
        &[&before.key_id, "DISABLED"],
    );
    assert_eq!(unwrap(&*key, &after).unwrap(), KEY);
}

#[test]
fn status_shows_both_permissions_and_sends_nothing_secret() {
    let Some(gcp) = Gcp::shared_or_skip("the status of a key of Google Cloud KMS") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    wrap(&*key).unwrap();
    let status = key.status(&call()).unwrap();
    assert_eq!(status.key_id, granted.version(1));
    assert_eq!(granted.calls(gcp), ["Encrypt", "Encrypt", "Decrypt"]);
    for (role, denied) in [
        ("cryptoKeyEncrypter", "useToDecrypt"),
        ("cryptoKeyDecrypter", "useToEncrypt"),
    ] {
        gcp.grant(&granted.key, role, &[&granted.member]).unwrap();
        assert_fails(key.status(&call()), ErrorCode::AccessDenied, &[denied]);
    }
}

#[test]
fn googles_own_client_opens_what_this_backend_wrapped_and_the_other_way_round() {
    let Some(gcp) = Gcp::shared_or_skip("Google's own client of Cloud KMS beside this one") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let bound_to = context().canonical_bytes();
    let client = gcp.client(json!({ "service_account": granted.file }));

    let wrapped = wrap(&*key).unwrap();
    assert_eq!(
        client.decrypt(&granted.key, &wrapped.blob, &bound_to).unwrap(),
        KEY
    );
    let refused = client
        .decrypt(&granted.key, &wrapped.blob, b"another")
        .unwrap_err();
    assert!(refused.to_string().contains("ciphertext is invalid"), "{refused}");

    let (key_id, blob) = client.encrypt(&granted.key, &KEY, &bound_to).unwrap();
    let theirs = Wrapped {
        blob,
        key_id,
        metadata: Vec::new(),
    };
    assert_eq!(unwrap(&*key, &theirs).unwrap(), KEY);
    assert_fails(
        key.unwrap(&call(), &context_of("2"), &theirs),
        ErrorCode::InvalidCiphertext,
        &[],
    );
}

#[test]
fn keys_of_many_threads_do_not_get_into_each_others_way() {
    let Some(gcp) = Gcp::shared_or_skip("many threads at Google Cloud KMS") else {
        return;
    };
    let granted = [Granted::new(gcp), Granted::new(gcp)];
    let keys: Vec<Box<dyn KeyInstance>> = granted.iter().map(Granted::open).collect();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (key, granted) = (&keys[thread % 2], &granted[thread % 2]);
            scope.spawn(move || {
                for _ in 0..5 {
                    let wrapped = wrap(&**key).unwrap();
                    assert_eq!(wrapped.key_id, granted.version(1));
                    assert_eq!(unwrap(&**key, &wrapped).unwrap(), KEY);
                }
            });
        }
    });
}
