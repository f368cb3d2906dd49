//! redb's lists of freed pages, looked at as a whole when a store is opened.
//!
//! Each durable commit of redb's takes the lists out of their tables by an iterator whose destructor goes on where the iterator
//! was. A panic in there (a row that is not in its page, a page of another tree in the lists' place, a list that names a page that is
//! not in the file) makes that destructor panic as well, on the same page or on the lock that the first panic poisoned: two panics at a
//! time abort the process, which no boundary catches. Nothing of it is within our reach once redb has begun, so the lists are
//! whole before it begins. What redb makes of whole lists is whole.
//!
//! Costs a read of the pages that the lists are in: what the last checkpoint freed, whatever the store's size.

#[cfg(test)]
mod tests;

use super::super::error::ContainerError;
use super::super::pages::Pages;
use super::*;
use crate::mutant::{Mutant, planted};
use std::collections::BTreeSet;

/// The tables of lists.
const TABLES: [&[u8]; 3] = [
    b"data_pages_allocated",
    b"data_pages_unreachable",
    b"system_pages_unreachable",
];
/// In redb's header: its flags. Which slot is the newer; that its commit had two phases, so that redb takes no other.
const FLAGS: usize = 9;
const SECOND_SLOT: u8 = 1;
const TWO_PHASES: u8 = 4;
/// In the definition of a table, and in a slot behind a root: how many rows there are.
const ROWS: usize = ROOT + 24;
/// A list has at most 400 references; no page of a definition or list is nearly so large.
const BLOCKS_MAX: u64 = 256;
/// Deeper than any tree of redb's.
const DEPTH_MAX: usize = 32;

/// A list's key: the transaction that freed the pages, and a number.
type Key = (u64, u64);

/// Checks the lists of freed pages of the newest durable state. What cannot be read at all is let through: redb gets the same
/// error, and no panic.
pub(in super::super) fn check(pages: &Pages) -> Result<(), ContainerError> {
    let mut header = [0; 320];
    if pages.read_checked(0, &mut header).is_err() || !header.starts_with(&MARK) {
        return Ok(());
    }
    if header[FLAGS] & TWO_PHASES == 0 {
        return match planted(Mutant::CheckpointInOnePhase) {
            true => Ok(()),
            false => Err(damaged(0, "a commit that had one phase")),
        };
    }
    let slot = SLOTS[usize::from(header[FLAGS] & SECOND_SLOT)];
    let (flag, root) = ROOTS_IN_SLOT[1];
    let (true, Some(root)) = (header[slot + flag] != 0, number(&header, slot + root)) else {
        return Ok(());
    };
    let mut walk = Walk {
        pages,
        seen: BTreeSet::new(),
        tables: Vec::new(),
    };
    walk.definitions(root, 0)?;
    for (root, rows) in std::mem::take(&mut walk.tables) {
        let mut lists = Lists::default();
        walk.lists(root, 0, None, &mut lists)?;
        if lists.count != rows && !lists.has_gaps {
            let (block, _) = place_of(root).unwrap_or_default();
            return Err(damaged(
                block,
                "a table of freed pages with another number of lists",
            ));
        }
    }
    Ok(())
}

fn damaged(block: u64, why: &'static str) -> ContainerError {
    ContainerError::DamagedPage { block, why }
}

struct Walk<'p> {
    pages: &'p Pages,
    /// The first blocks of the pages that were read: each belongs to one place.
    seen: BTreeSet<u64>,
    /// The root and number of rows of each table of lists.
    tables: Vec<(u64, u64)>,
}

/// What was seen of a table of lists so far.
#[derive(Default)]
struct Lists {
    count: u64,
    /// The last key, or what stands above the next ones in a branch.
    above: Option<Key>,
    /// How deep leaves stand: all as deep as the first.
    depth: Option<usize>,
    /// A page could not be read.
    has_gaps: bool,
}

impl Walk<'_> {
    /// A page; `None` when it cannot be read.
    fn page(&mut self, reference: u64, depth: usize) -> Result<Option<(u64, Vec<u8>)>, ContainerError> {
        let (block, blocks) = place_of(reference).map_err(|why| damaged(0, why))?;
        if blocks > BLOCKS_MAX || depth > DEPTH_MAX || !self.seen.insert(block) {
            return Err(damaged(block, "a page that cannot be one of redb's own tables"));
        }
        let mut page = vec![0; (blocks * BLOCK_BYTES) as usize];
        let read = self.pages.read_checked(block * BLOCK_BYTES, &mut page);
        Ok(read.is_ok().then_some((block, page)))
    }

    /// Looks for the tables of lists among redb's own.
    fn definitions(&mut self, reference: u64, depth: usize) -> Result<(), ContainerError> {
        let Some((_, page)) = self.page(reference, depth)? else {
            return Ok(());
        };
        if page[0] == BRANCH {
            for child in children(&page).flatten() {
                self.definitions(child, depth + 1)?;
            }
            return Ok(());
        }
        for (name, definition) in entries(&page, None).flatten() {
            if TABLES.contains(&name)
                && definition.get(ROOT_FLAG).is_some_and(|flag| *flag != 0)
                && let (Some(root), Some(rows)) = (number(definition, ROOT), number(definition, ROWS))
            {
                self.tables.push((root, rows));
            }
        }
        Ok(())
    }

    /// Looks at a tree of lists whose keys are at most `most`.
    fn lists(
        &mut self,
        reference: u64,
        depth: usize,
        most: Option<Key>,
        lists: &mut Lists,
    ) -> Result<(), ContainerError> {
        let Some((block, page)) = self.page(reference, depth)? else {
            lists.has_gaps = true;
            return Ok(());
        };
        let in_order = |key: Key, above: Option<Key>| {
            above.is_none_or(|above| above < key) && most.is_none_or(|most| key <= most)
        };
        if page[0] == LEAF {
            const WHY: &str = "a leaf that is none of lists of freed pages";
            if *lists.depth.get_or_insert(depth) != depth {
                return Err(damaged(block, WHY));
            }
            for entry in entries(&page, Some(LIST_KEY_BYTES)) {
                let (key, list) = entry.ok_or(damaged(block, WHY))?;
                let key = key_of(key).filter(|key| in_order(*key, lists.above));
                if key.is_none() || !is_list(list, self.pages.len()) {
                    return Err(damaged(block, WHY));
                }
                (lists.above, lists.count) = (key, lists.count + 1);
            }
            return Ok(());
        }
        let keys = count(&page);
        for (index, child) in children(&page).enumerate() {
            const WHY: &str = "a branch that is none of lists of freed pages";
            let child = child.ok_or(damaged(block, WHY))?;
            if index == keys {
                self.lists(child, depth + 1, most, lists)?;
                break;
            }
            let at = 8 + 24 * (keys + 1) + LIST_KEY_BYTES * index;
            let key = page.get(at..at + LIST_KEY_BYTES).and_then(key_of);
            let key = key
                .filter(|key| in_order(*key, lists.above))
                .ok_or(damaged(block, WHY))?;
            self.lists(child, depth + 1, Some(key), lists)?;
            lists.above = Some(key);
        }
        Ok(())
    }
}

fn children(page: &[u8]) -> impl Iterator<Item = Option<u64>> {
    let children = count(page) + 1;
    (0..children).map(move |child| number(page, 8 + 16 * children + 8 * child))
}

fn key_of(bytes: &[u8]) -> Option<Key> {
    Some((number(bytes, 0)?, number(bytes, 8)?))
}
