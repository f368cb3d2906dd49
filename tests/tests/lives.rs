//! Whole lives: changes, a KMS that fails in every way, a clock that jumps, power that goes and goes again. What each comes to is
//! what the model says.
//!
//! Everything follows from a seed, which each test prints; `cargo xtask replay SEED --profile lives` tells its story.
#![allow(clippy::print_stdout, reason = "the figures are for people")]

use keystead_tests::env::seed;
use keystead_tests::lives::{LifeFigures, deeds_of, live, shrunk};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many lives in each run.
const SEEDS: u64 = 200;

fn lives(from: u64, count: u64) {
    let first = seed(from);
    let (next, all) = (AtomicU64::new(0), Mutex::new(LifeFigures::default()));
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            threads.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let seed = first + index;
                    match live(&deeds_of(seed), seed) {
                        Ok(lived) => all.lock().unwrap().add(&lived.figures),
                        Err(failure) => panic!("{}", shrunk(seed).unwrap_or(failure)),
                    }
                }
            });
        }
    });
    let figures = all.into_inner().unwrap();
    println!("{count} seeds: {figures}");
    assert!(figures.acknowledged > 0 && figures.power_cuts > 0 && figures.refused > 0);
}

#[test]
fn two_hundred_whole_lives_keep_every_promise() {
    lives(1, SEEDS);
}

#[test]
fn the_same_seed_lives_the_same_life_and_tells_the_same_story() {
    for seed in 1..6 {
        let (once, twice) = (
            live(&deeds_of(seed), seed).unwrap(),
            live(&deeds_of(seed), seed).unwrap(),
        );
        assert_eq!(once.story, twice.story);
        assert_eq!(once.trace, twice.trace);
    }
}
