//! What goes over the wire and what becomes of each answer, against a server that answers as the real one would.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::server::{Answer, Request, Server, errors, transit};
use common::{KEY, Secret, assert_fails, call, context, open, patient, unwrap, wrap};
use keystead_backend::{Call, ErrorCode, KeyInstance, Wrapped};
use keystead_tests::logs::Log;
use serde_json::{Value, json};

/// The key `acme` at a server, by a token in a file, with one attempt for each request.
struct At {
    settings: Value,
    key: Box<dyn KeyInstance>,
    _token: Secret,
}

fn at(server: &Server) -> At {
    at_with(server, &json!({}), &json!({ "key": "acme" }))
}

fn at_with(server: &Server, more: &Value, config: &Value) -> At {
    let token = Secret::new("s.token");
    let mut settings =
        json!({ "address": server.address(), "vault_token_file": token.path, "max_attempts": 1 });
    for (field, value) in more.as_object().unwrap() {
        settings[field] = value.clone();
    }
    At {
        key: open(&settings, config),
        settings: patient(&settings),
        _token: token,
    }
}

fn wrapped() -> Wrapped {
    Wrapped {
        blob: b"vault:v3:AAAA".to_vec(),
        key_id: "transit/keys/acme:3".into(),
        metadata: Vec::new(),
    }
}

/// Answers uses of the key so, and says that the token is good.
fn only_the_key_answers(answer: Answer) -> Server {
    Server::start(move |_, request| {
        if request.path.ends_with("/lookup-self") {
            transit(request)
        } else {
            answer.clone()
        }
    })
}

#[test]
fn a_wrap_is_one_encrypt_and_an_unwrap_one_decrypt_with_the_context_as_associated_data() {
    let server = Server::start(|_, request| transit(request));
    let config = json!({ "key": "acme", "mount": "kms/transit", "namespace": "team/a" });
    let at = at_with(&server, &json!({}), &config);
    let wrapped = wrap(&*at.key).unwrap();
    assert_eq!(
        (wrapped.key_id.as_str(), wrapped.blob.as_slice()),
        ("team/a/kms/transit/keys/acme:3", &b"vault:v3:AAAA"[..])
    );
    assert_eq!(unwrap(&*at.key, &wrapped).unwrap(), KEY);

    let requests = server.requests();
    assert_eq!(
        requests
            .iter()
            .map(|request| format!("{} {}", request.method, request.path))
            .collect::<Vec<_>>(),
        [
            "GET /v1/auth/token/lookup-self",
            "POST /v1/kms/transit/encrypt/acme",
            "POST /v1/kms/transit/decrypt/acme"
        ]
    );
    let associated = STANDARD.encode(context().canonical_bytes());
    assert_eq!(
        requests[1].json(),
        json!({ "plaintext": STANDARD.encode(KEY), "associated_data": associated })
    );
    assert_eq!(
        requests[2].json(),
        json!({ "ciphertext": "vault:v3:AAAA", "associated_data": associated })
    );
    for request in requests {
        assert_eq!(request.header("x-vault-token"), "s.token");
        assert_eq!(request.header("x-vault-namespace"), "team/a");
        assert_eq!(request.header("x-vault-request"), "true");
    }
}

#[test]
fn every_refusal_becomes_its_code_and_names_key_and_reason() {
    for (status, error, meaning) in [
        (400, "encryption key not found", ErrorCode::KeyNotFound),
        (
            404,
            "no handler for route \"transit/decrypt/acme\". route entry not found.",
            ErrorCode::KeyNotFound,
        ),
        (404, "namespace not found", ErrorCode::KeyNotFound),
        (404, "something new", ErrorCode::KeyNotFound),
        (
            400,
            "ciphertext or signature version is disallowed by policy (too old)",
            ErrorCode::KeyDisabled,
        ),
        (
            503,
            "API access to this namespace has been locked by an administrator",
            ErrorCode::KeyDisabled,
        ),
        (
            400,
            "refusing to use soft-deleted key",
            ErrorCode::KeyPendingDeletion,
        ),
        (
            400,
            "cipher: message authentication failed",
            ErrorCode::InvalidCiphertext,
        ),
        (
            400,
            "invalid ciphertext: version is too new",
            ErrorCode::InvalidCiphertext,
        ),
        (403, "permission denied", ErrorCode::Unauthenticated),
        (403, "invalid token", ErrorCode::Unauthenticated),
        (400, "missing client token", ErrorCode::Unauthenticated),
        (401, "something new", ErrorCode::Unauthenticated),
        (
            403,
            "1 error occurred: * permission denied",
            ErrorCode::AccessDenied,
        ),
        (
            400,
            "'[0].associated_data' provided for non-AEAD cipher suite rsa-2048",
            ErrorCode::InvalidConfig,
        ),
        (
            400,
            "message decryption not supported for key type ed25519",
            ErrorCode::InvalidConfig,
        ),
        (
            400,
            "missing 'context' for key derivation; the key was created",
            ErrorCode::InvalidConfig,
        ),
        (405, "unsupported operation", ErrorCode::InvalidConfig),
        (405, "something new", ErrorCode::InvalidConfig),
        (
            429,
            "request path \"transit/decrypt/acme\": rate limit quota exceeded",
            ErrorCode::Throttled,
        ),
        (429, "lease count quota exceeded", ErrorCode::Throttled),
        (503, "Vault is sealed", ErrorCode::Unavailable),
        (412, "required index state not present", ErrorCode::Unavailable),
        (472, "something new", ErrorCode::Unavailable),
        (473, "something new", ErrorCode::Unavailable),
        (500, "1 error occurred: * internal error", ErrorCode::Unavailable),
        (502, "something new", ErrorCode::Unavailable),
        (408, "something new", ErrorCode::Timeout),
        (400, "something new", ErrorCode::Internal),
        (418, "something new", ErrorCode::Internal),
    ] {
        let server = only_the_key_answers(errors(status, &[error]));
        let at = at(&server);
        let start = &error[..error.len().min(20)];
        let words = ["transit/keys/acme", &format!("HTTP {status}"), start];
        let told = assert_fails(unwrap(&*at.key, &wrapped()), meaning, &words);
        assert_fails(wrap(&*at.key), meaning, &words);
        assert!(!told.message.contains("s.token"), "{told}");
    }
}

#[test]
fn what_something_else_on_the_way_answers_is_an_outage_and_no_word_of_the_servers() {
    for (status, meaning) in [
        (404, ErrorCode::Unavailable),
        (403, ErrorCode::AccessDenied),
        (429, ErrorCode::Throttled),
        (502, ErrorCode::Unavailable),
        (503, ErrorCode::Unavailable),
    ] {
        for body in ["", "<html>a balancer</html>", "{}", "null", "{\"errors\": 7}"] {
            let server = only_the_key_answers(Answer::raw(status, body));
            assert_fails(
                unwrap(&*at(&server).key, &wrapped()),
                meaning,
                &["transit/keys/acme"],
            );
        }
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_an_outage_and_never_a_key() {
    let huge = format!("{{\"data\": \"{}\"}}", "x".repeat(300 * 1024));
    for body in [
        "",
        "{",
        "null",
        "{}",
        r#"{"data": {}}"#,
        r#"{"data": {"plaintext": 7, "ciphertext": 7}}"#,
        r#"{"data": {"plaintext": "%%%", "ciphertext": "junk"}}"#,
        r#"{"data": {"plaintext": "", "ciphertext": ""}}"#,
        r#"{"data": {"plaintext": "QUJD\u0000", "ciphertext": "vault:v0:AAAA"}}"#,
        r#"{"data": {"plaintext": "QUI", "ciphertext": "vault:v3:AAAA", "key_version": 4}}"#,
        &huge,
    ] {
        let server = only_the_key_answers(Answer::raw(200, body));
        let at = at(&server);
        let short = &body[..body.len().min(80)];
        let error = unwrap(&*at.key, &wrapped()).expect_err(short);
        assert_eq!(error.code, ErrorCode::Unavailable, "{short}: {error}");
        let error = wrap(&*at.key).expect_err(short);
        assert_eq!(error.code, ErrorCode::Unavailable, "{short}: {error}");
        assert!(!error.message.contains("junk"), "{error}");
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(|_, request| transit(request));
    let target = format!("{}/v1/transit/decrypt/acme", elsewhere.address());
    let server = only_the_key_answers(Answer::raw(307, "").with_header("location", &target));
    assert_fails(
        unwrap(&*at(&server).key, &wrapped()),
        ErrorCode::Unavailable,
        &["HTTP 307"],
    );
    assert!(elsewhere.requests().is_empty(), "key material went elsewhere");
}

#[test]
fn what_the_store_file_says_wrongly_about_a_wrap_is_refused_before_the_server_is_asked() {
    let server = Server::start(|_, request| transit(request));
    let at = at(&server);
    let refused = |change: &dyn Fn(&mut Wrapped), code| {
        let mut changed = wrapped();
        change(&mut changed);
        assert_fails(unwrap(&*at.key, &changed), code, &[]);
    };
    for key_id in [
        "transit/keys/other:3",
        "team/transit/keys/acme:3",
        "transit/keys/acme",
        "transit/keys/acme:0",
        "",
    ] {
        refused(&|w| w.key_id = key_id.into(), ErrorCode::WrongKey);
    }
    for blob in [
        &b""[..],
        b"vault:v3:",
        b"vault:v4:AAAA",
        b"vault:v03:AAAA",
        b"AAAA",
        b"\xff\xfe",
        &[b'A'; 8193],
    ] {
        refused(&|w| w.blob = blob.to_vec(), ErrorCode::InvalidCiphertext);
    }
    refused(&|w| w.metadata = vec![1], ErrorCode::InvalidCiphertext);
    assert!(server.requests().is_empty(), "the server was asked");
}

#[test]
fn a_plaintext_of_no_or_too_many_bytes_is_refused_before_the_server_is_asked() {
    let server = Server::start(|_, request| transit(request));
    let at = at(&server);
    for plaintext in [&[][..], &[0; 4097]] {
        assert_fails(
            at.key.wrap(&call(), &context(), plaintext),
            ErrorCode::InvalidConfig,
            &["transit/keys/acme", "4096"],
        );
    }
    assert!(server.requests().is_empty(), "the server was asked");
}

#[test]
fn throttling_is_retried_and_then_told_with_the_wait_that_the_answer_wishes() {
    let server =
        only_the_key_answers(errors(429, &["rate limit quota exceeded"]).with_header("retry-after", "1"));
    let at = at_with(&server, &json!({ "max_attempts": 2 }), &json!({ "key": "acme" }));
    let error = assert_fails(unwrap(&*at.key, &wrapped()), ErrorCode::Throttled, &["quota"]);
    assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
    assert_eq!(server.count("/decrypt/acme"), 2);
}

#[test]
fn a_wish_to_wait_beyond_the_deadline_is_told_at_once() {
    let server =
        only_the_key_answers(errors(429, &["rate limit quota exceeded"]).with_header("retry-after", "3600"));
    let at = at_with(&server, &json!({ "max_attempts": 5 }), &json!({ "key": "acme" }));
    let error = assert_fails(unwrap(&*at.key, &wrapped()), ErrorCode::Throttled, &[]);
    assert_eq!(error.retry_after, Some(Duration::from_secs(3600)));
    assert_eq!(server.count("/decrypt/acme"), 1);
}

#[test]
fn an_illness_that_passes_is_not_seen() {
    let server = Server::start(|before, request| match (before, request) {
        (0, _) => errors(503, &["Vault is sealed"]),
        (2, _) => transit(request).lost(),
        (3, _) => Answer::raw(502, ""),
        _ => transit(request),
    });
    let at = at_with(&server, &json!({ "max_attempts": 3 }), &json!({ "key": "acme" }));
    assert_eq!(unwrap(&*at.key, &wrapped()).unwrap(), KEY);
    assert_eq!(server.count("/decrypt/acme"), 3);
}

#[test]
fn a_refusal_is_not_retried() {
    for (status, error) in [
        (403, "1 error occurred: * permission denied"),
        (400, "encryption key not found"),
        (400, "cipher: message authentication failed"),
        (400, "refusing to use soft-deleted key"),
        (400, "something new"),
    ] {
        let server = only_the_key_answers(errors(status, &[error]));
        let at = at_with(&server, &json!({ "max_attempts": 5 }), &json!({ "key": "acme" }));
        assert!(unwrap(&*at.key, &wrapped()).is_err());
        assert_eq!(server.count("/decrypt/acme"), 1, "{error}");
    }
}

#[test]
fn a_slow_answer_ends_at_the_deadline_of_the_call_even_with_retries_left() {
    let server = only_the_key_answers(Answer::raw(200, "").after(Duration::from_secs(20)));
    let at = at_with(&server, &json!({ "max_attempts": 10 }), &json!({ "key": "acme" }));
    let short = Call::with_timeout(Duration::from_millis(300));
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(at.key.unwrap(&short, &context(), &wrapped()).map(drop)));
    let result = ended
        .recv_timeout(Duration::from_secs(15))
        .expect("the call overran its deadline by far");
    assert_fails(result, ErrorCode::Timeout, &["transit/keys/acme"]);
}

#[test]
fn an_attempt_that_hangs_is_cut_off_and_the_next_one_succeeds() {
    let hung = AtomicBool::new(false);
    let server = Server::start(move |_, request: &Request| {
        if request.path.contains("/decrypt/") && !hung.swap(true, Ordering::SeqCst) {
            transit(request).after(Duration::from_secs(20))
        } else {
            transit(request)
        }
    });
    // One hangs; the others are for a busy machine.
    let more = json!({ "max_attempts": 4, "attempt_timeout_ms": 1500 });
    let at = at_with(&server, &more, &json!({ "key": "acme" }));
    assert_eq!(unwrap(&*at.key, &wrapped()).unwrap(), KEY);
    assert!(server.count("/decrypt/acme") >= 2);
}

#[test]
fn a_call_in_flight_ends_when_it_is_cancelled_or_its_instance_interrupted() {
    let server = only_the_key_answers(Answer::raw(200, "").after(Duration::from_secs(60)));
    let at = at(&server);
    let key: Arc<dyn KeyInstance> = Arc::from(at.key);
    for interrupt in [false, true] {
        let in_flight = call();
        let (done, ended) = mpsc::channel();
        let (theirs, their_call) = (Arc::clone(&key), in_flight.clone());
        let asked = server.count("/decrypt/acme");
        std::thread::spawn(move || done.send(theirs.unwrap(&their_call, &context(), &wrapped()).map(drop)));
        server.wait_until(|server| server.count("/decrypt/acme") > asked);
        if interrupt {
            key.interrupt();
        } else {
            in_flight.cancel.cancel();
        }
        let result = ended
            .recv_timeout(Duration::from_secs(15))
            .expect("the call went on");
        assert_fails(result, ErrorCode::Cancelled, &["transit/keys/acme"]);
    }
}

#[test]
fn a_server_that_is_not_there_is_an_outage_within_the_deadline() {
    let token = Secret::new("s.token");
    let settings =
        json!({ "address": "http://127.0.0.1:9", "vault_token_file": token.path, "max_attempts": 2 });
    let key = open(&settings, &json!({ "key": "acme" }));
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
fn status_asks_nothing_before_the_first_wrap_and_then_opens_the_latest() {
    let server = Server::start(|_, request| transit(request));
    let at = at(&server);
    let status = at.key.status(&call()).unwrap();
    assert_eq!(status.key_id, "");
    assert!(status.detail.contains("not asked"), "{}", status.detail);
    assert!(server.requests().is_empty());
    wrap(&*at.key).unwrap();
    assert_eq!(at.key.status(&call()).unwrap().key_id, "transit/keys/acme:3");
    assert_eq!(server.count("/decrypt/acme"), 1);
}

#[test]
fn instances_with_the_same_settings_share_one_connection() {
    let server = Server::start(|_, request| transit(request));
    let at = at(&server);
    let backend = keystead_transit::TransitBackend::default();
    let settings = at.settings.to_string();
    let open = |config: &str| {
        use keystead_backend::{KeyBackend, OpenRequest};
        let host = common::host(|_| None);
        backend
            .open(OpenRequest {
                settings: &settings,
                config,
                host,
            })
            .unwrap()
    };
    let (first, second) = (open(r#"{"key": "a"}"#), open(r#"{"key": "b"}"#));
    wrap(&*first).unwrap();
    wrap(&*second).unwrap();
    assert_eq!(
        server.count("/lookup-self"),
        1,
        "the token is looked up once for both"
    );
}

#[test]
fn what_was_sent_in_confidence_is_left_out_of_what_the_server_says_of_it() {
    let server = Server::start(|_, request| {
        if request.path.contains("/encrypt/") {
            let plaintext = request.json()["plaintext"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            errors(400, &[&format!("{plaintext} cannot be encrypted")])
        } else if request.path.contains("/decrypt/") {
            errors(403, &[&format!("bad token {}", request.header("x-vault-token"))])
        } else if request.path.ends_with("/login") {
            let secret_id = request.json()["secret_id"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            errors(400, &[&format!("invalid secret_id {secret_id}")])
        } else {
            transit(request)
        }
    });
    let token = Secret::new("s.a-token-of-more-than-a-few-letters");
    let secret_id = Secret::new("5ec7e71d-0000-4000-8000-000000000000");
    let by_token = json!({ "address": server.address(), "vault_token_file": token.path, "max_attempts": 1 });
    let by_role = json!({
        "address": server.address(), "max_attempts": 1, "approle_role_id": "keystead", "approle_secret_id_file": secret_id.path,
    });
    let key = |settings| open(settings, &json!({ "key": "acme" }));
    let sent = STANDARD.encode(KEY);
    for (error, secret, name) in [
        (
            wrap(&*key(&by_token)).err(),
            sent.as_str(),
            "the key that was to be wrapped",
        ),
        (
            unwrap(&*key(&by_token), &wrapped()).err(),
            "s.a-token-of",
            "the token",
        ),
        (wrap(&*key(&by_role)).err(), "5ec7e71d-000", "the secret id"),
    ] {
        let error = error.expect("the server refuses everything");
        assert!(
            error.message.contains(name) && !error.message.contains(&secret[..12]),
            "{error}"
        );
    }
}

#[test]
fn the_loudest_log_has_no_key_and_no_token() {
    let log = Log::of_the_process();
    let server = Server::start(|before, request| match before {
        0..3 => transit(request),
        _ => errors(403, &[&format!("bad token {}", request.header("x-vault-token"))]),
    });
    let token = Secret::new("s.a-token-of-more-than-a-few-letters");
    let settings = json!({ "address": server.address(), "vault_token_file": token.path, "max_attempts": 1 });
    let key = open(&settings, &json!({ "key": "acme" }));
    let made = wrap(&*key).unwrap();
    assert_eq!(unwrap(&*key, &made).unwrap(), KEY);
    unwrap(&*key, &made).unwrap_err();
    let log = log.text();
    for secret in [&STANDARD.encode(KEY), "s.a-token"] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
