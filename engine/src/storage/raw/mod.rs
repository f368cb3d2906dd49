//! A damaged store's rows, read without redb: a tree is followed as far as its pages are whole, and leaves that no whole page
//! leads to any more are found by looking at every block. Nothing is written.
//!
//! - [`page`]: pages as bytes.
//! - [`holes`]: the keys that the tree would have led to.
//! - [`live`]: the blocks of the newest state.
//! - [`roots`]: where each table's tree begins.

mod holes;
mod live;
mod page;
mod roots;

pub(crate) use holes::{Hole, Holes};
pub(crate) use live::Live;
pub(crate) use page::Row;

use crate::error::{Error, Result};
use crate::storage::container::{BLOCK_BYTES, Container};
use crate::storage::tables::{TABLE_COUNT, Table};
use page::{Leaf, Page, PageNumber, RedbHeader, Whole};
use std::collections::BTreeSet;
use std::ops::{Bound, Range};

const BLOCK: usize = BLOCK_BYTES as usize;
/// Deeper than any tree of redb's.
const DEPTH_MAX: usize = 32;

/// A container whose pages are read as far as they are whole.
pub(crate) struct Damaged {
    container: Container,
    header: Option<RedbHeader>,
    /// False where redb's own header is destroyed, and another one says how regions are laid out.
    header_is_own: bool,
    roots: [Root; TABLE_COUNT],
}

/// Where a table begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    /// What leads to it is damaged.
    Lost,
    Empty,
    At(PageNumber),
}

/// What is visited while a tree is followed: keys and values, and where they stand.
type Visit<'v> = dyn FnMut(&[u8], &[u8], &Stand) -> Result<()> + 'v;

/// Where a row stands: the first block of its page; in the page, the bytes of its key and value.
pub(crate) struct Stand {
    page: u64,
    at: (Range<usize>, Range<usize>),
}

impl Stand {
    /// The blocks that the row needs: the one with the page's head, and those with its key and value.
    pub(crate) fn blocks(&self) -> BTreeSet<u64> {
        let touched = |bytes: &Range<usize>| bytes.start / BLOCK..bytes.end.div_ceil(BLOCK);
        let within = std::iter::once(0)
            .chain(touched(&self.at.0))
            .chain(touched(&self.at.1));
        within.map(|block| self.page + block as u64).collect()
    }
}

/// A page's blocks, and which of them are whole.
struct Blocks {
    first: u64,
    bytes: Vec<u8>,
    whole: Vec<bool>,
}

impl Damaged {
    /// Reads the roots of the tables. `geometry`: redb's header of a new store, for one whose own is destroyed.
    pub(crate) fn new(container: Container, geometry: Option<&[u8]>) -> Result<Self> {
        let own = container
            .read_redb_header()
            .and_then(|header| RedbHeader::decode(&header));
        let mut damaged = Self {
            container,
            header: own.or_else(|| RedbHeader::decode(geometry?)),
            header_is_own: own.is_some(),
            roots: [Root::Lost; TABLE_COUNT],
        };
        damaged.roots = match own.map(|header| header.tables) {
            None => damaged.find_roots()?,
            Some(None) => [Root::Empty; TABLE_COUNT],
            Some(Some(page)) => damaged.read_roots(page)?,
        };
        Ok(damaged)
    }

    pub(crate) fn container(&self) -> &Container {
        &self.container
    }

    /// Visits the rows of a table that the tree still leads to, and says which keys it does not lead to any more.
    pub(crate) fn walk(&self, table: Table, visit: &mut Visit<'_>) -> Result<Holes> {
        self.walk_from(self.roots[table as usize], visit)
    }

    fn walk_from(&self, root: Root, visit: &mut Visit<'_>) -> Result<Holes> {
        let mut walk = Walk {
            damaged: self,
            visit,
            holes: Holes::default(),
            pages: 0,
        };
        let all = (Bound::Unbounded, Bound::Unbounded);
        match root {
            Root::Lost => walk.holes.add(all),
            Root::Empty => {}
            Root::At(page) => walk.page(page, all, 0)?,
        }
        Ok(walk.holes)
    }

    /// Visits every leaf that stands anywhere in the file, of the newest state or an older one, in blocks that are `wanted`. `progress`
    /// is told how many blocks were looked at. What a leaf's later blocks hold is theirs only when it is a page still: in a free page they may have been
    /// written over.
    pub(crate) fn leaves(
        &self,
        progress: &mut dyn FnMut(u64),
        wanted: &dyn Fn(u64) -> bool,
        mut visit: impl FnMut(LooseLeaf<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut first = [0; BLOCK];
        for block in 1..self.container.page_blocks() {
            if block % 1024 == 0 {
                progress(block);
            }
            if !wanted(block) || !self.container.read_block(block, &mut first) {
                continue;
            }
            let Some(used) = page::used_bytes(&first).filter(|_| first[0] == 1) else {
                continue;
            };
            let blocks = self.blocks(block, used.div_ceil(BLOCK) as u64);
            if let Some(Page::Leaf(leaf)) = Page::parse(blocks.as_whole()) {
                visit(LooseLeaf { leaf: &leaf, block })?;
            }
        }
        Ok(())
    }

    /// The row of this key in the leaf that begins at `block`.
    pub(crate) fn row_at(&self, block: u64, key: &[u8]) -> Option<Vec<u8>> {
        let mut first = [0; BLOCK];
        if !self.container.read_block(block, &mut first) {
            return None;
        }
        let blocks = self.blocks(block, page::used_bytes(&first)?.div_ceil(BLOCK) as u64);
        match Page::parse(blocks.as_whole())? {
            Page::Leaf(leaf) => leaf
                .rows()
                .find(|row| row.key == Some(key))?
                .value
                .map(<[u8]>::to_vec),
            Page::Branch(_) => None,
        }
    }

    fn blocks(&self, first: u64, count: u64) -> Blocks {
        let mut blocks = Blocks {
            first,
            bytes: vec![0; count as usize * BLOCK],
            whole: Vec::with_capacity(count as usize),
        };
        for (number, block) in (first..).zip(blocks.bytes.as_chunks_mut::<BLOCK>().0) {
            blocks.whole.push(self.container.read_block(number, block));
        }
        blocks
    }

    /// A page's blocks as far as they are used.
    fn page(&self, page: PageNumber) -> Option<Blocks> {
        let first = self.header?.first_block(page)?;
        let mut block = [0; BLOCK];
        if !self.container.read_block(first, &mut block) {
            return None;
        }
        let used = page::used_bytes(&block)?.div_ceil(BLOCK) as u64;
        (used <= page.blocks()?).then(|| self.blocks(first, used))
    }
}

impl Blocks {
    fn as_whole(&self) -> Whole<'_> {
        Whole {
            page: &self.bytes,
            blocks: &self.whole,
        }
    }
}

/// A leaf that was found by itself.
pub(crate) struct LooseLeaf<'l> {
    leaf: &'l Leaf<'l>,
    /// Where it begins.
    pub(crate) block: u64,
}

impl<'l> LooseLeaf<'l> {
    /// All its rows, in order, as far as they are whole.
    pub(crate) fn all_rows(&self) -> impl Iterator<Item = Row<'l>> {
        self.leaf.rows()
    }

    /// Its whole rows, in order; true for one that reaches beyond the leaf's first block.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&'l [u8], &'l [u8], bool)> {
        self.leaf
            .rows()
            .filter_map(|row| Some((row.key?, row.value?, row.at.1.end > BLOCK)))
    }
}

/// One way through a tree.
struct Walk<'w, 'v> {
    damaged: &'w Damaged,
    visit: &'w mut Visit<'v>,
    holes: Holes,
    pages: u64,
}

impl Walk<'_, '_> {
    /// Visits what stands below a page whose keys lie in `range`.
    fn page(&mut self, number: PageNumber, range: Hole, depth: usize) -> Result<()> {
        self.pages += 1;
        // More pages than there are blocks: somebody made the tree lead into itself.
        if depth > DEPTH_MAX || self.pages > self.damaged.container.page_blocks() {
            self.holes.add(range);
            return Ok(());
        }
        let Some(blocks) = self.damaged.page(number) else {
            self.holes.add(range);
            return Ok(());
        };
        match Page::parse(blocks.as_whole()) {
            // A page whose keys do not belong here is another page than the one that was meant.
            Some(Page::Leaf(leaf))
                if leaf
                    .rows()
                    .filter_map(|row| row.key)
                    .all(|key| holes::contains(&range, key)) =>
            {
                self.leaf(&leaf, blocks.first, &range)
            }
            Some(Page::Branch(branch)) if branch.keys.iter().all(|key| holes::contains(&range, key)) => {
                let mut from = range.0;
                for (n, child) in branch.children.iter().enumerate() {
                    let to = branch
                        .keys
                        .get(n)
                        .map_or_else(|| range.1.clone(), |key| Bound::Included(key.to_vec()));
                    self.page(*child, (from, to.clone()), depth + 1)?;
                    from = match to {
                        Bound::Included(key) => Bound::Excluded(key),
                        other => other,
                    };
                }
                Ok(())
            }
            _ => {
                self.holes.add(range);
                Ok(())
            }
        }
    }

    fn leaf(&mut self, leaf: &Leaf<'_>, page: u64, range: &Hole) -> Result<()> {
        let keys_whole = leaf.rows().all(|row| row.key.is_some());
        if !keys_whole {
            self.holes.add(range.clone());
        }
        for row in leaf.rows() {
            match (row.key, row.value) {
                (Some(key), Some(value)) => (self.visit)(key, value, &Stand { page, at: row.at })?,
                (Some(key), None) if keys_whole => {
                    self.holes
                        .add((Bound::Included(key.to_vec()), Bound::Included(key.to_vec())));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Reads any bytes as a page, for the fuzzer; says how many rows or children it would have.
#[cfg(feature = "simulation")]
pub(crate) fn parse_page(page: &[u8], whole: &[bool]) -> usize {
    let (_, _) = (RedbHeader::decode(page), page::table_root(page));
    match Page::parse(Whole { page, blocks: whole }) {
        Some(Page::Leaf(leaf)) => leaf.rows().filter(|row| row.value.is_some()).count(),
        Some(Page::Branch(branch)) => branch.children.len(),
        None => 0,
    }
}

/// A damaged container that cannot be read at all.
pub(crate) fn unreadable(error: &crate::storage::container::ContainerError) -> Error {
    crate::storage::transaction::container_failed("reading a damaged store", error)
}
