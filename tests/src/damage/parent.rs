//! Has children work through the images, and counts what becomes of them: an abort or a hang ends a child, not the run.

use super::child::Line;
use super::kinds::Kind;
use super::report::{Report, Ruin};
use anyhow::Context;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// An image that takes longer than this hangs. One takes some tens of milliseconds on an idle machine.
const IMAGE_MAX_TIME: Duration = Duration::from_secs(30);
/// Images that one child works through: pages that a broken store leaked go with it.
const IMAGES_PER_CHILD: u64 = 200;

/// Runs the images `from..to` of a seed in children of `program`, as many at once as there are cores.
///
/// # Errors
///
/// When children cannot be run.
pub fn run(
    program: &Path,
    seed: u64,
    images: std::ops::Range<u64>,
    progress: impl Fn(u64) + Sync,
) -> anyhow::Result<Report> {
    let next = AtomicU64::new(images.start);
    let report = Mutex::new(Report::default());
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|threads| {
        let work = || -> anyhow::Result<()> {
            loop {
                let from = next.fetch_add(IMAGES_PER_CHILD, Ordering::Relaxed);
                if from >= images.end {
                    return Ok(());
                }
                let to = (from + IMAGES_PER_CHILD).min(images.end);
                let found = chunk(program, seed, from, to)?;
                let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                report.add(found);
                progress(report.images());
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| threads.spawn(work)).collect();
        let ends = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread that waits for a child panicked")))
        });
        ends.collect::<anyhow::Result<Vec<()>>>()
    })?;
    Ok(report.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn chunk(program: &Path, seed: u64, mut from: u64, to: u64) -> anyhow::Result<Report> {
    let mut report = Report::default();
    while from < to {
        let mut child = Command::new(program)
            .args(["--child", &seed.to_string(), &from.to_string(), &to.to_string()])
            // One arena: the limit on address space is about what an image needs, not about what a thread reserves.
            .env("MALLOC_ARENA_MAX", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("running {}", program.display()))?;
        let lines = lines_of(&mut child)?;
        let last = follow(&lines, &mut report);
        let ruined = match last {
            Last::Hangs(image) => {
                child.kill().context("ending a child that hangs")?;
                Some((image, Ruin::Hang))
            }
            Last::Ended(image) => {
                let status = child.wait()?;
                match (status.success(), image) {
                    (true, None) => None,
                    (_, Some(image)) => Some((image, Ruin::Abort(end_of(&mut child, status)))),
                    (false, None) => anyhow::bail!(
                        "a child failed outside of any image: {}",
                        end_of(&mut child, status)
                    ),
                }
            }
        };
        child.wait()?;
        match ruined {
            None => break,
            Some((image, ruin)) => {
                report.ruin(Kind::of(image), image, ruin);
                from = image + 1;
            }
        }
    }
    Ok(report)
}

enum Last {
    /// No line came for too long, in this image.
    Hangs(u64),
    /// The child ended; in this image, if it was in one.
    Ended(Option<u64>),
}

fn follow(lines: &Receiver<String>, report: &mut Report) -> Last {
    let mut doing = None;
    loop {
        match lines.recv_timeout(IMAGE_MAX_TIME) {
            Ok(line) => match line.strip_prefix("begin ") {
                Some(image) => doing = image.parse().ok(),
                None => {
                    if let Some(line) = Line::parse(&line) {
                        doing = None;
                        report.line(Kind::of(line.image), &line);
                    }
                }
            },
            // Between two images, too: making the sample takes a moment, not half a minute.
            Err(RecvTimeoutError::Timeout) => return Last::Hangs(doing.unwrap_or_default()),
            Err(RecvTimeoutError::Disconnected) => return Last::Ended(doing),
        }
    }
}

fn lines_of(child: &mut Child) -> anyhow::Result<Receiver<String>> {
    let out = child.stdout.take().context("a child's output is a pipe")?;
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    Ok(receive)
}

/// How a child ended, and the last line that it complained with.
fn end_of(child: &mut Child, status: std::process::ExitStatus) -> String {
    let complaint = child
        .stderr
        .take()
        .and_then(|err| BufReader::new(err).lines().map_while(Result::ok).last());
    format!("{status}: {}", complaint.unwrap_or_default())
}
