//! What became of all images, by kind, as a table.

use super::child::{IMAGE_MAX_BYTES, Line};
use super::kinds::Kind;
use std::collections::BTreeMap;
use std::fmt;

/// What ends a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruin {
    /// It was killed by a signal; this is what it said last.
    Abort(String),
    /// It said nothing for too long.
    Hang,
}

/// Of one kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Images.
    pub images: u64,
    /// Images that opened.
    pub opened: u64,
    /// Of these: read as before the last record of the journal.
    pub older: u64,
    /// Of these: verification named something.
    pub verify_found: u64,
    /// Answers that were right.
    pub right: u64,
    /// Answers that were refused.
    pub refused: u64,
    /// Panics that the engine caught.
    pub caught: u64,
    /// Answers that were wrong.
    pub wrong: u64,
    /// Panics that reached the caller.
    pub escaped: u64,
    /// Processes that aborted.
    pub aborts: u64,
    /// Processes that hung.
    pub hangs: u64,
    /// Images in which a process used more memory than [`IMAGE_MAX_BYTES`] in all.
    pub over: u64,
}

/// What became of all images.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// By kind.
    pub rows: BTreeMap<Kind, Row>,
    /// The most memory that a process had in use, in KiB.
    pub peak_kib: u64,
    /// What must not be: image and story, the first of each.
    pub stories: Vec<(u64, String)>,
}

/// Stories that are kept.
const STORIES_MAX: usize = 20;

impl Report {
    /// Counts a line of a child.
    pub fn line(&mut self, kind: Kind, line: &Line) {
        let over = line.peak_kib * 1024 > IMAGE_MAX_BYTES;
        let row = self.rows.entry(kind).or_default();
        row.images += 1;
        row.opened += u64::from(line.opened);
        row.older += u64::from(line.older);
        row.verify_found += u64::from(line.verify_found);
        row.right += line.right;
        row.refused += line.refused;
        row.caught += line.caught;
        row.wrong += line.wrong;
        row.escaped += u64::from(line.escaped);
        row.over += u64::from(over);
        self.peak_kib = self.peak_kib.max(line.peak_kib);
        if line.wrong > 0 || line.escaped {
            self.tell(line.image, line.story.clone());
        } else if over {
            self.tell(line.image, format!("{} KiB of memory", line.peak_kib));
        }
    }

    /// Counts an image that ended its process.
    pub fn ruin(&mut self, kind: Kind, image: u64, ruin: Ruin) {
        let row = self.rows.entry(kind).or_default();
        row.images += 1;
        match &ruin {
            Ruin::Abort(_) => row.aborts += 1,
            Ruin::Hang => row.hangs += 1,
        }
        self.tell(image, format!("{ruin:?}"));
    }

    fn tell(&mut self, image: u64, story: String) {
        if self.stories.len() < STORIES_MAX {
            self.stories.push((image, story));
        }
    }

    /// Adds another one.
    pub fn add(&mut self, other: Self) {
        for (kind, row) in other.rows {
            let own = self.rows.entry(kind).or_default();
            *own = own.plus(&row);
        }
        self.peak_kib = self.peak_kib.max(other.peak_kib);
        other
            .stories
            .into_iter()
            .for_each(|(image, story)| self.tell(image, story));
    }

    /// How many images were looked at.
    #[must_use]
    pub fn images(&self) -> u64 {
        self.rows.values().map(|row| row.images).sum()
    }

    /// All kinds together.
    #[must_use]
    pub fn total(&self) -> Row {
        self.rows.values().fold(Row::default(), |sum, row| sum.plus(row))
    }

    /// True when nothing happened that must not. A process that redb aborts on a crafted file is counted and told, and is known
    /// to be possible: see `docs/decisions/0011-a-boundary-around-redb.md`.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.rows.iter().all(|(kind, row)| {
            let aborts = if kind.is_crafted() { 0 } else { row.aborts };
            [row.wrong, row.escaped, aborts, row.hangs, row.over] == [0; 5]
        })
    }
}

impl Row {
    fn plus(&self, other: &Self) -> Self {
        Self {
            images: self.images + other.images,
            opened: self.opened + other.opened,
            older: self.older + other.older,
            verify_found: self.verify_found + other.verify_found,
            right: self.right + other.right,
            refused: self.refused + other.refused,
            caught: self.caught + other.caught,
            wrong: self.wrong + other.wrong,
            escaped: self.escaped + other.escaped,
            aborts: self.aborts + other.aborts,
            hangs: self.hangs + other.hangs,
            over: self.over + other.over,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<30} {:>7} {:>7} {:>6} {:>7} {:>9} {:>8} {:>7} | {:>6} {:>7} {:>6} {:>5} {:>8}",
            "damage",
            "images",
            "opened",
            "older",
            "verify",
            "right",
            "refused",
            "caught",
            "wrong",
            "escaped",
            "aborts",
            "hangs",
            "> 64 MiB"
        )?;
        let rows = self.rows.iter().map(|(kind, row)| (kind.name(), *row));
        for (name, row) in rows.chain([("all", self.total())]) {
            writeln!(
                f,
                "{name:<30} {:>7} {:>7} {:>6} {:>7} {:>9} {:>8} {:>7} | {:>6} {:>7} {:>6} {:>5} {:>8}",
                row.images,
                row.opened,
                row.older,
                row.verify_found,
                row.right,
                row.refused,
                row.caught,
                row.wrong,
                row.escaped,
                row.aborts,
                row.hangs,
                row.over
            )?;
        }
        writeln!(f, "most memory of a process: {} KiB", self.peak_kib)
    }
}
