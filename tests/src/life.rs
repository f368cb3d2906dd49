//! The life of a store on a simulated disk: actions, what was acknowledged at which moment of the disk, and what must be found
//! after power went at any of these moments.

use crate::disk::{Contents, SimulatedDisk};
use crate::env::{Dice, SimulatedEnv};
use crate::gate::GatedKms;
use crate::kms::SimulatedKms;
use crate::model::{self, Action, CANARY, Model, View};
use crate::observe::{check_cells, live_cells, observe, verify};
use keystead::simulation::Disk;
use keystead::{Backend, Store, StoreOptions};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Data keys that one batch of a re-wrap moves: few, so that there are many batches to be cut between.
const REWRAP_BATCH: usize = 3;

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
        let step = Step {
            action,
            from,
            to: acknowledged.then(|| self.disk.recorded()),
            before: Arc::clone(&self.model),
            after: Arc::clone(&after),
            cells: live_cells(&self.disk.contents()),
        };
        if acknowledged {
            self.model = after;
        }
        self.steps.push(step);
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
            .filter(|(_, operation)| **operation == crate::disk::Operation::Sync)
            .map(|(number, _)| number);
        let mut moments: Vec<usize> = syncs
            .chain(self.steps.iter().filter_map(|step| step.to))
            .collect();
        moments.sort_unstable();
        moments.dedup();
        moments
    }

    /// What must never reach the disk: the beginnings and ends of every key that the KMS ever wrapped, the mark that is in
    /// every value, the mark that is in every wrap.
    #[must_use]
    pub fn forbidden(&self) -> Vec<Vec<u8>> {
        let mut forbidden = vec![CANARY.to_vec(), b"ticket:".to_vec()];
        let grants: BTreeSet<&String> = self
            .steps
            .iter()
            .flat_map(|step| step.before.grants.iter().chain(&step.after.grants))
            .map(|(_, key)| key)
            .collect();
        for plaintext in grants.into_iter().flat_map(|key| self.kms.plaintexts(key)) {
            // A key that lies across two sectors shows one half of itself in one of them.
            let half = plaintext.len() / 2;
            forbidden.push(plaintext[..half].to_vec());
            forbidden.push(plaintext[half..].to_vec());
        }
        forbidden
    }
}

/// What one image went through.
#[derive(Debug, Default, Clone, Copy)]
pub struct Checked {
    /// The change in flight was found whole.
    pub flown: bool,
    /// A re-wrap job was found, and finished.
    pub job_finished: bool,
}

/// Opens what power left, and checks all that is promised; then works on, closes, opens again. Returns the disk.
///
/// # Errors
///
/// The story of what is wrong.
pub fn check(
    image: &Contents,
    expected: &Expected,
    kms: &SimulatedKms,
    env_seed: u64,
) -> Result<(Checked, Arc<SimulatedDisk>), String> {
    let disk = SimulatedDisk::holding(image.clone());
    let checked = check_disk(&disk, expected, kms, env_seed)?;
    Ok((checked, disk))
}

/// The same on a disk that the caller made.
///
/// # Errors
///
/// The story of what is wrong.
pub fn check_disk(
    disk: &Arc<SimulatedDisk>,
    expected: &Expected,
    kms: &SimulatedKms,
    env_seed: u64,
) -> Result<Checked, String> {
    let env = Arc::new(SimulatedEnv::new(env_seed));
    env.advance(Duration::from_secs(3600));
    let gate = GatedKms::new(kms.clone());
    let open = || options(&gate, Arc::clone(&env)).open_on_disk(Arc::clone(disk) as Arc<dyn Disk>);
    gate.grant_only(
        expected
            .either
            .iter()
            .flat_map(|model| model.grants.clone())
            .collect(),
    );

    // All that was acknowledged, byte for byte; what was in flight, wholly or not at all.
    let store = open().map_err(|error| format!("opening: {error}"))?;
    let view = observe(&store)?;
    let mut models = expected.either.iter();
    let found = models
        .position(|model| model.view == view)
        .ok_or_else(|| difference(expected, &view))?;
    // Now that it is known what was found: no other keys than those of that state are needed.
    gate.grant_only(matching_grants(expected, &view));
    store.forget_epoch_keys();
    verify(&store)?;
    check_cells(&store, disk)?;

    // Writers go on, a job goes on, and ends.
    let mut job_finished = false;
    let mut model = (*expected.either[found]).clone();
    for org in view.keys() {
        let put = Action::Put {
            org: org.clone(),
            put: ("after/power".into(), 40),
        };
        model::perform(&store, &model, &put)
            .map_err(|error| format!("a put after power came back: {error}"))?;
        model = model.after(&put);
        let organization = store.organization(org).map_err(|error| error.to_string())?;
        job_finished |= organization.rewrap_job().is_ok();
        model::run_job(&organization).map_err(|error| format!("the re-wrap job of {org}: {error}"))?;
    }
    let after = observe(&store)?;
    if after != model.view {
        return Err(difference(
            &Expected {
                either: vec![Arc::new(model)],
                doing: "after the job".into(),
            },
            &after,
        ));
    }
    verify(&store)?;
    check_cells(&store, disk)?;
    store.close().map_err(|error| format!("closing: {error}"))?;
    drop(store);

    // A second open changes nothing.
    let closed = disk.contents();
    let store = open().map_err(|error| format!("opening again: {error}"))?;
    if observe(&store)? != after {
        return Err("a second open changed what is there".into());
    }
    check_cells(&store, disk)?;
    drop(store);
    let store = open().map_err(|error| format!("opening a third time: {error}"))?;
    if live_cells(&closed) != live_cells(&disk.contents()) {
        return Err("opening without doing anything changed the shred cells".into());
    }
    drop(store);
    Ok(Checked {
        flown: found > 0,
        job_finished,
    })
}

/// The keys that may be needed: of the states that look like what was found, the ones that both before and after the change
/// in flight agree on looking alike are all allowed.
fn matching_grants(expected: &Expected, view: &View) -> BTreeSet<crate::gate::Grant> {
    let matching = expected.either.iter().filter(|model| model.view == *view);
    matching.flat_map(|model| model.grants.clone()).collect()
}

fn difference(expected: &Expected, found: &View) -> String {
    let mut story = String::new();
    for (n, model) in expected.either.iter().enumerate() {
        for (org, wanted) in &model.view {
            let Some(seen) = found.get(org) else {
                story += &format!("\n  [{n}] organization {org} is missing");
                continue;
            };
            if (&wanted.keys, &wanted.default) != (&seen.keys, &seen.default) {
                story += &format!(
                    "\n  [{n}] keys of {org}: {:?} {}, not {:?} {}",
                    seen.keys, seen.default, wanted.keys, wanted.default
                );
            }
            for (path, versions) in &wanted.secrets {
                if seen.secrets.get(path) != Some(versions) {
                    let count = seen.secrets.get(path).map(Vec::len);
                    story += &format!(
                        "\n  [{n}] {org} {path}: {count:?} versions, not {}",
                        versions.len()
                    );
                }
            }
            for path in seen
                .secrets
                .keys()
                .filter(|path| !wanted.secrets.contains_key(*path))
            {
                story += &format!("\n  [{n}] {org} {path} is there, and was never put");
            }
        }
    }
    format!(
        "found neither what was acknowledged nor what was in flight ({}):{story}",
        expected.doing
    )
}
