//! The header of every call: deadline, request id, cancellation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
        Self { timeout, request_id: 0, cancel: CancelFlag::default() }
    }

    /// True once the host has lost interest.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// A flag that the host sets and the backend polls; clones share it.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Asks the call to return soon.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// True after [`cancel`](Self::cancel).
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
