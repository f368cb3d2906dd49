//! Looking for many byte strings at once.

use crate::contents::Contents;
use std::collections::BTreeMap;

/// The shortest string that can be looked for.
const PREFIX: usize = 7;
/// Read at a time from a disk.
const PIECE: usize = 64 << 10;

/// Byte strings of at least 7 bytes, to be found in one pass over what is searched.
#[derive(Debug, Default)]
pub struct Patterns {
    patterns: Vec<Vec<u8>>,
    by_prefix: BTreeMap<[u8; PREFIX], Vec<usize>>,
    /// The first two bytes of each: most places are passed over by a look at this.
    maybe: Vec<bool>,
    longest: usize,
}

/// A place where one stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Which, in the order in which they were given.
    pub pattern: usize,
    /// Where.
    pub offset: u64,
}

impl Patterns {
    /// These strings.
    ///
    /// # Panics
    ///
    /// When one has less than 7 bytes.
    #[must_use]
    pub fn new(patterns: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let patterns: Vec<Vec<u8>> = patterns.into_iter().collect();
        let mut by_prefix: BTreeMap<[u8; PREFIX], Vec<usize>> = BTreeMap::new();
        let mut maybe = vec![false; 1 << 16];
        for (number, pattern) in patterns.iter().enumerate() {
            let prefix = *pattern.first_chunk().expect("patterns have 7 bytes at least");
            maybe[usize::from(u16::from_le_bytes([prefix[0], prefix[1]]))] = true;
            by_prefix.entry(prefix).or_default().push(number);
        }
        Self {
            longest: patterns.iter().map(Vec::len).max().unwrap_or(0),
            patterns,
            by_prefix,
            maybe,
        }
    }

    /// Where they stand in these bytes.
    pub fn find_in<'b>(&'b self, bytes: &'b [u8]) -> impl Iterator<Item = Found> + 'b {
        bytes
            .windows(PREFIX)
            .enumerate()
            .filter(|(_, window)| self.maybe[usize::from(u16::from_le_bytes([window[0], window[1]]))])
            .flat_map(move |(at, window)| {
                let numbers = self.by_prefix.get(window).into_iter().flatten();
                numbers
                    .filter(move |number| bytes[at..].starts_with(&self.patterns[**number]))
                    .map(move |number| Found {
                        pattern: *number,
                        offset: at as u64,
                    })
            })
    }

    /// Where they stand on a disk, also across the borders of its blocks. Some may be told twice.
    #[must_use]
    pub fn find(&self, contents: &Contents) -> Vec<Found> {
        let mut found = Vec::new();
        let mut piece = vec![0; PIECE + self.longest];
        let mut from = 0;
        while from < contents.len() {
            let bytes = (contents.len() - from).min(piece.len() as u64) as usize;
            let piece = &mut piece[..bytes];
            assert!(contents.read(from, piece), "it is within the length");
            found.extend(self.find_in(piece).map(|found| Found {
                offset: from + found.offset,
                ..found
            }));
            from += PIECE as u64;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_across_two_pieces_is_found() {
        let mut contents = Contents::default();
        contents.set_len(200_000);
        let patterns = Patterns::new([b"needle in hay".to_vec(), b"another".to_vec()]);
        assert!(patterns.find(&contents).is_empty());
        contents.write(PIECE as u64 - 5, b"needle in hay");
        contents.write(150_000, b"another");
        let found = patterns.find(&contents);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].offset, PIECE as u64 - 5);
        assert_eq!((found[1].pattern, found[1].offset), (1, 150_000));
    }
}
