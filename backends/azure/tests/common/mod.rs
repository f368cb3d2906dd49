//! What the tests of this backend share: a host, and short ways to open and call.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keystead_azure_key_vault::AzureKeyVaultBackend;
use keystead_backend::{
    BackendError, Call, Context, ErrorCode, Host, KeyBackend, KeyInstance, LockedBytes, LogLevel,
    OpenRequest, Wrapped,
};
use keystead_tests::emulators::{Application, Azure};
use serde_json::{Value, json};
use tempfile::TempDir;

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
    AzureKeyVaultBackend::default().open(OpenRequest {
        settings: &settings,
        config: &config,
        host,
    })
}

/// A key, an application that may use it, and settings by which the backend is that application.
pub(crate) struct Owned {
    pub(crate) key: String,
    pub(crate) version: String,
    pub(crate) application: Application,
    pub(crate) settings: Value,
    directory: TempDir,
}

impl Owned {
    /// A key in `vault`, whose application may wrap and unwrap with it.
    pub(crate) fn new(azure: &Azure, vault: &str) -> Self {
        let (key, version) = azure.create_key(vault, "keystead").unwrap();
        let application = azure.create_application().unwrap();
        azure.grant(&key, &application, &["wrap", "unwrap"]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("client-secret");
        std::fs::write(&file, format!("{}\n", application.secret)).unwrap();
        let settings = application.by_secret_file(azure.settings(), &file);
        Self {
            key,
            version,
            application,
            settings,
            directory,
        }
    }

    /// The key's identifier with the version that it had at first.
    pub(crate) fn first_version(&self) -> String {
        format!("{}/{}", self.key, self.version)
    }

    pub(crate) fn open(&self) -> Box<dyn KeyInstance> {
        open(&self.settings, &json!({ "key_id": self.key }))
    }

    /// A directory of its own.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
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
