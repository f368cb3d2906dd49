//! What goes over the wire to KMS and what becomes of each answer, against a server that answers as the real one would; in
//! `faults`, against an emulator behind a proxy that makes faults.

mod common;
mod faults;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::scripted::{ALIAS, ARN, OTHER, decrypted, encrypted, kms, wrapped};
use common::server::{Answer, Server, kms_error, settings, target};
use common::{KEY, assert_fails, call, context, open, unwrap, wrap};
use keystead_backend::{Call, ErrorCode, KeyInstance, Wrapped};
use serde_json::json;

fn key_at(server: &Server) -> Box<dyn KeyInstance> {
    open(&settings(server), &json!({ "key_arn": ARN }))
}

#[test]
fn a_wrap_is_one_encrypt_and_an_unwrap_one_decrypt_with_the_recorded_key_and_the_context_as_pairs() {
    let server = Server::start(|_, request| kms(request));
    let key = open(&settings(&server), &json!({ "key_arn": ALIAS }));
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(wrapped, common::scripted::wrapped());
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);

    let pairs = json!({ "keystead:store": "00ff", "keystead:organization": "acme", "keystead:epoch": "1" });
    let requests = server.requests();
    assert_eq!(
        requests.iter().map(target).collect::<Vec<_>>(),
        ["TrentService.Encrypt", "TrentService.Decrypt"]
    );
    assert_eq!(
        requests[0].json(),
        json!({ "KeyId": ALIAS, "Plaintext": STANDARD.encode(KEY), "EncryptionContext": pairs })
    );
    assert_eq!(
        requests[1].json(),
        json!({ "KeyId": ARN, "CiphertextBlob": STANDARD.encode("blob"), "EncryptionContext": pairs })
    );
    for request in requests {
        let signed = request.header("authorization");
        assert!(
            signed.contains("Credential=AKIDTEST/") && signed.contains("/eu-west-1/kms/aws4_request"),
            "{signed}"
        );
    }
}

#[test]
fn every_refusal_of_kms_becomes_its_code_and_names_key_and_reason() {
    for (code, message, meaning) in [
        (
            "DisabledException",
            "the key is disabled.",
            ErrorCode::KeyDisabled,
        ),
        (
            "KMSInvalidStateException",
            "the key is pending deletion.",
            ErrorCode::KeyPendingDeletion,
        ),
        (
            "KMSInvalidStateException",
            "the key is pending import.",
            ErrorCode::KeyDisabled,
        ),
        (
            "KMSInvalidStateException",
            "the key is unavailable.",
            ErrorCode::Unavailable,
        ),
        ("NotFoundException", "Key does not exist", ErrorCode::KeyNotFound),
        (
            "AccessDeniedException",
            "User: u is not authorized to perform: kms:Decrypt",
            ErrorCode::AccessDenied,
        ),
        (
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
            ErrorCode::Unauthenticated,
        ),
        (
            "ExpiredTokenException",
            "The security token included in the request is expired",
            ErrorCode::Unauthenticated,
        ),
        (
            "InvalidSignatureException",
            "Signature expired",
            ErrorCode::Unauthenticated,
        ),
        ("InvalidCiphertextException", "", ErrorCode::InvalidCiphertext),
        (
            "IncorrectKeyException",
            "The key ID in the request does not identify a CMK",
            ErrorCode::WrongKey,
        ),
        (
            "InvalidKeyUsageException",
            "key usage is SIGN_VERIFY",
            ErrorCode::InvalidConfig,
        ),
        ("InvalidArnException", "arn is refused", ErrorCode::InvalidConfig),
        (
            "ValidationException",
            "1 validation error detected",
            ErrorCode::InvalidConfig,
        ),
        ("ThrottlingException", "Rate exceeded", ErrorCode::Throttled),
        ("DependencyTimeoutException", "timed out", ErrorCode::Unavailable),
        ("KMSInternalException", "internal", ErrorCode::Unavailable),
        ("KeyUnavailableException", "unavailable", ErrorCode::Unavailable),
        ("SomethingNewException", "new", ErrorCode::Internal),
    ] {
        let server =
            Server::start(move |_, _| kms_error(code, message).with_header("x-amzn-requestid", "r-42"));
        let key = key_at(&server);
        let words = [ARN, code, message, "r-42"];
        assert_fails(unwrap(&*key, &wrapped()), meaning, &words);
        assert_fails(wrap(&*key), meaning, &words);
    }
}

#[test]
fn a_namespace_before_the_code_does_not_hide_it() {
    let server = Server::start(|_, _| kms_error("com.amazonaws.kms#DisabledException", "is disabled"));
    assert_fails(unwrap(&*key_at(&server), &wrapped()), ErrorCode::KeyDisabled, &[]);
}

#[test]
fn answers_without_a_code_are_judged_by_their_status() {
    for (status, meaning) in [
        (403, ErrorCode::AccessDenied),
        (429, ErrorCode::Throttled),
        (500, ErrorCode::Unavailable),
        (503, ErrorCode::Unavailable),
    ] {
        for body in ["", "<html>not KMS</html>", "{}"] {
            let server = Server::start(move |_, _| Answer::raw(status, body));
            assert_fails(unwrap(&*key_at(&server), &wrapped()), meaning, &[ARN]);
        }
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_an_outage_and_never_a_key() {
    for body in [
        "",
        "{",
        "null",
        "{}",
        r#"{"Plaintext": 7}"#,
        r#"{"Plaintext": "%%%", "KeyId": "x"}"#,
    ] {
        let server = Server::start(move |_, _| Answer::raw(200, body));
        let key = key_at(&server);
        let error = key.unwrap(&call(), &context(), &wrapped()).expect_err(body);
        assert!(
            matches!(error.code, ErrorCode::Unavailable | ErrorCode::WrongKey),
            "{body}: {error}"
        );
        let error = wrap(&*key).expect_err(body);
        assert_eq!(error.code, ErrorCode::Unavailable, "{body}: {error}");
    }
}

#[test]
fn an_answer_for_another_key_is_not_believed() {
    let server = Server::start(|_, request| match target(request) {
        "TrentService.Encrypt" => encrypted(OTHER),
        _ => decrypted(OTHER),
    });
    let key = key_at(&server);
    assert_fails(wrap(&*key), ErrorCode::WrongKey, &[OTHER]);
    assert_fails(unwrap(&*key, &wrapped()), ErrorCode::WrongKey, &[OTHER]);

    let foreign = OTHER.replace("111122223333", "999999999999");
    let server = Server::start(move |_, _| encrypted(&foreign));
    let by_alias = open(&settings(&server), &json!({ "key_arn": ALIAS }));
    assert_fails(wrap(&*by_alias), ErrorCode::WrongKey, &["999999999999"]);
}

#[test]
fn what_the_store_file_says_wrongly_about_a_wrap_is_refused_before_kms_is_asked() {
    let server = Server::start(|_, request| kms(request));
    let key = key_at(&server);
    let refused = |wrapped: Wrapped, code| assert_fails(key.unwrap(&call(), &context(), &wrapped), code, &[]);
    refused(
        Wrapped {
            key_id: OTHER.into(),
            ..wrapped()
        },
        ErrorCode::WrongKey,
    );
    refused(
        Wrapped {
            key_id: ALIAS.into(),
            ..wrapped()
        },
        ErrorCode::WrongKey,
    );
    refused(
        Wrapped {
            key_id: String::new(),
            ..wrapped()
        },
        ErrorCode::InvalidCiphertext,
    );
    refused(
        Wrapped {
            key_id: "arn:aws:kms:evil/:1:key/1".into(),
            ..wrapped()
        },
        ErrorCode::InvalidCiphertext,
    );
    refused(
        Wrapped {
            blob: Vec::new(),
            ..wrapped()
        },
        ErrorCode::InvalidCiphertext,
    );
    refused(
        Wrapped {
            blob: vec![0; 6145],
            ..wrapped()
        },
        ErrorCode::InvalidCiphertext,
    );
    refused(
        Wrapped {
            metadata: vec![1],
            ..wrapped()
        },
        ErrorCode::InvalidCiphertext,
    );
    let by_alias = open(&settings(&server), &json!({ "key_arn": ALIAS }));
    let foreign = Wrapped {
        key_id: OTHER.replace("eu-west-1", "eu-west-2"),
        ..wrapped()
    };
    assert_fails(
        by_alias.unwrap(&call(), &context(), &foreign),
        ErrorCode::WrongKey,
        &["eu-west-2"],
    );
    assert!(server.requests().is_empty(), "KMS was asked");
}

#[test]
fn a_plaintext_of_no_or_too_many_bytes_is_refused_before_kms_is_asked() {
    let server = Server::start(|_, request| kms(request));
    let key = key_at(&server);
    for plaintext in [&[][..], &[0; 4097]] {
        assert_fails(
            key.wrap(&call(), &context(), plaintext),
            ErrorCode::InvalidConfig,
            &[ARN, "4096"],
        );
    }
    assert!(server.requests().is_empty(), "KMS was asked");
}

#[test]
fn throttling_is_retried_and_then_told_with_the_wait_that_the_answer_wishes() {
    let server = Server::start(|_, _| {
        kms_error("ThrottlingException", "Rate exceeded").with_header("retry-after", "7")
    });
    let mut settings = settings(&server);
    settings["max_attempts"] = json!(3);
    let key = open(&settings, &json!({ "key_arn": ARN }));
    let error = assert_fails(
        unwrap(&*key, &wrapped()),
        ErrorCode::Throttled,
        &["Rate exceeded"],
    );
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn an_illness_that_passes_is_not_seen() {
    let server = Server::start(|before, request| match before {
        0 => kms_error("KMSInternalException", "try again"),
        1 => Answer::raw(503, ""),
        _ => kms(request),
    });
    let mut settings = settings(&server);
    settings["max_attempts"] = json!(3);
    let key = open(&settings, &json!({ "key_arn": ARN }));
    assert_eq!(unwrap(&*key, &wrapped()).unwrap(), KEY);
}

#[test]
fn a_refusal_is_not_retried() {
    for code in [
        "AccessDeniedException",
        "DisabledException",
        "InvalidCiphertextException",
        "KMSInvalidStateException",
    ] {
        let server = Server::start(move |_, _| kms_error(code, "no"));
        let mut settings = settings(&server);
        settings["max_attempts"] = json!(5);
        let key = open(&settings, &json!({ "key_arn": ARN }));
        assert!(unwrap(&*key, &wrapped()).is_err());
        assert_eq!(server.requests().len(), 1, "{code}");
    }
}

#[test]
fn a_slow_answer_ends_at_the_deadline_of_the_call_even_with_retries_left() {
    let server = Server::start(|_, request| kms(request).after(Duration::from_secs(20)));
    let mut settings = settings(&server);
    settings["max_attempts"] = json!(10);
    let key = open(&settings, &json!({ "key_arn": ARN }));
    let short = Call::with_timeout(Duration::from_millis(300));
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(key.unwrap(&short, &context(), &wrapped()).map(drop)));
    let result = ended
        .recv_timeout(Duration::from_secs(15))
        .expect("the call overran its deadline by far");
    assert_fails(result, ErrorCode::Timeout, &[ARN, "300 ms"]);
}

#[test]
fn an_attempt_that_hangs_is_cut_off_and_the_next_one_succeeds() {
    let server = Server::start(|before, request| match before {
        0 => kms(request).after(Duration::from_secs(20)),
        _ => kms(request),
    });
    let mut settings = settings(&server);
    // One hangs; the others are for a busy machine.
    settings["max_attempts"] = json!(4);
    settings["attempt_timeout_ms"] = json!(1500);
    let key = open(&settings, &json!({ "key_arn": ARN }));
    assert_eq!(unwrap(&*key, &wrapped()).unwrap(), KEY);
}

#[test]
fn a_call_in_flight_ends_when_it_is_cancelled_or_its_instance_interrupted() {
    let server = Server::start(|_, request| kms(request).after(Duration::from_secs(60)));
    let key: Arc<dyn KeyInstance> = Arc::from(key_at(&server));
    for interrupt in [false, true] {
        let in_flight = call();
        let (done, ended) = mpsc::channel();
        let (theirs, their_call) = (Arc::clone(&key), in_flight.clone());
        let asked = server.requests().len();
        std::thread::spawn(move || done.send(theirs.unwrap(&their_call, &context(), &wrapped()).map(drop)));
        server.wait_until(|server| server.requests().len() > asked);
        if interrupt {
            key.interrupt();
        } else {
            in_flight.cancel.cancel();
        }
        let result = ended
            .recv_timeout(Duration::from_secs(15))
            .expect("the call went on");
        assert_fails(result, ErrorCode::Cancelled, &[ARN]);
    }
}

#[test]
fn status_asks_nothing_before_the_first_wrap_and_then_makes_a_dry_run_of_the_latest() {
    let server = Server::start(|_, request| kms(request));
    let key = key_at(&server);
    let status = key.status(&call()).unwrap();
    assert_eq!(status.key_id, "");
    assert!(status.detail.contains("not asked"), "{}", status.detail);
    assert!(server.requests().is_empty());

    wrap(&*key).unwrap();
    assert_eq!(key.status(&call()).unwrap().key_id, ARN);
    let probe = server.requests().pop().unwrap();
    assert_eq!(
        (target(&probe), &probe.json()["DryRun"]),
        ("TrentService.Decrypt", &json!(true))
    );
    assert_eq!(probe.json()["KeyId"], json!(ARN));
}

#[test]
fn status_tells_what_stands_against_the_key() {
    let server = Server::start(|before, request| match before {
        0 => kms(request),
        1 => kms_error("DisabledException", "is disabled"),
        _ => kms_error("AccessDeniedException", "not authorized to perform: kms:Decrypt"),
    });
    let key = key_at(&server);
    wrap(&*key).unwrap();
    assert_fails(key.status(&call()), ErrorCode::KeyDisabled, &[ARN]);
    assert_fails(
        key.status(&call()),
        ErrorCode::AccessDenied,
        &[ARN, "kms:Decrypt"],
    );
}

#[test]
fn what_kms_says_of_the_key_that_was_to_be_wrapped_is_left_out() {
    let server = Server::start(|_, request| {
        let plaintext = request.json()["Plaintext"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        kms_error(
            "ValidationException",
            &format!("Value '{plaintext}' at 'plaintext' failed to satisfy constraint"),
        )
    });
    let error = assert_fails(
        wrap(&*key_at(&server)),
        ErrorCode::InvalidConfig,
        &["repeat the key that was to be wrapped"],
    );
    assert!(!error.message.contains(&STANDARD.encode(KEY)[..8]), "{error}");
}
