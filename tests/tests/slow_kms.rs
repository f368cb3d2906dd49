//! A KMS that takes its time: what waits for it, and what does not.

#![allow(clippy::disallowed_methods, reason = "it measures how long things take")]

mod common;

use common::{Bench, assert_sound, key};
use keystead::backend::{
    BackendError, Call, Context, Description, ErrorCode, KeyBackend, KeyInstance, LockedBytes, OpenRequest,
    Status, Wrapped,
};
use keystead::simulation::snapshot_readers;
use keystead::{Backend, Error, Store};
use keystead_tests::kms::SimulatedKms;
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
        let mut state = self.state.lock().unwrap();
        while state.1 == 0 {
            state = self.changed.wait(state).unwrap();
        }
    }
}

/// A KMS with a gate before each opening of a key, and one before what the organization `slow` unwraps.
#[derive(Clone)]
struct SlowKms {
    kms: SimulatedKms,
    opening: Arc<Gate>,
    unwrapping: Arc<Gate>,
}

impl SlowKms {
    fn before(bench: &Bench) -> Self {
        Self {
            kms: bench.kms.clone(),
            opening: Arc::default(),
            unwrapping: Arc::default(),
        }
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
        }))
    }
}

struct SlowKey {
    inner: Box<dyn KeyInstance>,
    unwrapping: Arc<Gate>,
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
            .any(|entry| entry == ("keystead:organization", "slow"))
        {
            self.unwrapping.pass();
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

/// A backend's `open` ran on the caller's thread, without a deadline: one that never came back held its caller for ever.
#[test]
fn a_backend_that_never_opens_a_key_costs_its_caller_the_deadline() {
    let bench = Bench::new();
    let slow_kms = SlowKms::before(&bench);
    let store = slow_kms
        .options()
        .kms_timeout(Duration::from_secs(2))
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
