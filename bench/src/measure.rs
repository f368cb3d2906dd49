//! Clock, latencies, what the process wrote, what memory it took.

use anyhow::{Context, Result};
use std::path::Path;
use std::time::{Duration, Instant};

/// The clock of every figure.
#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// How long each of many calls took.
#[derive(Debug, Default, Clone)]
pub(crate) struct Latencies {
    nanos: Vec<u64>,
    sorted: bool,
}

impl Latencies {
    pub(crate) fn add(&mut self, took: Duration) {
        self.nanos
            .push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.sorted = false;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.nanos.extend_from_slice(&other.nanos);
        self.sorted = false;
    }

    pub(crate) fn len(&self) -> usize {
        self.nanos.len()
    }

    /// The latency that this share of the calls (0.0 to 1.0) did not exceed; zero when there were none.
    pub(crate) fn quantile(&mut self, share: f64) -> Duration {
        if !self.sorted {
            self.nanos.sort_unstable();
            self.sorted = true;
        }
        let Some(last) = self.nanos.len().checked_sub(1) else {
            return Duration::ZERO;
        };
        Duration::from_nanos(self.nanos[((last as f64) * share).round() as usize])
    }

    pub(crate) fn max(&mut self) -> Duration {
        self.quantile(1.0)
    }

    pub(crate) fn json(&mut self) -> serde_json::Value {
        serde_json::json!({
            "calls": self.len(),
            "p50_us": micros(self.quantile(0.5)),
            "p99_us": micros(self.quantile(0.99)),
            "p999_us": micros(self.quantile(0.999)),
            "max_us": micros(self.max()),
        })
    }
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

/// The middle one; of an even number, the lower middle one. Zero when there are none.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(0.0)
}

/// What this process has written since it began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Written {
    /// Bytes handed to `write` and its kin.
    pub(crate) handed_over: u64,
    /// Bytes of the pages, or folios of pages, that were made dirty by it.
    pub(crate) to_disk: u64,
}

impl Written {
    pub(crate) fn by_now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/self/io").context("reading what this process wrote")?;
        Ok(Self {
            handed_over: field(&text, "wchar:")?,
            to_disk: field(&text, "write_bytes:")?,
        })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            handed_over: self.handed_over - before.handed_over,
            to_disk: self.to_disk - before.to_disk,
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            handed_over: self.handed_over + other.handed_over,
            to_disk: self.to_disk + other.to_disk,
        }
    }
}

/// Memory of this process in KiB: now, and at its peak.
pub(crate) fn memory_kib() -> Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/status").context("reading this process's memory")?;
    Ok((field(&text, "VmRSS:")?, field(&text, "VmHWM:")?))
}

fn field(text: &str, name: &str) -> Result<u64> {
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .with_context(|| format!("{name} is not there"))?;
    let number = line[name.len()..]
        .split_whitespace()
        .next()
        .context("an empty field")?;
    number.parse().with_context(|| format!("{name} is not a number"))
}

/// What files take on disk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OnDisk {
    /// As long as they say they are.
    pub(crate) length: u64,
    /// The blocks that the file system gave them.
    pub(crate) allocated: u64,
}

impl OnDisk {
    pub(crate) fn of(paths: &[impl AsRef<Path>]) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let mut sum = Self::default();
        for path in paths {
            let path = path.as_ref();
            let metadata =
                std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
            sum.length += metadata.len();
            sum.allocated += metadata.blocks() * 512;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_latency_that_so_many_calls_did_not_exceed() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), Duration::ZERO);
        (1..=101)
            .rev()
            .for_each(|ms| latencies.add(Duration::from_millis(ms)));
        assert_eq!(latencies.quantile(0.0), Duration::from_millis(1));
        assert_eq!(latencies.quantile(0.5), Duration::from_millis(51));
        assert_eq!(latencies.quantile(0.99), Duration::from_millis(100));
        assert_eq!(latencies.max(), Duration::from_millis(101));
    }

    #[test]
    fn one_wild_turn_does_not_move_the_median() {
        assert_eq!(median(&[3.0, 1.0, 1_000.0, 2.0, 2.5]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn what_is_written_is_counted() {
        let before = Written::by_now().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 100_000]).unwrap();
        assert!(Written::by_now().unwrap().since(before).handed_over >= 100_000);
        assert_eq!(OnDisk::of(&[file.path()]).unwrap().length, 100_000);
    }
}
