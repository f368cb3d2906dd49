//! The long run: lives from fresh seeds on all cores, under each profile of faults, until the time is over.

use crate::checkers::{Failure, Harm};
use crate::disk::{Fault, SimulatedDisk};
use crate::env::Dice;
use crate::explore::{Figures, Reach, Seen, check_secrecy, explore};
use crate::faults::{self, Lied};
use crate::life::Life;
use crate::lives::{self, LifeFigures};
use crate::threads::{self, ThreadFigures};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What goes wrong in a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Power goes at every moment; afterwards at moments of the recovery.
    Power,
    /// One operation of the disk fails, once or for good; a write is cut short; there is no space left.
    Io,
    /// Syncs return and do nothing.
    Lie,
    /// Whole lives with a KMS that fails in every way, power cuts, and a clock that jumps.
    Lives,
    /// Threads that take turns by dice, and power that goes.
    Threads,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Power, Self::Io, Self::Lie, Self::Lives, Self::Threads];

    /// The word for it on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::Io => "io",
            Self::Lie => "lie",
            Self::Lives => "lives",
            Self::Threads => "threads",
        }
    }

    /// Half of the seeds lose power, the others take turns.
    fn of(index: u64) -> Self {
        match index % 8 {
            1 => Self::Io,
            3 => Self::Lie,
            5 => Self::Lives,
            7 => Self::Threads,
            _ => Self::Power,
        }
    }
}

/// What was done so far.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Seeds, by profile.
    pub seeds: BTreeMap<Profile, u64>,
    /// Power cuts.
    pub power: Figures,
    /// Faults of the disk that were met, by kind.
    pub io_faults: BTreeMap<&'static str, u64>,
    /// States that were checked after them.
    pub io_states: u64,
    /// Disks that lied.
    pub lied: Lied,
    /// Whole lives.
    pub lives: LifeFigures,
    /// Threads that take turns.
    pub threads: ThreadFigures,
}

impl Tally {
    fn add(&mut self, other: Self) {
        for (profile, seeds) in other.seeds {
            *self.seeds.entry(profile).or_default() += seeds;
        }
        for (kind, met) in other.io_faults {
            *self.io_faults.entry(kind).or_default() += met;
        }
        self.power += other.power;
        self.io_states += other.io_states;
        self.lied += other.lied;
        self.lives.add(&other.lives);
        self.threads += other.threads;
    }
}

/// A seed whose life broke a promise.
#[derive(Debug)]
pub struct Broken {
    /// The seed.
    pub seed: u64,
    /// Its profile.
    pub profile: Profile,
    /// Which promise, and the story.
    pub failure: Failure,
}

/// A run: what it shares between its threads.
#[derive(Debug, Default)]
pub struct Soak {
    next: AtomicU64,
    stop: AtomicBool,
    seen: Seen,
    tally: Mutex<Tally>,
    broken: Mutex<Vec<Broken>>,
}

impl Soak {
    /// Lives lives from `first` on, until it is told to stop; under one profile, or all in turn. To be called by as many
    /// threads as there are cores.
    pub fn work(&self, first: u64, profile: Option<Profile>) {
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let (seed, profile) = (
                first.wrapping_add(index),
                profile.unwrap_or_else(|| Profile::of(index)),
            );
            let lived = catch_unwind(AssertUnwindSafe(|| live(seed, profile, &self.seen, &self.stop)));
            match lived.unwrap_or_else(|panic| Err(Failure::of_panic(&*panic))) {
                Ok(tally) => lock(&self.tally).add(tally),
                Err(failure) => lock(&self.broken).push(Broken {
                    seed,
                    profile,
                    failure,
                }),
            }
        }
    }

    /// Ends the run: threads come back within a second or two.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What was done so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// What was broken so far.
    pub fn broken(&self) -> std::sync::MutexGuard<'_, Vec<Broken>> {
        lock(&self.broken)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lives the life of a seed, and checks what is left of it under a profile.
///
/// # Errors
///
/// The first promise that was broken.
pub fn live(seed: u64, profile: Profile, seen: &Seen, stop: &AtomicBool) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    tally.seeds.insert(profile, 1);
    match profile {
        Profile::Power => {
            let life = life_of(seed)?;
            check_secrecy(&life)?;
            tally.power = explore(&life, Reach::default(), seen, 1, stop)?;
        }
        Profile::Io => {
            let workload = faults::workload_of(seed, 30);
            let calm = faults::run(seed, Some(Fault::ReadOnce(u64::MAX)), &workload)?;
            let (changes, reads) = (calm.disk.changes(), calm.disk.reads());
            let (bytes, len) = (calm.disk.contents().allocated_bytes(), calm.disk.contents().len());
            let mut dice = Dice::new(seed);
            for (kind, fault) in [
                ("failed once", Fault::ChangeOnce(dice.below(changes))),
                ("failed once", Fault::ChangeOnce(dice.below(changes))),
                ("failed for good", Fault::ChangeForGood(dice.below(changes))),
                ("failed for good", Fault::ChangeForGood(dice.below(changes))),
                ("written short", Fault::ShortWrite(dice.below(changes))),
                ("written short", Fault::ShortWrite(dice.below(changes))),
                ("not read", Fault::ReadOnce(dice.below(reads))),
                ("no space", Fault::Full(dice.below(bytes))),
                ("no longer file", Fault::LengthMax(dice.below(len))),
            ] {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let survived = faults::survives(seed, fault, &workload)?;
                *tally.io_faults.entry(kind).or_default() += u64::from(survived.met);
                tally.io_states += survived.states;
            }
        }
        Profile::Lie => tally.lied = faults::lied_to(seed, &faults::workload_of(seed, 30), 12, 12)?,
        Profile::Lives => tally.lives = lives::live(&lives::deeds_of(seed), seed)?.figures,
        Profile::Threads => tally.threads = threads::live(seed, seen, stop)?,
    }
    Ok(tally)
}

/// The life of a seed whose power goes.
fn life_of(seed: u64) -> Result<Life, Failure> {
    let told = |error: keystead::Error| Failure {
        checker: "a_life_without_faults_goes_on",
        harm: Harm::Other,
        story: format!("KEYSTEAD_SEED={seed}: {error}"),
    };
    let mut life = Life::begin(seed, SimulatedDisk::new()).map_err(told)?;
    let mut dice = Dice::new(seed);
    let actions = 10 + dice.below(30) as usize;
    life.live(actions, &mut dice).map_err(told)?;
    life.drop_store();
    Ok(life)
}

/// What a seed did.
#[derive(Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The hash of everything that was asked of the disk.
    pub trace: blake3::Hash,
    /// What was done, in words, line by line.
    pub story: Vec<String>,
}

/// Lives the life of a seed once more, for its trace and its story, and checks nothing.
///
/// # Errors
///
/// When that alone breaks a promise.
pub fn replay(seed: u64, profile: Profile) -> Result<Replayed, Failure> {
    let told = |actions: &[String], trace| Replayed {
        trace,
        story: actions.to_vec(),
    };
    Ok(match profile {
        Profile::Power => {
            let life = life_of(seed)?;
            let actions: Vec<String> = life
                .steps
                .iter()
                .filter_map(|step| step.action.as_ref().map(ToString::to_string))
                .collect();
            told(&actions, life.disk.recording().trace())
        }
        Profile::Io | Profile::Lie => {
            let workload = faults::workload_of(seed, 30);
            let actions: Vec<String> = workload.iter().map(ToString::to_string).collect();
            let run = faults::run(seed, None, &workload)?;
            told(&actions, run.disk.recording().trace())
        }
        Profile::Lives => {
            let lived = lives::live(&lives::deeds_of(seed), seed)?;
            told(&lived.story, lived.trace)
        }
        Profile::Threads => {
            let (trace, story) = threads::replay(seed)?;
            told(&story, trace)
        }
    })
}
