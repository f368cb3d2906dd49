//! Power that goes at any moment of a store's life: nothing acknowledged is lost, nothing is there by halves, a re-wrap job
//! resumes, no erased key comes back.
//!
//! Everything follows from a seed, which each test prints; `KEYSTEAD_SEED` repeats it.
#![allow(clippy::print_stdout, reason = "the figures are for people")]

use keystead_tests::disk::{Operation, SimulatedDisk};
use keystead_tests::env::{Dice, SimulatedEnv, seed};
use keystead_tests::explore::{Figures, Reach, Seen, check_secrecy, explore};
use keystead_tests::gate::GatedKms;
use keystead_tests::life::{self, Life};
use keystead_tests::model::Action;
use keystead_tests::power::{Budget, images};
use std::sync::atomic::AtomicBool;

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
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    match explore(life, reach, &Seen::default(), threads, &AtomicBool::new(false)) {
        Ok(figures) => figures,
        Err(failure) => panic!("{failure}"),
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
    let figures = explored(&life, Reach::default());
    println!("{figures:?}, lost 0, torn 0; {searched} bytes written, none of a secret in clear");
    assert!(
        figures.flown > 0 && figures.jobs_finished > 0 && figures.in_recovery > 0,
        "{figures:?}"
    );
}

/// A second key beside the first own one, through a rotation and a move to a third key, and its removal.
fn keep_a_second_key(life: &mut Life) -> keystead::Result<()> {
    let org = || "acme".to_owned();
    life.act(Action::CreateOrganization { org: org() })?;
    for n in 0..4 {
        life.act(put("acme", &format!("s/{n}"), 100))?;
    }
    for key in ["k0", "k1", "k2"] {
        life.act(Action::AddKey {
            org: org(),
            key: key.into(),
        })?;
    }
    life.act(Action::SetSecond {
        org: org(),
        key: "k1".into(),
    })?;
    life.act(Action::Rewrap { org: org() })?;
    life.act(Action::Rotate {
        org: org(),
        key: "k0".into(),
    })?;
    life.act(put("acme", "s/0", 100))?;
    life.act(Action::SetDefault {
        org: org(),
        key: "k2".into(),
        rewrap: true,
    })?;
    life.act(Action::Reopen)?;
    life.act(Action::Rewrap { org: org() })?;
    life.act(Action::RemoveSecond { org: org() })?;
    life.act(put("acme", "s/1", 100))
}

#[test]
fn power_that_goes_anywhere_in_the_life_of_a_second_key_loses_nothing_and_brings_no_wrap_back() {
    let life = lived(seed(1), keep_a_second_key);
    check_secrecy(&life).unwrap();
    let figures = explored(&life, Reach::default());
    println!("{figures:?}, lost 0, torn 0");
    assert!(figures.flown > 0 && figures.jobs_finished > 0, "{figures:?}");
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
                budget: Budget {
                    exhaustive_operations: 6,
                    subsets: 20,
                    torn: 10,
                },
                ..Reach::default()
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

/// The story: an update of the header writes one copy and syncs. The process was killed between the two, so that copy was in
/// memory only. Opening the store again took it for good and mended the other copy from it; power went before the next sync
/// and tore both. Opening now syncs before it mends.
#[test]
fn a_header_that_a_killed_process_never_synced_survives_power_that_goes_while_it_is_mended() {
    let life = lived(seed(1), |life| {
        life.act(Action::CreateOrganization { org: "acme".into() })?;
        life.act(put("acme", "large", 3_000_000))
    });
    let recording = life.disk.recording();
    let created = life.steps[0].to.unwrap();
    let updates: Vec<usize> = (created..recording.operations.len() - 1)
        .filter(|at| matches!(&recording.operations[*at], Operation::Write(0 | 4096, _)))
        .filter(|at| recording.operations[at + 1] == Operation::Sync)
        .map(|at| at + 1)
        .collect();
    assert!(!updates.is_empty(), "the large value makes the file grow");
    for cut in recording.cuts(&updates) {
        let disk = SimulatedDisk::after_a_kill(cut.durable.clone(), &cut.pending);
        let env = std::sync::Arc::new(SimulatedEnv::new(life.seed));
        let options = || life::options(&GatedKms::new(life.kms.clone()), env.clone());
        drop(options().open_on_disk(disk.clone()).unwrap());
        let recording = disk.recording();
        let syncs: Vec<usize> = (cut.pending.len()..recording.operations.len())
            .filter(|at| recording.operations[*at] == Operation::Sync)
            .collect();
        let budget = Budget {
            exhaustive_operations: 4,
            subsets: 0,
            torn: 100,
        };
        for cut in recording.cuts(&syncs) {
            for image in images(&cut, budget, &mut Dice::new(life.seed)) {
                let opened = options().open_on_disk(SimulatedDisk::holding(image.contents.clone()));
                assert!(opened.is_ok(), "{opened:?}; kept: {}", image.story(&cut));
            }
        }
    }
}
