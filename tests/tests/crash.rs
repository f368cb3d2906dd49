//! Power that goes at any moment of a store's life: nothing acknowledged is lost, nothing is there by halves, a re-wrap job
//! resumes, no erased key comes back.
//!
//! Everything follows from a seed, which each test prints; `KEYSTEAD_SEED` repeats it.
#![allow(clippy::print_stdout, reason = "the figures are for people")]

use keystead_tests::disk::SimulatedDisk;
use keystead_tests::env::{Dice, seed};
use keystead_tests::explore::{Figures, Reach, check_secrecy, explore};
use keystead_tests::life::Life;
use keystead_tests::model::Action;
use keystead_tests::power::Budget;

const REACH: Reach = Reach {
    budget: Budget {
        exhaustive_operations: 3,
        subsets: 4,
        torn: 3,
    },
    recoveries_one_in: 40,
    recovery_budget: Budget {
        exhaustive_operations: 1,
        subsets: 2,
        torn: 1,
    },
    kills_one_in: 20,
};

fn lived(seed: u64, script: impl FnOnce(&mut Life) -> keystead::Result<()>) -> Life {
    let mut life = Life::begin(seed, SimulatedDisk::new()).unwrap();
    if let Err(error) = script(&mut life) {
        panic!(
            "KEYSTEAD_SEED={seed}: {:?}: {error}",
            life.steps.last().map(|step| &step.action)
        );
    }
    life.drop_store();
    life
}

fn explored(life: &Life, reach: Reach) -> Figures {
    match explore(life, reach) {
        Ok(figures) => figures,
        Err(story) => panic!("{story}"),
    }
}

fn put(org: &str, path: &str, bytes: usize) -> Action {
    Action::Put {
        org: org.into(),
        put: (path.into(), bytes),
    }
}

/// A move to an own key and on to the next, with writing in between.
fn move_to_own_keys(life: &mut Life) -> keystead::Result<()> {
    let org = || "acme".to_owned();
    life.act(Action::CreateOrganization { org: org() })?;
    life.act(Action::CreateOrganization { org: "other".into() })?;
    for n in 0..12 {
        life.act(put("acme", &format!("s/{n}"), [10, 1024, 20_000][n % 3]))?;
    }
    life.act(put("other", "s", 100))?;
    life.act(Action::Destroy {
        org: org(),
        path: "s/2".into(),
        version: 1,
    })?;
    life.act(Action::AddKey {
        org: org(),
        key: "k0".into(),
    })?;
    life.act(put("acme", "s/1", 1024))?;
    life.act(Action::Delete {
        org: org(),
        path: "s/1".into(),
        version: 1,
    })?;
    life.act(Action::Rewrap { org: org() })?;
    life.act(Action::Rotate {
        org: org(),
        key: "k0".into(),
    })?;
    life.act(Action::Reopen)?;
    life.act(Action::Batch {
        org: org(),
        puts: (0..5).map(|n| (format!("b/{n}"), 300)).collect(),
    })?;
    life.act(Action::AddKey {
        org: org(),
        key: "k1".into(),
    })?;
    life.act(Action::SetDefault {
        org: org(),
        key: "k1".into(),
        rewrap: false,
    })?;
    life.act(put("acme", "s/3", 10))?;
    life.act(Action::Rewrap { org: org() })?;
    life.act(Action::Disable {
        org: org(),
        key: "k0".into(),
        target: "k1".into(),
    })?;
    life.act(Action::Rewrap { org: org() })?;
    life.act(Action::DisableAll { org: org() })?;
    life.act(Action::Undelete {
        org: org(),
        path: "s/1".into(),
        version: 1,
    })?;
    life.act(Action::Rewrap { org: org() })
}

#[test]
fn power_that_goes_anywhere_in_a_move_between_keys_loses_nothing() {
    let life = lived(seed(1), move_to_own_keys);
    let searched = check_secrecy(&life).unwrap();
    let figures = explored(&life, REACH);
    println!("{figures:?}, lost 0, torn 0; {searched} bytes written, none of a secret in clear");
    assert!(
        figures.flown > 0 && figures.jobs_finished > 0 && figures.in_recovery > 0,
        "{figures:?}"
    );
}

#[test]
fn power_that_goes_anywhere_in_whole_lives_loses_nothing() {
    let first = seed(100);
    let mut all = Figures::default();
    for seed in first..first + 6 {
        let life = lived(seed, |life| life.live(40, &mut Dice::new(seed)));
        check_secrecy(&life).unwrap();
        let figures = explored(
            &life,
            Reach {
                recoveries_one_in: 60,
                ..REACH
            },
        );
        println!("seed {seed}: {figures:?}");
        all += figures;
    }
    println!("{all:?}, lost 0, torn 0");
}

#[test]
fn the_same_seed_lives_the_same_life() {
    let seed = seed(7);
    let trace = || {
        let life = lived(seed, |life| life.live(60, &mut Dice::new(seed)));
        life.disk.recording().trace()
    };
    assert_eq!(trace(), trace());
}
