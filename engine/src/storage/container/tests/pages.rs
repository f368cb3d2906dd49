//! redb's pages: a real database, and a model.

use super::*;
use proptest::prelude::*;
use redb::StorageBackend;

fn use_a_database(disk: &Arc<dyn Disk>) {
    let expected: Rows = (0..5000)
        .map(|row| (row, value_of(row, 20 + row as usize % 700)))
        .collect();
    let container = Container::create(Arc::clone(disk), STORE_ID).unwrap();
    let database = open_redb(&container).unwrap();
    for batch in 0..10 {
        commit_rows(
            &database,
            (batch * 500..(batch + 1) * 500).map(|row| (row, 20 + row as usize % 700)),
        );
    }
    commit_rows(&database, std::iter::once((9_000_000, 6 << 20)));
    drop(database);
    drop(container);

    let container = Container::open(Arc::clone(disk)).unwrap();
    let mut database = open_redb(&container).unwrap();
    assert!(database.check_integrity().unwrap());
    let rows = read_rows(&database).unwrap();
    assert_eq!(rows[..5000], expected);
    assert_eq!(rows[5000], (9_000_000, value_of(9_000_000, 6 << 20)));

    let mut transaction = database.begin_write().unwrap();
    transaction.set_quick_repair(true);
    transaction
        .open_table(ROWS)
        .unwrap()
        .remove(&9_000_000u64.to_be_bytes()[..])
        .unwrap();
    transaction.commit().unwrap();
    let before = disk.len().unwrap();
    assert!(database.compact().unwrap());
    assert!(disk.len().unwrap() < before, "the file shrank");
    drop(database);

    let container = Container::open(Arc::clone(disk)).unwrap();
    let mut database = open_redb(&container).unwrap();
    assert!(database.check_integrity().unwrap());
    assert_eq!(read_rows(&database).unwrap(), expected);
}

#[test]
fn redb_keeps_thousands_of_rows_in_memory_across_reopening_and_compaction() {
    use_a_database(&(Arc::new(MemoryDisk::new()) as Arc<dyn Disk>));
}

#[test]
fn redb_keeps_thousands_of_rows_in_a_file_across_reopening_and_compaction() {
    let directory = tempfile::tempdir().unwrap();
    let file = NewFile::begin(&directory.path().join("rows.keystead")).unwrap();
    use_a_database(&file.disk());
    file.publish().unwrap();
}

/// Recovery walks all of redb's trees and rebuilds its allocator: it reads no block that was never written, or it would
/// fail here.
#[test]
fn redb_recovers_from_a_process_that_died_without_closing() {
    let (disk, container) = new_container();
    let database = open_redb(&container).unwrap();
    commit_rows(&database, (0..2000).map(|row| (row, 300)));
    for quick_repair in [true, false] {
        let mut transaction = database.begin_write().unwrap();
        transaction.set_quick_repair(quick_repair);
        transaction.set_two_phase_commit(true);
        transaction
            .open_table(ROWS)
            .unwrap()
            .insert(&5u64.to_be_bytes()[..], b"newer".as_slice())
            .unwrap();
        transaction.commit().unwrap();
        let died = open_bytes(disk.to_bytes()).unwrap();
        let mut recovered = open_redb(&died).unwrap();
        let rows = read_rows(&recovered).unwrap();
        assert_eq!(rows.len(), 2000);
        assert_eq!(rows[5].1, b"newer");
        assert!(recovered.check_integrity().unwrap());
    }
}

#[test]
fn cells_and_pages_grow_through_each_other_and_all_of_both_are_there_again() {
    let (disk, container) = new_container();
    let database = open_redb(&container).unwrap();
    let key_of = |cell: u64| -> [u8; 32] { *blake3::hash(&cell.to_le_bytes()).as_bytes() };
    let mut cells = 0;
    for round in 0..6u64 {
        commit_rows(&database, (round * 400..(round + 1) * 400).map(|row| (row, 5000)));
        let keys: Vec<_> = (cells..cells + 3300)
            .map(|cell| (CellNumber(cell), key_of(cell)))
            .collect();
        let by_reference: Vec<_> = keys.iter().map(|(cell, key)| (*cell, key)).collect();
        container.write_cells(&by_reference).unwrap();
        cells += 3300;
    }
    assert!(cells > 896 + 16_384);
    assert_eq!(container.cell_capacity(), 896 + 2 * 16_384);
    drop(database);

    let container = open_bytes(disk.to_bytes()).unwrap();
    let mut database = open_redb(&container).unwrap();
    assert!(database.check_integrity().unwrap());
    let expected: Rows = (0..2400).map(|row| (row, value_of(row, 5000))).collect();
    assert_eq!(read_rows(&database).unwrap(), expected);
    for cell in 0..cells {
        assert_eq!(
            container.read_cell(CellNumber(cell)).unwrap().as_slice(),
            key_of(cell)
        );
    }
    assert!(container.cell_is_erased(CellNumber(cells)).unwrap());
}

#[test]
fn a_request_beyond_the_end_is_refused() {
    let (_, container) = new_container();
    let pages = container.pages();
    pages.resize(4096 * 10).unwrap();
    let mut out = [0xFF; 100];
    for offset in [4096 * 10 - 99, 4096 * 10, u64::MAX - 50, u64::MAX] {
        assert!(matches!(
            pages.read_at(offset, &mut out),
            Err(ContainerError::BeyondEnd { .. })
        ));
        assert!(matches!(
            pages.write_at(offset, &out),
            Err(ContainerError::BeyondEnd { .. })
        ));
    }
    assert!(matches!(
        pages.resize(4095),
        Err(ContainerError::Unsupported { .. })
    ));
    assert!(matches!(
        pages.resize(!4095),
        Err(ContainerError::Unsupported { .. })
    ));
    let error = StorageBackend::read(&container.page_file(), 4096 * 10, &mut out).unwrap_err();
    assert!(
        error.get_ref().unwrap().is::<ContainerError>(),
        "the reason rides inside"
    );
    assert_eq!(out, [0; 100], "and no byte is handed out");
}

#[test]
fn redbs_header_keeps_what_was_written_into_it_and_takes_no_more_than_its_sector() {
    let (_, container) = new_container();
    let pages = container.pages();
    pages.resize(4096 * 4).unwrap();
    let mut out = [0; 320];
    assert!(matches!(
        pages.read_at(0, &mut out),
        Err(ContainerError::UnwrittenBlock { block: 0 })
    ));
    pages.write_at(0, &[7; 320]).unwrap();
    pages.write_at(9, &[8]).unwrap();
    pages.write_at(400, &[9; 80]).unwrap();
    let mut whole = [1; 4096];
    pages.read_at(0, &mut whole).unwrap();
    let mut expected = [0; 4096];
    expected[..320].fill(7);
    expected[9] = 8;
    expected[400..480].fill(9);
    assert_eq!(whole, expected);
    pages.write_at(0, &expected).unwrap();
    assert!(matches!(
        pages.write_at(400, &[9; 81]),
        Err(ContainerError::Unsupported { .. })
    ));
    pages.resize(0).unwrap();
    pages.resize(4096).unwrap();
    assert!(matches!(
        pages.read_at(0, &mut out),
        Err(ContainerError::UnwrittenBlock { block: 0 })
    ));
}

#[test]
fn what_was_cut_off_does_not_come_back_even_where_a_cell_segment_keeps_the_file_long() {
    let (disk, container) = new_container();
    let pages = container.pages();
    pages.resize(4096 * 600).unwrap();
    for block in 1..600 {
        pages.write_at(block * 4096, &[block as u8; 4096]).unwrap();
    }
    container.write_cells(&[(CellNumber(896), &[5; 32])]).unwrap();
    let long = disk.len().unwrap();
    pages.resize(4096 * 100).unwrap();
    assert_eq!(disk.len().unwrap(), long, "the cells hold the end");
    pages.resize(4096 * 1000).unwrap();
    let mut block = [0; 4096];
    for number in 1..1000 {
        match pages.read_at(number * 4096, &mut block) {
            Ok(()) => assert!(number < 100 && block == [number as u8; 4096]),
            Err(error) => assert!(number >= 100 && matches!(error, ContainerError::UnwrittenBlock { .. })),
        }
    }
    assert_eq!(container.read_cell(CellNumber(896)).unwrap().as_slice(), [5; 32]);
}

#[derive(Debug, Clone)]
enum Step {
    Write { offset: u64, bytes: usize, fill: u8 },
    Read { offset: u64, bytes: usize },
    Resize { blocks: u64 },
    MoreCells,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Whole blocks as redb asks for them, and anything at all.
    let place = prop_oneof![
        (1u64..1100, 1usize..300).prop_map(|(block, blocks)| (block * 4096, blocks * 4096)),
        (4096u64..1100 * 4096, 0usize..20_000),
    ];
    let step = prop_oneof![
        6 => (place.clone(), any::<u8>()).prop_map(|((offset, bytes), fill)| Step::Write { offset, bytes, fill }),
        4 => place.prop_map(|(offset, bytes)| Step::Read { offset, bytes }),
        3 => (1u64..1200).prop_map(|blocks| Step::Resize { blocks }),
        1 => Just(Step::MoreCells),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..40)
}

/// The model: each block's bytes, or that it was never written.
fn run_against_a_model(steps: Vec<Step>) {
    let (disk, mut container) = new_container();
    let mut model: Vec<Option<Vec<u8>>> = Vec::new();
    for step in steps {
        let pages = container.pages();
        match step {
            Step::Write { offset, bytes, fill } => {
                let data: Vec<u8> = (0..bytes).map(|at| fill.wrapping_add(at as u8)).collect();
                let fits = offset + bytes as u64 <= model.len() as u64 * 4096;
                assert_eq!(pages.write_at(offset, &data).is_ok(), fits);
                for (at, byte) in data.iter().enumerate().filter(|_| fits) {
                    let at = offset as usize + at;
                    model[at / 4096].get_or_insert_with(|| vec![0; 4096])[at % 4096] = *byte;
                }
            }
            Step::Read { offset, bytes } => {
                let (first, end) = (offset as usize, offset as usize + bytes);
                let expected = (first..end)
                    .map(|at| Some(model.get(at / 4096)?.as_ref()?[at % 4096]))
                    .collect::<Option<Vec<u8>>>()
                    .filter(|_| end <= model.len() * 4096);
                let mut out = vec![0xEE; bytes];
                let read = pages.read_at(offset, &mut out);
                assert_eq!(read.ok().map(|()| out), expected);
            }
            Step::Resize { blocks } => {
                pages.resize(blocks * 4096).unwrap();
                model.resize(blocks as usize, None);
            }
            Step::MoreCells => {
                let cell = CellNumber(container.cell_capacity());
                container.write_cells(&[(cell, &[cell.0 as u8 | 1; 32])]).unwrap();
            }
            Step::Reopen => container = Container::open(Arc::clone(&disk) as Arc<dyn Disk>).unwrap(),
        }
        assert_eq!(container.page_file().len().unwrap(), model.len() as u64 * 4096);
    }
    let mut cell = 896;
    while cell < container.cell_capacity() {
        assert_eq!(
            container.read_cell(CellNumber(cell)).unwrap().as_slice(),
            [cell as u8 | 1; 32]
        );
        cell += 16_384;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn pages_are_bytes_that_keep_what_was_written_whatever_grows_or_shrinks(steps in steps()) {
        run_against_a_model(steps);
    }
}
