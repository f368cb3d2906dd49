//! The container: the file around redb. It owns the file's first bytes, keeps small keys that must be erased in place, a
//! journal, and redb's pages with a tag each. Unix only.
//!
//! # Format version 1
//!
//! All integers are little-endian. A sector is 512 bytes, a block 4096.
//!
//! ```text
//!         0    4 KiB   header, copy A
//!      4096    4 KiB   header, copy B
//!      8192   56 KiB   the first extent of shred cells: 896 cells of 64 bytes
//!     65536    4 MiB   the journal
//!   4259840            segments of 1 MiB each, numbered from 0
//! ```
//!
//! ## Header
//!
//! ```text
//!     0   [8]    magic "KEYSTEAD"
//!     8   u32    format version: 1
//!    12   u32    bytes of a block: 4096
//!    16   u64    sequence: counts the updates of the header
//!    24   [16]   store id
//!    40   u64    where the journal begins: 65536
//!    48   u64    bytes of the journal: 4194304
//!    56   u64    bytes of a segment: 1048576
//!    64   u64    redb's logical length, in blocks
//!    72   u32    how many cell segments there are, at most 996
//!    76   u32    zero
//!    80   u32…   the numbers of the cell segments, rising
//!  4064   [32]   BLAKE3 of bytes 0..4064
//! ```
//!
//! At rest both copies are the same. An update writes one copy with the next sequence, syncs, then writes the other copy; the next
//! update takes them in the other order, so the copy being written is never the only good one. Opening takes the valid copy with
//! the higher sequence, and makes the other like it. A file is too new when a copy has the magic and a higher version, whatever
//! else is in it, and no copy is valid; so whoever upgrades a file to a later version writes both copies before anything else.
//!
//! ## Segments
//!
//! A segment that the header lists is a *cell segment*: 16,384 cells of 64 bytes. Every other one is a *page segment*: a block of
//! tags, then 255 blocks of redb's. redb's logical block `b` is in the page segment number `b / 255` (counted without the cell
//! segments), there the block `1 + b % 255`; its tag stands at `16 * (b % 255)` of the first block. A segment becomes one of cells
//! only behind everything in use, so no block ever moves.
//!
//! The header says how long redb's file is; the real file is at least as long as the header needs (else it is truncated, and
//! not opened), and longer only after a crash. So it grows before the header says so, and shrinks after. Tags of blocks that redb's file
//! newly has are zeroed first: such a block was *never written* and cannot be read.
//!
//! ## Tags
//!
//! All are keyed BLAKE3 (`tags.rs`), each kind under a key of its own, `derive_key(label, store id)`.
//!
//! ```text
//! block            16 bytes over the block, then its number as u64
//! block 0          its bytes 0..480 are redb's header, 480..512 a seal over them; the rest is unused. It has no tag
//! shred cell       64 bytes: key [32], zeros [8], tag [24] over the cell's number as u64, then the key. Erased: all zero
//! journal record   see `journal.rs`
//! ```
//!
//! Every read from the disk checks the tags of all it covers. Tags find damage and misplaced pieces, they do not stop somebody
//! who writes to the file on purpose (see `tags.rs`).
//!
//! # Why a crash harms nothing
//!
//! - **Blocks.** redb is copy-on-write: a block that the durable state refers to is not written in place. So a torn pair of block
//!   and tag is only ever one that nothing refers to. Both reach the disk before the same sync. This rests on redb committing
//!   durably in *two phases*: its one-phase commit writes the new root together with the pages below it, and reads torn pages after a crash
//!   to find out, which here is an error. Two-phase commits and commits in memory are what `storage::commit` uses.
//! - **redb's header**, block 0, is rewritten in place. Header and seal stand in one sector and are one write, and a sector is
//!   written whole or not at all. (The copy without a tag would serve a flipped bit as the commit before: redb has no checksum over
//!   which of its two roots is the newer.)
//! - **The container's header**: above. **The journal**: `journal.rs`.
//! - **Shred cells.** 64 divides 512: a cell never crosses a sector, and its neighbours are rewritten with the bytes they had.
//! - **A failed write or sync is final** (`disk.rs`): a retried sync would lie.

mod cells;
mod damaged;
mod disk;
mod error;
mod file;
mod geometry;
mod header;
mod journal;
#[cfg(test)]
mod memory;
mod page_check;
mod pages;
#[cfg(feature = "simulation")]
mod repair;
mod scan;
mod tags;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

pub(crate) use cells::CellNumber;
#[cfg_attr(
    not(feature = "simulation"),
    allow(unreachable_pub, reason = "public for the simulated disk alone")
)]
pub use disk::Disk;
pub(crate) use error::ContainerError;
pub(crate) use file::{FileDisk, NewFile};
#[cfg(feature = "simulation")]
pub(crate) use header::read_header;
pub(crate) use journal::{Journal, Survivors};
#[cfg(test)]
pub(crate) use memory::MemoryDisk;
#[cfg(feature = "simulation")]
pub(crate) use page_check::check_page;
pub(crate) use pages::{PageFile, Pages};
#[cfg(feature = "simulation")]
pub use {header::HeaderView, repair::repair_image};

use disk::CheckedDisk;
pub(crate) use geometry::BLOCK_BYTES;
use geometry::{HEADER_BYTES, JOURNAL_OFFSET, Layout, SEGMENT_BYTES, SEGMENTS_OFFSET};
use header::Header;
use tags::Tags;

use crate::mutant::{Mutant, planted};

/// An open container. Cheap to clone; all clones, and the page files made from it, are one.
#[derive(Clone)]
pub(crate) struct Container {
    inner: Arc<Inner>,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Container")
    }
}

/// What is shared. Lock order: `mending`, then `header`, then `layout`; no I/O under `layout`.
#[derive(Debug)]
struct Inner {
    disk: Arc<CheckedDisk>,
    tags: Arc<Tags>,
    store_id: [u8; 16],
    journal: Journal,
    /// The layout as readers and writers of blocks and cells use it.
    layout: RwLock<Arc<Layout>>,
    /// Held while the layout changes, on disk and in memory.
    header: Mutex<HeaderWriter>,
    /// Held while a part of a block is read, changed and written.
    mending: Mutex<()>,
    /// The first read of pages that failed.
    failed_read: OnceLock<String>,
}

/// What the next update of the header needs.
#[derive(Debug)]
struct HeaderWriter {
    sequence: u64,
}

impl Container {
    /// Makes a new container on an empty disk. Durable when it returns, as far as the disk goes: a file also needs its name
    /// ([`NewFile::publish`]).
    ///
    /// # Errors
    ///
    /// [`ContainerError::NotEmpty`] when the disk holds anything.
    pub(crate) fn create(disk: Arc<dyn Disk>, store_id: [u8; 16]) -> Result<Self, ContainerError> {
        let disk = CheckedDisk::new(disk);
        let found_bytes = disk.len("creating a store")?;
        if found_bytes > 0 {
            return Err(ContainerError::NotEmpty { found_bytes });
        }
        let header = Header {
            sequence: 1,
            store_id,
            layout: Layout::default(),
        };
        disk.set_len(header.layout.file_bytes(), "creating a store")?;
        for copy in [0, 1] {
            disk.write_at(copy * HEADER_BYTES, &header.encode(), "creating a store")?;
        }
        // Zeros written, not a hole: an append then needs no space from the file system. It cannot fail for want of it, and
        // its sync has no allocation to write down (measured on ext4: 84 against 123 µs).
        let zeros = vec![0; SEGMENT_BYTES as usize];
        for offset in (JOURNAL_OFFSET..SEGMENTS_OFFSET).step_by(zeros.len()) {
            disk.write_at(offset, &zeros, "creating a store")?;
        }
        disk.sync("creating a store")?;
        Ok(Self::new(disk, header))
    }

    /// Opens a container. Costs a read of the header, whatever the file's size.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, by name: [`ContainerError::Empty`], [`ContainerError::Foreign`],
    /// [`ContainerError::TooNew`], [`ContainerError::DamagedHeader`], [`ContainerError::Truncated`]. Nothing is changed then.
    pub(crate) fn open(disk: Arc<dyn Disk>) -> Result<Self, ContainerError> {
        let disk = CheckedDisk::new(disk);
        let found_bytes = disk.len("opening a store")?;
        let mut front = vec![0; found_bytes.min(2 * HEADER_BYTES) as usize];
        disk.read_at(0, &mut front, "reading the header")?;
        let header::Chosen { header, mend } = header::choose(&front)?;
        let expected_bytes = header.layout.file_bytes();
        if found_bytes < expected_bytes {
            return Err(ContainerError::Truncated {
                expected_bytes,
                found_bytes,
            });
        }
        if let Some(copy) = mend {
            tracing::warn!(
                copy,
                "a copy of the header was torn or damaged; it is written anew from the other"
            );
            // The good copy is perhaps in memory only: a process that was killed before its sync leaves it so. Durable first,
            // or a loss of power in the middle of this takes both.
            disk.sync("mending the header")?;
            disk.write_at(copy as u64 * HEADER_BYTES, &header.encode(), "mending the header")?;
            disk.sync("mending the header")?;
        }
        Ok(Self::new(disk, header))
    }

    fn new(disk: CheckedDisk, header: Header) -> Self {
        let (disk, tags) = (Arc::new(disk), Arc::new(Tags::new(&header.store_id)));
        let inner = Inner {
            journal: Journal::new(Arc::clone(&disk), Arc::clone(&tags)),
            disk,
            tags,
            store_id: header.store_id,
            layout: RwLock::new(Arc::new(header.layout)),
            header: Mutex::new(HeaderWriter {
                sequence: header.sequence,
            }),
            mending: Mutex::new(()),
            failed_read: OnceLock::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The random id of the store.
    pub(crate) fn store_id(&self) -> [u8; 16] {
        self.inner.store_id
    }

    /// redb's file in this container. Give it to one `redb::Database` at a time. It does not keep the container: when the last
    /// handle on that is dropped, the file is closed and unlocked, even if redb's objects had to be leaked.
    pub(crate) fn page_file(&self) -> PageFile {
        PageFile::new(Arc::downgrade(&self.inner))
    }

    /// The same for who keeps the container.
    pub(crate) fn pages(&self) -> Pages {
        Pages::new(Arc::clone(&self.inner))
    }

    /// Looks at what redb must not find broken, before it is given the pages: see `page_check/freed_lists.rs`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::DamagedPage`].
    pub(crate) fn check_freed_lists(&self) -> Result<(), ContainerError> {
        page_check::freed_lists::check(&self.pages())
    }

    /// The journal.
    pub(crate) fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// The first failure that redb met: a failed write or sync, after which nothing is written any more, or a read of
    /// a damaged page. redb tells of it once, and from then on only of "a previous I/O error": this is what it was.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.inner
            .disk
            .failure()
            .or(self.inner.failed_read.get().map(String::as_str))
    }
}

impl Inner {
    fn layout(&self) -> Arc<Layout> {
        Arc::clone(&self.layout.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the file as long as `new` needs, zero behind what `old` has. Not synced.
    fn extend(&self, old: &Layout, new: &Layout, doing: &'static str) -> Result<(), ContainerError> {
        // A crash may have left the file longer than its header says: what is there must not come back as content.
        if self.disk.len(doing)? > old.file_bytes() {
            self.disk.set_len(old.file_bytes(), doing)?;
        }
        self.disk.set_len(new.file_bytes(), doing)
    }

    /// Makes `layout` the one of the header, durably, and the one that is used from here on.
    fn write_header(&self, writer: &mut HeaderWriter, layout: Layout) -> Result<(), ContainerError> {
        let doing = "updating the header";
        let sequence = writer.sequence + 1;
        let header = Header {
            sequence,
            store_id: self.store_id,
            layout,
        };
        let bytes = header.encode();
        // The copy that the last update wrote and synced first is the one that this update writes last.
        let first = sequence % 2;
        self.disk.write_at(first * HEADER_BYTES, &bytes, doing)?;
        if !planted(Mutant::HeaderCopiesTogether) {
            self.disk.sync(doing)?;
        }
        // Unsynced: until some later sync, the first copy is good and the second is torn or older.
        self.disk.write_at((1 - first) * HEADER_BYTES, &bytes, doing)?;
        writer.sequence = sequence;
        *self.layout.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(header.layout);
        Ok(())
    }
}
