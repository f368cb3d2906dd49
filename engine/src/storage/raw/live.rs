//! Which blocks the newest durable state has: redb writes down with each checkpoint which pages are given out, and which of those only
//! older states still use. A leaf in one of the others is the newest word on its keys, whether anything leads to it or not.

use super::page::{OwnPage, PageNumber, table_root};
use super::{Damaged, Root};
use std::collections::{BTreeMap, BTreeSet};

/// Which pages are given out: by region. Its keys: an alternative, and a number.
const ALLOCATORS: (&[u8], usize) = (b"allocator_state", 5);
/// Pages that only older states still use, and which are given out until the next commit.
const UNREACHABLE: (&[u8], usize) = (b"data_pages_unreachable", 16);
const REGION: u8 = 3;
const TRANSACTION: u8 = 5;
/// Orders of pages beyond it are not looked at: redb has none.
const ORDER_MAX: u8 = 20;

/// The blocks of the newest state. Memory: one bit for each block.
pub(crate) struct Live {
    bits: Vec<u64>,
    blocks: u64,
}

impl Live {
    fn none(blocks: u64) -> Self {
        Self {
            bits: vec![0; blocks.div_ceil(64) as usize],
            blocks,
        }
    }

    pub(crate) fn contains(&self, block: u64) -> bool {
        self.bits
            .get((block / 64) as usize)
            .is_some_and(|bits| bits >> (block % 64) & 1 == 1)
    }

    fn set(&mut self, first: u64, count: u64, live: bool) {
        for block in first..first.saturating_add(count).min(self.blocks) {
            let (word, bit) = ((block / 64) as usize, 1 << (block % 64));
            if live {
                self.bits[word] |= bit;
            } else {
                self.bits[word] &= !bit;
            }
        }
    }
}

impl Damaged {
    /// The blocks of the newest state; `None` when a page that says so is damaged. Pages of redb's own tables are among them: none of
    /// theirs can be taken for one of a store's tables.
    pub(crate) fn live(&self) -> Option<Live> {
        self.read_live(&mut BTreeSet::new())
    }

    /// The blocks of the newest state, and in `read` those that say so.
    pub(crate) fn read_live(&self, read: &mut BTreeSet<u64>) -> Option<Live> {
        let header = self.header.filter(|_| self.header_is_own)?;
        let mut roots = BTreeMap::new();
        let holes = self.walk_from(Root::At(header.own_tables?), &mut |name, definition, stand| {
            read.extend(stand.blocks());
            roots.insert(name.to_vec(), table_root(definition));
            Ok(())
        });
        if !holes.ok()?.is_empty() {
            return None;
        }
        let mut rows_of = |(name, key_bytes): (&[u8], usize)| match roots.get(name) {
            Some(Some(Some(root))) => self.own_rows(*root, key_bytes, read),
            Some(Some(None)) => Some(Vec::new()),
            _ => None,
        };
        let allocators = rows_of(ALLOCATORS)?;
        let transaction = header.transaction.to_le_bytes();
        let of_this_state = |row: &(Vec<u8>, Vec<u8>)| row.0[0] == TRANSACTION && row.1 == transaction;
        if !allocators.iter().any(of_this_state) {
            return None;
        }
        let mut live = Live::none(self.container.page_blocks());
        for (key, state) in &allocators {
            if let (&REGION, number) = (&key[0], &key[1..]) {
                let (first, most) = header.region(u32::from_le_bytes(number.try_into().ok()?))?;
                give_out(state, most, |block| live.set(first + u64::from(block), 1, true))?;
            }
        }
        for (_, pages) in rows_of(UNREACHABLE)? {
            for page in page_list(&pages)? {
                live.set(header.first_block(page)?, page.blocks()?, false);
            }
        }
        Some(live)
    }

    /// The rows of one of redb's own tables; `None` when one of its pages is damaged.
    fn own_rows(
        &self,
        root: PageNumber,
        key_bytes: usize,
        read: &mut BTreeSet<u64>,
    ) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut rows = Vec::new();
        let mut waiting = vec![root];
        let mut seen = 0;
        while let Some(number) = waiting.pop() {
            // More pages than there are blocks: somebody made the tree lead into itself.
            seen += 1;
            if seen > self.container.page_blocks() {
                return None;
            }
            let blocks = self.blocks(self.header?.first_block(number)?, number.blocks()?);
            read.extend(blocks.first..blocks.first + blocks.whole.len() as u64);
            match OwnPage::parse(&blocks.as_whole(), key_bytes)? {
                OwnPage::Leaf(leaf) => {
                    rows.extend(leaf.iter().map(|(key, row)| (key.to_vec(), row.to_vec())))
                }
                OwnPage::Branch(children) => waiting.extend(children),
            }
        }
        Some(rows)
    }
}

/// The pages in a list of them.
fn page_list(row: &[u8]) -> Option<Vec<PageNumber>> {
    let (count, rest) = row.split_first_chunk()?;
    let count = usize::from(u16::from_le_bytes(*count));
    let pages = rest.as_chunks::<8>().0.get(..count)?;
    Some(pages.iter().map(|page| PageNumber::decode(*page)).collect())
}

/// Hands out each block of a region that is given out, counted in the region, by the state of its allocator: for each order, a tree of
/// bits, whose lowest level has a one for each page that is not free in that order. `None`: it is no such state.
fn give_out(state: &[u8], most: u32, mut visit: impl FnMut(u32)) -> Option<()> {
    let u32_at = |bytes: &[u8], at: usize| {
        let bytes = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    let (order_max, blocks) = (*state.first()?, u32_at(state, 4)?);
    if order_max > ORDER_MAX || blocks > most {
        return None;
    }
    let mut from = 8 + 4 * (usize::from(order_max) + 1);
    let mut orders = Vec::new();
    for order in 0..=order_max {
        let to = u32_at(state, 8 + 4 * usize::from(order))? as usize;
        let tree = state.get(from..to)?;
        let height = u32_at(tree, 0)? as usize;
        let begin = match height.checked_sub(2) {
            Some(above) => u32_at(tree, above.checked_mul(4)?.checked_add(4)?)? as usize,
            None => 8,
        };
        let level = tree.get(begin..u32_at(tree, height.checked_mul(4)?)? as usize)?;
        let (bits, words) = (u32_at(level, 0)?, level.get(4..)?);
        if bits != blocks >> order || words.len() < (bits.div_ceil(64) * 8) as usize {
            return None;
        }
        orders.push((bits, words));
        from = to;
    }
    let is_free = |block: u32| {
        orders.iter().enumerate().any(|(order, (bits, words))| {
            let page = block >> order;
            page < *bits && words[(page / 8) as usize] >> (page % 8) & 1 == 0
        })
    };
    (0..blocks).filter(|block| !is_free(*block)).for_each(&mut visit);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The state of an allocator of eight blocks: blocks 0 and 1 are given out, 2 and 3 are free as one page, 4 to 7 as another.
    fn state() -> Vec<u8> {
        let orders: [(u32, u64); 4] = [(8, !0), (4, !0b10), (2, !0b10), (1, !0)];
        let mut state = vec![3, 0, 0, 0, 8, 0, 0, 0];
        let mut end = 8 + 4 * 4;
        for _ in orders {
            end += 8 + 4 + 8;
            state.extend_from_slice(&u32::to_le_bytes(end));
        }
        for (bits, word) in orders {
            state.extend_from_slice(&1u32.to_le_bytes());
            state.extend_from_slice(&20u32.to_le_bytes());
            state.extend_from_slice(&bits.to_le_bytes());
            state.extend_from_slice(&word.to_le_bytes());
        }
        state
    }

    #[test]
    fn a_block_is_given_out_when_it_is_free_in_no_order() {
        let mut found = Vec::new();
        give_out(&state(), 8, |block| found.push(block)).unwrap();
        assert_eq!(found, [0, 1]);
        assert!(
            give_out(&state(), 7, |_| {}).is_none(),
            "more blocks than a region has"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_state_or_nothing(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..92, put in any::<[u8; 4]>()) {
            let (_, _) = (give_out(&bytes, 1000, |_| {}), page_list(&bytes));
            bytes = state();
            bytes[at..at + 4].copy_from_slice(&put);
            give_out(&bytes, 1000, |block| assert!(block < 1000));
        }
    }
}
