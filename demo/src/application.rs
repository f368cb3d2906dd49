//! The process that is killed: an application that serves reads and writes while its store re-wraps.
//!
//! It tells its parent about itself on standard output, one line each: `moved <data keys> <of how many> <reads> <writes>`,
//! and `wrote <number>` when a write is durable.

use crate::traffic::Traffic;
use crate::world::{ACME, Kmss, World};
use std::io::Write;
use std::time::Duration;

/// Data keys that one batch moves here. The default of 4,096 would move everything in two batches, before anybody could pull
/// the plug; so few make the same work take some seconds.
pub(crate) const BATCH: usize = 5;

/// A line from the application to its parent.
pub(crate) enum Line {
    Moved {
        done: u64,
        total: u64,
        reads: u64,
        writes: u64,
    },
    Wrote {
        number: u64,
    },
}

impl Line {
    fn print(&self) {
        let mut out = std::io::stdout().lock();
        // A parent that is gone wants to hear nothing.
        let _ = match self {
            Self::Moved {
                done,
                total,
                reads,
                writes,
            } => writeln!(out, "moved {done} {total} {reads} {writes}"),
            Self::Wrote { number } => writeln!(out, "wrote {number}"),
        };
        let _ = out.flush();
    }

    /// `None` for anything else, such as a line that a kill cut off.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let numbers: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        match (kind, &numbers[..]) {
            ("moved", &[done, total, reads, writes]) => Some(Self::Moved {
                done,
                total,
                reads,
                writes,
            }),
            ("wrote", &[number]) => Some(Self::Wrote { number }),
            _ => None,
        }
    }
}

/// Opens the store, serves, and lets the re-wrap go on until it is done. It is not meant to come that far.
pub(crate) fn run(world: &World) -> anyhow::Result<()> {
    let store = world
        .options(&Kmss::default())?
        .rewrap_batch(BATCH)
        .open(world.store())?;
    let acme = store.organization(ACME)?;
    let traffic = Traffic::start(&acme, 0, |number| Line::Wrote { number }.print());
    // A moment in which nothing moves but reads and writes.
    std::thread::sleep(Duration::from_millis(50));
    acme.rewrap_job()?.wait_with(|progress| {
        let (reads, writes) = traffic.so_far();
        Line::Moved {
            done: progress.done,
            total: progress.total,
            reads,
            writes,
        }
        .print();
    })?;
    traffic.end()?;
    Ok(())
}
