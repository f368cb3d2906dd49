//! Create, open, close: the one file, and what an application holds of it.

use crate::audit::{self, Attribution, AuditEvent};
use crate::checkpoint::Checkpoint;
use crate::env::now_ms;
use crate::error::{Error, Result};
use crate::keyring::cache::EpochKey;
use crate::keyring::epoch::{self, EpochPlace, NewEpoch};
use crate::keyring::kms::derive_wrapping_key;
use crate::keyring::registry::RegisteredKey;
use crate::names::{EpochNumber, KeyName, OrganizationId, OrganizationName, StoreId};
use crate::options::StoreOptions;
use crate::organization::{AuditHead, Organization};
use crate::rewrap::worker::Workers;
use crate::scope::{Core, Scope};
use crate::secret::{Page, read, stream};
use crate::storage::records::{
    EpochCause, HeadRecord, KeyRecord, KeyState, OrganizationNameRecord, OrganizationRecord,
};
use crate::storage::{Rows, Table, tables};
use crate::verify::{self, VerifyOptions, VerifyProgress, VerifyReport};
use keystead_backend::Description;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const FACT_NEXT_ORGANIZATION: &str = "next_organization";
/// An open store. Cheap to clone, to be used from any thread; one process at a time has a store open.
///
/// The file is released when the last handle on it (store, organization, job) is dropped.
///
/// # Examples
///
/// ```no_run
/// # fn backends() -> (keystead::Backend, keystead::Backend) { unimplemented!() }
/// use keystead::Store;
///
/// # fn main() -> keystead::Result<()> {
/// # let (managed, aws) = backends();
/// let store = Store::options().backend(managed).backend(aws).create("app.keystead")?;
/// let acme = store.create_organization("acme")?;
/// acme.put("prod/db/password", b"correct horse")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// What all handles on an open store share.
pub(crate) struct Inner {
    pub(crate) core: Arc<Core>,
    pub(crate) workers: Arc<Workers>,
    path: PathBuf,
    background: bool,
    closed: AtomicBool,
    /// Beyond the last number when there is none left.
    next_organization: AtomicU64,
}

impl Inner {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Has an organization's re-wrap job done in the background.
    pub(crate) fn wake(&self, scope: &Scope) {
        if self.background {
            self.workers.wake(&self.core, scope.org, &scope.organization);
        }
    }

    fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.workers.stop();
        self.workers.join();
        self.core.keyring.cache.close();
        self.core.committer.close()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::debug!(%error, "a store was dropped without a checkpoint; its journal has what was committed");
        }
    }
}

/// An organization in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrganizationInfo {
    /// Its number.
    pub id: OrganizationId,
    /// Its name.
    pub name: String,
    /// When it was created: milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// How many secrets it has.
    pub secrets: u64,
}

impl Store {
    /// Options for creating or opening a store.
    #[must_use]
    pub fn options() -> StoreOptions {
        StoreOptions::new()
    }

    /// The handle on a store whose file is open; its background work begins.
    pub(crate) fn start(core: Arc<Core>, path: &Path, background: bool) -> Result<Self> {
        let next_organization = core.committer.snapshot().fact(FACT_NEXT_ORGANIZATION)?.max(1);
        let inner = Inner {
            workers: Workers::new(Arc::clone(&core.env)),
            core,
            path: path.to_path_buf(),
            background,
            closed: AtomicBool::new(false),
            next_organization: AtomicU64::new(next_organization.min(u64::from(u32::MAX) + 1)),
        };
        let store = Self {
            inner: Arc::new(inner),
        };
        store.resume()?;
        Ok(store)
    }

    /// The store's random id.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.inner.core.store
    }

    /// Where its file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The backends that the application registered, by name, and what they say about themselves.
    #[must_use]
    pub fn backends(&self) -> Vec<(String, Description)> {
        self.inner.core.keyring.kms.registry.descriptions()
    }

    /// Creates an organization with its first epoch under the managed key. Two KMS calls (a wrap, and a look whether it
    /// opens), one commit of two syncs.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::OrganizationExists`], [`Error::BackendNotRegistered`] without a backend named
    /// `managed`, [`Error::Kms`].
    pub fn create_organization(&self, name: &str) -> Result<Organization> {
        let name: OrganizationName = name.parse()?;
        let core = &self.inner.core;
        if core
            .committer
            .snapshot()
            .record::<OrganizationNameRecord>(name.as_str().as_bytes())?
            .is_some()
        {
            return Err(Error::OrganizationExists { name });
        }
        let number = self.inner.next_organization.fetch_add(1, Ordering::Relaxed);
        let id = u32::try_from(number).map(OrganizationId).map_err(|_| {
            Error::damaged(
                "the number of the next organization",
                "it is beyond the last one that there can be",
            )
        })?;
        let organization = Organization::new(Arc::clone(&self.inner), id, name.clone());
        let scope = organization.scope().clone();

        let key = RegisteredKey {
            org: id,
            organization: name,
            name: KeyName::managed(),
            backend: KeyName::MANAGED.into(),
            config: "{}".into(),
        };
        let began = core.keyring.cache.now();
        let epoch_key = core.keyring.kms.random_key()?;
        let first = EpochNumber(1);
        let wrapped = core.keyring.kms.wrap(&key, first, &epoch_key)?;
        let derived = derive_wrapping_key(core.store, &key, first, &epoch_key)?;
        let new = NewEpoch::of(first, &key, wrapped, *derived.commitment.as_bytes());
        let cached = Arc::new(EpochKey::new(first, &derived.key));
        core.committer
            .submit(move |transaction| write_organization(&scope, transaction, &new))?;
        core.keyring.cache.insert((id, first), cached, key.name, began);
        Ok(organization)
    }

    /// An organization's handle.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::OrganizationNotFound`].
    pub fn organization(&self, name: &str) -> Result<Organization> {
        let name: OrganizationName = name.parse()?;
        let found: Option<OrganizationNameRecord> = self
            .inner
            .core
            .committer
            .snapshot()
            .record(name.as_str().as_bytes())?;
        let record = found.ok_or_else(|| Error::OrganizationNotFound { name: name.clone() })?;
        Ok(Organization::new(
            Arc::clone(&self.inner),
            OrganizationId(record.id),
            name,
        ))
    }

    /// The organizations behind `after` (a name), by name, at most `limit` (1 to 10,000) a page.
    ///
    /// # Errors
    ///
    /// Those of reading the store.
    pub fn organizations(&self, after: Option<&str>, limit: usize) -> Result<Page<OrganizationInfo>> {
        let snapshot = self.inner.core.committer.snapshot();
        let limit = limit.clamp(1, read::PAGE_MAX);
        let mut page: Page<OrganizationInfo> = Page {
            items: Vec::new(),
            next: None,
        };
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_bytes()));
        snapshot.scan(Table::OrganizationNames, from, None, |key, row| {
            if page.items.len() == limit {
                page.next = page.items.last().map(|last| last.name.clone());
                return Ok(ControlFlow::Break(()));
            }
            let index: OrganizationNameRecord = crate::storage::records::decode(snapshot.place(), key, row)?;
            let id = OrganizationId(index.id);
            let missing =
                |what| Error::damaged(format!("organization {id}"), format!("its {what} is missing"));
            let record: OrganizationRecord = snapshot
                .record(&tables::organization(id))?
                .ok_or_else(|| missing("record"))?;
            let head: HeadRecord = snapshot
                .record(&tables::organization(id))?
                .ok_or_else(|| missing("head"))?;
            page.items.push(OrganizationInfo {
                id,
                name: record.name,
                created_at_ms: record.created_at_ms,
                secrets: head.secrets,
            });
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(page)
    }

    /// Checks the whole store: every block from the disk, the structure of the pages, every row against the others, every chain
    /// and count; and, where keys are at hand, that every data key and every value opens. Takes time in proportion to the store and
    /// memory in proportion to the secrets of its largest organization, some bytes each; changes nothing.
    ///
    /// Readers go on, and so do writers. Only in a store with so many of them that the structure of its pages cannot be checked between two
    /// checkpoints, changes that need one (of keys, of more than a mebibyte, or when 4 MiB were written meanwhile) wait for the end of that check.
    ///
    /// A hostile file may make it panic, abort or take long: `keystead verify` does it in a process of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]. What is damaged is in the report, not an error.
    pub fn verify(
        &self,
        options: VerifyOptions,
        progress: impl FnMut(VerifyProgress),
    ) -> Result<VerifyReport> {
        if self.inner.is_closed() {
            return Err(Error::Closed {
                reason: "it was closed".into(),
            });
        }
        verify::verify(&self.inner, options, progress)
    }

    /// How far every organization has come, to be kept apart from the store: see [`Checkpoint`]. Reads two rows for each.
    ///
    /// # Errors
    ///
    /// Those of reading the store.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let snapshot = self.inner.core.committer.snapshot();
        let mut organizations = BTreeMap::new();
        snapshot.scan(Table::OrganizationNames, Bound::Unbounded, None, |key, row| {
            let index: OrganizationNameRecord = crate::storage::records::decode(snapshot.place(), key, row)?;
            let id = OrganizationId(index.id);
            let head: HeadRecord = snapshot
                .record(&tables::organization(id))?
                .ok_or_else(|| Error::damaged(format!("organization {id}"), "its head is missing"))?;
            organizations.insert(String::from_utf8_lossy(key).into_owned(), AuditHead::of(&head));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Checkpoint {
            store: self.id().to_string(),
            organizations,
        })
    }

    /// How many epoch keys are in memory now.
    #[must_use]
    pub fn cached_epoch_keys(&self) -> usize {
        self.inner.core.keyring.cache.len()
    }

    /// Drops every epoch key from memory: the next use of each asks its KMS.
    pub fn forget_epoch_keys(&self) {
        self.inner.core.keyring.cache.clear();
    }

    /// Stops the background work and commits the journal into the pages. Every handle on the store fails from then on;
    /// dropping the last one does the same and releases the file.
    ///
    /// # Errors
    ///
    /// Those of the commit; nothing acknowledged is lost by them.
    pub fn close(&self) -> Result<()> {
        self.inner.close()
    }

    /// After opening: lets jobs go on, and removes what unfinished writers left.
    fn resume(&self) -> Result<()> {
        let core = &self.inner.core;
        let snapshot = core.committer.snapshot();
        let mut jobs = Vec::new();
        // Running jobs stand before finished ones.
        snapshot.scan(Table::RewrapJobs, Bound::Unbounded, Some(&[1]), |key, _| {
            let bytes = key.get(1..).and_then(|id| id.try_into().ok());
            let id =
                bytes.ok_or_else(|| Error::damaged("a re-wrap job", "its row's key has the wrong length"))?;
            jobs.push(OrganizationId(u32::from_be_bytes(id)));
            Ok(ControlFlow::Continue(()))
        })?;
        for id in jobs {
            let record: OrganizationRecord = snapshot
                .record(&tables::organization(id))?
                .ok_or_else(|| Error::damaged(format!("organization {id}"), "its record is missing"))?;
            let organization = Organization::new(
                Arc::clone(&self.inner),
                id,
                OrganizationName::stored(&record.name),
            );
            self.inner.wake(organization.scope());
        }
        stream::remove_unfinished(&*snapshot, |key| {
            let org = OrganizationId(u32::from_be_bytes([key[0], key[1], key[2], key[3]]));
            let name = OrganizationName::stored("(unfinished values)");
            stream::remove_upload_of(Organization::new(Arc::clone(&self.inner), org, name).scope(), key)
        })
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("id", &self.inner.core.store)
            .field("path", &self.inner.path)
            .finish()
    }
}

fn write_organization(
    scope: &Scope,
    transaction: &mut crate::storage::Transaction<'_>,
    first: &NewEpoch,
) -> Result<()> {
    let name = scope.organization.as_str();
    if transaction
        .record::<OrganizationNameRecord>(name.as_bytes())?
        .is_some()
    {
        return Err(Error::OrganizationExists {
            name: scope.organization.clone(),
        });
    }
    let at_ms = now_ms(scope.env());
    let key = tables::organization(scope.org);
    for table in [Table::Organizations, Table::Heads] {
        if transaction.get_with(table, &key, |_| Ok(()))?.is_some() {
            return Err(Error::damaged(
                "the number of the next organization",
                format!("organization {} is there already", scope.org),
            ));
        }
    }
    transaction.put_record(
        &key,
        &OrganizationRecord {
            name: name.into(),
            created_at_ms: at_ms,
        },
    )?;
    transaction.put_record(name.as_bytes(), &OrganizationNameRecord { id: scope.org.0 })?;
    let managed = KeyRecord {
        backend: KeyName::MANAGED.into(),
        config: "{}".into(),
        state: KeyState::Enabled,
        created_at_ms: at_ms,
    };
    transaction.put_record(&tables::with_name(scope.org, KeyName::MANAGED), &managed)?;
    let mut head = HeadRecord {
        next_secret_id: 1,
        secrets: 0,
        next_job: 1,
        audit_sequence: 0,
        audit_hash: [0; 32],
        default_key: KeyName::MANAGED.into(),
        active_epoch: first.number,
        last_epoch: EpochNumber(0),
        epochs_hash: [0; 32],
        live_epochs: Vec::new(),
    };
    let by = Attribution::default();
    let event = AuditEvent::OrganizationCreated { name: name.into() };
    audit::append(transaction, scope.org, &mut head, &by, at_ms, event)?;
    let place = EpochPlace {
        env: scope.env(),
        store: scope.store(),
        org: scope.org,
    };
    epoch::open_epoch(
        transaction,
        &place,
        &mut head,
        first,
        EpochCause::OrganizationCreated,
        &by,
    )?;
    scope.put_head(transaction, &head)?;
    let next = transaction
        .fact(FACT_NEXT_ORGANIZATION)?
        .max(u64::from(scope.org.0) + 1);
    transaction.put_fact(FACT_NEXT_ORGANIZATION, next)
}
