//! A store in a temporary directory, with a simulated KMS behind every backend.
#![allow(dead_code, unused_imports, reason = "each test file uses its part of this")]

use keystead::{Backend, Organization, Store, StoreOptions};
use keystead_loader::Plugin;
use keystead_tests::built::plugin_or_leave_out;
use keystead_tests::counted::Counter;
use keystead_tests::emulators::{Key, Kms, Owner};
pub(crate) use keystead_tests::filled::{check as check_filled, fill, value};
use keystead_tests::kms::SimulatedKms;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) struct Bench {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) kms: SimulatedKms,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            kms: SimulatedKms::new(),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("store.keystead")
    }

    /// Options with the KMS under two names: the managed one, and the customers'.
    pub(crate) fn options(&self) -> StoreOptions {
        Store::options()
            .backend(Backend::new(self.kms.clone()).named("managed"))
            .backend(Backend::new(self.kms.clone()).named("customer-kms"))
            .kms_attempts_max(1)
            // A busy machine is no outage.
            .kms_timeout(Duration::from_secs(60))
    }

    pub(crate) fn create(&self) -> Store {
        self.options().create(self.path()).unwrap()
    }

    pub(crate) fn open(&self) -> Store {
        self.options().open(self.path()).unwrap()
    }
}

/// The config of a customer's key in the simulated KMS.
pub(crate) fn key(name: &str) -> serde_json::Value {
    serde_json::json!({ "key": name })
}

/// A KMS with its owner, a key in it, and its backend: the dynamic plugin that cargo has built, loaded by the loader.
pub(crate) struct Owned {
    pub(crate) owner: Owner,
    pub(crate) key: Key,
    pub(crate) counter: Counter,
    plugin: Plugin,
}

impl Owned {
    /// `None` if it cannot be had here; then `left_out` has been printed.
    pub(crate) fn start_or_skip(kms: Kms, left_out: &str) -> Option<Self> {
        let plugin = plugin_or_leave_out(&kms.plugin_library(), left_out)?;
        let owner = Owner::start_or_skip(kms, left_out)?;
        Some(Self {
            key: owner.new_key().unwrap(),
            counter: Counter::default(),
            owner,
            plugin,
        })
    }

    /// All of these, started side by side.
    pub(crate) fn start_all_or_skip<const COUNT: usize>(
        all: [Kms; COUNT],
        left_out: &str,
    ) -> Option<[Self; COUNT]> {
        let started: Vec<Self> = std::thread::scope(|threads| {
            let started = all.map(|kms| threads.spawn(move || Self::start_or_skip(kms, left_out)));
            started
                .into_iter()
                .filter_map(|started| started.join().unwrap())
                .collect()
        });
        started.try_into().ok()
    }

    /// Its backend, under a name of a test's own.
    pub(crate) fn backend(&self, name: &str) -> Backend {
        Backend::new(self.counter.before(self.plugin.clone()))
            .named(name)
            .settings(self.owner.settings())
    }
}

/// Nothing is wrong with the store, and every value opens.
pub(crate) fn assert_sound(store: &Store) {
    let report = store
        .verify(keystead::VerifyOptions { open_values: true }, |_| {})
        .unwrap();
    assert!(report.is_clean() && report.unopened.is_empty(), "{report:#?}");
}
