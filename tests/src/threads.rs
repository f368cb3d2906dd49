//! Several threads in one store, under a schedule that a seed decides ([`crate::schedule`]), and power that goes at moments of it.
//!
//! Each thread does its own actions one after the other, to secrets of its own; one of them changes keys. Whoever schedules them,
//! what is there at the end is what one of the orders of these actions comes to; and after a loss of power it is what one of the
//! orders comes to of those that were acknowledged, each one in flight being there wholly or not at all.

use crate::checkers::{self, Depth, Failure, Given, Harm};
use crate::disk::{Operation, SimulatedDisk};
use crate::env::{Dice, SimulatedEnv};
use crate::explore::Seen;
use crate::gate::GatedKms;
use crate::interleave::before;
use crate::kms::SimulatedKms;
use crate::life::{self, Expected};
use crate::model::{self, Action, Model};
use crate::observe::{observe, verify};
use crate::power::{self, Budget};
use crate::schedule::{Schedule, ScheduledDisk, ScheduledEnv};
use keystead::Store;
use keystead::simulation::Disk;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Moments of a run at which power goes.
const CUTS: usize = 8;
/// What is made of each.
const BUDGET: Budget = Budget {
    exhaustive_operations: 4,
    subsets: 8,
    torn: 6,
};

/// What was done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ThreadFigures {
    /// Schedules, each of another seed.
    pub schedules: u64,
    /// Times that another thread went on than before.
    pub switches: u64,
    /// Actions that were done.
    pub actions: u64,
    /// States that power left and that were checked; none of them counted twice.
    pub states: u64,
    /// States in which a change that was in flight was there.
    pub flown: u64,
}

impl AddAssign for ThreadFigures {
    fn add_assign(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.switches += other.switches;
        self.actions += other.actions;
        self.states += other.states;
        self.flown += other.flown;
    }
}

/// An action that was done, and between which moments of the disk.
struct Done {
    from: usize,
    to: usize,
}

/// What the threads of a seed do.
#[must_use]
pub fn doings_of(seed: u64) -> Vec<Vec<Action>> {
    let mut dice = Dice::part(seed, 1);
    let org = || "acme".to_owned();
    let rotate = Action::Rotate {
        org: org(),
        key: "k0".into(),
    };
    let set_default = Action::SetDefault {
        org: org(),
        key: "k1".into(),
        rewrap: true,
    };
    let rewrap = || Action::Rewrap { org: org() };
    let keys = [
        vec![rewrap()],
        vec![rotate, rewrap()],
        vec![Action::DisableAll { org: org() }, rewrap()],
        vec![rewrap(), set_default, rewrap()],
        vec![
            Action::Disable {
                org: org(),
                key: "k1".into(),
                target: "k0".into(),
            },
            rewrap(),
        ],
    ];
    let mut doings = vec![dice.choose(&keys).clone()];
    let writers = 2 + dice.below(2);
    for writer in 0..writers {
        let actions = 1 + dice.below(4);
        doings.push(secrets(writer, actions, &mut dice));
    }
    doings
}

/// What one thread does to secrets that are its own.
fn secrets(writer: u64, actions: u64, dice: &mut Dice) -> Vec<Action> {
    let org = || "acme".to_owned();
    // One of those that were there before, and new ones.
    let old = format!("s/{writer}");
    let mut versions = 1;
    let mut destroyed = false;
    let mut doing = Vec::new();
    for number in 0..actions {
        let bytes = *dice.choose(&[10, 300, 5_000, 70_000]);
        doing.push(match dice.below(8) {
            0 | 1 => {
                versions += 1;
                Action::Put {
                    org: org(),
                    put: (old.clone(), bytes),
                }
            }
            2 | 3 => Action::Put {
                org: org(),
                put: (format!("n/{writer}/{number}"), bytes),
            },
            4 => Action::Stream {
                org: org(),
                put: (format!("l/{writer}/{number}"), bytes),
            },
            5 => Action::Batch {
                org: org(),
                puts: (0..4)
                    .map(|n| (format!("b/{writer}/{number}/{n}"), 100))
                    .collect(),
            },
            6 if versions > 1 && !destroyed => {
                destroyed = true;
                Action::Destroy {
                    org: org(),
                    path: old.clone(),
                    version: 1,
                }
            }
            6 => Action::Rewrap { org: org() },
            _ => Action::ForgetEpochKeys,
        });
    }
    doing
}

/// Lives the schedule of a seed and checks it, with losses of power. `states` knows what was met already.
///
/// # Errors
///
/// The first promise that was broken.
pub fn live(seed: u64, states: &Seen, stop: &AtomicBool) -> Result<ThreadFigures, Failure> {
    let doings = doings_of(seed);
    let run = Run::of(seed, &doings)?;
    let mut figures = ThreadFigures {
        schedules: 1,
        switches: run.schedule.trace().1,
        actions: doings.iter().map(|doing| doing.len() as u64).sum(),
        ..ThreadFigures::default()
    };
    run.check_end()?;
    run.check_power(states, &mut figures, stop)?;
    Ok(figures)
}

/// The hash of who went on when and of all that was asked of the disk, and the doings in words.
///
/// # Errors
///
/// When that alone breaks a promise.
pub fn replay(seed: u64) -> Result<(blake3::Hash, Vec<String>), Failure> {
    let doings = doings_of(seed);
    let run = Run::of(seed, &doings)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(run.schedule.trace().0.as_bytes());
    hasher.update(run.disk.recording().trace().as_bytes());
    Ok((hasher.finalize(), story(&doings)))
}

fn story(doings: &[Vec<Action>]) -> Vec<String> {
    let lines = doings.iter().enumerate().flat_map(|(thread, doing)| {
        doing
            .iter()
            .map(move |action| format!("thread {thread}: {action}"))
    });
    lines.collect()
}

/// What a seed's threads did.
struct Run<'d> {
    seed: u64,
    doings: &'d [Vec<Action>],
    base: Model,
    kms: SimulatedKms,
    disk: Arc<SimulatedDisk>,
    schedule: Arc<Schedule>,
    store: Store,
    /// Operations of the disk before the first action.
    began: usize,
    done: Vec<Vec<Done>>,
}

impl<'d> Run<'d> {
    fn of(seed: u64, doings: &'d [Vec<Action>]) -> Result<Self, Failure> {
        let failed = |story: String| failure(seed, doings, "acknowledged", &story);
        let schedule = Schedule::new(doings.len(), Dice::part(seed, 2));
        let (kms, disk) = (SimulatedKms::new(), SimulatedDisk::new());
        let store = life::options(&GatedKms::new(kms.clone()), Arc::new(SimulatedEnv::new(seed)))
            .env(ScheduledEnv::new(seed, &schedule))
            .create_on_disk(ScheduledDisk::new(&disk, &schedule) as Arc<dyn Disk>)
            .map_err(|error| failed(error.to_string()))?;
        let mut base = Model::default();
        for action in before() {
            model::perform(&store, &base, &action).map_err(|error| failed(error.to_string()))?;
            base = base.after(&action);
        }
        let began = disk.recorded();
        let done = std::thread::scope(|scope| {
            let threads: Vec<_> = doings
                .iter()
                .enumerate()
                .map(|(index, doing)| {
                    let (schedule, store, disk, base) = (&schedule, &store, &disk, &base);
                    scope.spawn(move || schedule.run(index, || perform(schedule, store, disk, base, doing)))
                })
                .collect();
            let joined = threads.into_iter().map(|thread| match thread.join() {
                Ok(done) => done,
                Err(panic) => Err(Failure::of_panic(&*panic).to_string()),
            });
            // All of them are joined before the first failure is told.
            joined.collect::<Vec<_>>()
        });
        let done: Result<_, String> = done.into_iter().collect();
        Ok(Self {
            seed,
            doings,
            base,
            kms,
            disk,
            schedule,
            store,
            began,
            done: done.map_err(failed)?,
        })
    }

    /// What is there when all is done: one of the orders; and the job that may be left comes to its end.
    fn check_end(&self) -> Result<(), Failure> {
        let failed = |checker, story: String| failure(self.seed, self.doings, checker, &story);
        let all: Vec<usize> = self.doings.iter().map(Vec::len).collect();
        let expected = self.orders(&all, &all);
        let check = |when: &str| {
            let seen =
                observe(&self.store).map_err(|story| failed("acknowledged", format!("{when}: {story}")))?;
            if !expected.iter().any(|model| model.view == seen.view) {
                let story = format!("{when}: no order of the actions comes to what is there");
                return Err(failed("acknowledged", story));
            }
            verify(&self.store).map_err(|story| failed("one_wrap", format!("{when}: {story}")))
        };
        check("after all threads")?;
        let acme = self
            .store
            .organization("acme")
            .map_err(|error| failed("acknowledged", error.to_string()))?;
        model::run_job(&acme).map_err(|error| failed("job_finishes", error.to_string()))?;
        check("after the job")
    }

    /// Power goes at moments by dice: before a sync, after an acknowledgement.
    fn check_power(
        &self,
        states: &Seen,
        figures: &mut ThreadFigures,
        stop: &AtomicBool,
    ) -> Result<(), Failure> {
        let mut dice = Dice::part(self.seed, 3);
        let recording = self.disk.recording();
        let ended = self.done.iter().flatten().map(|done| done.to).max();
        let syncs = (self.began..ended.unwrap_or(self.began))
            .filter(|at| recording.operations[*at] == Operation::Sync);
        let mut moments: Vec<usize> = syncs
            .chain(self.done.iter().flatten().map(|done| done.to))
            .collect();
        while moments.len() > CUTS {
            moments.swap_remove(dice.below(moments.len() as u64) as usize);
        }
        moments.sort_unstable();
        moments.dedup();
        for (moment, cut) in moments.iter().zip(recording.cuts(&moments)) {
            let expected = self.expected_at(*moment);
            for image in power::images(&cut, BUDGET, &mut dice) {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if !states.insert(image.fingerprint) {
                    continue;
                }
                let given = Given {
                    expected: &expected,
                    kms: &self.kms,
                    wraps: &[],
                };
                let disk = SimulatedDisk::holding(image.contents.clone());
                // A search of the whole image would need every wrap that there was: that is the profile `power`.
                let depth = Depth::by(&mut dice).min(Depth::WorkOn);
                let checked = checkers::check(&disk, given, dice.roll(), depth).map_err(|failure| {
                    let story = format!(
                        "{}; power went after {moment} operations, {}; kept: {}",
                        self.told(),
                        expected.doing,
                        image.story(&cut)
                    );
                    failure.after(&story)
                })?;
                figures.states += 1;
                figures.flown += u64::from(checked.flown);
            }
        }
        Ok(())
    }

    fn told(&self) -> String {
        told(self.seed, self.doings)
    }

    /// What may be found when power goes at this moment: first of all what was acknowledged alone.
    fn expected_at(&self, moment: usize) -> Expected {
        let count = |is: &dyn Fn(&Done) -> bool| -> Vec<usize> {
            self.done
                .iter()
                .map(|done| done.iter().filter(|done| is(done)).count())
                .collect()
        };
        let acknowledged = count(&|done| done.to <= moment);
        let begun = count(&|done| done.from <= moment);
        let either = self.orders(&acknowledged, &begun);
        Expected {
            either: either.into_iter().map(Arc::new).collect(),
            doing: format!("with {acknowledged:?} of the threads' actions acknowledged and {begun:?} begun"),
        }
    }

    /// What all orders of the threads' first actions come to: at least so many of each thread's, and at most so many. Those that
    /// cannot be told apart by reading are one.
    fn orders(&self, least: &[usize], most: &[usize]) -> Vec<Model> {
        let mut reached: BTreeMap<Vec<usize>, Vec<Model>> =
            BTreeMap::from([(vec![0; least.len()], vec![self.base.clone()])]);
        let mut found: Vec<Model> = Vec::new();
        // In the order of the map no prefix comes after what it is a prefix of.
        while let Some((counts, models)) = reached.pop_first() {
            for thread in 0..counts.len() {
                if counts[thread] == most[thread] {
                    continue;
                }
                let mut next = counts.clone();
                next[thread] += 1;
                let action = &self.doings[thread][counts[thread]];
                let entry = reached.entry(next).or_default();
                models.iter().for_each(|model| merge(entry, model.after(action)));
            }
            if counts.iter().zip(least).all(|(count, least)| count >= least) {
                models.into_iter().for_each(|model| merge(&mut found, model));
            }
        }
        found
    }
}

/// Adds a model, unless one is there that reads the same: then that one may need the keys of both.
fn merge(models: &mut Vec<Model>, model: Model) {
    match models.iter_mut().find(|other| other.view == model.view) {
        Some(other) => *other = other.or(&model),
        None => models.push(model),
    }
}

fn perform(
    schedule: &Schedule,
    store: &Store,
    disk: &SimulatedDisk,
    base: &Model,
    doing: &[Action],
) -> Result<Vec<Done>, String> {
    let mut model = base.clone();
    let mut done = Vec::new();
    for action in doing {
        schedule.pause();
        let from = disk.recorded();
        model::perform(store, &model, action).map_err(|error| format!("{action}: {error}"))?;
        let to = disk.recorded();
        done.push(Done { from, to });
        model = model.after(action);
    }
    Ok(done)
}

fn told(seed: u64, doings: &[Vec<Action>]) -> String {
    format!(
        "KEYSTEAD_SEED={seed}, threads that take turns: {}",
        story(doings).join("; ")
    )
}

fn failure(seed: u64, doings: &[Vec<Action>], checker: &'static str, story: &str) -> Failure {
    Failure {
        checker,
        harm: Harm::Other,
        story: story.into(),
    }
    .after(&told(seed, doings))
}
