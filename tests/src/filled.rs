//! An organization with secrets in it, and the time until reading them stops and goes on when its key is taken away and given back.

use keystead::{Batch, Error, Organization};
use std::time::{Duration, Instant};

/// The secret that is asked for again and again.
const ONE: &str = "s/7";

/// Puts `count` secrets `s/0` … of one version each.
///
/// # Panics
///
/// When it is refused.
pub fn fill(organization: &Organization, count: u32) {
    for from in (0..count).step_by(1000) {
        let mut batch = Batch::new();
        for n in from..(from + 1000).min(count) {
            batch = batch.put(&format!("s/{n}"), value(n)).expect("the path is right");
        }
        organization
            .commit(batch)
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

/// What [`fill`] puts into secret `n`.
pub fn value(n: u32) -> String {
    format!("the value of secret {n}")
}

/// Reads what [`fill`] put.
///
/// # Panics
///
/// When one of them is not what was put.
#[track_caller]
pub fn check(organization: &Organization, count: u32) {
    for n in 0..count {
        let secret = organization.get(&format!("s/{n}"));
        let secret = secret.unwrap_or_else(|error| panic!("secret {n}: {error}"));
        assert_eq!(secret.value, value(n).as_bytes(), "secret {n}");
    }
}

/// How long the KMS may be out of reach: on a busy machine the emulator is at times.
const OUTAGE_AT_MOST: Duration = Duration::from_secs(60);

/// Reads until it is refused, and returns the refusal and how long that took.
///
/// # Panics
///
/// When it is still served after `at_most`, when the KMS is out of reach for a minute more, and when writing goes on after
/// reading was refused.
#[track_caller]
#[allow(
    clippy::disallowed_methods,
    reason = "how long a revocation takes is what is measured"
)]
pub fn wait_until_refused(organization: &Organization, at_most: Duration) -> (Error, Duration) {
    let began = Instant::now();
    let error = loop {
        let asked = began.elapsed();
        match organization.get(ONE) {
            Ok(_) => assert!(asked < at_most, "still served after {asked:?}"),
            Err(error) if error.is_retryable() => assert!(asked < at_most + OUTAGE_AT_MOST, "{error}"),
            Err(error) => break error,
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let took = began.elapsed();
    let refusal = loop {
        match organization.put(ONE, "x") {
            Ok(version) => panic!("writes do not stop as well: version {version:?} was written"),
            Err(error) if error.is_retryable() && began.elapsed() < took + OUTAGE_AT_MOST => {}
            Err(error) => break error,
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(refusal.is_revoked(), "{refusal}");
    (error, took)
}

/// Reads until it is served again.
///
/// # Panics
///
/// When it is still refused after `at_most`, or refused as something else than revoked or an outage.
#[track_caller]
#[allow(clippy::disallowed_methods, reason = "it waits for real time to pass")]
pub fn wait_until_served(organization: &Organization, at_most: Duration) {
    let began = Instant::now();
    while let Err(error) = organization.get(ONE) {
        let may_pass = error.is_revoked() || error.is_retryable();
        assert!(may_pass && began.elapsed() < at_most, "{error}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
