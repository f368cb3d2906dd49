//! A reader and a writer that go on while data keys move: how many operations, how long they took, what went wrong.

use crate::show::human;
use crate::world::{ACME, ACME_SECRETS, secret_path, secret_value, written_path, written_value};
use keystead::Organization;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What each of them waits between two operations, so that they leave the machine's cores to the re-wrap now and then.
const PAUSE: Duration = Duration::from_micros(300);

/// A reader and a writer at work.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    done: Arc<Done>,
    reader: JoinHandle<Tally>,
    writer: JoinHandle<Tally>,
}

#[derive(Default)]
struct Done {
    reads: AtomicU64,
    writes: AtomicU64,
}

impl Traffic {
    /// Has one thread read secrets in turn and compare them, and one write new ones, numbered from `first_write`.
    /// `acknowledged` is told the number of each write when it is durable. When this returns both are at work: each of them does
    /// at least the operation that it begins with.
    pub(crate) fn start(
        acme: &Organization,
        first_write: u64,
        mut acknowledged: impl FnMut(u64) + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(Done::default());
        let both_at_work = Arc::new(Barrier::new(3));
        let reader = {
            let (acme, stop, done) = (acme.clone(), Arc::clone(&stop), Arc::clone(&done));
            let at_work = Arc::clone(&both_at_work);
            std::thread::spawn(move || {
                let mut tally = Tally::default();
                // A stride without a common factor with the number of secrets comes to each of them in turn.
                let mut index = 0;
                at_work.wait();
                loop {
                    index = (index + 2_741) % ACME_SECRETS;
                    tally.time(|| {
                        let secret = acme.get(&secret_path(index)).map_err(|error| error.to_string())?;
                        match secret.value == secret_value(ACME, index).as_bytes() {
                            true => Ok(()),
                            false => Err(format!(
                                "{} has another value than was written",
                                secret_path(index)
                            )),
                        }
                    });
                    done.reads.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PAUSE);
                    if stop.load(Ordering::Relaxed) {
                        break tally;
                    }
                }
            })
        };
        let writer = {
            let (acme, stop, done) = (acme.clone(), Arc::clone(&stop), Arc::clone(&done));
            let at_work = Arc::clone(&both_at_work);
            std::thread::spawn(move || {
                let mut tally = Tally::default();
                at_work.wait();
                for number in first_write.. {
                    let written = tally.time(|| {
                        let put = acme.put(&written_path(number), written_value(number));
                        put.map(drop).map_err(|error| error.to_string())
                    });
                    if written {
                        done.writes.fetch_add(1, Ordering::Relaxed);
                        acknowledged(number);
                    }
                    std::thread::sleep(PAUSE);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                tally
            })
        };
        both_at_work.wait();
        Self {
            stop,
            done,
            reader,
            writer,
        }
    }

    /// What they did so far.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (
            self.done.reads.load(Ordering::Relaxed),
            self.done.writes.load(Ordering::Relaxed),
        )
    }

    /// Lets them end; what the reader and what the writer did.
    pub(crate) fn end(self) -> anyhow::Result<(Tally, Tally)> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = |_| anyhow::anyhow!("the reader or the writer panicked");
        Ok((
            self.reader.join().map_err(panicked)?,
            self.writer.join().map_err(panicked)?,
        ))
    }
}

/// What one thread did.
#[derive(Default)]
pub(crate) struct Tally {
    took: Vec<Duration>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

impl Tally {
    fn time(&mut self, operation: impl FnOnce() -> Result<(), String>) -> bool {
        let began = Instant::now();
        let outcome = operation();
        self.took.push(began.elapsed());
        let Err(error) = outcome else { return true };
        self.errors += 1;
        self.first_error.get_or_insert(error);
        false
    }

    pub(crate) fn operations(&self) -> usize {
        self.took.len()
    }

    /// One line for people.
    pub(crate) fn describe(&self, what: &str) -> String {
        let mut sorted = self.took.clone();
        sorted.sort_unstable();
        let at = |share: f64| {
            sorted.get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1)))
        };
        let quantile = |share| human(at(share).copied().unwrap_or_default());
        format!(
            "{:>6} {what}: median {}, 99 of 100 within {}, worst {}; {} errors{}",
            self.operations(),
            quantile(0.5),
            quantile(0.99),
            quantile(1.0),
            self.errors,
            self.first_error
                .as_ref()
                .map(|error| format!(", the first: {error}"))
                .unwrap_or_default(),
        )
    }
}
