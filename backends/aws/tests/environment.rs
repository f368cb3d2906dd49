//! What the application's environment says: the standard credential chain, when neither config nor settings name
//! credentials, and the certificates to trust.
//!
//! The SDK reads the environment of the process, so each case runs [`one_wrap`] in a process of its own.

mod common;

use std::process::Command;

use common::{KEY, open, unwrap, wrap};
use keystead_tests::emulators::{
    AccessKey, Account, Emulator, Kind, allow, trust_web_identity, unsigned_token,
};
use keystead_tests::scripted::{Answer, Server};
use serde_json::json;

const ISSUER: &str = "platform.example";

#[test]
#[ignore = "a part of the other tests, which run it in a process with an environment of its own"]
#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn one_wrap() {
    let variable = |name: &str| std::env::var(name).expect("the parent sets it");
    let settings = serde_json::from_str(&variable("TEST_SETTINGS")).expect("the parent writes JSON");
    let key = open(&settings, &json!({ "key_arn": variable("TEST_KEY") }));
    match wrap(&*key) {
        Ok(wrapped) => {
            assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
            println!("WRAPPED");
        }
        Err(error) => println!("REFUSED {error}"),
    }
}

/// Runs [`one_wrap`] with this environment and returns what it printed.
fn in_own_process(aws: &Emulator, key_arn: &str, settings: &str, environment: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            child.env_remove(name);
        }
    }
    let output = child
        .args(["--exact", "one_wrap", "--ignored", "--nocapture"])
        .env("HOME", "/nonexistent")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_ENDPOINT_URL", aws.endpoint())
        .env("TEST_SETTINGS", settings)
        .env("TEST_KEY", key_arn)
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

/// A key, and a user who may use it.
fn key_and_user(owner: &Account, name: &str) -> (String, AccessKey) {
    let key = owner.create_key().unwrap();
    let user = owner.create_user(name).unwrap();
    owner
        .put_user_policy(name, &allow(&["kms:Encrypt", "kms:Decrypt"], &key))
        .unwrap();
    (key, user)
}

#[test]
fn credentials_come_from_the_environment() {
    let Some(aws) = Emulator::shared_or_skip(Kind::Ministack, "credentials from the environment") else {
        return;
    };
    let (key, user) = key_and_user(&aws.account(), "environment");
    let environment = [
        ("AWS_ACCESS_KEY_ID", user.id.as_str()),
        ("AWS_SECRET_ACCESS_KEY", &user.secret),
    ];
    let said = in_own_process(aws, &key, "{}", &environment);
    assert!(said.contains("WRAPPED"), "{said}");
}

#[test]
fn credentials_come_from_the_profile_that_the_settings_name() {
    let Some(aws) = Emulator::shared_or_skip(Kind::Ministack, "credentials from a profile") else {
        return;
    };
    let (key, user) = key_and_user(&aws.account(), "profile");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("credentials");
    let file = format!(
        "[vault]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        user.id, user.secret
    );
    std::fs::write(&path, file).unwrap();
    let environment = [("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap())];
    let said = in_own_process(aws, &key, r#"{"profile": "vault"}"#, &environment);
    assert!(said.contains("WRAPPED"), "{said}");
    let said = in_own_process(aws, &key, r#"{"profile": "nobody"}"#, &environment);
    assert!(
        said.contains("REFUSED") && said.contains("AWS") && !said.contains(&user.secret),
        "{said}"
    );
}

#[test]
fn credentials_come_from_the_platforms_own_web_identity() {
    let Some(aws) = Emulator::shared_or_skip(Kind::Ministack, "web identity of the environment") else {
        return;
    };
    let owner = aws.account();
    let key = owner.create_key().unwrap();
    let role = owner
        .create_role(
            "platform",
            &trust_web_identity(owner.number(), ISSUER, "sts", "pod"),
        )
        .unwrap();
    owner
        .put_role_policy("platform", &allow(&["kms:Encrypt", "kms:Decrypt"], &key))
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let environment = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", path.to_str().unwrap()),
        ("AWS_ROLE_ARN", role.as_str()),
    ];

    std::fs::write(&path, unsigned_token(ISSUER, "sts", "pod")).unwrap();
    let said = in_own_process(aws, &key, "{}", &environment);
    assert!(said.contains("WRAPPED"), "{said}");

    std::fs::write(&path, unsigned_token(ISSUER, "sts", "another-pod")).unwrap();
    let said = in_own_process(aws, &key, "{}", &environment);
    assert!(said.contains("REFUSED access denied"), "{said}");
}

#[test]
fn without_any_credentials_the_error_says_where_they_are_looked_for() {
    let Some(aws) = Emulator::shared_or_skip(Kind::Ministack, "an environment without credentials") else {
        return;
    };
    let key = aws.account().create_key().unwrap();
    let said = in_own_process(aws, &key, "{}", &[]);
    assert!(
        said.contains("REFUSED unavailable") && said.contains("access_key_id"),
        "{said}"
    );
}

#[test]
fn https_is_spoken_to_a_server_whose_certificate_is_trusted_and_to_no_other() {
    let Some(aws) = Emulator::shared_or_skip(Kind::Ministack, "https to KMS and STS") else {
        return;
    };
    let (endpoint, certificate) = aws.https().expect("ministack speaks https");
    let key = aws.account().create_key().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("certificate.pem");
    std::fs::write(&path, certificate).unwrap();
    let mut settings = aws.settings();
    settings["endpoint_url"] = json!(endpoint);
    settings["max_attempts"] = json!(1);
    let settings = settings.to_string();
    let trusting = [("SSL_CERT_FILE", path.to_str().unwrap())];
    let said = in_own_process(aws, &key, &settings, &trusting);
    assert!(said.contains("WRAPPED"), "{said}");
    let said = in_own_process(aws, &key, &settings, &[]);
    assert!(
        said.contains("REFUSED unavailable") && said.contains("certificate"),
        "{said}"
    );
}

#[test]
fn a_token_that_a_containers_credential_service_repeats_is_left_out() {
    let Some(aws) = Emulator::shared_or_skip(Kind::Ministack, "credentials of a container") else {
        return;
    };
    let server = Server::start(|_, request| {
        let said = format!("{} is not what was expected", request.header("authorization"));
        Answer::ok(&json!({ "Code": "Denied", "Message": said }))
    });
    let environment = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.address()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "the-token-of-the-container"),
    ];
    let key = aws.account().create_key().unwrap();
    let said = in_own_process(aws, &key, "{}", &environment);
    assert!(
        said.contains("REFUSED unavailable")
            && said.contains("repeat the container's token")
            && !said.contains("of-the-container"),
        "{said}"
    );
}
