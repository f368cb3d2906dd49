//! Threads, instances, hosts, and a store that lives on the plugin.

use std::time::Duration;

use keystead::{Backend, IdentityProvider, IdentityRequest, Store, VerifyOptions};
use keystead_backend::{BackendError, KeyInstance, LockedBytes};
use keystead_managed::ManagedBackend;

use crate::bench::{Bench, TIMEOUT, call};
use crate::inside::{Checked, Stop, fail};

const THREADS: usize = 16;
const ROUND_TRIPS: usize = 12;
const INSTANCES: usize = 20;
/// More threads than this, and each instance left some behind.
const THREADS_LEFT_MAX: usize = 8;
/// How long a plugin is watched after `close`, and in how many looks.
const AFTERWARDS: Duration = Duration::from_millis(300);
const LOOKS: u32 = 30;
/// How often this time is waited for threads to end.
const WAITS_FOR_THREADS: u32 = 10;

pub(super) fn threads(bench: &Bench) -> Checked {
    let keys = [bench.open()?, bench.open()?];
    let times = if bench.job.thorough { 10 } else { 1 };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let key = &keys[usize::from(number % 3 == 0)];
                scope.spawn(move || -> Checked<()> {
                    for round in 0..ROUND_TRIPS * times {
                        let (context, plaintext) = (bench.context(), bench.plaintext(32));
                        let wrapped = bench.wrap(key, &context, &plaintext)?;
                        if round % 4 == number % 4 {
                            key.status(&call())
                                .map_err(|error| Stop::Failed(format!("a status meanwhile: {error}")))?;
                        }
                        bench.opens(key, &context, &wrapped, &plaintext)?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| Stop::Failed("a thread of the tool panicked".into()))?
        })
    })
    .map_err(|stop| match stop {
        Stop::Failed(what) => Stop::Failed(format!("with {THREADS} threads at once: {what}")),
        other => other,
    })?;
    Ok(Vec::new())
}

pub(super) fn instances(bench: &Bench) -> Checked {
    let (first, second) = (bench.open()?, bench.open()?);
    let (context, plaintext) = (bench.context(), bench.plaintext(32));
    let wrapped = bench.round_trip(&first, &context, &plaintext)?;
    bench.opens(&second, &context, &wrapped, &plaintext)?;
    drop(first);
    bench.opens(&second, &context, &wrapped, &plaintext)?;
    // Others come and go while calls run.
    std::thread::scope(|scope| {
        let calls = scope.spawn(|| -> Checked<()> {
            for _ in 0..INSTANCES {
                bench.opens(&second, &context, &wrapped, &plaintext)?;
                bench.round_trip(&second, &bench.context(), &bench.plaintext(32))?;
            }
            Ok(())
        });
        for _ in 0..INSTANCES {
            let other = bench.open()?;
            bench.opens(&other, &context, &wrapped, &plaintext)?;
        }
        calls
            .join()
            .map_err(|_| Stop::Failed("a thread of the tool panicked".into()))?
    })
    .map_err(|stop| match stop {
        Stop::Failed(what) => Stop::Failed(format!("while instances come and go: {what}")),
        other => other,
    })?;
    Ok(Vec::new())
}

pub(super) fn close(bench: &Bench) -> Checked {
    let watch = |host: &crate::host::WatchedHost, what: &str| -> Checked<()> {
        for _ in 0..LOOKS {
            std::thread::sleep(AFTERWARDS / LOOKS);
            match host.late() {
                0 => {}
                late => fail!("after {what} the host was called {late} times more"),
            }
        }
        Ok(())
    };
    let host = bench.host();
    let key = bench.open_on(&host)?;
    bench.round_trip(&key, &bench.context(), &bench.plaintext(32))?;
    key.interrupt();
    drop(key);
    host.is_over();
    watch(&host, "close")?;

    let host = bench.host();
    if bench.open_as(&bench.job.settings, "[]", &host).is_ok() {
        fail!("a config that is none is taken");
    }
    host.is_over();
    watch(&host, "an open that failed")?;

    bench
        .open()
        .and_then(|key| bench.round_trip(&key, &bench.context(), &bench.plaintext(32)))?;
    let before = threads_of_the_process();
    for _ in 0..INSTANCES {
        let key = bench.open()?;
        bench.round_trip(&key, &bench.context(), &bench.plaintext(32))?;
        key.interrupt();
    }
    let mut after = threads_of_the_process();
    for _ in 0..WAITS_FOR_THREADS {
        if after <= before.map(|before| before + THREADS_LEFT_MAX) {
            break;
        }
        std::thread::sleep(AFTERWARDS);
        after = threads_of_the_process();
    }
    match (before, after) {
        (Some(before), Some(after)) if after > before + THREADS_LEFT_MAX => {
            fail!(
                "{INSTANCES} instances came and went, and left {} threads behind",
                after - before
            )
        }
        (Some(_), Some(_)) => Ok(Vec::new()),
        _ => Ok(vec!["threads could not be counted on this system".into()]),
    }
}

fn threads_of_the_process() -> Option<usize> {
    std::fs::read_dir("/proc/self/task").ok().map(Iterator::count)
}

pub(super) fn host(bench: &Bench) -> Checked {
    let host = bench.host();
    let key = bench.open_on(&host)?;
    let (context, plaintext) = (bench.context(), bench.plaintext(32));
    let before = bench.round_trip(&key, &context, &plaintext)?;
    let differs = bench.wrap(&key, &context, &plaintext)?.blob != before.blob;
    host.fail_random(true);
    let asked_before = host.random_asked();
    let without = [
        key.wrap(&call(), &context, &plaintext),
        key.wrap(&call(), &context, &plaintext),
    ];
    let asked = host.random_asked() > asked_before;
    host.fail_random(false);
    if let [Ok(first), Ok(second)] = &without
        && asked
        && differs
        && first.blob == second.blob
    {
        fail!(
            "when its host has no random bytes it goes on with bytes that are not random: two wraps are the same"
        );
    }
    bench.opens(&key, &context, &before, &plaintext)?;
    bench.round_trip(&key, &bench.context(), &bench.plaintext(32))?;
    Ok(match asked {
        true => Vec::new(),
        false => vec!["it asks its host for no random bytes".into()],
    })
}

/// What the store calls the backend.
const CHECKED: &str = "checked";

pub(super) fn store(bench: &Bench) -> Checked {
    let settings: serde_json::Value = json(&bench.job.settings, "settings")?;
    let config: serde_json::Value = json(&bench.job.config, "config")?;
    let file = bench.directory.join("store.keystead");
    let keyring = bench.directory.join("managed.keyring");
    let token = bench.job.token.clone();
    let options = || {
        let backend = Backend::new(bench.plugin.clone())
            .named(CHECKED)
            .settings(settings.clone());
        let options = Store::options()
            .kms_timeout(TIMEOUT)
            .backend(ManagedBackend::keyring(&keyring))
            .backend(backend);
        match token.clone() {
            Some(token) => options.identity_provider(Minted(token)),
            None => options,
        }
    };
    let value = "a value under the key";
    let life = || -> keystead::Result<()> {
        let store = options().create(&file)?;
        let acme = store.create_organization("acme")?;
        acme.put("before", value)?;
        acme.keys().add("cmk", CHECKED, config.clone())?.wait()?;
        acme.put("after", value)?;
        store.forget_epoch_keys();
        for path in ["before", "after"] {
            assert_eq!(acme.get(path)?.value, value.as_bytes());
        }
        acme.keys().rotate("cmk")?.wait()?;
        drop((acme, store));
        let store = options().open(&file)?;
        let acme = store.organization("acme")?;
        assert_eq!(acme.get("before")?.value, value.as_bytes());
        acme.keys().disable_all()?.wait()?;
        assert_eq!(acme.get("after")?.value, value.as_bytes());
        let report = store.verify(VerifyOptions { open_values: true }, |_| {})?;
        assert!(report.is_clean() && report.unopened.is_empty(), "{report:?}");
        Ok(())
    };
    life().map_err(|error| Stop::Failed(error.to_string()))?;
    Ok(Vec::new())
}

/// Answers every request with the token that was given.
struct Minted(String);

impl IdentityProvider for Minted {
    fn token(&self, _request: &IdentityRequest<'_>) -> Result<LockedBytes, BackendError> {
        Ok(LockedBytes::copy_from(self.0.as_bytes()))
    }
}

fn json(text: &str, what: &str) -> Checked<serde_json::Value> {
    serde_json::from_str(text)
        .map_err(|error| Stop::Failed(format!("the {what} that were given are not JSON: {error}")))
}
