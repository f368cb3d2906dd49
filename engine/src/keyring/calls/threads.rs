//! The threads of one backend, and who gets the next one.

use crate::crypto::wiping_registers;
use crate::keyring::registry::InstanceId;
use crate::storage::commit::lock;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Calls of one backend that run at once.
pub(super) const THREADS_MAX: usize = 32;
/// Calls that never came back, over which no further thread is started.
pub(super) const ABANDONED_MAX: usize = 32;
/// An idle thread ends after this time.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Instances of which it is remembered that their last call came to no answer in time.
const LATE_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Threads {
    state: Mutex<State>,
    /// For idle threads: there is work.
    work: Condvar,
    /// For who waits until all is done.
    done: Condvar,
}

#[derive(Default)]
struct State {
    queues: HashMap<Arc<InstanceId>, Queue>,
    /// Instances for which something waits, in the order of their turns.
    turns: VecDeque<Arc<InstanceId>>,
    /// What runs, by its number, and whether its instance was late when it began. What is left behind is not among it.
    running: HashMap<u64, (Arc<InstanceId>, bool)>,
    next_number: u64,
    threads: usize,
    idle: usize,
    abandoned: usize,
    /// Nothing comes any more: idle threads end.
    closed: bool,
}

/// What one instance has to do and does.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Task>,
    running: usize,
    abandoned: usize,
    /// Its last call came to no answer in time.
    late: bool,
}

struct Task {
    number: u64,
    run: Box<dyn FnOnce() -> Outcome + Send>,
}

/// What a task's end says about its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    /// There was no answer in time.
    Late,
    SaysNothing,
}

/// What became of a task that nobody waits for any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Withdrawn {
    /// It was waiting, and is not done.
    Waiting,
    Begun,
}

/// Why a task is not even put into the queue.
#[derive(Debug)]
pub(super) enum NotStarted {
    NoThread(std::io::Error),
    /// So many of the instance's calls never came back.
    Abandoned(usize),
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoThread(error) => write!(f, "cannot start a thread: {error}"),
            Self::Abandoned(calls) => write!(
                f,
                "{calls} calls of this key never came back, and no more are made; restart the application"
            ),
        }
    }
}

impl Threads {
    /// Has a task done when its turn comes. Returns its number.
    pub(super) fn start(
        self: &Arc<Self>,
        instance: &Arc<InstanceId>,
        run: impl FnOnce() -> Outcome + Send + 'static,
    ) -> Result<u64, NotStarted> {
        let mut state = lock(&self.state);
        let left = ABANDONED_MAX.saturating_sub(state.abandoned);
        let queue = state.queues.entry(Arc::clone(instance)).or_default();
        if queue.abandoned >= left {
            let abandoned = queue.abandoned;
            state.forget_if_idle(instance);
            return Err(NotStarted::Abandoned(abandoned));
        }
        let is_first = queue.waiting.is_empty();
        let number = state.next_number;
        state.next_number += 1;
        state.queue(instance).waiting.push_back(Task {
            number,
            run: Box::new(run),
        });
        if is_first {
            state.turns.push_back(Arc::clone(instance));
        }
        match self.staff(&mut state) {
            Err(error) if state.threads == 0 => {
                let task = state.withdraw(number);
                drop(state);
                // It holds what is the backend's: not dropped under the lock.
                drop(task);
                Err(NotStarted::NoThread(error))
            }
            _ => Ok(number),
        }
    }

    /// Takes back a task that still waits.
    pub(super) fn withdraw(&self, number: u64) -> Withdrawn {
        let task = lock(&self.state).withdraw(number);
        match task {
            Some(_) => Withdrawn::Waiting,
            None => Withdrawn::Begun,
        }
    }

    /// Leaves its thread to a task that does not end. One that has ended is left alone.
    pub(super) fn leave_behind(self: &Arc<Self>, number: u64) {
        let mut state = lock(&self.state);
        let Some((instance, _)) = state.running.remove(&number) else {
            return;
        };
        state.threads -= 1;
        state.abandoned += 1;
        let queue = state.queue(&instance);
        queue.running -= 1;
        queue.abandoned += 1;
        queue.late = true;
        self.staff_or_log(&mut state);
    }

    /// Waits until all is done.
    pub(super) fn settle(&self, at_most: Duration) {
        let state = lock(&self.state);
        drop(self.done.wait_timeout_while(state, at_most, |state| {
            !state.running.is_empty() || (!state.turns.is_empty() && state.threads > 0)
        }));
    }

    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.work.notify_all();
    }

    /// Sees to it that a thread comes for what may begin now. That thread sees to the next one.
    fn staff(self: &Arc<Self>, state: &mut MutexGuard<'_, State>) -> std::io::Result<()> {
        if state.next().is_none() {
            return Ok(());
        }
        if state.idle > 0 {
            self.work.notify_one();
        } else if state.threads < THREADS_MAX && state.abandoned < ABANDONED_MAX {
            let threads = Arc::clone(self);
            std::thread::Builder::new()
                .name("keystead-kms".into())
                .spawn(move || threads.work())?;
            state.threads += 1;
        }
        Ok(())
    }

    fn staff_or_log(self: &Arc<Self>, state: &mut MutexGuard<'_, State>) {
        if let Err(error) = self.staff(state) {
            tracing::warn!(%error, "no further thread for a backend's calls");
        }
    }

    fn work(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        let mut waited_enough = false;
        loop {
            let Some(task) = state.take() else {
                if state.closed || waited_enough {
                    state.threads -= 1;
                    self.done.notify_all();
                    return;
                }
                state.idle += 1;
                let (woken, waited) = self
                    .work
                    .wait_timeout(state, IDLE_MAX)
                    .unwrap_or_else(PoisonError::into_inner);
                state = woken;
                state.idle -= 1;
                waited_enough = waited.timed_out();
                continue;
            };
            waited_enough = false;
            self.staff_or_log(&mut state);
            drop(state);
            let (number, instance) = (task.number, task.instance);
            // A panic of a backend that is linked statically must not cost the pool a thread; its caller sees the channel
            // closed.
            // What passed through here is a key, and this thread now waits.
            let outcome = wiping_registers(|| {
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(task.run))
                    .unwrap_or(Outcome::SaysNothing)
            });
            state = lock(&self.state);
            if !state.ended(number, &instance, outcome) {
                // Somebody may have waited for one that is left behind to come back.
                self.staff_or_log(&mut state);
                return;
            }
            self.done.notify_all();
        }
    }
}

/// A task that begins.
struct Begun {
    number: u64,
    instance: Arc<InstanceId>,
    run: Box<dyn FnOnce() -> Outcome + Send>,
}

impl State {
    fn queue(&mut self, instance: &Arc<InstanceId>) -> &mut Queue {
        self.queues.entry(Arc::clone(instance)).or_default()
    }

    /// The rule: one more thread for who holds fewer than are free.
    fn may_begin(&self, queue: &Queue) -> bool {
        let free = THREADS_MAX.saturating_sub(self.running.len());
        if queue.late {
            let late = self.running.values().filter(|(_, late)| *late).count();
            queue.running == 0 && late < free
        } else {
            queue.running < free
        }
    }

    /// Whose turn it is.
    fn next(&self) -> Option<usize> {
        self.turns.iter().position(|instance| {
            self.queues
                .get(instance)
                .is_some_and(|queue| self.may_begin(queue))
        })
    }

    fn take(&mut self) -> Option<Begun> {
        let instance = self.turns.remove(self.next()?)?;
        let queue = self.queues.get_mut(&instance)?;
        let task = queue.waiting.pop_front()?;
        queue.running += 1;
        let late = queue.late;
        if !queue.waiting.is_empty() {
            self.turns.push_back(Arc::clone(&instance));
        }
        self.running.insert(task.number, (Arc::clone(&instance), late));
        Some(Begun {
            number: task.number,
            instance,
            run: task.run,
        })
    }

    /// Notes that a task ended. False when it had been left behind: its thread ends as well.
    fn ended(&mut self, number: u64, instance: &Arc<InstanceId>, outcome: Outcome) -> bool {
        let was_waited_for = self.running.remove(&number).is_some();
        let queue = self.queue(instance);
        if was_waited_for {
            queue.running -= 1;
            match outcome {
                Outcome::Answered => queue.late = false,
                Outcome::Late => queue.late = true,
                Outcome::SaysNothing => {}
            }
        } else {
            queue.abandoned -= 1;
            self.abandoned -= 1;
        }
        self.forget_if_idle(instance);
        was_waited_for
    }

    fn withdraw(&mut self, number: u64) -> Option<Task> {
        let (instance, place) = self.queues.iter().find_map(|(instance, queue)| {
            let place = queue.waiting.iter().position(|task| task.number == number)?;
            Some((Arc::clone(instance), place))
        })?;
        let queue = self.queue(&instance);
        let task = queue.waiting.remove(place);
        if queue.waiting.is_empty() {
            self.turns.retain(|other| *other != instance);
        }
        self.forget_if_idle(&instance);
        task
    }

    fn forget_if_idle(&mut self, instance: &Arc<InstanceId>) {
        if self
            .queues
            .get(instance)
            .is_some_and(|queue| !queue.late && queue.is_idle())
        {
            self.queues.remove(instance);
        }
        if self.queues.len() > LATE_MAX {
            self.queues.retain(|_, queue| !queue.is_idle());
        }
    }
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running == 0 && self.abandoned == 0
    }
}

#[cfg(test)]
impl Threads {
    /// Threads, and calls that were left behind.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.threads, state.abandoned)
    }

    pub(super) fn waiting(&self) -> usize {
        let state = lock(&self.state);
        state.queues.values().map(|queue| queue.waiting.len()).sum()
    }

    pub(super) fn queues(&self) -> usize {
        lock(&self.state).queues.len()
    }

    pub(super) fn is_done(&self) -> bool {
        let state = lock(&self.state);
        state.running.is_empty() && state.turns.is_empty()
    }
}
