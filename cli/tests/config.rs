//! The config file and the plugins that it names.

mod common;

use common::Place;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

#[track_caller]
fn refused(config: &str) -> String {
    let place = Place::with_acme();
    place.write_config(config);
    let ran = place.run(&["backends"]).ends_with(2);
    ran.stderr
}

/// A file `x.so` that is no plugin, and that nobody else may write: its digest is what it is refused for.
fn write_no_plugin(place: &Place) {
    std::fs::write(place.path("x.so"), "no plugin").expect("written");
    std::fs::set_permissions(place.path("x.so"), std::fs::Permissions::from_mode(0o600)).expect("set");
}

#[test]
fn an_unknown_field_is_refused_by_its_name_with_file_and_line() {
    let message = refused("\n[backends.third]\nbuiltin = \"managed\"\nsetings = { secret = \"hunter2\" }\n");
    assert!(
        message.contains("keystead.toml") && message.contains("`setings`"),
        "{message}"
    );
    assert!(message.contains("line 11"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");

    let place = Place::empty();
    place.write_config_text("store = \"s\"\nstroe = \"hunter2\"\n");
    let message = place.run(&["list"]).ends_with(2).stderr;
    assert!(
        message.contains("line 2") && message.contains("`stroe`") && !message.contains("hunter2"),
        "{message}"
    );
}

#[test]
fn an_unknown_setting_is_refused_by_the_backend_that_it_is_for() {
    let place = Place::with_acme();
    place.write_config("\n[backends.third]\nbuiltin = \"managed\"\nsettings = { keyrng = \"/x\" }\n");
    let ran = place.run(&["key", "add", "k", "--backend", "third"]).ends_with(2);
    assert!(ran.stderr.contains("`keyrng`"), "{}", ran.stderr);
}

#[test]
fn a_backend_is_either_built_in_or_a_plugin_with_digests() {
    assert!(refused("[backends.x]\n").contains("neither `builtin` nor `plugin`"));
    assert!(
        refused("[backends.x]\nbuiltin = \"managed\"\nplugin = \"/x.so\"\n").contains("give one of them")
    );
    assert!(refused("[backends.x]\nplugin = \"/x.so\"\n").contains("`digests` is missing"));
    assert!(
        refused("[backends.x]\nplugin = \"/x.so\"\ndigests = [\"abc\"]\n")
            .contains("`abc` is no BLAKE3 digest")
    );
}

#[test]
fn a_plugin_is_loaded_from_an_absolute_path_and_with_the_expected_bytes_only() {
    let zeroes = "0".repeat(64);
    let message = refused(&format!(
        "[backends.x]\nplugin = \"x.so\"\ndigests = [\"{zeroes}\"]\n"
    ));
    assert!(
        message.contains("step 1, path") && message.contains("relative"),
        "{message}"
    );

    let place = Place::with_acme();
    write_no_plugin(&place);
    let digest = place.run(&["backends", "digest", "x.so"]).ok().text();
    assert_eq!(
        place.json(&["backends", "digest", "x.so"]),
        json!({ "file": "x.so", "digest": digest.trim() })
    );
    place.write_config(&format!(
        "[backends.x]\nplugin = \"{}\"\ndigests = [\"{zeroes}\"]\n",
        place.file("x.so")
    ));
    let message = place.run(&["backends"]).ends_with(2).stderr;
    assert!(
        message.contains("step 4, digest") && message.contains(digest.trim()),
        "{message}"
    );
    // What needs no KMS loads no plugin.
    place.run(&["list"]).ok();
    place.run(&["doctor"]).ends_with(9);
}

#[test]
fn a_plugin_is_loaded_by_the_command_that_uses_a_key_of_it_and_is_refused_there() {
    let zeroes = "0".repeat(64);
    let place = Place::with_acme();
    write_no_plugin(&place);
    let plugins: String = (0..6)
        .map(|number| {
            let file = place.file("x.so");
            format!("[backends.kms-{number}]\nplugin = \"{file}\"\ndigests = [\"{zeroes}\"]\n")
        })
        .collect();
    place.write_config(&plugins);
    // Of six that are out of order, none is used: the secret is under the managed key.
    place.put("prod/password", b"correct horse");
    assert_eq!(place.get("prod/password"), b"correct horse");
    let message = place
        .run(&["key", "add", "own", "--backend", "kms-3"])
        .ends_with(2)
        .stderr;
    assert!(
        message.contains("[backends.kms-3]") && message.contains("step 4, digest"),
        "{message}"
    );
    assert!(!message.contains("kms-2"), "{message}");
    // What is wrong with the path or the digests as they stand is told before.
    place.write_config(&format!(
        "[backends.x]\nplugin = \"x.so\"\ndigests = [\"{zeroes}\"]\n"
    ));
    let message = place.run(&["get", "prod/password"]).ends_with(2).stderr;
    assert!(message.contains("step 1, path"), "{message}");
}

/// The story: the file was read by its path and then looked at by its path again, which could be another one; directories above it,
/// where it can be swapped, were not looked at; and settings alone, which say what is trusted with keys, did not count.
#[test]
fn a_config_file_that_others_may_write_or_swap_names_no_plugin_and_has_no_settings() {
    let mode = |path: &std::path::Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
    };
    let place = Place::with_acme();
    let file = place.path("keystead.toml");
    let zeroes = "0".repeat(64);
    let with_plugin =
        format!("store = \"app.keystead\"\n[backends.x]\nplugin = \"/x.so\"\ndigests = [\"{zeroes}\"]\n");
    let with_settings = "store = \"app.keystead\"\n[backends.managed]\nbuiltin = \"managed\"\nsettings = { keyring = \"/k\" }\n";
    for text in [&with_plugin, with_settings] {
        place.write_config_text(text);
        place.run(&["list"]).ok();
        for (open, modes) in [(&*file, (0o666, 0o644)), (place.directory(), (0o770, 0o700))] {
            mode(open, modes.0);
            let message = place.run(&["list"]).ends_with(2).stderr;
            assert!(
                message.contains("could swap the file") && message.contains("chmod go-w"),
                "{message}"
            );
            mode(open, modes.1);
        }
        // By a link it is the same file.
        let link = place.path("link.toml");
        std::os::unix::fs::symlink(&file, &link).expect("made");
        let by_the_link = ["list", "--config", link.to_str().expect("UTF-8")];
        place.run(&by_the_link).ok();
        mode(&file, 0o666);
        place.run(&by_the_link).ends_with(2);
        mode(&file, 0o644);
        std::fs::remove_file(&link).expect("removed");
    }
    // Without either it says nothing that matters.
    place.write_config_text("store = \"app.keystead\"\n");
    mode(&file, 0o666);
    place.run(&["list"]).ok();
    let report = place.run(&["doctor"]).text();
    assert!(report.contains("warn  config file"), "{report}");
}

#[test]
fn a_keyring_on_the_command_line_and_one_in_the_config_are_a_contradiction() {
    let place = Place::with_acme();
    let message = place
        .run(&["get", "a", "--keyring", "app.keyring"])
        .ends_with(2)
        .stderr;
    assert!(message.contains("give one of them"), "{message}");
    let message = place
        .run(&["get", "a", "--keyring-passphrase-env", "X"])
        .ends_with(2)
        .stderr;
    assert!(message.contains("no --keyring"), "{message}");
}

#[test]
fn the_store_path_of_the_config_is_relative_to_its_directory() {
    let place = Place::with_acme();
    let ran = place
        .command(&["list"])
        .current_dir("/")
        .output()
        .expect("it runs");
    assert_eq!(ran.status.code(), Some(0));
}

#[test]
fn doctor_finds_a_store_that_others_may_read_and_says_what_to_do() {
    let place = Place::with_acme();
    let report = place.json(&["doctor", "--probe"]);
    assert_ne!(report["result"], "fail");
    let check = |report: &serde_json::Value, name: &str| {
        let checks = report["checks"].as_array().expect("an array");
        let found = checks
            .iter()
            .find(|check| check["check"].as_str().is_some_and(|text| text.starts_with(name)));
        found
            .cloned()
            .unwrap_or_else(|| panic!("no check {name} in {report}"))
    };
    assert_eq!(check(&report, "open the store")["result"], "ok");
    assert_eq!(check(&report, "default key managed of acme")["result"], "ok");
    for name in [
        "config file",
        "locked memory",
        "core dumps",
        "backend managed",
        "keyring ",
        "store ",
    ] {
        check(&report, name);
    }

    std::fs::set_permissions(place.path("app.keystead"), std::fs::Permissions::from_mode(0o644))
        .expect("set");
    let report = place.run(&["doctor", "--json"]).ends_with(9).json();
    let store = check(&report, "store ");
    assert_eq!(
        (&store["result"], &store["advice"]),
        (&json!("fail"), &json!("chmod 600"))
    );
}

/// The story: doctor warned, and ended with 0, where every use of the keyring was refused as revoked.
#[test]
fn doctor_finds_a_keyring_of_another_user_which_every_use_refuses() {
    let place = Place::with_acme();
    place.put("a", b"x");
    let keyring = place.path("app.keyring");
    // Only root gives files away.
    if std::os::unix::fs::chown(&keyring, Some(65_534), None).is_err() {
        return;
    }
    place.run(&["get", "a"]).ends_with(5);
    let report = place.run(&["doctor"]).ends_with(9).text();
    assert!(
        report.contains("FAIL  keyring") && report.contains("another user (uid 65534)"),
        "{report}"
    );
    // A store of another user is open to us all the same.
    std::os::unix::fs::chown(&keyring, Some(0), None).expect("given back");
    std::os::unix::fs::chown(place.path("app.keystead"), Some(65_534), None).expect("given away");
    let report = place.run(&["doctor"]).ok().text();
    assert!(report.contains("warn  store"), "{report}");
}

#[test]
fn doctor_names_a_key_whose_backend_is_not_there() {
    let place = Place::with_acme();
    place.run(&["key", "add", "own", "--backend", "customer"]).ok();
    place.write_config_text("store = \"app.keystead\"\n");
    let report = place.run(&["doctor"]).ends_with(9).text();
    assert!(
        report.contains("FAIL  key own of acme: needs the backend \"customer\""),
        "{report}"
    );
}

#[test]
fn backends_are_described_with_the_fields_that_they_take() {
    let place = Place::with_acme();
    let described = place.json(&["backends"]);
    let first = &described["backends"][0];
    assert_eq!(
        (&first["registered_as"], &first["name"]),
        (&json!("customer"), &json!("managed"))
    );
    assert_eq!(first["source"], "builtin");
    assert!(first["settings_schema"]["properties"]["keyring"].is_object());
}
