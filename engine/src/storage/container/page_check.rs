//! What a page of redb's must look like before redb is shown it, so that no reference in it makes redb take memory that the
//! file's size does not bear out.
//!
//! redb takes memory for a page before it asks for the page's bytes: 4096 bytes times a power of two that stands in the
//! reference. The power goes up to 20, so one bad reference asks for 4 GiB. A reference stands in redb's header (the roots),
//! in a branch (its children) or in the definition of a table (its root). All three are looked at here, at each read from the
//! disk; a page in the cache was looked at when it was read or was made by redb. Tags do not help against this: whoever writes
//! the file on purpose makes them fit.
//!
//! Layouts are those of redb's file format 3 (`btree_base.rs`, `header.rs`, `table_tree_base.rs` of redb 4.6); little-endian.

use super::geometry::BLOCK_BYTES;
use crate::storage::tables::Table;

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// In redb's header: where the two commit slots stand, and in a slot a flag and a root for the user's and redb's tables.
const SLOTS: [usize; 2] = [64, 192];
const ROOTS_IN_SLOT: [(usize, usize); 2] = [(1, 8), (2, 40)];

/// In the definition of a table: the flag that it has a root, the root, and where the names of its types begin.
const ROOT_FLAG: usize = 9;
const ROOT: usize = 10;
const TYPES: usize = 64;

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
    for slot in SLOTS {
        for (flag, root) in ROOTS_IN_SLOT {
            let (Some(flag), Some(root)) = (header.get(slot + flag), number(header, slot + root)) else {
                return Ok(());
            };
            if *flag != 0 {
                check_reference(root, page_bytes)?;
            }
        }
    }
    Ok(())
}

/// Checks a page: that it is one, and what it refers to.
pub(super) fn check_page(page: &[u8], page_bytes: u64) -> Result<(), &'static str> {
    let entries = page
        .get(2..4)
        .map_or(0, |n| usize::from(u16::from_le_bytes([n[0], n[1]])));
    match page.first() {
        Some(&BRANCH) => {
            // 8 bytes, then a checksum of 16 bytes for each child, then their references.
            let children = entries + 1;
            for child in 0..children {
                let reference = number(page, 8 + 16 * children + 8 * child)
                    .ok_or("a branch that does not fit its page")?;
                check_reference(reference, page_bytes)?;
            }
            Ok(())
        }
        Some(&LEAF) => check_definitions(page, entries, page_bytes),
        _ => Err("a page that is neither leaf nor branch"),
    }
}

/// Definitions of tables are leaf entries whose key is the table's name. Whether a leaf is one of definitions is not written in
/// it, so every entry that could be one is looked at; all that an entry which is none could meet is being let through.
fn check_definitions(page: &[u8], entries: usize, page_bytes: u64) -> Result<(), &'static str> {
    let end = |index: usize| -> Option<usize> {
        let bytes = page.get(4 + 4 * index..8 + 4 * index)?;
        Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    // The ends of the keys, then those of the values, then the keys, then the values.
    let (mut key_from, Some(mut value_from)) = (4 + 8 * entries, end(entries.saturating_sub(1))) else {
        return Ok(());
    };
    for entry in 0..entries {
        let (Some(key_to), Some(value_to)) = (end(entry), end(entries + entry)) else {
            return Ok(());
        };
        if let (Some(key), Some(value)) = (page.get(key_from..key_to), page.get(value_from..value_to))
            && value.len() > TYPES
            && value[ROOT_FLAG] != 0
            && names_a_table(key)
            && let Some(root) = number(value, ROOT)
        {
            check_reference(root, page_bytes)?;
        }
        (key_from, value_from) = (key_to, value_to);
    }
    Ok(())
}

fn names_a_table(key: &[u8]) -> bool {
    SYSTEM_TABLES.contains(&key) || Table::ALL.iter().any(|table| table.name().as_bytes() == key)
}

/// A reference: its highest 5 bits are the power of two, in blocks.
fn check_reference(reference: u64, page_bytes: u64) -> Result<(), &'static str> {
    let blocks = 1u64 << (reference >> 59);
    if blocks > page_bytes / BLOCK_BYTES {
        return Err("a reference to a page that is larger than the file");
    }
    Ok(())
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: u64 = 300 * BLOCK_BYTES;

    fn reference(power: u64) -> [u8; 8] {
        (power << 59 | 7).to_le_bytes()
    }

    fn leaf_of(key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut page = vec![LEAF, 0, 1, 0];
        let key_end = 12 + key.len();
        page.extend_from_slice(&(key_end as u32).to_le_bytes());
        page.extend_from_slice(&((key_end + value.len()) as u32).to_le_bytes());
        page.extend_from_slice(key);
        page.extend_from_slice(value);
        page.resize(4096, 0);
        page
    }

    fn definition_with_root(power: u64) -> Vec<u8> {
        let mut value = vec![3; 80];
        value[ROOT_FLAG] = 1;
        value[ROOT..ROOT + 8].copy_from_slice(&reference(power));
        value
    }

    #[test]
    fn a_branch_refers_to_no_page_that_is_larger_than_the_file() {
        let branch = |power| {
            let mut page = vec![0; 4096];
            page[..4].copy_from_slice(&[BRANCH, 0, 1, 0]);
            page[8 + 32..8 + 40].copy_from_slice(&reference(0));
            page[8 + 40..8 + 48].copy_from_slice(&reference(power));
            check_page(&page, FILE)
        };
        assert_eq!(branch(8), Ok(()));
        assert!(branch(9).is_err(), "512 blocks of 300");
        assert!(branch(20).is_err());
        assert!(branch(31).is_err());
    }

    #[test]
    fn a_table_has_no_root_that_is_larger_than_the_file() {
        for name in ["audit", "versions", "allocator_state"] {
            let check = |power| check_page(&leaf_of(name.as_bytes(), &definition_with_root(power)), FILE);
            assert_eq!(check(8), Ok(()));
            assert!(check(20).is_err());
        }
        let row = leaf_of(b"another key", &definition_with_root(20));
        assert_eq!(check_page(&row, FILE), Ok(()), "a row may hold anything");
    }

    #[test]
    fn a_header_has_no_root_that_is_larger_than_the_file() {
        for at in [64 + 8, 64 + 40, 192 + 8, 192 + 40] {
            let mut header = vec![0; 320];
            header[at..at + 8].copy_from_slice(&reference(20));
            assert_eq!(check_header(&header, FILE), Ok(()), "no flag, no root");
            for slot in SLOTS {
                header[slot + 1..slot + 3].fill(1);
            }
            assert!(check_header(&header, FILE).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_page_or_are_refused(mut page in proptest::collection::vec(any::<u8>(), 0..600), kind in 0..3u8) {
            if let Some(first) = page.first_mut() {
                *first = kind;
            }
            let _ = check_page(&page, FILE);
            let _ = check_header(&page, FILE);
        }
    }
}
