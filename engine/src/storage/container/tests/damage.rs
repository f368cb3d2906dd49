//! Damaged files: an error or the right answer, never a wrong one.

use super::geometry::{JOURNAL_OFFSET, SEGMENTS_OFFSET};
use super::*;
use proptest::prelude::*;
use std::sync::OnceLock;

const ROW_COUNT: u64 = 3000;
const CELL_COUNT: u64 = 2000;
const RECORDS: [usize; 3] = [900, 5000, 100];

/// A store with something of everything, closed as a crash leaves it.
fn sample() -> &'static [u8] {
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let (disk, container) = new_container();
        let database = open_redb(&container).unwrap();
        commit_rows(&database, (0..ROW_COUNT / 2).map(|row| (row, 400)));
        let keys: Vec<_> = (0..CELL_COUNT)
            .map(|cell| (CellNumber(cell), [cell as u8 | 1; 32]))
            .collect();
        container
            .write_cells(&keys.iter().map(|(cell, key)| (*cell, key)).collect::<Vec<_>>())
            .unwrap();
        commit_rows(&database, (ROW_COUNT / 2..ROW_COUNT).map(|row| (row, 400)));
        container.journal().restart(1);
        for bytes in RECORDS {
            container
                .journal()
                .append(1, &[&vec![bytes as u8; bytes]])
                .unwrap();
        }
        disk.to_bytes()
    })
}

/// Looks at everything there is. An error is fine; `Ok` says how many of the journal's records were there.
fn look_at_everything(bytes: Vec<u8>) -> Result<usize, String> {
    let container = open_bytes(bytes).map_err(|error| error.to_string())?;
    assert_eq!(container.store_id(), STORE_ID);
    for cell in 0..CELL_COUNT {
        match container.read_cell(CellNumber(cell)) {
            Ok(key) => assert_eq!(key.as_slice(), [cell as u8 | 1; 32]),
            Err(ContainerError::DamagedCell { .. }) => return Err("a damaged cell".into()),
            Err(error) => panic!("cell {cell}: {error}"),
        }
    }
    let mut records = 0;
    container
        .journal()
        .replay::<ContainerError>(1, |payload| {
            assert_eq!(payload, vec![RECORDS[records] as u8; RECORDS[records]]);
            records += 1;
            Ok(())
        })
        .map_err(|error| error.to_string())?;
    let database = open_redb(&container).map_err(|error| error.to_string())?;
    let rows = read_rows(&database).map_err(|error| {
        let failure = container.failure().expect("the container knows what redb met");
        assert!(
            failure.contains("damaged") || failure.contains("never written"),
            "{failure}"
        );
        error.to_string()
    })?;
    let expected: Rows = (0..ROW_COUNT).map(|row| (row, value_of(row, 400))).collect();
    assert!(rows == expected, "wrong rows");
    Ok(records)
}

fn flip(at: usize, bit: u8) -> Result<usize, String> {
    let mut bytes = sample().to_vec();
    bytes[at] ^= 1 << bit;
    look_at_everything(bytes)
}

#[test]
fn the_sample_is_whole() {
    assert_eq!(look_at_everything(sample().to_vec()), Ok(3));
}

#[test]
fn a_flipped_bit_in_a_copy_of_the_header_is_mended() {
    assert_eq!(flip(70, 1), Ok(3));
    assert_eq!(flip(4096 + 70, 1), Ok(3));
    let disk = Arc::new(MemoryDisk::from_bytes(sample().to_vec()));
    let mut front = vec![0; 8192];
    for at in 0..8192 {
        flip_in_place(&disk, at, (at % 8) as u8);
        Container::open(Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
        disk.read_at(0, &mut front).unwrap();
        assert!(front == sample()[..8192], "byte {at}");
    }
}

#[test]
fn a_flipped_bit_in_redbs_own_header_is_an_error() {
    let header = SEGMENTS_OFFSET as usize + 4096;
    assert!(flip(header + 9, 0).unwrap_err().contains("block 0 is damaged"));
    let disk = Arc::new(MemoryDisk::from_bytes(sample().to_vec()));
    let pages = Container::open(Arc::clone(&disk) as Arc<dyn Disk>)
        .unwrap()
        .pages();
    for bit in 0..512 * 8 {
        flip_in_place(&disk, header + bit / 8, (bit % 8) as u8);
        let refused = pages.read_at(0, &mut [0; 9]);
        assert!(
            matches!(refused, Err(ContainerError::DamagedBlock { block: 0 })),
            "bit {bit}"
        );
        flip_in_place(&disk, header + bit / 8, (bit % 8) as u8);
    }
    pages.read_at(0, &mut [0; 320]).unwrap();
}

#[test]
fn a_block_in_the_place_of_another_or_from_another_store_is_an_error() {
    let pages_of = |store_id| {
        let disk = Arc::new(MemoryDisk::new());
        let container = Container::create(Arc::clone(&disk) as Arc<dyn Disk>, store_id).unwrap();
        let pages = container.pages();
        pages.resize(4096 * 10).unwrap();
        for block in 1..10 {
            pages.write_at(block * 4096, &[block as u8; 4096]).unwrap();
        }
        (disk, container)
    };
    let (disk, container) = pages_of(STORE_ID);
    let (other, _) = pages_of([1; 16]);
    let move_block = |from: &MemoryDisk, block: u64, to: u64| {
        let (mut bytes, mut tag) = ([0; 4096], [0; 16]);
        from.read_at(SEGMENTS_OFFSET + (1 + block) * 4096, &mut bytes)
            .unwrap();
        from.read_at(SEGMENTS_OFFSET + 16 * block, &mut tag).unwrap();
        disk.write_at(SEGMENTS_OFFSET + (1 + to) * 4096, &bytes).unwrap();
        disk.write_at(SEGMENTS_OFFSET + 16 * to, &tag).unwrap();
    };
    let mut out = [0; 4096];
    let pages = container.pages();
    move_block(&disk, 3, 3);
    pages.read_at(3 * 4096, &mut out).unwrap();
    move_block(&disk, 4, 3);
    assert!(matches!(
        pages.read_at(3 * 4096, &mut out),
        Err(ContainerError::DamagedBlock { block: 3 })
    ));
    move_block(&other, 5, 5);
    assert!(matches!(
        pages.read_at(5 * 4096, &mut out),
        Err(ContainerError::DamagedBlock { block: 5 })
    ));
    let mut run = vec![0; 9 * 4096];
    assert!(redb::StorageBackend::read(&container.page_file(), 4096, &mut run).is_err());
    assert!(
        run.iter().all(|byte| *byte == 0),
        "no unchecked byte is handed out"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The last record of the journal is the exception that `journal.rs` tells of.
    #[test]
    fn a_flipped_bit_anywhere_is_an_error_or_harmless(place in any::<prop::sample::Index>(), bit in 0u8..8) {
        // Where there is something: not in the empty part of the journal.
        let journal = JOURNAL_OFFSET as usize;
        let last = journal + (Journal::record_size(RECORDS[0]) + Journal::record_size(RECORDS[1])) as usize;
        let end = last + Journal::record_size(RECORDS[2]) as usize;
        let pages = SEGMENTS_OFFSET as usize;
        let at = place.index(end + sample().len() - pages);
        let at = if at < end { at } else { at - end + pages };
        if let Ok(records) = flip(at, bit) {
            prop_assert!(records == 3 || (records == 2 && (last..end).contains(&at)), "byte {at}");
        }
    }

    #[test]
    fn a_sector_of_noise_anywhere_is_an_error_or_harmless(place in any::<prop::sample::Index>(), noise in any::<u8>()) {
        let mut bytes = sample().to_vec();
        let sector = place.index(bytes.len() / 512);
        let last = JOURNAL_OFFSET as usize + (Journal::record_size(RECORDS[0]) + Journal::record_size(RECORDS[1])) as usize;
        for (at, byte) in bytes[sector * 512..][..512].iter_mut().enumerate() {
            *byte = noise.wrapping_mul(31).wrapping_add(at as u8);
        }
        if let Ok(records) = look_at_everything(bytes) {
            prop_assert!(records == 3 || (records == 2 && sector * 512 == last), "sector {sector}");
        }
    }
}
