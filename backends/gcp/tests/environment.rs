//! The application default credentials: what the environment says when neither config nor settings name credentials.
//!
//! The client library reads the environment of the process, so each case runs [`one_wrap`] in a process of its own.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Granted, KEY, open, unwrap, wrap};
use keystead_tests::direct::has_web_token;
use keystead_tests::emulators::Gcp;
use keystead_tests::scripted::{Answer, Server};
use serde_json::json;

#[test]
#[ignore = "a part of the other tests, which run it in a process with an environment of its own"]
#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn one_wrap() {
    let variable = |name: &str| std::env::var(name).expect("the parent sets it");
    let settings = serde_json::from_str(&variable("TEST_SETTINGS")).expect("the parent writes JSON");
    let key = open(&settings, &json!({ "key_name": variable("TEST_KEY") }));
    match wrap(&*key) {
        Ok(wrapped) => {
            assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
            println!("WRAPPED");
        }
        Err(error) => println!("REFUSED {error}"),
    }
}

/// Runs [`one_wrap`] with this environment and returns what it printed.
fn in_own_process(gcp: &Gcp, key: &str, home: &Path, environment: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("GOOGLE_") || name.starts_with("GCE_") {
            child.env_remove(name);
        }
    }
    let mut settings = gcp.settings();
    settings["max_attempts"] = json!(1);
    // A busy machine is no outage.
    settings["attempt_timeout_ms"] = json!(20_000);
    let output = child
        .args(["--exact", "one_wrap", "--ignored", "--nocapture"])
        .env("HOME", home)
        // Nobody's metadata server.
        .env("GCE_METADATA_HOST", "127.0.0.1:9")
        .env("TEST_SETTINGS", settings.to_string())
        .env("TEST_KEY", key)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        !said.contains("PRIVATE KEY") && !has_web_token(&said) && !said.contains("ya29."),
        "{said}"
    );
    said
}

#[test]
fn a_service_account_comes_from_the_file_that_the_environment_names_or_from_the_usual_place() {
    let Some(gcp) = Gcp::shared_or_skip("application default credentials of a service account") else {
        return;
    };
    let granted = Granted::new(gcp);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("key.json");
    std::fs::write(&path, granted.file.to_string()).unwrap();
    let named = [("GOOGLE_APPLICATION_CREDENTIALS", path.to_str().unwrap())];
    let said = in_own_process(gcp, &granted.key, home.path(), &named);
    assert!(said.contains("WRAPPED"), "{said}");

    let usual = home.path().join(".config/gcloud");
    std::fs::create_dir_all(&usual).unwrap();
    std::fs::rename(&path, usual.join("application_default_credentials.json")).unwrap();
    let said = in_own_process(gcp, &granted.key, home.path(), &[]);
    assert!(said.contains("WRAPPED"), "{said}");
}

#[test]
fn an_external_account_file_is_exchanged_as_google_describes_it() {
    let Some(gcp) = Gcp::shared_or_skip("application default credentials of an external account") else {
        return;
    };
    let provider = gcp
        .provider("https://platform.example", "https://platform.example/google")
        .unwrap();
    let key = gcp.create_key().unwrap();
    gcp.grant(
        &key,
        "cryptoKeyEncrypterDecrypter",
        &[&provider.principal("workload-7")],
    )
    .unwrap();
    let home = tempfile::tempdir().unwrap();
    let token = home.path().join("token");
    std::fs::write(&token, gcp.mint(&provider, "workload-7", &json!({})).unwrap()).unwrap();
    let account = json!({
        "type": "external_account",
        "audience": format!("//iam.googleapis.com/{}", provider.name),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{}/v1/token", gcp.endpoint()),
        "credential_source": { "file": token },
    });
    let path = home.path().join("external.json");
    std::fs::write(&path, account.to_string()).unwrap();
    let named = [("GOOGLE_APPLICATION_CREDENTIALS", path.to_str().unwrap())];
    let said = in_own_process(gcp, &key, home.path(), &named);
    assert!(said.contains("WRAPPED"), "{said}");

    // The same file leads Google's own client to the same key.
    let client = gcp.client(json!({ "external_account": account }));
    let (version, _) = client.encrypt(&key, &KEY, b"context").unwrap();
    assert_eq!(version, format!("{key}/cryptoKeyVersions/1"));
}

#[test]
fn without_any_credentials_the_error_says_where_they_are_looked_for() {
    let Some(gcp) = Gcp::shared_or_skip("no application default credentials") else {
        return;
    };
    let granted = Granted::new(gcp);
    let home = tempfile::tempdir().unwrap();
    let said = in_own_process(gcp, &granted.key, home.path(), &[]);
    assert!(said.contains("REFUSED"), "{said}");
    for words in [
        "getting Google credentials",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "service_account_file",
    ] {
        assert!(said.contains(words), "{words} is not in: {said}");
    }
    let missing = [("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/key.json")];
    let said = in_own_process(gcp, &granted.key, home.path(), &missing);
    assert!(
        said.contains("REFUSED") && said.contains("/nonexistent/key.json"),
        "{said}"
    );
}

#[test]
fn what_a_users_credentials_send_is_left_out_of_what_the_token_service_says_of_it() {
    let Some(gcp) = Gcp::shared_or_skip("application default credentials of a user") else {
        return;
    };
    let server = Server::start(|before, request| {
        let field = ["refresh_token", "client_secret"][before.min(1)];
        let sent = request.json()[field].as_str().unwrap_or_default().to_owned();
        let said = format!("{sent} is not what was expected");
        Answer::json(
            400,
            &json!({ "error": "invalid_grant", "error_description": said }),
        )
    });
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("user.json");
    let user = json!({ "type": "authorized_user", "client_id": "keystead", "client_secret": "a-client-secret-of-old",
        "refresh_token": "1//0-a-refresh-token-of-old", "token_uri": format!("{}/token", server.address()) });
    std::fs::write(&path, user.to_string()).unwrap();
    let granted = Granted::new(gcp);
    let named = [("GOOGLE_APPLICATION_CREDENTIALS", path.to_str().unwrap())];
    for what in ["the refresh token", "the client secret"] {
        let said = in_own_process(gcp, &granted.key, home.path(), &named);
        assert!(
            said.contains("REFUSED") && said.contains(&format!("repeat {what}")) && !said.contains("of-old"),
            "{said}"
        );
    }
}
