//! redb alone: one table, path → value, nothing encrypted.

use crate::engines::{Engine, Session};
use crate::workload::Row;
use anyhow::{Context, Result};
use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition};
use std::path::Path;

pub(crate) const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("secrets");

/// How its commits are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    /// redb's default: one sync. An open after a crash reads the whole file.
    OnePhase,
    /// Two syncs: damage to the newest commit cannot serve the one before it.
    TwoPhase,
    /// Two syncs and the allocator's state with each commit: opens at once after a crash, as Keystead does.
    QuickRepair,
}

impl Durable {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OnePhase => "redb, one phase",
            Self::TwoPhase => "redb, two phases",
            Self::QuickRepair => "redb, quick repair",
        }
    }
}

pub(crate) struct RawRedb {
    database: Database,
    durable: Durable,
}

impl RawRedb {
    pub(crate) fn create(path: &Path, cache_bytes: usize, durable: Durable) -> Result<Self> {
        let database = Database::builder().set_cache_size(cache_bytes).create(path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(TABLE)?;
        transaction.commit()?;
        Ok(Self { database, durable })
    }

    pub(crate) fn open(path: &Path, cache_bytes: usize, durable: Durable) -> Result<Self> {
        Ok(Self {
            database: Database::builder().set_cache_size(cache_bytes).open(path)?,
            durable,
        })
    }

    /// A read transaction of the caller's own.
    pub(crate) fn begin_read(&self) -> Result<ReadTransaction> {
        Ok(self.database.begin_read()?)
    }

    fn write(&self, rows: &[Row]) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_two_phase_commit(self.durable == Durable::TwoPhase);
        transaction.set_quick_repair(self.durable == Durable::QuickRepair);
        {
            let mut table = transaction.open_table(TABLE)?;
            for row in rows {
                table.insert(row.path.as_bytes(), row.value.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Engine for RawRedb {
    fn name(&self) -> &'static str {
        self.durable.name()
    }

    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(RawRedbSession { engine: self }))
    }
}

struct RawRedbSession<'e> {
    engine: &'e RawRedb,
}

impl Session for RawRedbSession<'_> {
    fn put(&mut self, row: &Row) -> Result<()> {
        self.engine.write(std::slice::from_ref(row))
    }

    fn put_all(&mut self, rows: &[Row]) -> Result<()> {
        self.engine.write(rows)
    }

    fn get(&mut self, path: &str, see: &mut dyn FnMut(&[u8])) -> Result<()> {
        let table = self.engine.database.begin_read()?.open_table(TABLE)?;
        let value = table
            .get(path.as_bytes())?
            .context("a secret that was written is not there")?
            .value()
            .to_vec();
        see(&value);
        Ok(())
    }
}
