//! The plugins of KMSs pass `keystead-conform`, each beside its peer. What is not built is left out loudly: `cargo xtask test`
//! builds everything. Those that need no peer are checked in `backends/conform/tests/ours.rs`.

use keystead_tests::emulators::{Emulator, Kind};
use keystead_tests::left_out::leave_out;
use keystead_tests::notes;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the tool is given for a plugin.
struct Given {
    /// The backend's name.
    name: &'static str,
    /// The plugin's file, without prefix and suffix.
    library: &'static str,
    config: Value,
    settings: Value,
    other_config: Option<Value>,
    other_settings: Option<Value>,
    /// Settings in which `@SILENT@` stands for a server that says nothing.
    silent_settings: Option<Value>,
    /// Checks that it is known to fail, as its documentation says.
    except: &'static [&'static str],
}

/// Where cargo puts what it builds beside this test.
fn built(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let file = own.parent().and_then(Path::parent).unwrap().join(name);
    file.is_file().then_some(file)
}

/// True when both are built; else it was said what is left out.
fn is_built(name: &str, library: &str) -> bool {
    let there = built("keystead-conform").is_some() && built(&format!("lib{library}.so")).is_some();
    if !there {
        leave_out(
            &format!("keystead-conform on {name}"),
            "the tool or the plugin is not built; `cargo xtask test` builds them",
        );
    }
    there
}

fn passes(given: &Given) {
    let (tool, plugin) = (
        built("keystead-conform").unwrap(),
        built(&format!("lib{}.so", given.library)).unwrap(),
    );
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, value: &Value| {
        let file = directory.path().join(name);
        std::fs::write(&file, value.to_string()).unwrap();
        file
    };
    let mut command = Command::new(tool);
    command
        .arg(plugin)
        .arg("--json")
        .arg("--config")
        .arg(file("config", &given.config));
    command.arg("--settings").arg(file("settings", &given.settings));
    for (option, value) in [
        ("other-config", &given.other_config),
        ("other-settings", &given.other_settings),
        ("silent-settings", &given.silent_settings),
    ] {
        if let Some(value) = value {
            command.arg(format!("--{option}")).arg(file(option, value));
        }
    }
    command.args(given.except.iter().flat_map(|check| ["--except", check]));
    let output = command.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let checks = report["checks"].as_array().unwrap();
    let with = |outcome: &str| -> Vec<&str> {
        let checks = checks.iter().filter(|check| check["outcome"] == outcome);
        checks.map(|check| check["name"].as_str().unwrap()).collect()
    };
    let found = ["passed", "failed"].map(|outcome| format!("{} {outcome}", with(outcome).len()));
    let mut found = found.join(", ");
    for (outcome, words) in [("not-checked", "not checked"), ("excepted", "excepted")] {
        if !with(outcome).is_empty() {
            found += &format!(", {words}: {}", with(outcome).join(" "));
        }
    }
    notes::conforms(given.name, &found);
    assert_eq!(with("failed"), [""; 0], "{report:#}");
    assert!(checks.len() > 25, "all checks were made");
}

#[test]
fn managed_passes() {
    let (name, library) = ("managed", "keystead_managed");
    if !is_built(name, library) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let keyring = |name: &str| json!({ "keyring": directory.path().join(name) });
    notes::tested_with(name, "no peer: its KMS is a local file");
    passes(&Given {
        name,
        library,
        config: json!({}),
        settings: keyring("one.keyring"),
        other_config: None,
        other_settings: Some(keyring("other.keyring")),
        silent_settings: None,
        except: &[],
    });
}

#[test]
fn aws_kms_passes() {
    let (name, library) = ("aws-kms", "keystead_aws_kms");
    if !is_built(name, library) {
        return;
    }
    // moto: real encryption underneath, so that damage and a wrong key show.
    let Some(aws) = Emulator::shared_or_skip(Kind::Moto, "keystead-conform on aws-kms") else {
        return;
    };
    let owner = aws.account();
    let mut silent = aws.settings();
    for endpoint in ["endpoint_url", "sts_endpoint_url"] {
        silent[endpoint] = json!("http://@SILENT@");
    }
    passes(&Given {
        name,
        library,
        config: json!({ "key_arn": owner.create_key().unwrap() }),
        settings: aws.settings(),
        other_config: Some(json!({ "key_arn": owner.create_key().unwrap() })),
        other_settings: None,
        silent_settings: Some(silent),
        // The SDK frees bodies and plaintexts without overwriting them: "Memory" on the backend's front page.
        except: &["memory"],
    });
}
