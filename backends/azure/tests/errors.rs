//! What vaults and Entra ID may refuse, each over the wire, and what it becomes.

mod common;

use std::time::Duration;

use base64::Engine;
use common::{KEY, Owned, assert_fails, call, unwrap, wrap};
use keystead_backend::{ErrorClass, ErrorCode};
use keystead_tests::emulators::Azure;
use serde_json::{Value, json};

#[test]
fn every_code_of_a_vault_becomes_what_the_table_says() {
    let Some(azure) = Azure::own_or_skip("errors of Azure's vaults") else {
        return;
    };
    let owned = Owned::new(&azure, "errors.vault.azure.net");
    let mut settings = owned.settings.clone();
    settings["max_attempts"] = json!(1);
    let key = common::open(&settings, &json!({ "key_id": owned.key }));
    let good = wrap(&*key).unwrap();
    for (status, code, inner, meaning) in [
        (403, "Forbidden", Some("KeyDisabled"), ErrorCode::KeyDisabled),
        (403, "Forbidden", Some("KeyExpired"), ErrorCode::KeyDisabled),
        (403, "Forbidden", Some("KeyNotYetValid"), ErrorCode::KeyDisabled),
        (404, "KeyNotFound", None, ErrorCode::KeyNotFound),
        (404, "VaultNotFound", None, ErrorCode::KeyNotFound),
        (
            409,
            "Conflict",
            Some("ObjectIsDeletedButRecoverable"),
            ErrorCode::KeyPendingDeletion,
        ),
        (
            409,
            "Conflict",
            Some("ObjectIsBeingDeleted"),
            ErrorCode::KeyPendingDeletion,
        ),
        (
            409,
            "Conflict",
            Some("ObjectIsBeingRecovered"),
            ErrorCode::Unavailable,
        ),
        (401, "Unauthorized", None, ErrorCode::Unauthenticated),
        (403, "Forbidden", None, ErrorCode::AccessDenied),
        (403, "Forbidden", Some("AccessDenied"), ErrorCode::AccessDenied),
        (
            403,
            "Forbidden",
            Some("ForbiddenByPolicy"),
            ErrorCode::AccessDenied,
        ),
        (403, "Forbidden", Some("ForbiddenByRbac"), ErrorCode::AccessDenied),
        (
            403,
            "Forbidden",
            Some("ForbiddenByFirewall"),
            ErrorCode::AccessDenied,
        ),
        (
            403,
            "Forbidden",
            Some("ForbiddenByConnection"),
            ErrorCode::AccessDenied,
        ),
        (
            403,
            "Forbidden",
            Some("KeyOperationForbidden"),
            ErrorCode::AccessDenied,
        ),
        (403, "SomethingNew", Some("Newer"), ErrorCode::AccessDenied),
        (429, "Throttled", None, ErrorCode::Throttled),
        (429, "TooManyRequests", None, ErrorCode::Throttled),
        (500, "InternalServerError", None, ErrorCode::Unavailable),
        (503, "ServiceUnavailable", None, ErrorCode::Unavailable),
        (503, "ServerBusy", None, ErrorCode::Unavailable),
        (408, "RequestTimeout", None, ErrorCode::Timeout),
        (418, "SomethingNew", None, ErrorCode::Internal),
    ] {
        let body = match inner {
            Some(inner) => {
                json!({ "error": { "code": code, "message": "no\r\n\"really\"", "innererror": { "code": inner } } })
            }
            None => json!({ "error": { "code": code, "message": "no\r\n\"really\"" } }),
        };
        for operation in ["wrapkey", "unwrapkey"] {
            // Two, since one that is not authenticated is asked once more.
            azure
                .inject(&json!({ "operation": operation, "status": status, "body": body, "times": 2 }))
                .unwrap();
            let error = if operation == "wrapkey" {
                wrap(&*key).map(drop)
            } else {
                unwrap(&*key, &good).map(drop)
            };
            let error = assert_fails(error, meaning, &["the vault says", &owned.key]);
            assert!(
                error.message.contains(code) || inner.is_some_and(|inner| error.message.contains(inner)),
                "{error}"
            );
            assert!(!error.message.contains(['\r', '\n']), "{error}");
            azure.control("clear_faults", &json!({})).unwrap();
        }
    }
    assert_eq!(unwrap(&*key, &good).unwrap(), KEY, "and nothing of it stays");
}

#[test]
fn every_number_of_entra_id_becomes_what_the_table_says() {
    let Some(azure) = Azure::own_or_skip("errors of Entra ID") else {
        return;
    };
    let owned = Owned::new(&azure, "entra.vault.azure.net");
    let mut settings = owned.settings.clone();
    settings["max_attempts"] = json!(1);
    let key = common::open(&settings, &json!({ "key_id": owned.key }));
    use ErrorCode::{AccessDenied, InvalidConfig, Throttled, Timeout, Unauthenticated, Unavailable};
    for (status, number, meaning) in [
        (401, 7000215, Unauthenticated),
        (401, 7000222, Unauthenticated),
        (400, 700016, Unauthenticated),
        (400, 7000112, Unauthenticated),
        (400, 7000229, Unauthenticated),
        (400, 90002, Unauthenticated),
        (401, 50027, Unauthenticated),
        (401, 700024, Unauthenticated),
        (401, 700027, Unauthenticated),
        (400, 70021, Unauthenticated),
        (400, 70025, Unauthenticated),
        (401, 700211, Unauthenticated),
        (401, 700212, Unauthenticated),
        (401, 700213, Unauthenticated),
        (400, 53003, AccessDenied),
        (400, 65001, AccessDenied),
        (400, 900023, InvalidConfig),
        (400, 500011, InvalidConfig),
        (400, 90055, Throttled),
        (400, 50196, Throttled),
        (400, 90006, Unavailable),
        (400, 90024, Unavailable),
        (503, 90033, Unavailable),
        (400, 50033, Unavailable),
        (400, 90012, Timeout),
        (400, 1, Unauthenticated),
        (429, 1, Throttled),
        (500, 1, Unavailable),
    ] {
        let text = format!("AADSTS{number}: It is \"so\".\r\nTrace ID: 1\r\n");
        let body = json!({ "error": "x", "error_description": text, "error_codes": [number] });
        azure
            .inject(&json!({ "operation": "token", "status": status, "body": body }))
            .unwrap();
        let error = assert_fails(
            wrap(&*key),
            meaning,
            &["signing in by", "Entra ID says", &format!("AADSTS{number}")],
        );
        assert!(
            !error.message.contains("Trace ID") && !error.message.contains('\n'),
            "{error}"
        );
    }
    wrap(&*key).unwrap();
}

#[test]
fn what_illness_cut_off_is_tried_again_and_what_was_throttled_is_not() {
    let Some(azure) = Azure::own_or_skip("retries against Azure") else {
        return;
    };
    let owned = Owned::new(&azure, "retries.vault.azure.net");
    let key = owned.open();
    let good = wrap(&*key).unwrap();
    for mut fault in illnesses() {
        fault["operation"] = json!("unwrapkey");
        fault["times"] = json!(2);
        azure.inject(&fault).unwrap();
        assert_eq!(unwrap(&*key, &good).unwrap(), KEY, "{fault}");
    }
    azure.requests().unwrap();
    let throttled = json!({
        "operation": "unwrapkey", "status": 429, "headers": { "retry-after": "7" },
        "body": { "error": { "code": "Throttled", "message": "Request was not processed because too many requests were received." } },
    });
    azure.inject(&throttled).unwrap();
    let error = assert_fails(unwrap(&*key, &good), ErrorCode::Throttled, &["too many requests"]);
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    assert_eq!(error.code.class(), ErrorClass::Retryable);
    assert_eq!(azure.requests().unwrap().len(), 1);
}

fn illnesses() -> [Value; 4] {
    [
        json!({ "status": 503, "body": "<html>gateway</html>", "headers": { "retry-after": "600" } }),
        json!({ "status": 500, "body": { "error": { "code": "InternalServerError", "message": "x" } } }),
        json!({ "status": 408 }),
        json!({ "drop": true }),
    ]
}

/// The SDK sends a client's first request without its body, and repeated it without one if it was cut off: the vault's "bad parameter"
/// then made a customer's key a wrong config.
#[test]
fn the_first_request_of_a_client_is_whole_again_after_illness_cut_it_off() {
    let Some(azure) = Azure::own_or_skip("a first request that Azure cuts off") else {
        return;
    };
    let owned = Owned::new(&azure, "first.vault.azure.net");
    let good = wrap(&*owned.open()).unwrap();
    for mut fault in illnesses() {
        fault["times"] = json!(2);
        for operation in ["wrapkey", "unwrapkey"] {
            fault["operation"] = json!(operation);
            azure.inject(&fault).unwrap();
            let first = owned.open();
            match operation {
                "wrapkey" => drop(wrap(&*first).unwrap()),
                _ => assert_eq!(unwrap(&*first, &good).unwrap(), KEY, "{fault}"),
            }
        }
    }
}

#[test]
fn attempts_are_counted_with_the_first() {
    let Some(azure) = Azure::own_or_skip("the number of attempts against Azure") else {
        return;
    };
    let owned = Owned::new(&azure, "attempts.vault.azure.net");
    let key = owned.open();
    let good = wrap(&*key).unwrap();
    azure.requests().unwrap();
    azure
        .inject(&json!({ "operation": "unwrapkey", "times": 9, "status": 500 }))
        .unwrap();
    assert_fails(unwrap(&*key, &good), ErrorCode::Unavailable, &["the vault"]);
    assert_eq!(azure.requests().unwrap().len(), 3);
}

#[test]
fn an_answer_that_makes_no_sense_is_an_outage_and_one_of_another_key_a_wrong_key() {
    let Some(azure) = Azure::own_or_skip("senseless answers of Azure") else {
        return;
    };
    let owned = Owned::new(&azure, "senseless.vault.azure.net");
    let key = owned.open();
    let good = wrap(&*key).unwrap();
    for body in ["", "[]", "<html>", "{}", r#"{"kid": 7}"#, r#"{"value": "%"}"#] {
        for operation in ["wrapkey", "unwrapkey"] {
            azure
                .inject(&json!({ "operation": operation, "status": 200, "body": body }))
                .unwrap();
        }
        assert_fails(wrap(&*key), ErrorCode::Unavailable, &["the vault"]);
        let error = unwrap(&*key, &good).unwrap_err();
        assert!(
            matches!(error.code, ErrorCode::Unavailable | ErrorCode::WrongKey),
            "{body}: {error}"
        );
    }
    for operation in ["wrapkey", "unwrapkey"] {
        let other = "https://senseless.vault.azure.net/keys/other/00112233445566778899aabbccddeeff";
        azure
            .inject(&json!({ "operation": operation, "kid": other }))
            .unwrap();
    }
    assert_fails(wrap(&*key), ErrorCode::WrongKey, &["/keys/other/"]);
    assert_fails(unwrap(&*key, &good), ErrorCode::WrongKey, &["/keys/other/"]);
    azure
        .inject(&json!({ "operation": "token", "status": 200, "body": "<html>" }))
        .unwrap();
    assert_fails(
        wrap(&*owned.open()),
        ErrorCode::Unavailable,
        &["signing in", "cannot be read"],
    );
}

#[test]
fn the_owner_disables_deletes_and_denies_and_gives_back() {
    let Some(azure) = Azure::shared_or_skip("states and grants of Azure keys") else {
        return;
    };
    let owned = Owned::new(azure, "states.vault.azure.net");
    let key = owned.open();
    let good = wrap(&*key).unwrap();
    let revoked = |code: ErrorCode, words: &[&str]| {
        let error = assert_fails(unwrap(&*key, &good), code, words);
        assert_eq!(error.code.class(), ErrorClass::Revoked);
    };
    azure.set_enabled(&owned.key, None, false).unwrap();
    revoked(ErrorCode::KeyDisabled, &["disabled key", "--enabled true"]);
    // RSA wraps by the public key, and Azure lets it.
    let made_while_disabled = wrap(&*key).unwrap();
    assert_fails(unwrap(&*key, &made_while_disabled), ErrorCode::KeyDisabled, &[]);
    azure.set_enabled(&owned.key, None, true).unwrap();
    azure.delete_key(&owned.key).unwrap();
    revoked(ErrorCode::KeyNotFound, &["recover"]);
    azure.recover_key(&owned.key).unwrap();
    azure.grant(&owned.key, &owned.application, &["wrap"]).unwrap();
    revoked(ErrorCode::AccessDenied, &["keys/unwrap/action"]);
    azure
        .grant(&owned.key, &owned.application, &["wrap", "unwrap"])
        .unwrap();
    assert_eq!(unwrap(&*key, &good).unwrap(), KEY);

    let owned = Owned::new(azure, "states.managedhsm.azure.net");
    let key = owned.open();
    azure.set_enabled(&owned.key, None, false).unwrap();
    assert_fails(wrap(&*key), ErrorCode::KeyDisabled, &[]);
}

#[test]
fn what_was_sent_in_confidence_is_left_out_of_what_a_vault_or_entra_id_says_of_it() {
    let Some(azure) = Azure::own_or_skip("answers of Azure that repeat what was sent") else {
        return;
    };
    let owned = Owned::new(&azure, "echo.vault.azure.net");
    let echo = |secret: &str, number: u32| {
        let text = format!("AADSTS{number}: \"{secret}\" is not what was expected.");
        let body = json!({ "error": "invalid_client", "error_description": text, "error_codes": [number] });
        azure
            .inject(&json!({ "operation": "token", "status": 401, "body": body }))
            .unwrap();
    };
    let no_part_of = |secret: &str, error: &keystead_backend::BackendError| {
        assert!(
            ["wrapping with", "signing in"]
                .iter()
                .any(|doing| error.message.starts_with(doing))
                && error.message.contains("left out")
                && !error.message.contains(&secret[..12]),
            "{error}"
        );
    };

    let secret = owned.application.secret.as_str();
    echo(secret, 7_000_215);
    let error = assert_fails(wrap(&*owned.open()), ErrorCode::Unauthenticated, &[]);
    no_part_of(secret, &error);

    let token = azure
        .mint(
            "https://tokens.saas.example",
            "saas:cmk:vault:acme",
            "api://AzureADTokenExchange",
            600,
        )
        .unwrap();
    let config = json!({
        "key_id": owned.key, "tenant_id": owned.application.tenant, "client_id": owned.application.client_id,
        "workload_identity": { "audience": "api://AzureADTokenExchange" },
    });
    let key = common::open_with(
        common::TestHost::minting(token.as_str()),
        &azure.settings(),
        &config,
    );
    echo(&token, 700_027);
    let error = assert_fails(wrap(&*key), ErrorCode::Unauthenticated, &[]);
    no_part_of(&token, &error);

    let value = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(KEY);
    let body = json!({ "error": { "code": "BadParameter", "message": format!("value {value} is invalid") } });
    azure
        .inject(&json!({ "operation": "wrapkey", "status": 400, "body": body }))
        .unwrap();
    let error = assert_fails(wrap(&*owned.open()), ErrorCode::InvalidConfig, &[]);
    no_part_of(&value, &error);
}

#[test]
fn an_access_token_that_a_vault_repeats_is_left_out() {
    let Some(azure) = Azure::own_or_skip("answers of Azure that repeat access tokens") else {
        return;
    };
    let owned = Owned::new(&azure, "tokens.vault.azure.net");
    let key = owned.open();
    // The SDK signs in at the first call, and has shown the token to nobody before.
    let good = wrap(&*key).unwrap();
    let says = |operation: &str, message: &str| {
        let body = json!({ "error": { "code": "Forbidden", "message": message } });
        azure
            .inject(&json!({ "operation": operation, "status": 403, "body": body }))
            .unwrap();
    };
    // A whole token is known by its form, a part of it because it was sent. The call signs in anew after a refusal: no part is of the
    // first token.
    for (message, words) in [
        ("Bearer @TOKEN@ is not accepted.", "(a token, left out)"),
        ("@SIGNATURE@ is no signature.", "repeat the access token"),
    ] {
        says("wrapkey", message);
        assert_fails(wrap(&*key), ErrorCode::AccessDenied, &["wrapping with", words]);
        assert_eq!(unwrap(&*key, &good).unwrap(), KEY);
        says("unwrapkey", message);
        assert_fails(
            unwrap(&*key, &good),
            ErrorCode::AccessDenied,
            &["unwrapping with", words],
        );
        assert_eq!(unwrap(&*key, &good).unwrap(), KEY);
        says("get", message);
        assert_fails(
            key.status(&call()),
            ErrorCode::AccessDenied,
            &["looking at", words],
        );
        assert_eq!(unwrap(&*key, &good).unwrap(), KEY);
    }
    // Words that an answer is refused for, though it is no refusal.
    azure
        .inject(&json!({ "operation": "wrapkey", "kid": "@SIGNATURE@" }))
        .unwrap();
    assert_fails(wrap(&*key), ErrorCode::Unavailable, &["repeat the access token"]);
}
