//! The suite in small, as `cargo xtask mutants` runs it against each planted bug: without one, it finds nothing.
#![allow(clippy::print_stdout, reason = "the figures are for people")]

use keystead_tests::env::seed;
use keystead_tests::interleave::interleave;
use keystead_tests::model::Action;
use keystead_tests::suite::PARTS;

fn is_clean(name: &str) {
    let part = PARTS.iter().find(|part| part.name == name).unwrap();
    let outcome = part.run(seed(1));
    if let Some(failure) = outcome.failure {
        panic!("{failure}");
    }
    println!("{}: {} {}", part.name, outcome.steps, part.unit);
    assert!(outcome.steps > 0);
}

#[test]
fn after_every_action_of_a_life_all_parts_of_the_store_agree() {
    is_clean("life");
}

#[test]
fn lifetimes_outages_and_revocations_decide_what_serves() {
    is_clean("keys in time");
}

#[test]
fn two_calls_interleaved_anywhere_come_to_one_of_their_orders() {
    is_clean("interleaved calls");
}

#[test]
fn a_change_of_the_disk_that_fails_anywhere_loses_nothing() {
    is_clean("disk faults");
}

#[test]
fn power_that_goes_anywhere_in_every_kind_of_change_loses_nothing() {
    is_clean("power cuts");
}

/// The story: a put looked up which epoch is active; before it had that epoch's key, the organization had moved to another key,
/// the re-wrap was done and the epoch retired. The put said that the store is damaged, and to restore it from a copy. It now
/// looks again. Found by stopping a put at each of its calls of clock and randomness.
#[test]
fn a_put_whose_epoch_is_retired_before_it_has_its_key_lands_on_the_next_epoch() {
    let org = || "acme".to_owned();
    let put = Action::Put {
        org: org(),
        put: ("s/1".into(), 300),
    };
    let move_away = [Action::DisableAll { org: org() }, Action::Rewrap { org: org() }];
    interleave(1, &[put], &move_away, 0).unwrap();
}
