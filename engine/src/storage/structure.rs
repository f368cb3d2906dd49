//! The structure of redb's durable state, checked from the disk: every page that anything refers to, every checksum, and the
//! record of which pages are free.
//!
//! It is redb's own integrity check, done by a second instance on the same pages. That instance has no cache to speak of,
//! so it reads the disk and not what some other reader left in memory; what it writes goes to memory and is thrown away.

use crate::error::{Error, Result};
use crate::storage::boundary::Boundary;
use crate::storage::container::{BLOCK_BYTES, Container, Pages};
use crate::storage::transaction::failed;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

const BLOCK: usize = BLOCK_BYTES as usize;
/// Memory for pages: enough for the path from a root to a leaf.
const CACHE_BYTES: usize = 1 << 20;
const DOING: &str = "checking the structure of the pages";

/// Checks it. Takes time in proportion to what is in use. A commit that comes meanwhile may make it fail.
pub(crate) fn check(container: &Container) -> Result<()> {
    // A boundary of its own: what panics here does not close the store.
    Boundary::new().call(DOING, || {
        let mut database = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(Aside::new(container.pages()))
            .map_err(failed(DOING))?;
        match database.check_integrity().map_err(failed(DOING))? {
            true => Ok(()),
            false => Err(Error::damaged(
                "the structure of the pages",
                "checksums or the record of free pages do not fit",
            )),
        }
    })
}

/// The pages as they stand on the disk, and, over them, what was written since: in memory only.
#[derive(Debug)]
struct Aside {
    pages: Pages,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK]>>,
}

impl Aside {
    fn new(pages: Pages) -> Self {
        let written = Written {
            len: pages.len(),
            blocks: BTreeMap::new(),
        };
        Self {
            pages,
            written: Mutex::new(written),
        }
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A whole block: as it was written here, else as the disk has it; zeros where the disk has none.
    fn block(&self, written: &Written, block: u64) -> io::Result<Box<[u8; BLOCK]>> {
        if let Some(bytes) = written.blocks.get(&block) {
            return Ok(bytes.clone());
        }
        let mut bytes = Box::new([0; BLOCK]);
        if (block + 1) * BLOCK_BYTES <= self.pages.len() {
            self.pages.read_at(block * BLOCK_BYTES, &mut *bytes)?;
        }
        Ok(bytes)
    }
}

/// The blocks of a range of bytes: number, offset in it, bytes.
fn pieces(mut offset: u64, mut bytes: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    std::iter::from_fn(move || {
        let within = (offset % BLOCK_BYTES) as usize;
        let take = bytes.min(BLOCK - within);
        let piece = (offset / BLOCK_BYTES, within, take);
        offset += take as u64;
        bytes -= take;
        (take > 0).then_some(piece)
    })
}

impl redb::StorageBackend for Aside {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        let end = offset.saturating_add(out.len() as u64);
        if end > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut touched = pieces(offset, out.len()).map(|(block, ..)| block);
        if end <= self.pages.len() && !touched.any(|block| written.blocks.contains_key(&block)) {
            drop(written);
            return Ok(self.pages.read_checked(offset, out)?);
        }
        let mut done = 0;
        for (block, within, bytes) in pieces(offset, out.len()) {
            let whole = self.block(&written, block)?;
            out[done..done + bytes].copy_from_slice(&whole[within..within + bytes]);
            done += bytes;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written().len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        let mut done = 0;
        for (block, within, bytes) in pieces(offset, data.len()) {
            let mut whole = match bytes {
                BLOCK => Box::new([0; BLOCK]),
                _ => self.block(&written, block)?,
            };
            whole[within..within + bytes].copy_from_slice(&data[done..done + bytes]);
            written.blocks.insert(block, whole);
            done += bytes;
        }
        Ok(())
    }
}
