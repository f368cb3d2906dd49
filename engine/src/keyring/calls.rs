//! Calls into backends: on threads of their own for each backend, each with a deadline, none of them at the others' cost.
//!
//! A backend is foreign code: it may take its time, or never come back. A caller waits until the deadline and a moment
//! longer; then the call is interrupted, and if it still does not return, its thread is left to it and the caller gets an
//! error. Whatever such a call holds, it owns: nothing is freed under it. Interrupting and closing are calls of the backend as
//! well: they are errands, for which nobody waits.
//!
//! Keys of many owners share a backend. That the KMS of some hangs must not keep the others waiting, so there is one rule: *an
//! instance gets one more thread while it holds fewer than are free*. Instances whose last call came to no answer in
//! time together count as one, and each is asked by one call at a time (decision 0035).

mod threads;

use crate::env::Env;
use crate::keyring::registry::InstanceId;
use keystead_backend::{BackendError, Call, ErrorCode};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;
use threads::{NotStarted, Outcome, Threads, Withdrawn};

/// What a call may take beyond its deadline before it is interrupted, and again before it is abandoned.
const OVERRUN_MAX: Duration = Duration::from_millis(500);
/// What the end of a store waits for backends that close their instances.
const CLOSING_MAX: Duration = Duration::from_secs(5);

/// The threads that run one backend's calls.
pub(crate) struct CallPool {
    calls: Arc<Threads>,
    /// What nobody waits for: interrupting, closing. On threads of their own, since it is needed most when calls hold all others.
    errands: Arc<Threads>,
    env: Arc<dyn Env>,
}

/// A call that came to no answer.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: BackendError,
    /// The instance was asked. If not, its failure says nothing about the instance.
    pub(crate) begun: bool,
}

impl Failed {
    fn before_it_began(code: ErrorCode, message: String) -> Self {
        Self {
            error: BackendError::new(code, message),
            begun: false,
        }
    }
}

impl From<BackendError> for Failed {
    fn from(error: BackendError) -> Self {
        Self { error, begun: true }
    }
}

/// What a call's thread tells the one who waits for it.
enum News<T> {
    /// It has a thread, and so much time.
    Begun(Duration),
    Answer(Result<T, BackendError>),
}

impl CallPool {
    pub(crate) fn new(env: Arc<dyn Env>) -> Self {
        Self {
            calls: Arc::default(),
            errands: Arc::default(),
            env,
        }
    }

    /// Runs `work` on a thread for `instance` and waits for its answer: at most until the deadline of `call` and a moment
    /// longer. `interrupt` is called when that has passed, as an errand.
    ///
    /// It waits for a thread for at most half of its time, and is given what is left of it: whoever is asked has at least the other
    /// half.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        instance: &Arc<InstanceId>,
        call: Call,
        interrupt: impl FnOnce() + Send + 'static,
        work: impl FnOnce(&Call) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, Failed> {
        self.make(instance, call, Outcome::Answered, interrupt, work)
    }

    /// The same for opening an instance. That need not reach the KMS: when it succeeds, a KMS that was late is so still.
    pub(crate) fn open<T: Send + 'static>(
        &self,
        instance: &Arc<InstanceId>,
        timeout: Duration,
        open: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, Failed> {
        let call = Call::with_timeout(timeout);
        self.make(instance, call, Outcome::SaysNothing, || {}, |_| open())
    }

    fn make<T: Send + 'static>(
        &self,
        instance: &Arc<InstanceId>,
        mut call: Call,
        in_time: Outcome,
        interrupt: impl FnOnce() + Send + 'static,
        work: impl FnOnce(&Call) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, Failed> {
        let timeout = call.timeout;
        if self.env.is_simulation() {
            return self.run_here(timeout, || work(&call));
        }
        let (env, asked) = (Arc::clone(&self.env), self.env.elapsed());
        let cancel = call.cancel.clone();
        let (tell, news) = sync_channel(2);
        let number = self
            .calls
            .start(instance, move || {
                let waited = env.elapsed().saturating_sub(asked).min(timeout / 2);
                call.timeout = timeout - waited;
                // Whoever has left is told in vain.
                let _ = tell.send(News::Begun(call.timeout));
                let answer = work(&call);
                let late = is_timeout(&answer) || call.is_cancelled();
                let _ = tell.send(News::Answer(answer));
                if late { Outcome::Late } else { in_time }
            })
            .map_err(not_started)?;
        // A busy machine needs a moment to start a thread.
        let patience = (timeout / 2).max(OVERRUN_MAX);
        let left = match news.recv_timeout(patience) {
            Ok(News::Begun(left)) => left,
            Err(RecvTimeoutError::Timeout) if self.calls.withdraw(number) == Withdrawn::Waiting => {
                return Err(no_thread(patience));
            }
            // It began just now.
            _ => timeout - timeout / 2,
        };
        if let Some(answer) = wait_for_answer(&news, left.saturating_add(OVERRUN_MAX)) {
            return Ok(as_unasked(answer)?);
        }
        cancel.cancel();
        self.errand(instance, interrupt);
        let answer = wait_for_answer(&news, OVERRUN_MAX).or_else(|| {
            self.calls.leave_behind(number);
            // It may have ended just now.
            wait_for_answer(&news, Duration::ZERO)
        });
        match answer {
            Some(Err(error)) if error.code == ErrorCode::Cancelled => Err(overrun(timeout).into()),
            Some(answer) => Ok(answer?),
            None => Err(overrun(timeout).into()),
        }
    }

    /// Has something done for which nobody waits. In a simulation it is done here.
    pub(crate) fn errand(&self, instance: &Arc<InstanceId>, work: impl FnOnce() + Send + 'static) {
        if self.env.is_simulation() {
            return work();
        }
        let started = self.errands.start(instance, move || {
            work();
            Outcome::SaysNothing
        });
        if let Err(error) = started {
            tracing::error!(%error, "a backend's instance is not interrupted or closed");
        }
    }

    /// Runs `call` on the caller's thread, and holds its deadline against the simulated clock.
    fn run_here<T>(
        &self,
        timeout: Duration,
        call: impl FnOnce() -> Result<T, BackendError>,
    ) -> Result<T, Failed> {
        let began = self.env.elapsed();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        if self.env.elapsed().saturating_sub(began) > timeout.saturating_add(2 * OVERRUN_MAX) {
            return Err(overrun(timeout).into());
        }
        Ok(as_unasked(result.unwrap_or_else(|_| Err(panicked())))?)
    }
}

impl Drop for CallPool {
    fn drop(&mut self) {
        self.calls.close();
        // An application may unload or end what its backends rest on after it closed a store.
        self.errands.settle(CLOSING_MAX);
        self.errands.close();
    }
}

/// The answer, if it comes in time. A backend that panicked has none, and drops its end.
fn wait_for_answer<T>(news: &Receiver<News<T>>, at_most: Duration) -> Option<Result<T, BackendError>> {
    match news.recv_timeout(at_most) {
        Ok(News::Answer(answer)) => Some(answer),
        Ok(News::Begun(_)) => wait_for_answer(news, at_most),
        Err(RecvTimeoutError::Disconnected) => Some(Err(panicked())),
        Err(RecvTimeoutError::Timeout) => None,
    }
}

/// The engine cancels a call whose time is over and no other: one that ends so before was interrupted with its instance, for a
/// neighbour that overran.
fn as_unasked<T>(answer: Result<T, BackendError>) -> Result<T, BackendError> {
    answer.map_err(|error| match error.code {
        ErrorCode::Cancelled => BackendError::new(
            ErrorCode::Unavailable,
            format!(
                "interrupted, since another call of this key did not end: {}",
                error.message
            ),
        ),
        _ => error,
    })
}

fn is_timeout<T>(answer: &Result<T, BackendError>) -> bool {
    matches!(answer, Err(error) if error.code == ErrorCode::Timeout)
}

fn overrun(timeout: Duration) -> BackendError {
    BackendError::new(
        ErrorCode::Timeout,
        format!("no answer within {} ms", timeout.as_millis()),
    )
}

fn no_thread(waited: Duration) -> Failed {
    Failed::before_it_began(
        ErrorCode::Timeout,
        format!(
            "no thread became free for it within {} ms: this KMS, or that of other keys of this backend, does not answer in time",
            waited.as_millis()
        ),
    )
}

fn not_started(not_started: NotStarted) -> Failed {
    Failed::before_it_began(ErrorCode::Unavailable, not_started.to_string())
}

fn panicked() -> BackendError {
    BackendError::new(ErrorCode::Internal, "the backend panicked")
}

#[cfg(test)]
mod tests;
