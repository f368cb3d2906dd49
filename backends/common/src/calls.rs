//! From a synchronous call to the asynchronous SDK and back, within the call's deadline.
//!
//! The future runs on the backend's own thread, and the caller waits on a channel: so a caller that is itself inside
//! of an asynchronous runtime does no harm, and a caller never waits longer than its deadline, whatever the SDK does.

use std::fmt;
use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use keystead_backend::{BackendError, Call, ErrorCode};
use tokio::runtime::{Builder, Runtime};

/// How often a waiting call looks whether it was cancelled or interrupted.
const POLL: Duration = Duration::from_millis(10);

/// Threads for what blocks: name resolution, minting a token, reading a token file. Started when needed.
const BLOCKING_THREADS_MAX: usize = 32;

/// The backend's runtime: one worker thread, started by the first call.
pub struct Calls {
    thread_name: &'static str,
    runtime: OnceLock<Option<Runtime>>,
}

impl Calls {
    /// Nothing is started yet. The worker thread will have this name, at most 15 bytes of which are seen on Linux.
    #[must_use]
    pub fn new(thread_name: &'static str) -> Self {
        Self {
            thread_name,
            runtime: OnceLock::new(),
        }
    }

    /// Runs `work` to its end or to the call's, whichever comes first. `what` leads the message of an error that is
    /// made here, such as "unwrapping with arn:…".
    ///
    /// What `work` returns too late is dropped, and zeroizes if it is a key.
    ///
    /// # Errors
    ///
    /// Those of `work`; [`ErrorCode::Timeout`] and [`ErrorCode::Cancelled`]; [`ErrorCode::Internal`] when `work` panicked or the
    /// worker thread cannot be started.
    #[allow(
        clippy::disallowed_methods,
        reason = "a call's deadline is real time; it decides nothing else"
    )]
    pub fn run<T: Send + 'static>(
        &self,
        call: &Call,
        interrupts: &Interrupts,
        what: &str,
        work: impl Future<Output = Result<T, BackendError>> + Send + 'static,
    ) -> Result<T, BackendError> {
        let started = Instant::now();
        let interrupts_before = interrupts.count();
        let stopped = || call.is_cancelled() || interrupts.count() != interrupts_before;
        let runtime = self.runtime.get_or_init(|| start(self.thread_name)).as_ref().ok_or_else(|| {
            BackendError::new(
                ErrorCode::Internal,
                format!("{what}: the backend's worker thread could not be started; is the process at its limit of threads or open files?"),
            )
        })?;
        let (answer, answered) = sync_channel(1);
        let task = runtime.spawn(async move {
            // A caller that has left is no fault.
            let _ = answer.send(work.await);
        });
        loop {
            if stopped() {
                task.abort();
                return Err(BackendError::new(
                    ErrorCode::Cancelled,
                    format!("{what}: the call was cancelled"),
                ));
            }
            let left = call.timeout.saturating_sub(started.elapsed());
            if left.is_zero() {
                task.abort();
                return Err(BackendError::new(
                    ErrorCode::Timeout,
                    format!(
                        "{what}: no answer within {} ms; try again, or allow the call more time",
                        call.timeout.as_millis()
                    ),
                ));
            }
            match answered.recv_timeout(POLL.min(left)) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(BackendError::new(
                        ErrorCode::Internal,
                        format!("{what}: the KMS's client broke off (it panicked); please report this"),
                    ));
                }
            }
        }
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").finish_non_exhaustive()
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads, and panics inside of another runtime.
        if let Some(Some(runtime)) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn start(thread_name: &str) -> Option<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name(thread_name)
        .enable_all()
        .build()
        .ok()
}

/// How often an instance was interrupted: a call in flight sees the count change.
#[derive(Debug, Default)]
pub struct Interrupts(AtomicU64);

impl Interrupts {
    /// Makes the calls in flight that were given this counter end as cancelled.
    pub fn interrupt(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn forever() -> impl Future<Output = Result<(), BackendError>> + Send + 'static {
        std::future::pending()
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test measures real time")]
    fn a_call_that_gets_no_answer_ends_at_its_deadline() {
        let started = Instant::now();
        let call = Call::with_timeout(Duration::from_millis(80));
        let error = Calls::new("keystead-test")
            .run(&call, &Interrupts::default(), "unwrapping", forever())
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::Timeout);
        assert!(
            started.elapsed() >= Duration::from_millis(80),
            "{:?}",
            started.elapsed()
        );
        assert!(
            started.elapsed() < Duration::from_millis(1000),
            "{:?}",
            started.elapsed()
        );
    }

    #[test]
    fn cancelling_ends_a_call_in_flight() {
        let call = Call::with_timeout(Duration::from_secs(60));
        let flag = call.cancel.clone();
        let canceller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            flag.cancel();
        });
        let error = Calls::new("keystead-test")
            .run(&call, &Interrupts::default(), "unwrapping", forever())
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::Cancelled);
        canceller.join().unwrap();
    }

    #[test]
    fn an_interrupt_ends_calls_in_flight_and_not_later_ones() {
        let (calls, interrupts) = (Calls::new("keystead-test"), Arc::new(Interrupts::default()));
        let call = Call::with_timeout(Duration::from_secs(60));
        let interrupter = std::thread::spawn({
            let interrupts = Arc::clone(&interrupts);
            move || {
                std::thread::sleep(Duration::from_millis(30));
                interrupts.interrupt();
            }
        });
        assert_eq!(
            calls
                .run(&call, &interrupts, "unwrapping", forever())
                .unwrap_err()
                .code,
            ErrorCode::Cancelled
        );
        interrupter.join().unwrap();
        assert_eq!(
            calls
                .run(&call, &interrupts, "unwrapping", async { Ok(7) })
                .unwrap(),
            7
        );
    }

    #[test]
    fn a_panic_in_the_work_is_an_error_and_the_next_call_goes_on() {
        let (calls, interrupts) = (Calls::new("keystead-test"), Interrupts::default());
        let call = Call::with_timeout(Duration::from_secs(60));
        let broken = async { if true { panic!("on purpose") } else { Ok(()) } };
        assert_eq!(
            calls
                .run(&call, &interrupts, "unwrapping", broken)
                .unwrap_err()
                .code,
            ErrorCode::Internal
        );
        assert_eq!(
            calls
                .run(&call, &interrupts, "unwrapping", async { Ok(7) })
                .unwrap(),
            7
        );
    }

    #[test]
    fn a_call_from_inside_of_another_runtime_does_no_harm() {
        let outer = Builder::new_current_thread().build().unwrap();
        outer.block_on(async {
            let calls = Calls::new("keystead-test");
            let call = Call::with_timeout(Duration::from_secs(60));
            assert_eq!(
                calls
                    .run(&call, &Interrupts::default(), "unwrapping", async { Ok(7) })
                    .unwrap(),
                7
            );
        });
    }
}
