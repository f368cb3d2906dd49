//! Where things are, what is in them, and how a store is opened here.

use crate::kms::{Calls, Counted};
use anyhow::Context as _;
use keystead::{Backend, Store, StoreOptions};
use keystead_loader::{Digest, Plugin, PluginSource};
use keystead_managed::ManagedBackend;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The customer that brings its own key.
pub(crate) const ACME: &str = "acme";
/// The customer that stays with the managed key.
pub(crate) const GLOBEX: &str = "globex";
pub(crate) const ACME_SECRETS: usize = 8_000;
pub(crate) const GLOBEX_SECRETS: usize = 2_000;

/// The name under which the application registers the customer's KMS.
pub(crate) const CUSTOMER_KMS: &str = "customer-kms";
/// The name that acme gives its key.
pub(crate) const ACME_KEY: &str = "acme-cmk";

/// Everything the demonstration leaves on the disk: one directory, removed at the end.
pub(crate) struct World {
    pub(crate) directory: PathBuf,
    pub(crate) plugin: PathBuf,
    pub(crate) digest: Digest,
}

/// How often each KMS was asked, by a store that was opened with them.
#[derive(Default)]
pub(crate) struct Kmss {
    pub(crate) managed: Arc<Calls>,
    pub(crate) customer: Arc<Calls>,
}

impl World {
    pub(crate) fn store(&self) -> PathBuf {
        self.directory.join("app.keystead")
    }

    /// The keyring of the managed key.
    pub(crate) fn managed_keyring(&self) -> PathBuf {
        self.directory.join("app.keyring")
    }

    /// The keyring that stands for the customer's KMS.
    pub(crate) fn customer_keyring(&self) -> PathBuf {
        self.directory.join("customer").join("acme.keyring")
    }

    /// Loads the plugin if it is the one that is expected.
    pub(crate) fn load_plugin(&self) -> anyhow::Result<Plugin> {
        Plugin::load(&PluginSource::new(&self.plugin).digest(self.digest))
            .context("loading the plugin of the customer's KMS")
    }

    /// Options of a store with the managed key linked in and the customer's KMS as a plugin, both counted.
    pub(crate) fn options(&self, kmss: &Kmss) -> anyhow::Result<StoreOptions> {
        let managed = Counted::new(
            ManagedBackend::keyring(self.managed_keyring()).create(false),
            &kmss.managed,
        );
        let customer = Backend::new(Counted::new(self.load_plugin()?, &kmss.customer))
            .named(CUSTOMER_KMS)
            .settings(serde_json::json!({ "keyring": self.customer_keyring(), "create": false }));
        Ok(Store::options().backend(managed).backend(customer))
    }
}

/// Copies a store that is closed.
pub(crate) fn copy_of(store: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let copy = store.with_file_name(name);
    std::fs::copy(store, &copy)
        .with_context(|| format!("copying {} to {}", store.display(), copy.display()))?;
    Ok(copy)
}

/// Where the secret of this number is, in either organization.
pub(crate) fn secret_path(index: usize) -> String {
    format!("service-{:03}/secret-{index:05}", index / 100)
}

/// What it was given as its value.
pub(crate) fn secret_value(organization: &str, index: usize) -> String {
    format!(
        "{organization}'s secret number {index}: {}",
        "correct horse battery staple ".repeat(3 + index % 5)
    )
}

/// Where the writer puts what it writes while data keys move.
pub(crate) fn written_path(number: u64) -> String {
    format!("written-meanwhile/{number:07}")
}

/// What it writes there.
pub(crate) fn written_value(number: u64) -> String {
    format!("written while the data keys moved, number {number}")
}
