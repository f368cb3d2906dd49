//! No call takes longer than its deadline, whatever the other side does.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod common;

use std::time::{Duration, Instant};

use common::{KEY, Owned, assert_fails, context, open, unwrap, wrap};
use keystead_backend::{Call, ErrorCode};
use keystead_tests::emulators::Azure;
use serde_json::json;

#[test]
fn a_vault_that_hangs_costs_the_deadline_and_not_more_and_all_goes_on_after_it() {
    let Some(azure) = Azure::own_or_skip("a vault that hangs") else {
        return;
    };
    let owned = Owned::new(&azure, "hangs.vault.azure.net");
    let key = owned.open();
    let wrapped = wrap(&*key).unwrap();
    azure.pause().unwrap();
    let started = Instant::now();
    let call = Call::with_timeout(Duration::from_millis(700));
    let error = assert_fails(
        key.unwrap(&call, &context(), &wrapped),
        ErrorCode::Timeout,
        &["700 ms"],
    );
    assert!(
        started.elapsed() >= Duration::from_millis(700) && started.elapsed() < Duration::from_secs(20),
        "{:?}: {error}",
        started.elapsed()
    );
    let call = Call::with_timeout(Duration::from_secs(60));
    let cancel = call.cancel.clone();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            cancel.cancel();
        });
        let started = Instant::now();
        assert_fails(key.unwrap(&call, &context(), &wrapped), ErrorCode::Cancelled, &[]);
        assert!(started.elapsed() < Duration::from_secs(20));
        let running = threads.spawn(|| {
            let call = Call::with_timeout(Duration::from_secs(60));
            key.unwrap(&call, &context(), &wrapped)
        });
        // Again and again: one that comes before the call has begun is not for it.
        while !running.is_finished() {
            std::thread::sleep(Duration::from_millis(200));
            key.interrupt();
        }
        assert_fails(running.join().unwrap(), ErrorCode::Cancelled, &[]);
    });
    azure.resume().unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn one_attempt_has_a_limit_of_its_own_and_the_next_one_may_succeed() {
    let Some(azure) = Azure::own_or_skip("a vault that answers late once") else {
        return;
    };
    let owned = Owned::new(&azure, "late.vault.azure.net");
    let mut settings = owned.settings.clone();
    settings["attempt_timeout_ms"] = json!(2000);
    let key = open(&settings, &json!({ "key_id": owned.key }));
    let wrapped = wrap(&*key).unwrap();
    azure
        .inject(&json!({ "operation": "unwrapkey", "delay_ms": 20_000 }))
        .unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    azure
        .inject(&json!({ "operation": "unwrapkey", "delay_ms": 20_000, "times": 3 }))
        .unwrap();
    assert_fails(
        unwrap(&*key, &wrapped),
        ErrorCode::Timeout,
        &["the vault gave no answer in time"],
    );
}

#[test]
fn a_vault_or_a_sign_in_that_is_not_there_is_an_outage() {
    let Some(azure) = Azure::shared_or_skip("Azure out of reach") else {
        return;
    };
    let owned = Owned::new(azure, "away.vault.azure.net");
    for (field, value, service) in [
        ("vault_address", "127.0.0.1:9", "the vault cannot be reached"),
        (
            "authority_host",
            "https://127.0.0.1:9",
            "Entra ID cannot be reached",
        ),
    ] {
        let mut settings = owned.settings.clone();
        settings[field] = json!(value);
        let key = open(&settings, &json!({ "key_id": owned.key }));
        assert_fails(wrap(&*key), ErrorCode::Unavailable, &[service]);
    }
}

#[test]
fn many_threads_use_one_key_at_once() {
    let Some(azure) = Azure::shared_or_skip("many threads with one Azure key") else {
        return;
    };
    let owned = Owned::new(azure, "threads.vault.azure.net");
    let key = owned.open();
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                for _ in 0..3 {
                    let wrapped = wrap(&*key).unwrap();
                    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
                }
            });
        }
    });
}
