//! A plugin in Rust, exported by `export_backend!` and loaded again: what went through two C edges is what it was.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{TestHost, context, directory, install, load, open, open_with, rust_plugin};
use keystead_backend::{Call, ErrorCode, KeyBackend, LogLevel, Wrapped};
use keystead_loader::Plugin;

fn plugin() -> Plugin {
    let directory = directory();
    load(&install(rust_plugin(), directory.path(), "demonstration.so")).expect("a sound plugin loads")
}

fn call() -> Call {
    Call {
        request_id: 4711,
        ..Call::with_timeout(Duration::from_secs(5))
    }
}

const CONFIG: &str = r#"{"passphrase": "hunter2"}"#;

#[test]
fn a_key_that_is_wrapped_unwraps_to_the_same_bytes_for_every_length_up_to_the_limit() {
    let key = open(&plugin(), CONFIG).expect("opens");
    for len in 0..=256 {
        let plaintext: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
        let wrapped = key.wrap(&call(), &context("1"), &plaintext).expect("wraps");
        assert!(wrapped.key_id.starts_with("demonstration/"));
        assert_eq!(wrapped.metadata.len(), 16);
        assert_eq!(
            key.unwrap(&call(), &context("1"), &wrapped)
                .expect("unwraps")
                .as_slice(),
            plaintext
        );
    }
}

#[test]
fn the_description_arrives_as_it_was_given() {
    let description = plugin().describe();
    assert_eq!(
        (description.name.as_str(), description.version.as_str()),
        ("demonstration", "0.1.0")
    );
    assert_eq!(description.limits.blob_max_bytes, 320);
    assert!(description.capabilities.binds_context && description.capabilities.rewrap);
    assert!(!description.capabilities.interrupt);
}

#[test]
fn another_context_and_a_damaged_blob_and_another_key_are_told_apart() {
    let plugin = plugin();
    let key = open(&plugin, CONFIG).expect("opens");
    let other = open(&plugin, r#"{"passphrase": "other"}"#).expect("opens");
    let wrapped = key.wrap(&call(), &context("1"), &[7; 32]).expect("wraps");

    let error = key
        .unwrap(&call(), &context("2"), &wrapped)
        .expect_err("another context");
    assert_eq!(error.code, ErrorCode::InvalidCiphertext);
    for byte in 0..wrapped.blob.len() {
        let mut damaged = wrapped.clone();
        damaged.blob[byte] ^= 1;
        let error = key
            .unwrap(&call(), &context("1"), &damaged)
            .expect_err("a damaged blob");
        assert_eq!(error.code, ErrorCode::InvalidCiphertext);
    }
    let error = other
        .unwrap(&call(), &context("1"), &wrapped)
        .expect_err("another key");
    assert_eq!(
        (error.code, error.message),
        (ErrorCode::WrongKey, format!("{} wrapped this", wrapped.key_id))
    );
}

#[test]
fn rewrapping_changes_the_blob_and_not_the_key() {
    let key = open(&plugin(), CONFIG).expect("opens");
    let wrapped = key.wrap(&call(), &context("1"), &[7; 32]).expect("wraps");
    let again = key.rewrap(&call(), &context("1"), &wrapped).expect("rewraps");
    assert_ne!(wrapped.blob, again.blob);
    assert_eq!(
        key.unwrap(&call(), &context("1"), &again)
            .expect("unwraps")
            .as_slice(),
        [7; 32]
    );
}

#[test]
fn an_unknown_field_is_refused_by_its_name_across_the_edge() {
    let error = open(&plugin(), r#"{"passphrase": "x", "endpoint": "http://evil"}"#)
        .err()
        .expect("refused");
    assert_eq!(error.code, ErrorCode::InvalidConfig);
    assert!(error.message.contains("`endpoint`"), "{error}");
}

#[test]
fn a_panic_in_a_plugin_is_an_internal_error_and_the_next_call_works() {
    let plugin = plugin();
    let error = open(&plugin, r#"{"passphrase": "x", "misbehave": "panic in open"}"#)
        .err()
        .expect("panics");
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(error.message.contains("panicked"), "{error}");

    let key = open(&plugin, r#"{"passphrase": "x", "misbehave": "panic"}"#).expect("opens");
    let error = key.wrap(&call(), &context("1"), &[7; 32]).expect_err("panics");
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(
        !error.message.contains("asked to"),
        "a panic's text is not handed on: {error}"
    );
    assert!(key.status(&call()).is_ok());
}

#[test]
fn an_answer_beyond_the_described_size_or_an_empty_one_is_an_internal_error() {
    let plugin = plugin();
    for misbehave in ["answer too much", "answer nothing"] {
        let config = format!(r#"{{"passphrase": "x", "misbehave": "{misbehave}"}}"#);
        let key = open(&plugin, &config).expect("opens");
        assert_eq!(
            key.wrap(&call(), &context("1"), &[7; 32])
                .expect_err(misbehave)
                .code,
            ErrorCode::Internal
        );
    }
}

#[test]
fn what_is_too_large_for_the_plugin_is_refused_before_it_is_asked() {
    // Were it asked, it would panic.
    let key = open(&plugin(), r#"{"passphrase": "x", "misbehave": "panic"}"#).expect("opens");
    let error = key.wrap(&call(), &context("1"), &[7; 257]).expect_err("too long");
    assert_eq!(error.code, ErrorCode::Unsupported);
    let wrapped = Wrapped {
        blob: vec![0; 321],
        key_id: "k".into(),
        metadata: Vec::new(),
    };
    let error = key
        .unwrap(&call(), &context("1"), &wrapped)
        .expect_err("too long");
    assert_eq!(error.code, ErrorCode::InvalidCiphertext);
    let crowd = keystead_backend::Context::new((0..33).map(|index| (format!("name{index}"), "value")));
    assert_eq!(
        key.wrap(&call(), &crowd, &[7; 32])
            .expect_err("too many pairs")
            .code,
        ErrorCode::Unsupported
    );
}

#[test]
fn the_request_id_and_the_wish_to_wait_cross_the_edge() {
    let plugin = plugin();
    let status = open(&plugin, CONFIG)
        .expect("opens")
        .status(&call())
        .expect("healthy");
    assert_eq!(status.detail, "request 4711");
    let key = open(&plugin, r#"{"passphrase": "x", "misbehave": "throttle"}"#).expect("opens");
    let error = key.status(&call()).expect_err("throttled");
    assert_eq!(error.code, ErrorCode::Throttled);
    assert_eq!(
        error.retry_after,
        Some(Duration::from_millis(2)),
        "1.5 ms, rounded up"
    );
}

#[test]
fn cancelling_a_call_reaches_the_plugin_and_so_does_the_timeout() {
    let key = open(
        &plugin(),
        r#"{"passphrase": "x", "misbehave": "wait for cancel"}"#,
    )
    .expect("opens");
    let call = Call::with_timeout(Duration::from_secs(60));
    let flag = call.cancel.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            flag.cancel();
        });
        assert_eq!(
            key.status(&call).expect_err("cancelled").code,
            ErrorCode::Cancelled
        );
    });
    let short = Call::with_timeout(Duration::from_millis(10));
    assert_eq!(
        key.status(&short).expect_err("timed out").code,
        ErrorCode::Timeout
    );
}

#[test]
fn the_plugin_logs_to_the_host_of_its_instance_and_gets_its_token() {
    let host = Arc::new(TestHost {
        token: Some(b"a token".to_vec()),
        ..TestHost::default()
    });
    let config = r#"{"passphrase": "x", "misbehave": "tell the token"}"#;
    let key = open_with(&plugin(), config, host.clone()).expect("opens");
    assert_eq!(
        *host.log.lock().expect("no panic"),
        [(LogLevel::Info, "demonstration key opened".to_owned())]
    );
    let status = key.status(&call()).expect("a token was minted");
    assert_eq!(status.detail, blake3::hash(b"a token").to_hex().to_string());
}

#[test]
fn a_host_that_mints_none_or_too_long_a_token_is_an_error_of_the_call() {
    let plugin = plugin();
    let config = r#"{"passphrase": "x", "misbehave": "tell the token"}"#;
    let error = open(&plugin, config)
        .expect("opens")
        .status(&call())
        .expect_err("none minted");
    assert_eq!(error.code, ErrorCode::Unsupported);
    assert!(error.message.contains("aws:acme"), "{error}");
    let host = Arc::new(TestHost {
        token: Some(vec![b'x'; 16_385]),
        ..TestHost::default()
    });
    let error = open_with(&plugin, config, host)
        .expect("opens")
        .status(&call())
        .expect_err("too long");
    assert_eq!(error.code, ErrorCode::Internal);
    let host = Arc::new(TestHost {
        token: Some(vec![b'x'; 16_384]),
        ..TestHost::default()
    });
    assert!(
        open_with(&plugin, config, host)
            .expect("opens")
            .status(&call())
            .is_ok()
    );
}

#[test]
fn a_host_that_panics_does_not_take_the_plugin_along() {
    let host = Arc::new(TestHost {
        panics: true,
        ..TestHost::default()
    });
    let key = open_with(&plugin(), CONFIG, host).expect("a log line is lost, no more");
    let error = key
        .wrap(&call(), &context("1"), &[7; 32])
        .expect_err("no random bytes");
    assert_eq!(error.code, ErrorCode::Internal);
}

#[test]
fn a_plugin_thread_that_uses_the_host_after_close_reaches_nobody() {
    let host = Arc::new(TestHost::default());
    let config = r#"{"passphrase": "x", "misbehave": "use the host after close"}"#;
    let key = open_with(&plugin(), config, host.clone()).expect("opens");
    while host.logged().len() < 5 {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(key);
    let logged = host.logged().len();
    assert_eq!(
        Arc::strong_count(&host),
        1,
        "the instance's hold on the host ended with it"
    );
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(host.logged().len(), logged);
}

#[test]
fn many_threads_wrap_and_unwrap_on_one_instance() {
    let key = open(&plugin(), CONFIG).expect("opens");
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let key = &key;
            scope.spawn(move || {
                for round in 0..200u8 {
                    let context = context(&format!("{thread}/{round}"));
                    let wrapped = key.wrap(&call(), &context, &[thread ^ round; 32]).expect("wraps");
                    let unwrapped = key.unwrap(&call(), &context, &wrapped).expect("unwraps");
                    assert_eq!(unwrapped.as_slice(), [thread ^ round; 32]);
                }
            });
        }
    });
}

#[cfg(target_os = "linux")] // elsewhere a library has its path's name, and no list of mappings tells
#[test]
fn the_same_bytes_are_loaded_once_from_whichever_path() {
    let mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
        let executable = |line: &&str| line.contains("/memfd:demonstration") && line.contains("r-xp");
        maps.lines().filter(executable).count()
    };
    let kept: Vec<Plugin> = (0..5).map(|_| plugin()).collect();
    assert_eq!(mapped(), 1);
    assert_eq!(kept[0].digest(), kept[4].digest());
    assert_ne!(kept[0].path(), kept[4].path());
}
