//! Exploring the crash states of a life: every moment, the images that power may leave there, each one checked; and crashes
//! in the middle of recovering from them.

use crate::checkers::{self, Depth, Failure, Given, Harm};
use crate::disk::{Operation, PowerCut, SimulatedDisk};
use crate::env::{Dice, SimulatedEnv};
use crate::gate::GatedKms;
use crate::life::{self, Expected, Life};
use crate::observe::{live_cells, observe};
use crate::power::{self, Budget, Image};
use std::collections::HashSet;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How far to go.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// Images of a moment.
    pub budget: Budget,
    /// One in so many images is cut again while it is being recovered.
    pub recoveries_one_in: u64,
    /// Images of a moment of such a recovery.
    pub recovery_budget: Budget,
    /// One in so many moments is also one at which the process alone is killed, and the power goes while it recovers.
    pub kills_one_in: u64,
}

impl Default for Reach {
    /// Every subset and order of up to 10 pending operations.
    fn default() -> Self {
        Self {
            budget: Budget {
                exhaustive_operations: 10,
                subsets: 150,
                torn: 60,
            },
            recoveries_one_in: 300,
            recovery_budget: Budget {
                exhaustive_operations: 3,
                subsets: 6,
                torn: 6,
            },
            kills_one_in: 20,
        }
    }
}

/// What was explored.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Moments at which power went.
    pub moments: u64,
    /// Of these: with at most 10 operations pending, every subset of which was made.
    pub exhausted: u64,
    /// Disks that were opened and checked, no two of them the same.
    pub states: u64,
    /// Disks that had been checked already, and were checked again because something else had to be found there.
    pub again: u64,
    /// Of all these: power went again while the store recovered.
    pub in_recovery: u64,
    /// The change in flight was there, whole.
    pub flown: u64,
    /// Went on working, closed, opened twice more.
    pub worked_on: u64,
    /// A re-wrap job was found, and finished.
    pub jobs_finished: u64,
    /// The whole image was searched for wraps and secrets.
    pub searched: u64,
    /// Of all these: of a store that was being created.
    pub in_creation: u64,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.moments += other.moments;
        self.exhausted += other.exhausted;
        self.states += other.states;
        self.again += other.again;
        self.in_recovery += other.in_recovery;
        self.flown += other.flown;
        self.worked_on += other.worked_on;
        self.jobs_finished += other.jobs_finished;
        self.searched += other.searched;
        self.in_creation += other.in_creation;
    }
}

/// The disks that were checked, by their fingerprints: so that a state is counted once in a run.
#[derive(Debug, Default)]
pub struct Seen {
    shards: [Mutex<HashSet<u128>>; 16],
}

impl Seen {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        let shards = self.shards.iter();
        shards
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len() as u64)
            .sum()
    }

    /// True for the first time.
    pub fn insert(&self, fingerprint: u128) -> bool {
        let shard = &self.shards[(fingerprint % 16) as usize];
        shard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(fingerprint)
    }
}

/// Explores a life with so many threads, until it is done or `stop` is set. Its steps are done; its store is dropped.
///
/// # Errors
///
/// The story of the first state that broke a promise.
pub fn explore(
    life: &Life,
    reach: Reach,
    seen: &Seen,
    threads: usize,
    stop: &AtomicBool,
) -> Result<Figures, Failure> {
    let moments = life.moments();
    let cuts = life.disk.recording().cuts(&moments);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let outcome = Mutex::new(Ok(Figures::default()));
    let work = || {
        while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < cuts.len())
        {
            if stop.load(Ordering::Relaxed) || failed.load(Ordering::Relaxed) {
                return;
            }
            let moment = Moment {
                life,
                moment: moments[index],
                cut: &cuts[index],
                reach,
                seen,
            };
            let explored = moment.explore();
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *outcome, explored) {
                (Ok(sum), Ok(figures)) => *sum += figures,
                (Ok(_), Err(failure)) => {
                    failed.store(true, Ordering::Relaxed);
                    *outcome = Err(failure);
                }
                (Err(_), _) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        work();
        drop(others);
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A moment at which power goes.
struct Moment<'l> {
    life: &'l Life,
    moment: usize,
    cut: &'l PowerCut,
    reach: Reach,
    seen: &'l Seen,
}

impl Moment<'_> {
    fn explore(&self) -> Result<Figures, Failure> {
        let mut dice = Dice::part(self.life.seed, self.moment as u64);
        let mut figures = Figures {
            moments: 1,
            exhausted: u64::from(self.cut.pending.len() <= self.reach.budget.exhaustive_operations),
            ..Figures::default()
        };
        let images = power::images(self.cut, self.reach.budget, &mut dice);
        let Some(expected) = self.life.expected_at(self.moment) else {
            for image in images {
                self.count(&image, &mut figures);
                figures.in_creation += 1;
                checkers::no_half_store(&image.contents, &self.life.kms, dice.roll())
                    .map_err(|failure| failure.after(&self.tell("being created", &image, "")))?;
            }
            return Ok(figures);
        };
        let erased = self.life.erased_at(self.moment);
        for image in images {
            let tell = |failure: Failure| failure.after(&self.tell(&expected.doing, &image, ""));
            // Before anybody opens it: what an acknowledged hand-over or retirement erased is not there.
            if live_cells(&image.contents).intersection(&erased).next().is_some() {
                return Err(tell(Failure {
                    checker: "old_keys_open_nothing",
                    harm: Harm::Other,
                    story: "a shred cell that was erased holds its key again".into(),
                }));
            }
            self.count(&image, &mut figures);
            let disk = SimulatedDisk::holding(image.contents.clone());
            self.check(&disk, &expected, &mut figures, &mut dice)
                .map_err(tell)?;
            if dice.once_in(self.reach.recoveries_one_in) {
                let disk = SimulatedDisk::holding(image.contents.clone());
                figures += self
                    .explore_recovery(&disk, 0, &expected, &mut dice)
                    .map_err(tell)?;
            }
        }
        if dice.once_in(self.reach.kills_one_in) {
            let disk = SimulatedDisk::after_a_kill(self.cut.durable.clone(), &self.cut.pending);
            figures += self
                .explore_recovery(&disk, self.cut.pending.len(), &expected, &mut dice)
                .map_err(|failure| {
                    failure.after(&format!("the process alone was killed, {}", expected.doing))
                })?;
        }
        Ok(figures)
    }

    fn given<'g>(&'g self, expected: &'g Expected) -> Given<'g> {
        Given {
            expected,
            kms: &self.life.kms,
            wraps: &self.life.wraps,
        }
    }

    fn count(&self, image: &Image, figures: &mut Figures) {
        if self.seen.insert(image.fingerprint) {
            figures.states += 1;
        } else {
            figures.again += 1;
        }
    }

    fn check(
        &self,
        disk: &Arc<SimulatedDisk>,
        expected: &Expected,
        figures: &mut Figures,
        dice: &mut Dice,
    ) -> Result<(), Failure> {
        let depth = Depth::by(dice);
        let checked = checkers::check(disk, self.given(expected), dice.roll(), depth)?;
        figures.flown += u64::from(checked.flown);
        figures.worked_on += u64::from(checked.worked_on);
        figures.jobs_finished += u64::from(checked.job_finished);
        figures.searched += u64::from(checked.searched);
        Ok(())
    }

    fn tell(&self, doing: &str, image: &Image, again: &str) -> String {
        format!(
            "KEYSTEAD_SEED={}, power went after {} operations, {doing}; kept: {}{again}",
            self.life.seed,
            self.moment,
            image.story(self.cut)
        )
    }

    /// Opens the store on this disk, and lets power go at each sync of its recovery and behind its last write.
    fn explore_recovery(
        &self,
        disk: &Arc<SimulatedDisk>,
        from: usize,
        expected: &Expected,
        dice: &mut Dice,
    ) -> Result<Figures, Failure> {
        let failed = |story: String| Failure {
            checker: "acknowledged",
            harm: Harm::Lost,
            story: format!("opening, to be cut again: {story}"),
        };
        let gate = GatedKms::new(self.life.kms.clone());
        let env = Arc::new(SimulatedEnv::new(dice.roll()));
        let opened = life::options(&gate, env).open_on_disk(disk.clone());
        let store = opened.map_err(|error| failed(error.to_string()))?;
        let view = observe(&store).map_err(failed)?.view;
        drop(store);
        // What was found once stays: recovery decides what became of the change in flight.
        let decided = Expected {
            either: expected
                .either
                .iter()
                .filter(|model| model.view == view)
                .cloned()
                .collect(),
            doing: format!("recovering from power that went {}", expected.doing),
        };
        let recording = disk.recording();
        let mut moments: Vec<usize> = (from..recording.operations.len())
            .filter(|at| recording.operations[*at] == Operation::Sync)
            .collect();
        moments.push(recording.operations.len());
        let mut figures = Figures::default();
        for (moment, cut) in moments.iter().zip(recording.cuts(&moments)) {
            for image in power::images(&cut, self.reach.recovery_budget, dice) {
                // Until the first sync of the recovery, the pending change may still be lost.
                let expected = if image_may_differ(&recording.operations[..*moment], from) {
                    expected
                } else {
                    &decided
                };
                self.count(&image, &mut figures);
                figures.in_recovery += 1;
                let disk = SimulatedDisk::holding(image.contents.clone());
                self.check(&disk, expected, &mut figures, dice)
                    .map_err(|failure| {
                        failure.after(&format!(
                            "and power went again after {moment} operations of the recovery; kept: {}",
                            image.story(&cut)
                        ))
                    })?;
            }
        }
        Ok(figures)
    }
}

/// True while no sync has decided what the recovery found.
fn image_may_differ(operations: &[Operation], from: usize) -> bool {
    from > 0 && !operations[from..].contains(&Operation::Sync)
}

/// Looks for what must never reach the disk, in everything that was written: every image is made of that. Returns how many
/// bytes were searched.
///
/// # Errors
///
/// Where something was found.
pub fn check_secrecy(life: &Life) -> Result<u64, Failure> {
    let forbidden = life::forbidden(&life.kms, &life.env);
    let mut searched = 0;
    for (number, operation) in life.disk.recording().operations.iter().enumerate() {
        if let Operation::Write(offset, data) = operation {
            searched += data.len() as u64;
            life::search_write(&forbidden, *offset, data).map_err(|story| Failure {
                checker: "no_secret_in_image",
                harm: Harm::Other,
                story: format!("KEYSTEAD_SEED={}, operation {number}: {story}", life.seed),
            })?;
        }
    }
    Ok(searched)
}
