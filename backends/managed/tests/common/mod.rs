//! What the tests share: a host, calls, contexts, short ways to open a key.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part of this")]

use keystead_backend::{
    BackendError, Call, Context, ErrorCode, Host, KeyBackend, KeyInstance, LockedBytes, LogLevel, OpenRequest,
};
use keystead_managed::{KdfParameters, Keyring, ManagedBackend, Sealing};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// A host with the system's randomness that keeps what is logged.
#[derive(Default)]
pub struct TestHost {
    pub lines: Mutex<Vec<String>>,
}

impl Host for TestHost {
    fn log(&self, _level: LogLevel, message: &str) {
        self.lines.lock().unwrap().push(message.to_owned());
    }

    fn random(&self, out: &mut [u8]) -> Result<(), BackendError> {
        getrandom::fill(out).map_err(|error| BackendError::new(ErrorCode::Unavailable, error.to_string()))
    }

    fn identity_token(&self, _audience: &str) -> Result<LockedBytes, BackendError> {
        Err(BackendError::new(ErrorCode::Unsupported, "no tokens in tests"))
    }
}

pub fn open_with(
    backend: &dyn KeyBackend,
    settings: &str,
    config: &str,
) -> Result<Box<dyn KeyInstance>, BackendError> {
    backend.open(OpenRequest {
        settings,
        config,
        host: Arc::new(TestHost::default()),
    })
}

pub fn open(backend: &dyn KeyBackend) -> Box<dyn KeyInstance> {
    open_with(backend, "{}", "{}").unwrap()
}

/// The key of a fresh backend, as another process would have it.
pub fn key_at(path: &Path) -> Box<dyn KeyInstance> {
    open(&ManagedBackend::keyring(path))
}

pub fn call() -> Call {
    Call::with_timeout(Duration::from_secs(30))
}

pub fn context() -> Context {
    Context::new([("store", "5eed"), ("organization", "acme"), ("epoch", "1")])
}

pub const EPOCH_KEY: [u8; 32] = [0xa7; 32];

pub fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.keyring");
    (directory, path)
}

/// A passphrase at the least cost that Argon2id has.
pub fn cheap(passphrase: &str) -> Sealing {
    Sealing::passphrase(passphrase).unwrap().with_kdf(KdfParameters {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    })
}

/// Writes a file that passes the checks of mode and owner.
pub fn write_private(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Makes the checksum at the end right again, as somebody would who tampers on purpose.
pub fn fix_checksum(bytes: &mut [u8]) {
    let body = bytes.len() - 32;
    let checksum = blake3::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(checksum.as_bytes());
}

#[track_caller]
pub fn code<T>(result: Result<T, BackendError>) -> ErrorCode {
    match result {
        Ok(_) => panic!("this should have failed"),
        Err(error) => error.code,
    }
}

#[track_caller]
pub fn failure<T>(result: Result<T, BackendError>) -> BackendError {
    match result {
        Ok(_) => panic!("this should have failed"),
        Err(error) => error,
    }
}

pub fn keyring(path: &Path) -> Keyring {
    Keyring::create(path, Sealing::none()).unwrap()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}
