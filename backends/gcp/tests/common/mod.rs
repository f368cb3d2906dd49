//! What the tests of this backend share: a host, a key that a service account may use, and short ways to open and call.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use keystead_backend::{
    BackendError, Call, Context, ErrorCode, Host, KeyBackend, KeyInstance, LockedBytes, LogLevel,
    OpenRequest, Wrapped,
};
use keystead_gcp_kms::GcpKmsBackend;
use keystead_tests::emulators::Gcp;
use serde_json::{Value, json};

/// An application that mints the token it is given.
#[derive(Default)]
pub(crate) struct TestHost {
    /// The token to mint; none, and the application mints none.
    pub(crate) token: Mutex<Option<String>>,
    /// The audiences it was asked for.
    pub(crate) audiences: Mutex<Vec<String>>,
    /// What was logged.
    pub(crate) logged: Mutex<Vec<String>>,
}

impl TestHost {
    pub(crate) fn minting(token: impl Into<String>) -> Arc<Self> {
        let host = Self::default();
        *host.token.lock().unwrap() = Some(token.into());
        Arc::new(host)
    }

    pub(crate) fn mint_from_now_on(&self, token: impl Into<String>) {
        *self.token.lock().unwrap() = Some(token.into());
    }

    /// How often it was asked for a token.
    pub(crate) fn asked(&self) -> usize {
        self.audiences.lock().unwrap().len()
    }
}

impl Host for TestHost {
    fn log(&self, _level: LogLevel, message: &str) {
        self.logged.lock().unwrap().push(message.to_owned());
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

/// A key with one version, and a service account that may use it.
pub(crate) struct Granted {
    pub(crate) key: String,
    pub(crate) member: String,
    /// The service account's file, as JSON.
    pub(crate) file: Value,
    /// Settings with that service account; one attempt, unless a test wants more.
    pub(crate) settings: Value,
    _directory: tempfile::TempDir,
}

impl Granted {
    pub(crate) fn new(gcp: &Gcp) -> Self {
        let key = gcp.create_key().unwrap();
        let (email, file) = gcp.service_account().unwrap();
        let member = format!("serviceAccount:{email}");
        gcp.grant(&key, "cryptoKeyEncrypterDecrypter", &[&member])
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("service-account.json");
        std::fs::write(&path, file.to_string()).unwrap();
        let mut settings = gcp.settings();
        settings["service_account_file"] = json!(path);
        settings["max_attempts"] = json!(1);
        // A busy machine is no outage.
        settings["attempt_timeout_ms"] = json!(20_000);
        Self {
            key,
            member,
            file,
            settings,
            _directory: directory,
        }
    }

    pub(crate) fn config(&self) -> Value {
        json!({ "key_name": self.key })
    }

    pub(crate) fn open(&self) -> Box<dyn KeyInstance> {
        open(&self.settings, &self.config())
    }

    pub(crate) fn version(&self, number: u32) -> String {
        format!("{}/cryptoKeyVersions/{number}", self.key)
    }

    /// The names of the calls that were made with the key.
    pub(crate) fn calls(&self, gcp: &Gcp) -> Vec<String> {
        let requests = gcp.requests(&self.key).unwrap();
        let names = requests
            .iter()
            .filter_map(|request| request["rpc"].as_str())
            .filter(|name| matches!(*name, "Encrypt" | "Decrypt"));
        names.map(str::to_owned).collect()
    }
}

pub(crate) fn open(settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    open_with(Arc::new(TestHost::default()), settings, config)
}

pub(crate) fn open_with(host: Arc<TestHost>, settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    let (settings, config) = (settings.to_string(), config.to_string());
    let request = OpenRequest {
        settings: &settings,
        config: &config,
        host,
    };
    // A backend of its own: it lives as long as the instance.
    GcpKmsBackend::default()
        .open(request)
        .unwrap_or_else(|error| panic!("{config} with {settings}: {error}"))
}

/// A call with time enough for a slow machine.
pub(crate) fn call() -> Call {
    Call::with_timeout(Duration::from_secs(30))
}

pub(crate) fn context() -> Context {
    context_of("1")
}

pub(crate) fn context_of(epoch: &str) -> Context {
    Context::new([
        ("keystead:store", "00ff"),
        ("keystead:organization", "acme"),
        ("keystead:epoch", epoch),
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

/// Asserts that a call failed so, that its message has these words, and nothing secret.
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
    for secret in ["0123456789abcdef", "MDEyMzQ1Njc4", "eyJ", "ya29.", "PRIVATE KEY"] {
        assert!(!error.message.contains(secret), "{error}");
    }
    error
}

/// An answer of Google's that is an error, as a fault.
pub(crate) fn refusal(rpc: &str, http: u16, status: &str, message: &str) -> Value {
    json!({ "rpc": rpc, "status": http,
        "body": { "error": { "code": http, "status": status, "message": message } } })
}
