//! A store file that somebody who knows the format has changed: tags and checksums are right again behind each change, so that
//! what is reached is what lies behind them.

use crate::contents::Contents;
use crate::damage::examine::{Judge, examine};
use crate::damage::kinds::repair;
use crate::damage::sample::Sample;
use crate::disk::SimulatedDisk;
use arbitrary::{Arbitrary, Unstructured};
use std::sync::LazyLock;

static SAMPLE: LazyLock<Sample> =
    LazyLock::new(|| Sample::build(1).expect("a store is made on a disk without faults"));

/// Where the segments begin, and a block: format version 1.
const SEGMENTS: u64 = 65_536 + (4 << 20);
const BLOCK: u64 = 4096;
/// The most that is appended or written at once, in bytes.
const BYTES_MAX: usize = 4096;

#[derive(Debug, Arbitrary)]
enum Change<'a> {
    /// Bytes of one of the pages in which anything stands.
    Page { page: u8, at: u16, bytes: &'a [u8] },
    /// The beginning of such a page: what kind it is, how many rows it has, where they are.
    PageHead { page: u8, bytes: [u8; 8] },
    /// Bytes of the container's header, both copies.
    Header { at: u8, bytes: &'a [u8] },
    /// Bytes of redb's header.
    RedbHeader { at: u16, bytes: &'a [u8] },
    /// Bytes of the journal's records.
    Journal { at: u32, bytes: &'a [u8] },
    /// Bytes of a shred cell.
    Cell { cell: u8, bytes: &'a [u8] },
    /// One page in another's place, or both exchanged.
    Copy { from: u8, to: u8, exchange: bool },
    /// A page of nothing.
    Zero { page: u8 },
    /// Another length.
    Length { less: u32, more: u16 },
}

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    /// Tags are left as they are: then this is damage by chance, and every answer counts.
    by_chance: bool,
    changes: Vec<Change<'a>>,
}

pub(super) fn run(input: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(input)) else {
        return;
    };
    let sample = &*SAMPLE;
    let mut image = sample.image.clone();
    for change in input.changes.iter().take(16) {
        change.make(sample, &mut image);
    }
    let judge = if input.by_chance {
        Judge::Everything
    } else {
        Judge::Values
    };
    if !input.by_chance {
        repair(&mut image);
    }
    let disk = SimulatedDisk::holding(image);
    let examined = examine(sample, judge, || sample.open(&disk));
    assert!(examined.wrong.is_empty(), "{:#?}", examined.wrong);
}

impl Change<'_> {
    fn make(&self, sample: &Sample, image: &mut Contents) {
        let pages: Vec<u64> = sample.full.iter().copied().filter(|at| *at >= SEGMENTS).collect();
        let page = |number: u8| pages[usize::from(number) % pages.len()];
        match self {
            Self::Page {
                page: number,
                at,
                bytes,
            } => {
                image.write(page(*number) + u64::from(*at) % BLOCK, cut(bytes));
            }
            Self::PageHead { page: number, bytes } => image.write(page(*number), bytes),
            Self::Header { at, bytes } => {
                for copy in [0, BLOCK] {
                    image.write(copy + u64::from(*at), &cut(bytes)[..bytes.len().min(64)]);
                }
            }
            Self::RedbHeader { at, bytes } => {
                image.write(
                    SEGMENTS + BLOCK + u64::from(*at) % 320,
                    &cut(bytes)[..bytes.len().min(160)],
                );
            }
            Self::Journal { at, bytes } => {
                let used = sample.journal_end - 65_536;
                image.write(65_536 + u64::from(*at) % used, cut(bytes));
            }
            Self::Cell { cell, bytes } => {
                image.write(8192 + u64::from(*cell) * 64, &cut(bytes)[..bytes.len().min(64)]);
            }
            Self::Copy { from, to, exchange } => {
                let (from, to) = (page(*from), page(*to));
                let (mut a, mut b) = ([0; BLOCK as usize], [0; BLOCK as usize]);
                if image.read(from, &mut a) && image.read(to, &mut b) {
                    image.write(to, &a);
                    if *exchange {
                        image.write(from, &b);
                    }
                }
            }
            Self::Zero { page: number } => image.write(page(*number), &[0; BLOCK as usize]),
            Self::Length { less, more } => {
                let len = image.len().saturating_sub(u64::from(*less));
                image.set_len(len);
                image.set_len(len + u64::from(*more));
            }
        }
    }
}

fn cut(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(BYTES_MAX)]
}
