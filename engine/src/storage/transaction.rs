//! Changing rows inside of the one writer.

use crate::crypto::PlaceKey;
use crate::error::{Error, Result};
use crate::mutant::{Mutant, planted};
use crate::storage::boundary::{Boundary, Guarded};
use crate::storage::container::{CellNumber, ContainerError};
use crate::storage::records::{self, Record};
use crate::storage::snapshot::{Rows, get_row, scan_table};
use crate::storage::tables::{self, TABLE_COUNT, Table};
use redb::{TableDefinition, WriteTransaction};
use std::cell::{OnceCell, RefCell};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use zeroize::Zeroizing;

pub(super) type Bytes = &'static [u8];

pub(crate) fn definition(table: Table) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(table.name())
}

/// Changes inside of the one writer: what it reads, it reads with its own changes.
///
/// Every change is applied to redb's tables and noted for the journal in one step.
pub(crate) struct Transaction<'t> {
    boundary: Arc<Boundary>,
    transaction: &'t WriteTransaction,
    tables: Guarded<[OpenOnce<'t>; TABLE_COUNT]>,
    place: Arc<PlaceKey>,
    effects: Effects,
}

/// A table, once something needed it.
type OpenOnce<'t> = OnceCell<RefCell<redb::Table<'t, Bytes, Bytes>>>;

/// What a transaction did, beside the rows in redb's tables.
#[derive(Default)]
pub(crate) struct Effects {
    /// The changes of rows, as the journal records them.
    pub(crate) journal: Vec<u8>,
    pub(crate) changes: u64,
    /// Cells to be written and synced before the commit.
    pub(crate) staged_cells: Vec<(CellNumber, Zeroizing<[u8; 32]>)>,
    /// Cells to be overwritten after it.
    pub(crate) dropped_cells: Vec<CellNumber>,
}

/// Numbers one past the highest cell that was ever given out.
const FACT_CELLS_USED: &str = "cells_used";

impl<'t> Transaction<'t> {
    pub(crate) fn new(
        boundary: &Arc<Boundary>,
        transaction: &'t WriteTransaction,
        place: Arc<PlaceKey>,
    ) -> Self {
        Self {
            boundary: Arc::clone(boundary),
            transaction,
            tables: Guarded::new(boundary, Default::default()),
            place,
            effects: Effects::default(),
        }
    }

    pub(crate) fn into_effects(self) -> Effects {
        self.effects
    }

    /// How many changes were made so far: a change that fails before its first leaves nothing behind.
    pub(crate) fn changes(&self) -> u64 {
        self.effects.changes
    }

    pub(crate) fn journal_bytes(&self) -> usize {
        self.effects.journal.len()
    }

    pub(crate) fn cell_changes(&self) -> usize {
        self.effects.staged_cells.len() + self.effects.dropped_cells.len()
    }

    fn table(&self, table: Table) -> Result<&RefCell<redb::Table<'t, Bytes, Bytes>>> {
        let slot = &self.tables[table as usize];
        if let Some(open) = slot.get() {
            return Ok(open);
        }
        let open = self
            .transaction
            .open_table(definition(table))
            .map_err(failed("opening a table"))?;
        Ok(slot.get_or_init(|| RefCell::new(open)))
    }

    /// Writes a row, new or in place of the old one.
    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        self.boundary.call("writing a row", || {
            let mut open = self.table(table)?.borrow_mut();
            open.insert(key, value).map_err(failed("writing a row"))?;
            Ok(())
        })?;
        self.note(JournalOp::Put { table, key, value });
        Ok(())
    }

    pub(crate) fn put_record<R: Record>(&mut self, key: &[u8], record: &R) -> Result<()> {
        let row = records::encode(&self.place, key, record);
        self.put(R::TABLE, key, &row)
    }

    pub(crate) fn put_fact(&mut self, name: &str, value: u64) -> Result<()> {
        self.put(Table::Store, name.as_bytes(), &value.to_le_bytes())
    }

    /// Writes a row if it is still as expected; says whether it was. One way down the tree when it was, which is the rule.
    pub(crate) fn replace(
        &mut self,
        table: Table,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
    ) -> Result<bool> {
        let replaced = self.boundary.call("writing a row", || {
            let mut open = self.table(table)?.borrow_mut();
            let found = open
                .insert(key, value)
                .map_err(failed("writing a row"))?
                .map(|old| {
                    let old = old.value();
                    (old != expected).then(|| old.to_vec())
                });
            match found {
                Some(None) => Ok(true),
                _ if planted(Mutant::RowOverwritten) => Ok(true),
                Some(Some(other)) => {
                    open.insert(key, &other[..]).map_err(failed("writing a row"))?;
                    Ok(false)
                }
                None => {
                    open.remove(key).map_err(failed("removing a row"))?;
                    Ok(false)
                }
            }
        })?;
        if replaced {
            self.note(JournalOp::Put { table, key, value });
        }
        Ok(replaced)
    }

    /// Removes a row; says whether there was one.
    pub(crate) fn remove(&mut self, table: Table, key: &[u8]) -> Result<bool> {
        let was_there = self.boundary.call("removing a row", || {
            let mut open = self.table(table)?.borrow_mut();
            let old = open.remove(key).map_err(failed("removing a row"))?;
            Ok(old.is_some())
        })?;
        if was_there {
            self.note(JournalOp::Remove { table, key });
        }
        Ok(was_there)
    }

    /// Takes a free shred cell, or a new one, for `shred_key`. The cell is written and synced before this transaction
    /// commits, and is free again if it does not.
    pub(crate) fn stage_cell(&mut self, shred_key: Zeroizing<[u8; 32]>) -> Result<CellNumber> {
        let mut free = None;
        self.scan(Table::CellsFree, Bound::Unbounded, None, |key, _| {
            free = Some(parse_cell(Table::CellsFree, key)?);
            Ok(ControlFlow::Break(()))
        })?;
        let cell = match free {
            Some(cell) => {
                self.remove(Table::CellsFree, &tables::cell(cell.0))?;
                cell
            }
            None => {
                let cell = self.fact(FACT_CELLS_USED)?;
                self.put_fact(FACT_CELLS_USED, cell + 1)?;
                CellNumber(cell)
            }
        };
        self.effects.staged_cells.push((cell, shred_key));
        Ok(cell)
    }

    /// Gives up a cell: it is overwritten as soon as this transaction is durable.
    pub(crate) fn drop_cell(&mut self, cell: CellNumber) -> Result<()> {
        let table = match planted(Mutant::CellReusedEarly) {
            true => Table::CellsFree,
            false => Table::CellsErasing,
        };
        self.put(table, &tables::cell(cell.0), &[])?;
        self.effects.dropped_cells.push(cell);
        Ok(())
    }

    /// Moves cells that are overwritten from the erasing to the free ones.
    pub(crate) fn free_cells(&mut self, cells: &[CellNumber]) -> Result<()> {
        for cell in cells {
            if self.remove(Table::CellsErasing, &tables::cell(cell.0))? {
                self.put(Table::CellsFree, &tables::cell(cell.0), &[])?;
            }
        }
        Ok(())
    }

    /// Applies what [`Effects::journal`] noted, when a journal is replayed.
    pub(crate) fn apply_journal(&mut self, mut payload: &[u8]) -> Result<()> {
        while !payload.is_empty() {
            let (op, rest) = JournalOp::decode(payload)
                .ok_or_else(|| Error::damaged("a journal record", "its tag fits, but it does not decode"))?;
            match op {
                JournalOp::Put { table, key, value } => self.put(table, key, value)?,
                JournalOp::Remove { table, key } => {
                    self.remove(table, key)?;
                }
            }
            payload = rest;
        }
        Ok(())
    }

    fn note(&mut self, op: JournalOp<'_>) {
        op.encode(&mut self.effects.journal);
        self.effects.changes += 1;
    }
}

impl Rows for Transaction<'_> {
    fn place(&self) -> &PlaceKey {
        &self.place
    }

    fn get_with<T>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<Option<T>> {
        self.boundary.call("reading a row", || {
            get_row(&*self.table(table)?.borrow(), key, read)
        })
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Option<&[u8]>,
        visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.boundary.call("reading rows", || {
            scan_table(&*self.table(table)?.borrow(), from, to, visit)
        })
    }
}

/// Cells ever given out: the numbers below it are in use, erasing or free.
pub(crate) fn cells_used(rows: &impl Rows) -> Result<u64> {
    rows.fact(FACT_CELLS_USED)
}

/// The cells in this table, at most so many.
pub(crate) fn cells_in(rows: &impl Rows, table: Table, most: usize) -> Result<Vec<CellNumber>> {
    let mut cells = Vec::new();
    rows.scan(table, Bound::Unbounded, None, |key, _| {
        if cells.len() == most {
            return Ok(ControlFlow::Break(()));
        }
        cells.push(parse_cell(table, key)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(cells)
}

pub(crate) fn parse_cell(table: Table, key: &[u8]) -> Result<CellNumber> {
    let bytes = key
        .try_into()
        .map_err(|_| records::damaged(table, "its key has the wrong length"))?;
    Ok(CellNumber(u64::from_be_bytes(bytes)))
}

/// One change of a row, as the journal records it: operation and table in one byte, the key's length (2 bytes) and the
/// key; for a put the value's length (4 bytes) and the value. Numbers are little-endian.
enum JournalOp<'a> {
    Put {
        table: Table,
        key: &'a [u8],
        value: &'a [u8],
    },
    Remove {
        table: Table,
        key: &'a [u8],
    },
}

const REMOVE_BIT: u8 = 0x80;

impl<'a> JournalOp<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        let (op, key) = match self {
            Self::Put { table, key, .. } => (*table as u8, key),
            Self::Remove { table, key } => (*table as u8 | REMOVE_BIT, key),
        };
        out.push(op);
        out.extend_from_slice(
            &u16::try_from(key.len())
                .expect("keys of rows are short")
                .to_le_bytes(),
        );
        out.extend_from_slice(key);
        if let Self::Put { value, .. } = self {
            out.extend_from_slice(
                &u32::try_from(value.len())
                    .expect("rows are below 4 GiB")
                    .to_le_bytes(),
            );
            out.extend_from_slice(value);
        }
    }

    fn decode(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&op, bytes) = bytes.split_first()?;
        let table = Table::from_number(op & !REMOVE_BIT)?;
        let (len, bytes) = bytes.split_first_chunk()?;
        let (key, bytes) = bytes.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        if op & REMOVE_BIT != 0 {
            return Some((Self::Remove { table, key }, bytes));
        }
        let (len, bytes) = bytes.split_first_chunk()?;
        let (value, bytes) = bytes.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
        Some((Self::Put { table, key, value }, bytes))
    }
}

/// Visits the changes of a journal record: table, key, and the row that was put, or `None` when it was removed. Says whether the
/// record decoded to its end.
pub(crate) fn journal_changes(
    mut payload: &[u8],
    mut visit: impl FnMut(Table, &[u8], Option<&[u8]>) -> Result<()>,
) -> Result<bool> {
    while !payload.is_empty() {
        let Some((op, rest)) = JournalOp::decode(payload) else {
            return Ok(false);
        };
        match op {
            JournalOp::Put { table, key, value } => visit(table, key, Some(value))?,
            JournalOp::Remove { table, key } => visit(table, key, None)?,
        }
        payload = rest;
    }
    Ok(true)
}

/// What the codec of journal records makes of any bytes: how many operations it reads, and whether they encode as they were.
#[cfg(feature = "simulation")]
pub(crate) fn journal_codec_holds(payload: &[u8]) -> (usize, bool) {
    let (mut rest, mut operations, mut encoded) = (payload, 0, Vec::new());
    while let Some((op, after)) = JournalOp::decode(rest) {
        op.encode(&mut encoded);
        operations += 1;
        rest = after;
    }
    (
        operations,
        payload.starts_with(&encoded) && payload.len() == encoded.len() + rest.len(),
    )
}

/// Turns redb's errors into ours: damage stays damage, everything else is a failure of the storage.
pub(crate) fn failed<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> Error {
    move |error| match error.into() {
        redb::Error::Corrupted(reason) => Error::damaged("a page", reason),
        redb::Error::Io(error) => io_failed(doing, error),
        redb::Error::DatabaseClosed | redb::Error::PreviousIo => Error::Closed {
            reason: "an earlier read or write of its file failed; open it again".into(),
        },
        other => Error::Storage {
            doing,
            reason: other.to_string(),
        },
    }
}

fn io_failed(doing: &'static str, error: std::io::Error) -> Error {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<ContainerError>())
    {
        Some(container) => container_failed(doing, container),
        None => Error::Storage {
            doing,
            reason: error.to_string(),
        },
    }
}

/// The same for errors of the container.
pub(crate) fn container_failed(doing: &'static str, error: &ContainerError) -> Error {
    if error.is_damage() {
        Error::damaged("the file", error.to_string())
    } else {
        Error::Storage {
            doing,
            reason: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_journals_operations_survive_their_encoding(ops in proptest::collection::vec((0..16u8, any::<bool>(), any::<Vec<u8>>(), any::<Vec<u8>>()), 0..8)) {
            let mut bytes = Vec::new();
            for (table, put, key, value) in &ops {
                let table = Table::from_number(*table).unwrap();
                if *put { JournalOp::Put { table, key, value } } else { JournalOp::Remove { table, key } }.encode(&mut bytes);
            }
            let mut rest = &bytes[..];
            for (number, put, key, value) in &ops {
                let (op, after) = JournalOp::decode(rest).unwrap();
                match op {
                    JournalOp::Put { table, key: k, value: v } => prop_assert!(*put && table as u8 == *number && k == key && v == value),
                    JournalOp::Remove { table, key: k } => prop_assert!(!put && table as u8 == *number && k == key),
                }
                rest = after;
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            while let Some((_, after)) = JournalOp::decode(rest) { rest = after; }
        }
    }
}
