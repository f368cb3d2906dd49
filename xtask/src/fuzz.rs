//! `cargo xtask fuzz`: builds every fuzz target with a nightly compiler and its address sanitizer, runs each for a while, and says
//! what came of it. An input that is a finding is kept, and the command that replays it is printed.
//!
//! A release, as users get the engine, with the debug assertions of the project's own code alone (`fuzz/Cargo.toml`).
//!
//! A run longer than [`SLICE_SECONDS`] is several processes one after the other, which share a corpus: what the engine leaks on
//! purpose (a page cache behind each panic that it caught) goes with each of them. Programs and corpora of a run are its own: a
//! build or another run beside a long one does not disturb it.

use crate::retry::three_times;
use crate::tools::{self, announce, program, root, target_directory};
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const CARGO_FUZZ_VERSION: &str = "0.13.2";
/// One input may take so long, and a process so much memory.
const INPUT_SECONDS_MAX: u64 = 30;
const MEMORY_MAX_MB: u64 = 4096;
const SLICE_SECONDS: u64 = 300;

/// How to fuzz.
pub(crate) struct Options {
    /// For how long each target.
    pub(crate) seconds: u64,
    /// How many at a time.
    pub(crate) jobs: usize,
    /// Which; none: all.
    pub(crate) targets: Vec<String>,
}

/// What came of one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) target: String,
    executions: u64,
    seconds: u64,
    /// libFuzzer's `cov` (edges) and `ft` (features).
    coverage: u64,
    features: u64,
    corpus: u64,
    findings: Vec<PathBuf>,
    /// What went wrong beside findings.
    broken: Option<String>,
}

impl Outcome {
    pub(crate) fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.broken.is_none() && self.executions > 0
    }
}

/// Fuzzes, and prints the table. True when nothing was found.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    let outcomes = outcomes(options)?;
    Ok(!outcomes.is_empty() && outcomes.iter().all(Outcome::is_clean))
}

/// Runs one input through one target.
pub(crate) fn replay(target: &str, input: &Path) -> anyhow::Result<bool> {
    let directory = build()?;
    tools::succeeds(
        program(directory.join(target), &[])
            .env("KEYSTEAD_PANICS", "1")
            .arg(input),
    )
}

/// Fuzzes, prints the table, and says what came of each target.
pub(crate) fn outcomes(options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let all = all_targets()?;
    if let Some(unknown) = options.targets.iter().find(|target| !all.contains(target)) {
        bail!("there is no fuzz target {unknown}; there are {}", all.join(", "));
    }
    let targets = if options.targets.is_empty() {
        &all
    } else {
        &options.targets
    };
    let built = build()?;
    let place = RunPlace::new()?;
    for target in targets {
        place.take_program(&built, target)?;
    }
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for _ in 0..options.jobs.max(1) {
            threads.spawn(|| {
                while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = fuzz(&place, target, options.seconds).unwrap_or_else(|error| Outcome {
                        target: target.clone(),
                        broken: Some(format!("{error:#}")),
                        ..Outcome::default()
                    });
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push(outcome);
                    }
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_default();
    outcomes.sort_by(|a, b| a.target.cmp(&b.target));
    print(&outcomes);
    Ok(outcomes)
}

fn all_targets() -> anyhow::Result<Vec<String>> {
    let mut targets = Vec::new();
    let sources = root().join("fuzz").join("fuzz_targets");
    for entry in fs::read_dir(&sources).with_context(|| format!("reading {}", sources.display()))? {
        let path = entry?.path();
        targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    targets.sort();
    Ok(targets)
}

/// Builds all targets; says where they are.
fn build() -> anyhow::Result<PathBuf> {
    let target_directory = target_directory()?.join("fuzz");
    if !tools::is_there(&mut nightly("rustc", &["--version"])) {
        bail!("fuzzing needs a nightly compiler; `rustup toolchain install nightly` gets one");
    }
    let mut build = nightly(
        cargo_fuzz()?,
        &["fuzz", "build", "--release", "--fuzz-dir", "fuzz", "--target-dir"],
    );
    tools::run(build.arg(&target_directory))?;
    Ok(target_directory
        .join(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .join("release"))
}

/// A program of the nightly toolchain, whichever runs this one.
pub(crate) fn nightly(path: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
    let mut command = program(path, arguments);
    command.env("RUSTUP_TOOLCHAIN", "nightly");
    for name in [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
    ] {
        command.env_remove(name);
    }
    command
}

/// cargo-fuzz: the one that is installed, else one of our own in `.cache/`.
fn cargo_fuzz() -> anyhow::Result<PathBuf> {
    if tools::is_there(&mut program("cargo-fuzz", &["--version"])) {
        return Ok("cargo-fuzz".into());
    }
    let place = root().join(".cache").join("cargo-fuzz");
    let installed = place.join("bin").join("cargo-fuzz");
    if !installed.exists() {
        let arguments = [
            "install",
            "cargo-fuzz",
            "--locked",
            "--version",
            CARGO_FUZZ_VERSION,
            "--root",
        ];
        let mut install = tools::cargo(&arguments);
        install.arg(&place);
        three_times("installing cargo-fuzz", || tools::run(&mut install))?;
    }
    Ok(installed)
}

/// Where a run has its programs and corpora. They are gone when it is over.
struct RunPlace(PathBuf);

impl RunPlace {
    fn new() -> anyhow::Result<Self> {
        let place = target_directory()?
            .join("fuzz-runs")
            .join(std::process::id().to_string());
        fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
        Ok(Self(place))
    }

    /// Takes a program as it is built now: a build makes a new file and leaves this one be.
    fn take_program(&self, built: &Path, target: &str) -> anyhow::Result<()> {
        let (from, to) = (built.join(target), self.program(target));
        fs::hard_link(&from, &to)
            .or_else(|_| fs::copy(&from, &to).map(drop))
            .with_context(|| format!("taking {}", from.display()))
    }

    fn program(&self, target: &str) -> PathBuf {
        self.0.join(target)
    }

    /// An empty corpus: what a run finds does not depend on the runs before it, but on the seeds.
    fn corpus(&self, target: &str) -> anyhow::Result<PathBuf> {
        let corpus = self.0.join(format!("{target}-corpus"));
        fs::create_dir_all(&corpus).with_context(|| format!("making {}", corpus.display()))?;
        Ok(corpus)
    }
}

impl Drop for RunPlace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn fuzz(place: &RunPlace, target: &str, seconds: u64) -> anyhow::Result<Outcome> {
    let corpus = place.corpus(target)?;
    let findings = target_directory()?.join("fuzz-findings").join(target);
    fs::create_dir_all(&findings).with_context(|| format!("making {}", findings.display()))?;
    let known = files(&findings)?;
    let mut outcome = Outcome {
        target: target.into(),
        ..Outcome::default()
    };
    while outcome.seconds < seconds {
        let slice = (seconds - outcome.seconds).min(SLICE_SECONDS);
        let mut command = program(place.program(target), &[]);
        command
            .arg(format!("-max_total_time={slice}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MAX_MB}"))
            .arg(format!("-artifact_prefix={}/", findings.display()))
            // The engine leaks a page cache on purpose when it caught a panic in it.
            .args(["-detect_leaks=0", "-print_final_stats=1", "-use_value_profile=1"])
            .env("ASAN_OPTIONS", "detect_leaks=0:allocator_may_return_null=0");
        let dictionary = root().join("fuzz/dictionaries").join(format!("{target}.dict"));
        if dictionary.exists() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        command.arg(&corpus);
        // Inputs that were once findings are the best seeds for the next one.
        for seeds in ["seeds", "regressions"] {
            let seeds = root().join("fuzz").join(seeds).join(target);
            if seeds.exists() {
                command.arg(seeds);
            }
        }
        announce(&command);
        let said = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {target}"))?;
        let text = String::from_utf8_lossy(&said.stderr);
        let log = findings.with_extension("log");
        fs::write(&log, &*text).with_context(|| format!("writing {}", log.display()))?;
        outcome.seconds += slice;
        outcome.read(&text);
        outcome.findings = files(&findings)?
            .into_iter()
            .filter(|file| !known.contains(file))
            .collect();
        if !outcome.findings.is_empty() {
            break;
        }
        if !said.status.success() {
            outcome.broken = Some(format!("{}; see {}", said.status, log.display()));
            break;
        }
    }
    Ok(outcome)
}

fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

impl Outcome {
    /// Adds what libFuzzer says at its end.
    fn read(&mut self, text: &str) {
        for line in text.lines() {
            if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
                self.executions += count.trim().parse().unwrap_or(0);
            }
            // `#4711	DONE   cov: 12 ft: 34 corp: 5/67b lim: 8 exec/s: 9 rss: 10Mb`
            if line.starts_with('#') {
                let words: Vec<&str> = line.split_whitespace().collect();
                for pair in words.windows(2) {
                    let number = || pair[1].split('/').next().and_then(|number| number.parse().ok());
                    match pair[0] {
                        "cov:" => self.coverage = number().unwrap_or(self.coverage),
                        "ft:" => self.features = number().unwrap_or(self.features),
                        "corp:" => self.corpus = number().unwrap_or(self.corpus),
                        _ => {}
                    }
                }
            }
        }
    }
}

fn print(outcomes: &[Outcome]) {
    println!(
        "\n{:<18} {:>8} {:>12} {:>9} {:>9} {:>9} {:>7} {:>9}",
        "target", "seconds", "executions", "a second", "coverage", "features", "corpus", "findings"
    );
    for outcome in outcomes {
        println!(
            "{:<18} {:>8} {:>12} {:>9} {:>9} {:>9} {:>7} {:>9}",
            outcome.target,
            outcome.seconds,
            outcome.executions,
            outcome.executions / outcome.seconds.max(1),
            outcome.coverage,
            outcome.features,
            outcome.corpus,
            outcome.findings.len()
        );
    }
    for outcome in outcomes {
        for finding in &outcome.findings {
            println!(
                "\n{}: {}\n  cargo xtask fuzz {} --input {}",
                outcome.target,
                finding.display(),
                outcome.target,
                finding.display()
            );
        }
        if let Some(broken) = &outcome.broken {
            println!("\n{}: {broken}", outcome.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_at_its_end_is_read() {
        let mut outcome = Outcome::default();
        outcome.read("#2\tINITED cov: 3 ft: 4 corp: 1/1b exec/s: 0 rss: 30Mb");
        assert!(!outcome.is_clean(), "nothing was executed");
        outcome.read(
            "#524288\tpulse  cov: 10 ft: 20 corp: 3/9b lim: 4096 exec/s: 262144 rss: 45Mb\n\
             #900000\tDONE   cov: 12 ft: 34 corp: 5/67b lim: 4096 exec/s: 9 rss: 45Mb\n\
             stat::number_of_executed_units: 900000\n",
        );
        assert_eq!((outcome.executions, outcome.coverage), (900_000, 12));
        assert_eq!((outcome.features, outcome.corpus), (34, 5));
        assert!(outcome.is_clean());
    }
}
