//! Calls into backends: on a small pool of threads for each backend, each with a deadline.
//!
//! A backend is foreign code: it may take its time, or never come back. A caller waits until the deadline and a moment
//! longer; then the call is interrupted, and if it still does not return, its thread is left to it and the caller gets an
//! error. Whatever such a call holds, it owns: nothing is freed under it.

use crate::crypto::wiping_registers;
use crate::env::Env;
use keystead_backend::{BackendError, CancelFlag, ErrorCode};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Calls of one backend that run at once.
const THREADS_MAX: usize = 8;
/// Calls that never came back, over which no further thread is started.
const ABANDONED_MAX: usize = 32;
/// An idle thread ends after this time.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// What a call may take beyond its deadline before it is interrupted, and again before it is abandoned.
const OVERRUN_MAX: Duration = Duration::from_millis(500);

/// The threads that run one backend's calls.
pub(crate) struct CallPool {
    shared: Arc<Shared>,
    env: Arc<dyn Env>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    threads: usize,
    idle: usize,
    abandoned: usize,
    /// The pool is gone: idle threads end.
    closed: bool,
}

struct Task {
    run: Box<dyn FnOnce() + Send>,
    fate: Arc<Fate>,
}

#[derive(Default)]
struct Fate {
    begun: AtomicBool,
    /// Nobody waits any more: not begun, it is skipped; begun, its thread ends when it returns.
    abandoned: AtomicBool,
}

impl CallPool {
    pub(crate) fn new(env: Arc<dyn Env>) -> Self {
        Self {
            shared: Arc::default(),
            env,
        }
    }

    /// Runs `call` on a thread of the pool and waits for its answer until `timeout` and a moment longer. `interrupt` is
    /// called when that has passed.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        timeout: Duration,
        cancel: &CancelFlag,
        interrupt: impl FnOnce(),
        call: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        if self.env.is_simulation() {
            return self.run_here(timeout, call);
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let fate = self.start(move || drop(answer.send(call())))?;
        match answered.recv_timeout(timeout + OVERRUN_MAX) {
            Ok(result) => return result,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(panicked()),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        cancel.cancel();
        interrupt();
        match answered.recv_timeout(OVERRUN_MAX) {
            Ok(result) => result,
            Err(_) => {
                self.abandon(&fate);
                Err(overrun(timeout))
            }
        }
    }

    /// Runs `call` on the caller's thread, and holds its deadline against the simulated clock.
    fn run_here<T>(
        &self,
        timeout: Duration,
        call: impl FnOnce() -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let began = self.env.elapsed();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        if self.env.elapsed() - began > timeout + 2 * OVERRUN_MAX {
            return Err(overrun(timeout));
        }
        result.unwrap_or_else(|_| Err(panicked()))
    }

    fn start(&self, run: impl FnOnce() + Send + 'static) -> Result<Arc<Fate>, BackendError> {
        let fate = Arc::new(Fate::default());
        let mut state = self.shared.lock();
        state.tasks.push_back(Task {
            run: Box::new(run),
            fate: Arc::clone(&fate),
        });
        if state.idle >= state.tasks.len() {
            self.shared.work.notify_one();
        } else if state.threads < THREADS_MAX && state.abandoned < ABANDONED_MAX {
            let shared = Arc::clone(&self.shared);
            let spawned = std::thread::Builder::new()
                .name("keystead-kms".into())
                .spawn(move || work(&shared));
            match spawned {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    state.tasks.pop_back();
                    return Err(BackendError::new(
                        ErrorCode::Internal,
                        format!("cannot start a thread: {error}"),
                    ));
                }
                Err(_) => {}
            }
        } else if state.threads == 0 {
            state.tasks.pop_back();
            return Err(BackendError::new(
                ErrorCode::Unavailable,
                format!("{ABANDONED_MAX} calls to this backend never came back; restart the application"),
            ));
        }
        Ok(fate)
    }

    fn abandon(&self, fate: &Fate) {
        let mut state = self.shared.lock();
        fate.abandoned.store(true, Ordering::SeqCst);
        if fate.begun.load(Ordering::SeqCst) {
            state.threads -= 1;
            state.abandoned += 1;
        }
    }
}

impl Drop for CallPool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
    }
}

fn overrun(timeout: Duration) -> BackendError {
    BackendError::new(
        ErrorCode::Timeout,
        format!("no answer within {} ms", timeout.as_millis()),
    )
}

fn panicked() -> BackendError {
    BackendError::new(ErrorCode::Internal, "the backend panicked")
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        let Some(task) = state.tasks.pop_front() else {
            if state.closed {
                state.threads -= 1;
                return;
            }
            state.idle += 1;
            let (woken, timeout) = shared
                .work
                .wait_timeout(state, IDLE_MAX)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.tasks.is_empty() {
                state.threads -= 1;
                return;
            }
            continue;
        };
        if task.fate.abandoned.load(Ordering::SeqCst) {
            continue;
        }
        task.fate.begun.store(true, Ordering::SeqCst);
        drop(state);
        // A panic of a backend that is linked statically must not cost the pool a thread; its caller sees the channel
        // closed.
        // What passed through here is a key, and this thread now waits.
        drop(wiping_registers(|| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(task.run))
        }));
        state = shared.lock();
        if task.fate.abandoned.load(Ordering::SeqCst) {
            state.abandoned -= 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_never_returns_costs_its_caller_the_deadline_and_nobody_else_anything() {
        let pool = CallPool::new(Arc::new(crate::SystemEnv::default()));
        let (release, held) = mpsc::channel::<()>();
        let interrupted = AtomicBool::new(false);
        let cancel = CancelFlag::default();
        let error = pool
            .run(
                Duration::from_millis(20),
                &cancel,
                || interrupted.store(true, Ordering::SeqCst),
                move || {
                    held.recv().ok();
                    Ok(())
                },
            )
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::Timeout);
        assert!(interrupted.load(Ordering::SeqCst) && cancel.is_cancelled());
        let second = pool
            .run(Duration::from_secs(5), &CancelFlag::default(), || {}, || Ok(7))
            .unwrap();
        assert_eq!(second, 7);
        drop(release);
    }

    /// Idle threads used to stay for ten seconds after their store was gone; an application that opens and closes many had
    /// thousands of them.
    #[test]
    fn the_threads_of_a_pool_that_is_gone_end() {
        let pool = CallPool::new(Arc::new(crate::SystemEnv::default()));
        pool.run(Duration::from_secs(5), &CancelFlag::default(), || {}, || Ok(()))
            .unwrap();
        let shared = Arc::clone(&pool.shared);
        drop(pool);
        while shared.lock().threads > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_backend_that_panics_is_an_error_and_the_pool_goes_on() {
        let pool = CallPool::new(Arc::new(crate::SystemEnv::default()));
        let error = pool
            .run::<()>(
                Duration::from_secs(5),
                &CancelFlag::default(),
                || {},
                || panic!("a planted panic"),
            )
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::Internal);
        for n in 0..20 {
            assert_eq!(
                pool.run(
                    Duration::from_secs(5),
                    &CancelFlag::default(),
                    || {},
                    move || Ok(n)
                )
                .unwrap(),
                n
            );
        }
    }
}
