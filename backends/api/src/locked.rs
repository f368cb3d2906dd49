//! Memory for keys: locked into RAM and left out of core dumps, where the platform allows.
//!
//! | platform | memory | not in swap | not in core dumps | after `fork()` |
//! | --- | --- | --- | --- | --- |
//! | Linux | pages of an arena | `mlock` | `MADV_DONTDUMP` | not in the child |
//! | Linux, beyond `RLIMIT_MEMLOCK` | pages of an arena | no | `MADV_DONTDUMP` | not in the child |
//! | Linux, beyond 64 MiB of live keys | the heap | no | no | copied |
//! | others | the heap | no | no | copied |
//!
//! Everywhere the bytes are overwritten with zeroes when they are dropped. Neither this nor anything else in the process
//! keeps keys from one who may read its memory (a debugger, `/proc/<pid>/mem`, hibernation to disk).
//!
//! **Fork.** The pages are not inherited by a child (`MADV_DONTFORK`). Inherited, they would be copies that no lock
//! covers and that nobody zeroizes. Wiped (`MADV_WIPEONFORK`), a key would read as zeroes in the child, which would then
//! seal data under a key that everybody knows, without a sign. So a child that touches a key taken before the fork
//! panics with a message that says so; dropping one there does nothing, and a key made in the child is in order: it
//! lives in an arena of the child's own.

use std::fmt;
use zeroize::Zeroizing;

#[cfg(target_os = "linux")]
mod arena;

/// A few bytes of key material that zeroize when dropped, never print, and live in locked, undumpable memory where the
/// platform allows (see [`locked_memory_status`]).
///
/// Up to 512 bytes share pages with others, and taking or dropping one is no system call but now and then, when the
/// arena grows. Longer ones take pages of their own: use them for what is short-lived, such as a token.
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
    room: Room,
    len: usize,
}

enum Room {
    #[cfg(target_os = "linux")]
    Locked(arena::Slot),
    Heap(Zeroizing<Box<[u8]>>),
}

impl LockedBytes {
    /// A copy of these bytes. The caller zeroizes its own.
    #[must_use]
    pub fn copy_from(bytes: &[u8]) -> Self {
        let mut this = Self::zeroes(bytes.len());
        this.as_mut_slice().copy_from_slice(bytes);
        this
    }

    /// `len` zero bytes, to be filled in place by `fill`, so that no other copy is made.
    ///
    /// # Errors
    ///
    /// What `fill` returns.
    pub fn fill_with<E>(len: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut this = Self::zeroes(len);
        fill(this.as_mut_slice())?;
        Ok(this)
    }

    /// The bytes.
    ///
    /// # Panics
    ///
    /// In the child of a `fork()`, when the bytes were taken by the parent: see the module's notes on `fork`.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match &self.room {
            #[cfg(target_os = "linux")]
            Room::Locked(slot) => &slot.as_slice()[..self.len],
            Room::Heap(bytes) => bytes,
        }
    }

    fn zeroes(len: usize) -> Self {
        #[cfg(target_os = "linux")]
        if let Some(slot) = (len > 0).then(|| arena::take(len)).flatten() {
            return Self {
                room: Room::Locked(slot),
                len,
            };
        }
        Self {
            room: Room::Heap(Zeroizing::new(vec![0; len].into_boxed_slice())),
            len,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.room {
            #[cfg(target_os = "linux")]
            Room::Locked(slot) => &mut slot.as_mut_slice()[..self.len],
            Room::Heap(bytes) => bytes,
        }
    }
}

impl fmt::Debug for LockedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockedBytes({} bytes)", self.len)
    }
}

/// Whether key material is locked into memory in this process.
///
/// # Examples
///
/// ```
/// use keystead_backend::{LockedMemoryStatus, locked_memory_status};
///
/// if locked_memory_status() == LockedMemoryStatus::Partly {
///     // raise RLIMIT_MEMLOCK (`ulimit -l`, `LimitMEMLOCK=` of systemd): 64 bytes for each cached epoch key
/// }
/// ```
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
///
/// A plugin has memory of its own, for the moment of a call: this speaks of the application's side, where keys stay.
#[must_use]
pub fn locked_memory_status() -> LockedMemoryStatus {
    #[cfg(target_os = "linux")]
    {
        // Take something, so that the answer is about what the system grants and not about nothing.
        drop(LockedBytes::zeroes(1));
        if arena::all_is_locked() {
            LockedMemoryStatus::Locked
        } else {
            LockedMemoryStatus::Partly
        }
    }
    #[cfg(not(target_os = "linux"))]
    LockedMemoryStatus::Unsupported
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_every_length_up_to_three_pages_read_back_and_do_not_overlap() {
        let mut kept = Vec::new();
        for len in (0..1100).chain([4095, 4096, 4097, 12_288]) {
            let pattern: Vec<u8> = (0..len)
                .map(|i| u8::try_from((i * 31 + len) % 251).expect("below 251"))
                .collect();
            kept.push((LockedBytes::copy_from(&pattern), pattern));
        }
        for (locked, pattern) in &kept {
            assert_eq!(locked.as_slice(), pattern);
        }
    }

    #[test]
    fn fresh_bytes_are_zero_even_where_a_key_lay_before() {
        for _ in 0..200 {
            drop(LockedBytes::copy_from(&[0xAB; 64]));
            let fresh = LockedBytes::fill_with(64, |bytes| {
                assert_eq!(bytes, [0; 64]);
                Ok::<(), ()>(())
            });
            assert_eq!(fresh.expect("filled").as_slice(), [0; 64]);
        }
    }

    #[test]
    fn a_failed_fill_hands_the_error_on() {
        let result = LockedBytes::fill_with(32, |bytes| {
            bytes.fill(1);
            Err("no key")
        });
        assert_eq!(result.map(|_| ()).expect_err("the fill failed"), "no key");
    }

    #[test]
    fn debug_shows_the_length_alone() {
        assert_eq!(
            format!("{:?}", LockedBytes::copy_from(b"hunter2")),
            "LockedBytes(7 bytes)"
        );
    }
}
