//! Create, open, close: the one file, and what an application holds of it.

use crate::audit::{self, Attribution, AuditEvent};
use crate::crypto::PlaceKey;
use crate::env::{Env, SystemEnv, now_ms};
use crate::error::{Error, Result};
use crate::keyring::Keyring;
use crate::keyring::cache::{CachePolicy, EpochKey};
use crate::keyring::epoch::{self, EpochPlace, NewEpoch};
use crate::keyring::kms::{CallPolicy, Kms, derive_wrapping_key};
use crate::keyring::registry::{Backend, IdentityProvider, RegisteredKey, Registry};
use crate::names::{EpochNumber, KeyName, OrganizationId, OrganizationName, StoreId};
use crate::organization::Organization;
use crate::rewrap::worker::Workers;
use crate::scope::{Core, Limits, Scope};
use crate::secret::{Page, read, stream};
use crate::storage::container::{Container, ContainerError, Disk, FileDisk, NewFile};
use crate::storage::records::{
    EpochCause, HeadRecord, KeyRecord, KeyState, OrganizationNameRecord, OrganizationRecord,
};
use crate::storage::{Committer, Rows, Table, tables};
use crate::verify::{self, VerifyOptions, VerifyReport};
use keystead_backend::Description;
use serde::Serialize;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

const FACT_NEXT_ORGANIZATION: &str = "next_organization";
const DEFAULT_CACHE_BYTES: usize = 64 << 20;
const DEFAULT_KEY_LIFETIME: Duration = Duration::from_secs(300);
const DEFAULT_KMS_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_EPOCH_KEYS_MAX: usize = 10_000;
/// Each wrap takes a random 96-bit nonce; NIST SP 800-38D allows 2^32 under one key. A quarter of that.
const WRAPS_PER_EPOCH_MAX: u64 = 1 << 30;
/// Measured: a batch of this size holds the writer for about 5 ms.
const REWRAP_BATCH: usize = 2048;

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
    next_organization: AtomicU32,
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
        self.core.keyring.cache.clear();
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

/// How a store is created or opened. Every option has a default but the backends.
#[derive(Clone)]
pub struct StoreOptions {
    backends: Vec<Backend>,
    identity: Option<Arc<dyn IdentityProvider>>,
    env: Option<Arc<dyn Env>>,
    cache_bytes: usize,
    key_lifetime: Duration,
    kms_timeout: Duration,
    kms_attempts_max: u32,
    epoch_keys_max: usize,
    background: bool,
    limits: Limits,
}

impl StoreOptions {
    fn new() -> Self {
        Self {
            backends: Vec::new(),
            identity: None,
            env: None,
            cache_bytes: DEFAULT_CACHE_BYTES,
            key_lifetime: DEFAULT_KEY_LIFETIME,
            kms_timeout: DEFAULT_KMS_TIMEOUT,
            kms_attempts_max: 3,
            epoch_keys_max: DEFAULT_EPOCH_KEYS_MAX,
            background: true,
            limits: Limits {
                wraps_per_epoch_max: WRAPS_PER_EPOCH_MAX,
                rewrap_batch: REWRAP_BATCH,
            },
        }
    }

    /// Registers a backend under its name. The one named `managed` wraps the key that every organization is born with.
    #[must_use]
    pub fn backend(mut self, backend: impl Into<Backend>) -> Self {
        self.backends.push(backend.into());
        self
    }

    /// Who mints identity tokens for backends that log in with them.
    #[must_use]
    pub fn identity_provider(mut self, provider: impl IdentityProvider + 'static) -> Self {
        self.identity = Some(Arc::new(provider));
        self
    }

    /// Memory for pages of the file, in bytes. Default: 64 MiB.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// How long an epoch's key stays in memory, counted from its unwrapping and not extended by use. Default: 5 minutes.
    ///
    /// It is the bound within which revocation takes effect when nobody asks the KMS, and the grace in an outage: after half
    /// of it the key is renewed in the background, and if the KMS is out of reach it serves for the other half.
    #[must_use]
    pub fn key_lifetime(mut self, lifetime: Duration) -> Self {
        self.key_lifetime = lifetime;
        self
    }

    /// The deadline of one KMS call. Default: 10 seconds.
    #[must_use]
    pub fn kms_timeout(mut self, timeout: Duration) -> Self {
        self.kms_timeout = timeout;
        self
    }

    /// How often a KMS is tried while it is out of reach or throttles, the first time included. Default: 3.
    #[must_use]
    pub fn kms_attempts_max(mut self, attempts: u32) -> Self {
        self.kms_attempts_max = attempts.max(1);
        self
    }

    /// How many epoch keys stay in memory, over all organizations. Default: 10,000.
    #[must_use]
    pub fn epoch_keys_max(mut self, keys: usize) -> Self {
        self.epoch_keys_max = keys.max(1);
        self
    }

    /// Whether re-wrap jobs go on by themselves on background threads. Default: yes. Without, they go on only in
    /// [`RewrapJob::run_here`](crate::RewrapJob::run_here).
    #[must_use]
    pub fn background_rewrap(mut self, background: bool) -> Self {
        self.background = background;
        self
    }

    /// How many data keys one batch of a re-wrap moves, at most 65,536. Default: 2,048, for which writers wait some
    /// milliseconds.
    #[must_use]
    pub fn rewrap_batch(mut self, data_keys: usize) -> Self {
        self.limits.rewrap_batch = data_keys.clamp(1, 65_536);
        self
    }

    /// How many data keys an epoch wraps before its key must be rotated, at most 2^32. Default: 2^30.
    #[must_use]
    pub fn wraps_per_epoch_max(mut self, wraps: u64) -> Self {
        self.limits.wraps_per_epoch_max = wraps.min(1 << 32);
        self
    }

    /// Another clock and source of randomness than the system's: for tests.
    #[must_use]
    pub fn env(mut self, env: Arc<dyn Env>) -> Self {
        self.env = Some(env);
        self
    }

    /// Creates a store: the file appears under its name when it is whole and synced, mode 0600. About ten syncs.
    ///
    /// # Errors
    ///
    /// [`Error::StoreExists`], [`Error::Storage`], [`Error::InvalidArgument`] for two backends of one name.
    pub fn create(self, path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        let env = self.chosen_env();
        let registry = Registry::new(Arc::clone(&env), self.backends.clone(), self.identity.clone())?;
        let file = NewFile::begin(path).map_err(|error| open_failed(path, "creating the file", error))?;
        let committer = self.create_on(file.disk(), &*env, path)?;
        file.publish()
            .map_err(|error| open_failed(path, "creating the file", error))?;
        self.start(committer, env, registry, path)
    }

    /// Opens a store, replays what its journal holds, and lets its re-wrap jobs go on. The cost does not grow with the
    /// store: at most some milliseconds after a crash. Calls no KMS.
    ///
    /// # Errors
    ///
    /// [`Error::StoreNotFound`], [`Error::AlreadyOpen`], [`Error::NotAStore`] for an empty, foreign or too new file or a
    /// link, [`Error::Damaged`], [`Error::InvalidArgument`] for two backends of one name.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        let env = self.chosen_env();
        let registry = Registry::new(Arc::clone(&env), self.backends.clone(), self.identity.clone())?;
        let disk = FileDisk::open(path).map_err(|error| open_failed(path, "opening the file", error))?;
        let committer = self.open_on(Arc::new(disk), path)?;
        self.start(committer, env, registry, path)
    }

    /// Creates a store on a simulated disk.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    #[cfg(feature = "simulation")]
    pub fn create_on_disk(self, disk: Arc<dyn Disk>) -> Result<Store> {
        let (env, path) = (self.chosen_env(), Path::new("(simulated)"));
        let registry = Registry::new(Arc::clone(&env), self.backends.clone(), self.identity.clone())?;
        let committer = self.create_on(disk, &*env, path)?;
        self.start(committer, env, registry, path)
    }

    /// Opens a store on a simulated disk.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    #[cfg(feature = "simulation")]
    pub fn open_on_disk(self, disk: Arc<dyn Disk>) -> Result<Store> {
        let (env, path) = (self.chosen_env(), Path::new("(simulated)"));
        let registry = Registry::new(Arc::clone(&env), self.backends.clone(), self.identity.clone())?;
        let committer = self.open_on(disk, path)?;
        self.start(committer, env, registry, path)
    }

    fn chosen_env(&self) -> Arc<dyn Env> {
        self.env.clone().unwrap_or_else(|| Arc::new(SystemEnv::default()))
    }

    fn create_on(&self, disk: Arc<dyn Disk>, env: &dyn Env, path: &Path) -> Result<Committer> {
        let mut id = [0; 16];
        env.fill_random(&mut id).map_err(Error::Randomness)?;
        let container =
            Container::create(disk, id).map_err(|error| open_failed(path, "creating the file", error))?;
        Committer::create(container, PlaceKey::of_store(&id), self.cache_bytes)
    }

    fn open_on(&self, disk: Arc<dyn Disk>, path: &Path) -> Result<Committer> {
        let container =
            Container::open(disk).map_err(|error| open_failed(path, "opening the file", error))?;
        let place = PlaceKey::of_store(&container.store_id());
        Committer::open(container, place, self.cache_bytes)
    }

    fn start(
        self,
        committer: Committer,
        env: Arc<dyn Env>,
        registry: Registry,
        path: &Path,
    ) -> Result<Store> {
        let committer = Arc::new(committer);
        let store = StoreId(committer.container().store_id());
        let calls = CallPolicy {
            timeout: self.kms_timeout,
            attempts_max: self.kms_attempts_max,
            backoff: Duration::from_millis(100),
        };
        let cache = CachePolicy {
            lifetime: self.key_lifetime,
            entries_max: self.epoch_keys_max,
            failure_lifetime: Duration::from_secs(1).min(self.key_lifetime / 4),
        };
        let kms = Kms::new(registry, Arc::clone(&env), store, calls);
        let keyring = Arc::new(Keyring::new(
            kms,
            Arc::clone(&env),
            cache,
            Arc::clone(&committer),
            store,
        ));
        let next_organization = committer.snapshot().fact(FACT_NEXT_ORGANIZATION)?.max(1);
        let core = Arc::new(Core {
            env: Arc::clone(&env),
            store,
            committer,
            keyring,
            limits: self.limits,
            key_changes: Default::default(),
            rewrap_steps: Default::default(),
        });
        let inner = Inner {
            core,
            workers: Workers::new(env),
            path: path.to_path_buf(),
            background: self.background,
            closed: AtomicBool::new(false),
            next_organization: AtomicU32::new(u32::try_from(next_organization).unwrap_or(u32::MAX)),
        };
        let store = Store {
            inner: Arc::new(inner),
        };
        store.resume()?;
        Ok(store)
    }
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOptions")
            .field("backends", &self.backends)
            .field("cache_bytes", &self.cache_bytes)
            .field("key_lifetime", &self.key_lifetime)
            .finish_non_exhaustive()
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

    /// Creates an organization with its first epoch under the managed key. One KMS call, one commit of two syncs.
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
        let id = OrganizationId(self.inner.next_organization.fetch_add(1, Ordering::Relaxed));
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

    /// Checks the whole store: every page, every row, every chain, counts against scans; and, where keys are at hand, that
    /// every data key and every value opens. Takes time in proportion to the store; changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]. What is damaged is in the report, not an error.
    pub fn verify(&self, options: VerifyOptions, progress: impl FnMut(u64)) -> Result<VerifyReport> {
        if self.inner.is_closed() {
            return Err(Error::Closed {
                reason: "it was closed".into(),
            });
        }
        verify::verify(&self.inner, options, progress)
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

fn open_failed(path: &Path, doing: &'static str, error: ContainerError) -> Error {
    let path = path.to_path_buf();
    match error {
        ContainerError::AlreadyOpen { .. } => Error::AlreadyOpen { path },
        ContainerError::NotFound { .. } => Error::StoreNotFound { path },
        ContainerError::AlreadyExists { .. } => Error::StoreExists { path },
        ContainerError::Empty
        | ContainerError::Foreign
        | ContainerError::TooNew { .. }
        | ContainerError::Symlink { .. }
        | ContainerError::NotRegularFile { .. } => Error::NotAStore {
            path,
            reason: error.to_string(),
        },
        error => crate::storage::transaction::container_failed(doing, &error),
    }
}
