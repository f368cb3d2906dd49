//! The life of a store on a simulated disk: actions, what was acknowledged at which moment of the disk, and what must be found
//! after power went at any of these moments.

use crate::disk::{Operation, SimulatedDisk};
use crate::env::{Dice, SimulatedEnv};
use crate::gate::GatedKms;
use crate::kms::SimulatedKms;
use crate::model::{self, Action, CANARY, Model};
use crate::observe::{cells_range, live_cells};
use crate::search::Patterns;
use keystead::simulation::{SealedWrap, sealed_wraps};
use keystead::{Backend, Store, StoreOptions};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Data keys that one batch of a re-wrap moves: few, so that there are many batches to be cut between.
pub const REWRAP_BATCH: usize = 3;

/// One action, and between which moments of the disk it was done.
#[derive(Debug, Clone)]
pub struct Step {
    /// What was done.
    pub action: Option<Action>,
    /// Operations of the disk before it began.
    pub from: usize,
    /// Operations of the disk when it was acknowledged; `None`: it never was.
    pub to: Option<usize>,
    /// What the store held before it.
    pub before: Arc<Model>,
    /// What it holds once it is acknowledged.
    pub after: Arc<Model>,
    /// The shred cells that held a key when it was over.
    cells: BTreeSet<[u8; 64]>,
}

/// What may be found: one of these.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The models; the newest acknowledged one first, then, perhaps, the one with the change in flight.
    pub either: Vec<Arc<Model>>,
    /// What was being done, for the story of a failure.
    pub doing: String,
}

/// A wrap that the file held at some moment, and the shred cell that opened it.
#[derive(Debug, Clone)]
pub struct KnownWrap {
    /// The wrap.
    pub wrap: SealedWrap,
    /// The cell, as it stood on the disk.
    pub cell: [u8; 64],
}

/// A store, its disk, its KMS, its clock, and the model of what it must hold.
pub struct Life {
    /// What everything follows from.
    pub seed: u64,
    /// The KMS, without its gate.
    pub kms: SimulatedKms,
    /// The disk.
    pub disk: Arc<SimulatedDisk>,
    /// The clock.
    pub env: Arc<SimulatedEnv>,
    /// What was acknowledged.
    pub model: Arc<Model>,
    /// What was done.
    pub steps: Vec<Step>,
    /// Every wrap that was seen in the file.
    pub wraps: Vec<KnownWrap>,
    store: Option<Store>,
}

/// Options of a store in a simulated world.
#[must_use]
pub fn options(kms: &GatedKms, env: Arc<SimulatedEnv>) -> StoreOptions {
    Store::options()
        .backend(Backend::new(kms.clone()).named("managed"))
        .backend(Backend::new(kms.clone()).named("customer-kms"))
        .env(env)
        .kms_attempts_max(1)
        .background_rewrap(false)
        .rewrap_batch(REWRAP_BATCH)
        .rewrap_batches_per_step(1)
        .cache_bytes(1 << 20)
}

impl Life {
    /// A life whose store is just being created; a fault of the disk may make that fail.
    ///
    /// # Errors
    ///
    /// What the engine says of creating it.
    pub fn begin(seed: u64, disk: Arc<SimulatedDisk>) -> keystead::Result<Self> {
        let mut life = Self {
            seed,
            kms: SimulatedKms::new(),
            env: Arc::new(SimulatedEnv::new(seed)),
            model: Arc::default(),
            steps: Vec::new(),
            wraps: Vec::new(),
            store: None,
            disk,
        };
        let from = life.disk.recorded();
        let created = life.options().create_on_disk(life.disk.clone());
        life.store = Some(created?);
        life.note(None, from, Arc::default(), true);
        Ok(life)
    }

    fn options(&self) -> StoreOptions {
        options(&GatedKms::new(self.kms.clone()), Arc::clone(&self.env))
    }

    /// The open store.
    ///
    /// # Panics
    ///
    /// When it was dropped.
    #[must_use]
    pub fn store(&self) -> &Store {
        self.store.as_ref().expect("the store is open")
    }

    /// Drops the store: it closes.
    pub fn drop_store(&mut self) {
        self.store = None;
    }

    fn note(&mut self, action: Option<Action>, from: usize, after: Arc<Model>, acknowledged: bool) {
        let cells = live_cells(&self.disk.contents());
        self.note_wraps(&cells);
        let step = Step {
            action,
            from,
            to: acknowledged.then(|| self.disk.recorded()),
            before: Arc::clone(&self.model),
            after: Arc::clone(&after),
            cells,
        };
        if acknowledged {
            self.model = after;
        }
        self.steps.push(step);
    }

    /// Keeps a copy of every wrap, as somebody would who copied the file at this moment.
    fn note_wraps(&mut self, cells: &BTreeSet<[u8; 64]>) {
        // A store whose disk failed tells nothing any more.
        let listed = self.store.as_ref().and_then(|store| sealed_wraps(store).ok());
        for wrap in listed.into_iter().flatten() {
            if self.wraps.iter().any(|known| known.wrap == wrap) {
                continue;
            }
            let opens = |cell: &&[u8; 64]| cell.first_chunk().is_some_and(|key| wrap.open(key).is_some());
            if let Some(cell) = cells.iter().find(opens).copied() {
                self.wraps.push(KnownWrap { wrap, cell });
            }
        }
    }

    /// Does an action, and notes whether it was acknowledged.
    ///
    /// # Errors
    ///
    /// What the engine says.
    pub fn act(&mut self, action: Action) -> keystead::Result<()> {
        self.env.advance(Duration::from_millis(7));
        let from = self.disk.recorded();
        let after = Arc::new(self.model.after(&action));
        let outcome = if action == Action::Reopen {
            self.store = None;
            self.options()
                .open_on_disk(self.disk.clone())
                .map(|store| self.store = Some(store))
        } else {
            model::perform(self.store(), &self.model, &action)
        };
        self.note(Some(action), from, after, outcome.is_ok());
        outcome
    }

    /// Does so many actions by dice.
    ///
    /// # Errors
    ///
    /// What the engine says of the first one that fails.
    pub fn live(&mut self, actions: usize, dice: &mut Dice) -> keystead::Result<()> {
        (0..actions).try_for_each(|_| {
            let action = self.model.next(dice);
            self.act(action)
        })
    }

    /// What must be found when power goes after so many operations of the disk. `None`: while the store was being created.
    #[must_use]
    pub fn expected_at(&self, moment: usize) -> Option<Expected> {
        if self.steps.first()?.to.is_none_or(|created| moment < created) {
            return None;
        }
        let done = |step: &&Step| step.to.is_some_and(|to| to <= moment);
        let last = self.steps.iter().rev().find(done)?;
        let mut either = vec![Arc::clone(&last.after)];
        let mut doing = format!("after {:?}", last.action);
        let flying = self.steps.iter().find(|step| step.from <= moment && !done(step));
        if let Some(step) = flying {
            doing = format!("in {:?}", step.action);
            either.push(Arc::clone(&step.after));
        }
        Some(Expected { either, doing })
    }

    /// The shred cells that were erased by what was acknowledged at this moment: whatever power leaves, their keys are not in
    /// it, before the store is opened and recovers.
    #[must_use]
    pub fn erased_at(&self, moment: usize) -> BTreeSet<[u8; 64]> {
        let mut erased = BTreeSet::new();
        let mut live = &BTreeSet::new();
        for step in self
            .steps
            .iter()
            .filter(|step| step.to.is_some_and(|to| to <= moment))
        {
            erased.extend(live.difference(&step.cells).copied());
            live = &step.cells;
        }
        erased
    }

    /// The moments to cut at: before each sync, and after each acknowledgement. Sorted.
    #[must_use]
    pub fn moments(&self) -> Vec<usize> {
        let recording = self.disk.recording();
        let syncs = recording
            .operations
            .iter()
            .enumerate()
            .filter(|(_, operation)| **operation == Operation::Sync)
            .map(|(number, _)| number);
        let mut moments: Vec<usize> = syncs
            .chain(self.steps.iter().filter_map(|step| step.to))
            .collect();
        moments.sort_unstable();
        moments.dedup();
        moments
    }
}

/// What must never reach the disk.
#[derive(Debug)]
pub struct Forbidden {
    patterns: Patterns,
    /// Those from this one on may stand in shred cells.
    shred_keys_from: usize,
}

/// The mark that is in every value, the mark that is in every wrap of the simulated KMS; the beginnings and ends of every key that
/// the KMS ever wrapped, and of everything that was drawn in the length of a key: data keys, epoch keys, and shred keys, which
/// stand in their cells and nowhere else.
#[must_use]
pub fn forbidden(kms: &SimulatedKms, env: &SimulatedEnv) -> Forbidden {
    // A key that lies across two sectors shows one half of itself in one of them.
    let halves = |key: Vec<u8>| {
        let half = key.len() / 2;
        [key[..half].to_vec(), key[half..].to_vec()]
    };
    let mut patterns = vec![CANARY.to_vec(), b"ticket:".to_vec()];
    patterns.extend(kms.all_plaintexts().into_iter().flat_map(halves));
    let shred_keys_from = patterns.len();
    patterns.extend(env.keys().into_iter().map(Vec::from).flat_map(halves));
    Forbidden {
        patterns: Patterns::new(patterns),
        shred_keys_from,
    }
}

/// Looks for what is forbidden in bytes that are written at an offset of the disk.
///
/// # Errors
///
/// Where something was found.
pub fn search_write(forbidden: &Forbidden, offset: u64, data: &[u8]) -> Result<(), String> {
    let allowed =
        |pattern: usize, at: u64| pattern >= forbidden.shred_keys_from && cells_range().contains(&at);
    let found = forbidden
        .patterns
        .find_in(data)
        .find(|found| !allowed(found.pattern, offset + found.offset));
    match found {
        None => Ok(()),
        Some(found) => Err(format!(
            "a secret in clear is written at {}",
            offset + found.offset
        )),
    }
}
