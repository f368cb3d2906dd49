//! From a synchronous call to the asynchronous SDK and back, within the call's deadline.
//!
//! The future runs on the backend's own thread, and the caller waits on a channel: so a caller that is itself inside
//! of an asynchronous runtime does no harm, and a caller never waits longer than its deadline, whatever the SDK does.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use keystead_backend::{BackendError, Call, CancelFlag, ErrorCode};
use tokio::runtime::{Builder, Handle, Runtime};

/// How often a waiting call looks whether it was cancelled or interrupted.
const POLL: Duration = Duration::from_millis(10);

/// Threads for what blocks: name resolution, minting a token, reading a token file. Started when needed.
const BLOCKING_THREADS_MAX: usize = 32;

/// The backend's runtime: one worker thread, started by the first call; by a later one where it cannot be.
pub struct Calls {
    thread_name: &'static str,
    runtime: Mutex<Option<Runtime>>,
    start: Start,
}

type Start = fn(&str) -> std::io::Result<Runtime>;

impl Calls {
    /// Nothing is started yet. The worker thread will have this name, at most 15 bytes of which are seen on Linux.
    #[must_use]
    pub fn new(thread_name: &'static str) -> Self {
        Self {
            thread_name,
            runtime: Mutex::default(),
            start,
        }
    }

    /// Runs `work` to its end or to the call's, whichever comes first. `what` leads the message of an error that is
    /// made here, such as "unwrapping with arn:…".
    ///
    /// What `work` returns too late is dropped, and zeroizes if it is a key.
    ///
    /// # Errors
    ///
    /// Those of `work`; [`ErrorCode::Timeout`] and [`ErrorCode::Cancelled`]; [`ErrorCode::Internal`] when `work` panicked;
    /// [`ErrorCode::Unavailable`] when the worker thread cannot be started now.
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
        let runtime = self.runtime().map_err(|error| {
            BackendError::new(
                ErrorCode::Unavailable,
                format!(
                    "{what}: the backend's worker thread could not be started ({error}); is the process at its limit of \
                     threads or open files?"
                ),
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
                return Err(no_answer(what, call.timeout));
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

impl Calls {
    /// The runtime, started now if there is none: what kept an earlier call from it may be over.
    fn runtime(&self) -> std::io::Result<Handle> {
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(started) = &*runtime {
            return Ok(started.handle().clone());
        }
        let started = (self.start)(self.thread_name)?;
        Ok(runtime.insert(started).handle().clone())
    }

    /// Runs `work` that blocks, on a thread of its own, to its end or to the call's, whichever comes first. `what` leads the
    /// message of an error that is made here.
    ///
    /// The caller leaves at its deadline in any case; `work` learns of that by its [`Remaining`] and has to end by itself, so
    /// every wait in it has a limit. At most 32 run at once; the next ones wait for a thread.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub fn run_blocking<T: Send + 'static>(
        &self,
        call: &Call,
        interrupts: &Interrupts,
        what: &str,
        work: impl FnOnce(&Remaining) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let remaining = Remaining::new(call.timeout);
        let (theirs, doing, timeout) = (remaining.clone(), what.to_owned(), call.timeout);
        let result = self.run(call, interrupts, what, async move {
            let begun_for = doing.clone();
            let ended = tokio::task::spawn_blocking(move || {
                theirs.begin(&begun_for, timeout)?;
                work(&theirs)
            });
            ended.await.unwrap_or_else(|_| {
                Err(BackendError::new(
                    ErrorCode::Internal,
                    format!("{doing}: the KMS's client broke off (it panicked); please report this"),
                ))
            })
        });
        remaining.caller_left.cancel();
        result
    }
}

fn no_answer(what: &str, timeout: Duration) -> BackendError {
    BackendError::new(
        ErrorCode::Timeout,
        format!(
            "{what}: no answer within {} ms; try again, or allow the call more time",
            timeout.as_millis()
        ),
    )
}

/// How long somebody still waits for work that blocks.
#[derive(Debug, Clone)]
pub struct Remaining {
    deadline: Instant,
    caller_left: CancelFlag,
}

impl Remaining {
    /// For work of so much time, begun now.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "a call's deadline is real time; it decides nothing else"
    )]
    pub fn new(time: Duration) -> Self {
        // A deadline beyond what the clock can say is no deadline; a day is as good.
        let now = Instant::now();
        let deadline = now
            .checked_add(time)
            .unwrap_or_else(|| now + Duration::from_secs(24 * 60 * 60));
        Self {
            deadline,
            caller_left: CancelFlag::default(),
        }
    }

    /// The time that is left; none once the caller has gone.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "a call's deadline is real time; it decides nothing else"
    )]
    pub fn time(&self) -> Duration {
        if self.caller_left.is_cancelled() {
            return Duration::ZERO;
        }
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Refuses work whose time, `timeout`, was over before a thread was there for it. The caller may hear of this before it sees the
    /// deadline itself, and must hear the same.
    fn begin(&self, what: &str, timeout: Duration) -> Result<(), BackendError> {
        if self.is_over() {
            return Err(no_answer(what, timeout));
        }
        Ok(())
    }

    /// True when nobody waits any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.time().is_zero()
    }

    /// Sleeps for so long, or until nobody waits any more. True when somebody still does.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "a wait within a call is real time; it decides nothing else"
    )]
    pub fn sleep(&self, time: Duration) -> bool {
        let started = Instant::now();
        loop {
            let left = time.saturating_sub(started.elapsed()).min(self.time());
            if left.is_zero() {
                return !self.is_over();
            }
            std::thread::sleep(left.min(POLL));
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
        let runtime = self.runtime.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn start(thread_name: &str) -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name(thread_name)
        .enable_all()
        .build()
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
            started.elapsed() < Duration::from_secs(20),
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
        let (calls, interrupts) = (Calls::new("keystead-test"), Interrupts::default());
        let call = Call::with_timeout(Duration::from_secs(60));
        std::thread::scope(|threads| {
            let running = threads.spawn(|| calls.run(&call, &interrupts, "unwrapping", forever()));
            // Again and again: one that comes before the call has begun is not for it.
            while !running.is_finished() {
                std::thread::sleep(Duration::from_millis(30));
                interrupts.interrupt();
            }
            assert_eq!(running.join().unwrap().unwrap_err().code, ErrorCode::Cancelled);
        });
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
    fn work_that_blocks_is_left_at_the_deadline_and_learns_that_nobody_waits() {
        let (calls, interrupts) = (Calls::new("keystead-test"), Interrupts::default());
        let ask = || {
            let (told, tells) = std::sync::mpsc::channel();
            let (left, is_left) = std::sync::mpsc::channel::<()>();
            let call = Call::with_timeout(Duration::from_millis(60));
            let error = calls
                .run_blocking(&call, &interrupts, "unwrapping", move |remaining| {
                    let waited_for = remaining.sleep(Duration::from_secs(60));
                    // It ends after the caller has gone: at the deadline itself either of the two may be the first, and then the
                    // call has an answer.
                    let _ = is_left.recv_timeout(Duration::from_secs(10));
                    told.send((waited_for, remaining.is_over())).unwrap();
                    Ok(())
                })
                .unwrap_err();
            drop(left);
            assert_eq!(error.code, ErrorCode::Timeout);
            match tells.recv_timeout(Duration::from_secs(50)) {
                Ok(told) => Some(told),
                // No thread was there for it in time, so it was not begun, and tells nothing.
                Err(RecvTimeoutError::Disconnected) => None,
                Err(RecvTimeoutError::Timeout) => panic!("it does not learn that nobody waits"),
            }
        };
        let told = (0..50).find_map(|_| ask()).expect("it began once");
        assert_eq!(told, (false, true));
    }

    /// A call with 1 ms came back as cancelled, which it was not, when its thread began a moment before its caller looked at the clock.
    #[test]
    fn work_that_begins_too_late_is_a_timeout_and_not_a_cancellation() {
        let error = Remaining::new(Duration::ZERO)
            .begin("wrapping", Duration::from_millis(1))
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::Timeout);
        assert!(
            error.message.contains("wrapping: no answer within 1 ms"),
            "{error}"
        );
    }

    #[test]
    fn work_that_blocks_learns_of_an_interrupt() {
        let (calls, interrupts) = (Calls::new("keystead-test"), Interrupts::default());
        let (told, tells) = std::sync::mpsc::channel();
        let (left, is_left) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let call = Call::with_timeout(Duration::from_secs(60));
            let (calls, interrupts) = (&calls, &interrupts);
            let running = scope.spawn(move || {
                calls.run_blocking(&call, interrupts, "unwrapping", move |remaining| {
                    told.send(true).unwrap();
                    told.send(remaining.sleep(Duration::from_secs(60))).unwrap();
                    // It ends after the caller has gone, as above.
                    let _ = is_left.recv_timeout(Duration::from_secs(10));
                    Ok(())
                })
            });
            assert!(tells.recv_timeout(Duration::from_secs(10)).unwrap());
            interrupts.interrupt();
            assert!(!tells.recv_timeout(Duration::from_secs(10)).unwrap());
            assert_eq!(running.join().unwrap().unwrap_err().code, ErrorCode::Cancelled);
            drop(left);
        });
    }

    #[test]
    fn a_panic_in_work_that_blocks_is_an_error() {
        let (calls, interrupts) = (Calls::new("keystead-test"), Interrupts::default());
        let call = Call::with_timeout(Duration::from_secs(60));
        let error = calls
            .run_blocking(&call, &interrupts, "unwrapping", |_| {
                if true { panic!("on purpose") } else { Ok(()) }
            })
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::Internal);
        assert!(error.message.contains("unwrapping"), "{error}");
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

    /// The failure was remembered for the life of the process, and read as a fault of the backend.
    #[test]
    fn a_worker_thread_that_cannot_be_started_is_an_outage_and_the_next_call_tries_again() {
        static TRIES: AtomicU64 = AtomicU64::new(0);
        let mut calls = Calls::new("keystead-test");
        calls.start = |name| match TRIES.fetch_add(1, Ordering::SeqCst) {
            0 => Err(std::io::Error::other("too many open files, says a test")),
            _ => start(name),
        };
        let ask = || {
            let call = Call::with_timeout(Duration::from_secs(60));
            calls.run(&call, &Interrupts::default(), "unwrapping", async { Ok(7) })
        };
        let error = ask().unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(error.message.contains("too many open files"), "{error}");
        assert_eq!(ask().unwrap(), 7);
        assert_eq!(ask().unwrap(), 7);
        assert_eq!(TRIES.load(Ordering::SeqCst), 2, "it is started once");
    }
}
