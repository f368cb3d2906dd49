//! Rows on their way into the new store: many to a commit, and read back as if they were there already.

use crate::crypto::PlaceKey;
use crate::error::Result;
use crate::storage::records::{self, Record};
use crate::storage::{Committer, Rows, Snapshot, Table};
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// What is kept in memory before it is committed.
const PENDING_BYTES_MAX: usize = 512 << 10;
/// Rows that a scan takes at a time.
const SCAN_ROWS: usize = 1024;
/// Bytes that a scan takes at a time, the last row aside.
const SCAN_BYTES: usize = 512 << 10;

type Pending = BTreeMap<(u8, Vec<u8>), Option<Vec<u8>>>;

/// The one writer of a store that nobody else has yet.
pub(crate) struct Bulk<'c> {
    committer: &'c Committer,
    place: PlaceKey,
    pending: Pending,
    bytes: usize,
}

impl<'c> Bulk<'c> {
    pub(crate) fn new(committer: &'c Committer) -> Self {
        Self {
            committer,
            place: PlaceKey::of_store(&committer.container().store_id()),
            pending: BTreeMap::new(),
            bytes: 0,
        }
    }

    pub(crate) fn place(&self) -> &PlaceKey {
        &self.place
    }

    pub(crate) fn put(&mut self, table: Table, key: &[u8], row: Vec<u8>) -> Result<()> {
        self.note(table, key, Some(row))
    }

    pub(crate) fn put_record<R: Record>(&mut self, key: &[u8], record: &R) -> Result<()> {
        let row = records::encode(&self.place, key, record);
        self.put(R::TABLE, key, row)
    }

    pub(crate) fn remove(&mut self, table: Table, key: &[u8]) -> Result<()> {
        self.note(table, key, None)
    }

    fn note(&mut self, table: Table, key: &[u8], row: Option<Vec<u8>>) -> Result<()> {
        self.bytes += 64 + key.len() + row.as_ref().map_or(0, Vec::len);
        self.pending.insert((table as u8, key.to_vec()), row);
        if self.bytes >= PENDING_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    /// Commits what is pending.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.bytes = 0;
        if pending.is_empty() {
            return Ok(());
        }
        self.committer.submit(move |transaction| {
            for ((table, key), row) in &pending {
                let table = Table::from_number(*table).expect("it is the number of a table");
                match row {
                    Some(row) => transaction.put(table, key, row)?,
                    None => drop(transaction.remove(table, key)?),
                }
            }
            Ok(())
        })
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.pending.get(&(table as u8, key.to_vec())) {
            Some(row) => Ok(row.clone()),
            None => self
                .committer
                .snapshot()
                .get_with(table, key, |row| Ok(row.to_vec())),
        }
    }

    pub(crate) fn record<R: Record>(&self, key: &[u8]) -> Result<Option<R>> {
        self.get(R::TABLE, key)?
            .map(|row| records::decode(&self.place, key, &row))
            .transpose()
    }

    /// The store as it is now, with what was pending.
    pub(crate) fn snapshot(&mut self) -> Result<Arc<Snapshot>> {
        self.flush()?;
        Ok(self.committer.snapshot())
    }

    /// Visits the rows whose keys begin with `prefix`, in order, while `visit` writes: it sees them as they were when it came to
    /// them. No snapshot is held open meanwhile.
    pub(crate) fn each(
        &mut self,
        table: Table,
        prefix: &[u8],
        mut visit: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let to = crate::storage::tables::after_prefix(prefix);
        let mut from = Bound::Included(prefix.to_vec());
        loop {
            let mut rows = Vec::new();
            let mut bytes = 0;
            let snapshot = self.snapshot()?;
            snapshot.scan(
                table,
                from.as_ref().map(Vec::as_slice),
                to.as_deref(),
                |key, row| {
                    rows.push((key.to_vec(), row.to_vec()));
                    bytes += key.len() + row.len();
                    Ok(if rows.len() < SCAN_ROWS && bytes < SCAN_BYTES {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    })
                },
            )?;
            drop(snapshot);
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            from = Bound::Excluded(last.clone());
            for (key, row) in &rows {
                visit(self, key, row)?;
            }
        }
    }
}
