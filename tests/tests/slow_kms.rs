//! A KMS that takes its time: what waits for it, and what does not.

#![allow(clippy::disallowed_methods, reason = "it measures how long things take")]

mod common;

use common::{Bench, assert_sound, key};
use keystead::backend::{
    BackendError, Call, Context, Description, ErrorCode, KeyBackend, KeyInstance, LockedBytes, OpenRequest,
    Status, Wrapped,
};
use keystead::simulation::snapshot_readers;
use keystead::{Backend, Env, Error, Organization, Store, SystemEnv};
use keystead_tests::env::SimulatedEnv;
use keystead_tests::kms::{Fault, SimulatedKms};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Who waits at the gate, and whether it is shut.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn shut(&self) {
        self.state.lock().unwrap().0 = true;
    }

    fn open(&self) {
        self.state.lock().unwrap().0 = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            state = self.changed.wait(state).unwrap();
        }
        state.1 -= 1;
    }

    fn until_somebody_waits(&self) {
        self.until_so_many_wait(1);
    }

    fn until_so_many_wait(&self, wait: usize) {
        let mut state = self.state.lock().unwrap();
        while state.1 < wait {
            state = self.changed.wait(state).unwrap();
        }
    }
}

/// A KMS with a gate before each opening of a key, and one before what organizations called `slow…` unwrap.
#[derive(Clone)]
struct SlowKms {
    kms: SimulatedKms,
    opening: Arc<Gate>,
    unwrapping: Arc<Gate>,
    /// Where the next unwrap waits, and no other.
    next: Arc<Mutex<Option<Arc<Gate>>>>,
}

impl SlowKms {
    fn before(bench: &Bench) -> Self {
        Self {
            kms: bench.kms.clone(),
            opening: Arc::default(),
            unwrapping: Arc::default(),
            next: Arc::default(),
        }
    }

    /// A gate, shut, before the next unwrap alone.
    fn hold_next(&self) -> Arc<Gate> {
        let gate: Arc<Gate> = Arc::default();
        gate.shut();
        *self.next.lock().unwrap() = Some(Arc::clone(&gate));
        gate
    }

    fn options(&self) -> keystead::StoreOptions {
        Store::options()
            .backend(Backend::new(self.clone()).named("managed"))
            .backend(Backend::new(self.clone()).named("customer-kms"))
            .kms_attempts_max(1)
            .kms_timeout(Duration::from_secs(60))
    }
}

impl KeyBackend for SlowKms {
    fn describe(&self) -> Description {
        self.kms.describe()
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        self.opening.pass();
        Ok(Box::new(SlowKey {
            inner: self.kms.open(request)?,
            unwrapping: Arc::clone(&self.unwrapping),
            next: Arc::clone(&self.next),
        }))
    }
}

struct SlowKey {
    inner: Box<dyn KeyInstance>,
    unwrapping: Arc<Gate>,
    next: Arc<Mutex<Option<Arc<Gate>>>>,
}

impl KeyInstance for SlowKey {
    fn status(&self, call: &Call) -> Result<Status, BackendError> {
        self.inner.status(call)
    }

    fn wrap(&self, call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        self.inner.wrap(call, context, plaintext)
    }

    fn unwrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes, BackendError> {
        if context
            .entries()
            .any(|(name, value)| name == "keystead:organization" && value.starts_with("slow"))
        {
            self.unwrapping.pass();
        }
        let held = self.next.lock().unwrap().take();
        if let Some(gate) = held {
            gate.pass();
        }
        self.inner.unwrap(call, context, wrapped)
    }
}

/// A read held its snapshot while its KMS was asked. No page that a snapshot sees is written over: with a KMS that took its time, the
/// file grew with every write meanwhile.
#[test]
fn a_read_that_waits_for_its_kms_keeps_no_page_from_being_written_over() {
    let bench = Bench::new();
    let slow_kms = SlowKms::before(&bench);
    let store = slow_kms.options().create(bench.path()).unwrap();
    let slow = store.create_organization("slow").unwrap();
    slow.put("s", "worth the wait").unwrap();
    slow.put("large", vec![7; 300_000]).unwrap();
    store.forget_epoch_keys();
    slow_kms.unwrapping.shut();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| slow.get("s"));
        let streaming = scope.spawn(|| slow.get("large"));
        slow_kms.unwrapping.until_somebody_waits();
        // Both have begun by then, or wait for nothing.
        let began = Instant::now();
        while snapshot_readers(&slow) > 0 && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let readers = snapshot_readers(&slow);
        slow_kms.unwrapping.open();
        assert_eq!(readers, 0);
        assert_eq!(reader.join().unwrap().unwrap().value, "worth the wait");
        assert_eq!(streaming.join().unwrap().unwrap().value, vec![7; 300_000]);
    });
    assert_sound(&store);
}

/// What a read waited for may be out of date when it comes: it begins anew, and reads what is there then.
#[test]
fn a_read_that_waited_for_its_kms_reads_what_is_there_then() {
    let bench = Bench::new();
    let slow_kms = SlowKms::before(&bench);
    let store = slow_kms
        .options()
        .background_rewrap(false)
        .create(bench.path())
        .unwrap();
    let slow = store.create_organization("slow").unwrap();
    slow.put("s", "first").unwrap();
    slow.put("gone", "x").unwrap();
    let job = slow.keys().rotate("managed").unwrap();
    let second = slow.put("s", "second").unwrap();
    store.forget_epoch_keys();
    // The second epoch's key is in memory: what follows waits for nothing.
    slow.get("s").unwrap();

    slow_kms.unwrapping.shut();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| slow.get_version("s", keystead::Version::new(1).unwrap()));
        let gone = scope.spawn(|| slow.get("gone"));
        slow_kms.unwrapping.until_somebody_waits();
        let third = slow.put("s", "third").unwrap();
        assert!(third > second);
        slow.destroy("gone", keystead::Version::new(1).unwrap()).unwrap();
        slow_kms.unwrapping.open();
        assert_eq!(first.join().unwrap().unwrap().value, "first");
        let refused = gone.join().unwrap().unwrap_err();
        assert!(matches!(refused, Error::VersionDestroyed { .. }), "{refused}");
    });
    job.run_here(|_| {}).unwrap();
    assert_eq!(slow.get("s").unwrap().value, "third");
    assert_sound(&store);
}

/// From the hand-over on the old KMS may vanish. A read that had asked it just before failed by its answer, and the key that had
/// been handed over left memory.
#[test]
fn a_read_that_asked_the_old_kms_before_a_hand_over_is_answered_by_the_new_one() {
    let bench = Bench::new();
    let slow_kms = SlowKms::before(&bench);
    let store = slow_kms
        .options()
        .background_rewrap(false)
        .create(bench.path())
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    acme.put("s", "worth the wait").unwrap();
    for refusal in [ErrorCode::KeyDisabled, ErrorCode::Unavailable] {
        let own = format!("own-{refusal:?}");
        store.forget_epoch_keys();
        let gate = slow_kms.hold_next();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| acme.get("s"));
            gate.until_somebody_waits();
            let old = acme
                .keys()
                .list()
                .unwrap()
                .into_iter()
                .find(|key| key.default)
                .unwrap();
            acme.keys().add(&own, "customer-kms", key(&own)).unwrap();
            if old.name != "managed" {
                acme.keys().set_default(&own, true).unwrap();
            }
            let cached = store.cached_epoch_keys();
            bench.kms.fail(&old.name, refusal);
            gate.open();
            assert_eq!(reader.join().unwrap().unwrap().value, "worth the wait");
            assert_eq!(
                store.cached_epoch_keys(),
                cached,
                "what was handed over stays in memory"
            );
        });
    }
}

/// A backend's `open` ran on the caller's thread, without a deadline: one that never came back held its caller for ever.
#[test]
fn a_backend_that_never_opens_a_key_costs_its_caller_the_deadline() {
    let bench = Bench::new();
    let slow_kms = SlowKms::before(&bench);
    let store = slow_kms
        .options()
        .kms_timeout(Duration::from_secs(6))
        .create(bench.path())
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    slow_kms.opening.shut();
    let began = Instant::now();
    let refused = acme.keys().add("own", "customer-kms", key("acme")).err().unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let Error::Kms { source, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(source.code, ErrorCode::Timeout);
    // Others go on, on the same backend's threads as well.
    acme.put("p", "x").unwrap();
    slow_kms.opening.open();
    acme.keys().add("own", "customer-kms", key("acme")).unwrap();
}

/// The threads of a backend were eight, for whoever came first: eight calls to a KMS that hung, and every other customer's call waited
/// behind them, for longer than its deadline.
#[test]
fn the_kms_of_one_customer_that_hangs_costs_another_customer_of_the_same_backend_nothing() {
    let bench = Bench::new();
    let slow_kms = SlowKms::before(&bench);
    let store = slow_kms.options().create(bench.path()).unwrap();
    let customer = |name: &str| {
        let customer = store.create_organization(name).unwrap();
        let job = customer.keys().add("own", "customer-kms", key(name)).unwrap();
        job.wait().unwrap();
        customer.put("s", "worth the wait").unwrap();
        customer
    };
    let slow: Vec<_> = (0..9).map(|n| customer(&format!("slow-{n}"))).collect();
    let acme = customer("acme");
    store.forget_epoch_keys();
    slow_kms.unwrapping.shut();
    std::thread::scope(|scope| {
        let readers: Vec<_> = slow.iter().map(|slow| scope.spawn(|| slow.get("s"))).collect();
        slow_kms.unwrapping.until_so_many_wait(slow.len());
        let began = Instant::now();
        let read = acme.get("s");
        let took = began.elapsed();
        slow_kms.unwrapping.open();
        assert_eq!(read.unwrap().value, "worth the wait");
        assert!(took < Duration::from_secs(20), "{took:?} of a deadline of 60 s");
        for reader in readers {
            assert_eq!(reader.join().unwrap().unwrap().value, "worth the wait");
        }
    });
}

/// A KMS that swallowed packets, and five thousand organizations that used it: a thread for each of them.
#[cfg(target_os = "linux")]
#[test]
fn epoch_keys_that_age_while_their_kms_hangs_are_served_on_by_a_bounded_number_of_threads() {
    const EPOCHS: usize = 300;
    const LIFETIME: Duration = Duration::from_secs(3600);
    let bench = Bench::new();
    let slow_kms = SlowKms::before(&bench);
    let env = Arc::new(Ahead::default());
    let store = slow_kms
        .options()
        .env(env.clone())
        .key_lifetime(LIFETIME)
        .create(bench.path())
        .unwrap();
    let slow: Vec<_> = (0..EPOCHS)
        .map(|n| store.create_organization(&format!("slow-{n}")).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for part in slow.chunks(EPOCHS / 4) {
            scope.spawn(move || part.iter().for_each(|slow| assert!(slow.put("s", "x").is_ok())));
        }
    });
    assert_eq!(store.cached_epoch_keys(), EPOCHS);
    env.run_ahead(LIFETIME * 2 / 3);
    let threads = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"));
        threads.unwrap().trim().parse::<usize>().unwrap()
    };
    let (before, asked) = (threads(), bench.kms.calls().unwraps);
    slow_kms.unwrapping.shut();
    for slow in &slow {
        assert_eq!(slow.get("s").unwrap().value, "x");
    }
    slow_kms.unwrapping.until_somebody_waits();
    let after = threads();
    slow_kms.unwrapping.open();
    // 32 renewals, each waiting for one of 32 threads; and what other tests of this process have.
    assert!(after < before + 120, "{before} threads, then {after}");
    // Whoever was not let in is renewed by a later use.
    let began = Instant::now();
    while bench.kms.calls().unwraps < asked + EPOCHS as u64 {
        assert!(began.elapsed() < Duration::from_secs(60), "some are not renewed");
        env.run_ahead(Duration::from_secs(2));
        for slow in &slow {
            assert_eq!(slow.get("s").unwrap().value, "x");
        }
    }
    assert_eq!(store.cached_epoch_keys(), EPOCHS);
}

/// What is planned for the next calls, on a clock that every wait moves.
fn on_a_simulated_clock(bench: &Bench) -> (Arc<SimulatedEnv>, Store, Organization) {
    let env = Arc::new(SimulatedEnv::new(1));
    let store = bench
        .options()
        .env(env.clone())
        .kms_attempts_max(3)
        .kms_timeout(Duration::from_secs(10))
        .key_lifetime(Duration::from_secs(300))
        .create(bench.path())
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    acme.put("p", "x").unwrap();
    (env, store, acme)
}

/// A `Retry-After` of a minute, which is the customer's to set, kept a read asleep for two.
#[test]
fn a_kms_that_asks_for_more_patience_than_a_call_has_time_fails_the_call_and_says_how_long() {
    let bench = Bench::new();
    let (env, store, acme) = on_a_simulated_clock(&bench);
    store.forget_epoch_keys();
    bench.kms.plan([Fault::Throttle(Duration::from_secs(60))]);
    let began = env.elapsed();
    let refused = acme.get("p").unwrap_err();
    assert_eq!(env.elapsed(), began, "it did not sleep");
    assert!(refused.is_retryable());
    let Error::Kms { source, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(source.retry_after, Some(Duration::from_secs(60)));

    env.advance(Duration::from_secs(2));
    bench.kms.plan([Fault::Throttle(Duration::from_secs(3))]);
    let began = env.elapsed();
    assert_eq!(acme.get("p").unwrap().value, "x");
    assert_eq!(env.elapsed() - began, Duration::from_secs(3), "that much it has");
}

/// A call that is interrupted, since another one of the same key overran, came back as a fault: the key left memory at once.
#[test]
fn a_call_that_was_interrupted_is_an_outage_and_the_key_serves_on() {
    let bench = Bench::new();
    let (env, store, acme) = on_a_simulated_clock(&bench);
    env.advance(Duration::from_secs(200));
    let interrupted = || Fault::Refuse(ErrorCode::Cancelled);
    bench.kms.plan([interrupted(), interrupted(), interrupted()]);
    assert_eq!(acme.get("p").unwrap().value, "x");
    assert_eq!(bench.kms.faults_left(), 0);
    assert_eq!(store.cached_epoch_keys(), 1);
    assert_eq!(acme.get("p").unwrap().value, "x");
}

/// The system's clock, some time ahead.
#[derive(Debug, Default)]
struct Ahead {
    system: SystemEnv,
    by: Mutex<Duration>,
}

impl Ahead {
    fn run_ahead(&self, by: Duration) {
        *self.by.lock().unwrap() += by;
    }
}

impl Env for Ahead {
    fn now(&self) -> Duration {
        self.system.now() + *self.by.lock().unwrap()
    }

    fn elapsed(&self) -> Duration {
        self.system.elapsed() + *self.by.lock().unwrap()
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.system.fill_random(out)
    }
}
