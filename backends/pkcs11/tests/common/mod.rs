//! What the tests of this backend share: a host, and short ways to open and call.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use keystead_backend::{
    BackendError, Call, Context, ErrorCode, Host, KeyBackend, KeyInstance, LockedBytes, LogLevel,
    OpenRequest, Wrapped,
};
use keystead_pkcs11::Pkcs11Backend;
use keystead_tests::emulators::SoftHsm;
use serde_json::{Value, json};

/// An application that hands out random bytes and mints no tokens.
#[derive(Default)]
pub(crate) struct TestHost {
    pub(crate) logged: Mutex<Vec<String>>,
}

impl Host for TestHost {
    fn log(&self, _level: LogLevel, message: &str) {
        self.logged.lock().unwrap().push(message.to_owned());
    }

    fn random(&self, out: &mut [u8]) -> Result<(), BackendError> {
        getrandom::fill(out).map_err(|error| BackendError::new(ErrorCode::Internal, error.to_string()))
    }

    fn identity_token(&self, _audience: &str) -> Result<LockedBytes, BackendError> {
        Err(BackendError::new(
            ErrorCode::Unsupported,
            "this application is no issuer",
        ))
    }
}

pub(crate) fn open(settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    try_open(settings, config).unwrap_or_else(|error| panic!("{config} with {settings}: {error}"))
}

pub(crate) fn try_open(settings: &Value, config: &Value) -> Result<Box<dyn KeyInstance>, BackendError> {
    let (settings, config) = (settings.to_string(), config.to_string());
    Pkcs11Backend::default().open(OpenRequest {
        settings: &settings,
        config: &config,
        host: Arc::new(TestHost::default()),
    })
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

/// A call with time enough for a slow machine.
pub(crate) fn call() -> Call {
    Call::with_timeout(Duration::from_secs(30))
}

pub(crate) const CONTEXT: [(&str, &str); 3] = [
    ("keystead:store", "00ff"),
    ("keystead:organization", "acme"),
    ("keystead:epoch", "1"),
];

pub(crate) fn context() -> Context {
    Context::new(CONTEXT)
}

pub(crate) fn context_json() -> Value {
    CONTEXT
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A key to wrap; the same in every test.
pub(crate) const KEY: [u8; 32] = *b"0123456789abcdef0123456789abcdef";

pub(crate) fn wrap(key: &dyn KeyInstance) -> Result<Wrapped, BackendError> {
    key.wrap(&call(), &context(), &KEY)
}

pub(crate) fn unwrap(key: &dyn KeyInstance, wrapped: &Wrapped) -> Result<Vec<u8>, BackendError> {
    key.unwrap(&call(), &context(), wrapped)
        .map(|plaintext| plaintext.as_slice().to_vec())
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
    let Err(error) = result else {
        panic!("it succeeded, but should have failed with {code}")
    };
    assert_eq!(error.code, code, "{error}");
    for word in words {
        assert!(error.message.contains(word), "\"{word}\" is not in: {error}");
    }
    assert!(!error.message.contains(SoftHsm::PIN), "the PIN is in: {error}");
    assert!(
        !error.message.contains("0123456789abcdef"),
        "the key is in: {error}"
    );
    error
}
