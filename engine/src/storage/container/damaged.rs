//! What a salvage needs of a container: it is opened as it is, nothing is mended, and what is not whole is left out.

use std::io;
use std::sync::Arc;

use super::disk::{CheckedDisk, Disk};
use super::error::ContainerError;
use super::geometry::{
    BLOCK_BYTES, BLOCKS_PER_SEGMENT, CELL_BYTES, CELLS_PER_SEGMENT, FIRST_CELLS, HEADER_BYTES, Layout,
    PAGE_BLOCKS_MAX, SEGMENT_BYTES, SEGMENTS_OFFSET, TAG_BYTES, array,
};
use super::header::{self, CELL_SEGMENTS_MAX, Header};
use super::tags::Tags;
use super::{CellNumber, Container};

const BLOCK: usize = BLOCK_BYTES as usize;
const READING: &str = "reading a damaged store";

/// A disk that reads and never writes. What the disk below cannot read, or has not, reads as zeros: damaged, then.
#[derive(Debug)]
struct ReadOnly(Arc<dyn Disk>);

impl Disk for ReadOnly {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.read_at(offset, out).is_ok() {
            return Ok(());
        }
        // One bad sector must not take its neighbours along.
        for (offset, piece) in (offset..).step_by(512).zip(out.chunks_mut(512)) {
            if self.0.read_at(offset, piece).is_err() {
                piece.fill(0);
            }
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl Container {
    /// Opens a container for reading, whatever its state: it may be cut short, and one copy of the header is enough. When
    /// neither is whole, `store_id` stands in, and where the segments of cells are is found by trying.
    ///
    /// # Errors
    ///
    /// Those of the header when there is no `store_id`, [`ContainerError::TooNew`] also when there is one.
    pub(crate) fn open_damaged(
        disk: Arc<dyn Disk>,
        store_id: Option<[u8; 16]>,
    ) -> Result<Self, ContainerError> {
        let disk = CheckedDisk::new(Arc::new(ReadOnly(disk)));
        let bytes = disk.len(READING)?;
        let mut front = vec![0; bytes.min(2 * HEADER_BYTES) as usize];
        disk.read_at(0, &mut front, READING)?;
        let header = match (header::choose(&front), store_id) {
            (Ok(chosen), _) => chosen.header,
            (Err(error @ ContainerError::TooNew { .. }), _) | (Err(error), None) => return Err(error),
            (Err(_), Some(store_id)) => Header {
                sequence: 0,
                store_id,
                layout: find_layout(&disk, &store_id, bytes)?,
            },
        };
        Ok(Self::new(disk, header))
    }

    /// Bytes of the file as it is, whatever its header says.
    pub(crate) fn file_bytes(&self) -> Result<u64, ContainerError> {
        self.inner.disk.len(READING)
    }

    /// Blocks of redb's file.
    pub(crate) fn page_blocks(&self) -> u64 {
        self.inner.layout().page_blocks
    }

    /// Where a block of redb's file stands, and its tag, in bytes of the file.
    #[cfg(feature = "simulation")]
    pub(crate) fn block_place(&self, block: u64) -> (u64, u64) {
        let layout = self.inner.layout();
        (layout.block_offset(block), layout.tag_offset(block))
    }

    /// A block of redb's file as it stands there, and whether it matches its tag.
    pub(crate) fn read_block(&self, block: u64, out: &mut [u8; BLOCK]) -> bool {
        let layout = self.inner.layout();
        if block == 0 || block >= layout.page_blocks {
            return false;
        }
        let mut tag = [0; TAG_BYTES];
        let disk = &self.inner.disk;
        disk.read_at(layout.tag_offset(block), &mut tag, READING).is_ok()
            && disk.read_at(layout.block_offset(block), out, READING).is_ok()
            && self.inner.tags.block(block, out) == tag
    }

    /// True for a block that does not match its tag, unless it looks as if it had never been written.
    pub(crate) fn is_block_damaged(&self, block: u64) -> bool {
        let mut bytes = [0; BLOCK];
        let layout = self.inner.layout();
        let mut tag = [0; TAG_BYTES];
        let has_tag = self
            .inner
            .disk
            .read_at(layout.tag_offset(block), &mut tag, READING)
            .is_err()
            || tag != [0; TAG_BYTES];
        !self.read_block(block, &mut bytes) && (has_tag || bytes != [0; BLOCK])
    }

    /// The header of redb, if it matches its seal.
    pub(crate) fn read_redb_header(&self) -> Option<Vec<u8>> {
        let mut header = vec![0; 480];
        let pages = super::pages::Pages::new(Arc::clone(&self.inner));
        pages.read_at(0, &mut header).ok()?;
        Some(header)
    }

    /// True when a cell that was given out is neither a key with its tag nor erased.
    pub(crate) fn cell_is_damaged(&self, cell: u64) -> bool {
        matches!(
            self.read_cell(CellNumber(cell)),
            Err(ContainerError::DamagedCell { .. })
        )
    }
}

/// Where segments of pages and of cells are, found by their tags.
fn find_layout(disk: &CheckedDisk, store_id: &[u8; 16], bytes: u64) -> Result<Layout, ContainerError> {
    let tags = Tags::new(store_id);
    let mut layout = Layout::default();
    let segments = bytes.saturating_sub(SEGMENTS_OFFSET).div_ceil(SEGMENT_BYTES);
    let mut pages = 0;
    let mut buffer = vec![0; SEGMENT_BYTES as usize];
    for segment in 0..segments.min(PAGE_BLOCKS_MAX / BLOCKS_PER_SEGMENT) {
        disk.read_at(SEGMENTS_OFFSET + segment * SEGMENT_BYTES, &mut buffer, READING)?;
        let first_block = pages * BLOCKS_PER_SEGMENT;
        let first_cell = FIRST_CELLS + layout.cell_segments.len() as u64 * CELLS_PER_SEGMENT;
        if !holds_pages(&tags, &buffer, first_block)
            && holds_cells(&tags, &buffer, first_cell)
            && layout.cell_segments.len() < CELL_SEGMENTS_MAX
            && let Ok(segment) = u32::try_from(segment)
        {
            layout.cell_segments.push(segment);
        } else {
            pages += 1;
        }
    }
    layout.page_blocks = pages * BLOCKS_PER_SEGMENT;
    Ok(layout)
}

fn holds_pages(tags: &Tags, segment: &[u8], first_block: u64) -> bool {
    let (stored, blocks) = segment.split_at(BLOCK);
    let stored = stored.as_chunks::<TAG_BYTES>().0;
    (first_block..)
        .zip(blocks.as_chunks::<BLOCK>().0.iter().zip(stored))
        .any(|(number, (block, tag))| *tag != [0; TAG_BYTES] && tags.block(number, block) == *tag)
}

fn holds_cells(tags: &Tags, segment: &[u8], first_cell: u64) -> bool {
    (first_cell..)
        .zip(segment.as_chunks::<{ CELL_BYTES as usize }>().0)
        .any(|(number, cell)| {
            cell[..32] != [0; 32] && tags.cell(number, &cell[..32]) == array::<24>(&cell[40..])
        })
}
