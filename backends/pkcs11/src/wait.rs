//! A call's deadline, for what waits here: a session, a lock. A function of PKCS#11 itself knows no deadline and cannot
//! be called off.

use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use keystead_backend::{BackendError, Call, ErrorCode};

use crate::failure::Doing;

/// How often a waiting call looks again.
const POLL: Duration = Duration::from_millis(2);

pub(crate) struct Wait<'a> {
    call: &'a Call,
    started: Instant,
    pub(crate) doing: Doing<'a>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "a call's deadline is real time; it decides nothing else"
)]
impl<'a> Wait<'a> {
    pub(crate) fn new(call: &'a Call, doing: Doing<'a>) -> Self {
        Self {
            call,
            started: Instant::now(),
            doing,
        }
    }

    /// Asked before each thing that takes long.
    pub(crate) fn check(&self, before: &str) -> Result<(), BackendError> {
        if self.call.is_cancelled() {
            return Err(BackendError::new(
                ErrorCode::Cancelled,
                format!("{}: the call was cancelled", self.doing.what()),
            ));
        }
        if self.started.elapsed() >= self.call.timeout {
            return Err(self.doing.failed(
                ErrorCode::Timeout,
                format!(
                    "the time of the call, {} ms, was over before {before}",
                    self.call.timeout.as_millis()
                ),
            ));
        }
        Ok(())
    }

    pub(crate) fn pause(&self, before: &str) -> Result<(), BackendError> {
        self.check(before)?;
        std::thread::sleep(POLL);
        Ok(())
    }

    /// A lock under which another call may be inside of the token's library.
    pub(crate) fn lock<'m, T>(
        &self,
        mutex: &'m Mutex<T>,
        before: &str,
    ) -> Result<MutexGuard<'m, T>, BackendError> {
        loop {
            match mutex.try_lock() {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => self.pause(before)?,
            }
        }
    }
}
