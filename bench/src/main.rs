//! Measures Keystead beside raw redb and SQLCipher, in one run, by turns, on the same values; judges the figures by the
//! project's goals.
//!
//! | module | what it does |
//! | --- | --- |
//! | `cases` | what is measured, and what it is judged by |
//! | `child` | processes of their own: opening, peak memory, kills |
//! | `fixtures` | the filled stores that cases work on |
//! | `engines` | Keystead, raw redb, SQLCipher behind one interface |
//! | `kms` | a KMS that counts its calls |
//! | `workload` | paths and values, the same for all |
//! | `measure`, `report` | clock, latencies, bytes, memory; the table and the JSON |

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for people")]

mod cases;
mod child;
mod engines;
mod fixtures;
mod kms;
mod measure;
mod report;
mod workload;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use fixtures::{Fixtures, Settings};
use report::Report;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Measures Keystead beside raw redb and SQLCipher.
#[derive(Debug, Parser)]
#[command(name = "keystead-bench", version)]
struct Arguments {
    /// A tenth of everything: shows that it works; its figures say little.
    #[arg(long)]
    quick: bool,
    /// These cases alone, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = cases::names())]
    only: Vec<String>,
    /// Writes every figure to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the stores are made: a directory on a real disk. Default: beside this program.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The page cache of each engine, in MiB.
    #[arg(long, default_value_t = 256)]
    cache_mib: usize,
    /// Fails when a goal is missed.
    #[arg(long)]
    strict: bool,
    #[command(subcommand)]
    command: Option<Hidden>,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// What the benchmark starts by itself.
    #[command(hide = true)]
    Child {
        #[command(subcommand)]
        task: child::Task,
    },
}

/// Says on standard error what is going on.
fn progress(what: &str) {
    eprintln!("… {what}");
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        Some(Hidden::Child { task }) => child::run(task).map(|()| 0),
        None => run(&arguments),
    };
    match outcome {
        Ok(missed) if missed > 0 && arguments.strict => ExitCode::from(2),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Gives the number of goals that were missed.
fn run(arguments: &Arguments) -> Result<usize> {
    let parent = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => std::env::current_exe()?
            .parent()
            .context("this program has no directory")?
            .to_path_buf(),
    };
    let file_system = file_system(&parent)?;
    ensure!(
        !["tmpfs", "ramfs"].contains(&file_system.as_str()),
        "{} is in memory ({file_system}): nothing is durable there; give a directory on a disk with --dir",
        parent.display()
    );
    let dir = tempfile::Builder::new()
        .prefix("keystead-bench-")
        .tempdir_in(&parent)?;
    let scale = if arguments.quick { 10 } else { 1 };
    let settings = Settings {
        dir: dir.path().to_path_buf(),
        small: 100_000 / scale,
        large: 1_000_000 / scale,
        organizations: 100_000 / scale,
        rounds: 5,
        cache_bytes: arguments.cache_mib << 20,
        quick: arguments.quick,
    };
    let notes = notes(&settings, &file_system)?;
    for note in &notes {
        eprintln!("- {note}");
    }

    let mut fixtures = Fixtures::new(settings);
    let mut report = Report {
        run: run_facts(&fixtures.settings, &file_system)?,
        notes,
        lines: Vec::new(),
    };
    for (name, case) in cases::ALL {
        if arguments.only.is_empty() || arguments.only.iter().any(|only| only == name) {
            let lines = case(&mut fixtures).with_context(|| format!("measuring {name}"))?;
            report.lines.extend(lines);
        }
    }
    println!("{}", report.table());
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(report.missed())
}

/// What the reader of the figures must know.
fn notes(settings: &Settings, file_system: &str) -> Result<Vec<String>> {
    let mut notes = vec![
        format!(
            "Stores are on {file_system}; page caches are {} MiB for each engine where not said otherwise, and the \
             system's own cache is warm.",
            settings.cache_bytes >> 20
        ),
        "Engines take turns in one run; figures are medians of turns, ratios medians of each turn's ratio, worst means \
         worst of all. Paths are scattered, values 1,024 bytes. Puts go on for 1.5 seconds a turn, so no wait is seen that is longer."
            .into(),
        "redb's commits: one phase is its default (an open after a crash reads the whole file); quick repair opens at \
         once after a crash, as Keystead does, and is what durable puts are judged against."
            .into(),
    ];
    match real_time_priority()? {
        Some(policy) => {
            notes.push(format!("It ran at real-time priority ({policy}).{}", real_time_pause()));
        }
        None => notes.push(
            "It ran at ordinary priority: unless the machine is idle, durable figures are noise. Use `chrt -r 10`.".into(),
        ),
    }
    if settings.quick {
        notes.push("--quick: a tenth of everything. The goals speak of the full size.".into());
    }
    if cfg!(debug_assertions) {
        notes.push("This is a debug build: its figures mean nothing.".into());
    }
    #[cfg(feature = "sqlcipher")]
    notes.push(format!(
        "SQLCipher {}: write-ahead log, synchronous = FULL, one connection for each thread, the same page cache.",
        engines::SqlCipher::version()?
    ));
    #[cfg(not(feature = "sqlcipher"))]
    notes.push("SQLCipher is left out: build with `--features sqlcipher` to have it in the run.".into());
    notes.push(format!(
        "Keystead seals with {}.",
        if cfg!(feature = "aws-lc") {
            "aws-lc-rs (feature `aws-lc`)"
        } else {
            "the portable aes-gcm-siv, its default"
        }
    ));
    Ok(notes)
}

fn run_facts(settings: &Settings, file_system: &str) -> Result<serde_json::Value> {
    Ok(serde_json::json!({
        "keystead": env!("CARGO_PKG_VERSION"),
        "cpus": std::thread::available_parallelism()?.get(),
        "file_system": file_system,
        "real_time": real_time_priority()?,
        "sqlcipher": cfg!(feature = "sqlcipher"),
        "aws_lc": cfg!(feature = "aws-lc"),
        "quick": settings.quick,
        "cache_bytes": settings.cache_bytes,
        "small": settings.small,
        "large": settings.large,
        "organizations": settings.organizations,
        "rounds": settings.rounds,
    }))
}

/// The real-time policy that this process runs under, if any.
fn real_time_priority() -> Result<Option<&'static str>> {
    let text = std::fs::read_to_string("/proc/self/stat").context("looking for this process's priority")?;
    // Behind the command's closing bracket: fields from the third on; the 41st is the policy.
    let policy = text
        .rsplit(')')
        .next()
        .and_then(|fields| fields.split_whitespace().nth(38));
    Ok(match policy {
        Some("1") => Some("SCHED_FIFO"),
        Some("2") => Some("SCHED_RR"),
        _ => None,
    })
}

/// What the kernel holds back from real-time threads: it shows in the worst figures of whatever keeps all processors busy.
fn real_time_pause() -> String {
    let setting = |name: &str| -> Option<i64> {
        std::fs::read_to_string(format!("/proc/sys/kernel/{name}"))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    match (setting("sched_rt_period_us"), setting("sched_rt_runtime_us")) {
        (Some(period), Some(runtime)) if (0..period).contains(&runtime) => format!(
            " The kernel stops real-time threads that keep the processors busy for {} ms in each {} ms: a worst \
             latency may be that pause.",
            (period - runtime) / 1000,
            period / 1000
        ),
        _ => String::new(),
    }
}

/// The type of the file system that a directory is on.
fn file_system(dir: &Path) -> Result<String> {
    let dir = dir
        .canonicalize()
        .with_context(|| format!("looking for {}", dir.display()))?;
    let mounts = std::fs::read_to_string("/proc/mounts").context("looking for file systems")?;
    let at = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let nearest = at
        .filter(|(point, _)| dir.starts_with(point))
        .max_by_key(|(point, _)| point.len());
    Ok(nearest.map_or("an unknown file system", |(_, kind)| kind).into())
}
