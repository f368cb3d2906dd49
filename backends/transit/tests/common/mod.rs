//! What the tests of this backend share: a host, and short ways to open and call.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod server;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keystead_backend::{
    BackendError, Call, Context, ErrorCode, Host, KeyBackend, KeyInstance, LockedBytes, LogLevel,
    OpenRequest, Wrapped,
};
use keystead_tests::emulators::OpenBao;
use keystead_transit::TransitBackend;
use serde_json::{Value, json};

/// Makes a token for an audience.
type Mint = dyn Fn(&str) -> Option<String> + Send + Sync;

/// An application that mints the tokens that `mint` makes of an audience.
pub(crate) struct TestHost {
    mint: Box<Mint>,
    /// The audiences it was asked for.
    pub(crate) audiences: Mutex<Vec<String>>,
    pub(crate) logged: Mutex<Vec<String>>,
}

impl TestHost {
    pub(crate) fn minting(mint: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            mint: Box::new(mint),
            audiences: Mutex::default(),
            logged: Mutex::default(),
        })
    }
}

impl Host for TestHost {
    fn log(&self, _level: LogLevel, message: &str) {
        self.logged.lock().unwrap().push(message.to_owned());
    }

    fn random(&self, out: &mut [u8]) -> Result<(), BackendError> {
        out.fill(0);
        Ok(())
    }

    fn identity_token(&self, audience: &str) -> Result<LockedBytes, BackendError> {
        self.audiences.lock().unwrap().push(audience.to_owned());
        match (self.mint)(audience) {
            Some(token) => Ok(LockedBytes::copy_from(token.as_bytes())),
            None => Err(BackendError::new(
                ErrorCode::Unsupported,
                "this application is no issuer",
            )),
        }
    }
}

pub(crate) fn open(settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    open_with(TestHost::minting(|_| None), settings, config)
}

pub(crate) fn open_with(host: Arc<TestHost>, settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    let (settings, config) = (settings.to_string(), config.to_string());
    let request = OpenRequest {
        settings: &settings,
        config: &config,
        host,
    };
    TransitBackend::default()
        .open(request)
        .unwrap_or_else(|error| panic!("{config} with {settings}: {error}"))
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

/// A file with a secret in it, in a directory of its own that goes with it.
pub(crate) struct Secret {
    _directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Secret {
    pub(crate) fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, format!("{text}\n")).unwrap();
        Self {
            _directory: directory,
            path,
        }
    }

    pub(crate) fn replace(&self, text: &str) {
        std::fs::write(&self.path, format!("{text}\n")).unwrap();
    }
}

/// A key in the server, and an application that may use it and do nothing else.
pub(crate) struct Granted {
    pub(crate) bao: &'static OpenBao,
    pub(crate) name: String,
    pub(crate) token: Secret,
    pub(crate) key: Box<dyn KeyInstance>,
}

/// Makes a key of this name and opens it by a token with the least policy.
pub(crate) fn granted(name: &str, left_out: &str) -> Option<Granted> {
    granted_of(name, &json!({}), left_out)
}

pub(crate) fn granted_of(name: &str, parameters: &Value, left_out: &str) -> Option<Granted> {
    let bao = OpenBao::shared_or_skip(left_out)?;
    bao.create_key_of(None, name, parameters).unwrap();
    bao.put_policy(None, name, &OpenBao::grant(name)).unwrap();
    let token = Secret::new(&bao.token(name, "1h").unwrap());
    let key = open(&settings(bao, &token), &json!({ "key": name }));
    Some(Granted {
        bao,
        name: name.into(),
        token,
        key,
    })
}

pub(crate) fn settings(bao: &OpenBao, token: &Secret) -> Value {
    json!({ "address": bao.address(), "vault_token_file": token.path })
}
