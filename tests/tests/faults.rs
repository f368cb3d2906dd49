//! A disk that fails: every operation in turn, once and for good; short writes; no space left; a sync that lies. An
//! acknowledged change survives each of them, and what failed is there wholly or not at all.
#![allow(clippy::print_stdout, reason = "the figures are for people")]

use keystead::Error;
use keystead_tests::disk::{Contents, Fault, SimulatedDisk};
use keystead_tests::env::{Dice, SimulatedEnv, seed};
use keystead_tests::gate::GatedKms;
use keystead_tests::kms::SimulatedKms;
use keystead_tests::life::{self, Expected, Life};
use keystead_tests::model::{self, Action, Model};
use keystead_tests::power::{Budget, images};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The fixed workload: every kind of change, a hand-over, a re-wrap, a checkpoint by closing, a growing file.
fn workload() -> Vec<Action> {
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

/// What became of a run on a disk with a fault.
struct Outcome {
    /// What may be found afterwards.
    expected: Option<Expected>,
    kms: SimulatedKms,
    disk: Arc<SimulatedDisk>,
    /// The error of the action that failed.
    error: Option<Error>,
}

/// Runs the workload until an action fails; then tries two more puts. They fail, or they too are there afterwards.
fn run(fault: Fault) -> Outcome {
    let disk = SimulatedDisk::new();
    disk.set_fault(Some(fault));
    let mut life = match Life::begin(1, disk.clone()) {
        Ok(life) => life,
        Err(error) => {
            return Outcome {
                expected: None,
                kms: SimulatedKms::new(),
                disk,
                error: Some(error),
            };
        }
    };
    let mut failed = None;
    for action in workload() {
        if let Err(error) = life.act(action.clone()) {
            failed = Some((action, error));
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
        let is_open = action != Action::Reopen;
        if is_open && life.model.view.contains_key("acme") {
            for path in ["after/the/fault", "and/another"] {
                let put = Action::Put {
                    org: "acme".into(),
                    put: (path.into(), 33),
                };
                match model::perform(life.store(), &life.model, &put) {
                    Ok(()) => {
                        // After a write that failed, nothing is written any more.
                        assert!(
                            matches!(fault, Fault::ReadOnce(_)),
                            "{doing}; then a put went through"
                        );
                        either = either
                            .iter()
                            .map(|model| Arc::new(Model::after(model, &put)))
                            .collect()
                    }
                    Err(Error::Closed { reason }) => {
                        assert!(
                            reason.contains("open it again"),
                            "{doing}; then a put met: {reason}"
                        );
                    }
                    Err(other) => panic!("{doing}; then a put met: {other}"),
                }
            }
        }
    }
    let kms = life.kms.clone();
    life.drop_store();
    Outcome {
        expected: Some(Expected { either, doing }),
        kms,
        disk,
        error,
    }
}

/// Runs with a fault, then takes the fault away: all that was acknowledged is there, also when the machine went down with
/// the failure. Returns whether the fault was met, and how many states were checked.
fn survives(fault: Fault, seed: u64) -> (bool, u64) {
    let Outcome {
        expected,
        kms,
        disk,
        error,
    } = run(fault);
    let met = disk.met_the_fault();
    if let Some(error) = &error {
        assert!(met, "{fault:?}: without a fault nothing fails: {error}");
        assert!(
            matches!(
                error,
                Error::Storage { .. } | Error::Closed { .. } | Error::Damaged { .. }
            ),
            "{fault:?}: not an error of the storage: {error:?}"
        );
        assert!(
            !error.is_damaged(),
            "{fault:?}: a failing disk is not damage: {error}"
        );
    }
    let Some(expected) = expected else {
        return (met, 0);
    };
    let mut states = 1;
    let fail = |story: String| -> ! { panic!("KEYSTEAD_SEED={seed}: {}\n{story}", expected.doing) };
    life::check(&disk.contents(), &expected, &kms, seed).unwrap_or_else(|story| fail(story));
    // A sync that failed may have left anything of what it was to write.
    let budget = Budget {
        exhaustive_operations: 1,
        subsets: 2,
        torn: 1,
    };
    let recording = disk.recording();
    let cut = recording.cut_at(recording.operations.len());
    for image in images(
        &cut,
        budget,
        &mut Dice::part(seed, recording.operations.len() as u64),
    ) {
        life::check(&image.contents, &expected, &kms, seed)
            .unwrap_or_else(|story| fail(format!("and power went; kept: {}\n{story}", image.kept)));
        states += 1;
    }
    (met, states)
}

/// Every number up to `dense`, then one in `stride`.
fn sample(count: u64, dense: u64, stride: usize) -> impl Iterator<Item = u64> {
    (0..count.min(dense)).chain((dense..count).step_by(stride))
}

/// Does this for all of them, on all cores; panics of one are panics of the whole.
fn on_all_cores<T: Sync>(of: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            threads.spawn(|| {
                while let Some(one) = of.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(one);
                }
            });
        }
    });
}

fn sweep(faults: &[Fault]) {
    let seed = seed(1);
    let (met, states) = (AtomicUsize::new(0), AtomicUsize::new(0));
    on_all_cores(faults, |fault| {
        let (was_met, checked) = survives(*fault, seed);
        met.fetch_add(usize::from(was_met), Ordering::Relaxed);
        states.fetch_add(checked as usize, Ordering::Relaxed);
    });
    let (met, states) = (met.into_inner(), states.into_inner());
    println!(
        "{} runs, {met} met their fault; {states} states checked, lost 0, torn 0",
        faults.len()
    );
    assert!(met > 0);
}

/// The number of changes and of reads in the workload without a fault.
fn undisturbed() -> (u64, u64) {
    let Outcome { error, disk, .. } = run(Fault::ReadOnce(u64::MAX));
    assert!(error.is_none(), "{error:?}");
    (disk.changes(), disk.reads())
}

#[test]
fn any_write_or_sync_that_fails_once_loses_nothing() {
    let (changes, _) = undisturbed();
    sweep(&sample(changes, 60, 5).map(Fault::ChangeOnce).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_fails_from_any_write_on_loses_nothing() {
    let (changes, _) = undisturbed();
    sweep(
        &sample(changes, 60, 5)
            .map(Fault::ChangeForGood)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn a_write_that_ends_in_its_middle_loses_nothing() {
    let (changes, _) = undisturbed();
    sweep(&sample(changes, 30, 9).map(Fault::ShortWrite).collect::<Vec<_>>());
}

#[test]
fn a_read_that_fails_once_loses_nothing() {
    let (_, reads) = undisturbed();
    sweep(&sample(reads, 30, 9).map(Fault::ReadOnce).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_fills_up_loses_nothing() {
    let whole = run(Fault::ReadOnce(u64::MAX)).disk.contents();
    let (from, to) = (4 << 20, whole.allocated_bytes());
    let full = (from..to).step_by(150_000).map(Fault::Full);
    let short = (from..whole.len()).step_by(150_000).map(Fault::LengthMax);
    sweep(&full.chain(short).collect::<Vec<_>>());
}

/// No promise can be kept on a disk whose syncs do nothing, but one: what reads is what was written there, or there is an
/// error. Here power takes any of all writes since the store was made.
#[test]
fn a_disk_whose_syncs_lie_costs_errors_and_never_a_wrong_value() {
    let seed = seed(1);
    let mut life = Life::begin(1, SimulatedDisk::new()).unwrap();
    life.disk.set_fault(Some(Fault::LyingSync));
    for action in workload() {
        life.act(action).unwrap();
    }
    let (kms, model) = (life.kms.clone(), Arc::clone(&life.model));
    let recording = life.disk.recording();
    life.drop_store();
    let all = recording.operations.len();
    let created = life.steps[0].to.unwrap();
    let moments: Vec<usize> = (created..all).step_by(all / 60 + 1).collect();
    let cuts = recording.cuts(&moments);
    let budget = Budget {
        exhaustive_operations: 0,
        subsets: 6,
        torn: 6,
    };
    let [images_made, opened, read, refused, panics, wrong] = [const { AtomicUsize::new(0) }; 6];
    on_all_cores(&cuts, |cut| {
        for image in images(cut, budget, &mut Dice::part(seed, cut.pending.len() as u64)) {
            images_made.fetch_add(1, Ordering::Relaxed);
            // A panic that leaves the engine ends this test.
            match values_after_a_lie(image.contents, &kms, &model, seed) {
                Ok(seen) => {
                    opened.fetch_add(1, Ordering::Relaxed);
                    read.fetch_add(seen.values, Ordering::Relaxed);
                    refused.fetch_add(seen.errors, Ordering::Relaxed);
                    wrong.fetch_add(seen.wrong, Ordering::Relaxed);
                }
                Err(Error::StorePanicked { .. }) => drop(panics.fetch_add(1, Ordering::Relaxed)),
                Err(error) => assert!(
                    matches!(
                        error,
                        Error::Damaged { .. } | Error::Storage { .. } | Error::Closed { .. }
                    ),
                    "KEYSTEAD_SEED={seed}: {error:?}"
                ),
            }
        }
    });
    println!(
        "{images_made:?} images, {opened:?} opened; {read:?} values read, {wrong:?} wrong, {refused:?} refused; \
         {panics:?} panics of redb caught"
    );
    assert!(read.into_inner() > 0);
    assert_eq!(wrong.into_inner(), 0);
}

/// What was read.
#[derive(Default)]
struct AfterALie {
    values: usize,
    errors: usize,
    wrong: usize,
}

/// Opens what a lying disk left, and reads all that it lists.
fn values_after_a_lie(
    contents: Contents,
    kms: &SimulatedKms,
    model: &Model,
    seed: u64,
) -> Result<AfterALie, Error> {
    let options = life::options(&GatedKms::new(kms.clone()), Arc::new(SimulatedEnv::new(seed)));
    let store = options.open_on_disk(SimulatedDisk::holding(contents))?;
    let mut seen = AfterALie::default();
    for info in store.organizations(None, 100)?.items {
        let organization = store.organization(&info.name)?;
        for secret in organization.list("", None, 10_000)?.items {
            for number in 1..=secret.latest.get() {
                let version = keystead::Version::new(number).unwrap();
                match organization.get_version(&secret.path, version) {
                    Ok(read) => {
                        let written = model.value_of(&info.name, &secret.path, number);
                        seen.values += 1;
                        seen.wrong += usize::from(written != Some(model::hash(read.value.as_ref())));
                    }
                    Err(_) => seen.errors += 1,
                }
            }
        }
    }
    Ok(seen)
}
