//! The one writer: what a group of changes may and may not do to each other, and what survives.

use super::{Committer, FACT_GENERATION, JOURNALED_COMMITS_MAX, lock, structure};
use crate::crypto::PlaceKey;
use crate::error::{Error, Result};
use crate::storage::container::{Container, MemoryDisk};
use crate::storage::records::{Body, VersionHeader, VersionRow};
use crate::storage::snapshot::Rows;
use crate::storage::tables::Table;
use crate::storage::transaction::Transaction;
use std::sync::Arc;
use zeroize::Zeroizing;

const ID: [u8; 16] = [7; 16];

fn create(disk: &Arc<MemoryDisk>) -> Committer {
    let container = Container::create(Arc::clone(disk) as _, ID).unwrap();
    Committer::create(container, PlaceKey::of_store(&ID), 8 << 20).unwrap()
}

/// Opens what a loss of power would leave of a disk that never forgets: everything, but no goodbye.
fn open_after_crash(disk: &MemoryDisk) -> Committer {
    let disk = Arc::new(MemoryDisk::from_bytes(disk.to_bytes()));
    Committer::open(
        Container::open(disk as _).unwrap(),
        PlaceKey::of_store(&ID),
        8 << 20,
    )
    .unwrap()
}

fn put(key: u32) -> impl FnMut(&mut Transaction<'_>) -> Result<()> {
    move |transaction| transaction.put(Table::Secrets, &key.to_be_bytes(), b"row")
}

fn has(committer: &Committer, key: u32) -> bool {
    committer
        .snapshot()
        .get_with(Table::Secrets, &key.to_be_bytes(), |_| Ok(()))
        .unwrap()
        .is_some()
}

#[test]
fn what_is_acknowledged_survives_a_crash_whether_journaled_or_checkpointed() {
    let disk = Arc::new(MemoryDisk::new());
    let committer = create(&disk);
    let last = u32::try_from(JOURNALED_COMMITS_MAX).unwrap() * 2 + 10;
    for key in 0..last {
        committer.submit(put(key)).unwrap();
        if key % 97 == 0 || key + 2 > last {
            let crashed = open_after_crash(&disk);
            assert!((0..=key).all(|key| has(&crashed, key)), "after {key}");
        }
    }
}

#[test]
fn a_change_that_fails_half_way_leaves_nothing_and_costs_the_others_nothing() {
    let disk = Arc::new(MemoryDisk::new());
    let committer = create(&disk);
    std::thread::scope(|threads| {
        for key in 0..64 {
            let committer = &committer;
            threads.spawn(move || {
                if key % 4 == 0 {
                    let failed = committer.submit(move |transaction| {
                        put(key)(transaction)?;
                        Err::<(), _>(Error::EpochMoved)
                    });
                    assert!(matches!(failed, Err(Error::EpochMoved)));
                } else {
                    committer.submit(put(key)).unwrap();
                }
            });
        }
    });
    for committer in [&committer, &open_after_crash(&disk)] {
        assert!((0..64).all(|key| has(committer, key) == (key % 4 != 0)));
    }
}

#[test]
fn changes_of_many_threads_are_applied_one_after_the_other() {
    let disk = Arc::new(MemoryDisk::new());
    let committer = create(&disk);
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                for _ in 0..100 {
                    committer
                        .submit(|transaction| {
                            let count = transaction.fact("count")?;
                            transaction.put_fact("count", count + 1)
                        })
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(committer.snapshot().fact("count").unwrap(), 800);
    assert_eq!(open_after_crash(&disk).snapshot().fact("count").unwrap(), 800);
}

#[test]
fn a_change_that_panics_takes_only_its_own_thread_with_it() {
    let disk = Arc::new(MemoryDisk::new());
    let committer = create(&disk);
    let panicked = std::thread::scope(|threads| {
        threads
            .spawn(|| committer.submit(|_| -> Result<()> { panic!("a planted panic") }))
            .join()
            .is_err()
    });
    assert!(panicked);
    committer.submit(put(1)).unwrap();
    assert!(has(&committer, 1));
}

#[test]
fn a_change_without_a_write_costs_no_commit() {
    let disk = Arc::new(MemoryDisk::new());
    let committer = create(&disk);
    let before = committer.snapshot().sequence;
    assert_eq!(
        committer
            .submit(|transaction| transaction.fact("nothing"))
            .unwrap(),
        0
    );
    assert_eq!(committer.snapshot().sequence, before);
}

#[test]
fn a_shred_cell_is_written_before_its_commit_and_overwritten_after_the_one_that_drops_it() {
    let disk = Arc::new(MemoryDisk::new());
    let committer = create(&disk);
    let cell = committer
        .submit(|transaction| transaction.stage_cell(Zeroizing::new([9; 32])))
        .unwrap();
    let crashed = open_after_crash(&disk);
    assert_eq!(crashed.container().read_cell(cell).unwrap().as_slice(), [9; 32]);
    committer
        .submit(move |transaction| transaction.drop_cell(cell))
        .unwrap();
    assert!(committer.container().cell_is_erased(cell).unwrap());
    assert!(open_after_crash(&disk).container().cell_is_erased(cell).unwrap());
    // It is free again, and taken before a new one.
    committer.submit(put(1)).unwrap();
    assert_eq!(
        committer
            .submit(|transaction| transaction.stage_cell(Zeroizing::new([8; 32])))
            .unwrap(),
        cell
    );
}

#[test]
fn a_cell_of_a_change_that_failed_is_not_left_behind() {
    let disk = Arc::new(MemoryDisk::new());
    let committer = create(&disk);
    let failed = committer.submit(|transaction| {
        transaction.stage_cell(Zeroizing::new([9; 32]))?;
        Err::<(), _>(Error::EpochMoved)
    });
    assert!(failed.is_err());
    assert!((0..64).all(|cell| {
        committer
            .container()
            .cell_is_erased(super::CellNumber(cell))
            .unwrap()
    }));
}

/// Labels are in clear, whoever may put chooses them, and whoever knows the store's id (a customer's KMS is told it with each call) can
/// compute tags. Heads of the journal's next generation in labels kept the store from opening, once the journal had moved on.
#[test]
fn labels_that_hold_heads_of_the_journal_do_not_keep_a_store_from_opening() {
    let head = (5u64..)
        .find_map(|sequence| String::from_utf8(forged_head(2, sequence)).ok())
        .unwrap();
    let disk = Arc::new(MemoryDisk::new());
    let committer = create(&disk);
    assert_eq!(committer.snapshot().fact(FACT_GENERATION).unwrap(), 1);
    // A head every 40 bytes in each of 64 labels: one stands where a sector begins, wherever the record does.
    let labels = (0..64).map(|n| (format!("{n:03}"), head.repeat(25)));
    let header = VersionHeader {
        created_at_ms: 0,
        size_bytes: 0,
        content_type: None,
        labels: labels.collect(),
        body: Body::Lost { at_ms: 0 },
    };
    let row = VersionRow::begin(&PlaceKey::of_store(&ID), &[1; 16], &header, 0);
    committer
        .submit(move |transaction| transaction.put(Table::Versions, &[1; 16], &row))
        .unwrap();
    assert_eq!(
        committer.container().journal().used_bytes(),
        0,
        "it went past the journal"
    );
    // Had it not, the next checkpoint would begin the generation of the heads.
    while committer.snapshot().fact(FACT_GENERATION).unwrap() < 2 {
        committer.submit(put(1)).unwrap();
    }
    committer.submit(put(2)).unwrap();
    assert!(has(&open_after_crash(&disk), 2));
}

/// The head of a record without a payload, and its tag: as `docs/format.md` has it.
fn forged_head(generation: u64, sequence: u64) -> Vec<u8> {
    let label = "keystead container v1: tag of the head of a journal record";
    let mut head = b"KJRN\0\0\0\0".to_vec();
    head.extend_from_slice(&generation.to_le_bytes());
    head.extend_from_slice(&sequence.to_le_bytes());
    let tag = blake3::keyed_hash(&blake3::derive_key(label, &ID), &head);
    head.extend_from_slice(&tag.as_bytes()[..16]);
    head
}

#[test]
fn a_large_change_goes_past_the_journal() {
    let disk = Arc::new(MemoryDisk::new());
    let committer = create(&disk);
    committer
        .submit(|transaction| {
            for key in 0..200_u32 {
                transaction.put(Table::Chunks, &key.to_be_bytes(), &[3; 60_000])?;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(committer.container().journal().used_bytes(), 0);
    let crashed = open_after_crash(&disk);
    let row = crashed
        .snapshot()
        .get_with(Table::Chunks, &199_u32.to_be_bytes(), |row| Ok(row.len()))
        .unwrap();
    assert_eq!(row, Some(60_000));
}

/// Where checkpoints kept coming between, the last try stopped every writer for the whole check of the structure.
#[test]
fn writers_go_on_while_checkpoints_are_held_off_for_a_check_of_the_structure() {
    let disk = Arc::new(MemoryDisk::new());
    let committer = create(&disk);
    for key in 0..1000 {
        committer.submit(put(key)).unwrap();
    }
    let generation = lock(&committer.writer).generation;
    let held_off = committer.checkpoints.read().unwrap();
    let last = 1000 + 2 * u32::try_from(JOURNALED_COMMITS_MAX).unwrap();
    for key in 1000..last {
        committer.submit(put(key)).unwrap();
        let large = move |transaction: &mut Transaction<'_>| {
            transaction.put(Table::Chunks, &key.to_be_bytes(), &[3; 5000])
        };
        committer.submit(large).unwrap();
        if key % 100 == 0 {
            structure::check(&committer.container).unwrap();
        }
    }
    assert_eq!(lock(&committer.writer).generation, generation, "no checkpoint");
    assert!(committer.container().journal().used_bytes() > 2 << 20);
    assert!(has(&open_after_crash(&disk), last - 1));
    // Who needs one waits for the check.
    let (begun, told) = std::sync::mpsc::channel();
    std::thread::scope(|threads| {
        let committer = &committer;
        threads.spawn(move || {
            committer
                .submit(|transaction| {
                    let cell = transaction.stage_cell(Zeroizing::new([9; 32]))?;
                    transaction.drop_cell(cell)
                })
                .unwrap();
            begun.send(()).unwrap();
        });
        let waiting = told.recv_timeout(std::time::Duration::from_millis(50));
        assert!(waiting.is_err(), "it did not wait");
        structure::check(&committer.container).unwrap();
        drop(held_off);
        told.recv().unwrap();
    });
    assert!(lock(&committer.writer).generation > generation);
    committer.check_structure().unwrap();
}

mod crafted;
