//! A plugin in plain C against the header alone does what one in Rust does.

mod common;

use std::time::Duration;

use common::{c_plugin, context, directory, load, open};
use keystead_backend::{Call, ErrorCode, KeyBackend};
use keystead_loader::Plugin;

fn plugin() -> Plugin {
    let directory = directory();
    load(&c_plugin("toy_cipher", &[], directory.path())).expect("a sound plugin loads")
}

fn call() -> Call {
    Call::with_timeout(Duration::from_secs(5))
}

#[test]
fn it_wraps_and_unwraps_and_tells_context_damage_and_key_apart() {
    let plugin = plugin();
    let key = open(&plugin, r#"{"passphrase":"hunter2"}"#).expect("opens");
    let other = open(&plugin, r#"{"passphrase":"other"}"#).expect("opens");
    for len in 0..=256 {
        let plaintext: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
        let wrapped = key.wrap(&call(), &context("1"), &plaintext).expect("wraps");
        assert_eq!(
            key.unwrap(&call(), &context("1"), &wrapped)
                .expect("unwraps")
                .as_slice(),
            plaintext
        );
        let error = key
            .unwrap(&call(), &context("2"), &wrapped)
            .expect_err("another context");
        assert_eq!(error.code, ErrorCode::InvalidCiphertext);
        let error = other
            .unwrap(&call(), &context("1"), &wrapped)
            .expect_err("another key");
        assert_eq!(error.code, ErrorCode::WrongKey);
        let mut damaged = wrapped.clone();
        damaged.blob[len / 2] ^= 1;
        let error = key.unwrap(&call(), &context("1"), &damaged).expect_err("damaged");
        assert_eq!(error.code, ErrorCode::InvalidCiphertext);
    }
}

#[test]
fn its_description_and_capabilities_arrive() {
    let description = plugin().describe();
    assert_eq!(description.name, "toy-cipher");
    assert!(description.capabilities.binds_context);
    assert!(!description.capabilities.rewrap && !description.capabilities.interrupt);
}

#[test]
fn a_wrong_config_is_refused_and_rewrap_is_unsupported() {
    let plugin = plugin();
    for config in [
        "{}",
        r#"{"passphrase":"x","more":"y"}"#,
        r#"{"password":"x"}"#,
        "",
    ] {
        assert_eq!(
            open(&plugin, config).err().expect("refused").code,
            ErrorCode::InvalidConfig,
            "{config}"
        );
    }
    let key = open(&plugin, r#"{"passphrase":"hunter2"}"#).expect("opens");
    let wrapped = key.wrap(&call(), &context("1"), &[7; 32]).expect("wraps");
    assert_eq!(
        key.rewrap(&call(), &context("1"), &wrapped)
            .expect_err("absent")
            .code,
        ErrorCode::Unsupported
    );
    key.interrupt(); // absent: nothing happens
    assert!(
        key.status(&call())
            .expect("healthy")
            .key_id
            .starts_with("toy-cipher/")
    );
}

#[test]
fn a_cancelled_call_is_seen_by_c_code() {
    let key = open(&plugin(), r#"{"passphrase":"hunter2"}"#).expect("opens");
    let call = call();
    call.cancel.cancel();
    assert_eq!(
        key.wrap(&call, &context("1"), &[7; 32])
            .expect_err("cancelled")
            .code,
        ErrorCode::Cancelled
    );
}
