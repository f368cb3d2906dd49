//! Each row of the front page's table of errors, provoked over the wire; and what a client must never believe.

mod common;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Granted, KEY, TestHost, assert_fails, call, open, open_with, refusal, unwrap, wrap};
use keystead_backend::{ErrorCode, KeyInstance, Wrapped};
use keystead_tests::emulators::Gcp;
use keystead_tests::logs::Log;
use keystead_tests::scripted::{Answer, Server};
use serde_json::json;

#[test]
fn a_version_that_its_owner_takes_away_is_told_apart_by_its_state() {
    let Some(gcp) = Gcp::shared_or_skip("states of versions at Google Cloud KMS") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let version = granted.version(1);
    let wrapped = wrap(&*key).unwrap();
    let both_fail = |code, words: &[&str]| {
        assert_fails(wrap(&*key), code, words);
        assert_fails(unwrap(&*key, &wrapped), code, words);
    };

    gcp.disable(&version).unwrap();
    both_fail(ErrorCode::KeyDisabled, &[&version, "DISABLED", "versions enable"]);
    gcp.enable(&version).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);

    gcp.schedule_destruction(&version).unwrap();
    both_fail(
        ErrorCode::KeyPendingDeletion,
        &["DESTROY_SCHEDULED", "versions restore"],
    );
    gcp.restore(&version).unwrap();
    both_fail(ErrorCode::KeyDisabled, &["DISABLED"]);
    gcp.enable(&version).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);

    for (state, code) in [
        ("PENDING_EXTERNAL_DESTRUCTION", ErrorCode::KeyPendingDeletion),
        ("PENDING_IMPORT", ErrorCode::KeyDisabled),
        ("GENERATION_FAILED", ErrorCode::KeyDisabled),
        ("PENDING_GENERATION", ErrorCode::Unavailable),
    ] {
        let arguments = json!({ "version": version, "state": state });
        gcp.control("state", &arguments).unwrap();
        both_fail(code, &[state]);
    }
    gcp.control("destroy", &json!({ "version": version })).unwrap();
    both_fail(
        ErrorCode::KeyNotFound,
        &["DESTROYED", "cannot be unwrapped again"],
    );
}

#[test]
fn a_key_without_a_primary_version_wraps_nothing_and_opens_what_it_wrapped() {
    let Some(gcp) = Gcp::shared_or_skip("a key of Google Cloud KMS without a primary version") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let wrapped = wrap(&*key).unwrap();
    gcp.control("unset_primary", &json!({ "key": granted.key }))
        .unwrap();
    assert_fails(
        wrap(&*key),
        ErrorCode::KeyDisabled,
        &["no primary version", "set-primary-version"],
    );
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn a_grant_is_for_each_direction_and_for_one_key() {
    let Some(gcp) = Gcp::shared_or_skip("grants on keys of Google Cloud KMS") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let wrapped = wrap(&*key).unwrap();
    let role = "grant roles/cloudkms.cryptoKeyEncrypterDecrypter";
    gcp.grant(&granted.key, "cryptoKeyEncrypter", &[&granted.member])
        .unwrap();
    wrap(&*key).unwrap();
    assert_fails(
        unwrap(&*key, &wrapped),
        ErrorCode::AccessDenied,
        &["useToDecrypt", role],
    );
    gcp.grant(&granted.key, "cryptoKeyDecrypter", &[&granted.member])
        .unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    assert_fails(wrap(&*key), ErrorCode::AccessDenied, &["useToEncrypt", role]);
    // Another's key, and one that is not there: who has no grant does not learn which it is.
    let others = Granted::new(gcp);
    for name in [others.key.clone(), format!("{}-none", others.key)] {
        let key = open(&granted.settings, &json!({ "key_name": name }));
        assert_fails(wrap(&*key), ErrorCode::AccessDenied, &["may not exist"]);
    }
}

#[test]
fn a_key_for_something_else_is_a_wrong_config() {
    let Some(gcp) = Gcp::shared_or_skip("a signing key of Google Cloud KMS") else {
        return;
    };
    let granted = Granted::new(gcp);
    let signing = gcp.create_key_for("ASYMMETRIC_SIGN").unwrap();
    gcp.grant(&signing, "cryptoKeyEncrypterDecrypter", &[&granted.member])
        .unwrap();
    let key = open(&granted.settings, &json!({ "key_name": signing }));
    assert_fails(
        wrap(&*key),
        ErrorCode::InvalidConfig,
        &["purpose", "ENCRYPT_DECRYPT"],
    );
}

#[test]
fn every_status_of_the_table_becomes_its_code() {
    let Some(gcp) = Gcp::shared_or_skip("every error of Google Cloud KMS") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let wrapped = wrap(&*key).unwrap();
    for (http, status, code) in [
        (404, "NOT_FOUND", ErrorCode::KeyNotFound),
        (403, "PERMISSION_DENIED", ErrorCode::AccessDenied),
        (401, "UNAUTHENTICATED", ErrorCode::Unauthenticated),
        (429, "RESOURCE_EXHAUSTED", ErrorCode::Throttled),
        (503, "UNAVAILABLE", ErrorCode::Unavailable),
        (500, "INTERNAL", ErrorCode::Unavailable),
        (500, "UNKNOWN", ErrorCode::Unavailable),
        (500, "DATA_LOSS", ErrorCode::Unavailable),
        (409, "ABORTED", ErrorCode::Unavailable),
        (499, "CANCELLED", ErrorCode::Unavailable),
        (504, "DEADLINE_EXCEEDED", ErrorCode::Timeout),
        (400, "OUT_OF_RANGE", ErrorCode::InvalidConfig),
        (501, "UNIMPLEMENTED", ErrorCode::InvalidConfig),
        (400, "FAILED_PRECONDITION", ErrorCode::KeyDisabled),
    ] {
        // Twice for the one status after which new credentials are tried.
        let faults = |rpc| vec![refusal(rpc, http, status, "said by Google"); 2];
        gcp.fault(&granted.key, &faults("Encrypt")).unwrap();
        assert_fails(wrap(&*key), code, &["wrapping with", status, "said by Google"]);
        gcp.fault(&granted.key, &faults("Decrypt")).unwrap();
        assert_fails(
            unwrap(&*key, &wrapped),
            code,
            &["unwrapping with", status, "said by Google"],
        );
    }
    for (rpc, code) in [
        ("Encrypt", ErrorCode::InvalidConfig),
        ("Decrypt", ErrorCode::InvalidCiphertext),
    ] {
        gcp.fault(&granted.key, &[refusal(rpc, 400, "INVALID_ARGUMENT", "no")])
            .unwrap();
        let failed = match rpc {
            "Encrypt" => wrap(&*key).map(drop),
            _ => unwrap(&*key, &wrapped).map(drop),
        };
        assert_fails(failed, code, &["INVALID_ARGUMENT"]);
    }
    // All of it has passed.
    gcp.fault(&granted.key, &[]).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn an_answer_that_is_not_googles_is_judged_by_its_http_status() {
    let Some(gcp) = Gcp::shared_or_skip("a proxy's errors in front of Google Cloud KMS") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    for (http, code) in [
        (401, ErrorCode::Unauthenticated),
        (403, ErrorCode::AccessDenied),
        (404, ErrorCode::Unavailable),
        (408, ErrorCode::Timeout),
        (418, ErrorCode::Unavailable),
        (429, ErrorCode::Throttled),
        (502, ErrorCode::Unavailable),
        (503, ErrorCode::Unavailable),
    ] {
        let fault = json!({ "rpc": "Encrypt", "status": http, "body": "<html>a proxy's page</html>" });
        gcp.fault(&granted.key, &[fault.clone(), fault]).unwrap();
        let error = assert_fails(wrap(&*key), code, &[&format!("HTTP {http}")]);
        assert!(!error.message.contains("html"), "{error}");
    }
    gcp.fault(&granted.key, &[]).unwrap();
    wrap(&*key).unwrap();
}

#[test]
fn a_quota_that_is_used_up_says_when_to_try_again() {
    let Some(gcp) = Gcp::shared_or_skip("a quota of Google Cloud KMS") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let quota = |left| {
        gcp.control("quota", &json!({ "on": granted.key, "left": left }))
            .unwrap()
    };
    quota(json!(1));
    let wrapped = wrap(&*key).unwrap();
    let error = assert_fails(
        unwrap(&*key, &wrapped),
        ErrorCode::Throttled,
        &["Cryptographic requests"],
    );
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    quota(json!(null));
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    // A wish in the answer's head, at most a day of it.
    let mut fault = refusal("Decrypt", 429, "RESOURCE_EXHAUSTED", "slow down");
    fault["headers"] = json!({ "retry-after": "864000" });
    gcp.fault(&granted.key, &[fault]).unwrap();
    let error = assert_fails(unwrap(&*key, &wrapped), ErrorCode::Throttled, &[]);
    assert_eq!(error.retry_after, Some(Duration::from_secs(24 * 60 * 60)));
}

#[test]
fn what_was_damaged_on_the_way_there_is_refused_by_google_and_read_as_an_outage() {
    let Some(gcp) = Gcp::shared_or_skip("requests to Google Cloud KMS that are damaged on the way") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let wrapped = wrap(&*key).unwrap();
    for (rpc, field) in [
        ("Encrypt", "plaintext"),
        ("Encrypt", "additional_authenticated_data"),
        ("Decrypt", "ciphertext"),
        ("Decrypt", "additional_authenticated_data"),
    ] {
        gcp.fault(&granted.key, &[json!({ "rpc": rpc, "flip_request": field })])
            .unwrap();
        let failed = match rpc {
            "Encrypt" => wrap(&*key).map(drop),
            _ => unwrap(&*key, &wrapped).map(drop),
        };
        assert_fails(failed, ErrorCode::Unavailable, &["checksum"]);
    }
}

#[test]
fn an_answer_whose_checksums_do_not_add_up_is_not_used() {
    let Some(gcp) = Gcp::shared_or_skip("answers of Google Cloud KMS that are damaged on the way") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let wrapped = wrap(&*key).unwrap();
    let checksums = &["checksum"][..];
    let unchecked = &["did not check"][..];
    for (fault, words) in [
        (json!({ "flip": "ciphertext" }), checksums),
        (json!({ "set": { "ciphertextCrc32c": "1" } }), checksums),
        (json!({ "drop": ["ciphertextCrc32c"] }), checksums),
        (json!({ "drop": ["verifiedPlaintextCrc32c"] }), unchecked),
        (
            json!({ "set": { "verifiedAdditionalAuthenticatedDataCrc32c": false } }),
            unchecked,
        ),
    ] {
        gcp.fault(&granted.key, &[fault]).unwrap();
        assert_fails(wrap(&*key), ErrorCode::Unavailable, words);
    }
    for fault in [
        json!({ "flip": "plaintext" }),
        json!({ "set": { "plaintextCrc32c": "1" } }),
        json!({ "drop": ["plaintextCrc32c"] }),
    ] {
        gcp.fault(&granted.key, &[fault]).unwrap();
        assert_fails(unwrap(&*key, &wrapped), ErrorCode::Unavailable, checksums);
    }
    gcp.fault(&granted.key, &[json!({ "drop": ["plaintext"] })])
        .unwrap();
    assert_fails(
        unwrap(&*key, &wrapped),
        ErrorCode::Unavailable,
        &["without a plaintext"],
    );
}

#[test]
fn an_answer_for_another_key_is_not_believed() {
    let Some(gcp) = Gcp::shared_or_skip("answers of Google Cloud KMS for another key") else {
        return;
    };
    let (granted, other) = (Granted::new(gcp), Granted::new(gcp));
    let key = granted.open();
    for (name, code) in [
        (other.version(1), ErrorCode::WrongKey),
        (granted.key.clone(), ErrorCode::Unavailable),
        ("x".into(), ErrorCode::Unavailable),
        (String::new(), ErrorCode::Unavailable),
    ] {
        gcp.fault(&granted.key, &[json!({ "set": { "name": name } })])
            .unwrap();
        assert_fails(wrap(&*key), code, &["Cloud KMS answered"]);
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_an_outage_and_is_not_repeated() {
    let Some(gcp) = Gcp::shared_or_skip("garbled answers of Google Cloud KMS") else {
        return;
    };
    let granted = Granted::new(gcp);
    let key = granted.open();
    let wrapped = wrap(&*key).unwrap();
    for fault in [
        json!({ "rpc": "Decrypt", "status": 200, "body": "hunter2" }),
        json!({ "rpc": "Decrypt", "status": 200, "body": { "plaintext": "hunter2!" } }),
        json!({ "rpc": "Decrypt", "cut": true }),
        json!({ "rpc": "Decrypt", "close": true }),
    ] {
        gcp.fault(&granted.key, &[fault.clone(), fault.clone()]).unwrap();
        let error = assert_fails(unwrap(&*key, &wrapped), ErrorCode::Unavailable, &["Cloud KMS"]);
        assert!(!error.message.contains("hunter2"), "{fault}: {error}");
    }
    gcp.fault(&granted.key, &[]).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn what_comes_back_by_itself_is_tried_again_within_the_call() {
    let Some(gcp) = Gcp::shared_or_skip("retries at Google Cloud KMS") else {
        return;
    };
    let mut granted = Granted::new(gcp);
    granted.settings["max_attempts"] = json!(3);
    let key = granted.open();
    let wrapped = wrap(&*key).unwrap();
    for fault in [
        refusal("Decrypt", 503, "UNAVAILABLE", "later"),
        refusal("Decrypt", 429, "RESOURCE_EXHAUSTED", "later"),
        json!({ "rpc": "Decrypt", "close": true }),
    ] {
        gcp.fault(&granted.key, std::slice::from_ref(&fault)).unwrap();
        assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY, "{fault}");
    }
    // A refusal is not.
    let before = granted.calls(gcp).len();
    gcp.fault(
        &granted.key,
        &[refusal("Decrypt", 403, "PERMISSION_DENIED", "no")],
    )
    .unwrap();
    assert_fails(unwrap(&*key, &wrapped), ErrorCode::AccessDenied, &[]);
    assert_eq!(granted.calls(gcp).len(), before + 1);
}

#[test]
fn nothing_that_listens_is_an_outage() {
    let settings = json!({ "endpoint_url": "http://127.0.0.1:9", "max_attempts": 2,
        "service_account_file": "/nonexistent/key.json" });
    let config = json!({ "key_name": "projects/p/locations/global/keyRings/r/cryptoKeys/k" });
    // Without credentials nothing is even tried.
    assert_fails(
        wrap(&*open(&settings, &config)),
        ErrorCode::Unavailable,
        &["service_account_file", "/nonexistent/key.json"],
    );
    let Some(gcp) = Gcp::shared_or_skip("an endpoint of Google Cloud KMS at which nothing listens") else {
        return;
    };
    let mut granted = Granted::new(gcp);
    granted.settings["endpoint_url"] = json!("http://127.0.0.1:9");
    assert_fails(
        wrap(&*granted.open()),
        ErrorCode::Unavailable,
        &["cannot be reached", "127.0.0.1:9"],
    );
    assert_fails(
        granted.open().status(&call()),
        ErrorCode::Unavailable,
        &["asking whether"],
    );
}

#[test]
fn what_google_says_of_the_key_that_was_to_be_wrapped_is_left_out() {
    let Some(gcp) = Gcp::shared_or_skip("an answer of Google Cloud KMS that repeats what was sent") else {
        return;
    };
    let granted = Granted::new(gcp);
    let said = format!(
        "Invalid value at 'plaintext' (TYPE_BYTES), \"{}\"",
        STANDARD.encode(KEY)
    );
    gcp.fault(
        &granted.key,
        &[refusal("Encrypt", 400, "INVALID_ARGUMENT", &said)],
    )
    .unwrap();
    // It looks for the key in the message, too.
    assert_fails(
        wrap(&*granted.open()),
        ErrorCode::InvalidConfig,
        &["repeat the key that was to be wrapped"],
    );
}

#[test]
fn an_access_token_that_google_repeats_is_left_out() {
    let at = At::new(|before, call, shown| match call {
        // A part of it, as words that were cut have.
        "decrypt" => refused(&format!("{} is expired", &shown[10..30])),
        _ if before == 1 => refused(&format!("Bearer {shown} is expired")),
        // No refusal, but an answer that is refused.
        _ => encrypted_by(shown),
    });
    let (key, wrapped) = (&at.key, wrapped());
    let words = ["wrapping with", "repeat the access token"];
    for error in [
        assert_fails(wrap(&**key), ErrorCode::Unauthenticated, &words),
        assert_fails(wrap(&**key), ErrorCode::Unavailable, &words),
        assert_fails(unwrap(&**key, &wrapped), ErrorCode::Unauthenticated, &words[1..]),
        assert_fails(key.status(&call()), ErrorCode::Unavailable, &words[1..]),
    ] {
        assert!(!error.message.contains("as-some"), "{error}");
    }
}

#[test]
fn the_loudest_log_has_no_key_and_no_token() {
    let log = Log::of_the_process();
    let at = At::new(|_, call, shown| match call {
        "decrypt" => refused(&format!("{shown} is expired")),
        _ => encrypted_by(&wrapped().key_id),
    });
    wrap(&*at.key).unwrap();
    assert_fails(
        unwrap(&*at.key, &wrapped()),
        ErrorCode::Unauthenticated,
        &["the access token"],
    );
    let log = log.text();
    for secret in [&STANDARD.encode(KEY), SHOWN, IDENTITY] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}

const NAME: &str = "projects/p/locations/global/keyRings/r/cryptoKeys/k";

/// How access tokens begin here: as none does that is known by its form.
const SHOWN: &str = "a-token-as-long-as-some";

const IDENTITY: &str = "aaaaaaaaaa.bbbbbbbbbb.cccccccccc";

/// A key at Google as a test has it, with an account at a service of tokens.
struct At {
    key: Box<dyn KeyInstance>,
    _server: Server,
}

impl At {
    /// What `kms` answers: of how many requests there were before, the call, and the access token that it was shown.
    fn new(kms: impl Fn(usize, &str, &str) -> Answer + Send + Sync + 'static) -> Self {
        let server = Server::start(move |before, request| {
            if request.path.ends_with("/token") {
                return Answer::ok(&json!({
                    "access_token": format!("{SHOWN}-and-the-{before}th"), "expires_in": 3600, "token_type": "Bearer",
                    "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                }));
            }
            let (_, call) = request.path.split_once("k:").unwrap();
            let shown = request.header("authorization").strip_prefix("Bearer ").unwrap();
            kms(before, call.split('?').next().unwrap(), shown)
        });
        // A busy machine is no outage.
        let settings = json!({ "endpoint_url": server.address(), "max_attempts": 1, "attempt_timeout_ms": 20_000,
            "sts_token_url": format!("{}/token", server.address()) });
        let config = json!({ "key_name": NAME, "web_identity": { "audience": "gcp:acme" },
            "workload_identity_provider": "projects/1/locations/global/workloadIdentityPools/a/providers/b" });
        Self {
            key: open_with(TestHost::minting(IDENTITY), &settings, &config),
            _server: server,
        }
    }
}

fn refused(message: &str) -> Answer {
    let error = json!({ "code": 401, "status": "UNAUTHENTICATED", "message": message });
    Answer::json(401, &json!({ "error": error }))
}

fn encrypted_by(version: &str) -> Answer {
    Answer::ok(&json!({
        "name": version, "ciphertext": "YmxvYg==", "ciphertextCrc32c": crc32c(b"blob").to_string(),
        "verifiedPlaintextCrc32c": true, "verifiedAdditionalAuthenticatedDataCrc32c": true,
    }))
}

fn wrapped() -> Wrapped {
    Wrapped {
        blob: b"blob".to_vec(),
        key_id: format!("{NAME}/cryptoKeyVersions/1"),
        metadata: Vec::new(),
    }
}

/// The checksum that Google sends along, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82F6_3B78 & (sum & 1).wrapping_neg())
        })
    })
}
