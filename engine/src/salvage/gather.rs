//! Rows out of the damaged file into the new store, in four layers: what its trees lead to; for keys that they do not lead to any
//! more, what leaves of the newest state hold, wherever they stand; for keys that even those do not have, what is left of older states;
//! over all, the journal.
//!
//! What a tree leads to is the newest durable state, and a hole in it is a range of keys. A leaf that the newest state has ([`Live`])
//! fills the range from its first key to its last. Pages of older states hold what has changed since, so a row of theirs counts
//! only when its key still lies in a hole, and only by its own proof.

use super::bulk::Bulk;
use super::report::SalvageProgress;
use crate::audit;
use crate::error::Result;
use crate::keyring::epoch;
use crate::names::{EpochNumber, OrganizationId, StoreId};
use crate::storage::container::Survivors;
use crate::storage::raw::{Damaged, Holes, Live, LooseLeaf, unreadable};
use crate::storage::records::{
    self, Body, DataKeyRow, EpochRecord, HeadRecord, HeaderCheck, KeyRecord, KeyState,
    OrganizationNameRecord, RewrapJobRecord, SecretRecord, VersionRow,
};
use crate::storage::tables::TABLE_COUNT;
use crate::storage::transaction::journal_changes;
use crate::storage::{Rows, Table};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

/// The tables whose rows are copied. Facts, cells and names are made anew, unfinished uploads are dropped, chunks come later.
const COPIED: [Table; 11] = [
    Table::Organizations,
    Table::OrganizationNames,
    Table::Heads,
    Table::Keys,
    Table::Epochs,
    Table::RewrapJobs,
    Table::Secrets,
    Table::Deletions,
    Table::Audit,
    Table::Versions,
    Table::DataKeys,
];

/// No epoch and no version takes less of a file: the key, format and tag of its row, and what redb keeps of each. So there cannot be more
/// of them than the file has room for, whatever a count in it says.
const ROW_BYTES_MIN: u64 = 48;

/// A row by its table's number and its key.
type RowName = (u8, Vec<u8>);

/// What was gathered, beside the rows. Memory: something for each damaged page, for each leaf to which only damaged pages led, and for
/// each row found in pages of older states more than once or beyond one block; while loose pages are read, a bit for each block.
#[derive(Default)]
pub(crate) struct Gathered {
    holes: Vec<Holes>,
    /// Rows that the tree leads to and whose tags do not match: holes of one key.
    bad: BTreeSet<RowName>,
    /// Rows in holes of which the journal says how they are.
    journaled: BTreeSet<RowName>,
    /// Where other rows of the same key stand, which may be the right ones.
    others: BTreeMap<RowName, Vec<u64>>,
    /// Rows of loose pages that reach beyond one block: another page may have been written over their end.
    spanning: BTreeSet<RowName>,
    pub(crate) journal_records_lost: u64,
    /// For how many more epochs and versions of which there is no row the file ever had room.
    pub(super) missing_left: Cell<u64>,
    pub(crate) next_organization: u64,
    /// The journal's generation in the newest state; `None`: the page that says is gone.
    generation: Option<u64>,
}

impl Gathered {
    fn new() -> Self {
        Self {
            holes: vec![Holes::default(); TABLE_COUNT],
            ..Self::default()
        }
    }

    /// Gathers every table but that of chunks.
    pub(crate) fn all_but_chunks(
        damaged: &Damaged,
        bulk: &mut Bulk<'_>,
        progress: &mut dyn FnMut(SalvageProgress),
    ) -> Result<Self> {
        let mut gathered = Self::new();
        let file_bytes = damaged.container().file_bytes();
        let room = file_bytes.map_err(|error| unreadable(&error))? / ROW_BYTES_MIN;
        gathered.missing_left.set(room);
        gathered.facts(damaged)?;
        for table in COPIED {
            gathered.tree(damaged, bulk, table, &|_| true, progress)?;
        }
        let wanted = |table, _: &[u8]| COPIED.contains(&table);
        let has_holes = COPIED.iter().any(|table| gathered.has_holes(*table));
        if has_holes || gathered.generation.is_none() {
            gathered.loose(damaged, bulk, &wanted, progress)?;
        }
        let survivors = damaged
            .container()
            .journal()
            .survivors()
            .map_err(|error| unreadable(&error))?;
        gathered.journal_records_lost = survivors.missing(gathered.current(&survivors));
        let later = gathered.later_than(&survivors, bulk)?;
        let is_news = |table, key: &[u8]| wanted(table, key) && !later.contains(&organization_of(table, key));
        gathered.journal(&survivors, bulk, &is_news)?;
        bulk.flush()?;
        Ok(gathered)
    }

    /// Gathers the chunks of the values with these beginnings of their keys.
    pub(crate) fn chunks(
        damaged: &Damaged,
        values: &BTreeSet<[u8; 20]>,
        bulk: &mut Bulk<'_>,
        progress: &mut dyn FnMut(SalvageProgress),
    ) -> Result<Self> {
        let mut gathered = Self::new();
        if values.is_empty() {
            return Ok(gathered);
        }
        let wanted = |key: &[u8]| key.first_chunk().is_some_and(|value| values.contains(value));
        let wanted_of = |table, key: &[u8]| table == Table::Chunks && wanted(key);
        gathered.facts(damaged)?;
        gathered.tree(damaged, bulk, Table::Chunks, &wanted, progress)?;
        if gathered.has_holes(Table::Chunks) || gathered.generation.is_none() {
            gathered.loose(damaged, bulk, &wanted_of, progress)?;
        }
        let survivors = damaged
            .container()
            .journal()
            .survivors()
            .map_err(|error| unreadable(&error))?;
        gathered.journal(&survivors, bulk, &wanted_of)?;
        bulk.flush()?;
        Ok(gathered)
    }

    fn has_holes(&self, table: Table) -> bool {
        !self.holes[table as usize].is_empty() || self.bad.iter().any(|(number, _)| *number == table as u8)
    }

    /// Takes note of one more epoch or version of which there is no row; false when there cannot be so many.
    pub(super) fn may_miss_one_more(&self) -> bool {
        let left = self.missing_left.get();
        self.missing_left.set(left.saturating_sub(1));
        left > 0
    }

    /// True when the tree does not say what stands at this key.
    pub(crate) fn in_hole(&self, table: Table, key: &[u8]) -> bool {
        let name = (table as u8, key.to_vec());
        (self.holes[table as usize].contains(key) || self.bad.contains(&name))
            && !self.journaled.contains(&name)
    }

    /// True when a hole of this table may hold a row whose key begins so.
    pub(crate) fn touches(&self, table: Table, prefix: &[u8]) -> bool {
        self.holes[table as usize].touches(prefix)
            || self
                .bad
                .range((table as u8, prefix.to_vec())..)
                .next()
                .is_some_and(|(number, key)| *number == table as u8 && key.starts_with(prefix))
    }

    /// True when a row was taken from a loose page and reaches beyond one block.
    pub(crate) fn is_spanning(&self, table: Table, key: &[u8]) -> bool {
        self.spanning.contains(&(table as u8, key.to_vec()))
    }

    /// The other rows that may be the right ones for a key.
    pub(crate) fn others(&self, damaged: &Damaged, table: Table, key: &[u8]) -> Vec<Vec<u8>> {
        let blocks = self.others.get(&(table as u8, key.to_vec()));
        let rows = blocks.into_iter().flatten();
        rows.filter_map(|block| damaged.row_at(*block, key)).collect()
    }

    /// The numbers of all organizations of which a row was found.
    pub(crate) fn organizations(&self, bulk: &mut Bulk<'_>) -> Result<BTreeSet<OrganizationId>> {
        let mut found = BTreeSet::new();
        let snapshot = bulk.snapshot()?;
        for table in COPIED {
            match table {
                Table::OrganizationNames => {
                    snapshot.scan(table, Bound::Unbounded, None, |key, row| {
                        let record: OrganizationNameRecord = records::decode(snapshot.place(), key, row)?;
                        found.insert(OrganizationId(record.id));
                        Ok(ControlFlow::Continue(()))
                    })?;
                    continue;
                }
                // A job's key begins with whether it runs, and a job alone is nothing.
                Table::RewrapJobs => continue,
                _ => {}
            }
            let mut from = Some(0u32);
            while let Some(next) = from {
                let mut organization = None;
                snapshot.scan(table, Bound::Included(&next.to_be_bytes()), None, |key, _| {
                    organization = key.first_chunk().map(|id| u32::from_be_bytes(*id));
                    Ok(ControlFlow::Break(()))
                })?;
                found.extend(organization.map(OrganizationId));
                from = organization.and_then(|id| id.checked_add(1));
            }
        }
        Ok(found)
    }

    /// The facts of the store that count: the generation of the journal; the number of the next organization.
    fn facts(&mut self, damaged: &Damaged) -> Result<()> {
        damaged.walk(Table::Store, &mut |name, row, _| {
            self.fact(name, row);
            Ok(())
        })?;
        Ok(())
    }

    fn fact(&mut self, name: &[u8], row: &[u8]) {
        match (name, row.try_into().map(u64::from_le_bytes)) {
            (b"journal_generation", Ok(value)) => self.generation = Some(value),
            (b"next_organization", Ok(value)) => self.next_organization = self.next_organization.max(value),
            _ => {}
        }
    }

    /// The generation whose records are news: where no page says, the newest one of which there is a record.
    fn current(&self, survivors: &Survivors) -> u64 {
        self.generation.or(survivors.newest()).unwrap_or(0)
    }

    /// Organizations whose pages are newer than the journal's newest records of them. Only where the generation is not known: those
    /// records may be of the one before, which the last checkpoint took in, perhaps along with changes that no record has.
    fn later_than(&self, survivors: &Survivors, bulk: &mut Bulk<'_>) -> Result<BTreeSet<[u8; 4]>> {
        let mut heads: BTreeMap<[u8; 4], u64> = BTreeMap::new();
        if self.generation.is_some() {
            return Ok(BTreeSet::new());
        }
        for payload in survivors.payloads(self.current(survivors)) {
            journal_changes(payload, |table, key, row| {
                if let (Table::Audit, Some(_), Some((org, sequence))) = (table, row, key.split_first_chunk())
                    && let Ok(sequence) = sequence.try_into().map(u64::from_be_bytes)
                {
                    let newest = heads.entry(*org).or_default();
                    *newest = (*newest).max(sequence);
                }
                Ok(())
            })?;
        }
        let mut later = BTreeSet::new();
        for (org, newest) in heads {
            let head: Option<HeadRecord> = bulk.record(&org).unwrap_or(None);
            let next = [&org[..], &newest.saturating_add(1).to_be_bytes()].concat();
            if head.is_some_and(|head| head.audit_sequence > newest)
                || bulk.get(Table::Audit, &next)?.is_some()
            {
                later.insert(org);
            }
        }
        Ok(later)
    }

    fn tree(
        &mut self,
        damaged: &Damaged,
        bulk: &mut Bulk<'_>,
        table: Table,
        wanted: &dyn Fn(&[u8]) -> bool,
        progress: &mut dyn FnMut(SalvageProgress),
    ) -> Result<()> {
        let mut rows = 0;
        let bad = &mut self.bad;
        let holes = damaged.walk(table, &mut |key, row, _| {
            rows += 1;
            if rows % 1024 == 0 {
                progress(SalvageProgress::new("copying rows", rows, None));
            }
            if !is_right(bulk, table, key, row) {
                bad.insert((table as u8, key.to_vec()));
                return Ok(());
            }
            if wanted(key) {
                bulk.put(table, key, row.to_vec())?;
            }
            Ok(())
        })?;
        self.holes[table as usize] = holes;
        Ok(())
    }

    /// What leaves hold to which nothing leads any more: first those of the newest state, where it is known which they are.
    fn loose(
        &mut self,
        damaged: &Damaged,
        bulk: &mut Bulk<'_>,
        wanted: &dyn Fn(Table, &[u8]) -> bool,
        progress: &mut dyn FnMut(SalvageProgress),
    ) -> Result<()> {
        let total = Some(damaged.container().page_blocks());
        let mut progress = |blocks| progress(SalvageProgress::new("looking at every block", blocks, total));
        let live = damaged.live();
        if let Some(live) = &live {
            self.of_newest_state(damaged, live, bulk, wanted, &mut progress)?;
        }
        let is_older = |block| live.as_ref().is_none_or(|live| !live.contains(block));
        damaged.leaves(&mut progress, &is_older, |leaf| {
            let untagged = untagged_table(&leaf);
            let mut guess = Table::Versions;
            for (key, row, spans) in leaf.rows() {
                let table = match tagged_table(bulk, guess, key, row) {
                    Some(table) => {
                        guess = table;
                        table
                    }
                    None => match untagged {
                        Some(table) => table,
                        None => continue,
                    },
                };
                if wanted(table, key) && self.in_hole(table, key) {
                    self.candidate(damaged, bulk, table, key, row, leaf.block)?;
                    if spans {
                        self.spanning.insert((table as u8, key.to_vec()));
                    }
                }
            }
            Ok(())
        })
    }

    /// Leaves of the newest state fill holes: what stands in them is so, and what does not stand between two of their keys is not there.
    fn of_newest_state(
        &mut self,
        damaged: &Damaged,
        live: &Live,
        bulk: &mut Bulk<'_>,
        wanted: &dyn Fn(Table, &[u8]) -> bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut known = vec![Vec::new(); TABLE_COUNT];
        damaged.leaves(progress, &|block| live.contains(block), |leaf| {
            let Some(table) = table_of(bulk, &leaf) else {
                leaf.rows().for_each(|(name, row, _)| self.fact(name, row));
                return Ok(());
            };
            let rows: Vec<_> = leaf.all_rows().collect();
            let all_keys = rows.iter().all(|row| row.key.is_some());
            for row in &rows {
                let Some(key) = row.key.filter(|key| self.in_hole(table, key)) else {
                    continue;
                };
                match row.value.filter(|row| is_right(bulk, table, key, row)) {
                    Some(row) => {
                        if wanted(table, key) {
                            bulk.put(table, key, row.to_vec())?;
                        }
                        if !all_keys {
                            known[table as usize].push((key.to_vec(), key.to_vec()));
                        }
                    }
                    None if all_keys => drop(self.bad.insert((table as u8, key.to_vec()))),
                    None => {}
                }
            }
            if let (true, Some(first), Some(last)) = (
                all_keys,
                rows.first().and_then(|row| row.key),
                rows.last().and_then(|row| row.key),
            ) && self.in_hole(table, first)
            {
                known[table as usize].push((first.to_vec(), last.to_vec()));
            }
            Ok(())
        })?;
        for (holes, known) in self.holes.iter_mut().zip(known) {
            *holes = std::mem::take(holes).without(known);
        }
        Ok(())
    }

    /// A row for a key in a hole: taken when there is none yet or it is the better one, remembered when either may be right.
    fn candidate(
        &mut self,
        damaged: &Damaged,
        bulk: &mut Bulk<'_>,
        table: Table,
        key: &[u8],
        row: &[u8],
        block: u64,
    ) -> Result<()> {
        let Some(known) = bulk.get(table, key)? else {
            return bulk.put(table, key, row.to_vec());
        };
        if known == row {
            return Ok(());
        }
        match choose(damaged, bulk, table, key, &known, row) {
            Choice::Known => Ok(()),
            Choice::New => bulk.put(table, key, row.to_vec()),
            Choice::Either => {
                let blocks = self.others.entry((table as u8, key.to_vec())).or_default();
                if block != 0 && !blocks.contains(&block) {
                    blocks.push(block);
                }
                Ok(())
            }
        }
    }

    /// The records of the current generation count over everything else; what older ones changed is in the pages.
    fn journal(
        &mut self,
        survivors: &Survivors,
        bulk: &mut Bulk<'_>,
        wanted: &dyn Fn(Table, &[u8]) -> bool,
    ) -> Result<()> {
        for payload in survivors.payloads(self.current(survivors)) {
            journal_changes(payload, |table, key, row| {
                let value = row.and_then(|row| row.try_into().ok()).map(u64::from_le_bytes);
                if let (Table::Store, b"next_organization", Some(value)) = (table, key, value) {
                    self.next_organization = self.next_organization.max(value);
                }
                if !wanted(table, key) {
                    return Ok(());
                }
                let name = (table as u8, key.to_vec());
                self.others.remove(&name);
                self.spanning.remove(&name);
                if self.in_hole(table, key) {
                    self.journaled.insert(name);
                }
                match row {
                    Some(row) => bulk.put(table, key, row.to_vec()),
                    None => bulk.remove(table, key),
                }
            })?;
        }
        Ok(())
    }
}

/// Tables whose rows have a place tag.
fn is_tagged(table: Table) -> bool {
    !matches!(table, Table::DataKeys | Table::Audit | Table::Chunks)
}

/// True when key and row look like those of this table.
fn has_shape(table: Table, key: &[u8], row: &[u8]) -> bool {
    match table {
        Table::DataKeys => key.len() == 16 && DataKeyRow::decode(row).is_ok(),
        Table::Audit => key.len() == 12 && audit::read_loose(row).is_ok(),
        Table::Chunks => key.len() == 24 && row.len() >= crate::crypto::TAG_LEN,
        Table::Organizations | Table::Heads => key.len() == 4,
        Table::RewrapJobs => key.len() == 5,
        Table::Epochs => key.len() == 8,
        Table::Versions | Table::Deletions => key.len() == 16,
        Table::Keys | Table::Secrets => key.get(4..).is_some_and(|name| std::str::from_utf8(name).is_ok()),
        _ => std::str::from_utf8(key).is_ok(),
    }
}

/// True for a row that is where its tag says, or, of a table without tags, looks like one of its rows.
fn is_right(bulk: &Bulk<'_>, table: Table, key: &[u8], row: &[u8]) -> bool {
    has_shape(table, key, row) && (!is_tagged(table) || records::is_in_place(bulk.place(), table, key, row))
}

/// The table that a leaf of the newest state is of: by the tag of any row, or by the shape of all.
fn table_of(bulk: &Bulk<'_>, leaf: &LooseLeaf<'_>) -> Option<Table> {
    let tagged = leaf
        .rows()
        .find_map(|(key, row, _)| tagged_table(bulk, Table::Versions, key, row));
    tagged.or_else(|| untagged_table(leaf).filter(|_| leaf.rows().next().is_some()))
}

/// The organization of a row; of no organization: zeros, which are none.
fn organization_of(table: Table, key: &[u8]) -> [u8; 4] {
    let key = match table {
        Table::OrganizationNames => return [0; 4],
        Table::RewrapJobs => key.get(1..),
        _ => Some(key),
    };
    key.and_then(<[u8]>::first_chunk).copied().unwrap_or_default()
}

/// The table that a loose row is of, by its place tag; `guess` is looked at first.
fn tagged_table(bulk: &Bulk<'_>, guess: Table, key: &[u8], row: &[u8]) -> Option<Table> {
    let tagged = COPIED.into_iter().filter(|table| is_tagged(*table));
    std::iter::once(guess)
        .chain(tagged)
        .find(|table| has_shape(*table, key, row) && records::is_in_place(bulk.place(), *table, key, row))
}

/// The table without place tags that a loose leaf is of: every row has that table's shape.
fn untagged_table(leaf: &LooseLeaf<'_>) -> Option<Table> {
    [Table::DataKeys, Table::Audit, Table::Chunks]
        .into_iter()
        .find(|table| leaf.rows().all(|(key, row, _)| has_shape(*table, key, row)))
}

/// Which of two rows of one key is the right one.
enum Choice {
    Known,
    New,
    Either,
}

fn choose(damaged: &Damaged, bulk: &Bulk<'_>, table: Table, key: &[u8], known: &[u8], new: &[u8]) -> Choice {
    let place = bulk.place();
    fn newer<R: records::Record, K: Ord>(
        place: &crate::crypto::PlaceKey,
        key: &[u8],
        (known, new): (&[u8], &[u8]),
        rank: impl Fn(R) -> K,
    ) -> Choice {
        let rank = |row| records::decode(place, key, row).ok().map(&rank);
        if rank(new) > rank(known) {
            Choice::New
        } else {
            Choice::Known
        }
    }
    let rows = (known, new);
    match table {
        Table::Heads => newer(place, key, rows, |head: HeadRecord| head.audit_sequence),
        // On the way to be disabled a key's state only moves on; to be the second key and to be it no more may alternate.
        Table::Keys => newer(place, key, rows, |record: KeyRecord| match record.state {
            KeyState::Enabled | KeyState::Second | KeyState::SecondEither => 0,
            KeyState::Disabling => 1,
            KeyState::Disabled => 2,
        }),
        Table::Secrets => newer(place, key, rows, |secret: SecretRecord| {
            (secret.latest, secret.oldest_kept, secret.updated_at_ms)
        }),
        Table::RewrapJobs => newer(place, key, rows, |job: RewrapJobRecord| {
            (job.number, job.done, job.batches)
        }),
        // Retired is for good; before that, the wraps that are not erased are the newer ones.
        Table::Epochs => newer(place, key, rows, |record: EpochRecord| {
            (record.retired_at_ms.is_some(), opens(damaged, key, &record))
        }),
        Table::Versions => match (is_gone(bulk, key, known), is_gone(bulk, key, new)) {
            (false, true) => Choice::New,
            (true, _) => Choice::Known,
            (false, false) => Choice::Either,
        },
        Table::DataKeys | Table::Chunks => Choice::Either,
        _ => Choice::Known,
    }
}

/// A destroyed version stays so.
fn is_gone(bulk: &Bulk<'_>, key: &[u8], row: &[u8]) -> bool {
    VersionRow::parse(bulk.place(), key, row, HeaderCheck::PlaceTag)
        .is_ok_and(|row| matches!(row.header.body, Body::Destroyed { .. } | Body::Lost { .. }))
}

/// How many wraps of an epoch open under their shred keys.
fn opens(damaged: &Damaged, key: &[u8], record: &EpochRecord) -> usize {
    let Some((org, number)) = key.split_first_chunk() else {
        return 0;
    };
    let (org, number) = (
        OrganizationId(u32::from_be_bytes(*org)),
        EpochNumber(number.try_into().map_or(0, u32::from_be_bytes)),
    );
    let container = damaged.container();
    let store = StoreId(container.store_id());
    let wraps = record.wraps.iter();
    wraps
        .filter(|wrap| epoch::open_wrap(container, store, org, number, wrap).is_ok())
        .count()
}
