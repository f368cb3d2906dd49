//! Pages that fit their tags and make no sense: what somebody makes who knows the format, or a disk that put old blocks back.
//! A store on them opens, reads and writes, or it refuses; no panic leaves it, and its file is free afterwards.

use super::{ID, create, put};
use crate::crypto::PlaceKey;
use crate::error::{Error, Result};
use crate::storage::commit::Committer;
use crate::storage::container::{Container, MemoryDisk};
use crate::storage::snapshot::Rows;
use crate::storage::tables::Table;
use crate::storage::transaction::Transaction;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, OnceLock};

const BLOCK: usize = 4096;

/// Numbers that look random, from a seed: splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn put_many(from: u32) -> impl FnMut(&mut Transaction<'_>) -> Result<()> {
    move |transaction| {
        for key in from..from + 400 {
            transaction.put(Table::Versions, &key.to_be_bytes(), &[key as u8; 100])?;
            transaction.put(Table::Secrets, &key.wrapping_mul(77_777).to_be_bytes(), b"row")?;
        }
        transaction.put(Table::Chunks, &from.to_be_bytes(), &[1; 20_000])
    }
}

/// A store of some hundred pages, some of them free and old, and all of its blocks that were written.
fn sample() -> &'static (Vec<u8>, Vec<u64>) {
    static SAMPLE: OnceLock<(Vec<u8>, Vec<u64>)> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let disk = Arc::new(MemoryDisk::new());
        let committer = create(&disk);
        for round in 0..6 {
            committer.submit(put_many(round * 300)).unwrap();
        }
        committer.close().unwrap();
        drop(committer);
        let container = Container::open(Arc::clone(&disk) as _).unwrap();
        let pages = container.pages();
        let blocks = redb::StorageBackend::len(&container.page_file()).unwrap() / BLOCK as u64;
        let written = (1..blocks)
            .filter(|block| pages.read_at(block * BLOCK as u64, &mut [0; BLOCK]).is_ok())
            .collect();
        (disk.to_bytes(), written)
    })
}

/// One to three changes of pages, their tags made anew.
fn craft(dice: &mut Dice) -> Arc<MemoryDisk> {
    let (bytes, written) = sample();
    let disk = Arc::new(MemoryDisk::from_bytes(bytes.clone()));
    let container = Container::open(Arc::clone(&disk) as _).unwrap();
    let pages = container.pages();
    let pick = |dice: &mut Dice| written[dice.below(written.len() as u64) as usize] * BLOCK as u64;
    for _ in 0..1 + dice.below(3) {
        let mut page = [0; BLOCK];
        let at = pick(dice);
        pages.read_at(at, &mut page).unwrap();
        match dice.below(6) {
            // Another page in its place, as a lying disk leaves it.
            0 => pages.read_at(pick(dice), &mut page).unwrap(),
            // A number of entries or an offset.
            1 => page[2 + dice.below(30) as usize] = dice.below(256) as u8,
            2 => page[..64].rotate_left(1 + dice.below(60) as usize),
            // Bits anywhere.
            3 => {
                for _ in 0..1 + dice.below(20) {
                    page[dice.below(BLOCK as u64) as usize] ^= 1 << dice.below(8);
                }
            }
            // Leaf for branch, branch for leaf.
            4 => page[0] ^= 3,
            _ => {
                let from = dice.below(BLOCK as u64) as usize;
                page[from..].fill(dice.below(256) as u8);
            }
        }
        pages.write_at(at, &page).unwrap();
    }
    if dice.below(8) == 0 {
        let mut header = [0; 320];
        pages.read_at(0, &mut header).unwrap();
        header[dice.below(320) as usize] ^= 1 << dice.below(8);
        pages.write_at(0, &header).unwrap();
    }
    disk
}

/// Opens it, reads all, writes, closes. Returns the first error.
fn live(disk: &Arc<MemoryDisk>) -> Result<()> {
    let container = Container::open(Arc::clone(disk) as _).expect("the container itself is whole");
    let committer = Committer::open(container, PlaceKey::of_store(&ID), 1 << 20)?;
    let snapshot = committer.snapshot();
    let read = Table::ALL.iter().try_for_each(|table| {
        let mut rows = 0;
        snapshot.scan(*table, Bound::Unbounded, None, |_, _| {
            rows += 1;
            // A tree that was made to go in circles.
            Ok(if rows < 100_000 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        })
    });
    let wrote = (0..3).try_for_each(|round| {
        committer.submit(put_many(round * 500))?;
        committer.submit(put(round))
    });
    let closed = committer.close();
    read.and(wrote).and(closed)
}

#[test]
fn pages_that_make_no_sense_are_errors_and_no_panic_goes_further() {
    let seed =
        std::env::var("KEYSTEAD_SEED").map_or(1, |seed| seed.parse().expect("KEYSTEAD_SEED is a number"));
    println!("KEYSTEAD_SEED={seed}");
    let [mut unharmed, mut refused, mut panicked] = [0; 3];
    for image in 0..1500 {
        let disk = craft(&mut Dice(seed << 32 | image));
        match live(&disk) {
            Ok(()) => unharmed += 1,
            Err(Error::StorePanicked { .. }) => panicked += 1,
            Err(Error::Damaged { .. } | Error::Storage { .. } | Error::Closed { .. }) => refused += 1,
            Err(other) => panic!("KEYSTEAD_SEED={seed}, image {image}: {other:?}"),
        }
        assert_eq!(
            Arc::strong_count(&disk),
            1,
            "KEYSTEAD_SEED={seed}, image {image}: the file is not let go"
        );
    }
    println!("1500 crafted images: {unharmed} unharmed, {refused} refused, {panicked} panics caught");
    assert!(refused > 0 && unharmed > 0);
}
