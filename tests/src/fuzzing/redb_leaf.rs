//! Pages of redb's, read without redb: salvage's parser, and the look at each page before redb is shown it. Any bytes are a page or
//! are refused; a leaf as redb writes it is read whole, and less of it when blocks of it are damaged.

use arbitrary::{Arbitrary, Unstructured};
use keystead::simulation::{page_is_taken, parse_page};
use std::collections::BTreeMap;

const BLOCK: usize = 4096;
/// The most rows that a leaf is built with, and the longest value.
const ROWS_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 9000;

#[derive(Debug, Arbitrary)]
enum Page<'a> {
    /// Any bytes.
    Bytes(&'a [u8]),
    /// A leaf, by its keys and the lengths of its values; then some bytes of it are changed.
    Leaf {
        rows: Vec<(&'a [u8], u16)>,
        changes: Vec<(u16, u8)>,
    },
}

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    /// Which blocks of the page are whole: a bit each.
    whole: u8,
    /// How long the file is in which the page's references are.
    file_blocks: u32,
    page: Page<'a>,
}

pub(super) fn run(input: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(input)) else {
        return;
    };
    let (page, rows) = match &input.page {
        Page::Bytes(bytes) => (bytes.to_vec(), None),
        Page::Leaf { rows, changes } => {
            let rows: BTreeMap<Vec<u8>, usize> = rows
                .iter()
                .take(ROWS_MAX)
                // No table of the store has such a name: a row may hold anything.
                .map(|(key, bytes)| ([b"\0", *key].concat(), usize::from(*bytes) % VALUE_BYTES_MAX))
                .collect();
            let mut page = leaf(&rows);
            for (at, byte) in changes {
                let at = usize::from(*at) % page.len();
                page[at] = *byte;
            }
            (page, changes.is_empty().then_some(rows.len()))
        }
    };
    let blocks = page.len().div_ceil(BLOCK);
    let whole: Vec<bool> = (0..blocks)
        .map(|block| input.whole >> (block % 8) & 1 == 1)
        .collect();
    let (all, some) = (parse_page(&page, &vec![true; blocks]), parse_page(&page, &whole));
    // A leaf's rows, or a branch's children, of which there is one more than keys.
    let said = page
        .get(2..4)
        .map_or(0, |count| usize::from(u16::from_le_bytes([count[0], count[1]])));
    assert!(all <= said + 1 && some <= said + 1, "{all} and {some} of {said}");
    assert!(all == 0 || some <= all, "damage adds nothing: {some} of {all}");
    let taken = page_is_taken(&page, u64::from(input.file_blocks) * BLOCK as u64);
    if let Some(rows) = rows {
        assert_eq!(all, rows, "a whole leaf is read whole");
        assert_eq!(taken, rows > 0, "a leaf with rows is shown to redb");
    }
}

/// A leaf as redb writes it: how many rows, the ends of the keys, those of the values, the keys, the values.
fn leaf(rows: &BTreeMap<Vec<u8>, usize>) -> Vec<u8> {
    let mut page = vec![1, 0];
    page.extend_from_slice(&(rows.len() as u16).to_le_bytes());
    let mut end = 4 + 8 * rows.len();
    for bytes in rows.keys().map(Vec::len).chain(rows.values().copied()) {
        end += bytes;
        page.extend_from_slice(&(end as u32).to_le_bytes());
    }
    page.extend(rows.keys().flatten());
    page.resize(end, 7);
    page.resize(end.next_multiple_of(BLOCK), 0);
    page
}
