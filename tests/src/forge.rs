//! Editing a store file as somebody does who knows the format: through redb, with every tag made anew. Written from
//! `docs/format.md`, not from the engine's code.

use redb::{Database, StorageBackend, TableDefinition};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const BLOCK: usize = 4096;
const SEGMENTS: usize = 65_536 + (4 << 20);
const SEGMENT: usize = 1 << 20;
const BLOCKS_PER_SEGMENT: usize = 255;

/// A table, by the name and the number that the format gives it.
#[derive(Debug, Clone, Copy)]
pub struct Table(pub &'static str, pub u8);

/// The tables that the tests edit.
#[allow(missing_docs, reason = "their names are those of the format")]
impl Table {
    pub const STORE: Self = Self("store", 0);
    pub const HEADS: Self = Self("heads", 3);
    pub const KEYS: Self = Self("keys", 4);
    pub const EPOCHS: Self = Self("epochs", 5);
    pub const SECRETS: Self = Self("secrets", 6);
    pub const VERSIONS: Self = Self("versions", 7);
    pub const DATA_KEYS: Self = Self("data_keys", 8);
    pub const CHUNKS: Self = Self("chunks", 9);
    pub const DELETIONS: Self = Self("deletions", 11);
    pub const AUDIT: Self = Self("audit", 13);
    pub const CELLS_FREE: Self = Self("cells_free", 15);
}

/// The rows of a store file that nobody has open.
pub struct Forge {
    file: Vec<u8>,
    pages: Pages,
    store_id: [u8; 16],
}

impl Forge {
    /// Takes a store file that was closed: its journal holds nothing that counts.
    ///
    /// # Panics
    ///
    /// When it is no store of format 1, or has segments of cells (stores of these tests have not).
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let file = std::fs::read(path).expect("the store is there");
        assert_eq!(&file[..8], b"KEYSTEAD");
        let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes"));
        assert_eq!(number(72), 0, "a store without segments of cells");
        let blocks = number(64) as usize;
        let mut pages = vec![0; blocks * BLOCK];
        for (block, page) in pages.chunks_mut(BLOCK).enumerate() {
            let at = offset_of(block);
            page.copy_from_slice(&file[at..at + BLOCK]);
        }
        pages[480..BLOCK].fill(0);
        Self {
            store_id: file[24..40].try_into().expect("sixteen bytes"),
            pages: Pages(Arc::new(Mutex::new(pages))),
            file,
        }
    }

    /// Edits rows and writes the file anew.
    ///
    /// # Panics
    ///
    /// When the disk fails, or redb does.
    pub fn edit(mut self, path: &Path, edit: impl FnOnce(&mut Rows<'_>)) {
        let database = Database::builder()
            .create_with_backend(self.pages.clone())
            .expect("the pages are whole");
        let mut transaction = database.begin_write().expect("nobody else writes");
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        edit(&mut Rows {
            transaction: &transaction,
            store_id: self.store_id,
        });
        transaction.commit().expect("memory does not fail");
        drop(database);
        self.write_back();
        std::fs::write(path, &self.file).expect("the file can be written");
    }

    fn write_back(&mut self) {
        let pages = self.pages.lock().clone();
        let blocks = pages.len() / BLOCK;
        let tag_key = blake3::derive_key("keystead container v1: tag of a block", &self.store_id);
        let seal_key = blake3::derive_key(
            "keystead container v1: seal of the header of redb",
            &self.store_id,
        );
        self.file
            .resize(self.file.len().max(offset_of(blocks - 1) + BLOCK), 0);
        for (block, page) in pages.chunks(BLOCK).enumerate() {
            let at = offset_of(block);
            self.file[at..at + BLOCK].copy_from_slice(page);
            if block == 0 {
                let seal = blake3::keyed_hash(&seal_key, &page[..480]);
                self.file[at + 480..at + 512].copy_from_slice(seal.as_bytes());
                continue;
            }
            let mut hasher = blake3::Hasher::new_keyed(&tag_key);
            hasher.update(page).update(&(block as u64).to_le_bytes());
            let tag = SEGMENTS + block / BLOCKS_PER_SEGMENT * SEGMENT + block % BLOCKS_PER_SEGMENT * 16;
            self.file[tag..tag + 16].copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        }
        for copy in [0, BLOCK] {
            self.file[copy + 64..copy + 72].copy_from_slice(&(blocks as u64).to_le_bytes());
            let checksum = blake3::hash(&self.file[copy..copy + 4064]);
            self.file[copy + 4064..copy + BLOCK].copy_from_slice(checksum.as_bytes());
        }
    }
}

fn offset_of(block: usize) -> usize {
    SEGMENTS + block / BLOCKS_PER_SEGMENT * SEGMENT + (1 + block % BLOCKS_PER_SEGMENT) * BLOCK
}

/// The rows, while they are edited.
pub struct Rows<'t> {
    transaction: &'t redb::WriteTransaction,
    store_id: [u8; 16],
}

impl Rows<'_> {
    fn with<T>(
        &self,
        table: Table,
        act: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> T,
    ) -> T {
        let definition = TableDefinition::<&[u8], &[u8]>::new(table.0);
        act(&mut self
            .transaction
            .open_table(definition)
            .expect("the table is there"))
    }

    /// The rows whose keys begin so.
    ///
    /// # Panics
    ///
    /// When redb fails.
    #[must_use]
    pub fn all(&self, table: Table, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        use redb::ReadableTable;
        self.with(table, |rows| {
            rows.iter()
                .expect("the table can be read")
                .map(|row| row.expect("the row can be read"))
                .map(|(key, value)| (key.value().to_vec(), value.value().to_vec()))
                .filter(|(key, _)| key.starts_with(prefix))
                .collect()
        })
    }

    /// Writes a row as it is given.
    ///
    /// # Panics
    ///
    /// When redb fails.
    pub fn put(&mut self, table: Table, key: &[u8], row: &[u8]) {
        self.with(table, |rows| {
            drop(rows.insert(key, row).expect("it can be written"))
        });
    }

    /// Writes a record with a place tag that fits.
    pub fn put_record(&mut self, table: Table, key: &[u8], body: &[u8]) {
        let place = blake3::derive_key("keystead 1 place of a row", &self.store_id);
        let mut hasher = blake3::Hasher::new_keyed(&place);
        hasher.update(&[table.1]);
        hasher.update(&(key.len() as u32).to_le_bytes());
        hasher.update(key).update(body);
        let row = [body, &hasher.finalize().as_bytes()[..16]].concat();
        self.put(table, key, &row);
    }

    /// Removes a row.
    ///
    /// # Panics
    ///
    /// When it is not there.
    pub fn remove(&mut self, table: Table, key: &[u8]) {
        let was_there = self.with(table, |rows| {
            rows.remove(key).expect("it can be removed").is_some()
        });
        assert!(was_there, "a row of {}", table.0);
    }
}

#[derive(Debug, Clone)]
struct Pages(Arc<Mutex<Vec<u8>>>);

impl Pages {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (from, pages) = (offset as usize, self.lock());
        let bytes = pages
            .get(from..from + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.lock().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (from, mut pages) = (offset as usize, self.lock());
        let to = pages
            .get_mut(from..from + data.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        to.copy_from_slice(data);
        Ok(())
    }
}
