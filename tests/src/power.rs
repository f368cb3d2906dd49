//! What a loss of power may leave: every subset of the pending operations while they are few, chosen ones by dice when they
//! are many; every order of writes that overlap; torn ones.

use crate::contents::Contents;
use crate::disk::{Operation, PowerCut, SECTOR_BYTES};
use crate::env::Dice;
use std::collections::HashSet;

/// What is kept of one pending operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Whole,
    Nothing,
    /// Of a write: each sector by a coin of its own.
    Torn(u64),
    /// Of a write: so many sectors from its beginning.
    Prefix(usize),
}

/// How many images of one cut are made.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Every subset of the pending operations is made while there are at most so many; some by dice above that.
    pub exhaustive_operations: usize,
    /// Subsets by dice above that.
    pub subsets: usize,
    /// Images in which operations are torn: at every sector's border while these are not more, by dice else.
    pub torn: usize,
}

/// A disk after power came back.
#[derive(Debug)]
pub struct Image {
    /// What stands on it.
    pub contents: Contents,
    /// The fingerprint of that.
    pub fingerprint: u128,
    choice: Choice,
}

/// What is kept of each pending operation, and in which order that reached the disk.
#[derive(Debug, Clone)]
struct Choice {
    kept: Vec<Kept>,
    /// `None`: the order in which it was asked for.
    order: Option<Vec<usize>>,
}

impl Image {
    /// How it was made of this cut, for the story of a failure.
    #[must_use]
    pub fn story(&self, cut: &PowerCut) -> String {
        let line = |at: usize| format!("{:?} {:?}", cut.pending[at], self.choice.kept[at]);
        let asked: Vec<usize> = (0..cut.pending.len()).collect();
        let order = self.choice.order.as_ref().unwrap_or(&asked);
        let lines: Vec<String> = order.iter().map(|at| line(*at)).collect();
        lines.join("; ")
    }
}

/// The distinct images of a cut.
#[must_use]
pub fn images(cut: &PowerCut, budget: Budget, dice: &mut Dice) -> Vec<Image> {
    let mut choices = subsets(cut, budget, dice);
    choices.extend(torn(cut, budget, dice));
    let base = cut.durable.fingerprint();
    let mut seen = HashSet::new();
    let mut images = Vec::with_capacity(choices.len());
    for choice in choices {
        let contents = image(cut, &choice);
        let fingerprint = contents.fingerprint_from(&cut.durable, base);
        if seen.insert(fingerprint) {
            images.push(Image {
                contents,
                fingerprint,
                choice,
            });
        }
    }
    images
}

fn subsets(cut: &PowerCut, budget: Budget, dice: &mut Dice) -> Vec<Choice> {
    let count = cut.pending.len();
    let mut subsets: Vec<Vec<Kept>> = Vec::new();
    if count <= budget.exhaustive_operations {
        for subset in 0..1u64 << count {
            let kept = (0..count).map(|n| keep_if(subset >> n & 1 == 1));
            subsets.push(kept.collect());
        }
    } else {
        subsets.push(vec![Kept::Whole; count]);
        subsets.push(vec![Kept::Nothing; count]);
        for _ in 0..budget.subsets {
            let kind = dice.below(3);
            let at = dice.below(count as u64) as usize;
            let kept = (0..count).map(|n| match kind {
                0 => keep_if(dice.once_in(2)),
                // All but one; all up to one.
                1 => keep_if(n != at),
                _ => keep_if(n < at),
            });
            subsets.push(kept.collect());
        }
    }
    let overlapping = overlapping(cut);
    let mut choices = Vec::with_capacity(subsets.len());
    for kept in subsets {
        let both = |at: &&usize| kept[**at] == Kept::Whole;
        let shuffled: Vec<usize> = overlapping.iter().filter(both).copied().collect();
        choices.push(Choice {
            kept: kept.clone(),
            order: None,
        });
        for order in orders(&shuffled, dice) {
            choices.push(Choice {
                kept: kept.clone(),
                order: Some(spread(count, &shuffled, &order)),
            });
        }
    }
    choices
}

/// The writes that share bytes with another one, save those that stand in the very same place as all they meet: in which
/// order these reach the disk is a question of which is kept.
fn overlapping(cut: &PowerCut) -> Vec<usize> {
    let range = |at: usize| match &cut.pending[at] {
        Operation::Write(offset, data) => Some((*offset, offset + data.len() as u64)),
        _ => None,
    };
    let meets = |a: usize, b: usize| match (range(a), range(b)) {
        (Some(a), Some(b)) => a != b && a.0 < b.1 && b.0 < a.1,
        _ => false,
    };
    let all = 0..cut.pending.len();
    all.clone()
        .filter(|a| all.clone().any(|b| meets(*a, b)))
        .collect()
}

/// The other orders of these: all of them while they are at most four, else the reverse and some by dice.
fn orders(of: &[usize], dice: &mut Dice) -> Vec<Vec<usize>> {
    let mut orders = Vec::new();
    if of.len() < 2 {
        return orders;
    }
    if of.len() <= 4 {
        permute(&mut of.to_vec(), 0, &mut orders);
        orders.retain(|order| order != of);
        return orders;
    }
    orders.push(of.iter().rev().copied().collect());
    for _ in 0..2 {
        let mut order = of.to_vec();
        for at in (1..order.len()).rev() {
            order.swap(at, dice.below(at as u64 + 1) as usize);
        }
        orders.push(order);
    }
    orders
}

fn permute(of: &mut Vec<usize>, at: usize, into: &mut Vec<Vec<usize>>) {
    if at == of.len() {
        into.push(of.clone());
        return;
    }
    for other in at..of.len() {
        of.swap(at, other);
        permute(of, at + 1, into);
        of.swap(at, other);
    }
}

/// All operations in the order in which they were asked for, but these among themselves in another one.
fn spread(count: usize, shuffled: &[usize], order: &[usize]) -> Vec<usize> {
    let mut next = order.iter();
    (0..count)
        .map(|at| {
            if shuffled.contains(&at) {
                *next.next().expect("an order has as many as were shuffled")
            } else {
                at
            }
        })
        .collect()
}

fn torn(cut: &PowerCut, budget: Budget, dice: &mut Dice) -> Vec<Choice> {
    let count = cut.pending.len();
    let borders: Vec<(usize, usize)> = cut
        .pending
        .iter()
        .enumerate()
        .flat_map(|(at, operation)| (1..sector_count(operation)).map(move |sectors| (at, sectors)))
        .collect();
    let choice = |kept| Choice { kept, order: None };
    // Each write cut at each of its sectors, the others all there or all missing.
    if borders.len() * 2 <= budget.torn {
        let cuts = borders.iter().flat_map(|(at, sectors)| {
            [Kept::Whole, Kept::Nothing].map(|others| {
                let mut kept = vec![others; count];
                kept[*at] = Kept::Prefix(*sectors);
                choice(kept)
            })
        });
        return cuts.collect();
    }
    let torn = (0..budget.torn).map(|_| {
        let at = dice.below(count as u64) as usize;
        let all = dice.below(3);
        let mut kept: Vec<Kept> = (0..count)
            .map(|_| match all {
                0 => Kept::Whole,
                1 => keep_if(dice.once_in(2)),
                _ => Kept::Torn(dice.roll()),
            })
            .collect();
        kept[at] = tear(&cut.pending[at], dice);
        choice(kept)
    });
    torn.collect()
}

fn keep_if(kept: bool) -> Kept {
    if kept { Kept::Whole } else { Kept::Nothing }
}

fn sector_count(operation: &Operation) -> usize {
    match operation {
        Operation::Write(offset, data) => sectors(*offset, data.len()).count(),
        _ => 0,
    }
}

fn tear(operation: &Operation, dice: &mut Dice) -> Kept {
    match sector_count(operation) as u64 {
        0 | 1 => keep_if(dice.once_in(2)),
        sectors if dice.once_in(2) => Kept::Prefix(1 + dice.below(sectors - 1) as usize),
        _ => Kept::Torn(dice.roll()),
    }
}

fn image(cut: &PowerCut, choice: &Choice) -> Contents {
    let mut contents = cut.durable.clone();
    let mut lengths_go_on = true;
    let asked: Vec<usize>;
    let order = match &choice.order {
        Some(order) => order,
        None => {
            asked = (0..cut.pending.len()).collect();
            &asked
        }
    };
    for at in order {
        match (&cut.pending[*at], choice.kept[*at]) {
            // Lengths survive in their order: behind one that is lost, all are.
            (Operation::SetLen(_), Kept::Nothing) => lengths_go_on = false,
            (Operation::SetLen(len), _) if lengths_go_on => contents.set_len(*len),
            (Operation::SetLen(_) | Operation::Sync, _) | (_, Kept::Nothing) => {}
            (Operation::Write(offset, data), Kept::Whole) => contents.write(*offset, data),
            (Operation::Write(offset, data), kept) => {
                let mut coins = match kept {
                    Kept::Torn(seed) => Some(Dice::new(seed)),
                    _ => None,
                };
                for (n, part) in sectors(*offset, data.len()).enumerate() {
                    let keep = match kept {
                        Kept::Prefix(most) => n < most,
                        _ => coins.as_mut().is_none_or(|coins| coins.once_in(2)),
                    };
                    if keep {
                        contents.write(offset + part.start as u64, &data[part]);
                    }
                }
            }
        }
    }
    contents
}

/// The parts of a write that lie in one sector each.
fn sectors(offset: u64, len: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        if from == len {
            return None;
        }
        let within = (offset as usize + from) % SECTOR_BYTES;
        let to = len.min(from + SECTOR_BYTES - within);
        let part = from..to;
        from = to;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pending: Vec<Operation>) -> PowerCut {
        let mut durable = Contents::default();
        durable.set_len(100_000);
        PowerCut { durable, pending }
    }

    fn write(offset: u64, bytes: usize, with: u8) -> Operation {
        Operation::Write(offset, vec![with; bytes].into())
    }

    const BUDGET: Budget = Budget {
        exhaustive_operations: 10,
        subsets: 10,
        torn: 100,
    };

    #[test]
    fn ten_pending_writes_leave_every_subset() {
        let pending = (0..10).map(|n| write(n * 512, 512, 1)).collect();
        let images = images(&cut(pending), BUDGET, &mut Dice::new(1));
        assert_eq!(images.len(), 1024);
    }

    #[test]
    fn writes_that_overlap_reach_the_disk_in_every_order() {
        let pending = vec![write(0, 1024, 1), write(512, 1024, 2)];
        let images = images(&cut(pending), BUDGET, &mut Dice::new(1));
        let mut seen: Vec<[u8; 3]> = images
            .iter()
            .map(|image| {
                let mut bytes = [0; 1536];
                assert!(image.contents.read(0, &mut bytes));
                [bytes[0], bytes[512], bytes[1024]]
            })
            .collect();
        seen.sort_unstable();
        // Whole ones in both orders, and each torn in its middle beside the other, there or missing.
        for expected in [
            [0, 0, 0],
            [1, 1, 0],
            [0, 2, 2],
            [1, 2, 2],
            [1, 1, 2],
            [1, 0, 0],
            [0, 2, 0],
            [1, 2, 0],
        ] {
            assert!(seen.contains(&expected), "{expected:?} is not among {seen:?}");
        }
    }

    #[test]
    fn a_length_that_is_lost_takes_the_later_ones_with_it() {
        let pending = vec![Operation::SetLen(200_000), Operation::SetLen(300_000)];
        let images = images(&cut(pending), BUDGET, &mut Dice::new(1));
        let lengths: HashSet<u64> = images.iter().map(|image| image.contents.len()).collect();
        assert_eq!(lengths, HashSet::from([100_000, 200_000, 300_000]));
    }
}
