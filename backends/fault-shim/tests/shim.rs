//! The shim before the managed key's plugin: what the script says happens, and nothing else.
#![allow(clippy::disallowed_methods, reason = "the tests measure real time")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use keystead::{Backend, Store};
use keystead_backend::{
    BackendError, Call, CancelFlag, Context, ErrorCode, Host, KeyBackend, KeyInstance, LockedBytes, LogLevel,
    OpenRequest,
};
use keystead_fault_shim::FaultShim;
use keystead_managed::ManagedBackend;
use serde_json::{Value, json};

/// The managed key's plugin, built beside this test: now, unless `cargo xtask test` has built everything.
fn managed() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        let profile = own.parent().and_then(Path::parent).unwrap();
        let plugin = profile.join("libkeystead_managed.so");
        if std::env::var_os("KEYSTEAD_ALL_IS_BUILT").is_some() {
            return plugin;
        }
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args([
            "build",
            "--quiet",
            "--package",
            "keystead-managed-plugin",
            "--target-dir",
        ]);
        build.arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
        plugin
    })
}

struct Bench {
    directory: tempfile::TempDir,
    host: Arc<Logged>,
}

#[derive(Default)]
struct Logged(Mutex<Vec<String>>);

impl Host for Logged {
    fn log(&self, _level: LogLevel, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }

    fn random(&self, out: &mut [u8]) -> Result<(), BackendError> {
        // Wraps need be different, not secret, here.
        static NEXT: Mutex<u8> = Mutex::new(0);
        let mut next = NEXT.lock().unwrap();
        *next = next.wrapping_add(1);
        out.fill(*next);
        Ok(())
    }

    fn identity_token(&self, _audience: &str) -> Result<LockedBytes, BackendError> {
        Err(BackendError::new(ErrorCode::Unsupported, "none"))
    }
}

impl Bench {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            host: Arc::default(),
        }
    }

    fn keyring(&self) -> PathBuf {
        self.directory.path().join("behind.keyring")
    }

    fn settings(&self, script: Value) -> Value {
        json!({
            "plugin": managed(),
            "digest": keystead_loader::digest_file(managed()).unwrap().to_string(),
            "settings": { "keyring": self.keyring() },
            "script": script,
        })
    }

    fn try_open(&self, shim: &FaultShim, settings: &Value) -> Result<Box<dyn KeyInstance>, BackendError> {
        shim.open(OpenRequest {
            settings: &settings.to_string(),
            config: "{}",
            host: self.host.clone(),
        })
    }

    fn open(&self, script: Value) -> Box<dyn KeyInstance> {
        self.try_open(&FaultShim::default(), &self.settings(script))
            .unwrap()
    }
}

fn call() -> Call {
    Call::with_timeout(Duration::from_secs(50))
}

fn context() -> Context {
    Context::new([("epoch", "1")])
}

fn wrap(key: &dyn KeyInstance) -> Result<(), ErrorCode> {
    key.wrap(&call(), &context(), &[7; 32])
        .map(drop)
        .map_err(|error| error.code)
}

#[test]
fn without_a_script_calls_and_errors_pass_as_they_are() {
    let bench = Bench::new();
    let key = bench.open(json!([]));
    let wrapped = key.wrap(&call(), &context(), &[7; 32]).unwrap();
    assert!(wrapped.key_id.starts_with("managed:"), "{}", wrapped.key_id);
    assert_eq!(
        key.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
        [7; 32]
    );
    let other = Context::new([("epoch", "2")]);
    let error = key.unwrap(&call(), &other, &wrapped).unwrap_err();
    assert_eq!(
        error.code,
        ErrorCode::InvalidCiphertext,
        "the one behind binds it, too"
    );
    assert_eq!(key.status(&call()).unwrap().key_id, wrapped.key_id);
    let log = bench.host.0.lock().unwrap();
    assert!(!log.iter().any(|line| line.contains("fault-shim")), "{log:?}");
}

#[test]
fn a_burst_of_throttling_begins_and_ends_where_the_script_says() {
    let bench = Bench::new();
    let key = bench
        .open(json!([{ "on": "wrap", "from": 2, "times": 3, "error": "throttled", "retry_after_ms": 40 }]));
    let outcomes: Vec<_> = (0..6).map(|_| wrap(&*key)).collect();
    let throttled = Err(ErrorCode::Throttled);
    assert_eq!(
        outcomes,
        [Ok(()), throttled, throttled, throttled, Ok(()), Ok(())]
    );
    let shim = FaultShim::default();
    let settings = bench.settings(json!([{ "on": "wrap", "error": "throttled", "retry_after_ms": 40 }]));
    let error = bench
        .try_open(&shim, &settings)
        .unwrap()
        .wrap(&call(), &context(), &[7; 32])
        .unwrap_err();
    assert_eq!(error.retry_after, Some(Duration::from_millis(40)));
}

#[test]
fn a_script_counts_over_all_instances_with_the_same_settings_and_does_the_same_each_time() {
    let bench = Bench::new();
    let settings = bench.settings(json!([{ "on": "wrap", "from": 2, "every": 2, "error": "unavailable" }]));
    let life = || {
        let shim = FaultShim::default();
        let (one, other) = (
            bench.try_open(&shim, &settings).unwrap(),
            bench.try_open(&shim, &settings).unwrap(),
        );
        (0..6)
            .map(|n| wrap(if n % 3 == 0 { &*one } else { &*other }))
            .collect::<Vec<_>>()
    };
    let first = life();
    let refused = Err(ErrorCode::Unavailable);
    assert_eq!(first, [Ok(()), refused, Ok(()), refused, Ok(()), refused]);
    assert_eq!(life(), first);
}

#[test]
fn a_lost_answer_has_had_its_effect_and_a_refusal_has_not() {
    let bench = Bench::new();
    let key = bench.open(json!([
        { "on": "wrap", "from": 1, "times": 1, "error": "access-denied" },
        { "on": "wrap", "from": 2, "times": 1, "lose_answer": true },
    ]));
    assert_eq!(wrap(&*key), Err(ErrorCode::AccessDenied));
    assert!(!bench.keyring().exists(), "the one behind was not asked");
    assert_eq!(wrap(&*key), Err(ErrorCode::Unavailable));
    assert!(
        bench.keyring().exists(),
        "the first wrap of the one behind makes the keyring"
    );
    let log = bench.host.0.lock().unwrap();
    let told: Vec<_> = log.iter().filter(|line| line.starts_with("fault-shim")).collect();
    assert_eq!(
        told,
        [
            "fault-shim: wrap 1: failed (access-denied)",
            "fault-shim: wrap 2: answer lost (unavailable)"
        ]
    );
}

#[test]
fn a_delay_ends_with_the_deadline_a_cancellation_or_an_interruption() {
    let bench = Bench::new();
    let key = bench.open(json!([{ "on": "wrap", "delay_ms": 60_000 }, { "on": "unwrap", "delay_ms": 30 }]));
    let began = Instant::now();
    let short = Call::with_timeout(Duration::from_millis(50));
    let error = key.wrap(&short, &context(), &[7; 32]).unwrap_err();
    assert_eq!(error.code, ErrorCode::Timeout);

    let flag = CancelFlag::default();
    let cancelled = Call {
        cancel: flag.clone(),
        ..call()
    };
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| key.wrap(&cancelled, &context(), &[7; 32]).map(drop));
        std::thread::sleep(Duration::from_millis(30));
        flag.cancel();
        assert_eq!(waiting.join().unwrap().unwrap_err().code, ErrorCode::Cancelled);

        let waiting = threads.spawn(|| wrap(&*key));
        std::thread::sleep(Duration::from_millis(30));
        while !waiting.is_finished() {
            key.interrupt();
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(waiting.join().unwrap(), Err(ErrorCode::Cancelled));
    });
    assert!(
        began.elapsed() < Duration::from_secs(50),
        "none of them waited for the minute"
    );

    let wrapped = bench.open(json!([])).wrap(&call(), &context(), &[7; 32]).unwrap();
    let began = Instant::now();
    assert_eq!(
        key.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
        [7; 32]
    );
    assert!(began.elapsed() >= Duration::from_millis(30));
}

#[test]
fn settings_are_strict_and_say_what_is_wrong() {
    let bench = Bench::new();
    let good = bench.settings(json!([]));
    for (field, value, words) in [
        ("plugins", json!("x"), "unknown field `plugins`"),
        ("plugin", json!("relative.so"), "relative"),
        (
            "plugin",
            Value::Null,
            "plugin in the settings of the backend fault-shim is missing",
        ),
        ("digest", json!("0".repeat(64)), "is not allowed"),
        ("digest", json!("abc"), "64 hexadecimal digits"),
        ("settings", json!([]), "must be an object"),
        ("settings", json!({ "keyrings": "x" }), "keyrings"),
        (
            "script",
            json!([{ "on": "wrap", "error": "nonsense" }]),
            "an error that does not exist",
        ),
        (
            "script",
            json!([{ "on": "wrap", "wait_ms": 7 }]),
            "unknown field `wait_ms`",
        ),
        (
            "script",
            json!([{ "on": "open", "error": "throttled" }]),
            "refuses open 1",
        ),
    ] {
        let mut settings = good.clone();
        settings[field] = value;
        let error = bench
            .try_open(&FaultShim::default(), &settings)
            .err()
            .unwrap_or_else(|| panic!("{words}"));
        assert!(error.message.contains(words), "{words}: {error}");
        let expected = if field == "script" && words.starts_with("refuses") {
            ErrorCode::Throttled
        } else {
            ErrorCode::InvalidConfig
        };
        assert_eq!(error.code, expected, "{error}");
    }
}

#[test]
fn a_store_outlives_a_burst_of_throttling_and_an_answer_that_is_lost_in_a_hand_over() {
    let bench = Bench::new();
    // The probe of a key that is added: one wrap, two unwraps. The wrap of the new epoch is the second one.
    let script = json!([
        { "on": "unwrap", "from": 3, "times": 2, "error": "throttled" },
        { "on": "wrap", "from": 2, "times": 1, "lose_answer": true },
    ]);
    let store = Store::options()
        .backend(ManagedBackend::keyring(
            bench.directory.path().join("own.keyring"),
        ))
        .backend(Backend::new(FaultShim::default()).settings(bench.settings(script)))
        .kms_timeout(Duration::from_secs(30))
        .create(bench.directory.path().join("store.keystead"))
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    acme.put("a", "before").unwrap();
    acme.keys()
        .add("cmk", "fault-shim", json!({}))
        .unwrap()
        .wait()
        .unwrap();
    store.forget_epoch_keys();
    assert_eq!(acme.get("a").unwrap().value, b"before");
    acme.put("a", "after").unwrap();
    let report = store
        .verify(keystead::VerifyOptions { open_values: true }, |_| {})
        .unwrap();
    assert!(report.is_clean() && report.unopened.is_empty(), "{report:?}");
}
