//! The journal.

use super::geometry::{JOURNAL_BYTES, JOURNAL_OFFSET};
use super::*;
use proptest::prelude::*;

const JOURNAL: usize = JOURNAL_OFFSET as usize;

fn replay(container: &Container, generation: u64) -> Result<Vec<Vec<u8>>, ContainerError> {
    let mut payloads = Vec::new();
    let count = container
        .journal()
        .replay::<ContainerError>(generation, |payload| {
            payloads.push(payload.to_vec());
            Ok(())
        })?;
    assert_eq!(count, payloads.len() as u64);
    Ok(payloads)
}

fn journal_of(generation: u64, payloads: &[Vec<u8>]) -> (Arc<MemoryDisk>, Container) {
    let (disk, container) = new_container();
    container.journal().restart(generation);
    for payload in payloads {
        container.journal().append(generation, &[payload]).unwrap();
    }
    (disk, container)
}

/// A record as only the journal should write it: whoever knows the store's id can make one.
fn forged_record(generation: u64, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let tags = Tags::new(&STORE_ID);
    let mut record = b"KJRN".to_vec();
    record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    record.extend_from_slice(&generation.to_le_bytes());
    record.extend_from_slice(&sequence.to_le_bytes());
    let head = record.clone();
    record.extend_from_slice(&tags.journal_head(&head));
    record.extend_from_slice(&tags.journal_record(&head, payload));
    record.extend_from_slice(payload);
    record
}

/// Appends as the committer does: what the journal does not take goes past it.
fn append_if_taken(container: &Container, generation: u64, payload: &[u8]) -> bool {
    let taken = container.journal().takes(payload);
    let appended = container.journal().append(generation, &[payload]);
    assert_eq!(taken, appended.is_ok(), "{appended:?}");
    assert!(taken || matches!(appended, Err(ContainerError::ImitatesHeads)));
    taken
}

/// What a payload holds stays in the region after its generation is over. A head in it, with its tag right and of the next generation, stood
/// where replay looks for what follows a damaged record: the store did not open any more.
#[test]
fn a_head_inside_of_a_payload_does_not_keep_a_later_generation_from_being_replayed() {
    let payload = [vec![0xAB; 512 - 72], forged_record(8, 5, &[])].concat();
    let (disk, container) = journal_of(7, &[vec![1; 700]]);
    assert!(!append_if_taken(&container, 7, &payload));
    container.journal().restart(8);
    assert!(append_if_taken(&container, 8, b"news"));
    let container = open_bytes(disk.to_bytes()).unwrap();
    assert_eq!(replay(&container, 8).unwrap(), [b"news".to_vec()]);
    assert_eq!(container.journal().survivors().unwrap().newest(), Some(8));
}

/// Behind the newest record stood what an older generation had left there. A whole record in it, of the next generation and the next in
/// sequence, was applied: rows that nobody wrote.
#[test]
fn a_record_inside_of_a_payload_is_never_applied() {
    let payload = [
        vec![0xAB; 512 - 72],
        forged_record(8, 1, b"rows that nobody wrote"),
    ]
    .concat();
    let (disk, container) = journal_of(7, &[]);
    assert!(!append_if_taken(&container, 7, &payload));
    container.journal().restart(8);
    assert!(append_if_taken(&container, 8, b"one"));
    assert_eq!(container.journal().used_bytes(), 512);
    let container = open_bytes(disk.to_bytes()).unwrap();
    assert_eq!(replay(&container, 8).unwrap(), [b"one".to_vec()]);
}

#[test]
fn a_payload_is_refused_where_it_would_begin_a_sector_as_a_head_does_and_nowhere_else() {
    let forged = forged_record(8, 5, &[]);
    let (disk, container) = journal_of(7, &[vec![1; 700]]);
    for at in 0..1600 {
        let payload = [vec![0xAB; at], forged.clone(), vec![0xCD; 300]].concat();
        let begins_a_sector = (72 + at) % 512 == 0;
        let before = begins_a_sector.then(|| (container.journal().used_bytes(), disk.to_bytes()));
        assert_eq!(
            !append_if_taken(&container, 7, &payload),
            begins_a_sector,
            "at {at}"
        );
        if let Some(before) = before {
            assert!(before == (container.journal().used_bytes(), disk.to_bytes()));
        }
    }
    // Cut off in the middle of the mark, it is none.
    assert!(append_if_taken(
        &container,
        7,
        &[&[0xAB; 512 - 72][..], b"KJR"].concat()
    ));
    assert!(!append_if_taken(
        &container,
        7,
        &[&[0xAB; 512 - 72][..], b"KJRN"].concat()
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_appended_is_replayed_in_order_and_appending_goes_on_behind_it(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 0..20),
        more in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 0..5),
        split in 0usize..2000,
    ) {
        let (disk, container) = new_container();
        container.journal().restart(7);
        for payload in &payloads {
            let (left, right) = payload.split_at(split.min(payload.len()));
            container.journal().append(7, &[left, &[], right]).unwrap();
        }
        let used = container.journal().used_bytes();
        let container = open_bytes(disk.to_bytes()).unwrap();
        prop_assert_eq!(&replay(&container, 7).unwrap(), &payloads);
        prop_assert_eq!(container.journal().used_bytes(), used);
        for payload in &more {
            container.journal().append(7, &[payload]).unwrap();
        }
        let all: Vec<_> = payloads.into_iter().chain(more).collect();
        prop_assert_eq!(replay(&container, 7).unwrap(), all);
    }
}

#[test]
fn a_record_torn_at_any_sector_is_not_replayed_and_those_before_it_are() {
    let first = vec![vec![1; 700], vec![2; 3000]];
    let (disk, container) = journal_of(3, &first);
    let before = disk.to_bytes();
    container.journal().append(3, &[&[3; 4000]]).unwrap();
    let after = disk.to_bytes();
    let start = JOURNAL + (Journal::record_size(700) + Journal::record_size(3000)) as usize;
    let sectors = Journal::record_size(4000) as usize / 512;
    assert_eq!(sectors, 8);
    // Every choice of the record's sectors may have reached the disk.
    for kept in 0u32..1 << sectors {
        let mut torn = before.clone();
        for sector in (0..sectors).filter(|sector| kept & 1 << sector != 0) {
            let at = start + sector * 512;
            torn[at..at + 512].copy_from_slice(&after[at..at + 512]);
        }
        let container = open_bytes(torn).unwrap();
        let mut expected = first.clone();
        if kept + 1 == 1 << sectors {
            expected.push(vec![3; 4000]);
        }
        assert_eq!(replay(&container, 3).unwrap(), expected);
        // A shorter record over the torn one: what is left behind it is nobody's.
        container.journal().append(3, &[&[4; 10]]).unwrap();
        expected.push(vec![4; 10]);
        assert_eq!(replay(&container, 3).unwrap(), expected);
    }
}

#[test]
fn damage_in_any_byte_of_any_record_but_the_last_is_an_error_and_nothing_is_applied() {
    let (disk, _) = journal_of(3, &[vec![1; 100], vec![2; 1500], vec![3; 100], vec![4; 100]]);
    let last = (Journal::record_size(100) * 2 + Journal::record_size(1500)) as usize;
    let padding = [
        172..512,
        512 + 1572..512 + 2048,
        512 + 2048 + 172..512 + 2048 + 512,
    ];
    for at in (0..last).step_by(3) {
        flip_in_place(&disk, JOURNAL + at, 4);
        let container = Container::open(Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
        let mut applied = 0;
        let result = container.journal().replay::<ContainerError>(3, |_| {
            applied += 1;
            Ok(())
        });
        if padding.iter().any(|padding| padding.contains(&at)) {
            assert_eq!((result.unwrap(), applied), (4, 4), "byte {at} means nothing");
        } else {
            assert!(
                matches!(result, Err(ContainerError::DamagedJournal { .. })),
                "byte {at}: {result:?}"
            );
            assert_eq!(applied, 0);
            let refused = container.journal().append(3, &[b"x"]).unwrap_err();
            assert!(matches!(
                refused,
                ContainerError::WrongGeneration { current: None, .. }
            ));
        }
        flip_in_place(&disk, JOURNAL + at, 4);
    }
}

#[test]
fn damage_to_two_records_in_a_row_is_noticed_as_well() {
    let (disk, _) = journal_of(3, &[vec![1; 100], vec![2; 100], vec![3; 100]]);
    let mut bad = disk.to_bytes();
    bad[JOURNAL + 512 + 80] ^= 1;
    bad[JOURNAL + 1024 + 80] ^= 1;
    assert!(matches!(
        replay(&open_bytes(bad).unwrap(), 3),
        Err(ContainerError::DamagedJournal {
            sequence: 1,
            offset: 512,
            later_offset: 1024,
            generation: 3
        })
    ));
}

#[test]
fn the_last_records_cannot_vanish_together_and_a_mark_alone_may_be_lost() {
    let payloads: Vec<Vec<u8>> = (1..6).map(|n| vec![n; 100]).collect();
    let (disk, _) = journal_of(3, &payloads);
    let whole = disk.to_bytes();
    let erased = |ranges: &[std::ops::Range<usize>]| {
        let mut bytes = whole.clone();
        ranges.iter().for_each(|range| bytes[range.clone()].fill(0));
        replay(&open_bytes(bytes).unwrap(), 3)
    };
    let record = |n: usize| JOURNAL + n * 512..JOURNAL + (n + 1) * 512;
    let end = JOURNAL + JOURNAL_BYTES as usize;
    let marks = [end - 8192..end - 4096, end - 4096..end];
    for lost in 0..4 {
        let gone: Vec<_> = (lost..5).map(record).collect();
        assert!(
            matches!(erased(&gone), Err(ContainerError::DamagedJournal { .. })),
            "the records from {lost} on"
        );
    }
    // As if it had been torn: this cannot be told.
    assert_eq!(erased(&[record(4)]).unwrap(), payloads[..4]);
    for mark in &marks {
        assert_eq!(erased(std::slice::from_ref(mark)).unwrap(), payloads);
    }
    // One mark is enough, though the older one knows of one record less.
    assert!(erased(&[marks[0].clone(), record(2), record(3), record(4)]).is_err());
    assert!(erased(&[marks[1].clone(), record(3), record(4)]).is_err());
}

#[test]
fn a_mark_that_reached_the_disk_without_its_record_takes_nothing_away() {
    let payloads: Vec<Vec<u8>> = (1..4).map(|n| vec![n; 100]).collect();
    let (disk, container) = journal_of(3, &payloads);
    let before = disk.to_bytes();
    container.journal().append(3, &[&[9; 100]]).unwrap();
    let mut torn = disk.to_bytes();
    let place = JOURNAL + 3 * 512..JOURNAL + 4 * 512;
    torn[place.clone()].copy_from_slice(&before[place]);
    let container = open_bytes(torn).unwrap();
    assert_eq!(replay(&container, 3).unwrap(), payloads);
    container.journal().append(3, &[&[8; 100]]).unwrap();
    assert_eq!(replay(&container, 3).unwrap().len(), 4);
}

#[test]
fn records_of_another_generation_are_nothing() {
    let (disk, container) = journal_of(3, &[vec![1; 100], vec![2; 100], vec![3; 100]]);
    container.journal().restart(4);
    assert_eq!(container.journal().used_bytes(), 0);
    assert_eq!(
        replay(&open_bytes(disk.to_bytes()).unwrap(), 4).unwrap(),
        Vec::<Vec<u8>>::new()
    );
    container.journal().append(4, &[b"new"]).unwrap();
    let container = open_bytes(disk.to_bytes()).unwrap();
    assert_eq!(replay(&container, 4).unwrap(), [b"new".to_vec()]);
    // Asked for the old one, whose beginning is gone, it says so.
    assert!(matches!(
        replay(&container, 3),
        Err(ContainerError::DamagedJournal { .. })
    ));
}

#[test]
fn a_journal_stands_at_one_generation_and_that_only_rises() {
    let (_, container) = new_container();
    let journal = container.journal();
    let refused = |generation| {
        matches!(
            journal.append(generation, &[b"x"]),
            Err(ContainerError::WrongGeneration { .. })
        )
    };
    assert!(refused(0));
    journal.restart(5);
    assert!(refused(4) && refused(6) && !refused(5));
    journal.restart(5);
    assert!(
        refused(5),
        "the same generation again would take old records for new ones"
    );
}

#[test]
fn a_full_journal_refuses_and_stays_as_it_was() {
    let (_, container) = new_container();
    let journal = container.journal();
    journal.restart(1);
    let huge = vec![0xCD; 3_900_000];
    journal.append(1, &[&huge]).unwrap();
    assert!(!journal.fits(huge.len()));
    assert!(matches!(
        journal.append(1, &[&huge]),
        Err(ContainerError::JournalFull { .. })
    ));
    assert_eq!(journal.used_bytes(), Journal::record_size(huge.len()));
    let rest = vec![0xEF; journal.remaining_bytes() as usize - 72];
    assert!(journal.fits(rest.len()) && !journal.fits(rest.len() + 1) && !journal.fits(usize::MAX));
    journal.append(1, &[&rest]).unwrap();
    assert_eq!(journal.remaining_bytes(), 0);
    assert!(matches!(
        journal.append(1, &[]),
        Err(ContainerError::JournalFull {
            remaining_bytes: 0,
            ..
        })
    ));
    assert_eq!(replay(&container, 1).unwrap(), [huge, rest]);
    assert_eq!(journal.remaining_bytes(), 0);
    journal.restart(2);
    journal.append(2, &[b"room again"]).unwrap();
}

#[test]
fn a_record_that_claims_to_reach_beyond_the_journal_is_none() {
    let (disk, container) = journal_of(1, &[]);
    // Its tag is right: the claim alone is wrong.
    let tags = Tags::new(&STORE_ID);
    for claimed in [u32::MAX, JOURNAL_BYTES as u32, JOURNAL_BYTES as u32 - 71] {
        let mut head = [0; 24];
        head[..4].copy_from_slice(b"KJRN");
        head[4..8].copy_from_slice(&claimed.to_le_bytes());
        head[8..16].copy_from_slice(&1u64.to_le_bytes());
        disk.write_at(JOURNAL_OFFSET, &head).unwrap();
        disk.write_at(JOURNAL_OFFSET + 24, &tags.journal_head(&head))
            .unwrap();
        assert!(replay(&container, 1).unwrap().is_empty());
    }
}

#[test]
fn an_error_of_the_one_who_applies_ends_the_replay() {
    let (_, container) = journal_of(1, &[vec![1], vec![2], vec![3]]);
    let mut seen = 0;
    let result = container.journal().replay(1, |_| {
        seen += 1;
        if seen == 2 {
            Err(ContainerError::Empty)
        } else {
            Ok(())
        }
    });
    assert!(matches!(result, Err(ContainerError::Empty)));
    assert_eq!(seen, 2);
}
