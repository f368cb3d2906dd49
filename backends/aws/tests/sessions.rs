//! What goes over the wire to STS: how a role's sessions are got, kept and renewed, and what becomes of each refusal.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::scripted::{ARN, ROLE, kms, wrapped};
use common::server::{Server, kms_error, session, settings, sts_error, target};
use common::{KEY, TestHost, assert_fails, open, open_with, unwrap, wrap};
use keystead_backend::ErrorCode;
use keystead_tests::logs::Log;
use serde_json::{Value, json};

const FAR: &str = "2099-01-01T00:00:00Z";

/// STS gives out sessions numbered from 1 that last until `expiry`; KMS takes only the sessions that `accepts` says.
fn sts_and_kms(expiry: &'static str, accepts: impl Fn(&str) -> bool + Send + Sync + 'static) -> Server {
    let sessions = AtomicUsize::new(0);
    Server::start(move |_, request| {
        if target(request) == "sts" {
            let action = ["AssumeRoleWithWebIdentity", "AssumeRole"]
                .into_iter()
                .find(|a| request.body.contains(a));
            let number = sessions.fetch_add(1, Ordering::SeqCst) + 1;
            return session(
                action.expect("no other action is used"),
                &format!("ASIA{number}"),
                expiry,
            );
        }
        let signed = request.header("authorization");
        let id = signed
            .split_once("Credential=")
            .and_then(|(_, rest)| rest.split_once('/'))
            .map_or("", |(id, _)| id);
        if accepts(id) {
            kms(request)
        } else {
            kms_error("ExpiredTokenException", "expired")
        }
    })
}

fn sts_calls(server: &Server) -> Vec<String> {
    server
        .requests()
        .iter()
        .filter(|request| target(request) == "sts")
        .map(|request| request.body.clone())
        .collect()
}

fn role(web_identity: &Value) -> Value {
    json!({ "key_arn": ARN, "role_arn": ROLE, "web_identity": web_identity })
}

#[test]
fn a_role_is_assumed_once_for_many_calls_with_the_token_that_the_application_mints() {
    let server = sts_and_kms(FAR, |id| id == "ASIA1");
    let host = TestHost::minting("aaaaaaaaaa.bbbbbbbbbb.cccccccccc");
    let key = open_with(
        Arc::clone(&host),
        &settings(&server),
        &role(&json!({ "audience": "aws:acme" })),
    );
    for _ in 0..3 {
        let wrapped = wrap(&*key).unwrap();
        assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    }
    assert_eq!(host.audiences(), ["aws:acme"]);
    let [asked] = &sts_calls(&server)[..] else {
        panic!("STS was asked {} times", sts_calls(&server).len())
    };
    for part in [
        "Action=AssumeRoleWithWebIdentity",
        "RoleSessionName=keystead",
        "WebIdentityToken=aaaaaaaaaa.bbbbbbbbbb.cccccccccc",
        "role%2FKeystead",
    ] {
        assert!(asked.contains(part), "{part} is not in {asked}");
    }
}

#[test]
fn many_threads_at_once_ask_for_one_session() {
    let server = sts_and_kms(FAR, |_| true);
    let host = TestHost::minting("a.b.c");
    let key = open_with(
        host,
        &settings(&server),
        &role(&json!({ "audience": "aws:acme" })),
    );
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(unwrap(&*key, &wrapped()).unwrap(), KEY));
        }
    });
    assert_eq!(sts_calls(&server).len(), 1);
}

#[test]
fn a_session_about_to_expire_is_renewed_with_a_fresh_token_from_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "first.first.first\n").unwrap();
    let server = sts_and_kms("2020-01-01T00:00:00Z", |_| true);
    let mut settings = settings(&server);
    settings["token_file"] = json!(path);
    let key = open(&settings, &role(&json!({ "token_file": true })));
    unwrap(&*key, &wrapped()).unwrap();
    std::fs::write(&path, "second.second.second\n").unwrap();
    unwrap(&*key, &wrapped()).unwrap();
    let asked = sts_calls(&server);
    assert_eq!(asked.len(), 2);
    assert!(asked[0].contains("WebIdentityToken=first") && asked[1].contains("WebIdentityToken=second"));

    std::fs::remove_file(&path).unwrap();
    let said = path.display().to_string();
    assert_fails(
        unwrap(&*key, &wrapped()),
        ErrorCode::Unavailable,
        &[&said, "token_file"],
    );
}

#[test]
fn a_session_that_kms_no_longer_takes_is_renewed_once_within_the_call() {
    let lapsed = Arc::new(AtomicUsize::new(0));
    let accepted = Arc::clone(&lapsed);
    let server = sts_and_kms(FAR, move |id| match accepted.load(Ordering::SeqCst) {
        0 => id == "ASIA1",
        1 => id == "ASIA2",
        _ => false,
    });
    let key = open_with(
        TestHost::minting("a.b.c"),
        &settings(&server),
        &role(&json!({ "audience": "x" })),
    );
    unwrap(&*key, &wrapped()).unwrap();
    lapsed.store(1, Ordering::SeqCst);
    unwrap(&*key, &wrapped()).unwrap();
    lapsed.store(2, Ordering::SeqCst);
    assert_fails(
        unwrap(&*key, &wrapped()),
        ErrorCode::Unauthenticated,
        &[ARN, "expired"],
    );
    assert_eq!(
        sts_calls(&server).len(),
        3,
        "once at first, once for each renewal"
    );
}

#[test]
fn every_refusal_of_sts_becomes_its_code_and_names_the_role() {
    for (status, code, meaning) in [
        (403, "AccessDenied", ErrorCode::AccessDenied),
        (400, "InvalidIdentityToken", ErrorCode::Unauthenticated),
        (400, "ExpiredTokenException", ErrorCode::Unauthenticated),
        (403, "IDPRejectedClaim", ErrorCode::Unauthenticated),
        (400, "IDPCommunicationError", ErrorCode::Unavailable),
        (400, "ValidationError", ErrorCode::InvalidConfig),
        (403, "RegionDisabledException", ErrorCode::InvalidConfig),
        (400, "Throttling", ErrorCode::Throttled),
        (503, "ServiceUnavailable", ErrorCode::Unavailable),
    ] {
        let server = Server::start(move |_, _| sts_error(status, code, "because"));
        let by_token = open_with(
            TestHost::minting("a.b.c"),
            &settings(&server),
            &role(&json!({ "audience": "x" })),
        );
        assert_fails(unwrap(&*by_token, &wrapped()), meaning, &[ROLE, code, "because"]);
    }
    for (status, code, meaning) in [
        (403, "AccessDenied", ErrorCode::AccessDenied),
        (403, "InvalidClientTokenId", ErrorCode::Unauthenticated),
        (403, "SignatureDoesNotMatch", ErrorCode::Unauthenticated),
        (403, "ExpiredToken", ErrorCode::Unauthenticated),
    ] {
        let server = Server::start(move |_, _| sts_error(status, code, "because"));
        let by_role = open(&settings(&server), &json!({ "key_arn": ARN, "role_arn": ROLE }));
        assert_fails(unwrap(&*by_role, &wrapped()), meaning, &[ROLE, code, "because"]);
    }
}

#[test]
fn a_token_never_gets_into_an_error_even_if_sts_repeats_it() {
    let token = "eyJhbGciOiJub25l.eyJzdWIiOiJhY21l.c2lnbmF0dXJl";
    let server = Server::start(move |_, _| sts_error(400, "InvalidIdentityToken", token));
    let key = open_with(
        TestHost::minting(token),
        &settings(&server),
        &role(&json!({ "audience": "x" })),
    );
    let error = assert_fails(unwrap(&*key, &wrapped()), ErrorCode::Unauthenticated, &["token"]);
    for part in token.split('.') {
        assert!(!error.message.contains(part), "{error}");
    }
}

#[test]
fn an_application_that_mints_no_tokens_is_told_so() {
    let server = sts_and_kms(FAR, |_| true);
    let key = open(&settings(&server), &role(&json!({ "audience": "aws:acme" })));
    assert_fails(
        unwrap(&*key, &wrapped()),
        ErrorCode::InvalidConfig,
        &[
            "aws:acme",
            "take the identity token out of the config",
            "no issuer",
        ],
    );
    assert!(server.requests().is_empty());
}

#[test]
fn a_role_without_a_token_is_assumed_by_the_applications_own_credentials_with_the_external_id() {
    let server = sts_and_kms(FAR, |id| id == "ASIA1");
    let config =
        json!({ "key_arn": ARN, "role_arn": ROLE, "external_id": "acme-77", "role_session_name": "vault" });
    let key = open(&settings(&server), &config);
    assert_eq!(unwrap(&*key, &wrapped()).unwrap(), KEY);
    let requests = server.requests();
    assert!(
        requests[0]
            .header("authorization")
            .contains("Credential=AKIDTEST/")
    );
    for part in [
        "Action=AssumeRole&",
        "ExternalId=acme-77",
        "RoleSessionName=vault",
    ] {
        assert!(
            requests[0].body.contains(part),
            "{part} is not in {}",
            requests[0].body
        );
    }
}

#[test]
fn a_session_token_that_kms_or_sts_repeats_is_left_out() {
    const OWN: &str = "FwoG-the-session-token-of-the-application";
    let server = Server::start(|_, request| {
        let shown = request.header("x-amz-security-token").to_owned();
        if target(request) != "sts" {
            // A part of it, as words that were cut have.
            kms_error("AccessDeniedException", &format!("{} is denied", &shown[2..]))
        } else if request.body.contains("Nobody") {
            sts_error(403, "AccessDenied", &format!("{shown} is denied"))
        } else {
            session("AssumeRole", "ASIA-of-a-role-that-may", FAR)
        }
    });
    let mut settings = settings(&server);
    settings["session_token"] = json!(OWN);
    let nobody = ROLE.replace("Keystead", "Nobody");
    for (config, secret) in [
        (json!({ "key_arn": ARN }), "session-token-of"),
        (json!({ "key_arn": ARN, "role_arn": nobody }), "session-token-of"),
        (json!({ "key_arn": ARN, "role_arn": ROLE }), "of-a-role"),
    ] {
        let key = open(&settings, &config);
        for error in [
            wrap(&*key).err().unwrap(),
            unwrap(&*key, &wrapped()).err().unwrap(),
        ] {
            assert_eq!(error.code, ErrorCode::AccessDenied, "{error}");
            assert!(
                error.message.contains("repeat the session token") && !error.message.contains(secret),
                "{error}"
            );
        }
    }
}

#[test]
fn the_loudest_log_has_no_key_and_nothing_that_signs() {
    let log = Log::of_the_process();
    let server = Server::start(|before, request| match target(request) {
        "sts" => session("AssumeRole", "ASIA-of-a-role-that-may", FAR),
        _ if before < 3 => kms(request),
        _ => kms_error("AccessDeniedException", "no"),
    });
    let mut settings = settings(&server);
    settings["session_token"] = json!("FwoG-the-session-token");
    settings["secret_access_key"] = json!("the-secret-of-the-application");
    let key = open(&settings, &json!({ "key_arn": ARN, "role_arn": ROLE }));
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    unwrap(&*key, &wrapped).unwrap_err();
    let log = log.text();
    // The role's session token begins so.
    for secret in [&STANDARD.encode(KEY), "t-ASIA", "FwoG", "the-secret-of"] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
