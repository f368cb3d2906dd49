//! Whole lives: an application's changes, a KMS that fails in every way, a clock that jumps, power that goes at any moment and
//! again during recovery. Every outcome is compared with the model; a life follows from its seed and is told in words.
//!
//! A life is a list of deeds, made by `proptest`. A deed says what kind of thing happens and carries dice for the rest, so it fits
//! whatever came before, and a life from which deeds are taken away is a life still: that is how it shrinks.

use crate::checkers::{self, Depth, Failure, Given, Harm};
use crate::disk::SimulatedDisk;
use crate::env::{Dice, SimulatedEnv};
use crate::gate::GatedKms;
use crate::kms::{Fault, SimulatedKms};
use crate::life::{self, Expected, KnownWrap};
use crate::logs;
use crate::model::{self, Action, Model, VersionView, View, kms_key};
use crate::observe::{live_cells, observe, observe_shape};
use crate::power::{Budget, images};
use keystead::simulation::{rewrap_step, sealed_wraps};
use keystead::{Env, Error, PutOptions, Store, Version};
use keystead_backend::{ErrorClass, ErrorCode};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// How long an epoch key may serve: the engine's default.
const LIFETIME: Duration = Duration::from_secs(300);

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the story tells what each is")]
pub enum Kind {
    Change,
    AbandonStream,
    Read,
    RewrapStep,
    Retarget,
    TimePasses,
    Forget,
    Reopen,
    KeyFails,
    KeyLies,
    KeyRestored,
    RotatedBehindOurBack,
    NextCallsMeet,
    AllRestored,
    PowerGoes,
}

/// Something that happens, with the dice for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deed {
    /// What.
    pub kind: Kind,
    /// The dice's seed.
    pub dice: u64,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let kind = prop_oneof![
        22 => Just(Kind::Change),
        1 => Just(Kind::AbandonStream),
        8 => Just(Kind::Read),
        5 => Just(Kind::RewrapStep),
        1 => Just(Kind::Retarget),
        3 => Just(Kind::TimePasses),
        1 => Just(Kind::Forget),
        1 => Just(Kind::Reopen),
        2 => Just(Kind::KeyFails),
        1 => Just(Kind::KeyLies),
        3 => Just(Kind::KeyRestored),
        1 => Just(Kind::RotatedBehindOurBack),
        2 => Just(Kind::NextCallsMeet),
        2 => Just(Kind::AllRestored),
        4 => Just(Kind::PowerGoes),
    ];
    let deed = (kind, any::<u64>()).prop_map(|(kind, dice)| Deed { kind, dice });
    prop::collection::vec(deed, 20..90)
}

fn runner(seed: u64) -> TestRunner {
    let bytes = *blake3::hash(&seed.to_le_bytes()).as_bytes();
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// The deeds of a seed.
///
/// # Panics
///
/// Never: lists of deeds are made without rejecting any.
#[must_use]
pub fn deeds_of(seed: u64) -> Vec<Deed> {
    let tree = deeds().new_tree(&mut runner(seed));
    tree.expect("deeds are made without rejecting any").current()
}

/// The shortest story that still breaks a promise, if the life of this seed breaks one.
///
/// # Panics
///
/// As [`deeds_of`].
#[must_use]
pub fn shrunk(seed: u64) -> Option<Failure> {
    let mut runner = runner(seed);
    let tree = deeds()
        .new_tree(&mut runner)
        .expect("deeds are made without rejecting any");
    let failed = runner.run_one(tree, |deeds| {
        guarded(&deeds, seed)
            .map(drop)
            .map_err(|failure| TestCaseError::fail(failure.to_string()))
    });
    match failed {
        Err(TestError::Fail(_, deeds)) => guarded(&deeds, seed).err(),
        _ => None,
    }
}

/// A life in which a panic is a failure.
fn guarded(deeds: &[Deed], seed: u64) -> Result<Lived, Failure> {
    std::panic::catch_unwind(|| live(deeds, seed)).unwrap_or_else(|panic| Err(Failure::of_panic(&*panic)))
}

/// What lives went through.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LifeFigures {
    /// Deeds done.
    pub deeds: u64,
    /// Changes acknowledged.
    pub acknowledged: u64,
    /// Changes that a KMS refused, after which nothing was changed.
    pub refused: u64,
    /// Values read.
    pub reads: u64,
    /// Reads that were refused for the sake of a KMS.
    pub reads_refused: u64,
    /// Reads that were served while the KMS was out of reach or had refused elsewhere.
    pub served_in_outage: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Of these, followed by another one during recovery.
    pub cut_again: u64,
    /// States that were checked as a whole.
    pub states: u64,
    /// Faults of the KMS, by kind.
    pub kms_faults: BTreeMap<String, u64>,
}

impl LifeFigures {
    /// Adds those of another life.
    pub fn add(&mut self, other: &Self) {
        self.deeds += other.deeds;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.reads += other.reads;
        self.reads_refused += other.reads_refused;
        self.served_in_outage += other.served_in_outage;
        self.power_cuts += other.power_cuts;
        self.cut_again += other.cut_again;
        self.states += other.states;
        for (kind, count) in &other.kms_faults {
            *self.kms_faults.entry(kind.clone()).or_default() += count;
        }
    }
}

impl fmt::Display for LifeFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self
            .kms_faults
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        write!(
            f,
            "{} deeds: {} changes acknowledged, {} refused by a KMS; {} reads, {} refused, {} served in an outage; \
             {} power cuts, {} of them again during recovery; {} states checked as a whole\n             \
             faults of the KMS: {}",
            self.deeds,
            self.acknowledged,
            self.refused,
            self.reads,
            self.reads_refused,
            self.served_in_outage,
            self.power_cuts,
            self.cut_again,
            self.states,
            faults.join(", ")
        )
    }
}

/// A life that was lived.
#[derive(Debug)]
pub struct Lived {
    /// Its figures.
    pub figures: LifeFigures,
    /// What was done and what came of it, in words.
    pub story: Vec<String>,
    /// A hash of everything that was asked of the disk, and of the story.
    pub trace: blake3::Hash,
}

/// Lives a life.
///
/// # Errors
///
/// The promise that was broken, with the story up to it.
pub fn live(deeds: &[Deed], seed: u64) -> Result<Lived, Failure> {
    let (outcome, logged) = logs::captured(|| {
        let mut living = Living::begin(seed)?;
        let outcome = living.all(deeds);
        Ok((outcome, living))
    });
    let (outcome, mut living) = outcome?;
    outcome
        .and_then(|()| {
            let text = [logged, living.errors.join("\n").into_bytes()].concat();
            logs::no_secret_in(&text, &living.kms, &living.env)
        })
        .map_err(|failure| {
            let story = living.story.join("\n  ");
            failure.after(&format!("KEYSTEAD_SEED={seed}\n  {story}"))
        })?;
    living.hash_disk();
    for line in &living.story {
        living.trace.update(line.as_bytes());
    }
    Ok(Lived {
        figures: living.figures,
        story: living.story,
        trace: living.trace.finalize(),
    })
}

struct Living {
    seed: u64,
    kms: SimulatedKms,
    env: Arc<SimulatedEnv>,
    disk: Arc<SimulatedDisk>,
    store: Option<Store>,
    model: Arc<Model>,
    wraps: Vec<KnownWrap>,
    /// KMS keys that fail, and how.
    failing: BTreeMap<String, ErrorCode>,
    /// KMS keys that unwrap to other bytes.
    lying: BTreeSet<String>,
    /// KMS keys whose revocation an organization has met since they fail: nothing of them may be cached any more.
    noticed: BTreeSet<(String, String)>,
    /// What was read since the cache was last emptied or changed, and when that was.
    served: BTreeSet<(String, String, u32)>,
    steady_since: Duration,
    /// When something of the KMS was last out of order: what it refused is remembered for a second.
    ill_at: Option<Duration>,
    /// Something was out of order when this deed began.
    ill_deed: bool,
    figures: LifeFigures,
    story: Vec<String>,
    errors: Vec<String>,
    trace: blake3::Hasher,
}

fn broken(checker: &'static str, harm: Harm, story: impl Into<String>) -> Failure {
    Failure {
        checker,
        harm,
        story: story.into(),
    }
}

impl Living {
    fn begin(seed: u64) -> Result<Self, Failure> {
        let env = Arc::new(SimulatedEnv::new(seed));
        let kms = SimulatedKms::new();
        kms.set_clock(Arc::clone(&env));
        let mut living = Self {
            seed,
            kms,
            disk: SimulatedDisk::new(),
            store: None,
            model: Arc::default(),
            wraps: Vec::new(),
            failing: BTreeMap::new(),
            lying: BTreeSet::new(),
            noticed: BTreeSet::new(),
            served: BTreeSet::new(),
            steady_since: env.elapsed(),
            ill_at: None,
            ill_deed: false,
            figures: LifeFigures::default(),
            story: Vec::new(),
            errors: Vec::new(),
            trace: blake3::Hasher::new(),
            env,
        };
        let created = living.options().create_on_disk(living.disk.clone());
        living.store = Some(created.map_err(|error| broken("acknowledged", Harm::Other, error.to_string()))?);
        Ok(living)
    }

    fn options(&self) -> keystead::StoreOptions {
        life::options(&GatedKms::new(self.kms.clone()), Arc::clone(&self.env))
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("the store is open between deeds")
    }

    /// Nothing stands in the way of any KMS call, and nothing did a moment ago.
    fn calm(&self) -> bool {
        let recovered = |at: Duration| self.env.elapsed().saturating_sub(at) > Duration::from_secs(1);
        !self.ill_deed && !self.ill() && self.ill_at.is_none_or(recovered)
    }

    fn ill(&self) -> bool {
        !self.failing.is_empty() || !self.lying.is_empty() || self.kms.faults_left() > 0
    }

    fn all(&mut self, deeds: &[Deed]) -> Result<(), Failure> {
        for deed in deeds {
            self.env.advance(Duration::from_millis(7));
            self.figures.deeds += 1;
            let (ill, planned) = (self.ill(), self.kms.faults_left());
            let began = self.env.elapsed();
            self.ill_deed = ill;
            self.one(deed)?;
            self.note_wraps();
            if self.kms.faults_left() != planned {
                // Whoever met it, perhaps a renewal that nobody waits for: the cache may have changed.
                self.unsettle();
            }
            if self.ill() {
                self.ill_at = Some(self.env.elapsed());
            } else if ill {
                // It ended in this very deed; a deed that says so lets two seconds pass.
                let waited = matches!(deed.kind, Kind::AllRestored | Kind::KeyRestored);
                self.ill_at = Some(if waited { began } else { self.env.elapsed() });
            }
        }
        self.end()
    }

    fn one(&mut self, deed: &Deed) -> Result<(), Failure> {
        let mut dice = Dice::new(deed.dice);
        match deed.kind {
            Kind::Change => {
                let action = self.model.next(&mut dice);
                self.change(action)
            }
            Kind::AbandonStream => self.abandon_stream(&mut dice),
            Kind::Read => self.read(&mut dice),
            Kind::RewrapStep => self.rewrap(&mut dice, 1),
            Kind::Retarget => self.retarget(&mut dice),
            Kind::TimePasses => {
                let by = Duration::from_secs(*dice.choose(&[1, 20, 100, 140, 160, 290, 301, 4000]));
                self.tell(format!("{} s pass", by.as_secs()));
                self.env.advance(by);
                Ok(())
            }
            Kind::Forget => self.change(Action::ForgetEpochKeys),
            Kind::Reopen => self.change(Action::Reopen),
            Kind::KeyFails => {
                if let Some(key) = self.some_key(&mut dice) {
                    let code = *dice.choose(ErrorCode::ALL);
                    self.count_fault(&format!("key {code}"));
                    self.tell(format!("the KMS says of {key}: {code}"));
                    self.kms.fail(&key, code);
                    self.noticed.retain(|(_, noticed)| *noticed != key);
                    self.failing.insert(key, code);
                    self.unsettle();
                }
                Ok(())
            }
            Kind::KeyLies => {
                if let Some(key) = self.some_key(&mut dice) {
                    self.count_fault("key lies");
                    self.tell(format!("{key} unwraps to other bytes from now on"));
                    self.kms.lie(&key);
                    self.lying.insert(key);
                    self.unsettle();
                }
                Ok(())
            }
            Kind::KeyRestored => {
                let keys: Vec<String> = self.failing.keys().cloned().collect();
                if !keys.is_empty() {
                    let key = dice.choose(&keys).clone();
                    self.tell(format!("{key} works again"));
                    self.kms.restore(&key);
                    self.failing.remove(&key);
                    self.noticed.retain(|(_, noticed)| *noticed != key);
                    self.env.advance(Duration::from_secs(2));
                    self.unsettle();
                }
                Ok(())
            }
            Kind::RotatedBehindOurBack => {
                if let Some(key) = self.some_key(&mut dice) {
                    self.count_fault("rotated behind our back");
                    self.tell(format!("{key} is rotated in its KMS"));
                    self.kms.rotate(&key);
                }
                Ok(())
            }
            Kind::NextCallsMeet => {
                self.plan(&mut dice);
                Ok(())
            }
            Kind::AllRestored => {
                self.restore_all();
                Ok(())
            }
            Kind::PowerGoes => self.power_goes(&mut dice),
        }
    }

    fn plan(&mut self, dice: &mut Dice) {
        let retryable = [ErrorCode::Throttled, ErrorCode::Unavailable, ErrorCode::Timeout];
        let (words, faults) = match dice.below(8) {
            0 => ("the answer is lost", vec![Fault::LoseAnswer]),
            1 => ("a wrong key is returned", vec![Fault::WrongKey]),
            2 => (
                "an oversized blob is returned",
                vec![Fault::OversizedBlob(1 << 20)],
            ),
            3 => ("a blob of garbage is returned", vec![Fault::GarbageBlob]),
            4 => ("a slow answer", vec![Fault::Slow(Duration::from_secs(5))]),
            5 => (
                "an answer that is too late",
                vec![Fault::Slow(Duration::from_secs(60))],
            ),
            6 => {
                let burst = vec![Fault::Refuse(ErrorCode::Throttled); 2 + dice.below(6) as usize];
                ("a burst of throttling", burst)
            }
            _ => (
                "an outage of one call",
                vec![Fault::Refuse(*dice.choose(&retryable))],
            ),
        };
        self.count_fault(words);
        self.tell(format!("the next KMS calls meet: {words}, {}", faults.len()));
        self.kms.plan(faults);
        self.unsettle();
    }

    fn restore_all(&mut self) {
        self.tell("all of the KMS works again".into());
        self.kms.restore_all();
        self.failing.clear();
        self.lying.clear();
        self.noticed.clear();
        self.ill_deed = false;
        // A failure is remembered for a second.
        self.env.advance(Duration::from_secs(2));
        self.unsettle();
    }

    fn some_key(&self, dice: &mut Dice) -> Option<String> {
        let keys: Vec<String> = self.model.grants.iter().map(|(_, key)| key.clone()).collect();
        (!keys.is_empty()).then(|| dice.choose(&keys).clone())
    }

    fn tell(&mut self, line: String) {
        self.story.push(line);
    }

    fn count_fault(&mut self, kind: &str) {
        *self.figures.kms_faults.entry(kind.to_owned()).or_default() += 1;
    }

    /// What was read need not be served any more: the cache may have changed.
    fn unsettle(&mut self) {
        self.served.clear();
        self.steady_since = self.env.elapsed();
    }

    fn note_wraps(&mut self) {
        let listed = self.store.as_ref().and_then(|store| sealed_wraps(store).ok());
        let mut cells = None;
        for wrap in listed.into_iter().flatten() {
            if self.wraps.iter().any(|known| known.wrap == wrap) {
                continue;
            }
            let cells = cells.get_or_insert_with(|| live_cells(&self.disk.contents()));
            let opens = |cell: &&[u8; 64]| cell.first_chunk().is_some_and(|key| wrap.open(key).is_some());
            if let Some(cell) = cells.iter().find(opens).copied() {
                self.wraps.push(KnownWrap { wrap, cell });
            }
        }
    }

    /// Notes an error, and fails unless it is one of the KMS, with a KMS that is ill.
    fn excuse(&mut self, doing: &str, error: &Error) -> Result<(), Failure> {
        self.errors.push(format!("{error} {error:?}"));
        let Error::Kms {
            organization,
            key,
            source,
            ..
        } = error
        else {
            let story = format!("{doing}: not an error of a KMS: {error:?}");
            return Err(broken("errors_name_the_kms", Harm::Other, story));
        };
        if source.code.class() == ErrorClass::Revoked {
            let key = kms_key(organization.as_str(), key.as_str());
            if self
                .failing
                .get(&key)
                .is_some_and(|code| code.class() == ErrorClass::Revoked)
            {
                self.noticed.insert((organization.to_string(), key));
            }
        }
        Ok(())
    }

    /// Does a change, and compares what came of it.
    fn change(&mut self, action: Action) -> Result<(), Failure> {
        if let Action::Rewrap { .. } = &action {
            return self.rewrap(&mut Dice::new(0), u64::MAX);
        }
        let was_calm = self.calm();
        let outcome = self.perform(&action);
        match &outcome {
            Ok(()) => {
                self.tell(action.to_string());
                self.figures.acknowledged += 1;
                self.model = Arc::new(self.model.after(&action));
            }
            Err(error) => {
                self.tell(format!("{action}: refused: {error}"));
                self.figures.refused += 1;
                if was_calm {
                    let story = format!("{action}: {error}");
                    return Err(broken("a_life_without_faults_goes_on", Harm::Other, story));
                }
                self.excuse(&action.to_string(), error)?;
            }
        }
        if !matches!(
            action,
            Action::Put { .. } | Action::Batch { .. } | Action::Stream { .. }
        ) || outcome.is_err()
        {
            self.unsettle();
        }
        self.same_shape("what_failed_changed_nothing")
    }

    fn perform(&mut self, action: &Action) -> keystead::Result<()> {
        if *action == Action::Reopen {
            self.store = None;
            self.store = Some(self.options().open_on_disk(self.disk.clone())?);
            return Ok(());
        }
        model::perform(self.store(), &self.model, action)
    }

    fn same_shape(&mut self, checker: &'static str) -> Result<(), Failure> {
        let seen = observe_shape(self.store()).map_err(|story| broken(checker, Harm::Torn, story))?;
        if seen.view == self.model.shape() {
            return Ok(());
        }
        Err(broken(
            checker,
            Harm::Torn,
            unlike(&self.model.shape(), &seen.view),
        ))
    }

    /// Begins a stream and drops it in its middle: nothing is there.
    fn abandon_stream(&mut self, dice: &mut Dice) -> Result<(), Failure> {
        let names: Vec<String> = self.model.view.keys().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        let org = dice.choose(&names).clone();
        self.tell(format!("{org}: begin a stream and drop it"));
        let begun = self
            .store()
            .organization(&org)
            .and_then(|organization| organization.writer("streams/abandoned", PutOptions::new()));
        match begun {
            // Two MiB: a part of it is committed.
            Ok(mut writer) => drop(writer.write_all(&model::value(&org, "abandoned", 1, 2 << 20))),
            Err(error) => self.excuse("beginning a stream", &error)?,
        }
        self.same_shape("a_stream_is_there_whole_or_not")
    }

    /// Does steps of a running re-wrap job.
    fn rewrap(&mut self, dice: &mut Dice, steps: u64) -> Result<(), Failure> {
        let names: Vec<String> = self.model.view.keys().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        let org = dice.choose(&names).clone();
        let organization = self.store().organization(&org).map_err(other("job_finishes"))?;
        let mut done = 0;
        while done < steps {
            done += 1;
            if done > 10_000 {
                return Err(broken("job_finishes", Harm::Other, "it goes on and on"));
            }
            match rewrap_step(&organization) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.excuse("a step of a re-wrap", &error)?;
                    break;
                }
            }
        }
        self.tell(format!("{org}: {done} steps of a re-wrap"));
        if organization.rewrap_job().is_err() {
            self.model = Arc::new(self.model.after(&Action::Rewrap { org }));
        }
        self.unsettle();
        self.same_shape("readable_throughout")?;
        if self.calm() { self.same_values() } else { Ok(()) }
    }

    fn same_values(&mut self) -> Result<(), Failure> {
        let seen = observe(self.store()).map_err(|story| broken("readable_throughout", Harm::Torn, story))?;
        if seen.view == self.model.view {
            return Ok(());
        }
        Err(broken(
            "readable_throughout",
            Harm::Torn,
            unlike(&self.model.view, &seen.view),
        ))
    }

    /// Gives a running job another target.
    fn retarget(&mut self, dice: &mut Dice) -> Result<(), Failure> {
        let names: Vec<String> = self.model.view.keys().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        let org = dice.choose(&names).clone();
        let enabled: Vec<String> = self.model.view[&org]
            .keys
            .iter()
            .filter(|(_, enabled)| **enabled)
            .map(|(name, _)| name.clone())
            .collect();
        let key = dice.choose(&enabled).clone();
        let organization = self.store().organization(&org).map_err(other("retarget"))?;
        let was_calm = self.calm();
        match organization.keys().retarget(&key).map(drop) {
            Ok(()) => {
                self.tell(format!("{org}: what is being moved goes to {key}"));
                self.model = Arc::new(self.model.granting(&org, &key));
            }
            Err(Error::NoJob { .. }) => return Ok(()),
            Err(error) => {
                self.tell(format!(
                    "{org}: what is being moved goes to {key}: refused: {error}"
                ));
                if was_calm {
                    return Err(broken(
                        "a_life_without_faults_goes_on",
                        Harm::Other,
                        error.to_string(),
                    ));
                }
                self.excuse("giving a job another target", &error)?;
            }
        }
        self.unsettle();
        self.same_shape("what_failed_changed_nothing")
    }

    /// Reads one version, and holds the outcome against what the KMS's state allows.
    fn read(&mut self, dice: &mut Dice) -> Result<(), Failure> {
        let live: Vec<(String, String, u32, [u8; 32])> = self
            .model
            .view
            .iter()
            .flat_map(|(org, view)| {
                view.secrets
                    .iter()
                    .map(move |(path, versions)| (org, path, versions))
            })
            .flat_map(|(org, path, versions)| {
                versions
                    .iter()
                    .zip(1..)
                    .map(move |(version, n)| (org, path, version, n))
            })
            .filter_map(|(org, path, version, n)| match version {
                VersionView::Live(hash) => Some((org.clone(), path.clone(), n, *hash)),
                _ => None,
            })
            .collect();
        if live.is_empty() {
            return Ok(());
        }
        let (org, path, number, hash) = dice.choose(&live).clone();
        let version = Version::new(number).expect("versions count from 1");
        let (was_calm, before) = (self.calm(), self.env.elapsed());
        let planned = self.kms.faults_left() > 0;
        let read = self
            .store()
            .organization(&org)
            .and_then(|organization| organization.get_version(&path, version));
        let place = (org.clone(), path.clone(), number);
        match read {
            Ok(secret) => {
                self.tell(format!("{org}: read {path} version {number}"));
                self.figures.reads += 1;
                if model::hash(secret.value.as_ref()) != hash {
                    return Err(broken(
                        "never_a_wrong_value",
                        Harm::Other,
                        format!("{org} {path}"),
                    ));
                }
                if !was_calm {
                    self.may_serve(&org, before)?;
                }
                self.served.insert(place);
            }
            Err(error) => {
                self.tell(format!("{org}: read {path} version {number}: refused: {error}"));
                self.figures.reads_refused += 1;
                if was_calm {
                    let story = format!("{org} {path}: {error}");
                    return Err(broken("a_life_without_faults_goes_on", Harm::Other, story));
                }
                // An outage alone takes nothing away that was served in this very calm of the cache.
                let outage = |code: &ErrorCode| code.class() == ErrorClass::Retryable;
                let only_outage = !planned && self.lying.is_empty() && self.failing.values().all(outage);
                let lasts = before.saturating_sub(self.steady_since) < LIFETIME;
                if only_outage && lasts && self.served.contains(&place) {
                    let story = format!("{org} {path} was served and is not any more: {error}");
                    return Err(broken("an_outage_is_no_revocation", Harm::Other, story));
                }
                self.excuse("reading", &error)?;
            }
        }
        Ok(())
    }

    /// A value was served although not all of the KMS works: from the cache, or by a key that does. Of an organization whose
    /// every key fails only the first, and no longer than the KMS's last answer lasts; and not if that is a revocation that it has met.
    fn may_serve(&mut self, org: &str, now: Duration) -> Result<(), Failure> {
        let seen = observe_shape(self.store()).map_err(|story| broken("acknowledged", Harm::Torn, story))?;
        let keys: BTreeSet<String> = seen
            .wraps
            .into_iter()
            .filter(|(organization, ..)| organization == org)
            .map(|(_, _, key)| kms_key(org, &key))
            .collect();
        if !keys.iter().all(|key| self.failing.contains_key(key)) {
            return Ok(());
        }
        self.figures.served_in_outage += 1;
        let last = self.kms.last_served(org).unwrap_or_default();
        if now.saturating_sub(last) >= LIFETIME {
            let story = format!(
                "{org} is served {} s after its KMS's last answer",
                (now - last).as_secs()
            );
            return Err(broken("an_outage_is_bounded", Harm::Other, story));
        }
        if keys
            .iter()
            .all(|key| self.noticed.contains(&(org.to_owned(), key.clone())))
        {
            let story = format!("{org} is served although every key of it was found revoked");
            return Err(broken("revocation_is_honoured", Harm::Other, story));
        }
        Ok(())
    }

    fn hash_disk(&mut self) {
        let trace = self.disk.recording().trace();
        self.trace.update(trace.as_bytes());
    }

    /// Power goes in the middle of a change, and perhaps once more while the store recovers from it.
    fn power_goes(&mut self, dice: &mut Dice) -> Result<(), Failure> {
        let action = self.model.next(dice);
        let was_calm = self.calm();
        let from = self.disk.recorded();
        let before = Arc::clone(&self.model);
        let (acknowledged, after) = match &action {
            Action::Rewrap { .. } => {
                self.rewrap(dice, 2)?;
                (true, Arc::clone(&self.model))
            }
            action => match self.perform(action) {
                Ok(()) => (true, Arc::new(before.after(action))),
                Err(error) if was_calm => {
                    return Err(broken(
                        "a_life_without_faults_goes_on",
                        Harm::Other,
                        error.to_string(),
                    ));
                }
                Err(error) => {
                    self.excuse(&action.to_string(), &error)?;
                    (false, Arc::clone(&before))
                }
            },
        };
        self.note_wraps();
        let to = self.disk.recorded();
        let moment = from + dice.below((to - from) as u64 + 1) as usize;
        let acknowledged = acknowledged && moment == to;
        self.tell(format!(
            "{action}; power goes after {} of its {} operations",
            moment - from,
            to - from
        ));
        let either = if acknowledged {
            vec![after]
        } else {
            vec![before, after]
        };
        self.cut(moment, dice);
        if dice.once_in(3) {
            self.figures.cut_again += 1;
            let from = self.disk.recorded();
            self.open_after_power()?;
            self.store = None;
            let moment = from + dice.below((self.disk.recorded() - from) as u64 + 1) as usize;
            self.tell("and again while it recovers".into());
            self.cut(moment, dice);
        }
        self.open_after_power()?;
        self.settle(&either)
    }

    fn cut(&mut self, moment: usize, dice: &mut Dice) {
        let recording = self.disk.recording();
        self.store = None;
        self.hash_disk();
        self.figures.power_cuts += 1;
        let budget = Budget {
            exhaustive_operations: 3,
            subsets: 6,
            torn: 6,
        };
        let cut = recording.cut_at(moment);
        let images = images(&cut, budget, dice);
        self.disk = SimulatedDisk::holding(dice.choose(&images).contents.clone());
        self.unsettle();
    }

    fn open_after_power(&mut self) -> Result<(), Failure> {
        let opened = self.options().open_on_disk(self.disk.clone());
        self.store = Some(opened.map_err(|error| broken("acknowledged", Harm::Lost, error.to_string()))?);
        Ok(())
    }

    /// What is there is one of these; the model goes on from it.
    fn settle(&mut self, either: &[Arc<Model>]) -> Result<(), Failure> {
        let seen = observe_shape(self.store()).map_err(|story| broken("acknowledged", Harm::Torn, story))?;
        let mut fitting = either.iter().filter(|model| model.shape() == seen.view);
        let Some(first) = fitting.next() else {
            let story = either
                .iter()
                .map(|model| unlike(&model.shape(), &seen.view))
                .collect::<Vec<_>>();
            return Err(broken("acknowledged", Harm::Lost, story.join("; nor ")));
        };
        self.model = match fitting.next() {
            Some(second) => Arc::new(first.or(second)),
            None => Arc::clone(first),
        };
        if self.calm() { self.same_values() } else { Ok(()) }
    }

    /// The faults stop: every job finishes, everything reads, the file is as it must be.
    fn end(&mut self) -> Result<(), Failure> {
        self.restore_all();
        self.same_values()?;
        let names: Vec<String> = self.model.view.keys().cloned().collect();
        for org in names {
            let organization = self.store().organization(&org).map_err(other("job_finishes"))?;
            checkers::job_finishes(self.store(), &organization, &self.model)?;
            self.model = Arc::new(self.model.after(&Action::Rewrap { org }));
        }
        self.note_wraps();
        self.store = None;
        let expected = Expected {
            either: vec![Arc::clone(&self.model)],
            doing: "at the end of a life".into(),
        };
        let given = Given {
            expected: &expected,
            kms: &self.kms,
            wraps: &self.wraps,
        };
        let disk = SimulatedDisk::holding(self.disk.contents());
        checkers::check(&disk, given, !self.seed, Depth::Search)?;
        self.figures.states += 1;
        let forbidden = life::forbidden(&self.kms, &self.env);
        for operation in &self.disk.recording().operations {
            if let crate::disk::Operation::Write(offset, data) = operation {
                life::search_write(&forbidden, *offset, data)
                    .map_err(|story| broken("no_secret_in_image", Harm::Other, story))?;
            }
        }
        Ok(())
    }
}

fn other(checker: &'static str) -> impl Fn(Error) -> Failure {
    move |error| broken(checker, Harm::Other, error.to_string())
}

/// How two views differ, for people.
fn unlike(expected: &View, seen: &View) -> String {
    for (org, wanted) in expected {
        match seen.get(org) {
            None => return format!("{org} is missing"),
            Some(seen) if (&wanted.keys, &wanted.default) != (&seen.keys, &seen.default) => {
                return format!(
                    "{org} has the keys {:?}, default {}, and not {:?}, default {}",
                    seen.keys, seen.default, wanted.keys, wanted.default
                );
            }
            Some(seen) => {
                for (path, versions) in &wanted.secrets {
                    if seen.secrets.get(path) != Some(versions) {
                        return format!("{org} {path}: {:?}, and not {versions:?}", seen.secrets.get(path));
                    }
                }
                for path in seen.secrets.keys() {
                    if !wanted.secrets.contains_key(path) {
                        return format!("{org} {path} is there, and was never put");
                    }
                }
            }
        }
    }
    let more: BTreeSet<&String> = seen.keys().filter(|org| !expected.contains_key(*org)).collect();
    format!("{more:?} are there, and were never created")
}
