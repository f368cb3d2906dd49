//! Whole lives: an application's changes, a KMS that fails in every way, a clock that jumps, power that goes at any moment and
//! again during recovery. Every outcome is compared with the model; a life follows from its seed and is told in words.
//!
//! A life is a list of deeds, made by `proptest`. A deed says what kind of thing happens and carries dice for the rest, so it fits
//! whatever came before, and a life from which deeds are taken away is a life still: that is how it shrinks.

mod changes;
mod power;
mod readings;

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
