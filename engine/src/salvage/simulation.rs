//! Where the rows of a store stand, for tests that destroy some of them.

use crate::error::Result;
use crate::storage::Table;
use crate::storage::container::{Container, Disk};
use crate::storage::raw::{self, Damaged, unreadable};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A row, and where the blocks that it needs begin in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowPlace {
    /// The table's number, as `docs/format.md` lists it.
    pub table: u8,
    /// The row's key.
    pub key: Vec<u8>,
    /// The first bytes of its key's and value's blocks, and of the block with its page's head.
    pub blocks: Vec<u64>,
    /// The row.
    pub row: Vec<u8>,
}

/// Where everything stands in a whole store that is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Every row that the newest state has.
    pub rows: Vec<RowPlace>,
    /// Where the blocks of pages begin that were ever written, free ones as well.
    pub blocks: Vec<u64>,
    /// Where the blocks begin that say which pages the newest state has: redb's header, and pages of its own tables.
    pub witnesses: Vec<u64>,
}

/// Looks where the rows of a store stand. Its journal is not looked at.
///
/// # Errors
///
/// Those of the header.
pub fn places(disk: Arc<dyn Disk>) -> Result<Places> {
    let container = Container::open_damaged(disk, None).map_err(|error| unreadable(&error))?;
    let damaged = Damaged::new(container.clone(), None)?;
    let mut rows = Vec::new();
    for table in Table::ALL {
        damaged.walk(*table, &mut |key, row, stand| {
            let blocks = stand.blocks().into_iter();
            rows.push(RowPlace {
                table: *table as u8,
                key: key.to_vec(),
                blocks: blocks.map(|block| container.block_place(block).0).collect(),
                row: row.to_vec(),
            });
            Ok(())
        })?;
    }
    let mut witnesses = BTreeSet::from([0]);
    damaged.read_live(&mut witnesses);
    let witnesses = witnesses
        .into_iter()
        .map(|block| container.block_place(block).0)
        .collect();
    let mut buffer = [0; 4096];
    let blocks = (1..container.page_blocks()).filter(|block| container.read_block(*block, &mut buffer));
    let blocks = blocks.map(|block| container.block_place(block).0).collect();
    Ok(Places {
        rows,
        blocks,
        witnesses,
    })
}

/// Reads any bytes as a page of redb's; `whole` says which of its blocks of 4,096 bytes are. How many rows or children it has.
#[must_use]
pub fn parse_page(page: &[u8], whole: &[bool]) -> usize {
    raw::parse_page(page, whole)
}
