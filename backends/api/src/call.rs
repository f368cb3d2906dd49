//! The header of every call: deadline, request id, cancellation.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The header of a call into a backend.
///
/// # Examples
///
/// ```
/// use keystead_backend::Call;
/// use std::time::Duration;
///
/// let call = Call::with_timeout(Duration::from_secs(5));
/// assert!(!call.is_cancelled());
/// ```
#[derive(Debug, Clone)]
pub struct Call {
    /// The call is to be done, or given up, within this time.
    pub timeout: Duration,
    /// Names the call in logs on both sides; not unique across processes.
    pub request_id: u64,
    /// Set by the host when nobody waits for the answer any more.
    pub cancel: CancelFlag,
}

impl Call {
    /// A call with this deadline, request id 0, not cancelled.
    #[must_use]
    pub fn with_timeout(timeout: Duration) -> Self {
        Self {
            timeout,
            request_id: 0,
            cancel: CancelFlag::default(),
        }
    }

    /// True once the host has lost interest.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// A flag that the host sets and the backend polls; clones share it.
///
/// # Examples
///
/// ```
/// use keystead_backend::CancelFlag;
///
/// let flag = CancelFlag::default();
/// let seen_by_the_backend = flag.clone();
/// flag.cancel();
/// assert!(seen_by_the_backend.is_cancelled());
/// ```
#[derive(Clone, Default)]
pub struct CancelFlag(Arc<State>);

#[derive(Default)]
struct State {
    cancelled: AtomicBool,
    /// In a plugin the host's flag is behind a C callback, which is good only until the call returns. A clone of the
    /// flag may outlive the call (in a task, say), so the callback sits behind a lock and is taken away in time.
    probe: Mutex<Option<Probe>>,
}

type Probe = Box<dyn Fn() -> bool + Send>;

impl CancelFlag {
    /// Asks the call to return soon.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
    }

    /// True after [`cancel`](Self::cancel).
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        if self.0.cancelled.load(Ordering::Acquire) {
            return true;
        }
        let probe = self.0.probe.lock().unwrap_or_else(PoisonError::into_inner);
        let cancelled = probe.as_ref().is_some_and(|probe| probe());
        if cancelled {
            self.cancel();
        }
        cancelled
    }

    /// A flag that asks `probe` as well, until the guard is dropped.
    pub(crate) fn asking(probe: impl Fn() -> bool + Send + 'static) -> (Self, ProbeGuard) {
        let flag = Self::default();
        *flag.0.probe.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(probe));
        (flag.clone(), ProbeGuard(flag))
    }
}

impl fmt::Debug for CancelFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelFlag")
            .field(&self.0.cancelled.load(Ordering::Acquire))
            .finish()
    }
}

/// Takes the probe away from a [`CancelFlag`] when dropped; nobody asks it afterwards, nor is asking it still.
pub(crate) struct ProbeGuard(CancelFlag);

impl Drop for ProbeGuard {
    fn drop(&mut self) {
        *self.0.0.probe.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_asked_until_its_guard_is_dropped() {
        let asked = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&asked);
        let (flag, guard) = CancelFlag::asking(move || {
            seen.store(true, Ordering::SeqCst);
            false
        });
        assert!(!flag.is_cancelled());
        assert!(asked.swap(false, Ordering::SeqCst));
        drop(guard);
        assert!(!flag.is_cancelled());
        assert!(
            !asked.load(Ordering::SeqCst),
            "the probe was asked after its call had returned"
        );
    }

    #[test]
    fn a_cancelled_probe_leaves_the_flag_cancelled_after_the_call() {
        let (flag, guard) = CancelFlag::asking(|| true);
        assert!(flag.is_cancelled());
        drop(guard);
        assert!(flag.is_cancelled());
    }
}
