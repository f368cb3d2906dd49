//! SQLCipher: one table, path → value, write-ahead log, every commit synced, the key given raw (no passphrase to stretch).

use crate::engines::{Engine, Session};
use crate::workload::Row;
use anyhow::{Result, ensure};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) struct SqlCipher {
    path: PathBuf,
    cache_bytes: usize,
}

impl SqlCipher {
    pub(crate) fn create(path: &Path, cache_bytes: usize) -> Result<Self> {
        let engine = Self {
            path: path.to_path_buf(),
            cache_bytes,
        };
        engine
            .connect()?
            .execute_batch("CREATE TABLE secrets (path TEXT PRIMARY KEY, value BLOB NOT NULL)")?;
        Ok(engine)
    }

    /// A store that is there.
    pub(crate) fn at(path: &Path, cache_bytes: usize) -> Self {
        Self {
            path: path.to_path_buf(),
            cache_bytes,
        }
    }

    /// Its version, as it says itself.
    pub(crate) fn version() -> Result<String> {
        Ok(Connection::open_in_memory()?.query_row("PRAGMA cipher_version", [], |row| row.get(0))?)
    }

    fn connect(&self) -> Result<Connection> {
        let connection = Connection::open(&self.path)?;
        let key = "6b65797374656164206d6561737572657320697473656c66206865726521212e";
        connection.execute_batch(&format!("PRAGMA key = \"x'{key}'\""))?;
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        ensure!(mode == "wal", "SQLCipher keeps the journal mode {mode}");
        connection.execute_batch("PRAGMA synchronous = FULL")?;
        connection.execute_batch(&format!("PRAGMA cache_size = -{}", self.cache_bytes / 1024))?;
        connection.busy_timeout(Duration::from_secs(60))?;
        Ok(connection)
    }
}

impl Engine for SqlCipher {
    fn name(&self) -> &'static str {
        "SQLCipher"
    }

    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(SqlCipherSession {
            connection: self.connect()?,
        }))
    }
}

struct SqlCipherSession {
    connection: Connection,
}

const PUT: &str = "INSERT OR REPLACE INTO secrets (path, value) VALUES (?1, ?2)";

impl Session for SqlCipherSession {
    fn put(&mut self, row: &Row) -> Result<()> {
        self.connection
            .prepare_cached(PUT)?
            .execute((&row.path, &row.value))?;
        Ok(())
    }

    fn put_all(&mut self, rows: &[Row]) -> Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut put = transaction.prepare_cached(PUT)?;
            for row in rows {
                put.execute((&row.path, &row.value))?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn get(&mut self, path: &str, see: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut get = self
            .connection
            .prepare_cached("SELECT value FROM secrets WHERE path = ?1")?;
        let value: Vec<u8> = get.query_row([path], |row| row.get(0))?;
        see(&value);
        Ok(())
    }
}
