use super::*;
use proptest::prelude::*;
use redb::{Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const FILE: u64 = 300 * BLOCK_BYTES;

fn reference(power: u64, index: u64) -> [u8; 8] {
    (power << 59 | index).to_le_bytes()
}

/// A leaf whose keys have each their own length, or are all of one.
pub(super) fn leaf(rows: &[(&[u8], &[u8])], one_length: bool) -> Vec<u8> {
    let mut page = vec![LEAF, 0, rows.len() as u8, 0];
    let keys: usize = rows.iter().map(|(key, _)| key.len()).sum();
    let mut at = 4 + rows.len() * if one_length { 4 } else { 8 };
    for (key, _) in rows.iter().filter(|_| !one_length) {
        at += key.len();
        page.extend_from_slice(&(at as u32).to_le_bytes());
    }
    if one_length {
        at += keys;
    }
    for (_, value) in rows {
        at += value.len();
        page.extend_from_slice(&(at as u32).to_le_bytes());
    }
    for (key, _) in rows {
        page.extend_from_slice(key);
    }
    for (_, value) in rows {
        page.extend_from_slice(value);
    }
    page.resize(4096, 0);
    page
}

fn branch(references: &[[u8; 8]], key: &[u8]) -> Vec<u8> {
    let keys = references.len() - 1;
    let mut page = vec![0; 8 + 16 * references.len()];
    page[..4].copy_from_slice(&[BRANCH, 0, keys as u8, 0]);
    page.extend(references.iter().flatten());
    let keys_from = page.len() + 4 * keys;
    for index in 1..=keys {
        page.extend_from_slice(&((keys_from + index * key.len()) as u32).to_le_bytes());
    }
    page.extend(key.repeat(keys));
    page.resize(4096, 0);
    page
}

fn definition_with_root(power: u64, index: u64) -> Vec<u8> {
    let mut value = vec![3; 80];
    value[ROOT_FLAG] = 1;
    value[ROOT..ROOT + 8].copy_from_slice(&reference(power, index));
    value
}

fn list(references: &[[u8; 8]]) -> Vec<u8> {
    let mut list = (references.len() as u16).to_le_bytes().to_vec();
    list.extend(references.iter().flatten());
    list
}

#[test]
fn a_branch_refers_to_no_page_that_is_not_in_the_file() {
    let check = |power, index| check_page(&branch(&[reference(0, 7), reference(power, index)], b"key"), FILE);
    assert_eq!(check(8, 0), Ok(()), "blocks 1 to 256");
    assert_eq!(check(0, 298), Ok(()), "the last block");
    assert!(check(0, 299).is_err());
    assert!(check(8, 1).is_err());
    assert!(check(9, 0).is_err(), "512 blocks of 300");
    assert!(check(20, 0).is_err() && check(31, 0).is_err());
    assert!(check(0, 1 << 20).is_err(), "another region");
}

#[test]
fn a_branch_has_its_keys_in_it() {
    let mut page = branch(&[reference(0, 7), reference(0, 8)], b"key");
    assert_eq!(check_page(&page, FILE), Ok(()));
    // A key that ends behind the page; as one of 16 bytes it would be in it, so let the page end before that.
    let end = 8 + 2 * 24;
    page[end..end + 4].copy_from_slice(&5000u32.to_le_bytes());
    page.truncate(end + 15);
    assert!(check_page(&page, FILE).is_err());
}

#[test]
fn a_leaf_has_its_rows_in_it() {
    let rows: [(&[u8], &[u8]); 3] = [(b"a", b"one"), (b"bb", b""), (b"ccc", b"three")];
    let page = leaf(&rows, false);
    assert_eq!(check_page(&page, FILE), Ok(()));
    // The ends of the keys and of the values, each behind the page, before its beginning, and at 0.
    for end in 0..6 {
        for wrong in [5000, 27_568, u32::MAX, 3, 0] {
            let mut page = page.clone();
            page[4 + 4 * end..8 + 4 * end].copy_from_slice(&wrong.to_le_bytes());
            assert!(check_page(&page, FILE).is_err(), "end {end} at {wrong}");
        }
    }
    let mut nothing = page;
    nothing[2] = 0;
    assert!(check_page(&nothing, FILE).is_err(), "redb writes no empty leaf");
}

#[test]
fn a_list_of_freed_pages_names_pages_of_the_file_alone() {
    let check = |references: &[[u8; 8]]| {
        let (first, second) = (list(&[reference(0, 1)]), list(references));
        check_page(&leaf(&[(&[7; 16], &first), (&[8; 16], &second)], true), FILE)
    };
    assert_eq!(check(&[]), Ok(()));
    assert_eq!(
        check(&[reference(0, 0), reference(8, 0), reference(0, 298)]),
        Ok(())
    );
    assert!(check(&[reference(0, 0), reference(0, 299)]).is_err());
    assert!(
        check(&[reference(0, 6 << 20)]).is_err(),
        "a region that is not there"
    );
    assert!(check(&[reference(21, 0)]).is_err());
    let cut = [9, 0, 1];
    assert!(check_page(&leaf(&[(&[7; 16], &cut)], true), FILE).is_err());
}

#[test]
fn the_record_of_the_allocator_is_a_leaf() {
    let check = |kind| check_page(&leaf(&[(&[kind, 0, 0, 0, 0], b"x")], true), FILE);
    assert_eq!(check(3), Ok(()));
    assert!(check(6).is_err());
}

#[test]
fn a_table_has_no_root_that_is_not_in_the_file() {
    for name in ["audit", "versions", "allocator_state"] {
        let check = |power, index| {
            let definition = definition_with_root(power, index);
            check_page(&leaf(&[(name.as_bytes(), &definition)], false), FILE)
        };
        assert_eq!(check(8, 0), Ok(()));
        assert!(check(20, 0).is_err());
        assert!(check(0, 299).is_err());
    }
    let row = leaf(&[(b"another key", &definition_with_root(20, 0))], false);
    assert_eq!(check_page(&row, FILE), Ok(()), "a row may hold anything");
}

#[test]
fn a_header_has_no_root_that_is_larger_than_the_file() {
    for at in [64 + 8, 64 + 40, 192 + 8, 192 + 40] {
        let mut header = vec![0; 320];
        header[at..at + 8].copy_from_slice(&reference(20, 0));
        assert_eq!(check_header(&header, FILE), Ok(()), "no flag, no root");
        for slot in SLOTS {
            header[slot + 1..slot + 3].fill(1);
        }
        assert!(check_header(&header, FILE).is_err());
    }
}

#[test]
fn a_header_has_regions_of_the_size_that_references_are_counted_by() {
    let mut header = vec![0; 320];
    header[..9].copy_from_slice(&MARK);
    assert!(check_header(&header, FILE).is_err());
    header[20..24].copy_from_slice(&(1u32 << 20).to_le_bytes());
    assert_eq!(check_header(&header, FILE), Ok(()));
    header[16] = 1;
    assert!(check_header(&header, FILE).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_page_or_are_refused(mut page in proptest::collection::vec(any::<u8>(), 0..600), kind in 0..3u8) {
        if let Some(first) = page.first_mut() {
            *first = kind;
        }
        let _ = check_page(&page, FILE);
        let _ = check_header(&page, FILE);
    }
}

/// A file in memory that looks at what redb writes as it is looked at when redb reads it.
#[derive(Debug)]
struct Checking {
    file: redb::backends::InMemoryBackend,
    written: Arc<AtomicU64>,
    wrong: Arc<Mutex<Vec<&'static str>>>,
}

impl StorageBackend for Checking {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let checked = match offset {
            0 => check_header(data, self.len()?),
            _ => check_page(data, self.len()?),
        };
        self.written.fetch_add(1, Ordering::Relaxed);
        self.wrong.lock().unwrap().extend(checked.err());
        self.file.write(offset, data)
    }
}

#[test]
fn whatever_redb_writes_is_a_page() {
    const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("versions");
    const OTHER: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("audit");
    let (written, wrong) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    let file = Checking {
        file: redb::backends::InMemoryBackend::new(),
        written: Arc::clone(&written),
        wrong: Arc::clone(&wrong),
    };
    // Next to no cache: pages are written in the middle of transactions as well.
    let database = redb::Builder::new()
        .set_cache_size(64 << 10)
        .create_with_backend(file)
        .unwrap();
    let mut state = 4711u64;
    let mut dice = move |end: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    for round in 0..300u64 {
        let reading = database.begin_read().unwrap();
        for durable in [false, true] {
            let mut transaction = database.begin_write().unwrap();
            match durable {
                false => transaction.set_durability(Durability::None).unwrap(),
                true => transaction.set_quick_repair(round % 2 == 0),
            }
            for definition in [ROWS, OTHER] {
                let mut table = transaction.open_table(definition).unwrap();
                for _ in 0..dice(60) {
                    let key = dice(900).to_be_bytes();
                    let key = &key[..8 - dice(3) as usize];
                    let value = vec![dice(256) as u8; (dice(9) * dice(9) * dice(9) * dice(9)) as usize];
                    table.insert(key, value.as_slice()).unwrap();
                }
                for _ in 0..dice(70) {
                    table.remove(&dice(900).to_be_bytes()[..]).unwrap();
                }
                if dice(40) == 0 {
                    // To the last row, one after the other.
                    let keys: Vec<Vec<u8>> = table
                        .iter()
                        .unwrap()
                        .map(|row| row.unwrap().0.value().to_vec())
                        .collect();
                    for key in keys {
                        table.remove(key.as_slice()).unwrap();
                    }
                }
            }
            match dice(10) {
                0 => transaction.abort().unwrap(),
                _ => transaction.commit().unwrap(),
            }
        }
        drop(reading);
    }
    drop(database);
    assert!(written.load(Ordering::Relaxed) > 1000);
    assert_eq!(*wrong.lock().unwrap(), Vec::<&str>::new());
}
