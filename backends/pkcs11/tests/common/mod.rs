//! What the tests of this backend share: a host, and short ways to open and call.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

use std::sync::Arc;

use keystead_backend::{BackendError, ErrorCode, KeyInstance};
use keystead_pkcs11::Pkcs11Backend;
use keystead_tests::direct;
pub(crate) use keystead_tests::direct::{CONTEXT, KEY, TestHost, call, context, unwrap, wrap};
use keystead_tests::emulators::SoftHsm;
use serde_json::{Value, json};

fn host() -> Arc<TestHost> {
    TestHost::minting_by(|_| None).with_random(|out| {
        getrandom::fill(out).map_err(|error| BackendError::new(ErrorCode::Internal, error.to_string()))
    })
}

pub(crate) fn open(settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    direct::open_with(&Pkcs11Backend::default(), host(), settings, config)
}

pub(crate) fn try_open(settings: &Value, config: &Value) -> Result<Box<dyn KeyInstance>, BackendError> {
    direct::try_open(&Pkcs11Backend::default(), host(), settings, config)
}

/// The mechanisms, by their names in a config.
pub(crate) const MECHANISMS: [&str; 2] = ["aes-gcm", "aes-key-wrap"];

/// A new key on the token, and how it is opened with each mechanism.
pub(crate) fn new_key(hsm: &SoftHsm, label: &str) {
    hsm.owner("generate", &json!({ "label": label, "id": "01" }))
        .unwrap();
}

pub(crate) fn config(label: &str, mechanism: &str) -> Value {
    json!({ "token": SoftHsm::TOKEN, "key_label": label, "mechanism": mechanism })
}

pub(crate) fn context_json() -> Value {
    CONTEXT
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// Asserts that a call failed so, and that its message has these words and no secret.
#[track_caller]
pub(crate) fn assert_fails<T>(
    result: Result<T, BackendError>,
    code: ErrorCode,
    words: &[&str],
) -> BackendError {
    let error = direct::assert_fails(result, code, words);
    assert!(!error.message.contains(SoftHsm::PIN), "the PIN is in: {error}");
    error
}
