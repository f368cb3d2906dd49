//! What is measured side by side: Keystead, raw redb, SQLCipher.

mod keystead;
mod raw_redb;
#[cfg(feature = "sqlcipher")]
mod sqlcipher;

pub(crate) use self::keystead::{Keystead, ORGANIZATION, OWN};
pub(crate) use raw_redb::{Durable, RawRedb};
#[cfg(feature = "sqlcipher")]
pub(crate) use sqlcipher::SqlCipher;

use crate::workload::Row;
use anyhow::Result;

/// A store that takes and gives secrets.
pub(crate) trait Engine: Sync {
    /// What it is called in the table.
    fn name(&self) -> &'static str;

    /// What one thread works with.
    fn session(&self) -> Result<Box<dyn Session + '_>>;
}

/// One thread's access to a store.
pub(crate) trait Session: Send {
    /// Writes one value; durable when it returns.
    fn put(&mut self, row: &Row) -> Result<()>;

    /// Writes many values in one commit; durable when it returns.
    fn put_all(&mut self, rows: &[Row]) -> Result<()>;

    /// Reads one value: a copy that belongs to the caller, as an application needs it; shown to `see`.
    fn get(&mut self, path: &str, see: &mut dyn FnMut(&[u8])) -> Result<()>;
}
