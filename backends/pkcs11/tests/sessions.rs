//! Log-ins, sessions, lost tokens, and calls that hang.

mod common;

use common::{KEY, assert_fails, call, config, context, new_key, open, unwrap, wrap};
use keystead_backend::{Call, ErrorCode};
use keystead_tests::emulators::SoftHsm;
use serde_json::{Value, json};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Settings whose sessions and log-in no other test has.
fn settings(hsm: &SoftHsm, sessions: u32) -> Value {
    let mut settings = hsm.settings();
    settings["sessions_max"] = json!(sessions);
    settings
}

#[test]
fn many_keys_and_threads_share_one_log_in_and_a_few_sessions() {
    let Some(hsm) = SoftHsm::shared_or_skip("many threads on one token") else {
        return;
    };
    new_key(&hsm, "shared");
    let settings = settings(&hsm, 3);
    hsm.forget_calls();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (settings, mechanism) = (&settings, common::MECHANISMS[thread % 2]);
            scope.spawn(move || {
                let key = open(settings, &config("shared", mechanism));
                for _ in 0..20 {
                    let wrapped = wrap(&*key).unwrap();
                    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
                }
            });
        }
    });
    assert!(
        hsm.calls_of("C_Login") <= 1,
        "logged in {} times",
        hsm.calls_of("C_Login")
    );
    assert!(
        hsm.calls_of("C_OpenSession") <= 4,
        "three sessions and the one of the log-in, not {}",
        hsm.calls_of("C_OpenSession")
    );
    assert_eq!(hsm.calls_of("C_CloseSession"), 0);
}

#[test]
fn a_token_that_is_lost_in_a_call_is_connected_anew_and_the_call_succeeds() {
    let Some(hsm) = SoftHsm::shared_or_skip("a token that is lost and comes back") else {
        return;
    };
    new_key(&hsm, "lost");
    let key = open(&settings(&hsm, 4), &config("lost", "aes-gcm"));
    let wrapped = wrap(&*key).unwrap();
    for (function, code) in [
        ("C_FindObjectsInit", "0xb3"),
        ("C_FindObjectsInit", "0x101"),
        ("C_FindObjectsInit", "0xe0"),
        ("C_DecryptInit", "0x32"),
        ("C_DecryptInit", "0xb0"),
        ("C_DecryptInit", "0x190"),
        ("C_DecryptInit", "0x90"),
    ] {
        hsm.request(&[&format!("{function} {code} 1")]).unwrap();
        hsm.forget_calls();
        assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY, "{function} {code}");
        assert_eq!(hsm.calls_of("C_GetSlotList"), 2, "connected anew after {code}");
    }
    // Ill for a moment: not taken for a damaged blob.
    for code in ["0x5", "0x6", "0x30", "0x80000382"] {
        hsm.request(&[&format!("C_Decrypt {code} 1")]).unwrap();
        assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY, "{code}");
    }
    // Gone for longer than a call: an outage, and over when it is over.
    hsm.request(&["C_FindObjectsInit 0xe0 99", "C_GetSlotList 0xe0 99"])
        .unwrap();
    for _ in 0..3 {
        assert_fails(
            unwrap(&*key, &wrapped),
            ErrorCode::Unavailable,
            &["CKR_TOKEN_NOT_PRESENT"],
        );
    }
    hsm.request(&[]).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn a_user_whom_somebody_else_logged_in_or_out_is_no_trouble() {
    let Some(hsm) = SoftHsm::shared_or_skip("log-ins by others in the process") else {
        return;
    };
    new_key(&hsm, "others");
    let key = open(&settings(&hsm, 5), &config("others", "aes-gcm"));
    let wrapped = wrap(&*key).unwrap();
    // A log-in lasts as long as the process has a session: somebody else's, here.
    let elsewhere = open(&settings(&hsm, 4), &config("others", "aes-gcm"));
    assert_eq!(unwrap(&*elsewhere, &wrapped).unwrap(), KEY);
    // The library says so to a log-in; another connection sees it by itself.
    hsm.request(&["C_FindObjectsInit 0x101 1", "C_Login 0x100 1"])
        .unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    hsm.request(&[]).unwrap();
    hsm.forget_calls();
    let another = open(&settings(&hsm, 6), &config("others", "aes-gcm"));
    assert_eq!(unwrap(&*another, &wrapped).unwrap(), KEY);
    assert_eq!(hsm.calls_of("C_Login"), 0);
    // The library is initialized already, which is as good.
    assert_eq!(hsm.calls_of("C_Initialize"), 1);
}

/// The token shows nobody who is not logged in a private key, and says that there is none. That was taken for a key that its owner
/// had deleted, by every key of the process, until its end.
#[test]
fn a_user_who_was_really_logged_out_is_logged_in_again_and_no_key_is_missing() {
    let Some(hsm) = SoftHsm::shared_or_skip("a user who is logged out by others in the process") else {
        return;
    };
    new_key(&hsm, "logged-out");
    let settings = settings(&hsm, 11);
    for mechanism in common::MECHANISMS {
        let key = open(&settings, &config("logged-out", mechanism));
        let wrapped = wrap(&*key).unwrap();
        for _ in 0..2 {
            hsm.request(&["C_FindObjectsInit logout 1"]).unwrap();
            hsm.forget_calls();
            assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
            assert_eq!(hsm.calls_of("C_Login"), 1);
        }
        hsm.request(&["C_FindObjectsInit logout 1"]).unwrap();
        wrap(&*key).unwrap();
        hsm.request(&["C_FindObjectsInit logout 1"]).unwrap();
        key.status(&call()).unwrap();
    }
    // What is not there is still not there.
    let none = open(&settings, &config("not-there", "aes-gcm"));
    hsm.request(&["C_FindObjectsInit logout 1"]).unwrap();
    assert_fails(wrap(&*none), ErrorCode::KeyNotFound, &["not-there"]);
    hsm.forget_calls();
    assert_fails(wrap(&*none), ErrorCode::KeyNotFound, &["not-there"]);
    assert_eq!(hsm.calls_of("C_Login"), 0);
}

#[test]
fn a_pin_that_was_refused_is_not_tried_again_until_its_source_gives_another() {
    let Some(hsm) = SoftHsm::shared_or_skip("a PIN that is refused") else {
        return;
    };
    let file = hsm.path("pin-of-other");
    let settings = json!({ "module": hsm.module(), "sessions_max": 7,
        "tokens": { SoftHsm::OTHER: { "pin_file": file } } });
    let key = open(
        &settings,
        &json!({ "token": SoftHsm::OTHER, "key_label": "none" }),
    );
    std::fs::write(&file, "hunter2\n").unwrap();
    hsm.forget_calls();
    for _ in 0..5 {
        let error = assert_fails(wrap(&*key), ErrorCode::Unauthenticated, &["PIN"]);
        assert!(!error.message.contains("hunter2"), "{error}");
    }
    assert_eq!(hsm.calls_of("C_Login"), 1, "tokens lock after a few");
    std::fs::write(&file, "hunter3\n").unwrap();
    assert_fails(wrap(&*key), ErrorCode::Unauthenticated, &["CKR_PIN_INCORRECT"]);
    assert_eq!(hsm.calls_of("C_Login"), 2);
    // The right one; then the key is what is missing.
    std::fs::write(&file, SoftHsm::PIN).unwrap();
    assert_fails(wrap(&*key), ErrorCode::KeyNotFound, &["none"]);
    assert_eq!(hsm.calls_of("C_Login"), 3);
}

#[test]
fn every_refusal_of_a_pin_becomes_not_authenticated() {
    let Some(hsm) = SoftHsm::shared_or_skip("refusals of a PIN") else {
        return;
    };
    new_key(&hsm, "refusals");
    let key = open(&settings(&hsm, 8), &config("refusals", "aes-gcm"));
    for (name, code) in [
        ("CKR_PIN_INCORRECT", "0xa0"),
        ("CKR_PIN_INVALID", "0xa1"),
        ("CKR_PIN_LEN_RANGE", "0xa2"),
        ("CKR_PIN_EXPIRED", "0xa3"),
        ("CKR_PIN_LOCKED", "0xa4"),
        ("CKR_USER_PIN_NOT_INITIALIZED", "0x102"),
    ] {
        // Whether or not the token is logged in to by now, this is what the library says.
        hsm.request(&[&format!("C_FindObjectsInit {code} 1")]).unwrap();
        assert_fails(wrap(&*key), ErrorCode::Unauthenticated, &[name]);
    }
}

#[test]
fn a_pin_comes_from_a_pipe_once_and_serves_later_log_ins_too() {
    let Some(hsm) = SoftHsm::shared_or_skip("a PIN from a pipe") else {
        return;
    };
    let (reader, mut writer) = std::io::pipe().unwrap();
    writeln!(writer, "{}", SoftHsm::PIN).unwrap();
    drop(writer);
    let settings = json!({ "module": hsm.module(), "sessions_max": 9,
        "tokens": { SoftHsm::TOKEN: { "pin_fd": reader.as_raw_fd() } } });
    new_key(&hsm, "pipe");
    let key = open(&settings, &config("pipe", "aes-gcm"));
    let wrapped = wrap(&*key).unwrap();
    hsm.request(&["C_DecryptInit 0xb3 1"]).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn a_pin_whose_source_is_missing_or_empty_is_an_outage_that_names_it() {
    let Some(hsm) = SoftHsm::shared_or_skip("a PIN whose source is missing") else {
        return;
    };
    let empty = hsm.path("empty");
    std::fs::write(&empty, "\n").unwrap();
    for (source, words) in [
        (json!({ "pin_file": hsm.path("not-there") }), "pin_file"),
        (json!({ "pin_file": empty }), "pin_file"),
        (
            json!({ "pin_env": "KEYSTEAD_NOT_SET_ANYWHERE" }),
            "KEYSTEAD_NOT_SET_ANYWHERE",
        ),
        (json!({ "pin_fd": 0x7fff_ffff }), "pin_fd"),
    ] {
        let mut tokens = json!({});
        tokens[SoftHsm::SHUT] = source;
        let settings = json!({ "module": hsm.module(), "sessions_max": 10, "tokens": tokens });
        let key = open(&settings, &json!({ "token": SoftHsm::SHUT, "key_label": "none" }));
        assert_fails(wrap(&*key), ErrorCode::Unavailable, &[words]);
    }
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "how long a call takes is what is measured"
)]
fn a_call_that_waits_behind_one_that_hangs_ends_at_its_own_deadline() {
    let Some(hsm) = SoftHsm::shared_or_skip("calls behind one that hangs in a token") else {
        return;
    };
    new_key(&hsm, "hangs");
    let settings = settings(&hsm, 1);
    let key = open(&settings, &config("hangs", "aes-gcm"));
    let wrapped = wrap(&*key).unwrap();
    hsm.forget_calls();
    hsm.request(&["paused"]).unwrap();
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| unwrap(&*key, &wrapped));
        // It has the one session from its first function on.
        while hsm.calls_of("C_FindObjectsInit") == 0 && !hanging.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let started = Instant::now();
        let hasty = Call::with_timeout(Duration::from_millis(100));
        let too_late = key.unwrap(&hasty, &context(), &wrapped);
        let cancelled = call();
        let flag = cancelled.cancel.clone();
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            flag.cancel();
        });
        let given_up = key.unwrap(&cancelled, &context(), &wrapped);
        let took = started.elapsed();
        // Before anything is judged: a panic here waits for the one that hangs.
        hsm.request(&[]).unwrap();
        let own_time = hanging.join().unwrap();
        assert_fails(too_late, ErrorCode::Timeout, &["100 ms", "sessions_max"]);
        assert_fails(given_up, ErrorCode::Cancelled, &[]);
        assert!(took < Duration::from_secs(20), "{took:?}");
        assert_eq!(own_time.unwrap(), KEY, "and the token's own time is its own");
    });
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}
