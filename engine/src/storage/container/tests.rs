//! Tests of the container as a whole: a real redb database on it, damage, loss of power, files.

mod cells;
mod damage;
mod files;
mod journal;
mod pages;
mod power_loss;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

const STORE_ID: [u8; 16] = *b"store id of test";
/// Bytes to bytes, as all of a store's tables: pages of others are refused.
const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");

fn new_container() -> (Arc<MemoryDisk>, Container) {
    let disk = Arc::new(MemoryDisk::new());
    let container = Container::create(Arc::clone(&disk) as Arc<dyn Disk>, STORE_ID).unwrap();
    (disk, container)
}

fn open_bytes(bytes: Vec<u8>) -> Result<Container, ContainerError> {
    Container::open(Arc::new(MemoryDisk::from_bytes(bytes)))
}

fn open_redb(container: &Container) -> Result<Database, redb::DatabaseError> {
    Database::builder()
        .set_cache_size(1 << 20)
        .create_with_backend(container.page_file())
}

/// A value that says which row it is of.
fn value_of(row: u64, bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|at| (row.wrapping_mul(31) as usize ^ at) as u8)
        .collect()
}

/// Commits rows as a checkpoint does: in two phases, with the allocator state.
fn commit_rows(database: &Database, rows: impl Iterator<Item = (u64, usize)>) {
    let mut transaction = database.begin_write().unwrap();
    transaction.set_quick_repair(true);
    {
        let mut table = transaction.open_table(ROWS).unwrap();
        for (row, bytes) in rows {
            table
                .insert(&row.to_be_bytes()[..], value_of(row, bytes).as_slice())
                .unwrap();
        }
    }
    transaction.commit().unwrap();
}

type Rows = Vec<(u64, Vec<u8>)>;

fn read_rows(database: &Database) -> Result<Rows, redb::Error> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(ROWS)?;
    let mut rows = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        let key = key.value().try_into().expect("a key is a number");
        rows.push((u64::from_be_bytes(key), value.value().to_vec()));
    }
    Ok(rows)
}

fn flip_in_place(disk: &MemoryDisk, at: usize, bit: u8) {
    let mut byte = [0];
    disk.read_at(at as u64, &mut byte).unwrap();
    disk.write_at(at as u64, &[byte[0] ^ 1 << bit]).unwrap();
}

/// A disk in memory whose writing operation number `fails_at` (counted from 0) fails, once.
#[derive(Debug)]
struct FailingDisk {
    disk: MemoryDisk,
    operations: AtomicU64,
    fails_at: u64,
}

impl FailingDisk {
    fn new(fails_at: u64) -> Self {
        Self {
            disk: MemoryDisk::new(),
            operations: AtomicU64::new(0),
            fails_at,
        }
    }

    fn count(&self) -> io::Result<()> {
        if self.operations.fetch_add(1, Ordering::SeqCst) == self.fails_at {
            return Err(io::Error::other("the disk is on fire"));
        }
        Ok(())
    }
}

impl Disk for FailingDisk {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.count()?;
        self.disk.set_len(len)
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.count()?;
        self.disk.write_at(offset, data)
    }
    fn sync(&self) -> io::Result<()> {
        self.count()?;
        self.disk.sync()
    }
}

#[test]
fn after_any_failed_write_or_sync_nothing_is_written_any_more_and_reads_go_on() {
    let mut reached_the_end = false;
    for fails_at in 0..200 {
        let disk = Arc::new(FailingDisk::new(fails_at));
        let Ok(container) = Container::create(Arc::clone(&disk) as Arc<dyn Disk>, STORE_ID) else {
            continue;
        };
        let pages = container.pages();
        container.journal().restart(1);
        let work = || -> Result<(), ContainerError> {
            pages.resize(4096 * 300)?;
            pages.write_at(4096, &[1; 4096 * 280])?;
            container.write_cells(&[(CellNumber(1000), &[3; 32])])?;
            container.erase_cells(&[CellNumber(1000)])?;
            container.journal().append(1, &[b"record"])?;
            pages.resize(4096 * 20)
        };
        let Err(error) = work() else {
            assert_eq!(container.failure(), None);
            reached_the_end = true;
            break;
        };
        assert!(error.to_string().contains("the disk is on fire"), "{error}");
        assert_eq!(container.failure(), Some(error.to_string().as_str()));
        let operations = disk.operations.load(Ordering::SeqCst);
        for again in [
            pages.write_at(4096, &[2; 4096]),
            container.write_cells(&[(CellNumber(1), &[3; 32])]),
            container.erase_cells(&[CellNumber(1)]),
            container.journal().append(1, &[b"again"]),
            pages.resize(4096 * 4000),
        ] {
            let again = again.unwrap_err();
            let asked_beyond = matches!(again, ContainerError::BeyondEnd { .. });
            assert!(
                asked_beyond || matches!(again, ContainerError::Failed { .. }),
                "{again}"
            );
        }
        assert!(redb::StorageBackend::sync_data(&container.page_file()).is_err());
        assert_eq!(
            disk.operations.load(Ordering::SeqCst),
            operations,
            "nothing more went to the disk"
        );
        assert!(container.cell_is_erased(CellNumber(1)).unwrap());
    }
    assert!(reached_the_end, "every operation was made to fail");
}

#[test]
fn a_container_is_created_on_an_empty_disk_only() {
    let disk = Arc::new(MemoryDisk::from_bytes(vec![0; 3]));
    let refused = Container::create(disk, STORE_ID).unwrap_err();
    assert!(matches!(refused, ContainerError::NotEmpty { found_bytes: 3 }));
}

#[test]
fn a_reopened_container_knows_its_store_and_its_length() {
    let (disk, container) = new_container();
    container.pages().resize(4096 * 700).unwrap();
    drop(container);
    let again = open_bytes(disk.to_bytes()).unwrap();
    assert_eq!(again.store_id(), STORE_ID);
    assert_eq!(redb::StorageBackend::len(&again.page_file()).unwrap(), 4096 * 700);
}

#[test]
fn what_a_crash_left_behind_the_end_does_not_become_content() {
    let (disk, container) = new_container();
    container.pages().resize(4096 * 3).unwrap();
    let mut bytes = disk.to_bytes();
    bytes.resize(bytes.len() + (3 << 20), 0xEE);
    let container = open_bytes(bytes.clone()).unwrap();
    container.write_cells(&[(CellNumber(900), &[1; 32])]).unwrap();
    for cell in (896..container.cell_capacity()).filter(|cell| *cell != 900) {
        assert!(container.cell_is_erased(CellNumber(cell)).unwrap(), "cell {cell}");
    }
    let pages = open_bytes(bytes).unwrap().pages();
    pages.resize(4096 * 700).unwrap();
    for block in 0..700 {
        let refused = pages.read_at(4096 * block, &mut [0; 4096]);
        assert!(
            matches!(refused, Err(ContainerError::UnwrittenBlock { .. })),
            "block {block}"
        );
    }
}
