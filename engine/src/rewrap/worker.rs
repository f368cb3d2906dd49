//! The threads that do re-wrap jobs in the background: a small pool for all organizations of the store, one step at a time
//! in turn, so that a large organization does not keep the others waiting.

use crate::audit::Attribution;
use crate::env::Env;
use crate::keyring::kms::backoff;
use crate::names::{OrganizationId, OrganizationName};
use crate::rewrap::step::{self, Step};
use crate::scope::{Core, Scope};
use crate::storage::commit::lock;
use crate::storage::records::RewrapJobRecord;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Jobs that are worked on at once.
const THREADS_MAX: usize = 2;
/// What a blocked job waits before it is tried again; doubles up to a minute.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// The pool. Its threads begin with the first job and end when there is nothing to do.
pub(crate) struct Workers {
    state: Mutex<State>,
    changed: Condvar,
    /// Counts batches and changes of jobs, for those who wait for one.
    moved: Mutex<u64>,
    moved_on: Condvar,
    env: Arc<dyn Env>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    threads: usize,
    stop: bool,
    /// For the rates of the jobs that run.
    seen: HashMap<OrganizationId, FirstSeen>,
}

/// When this process first saw a job, and what it had done by then.
struct FirstSeen {
    job: u64,
    at: Duration,
    done: u64,
}

struct Work {
    org: OrganizationId,
    name: OrganizationName,
    due: Duration,
    attempt: u32,
}

impl Workers {
    pub(crate) fn new(env: Arc<dyn Env>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            moved: Mutex::default(),
            moved_on: Condvar::new(),
            env,
        })
    }

    /// Has the organization's job done, now: also one that waits after an obstacle.
    pub(crate) fn wake(self: &Arc<Self>, core: &Arc<Core>, org: OrganizationId, name: &OrganizationName) {
        let mut state = lock(&self.state);
        if state.stop {
            return;
        }
        state.queue.retain(|work| work.org != org);
        state.queue.push_back(Work {
            org,
            name: name.clone(),
            due: Duration::ZERO,
            attempt: 0,
        });
        if state.threads < THREADS_MAX {
            let (workers, core) = (Arc::clone(self), Arc::downgrade(core));
            let run = move || {
                // Whatever panics, the thread is counted out: closing the store waits for it.
                if catch_unwind(AssertUnwindSafe(|| workers.work(&core))).is_err() {
                    workers.leave(&mut lock(&workers.state));
                }
            };
            let spawned = std::thread::Builder::new()
                .name("keystead-rewrap".into())
                .spawn(run);
            match spawned {
                Ok(_) => state.threads += 1,
                Err(error) => tracing::error!(%error, "no thread for re-wrapping; open the store again"),
            }
        }
        self.changed.notify_one();
    }

    pub(crate) fn stop(&self) {
        let mut state = lock(&self.state);
        state.stop = true;
        state.queue.clear();
        self.changed.notify_all();
        drop(state);
        self.tell();
    }

    /// Waits until no thread works any more.
    pub(crate) fn join(&self) {
        let mut state = lock(&self.state);
        while state.threads > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many times any job has moved.
    pub(crate) fn moves(&self) -> u64 {
        *lock(&self.moved)
    }

    /// Waits until a job has moved beyond `seen`, or `at_most` has passed.
    pub(crate) fn wait_beyond(&self, seen: u64, at_most: Duration) {
        let moved = lock(&self.moved);
        if *moved == seen {
            drop(
                self.moved_on
                    .wait_timeout(moved, at_most)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }

    pub(crate) fn tell(&self) {
        *lock(&self.moved) += 1;
        self.moved_on.notify_all();
    }

    /// Data keys a second since this process first saw the job; 0 for one that is finished.
    pub(crate) fn rate(&self, org: OrganizationId, job: &RewrapJobRecord) -> f64 {
        let now = self.env.elapsed();
        let mut state = lock(&self.state);
        if state.seen.get(&org).is_some_and(|seen| seen.job != job.number) {
            state.seen.remove(&org);
        }
        if job.finished_at_ms.is_some() {
            state.seen.remove(&org);
            return 0.0;
        }
        let (at, done) = (now, job.done);
        let first = FirstSeen {
            job: job.number,
            at,
            done,
        };
        let seen = state.seen.entry(org).or_insert(first);
        let seconds = now.saturating_sub(seen.at).as_secs_f64();
        if seconds > 0.0 {
            job.done.saturating_sub(seen.done) as f64 / seconds
        } else {
            0.0
        }
    }

    fn work(&self, core: &Weak<Core>) {
        while let Some(mut work) = self.next() {
            let Some(core) = core.upgrade() else {
                self.leave(&mut lock(&self.state));
                break;
            };
            let env = Arc::clone(&core.env);
            let scope = Scope {
                core,
                org: work.org,
                organization: work.name.clone(),
                by: Arc::new(Attribution::default()),
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| step::step(&scope, &|| self.tell())));
            let outcome = outcome.unwrap_or_else(|_| step::note_panic(&scope));
            drop(scope);
            let mut state = lock(&self.state);
            match outcome {
                Ok(Step::Progress) => {
                    work.attempt = 0;
                    work.due = Duration::ZERO;
                    put_back(&mut state, work);
                }
                Ok(Step::Finished) => {
                    state.seen.remove(&work.org);
                }
                Ok(Step::Blocked(reason)) => {
                    tracing::warn!(organization = %work.name, reason, "a re-wrap job waits");
                    wait_and_put_back(&mut state, work, &*env);
                }
                Err(error) => {
                    tracing::error!(organization = %work.name, %error, "a re-wrap job failed; it tries again");
                    wait_and_put_back(&mut state, work, &*env);
                }
            }
            drop(state);
            self.tell();
        }
    }

    /// A thread ends. It is counted out under the lock under which it found nothing to do, so that whoever brings work
    /// next starts another one.
    fn leave(&self, state: &mut State) {
        state.threads -= 1;
        self.changed.notify_all();
    }

    /// The next job that is due; waits for one. `None`: stop.
    fn next(&self) -> Option<Work> {
        let mut state = lock(&self.state);
        loop {
            if state.stop || state.queue.is_empty() {
                self.leave(&mut state);
                return None;
            }
            let now = self.env.elapsed();
            if let Some(index) = state.queue.iter().position(|work| work.due <= now) {
                return state.queue.remove(index);
            }
            let soonest = state.queue.iter().map(|work| work.due).min().unwrap_or(now);
            let wait = soonest.saturating_sub(now);
            state = self
                .changed
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

fn wait_and_put_back(state: &mut State, mut work: Work, env: &dyn Env) {
    work.attempt += 1;
    work.due = env.elapsed() + backoff(env, RETRY_FIRST, work.attempt, None);
    put_back(state, work);
}

/// Unless somebody woke the job meanwhile.
fn put_back(state: &mut State, work: Work) {
    if !state.stop && !state.queue.iter().any(|other| other.org == work.org) {
        state.queue.push_back(work);
    }
}
