//! Who asks: a service account's file, tokens that the application mints, tokens in a file; what is refused, and how
//! it comes back.

mod common;

use std::sync::Arc;

use common::{Granted, KEY, TestHost, assert_fails, open_with, unwrap, wrap};
use keystead_backend::{ErrorCode, KeyInstance};
use keystead_tests::emulators::{Gcp, Provider};
use serde_json::{Value, json};

const ISSUER: &str = "https://keystead.example";
const AUDIENCE: &str = "gcp:acme";
const SUBJECT: &str = "cmk:acme-cmk:acme";

/// A key that tokens of one subject may use, by one provider.
struct Federated<'a> {
    gcp: &'a Gcp,
    provider: Provider,
    key: String,
    settings: Value,
}

impl<'a> Federated<'a> {
    fn new(gcp: &'a Gcp) -> Self {
        let provider = gcp.provider(ISSUER, AUDIENCE).unwrap();
        let key = gcp.create_key().unwrap();
        gcp.grant(
            &key,
            "cryptoKeyEncrypterDecrypter",
            &[&provider.principal(SUBJECT)],
        )
        .unwrap();
        let mut settings = gcp.settings();
        settings["max_attempts"] = json!(1);
        settings["attempt_timeout_ms"] = json!(20_000);
        Self {
            gcp,
            provider,
            key,
            settings,
        }
    }

    fn config(&self, web_identity: Value) -> Value {
        json!({ "key_name": self.key, "workload_identity_provider": self.provider.name, "web_identity": web_identity })
    }

    fn token(&self, subject: &str, change: Value) -> String {
        self.gcp.mint(&self.provider, subject, &change).unwrap()
    }

    fn host(&self) -> Arc<TestHost> {
        TestHost::minting(self.token(SUBJECT, json!({})))
    }

    fn open(&self, host: &Arc<TestHost>) -> Box<dyn KeyInstance> {
        open_with(
            Arc::clone(host),
            &self.settings,
            &self.config(json!({ "audience": AUDIENCE })),
        )
    }

    fn exchanges(&self) -> usize {
        self.gcp.requests(&self.provider.name).unwrap().len()
    }
}

#[test]
fn a_token_that_the_application_mints_is_exchanged_once_for_many_calls() {
    let Some(gcp) = Gcp::shared_or_skip("minted tokens at Google Cloud KMS") else {
        return;
    };
    let federated = Federated::new(gcp);
    let host = federated.host();
    let key = federated.open(&host);
    assert_eq!(host.asked(), 0, "opening reaches nobody");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let wrapped = wrap(&*key).unwrap();
                assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
            });
        }
    });
    assert_eq!(host.audiences(), [AUDIENCE]);
    assert_eq!(federated.exchanges(), 1);
    let requests = gcp.requests(&federated.key).unwrap();
    let who = json!(federated.provider.principal(SUBJECT));
    assert!(
        requests
            .iter()
            .filter(|request| request["rpc"] == "Encrypt")
            .all(|request| request["member"] == who)
    );
    assert!(host.logged().is_empty());
}

#[test]
fn a_token_in_a_file_is_read_anew_for_each_exchange() {
    let Some(gcp) = Gcp::shared_or_skip("token files at Google Cloud KMS") else {
        return;
    };
    let federated = Federated::new(gcp);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, federated.token(SUBJECT, json!({ "audience": "another" }))).unwrap();
    let mut settings = federated.settings.clone();
    settings["token_file"] = json!(path);
    let config = federated.config(json!({ "token_file": true }));
    let key = open_with(Arc::new(TestHost::default()), &settings, &config);
    assert_fails(
        wrap(&*key),
        ErrorCode::Unauthenticated,
        &["invalid_grant", "audience"],
    );
    std::fs::write(&path, format!("{}\n", federated.token(SUBJECT, json!({})))).unwrap();
    let wrapped = wrap(&*key).unwrap();
    std::fs::remove_file(&path).unwrap();
    // The session goes on.
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    let fresh = open_with(Arc::new(TestHost::default()), &settings, &config);
    assert_fails(
        wrap(&*fresh),
        ErrorCode::Unavailable,
        &["token file", "fresh token"],
    );
}

#[test]
fn a_token_that_is_not_right_is_refused_and_nothing_of_it_repeated() {
    let Some(gcp) = Gcp::shared_or_skip("wrong tokens at Google Cloud KMS") else {
        return;
    };
    let federated = Federated::new(gcp);
    for change in [
        json!({ "audience": "gcp:other" }),
        json!({ "lifetime_s": -120 }),
        json!({ "forged": true }),
    ] {
        let host = TestHost::minting(federated.token(SUBJECT, change.clone()));
        let key = federated.open(&host);
        assert_fails(
            wrap(&*key),
            ErrorCode::Unauthenticated,
            &["invalid_grant", &federated.provider.name],
        );
        // The application thinks again.
        host.mint_from_now_on(federated.token(SUBJECT, json!({})));
        wrap(&*key).unwrap_or_else(|error| panic!("after {change}: {error}"));
    }
    for token in ["", "not a token", "a\nb"] {
        let key = federated.open(&TestHost::minting(token));
        assert_fails(wrap(&*key), ErrorCode::Unauthenticated, &["identity token"]);
    }
    let key = federated.open(&Arc::new(TestHost::default()));
    assert_fails(wrap(&*key), ErrorCode::InvalidConfig, &["mints none"]);
}

#[test]
fn a_service_that_repeats_the_token_does_not_have_it_in_the_error() {
    let Some(gcp) = Gcp::shared_or_skip("a token service that repeats tokens") else {
        return;
    };
    let federated = Federated::new(gcp);
    let token = federated.token(SUBJECT, json!({}));
    let body = json!({ "error": "invalid_grant", "error_description": format!("bad token {token}") });
    gcp.fault(
        &federated.provider.name,
        &[json!({ "status": 400, "body": body })],
    )
    .unwrap();
    let error = assert_fails(
        wrap(&*federated.open(&TestHost::minting(&*token))),
        ErrorCode::Unauthenticated,
        &["left out"],
    );
    for part in token.split('.') {
        assert!(!error.message.contains(part), "{error}");
    }
}

#[test]
fn another_subject_has_no_grant() {
    let Some(gcp) = Gcp::shared_or_skip("subjects of tokens at Google Cloud KMS") else {
        return;
    };
    let federated = Federated::new(gcp);
    let host = TestHost::minting(federated.token("cmk:acme-cmk:other", json!({})));
    assert_fails(
        wrap(&*federated.open(&host)),
        ErrorCode::AccessDenied,
        &["cryptoKeyEncrypterDecrypter"],
    );
}

#[test]
fn what_the_owner_of_the_pool_takes_away_is_gone_with_the_next_exchange_and_comes_back() {
    let Some(gcp) = Gcp::shared_or_skip("a workload identity provider that is switched off") else {
        return;
    };
    let federated = Federated::new(gcp);
    let host = federated.host();
    let key = federated.open(&host);
    let change = |change: Value| gcp.change_provider(&federated.provider, &change).unwrap();
    let words = [&*federated.provider.name, "must exist and be enabled"];
    change(json!({ "disabled": true }));
    for _ in 0..2 {
        let error = assert_fails(wrap(&*key), ErrorCode::AccessDenied, &words);
        assert!(error.message.contains("invalid_target"), "{error}");
    }
    change(json!({ "subject_prefix": "cmk:other:" }));
    let error = assert_fails(wrap(&*key), ErrorCode::AccessDenied, &words);
    assert!(error.message.contains("unauthorized_client"), "{error}");
    change(json!({}));
    wrap(&*key).unwrap();
}

#[test]
fn every_error_of_an_exchange_becomes_its_code_and_is_over_when_it_is_over() {
    let Some(gcp) = Gcp::shared_or_skip("every error of a token exchange at Google") else {
        return;
    };
    let federated = Federated::new(gcp);
    let host = federated.host();
    for (http, error, code) in [
        (400, "invalid_grant", ErrorCode::Unauthenticated),
        (401, "invalid_client", ErrorCode::Unauthenticated),
        (401, "invalid_token", ErrorCode::Unauthenticated),
        (400, "unauthorized_client", ErrorCode::AccessDenied),
        (400, "access_denied", ErrorCode::AccessDenied),
        (400, "invalid_target", ErrorCode::AccessDenied),
        (400, "invalid_request", ErrorCode::InvalidConfig),
        (400, "invalid_scope", ErrorCode::InvalidConfig),
        (400, "unsupported_grant_type", ErrorCode::InvalidConfig),
        (503, "temporarily_unavailable", ErrorCode::Unavailable),
        (500, "server_error", ErrorCode::Unavailable),
        (400, "something_new", ErrorCode::Unavailable),
        (429, "something_new", ErrorCode::Throttled),
        (503, "something_new", ErrorCode::Unavailable),
    ] {
        let key = federated.open(&host);
        let body = json!({ "error": error, "error_description": "said by Google" });
        gcp.fault(
            &federated.provider.name,
            &[json!({ "status": http, "body": body })],
        )
        .unwrap();
        assert_fails(wrap(&*key), code, &["exchanging", error, "said by Google"]);
        wrap(&*key).unwrap_or_else(|later| panic!("after {error}: {later}"));
    }
    for (fault, code) in [
        (
            json!({ "status": 502, "body": "<html>hunter2</html>" }),
            ErrorCode::Unavailable,
        ),
        (json!({ "status": 403, "body": "no" }), ErrorCode::AccessDenied),
        (json!({ "close": true }), ErrorCode::Unavailable),
        (json!({ "cut": true }), ErrorCode::Unavailable),
        (
            json!({ "status": 200, "body": { "token": "ya29.hunter2" } }),
            ErrorCode::Unavailable,
        ),
    ] {
        let key = federated.open(&host);
        gcp.fault(&federated.provider.name, std::slice::from_ref(&fault))
            .unwrap();
        let error = assert_fails(wrap(&*key), code, &["exchanging"]);
        assert!(!error.message.contains("hunter2"), "{error}");
        gcp.fault(&federated.provider.name, &[]).unwrap();
        wrap(&*key).unwrap_or_else(|later| panic!("after {fault}: {later}"));
    }
}

#[test]
fn an_access_token_that_ended_is_replaced_within_the_call() {
    let Some(gcp) = Gcp::shared_or_skip("access tokens of Google that end") else {
        return;
    };
    let federated = Federated::new(gcp);
    let host = federated.host();
    let key = federated.open(&host);
    let wrapped = wrap(&*key).unwrap();
    let expire = || {
        let member = json!({ "member": federated.provider.principal(SUBJECT) });
        gcp.control("expire", &member).unwrap()
    };
    expire();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    assert_eq!((federated.exchanges(), host.asked()), (2, 2));
    // And when there is no other, the call says so once, without going round and round.
    expire();
    host.mint_from_now_on(federated.token(SUBJECT, json!({ "audience": "wrong" })));
    assert_fails(
        unwrap(&*key, &wrapped),
        ErrorCode::Unauthenticated,
        &["invalid_grant"],
    );
    assert_eq!(federated.exchanges(), 3);
}

#[test]
fn an_exchange_that_was_cut_off_is_tried_again_within_the_call() {
    let Some(gcp) = Gcp::shared_or_skip("retries of token exchanges at Google") else {
        return;
    };
    let mut federated = Federated::new(gcp);
    federated.settings["max_attempts"] = json!(3);
    gcp.fault(&federated.provider.name, &[json!({ "status": 503, "body": "" })])
        .unwrap();
    wrap(&*federated.open(&federated.host())).unwrap();
    assert_eq!(federated.exchanges(), 2);
}

#[test]
fn a_service_accounts_file_is_read_when_it_is_needed_and_can_be_replaced() {
    let Some(gcp) = Gcp::shared_or_skip("service accounts at Google Cloud KMS") else {
        return;
    };
    let mut granted = Granted::new(gcp);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.json");
    granted.settings["service_account_file"] = json!(path);
    let key = granted.open();
    let file = path.display().to_string();
    let mut without_key = granted.file.clone();
    without_key.as_object_mut().unwrap().remove("private_key");
    let mut garbled = granted.file.clone();
    garbled["private_key"] = json!("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n");
    let mut of_a_user = granted.file.clone();
    of_a_user["type"] = json!("authorized_user");
    for (text, words) in [
        (None, "cannot be read"),
        (Some("hunter2".to_owned()), "is not JSON"),
        (Some(of_a_user.to_string()), "GOOGLE_APPLICATION_CREDENTIALS"),
        (Some(without_key.to_string()), "lacks a field"),
        (Some("x".repeat(70_000)), "too long"),
    ] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let error = assert_fails(wrap(&*key), ErrorCode::Unavailable, &[words, &file]);
        assert!(!error.message.contains("hunter2"), "{error}");
    }
    std::fs::write(&path, garbled.to_string()).unwrap();
    let error = assert_fails(
        wrap(&*key),
        ErrorCode::Unavailable,
        &["getting Google credentials"],
    );
    assert!(!error.message.contains("hunter2"), "{error}");
    // In order at last, and no restart was needed.
    std::fs::write(&path, granted.file.to_string()).unwrap();
    let wrapped = wrap(&*key).unwrap();

    let email = granted.member.trim_start_matches("serviceAccount:");
    gcp.control("disable_service_account", &json!({ "email": email }))
        .unwrap();
    assert_fails(
        unwrap(&*key, &wrapped),
        ErrorCode::Unauthenticated,
        &["UNAUTHENTICATED", "disabled or deleted"],
    );
}
