//! The kinds of damage. Each one is done to the sample by dice: the same dice, the same image.

use super::sample::Sample;
use crate::contents::Contents;
use crate::env::Dice;

/// Where things stand, in bytes: format version 1.
const HEADER_BYTES: u64 = 8192;
const JOURNAL: u64 = 65_536;
const SEGMENTS: u64 = 65_536 + (4 << 20);
const BLOCK: u64 = 4096;
/// The most that an extension adds, and the most that a random file has.
const ADDED_MAX_BYTES: u64 = 1 << 20;
const RANDOM_MAX_BYTES: u64 = 8 << 20;

/// A kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// 1 to 4 bits, anywhere where anything stands; one time in four anywhere at all.
    Flips,
    /// 1 to 4 bits of the container's header, of redb's header or of a block of tags.
    HeaderBits,
    /// Two blocks of redb's, one in the other's place.
    PageSwaps,
    /// 1 to 5 blocks that are zero.
    ZeroedPages,
    /// The file ends somewhere.
    Truncations,
    /// Bytes behind the end.
    Extensions,
    /// Random bytes; some begin as a store does.
    RandomFiles,
    /// Bits and sectors of the journal's records.
    Journal,
    /// Bits of the shred cells.
    ShredCells,
    /// Blocks swapped, by somebody who makes the tags right.
    CraftedSwaps,
    /// 1 to 16 bytes of redb's blocks, of its header or of the journal, by somebody who makes the tags right.
    CraftedBytes,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Flips,
        Self::HeaderBits,
        Self::PageSwaps,
        Self::ZeroedPages,
        Self::Truncations,
        Self::Extensions,
        Self::RandomFiles,
        Self::Journal,
        Self::ShredCells,
        Self::CraftedSwaps,
        Self::CraftedBytes,
    ];

    /// The kind of the image with this number.
    #[must_use]
    pub fn of(image: u64) -> Self {
        Self::ALL[(image % Self::ALL.len() as u64) as usize]
    }

    /// What it is called in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flips => "bit flips",
            Self::HeaderBits => "header and tag bits",
            Self::PageSwaps => "page swaps",
            Self::ZeroedPages => "zeroed pages",
            Self::Truncations => "truncations",
            Self::Extensions => "extensions",
            Self::RandomFiles => "random files",
            Self::Journal => "journal",
            Self::ShredCells => "shred cells",
            Self::CraftedSwaps => "page swaps, tags made right",
            Self::CraftedBytes => "changed bytes, tags made right",
        }
    }

    /// True when the tags are made right again: then only values are proof against it, lists and counts are not.
    #[must_use]
    pub fn is_crafted(self) -> bool {
        matches!(self, Self::CraftedSwaps | Self::CraftedBytes)
    }

    /// Does the damage.
    #[must_use]
    pub fn damage(self, sample: &Sample, dice: &mut Dice) -> Contents {
        let mut image = sample.image.clone();
        let pages: Vec<u64> = sample.full.iter().copied().filter(|at| *at >= SEGMENTS).collect();
        match self {
            Self::Flips => {
                for _ in 0..=dice.below(4) {
                    let at = match dice.once_in(4) {
                        true => dice.below(image.len()),
                        false => dice.choose(&sample.full) + dice.below(BLOCK),
                    };
                    flip(&mut image, at, dice);
                }
            }
            Self::HeaderBits => {
                for _ in 0..=dice.below(4) {
                    let at = match dice.below(3) {
                        0 => dice.below(HEADER_BYTES),
                        // redb's header is the first 512 bytes of the first block behind the tags.
                        1 => SEGMENTS + BLOCK + dice.below(512),
                        _ => SEGMENTS + dice.below(pages.len() as u64 * 16),
                    };
                    flip(&mut image, at, dice);
                }
            }
            Self::PageSwaps | Self::CraftedSwaps => {
                for _ in 0..=dice.below(2) {
                    let (one, other) = (*dice.choose(&pages), *dice.choose(&pages));
                    swap(&mut image, one, other);
                }
            }
            Self::ZeroedPages => {
                for _ in 0..=dice.below(5) {
                    image.write(*dice.choose(&sample.full), &[0; BLOCK as usize]);
                }
            }
            Self::Truncations => {
                let len = match dice.below(3) {
                    0 => dice.below(image.len()),
                    1 => dice.below(image.len() / BLOCK) * BLOCK,
                    _ => image.len() - 1 - dice.below(4 * BLOCK),
                };
                image.set_len(len);
            }
            Self::Extensions => {
                let (end, added) = (image.len(), 1 + dice.below(ADDED_MAX_BYTES));
                image.set_len(end + added);
                if dice.once_in(2) {
                    image.write(end, &noise(added as usize, dice));
                }
            }
            Self::RandomFiles => random_file(&mut image, dice),
            Self::Journal => {
                let used = sample.journal_end - JOURNAL;
                for _ in 0..=dice.below(3) {
                    let at = JOURNAL + dice.below(used);
                    match dice.below(3) {
                        0 => flip(&mut image, at, dice),
                        1 => image.write(at / 512 * 512, &[0; 512]),
                        _ => {
                            let (one, other) = (at / 512 * 512, JOURNAL + dice.below(used) / 512 * 512);
                            let mut sector = [0; 512];
                            if image.read(one, &mut sector) {
                                image.write(other, &sector);
                            }
                        }
                    }
                }
            }
            Self::ShredCells => {
                for _ in 0..=dice.below(3) {
                    flip(&mut image, HEADER_BYTES + dice.below(16 * 64), dice);
                }
            }
            Self::CraftedBytes => {
                for _ in 0..=dice.below(16) {
                    let at = match dice.below(6) {
                        0 => SEGMENTS + BLOCK + dice.below(320),
                        1 => JOURNAL + dice.below(sample.journal_end - JOURNAL),
                        // A page's own beginning says what the rest of it is.
                        2 | 3 => dice.choose(&pages) + dice.below(64),
                        _ => dice.choose(&pages) + dice.below(BLOCK),
                    };
                    image.write(at, &noise(1, dice));
                }
            }
        }
        if self.is_crafted() {
            repair(&mut image);
        }
        image
    }
}

fn flip(image: &mut Contents, at: u64, dice: &mut Dice) {
    let mut byte = [0];
    if image.read(at, &mut byte) {
        image.write(at, &[byte[0] ^ 1 << dice.below(8)]);
    }
}

fn swap(image: &mut Contents, one: u64, other: u64) {
    let (mut a, mut b) = ([0; BLOCK as usize], [0; BLOCK as usize]);
    if image.read(one, &mut a) && image.read(other, &mut b) {
        image.write(one, &b);
        image.write(other, &a);
    }
}

fn random_file(image: &mut Contents, dice: &mut Dice) {
    let len = match dice.below(3) {
        0 => dice.below(2 * HEADER_BYTES),
        _ => dice.below(RANDOM_MAX_BYTES),
    };
    let mut bytes = noise(len as usize, dice);
    // Nothing of a store; its mark; a whole header and nothing behind it that fits.
    let kept = *dice.choose(&[0, 8, 12, HEADER_BYTES as usize, HEADER_BYTES as usize]);
    let kept = kept.min(bytes.len());
    let _ = image.read(0, &mut bytes[..kept]);
    image.set_len(0);
    image.set_len(len);
    image.write(0, &bytes);
}

fn noise(bytes: usize, dice: &mut Dice) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&dice.roll().to_le_bytes());
    hasher.finalize_xof().fill(&mut noise);
    noise
}

/// Makes all checksums and tags of an image right: the container's, and those in redb's header.
pub fn repair(image: &mut Contents) {
    let mut bytes = vec![0; image.len() as usize];
    if image.read(0, &mut bytes) {
        repair_bytes(&mut bytes);
        image.write(0, &bytes);
    }
}

/// The same for bytes.
pub fn repair_bytes(bytes: &mut [u8]) {
    keystead::simulation::repair_image(bytes, |redb_header| {
        // Two commit slots of 128 bytes behind 64 bytes; each ends with a checksum over the rest of it.
        for slot in redb_header[64..320].chunks_exact_mut(128) {
            let (covered, checksum) = slot.split_at_mut(112);
            checksum.copy_from_slice(&xxhash_rust::xxh3::xxh3_128(covered).to_le_bytes());
        }
    });
}
