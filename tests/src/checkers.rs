//! What must hold whenever a store was opened again: one function for each promise, whose name a failure bears.
//!
//! Every state goes through the first part ([`Depth::Walk`]): one open, one walk over all it holds. A part of them, by dice,
//! also through the rest: the store works on, its re-wrap job goes to its end one batch at a time, it is closed and opened twice
//! more ([`Depth::WorkOn`]); and the whole image is searched ([`Depth::Search`]).

use crate::contents::Contents;
use crate::disk::{Operation, SimulatedDisk};
use crate::env::{Dice, SimulatedEnv};
use crate::gate::{GatedKms, Grant};
use crate::kms::SimulatedKms;
use crate::life::{self, Expected, KnownWrap};
use crate::model::{self, Action, Model, View, kms_key};
use crate::observe::{self, ListedWrap, Observed, live_cells, observe};
use crate::search::Patterns;
use keystead::simulation::{Disk, rewrap_step};
use keystead::{Organization, RewrapState, RewrapStatus, Store};
use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How far a state is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Open, read all, compare, count.
    Walk,
    /// And go on writing, finish the re-wrap job, close, open twice more.
    WorkOn,
    /// And search the whole image, free pages and journal included, before and after.
    Search,
}

impl Depth {
    /// One in 8 states is worked on with, one in 64 is searched.
    #[must_use]
    pub fn by(dice: &mut Dice) -> Self {
        match dice.below(64) {
            0 => Self::Search,
            1..8 => Self::WorkOn,
            _ => Self::Walk,
        }
    }
}

/// What kind of harm was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Something acknowledged is not there.
    Lost,
    /// Something is there in part, or without its audit record.
    Torn,
    /// A panic escaped.
    Panicked,
    /// Any other promise.
    Other,
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The checker that found it.
    pub checker: &'static str,
    /// What kind of harm it is.
    pub harm: Harm,
    /// What happened.
    pub story: String,
}

impl Failure {
    fn new(checker: &'static str, harm: Harm, story: impl Into<String>) -> Self {
        Self {
            checker,
            harm,
            story: story.into(),
        }
    }

    /// A panic that escaped.
    #[must_use]
    pub fn of_panic(panic: &(dyn std::any::Any + Send)) -> Self {
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Self::new(
            "no_panic",
            Harm::Panicked,
            said.unwrap_or("a panic without words"),
        )
    }

    /// The same, with what came before.
    #[must_use]
    pub fn after(mut self, before: &str) -> Self {
        self.story = format!("{before}\n{}", self.story);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {:?}: {}", self.checker, self.harm, self.story)
    }
}

impl std::error::Error for Failure {}

/// What is known of the life that left a state.
#[derive(Debug, Clone, Copy)]
pub struct Given<'l> {
    /// What must be found.
    pub expected: &'l Expected,
    /// The KMS, with all its keys.
    pub kms: &'l SimulatedKms,
    /// Every wrap that the file ever held: what somebody may have copied out of it.
    pub wraps: &'l [KnownWrap],
}

/// What one state went through.
#[derive(Debug, Default, Clone, Copy)]
pub struct Checked {
    /// The change in flight was found whole.
    pub flown: bool,
    /// It was worked on with.
    pub worked_on: bool,
    /// A re-wrap job was found, and finished.
    pub job_finished: bool,
    /// The whole image was searched.
    pub searched: bool,
}

/// Opens what stands on this disk, and checks all that is promised. A panic is a failure.
///
/// # Errors
///
/// The first promise that is broken.
pub fn check(
    disk: &Arc<SimulatedDisk>,
    given: Given<'_>,
    env_seed: u64,
    depth: Depth,
) -> Result<Checked, Failure> {
    catch_unwind(AssertUnwindSafe(|| check_all(disk, given, env_seed, depth)))
        .unwrap_or_else(|panic| Err(Failure::of_panic(&*panic)))
}

fn check_all(
    disk: &Arc<SimulatedDisk>,
    given: Given<'_>,
    env_seed: u64,
    depth: Depth,
) -> Result<Checked, Failure> {
    let world = World {
        disk,
        gate: GatedKms::new(given.kms.clone()),
        env: Arc::new(SimulatedEnv::new(env_seed)),
        given,
    };
    world.env.advance(Duration::from_secs(3600));
    let store = world.open("opening")?;
    let observed = observed(&store)?;
    let found = acknowledged(given.expected, &observed.view)?;
    one_wrap(&store, &observed.wraps, disk)?;
    no_key_opens_but_granted(&world, &observed)?;
    old_wraps_are_dead(&disk.contents(), given, &observed.wraps)?;
    let mut checked = Checked {
        flown: found > 0,
        ..Checked::default()
    };
    if depth < Depth::WorkOn {
        return Ok(checked);
    }
    if depth == Depth::Search {
        old_keys_open_nothing(&disk.contents(), given, &observed.wraps)?;
        checked.searched = true;
    }
    let model = world.work_on(&store, &given.expected.either[found], &mut checked)?;
    let after = observed_again(&store, &model, "after the job")?;
    one_wrap(&store, &after.wraps, disk)?;
    if store.close().is_err() {
        return Err(Failure::new(
            "second_open_changes_nothing",
            Harm::Other,
            "it does not close",
        ));
    }
    drop(store);
    second_open_changes_nothing(&world, &after)?;
    if depth == Depth::Search {
        old_keys_open_nothing(&disk.contents(), given, &after.wraps)?;
        no_secret_in_image(&world)?;
    }
    checked.worked_on = true;
    Ok(checked)
}

/// The disk, and the world around the stores that are opened on it.
struct World<'l> {
    disk: &'l Arc<SimulatedDisk>,
    gate: GatedKms,
    env: Arc<SimulatedEnv>,
    given: Given<'l>,
}

impl World<'_> {
    fn open(&self, doing: &str) -> Result<Store, Failure> {
        life::options(&self.gate, Arc::clone(&self.env))
            .open_on_disk(Arc::clone(self.disk) as Arc<dyn Disk>)
            .map_err(|error| Failure::new("acknowledged", Harm::Lost, format!("{doing}: {error}")))
    }

    /// Writers go on, and a job goes on from where it was to its end. Returns what is there then.
    fn work_on(&self, store: &Store, found: &Model, checked: &mut Checked) -> Result<Model, Failure> {
        let mut model = found.clone();
        for org in found.view.keys() {
            let put = Action::Put {
                org: org.clone(),
                put: ("after/power".into(), 40),
            };
            model::perform(store, &model, &put).map_err(|error| {
                Failure::new("acknowledged", Harm::Other, format!("a put after it: {error}"))
            })?;
            model = model.after(&put);
            let organization = store.organization(org).map_err(job_failed)?;
            checked.job_finished |= job_finishes(store, &organization, &model)?;
        }
        Ok(model)
    }
}

/// What reads, the audit trail beside it telling the same story (first promise, second half).
fn observed(store: &Store) -> Result<Observed, Failure> {
    observe(store).map_err(|story| Failure::new("acknowledged", Harm::Torn, story))
}

/// 1: every acknowledged change is there, byte for byte; an unacknowledged one wholly or not at all. Says which of what was
/// expected is there.
fn acknowledged(expected: &Expected, found: &View) -> Result<usize, Failure> {
    expected
        .either
        .iter()
        .position(|model| model.view == *found)
        .ok_or_else(|| {
            let (harm, story) = difference(expected, found);
            Failure::new("acknowledged", harm, story)
        })
}

fn observed_again(store: &Store, model: &Model, doing: &str) -> Result<Observed, Failure> {
    let seen = observed(store)?;
    let expected = Expected {
        either: vec![Arc::new(model.clone())],
        doing: doing.into(),
    };
    acknowledged(&expected, &seen.view)?;
    Ok(seen)
}

/// 2: each data key has exactly one wrap, under an epoch that is not retired; counts equal a scan; for each wrap of an epoch key
/// there is one shred cell, and no other holds anything.
fn one_wrap(store: &Store, wraps: &BTreeSet<ListedWrap>, disk: &SimulatedDisk) -> Result<(), Failure> {
    observe::verify(store).map_err(|story| Failure::new("one_wrap", Harm::Torn, story))?;
    let cells = live_cells(&disk.contents()).len();
    if cells == wraps.len() {
        return Ok(());
    }
    let story = format!("{cells} shred cells hold a key, for {} wraps", wraps.len());
    Err(Failure::new("one_wrap", Harm::Other, story))
}

/// 3: everything readable before is readable in the middle of a re-wrap and after it: after every batch, all of it is read,
/// half of the times with every epoch key forgotten.
fn readable_throughout(store: &Store, model: &Model, steps: u64) -> Result<(), Failure> {
    if steps % 2 == 1 {
        store.forget_epoch_keys();
    }
    observed_again(
        store,
        model,
        &format!("in the middle of a re-wrap, after {steps} steps"),
    )
    .map(drop)
    .map_err(|failure| Failure {
        checker: "readable_throughout",
        ..failure
    })
}

fn job_failed(error: keystead::Error) -> Failure {
    Failure::new("job_finishes", Harm::Other, error.to_string())
}

/// 4: a job resumes and finishes in a bounded number of steps, and does no committed batch again: it moves what was left,
/// no more, in no more batches than that takes. Says whether there was one.
pub fn job_finishes(store: &Store, organization: &Organization, model: &Model) -> Result<bool, Failure> {
    let status = |organization: &Organization| organization.rewrap_status().map_err(job_failed);
    let Some(before) = status(organization)?.filter(|status| status.state != RewrapState::Done) else {
        return Ok(false);
    };
    let batches_max = before.remaining / life::REWRAP_BATCH as u64 + 1;
    let sources = before.sources.len() as u64;
    // One for each batch, once more over all for each source that is handed over on the way, one to retire each, one to end.
    let steps_max = batches_max * (sources + 1) + sources + 2;
    let mut steps = 0;
    while rewrap_step(organization).map_err(job_failed)? {
        steps += 1;
        readable_throughout(store, model, steps)?;
        if steps > steps_max {
            let story = format!(
                "it is not done after {steps} steps: {before:?}, {:?}",
                status(organization)?
            );
            return Err(Failure::new("job_finishes", Harm::Other, story));
        }
    }
    let ended = |status: &RewrapStatus| status.job == before.job && status.state == RewrapState::Done;
    let Some(after) = status(organization)?.filter(ended) else {
        let story = format!("it stopped in the middle: {:?}", status(organization)?);
        return Err(Failure::new("job_finishes", Harm::Other, story));
    };
    if after.done != before.done + before.remaining {
        let story = format!(
            "{} data keys were moved and {} left, and in the end it moved {}",
            before.done, before.remaining, after.done
        );
        return Err(Failure::new("job_finishes", Harm::Other, story));
    }
    Ok(true)
}

/// 5, the KMS's side: what is there opens with the keys that the model allows, and no other is asked.
fn no_key_opens_but_granted(world: &World<'_>, observed: &Observed) -> Result<(), Failure> {
    let matching = |model: &&Arc<Model>| model.view == observed.view;
    let granted: BTreeSet<Grant> = world
        .given
        .expected
        .either
        .iter()
        .filter(matching)
        .flat_map(|model| model.grants.clone())
        .collect();
    match world.gate.used().difference(&granted).next() {
        None => Ok(()),
        Some((org, key)) => Err(Failure::new(
            "old_keys_open_nothing",
            Harm::Other,
            format!("{org} still needs the KMS key {key:?}"),
        )),
    }
}

/// 5, the file's side: of all wraps that the file ever held, those that the store does not list any more have no shred key.
fn old_wraps_are_dead(
    image: &Contents,
    given: Given<'_>,
    listed: &BTreeSet<ListedWrap>,
) -> Result<(), Failure> {
    let cells = live_cells(image);
    let back = given
        .wraps
        .iter()
        .find(|wrap| cells.contains(&wrap.cell) && !listed.contains(&wrap.listed()));
    match back {
        None => Ok(()),
        Some(wrap) => Err(Failure::new(
            "old_keys_open_nothing",
            Harm::Other,
            format!("the shred key of {} is still there", wrap.name()),
        )),
    }
}

/// 5, the attacker's side: the whole image is searched for wraps, free pages and journal included; each that is found is tried with
/// every shred key in the image, and what opens with every KMS key there ever was. Nothing comes out but the epoch keys that
/// the store lists, by the keys that it lists.
pub fn old_keys_open_nothing(
    image: &Contents,
    given: Given<'_>,
    listed: &BTreeSet<ListedWrap>,
) -> Result<(), Failure> {
    let patterns = Patterns::new(given.wraps.iter().map(|wrap| wrap.wrap.sealed().to_vec()));
    let found: BTreeSet<usize> = patterns
        .find(image)
        .into_iter()
        .map(|found| found.pattern)
        .collect();
    let cells = live_cells(image);
    for wrap in found.into_iter().map(|at| &given.wraps[at]) {
        let opened = cells.iter().find_map(|cell| {
            let shred_key = cell.first_chunk().expect("a cell has 64 bytes");
            given.kms.open_ticket(&wrap.wrap.open(shred_key)?)
        });
        if opened.is_some() && !listed.contains(&wrap.listed()) {
            return Err(Failure::new(
                "old_keys_open_nothing",
                Harm::Other,
                format!("{} opens", wrap.name()),
            ));
        }
    }
    Ok(())
}

/// 6: no plaintext, data key or epoch key in what was written since the store was opened. (What was written before is
/// searched once for each life: [`crate::explore::check_secrecy`].)
fn no_secret_in_image(world: &World<'_>) -> Result<(), Failure> {
    let forbidden = life::forbidden(world.given.kms, &world.env);
    for operation in &world.disk.recording().operations {
        if let Operation::Write(offset, data) = operation {
            life::search_write(&forbidden, *offset, data)
                .map_err(|story| Failure::new("no_secret_in_image", Harm::Other, story))?;
        }
    }
    Ok(())
}

/// How often opening may cut free blocks off the file's end before its length stays.
const TRIMS_MAX: usize = 4;

/// 7: a second open changes nothing: not what reads, not a shred cell; a third one not the journal. redb gives free blocks at
/// the file's end back as it opens and closes, a few at a time: the length may fall for a few more opens, never rise, and
/// stays then.
fn second_open_changes_nothing(world: &World<'_>, before: &Observed) -> Result<(), Failure> {
    let failed = |story: &str| Failure::new("second_open_changes_nothing", Harm::Other, story);
    let cells = live_cells(&world.disk.contents());
    let store = world.open("opening again")?;
    if observed(&store)? != *before {
        return Err(failed("a second open changed what is there"));
    }
    drop(store);
    let journal = journal_of(&world.disk.contents());
    let mut length = world.disk.contents().len();
    for _ in 0..TRIMS_MAX {
        drop(world.open("opening once more")?);
        let contents = world.disk.contents();
        if live_cells(&contents) != cells {
            return Err(failed("opening without doing anything changed the shred cells"));
        }
        if journal_of(&contents) != journal {
            return Err(failed("opening without doing anything changed the journal"));
        }
        if contents.len() == length {
            return Ok(());
        }
        if contents.len() > length {
            return Err(failed("opening without doing anything made the file longer"));
        }
        length = contents.len();
    }
    Err(failed(
        "opening without doing anything makes the file shorter each time",
    ))
}

/// The hash of the journal's region. (redb writes its own header at each open and close: the pages are compared by what reads.)
fn journal_of(contents: &Contents) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; 64 << 10];
    for at in (65_536..65_536 + (4 << 20)).step_by(piece.len()) {
        if contents.read(at, &mut piece) {
            hasher.update(&piece);
        }
    }
    *hasher.finalize().as_bytes()
}

/// What power leaves of a file that was just being created: it is refused for a clear reason, or it is an empty store that
/// works.
///
/// # Errors
///
/// What else it is.
pub fn no_half_store(image: &Contents, kms: &SimulatedKms, env_seed: u64) -> Result<(), Failure> {
    let failed = |harm, story: String| Failure::new("no_half_store", harm, story);
    let gate = GatedKms::new(kms.clone());
    let disk = SimulatedDisk::holding(image.clone());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let env = Arc::new(SimulatedEnv::new(env_seed));
        let store = match life::options(&gate, env).open_on_disk(disk) {
            Ok(store) => store,
            Err(
                keystead::Error::NotAStore { .. }
                | keystead::Error::Damaged { .. }
                | keystead::Error::Storage { .. },
            ) => return Ok(()),
            Err(error) => return Err(failed(Harm::Other, format!("no clear error: {error}"))),
        };
        let works = || -> keystead::Result<bool> {
            let organization = store.create_organization("first")?;
            organization.put("a", "b")?;
            Ok(organization.get("a")?.value == *b"b")
        };
        match works() {
            Ok(true) => Ok(()),
            other => Err(failed(
                Harm::Torn,
                format!("it opens, and does not work: {other:?}"),
            )),
        }
    }));
    outcome.unwrap_or_else(|_| Err(failed(Harm::Panicked, "opening it panics".into())))
}

/// Which wrap of which key, for people.
impl KnownWrap {
    fn listed(&self) -> ListedWrap {
        (
            self.wrap.organization.clone(),
            self.wrap.epoch,
            self.wrap.key.clone(),
        )
    }

    fn name(&self) -> String {
        let wrap = &self.wrap;
        format!(
            "the wrap of epoch {} of {} by {:?} ({})",
            wrap.epoch,
            wrap.organization,
            wrap.key,
            kms_key(&wrap.organization, &wrap.key)
        )
    }
}

/// How what was found differs from all that could be expected, and what kind of harm that is.
fn difference(expected: &Expected, found: &View) -> (Harm, String) {
    let mut story = String::new();
    let mut lost = false;
    for (n, model) in expected.either.iter().enumerate() {
        for (org, wanted) in &model.view {
            let Some(seen) = found.get(org) else {
                lost |= n == 0;
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
                    let count = seen.secrets.get(path).map_or(0, Vec::len);
                    lost |= n == 0 && count < versions.len();
                    story += &format!("\n  [{n}] {org} {path}: {count} versions, not {}", versions.len());
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
    let story = format!(
        "found neither what was acknowledged nor what was in flight ({}):{story}",
        expected.doing
    );
    (if lost { Harm::Lost } else { Harm::Torn }, story)
}
