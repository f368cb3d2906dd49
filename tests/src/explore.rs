//! Exploring the crash states of a life: every moment, the images that power may leave there, each one checked; and crashes
//! in the middle of recovering from them.

use crate::disk::{Operation, PowerCut, SimulatedDisk};
use crate::env::{Dice, SimulatedEnv};
use crate::gate::GatedKms;
use crate::life::{self, Expected, Life};
use crate::observe::live_cells;
use crate::power::{self, Budget, Image};
use std::collections::BTreeMap;
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

/// What was explored.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Moments at which power went.
    pub moments: u64,
    /// Distinct disks, by moment, that were opened and checked.
    pub states: u64,
    /// Of these: power went again while the store recovered.
    pub in_recovery: u64,
    /// Of these: the change in flight was there, whole.
    pub flown: u64,
    /// Of these: a re-wrap job was found, and finished.
    pub jobs_finished: u64,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.moments += other.moments;
        self.states += other.states;
        self.in_recovery += other.in_recovery;
        self.flown += other.flown;
        self.jobs_finished += other.jobs_finished;
    }
}

/// Explores a life. Its steps are done; its store is dropped.
///
/// # Errors
///
/// The story of the first state that broke a promise.
pub fn explore(life: &Life, reach: Reach) -> Result<Figures, String> {
    let moments: Vec<usize> = life
        .moments()
        .into_iter()
        .filter(|moment| life.expected_at(*moment).is_some())
        .collect();
    let cuts = life.disk.recording().cuts(&moments);
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let outcome = Mutex::new(Ok(Figures::default()));
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            threads.spawn(|| {
                while let Some(index) = take(&next, &stop, cuts.len()) {
                    let explored = explore_moment(life, moments[index], &cuts[index], reach);
                    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *outcome, explored) {
                        (Ok(sum), Ok(figures)) => *sum += figures,
                        (Ok(_), Err(story)) => {
                            stop.store(true, Ordering::Relaxed);
                            *outcome = Err(story);
                        }
                        (Err(_), _) => {}
                    }
                }
            });
        }
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn take(next: &AtomicUsize, stop: &AtomicBool, count: usize) -> Option<usize> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    (index < count && !stop.load(Ordering::Relaxed)).then_some(index)
}

fn explore_moment(life: &Life, moment: usize, cut: &PowerCut, reach: Reach) -> Result<Figures, String> {
    let expected = life.expected_at(moment).ok_or("the store was not there yet")?;
    let mut dice = Dice::part(life.seed, moment as u64);
    let mut figures = Figures {
        moments: 1,
        ..Figures::default()
    };
    let tell = |image: &Image, again: &str, story: String| {
        format!(
            "KEYSTEAD_SEED={}, power went after {moment} operations, {}; kept: {}{again}\n{story}",
            life.seed, expected.doing, image.kept
        )
    };
    let erased = life.erased_at(moment);
    for image in power::images(cut, reach.budget, &mut dice) {
        // Before anybody opens it: what an acknowledged hand-over or retirement erased is not there.
        let back = live_cells(&image.contents).intersection(&erased).count();
        if back > 0 {
            return Err(tell(
                &image,
                "",
                format!("{back} shred cells that were erased hold their keys again"),
            ));
        }
        let (checked, _) = life::check(&image.contents, &expected, &life.kms, dice.roll())
            .map_err(|story| tell(&image, "", story))?;
        figures.states += 1;
        figures.flown += u64::from(checked.flown);
        figures.jobs_finished += u64::from(checked.job_finished);
        if dice.once_in(reach.recoveries_one_in) {
            let disk = SimulatedDisk::holding(image.contents.clone());
            figures += explore_recovery(life, &disk, 0, &expected, reach, &mut dice)
                .map_err(|story| tell(&image, "", story))?;
        }
    }
    if dice.once_in(reach.kills_one_in) {
        let image = Image {
            contents: cut.durable.clone(),
            kept: "everything, for the process alone was killed".into(),
        };
        let disk = SimulatedDisk::after_a_kill(cut.durable.clone(), &cut.pending);
        figures += explore_recovery(life, &disk, cut.pending.len(), &expected, reach, &mut dice)
            .map_err(|story| tell(&image, "", story))?;
    }
    Ok(figures)
}

/// Opens the store on this disk, and lets power go at each sync of its recovery and behind its last write.
fn explore_recovery(
    life: &Life,
    disk: &Arc<SimulatedDisk>,
    from: usize,
    expected: &Expected,
    reach: Reach,
    dice: &mut Dice,
) -> Result<Figures, String> {
    let gate = GatedKms::new(life.kms.clone());
    let env = Arc::new(SimulatedEnv::new(dice.roll()));
    let opened = life::options(&gate, env).open_on_disk(disk.clone());
    let store = opened.map_err(|error| format!("opening, to be cut again: {error}"))?;
    let view = crate::observe::observe(&store)?;
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
        for image in power::images(&cut, reach.recovery_budget, dice) {
            // Until the first sync of the recovery, the pending change may still be lost.
            let expected = if image_may_differ(&recording.operations[..*moment], from) {
                expected
            } else {
                &decided
            };
            let (checked, _) =
                life::check(&image.contents, expected, &life.kms, dice.roll()).map_err(|story| {
                    format!(
                        "and power went again after {moment} operations of the recovery; kept: {}\n{story}",
                        image.kept
                    )
                })?;
            figures.states += 1;
            figures.in_recovery += 1;
            figures.flown += u64::from(checked.flown);
            figures.jobs_finished += u64::from(checked.job_finished);
        }
    }
    Ok(figures)
}

/// True while no sync has decided what the recovery found.
fn image_may_differ(operations: &[Operation], from: usize) -> bool {
    from > 0 && !operations[from..].contains(&Operation::Sync)
}

/// Looks for bytes that must never reach the disk, in everything that was written.
///
/// # Errors
///
/// Where they were found.
pub fn check_secrecy(life: &Life) -> Result<u64, String> {
    let forbidden = life.forbidden();
    // By the first 7 bytes, so that one look at each place finds all of them.
    let mut by_prefix: BTreeMap<[u8; 7], Vec<&Vec<u8>>> = BTreeMap::new();
    for pattern in &forbidden {
        let prefix = pattern[..7].try_into().expect("patterns have 7 bytes at least");
        by_prefix.entry(prefix).or_default().push(pattern);
    }
    let mut maybe = vec![false; 1 << 16];
    for prefix in by_prefix.keys() {
        maybe[usize::from(u16::from_le_bytes([prefix[0], prefix[1]]))] = true;
    }
    let mut searched = 0;
    for (number, operation) in life.disk.recording().operations.iter().enumerate() {
        let Operation::Write(offset, data) = operation else {
            continue;
        };
        searched += data.len() as u64;
        for (at, window) in data.windows(7).enumerate() {
            if !maybe[usize::from(u16::from_le_bytes([window[0], window[1]]))] {
                continue;
            }
            let found = by_prefix.get(window).into_iter().flatten();
            if found.into_iter().any(|pattern| data[at..].starts_with(pattern)) {
                return Err(format!(
                    "operation {number} writes a secret in clear at {}",
                    offset + at as u64
                ));
            }
        }
    }
    Ok(searched)
}
