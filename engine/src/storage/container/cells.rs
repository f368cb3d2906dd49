//! Shred cells: small keys that are overwritten in place.
//!
//! A cell is 32 bytes of key, 8 zero bytes, and 24 bytes of tag over its number and key; an erased one is 64 zero bytes.
//! 64 divides 512: a cell never crosses a sector, and when a sector is torn or rewritten around it, its neighbours are
//! written with the bytes they had.

use std::ops::Range;
use std::sync::PoisonError;

use keystead_backend::LockedBytes;
use zeroize::Zeroizing;

use super::error::ContainerError;
use super::geometry::{CELL_BYTES, CELLS_PER_SEGMENT, FIRST_CELLS, Layout};
use super::header::CELL_SEGMENTS_MAX;
use super::{Container, Inner};
use crate::mutant::{Mutant, planted};

const CELL: usize = CELL_BYTES as usize;
const KEY: usize = 32;
const TAG_AT: usize = 40;
/// Cells that go out in one write at most.
const CELLS_PER_WRITE: usize = 1024;
/// Cells that come in with one read at most: a whole segment.
const CELLS_PER_READ: u64 = CELLS_PER_SEGMENT;

const READING: &str = "reading shred cells";
const WRITING: &str = "writing shred cells";
const ERASING: &str = "erasing shred cells";

/// The number of a shred cell, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CellNumber(pub(crate) u64);

impl Container {
    /// Cells that there is room for now. [`write_cells`](Self::write_cells) makes more room as needed.
    pub(crate) fn cell_capacity(&self) -> u64 {
        self.inner.layout().cell_capacity()
    }

    /// Writes keys into cells and makes them durable with one sync (and, when the cells need another segment, the two of
    /// making one). What stood in the cells is replaced.
    ///
    /// # Errors
    ///
    /// [`ContainerError::NoRoomForCells`] beyond the most that a store holds: nothing is changed then.
    pub(crate) fn write_cells(&self, cells: &[(CellNumber, &[u8; KEY])]) -> Result<(), ContainerError> {
        let Some(highest) = cells.iter().map(|(cell, _)| *cell).max() else {
            return Ok(());
        };
        self.inner.make_room_for(highest)?;
        let mut sorted: Vec<_> = cells.iter().map(|(cell, key)| (cell.0, Some(*key))).collect();
        sorted.sort_by_key(|(cell, _)| *cell);
        self.inner.write_runs(&sorted, WRITING)?;
        if planted(Mutant::CellUnsynced) {
            return Ok(());
        }
        self.inner.disk.sync(WRITING)
    }

    /// Overwrites cells in place with zeros and makes that durable with one sync.
    ///
    /// # Errors
    ///
    /// [`ContainerError::NoSuchCell`] when one of them is not there: none is erased then.
    pub(crate) fn erase_cells(&self, cells: &[CellNumber]) -> Result<(), ContainerError> {
        if cells.is_empty() {
            return Ok(());
        }
        let mut sorted: Vec<_> = cells.iter().map(|cell| (cell.0, None)).collect();
        sorted.sort_by_key(|(cell, _)| *cell);
        self.inner.write_runs(&sorted, ERASING)?;
        self.inner.disk.sync(ERASING)
    }

    /// The key in a cell.
    ///
    /// # Errors
    ///
    /// [`ContainerError::ErasedCell`], [`ContainerError::DamagedCell`], [`ContainerError::NoSuchCell`].
    pub(crate) fn read_cell(&self, cell: CellNumber) -> Result<LockedBytes, ContainerError> {
        let bytes = self.inner.read_cell_bytes(cell)?;
        let (key, rest) = bytes.split_at(KEY);
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(ContainerError::ErasedCell { cell });
        }
        let tag = self.inner.tags.cell(cell.0, key);
        if rest[..TAG_AT - KEY] != [0; TAG_AT - KEY] || rest[TAG_AT - KEY..] != tag {
            return Err(ContainerError::DamagedCell { cell });
        }
        Ok(LockedBytes::copy_from(key))
    }

    /// True when a cell is erased (or was never written).
    pub(crate) fn cell_is_erased(&self, cell: CellNumber) -> Result<bool, ContainerError> {
        Ok(self.inner.read_cell_bytes(cell)?.iter().all(|byte| *byte == 0))
    }

    /// Erases what is not erased among these cells, with one sync if there was any; says how many there were. Cells of
    /// the range that there is no room for are none. For the reconciliation at opening: reads up to 1 MiB at a time.
    pub(crate) fn erase_unclaimed(&self, cells: Range<u64>) -> Result<u64, ContainerError> {
        let layout = self.inner.layout();
        let end = cells.end.min(layout.cell_capacity());
        let mut unclaimed = Vec::new();
        let mut first = cells.start;
        while first < end {
            let extent_end = match first.checked_sub(FIRST_CELLS) {
                None => FIRST_CELLS,
                Some(behind) => FIRST_CELLS + (behind / CELLS_PER_SEGMENT + 1) * CELLS_PER_SEGMENT,
            };
            let count = (extent_end.min(end) - first).min(CELLS_PER_READ);
            let mut bytes = Zeroizing::new(vec![0; count as usize * CELL]);
            let offset = layout
                .cell_offset(first)
                .ok_or_else(|| no_such_cell(&layout, first))?;
            self.inner.disk.read_at(offset, &mut bytes, READING)?;
            let present = bytes
                .as_chunks::<CELL>()
                .0
                .iter()
                .zip(first..)
                .filter(|(cell, _)| **cell != [0; CELL]);
            unclaimed.extend(present.map(|(_, number)| (number, None)));
            first += count;
        }
        if !unclaimed.is_empty() {
            self.inner.write_runs(&unclaimed, ERASING)?;
            self.inner.disk.sync(ERASING)?;
        }
        Ok(unclaimed.len() as u64)
    }
}

fn no_such_cell(layout: &Layout, cell: u64) -> ContainerError {
    ContainerError::NoSuchCell {
        cell: CellNumber(cell),
        capacity: layout.cell_capacity(),
    }
}

impl Inner {
    fn read_cell_bytes(&self, cell: CellNumber) -> Result<Zeroizing<[u8; CELL]>, ContainerError> {
        let layout = self.layout();
        let offset = layout
            .cell_offset(cell.0)
            .ok_or_else(|| no_such_cell(&layout, cell.0))?;
        let mut bytes = Zeroizing::new([0; CELL]);
        self.disk.read_at(offset, &mut *bytes, READING)?;
        Ok(bytes)
    }

    /// Adds the cell segments that are missing for `highest`. A segment is zero, long enough and durable before the
    /// header lists it, and the header is durable before a cell of it is written.
    fn make_room_for(&self, highest: CellNumber) -> Result<(), ContainerError> {
        if highest.0 < self.layout().cell_capacity() {
            return Ok(());
        }
        let most = FIRST_CELLS + CELL_SEGMENTS_MAX as u64 * CELLS_PER_SEGMENT;
        let no_room = || ContainerError::NoRoomForCells { cell: highest, most };
        if highest.0 >= most {
            return Err(no_room());
        }
        let mut writer = self.header.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.layout();
        let mut new = (*old).clone();
        while highest.0 >= new.cell_capacity() {
            let segment = u32::try_from(new.next_segment()).map_err(|_| no_room())?;
            new.cell_segments.push(segment);
        }
        if new != *old {
            self.extend(&old, &new, "adding a segment of shred cells")?;
            self.disk.sync("adding a segment of shred cells")?;
            self.write_header(&mut writer, new)?;
        }
        Ok(())
    }

    /// Writes cells sorted by their numbers: a key, or zeros for `None`. Cells that stand together go out in one write.
    fn write_runs(
        &self,
        cells: &[(u64, Option<&[u8; KEY]>)],
        doing: &'static str,
    ) -> Result<(), ContainerError> {
        let layout = self.layout();
        let mut offsets = Vec::with_capacity(cells.len());
        for (cell, _) in cells {
            offsets.push(
                layout
                    .cell_offset(*cell)
                    .ok_or_else(|| no_such_cell(&layout, *cell))?,
            );
        }
        // Never grown beyond this: growing would leave a copy of keys behind.
        let mut run = Zeroizing::new(Vec::with_capacity(cells.len().min(CELLS_PER_WRITE) * CELL));
        let mut run_offset = 0;
        for ((cell, key), offset) in cells.iter().zip(offsets) {
            if run.len() == CELLS_PER_WRITE * CELL || offset != run_offset + run.len() as u64 {
                self.write_run(run_offset, &mut run, doing)?;
                run_offset = offset;
            }
            match key {
                Some(key) => {
                    run.extend_from_slice(*key);
                    run.extend_from_slice(&[0; TAG_AT - KEY]);
                    run.extend_from_slice(&self.tags.cell(*cell, *key));
                }
                None => run.extend_from_slice(&[0; CELL]),
            }
        }
        self.write_run(run_offset, &mut run, doing)
    }

    fn write_run(&self, offset: u64, run: &mut Vec<u8>, doing: &'static str) -> Result<(), ContainerError> {
        if !run.is_empty() {
            self.disk.write_at(offset, run, doing)?;
            run.clear();
        }
        Ok(())
    }
}
