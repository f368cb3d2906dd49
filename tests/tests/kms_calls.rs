//! How many calls to a KMS things cost: an owner pays for each of them, and sees each in its log.
//!
//! Every wrap of an epoch key is opened once before anything rests on it, which is one more unwrap for each wrap than the least
//! that there could be.

mod common;

use common::{check_filled, fill, key};
use keystead::{Backend, EpochState, Organization, Store, StoreOptions};
use keystead_tests::env::SimulatedEnv;
use keystead_tests::kms::{Calls, SimulatedKms};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The application's KMS and the customer's, each with its own count.
struct Bench {
    directory: tempfile::TempDir,
    own: SimulatedKms,
    customers: SimulatedKms,
}

impl Bench {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            own: SimulatedKms::new(),
            customers: SimulatedKms::new(),
        }
    }

    fn options(&self) -> StoreOptions {
        Store::options()
            .backend(Backend::new(self.own.clone()).named("managed"))
            .backend(Backend::new(self.customers.clone()).named("customer-kms"))
            .kms_attempts_max(1)
    }

    fn create(&self) -> Store {
        self.options()
            .create(self.directory.path().join("store.keystead"))
            .unwrap()
    }
}

fn counted(kms: &SimulatedKms, work: impl FnOnce()) -> Calls {
    let before = kms.calls();
    work();
    kms.calls() - before
}

fn calls(wraps: u64, unwraps: u64) -> Calls {
    Calls { wraps, unwraps }
}

/// Opens epochs under a key until `epochs` of them hold data keys, `data_keys` in each.
fn spread(acme: &Organization, key: &str, epochs: u32, data_keys: u32) {
    for epoch in 0..epochs {
        if epoch > 0 {
            acme.set_default_without_re_wrap(key);
        }
        for n in 0..data_keys {
            acme.put(&format!("{key}/{epoch}/{n}"), "a value").unwrap();
        }
    }
}

trait WithoutReWrap {
    fn set_default_without_re_wrap(&self, key: &str);
}

impl WithoutReWrap for Organization {
    fn set_default_without_re_wrap(&self, key: &str) {
        self.keys().set_default(key, false).unwrap();
    }
}

fn live(acme: &Organization) -> u64 {
    acme.epochs()
        .unwrap()
        .iter()
        .filter(|epoch| epoch.state != EpochState::Retired)
        .count() as u64
}

#[test]
fn a_move_costs_an_unwrap_and_a_wrap_for_each_source_epoch_and_a_wrap_for_the_new_one_whatever_the_data_keys()
{
    for (epochs, data_keys) in [(1, 1), (1, 400), (3, 1), (3, 200)] {
        let bench = Bench::new();
        let store = bench.create();
        let acme = store.create_organization("acme").unwrap();
        spread(&acme, "managed", epochs, data_keys);
        let sources = live(&acme);
        assert_eq!(sources, u64::from(epochs));
        let to_the_customer = || {
            store.forget_epoch_keys();
            acme.keys()
                .add("cmk", "customer-kms", key("acme"))
                .unwrap()
                .wait()
                .unwrap();
        };
        let mut theirs = Calls::default();
        let ours = counted(&bench.own, || theirs = counted(&bench.customers, to_the_customer));
        assert_eq!(
            ours,
            calls(0, sources),
            "the old KMS: an unwrap for each of {epochs} epochs"
        );
        // What the key's registration costs: a wrap, its unwrap, and an unwrap under a wrong context.
        let probe = calls(1, 2);
        assert_eq!(
            theirs,
            calls(probe.wraps + sources + 1, probe.unwraps + sources + 1),
            "the new KMS: a wrap for each of {epochs} epochs and one for the new epoch, each opened once"
        );

        // And back, where nothing is registered any more: the figure itself.
        spread(&acme, "cmk", epochs, data_keys);
        let sources = live(&acme);
        let back = || {
            store.forget_epoch_keys();
            acme.keys().set_default("managed", true).unwrap().wait().unwrap();
        };
        let theirs = counted(&bench.customers, || {
            assert_eq!(counted(&bench.own, back), calls(sources + 1, sources + 1));
        });
        assert_eq!(theirs, calls(0, sources));
        assert_eq!(live(&acme), 1);
    }
}

#[test]
fn a_rotation_costs_what_a_move_does() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 300);
    store.forget_epoch_keys();
    let asked = counted(&bench.own, || {
        acme.keys().rotate("managed").unwrap().wait().unwrap();
    });
    // The source is under the same key already: it is opened, and not wrapped again. The new epoch: a wrap that is opened.
    assert_eq!(asked, calls(1, 2));
    check_filled(&acme, 300);
}

#[test]
fn reading_costs_one_unwrap_for_each_epoch_and_lifetime_of_a_cached_key() {
    const LIFETIME: Duration = Duration::from_secs(300);
    let (bench, env) = (Bench::new(), Arc::new(SimulatedEnv::new(1)));
    let store = bench
        .options()
        .env(env.clone())
        .key_lifetime(LIFETIME)
        .create(bench.directory.path().join("store.keystead"))
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    spread(&acme, "managed", 3, 50);
    let read_all = || {
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for (epoch, n) in (0..3).flat_map(|epoch| (0..50).map(move |n| (epoch, n))) {
                        acme.get(&format!("managed/{epoch}/{n}")).unwrap();
                    }
                });
            }
        });
    };
    store.forget_epoch_keys();
    for lifetime in 1..=3 {
        assert_eq!(
            counted(&bench.own, read_all),
            calls(0, 3),
            "lifetime {lifetime}: 600 reads of 3 epochs"
        );
        // Its first half: in the second one the first use renews it, which begins another lifetime.
        env.advance(LIFETIME / 3);
        assert_eq!(
            counted(&bench.own, read_all),
            calls(0, 0),
            "lifetime {lifetime}: again, within it"
        );
        env.advance(LIFETIME);
    }
}

#[test]
fn of_six_backends_that_are_registered_one_that_is_used_is_loaded() {
    let bench = Bench::new();
    let loaded: Arc<[AtomicU64; 6]> = Arc::default();
    let options = || {
        (0..6).fold(bench.options(), |options, number| {
            let (kms, loaded) = (bench.customers.clone(), Arc::clone(&loaded));
            options.backend(Backend::deferred(format!("kms-{number}"), move || {
                loaded[number].fetch_add(1, Ordering::SeqCst);
                Ok(kms.clone())
            }))
        })
    };
    let counts = || {
        loaded
            .iter()
            .map(|loaded| loaded.load(Ordering::SeqCst))
            .collect::<Vec<_>>()
    };
    let path = bench.directory.path().join("store.keystead");
    let store = options().create(&path).unwrap();
    let acme = store.create_organization("acme").unwrap();
    acme.put("a", "a value").unwrap();
    assert_eq!(counts(), [0; 6], "no key needs one yet");
    acme.keys()
        .add("cmk", "kms-4", key("acme"))
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(counts(), [0, 0, 0, 0, 1, 0]);
    drop((acme, store));

    let store = options().open(&path).unwrap();
    assert_eq!(counts(), [0, 0, 0, 0, 1, 0], "opening loads none");
    assert_eq!(
        store.organization("acme").unwrap().get("a").unwrap().value,
        b"a value"
    );
    assert_eq!(counts(), [0, 0, 0, 0, 2, 0], "of the second store, once");
    store.forget_epoch_keys();
    assert_eq!(
        store.organization("acme").unwrap().get("a").unwrap().value,
        b"a value"
    );
    assert_eq!(counts(), [0, 0, 0, 0, 2, 0]);
}

#[test]
fn a_backend_that_cannot_be_loaded_fails_the_use_of_its_keys_and_is_tried_again() {
    use keystead::backend::{BackendError, ErrorCode};
    let bench = Bench::new();
    let tries = Arc::new(AtomicU64::new(0));
    let (kms, counted) = (bench.customers.clone(), Arc::clone(&tries));
    let deferred = Backend::deferred("late", move || match counted.fetch_add(1, Ordering::SeqCst) {
        0 => Err(BackendError::new(
            ErrorCode::InvalidConfig,
            "the digest is not allowed",
        )),
        _ => Ok(kms.clone()),
    });
    let store = bench
        .options()
        .backend(deferred)
        .create(bench.directory.path().join("store.keystead"))
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    let error = acme.keys().add("cmk", "late", key("acme")).unwrap_err();
    assert!(error.to_string().contains("the digest is not allowed"), "{error}");
    assert_eq!(acme.keys().list().unwrap().len(), 1, "nothing was changed");
    acme.keys()
        .add("cmk", "late", key("acme"))
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}
