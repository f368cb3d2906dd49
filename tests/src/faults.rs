//! A disk that fails: an operation that fails once or for good, short writes, no space left, a sync that lies. An acknowledged
//! change survives each of them but the lie, and what failed is there wholly or not at all.

use crate::checkers::{self, Depth, Failure, Given, Harm};
use crate::contents::Contents;
use crate::disk::{Fault, SimulatedDisk};
use crate::env::{Dice, SimulatedEnv};
use crate::gate::GatedKms;
use crate::kms::SimulatedKms;
use crate::life::{self, Expected, KnownWrap, Life};
use crate::model::{self, Action, Model};
use crate::power::{Budget, images};
use keystead::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The fixed workload: every kind of change, a hand-over, a re-wrap, a checkpoint by closing, a growing file.
#[must_use]
pub fn workload() -> Vec<Action> {
    let org = || "acme".to_owned();
    let put = |path: &str, bytes| Action::Put {
        org: "acme".into(),
        put: (path.into(), bytes),
    };
    vec![
        Action::CreateOrganization { org: org() },
        put("a", 10),
        put("b", 1024),
        put("c", 20_000),
        Action::Batch {
            org: org(),
            puts: (0..6).map(|n| (format!("batch/{n}"), 200)).collect(),
        },
        Action::Delete {
            org: org(),
            path: "a".into(),
            version: 1,
        },
        Action::AddKey {
            org: org(),
            key: "k0".into(),
        },
        put("a", 500),
        Action::Rewrap { org: org() },
        Action::Destroy {
            org: org(),
            path: "b".into(),
            version: 1,
        },
        Action::ForgetEpochKeys,
        put("large", 1_500_000),
        Action::Reopen,
        Action::Rotate {
            org: org(),
            key: "k0".into(),
        },
        put("d", 70_000),
        Action::Rewrap { org: org() },
        Action::DisableAll { org: org() },
        Action::Undelete {
            org: org(),
            path: "a".into(),
            version: 1,
        },
        Action::Rewrap { org: org() },
        put("e", 10),
        Action::Reopen,
        put("f", 10),
    ]
}

/// A workload by dice.
#[must_use]
pub fn workload_of(seed: u64, actions: usize) -> Vec<Action> {
    let (mut dice, mut model) = (Dice::new(seed), Model::default());
    let next = |_| {
        let action = model.next(&mut dice);
        model = model.after(&action);
        action
    };
    (0..actions).map(next).collect()
}

/// What became of a run on a disk with a fault.
pub struct Outcome {
    /// What may be found afterwards; `None`: the store was never created.
    pub expected: Option<Expected>,
    /// Its KMS.
    pub kms: SimulatedKms,
    /// Its disk, with its fault.
    pub disk: Arc<SimulatedDisk>,
    /// The wraps that the file held.
    pub wraps: Vec<KnownWrap>,
    /// The error of the action that failed.
    pub error: Option<Error>,
}

fn broken(checker: &'static str, story: String) -> Failure {
    Failure {
        checker,
        harm: Harm::Other,
        story,
    }
}

/// Runs a workload until an action fails; then tries two more puts. They fail, or they too are there afterwards.
///
/// # Errors
///
/// When something is written after a write that failed, or the error does not say what to do.
pub fn run(seed: u64, fault: Option<Fault>, workload: &[Action]) -> Result<Outcome, Failure> {
    let disk = SimulatedDisk::new();
    disk.set_fault(fault);
    let mut life = match Life::begin(seed, disk.clone()) {
        Ok(life) => life,
        Err(error) => {
            return Ok(Outcome {
                expected: None,
                kms: SimulatedKms::new(),
                disk,
                wraps: Vec::new(),
                error: Some(error),
            });
        }
    };
    let mut failed = None;
    for action in workload {
        if let Err(error) = life.act(action.clone()) {
            failed = Some((action.clone(), error));
            break;
        }
    }
    let mut either = vec![Arc::clone(&life.model)];
    let mut doing = format!("{fault:?}, all was done");
    let mut error = None;
    if let Some((action, met)) = failed {
        doing = format!("{fault:?}, failed in {action:?}: {met}");
        either.push(Arc::new(life.model.after(&action)));
        error = Some(met);
        let org = life.model.view.keys().next().cloned();
        if let Some(org) = org.filter(|_| action != Action::Reopen) {
            for path in ["after/the/fault", "and/another"] {
                let put = Action::Put {
                    org: org.clone(),
                    put: (path.into(), 33),
                };
                match model::perform(life.store(), &life.model, &put) {
                    Ok(()) if matches!(fault, Some(Fault::ReadOnce(_))) => {
                        either = either
                            .iter()
                            .map(|model| Arc::new(Model::after(model, &put)))
                            .collect();
                    }
                    Ok(()) => {
                        return Err(broken(
                            "nothing_after_a_failed_write",
                            format!("{doing}; then a put went through"),
                        ));
                    }
                    Err(Error::Closed { reason }) if reason.contains("open it again") => {}
                    Err(other) => {
                        return Err(broken(
                            "errors_say_what_to_do",
                            format!("{doing}; then a put met: {other}"),
                        ));
                    }
                }
            }
        }
    }
    let (kms, wraps) = (life.kms.clone(), std::mem::take(&mut life.wraps));
    life.drop_store();
    Ok(Outcome {
        expected: Some(Expected { either, doing }),
        kms,
        disk,
        wraps,
        error,
    })
}

/// What a run with a fault went through.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Survived {
    /// The fault was met.
    pub met: bool,
    /// States that were checked.
    pub states: u64,
}

/// Runs with a fault, then takes the fault away: all that was acknowledged is there, also when the machine went down with
/// the failure.
///
/// # Errors
///
/// The promise that was broken.
pub fn survives(seed: u64, fault: Fault, workload: &[Action]) -> Result<Survived, Failure> {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, Some(fault), workload)));
    let outcome = outcome.unwrap_or_else(|_| {
        Err(Failure {
            checker: "no_panic",
            harm: Harm::Panicked,
            story: format!("KEYSTEAD_SEED={seed}, {fault:?}"),
        })
    })?;
    let met = outcome.disk.met_the_fault();
    if let Some(error) = &outcome.error {
        let of_the_storage = matches!(error, Error::Storage { .. } | Error::Closed { .. });
        if !met || !of_the_storage {
            let story = format!("KEYSTEAD_SEED={seed}, {fault:?}, met: {met}: {error:?}");
            return Err(broken("a_failing_disk_is_told_as_such", story));
        }
    }
    let Some(expected) = &outcome.expected else {
        return Ok(Survived { met, states: 0 });
    };
    let given = Given {
        expected,
        kms: &outcome.kms,
        wraps: &outcome.wraps,
    };
    let mut dice = Dice::new(seed ^ outcome.disk.changes());
    let mut states = 0;
    let mut check = |contents: Contents, story: String| {
        states += 1;
        let disk = SimulatedDisk::holding(contents);
        let depth = if states == 1 {
            Depth::WorkOn
        } else {
            Depth::by(&mut dice)
        };
        checkers::check(&disk, given, !seed, depth)
            .map(drop)
            .map_err(|failure| failure.after(&format!("KEYSTEAD_SEED={seed}: {}{story}", expected.doing)))
    };
    check(outcome.disk.contents(), String::new())?;
    // A sync that failed may have left anything of what it was to write.
    let budget = Budget {
        exhaustive_operations: 2,
        subsets: 2,
        torn: 1,
    };
    let recording = outcome.disk.recording();
    let cut = recording.cut_at(recording.operations.len());
    for image in images(
        &cut,
        budget,
        &mut Dice::part(seed, recording.operations.len() as u64),
    ) {
        check(
            image.contents.clone(),
            format!(", and power went; kept: {}", image.story(&cut)),
        )?;
    }
    Ok(Survived { met, states })
}

/// What was read from disks whose syncs did nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Lied {
    /// Disks that power left.
    pub images: u64,
    /// Of these: the store opened.
    pub opened: u64,
    /// Values that were read and are right.
    pub values: u64,
    /// Errors where a value was expected.
    pub refused: u64,
    /// Panics of redb that became typed errors.
    pub panics_caught: u64,
}

impl std::ops::AddAssign for Lied {
    fn add_assign(&mut self, other: Self) {
        self.images += other.images;
        self.opened += other.opened;
        self.values += other.values;
        self.refused += other.refused;
        self.panics_caught += other.panics_caught;
    }
}

/// No promise can be kept on a disk whose syncs do nothing, but one: what reads is what was written there, or there is an
/// error. Here power takes any of all writes since the store was made.
///
/// # Errors
///
/// A wrong value, or an error that is none of the storage.
pub fn lied_to(
    seed: u64,
    workload: &[Action],
    moments: usize,
    images_of_each: usize,
) -> Result<Lied, Failure> {
    let unexpected = |error: Error| broken("a_lie_costs_errors", format!("KEYSTEAD_SEED={seed}: {error:?}"));
    let mut life = Life::begin(seed, SimulatedDisk::new()).map_err(unexpected)?;
    life.disk.set_fault(Some(Fault::LyingSync));
    for action in workload {
        life.act(action.clone()).map_err(unexpected)?;
    }
    let recording = life.disk.recording();
    let all = recording.operations.len();
    let created = life.steps[0].to.unwrap_or(0);
    life.drop_store();
    let at: Vec<usize> = (created..all)
        .step_by((all - created) / moments.max(1) + 1)
        .collect();
    let budget = Budget {
        exhaustive_operations: 0,
        subsets: images_of_each.div_ceil(2),
        torn: images_of_each / 2,
    };
    let mut sum = Lied::default();
    for cut in recording.cuts(&at) {
        for image in images(&cut, budget, &mut Dice::part(seed, cut.pending.len() as u64)) {
            sum.images += 1;
            let read = || values_after_a_lie(image.contents.clone(), &life.kms, &life.model, seed);
            let seen = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
                Err(Failure {
                    checker: "no_panic",
                    harm: Harm::Panicked,
                    story: "a panic escaped".into(),
                })
            });
            sum += seen.map_err(|failure| {
                failure.after(&format!("KEYSTEAD_SEED={seed}, kept: {}", image.story(&cut)))
            })?;
        }
    }
    Ok(sum)
}

/// Opens what a lying disk left, and reads all that it lists.
fn values_after_a_lie(
    contents: Contents,
    kms: &SimulatedKms,
    model: &Model,
    seed: u64,
) -> Result<Lied, Failure> {
    let mut seen = Lied::default();
    let options = life::options(&GatedKms::new(kms.clone()), Arc::new(SimulatedEnv::new(seed)));
    let refused = |error: Error, seen: Lied| match error {
        Error::Damaged { .. } | Error::Storage { .. } | Error::Closed { .. } => Ok(seen),
        Error::StorePanicked { .. } => Ok(Lied {
            panics_caught: seen.panics_caught + 1,
            ..seen
        }),
        error => Err(broken("a_lie_costs_errors", format!("{error:?}"))),
    };
    let store = match options.open_on_disk(SimulatedDisk::holding(contents)) {
        Ok(store) => store,
        Err(error) => return refused(error, seen),
    };
    seen.opened = 1;
    let mut walk = || -> Result<Result<(), Error>, Failure> {
        let organizations = match store.organizations(None, 100) {
            Ok(page) => page.items,
            Err(error) => return Ok(Err(error)),
        };
        for info in organizations {
            let listed = store
                .organization(&info.name)
                .and_then(|organization| Ok((organization.list("", None, 10_000)?.items, organization)));
            let (secrets, organization) = match listed {
                Ok(listed) => listed,
                Err(error) => return Ok(Err(error)),
            };
            for secret in secrets {
                for number in 1..=secret.latest.get() {
                    let version = keystead::Version::new(number).expect("versions count from 1");
                    match organization.get_version(&secret.path, version) {
                        Ok(read) => {
                            let written = model.value_of(&info.name, &secret.path, number);
                            if written != Some(model::hash(read.value.as_ref())) {
                                return Err(broken(
                                    "never_a_wrong_value",
                                    format!("{} {} version {number}", info.name, secret.path),
                                ));
                            }
                            seen.values += 1;
                        }
                        Err(_) => seen.refused += 1,
                    }
                }
            }
        }
        Ok(Ok(()))
    };
    match walk()? {
        Ok(()) => Ok(seen),
        Err(error) => refused(error, seen),
    }
}
