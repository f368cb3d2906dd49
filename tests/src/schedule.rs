//! Several threads under one schedule: one of them goes on at a time, and at each of its looks at the clock, the randomness and
//! the disk the dice say who goes on next.
//!
//! Threads that share locks cannot be stopped just anywhere: who has the turn may wait for what another one holds. No lock of the
//! engine, of redb or of the standard library has to know of this: the kernel says which thread sleeps
//! (`/proc/self/task/…/stat`). One that sleeps and is at none of these looks waits for a lock; the turn goes to another one, and
//! nothing is decided while a thread that was let go is still on its way to its next look. So the same seed gives the same schedule.

#![allow(
    clippy::disallowed_methods,
    reason = "whether a thread sleeps is asked in real time; what is decided does not depend on it"
)]

use crate::disk::SimulatedDisk;
use crate::env::{Dice, SimulatedEnv};
use keystead::Env;
use keystead::simulation::Disk;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long who waits for the turn leaves its holder alone before it looks whether that one sleeps.
const LOOK: Duration = Duration::from_micros(300);
/// Between two looks at a thread; one that sleeps at both is asleep.
const NAP: Duration = Duration::from_micros(60);
/// All threads wait for each other when nothing has happened for so long.
const PATIENCE: Duration = Duration::from_secs(60);

thread_local! {
    static SELF: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Where a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Under way: it has the turn, or waits for a lock, or was just let go by one.
    Running,
    /// At a look, waiting for its turn.
    Waiting,
    Ended,
}

struct Thread {
    place: Place,
    /// Its line in `/proc`; empty until it begins.
    stat: PathBuf,
    /// How many looks it has come to.
    looks: u64,
}

struct State {
    dice: Dice,
    switch_one_in: u64,
    threads: Vec<Thread>,
    turn: usize,
    trace: blake3::Hasher,
    switches: u64,
    last_look: Instant,
}

/// Who of several threads goes on.
pub struct Schedule {
    state: Mutex<State>,
    changed: Condvar,
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schedule")
    }
}

impl Schedule {
    /// A schedule for so many threads.
    #[must_use]
    pub fn new(threads: usize, mut dice: Dice) -> Arc<Self> {
        let switch_one_in = *dice.choose(&[1, 2, 3, 8, 30]);
        let turn = dice.below(threads as u64) as usize;
        let thread = || Thread {
            place: Place::Running,
            stat: PathBuf::new(),
            looks: 0,
        };
        Arc::new(Self {
            state: Mutex::new(State {
                dice,
                switch_one_in,
                threads: (0..threads).map(|_| thread()).collect(),
                turn,
                trace: blake3::Hasher::new(),
                switches: 0,
                last_look: Instant::now(),
            }),
            changed: Condvar::new(),
        })
    }

    /// Does `work` as thread number `index`, in turns with the others. To be called by a thread of its own.
    pub fn run<T>(&self, index: usize, work: impl FnOnce() -> T) -> T {
        /// Ends the thread's part also when it panics: the others go on.
        struct Part<'s>(&'s Schedule, usize);
        impl Drop for Part<'_> {
            fn drop(&mut self) {
                self.0.end(self.1);
            }
        }
        let task = std::fs::read_link("/proc/thread-self").unwrap_or_default();
        self.lock().threads[index].stat = PathBuf::from("/proc").join(task).join("stat");
        SELF.set(Some(index));
        let part = Part(self, index);
        self.look(b'b');
        let outcome = work();
        drop(part);
        outcome
    }

    /// A moment of the calling thread's own at which another one may go on, such as between two calls.
    pub fn pause(&self) {
        self.look(b'p');
    }

    /// Who went on when, as a hash; and how often it was another one than before.
    #[must_use]
    pub fn trace(&self) -> (blake3::Hash, u64) {
        let state = self.lock();
        (state.trace.finalize(), state.switches)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread looks at something, `what`. Nothing happens for a thread that is not under the schedule.
    fn look(&self, what: u8) {
        let Some(index) = SELF.get() else { return };
        let mut state = self.lock();
        state.last_look = Instant::now();
        let thread = &mut state.threads[index];
        (thread.place, thread.looks) = (Place::Waiting, thread.looks + 1);
        if state.turn == index {
            state = self.decide(state);
        }
        while state.turn != index {
            let holder = state.turn;
            let looks = state.threads[holder].looks;
            match state.threads[holder].place {
                // Chosen, and about to wake up.
                Place::Waiting => state = self.wait(state),
                Place::Ended => state = self.decide(state),
                Place::Running => {
                    let stat = state.threads[holder].stat.clone();
                    drop(state);
                    let asleep = is_asleep(&stat);
                    state = self.lock();
                    let unchanged = state.turn == holder
                        && state.threads[holder].place == Place::Running
                        && state.threads[holder].looks == looks;
                    state = if asleep && unchanged {
                        self.decide(state)
                    } else {
                        self.wait(state)
                    };
                }
            }
            assert!(
                state.last_look.elapsed() < PATIENCE,
                "all threads wait for each other"
            );
        }
        state.threads[index].place = Place::Running;
        state.trace.update(&[index as u8, what]);
    }

    fn wait<'s>(&'s self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed
            .wait_timeout(state, LOOK)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Gives the turn to a thread that waits for it, once all others are waiting, asleep or at their end.
    fn decide<'s>(&'s self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        let decided = (state.turn, state.threads[state.turn].looks);
        let me = SELF.get();
        loop {
            let under_way: Vec<PathBuf> = state
                .threads
                .iter()
                .enumerate()
                .filter(|(index, thread)| Some(*index) != me && thread.place == Place::Running)
                .map(|(_, thread)| thread.stat.clone())
                .collect();
            let looks: Vec<u64> = state.threads.iter().map(|thread| thread.looks).collect();
            drop(state);
            // A thread without a name has not begun.
            let settled = under_way
                .iter()
                .all(|stat| !stat.as_os_str().is_empty() && is_asleep(stat));
            state = self.lock();
            if decided != (state.turn, state.threads[state.turn].looks) {
                return state;
            }
            let unchanged = state
                .threads
                .iter()
                .zip(&looks)
                .all(|(thread, looks)| thread.looks == *looks);
            if settled && unchanged {
                break;
            }
        }
        let waiting: Vec<usize> = (0..state.threads.len())
            .filter(|index| state.threads[*index].place == Place::Waiting)
            .collect();
        if waiting.is_empty() {
            return state;
        }
        let switch_one_in = state.switch_one_in;
        let stays = waiting.contains(&state.turn) && !state.dice.once_in(switch_one_in);
        if !stays {
            let next = *state.dice.choose(&waiting);
            state.switches += u64::from(next != state.turn);
            state.turn = next;
            self.changed.notify_all();
        }
        state
    }

    fn end(&self, index: usize) {
        SELF.set(None);
        let mut state = self.lock();
        state.threads[index].place = Place::Ended;
        state.last_look = Instant::now();
        if state.turn == index {
            drop(self.decide(state));
        }
        self.changed.notify_all();
    }
}

/// Whether the kernel says twice that a thread sleeps.
fn is_asleep(stat: &std::path::Path) -> bool {
    let sleeps = || {
        let line = std::fs::read_to_string(stat).unwrap_or_default();
        // The name in brackets may hold anything; the state is the letter behind it.
        line.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('S'))
    };
    sleeps() && {
        std::thread::sleep(NAP);
        sleeps()
    }
}

/// A simulated clock and randomness; each look at them is one of the schedule's.
#[derive(Debug)]
pub struct ScheduledEnv {
    env: SimulatedEnv,
    schedule: Arc<Schedule>,
}

impl ScheduledEnv {
    /// The clock and randomness of a seed.
    #[must_use]
    pub fn new(seed: u64, schedule: &Arc<Schedule>) -> Arc<Self> {
        Arc::new(Self {
            env: SimulatedEnv::new(seed),
            schedule: Arc::clone(schedule),
        })
    }
}

impl Env for ScheduledEnv {
    fn now(&self) -> Duration {
        self.schedule.look(b'n');
        self.env.now()
    }

    fn elapsed(&self) -> Duration {
        self.schedule.look(b'e');
        self.env.elapsed()
    }

    fn fill_random(&self, out: &mut [u8]) -> io::Result<()> {
        self.schedule.look(b'r');
        self.env.fill_random(out)
    }

    fn is_simulation(&self) -> bool {
        true
    }

    fn sleep(&self, duration: Duration) {
        self.env.sleep(duration);
    }
}

/// A simulated disk; each change of it, and each read, is one of the schedule's looks.
#[derive(Debug)]
pub struct ScheduledDisk {
    disk: Arc<SimulatedDisk>,
    schedule: Arc<Schedule>,
}

impl ScheduledDisk {
    /// This disk under a schedule.
    #[must_use]
    pub fn new(disk: &Arc<SimulatedDisk>, schedule: &Arc<Schedule>) -> Arc<Self> {
        Arc::new(Self {
            disk: Arc::clone(disk),
            schedule: Arc::clone(schedule),
        })
    }
}

impl Disk for ScheduledDisk {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.schedule.look(b'l');
        self.disk.set_len(len)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.schedule.look(b'g');
        self.disk.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.schedule.look(b'w');
        self.disk.write_at(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        self.schedule.look(b's');
        self.disk.sync()
    }
}
