//! An allocator for tests that looks for secrets in the heap: in each block that is freed, and, when asked, in all that live.
//!
//! A test binary takes [`WatchingAllocator`] as its global allocator, says which bytes are secret ([`watch`]), lives, and asks
//! what was found ([`found`], [`found_in_live_blocks`]). A block that grows is always moved, and the old one looked at: what an
//! allocator usually does now and then, a buffer's outgrown copies, happens every time.
//!
//! This is a crate of its own beside the interface because an allocator needs unsafe code, which the engine and the tests
//! forbid themselves; nothing but tests depends on it.
//!
//! What it does not see: stacks, registers, memory that C libraries take for themselves, locked memory (which has tests of its
//! own, see `keystead_backend::LockedBytes`).
//!
//! # Examples
//!
//! ```
//! use keystead_canary::WatchingAllocator;
//!
//! #[global_allocator]
//! static ALLOCATOR: WatchingAllocator = WatchingAllocator;
//!
//! keystead_canary::watch("the password", b"correct horse battery");
//! drop(b"it was correct horse battery, I think".to_vec());
//! assert_eq!(keystead_canary::found()[0].name, "the password");
//! ```

mod allocator;
mod windows;

pub use allocator::WatchingAllocator;

use std::sync::atomic::Ordering;

/// Secret bytes that were found where they should not be.
#[derive(Debug, Clone)]
pub struct Found {
    /// The name that [`watch`] was given.
    pub name: String,
    /// Size of the block, in bytes.
    pub block_bytes: usize,
    /// Where in the block the secret's bytes begin, or a part of them of at least 8.
    pub at: usize,
    /// Who freed the block; nothing for a block that lives.
    pub freed_by: String,
}

/// What was looked at so far: a test that finds nothing shows with it that something was searched.
#[derive(Debug, Clone, Copy)]
pub struct Searched {
    /// Blocks that were freed.
    pub blocks: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Looks for these bytes from now on, whole or in part: any 15 bytes in a row of them are found.
///
/// The caller's own copy is looked for as well: it has to be erased before it is freed.
///
/// # Panics
///
/// If there are fewer than 8 bytes, or all are the same: that would be found everywhere.
pub fn watch(name: &str, secret: &[u8]) {
    assert!(
        secret.len() >= windows::WINDOW && secret.iter().any(|byte| *byte != secret[0]),
        "{name} cannot be told from other bytes"
    );
    allocator::unwatched(|| windows::add(name, secret));
}

/// What freed blocks held, in the order in which they were freed: of each name the first few.
#[must_use]
pub fn found() -> Vec<Found> {
    allocator::unwatched(windows::found)
}

/// The names of those that stand in `bytes`.
#[must_use]
pub fn search(bytes: &[u8]) -> Vec<String> {
    allocator::unwatched(|| windows::search(bytes).into_iter().map(|(name, _)| name).collect())
}

/// What the blocks hold that live now, whoever's they are. Other threads wait for memory meanwhile.
#[must_use]
pub fn found_in_live_blocks() -> Vec<Found> {
    allocator::search_live()
}

/// How much was searched.
#[must_use]
pub fn searched() -> Searched {
    Searched {
        blocks: allocator::BLOCKS.load(Ordering::Relaxed),
        bytes: allocator::BYTES.load(Ordering::Relaxed),
    }
}
