//! How a store is created or opened.

use crate::checkpoint::Checkpoint;
use crate::crypto::PlaceKey;
use crate::env::{Env, SystemEnv};
use crate::error::{Error, Result};
use crate::keyring::Keyring;
use crate::keyring::cache::CachePolicy;
use crate::keyring::kms::{CallPolicy, Kms};
use crate::keyring::registry::{Backend, IdentityProvider, Registry};
use crate::names::StoreId;
use crate::scope::{Core, Limits};
use crate::storage::Committer;
use crate::storage::container::{Container, ContainerError, Disk, FileDisk, NewFile};
use crate::store::Store;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const DEFAULT_CACHE_BYTES: usize = 64 << 20;
const DEFAULT_KEY_LIFETIME: Duration = Duration::from_secs(300);
const DEFAULT_KMS_TIMEOUT: Duration = Duration::from_secs(10);
/// Backends add it to clocks of theirs, which have an end.
const KMS_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const DEFAULT_EPOCH_KEYS_MAX: usize = 10_000;
/// Each wrap takes a random 96-bit nonce; NIST SP 800-38D allows 2^32 under one key. A quarter of that.
const WRAPS_PER_EPOCH_MAX: u64 = 1 << 30;
/// Measured: a batch of this size holds the writer for about 5 ms.
const REWRAP_BATCH: usize = 2048;
/// Jobs of other organizations have their turn after so many.
const REWRAP_BATCHES_PER_STEP: usize = 64;

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
    checkpoint: Option<Checkpoint>,
    limits: Limits,
}

impl StoreOptions {
    pub(crate) fn new() -> Self {
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
            checkpoint: None,
            limits: Limits {
                wraps_per_epoch_max: WRAPS_PER_EPOCH_MAX,
                rewrap_batch: REWRAP_BATCH,
                rewrap_batches_per_step: REWRAP_BATCHES_PER_STEP,
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

    /// The deadline of one KMS call. Default: 10 seconds. At most a day, which is what a longer one reads as.
    ///
    /// A call that waits for one of its backend's threads does so for half of it at most, and then fails.
    #[must_use]
    pub fn kms_timeout(mut self, timeout: Duration) -> Self {
        self.kms_timeout = timeout.min(KMS_TIMEOUT_MAX);
        self
    }

    /// How often a KMS is tried while it is out of reach or throttles, the first time included. Default: 3. The last try begins
    /// within [`kms_timeout`](Self::kms_timeout): where the KMS asks for more patience than that, the call fails and says so.
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

    /// How many batches one step of a re-wrap job moves: 1, and a simulation can stop between any two.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn rewrap_batches_per_step(mut self, batches: usize) -> Self {
        self.limits.rewrap_batches_per_step = batches.max(1);
        self
    }

    /// How many data keys an epoch wraps before its key must be rotated, at most 2^32. Default: 2^30.
    #[must_use]
    pub fn wraps_per_epoch_max(mut self, wraps: u64) -> Self {
        self.limits.wraps_per_epoch_max = wraps.min(1 << 32);
        self
    }

    /// Opens the store only if it has come as far as this checkpoint, which was kept apart from it. Costs the reads of some rows
    /// for each organization that it names. Of no use to [`create`](Self::create), which refuses it.
    ///
    /// Take a new one after opening, and from time to time: what happened since is not covered.
    #[must_use]
    pub fn checkpoint(mut self, checkpoint: Checkpoint) -> Self {
        self.checkpoint = Some(checkpoint);
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
    /// [`Error::BehindCheckpoint`], [`Error::NotOfCheckpoint`], [`Error::CheckpointOfAnotherStore`] when a
    /// [`checkpoint`](Self::checkpoint) is given; [`Error::StoreNotFound`], [`Error::AlreadyOpen`], [`Error::NotAStore`] for an empty, foreign or too new file or a
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

    pub(crate) fn chosen_env(&self) -> Arc<dyn Env> {
        self.env.clone().unwrap_or_else(|| Arc::new(SystemEnv::default()))
    }

    fn create_on(&self, disk: Arc<dyn Disk>, env: &dyn Env, path: &Path) -> Result<Committer> {
        if self.checkpoint.is_some() {
            return Err(Error::InvalidArgument {
                what: "a checkpoint",
                reason: "the store is about to be created".into(),
            });
        }
        let mut id = [0; 16];
        env.fill_random(&mut id).map_err(Error::Randomness)?;
        self.create_with_id(disk, id, path)
    }

    /// Makes the pages of a new store of this id.
    pub(crate) fn create_with_id(&self, disk: Arc<dyn Disk>, id: [u8; 16], path: &Path) -> Result<Committer> {
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

    /// The backends that were registered.
    pub(crate) fn registry(&self, env: &Arc<dyn Env>) -> Result<Registry> {
        Registry::new(Arc::clone(env), self.backends.clone(), self.identity.clone())
    }

    fn start(
        self,
        committer: Committer,
        env: Arc<dyn Env>,
        registry: Registry,
        path: &Path,
    ) -> Result<Store> {
        if let Some(checkpoint) = &self.checkpoint {
            let store = StoreId(committer.container().store_id());
            checkpoint.check(&*committer.snapshot(), store)?;
        }
        let (background, core) = (self.background, self.core(committer, env, registry));
        Store::start(core, path, background)
    }

    /// The parts of an open store, without its handle and its background work.
    pub(crate) fn core(self, committer: Committer, env: Arc<dyn Env>, registry: Registry) -> Arc<Core> {
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
        Arc::new(Core {
            env,
            store,
            committer,
            keyring,
            limits: self.limits,
            key_changes: Default::default(),
            rewrap_steps: Default::default(),
        })
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

pub(crate) fn open_failed(path: &Path, doing: &'static str, error: ContainerError) -> Error {
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
