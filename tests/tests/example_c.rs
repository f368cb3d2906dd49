//! The example backend in plain C (`backends/example-c`): built as its Makefile says, loaded as a stranger's plugin is, and a
//! store lives on it.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use keystead::{Backend, EpochState, Error, Store};
use keystead_backend::{
    BackendError, Call, Context, ErrorCode, KeyBackend, KeyInstance, OpenRequest, Wrapped,
};
use keystead_loader::{Plugin, PluginSource, digest_file};
use keystead_managed::ManagedBackend;
use keystead_tests::direct::{self, TestHost, call, never_twice};
use keystead_tests::example_c::{Place, is_left_out, key_of, plugin_file};
use serde_json::json;

fn open(place: &Place, config: &str) -> Result<Box<dyn KeyInstance>, BackendError> {
    open_with(&place.settings().to_string(), config)
}

fn open_with(settings: &str, config: &str) -> Result<Box<dyn KeyInstance>, BackendError> {
    plugin().open(OpenRequest {
        settings,
        config,
        host: Arc::new(TestHost::default()).with_random(never_twice),
    })
}

fn plugin() -> Plugin {
    let path = plugin_file();
    Plugin::load(&PluginSource::new(path).digest(digest_file(path).unwrap())).unwrap()
}

fn context(epoch: &str) -> Context {
    Context::new([("store", "0f"), ("organization", "acme"), ("epoch", epoch)])
}

const ACME: &str = r#"{"key": "acme"}"#;

#[track_caller]
fn assert_fails<T>(result: Result<T, BackendError>, code: ErrorCode, words: &str) {
    direct::assert_fails(result, code, &[words]);
}

#[test]
fn it_wraps_every_size_and_opens_under_its_own_context_alone() {
    if is_left_out("the example in C: it wraps every size and opens under its own context alone") {
        return;
    }
    let place = Place::new();
    let key = open(&place, ACME).unwrap();
    for len in 0..=256_usize {
        let plaintext: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let wrapped = key.wrap(&call(), &context("1"), &plaintext).unwrap();
        assert_eq!(
            (
                wrapped.key_id.as_str(),
                wrapped.blob.len(),
                wrapped.metadata.len()
            ),
            ("example-c:acme:v1", len + 16, 12)
        );
        let opened = key.unwrap(&call(), &context("1"), &wrapped).unwrap();
        assert_eq!(opened.as_slice(), plaintext);
        assert_fails(
            key.unwrap(&call(), &context("2"), &wrapped),
            ErrorCode::InvalidCiphertext,
            "another context",
        );
    }
}

#[test]
fn whatever_is_damaged_does_not_open() {
    if is_left_out("the example in C: whatever is damaged does not open") {
        return;
    }
    let place = Place::new();
    let key = open(&place, ACME).unwrap();
    let wrapped = key.wrap(&call(), &context("1"), &[7; 32]).unwrap();
    let mut damaged: Vec<Wrapped> = Vec::new();
    for at in 0..wrapped.blob.len() {
        let mut other = wrapped.clone();
        other.blob[at] ^= 1;
        damaged.push(other);
        let mut other = wrapped.clone();
        other.blob.truncate(at);
        damaged.push(other);
    }
    for at in 0..wrapped.metadata.len() {
        let mut other = wrapped.clone();
        other.metadata[at] ^= 1;
        damaged.push(other);
        let mut other = wrapped.clone();
        other.metadata.truncate(at);
        damaged.push(other);
    }
    for other in damaged {
        assert_fails(
            key.unwrap(&call(), &context("1"), &other),
            ErrorCode::InvalidCiphertext,
            "",
        );
    }
    for key_id in [
        "example-c:acme:v0",
        "example-c:acme:v01",
        "example-c:acme:v1x",
        "example-c:acme:v",
        "example-c:other:v1",
        "x",
    ] {
        let other = Wrapped {
            key_id: key_id.into(),
            ..wrapped.clone()
        };
        assert_fails(
            key.unwrap(&call(), &context("1"), &other),
            ErrorCode::WrongKey,
            "another key",
        );
    }
}

#[test]
fn settings_and_config_are_strict_and_a_config_names_no_file() {
    if is_left_out("the example in C: settings and config are strict and a config names no file") {
        return;
    }
    let place = Place::new();
    let good = place.settings().to_string();
    for (settings, config, words) in [
        (good.as_str(), "{}", "`key` is missing"),
        (
            &good,
            r#"{"key": "acme", "keyring": "/etc/shadow"}"#,
            "unknown field `keyring`",
        ),
        (&good, r#"{"key": "acme", "key": "acme"}"#, "twice"),
        (&good, r#"{"key": 1234567}"#, "`key` must be a string"),
        (&good, r#"{"key": ""}"#, "`key` must be a string of 1 to"),
        (&good, r#"{"key": "../acme"}"#, "a-z"),
        (&good, r#"{"key": "a\u0000b"}"#, "`key`"),
        (&good, r#"{"key": "a\ud800"}"#, "`key`"),
        (&good, r#"{"key": "acme"} x"#, "follows"),
        (&good, r#"{"key": "acme""#, "end"),
        (&good, "[]", "not a JSON object"),
        (&good, "", "not a JSON object"),
        ("{}", ACME, "`keyring` is missing"),
        (r#"{"keyring": "keyring"}"#, ACME, "absolute"),
        (r#"{"keyring": "/k", "more": "x"}"#, ACME, "unknown field `more`"),
    ] {
        assert_fails(open_with(settings, config), ErrorCode::InvalidConfig, words);
    }
    // Escapes are read as what they stand for.
    let key = open(&place, " {\n\t\"\\u006bey\" : \"ac\\u006de\" } ").unwrap();
    assert!(key.status(&call()).is_ok());
}

#[test]
fn what_the_owner_does_to_the_keyring_holds_from_the_next_call_on() {
    if is_left_out("the example in C: what the owner does to the keyring holds from the next call on") {
        return;
    }
    let place = Place::new();
    let key = open(&place, ACME).unwrap();
    let first = key.wrap(&call(), &context("1"), &[7; 32]).unwrap();
    let one = key_of('1');
    place.write(
        &format!("acme 1 enabled {one}\nother 9 enabled {one}\nacme 2 enabled "),
        '2',
    );
    let second = key.wrap(&call(), &context("1"), &[7; 32]).unwrap();
    assert_eq!(second.key_id, "example-c:acme:v2");
    assert_eq!(key.status(&call()).unwrap().key_id, second.key_id);
    assert!(key.unwrap(&call(), &context("1"), &first).is_ok());

    place.write(&format!("acme 1 disabled {one}\nacme 2 enabled "), '2');
    assert_fails(
        key.unwrap(&call(), &context("1"), &first),
        ErrorCode::KeyDisabled,
        "version 1",
    );
    assert!(key.unwrap(&call(), &context("1"), &second).is_ok());
    place.write("acme 2 disabled ", '2');
    assert_fails(
        key.unwrap(&call(), &context("1"), &first),
        ErrorCode::KeyNotFound,
        "version 1",
    );
    assert_fails(
        key.wrap(&call(), &context("1"), &[7; 32]),
        ErrorCode::KeyDisabled,
        "acme",
    );
    assert_fails(key.status(&call()), ErrorCode::KeyDisabled, "acme");
    place.write("acme 2 enabled ", '3');
    assert_fails(
        key.unwrap(&call(), &context("1"), &second),
        ErrorCode::InvalidCiphertext,
        "damaged",
    );
    place.write("acme 2 enabled 00", '2');
    assert_fails(key.status(&call()), ErrorCode::InvalidConfig, "line 1");
    std::fs::set_permissions(place.keyring(), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_fails(key.status(&call()), ErrorCode::AccessDenied, "chmod 600");
    std::fs::remove_file(place.keyring()).unwrap();
    assert_fails(key.status(&call()), ErrorCode::Unavailable, "cannot be opened");
}

#[test]
fn a_call_that_is_over_before_it_began_does_nothing() {
    if is_left_out("the example in C: a call that is over before it began does nothing") {
        return;
    }
    let place = Place::new();
    let key = open(&place, ACME).unwrap();
    let cancelled = call();
    cancelled.cancel.cancel();
    assert_fails(
        key.wrap(&cancelled, &context("1"), &[7; 32]),
        ErrorCode::Cancelled,
        "cancelled",
    );
    let late = Call::with_timeout(Duration::ZERO);
    assert_fails(
        key.wrap(&late, &context("1"), &[7; 32]),
        ErrorCode::Timeout,
        "no time",
    );
}

#[test]
fn a_store_moves_to_it_and_lives_on_it() {
    if is_left_out("the example in C: a store moves to it and lives on it") {
        return;
    }
    let place = Place::new();
    let directory = tempfile::tempdir().unwrap();
    let managed = directory.path().join("managed.keyring");
    let store = Store::options()
        .backend(ManagedBackend::keyring(&managed))
        .backend(Backend::new(plugin()).settings(place.settings()))
        .create(directory.path().join("store.keystead"))
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    for n in 0..50 {
        acme.put(&format!("s/{n}"), format!("value {n}")).unwrap();
    }
    acme.keys()
        .add("mine", "example-c", json!({ "key": "acme" }))
        .unwrap()
        .wait()
        .unwrap();
    let epochs = acme.epochs().unwrap();
    assert_eq!(
        (epochs[0].state, epochs[1].state, epochs[1].references),
        (EpochState::Retired, EpochState::Active, 50)
    );
    assert_eq!(epochs[1].kms_key_id, "example-c:acme:v1");
    std::fs::remove_file(managed).unwrap();
    store.forget_epoch_keys();
    for n in 0..50 {
        assert_eq!(acme.get(&format!("s/{n}")).unwrap().value, format!("value {n}"));
    }
    place.write("acme 1 disabled ", '1');
    store.forget_epoch_keys();
    let error = acme.get("s/1").unwrap_err();
    assert!(
        error.is_revoked() && matches!(error, Error::Kms { .. }),
        "{error}"
    );
    place.write("acme 1 enabled ", '1');
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(acme.get("s/1").unwrap().value, "value 1");
}
