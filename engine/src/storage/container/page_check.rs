//! What a page of redb's must look like before redb is shown it: nothing in it makes redb take memory that the file's size does not
//! bear out, and every row and reference in it lies where one can lie.
//!
//! redb takes a page's own word for where its rows stand, and takes memory for a page before it asks for the page's bytes: 4096
//! bytes times a power of two that stands in the reference, up to 4 GiB. A row outside of its page makes redb panic: that is
//! caught (`storage/boundary.rs`), and costs the store. So all of it is looked at here, at each read from the disk; a page in the
//! cache was looked at when it was read or was made by redb. Tags do not help against this: whoever writes the file on purpose
//! makes them fit.
//!
//! A page does not say which tree it is of, and the layout of a leaf depends on that. It is taken when it is in order by one of the
//! three layouts that occur in a store: rows and definitions of tables; lists of freed pages; redb's record of its allocator. Where
//! it matters which, [`freed_lists`] looks at the tree as a whole.
//!
//! Layouts are those of redb's file format 3 (`btree_base.rs`, `header.rs`, `table_tree_base.rs`, `transactions.rs` of redb 4.6);
//! little-endian.

pub(super) mod freed_lists;
#[cfg(test)]
mod tests;

use super::geometry::BLOCK_BYTES;
use crate::storage::tables::Table;

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// In redb's header: its mark; where the geometry of regions stands, and that of a store: no block before a region's pages, and 4
/// GiB of pages. In a header without the mark (it is being made) nothing is looked at.
const MARK: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
const GEOMETRY: usize = 16;
const REGION_BLOCKS: u64 = 1 << 20;
/// The largest power of two that a page may be, in blocks.
const POWER_MAX: u64 = 20;

/// In redb's header: where the two commit slots stand, and in a slot a flag and a root for the user's and redb's tables.
const SLOTS: [usize; 2] = [64, 192];
const ROOTS_IN_SLOT: [(usize, usize); 2] = [(1, 8), (2, 40)];

/// In the definition of a table: the flag that it has a root, the root, and where the names of its types begin.
const ROOT_FLAG: usize = 9;
const ROOT: usize = 10;
const TYPES: usize = 64;

/// Keys of redb's own tables: of lists of pages a transaction and a number; of the allocator's record a kind and a region.
const LIST_KEY_BYTES: usize = 16;
const ALLOCATOR_KEY_BYTES: usize = 5;
const ALLOCATOR_KIND_MAX: u8 = 5;

/// redb's own tables.
const SYSTEM_TABLES: [&[u8]; 6] = [
    b"next_savepoint_id",
    b"persistent_savepoints",
    b"data_pages_allocated",
    b"data_pages_unreachable",
    b"system_pages_unreachable",
    b"allocator_state",
];

/// Checks the first bytes of redb's header; a shorter read of it holds no references.
pub(super) fn check_header(header: &[u8], page_bytes: u64) -> Result<(), &'static str> {
    if let Some(geometry) = number(header, GEOMETRY)
        && header.starts_with(&MARK)
        && geometry != REGION_BLOCKS << 32
    {
        return Err("a header with regions of another size");
    }
    for slot in SLOTS {
        for (flag, root) in ROOTS_IN_SLOT {
            let (Some(flag), Some(root)) = (header.get(slot + flag), number(header, slot + root)) else {
                return Ok(());
            };
            // Its size alone: the file may have got shorter since the older of the two commits.
            if *flag != 0 && blocks_of(root).is_none_or(|blocks| blocks > page_bytes / BLOCK_BYTES) {
                return Err("a root that is larger than the file");
            }
        }
    }
    Ok(())
}

/// Checks a page: that it is one, where its rows stand, and what it refers to.
pub(crate) fn check_page(page: &[u8], page_bytes: u64) -> Result<(), &'static str> {
    match (page.first(), count(page)) {
        (Some(&BRANCH), 1..) => check_branch(page, page_bytes),
        (Some(&LEAF), 1..) => check_leaf(page, page_bytes),
        _ => Err("a page that is neither leaf nor branch"),
    }
}

fn count(page: &[u8]) -> usize {
    let count = page.get(2..).and_then(|rest| rest.first_chunk());
    count.map_or(0, |count| usize::from(u16::from_le_bytes(*count)))
}

/// 8 bytes, then a checksum of 16 bytes for each child, then their references; then the ends of the keys, unless all are of one
/// length, and the keys.
fn check_branch(page: &[u8], page_bytes: u64) -> Result<(), &'static str> {
    const WHY: &str = "a branch that does not fit its page";
    let keys = count(page);
    let references = 8 + 16 * (keys + 1);
    for child in 0..=keys {
        check_reference(number(page, references + 8 * child).ok_or(WHY)?, page_bytes)?;
    }
    let ends = references + 8 * (keys + 1);
    let of_one_length = ends + LIST_KEY_BYTES * keys <= page.len();
    let mut from = ends + 4 * keys;
    let each_in_its_place = (0..keys).all(|key| {
        let to = end(page, ends + 4 * key);
        let key = to.and_then(|to| page.get(from..to));
        from = to.unwrap_or(from);
        key.is_some()
    });
    match each_in_its_place || of_one_length {
        true => Ok(()),
        false => Err(WHY),
    }
}

fn check_leaf(page: &[u8], page_bytes: u64) -> Result<(), &'static str> {
    if entries(page, None).all(|entry| entry.is_some()) {
        return check_definitions(page, page_bytes);
    }
    let lists = |entry: Option<Entry<'_>>| entry.is_some_and(|(_, list)| is_list(list, page_bytes));
    let record = |entry: Option<Entry<'_>>| entry.is_some_and(|(key, _)| key[0] <= ALLOCATOR_KIND_MAX);
    match entries(page, Some(LIST_KEY_BYTES)).all(lists)
        || entries(page, Some(ALLOCATOR_KEY_BYTES)).all(record)
    {
        true => Ok(()),
        false => Err("a leaf whose rows are not in it, or a list of pages that are not in the file"),
    }
}

/// A key and its value.
type Entry<'p> = (&'p [u8], &'p [u8]);

/// What stands in a leaf, if all keys are of so many bytes, or each of its own length; `None` for what does not lie in the page.
///
/// 4 bytes, then the ends of the keys unless they are of one length, then those of the values, then the keys, then the values.
fn entries(page: &[u8], key_bytes: Option<usize>) -> impl Iterator<Item = Option<Entry<'_>>> {
    let count = count(page);
    let (value_ends, keys) = match key_bytes {
        None => (4 + 4 * count, 4 + 8 * count),
        Some(_) => (4, 4 + 4 * count),
    };
    let key_end = move |index: usize| match key_bytes {
        None => end(page, 4 + 4 * index),
        Some(bytes) => Some(keys + bytes * (index + 1)),
    };
    let value_end = move |index: usize| end(page, value_ends + 4 * index);
    (0..count).map(move |index| {
        let (key_from, value_from) = match index.checked_sub(1) {
            None => (keys, key_end(count - 1)?),
            Some(before) => (key_end(before)?, value_end(before)?),
        };
        Some((
            page.get(key_from..key_end(index)?)?,
            page.get(value_from..value_end(index)?)?,
        ))
    })
}

/// A list of pages: how many, and a reference for each. redb gives each of them back to its allocator.
fn is_list(list: &[u8], page_bytes: u64) -> bool {
    let Some((count, references)) = list.split_first_chunk() else {
        return false;
    };
    let references = references.get(..8 * usize::from(u16::from_le_bytes(*count)));
    references.is_some_and(|references| {
        let mut references = references.as_chunks().0.iter();
        references.all(|reference| check_reference(u64::from_le_bytes(*reference), page_bytes).is_ok())
    })
}

/// Definitions of tables are leaf entries whose key is the table's name. Whether a leaf is one of definitions is not written in
/// it, so every entry that could be one is looked at; all that an entry which is none could meet is being let through.
fn check_definitions(page: &[u8], page_bytes: u64) -> Result<(), &'static str> {
    for (key, value) in entries(page, None).flatten() {
        if value.len() > TYPES
            && value[ROOT_FLAG] != 0
            && names_a_table(key)
            && let Some(root) = number(value, ROOT)
        {
            check_reference(root, page_bytes)?;
        }
    }
    Ok(())
}

fn names_a_table(key: &[u8]) -> bool {
    SYSTEM_TABLES.contains(&key) || Table::ALL.iter().any(|table| table.name().as_bytes() == key)
}

/// Its highest 5 bits are the power of two that the page is, in blocks.
fn blocks_of(reference: u64) -> Option<u64> {
    let power = reference >> 59;
    (power <= POWER_MAX).then(|| 1 << power)
}

/// The first block of the page that is referred to, and how many it has: the lowest 20 bits, less the power, are its number in its
/// region in units of its size, the next 20 the region. Block 0 is redb's header.
fn place_of(reference: u64) -> Result<(u64, u64), &'static str> {
    let blocks = blocks_of(reference).ok_or("a reference to a page that is larger than any")?;
    let region = (reference >> 20) % REGION_BLOCKS;
    let within = reference % (REGION_BLOCKS / blocks) * blocks;
    Ok((1 + region * REGION_BLOCKS + within, blocks))
}

fn check_reference(reference: u64, page_bytes: u64) -> Result<(), &'static str> {
    let (first, blocks) = place_of(reference)?;
    match (first + blocks) * BLOCK_BYTES <= page_bytes {
        true => Ok(()),
        false => Err("a reference to a page that is not in the file"),
    }
}

fn end(page: &[u8], at: usize) -> Option<usize> {
    let bytes = page.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}
