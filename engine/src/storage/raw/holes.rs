//! The ranges of keys that a damaged tree does not lead to any more.

use std::ops::Bound;

/// A range of keys.
pub(crate) type Hole = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The holes of one table, in the order of their keys. Memory: one entry for each damaged page.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Holes(Vec<Hole>);

impl Holes {
    /// Adds a hole behind all others.
    pub(super) fn add(&mut self, hole: Hole) {
        self.0.push(hole);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when the tree no longer says whether there is a row of this key.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        // The first hole that does not end before the key; its neighbour may be one that holds the very same key range.
        let at = self.0.partition_point(|(_, to)| ends_before(to, key));
        self.0.get(at).is_some_and(|hole| contains(hole, key))
    }

    /// What is left of the holes where these ranges of keys, ends included, are known from elsewhere.
    pub(crate) fn without(self, mut known: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        known.sort();
        let mut known = known.into_iter().peekable();
        let mut left = Vec::new();
        for mut hole in self.0 {
            let mut is_filled = false;
            while let Some((first, last)) = known.peek() {
                let behind = match &hole.1 {
                    Bound::Unbounded => false,
                    Bound::Included(to) => first > to,
                    Bound::Excluded(to) => first >= to,
                };
                if behind {
                    break;
                }
                if contains(&hole, first) && hole.0 != Bound::Included(first.clone()) {
                    left.push((hole.0.clone(), Bound::Excluded(first.clone())));
                }
                if ends_before(&hole.1, last) || hole.1 == Bound::Included(last.clone()) {
                    is_filled = true;
                    break;
                }
                if contains(&hole, last) {
                    hole.0 = Bound::Excluded(last.clone());
                }
                known.next();
            }
            if !is_filled {
                left.push(hole);
            }
        }
        Self(left)
    }

    /// True when a hole may hold a key that begins with `prefix`.
    pub(crate) fn touches(&self, prefix: &[u8]) -> bool {
        let after = crate::storage::tables::after_prefix(prefix);
        self.0.iter().any(|(from, to)| {
            let begins_behind = match (from, &after) {
                (Bound::Unbounded, _) | (_, None) => false,
                (Bound::Included(from) | Bound::Excluded(from), Some(after)) => from >= after,
            };
            !begins_behind && !ends_before(to, prefix)
        })
    }
}

fn ends_before(to: &Bound<Vec<u8>>, key: &[u8]) -> bool {
    match to {
        Bound::Unbounded => false,
        Bound::Included(to) => to.as_slice() < key,
        Bound::Excluded(to) => to.as_slice() <= key,
    }
}

pub(super) fn contains(hole: &Hole, key: &[u8]) -> bool {
    let behind_start = match &hole.0 {
        Bound::Unbounded => true,
        Bound::Included(from) => from.as_slice() <= key,
        Bound::Excluded(from) => from.as_slice() < key,
    };
    behind_start && !ends_before(&hole.1, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_a_hole_when_the_tree_does_not_lead_to_it() {
        let key = |n: u8| vec![n, 0];
        let mut holes = Holes::default();
        assert!(!holes.contains(&key(1)) && !holes.touches(&[]));
        holes.add((Bound::Excluded(key(2)), Bound::Included(key(4))));
        holes.add((Bound::Included(key(6)), Bound::Included(key(6))));
        holes.add((Bound::Excluded(key(8)), Bound::Unbounded));
        let inside: Vec<u8> = (0..12).filter(|n| holes.contains(&key(*n))).collect();
        assert_eq!(inside, [3, 4, 6, 9, 10, 11]);
        let touched: Vec<u8> = (0..12).filter(|n| holes.touches(&[*n])).collect();
        assert_eq!(touched, [2, 3, 4, 6, 8, 9, 10, 11]);
    }

    #[test]
    fn what_is_known_from_elsewhere_is_no_hole_any_more() {
        let key = |n: u8| vec![n];
        let inside = |holes: &Holes| (0..20).filter(|n| holes.contains(&key(*n))).collect::<Vec<u8>>();
        let mut holes = Holes::default();
        holes.add((Bound::Excluded(key(2)), Bound::Included(key(8))));
        holes.add((Bound::Included(key(10)), Bound::Included(key(10))));
        holes.add((Bound::Excluded(key(12)), Bound::Unbounded));
        let known = |ranges: &[(u8, u8)]| {
            let ranges = ranges.iter().map(|(from, to)| (key(*from), key(*to)));
            inside(&holes.clone().without(ranges.collect()))
        };
        assert_eq!(known(&[]), inside(&holes));
        assert_eq!(known(&[(14, 16), (4, 5)]), [3, 6, 7, 8, 10, 13, 17, 18, 19]);
        assert_eq!(known(&[(3, 8), (10, 10), (13, 13)]), [14, 15, 16, 17, 18, 19]);
        assert_eq!(known(&[(0, 1), (7, 14)]), [3, 4, 5, 6, 15, 16, 17, 18, 19]);
        assert!(known(&[(0, 19)]).is_empty());
        assert_eq!(known(&[(4, 9), (5, 6)]), [3, 10, 13, 14, 15, 16, 17, 18, 19]);
    }
}
