//! The seam to the disk: the five things the container asks of it, and the rule that a failed write is final.

use std::fmt::Debug;
use std::io;
use std::sync::{Arc, OnceLock};

use super::error::ContainerError;

/// A disk as the container sees it: bytes at offsets, a length, and a sync. This is the seam where tests put a
/// simulated disk that loses power, tears writes or fails.
///
/// Everything goes through `&self` and may be called from many threads at once; writes to ranges that overlap are never
/// made at the same time. What the container counts on:
///
/// - After [`sync`](Self::sync) returned, everything written and every length set before it survives a loss of power.
/// - Without a sync, each sector (512 bytes, aligned) of a write survives whole or not at all, independent of any other.
/// - Lengths reach the disk in the order in which they were set, and never later than a sync that follows them.
#[cfg_attr(
    not(feature = "simulation"),
    allow(unreachable_pub, reason = "public for the simulated disk alone")
)]
#[allow(clippy::len_without_is_empty, reason = "a disk is not a collection")]
pub trait Disk: Debug + Send + Sync + 'static {
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Sets the length in bytes: cuts off the end, or appends zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Fills all of `out` from `offset`, or fails with [`io::ErrorKind::UnexpectedEof`] when the disk ends before.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`. The container writes inside of the length only.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes everything written so far survive a loss of power.
    fn sync(&self) -> io::Result<()>;
}

/// A disk whose first failed write or sync is final.
///
/// After a failed sync the kernel may drop the pages it could not write and report success the next time: a retried
/// sync lies. So every later write and sync is refused, with the first failure as the reason; reads go on.
#[derive(Debug)]
pub(crate) struct CheckedDisk {
    disk: Arc<dyn Disk>,
    failure: OnceLock<String>,
}

impl CheckedDisk {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            failure: OnceLock::new(),
        }
    }

    /// Why nothing is written any more, once that is so.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    pub(crate) fn len(&self, doing: &'static str) -> Result<u64, ContainerError> {
        self.disk.len().map_err(ContainerError::io(doing))
    }

    pub(crate) fn read_at(
        &self,
        offset: u64,
        out: &mut [u8],
        doing: &'static str,
    ) -> Result<(), ContainerError> {
        self.disk.read_at(offset, out).map_err(ContainerError::io(doing))
    }

    pub(crate) fn set_len(&self, len: u64, doing: &'static str) -> Result<(), ContainerError> {
        self.change(doing, |disk| disk.set_len(len))
    }

    pub(crate) fn write_at(
        &self,
        offset: u64,
        data: &[u8],
        doing: &'static str,
    ) -> Result<(), ContainerError> {
        self.change(doing, |disk| disk.write_at(offset, data))
    }

    pub(crate) fn sync(&self, doing: &'static str) -> Result<(), ContainerError> {
        self.change(doing, |disk| disk.sync())
    }

    fn change(
        &self,
        doing: &'static str,
        change: impl FnOnce(&dyn Disk) -> io::Result<()>,
    ) -> Result<(), ContainerError> {
        if let Some(cause) = self.failure() {
            return Err(ContainerError::Failed { cause: cause.into() });
        }
        let result = change(&*self.disk).map_err(ContainerError::io(doing));
        if let Err(error) = &result {
            // When two fail at once, either may be the one that is remembered.
            let _ = self.failure.set(error.to_string());
            return result;
        }
        // Another thread's failure may have come between: then this sync proves nothing.
        match self.failure() {
            Some(cause) => Err(ContainerError::Failed { cause: cause.into() }),
            None => result,
        }
    }
}
