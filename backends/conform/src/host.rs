//! A host that remembers what the plugin asked of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use keystead_backend::{BackendError, ErrorCode, Host, LockedBytes, LogLevel};

/// A host: mints one token or none, and can be told to fail.
#[derive(Default)]
pub(crate) struct WatchedHost {
    token: Option<String>,
    log: Mutex<Vec<String>>,
    /// The instance is closed: nothing may be asked any more.
    over: AtomicBool,
    late: AtomicU64,
    random_fails: AtomicBool,
    random_asked: AtomicU64,
}

impl WatchedHost {
    pub(crate) fn new(token: Option<String>) -> Self {
        Self {
            token,
            ..Self::default()
        }
    }

    /// The lines so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// To be called once `close` has returned, or `open` has failed.
    pub(crate) fn is_over(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// How often it was asked after that.
    pub(crate) fn late(&self) -> u64 {
        self.late.load(Ordering::SeqCst)
    }

    pub(crate) fn fail_random(&self, fails: bool) {
        self.random_fails.store(fails, Ordering::SeqCst);
    }

    pub(crate) fn random_asked(&self) -> u64 {
        self.random_asked.load(Ordering::SeqCst)
    }

    fn note(&self) {
        if self.over.load(Ordering::SeqCst) {
            self.late.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Host for WatchedHost {
    fn log(&self, _level: LogLevel, message: &str) {
        self.note();
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(message.to_owned());
    }

    fn random(&self, out: &mut [u8]) -> Result<(), BackendError> {
        self.note();
        self.random_asked.fetch_add(1, Ordering::SeqCst);
        if self.random_fails.load(Ordering::SeqCst) {
            return Err(BackendError::new(
                ErrorCode::Unavailable,
                "no random bytes, for a trial",
            ));
        }
        getrandom::fill(out).map_err(|error| BackendError::new(ErrorCode::Internal, error.to_string()))
    }

    fn identity_token(&self, audience: &str) -> Result<LockedBytes, BackendError> {
        self.note();
        match &self.token {
            Some(token) => Ok(LockedBytes::copy_from(token.as_bytes())),
            None => Err(BackendError::new(
                ErrorCode::Unsupported,
                format!("no token is minted for {audience}: give --token-file"),
            )),
        }
    }
}
