//! Each way to prove to Entra ID who asks, and what is refused. No secret stands in any error.

mod common;

use std::process::Command;
use std::sync::Arc;

use common::{KEY, Owned, TestHost, assert_fails, open, open_with, unwrap, wrap};
use keystead_backend::ErrorCode;
use keystead_tests::emulators::{Azure, TENANT};
use serde_json::{Value, json};

const ISSUER: &str = "https://tokens.saas.example";
const AUDIENCE: &str = "api://AzureADTokenExchange";

/// A config by which a key is used as an identity of its owner's.
fn federated(owned: &Owned, token: Value) -> Value {
    json!({
        "key_id": owned.key, "tenant_id": TENANT, "client_id": owned.application.client_id, "workload_identity": token,
    })
}

#[test]
fn an_application_that_mints_tokens_is_the_identity_that_trusts_them() {
    let Some(azure) = Azure::shared_or_skip("workload identity federation with minted tokens") else {
        return;
    };
    let owned = Owned::new(azure, "minted.vault.azure.net");
    azure
        .federate(&owned.application, ISSUER, "saas:cmk:vault:acme", AUDIENCE)
        .unwrap();
    let config = federated(&owned, json!({ "audience": AUDIENCE }));
    let token = azure.mint(ISSUER, "saas:cmk:vault:acme", AUDIENCE, 600).unwrap();
    let host = TestHost::minting(token);
    let key = open_with(Arc::clone(&host), &azure.settings(), &config);
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    assert_eq!(host.audiences(), [AUDIENCE], "one token for many calls");
}

#[test]
fn a_token_with_one_wrong_claim_is_refused_and_the_message_says_which_and_repeats_no_token() {
    let Some(azure) = Azure::shared_or_skip("wrong tokens of workload identity federation") else {
        return;
    };
    let owned = Owned::new(azure, "claims.vault.azure.net");
    azure
        .federate(&owned.application, ISSUER, "saas:cmk:vault:acme", AUDIENCE)
        .unwrap();
    let config = federated(&owned, json!({ "audience": AUDIENCE }));
    let mint = |issuer, subject, audience, lifetime| azure.mint(issuer, subject, audience, lifetime).unwrap();
    let forged = azure
        .control(
            "mint",
            &json!({ "issuer": ISSUER, "subject": "saas:cmk:vault:acme", "audience": AUDIENCE, "forged": true }),
        )
        .unwrap();
    for (token, code, number) in [
        (
            mint("https://evil.example", "saas:cmk:vault:acme", AUDIENCE, 600),
            ErrorCode::Unauthenticated,
            "AADSTS700211",
        ),
        (
            mint(ISSUER, "saas:cmk:vault:acme", "aws:acme", 600),
            ErrorCode::Unauthenticated,
            "AADSTS700212",
        ),
        (
            mint(ISSUER, "saas:cmk:vault:other", AUDIENCE, 600),
            ErrorCode::Unauthenticated,
            "AADSTS700213",
        ),
        (
            mint(ISSUER, "saas:cmk:vault:acme", AUDIENCE, -60),
            ErrorCode::Unauthenticated,
            "AADSTS700024",
        ),
        (
            forged["token"].as_str().unwrap().to_owned(),
            ErrorCode::Unauthenticated,
            "AADSTS700027",
        ),
        ("not.a.token".into(), ErrorCode::Unauthenticated, "AADSTS50027"),
        (
            "two words".into(),
            ErrorCode::Unauthenticated,
            "characters that no token has",
        ),
        (String::new(), ErrorCode::Unauthenticated, "is empty"),
    ] {
        let key = open_with(TestHost::minting(token.clone()), &azure.settings(), &config);
        let error = assert_fails(
            wrap(&*key),
            code,
            &["signing in by workload identity federation", number],
        );
        let parts = token.split('.').filter(|part| part.len() >= 8);
        for part in parts {
            assert!(!error.message.contains(part), "{error}");
        }
    }
    let key = open(&azure.settings(), &config);
    assert_fails(wrap(&*key), ErrorCode::InvalidConfig, &["it mints none"]);
}

#[test]
fn a_token_file_is_read_anew_for_each_session() {
    let Some(azure) = Azure::shared_or_skip("workload identity federation with a token file") else {
        return;
    };
    let owned = Owned::new(azure, "file.vault.azure.net");
    azure
        .federate(&owned.application, ISSUER, "pod", AUDIENCE)
        .unwrap();
    let path = owned.directory().join("token");
    let mut settings = azure.settings();
    settings["token_file"] = json!(path);
    let key = open(&settings, &federated(&owned, json!({ "token_file": true })));
    assert_fails(
        wrap(&*key),
        ErrorCode::Unavailable,
        &["reading the token file", path.to_str().unwrap()],
    );
    std::fs::write(&path, azure.mint(ISSUER, "pod", AUDIENCE, -60).unwrap()).unwrap();
    assert_fails(wrap(&*key), ErrorCode::Unauthenticated, &["AADSTS700024"]);
    std::fs::write(
        &path,
        format!("{}\n", azure.mint(ISSUER, "pod", AUDIENCE, 600).unwrap()),
    )
    .unwrap();
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);

    // The application's own workload identity is the same, said by the settings alone.
    settings["credential"] = json!("workload-identity");
    settings["tenant_id"] = json!(TENANT);
    settings["client_id"] = json!(owned.application.client_id);
    let key = open(&settings, &json!({ "key_id": owned.key }));
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn a_client_secret_that_is_wrong_expired_or_of_nobody_is_refused_and_not_repeated() {
    let Some(azure) = Azure::shared_or_skip("client secrets of Entra ID") else {
        return;
    };
    let owned = Owned::new(azure, "secrets.vault.azure.net");
    let config = json!({ "key_id": owned.key });
    let secret = owned.application.secret.as_str();
    let wrapped = wrap(&*owned.open()).unwrap();
    let set = |fields: Value| {
        let mut said = json!({ "tenant": TENANT, "client_id": owned.application.client_id });
        said.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        azure.control("set_application", &said).unwrap();
    };
    let refused = |words: &str| {
        let error = assert_fails(
            unwrap(&*owned.open(), &wrapped),
            ErrorCode::Unauthenticated,
            &["the application's client secret", words],
        );
        assert!(!error.message.contains(secret), "{error}");
    };
    set(json!({ "expired": true }));
    refused("AADSTS7000222");
    set(json!({ "expired": false, "enabled": false }));
    refused("AADSTS7000112");
    set(json!({ "enabled": true, "secret": "another" }));
    refused("AADSTS7000215");
    set(json!({ "secret": secret }));
    let with = |field: &str, value: &str| {
        let mut settings = owned.settings.clone();
        settings[field] = json!(value);
        wrap(&*open(&settings, &config))
    };
    let stranger = "00000000-0000-4000-8000-000000000000";
    assert_fails(
        with("client_id", stranger),
        ErrorCode::Unauthenticated,
        &["AADSTS700016"],
    );
    assert_fails(
        with("tenant_id", stranger),
        ErrorCode::Unauthenticated,
        &["AADSTS90002"],
    );
    assert_fails(
        with("client_secret_file", "/nonexistent/secret"),
        ErrorCode::Unavailable,
        &["/nonexistent/secret"],
    );
    assert_eq!(unwrap(&*owned.open(), &wrapped).unwrap(), KEY);
}

#[test]
fn keys_of_one_application_share_its_access_token() {
    let Some(azure) = Azure::own_or_skip("shared access tokens of Entra ID") else {
        return;
    };
    let owned = Owned::new(&azure, "shared.vault.azure.net");
    let backend = keystead_azure_key_vault::AzureKeyVaultBackend::default();
    let settings = owned.settings.to_string();
    let config = json!({ "key_id": owned.key }).to_string();
    for _ in 0..5 {
        let request = keystead_backend::OpenRequest {
            settings: &settings,
            config: &config,
            host: Arc::new(TestHost::default()),
        };
        // One stays open, so that the account does.
        let key = keystead_backend::KeyBackend::open(&backend, request).unwrap();
        wrap(&*key).unwrap();
        std::mem::forget(key);
    }
    let requests = azure.requests().unwrap();
    let tokens = requests.iter().filter(|r| r["operation"] == "token").count();
    assert_eq!(tokens, 1, "{requests:?}");
}

#[test]
fn an_access_token_that_is_not_accepted_any_more_is_replaced_within_the_call() {
    let Some(azure) = Azure::own_or_skip("access tokens that were taken away") else {
        return;
    };
    let owned = Owned::new(&azure, "replaced.vault.azure.net");
    let key = owned.open();
    let wrapped = wrap(&*key).unwrap();
    azure.control("revoke_tokens", &json!({})).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    // One that is never accepted is an error, not a loop.
    let refusal = json!({ "error": { "code": "Unauthorized", "message": "AKV10015" } });
    azure
        .inject(&json!({ "operation": "unwrapkey", "status": 401, "body": refusal, "times": 100 }))
        .unwrap();
    azure.requests().unwrap();
    assert_fails(unwrap(&*key, &wrapped), ErrorCode::Unauthenticated, &["AKV10015"]);
    assert!(azure.requests().unwrap().len() < 8);
    azure.control("clear_faults", &json!({})).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn a_tenant_that_is_not_the_vaults_is_not_accepted() {
    let Some(azure) = Azure::shared_or_skip("another tenant's access token") else {
        return;
    };
    let owned = Owned::new(azure, "tenant.vault.azure.net");
    let other = "11111111-2222-4333-8444-555555555555";
    let made = azure
        .control("create_application", &json!({ "tenant": other }))
        .unwrap();
    let file = owned.directory().join("other");
    std::fs::write(&file, made["secret"].as_str().unwrap()).unwrap();
    let mut settings = owned.settings.clone();
    settings["tenant_id"] = json!(other);
    settings["client_id"] = made["client_id"].clone();
    settings["client_secret_file"] = json!(file);
    let key = open(&settings, &json!({ "key_id": owned.key }));
    assert_fails(
        wrap(&*key),
        ErrorCode::Unauthenticated,
        &["AKV10032", "vault's own tenant"],
    );
}

// What the environment says is read from the environment of the process, so each case runs `one_wrap` in one of its own.

#[test]
#[ignore = "a part of the other tests, which run it in a process with an environment of its own"]
#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn one_wrap() {
    let variable = |name: &str| std::env::var(name).expect("the parent sets it");
    let json = |name: &str| serde_json::from_str::<Value>(&variable(name)).expect("the parent writes JSON");
    let key = open(&json("TEST_SETTINGS"), &json("TEST_CONFIG"));
    match wrap(&*key) {
        Ok(wrapped) => {
            assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
            println!("WRAPPED");
        }
        Err(error) => println!("REFUSED {error}"),
    }
}

/// Runs [`one_wrap`] with this environment and returns what it printed.
fn in_own_process(owned: &Owned, settings: &Value, environment: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("AZURE_") || name.starts_with("IDENTITY_") || name.starts_with("MSI_") {
            child.env_remove(name);
        }
    }
    let output = child
        .args(["--exact", "one_wrap", "--ignored", "--nocapture"])
        .env("HOME", owned.directory())
        .env("TEST_SETTINGS", settings.to_string())
        .env("TEST_CONFIG", json!({ "key_id": owned.key }).to_string())
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

#[test]
fn a_managed_identity_of_app_service_is_used() {
    let Some(azure) = Azure::own_or_skip("managed identities") else {
        return;
    };
    let owned = Owned::new(&azure, "managed.vault.azure.net");
    let mut settings = azure.settings();
    settings["credential"] = json!("managed-identity");
    let endpoint = azure.identity_endpoint();
    let environment = [
        ("IDENTITY_ENDPOINT", endpoint.as_str()),
        ("IDENTITY_HEADER", "the-machine"),
        // Tokens are never asked for through a proxy; vaults are not, where their address is said.
        ("HTTPS_PROXY", "http://127.0.0.1:9"),
        ("HTTP_PROXY", "http://127.0.0.1:9"),
    ];
    let said = in_own_process(&owned, &settings, &environment);
    assert!(
        said.contains("REFUSED unavailable") && said.contains("managed identity"),
        "{said}"
    );
    let identity = json!({ "tenant": TENANT, "client_id": owned.application.client_id });
    azure.control("machine_identity", &identity).unwrap();
    let said = in_own_process(&owned, &settings, &environment);
    assert!(said.contains("WRAPPED"), "{said}");
    settings["client_id"] = json!(owned.application.client_id);
    let said = in_own_process(&owned, &settings, &environment);
    assert!(said.contains("WRAPPED"), "{said}");
    settings["client_id"] = json!("00000000-0000-4000-8000-000000000000");
    let said = in_own_process(&owned, &settings, &environment);
    assert!(said.contains("REFUSED unavailable"), "{said}");
}

#[test]
fn a_developer_who_is_signed_in_is_used() {
    use std::os::unix::fs::PermissionsExt;
    let Some(azure) = Azure::shared_or_skip("the Azure developer tools") else {
        return;
    };
    let owned = Owned::new(azure, "developer.vault.azure.net");
    let mut settings = azure.settings();
    settings["credential"] = json!("developer-tools");
    let path = format!("{}:/usr/bin:/bin", owned.directory().display());
    let environment = [("PATH", path.as_str())];
    let said = in_own_process(&owned, &settings, &environment);
    assert!(
        said.contains("REFUSED unavailable") && said.contains("az login"),
        "{said}"
    );
    let asked = json!({ "tenant": TENANT, "client_id": owned.application.client_id, "audience": "https://vault.azure.net" });
    let token = azure.control("access_token", &asked).unwrap();
    let answer = json!({
        "accessToken": token["token"], "expiresOn": "2099-01-01 00:00:00.000000", "expires_on": 4_070_908_800_i64,
        "subscription": "s", "tenant": TENANT, "tokenType": "Bearer",
    });
    // Stands for the Azure CLI, which is some hundreds of megabytes.
    let tool = owned.directory().join("az");
    std::fs::write(&tool, format!("#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")).unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let said = in_own_process(&owned, &settings, &environment);
    assert!(said.contains("WRAPPED"), "{said}");
}

#[test]
fn the_environment_says_workload_identity_sign_in_and_certificates() {
    let Some(azure) = Azure::shared_or_skip("Azure's variables of the environment") else {
        return;
    };
    let owned = Owned::new(azure, "environment.vault.azure.net");
    azure
        .federate(&owned.application, ISSUER, "pod", AUDIENCE)
        .unwrap();
    let file = owned.directory().join("token");
    std::fs::write(&file, azure.mint(ISSUER, "pod", AUDIENCE, 600).unwrap()).unwrap();
    let full = azure.settings();
    let settings = json!({ "credential": "workload-identity", "vault_address": full["vault_address"] });
    let environment = [
        ("AZURE_TENANT_ID", TENANT),
        ("AZURE_CLIENT_ID", owned.application.client_id.as_str()),
        ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap()),
        ("AZURE_AUTHORITY_HOST", full["authority_host"].as_str().unwrap()),
        ("SSL_CERT_FILE", azure.authority_file().to_str().unwrap()),
    ];
    let said = in_own_process(&owned, &settings, &environment);
    assert!(said.contains("WRAPPED"), "{said}");
    // And a client secret may be in a variable.
    let mut settings = owned.settings.clone();
    settings.as_object_mut().unwrap().remove("client_secret_file");
    settings["client_secret_env"] = json!("THE_SECRET");
    let said = in_own_process(&owned, &settings, &[("THE_SECRET", &owned.application.secret)]);
    assert!(said.contains("WRAPPED"), "{said}");
}
