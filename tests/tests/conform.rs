//! Every plugin passes `keystead-conform`, each beside its peer, and so does the example in C. What is not built is left out loudly:
//! `cargo xtask test` builds everything. The fault shim is checked in `backends/conform/tests/ours.rs`.

use keystead_tests::built::{built, installed};
use keystead_tests::emulators::{Emulator, Kind, Kms, Owner};
use keystead_tests::left_out::leave_out;
use keystead_tests::{example_c, notes};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

/// What is not checked of a backend that answers at once, whatever it is asked.
const WAITING: &[&str] = &["cancel-during", "interrupt"];
/// What is not checked of a backend that offers no re-wrap of its own.
const NO_REWRAP: &[&str] = &["rewrap"];
/// What is not checked of one that leaves the context to the host's frame besides.
const FRAMED: &[&str] = &["context", "rewrap"];
/// What is not checked of one whose calls into a library cannot be called off.
const LIBRARY: &[&str] = &["rewrap", "cancel-during", "interrupt"];

/// What the tool is given for a plugin.
struct Given {
    /// What it is called in the list at the end of `cargo xtask test`.
    name: &'static str,
    plugin: PathBuf,
    config: Value,
    settings: Value,
    other_config: Option<Value>,
    other_settings: Option<Value>,
    /// Settings in which `@SILENT@` stands for a server that says nothing.
    silent_settings: Option<Value>,
    /// Checks that have nothing to check, or cannot, as its documentation says.
    not_checked: &'static [&'static str],
}

/// What cargo has built, or it was said that `name` is left out.
fn built_or_leave_out(file: &str, name: &str) -> Option<PathBuf> {
    let there = built(file);
    if there.is_none() {
        leave_out(
            &format!("keystead-conform on {name}"),
            &format!("{file} is not built; `cargo xtask test` builds it"),
        );
    }
    there
}

fn passes(given: &Given) {
    let Some(tool) = built_or_leave_out("keystead-conform", given.name) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, value: &Value| {
        let file = directory.path().join(name);
        std::fs::write(&file, value.to_string()).unwrap();
        file
    };
    let (_directory, plugin) = installed(&given.plugin);
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
    if !with("not-checked").is_empty() {
        found += &format!(", not checked: {}", with("not-checked").join(" "));
    }
    let milliseconds = checks.iter().map(|check| check["milliseconds"].as_u64().unwrap());
    found += &format!(", in {} s", milliseconds.sum::<u64>().div_ceil(1000));
    notes::conforms(given.name, &found);
    assert_eq!(with("failed"), [""; 0], "{report:#}");
    assert_eq!(with("not-checked"), given.not_checked, "{report:#}");
    assert!(checks.len() > 25, "all checks were made");
}

/// The plugin of this KMS passes, beside a peer of its own.
fn passes_beside_its_peer(name: &'static str, kms: Kms, not_checked: &'static [&'static str]) {
    let Some(plugin) = built_or_leave_out(&kms.plugin_library(), name) else {
        return;
    };
    let Some(owner) = Owner::start_or_skip(kms, &format!("keystead-conform on {name}")) else {
        return;
    };
    passes(&Given {
        name,
        plugin,
        config: owner.new_key().unwrap().config,
        settings: owner.settings(),
        other_config: Some(owner.new_key().unwrap().config),
        other_settings: None,
        silent_settings: owner.silent_settings(),
        not_checked,
    });
}

#[test]
fn managed_passes() {
    let (name, kms) = ("managed", Kms::Managed);
    let Some(plugin) = built_or_leave_out(&kms.plugin_library(), name) else {
        return;
    };
    // A keyring is one key.
    let owners = [(), ()].map(|()| Owner::start_or_skip(kms, name).expect("it needs no peer"));
    notes::tested_with(name, "no peer: its KMS is a local file");
    passes(&Given {
        name,
        plugin,
        config: owners[0].new_key().unwrap().config,
        settings: owners[0].settings(),
        other_config: None,
        other_settings: Some(owners[1].settings()),
        silent_settings: None,
        not_checked: WAITING,
    });
}

#[test]
fn aws_kms_passes() {
    let name = "aws-kms";
    let Some(plugin) = built_or_leave_out(&Kms::Aws.plugin_library(), name) else {
        return;
    };
    // moto and not the owner's ministack: real encryption underneath, so that damage and a wrong key show.
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
        plugin,
        config: json!({ "key_arn": owner.create_key().unwrap() }),
        settings: aws.settings(),
        other_config: Some(json!({ "key_arn": owner.create_key().unwrap() })),
        other_settings: None,
        silent_settings: Some(silent),
        not_checked: NO_REWRAP,
    });
}

#[test]
fn azure_key_vault_passes_by_rsa() {
    let name = "azure-key-vault, RSA-OAEP-256 in a vault";
    passes_beside_its_peer(name, Kms::AzureVault, FRAMED);
}

#[test]
fn azure_key_vault_passes_by_aes_in_a_managed_hsm() {
    let name = "azure-key-vault, A256KW in a managed HSM";
    passes_beside_its_peer(name, Kms::AzureHsm, FRAMED);
}

#[test]
fn gcp_kms_passes() {
    passes_beside_its_peer("gcp-kms", Kms::Gcp, NO_REWRAP);
}

#[test]
fn transit_passes() {
    passes_beside_its_peer("transit", Kms::Transit, NO_REWRAP);
}

#[test]
fn pkcs11_passes_by_aes_gcm() {
    passes_beside_its_peer("pkcs11, AES-GCM", Kms::Pkcs11, LIBRARY);
}

#[test]
fn pkcs11_passes_by_aes_key_wrap() {
    passes_beside_its_peer("pkcs11, AES key wrap", Kms::Pkcs11KeyWrap, LIBRARY);
}

#[test]
fn the_example_in_c_passes() {
    let name = "example-c";
    if example_c::is_left_out("keystead-conform on example-c") {
        return;
    }
    let place = example_c::Place::new();
    place.write(
        &format!("acme 1 enabled {}\nother 1 enabled ", example_c::key_of('1')),
        '2',
    );
    notes::tested_with(name, "no peer: its KMS is a local file");
    passes(&Given {
        name,
        plugin: example_c::plugin_file().to_owned(),
        config: json!({ "key": "acme" }),
        settings: place.settings(),
        other_config: Some(json!({ "key": "other" })),
        other_settings: None,
        silent_settings: None,
        not_checked: LIBRARY,
    });
}
