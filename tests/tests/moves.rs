//! One organization moves between six KMSs, along every arrow from one to another: thirty moves in one walk, in one store. Each KMS is
//! a peer of its own with its owner; each backend is its dynamic plugin, loaded with its digest.
//!
//! After each move the owner of the old key switches it off, and everything is read with that key off. The owner of a key switches it
//! on again before the walk comes back to it.

#![allow(clippy::print_stdout, reason = "the table of the moves is worth a look")]

mod common;

use common::{Owned, assert_sound};
use keystead::{Batch, EpochState, Organization, RewrapState, Store};
use keystead_tests::emulators::Kms;
use keystead_tests::kms::Calls;
use std::time::{Duration, Instant};

const KMSS: [Kms; 6] = [
    Kms::Aws,
    Kms::AzureVault,
    Kms::Gcp,
    Kms::Transit,
    Kms::Pkcs11,
    Kms::Managed,
];
const SECRETS: u32 = 1000;
const PATIENCE: Duration = Duration::from_secs(120);

fn path(n: u32) -> String {
    format!("service/{}/secret/{n}", n % 7)
}

/// Values of 0 to 991 bytes, no two alike but the empty ones.
fn value(n: u32) -> Vec<u8> {
    blake3::hash(&n.to_le_bytes()).as_bytes().repeat(n as usize % 32)
}

fn fill(acme: &Organization) {
    let mut batch = Batch::new();
    for n in 0..SECRETS {
        batch = batch.put(&path(n), value(n)).unwrap();
    }
    acme.commit(batch).unwrap();
}

fn check(acme: &Organization) {
    for n in 0..SECRETS {
        assert_eq!(acme.get(&path(n)).unwrap().value, value(n), "secret {n}");
    }
}

/// A walk from place 0 along every arrow between `count` places, each once, and so back to place 0.
fn walk(count: usize) -> Vec<usize> {
    let others = |from: usize| (0..count).filter(move |&to| to != from).collect();
    let mut left: Vec<Vec<usize>> = (0..count).map(others).collect();
    let (mut walk, mut open) = (Vec::new(), vec![0]);
    while let Some(&place) = open.last() {
        match left[place].pop() {
            Some(next) => open.push(next),
            None => walk.extend(open.pop()),
        }
    }
    walk.reverse();
    walk
}

#[test]
fn the_walk_takes_every_arrow_once() {
    let walk = walk(KMSS.len());
    let mut arrows: Vec<_> = walk.windows(2).map(|arrow| (arrow[0], arrow[1])).collect();
    assert_eq!((walk[0], walk.last(), arrows.len()), (0, Some(&0), 30));
    arrows.sort_unstable();
    arrows.dedup();
    assert_eq!(arrows.len(), 30);
    assert!(arrows.iter().all(|(from, to)| from != to));
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "how long a move takes is what is measured"
)]
fn a_thousand_secrets_move_from_each_of_six_kmss_to_each_other_and_no_old_key_is_needed_again() {
    let Some(places) = Owned::start_all_or_skip(KMSS, "moves between six KMSs") else {
        return;
    };
    let name = |place: usize| KMSS[place].backend_name();
    let directory = tempfile::tempdir().unwrap();
    let options = Store::options().kms_timeout(Duration::from_secs(20));
    let store = (0..KMSS.len())
        .fold(options, |options, place| {
            options.backend(places[place].backend(name(place)))
        })
        .create(directory.path().join("store.keystead"))
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    for (place, owned) in places.iter().enumerate() {
        if KMSS[place] != Kms::Managed {
            let config = owned.key.config.clone();
            let job = acme.keys().add(name(place), name(place), config).unwrap();
            // The first one takes over.
            job.wait_for(PATIENCE, |_| {}).unwrap().unwrap();
        }
    }
    fill(&acme);
    check(&acme);

    let counts = || places.each_ref().map(|owned| owned.counter.calls());
    let walk = walk(KMSS.len());
    let mut is_off = [false; KMSS.len()];
    let all = Instant::now();
    println!("| from | to | handed over | all moved | all read |");
    for arrow in walk.windows(2) {
        let (from, to) = (arrow[0], arrow[1]);
        let what = format!("{} to {}", name(from), name(to));
        if std::mem::take(&mut is_off[to]) {
            places[to].owner.enable(&places[to].key).unwrap();
        }
        store.forget_epoch_keys();
        let before = counts();
        let began = Instant::now();
        let job = acme.keys().set_default(name(to), true).unwrap();
        let handed_over = began.elapsed();
        let done = job
            .wait_for(PATIENCE, |_| {})
            .unwrap()
            .expect("it is done in time");
        let moved = began.elapsed();
        assert_eq!(
            (done.state, done.done, done.failed),
            (RewrapState::Done, u64::from(SECRETS), 0),
            "{what}"
        );

        let mut epochs = acme.epochs().unwrap();
        let active = epochs.pop().unwrap();
        assert_eq!(
            (active.key.as_str(), active.state, active.references),
            (name(to), EpochState::Active, u64::from(SECRETS)),
            "{what}"
        );
        let wrapped_by: Vec<_> = active.wrapped_by.iter().map(|wrap| wrap.key.as_str()).collect();
        assert_eq!(wrapped_by, [name(to)], "{what}");
        for epoch in epochs {
            assert_eq!(
                (epoch.state, epoch.references),
                (EpochState::Retired, 0),
                "{what}"
            );
            assert!(epoch.wrapped_by.is_empty(), "{what}: {epoch:?}");
        }

        places[from].owner.disable(&places[from].key).unwrap();
        is_off[from] = true;
        store.forget_epoch_keys();
        let began = Instant::now();
        check(&acme);
        println!(
            "| `{}` | `{}` | {:.0} ms | {:.0} ms | {:.0} ms |",
            name(from),
            name(to),
            handed_over.as_secs_f64() * 1e3,
            moved.as_secs_f64() * 1e3,
            began.elapsed().as_secs_f64() * 1e3
        );
        let after = counts();
        for place in 0..KMSS.len() {
            let asked = after[place] - before[place];
            let expected = match place {
                // The source epoch is opened.
                _ if place == from => Calls { wraps: 0, unwraps: 1 },
                // The source epoch and the new one are wrapped, and each wrap is opened once; then a thousand secrets are read.
                _ if place == to => Calls {
                    wraps: 2,
                    unwraps: 2 + 1,
                },
                _ => Calls::default(),
            };
            assert_eq!(asked, expected, "{what}: what {} was asked", name(place));
        }
    }
    println!("thirty moves took {:.1} s", all.elapsed().as_secs_f64());

    // What the backends were asked is what the KMSs saw, where those keep an account.
    let mut accounts = 0;
    for (place, owned) in places.iter().enumerate() {
        if let Some(seen) = owned.owner.seen(&owned.key).unwrap() {
            assert_eq!(seen, owned.counter.calls(), "{}", name(place));
            accounts += 1;
        }
    }
    assert_eq!(accounts, 2, "Azure's and Google's");
    assert_sound(&store);
}
