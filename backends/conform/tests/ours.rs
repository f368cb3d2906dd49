//! The fault shim passes, and its faults show. The plugins of KMSs are checked beside their peers, in `tests/tests/conform.rs`.

mod common;

use common::{conform, directory, file, installed, tool};
use serde_json::json;

#[test]
fn the_fault_shim_passes_with_an_empty_script_and_a_script_shows() {
    let directory = directory();
    let installed = |package, library| installed(package, library, directory.path());
    let (managed, shim) = (
        installed("keystead-managed-plugin", "keystead_managed"),
        installed("keystead-fault-shim-plugin", "keystead_fault_shim"),
    );
    let settings = |keyring: &str, script: serde_json::Value| {
        json!({
            "plugin": managed,
            "digest": keystead_loader::digest_file(&managed).expect("readable").to_string(),
            "settings": { "keyring": directory.path().join(keyring) },
            "script": script,
        })
    };
    let config = file(directory.path(), "config", json!({}));
    let empty = file(directory.path(), "settings", settings("one.keyring", json!([])));
    let other = file(directory.path(), "other", settings("other.keyring", json!([])));
    let slow = json!([{ "on": "wrap", "delay_ms": 60_000 }]);
    let silent = file(directory.path(), "silent", settings("one.keyring", slow));
    let mut command = tool(&shim);
    command
        .arg("--config")
        .arg(&config)
        .arg("--settings")
        .arg(empty)
        .arg("--other-settings")
        .arg(other);
    let found = conform(command.arg("--silent-settings").arg(silent));
    assert_eq!(found.with("failed"), [""; 0], "{:#}", found.report);
    // It leaves the context to the host's frame, as it says.
    assert_eq!(
        found.with("not-checked"),
        ["context", "rewrap"],
        "{:#}",
        found.report
    );

    let throttled = json!([{ "on": "wrap", "from": 2, "error": "throttled" }]);
    let throttled = file(directory.path(), "throttled", settings("one.keyring", throttled));
    let mut command = tool(&shim);
    command
        .arg("--config")
        .arg(config)
        .arg("--settings")
        .arg(throttled)
        .args(["--only", "round-trips"]);
    let found = conform(&mut command);
    assert_eq!(found.with("failed"), ["round-trips"]);
    assert!(
        found.notes("round-trips").contains("throttled"),
        "{:#}",
        found.report
    );
}
