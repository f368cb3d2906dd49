//! The journal: a write-ahead log in a fixed region of the file, for commits that redb makes in memory only.
//!
//! A commit that redb makes durable so that a crashed store still opens at once (two-phase, quick-repair) costs two syncs and
//! over 100 KiB; a journaled one costs one sync and what it changed.
//!
//! # A record
//!
//! ```text
//!   0   u32       magic "KJRN"
//!   4   u32       length of the payload, in bytes
//!   8   u64       generation
//!  16   u64       sequence, from 0 in each generation
//!  24   [16]      tag of the head: over bytes 0..24
//!  40   [32]      tag of the record: over bytes 0..24 and the payload
//!  72   payload
//!       zeros up to the next multiple of 512
//! ```
//!
//! The region's last two blocks hold marks: with each record, and under the same sync, a head of its generation and sequence
//! and of no payload is written to the beginning of one of the two, of the first for even sequences, of the second for odd ones.
//!
//! Records of a generation stand one behind the other from the region's beginning, each at a multiple of 512. A new generation
//! starts at the beginning again and writes nothing for it: records of an older one do not match any more.
//!
//! # Why an end is an end, and a hole is a hole
//!
//! One record is written and synced before the next one begins, and after a write or sync that failed there is no next one. So
//! when power goes, at most one record is in doubt, the last, and nobody was told that it is durable. Replay ends at the first
//! record that is not whole. If that was the one in doubt, no head of its generation with a higher sequence exists anywhere in
//! the region: such a head is written only after the record before it was synced. Finding one therefore proves that a record in
//! the middle, which was acknowledged, is damaged; that is an error. (A head stands within one sector, and has a tag of its
//! own: it is found even when its payload is damaged or torn as well.)
//!
//! The next append overwrites a torn record from its beginning, perhaps with a shorter one. What then is left of the torn one
//! is payload, and so is what a generation leaves behind its last record.
//!
//! # Why no payload can pass for a record
//!
//! Payloads have clear bytes that others choose (a label's value), and whoever knows the store's id can compute tags. So **no
//! sector of a record but its first begins with the magic**: such a payload is refused, and its commit is a checkpoint instead.
//! A sector is written whole or not at all, so every sector of the region that begins with the magic is a head that was written
//! as one, whatever was torn and whatever older generations left.
//!
//! Marks are such heads, far from the records: so the end is found to be missing as well, when one piece of damage (a page of
//! zeros) takes the last records together. Without them, nothing behind the records would tell.
//!
//! What cannot be told apart: damage to the *last* record of the journal alone, after it was synced, looks like a record that was
//! torn. A closed store has an empty journal, so this needs a loss of power and damage in the same place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::CheckedDisk;
use super::error::ContainerError;
use super::geometry::{BLOCK_BYTES, JOURNAL_BYTES, JOURNAL_OFFSET, SECTOR_BYTES, array};
use super::tags::Tags;
use crate::measured::{Part, is_left_out};
use crate::mutant::{Mutant, planted};

const MAGIC: [u8; 4] = *b"KJRN";
const HEAD: usize = 24;
const RECORD_TAG_AT: usize = 40;
const PAYLOAD_AT: usize = 72;
const SECTOR: usize = SECTOR_BYTES as usize;
const REGION: usize = JOURNAL_BYTES as usize;
/// Where the marks begin, and the records' room ends.
const MARKS: usize = REGION - 2 * MARK_STEP;
/// From one mark to the other: a block, so that no one page holds both.
const MARK_STEP: usize = BLOCK_BYTES as usize;
/// How much of the region a replay looks at in one read: little enough for the processor's cache (measured: 0.2 ms an open,
/// where the region in one piece took 1.2 ms).
const PIECE: usize = 64 << 10;

/// The journal of a container. Appends are made one at a time.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: Arc<CheckedDisk>,
    tags: Arc<Tags>,
    position: Mutex<Position>,
}

/// What is left of the journal of a damaged store: 4 MiB of memory.
pub(crate) struct Survivors {
    region: Vec<u8>,
    /// Generation and sequence → where the payload lies.
    records: BTreeMap<(u64, u64), Range<usize>>,
    /// Of every record whose head is whole.
    heads: BTreeSet<(u64, u64)>,
}

impl Survivors {
    /// The newest generation of which there is a record.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.heads.last().map(|place| place.0)
    }

    /// The payloads of a generation's records, in order.
    pub(crate) fn payloads(&self, generation: u64) -> impl Iterator<Item = &[u8]> {
        self.records
            .range((generation, 0)..=(generation, u64::MAX))
            .map(|(_, payload)| &self.region[payload.clone()])
    }

    /// Records of a generation that must have been there and are not whole. The very last one does not count when even its
    /// head is gone: it looks as if it had never been.
    pub(crate) fn missing(&self, generation: u64) -> u64 {
        let all = (generation, 0)..=(generation, u64::MAX);
        let last = self.heads.range(all.clone()).next_back();
        let whole = self.records.range(all).count() as u64;
        last.map_or(0, |last| last.1.saturating_add(1).saturating_sub(whole))
    }
}

/// Where the next record goes. Before a replay or restart there is no generation, and nothing is appended.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    generation: Option<u64>,
    sequence: u64,
    offset: u64,
}

/// A record's head, as it stands on the disk.
struct Head {
    payload_bytes: usize,
    generation: u64,
    sequence: u64,
}

impl Head {
    fn encode(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&(self.payload_bytes as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    /// A sector that holds this head and its tag.
    fn sector(&self, tags: &Tags) -> [u8; SECTOR] {
        let (head, mut sector) = (self.encode(), [0; SECTOR]);
        sector[..HEAD].copy_from_slice(&head);
        sector[HEAD..RECORD_TAG_AT].copy_from_slice(&tags.journal_head(&head));
        sector
    }

    /// The head at the beginning of `sector`, if its tag matches and there is `room` in the region for what it claims.
    fn decode(tags: &Tags, sector: &[u8], room: usize) -> Option<Self> {
        let (head, rest) = sector.split_first_chunk::<HEAD>()?;
        if head[..4] != MAGIC || !rest.starts_with(&tags.journal_head(head)) {
            return None;
        }
        let head = Self {
            payload_bytes: u32::from_le_bytes(array(&head[4..])) as usize,
            generation: u64::from_le_bytes(array(&head[8..])),
            sequence: u64::from_le_bytes(array(&head[16..])),
        };
        (Journal::record_size(head.payload_bytes) <= room as u64).then_some(head)
    }
}

impl Journal {
    pub(super) fn new(disk: Arc<CheckedDisk>, tags: Arc<Tags>) -> Self {
        Self {
            disk,
            tags,
            position: Mutex::default(),
        }
    }

    /// Bytes that a record with so much payload takes.
    pub(crate) fn record_size(payload_bytes: usize) -> u64 {
        let bytes = (PAYLOAD_AT as u64).saturating_add(payload_bytes as u64);
        bytes.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(u64::MAX)
    }

    /// Bytes that the records of this generation take.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.position().offset
    }

    /// Bytes left for further records of this generation.
    pub(crate) fn remaining_bytes(&self) -> u64 {
        MARKS as u64 - self.used_bytes()
    }

    /// True when a record with so much payload fits behind the others.
    pub(super) fn fits(&self, payload_bytes: usize) -> bool {
        Self::record_size(payload_bytes) <= self.remaining_bytes()
    }

    /// True when a record with this payload can be appended: it fits behind the others, and no part of it can pass for a head.
    pub(crate) fn takes(&self, payload: &[u8]) -> bool {
        self.fits(payload.len()) && !imitates_heads(payload)
    }

    /// Writes one record, its payload given in parts, and its mark, and syncs once for both. Durable when it returns; after an error the record is
    /// perhaps there, and the container takes no further write unless nothing was written
    /// ([`ContainerError::JournalFull`], [`ContainerError::ImitatesHeads`], [`ContainerError::WrongGeneration`]).
    pub(crate) fn append(&self, generation: u64, payload_parts: &[&[u8]]) -> Result<(), ContainerError> {
        let mut position = self.position();
        if position.generation != Some(generation) {
            return Err(ContainerError::WrongGeneration {
                asked: generation,
                current: position.generation,
            });
        }
        let payload_bytes = payload_parts
            .iter()
            .fold(0usize, |sum, part| sum.saturating_add(part.len()));
        let (needed_bytes, remaining_bytes) =
            (Self::record_size(payload_bytes), MARKS as u64 - position.offset);
        if needed_bytes > remaining_bytes {
            return Err(ContainerError::JournalFull {
                needed_bytes,
                remaining_bytes,
            });
        }
        let head = Head {
            payload_bytes,
            generation,
            sequence: position.sequence,
        }
        .encode();
        // At most the size of the region, which was just checked.
        let mut record = Vec::with_capacity(needed_bytes as usize);
        record.extend_from_slice(&head);
        record.extend_from_slice(&self.tags.journal_head(&head));
        record.resize(PAYLOAD_AT, 0);
        for part in payload_parts {
            record.extend_from_slice(part);
        }
        if imitates_heads(&record[PAYLOAD_AT..]) {
            return Err(ContainerError::ImitatesHeads);
        }
        let tag = self.tags.journal_record(&head, &record[PAYLOAD_AT..]);
        record[RECORD_TAG_AT..PAYLOAD_AT].copy_from_slice(&tag);
        record.resize(needed_bytes as usize, 0);
        self.disk
            .write_at(JOURNAL_OFFSET + position.offset, &record, "writing the journal")?;
        let mark = Head {
            payload_bytes: 0,
            generation,
            sequence: position.sequence,
        };
        let slot = MARKS + (position.sequence % 2) as usize * MARK_STEP;
        if !is_left_out(Part::JournalMarks) {
            self.disk.write_at(
                JOURNAL_OFFSET + slot as u64,
                &mark.sector(&self.tags),
                "marking the journal's end",
            )?;
        }
        if !planted(Mutant::JournalUnsynced) {
            self.disk.sync("syncing the journal")?;
        }
        position.offset += needed_bytes;
        position.sequence += 1;
        Ok(())
    }

    /// Starts a new generation at the region's beginning. Writes nothing: the caller has made durable, elsewhere, that
    /// this generation is the current one and that nothing of the ones before is needed.
    ///
    /// Generations only rise. One that does not leaves the journal without a generation, and every append is refused:
    /// old records could otherwise pass for new ones.
    pub(crate) fn restart(&self, generation: u64) {
        let mut position = self.position();
        let rises = position.generation.is_none_or(|current| generation > current);
        *position = Position {
            generation: rises.then_some(generation),
            sequence: 0,
            offset: 0,
        };
    }

    /// Hands the payloads of this generation's records to `apply`, in their order, and says how many there were. The
    /// journal is checked as a whole before the first is handed out. Appending goes on behind the last one.
    ///
    /// # Errors
    ///
    /// [`ContainerError::DamagedJournal`] when records follow behind one that is not whole; what `apply` returns.
    pub(crate) fn replay<E: From<ContainerError>>(
        &self,
        generation: u64,
        mut apply: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut payloads = Vec::new();
        let mut end = 0;
        while let Some(payload) = self.whole_record(end, generation, payloads.len() as u64)? {
            end += Self::record_size(payload.len()) as usize;
            payloads.push(payload);
        }
        let sequence = payloads.len() as u64;
        // All that is left of the region is looked at, a piece at a time, whatever the journal holds.
        let mut piece = vec![0; PIECE];
        for from in ((end + SECTOR).min(MARKS)..REGION).step_by(PIECE) {
            let piece = &mut piece[..PIECE.min(REGION - from)];
            self.read(from, piece)?;
            for at in (0..piece.len()).step_by(SECTOR) {
                let later = from + at;
                let head = Head::decode(&self.tags, &piece[at..], REGION - later);
                if head.is_some_and(|head| head.generation == generation && head.sequence > sequence) {
                    let (offset, later_offset) = (end as u64, later as u64);
                    return Err(ContainerError::DamagedJournal {
                        generation,
                        sequence,
                        offset,
                        later_offset,
                    }
                    .into());
                }
            }
        }
        for payload in payloads {
            apply(&payload)?;
        }
        *self.position() = Position {
            generation: Some(generation),
            sequence,
            offset: end as u64,
        };
        Ok(sequence)
    }

    /// Every whole record of the region, whatever its generation, for a salvage.
    pub(crate) fn survivors(&self) -> Result<Survivors, ContainerError> {
        let mut region = vec![0; REGION];
        self.disk
            .read_at(JOURNAL_OFFSET, &mut region, "reading the journal")?;
        let (mut records, mut heads) = (BTreeMap::new(), BTreeSet::new());
        let mut at = 0;
        while at < REGION {
            let Some(head) = Head::decode(&self.tags, &region[at..], REGION - at) else {
                at += SECTOR;
                continue;
            };
            if at >= MARKS {
                // What it proves is that all before its own record was synced.
                heads.extend(
                    head.sequence
                        .checked_sub(1)
                        .map(|before| (head.generation, before)),
                );
                at += SECTOR;
                continue;
            }
            let place = (head.generation, head.sequence);
            heads.insert(place);
            let payload = at + PAYLOAD_AT..at + PAYLOAD_AT + head.payload_bytes;
            let tag = self
                .tags
                .journal_record(&region[at..at + HEAD], &region[payload.clone()]);
            if tag == region[at + RECORD_TAG_AT..at + PAYLOAD_AT] {
                records.insert(place, payload);
                at += Self::record_size(head.payload_bytes) as usize;
            } else {
                at += SECTOR;
            }
        }
        Ok(Survivors {
            region,
            records,
            heads,
        })
    }

    /// The payload of the record at `offset`, if it is whole and the one that is due.
    fn whole_record(
        &self,
        offset: usize,
        generation: u64,
        sequence: u64,
    ) -> Result<Option<Vec<u8>>, ContainerError> {
        if offset == MARKS {
            return Ok(None);
        }
        let mut front = [0; PAYLOAD_AT];
        self.read(offset, &mut front)?;
        let Some(head) = Head::decode(&self.tags, &front, MARKS - offset) else {
            return Ok(None);
        };
        let due = head.generation == generation || planted(Mutant::GenerationUnchecked);
        if !due || head.sequence != sequence {
            return Ok(None);
        }
        // At most the size of the region, which decoding checked.
        let mut payload = vec![0; head.payload_bytes];
        self.read(offset + PAYLOAD_AT, &mut payload)?;
        let tag = self.tags.journal_record(&front[..HEAD], &payload);
        let whole = tag == front[RECORD_TAG_AT..] || planted(Mutant::JournalUnchecked);
        Ok(whole.then_some(payload))
    }

    fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), ContainerError> {
        self.disk
            .read_at(JOURNAL_OFFSET + offset as u64, out, "reading the journal")
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        // It changes only after a record is durable, in one step: a panic elsewhere leaves it right.
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True when the record with this payload would have a sector, behind its first, that begins as a head does.
fn imitates_heads(payload: &[u8]) -> bool {
    let behind_first = payload.get(SECTOR - PAYLOAD_AT..).unwrap_or_default();
    behind_first
        .chunks(SECTOR)
        .any(|sector| sector.starts_with(&MAGIC))
}

/// Makes the tags of the records at the beginning of the region right, as far as their magic and their lengths go.
#[cfg(feature = "simulation")]
pub(super) fn repair(tags: &Tags, region: &mut [u8]) {
    let mut rest = region;
    while rest.len() >= PAYLOAD_AT && rest[..4] == MAGIC {
        let payload_bytes = u32::from_le_bytes(array(&rest[4..])) as usize;
        let size = Journal::record_size(payload_bytes);
        if size > rest.len() as u64 {
            return;
        }
        let (record, behind) = rest.split_at_mut(size as usize);
        let head_tag = tags.journal_head(&record[..HEAD]);
        record[HEAD..RECORD_TAG_AT].copy_from_slice(&head_tag);
        let (head, payload) = (&record[..HEAD], &record[PAYLOAD_AT..PAYLOAD_AT + payload_bytes]);
        let record_tag = tags.journal_record(head, payload);
        record[RECORD_TAG_AT..PAYLOAD_AT].copy_from_slice(&record_tag);
        rest = behind;
    }
}
