//! Threads that take turns by dice, in one store: schedules from seeds, each of which can be run again.
#![allow(clippy::print_stdout, reason = "the figures are for people")]

use keystead_tests::env::seed;
use keystead_tests::explore::Seen;
use keystead_tests::threads::{ThreadFigures, live, replay};
use std::sync::atomic::AtomicBool;

/// Schedules that one run of the tests tries.
const SCHEDULES: u64 = 60;

#[test]
fn threads_in_any_order_and_power_at_any_moment_come_to_an_order_of_what_was_acknowledged() {
    let first = seed(1);
    let (seen, mut figures) = (Seen::default(), ThreadFigures::default());
    for seed in first..first + SCHEDULES {
        figures += live(seed, &seen, &AtomicBool::new(false)).unwrap_or_else(|failure| panic!("{failure}"));
    }
    println!("{figures:?}");
    assert!(
        figures.switches > SCHEDULES * 10,
        "threads take turns: {figures:?}"
    );
    assert!(
        figures.flown > 0,
        "what is in flight is sometimes there: {figures:?}"
    );
}

/// Threads that are let go by the same lock run to their next looks side by side: in two or three of a hundred schedules that shows.
#[test]
fn nearly_every_seed_gives_the_same_schedule_again() {
    const SEEDS: u64 = 16;
    let first = seed(1000);
    let same = |seed: &u64| {
        let one = replay(*seed).unwrap_or_else(|failure| panic!("{failure}"));
        one == replay(*seed).unwrap()
    };
    let again = (first..first + SEEDS).filter(same).count() as u64;
    println!("{again} of {SEEDS} seeds gave the same schedule twice");
    assert!(again >= SEEDS / 2, "{again} of {SEEDS}");
}
