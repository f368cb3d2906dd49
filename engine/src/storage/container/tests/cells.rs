//! Shred cells.

use super::*;

#[test]
fn a_cell_gives_its_key_until_it_is_erased() {
    let (disk, container) = new_container();
    let keys: Vec<[u8; 32]> = (0..40u8).map(|n| [n + 1; 32]).collect();
    let cells: Vec<_> = keys
        .iter()
        .zip(0..)
        .map(|(key, cell)| (CellNumber(cell * 3 % 41), key))
        .collect();
    container.write_cells(&cells).unwrap();
    container.write_cells(&[]).unwrap();
    for (cell, key) in &cells {
        assert_eq!(container.read_cell(*cell).unwrap().as_slice(), *key);
        assert!(!container.cell_is_erased(*cell).unwrap());
    }
    let (gone, kept) = cells.split_at(20);
    container
        .erase_cells(&gone.iter().map(|(cell, _)| *cell).collect::<Vec<_>>())
        .unwrap();
    let container = open_bytes(disk.to_bytes()).unwrap();
    for (cell, key) in gone {
        assert!(matches!(
            container.read_cell(*cell),
            Err(ContainerError::ErasedCell { .. })
        ));
        assert!(container.cell_is_erased(*cell).unwrap());
        assert!(
            !disk.to_bytes().windows(32).any(|bytes| bytes == *key),
            "no copy of it is left in the file"
        );
    }
    for (cell, key) in kept {
        assert_eq!(container.read_cell(*cell).unwrap().as_slice(), *key);
    }
}

#[test]
fn a_cell_that_is_not_there_is_named_and_nothing_is_changed() {
    let (disk, container) = new_container();
    container.write_cells(&[(CellNumber(0), &[1; 32])]).unwrap();
    let before = disk.to_bytes();
    let beyond = CellNumber(896);
    assert!(matches!(
        container.read_cell(beyond),
        Err(ContainerError::NoSuchCell { capacity: 896, .. })
    ));
    assert!(matches!(
        container.cell_is_erased(beyond),
        Err(ContainerError::NoSuchCell { .. })
    ));
    assert!(matches!(
        container.erase_cells(&[CellNumber(0), beyond]),
        Err(ContainerError::NoSuchCell { .. })
    ));
    let never = CellNumber(u64::MAX);
    let refused = container.write_cells(&[(CellNumber(0), &[2; 32]), (never, &[2; 32])]);
    assert!(matches!(
        refused,
        Err(ContainerError::NoRoomForCells { most: 16_319_360, .. })
    ));
    assert_eq!(disk.to_bytes(), before);
}

#[test]
fn what_nobody_claims_is_erased_and_counted() {
    let (_, container) = new_container();
    let written = [0, 5, 6, 895, 896, 897, 10_000, 17_279, 17_280, 20_000];
    let cells: Vec<_> = written.iter().map(|cell| (CellNumber(*cell), &[9; 32])).collect();
    container.write_cells(&cells).unwrap();
    assert_eq!(container.erase_unclaimed(1..1).unwrap(), 0);
    assert_eq!(container.erase_unclaimed(1..5).unwrap(), 0);
    assert_eq!(container.erase_unclaimed(6..17_280).unwrap(), 6);
    assert_eq!(container.erase_unclaimed(6..17_280).unwrap(), 0);
    for cell in written {
        let erased = container.cell_is_erased(CellNumber(cell)).unwrap();
        assert_eq!(erased, (6..17_280).contains(&cell), "cell {cell}");
    }
    assert_eq!(container.erase_unclaimed(0..u64::MAX).unwrap(), 4);
    assert_eq!(container.erase_unclaimed(u64::MAX - 1..u64::MAX).unwrap(), 0);
}

#[test]
fn a_write_torn_at_any_sector_leaves_each_cell_old_or_new_and_its_neighbours_alone() {
    let (disk, container) = new_container();
    let old: Vec<[u8; 32]> = (0..100u8).map(|n| [n + 1; 32]).collect();
    let numbered: Vec<_> = old
        .iter()
        .zip(0..)
        .map(|(key, cell)| (CellNumber(cell), key))
        .collect();
    container.write_cells(&numbered).unwrap();
    let before = disk.to_bytes();
    // Cells 10 to 69, but 33: eight sectors or more, the first and the last of them shared with neighbours.
    let written: Vec<_> = (10..70)
        .filter(|cell| *cell != 33)
        .map(|cell| (CellNumber(cell), &[0xAB; 32]))
        .collect();
    container.write_cells(&written).unwrap();
    let after = disk.to_bytes();
    let changed: Vec<usize> = (0..after.len() / 512)
        .filter(|n| before[n * 512..][..512] != after[n * 512..][..512])
        .collect();
    assert!(changed.len() >= 8);
    for torn_at in 0..=changed.len() {
        let mut torn = before.clone();
        for sector in &changed[..torn_at] {
            torn[sector * 512..][..512].copy_from_slice(&after[sector * 512..][..512]);
        }
        let container = open_bytes(torn).unwrap();
        for (cell, key) in &numbered {
            let found = container.read_cell(*cell).unwrap();
            let is_new = found.as_slice() == [0xAB; 32];
            let was_written = (10..70).contains(&cell.0) && cell.0 != 33;
            assert!(
                found.as_slice() == *key || (is_new && was_written),
                "cell {} torn at {torn_at}",
                cell.0
            );
        }
    }
}

#[test]
fn a_key_does_not_show_in_an_error() {
    let (_, container) = new_container();
    container.write_cells(&[(CellNumber(3), &[0x5A; 32])]).unwrap();
    let shown = format!(
        "{:?} {:?} {container:?}",
        container.read_cell(CellNumber(3)),
        container.read_cell(CellNumber(4))
    );
    assert!(!shown.contains("90, 90") && !shown.contains("5a5a"), "{shown}");
}
