//! Where things stand in the file: the fixed offsets of format version 1, and the arithmetic from blocks and cells to
//! bytes. Pure: it touches no disk.

/// Bytes of a block: redb's page, the unit that carries a tag.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// Bytes of one header copy. Copy A stands at 0, copy B behind it.
pub(crate) const HEADER_BYTES: u64 = 4096;
/// Where the first extent of shred cells begins.
pub(crate) const FIRST_CELLS_OFFSET: u64 = 2 * HEADER_BYTES;
/// Bytes of a shred cell. It divides 512, so a cell never crosses a disk sector.
pub(crate) const CELL_BYTES: u64 = 64;
/// Cells in the first extent.
pub(crate) const FIRST_CELLS: u64 = (JOURNAL_OFFSET - FIRST_CELLS_OFFSET) / CELL_BYTES;
/// Cells in a cell segment.
pub(crate) const CELLS_PER_SEGMENT: u64 = SEGMENT_BYTES / CELL_BYTES;
/// Where the journal begins.
pub(crate) const JOURNAL_OFFSET: u64 = 65_536;
/// Bytes of the journal.
pub(crate) const JOURNAL_BYTES: u64 = 4 << 20;
/// Where segment 0 begins.
pub(crate) const SEGMENTS_OFFSET: u64 = JOURNAL_OFFSET + JOURNAL_BYTES;
/// Bytes of a segment.
pub(crate) const SEGMENT_BYTES: u64 = 1 << 20;
/// redb's blocks in a page segment: all but the tag block.
pub(crate) const BLOCKS_PER_SEGMENT: u64 = SEGMENT_BYTES / BLOCK_BYTES - 1;
/// Bytes of a block's tag.
pub(crate) const TAG_BYTES: usize = 16;
/// The unit that a disk is taken to write whole or not at all.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// Blocks that a header may claim, 4 PiB of them: keeps the arithmetic below from overflowing whatever a header says.
pub(crate) const PAGE_BLOCKS_MAX: u64 = 1 << 40;

/// What the header says about the segments: how long redb's file is, and which segments hold cells.
///
/// Invariant: `cell_segments` ascends strictly. A segment that holds cells holds them for ever.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    /// Blocks of redb's logical file.
    pub(crate) page_blocks: u64,
    /// The numbers of the segments that hold cells.
    pub(crate) cell_segments: Vec<u32>,
}

impl Layout {
    /// The logical length of redb's file, in bytes.
    pub(crate) fn page_bytes(&self) -> u64 {
        self.page_blocks * BLOCK_BYTES
    }

    /// The number of the segment that is the `index`-th page segment.
    fn page_segment(&self, index: u64) -> u64 {
        // The j-th cell segment has `segment - j` page segments before it; that never falls as j rises.
        let (mut low, mut high) = (0, self.cell_segments.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if u64::from(self.cell_segments[middle]) - middle as u64 <= index {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        index + low as u64
    }

    fn page_segment_offset(&self, block: u64) -> u64 {
        SEGMENTS_OFFSET + self.page_segment(block / BLOCKS_PER_SEGMENT) * SEGMENT_BYTES
    }

    /// Where logical block `block` stands in the file.
    pub(crate) fn block_offset(&self, block: u64) -> u64 {
        self.page_segment_offset(block) + (1 + block % BLOCKS_PER_SEGMENT) * BLOCK_BYTES
    }

    /// Where the tag of logical block `block` stands in the file.
    pub(crate) fn tag_offset(&self, block: u64) -> u64 {
        self.page_segment_offset(block) + block % BLOCKS_PER_SEGMENT * TAG_BYTES as u64
    }

    /// Cells that there is room for.
    pub(crate) fn cell_capacity(&self) -> u64 {
        FIRST_CELLS + self.cell_segments.len() as u64 * CELLS_PER_SEGMENT
    }

    /// Where cell `cell` stands in the file; `None` behind the last one.
    pub(crate) fn cell_offset(&self, cell: u64) -> Option<u64> {
        if cell < FIRST_CELLS {
            return Some(FIRST_CELLS_OFFSET + cell * CELL_BYTES);
        }
        let (index, within) = (
            (cell - FIRST_CELLS) / CELLS_PER_SEGMENT,
            (cell - FIRST_CELLS) % CELLS_PER_SEGMENT,
        );
        let segment = *self.cell_segments.get(usize::try_from(index).ok()?)?;
        Some(SEGMENTS_OFFSET + u64::from(segment) * SEGMENT_BYTES + within * CELL_BYTES)
    }

    /// The segment behind everything that is in use: where the next cell segment goes. It lies behind every page
    /// segment in use, so making it one of cells moves no block.
    pub(crate) fn next_segment(&self) -> u64 {
        let behind_pages = match self.page_blocks.checked_sub(1) {
            Some(last) => self.page_segment(last / BLOCKS_PER_SEGMENT) + 1,
            None => 0,
        };
        let behind_cells = self.cell_segments.last().map_or(0, |last| u64::from(*last) + 1);
        behind_pages.max(behind_cells)
    }

    /// The length that the file must have at least, in bytes: to the end of redb's last block, or of the last cell
    /// segment.
    pub(crate) fn file_bytes(&self) -> u64 {
        let pages_end = match self.page_blocks.checked_sub(1) {
            Some(last) => self.block_offset(last) + BLOCK_BYTES,
            None => SEGMENTS_OFFSET,
        };
        let cells_end = self.cell_segments.last().map_or(SEGMENTS_OFFSET, |last| {
            SEGMENTS_OFFSET + (u64::from(*last) + 1) * SEGMENT_BYTES
        });
        pages_end.max(cells_end)
    }
}

/// The first `N` bytes, as an array. `bytes` must have so many.
pub(crate) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_regions_lie_where_the_format_says() {
        assert_eq!(FIRST_CELLS, 896);
        assert_eq!(CELLS_PER_SEGMENT, 16_384);
        assert_eq!(BLOCKS_PER_SEGMENT, 255);
        let empty = Layout::default();
        assert_eq!(empty.file_bytes(), 65_536 + (4 << 20));
        assert_eq!(empty.cell_offset(0), Some(8192));
        assert_eq!(empty.cell_offset(895), Some(65_536 - 64));
        assert_eq!(empty.cell_offset(896), None);
        let two = Layout {
            page_blocks: 256,
            cell_segments: vec![1],
        };
        assert_eq!(two.block_offset(0), SEGMENTS_OFFSET + 4096);
        assert_eq!(two.tag_offset(254), SEGMENTS_OFFSET + 254 * 16);
        assert_eq!(two.block_offset(255), SEGMENTS_OFFSET + 2 * SEGMENT_BYTES + 4096);
        assert_eq!(two.cell_offset(896), Some(SEGMENTS_OFFSET + SEGMENT_BYTES));
        assert_eq!(two.file_bytes(), SEGMENTS_OFFSET + 2 * SEGMENT_BYTES + 2 * 4096);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_page_segment_is_the_nth_that_holds_no_cells(cells in proptest::collection::btree_set(0u32..60, 0..30)) {
            let layout = Layout { page_blocks: 0, cell_segments: cells.iter().copied().collect() };
            let without: Vec<u64> = (0..200u64).filter(|n| !cells.contains(&(*n as u32))).collect();
            for (index, segment) in without.iter().enumerate() {
                prop_assert_eq!(layout.page_segment(index as u64), *segment);
            }
        }

        #[test]
        fn blocks_tags_and_cells_never_overlap_and_end_where_the_file_ends(
            page_blocks in 0u64..3000,
            cells in proptest::collection::btree_set(0u32..14, 0..4),
        ) {
            let layout = Layout { page_blocks, cell_segments: cells.into_iter().collect() };
            let mut taken = Vec::new();
            for block in 0..page_blocks {
                let tag = layout.tag_offset(block);
                prop_assert_eq!(tag / SECTOR_BYTES, (tag + TAG_BYTES as u64 - 1) / SECTOR_BYTES);
                taken.push((tag, tag + TAG_BYTES as u64));
                taken.push((layout.block_offset(block), layout.block_offset(block) + BLOCK_BYTES));
            }
            for cell in 0..layout.cell_capacity() {
                let offset = layout.cell_offset(cell).unwrap();
                taken.push((offset, offset + CELL_BYTES));
            }
            prop_assert_eq!(layout.cell_offset(layout.cell_capacity()), None);
            taken.sort_unstable();
            prop_assert!(taken.is_sorted_by(|one, next| one.1 <= next.0));
            prop_assert!(taken.last().unwrap().1 <= layout.file_bytes());
        }

        #[test]
        fn a_new_cell_segment_moves_no_block_and_no_cell(
            page_blocks in 0u64..3000,
            cells in proptest::collection::btree_set(0u32..14, 0..4),
        ) {
            let before = Layout { page_blocks, cell_segments: cells.into_iter().collect() };
            let mut after = before.clone();
            after.cell_segments.push(u32::try_from(before.next_segment()).unwrap());
            for block in 0..page_blocks {
                prop_assert_eq!(before.block_offset(block), after.block_offset(block));
            }
            for cell in 0..before.cell_capacity() {
                prop_assert_eq!(before.cell_offset(cell), after.cell_offset(cell));
            }
            prop_assert!(after.file_bytes() > before.file_bytes());
        }
    }
}
