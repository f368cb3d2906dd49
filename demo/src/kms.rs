//! Counts what the engine asks of a KMS, and can keep it waiting: a backend around a backend.

use keystead_backend::{
    BackendError, Call, Context, Description, KeyBackend, KeyInstance, LockedBytes, OpenRequest, Status,
    Wrapped,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How often a KMS was asked to wrap and to unwrap.
#[derive(Default)]
pub(crate) struct Calls {
    wraps: AtomicU64,
    unwraps: AtomicU64,
    is_held: Mutex<bool>,
    let_go: Condvar,
}

/// While it is there, the KMS unwraps nothing: whoever asks waits.
pub(crate) struct Held<'a>(&'a Calls);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.0.is_held() = false;
        self.0.let_go.notify_all();
    }
}

/// The figures of [`Calls`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) wraps: u64,
    pub(crate) unwraps: u64,
}

impl Calls {
    /// What was asked so far; counting begins again at zero.
    pub(crate) fn take(&self) -> Count {
        Count {
            wraps: self.wraps.swap(0, Ordering::Relaxed),
            unwraps: self.unwraps.swap(0, Ordering::Relaxed),
        }
    }

    /// Keeps those who ask for an unwrap waiting from now on.
    pub(crate) fn hold(&self) -> Held<'_> {
        *self.is_held() = true;
        Held(self)
    }

    fn wait_while_held(&self) {
        let waited = self.let_go.wait_while(self.is_held(), |is_held| *is_held);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn is_held(&self) -> MutexGuard<'_, bool> {
        self.is_held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let many = |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        write!(
            f,
            "{} and {}",
            many(self.wraps, "wrap"),
            many(self.unwraps, "unwrap")
        )
    }
}

/// A backend whose calls are counted.
pub(crate) struct Counted<B> {
    backend: B,
    calls: Arc<Calls>,
}

impl<B: KeyBackend> Counted<B> {
    pub(crate) fn new(backend: B, calls: &Arc<Calls>) -> Self {
        Self {
            backend,
            calls: Arc::clone(calls),
        }
    }
}

impl<B: KeyBackend> KeyBackend for Counted<B> {
    fn describe(&self) -> Description {
        self.backend.describe()
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        let instance = self.backend.open(request)?;
        Ok(Box::new(CountedInstance {
            instance,
            calls: Arc::clone(&self.calls),
        }))
    }
}

struct CountedInstance {
    instance: Box<dyn KeyInstance>,
    calls: Arc<Calls>,
}

impl KeyInstance for CountedInstance {
    fn status(&self, call: &Call) -> Result<Status, BackendError> {
        self.instance.status(call)
    }

    fn wrap(&self, call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        self.calls.wraps.fetch_add(1, Ordering::Relaxed);
        self.instance.wrap(call, context, plaintext)
    }

    fn unwrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes, BackendError> {
        self.calls.unwraps.fetch_add(1, Ordering::Relaxed);
        self.calls.wait_while_held();
        self.instance.unwrap(call, context, wrapped)
    }

    fn rewrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<Wrapped, BackendError> {
        self.instance.rewrap(call, context, wrapped)
    }

    fn interrupt(&self) {
        self.instance.interrupt();
    }
}
