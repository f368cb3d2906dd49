//! No call takes longer than its deadline, whatever the service does; and what hung does not hang on.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Granted, KEY, TestHost, assert_fails, context, open_with, unwrap, wrap};
use keystead_backend::{Call, ErrorCode};
use keystead_tests::emulators::Gcp;
use serde_json::json;

#[allow(
    clippy::disallowed_methods,
    reason = "how long a call takes is what is measured"
)]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let result = work();
    (result, started.elapsed())
}

#[test]
fn a_service_that_does_not_answer_ends_with_the_calls_deadline() {
    let Some(gcp) = Gcp::own_or_skip("a Google Cloud KMS that gives no answer") else {
        return;
    };
    let mut granted = Granted::new(&gcp);
    granted.settings["attempt_timeout_ms"] = json!(60_000);
    let key = granted.open();
    let wrapped = wrap(&*key).unwrap();
    gcp.pause().unwrap();
    let short = Call::with_timeout(Duration::from_millis(300));
    let (result, took) = timed(|| key.unwrap(&short, &context(), &wrapped));
    assert_fails(result, ErrorCode::Timeout, &["300 ms"]);
    assert!(
        took >= Duration::from_millis(300) && took < Duration::from_secs(20),
        "{took:?}"
    );
    gcp.resume().unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn an_attempt_has_a_limit_of_its_own_and_the_next_one_may_succeed() {
    let Some(gcp) = Gcp::shared_or_skip("answers of Google Cloud KMS that are lost") else {
        return;
    };
    let mut granted = Granted::new(gcp);
    let wrapped = wrap(&*granted.open()).unwrap();
    // Long enough for an answer of a busy machine, and far shorter than what hangs.
    granted.settings["attempt_timeout_ms"] = json!(4000);
    let slow = json!({ "rpc": "Decrypt", "delay_ms": 60_000 });
    gcp.fault(&granted.key, std::slice::from_ref(&slow)).unwrap();
    let key = granted.open();
    let (result, took) = timed(|| unwrap(&*key, &wrapped));
    assert_fails(result, ErrorCode::Timeout, &["no answer in time"]);
    assert!(took < Duration::from_secs(25), "{took:?}");

    granted.settings["max_attempts"] = json!(3);
    let key = granted.open();
    gcp.fault(&granted.key, &[slow]).unwrap();
    let (result, took) = timed(|| unwrap(&*key, &wrapped));
    assert_eq!(result.unwrap(), KEY);
    assert!(took < Duration::from_secs(29), "{took:?}");
}

#[test]
fn cancelling_and_interrupting_end_a_call_in_flight() {
    let Some(gcp) = Gcp::shared_or_skip("cancelled calls of Google Cloud KMS") else {
        return;
    };
    let mut granted = Granted::new(gcp);
    granted.settings["attempt_timeout_ms"] = json!(60_000);
    let key = granted.open();
    let wrapped = wrap(&*key).unwrap();
    let slow = json!({ "rpc": "Decrypt", "delay_ms": 60_000 });
    gcp.fault(&granted.key, &[slow.clone(), slow]).unwrap();
    for (before, interrupt) in [(0, false), (1, true)] {
        let call = Call::with_timeout(Duration::from_secs(60));
        let (result, took) = std::thread::scope(|scope| {
            let running = scope.spawn(|| key.unwrap(&call, &context(), &wrapped));
            // The service notes it, and then lets it wait.
            let is_asked = || {
                granted
                    .calls(gcp)
                    .iter()
                    .filter(|name| *name == "Decrypt")
                    .count()
                    > before
            };
            while !running.is_finished() && !is_asked() {
                std::thread::sleep(Duration::from_millis(20));
            }
            if interrupt {
                key.interrupt();
            } else {
                call.cancel.cancel();
            }
            timed(|| running.join().unwrap())
        });
        assert_fails(result, ErrorCode::Cancelled, &["unwrapping with"]);
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn a_token_exchange_that_hangs_does_not_hang_the_next_call() {
    let Some(gcp) = Gcp::shared_or_skip("a token exchange at Google that hangs") else {
        return;
    };
    let provider = gcp.provider("https://hanging.example", "gcp:acme").unwrap();
    let key_name = gcp.create_key().unwrap();
    gcp.grant(
        &key_name,
        "cryptoKeyEncrypterDecrypter",
        &[&provider.principal("acme")],
    )
    .unwrap();
    let host = TestHost::minting(gcp.mint(&provider, "acme", &json!({})).unwrap());
    let config = json!({ "key_name": key_name, "workload_identity_provider": provider.name,
        "web_identity": { "audience": provider.audience() } });
    let mut settings = gcp.settings();
    settings["max_attempts"] = json!(1);
    settings["attempt_timeout_ms"] = json!(20_000);
    let hanging = json!({ "delay_ms": 120_000 });

    // The call's own end comes first. On a busy machine it may come before anything was asked; then nothing hangs yet.
    let key = open_with(Arc::clone(&host), &settings, &config);
    gcp.fault(&provider.name, &vec![hanging.clone(); 40]).unwrap();
    let hangs = (0..20).any(|_| {
        let short = Call::with_timeout(Duration::from_millis(500));
        assert_fails(
            key.wrap(&short, &context(), &KEY),
            ErrorCode::Timeout,
            &["500 ms"],
        );
        !gcp.requests(&provider.name).unwrap().is_empty()
    });
    assert!(hangs, "nothing was asked");
    gcp.fault(&provider.name, &[]).unwrap();
    let (result, took) = timed(|| wrap(&*key));
    result.unwrap();
    assert!(took < Duration::from_secs(20), "{took:?}");

    // The attempt's comes first.
    settings["attempt_timeout_ms"] = json!(700);
    let key = open_with(host, &settings, &config);
    gcp.fault(&provider.name, &[hanging]).unwrap();
    assert_fails(
        wrap(&*key),
        ErrorCode::Timeout,
        &["exchanging", "no answer in time"],
    );
}
