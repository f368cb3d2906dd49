//! The header's bytes: making a copy, reading a copy, choosing between two.

use super::error::ContainerError;
use super::geometry::{
    BLOCK_BYTES, HEADER_BYTES, JOURNAL_BYTES, JOURNAL_OFFSET, Layout, PAGE_BLOCKS_MAX, SEGMENT_BYTES,
    SEGMENTS_OFFSET, array,
};

/// The first eight bytes of every store.
pub(crate) const MAGIC: [u8; 8] = *b"KEYSTEAD";
/// The format that this code writes.
pub(crate) const FORMAT_VERSION: u32 = 1;

const COPY: usize = HEADER_BYTES as usize;
const VERSION_AT: usize = 8;
const BLOCK_BYTES_AT: usize = 12;
const SEQUENCE_AT: usize = 16;
const STORE_ID_AT: usize = 24;
const JOURNAL_OFFSET_AT: usize = 40;
const JOURNAL_BYTES_AT: usize = 48;
const SEGMENT_BYTES_AT: usize = 56;
const PAGE_BLOCKS_AT: usize = 64;
const CELL_SEGMENT_COUNT_AT: usize = 72;
const CELL_SEGMENTS_AT: usize = 80;
const CHECKSUM_AT: usize = COPY - 32;
/// Cell segments that a header has room for.
pub(crate) const CELL_SEGMENTS_MAX: usize = (CHECKSUM_AT - CELL_SEGMENTS_AT) / 4;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Counts the updates; the higher one is newer.
    pub(crate) sequence: u64,
    /// The random id of the store.
    pub(crate) store_id: [u8; 16],
    /// Where the segments are.
    pub(crate) layout: Layout,
}

/// Why a copy is not to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Foreign,
    TooNew(u32),
    Damaged(&'static str),
}

impl Header {
    /// The bytes of a copy. The layout's list is at most [`CELL_SEGMENTS_MAX`] long.
    pub(crate) fn encode(&self) -> [u8; COPY] {
        let mut bytes = [0; COPY];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(VERSION_AT, &FORMAT_VERSION.to_le_bytes());
        put(BLOCK_BYTES_AT, &(BLOCK_BYTES as u32).to_le_bytes());
        put(SEQUENCE_AT, &self.sequence.to_le_bytes());
        put(STORE_ID_AT, &self.store_id);
        put(JOURNAL_OFFSET_AT, &JOURNAL_OFFSET.to_le_bytes());
        put(JOURNAL_BYTES_AT, &JOURNAL_BYTES.to_le_bytes());
        put(SEGMENT_BYTES_AT, &SEGMENT_BYTES.to_le_bytes());
        put(PAGE_BLOCKS_AT, &self.layout.page_blocks.to_le_bytes());
        put(
            CELL_SEGMENT_COUNT_AT,
            &(self.layout.cell_segments.len() as u32).to_le_bytes(),
        );
        for (index, segment) in self.layout.cell_segments.iter().enumerate() {
            put(CELL_SEGMENTS_AT + 4 * index, &segment.to_le_bytes());
        }
        let checksum = blake3::hash(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(checksum.as_bytes());
        bytes
    }

    /// Makes the checksum of a copy right, whatever else stands in it.
    #[cfg(feature = "simulation")]
    pub(super) fn repair(copy: &mut [u8]) {
        let checksum = blake3::hash(&copy[..CHECKSUM_AT]);
        copy[CHECKSUM_AT..].copy_from_slice(checksum.as_bytes());
    }

    pub(super) fn decode(bytes: &[u8; COPY]) -> Result<Self, Fault> {
        let u32_at = |at: usize| u32::from_le_bytes(array(&bytes[at..]));
        let u64_at = |at: usize| u64::from_le_bytes(array(&bytes[at..]));
        if bytes[..8] != MAGIC {
            return Err(Fault::Foreign);
        }
        // Before the checksum: a later version may keep its checksum elsewhere, and is still to be named too new.
        if u32_at(VERSION_AT) > FORMAT_VERSION {
            return Err(Fault::TooNew(u32_at(VERSION_AT)));
        }
        if blake3::hash(&bytes[..CHECKSUM_AT]).as_bytes() != &bytes[CHECKSUM_AT..] {
            return Err(Fault::Damaged("the checksum does not match"));
        }
        let geometry = u32_at(VERSION_AT) == FORMAT_VERSION
            && u64::from(u32_at(BLOCK_BYTES_AT)) == BLOCK_BYTES
            && u64_at(JOURNAL_OFFSET_AT) == JOURNAL_OFFSET
            && u64_at(JOURNAL_BYTES_AT) == JOURNAL_BYTES
            && u64_at(SEGMENT_BYTES_AT) == SEGMENT_BYTES;
        if !geometry {
            return Err(Fault::Damaged("its geometry is not that of its format version"));
        }
        let count = u32_at(CELL_SEGMENT_COUNT_AT) as usize;
        let page_blocks = u64_at(PAGE_BLOCKS_AT);
        if count > CELL_SEGMENTS_MAX || page_blocks > PAGE_BLOCKS_MAX {
            return Err(Fault::Damaged("a count is beyond what the format allows"));
        }
        let cell_segments: Vec<u32> = (0..count)
            .map(|index| u32_at(CELL_SEGMENTS_AT + 4 * index))
            .collect();
        if !cell_segments.is_sorted_by(|a, b| a < b) {
            return Err(Fault::Damaged("its list of cell segments is out of order"));
        }
        Ok(Self {
            sequence: u64_at(SEQUENCE_AT),
            store_id: array(&bytes[STORE_ID_AT..]),
            layout: Layout {
                page_blocks,
                cell_segments,
            },
        })
    }
}

/// What the two copies at the front of a file say together.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// The newest valid header.
    pub(crate) header: Header,
    /// The copy (0 for A, 1 for B) that is torn, damaged or older, and must be made like the other.
    pub(crate) mend: Option<usize>,
}

/// Chooses the newest valid copy. `front` is what the file begins with: both copies, or less when the file is shorter.
///
/// A valid copy of this version wins over one that claims a later version: whoever upgrades a file writes both copies
/// before changing anything else, so until both are written the file is still of the old version.
pub(crate) fn choose(front: &[u8]) -> Result<Chosen, ContainerError> {
    if front.is_empty() {
        return Err(ContainerError::Empty);
    }
    let copy = |index: usize| match front.get(index * COPY..(index + 1) * COPY) {
        Some(bytes) => Header::decode(&array(bytes)),
        // Shorter than both copies: at most the magic and the version can still be told.
        None => Err(fault_of_stump(front.get(index * COPY..).unwrap_or_default())),
    };
    let (a, b) = (copy(0), copy(1));
    let chosen = match (a, b) {
        (Ok(a), Ok(b)) if a == b => Chosen {
            header: a,
            mend: None,
        },
        (Ok(a), Ok(b)) if a.sequence == b.sequence => {
            return Err(ContainerError::DamagedHeader {
                why: "they contradict each other",
            });
        }
        (Ok(a), Ok(b)) if a.sequence > b.sequence => Chosen {
            header: a,
            mend: Some(1),
        },
        (Ok(_), Ok(b)) | (Err(_), Ok(b)) => Chosen {
            header: b,
            mend: Some(0),
        },
        (Ok(a), Err(_)) => Chosen {
            header: a,
            mend: Some(1),
        },
        (Err(a), Err(b)) => return Err(no_copy(a, b, front.len())),
    };
    Ok(chosen)
}

/// What a header says, for tests that know no `Layout`.
#[cfg(feature = "simulation")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeaderView {
    /// Counts the updates.
    pub sequence: u64,
    /// The random id of the store.
    pub store_id: [u8; 16],
    /// Blocks of redb's file.
    pub page_blocks: u64,
    /// The numbers of the segments that hold cells.
    pub cell_segments: Vec<u32>,
    /// The copy that is to be made like the other, if one is.
    pub mend: Option<usize>,
    /// The length that the file must have at least, in bytes.
    pub file_bytes: u64,
    /// A copy with this content, as it is written.
    pub encoded: Vec<u8>,
}

/// Chooses as opening does, and says what it means.
#[cfg(feature = "simulation")]
pub(crate) fn read_header(front: &[u8]) -> Result<HeaderView, ContainerError> {
    let Chosen { header, mend } = choose(front)?;
    Ok(HeaderView {
        sequence: header.sequence,
        store_id: header.store_id,
        page_blocks: header.layout.page_blocks,
        mend,
        file_bytes: header.layout.file_bytes(),
        encoded: header.encode().to_vec(),
        cell_segments: header.layout.cell_segments,
    })
}

fn fault_of_stump(bytes: &[u8]) -> Fault {
    if bytes.get(..8) != Some(&MAGIC) {
        return Fault::Foreign;
    }
    match bytes.get(VERSION_AT..VERSION_AT + 4) {
        Some(version) if u32::from_le_bytes(array(version)) > FORMAT_VERSION => {
            Fault::TooNew(u32::from_le_bytes(array(version)))
        }
        _ => Fault::Damaged("the file ends inside of it"),
    }
}

fn no_copy(a: Fault, b: Fault, front_bytes: usize) -> ContainerError {
    match (a, b) {
        (Fault::TooNew(found), _) | (_, Fault::TooNew(found)) => ContainerError::TooNew {
            found,
            supported: FORMAT_VERSION,
        },
        (Fault::Damaged(_), _) | (_, Fault::Damaged(_)) if front_bytes < 2 * COPY => {
            ContainerError::Truncated {
                expected_bytes: SEGMENTS_OFFSET,
                found_bytes: front_bytes as u64,
            }
        }
        (Fault::Damaged(why), _) | (_, Fault::Damaged(why)) => ContainerError::DamagedHeader { why },
        (Fault::Foreign, Fault::Foreign) => ContainerError::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(sequence: u64) -> Header {
        let layout = Layout {
            page_blocks: 777,
            cell_segments: vec![3, 9, 10],
        };
        Header {
            sequence,
            store_id: [7; 16],
            layout,
        }
    }

    fn front(a: &[u8; COPY], b: &[u8; COPY]) -> Vec<u8> {
        [a.as_slice(), b.as_slice()].concat()
    }

    #[test]
    fn a_header_says_what_it_was_told() {
        for count in [0, 1, CELL_SEGMENTS_MAX] {
            let mut told = header(5);
            told.layout.cell_segments = (0..count as u32).map(|n| n * 3).collect();
            assert_eq!(Header::decode(&told.encode()), Ok(told));
        }
    }

    #[test]
    fn the_newer_valid_copy_is_taken_and_the_other_is_to_be_mended() {
        let (old, new) = (header(4).encode(), header(5).encode());
        let chosen = choose(&front(&old, &new)).unwrap();
        assert_eq!((chosen.header.sequence, chosen.mend), (5, Some(0)));
        let chosen = choose(&front(&new, &old)).unwrap();
        assert_eq!((chosen.header.sequence, chosen.mend), (5, Some(1)));
        let chosen = choose(&front(&new, &new)).unwrap();
        assert_eq!((chosen.header.sequence, chosen.mend), (5, None));
    }

    #[test]
    fn an_update_torn_at_any_sector_leaves_a_readable_header() {
        let (old, mut newer) = (header(4), header(5));
        newer.layout.cell_segments = (0..900).collect();
        for sectors in 0..=8 {
            let mut torn = old.encode();
            torn[..sectors * 512].copy_from_slice(&newer.encode()[..sectors * 512]);
            let chosen = choose(&front(&torn, &old.encode())).unwrap();
            assert_eq!(chosen.header.sequence, if sectors == 8 { 5 } else { 4 });
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_in_one_copy_is_noticed_and_harms_nothing() {
        let good = header(5);
        for at in 0..COPY {
            let mut bad = good.encode();
            bad[at] ^= 1 << (at % 8);
            let chosen = choose(&front(&bad, &good.encode())).unwrap();
            assert_eq!((&chosen.header, chosen.mend), (&good, Some(0)), "byte {at}");
            assert!(choose(&front(&bad, &bad)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn what_is_no_header_is_named_for_what_it_is() {
        let good = header(5).encode();
        assert!(matches!(choose(&[]), Err(ContainerError::Empty)));
        assert!(matches!(
            choose(b"SQLite format 3\0"),
            Err(ContainerError::Foreign)
        ));
        assert!(matches!(choose(&[0; 8192]), Err(ContainerError::Foreign)));
        assert!(matches!(
            choose(&good[..100]),
            Err(ContainerError::Truncated { .. })
        ));
        let mut bad = good;
        bad[100] ^= 1;
        assert!(matches!(
            choose(&front(&bad, &bad)),
            Err(ContainerError::DamagedHeader { .. })
        ));
        assert!(matches!(
            choose(&front(
                &good,
                &Header {
                    store_id: [8; 16],
                    ..header(5)
                }
                .encode()
            )),
            Err(ContainerError::DamagedHeader { .. })
        ));
    }

    #[test]
    fn a_later_version_is_too_new_whatever_its_layout() {
        let mut later = [0xA5; COPY];
        later[..8].copy_from_slice(&MAGIC);
        later[8..12].copy_from_slice(&7u32.to_le_bytes());
        for front in [
            front(&later, &[0; COPY]),
            front(&[0; COPY], &later),
            later[..12].to_vec(),
        ] {
            assert!(matches!(
                choose(&front),
                Err(ContainerError::TooNew {
                    found: 7,
                    supported: 1
                })
            ));
        }
        // Half upgraded is not upgraded.
        let old = header(5);
        assert_eq!(choose(&front(&later, &old.encode())).unwrap().header, old);
    }

    #[test]
    fn a_header_with_a_right_checksum_and_impossible_contents_is_refused() {
        let seal = |change: fn(&mut [u8; COPY])| {
            let mut bytes = header(5).encode();
            change(&mut bytes);
            let checksum = blake3::hash(&bytes[..CHECKSUM_AT]);
            bytes[CHECKSUM_AT..].copy_from_slice(checksum.as_bytes());
            choose(&front(&bytes, &bytes))
        };
        let changes: [fn(&mut [u8; COPY]); 5] = [
            |bytes| bytes[VERSION_AT] = 0,
            |bytes| bytes[BLOCK_BYTES_AT] = 1,
            |bytes| bytes[CELL_SEGMENT_COUNT_AT + 1] = 0xFF,
            |bytes| bytes[PAGE_BLOCKS_AT + 7] = 0xFF,
            |bytes| bytes[CELL_SEGMENTS_AT] = 200,
        ];
        for change in changes {
            assert!(matches!(seal(change), Err(ContainerError::DamagedHeader { .. })));
        }
    }
}
