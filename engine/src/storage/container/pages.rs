//! redb's file: logical blocks mapped into page segments, each checked against its tag when it is read.
//!
//! What redb 4.6 does here (`tree_store/page_store`): it reads and writes whole pages, which are 4096 bytes times a power of
//! two at offsets that are multiples of 4096, each page in one call. Its own header is the exception: 320 bytes at offset 0,
//! written in place (twice in a commit, once at opening and once at closing), read as 320 and as 9 bytes. A page is written
//! before anything refers to it, and no free page is read: a block that was never written is never asked for, and is refused
//! here. Lengths are multiples of 4096. Unaligned requests are served all the same.

use std::sync::{Arc, PoisonError, Weak};

use super::Inner;
use super::error::ContainerError;
use super::geometry::{BLOCK_BYTES, BLOCKS_PER_SEGMENT, Layout, PAGE_BLOCKS_MAX, SECTOR_BYTES, TAG_BYTES};
use super::page_check;
use crate::measured::{Part, is_left_out};

const BLOCK: usize = BLOCK_BYTES as usize;
const SECTOR: usize = SECTOR_BYTES as usize;
const TAGS_PER_SEGMENT: usize = BLOCKS_PER_SEGMENT as usize;
/// Bytes of block 0 that can be used: redb's header needs 320. The seal fills the rest of their sector.
const SEALED_BYTES: usize = SECTOR - 32;

const READING: &str = "reading pages";
const WRITING: &str = "writing pages";

/// redb's file within the container, as redb holds it: not for longer than the container is there. Every read is checked; see
/// the module's first lines.
#[derive(Debug)]
pub(crate) struct PageFile {
    inner: Weak<Inner>,
}

impl PageFile {
    pub(super) fn new(inner: Weak<Inner>) -> Self {
        Self { inner }
    }

    fn pages(&self) -> Result<Pages, ContainerError> {
        self.inner.upgrade().map(Pages::new).ok_or(ContainerError::Closed)
    }
}

impl redb::StorageBackend for PageFile {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.pages()?.inner.layout().page_bytes())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let pages = self.pages()?;
        pages.read_checked(offset, out).map_err(|error| {
            let _ = pages.inner.failed_read.set(error.to_string());
            error.into()
        })
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        Ok(self.pages()?.resize(len)?)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        Ok(self.pages()?.inner.disk.sync("syncing pages")?)
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        Ok(self.pages()?.write_at(offset, data)?)
    }
}

/// One piece of a request that is served in one way.
enum Piece {
    /// Inside of block 0, from `within`.
    RedbHeader { within: usize, bytes: usize },
    /// Whole blocks.
    Whole { first: u64, bytes: usize },
    /// A part of one block, from `within`.
    Part { block: u64, within: usize, bytes: usize },
}

impl Piece {
    fn first_of(offset: u64, bytes: usize) -> Self {
        let (block, within) = (offset / BLOCK_BYTES, (offset % BLOCK_BYTES) as usize);
        let in_block = bytes.min(BLOCK - within);
        if block == 0 {
            Self::RedbHeader {
                within,
                bytes: in_block,
            }
        } else if within == 0 && bytes >= BLOCK {
            Self::Whole {
                first: block,
                bytes: bytes - bytes % BLOCK,
            }
        } else {
            Self::Part {
                block,
                within,
                bytes: in_block,
            }
        }
    }
}

/// Blocks of `bytes` that stand together from `first` on, in bytes.
fn run_bytes(first: u64, bytes: usize) -> usize {
    let left_in_segment = TAGS_PER_SEGMENT - (first % BLOCKS_PER_SEGMENT) as usize;
    bytes.min(left_in_segment * BLOCK)
}

/// What reads and writes them.
#[derive(Debug)]
pub(crate) struct Pages {
    inner: Arc<Inner>,
}

impl Pages {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// redb's length, in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.inner.layout().page_bytes()
    }

    /// Reads what redb asks for, and looks at it before redb does.
    pub(crate) fn read_checked(&self, offset: u64, out: &mut [u8]) -> Result<(), ContainerError> {
        self.read_at(offset, out)
            .and_then(|()| self.check(offset, out))
            .inspect_err(|_| {
                // What did not match its tag is nobody's data.
                out.fill(0);
            })
    }

    /// Looks at what was read of redb's header or of a page, before redb does.
    fn check(&self, offset: u64, read: &[u8]) -> Result<(), ContainerError> {
        let page_bytes = self.inner.layout().page_bytes();
        if offset == 0 {
            page_check::check_header(read, page_bytes)
        } else {
            page_check::check_page(read, page_bytes)
        }
        .map_err(|why| ContainerError::DamagedPage {
            block: offset / BLOCK_BYTES,
            why,
        })
    }

    fn checked_layout(&self, offset: u64, bytes: usize) -> Result<Arc<Layout>, ContainerError> {
        let layout = self.inner.layout();
        match offset.checked_add(bytes as u64) {
            Some(end) if end <= layout.page_bytes() => Ok(layout),
            _ => Err(ContainerError::BeyondEnd {
                offset,
                bytes: bytes as u64,
                length: layout.page_bytes(),
            }),
        }
    }

    pub(crate) fn read_at(&self, mut offset: u64, mut out: &mut [u8]) -> Result<(), ContainerError> {
        let layout = self.checked_layout(offset, out.len())?;
        while !out.is_empty() {
            let bytes = match Piece::first_of(offset, out.len()) {
                Piece::RedbHeader { within, bytes } => {
                    let mut block = [0; BLOCK];
                    let sealed = self
                        .read_redb_header(&layout)?
                        .ok_or(ContainerError::UnwrittenBlock { block: 0 })?;
                    block[..SEALED_BYTES].copy_from_slice(&sealed);
                    out[..bytes].copy_from_slice(&block[within..within + bytes]);
                    bytes
                }
                Piece::Whole { first, bytes } => {
                    self.read_blocks(&layout, first, &mut out[..bytes])?;
                    bytes
                }
                Piece::Part { block, within, bytes } => {
                    let mut whole = [0; BLOCK];
                    self.read_blocks(&layout, block, &mut whole)?;
                    out[..bytes].copy_from_slice(&whole[within..within + bytes]);
                    bytes
                }
            };
            offset += bytes as u64;
            out = &mut out[bytes..];
        }
        Ok(())
    }

    pub(crate) fn write_at(&self, mut offset: u64, mut data: &[u8]) -> Result<(), ContainerError> {
        let layout = self.checked_layout(offset, data.len())?;
        while !data.is_empty() {
            let bytes = match Piece::first_of(offset, data.len()) {
                Piece::RedbHeader { within, bytes } => {
                    self.write_redb_header(&layout, within, &data[..bytes])?;
                    bytes
                }
                Piece::Whole { first, bytes } => {
                    self.write_blocks(&layout, first, &data[..bytes])?;
                    bytes
                }
                Piece::Part { block, within, bytes } => {
                    let _alone = self.inner.mending.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut whole = [0; BLOCK];
                    match self.read_blocks(&layout, block, &mut whole) {
                        Ok(()) | Err(ContainerError::UnwrittenBlock { .. }) => {}
                        Err(error) => return Err(error),
                    }
                    whole[within..within + bytes].copy_from_slice(&data[..bytes]);
                    self.write_blocks(&layout, block, &whole)?;
                    bytes
                }
            };
            offset += bytes as u64;
            data = &data[bytes..];
        }
        Ok(())
    }

    /// Reads whole blocks, none of them block 0. A run of blocks that stand together is one read, their tags another.
    /// On an error `out` may hold unchecked bytes, save that it is left zero where a block was never written.
    fn read_blocks(&self, layout: &Layout, mut first: u64, mut out: &mut [u8]) -> Result<(), ContainerError> {
        let mut tags = [0; TAGS_PER_SEGMENT * TAG_BYTES];
        while !out.is_empty() {
            let (run, rest) = out.split_at_mut(run_bytes(first, out.len()));
            if is_left_out(Part::BlockTags) {
                self.inner
                    .disk
                    .read_at(layout.block_offset(first), run, READING)?;
                (first, out) = (first + (run.len() / BLOCK) as u64, rest);
                continue;
            }
            let tags = &mut tags[..run.len() / BLOCK * TAG_BYTES];
            self.inner.disk.read_at(layout.tag_offset(first), tags, READING)?;
            if let Some(unwritten) = tags
                .as_chunks::<TAG_BYTES>()
                .0
                .iter()
                .position(|tag| *tag == [0; TAG_BYTES])
            {
                return Err(ContainerError::UnwrittenBlock {
                    block: first + unwritten as u64,
                });
            }
            self.inner
                .disk
                .read_at(layout.block_offset(first), run, READING)?;
            let mut number = first;
            for (block, tag) in run
                .as_chunks::<BLOCK>()
                .0
                .iter()
                .zip(tags.as_chunks::<TAG_BYTES>().0)
            {
                if self.inner.tags.block(number, block) != *tag {
                    return Err(ContainerError::DamagedBlock { block: number });
                }
                number += 1;
            }
            first = number;
            out = rest;
        }
        Ok(())
    }

    /// Writes whole blocks, none of them block 0. A run of blocks that stand together is one write, their tags another.
    fn write_blocks(&self, layout: &Layout, mut first: u64, mut data: &[u8]) -> Result<(), ContainerError> {
        let mut tags = [0; TAGS_PER_SEGMENT * TAG_BYTES];
        while !data.is_empty() {
            let (run, rest) = data.split_at(run_bytes(first, data.len()));
            if is_left_out(Part::BlockTags) {
                self.inner
                    .disk
                    .write_at(layout.block_offset(first), run, WRITING)?;
                (first, data) = (first + (run.len() / BLOCK) as u64, rest);
                continue;
            }
            let tags = &mut tags[..run.len() / BLOCK * TAG_BYTES];
            let mut number = first;
            for (block, tag) in run
                .as_chunks::<BLOCK>()
                .0
                .iter()
                .zip(tags.as_chunks_mut::<TAG_BYTES>().0)
            {
                *tag = self.inner.tags.block(number, block);
                number += 1;
            }
            self.inner
                .disk
                .write_at(layout.block_offset(first), run, WRITING)?;
            self.inner
                .disk
                .write_at(layout.tag_offset(first), tags, WRITING)?;
            first = number;
            data = rest;
        }
        Ok(())
    }

    /// What block 0 begins with, checked against its seal; `None` when it was never written.
    fn read_redb_header(&self, layout: &Layout) -> Result<Option<[u8; SEALED_BYTES]>, ContainerError> {
        let mut sector = [0; SECTOR];
        self.inner
            .disk
            .read_at(layout.block_offset(0), &mut sector, READING)?;
        if sector == [0; SECTOR] {
            return Ok(None);
        }
        let mut sealed = [0; SEALED_BYTES];
        sealed.copy_from_slice(&sector[..SEALED_BYTES]);
        if self.inner.tags.redb_header(&sealed) != sector[SEALED_BYTES..] {
            return Err(ContainerError::DamagedBlock { block: 0 });
        }
        Ok(Some(sealed))
    }

    /// Writes into block 0. Header and seal are one sector and one write, so they reach the disk together.
    fn write_redb_header(&self, layout: &Layout, within: usize, data: &[u8]) -> Result<(), ContainerError> {
        let _alone = self.inner.mending.lock().unwrap_or_else(PoisonError::into_inner);
        let (used, beyond) = data.split_at(data.len().min(SEALED_BYTES.saturating_sub(within)));
        if beyond.iter().any(|byte| *byte != 0) {
            let bytes = (within + data.len()) as u64;
            return Err(ContainerError::Unsupported {
                what: "a header of redb that is longer than 480 bytes",
                bytes,
            });
        }
        if used.is_empty() {
            return Ok(());
        }
        let mut sealed = self.read_redb_header(layout)?.unwrap_or([0; SEALED_BYTES]);
        sealed[within..within + used.len()].copy_from_slice(used);
        let mut sector = [0; SECTOR];
        sector[..SEALED_BYTES].copy_from_slice(&sealed);
        sector[SEALED_BYTES..].copy_from_slice(&self.inner.tags.redb_header(&sealed));
        self.inner.disk.write_at(layout.block_offset(0), &sector, WRITING)
    }

    /// Sets redb's logical length. Durable when it returns, in the order that leaves a crash at any point harmless: the
    /// file is always at least as long as its header says.
    pub(super) fn resize(&self, len: u64) -> Result<(), ContainerError> {
        let page_blocks = len / BLOCK_BYTES;
        if !len.is_multiple_of(BLOCK_BYTES) || page_blocks > PAGE_BLOCKS_MAX {
            return Err(ContainerError::Unsupported {
                what: "a length that is not so many blocks",
                bytes: len,
            });
        }
        let mut writer = self.inner.header.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.inner.layout();
        let new = Layout {
            page_blocks,
            ..(*old).clone()
        };
        if page_blocks > old.page_blocks {
            self.inner.extend(&old, &new, "growing the pages")?;
            self.forget_tags(&old, &new)?;
            self.inner.disk.sync("growing the pages")?;
            self.inner.write_header(&mut writer, new)
        } else if page_blocks < old.page_blocks {
            let file_bytes = new.file_bytes();
            self.inner.write_header(&mut writer, new)?;
            self.inner.disk.set_len(file_bytes, "shrinking the pages")
        } else {
            Ok(())
        }
    }

    /// Zeroes the tags of the blocks that `new` has and `old` has not. What stands there is left from before an earlier
    /// shrink (a cell segment behind it, or other blocks of its segment, kept the file from being cut): as blocks that
    /// were never written, they cannot be read.
    fn forget_tags(&self, old: &Layout, new: &Layout) -> Result<(), ContainerError> {
        let (zeros, end) = ([0; TAGS_PER_SEGMENT * TAG_BYTES], old.file_bytes());
        let mut first = old.page_blocks;
        while first < new.page_blocks {
            let blocks = (BLOCKS_PER_SEGMENT - first % BLOCKS_PER_SEGMENT).min(new.page_blocks - first);
            // Behind the old end of the file, it is zero.
            if new.tag_offset(first) < end {
                let zeros = &zeros[..blocks as usize * TAG_BYTES];
                self.inner
                    .disk
                    .write_at(new.tag_offset(first), zeros, "growing the pages")?;
            }
            first += blocks;
        }
        // Block 0 has a seal instead of a tag.
        if old.page_blocks == 0 && new.page_blocks > 0 && new.block_offset(0) < end {
            self.inner
                .disk
                .write_at(new.block_offset(0), &[0; SECTOR], "growing the pages")?;
        }
        Ok(())
    }
}
