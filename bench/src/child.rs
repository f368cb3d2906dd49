//! Other processes of the benchmark: figures that a process can have once only (opening, peak memory), and processes that
//! are killed.

use crate::engines::{Durable, Engine, Keystead, ORGANIZATION, OWN, RawRedb};
use crate::kms::BenchKms;
use crate::measure::{memory_kib, micros, now};
use crate::workload::{Order, row};
use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Page cache of the child processes: Keystead's default, for both engines.
const CACHE_BYTES: usize = 64 << 20;

/// What a child process does.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Task {
    /// Opens a store and reads one secret.
    Open {
        #[arg(long)]
        store: PathBuf,
        /// Read this secret.
        #[arg(long)]
        path: String,
        /// Of this organization.
        #[arg(long, default_value = ORGANIZATION)]
        organization: String,
        /// It is raw redb's.
        #[arg(long)]
        redb: bool,
        /// End without closing it.
        #[arg(long)]
        abandon: bool,
    },
    /// Puts secrets one by one, saying how many, until it is killed.
    Put {
        #[arg(long)]
        store: PathBuf,
        /// The number of the first one.
        #[arg(long)]
        from: u64,
        /// It is raw redb's, with quick repair.
        #[arg(long)]
        redb: bool,
        /// It is raw redb's, with plain commits.
        #[arg(long)]
        redb_plain: bool,
    },
    /// Re-wraps everything to a new epoch, saying how much is done.
    Rewrap {
        #[arg(long)]
        store: PathBuf,
    },
    /// Verifies a store.
    Verify {
        #[arg(long)]
        store: PathBuf,
        /// Open every value, too.
        #[arg(long)]
        open_values: bool,
    },
}

/// What opening came to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// Until the store was open.
    pub(crate) open_us: f64,
    /// From there until the first secret was read.
    pub(crate) first_get_us: f64,
    /// Memory with the store open, before the first get, and what the process had before it.
    pub(crate) rss_kib: u64,
    pub(crate) rss_before_kib: u64,
}

/// What a re-wrap in a process of its own came to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Rewrapped {
    pub(crate) data_keys: u64,
    pub(crate) seconds: f64,
    pub(crate) peak_kib: u64,
}

/// What a verification in a process of its own came to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Verified {
    pub(crate) versions: u64,
    pub(crate) seconds: f64,
    pub(crate) peak_kib: u64,
}

/// Does a task: in the child process.
pub(crate) fn run(task: &Task) -> Result<()> {
    match task {
        Task::Open {
            store,
            path,
            organization,
            redb,
            abandon,
        } => open(store, path, organization, *redb, *abandon),
        Task::Put {
            store,
            from,
            redb,
            redb_plain,
        } => {
            let engine: Box<dyn Engine> = match (redb, redb_plain) {
                (true, _) => Box::new(RawRedb::open(store, CACHE_BYTES, Durable::QuickRepair)?),
                (_, true) => Box::new(RawRedb::open(store, CACHE_BYTES, Durable::OnePhase)?),
                _ => Box::new(Keystead::open(store, CACHE_BYTES)?),
            };
            let mut session = engine.session()?;
            for number in *from.. {
                session.put(&row(Order::Scattered, number))?;
                say(&(number - from + 1))?;
            }
            Ok(())
        }
        Task::Rewrap { store } => rewrap(store),
        Task::Verify { store, open_values } => verify(store, *open_values),
    }
}

fn open(path: &Path, secret: &str, organization: &str, redb: bool, abandon: bool) -> Result<()> {
    let (rss_before_kib, _) = memory_kib()?;
    let began = now();
    if redb {
        let engine = RawRedb::open(path, CACHE_BYTES, Durable::QuickRepair)?;
        let open_us = micros(began.elapsed());
        let (rss_kib, _) = memory_kib()?;
        let began = now();
        engine.session()?.get(secret, &mut |_| {})?;
        return say(&Opened {
            open_us,
            first_get_us: micros(began.elapsed()),
            rss_kib,
            rss_before_kib,
        });
    }
    let store = Keystead::options(&BenchKms::default()).open(path)?;
    let open_us = micros(began.elapsed());
    let (rss_kib, _) = memory_kib()?;
    let began = now();
    store.organization(organization)?.get(secret)?;
    say(&Opened {
        open_us,
        first_get_us: micros(began.elapsed()),
        rss_kib,
        rss_before_kib,
    })?;
    if abandon {
        std::process::exit(0);
    }
    Ok(store.close()?)
}

fn rewrap(path: &Path) -> Result<()> {
    let store = Keystead::options(&BenchKms::default()).open(path)?;
    let organization = store.organization(ORGANIZATION)?;
    let has_own = organization.keys().list()?.iter().any(|key| key.name == OWN);
    let began = now();
    let job = if has_own {
        organization.keys().rotate(OWN)?
    } else {
        organization.keys().add(OWN, OWN, serde_json::json!({}))?
    };
    let mut told = 0;
    let status = job.wait_with(|status| {
        // Whoever kills this process does so by these lines; what cannot be told harms nothing.
        if status.done > told + status.total / 20 {
            told = status.done;
            let _ = say(&status.done);
        }
    })?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(
        status.remaining == 0 && status.failed == 0,
        "the re-wrap left data keys behind: {status:?}"
    );
    say(&Rewrapped {
        data_keys: status.done,
        seconds,
        peak_kib: memory_kib()?.1,
    })?;
    Ok(store.close()?)
}

fn verify(path: &Path, open_values: bool) -> Result<()> {
    let store = Keystead::options(&BenchKms::default()).open(path)?;
    let began = now();
    let report = store.verify(keystead::VerifyOptions { open_values }, |_| ())?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(
        report.is_clean() && report.complete,
        "the store is damaged: {report:?}"
    );
    ensure!(
        !open_values || report.values_opened == report.versions,
        "not every value was opened"
    );
    say(&Verified {
        versions: report.versions,
        seconds,
        peak_kib: memory_kib()?.1,
    })?;
    Ok(store.close()?)
}

fn say(figure: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(figure)?)?;
    Ok(out.flush()?)
}

/// Runs a child process to its end; gives its last line.
pub(crate) fn finish<T: DeserializeOwned>(arguments: &[&str]) -> Result<T> {
    let output = command(arguments)?
        .stdout(Stdio::piped())
        .output()
        .context("running a child process")?;
    ensure!(
        output.status.success(),
        "the child process {arguments:?} failed: {}",
        output.status
    );
    let text = String::from_utf8(output.stdout)?;
    let last = text.lines().last().context("the child process said nothing")?;
    serde_json::from_str(last).with_context(|| format!("the child process {arguments:?} said {last:?}"))
}

/// Opens a store in a fresh process.
pub(crate) fn opened(store: &Path, secret: &str, more: &[&str]) -> Result<Opened> {
    let store = store.to_str().context("the directory's name is not text")?;
    let mut arguments = vec!["open", "--store", store, "--path", secret];
    arguments.extend_from_slice(more);
    finish(&arguments)
}

/// Runs a child process and kills it once it has told of a number that is at least `until`.
pub(crate) fn kill_at(arguments: &[&str], until: u64) -> Result<()> {
    let mut child = Killed(
        command(arguments)?
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a child process")?,
    );
    let lines = BufReader::new(child.0.stdout.take().context("the child process has no output")?).lines();
    for line in lines {
        let line = line?;
        let told: u64 = serde_json::from_str(&line)
            .with_context(|| format!("the child process came to its end before it was killed: {line}"))?;
        if told >= until {
            return Ok(());
        }
    }
    anyhow::bail!("the child process {arguments:?} ended before it was killed")
}

/// A child process that does not outlive its parent's interest.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("child").args(arguments).stderr(Stdio::inherit());
    Ok(command)
}
