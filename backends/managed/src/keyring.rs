//! A keyring: its administration (make, rotate, disable, enable, reseal), and the master keys as they are now.

use crate::error::{Result, about, invalid_config, unsupported};
use crate::file::{self, ChangeLock, ReadFile, Stamp};
use crate::format::{self, Contents, KEY_BYTES, KEYS_MAX, KeyringId, KeyringState, MasterKey, NONCE_BYTES};
use crate::sealing::{SALT_BYTES, Sealing, SealingKey};
use keystead_backend::{BackendError, ErrorCode, LockedBytes};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long an administrative change waits for another process's change to end.
const ADMIN_LOCK_WAIT: Duration = Duration::from_secs(10);

/// Where random bytes come from: the operating system for administration, the host for calls of the engine.
pub(crate) type Random<'a> = &'a dyn Fn(&mut [u8]) -> Result<()>;

/// A keyring file, for those who administer it. Cheap to hold; every operation looks at the file anew, so any number of
/// processes may use and change one keyring at once.
///
/// # Examples
///
/// ```
/// use keystead_managed::{Keyring, KeyringState, Sealing};
///
/// # let directory = tempfile::tempdir().unwrap();
/// let path = directory.path().join("app.keyring");
/// let keyring = Keyring::create(&path, Sealing::none())?;
/// assert_eq!(keyring.rotate()?, 2);
/// assert_eq!(keyring.versions()?.len(), 2);
///
/// keyring.disable()?;
/// assert_eq!(Keyring::open(&path, Sealing::none())?.state()?, KeyringState::Disabled);
/// # Ok::<(), keystead_backend::BackendError>(())
/// ```
pub struct Keyring {
    path: PathBuf,
    sealing: Sealing,
    /// What Argon2id gave for the salt and cost of the file: asked again only when the file has others.
    sealing_key: Mutex<Option<Arc<SealingKey>>>,
    loaded: Mutex<Option<Loaded>>,
    /// Held while the file is read, so that many threads that find it changed read it once.
    loading: Mutex<()>,
    /// True once the file was there: from then on a missing file is an outage, and nothing is made in its place.
    seen: AtomicBool,
}

/// One version of a keyring's master key, as an administrator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyVersion {
    /// Numbers start at 1 and never repeat.
    pub number: u32,
    /// When it was made, in seconds since 1970, by the clock of the machine that made it.
    pub created_unix_s: u64,
}

/// The master keys as one reading of the file found them.
pub(crate) struct KeySet {
    pub(crate) id: KeyringId,
    pub(crate) state: KeyringState,
    /// Ascending by version; empty while disabled, so that a disabled keyring's keys are in no memory.
    pub(crate) keys: Vec<MasterKey>,
    pub(crate) newest_version: u32,
}

impl KeySet {
    fn new(contents: Contents) -> Self {
        let Contents { id, state, mut keys } = contents;
        let newest_version = keys.last().map_or(0, |key| key.version);
        if state == KeyringState::Disabled {
            keys.clear();
        }
        Self {
            id,
            state,
            keys,
            newest_version,
        }
    }
}

struct Loaded {
    keys: Arc<KeySet>,
    stamp: Stamp,
    /// Keeps the inode in `stamp` from being given to another file; never read.
    _file: File,
}

impl Keyring {
    /// Makes a new keyring file with one master key. The file has mode 0600; its directory must exist.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidConfig`] when there is a file already: it is left as it is. See also the
    /// [table of errors](crate#errors).
    pub fn create(path: impl Into<PathBuf>, sealing: Sealing) -> Result<Self> {
        let keyring = Self::at(path, sealing);
        if !keyring.create_missing(&os_random, ADMIN_LOCK_WAIT)? {
            return Err(about("making", &keyring.path)(invalid_config(
                "there is a file of this name already; open it, or choose another name",
            )));
        }
        Ok(keyring)
    }

    /// Opens a keyring file that is there, and checks that the sealing opens it.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Unauthenticated`] when the passphrase is wrong or missing, [`ErrorCode::Unavailable`] when there is no
    /// file. See also the [table of errors](crate#errors).
    pub fn open(path: impl Into<PathBuf>, sealing: Sealing) -> Result<Self> {
        let keyring = Self::at(path, sealing);
        keyring.current()?;
        Ok(keyring)
    }

    /// A keyring at this path, whether the file is there or not. Nothing is read yet.
    pub(crate) fn at(path: impl Into<PathBuf>, sealing: Sealing) -> Self {
        let path = path.into();
        Self {
            // A later change of the working directory must not change what is meant.
            path: std::path::absolute(&path).unwrap_or(path),
            sealing,
            sealing_key: Mutex::default(),
            loaded: Mutex::default(),
            loading: Mutex::default(),
            seen: AtomicBool::new(false),
        }
    }

    /// The file's path, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keyring's id, which is part of every key id.
    ///
    /// # Errors
    ///
    /// When the file cannot be read: see the [table of errors](crate#errors).
    pub fn id(&self) -> Result<KeyringId> {
        Ok(self.current()?.id)
    }

    /// Whether it is enabled.
    ///
    /// # Errors
    ///
    /// When the file cannot be read: see the [table of errors](crate#errors).
    pub fn state(&self) -> Result<KeyringState> {
        Ok(self.current()?.state)
    }

    /// Every version of the master key, ascending; the last is the one that wraps.
    ///
    /// # Errors
    ///
    /// When the file cannot be read: see the [table of errors](crate#errors).
    pub fn versions(&self) -> Result<Vec<KeyVersion>> {
        let contents = self.read().map_err(about("reading", &self.path))?.0;
        Ok(contents
            .keys
            .iter()
            .map(|key| KeyVersion {
                number: key.version,
                created_unix_s: key.created_unix_s,
            })
            .collect())
    }

    /// Adds a version of the master key and returns its number. New wraps use it; what older versions wrapped still
    /// opens, for they stay. Works on a disabled keyring, too. Blocks for up to 10 seconds while another process changes
    /// the keyring.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Unsupported`] at 1024 versions. See also the [table of errors](crate#errors).
    pub fn rotate(&self) -> Result<u32> {
        self.change("rotating", |contents| {
            if contents.keys.len() >= KEYS_MAX {
                return Err(unsupported(format!(
                    "it has {KEYS_MAX} versions, the most there can be; make a new keyring and move to it"
                )));
            }
            let version = contents
                .keys
                .last()
                .map_or(0, |last| last.version)
                .checked_add(1)
                .ok_or_else(|| {
                    unsupported("its version numbers are used up; make a new keyring and move to it")
                })?;
            contents.keys.push(new_master_key(version, &os_random)?);
            Ok(version)
        })
    }

    /// Disables the keyring: from now on every process that uses it gets [`ErrorCode::KeyDisabled`] from its next call on
    /// and drops the master keys from memory. **Everything under this keyring is unreadable until
    /// [`enable`](Self::enable).** The keys stay in the file. Disabling twice changes nothing.
    ///
    /// # Errors
    ///
    /// When the file cannot be changed: see the [table of errors](crate#errors).
    pub fn disable(&self) -> Result<()> {
        self.set_state("disabling", KeyringState::Disabled)
    }

    /// Enables the keyring again. Enabling twice changes nothing.
    ///
    /// # Errors
    ///
    /// When the file cannot be changed: see the [table of errors](crate#errors).
    pub fn enable(&self) -> Result<()> {
        self.set_state("enabling", KeyringState::Enabled)
    }

    /// Puts the keyring under another passphrase, or none, and returns it so opened. The master keys stay the same.
    /// Processes that have the old passphrase get [`ErrorCode::Unauthenticated`] from their next call on. Copies of the
    /// old file still open with the old passphrase.
    ///
    /// # Errors
    ///
    /// When the file cannot be changed: see the [table of errors](crate#errors).
    pub fn reseal(&self, sealing: Sealing) -> Result<Self> {
        let resealed = Self::at(&self.path, sealing);
        let new_key = resealed
            .new_sealing_key(&os_random)
            .map_err(about("resealing", &self.path))?;
        self.change_under("resealing", |_| new_key.clone(), |_| Ok(()))?;
        resealed.remember_sealing_key(new_key);
        resealed.current()?;
        Ok(resealed)
    }

    /// The master keys as the file has them now. One `stat` when it has not changed since the last call.
    pub(crate) fn current(&self) -> Result<Arc<KeySet>> {
        self.current_or_drop().map_err(about("opening", &self.path))
    }

    /// True once the file has been there.
    pub(crate) fn was_seen(&self) -> bool {
        self.seen.load(Ordering::Acquire)
    }

    /// True when something is at the keyring's path now.
    pub(crate) fn exists(&self) -> Result<bool> {
        file::exists(&self.path).map_err(about("opening", &self.path))
    }

    /// Makes the file unless there is one. True when it was made here; of many that try at once, one makes it.
    pub(crate) fn create_missing(&self, random: Random<'_>, lock_wait: Duration) -> Result<bool> {
        self.create_unless_there(random, lock_wait)
            .map_err(about("making", &self.path))
    }

    fn create_unless_there(&self, random: Random<'_>, lock_wait: Duration) -> Result<bool> {
        if file::exists(&self.path)? {
            return Ok(false);
        }
        let lock = ChangeLock::acquire(&self.path, lock_wait)?;
        if file::exists(&self.path)? {
            return Ok(false);
        }
        let mut id = [0; 16];
        random(&mut id)?;
        let contents = Contents {
            id: KeyringId(id),
            state: KeyringState::Enabled,
            keys: vec![new_master_key(1, random)?],
        };
        let sealing_key = self.new_sealing_key(random)?;
        self.write(&lock, &contents, sealing_key.as_deref(), random)?;
        self.remember_sealing_key(sealing_key);
        Ok(true)
    }

    fn set_state(&self, doing: &str, state: KeyringState) -> Result<()> {
        if self.state()? == state {
            return Ok(());
        }
        self.change(doing, |contents| {
            contents.state = state;
            Ok(())
        })
    }

    /// Reads, changes and writes the file while no other process does.
    fn change<T>(&self, doing: &str, edit: impl FnOnce(&mut Contents) -> Result<T>) -> Result<T> {
        self.change_under(doing, |key_of_the_file| key_of_the_file, edit)
    }

    /// The same, writing the file under the sealing key that `choose` makes of the present one.
    fn change_under<T>(
        &self,
        doing: &str,
        choose: impl FnOnce(Option<Arc<SealingKey>>) -> Option<Arc<SealingKey>>,
        edit: impl FnOnce(&mut Contents) -> Result<T>,
    ) -> Result<T> {
        let change = || {
            // Read before the lock file is made: who may not change the keyring leaves no lock file of his beside it.
            self.read()?;
            let lock = ChangeLock::acquire(&self.path, ADMIN_LOCK_WAIT)?;
            let (mut contents, key_of_the_file) = self.read()?;
            let outcome = edit(&mut contents)?;
            self.write(&lock, &contents, choose(key_of_the_file).as_deref(), &os_random)?;
            Ok(outcome)
        };
        change().map_err(about(doing, &self.path))
    }

    fn write(
        &self,
        lock: &ChangeLock,
        contents: &Contents,
        sealing_key: Option<&SealingKey>,
        random: Random<'_>,
    ) -> Result<()> {
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce)?;
        lock.replace(&self.path, &format::encode(contents, sealing_key, &nonce)?)
    }

    fn current_or_drop(&self) -> Result<Arc<KeySet>> {
        match Stamp::at(&self.path) {
            Ok(stamp) => {
                if let Some(keys) = self.loaded_at(&stamp) {
                    return Ok(keys);
                }
            }
            Err(error) => {
                *guard(&self.loaded) = None;
                return Err(error);
            }
        }
        let _loading = guard(&self.loading);
        // Another thread may have read the file while this one waited.
        if let Some(keys) = self.loaded_at(&Stamp::at(&self.path)?) {
            return Ok(keys);
        }
        // Whatever is wrong with the new file, the keys of the old one are not used any more.
        *guard(&self.loaded) = None;
        let ReadFile { bytes, stamp, file } = file::read(&self.path)?;
        let (contents, _) = self.open_bytes(&bytes)?;
        let keys = Arc::new(KeySet::new(contents));
        *guard(&self.loaded) = Some(Loaded {
            keys: Arc::clone(&keys),
            stamp,
            _file: file,
        });
        self.seen.store(true, Ordering::Release);
        Ok(keys)
    }

    fn loaded_at(&self, stamp: &Stamp) -> Option<Arc<KeySet>> {
        guard(&self.loaded)
            .as_ref()
            .filter(|loaded| loaded.stamp == *stamp)
            .map(|loaded| Arc::clone(&loaded.keys))
    }

    fn read(&self) -> Result<(Contents, Option<Arc<SealingKey>>)> {
        let file = file::read(&self.path)?;
        self.open_bytes(&file.bytes)
    }

    fn open_bytes(&self, bytes: &[u8]) -> Result<(Contents, Option<Arc<SealingKey>>)> {
        let closed = format::parse(bytes)?;
        let key = match &closed.seal {
            Some(seal) => {
                let known = guard(&self.sealing_key)
                    .as_ref()
                    .filter(|key| key.kdf == seal.kdf && key.salt == seal.salt)
                    .map(Arc::clone);
                match known {
                    Some(key) => Some(key),
                    None => self.sealing.derive(seal.kdf, seal.salt)?.map(Arc::new),
                }
            }
            // A passphrase for a file that is not sealed is refused, without the work of deriving a key.
            None if self.sealing.is_sealed() => {
                return Err(invalid_config(
                    "the file is not sealed, but a passphrase is given; leave the passphrase out if that is meant, else \
                     somebody has put another file in its place",
                ));
            }
            None => None,
        };
        let contents = closed.open(key.as_deref())?;
        self.remember_sealing_key(key.clone());
        Ok((contents, key))
    }

    fn new_sealing_key(&self, random: Random<'_>) -> Result<Option<Arc<SealingKey>>> {
        let mut salt = [0; SALT_BYTES];
        random(&mut salt)?;
        Ok(self.sealing.derive(self.sealing.kdf(), salt)?.map(Arc::new))
    }

    fn remember_sealing_key(&self, key: Option<Arc<SealingKey>>) {
        *guard(&self.sealing_key) = key;
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("path", &self.path)
            .field("sealing", &self.sealing)
            .finish_non_exhaustive()
    }
}

/// A poisoned lock is taken all the same: what it guards is replaced whole, so no thread leaves it half changed.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn new_master_key(version: u32, random: Random<'_>) -> Result<MasterKey> {
    Ok(MasterKey {
        version,
        created_unix_s: now_unix_s(),
        key: LockedBytes::fill_with(KEY_BYTES, random)?,
    })
}

/// The creation time is for people: nothing is decided by it.
#[allow(
    clippy::disallowed_methods,
    reason = "administration has no host to ask for the time"
)]
fn now_unix_s() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |since_1970| since_1970.as_secs())
}

fn os_random(out: &mut [u8]) -> Result<()> {
    getrandom::fill(out).map_err(|error| {
        BackendError::new(
            ErrorCode::Unavailable,
            format!("the operating system gives no random bytes: {error}"),
        )
    })
}
