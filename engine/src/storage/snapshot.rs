//! Reading: the rows of one consistent state of the store.

use crate::crypto::PlaceKey;
use crate::error::{Error, Result};
use crate::storage::boundary::{Boundary, Guarded, holding};
use crate::storage::records::{self, Record};
use crate::storage::tables::{self, TABLE_COUNT, Table};
use crate::storage::transaction::{Bytes, definition, failed};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, OnceLock};

/// The rows of one consistent state of the store.
pub(crate) trait Rows {
    fn place(&self) -> &PlaceKey;

    /// Shows a row, where it lies, to `read`.
    fn get_with<T>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<Option<T>>;

    /// Visits the rows with `from <= key < to` in order, until `visit` breaks. `None` for `to`: to the end.
    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Option<&[u8]>,
        visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()>;

    fn record<R: Record>(&self, key: &[u8]) -> Result<Option<R>> {
        self.get_with(R::TABLE, key, |row| records::decode(self.place(), key, row))
    }

    /// Visits the rows whose keys begin with `prefix`.
    fn scan_prefix(
        &self,
        table: Table,
        prefix: &[u8],
        visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let end = tables::after_prefix(prefix);
        self.scan(table, Bound::Included(prefix), end.as_deref(), visit)
    }

    /// A number kept in the table of facts of the whole store; 0 when it was never written.
    fn fact(&self, name: &str) -> Result<u64> {
        let value = self.get_with(Table::Store, name.as_bytes(), |row| {
            let bytes = row
                .try_into()
                .map_err(|_| records::damaged(Table::Store, "it has the wrong length"))?;
            Ok(u64::from_le_bytes(bytes))
        })?;
        Ok(value.unwrap_or(0))
    }
}

/// A state of the store that readers share until a commit replaces it. Costs nothing to keep but the pages that later
/// commits cannot reuse meanwhile: keep it short.
pub(crate) struct Snapshot {
    boundary: Arc<Boundary>,
    tables: Guarded<[OnceLock<ReadOnlyTable<Bytes, Bytes>>; TABLE_COUNT]>,
    transaction: Guarded<ReadTransaction>,
    place: Arc<PlaceKey>,
    /// Grows with every commit of this open store.
    pub(crate) sequence: u64,
}

impl Snapshot {
    pub(crate) fn new(
        boundary: &Arc<Boundary>,
        transaction: ReadTransaction,
        place: Arc<PlaceKey>,
        sequence: u64,
    ) -> Self {
        Self {
            boundary: Arc::clone(boundary),
            tables: Guarded::new(boundary, Default::default()),
            transaction: Guarded::new(boundary, transaction),
            place,
            sequence,
        }
    }

    fn table(&self, table: Table) -> Result<&ReadOnlyTable<Bytes, Bytes>> {
        let slot = &self.tables[table as usize];
        if let Some(open) = slot.get() {
            return Ok(open);
        }
        let open = self
            .transaction
            .open_table(definition(table))
            .map_err(failed("opening a table"))?;
        Ok(slot.get_or_init(|| open))
    }
}

impl Rows for Snapshot {
    fn place(&self) -> &PlaceKey {
        &self.place
    }

    fn get_with<T>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<Option<T>> {
        self.boundary
            .call("reading a row", || get_row(self.table(table)?, key, read))
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Option<&[u8]>,
        visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.boundary
            .call("reading rows", || scan_table(self.table(table)?, from, to, visit))
    }
}

/// Hands out rows in the order of their keys, which must rise: of pages that were put together by somebody, redb may hand out
/// rows from before `from`, or go round in circles, and whoever scans would never end.
pub(super) fn scan_table(
    table: &impl ReadableTable<Bytes, Bytes>,
    from: Bound<&[u8]>,
    to: Option<&[u8]>,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let to = to.map_or(Bound::Unbounded, Bound::Excluded);
    let (mut before, mut may_equal) = match from {
        Bound::Included(key) => (key.to_vec(), true),
        Bound::Excluded(key) => (key.to_vec(), false),
        Bound::Unbounded => (Vec::new(), true),
    };
    let mut next = |key: &[u8], value: &[u8]| {
        if key < &before[..] || (key == &before[..] && !may_equal) {
            return Err(Error::damaged(
                "the rows of a table",
                "their keys are out of order",
            ));
        }
        before.clear();
        before.extend_from_slice(key);
        may_equal = false;
        visit(key, value)
    };
    let rows = table.range::<&[u8]>((from, to)).map_err(failed("reading rows"))?;
    holding(rows, |rows| {
        for row in rows {
            let row = row.map_err(failed("reading rows"))?;
            if holding(row, |(key, value)| next(key.value(), value.value()))?.is_break() {
                break;
            }
        }
        Ok(())
    })
}

pub(super) fn get_row<T>(
    table: &impl ReadableTable<Bytes, Bytes>,
    key: &[u8],
    read: impl FnOnce(&[u8]) -> Result<T>,
) -> Result<Option<T>> {
    match table.get(key).map_err(failed("reading a row"))? {
        Some(row) => holding(row, |row| read(row.value())).map(Some),
        None => Ok(None),
    }
}
