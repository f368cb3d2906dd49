//! The suite in small: one part for each way in which it looks for broken promises, bounded to some seconds. The tests run it;
//! `cargo xtask mutants` runs it against each planted bug, and each must be noticed.

use crate::checkers::{Failure, Harm};
use crate::disk::{Fault, SimulatedDisk};
use crate::env::Dice;
use crate::explore::{Reach, Seen, check_secrecy, explore};
use crate::faults;
use crate::life::Life;
use crate::model::Action;
use crate::observe::{live_cells, observe};
use crate::power::Budget;
use crate::{interleave, keys_in_time, threads};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A way in which promises are tried.
pub struct Part {
    /// What it is called.
    pub name: &'static str,
    /// What its steps are.
    pub unit: &'static str,
    run: fn(u64, &AtomicU64) -> Result<(), Failure>,
}

/// All of them, those that notice most first.
pub const PARTS: [Part; 6] = [
    Part {
        name: "life",
        unit: "actions",
        run: step_by_step,
    },
    Part {
        name: "keys in time",
        unit: "calls",
        run: keys,
    },
    Part {
        name: "interleaved calls",
        unit: "interleavings",
        run: interleave::every_pair_at_every_moment,
    },
    Part {
        name: "power cuts",
        unit: "states",
        run: power_cuts,
    },
    Part {
        name: "disk faults",
        unit: "runs",
        run: disk_faults,
    },
    Part {
        name: "threads that take turns",
        unit: "schedules",
        run: schedules,
    },
];

/// What became of a part.
pub struct Outcome {
    /// How many steps it took; when it failed: until then.
    pub steps: u64,
    /// The promise that was broken.
    pub failure: Option<Failure>,
}

impl Part {
    /// Runs it. A panic is a failure, too.
    #[must_use]
    pub fn run(&self, seed: u64) -> Outcome {
        let steps = AtomicU64::new(0);
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.run)(seed, &steps))).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(Failure {
                checker: "no_panic",
                harm: Harm::Panicked,
                story: words.unwrap_or_default(),
            })
        });
        Outcome {
            steps: steps.into_inner(),
            failure: outcome.err(),
        }
    }
}

fn failed(checker: &'static str, story: String) -> Failure {
    Failure {
        checker,
        harm: Harm::Other,
        story,
    }
}

/// Every kind of change; two epochs that are handed over at once; a file that grows; journals that are begun anew.
fn script() -> Vec<Action> {
    let org = || "acme".to_owned();
    let put = |path: &str, bytes| Action::Put {
        org: "acme".into(),
        put: (path.into(), bytes),
    };
    let mut script = vec![Action::CreateOrganization { org: org() }];
    script.extend((0..8).map(|n| put(&format!("s/{n}"), [10, 1024, 20_000][n % 3])));
    let add = |key: &str| Action::AddKey {
        org: "acme".into(),
        key: key.into(),
    };
    let set_default = |key: &str, rewrap| Action::SetDefault {
        org: "acme".into(),
        key: key.into(),
        rewrap,
    };
    script.extend([
        Action::Destroy {
            org: org(),
            path: "s/2".into(),
            version: 1,
        },
        add("k0"),
        put("s/1", 1024),
        Action::Delete {
            org: org(),
            path: "s/1".into(),
            version: 1,
        },
        Action::Rewrap { org: org() },
        Action::Rotate {
            org: org(),
            key: "k0".into(),
        },
        Action::Reopen,
        Action::Batch {
            org: org(),
            puts: (0..5).map(|n| (format!("b/{n}"), 300)).collect(),
        },
        add("k1"),
        set_default("k1", true),
        Action::ForgetEpochKeys,
        put("large", 1_500_000),
        Action::Rewrap { org: org() },
        set_default("k0", false),
        put("s/3", 10),
        Action::DisableAll { org: org() },
        Action::Undelete {
            org: org(),
            path: "s/1".into(),
            version: 1,
        },
        put("larger", 2_500_000),
        Action::Rewrap { org: org() },
        Action::Reopen,
        put("s/4", 10),
    ]);
    script
}

fn lived(seed: u64, act: impl FnOnce(&mut Life) -> keystead::Result<()>) -> Result<Life, Failure> {
    let begun = Life::begin(seed, SimulatedDisk::new());
    let mut life = begun.map_err(|error| failed("acknowledged", error.to_string()))?;
    if let Err(error) = act(&mut life) {
        let action = life.steps.last().and_then(|step| step.action.clone());
        return Err(failed(
            "acknowledged",
            format!("KEYSTEAD_SEED={seed}, {action:?} is refused: {error}"),
        ));
    }
    life.drop_store();
    Ok(life)
}

/// Looks at everything after each action, while the store is open: what reads, the audit trail beside it, the shred cells.
fn step_by_step(seed: u64, steps: &AtomicU64) -> Result<(), Failure> {
    look_at_each(seed, steps, |life| script().get(life.steps.len() - 1).cloned())?;
    look_at_each(seed, steps, |life| {
        let mut dice = Dice::part(seed, life.steps.len() as u64);
        (life.steps.len() < 80).then(|| life.model.next(&mut dice))
    })
}

fn look_at_each(seed: u64, steps: &AtomicU64, next: impl Fn(&Life) -> Option<Action>) -> Result<(), Failure> {
    let mut looked = Ok(());
    lived(seed, |life| {
        while let (Ok(()), Some(action)) = (&looked, next(life)) {
            steps.fetch_add(1, Ordering::Relaxed);
            life.act(action)?;
            looked = look_at(life);
        }
        Ok(())
    })?;
    looked
}

fn look_at(life: &Life) -> Result<(), Failure> {
    let action = life.steps.last().and_then(|step| step.action.as_ref());
    let told = |checker, story| Err(failed(checker, format!("after {action:?}: {story}")));
    let seen = match observe(life.store()) {
        Ok(seen) => seen,
        Err(story) => return told("acknowledged", story),
    };
    if seen.view != life.model.view {
        return told("acknowledged", "it is not what was acknowledged".into());
    }
    let cells = live_cells(&life.disk.contents()).len();
    if cells != seen.wraps.len() {
        let story = format!("{cells} shred cells hold a key, for {} wraps", seen.wraps.len());
        return told("one_wrap", story);
    }
    crate::observe::verify(life.store()).or_else(|story| told("one_wrap", story))
}

fn keys(seed: u64, steps: &AtomicU64) -> Result<(), Failure> {
    keys_in_time::an_outage(seed, steps)?;
    keys_in_time::a_revocation(seed, steps)?;
    keys_in_time::an_outage_at_the_hand_over(seed, steps)?;
    keys_in_time::two_keys(seed, steps)
}

/// One change in so many fails, in a run of its own.
const FAULTS_STRIDE: u64 = 9;

fn disk_faults(seed: u64, steps: &AtomicU64) -> Result<(), Failure> {
    let workload = faults::workload();
    let undisturbed = faults::run(seed, None, &workload)?;
    for at in (0..undisturbed.disk.changes()).step_by(FAULTS_STRIDE as usize) {
        for fault in [Fault::ChangeOnce(at), Fault::ShortWrite(at)] {
            steps.fetch_add(1, Ordering::Relaxed);
            faults::survives(seed, fault, &workload)?;
        }
    }
    Ok(())
}

/// Schedules, each of a seed of its own.
const SCHEDULES: u64 = 40;

fn schedules(seed: u64, steps: &AtomicU64) -> Result<(), Failure> {
    let seen = Seen::default();
    (seed..seed + SCHEDULES).try_for_each(|seed| {
        steps.fetch_add(1, Ordering::Relaxed);
        threads::live(seed, &seen, &AtomicBool::new(false)).map(drop)
    })
}

/// Enough for a sector torn in each of the header's copies, and for every subset of what a journaled commit leaves pending.
const REACH: Reach = Reach {
    budget: Budget {
        exhaustive_operations: 5,
        subsets: 12,
        torn: 20,
    },
    recoveries_one_in: 200,
    recovery_budget: Budget {
        exhaustive_operations: 1,
        subsets: 2,
        torn: 2,
    },
    kills_one_in: 30,
};

fn power_cuts(seed: u64, steps: &AtomicU64) -> Result<(), Failure> {
    let act_all = |life: &mut Life| script().into_iter().try_for_each(|action| life.act(action));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let seen = Seen::default();
    let explored = |life: &Life| {
        check_secrecy(life)?;
        let explored = explore(life, REACH, &seen, threads, &AtomicBool::new(false));
        steps.store(seen.count(), Ordering::Relaxed);
        explored.map(drop)
    };
    explored(&lived(seed, act_all)?)?;
    explored(&lived(seed + 1, |life| life.live(40, &mut Dice::new(seed + 1)))?)
}
