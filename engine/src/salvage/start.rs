//! The two files of a salvage: the damaged one, which is read and never written, and the new one, which appears under its name when
//! it is whole.

use super::report::{SalvageOptions, SalvageProgress, SalvageReport};
use crate::error::Result;
use crate::options::{StoreOptions, open_failed};
use crate::storage::container::{Container, Disk, FileDisk, NewFile};
use crate::storage::raw::Damaged;
use std::path::Path;
use std::sync::Arc;

impl StoreOptions {
    /// Copies whatever is provably right in the damaged store `damaged` into a new store `new`, and says what is lost, each version by
    /// name. A value is copied only to the place for which it was sealed.
    ///
    /// The damaged file is locked and read, never written; the new one is created exclusively and appears when it is whole. It has
    /// the same id, organizations, histories and keys. A lost version keeps its number, as a tombstone; audit records behind
    /// a missing one are carried over into a new chain, which begins with a record of the salvage: pin the audit heads again. Opened,
    /// the new store verifies clean, and writes and re-wrap jobs go on. Both files then hold the keys to their wraps: destroy the
    /// damaged one when it is no longer needed.
    ///
    /// Reads the file once, and every block a second and third time when something is missing. Memory: some MiB, one entry for
    /// each damaged page, and some hundred bytes for each organization, for each secret and audit record of one
    /// organization at a time of which something is missing, and for each version that is lost; values are streamed. With
    /// backends registered it calls the KMS of each live epoch once, unless [`SalvageOptions::open_values`] says not to; a KMS
    /// that does not answer is in the report, not an error.
    ///
    /// # Errors
    ///
    /// Of the damaged file: [`Error::StoreNotFound`](crate::Error::StoreNotFound),
    /// [`Error::AlreadyOpen`](crate::Error::AlreadyOpen), [`Error::NotAStore`](crate::Error::NotAStore),
    /// [`Error::Damaged`](crate::Error::Damaged) when neither copy of its header is whole and no
    /// [`SalvageOptions::store_id`] is given. Of the new one: [`Error::StoreExists`](crate::Error::StoreExists),
    /// [`Error::Storage`](crate::Error::Storage).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn backends() -> (keystead::Backend, keystead::Backend) { unimplemented!() }
    /// use keystead::{SalvageOptions, Store};
    ///
    /// # fn main() -> keystead::Result<()> {
    /// # let (managed, aws) = backends();
    /// let options = Store::options().backend(managed).backend(aws);
    /// let report = options.salvage("damaged.keystead", "new.keystead", &SalvageOptions::default(), |_| {})?;
    /// for loss in &report.lost {
    ///     println!("{:?} {:?}: {}", loss.path, loss.version, loss.what);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn salvage(
        self,
        damaged: impl AsRef<Path>,
        new: impl AsRef<Path>,
        options: &SalvageOptions,
        mut progress: impl FnMut(SalvageProgress),
    ) -> Result<SalvageReport> {
        let (damaged, new) = (damaged.as_ref(), new.as_ref());
        let disk = FileDisk::open_read_only(damaged)
            .map_err(|error| open_failed(damaged, "opening the damaged file", error))?;
        let file = NewFile::begin(new).map_err(|error| open_failed(new, "creating the file", error))?;
        let report = self.salvage_on(
            Arc::new(disk),
            file.disk(),
            (damaged, new),
            options,
            &mut progress,
        )?;
        file.publish()
            .map_err(|error| open_failed(new, "creating the file", error))?;
        Ok(report)
    }

    /// Salvages from one simulated disk onto another.
    ///
    /// # Errors
    ///
    /// As [`salvage`](Self::salvage).
    #[cfg(feature = "simulation")]
    pub fn salvage_on_disks(
        self,
        damaged: Arc<dyn Disk>,
        new: Arc<dyn Disk>,
        options: &SalvageOptions,
    ) -> Result<SalvageReport> {
        let path = Path::new("(simulated)");
        self.salvage_on(damaged, new, (path, path), options, &mut |_| {})
    }

    fn salvage_on(
        self,
        damaged: Arc<dyn Disk>,
        new: Arc<dyn Disk>,
        (damaged_path, new_path): (&Path, &Path),
        options: &SalvageOptions,
        progress: &mut dyn FnMut(SalvageProgress),
    ) -> Result<SalvageReport> {
        let store_id = options.store_id.map(|id| id.0);
        let container = Container::open_damaged(damaged, store_id)
            .map_err(|error| open_failed(damaged_path, "opening the damaged file", error))?;
        let env = self.chosen_env();
        let registry = self.registry(&env)?;
        let committer = self.create_with_id(new, container.store_id(), new_path)?;
        let geometry = committer.container().read_redb_header();
        let damaged = Damaged::new(container, geometry.as_deref())?;
        let core = self.core(committer, env, registry);
        let report = super::salvage(&damaged, &core, options, progress)?;
        core.keyring.cache.clear();
        core.committer.close()?;
        Ok(report)
    }
}
