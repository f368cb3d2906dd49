//! The process that works through images. It says a line before each and a line after it, so that whoever reads them knows
//! which image it died in, or hangs in.

#![allow(
    clippy::print_stderr,
    reason = "who looks at one image wants to see its panics"
)]

use super::examine::{Examined, Judge, examine};
use super::kinds::Kind;
use super::sample::Sample;
use crate::contents::Contents;
use crate::disk::SimulatedDisk;
use crate::env::Dice;
use anyhow::Context;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::cell::Cell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory that one image may ask for, in bytes, beyond what the process holds before it: an allocation beyond that fails, and
/// the process aborts.
pub const IMAGE_MAX_BYTES: u64 = 64 << 20;
/// One image in so many is a real file, opened by its path.
const REAL_FILE_ONE_IN: u64 = 16;

/// What a child says of one image, as one line of numbers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Line {
    /// The image's number.
    pub image: u64,
    /// See [`Examined`].
    pub opened: bool,
    /// See [`Examined`].
    pub right: u64,
    /// See [`Examined`].
    pub refused: u64,
    /// See [`Examined`].
    pub older: bool,
    /// See [`Examined`].
    pub verify_found: bool,
    /// See [`Examined`].
    pub put: bool,
    /// See [`Examined`].
    pub reopened: bool,
    /// How many things were wrong.
    pub wrong: u64,
    /// Panics that the engine caught.
    pub caught: u64,
    /// A panic reached the caller.
    pub escaped: bool,
    /// The most memory that the process had in use meanwhile, in KiB.
    pub peak_kib: u64,
    /// What was wrong; else where the panic was; else why it did not open.
    pub story: String,
}

impl Line {
    /// As the child prints it.
    #[must_use]
    pub fn print(&self) -> String {
        let flag = u64::from;
        let numbers = [
            self.image,
            flag(self.opened),
            self.right,
            self.refused,
            flag(self.older),
            flag(self.verify_found),
            flag(self.put),
            flag(self.reopened),
            self.wrong,
            self.caught,
            flag(self.escaped),
            self.peak_kib,
        ];
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        format!("{}\t{}", numbers.join(" "), self.story.replace('\n', " "))
    }

    /// Reads what [`print`](Self::print) made.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (numbers, story) = line.split_once('\t')?;
        let numbers: Vec<u64> = numbers
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        let numbers: [u64; 12] = numbers.try_into().ok()?;
        let [
            image,
            opened,
            right,
            refused,
            older,
            verify_found,
            put,
            reopened,
            wrong,
            caught,
            escaped,
            peak_kib,
        ] = numbers;
        let flag = |number| number == 1;
        Some(Self {
            image,
            opened: flag(opened),
            right,
            refused,
            older: flag(older),
            verify_found: flag(verify_found),
            put: flag(put),
            reopened: flag(reopened),
            wrong,
            caught,
            escaped: flag(escaped),
            peak_kib,
            story: story.into(),
        })
    }
}

static PANICS: AtomicU64 = AtomicU64::new(0);
thread_local! {
    static LAST_PANIC: Cell<Option<String>> = const { Cell::new(None) };
}

/// Works through the images of a seed with these numbers, and says a line to `out` before and after each.
///
/// # Errors
///
/// When the sample cannot be made, or nobody reads the lines.
pub fn run(seed: u64, images: impl Iterator<Item = u64>, out: &mut impl Write) -> anyhow::Result<()> {
    std::panic::set_hook(Box::new(|info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        if std::env::var_os("KEYSTEAD_PANICS").is_some() {
            eprintln!("{info}");
        }
        LAST_PANIC.set(Some(info.to_string()));
    }));
    let sample = Sample::build(seed).context("making the sample")?;
    let directory = tempfile::tempdir()?;
    for image in images {
        writeln!(out, "begin {image}")?;
        out.flush()?;
        let kind = Kind::of(image);
        let mut dice = Dice::part(seed, image);
        let contents = kind.damage(&sample, &mut dice);
        let judge = if kind.is_crafted() {
            Judge::Values
        } else {
            Judge::Everything
        };
        let real = dice.once_in(REAL_FILE_ONE_IN);

        limit_memory()?;
        reset_peak()?;
        let panics = PANICS.load(Ordering::Relaxed);
        let examined = catch_unwind(AssertUnwindSafe(|| match real {
            true => on_a_file(&sample, judge, &contents, directory.path()),
            false => {
                let disk = SimulatedDisk::holding(contents.clone());
                Ok(examine(&sample, judge, || sample.open(&disk)))
            }
        }));
        let panics = PANICS.load(Ordering::Relaxed) - panics;
        let line = match examined {
            Ok(examined) => line_of(image, panics, examined?),
            Err(_) => Line {
                image,
                escaped: true,
                caught: panics.saturating_sub(1),
                story: LAST_PANIC.take().unwrap_or_default(),
                ..Line::default()
            },
        };
        let peak_kib = peak_kib()?;
        writeln!(out, "{}", Line { peak_kib, ..line }.print())?;
        out.flush()?;
    }
    Ok(())
}

fn line_of(image: u64, caught: u64, examined: Examined) -> Line {
    Line {
        image,
        opened: examined.opened,
        right: examined.right,
        refused: examined.refused,
        older: examined.older,
        verify_found: examined.verify_found,
        put: examined.put,
        reopened: examined.reopened,
        wrong: examined.wrong.len() as u64,
        caught,
        story: examined
            .wrong
            .into_iter()
            .next()
            .or(examined.refusal)
            .unwrap_or_default(),
        ..Line::default()
    }
}

fn on_a_file(
    sample: &Sample,
    judge: Judge,
    contents: &Contents,
    directory: &std::path::Path,
) -> anyhow::Result<Examined> {
    let path = directory.join("damaged.keystead");
    let mut bytes = vec![0; contents.len() as usize];
    anyhow::ensure!(contents.read(0, &mut bytes), "an image is as long as it says");
    std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
    let examined = examine(sample, judge, || sample.options().open(&path));
    std::fs::remove_file(&path)?;
    Ok(examined)
}

/// From here on the process gets [`IMAGE_MAX_BYTES`] of address space beyond what it has.
fn limit_memory() -> anyhow::Result<()> {
    let statm = std::fs::read_to_string("/proc/self/statm").context("reading this process's size")?;
    let pages: u64 = statm.split(' ').next().unwrap_or_default().parse()?;
    let limit = pages * rustix::param::page_size() as u64 + IMAGE_MAX_BYTES;
    setrlimit(
        Resource::As,
        Rlimit {
            current: Some(limit),
            maximum: None,
        },
    )
    .context("limiting memory")
}

/// Forgets the most memory that was in use so far.
fn reset_peak() -> anyhow::Result<()> {
    std::fs::write("/proc/self/clear_refs", "5").context("forgetting the peak of memory")
}

fn peak_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading the peak of memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .context("no peak of memory")?;
    Ok(kib.parse()?)
}
