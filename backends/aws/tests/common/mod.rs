//! What the tests of this backend share: a host, and short ways to open and call.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod scripted;
pub(crate) mod server;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keystead_aws_kms::AwsKmsBackend;
use keystead_backend::{
    BackendError, Call, Context, ErrorCode, Host, KeyBackend, KeyInstance, LockedBytes, LogLevel,
    OpenRequest, Wrapped,
};
use serde_json::Value;

/// An application that mints the tokens it is given.
#[derive(Default)]
pub(crate) struct TestHost {
    /// The token to mint; none, and the application mints none.
    pub(crate) token: Mutex<Option<String>>,
    /// The audiences it was asked for.
    pub(crate) audiences: Mutex<Vec<String>>,
    logged: AtomicUsize,
}

impl TestHost {
    pub(crate) fn minting(token: impl Into<String>) -> Arc<Self> {
        let host = Self::default();
        *host.token.lock().unwrap() = Some(token.into());
        Arc::new(host)
    }
}

impl Host for TestHost {
    fn log(&self, _level: LogLevel, _message: &str) {
        self.logged.fetch_add(1, Ordering::Relaxed);
    }

    fn random(&self, _out: &mut [u8]) -> Result<(), BackendError> {
        Err(BackendError::new(
            ErrorCode::Unsupported,
            "the backend needs no random bytes",
        ))
    }

    fn identity_token(&self, audience: &str) -> Result<LockedBytes, BackendError> {
        self.audiences.lock().unwrap().push(audience.to_owned());
        match self.token.lock().unwrap().as_deref() {
            Some(token) => Ok(LockedBytes::copy_from(token.as_bytes())),
            None => Err(BackendError::new(
                ErrorCode::Unsupported,
                "this application is no issuer",
            )),
        }
    }
}

pub(crate) fn open(settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    open_with(Arc::new(TestHost::default()), settings, config)
}

pub(crate) fn open_with(host: Arc<TestHost>, settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    try_open(host, settings, config).unwrap_or_else(|error| panic!("{config} with {settings}: {error}"))
}

pub(crate) fn try_open(
    host: Arc<TestHost>,
    settings: &Value,
    config: &Value,
) -> Result<Box<dyn KeyInstance>, BackendError> {
    let (settings, config) = (settings.to_string(), config.to_string());
    AwsKmsBackend::default().open(OpenRequest {
        settings: &settings,
        config: &config,
        host,
    })
}

/// A call with time enough for a slow machine.
pub(crate) fn call() -> Call {
    Call::with_timeout(Duration::from_secs(30))
}

pub(crate) fn context() -> Context {
    Context::new([
        ("keystead:store", "00ff"),
        ("keystead:organization", "acme"),
        ("keystead:epoch", "1"),
    ])
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

/// Asserts that a call failed so, and that its message has these words.
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
    error
}
