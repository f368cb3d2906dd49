//! What a loss of power may leave: every subset of the pending operations while they are few, chosen ones by dice when they
//! are many, and torn ones.

use crate::disk::{Contents, Operation, PowerCut, SECTOR_BYTES};
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
    /// Images in which operations are torn.
    pub torn: usize,
}

/// A disk after power came back.
#[derive(Debug)]
pub struct Image {
    /// What stands on it.
    pub contents: Contents,
    /// How it was made, for the story of a failure.
    pub kept: String,
}

/// The distinct images of a cut.
#[must_use]
pub fn images(cut: &PowerCut, budget: Budget, dice: &mut Dice) -> Vec<Image> {
    let count = cut.pending.len();
    let mut masks: Vec<Vec<Kept>> = Vec::new();
    if count <= budget.exhaustive_operations {
        for subset in 0..1u64 << count {
            let kept = (0..count).map(|n| keep_if(subset >> n & 1 == 1));
            masks.push(kept.collect());
        }
    } else {
        masks.push(vec![Kept::Whole; count]);
        masks.push(vec![Kept::Nothing; count]);
        for _ in 0..budget.subsets {
            let kind = dice.below(3);
            let at = dice.below(count as u64) as usize;
            let kept = (0..count).map(|n| match kind {
                0 => keep_if(dice.once_in(2)),
                // All but one; all up to one.
                1 => keep_if(n != at),
                _ => keep_if(n < at),
            });
            masks.push(kept.collect());
        }
    }
    if count > 0 {
        for _ in 0..budget.torn {
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
            masks.push(kept);
        }
    }
    let mut seen = HashSet::new();
    masks
        .into_iter()
        .map(|kept| Image {
            contents: image(cut, &kept),
            kept: story(cut, &kept),
        })
        .filter(|image| seen.insert(image.contents.digest_against(&cut.durable)))
        .collect()
}

fn keep_if(kept: bool) -> Kept {
    if kept { Kept::Whole } else { Kept::Nothing }
}

fn tear(operation: &Operation, dice: &mut Dice) -> Kept {
    match operation {
        Operation::Write(offset, data) if sectors(*offset, data.len()).count() > 1 => {
            let sectors = sectors(*offset, data.len()).count() as u64;
            if dice.once_in(2) {
                Kept::Prefix(1 + dice.below(sectors - 1) as usize)
            } else {
                Kept::Torn(dice.roll())
            }
        }
        _ => keep_if(dice.once_in(2)),
    }
}

fn image(cut: &PowerCut, kept: &[Kept]) -> Contents {
    let mut contents = cut.durable.clone();
    let mut lengths_go_on = true;
    for (operation, kept) in cut.pending.iter().zip(kept) {
        match (operation, kept) {
            // Lengths survive in their order: behind one that is lost, all are.
            (Operation::SetLen(_), Kept::Nothing) => lengths_go_on = false,
            (Operation::SetLen(len), _) if lengths_go_on => contents.set_len(*len),
            (Operation::SetLen(_) | Operation::Sync, _) | (_, Kept::Nothing) => {}
            (Operation::Write(offset, data), kept) => {
                let mut coins = match kept {
                    Kept::Torn(seed) => Some(Dice::new(*seed)),
                    _ => None,
                };
                for (n, part) in sectors(*offset, data.len()).enumerate() {
                    let keep = match kept {
                        Kept::Prefix(most) => n < *most,
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

fn story(cut: &PowerCut, kept: &[Kept]) -> String {
    let lines: Vec<String> = cut
        .pending
        .iter()
        .zip(kept)
        .map(|(operation, kept)| format!("{operation:?} {kept:?}"))
        .collect();
    lines.join("; ")
}
