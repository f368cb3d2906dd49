//! How a keyring file is sealed: not at all, or by a passphrase through Argon2id.
//!
//! The cost of Argon2id is recorded in the file, so it can be raised later. What a file may demand is limited
//! ([`KdfParameters::check`]): a hostile file must not take the machine's memory or minutes of its time.

use crate::error::{Result, invalid_config};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use keystead_backend::{BackendError, ErrorCode, LockedBytes};
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

pub(crate) const SALT_BYTES: usize = 16;
pub(crate) const CHECK_BYTES: usize = 32;
pub(crate) const PASSPHRASE_MAX_BYTES: usize = 4096;

const SEALING_KEY_LABEL: &str = "keystead managed keyring 2025 sealing key v1";
const CHECK_LABEL: &str = "keystead managed keyring 2025 passphrase check v1";

/// What protects a keyring file beside its mode.
///
/// # Examples
///
/// ```
/// use keystead_managed::Sealing;
///
/// let sealing = Sealing::passphrase("correct horse battery staple")?;
/// assert_eq!(format!("{sealing:?}"), "Sealing(passphrase)");
/// # Ok::<(), keystead_backend::BackendError>(())
/// ```
#[derive(Clone)]
pub struct Sealing {
    passphrase: Option<Arc<LockedBytes>>,
    kdf: KdfParameters,
}

impl Sealing {
    /// No sealing: the file's mode (0600) and the disk are all that protects the master keys.
    #[must_use]
    pub fn none() -> Self {
        Self {
            passphrase: None,
            kdf: KdfParameters::default(),
        }
    }

    /// Sealed under a key that Argon2id derives from this passphrase. The caller zeroizes its own copy.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidConfig`] when the passphrase is empty or longer than 4096 bytes.
    pub fn passphrase(passphrase: impl AsRef<[u8]>) -> Result<Self> {
        let passphrase = passphrase.as_ref();
        if passphrase.is_empty() {
            return Err(invalid_config(
                "the passphrase is empty; give one, or choose no sealing on purpose by leaving it out",
            ));
        }
        if passphrase.len() > PASSPHRASE_MAX_BYTES {
            return Err(invalid_config(format!(
                "the passphrase is longer than {PASSPHRASE_MAX_BYTES} bytes; use a shorter one"
            )));
        }
        let passphrase = Some(Arc::new(LockedBytes::copy_from(passphrase)));
        Ok(Self {
            passphrase,
            kdf: KdfParameters::default(),
        })
    }

    /// The same, with another cost of Argon2id for keyrings that are made with it. An existing file keeps the cost that
    /// it records.
    #[must_use]
    pub fn with_kdf(mut self, kdf: KdfParameters) -> Self {
        self.kdf = kdf;
        self
    }

    /// True when a passphrase seals the file.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.passphrase.is_some()
    }

    pub(crate) fn kdf(&self) -> KdfParameters {
        self.kdf
    }

    /// The key of this passphrase under a file's salt and cost. `None` when there is no passphrase.
    pub(crate) fn derive(&self, kdf: KdfParameters, salt: [u8; SALT_BYTES]) -> Result<Option<SealingKey>> {
        self.passphrase
            .as_ref()
            .map(|passphrase| SealingKey::derive(passphrase, kdf, salt))
            .transpose()
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_sealed() {
            "Sealing(passphrase)"
        } else {
            "Sealing(none)"
        })
    }
}

/// The cost of Argon2id. The default is the second recommended option of RFC 9106, section 4: 64 MiB, 3 passes,
/// 4 lanes.
///
/// # Examples
///
/// ```
/// use keystead_managed::KdfParameters;
///
/// assert_eq!(KdfParameters::default().memory_kib, 64 * 1024);
/// assert!(KdfParameters { memory_kib: 100 << 20, passes: 3, lanes: 4 }.check().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfParameters {
    /// Memory in KiB: at least 8 for each lane, at most 2 GiB.
    pub memory_kib: u32,
    /// Passes over the memory: 1 to 64, and memory × passes at most 4 GiB.
    pub passes: u32,
    /// Lanes: 1 to 16. They are computed one after the other, so they cost no threads.
    pub lanes: u32,
}

impl Default for KdfParameters {
    fn default() -> Self {
        Self {
            memory_kib: 64 * 1024,
            passes: 3,
            lanes: 4,
        }
    }
}

impl KdfParameters {
    /// The most memory that is accepted: that of the first recommended option of RFC 9106.
    pub const MEMORY_MAX_KIB: u32 = 2 * 1024 * 1024;
    /// The most passes that are accepted.
    pub const PASSES_MAX: u32 = 64;
    /// The most lanes that are accepted.
    pub const LANES_MAX: u32 = 16;
    /// The most work that is accepted: memory × passes, in KiB.
    pub const WORK_MAX_KIB: u64 = 4 * 1024 * 1024;

    /// Checks the limits; done before any memory is taken.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidConfig`] names the parameter that is out of its limits.
    pub fn check(self) -> Result<()> {
        let Self {
            memory_kib,
            passes,
            lanes,
        } = self;
        if !(1..=Self::LANES_MAX).contains(&lanes) {
            return Err(invalid_config(format!(
                "Argon2id with {lanes} lanes is outside of the limits: 1 to {}",
                Self::LANES_MAX
            )));
        }
        if !(8 * lanes..=Self::MEMORY_MAX_KIB).contains(&memory_kib) {
            return Err(invalid_config(format!(
                "Argon2id with {memory_kib} KiB of memory is outside of the limits: 8 for each lane to {}",
                Self::MEMORY_MAX_KIB
            )));
        }
        if !(1..=Self::PASSES_MAX).contains(&passes) {
            return Err(invalid_config(format!(
                "Argon2id with {passes} passes is outside of the limits: 1 to {}",
                Self::PASSES_MAX
            )));
        }
        if u64::from(memory_kib) * u64::from(passes) > Self::WORK_MAX_KIB {
            return Err(invalid_config(format!(
                "Argon2id with {passes} passes over {memory_kib} KiB is more work than the limit of {} KiB in all",
                Self::WORK_MAX_KIB
            )));
        }
        Ok(())
    }
}

/// What a passphrase gives for one salt and cost: the key that seals the file, and a value that tells a wrong
/// passphrase from a damaged file (AES-GCM-SIV alone does not commit to its key).
pub(crate) struct SealingKey {
    pub(crate) kdf: KdfParameters,
    pub(crate) salt: [u8; SALT_BYTES],
    pub(crate) key: LockedBytes,
    check: [u8; CHECK_BYTES],
}

impl SealingKey {
    fn derive(passphrase: &LockedBytes, kdf: KdfParameters, salt: [u8; SALT_BYTES]) -> Result<Self> {
        kdf.check()?;
        let internal = |error: argon2::Error| {
            BackendError::new(ErrorCode::Internal, format!("Argon2id failed: {error}"))
        };
        let params = Params::new(kdf.memory_kib, kdf.passes, kdf.lanes, Some(32)).map_err(internal)?;

        // Memory of our own, so that a machine without room gives an error and no abort, and so that it is zeroized.
        let block_count = params.block_count();
        let mut memory: Zeroizing<Vec<Block>> = Zeroizing::new(Vec::new());
        memory.try_reserve_exact(block_count).map_err(|_| {
            BackendError::new(
                ErrorCode::Unavailable,
                format!(
                    "no room for the {} KiB of memory that Argon2id needs; free some",
                    kdf.memory_kib
                ),
            )
        })?;
        memory.resize(block_count, Block::new());

        let mut root = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(passphrase.as_slice(), &salt, &mut *root, memory.as_mut_slice())
            .map_err(internal)?;
        let mut key = blake3::derive_key(SEALING_KEY_LABEL, &*root);
        let check = blake3::derive_key(CHECK_LABEL, &*root);
        let locked = LockedBytes::copy_from(&key);
        key.zeroize();
        Ok(Self {
            kdf,
            salt,
            key: locked,
            check,
        })
    }

    /// What a file sealed under this key records in clear.
    pub(crate) fn check(&self) -> &[u8; CHECK_BYTES] {
        &self.check
    }

    /// True when a file that records `check` was sealed under this key. Takes the same time either way.
    pub(crate) fn matches(&self, check: &[u8; CHECK_BYTES]) -> bool {
        self.check.ct_eq(check).into()
    }
}
