//! One key behind the shim.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keystead_backend::{
    BackendError, Call, Context, ErrorCode, Host, KeyInstance, LockedBytes, Status, Wrapped,
};

use crate::Behind;
use crate::script;

/// How often a delayed call looks whether it was cancelled.
const POLL: Duration = Duration::from_millis(5);

pub(crate) struct ShimmedKey {
    behind: Arc<Behind>,
    key: Box<dyn KeyInstance>,
    host: Arc<dyn Host>,
    interrupts: AtomicU64,
}

impl ShimmedKey {
    pub(crate) fn new(behind: Arc<Behind>, key: Box<dyn KeyInstance>, host: Arc<dyn Host>) -> Self {
        Self {
            behind,
            key,
            host,
            interrupts: AtomicU64::new(0),
        }
    }

    /// Does to a call what the script says, and passes it on if it says nothing else.
    #[allow(
        clippy::disallowed_methods,
        reason = "a call's deadline is real time; it decides nothing else"
    )]
    fn pass<T>(
        &self,
        kind: script::Call,
        call: &Call,
        ask: impl FnOnce(&dyn KeyInstance, &Call) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let (began, interrupts) = (Instant::now(), self.interrupts.load(Ordering::SeqCst));
        let met = self.behind.script.meet(kind);
        met.tell(&*self.host);
        let error = |code, what: &str| {
            Err(BackendError::new(
                code,
                format!("a delayed {}: {what}", kind.name()),
            ))
        };
        while began.elapsed() < met.delay {
            if call.is_cancelled() || self.interrupts.load(Ordering::SeqCst) != interrupts {
                return error(ErrorCode::Cancelled, "the call was cancelled");
            }
            let left = call.timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                return error(ErrorCode::Timeout, "its time is over");
            }
            std::thread::sleep(POLL.min(left).min(met.delay.saturating_sub(began.elapsed())));
        }
        if let Some(error) = met.refusal() {
            return Err(error);
        }
        let call = Call {
            timeout: call.timeout.saturating_sub(met.delay.min(began.elapsed())),
            ..call.clone()
        };
        let answer = ask(&*self.key, &call)?;
        match met.loss() {
            Some(error) => Err(error),
            None => Ok(answer),
        }
    }
}

impl KeyInstance for ShimmedKey {
    fn status(&self, call: &Call) -> Result<Status, BackendError> {
        self.pass(script::Call::Status, call, |key, call| key.status(call))
    }

    fn wrap(&self, call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        self.pass(script::Call::Wrap, call, |key, call| {
            key.wrap(call, context, plaintext)
        })
    }

    fn unwrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes, BackendError> {
        self.pass(script::Call::Unwrap, call, |key, call| {
            key.unwrap(call, context, wrapped)
        })
    }

    fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::SeqCst);
        self.key.interrupt();
    }
}
