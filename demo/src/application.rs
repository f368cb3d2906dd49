//! The process that is killed: an application that serves reads and writes while its store re-wraps.
//!
//! It tells its parent about itself on standard output, one line each: `moved <data keys> <of how many> <reads> <writes>`,
//! and `wrote <number>` when a write is durable. It never comes to its end by itself, however slow its parent is: what is left of
//! the job is left for after the kill.

use crate::traffic::Traffic;
use crate::world::{ACME, Kmss, World};
use anyhow::bail;
use std::io::Write;
use std::sync::mpsc::channel;
use std::time::Duration;

/// Data keys that one batch moves here. The default of 4,096 would move everything in two batches, before anybody could pull
/// the plug; so few make the same work take some seconds.
pub(crate) const BATCH: usize = 5;
/// How much of the work is done before the job stands still and waits for the kill.
const MOVED_PERCENT_MAX: u64 = 90;
/// How long the application lives if its parent neither kills it nor ends.
const LIFE_MAX: Duration = Duration::from_secs(300);

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

/// Opens the store, serves, and re-wraps on a thread of its own, until it is killed.
pub(crate) fn run(world: &World) -> anyhow::Result<()> {
    // In the background the job would go on to its end, were the parent too slow to kill this process before.
    let store = world
        .options(&Kmss::default())?
        .background_rewrap(false)
        .rewrap_batch(BATCH)
        .open(world.store())?;
    let acme = store.organization(ACME)?;
    let job = acme.rewrap_job()?;
    let traffic = Traffic::start(&acme, 0, |number| Line::Wrote { number }.print());
    let (ended, end) = channel();
    let job_ended = ended.clone();
    std::thread::spawn(move || {
        let outcome = job.run_here(|progress| {
            let (reads, writes) = traffic.so_far();
            Line::Moved {
                done: progress.done,
                total: progress.total,
                reads,
                writes,
            }
            .print();
            if progress.done * 100 >= progress.total * MOVED_PERCENT_MAX {
                loop {
                    std::thread::park();
                }
            }
        });
        let _ = job_ended.send(match outcome {
            Ok(status) => format!("the re-wrap ended before it was killed: {:?}", status.state),
            Err(error) => format!("the re-wrap failed: {error}"),
        });
    });
    std::thread::spawn(move || {
        // The other end of standard input is closed when the parent ends, however it does.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send("whoever was to kill this process has ended".to_owned());
    });
    match end.recv_timeout(LIFE_MAX) {
        Ok(why) => bail!(why),
        Err(_) => bail!("nobody has killed this process"),
    }
}
