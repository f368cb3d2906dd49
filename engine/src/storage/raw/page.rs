//! redb's pages as bytes: what a leaf holds, where a branch leads, where the tree begins. File format 3, as `docs/design.md` of
//! redb 4.6 draws it. Every bound is checked: any bytes give a page or nothing, never a panic.

use crate::storage::container::BLOCK_BYTES;
use std::ops::Range;

const BLOCK: usize = BLOCK_BYTES as usize;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
/// Larger pages are not looked at: no row of a store is nearly so large.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// A page's number: region, index in it in units of its size, and its size as a power of two of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageNumber {
    region: u32,
    index: u32,
    order: u8,
}

impl PageNumber {
    pub(super) fn decode(bytes: [u8; 8]) -> Self {
        let bits = u64::from_le_bytes(bytes);
        let order = (bits >> 59) as u8;
        Self {
            region: (bits >> 20) as u32 & 0xF_FFFF,
            index: bits as u32 & (0xF_FFFF >> order),
            order,
        }
    }

    /// Blocks that the page has; `None` when it is larger than any page of a store.
    pub(crate) fn blocks(self) -> Option<u64> {
        (self.order <= 8).then(|| 1 << self.order)
    }
}

/// What redb's header says: how regions are laid out, and the root of the tree of tables in the newest durable state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RedbHeader {
    region_header_blocks: u32,
    region_data_blocks: u32,
    /// `None`: there is no table.
    pub(crate) tables: Option<PageNumber>,
    /// The root of redb's own tables in that state.
    pub(crate) own_tables: Option<PageNumber>,
    /// The number of the transaction that made that state.
    pub(crate) transaction: u64,
}

impl RedbHeader {
    /// `None` when this is not the header of a redb file of format 3 with blocks of 4,096 bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
        let u32_at = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        if !bytes.starts_with(&MAGIC) || u32_at(12)? != BLOCK as u32 {
            return None;
        }
        // Two-phase commits: the slot that the header calls the primary one is whole.
        let slot = if bytes.get(9)? & 1 == 0 { 64 } else { 192 };
        if *bytes.get(slot)? != 3 {
            return None;
        }
        let array_at = |at: usize| bytes.get(slot + at..slot + at + 8)?.try_into().ok();
        let root = |is_there: usize, at| {
            let root = PageNumber::decode(array_at(at)?);
            Some((*bytes.get(slot + is_there)? != 0).then_some(root))
        };
        Some(Self {
            region_header_blocks: u32_at(16)?,
            region_data_blocks: u32_at(20)?,
            tables: root(1, 8)?,
            own_tables: root(2, 40)?,
            transaction: u64::from_le_bytes(array_at(104)?),
        })
    }

    /// The first block of a region that can be given out, and how many such a region has at most.
    pub(crate) fn region(&self, number: u32) -> Option<(u64, u32)> {
        let blocks = u64::from(self.region_header_blocks) + u64::from(self.region_data_blocks);
        let first = u64::from(number).checked_mul(blocks)?;
        let first = first.checked_add(1 + u64::from(self.region_header_blocks))?;
        Some((first, self.region_data_blocks))
    }

    /// The first block of a page, counted in redb's file.
    pub(crate) fn first_block(&self, page: PageNumber) -> Option<u64> {
        let within = u64::from(page.index).checked_mul(page.blocks()?)?;
        self.region(page.region)?.0.checked_add(within)
    }
}

/// The root of a table's tree, from its row in the tree of tables. Outer `None`: it is no such row.
pub(crate) fn table_root(definition: &[u8]) -> Option<Option<PageNumber>> {
    const NORMAL: u8 = 3;
    if *definition.first()? != NORMAL {
        return None;
    }
    let root: [u8; 8] = definition.get(10..18)?.try_into().ok()?;
    Some((*definition.get(9)? != 0).then(|| PageNumber::decode(root)))
}

/// Which bytes of a page are whole, block by block.
pub(crate) struct Whole<'p> {
    pub(crate) page: &'p [u8],
    /// For each block of the page, whether its tag matched.
    pub(crate) blocks: &'p [bool],
}

impl<'p> Whole<'p> {
    /// These bytes, if they lie within the page and every block that they touch is whole.
    fn get(&self, range: Range<usize>) -> Option<&'p [u8]> {
        let bytes = self.page.get(range.clone())?;
        let touched = range.start / BLOCK..range.end.div_ceil(BLOCK);
        let whole = bytes.is_empty() || self.blocks.get(touched)?.iter().all(|whole| *whole);
        whole.then_some(bytes)
    }

    fn u32_at(&self, at: usize) -> Option<usize> {
        let bytes = self.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    }

    fn count(&self) -> Option<usize> {
        let bytes = self.get(2..4)?.try_into().ok()?;
        Some(usize::from(u16::from_le_bytes(bytes))).filter(|count| *count > 0)
    }
}

/// A page, as far as it is whole.
pub(crate) enum Page<'p> {
    Leaf(Leaf<'p>),
    Branch(Branch<'p>),
}

impl<'p> Page<'p> {
    pub(crate) fn parse(whole: Whole<'p>) -> Option<Self> {
        match *whole.get(0..1)?.first()? {
            LEAF => Leaf::parse(whole).map(Self::Leaf),
            BRANCH => Branch::parse(&whole).map(Self::Branch),
            _ => None,
        }
    }
}

/// How many bytes the page that begins with this block has in use; `None` when it is neither leaf nor branch, or says what
/// cannot be.
pub(crate) fn used_bytes(first: &[u8; BLOCK]) -> Option<usize> {
    let whole = Whole {
        page: first,
        blocks: &[true],
    };
    let count = whole.count()?;
    let end = match first[0] {
        LEAF => whole.u32_at(4 + 4 * (2 * count - 1))?,
        BRANCH => whole.u32_at(8 + 24 * (count + 1) + 4 * (count - 1))?,
        _ => return None,
    };
    (4..=PAGE_BYTES_MAX).contains(&end).then_some(end)
}

/// A leaf: rows in the order of their keys.
pub(crate) struct Leaf<'p> {
    whole: Whole<'p>,
    /// Where key and value of each row lie.
    rows: Vec<(Range<usize>, Range<usize>)>,
}

/// A row, as far as it is whole.
pub(crate) struct Row<'p> {
    /// `None`: a part of the key lies in a damaged block.
    pub(crate) key: Option<&'p [u8]>,
    pub(crate) value: Option<&'p [u8]>,
    /// Where in the page the key lies, and where the value.
    pub(crate) at: (Range<usize>, Range<usize>),
}

impl<'p> Leaf<'p> {
    fn parse(whole: Whole<'p>) -> Option<Self> {
        let count = whole.count()?;
        let ends = 4 + 8 * count;
        let mut key_from = ends;
        let mut value_from = whole.u32_at(4 + 4 * (count - 1))?;
        let mut rows = Vec::with_capacity(count.min(512));
        for n in 0..count {
            let key_end = whole.u32_at(4 + 4 * n)?;
            let value_end = whole.u32_at(4 + 4 * (count + n))?;
            if key_end < key_from || value_end < value_from || value_end > PAGE_BYTES_MAX {
                return None;
            }
            rows.push((key_from..key_end, value_from..value_end));
            (key_from, value_from) = (key_end, value_end);
        }
        let leaf = Self { whole, rows };
        leaf.is_sorted().then_some(leaf)
    }

    fn is_sorted(&self) -> bool {
        self.rows()
            .filter_map(|row| row.key)
            .is_sorted_by(|one, next| one < next)
    }

    /// Its rows in order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'p>> {
        self.rows.iter().map(|(key, value)| Row {
            key: self.whole.get(key.clone()),
            value: self.whole.get(value.clone()),
            at: (key.clone(), value.clone()),
        })
    }
}

/// A branch: child `n` has the keys above routing key `n - 1` up to and with routing key `n`.
pub(crate) struct Branch<'p> {
    pub(crate) keys: Vec<&'p [u8]>,
    /// One more than keys.
    pub(crate) children: Vec<PageNumber>,
}

impl<'p> Branch<'p> {
    fn parse(whole: &Whole<'p>) -> Option<Self> {
        let count = whole.count()?;
        let ends_at = 8 + 24 * (count + 1);
        let children = children(whole, count)?;
        let mut from = ends_at + 4 * count;
        let mut keys = Vec::with_capacity(count.min(512));
        for n in 0..count {
            let end = whole.u32_at(ends_at + 4 * n)?;
            if end < from {
                return None;
            }
            keys.push(whole.get(from..end)?);
            from = end;
        }
        keys.is_sorted_by(|one, next| one < next)
            .then_some(Self { keys, children })
    }
}

fn children(whole: &Whole<'_>, count: usize) -> Option<Vec<PageNumber>> {
    let at = 8 + 16 * (count + 1);
    let children = (0..=count).map(|n| {
        let child = whole.get(at + 8 * n..at + 8 * (n + 1))?;
        Some(PageNumber::decode(child.try_into().ok()?))
    });
    children.collect()
}

/// A page of one of redb's own tables, whose keys are all of one width and do not order as their bytes do.
pub(crate) enum OwnPage<'p> {
    Leaf(Vec<(&'p [u8], &'p [u8])>),
    Branch(Vec<PageNumber>),
}

impl<'p> OwnPage<'p> {
    /// `None` when any part of it is damaged.
    pub(crate) fn parse(whole: &Whole<'p>, key_bytes: usize) -> Option<Self> {
        let count = whole.count()?;
        match *whole.get(0..1)?.first()? {
            LEAF => {
                let keys_at = 4 + 4 * count;
                let mut from = keys_at + key_bytes * count;
                let rows = (0..count).map(|n| {
                    let to = whole.u32_at(4 + 4 * n)?;
                    let row = (to >= from).then_some(from..to)?;
                    from = to;
                    let key = keys_at + key_bytes * n..keys_at + key_bytes * (n + 1);
                    Some((whole.get(key)?, whole.get(row)?))
                });
                rows.collect::<Option<_>>().map(Self::Leaf)
            }
            BRANCH => children(whole, count).map(Self::Branch),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A leaf as redb writes it.
    pub(crate) fn leaf(rows: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut page = vec![LEAF, 0];
        page.extend_from_slice(&u16::try_from(rows.len()).unwrap().to_le_bytes());
        let mut end = 4 + 8 * rows.len();
        for bytes in rows.iter().map(|row| &row.0).chain(rows.iter().map(|row| &row.1)) {
            end += bytes.len();
            page.extend_from_slice(&u32::try_from(end).unwrap().to_le_bytes());
        }
        for bytes in rows.iter().map(|row| &row.0).chain(rows.iter().map(|row| &row.1)) {
            page.extend_from_slice(bytes);
        }
        page.resize(page.len().next_multiple_of(BLOCK), 0);
        page
    }

    fn parse<'p>(page: &'p [u8], blocks: &'p [bool]) -> Option<Page<'p>> {
        Page::parse(Whole { page, blocks })
    }

    #[test]
    fn a_row_is_whole_when_the_blocks_that_it_touches_are() {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = (0..3).map(|n| (vec![n], vec![n; 5000])).collect();
        let page = leaf(&rows);
        assert_eq!(page.len(), 4 * BLOCK);
        let found = |blocks: [bool; 4]| {
            let Some(Page::Leaf(leaf)) = parse(&page, &blocks) else {
                return None;
            };
            Some(leaf.rows().map(|row| row.value.is_some()).collect::<Vec<_>>())
        };
        assert_eq!(found([true; 4]), Some(vec![true, true, true]));
        assert_eq!(found([true, true, false, true]), Some(vec![true, false, false]));
        assert_eq!(found([true, true, true, false]), Some(vec![true, true, false]));
        assert_eq!(found([false, true, true, true]), None);
        assert_eq!(
            used_bytes(page[..BLOCK].try_into().unwrap()),
            Some(4 + 3 * 9 + 15_000)
        );
    }

    proptest! {
        #[test]
        fn a_leaf_reads_back(rows in proptest::collection::btree_map(any::<Vec<u8>>(), any::<Vec<u8>>(), 1..12)) {
            let rows: Vec<_> = rows.into_iter().collect();
            let page = leaf(&rows);
            let blocks = vec![true; page.len() / BLOCK];
            let Some(Page::Leaf(leaf)) = parse(&page, &blocks) else { panic!("no leaf") };
            let read: Vec<_> = leaf.rows().map(|row| (row.key.unwrap().to_vec(), row.value.unwrap().to_vec())).collect();
            prop_assert_eq!(read, rows);
        }

        #[test]
        fn any_bytes_are_a_page_or_nothing(
            mut page in proptest::collection::vec(any::<u8>(), 0..9000),
            kind in 0u8..4,
            count in 0u16..600,
            blocks in proptest::collection::vec(any::<bool>(), 0..4),
        ) {
            if page.len() > 4 {
                page[0] = kind;
                page[2..4].copy_from_slice(&count.to_le_bytes());
            }
            match parse(&page, &blocks) {
                Some(Page::Leaf(leaf)) => drop(leaf.rows().map(|row| (row.key.map(<[u8]>::len), row.value.map(<[u8]>::len))).collect::<Vec<_>>()),
                Some(Page::Branch(branch)) => prop_assert_eq!(branch.children.len(), branch.keys.len() + 1),
                None => {}
            }
            OwnPage::parse(&Whole { page: &page, blocks: &blocks }, usize::from(kind) * 8);
            if let Some(first) = page.first_chunk() {
                used_bytes(first);
            }
            RedbHeader::decode(&page);
            table_root(&page);
        }
    }
}
