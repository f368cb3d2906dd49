//! `cargo xtask test`: sets up what tests need, runs all of them, says what was run and what was left out.
//!
//! Everything is built once: each cargo command below has the same selection of packages and features, since another one would
//! have what they share built again. Its last line is `N passed, N failed, N skipped`.

use crate::fuzz;
use crate::tally::{Runner, Tally};
use crate::tools::{self, announce, cargo, human, program, spoken, succeeds, target_directory};
use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Everything but the benchmark, which is run by `cargo xtask bench` and brings other databases along.
const SELECTION: [&str; 4] = ["--workspace", "--exclude", "keystead-bench", "--all-features"];

/// Tests that need an emulator read the first; whatever leaves something out notes it in the file that the second one names.
const SKIP_EMULATORS: &str = "KEYSTEAD_SKIP_EMULATORS";
const LEFT_OUT_FILE: &str = "KEYSTEAD_LEFT_OUT_FILE";
/// Tests that load a plugin of this workspace build it first, unless they are told that it is there; what stands for a KMS and is still
/// missing they try to install once instead of three times.
const ALL_IS_BUILT: &str = "KEYSTEAD_ALL_IS_BUILT";
/// What tests tell beside that stands in the file that this one names: see `tests/src/notes.rs`.
const NOTES_FILE: &str = "KEYSTEAD_NOTES_FILE";

/// What was run, and how it went.
#[derive(Default)]
struct Report {
    runs: Vec<(&'static str, Tally)>,
    /// What went wrong beside tests that failed.
    broken: Vec<String>,
    left_out: BTreeSet<String>,
    /// Which backend was tested with which peers, and what `keystead-conform` found of which plugin.
    notes: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

/// Runs everything, and each fuzz target for so many seconds; with `skip_emulators`, all but what needs a peer that stands for a KMS. True
/// when nothing failed.
pub(crate) fn run(skip_emulators: bool, fuzz_seconds: u64) -> anyhow::Result<bool> {
    let began = Instant::now();
    let mut report = Report::default();
    match run_all(skip_emulators, fuzz_seconds, &mut report) {
        Ok(()) => {}
        Err(error) => report.broken.push(format!("{error:#}")),
    }
    println!("\nWhat was run, in {}:", human(began.elapsed()));
    Ok(report.print(skip_emulators))
}

fn run_all(skip_emulators: bool, fuzz_seconds: u64, report: &mut Report) -> anyhow::Result<()> {
    // Plugins and programs first: tests load and run them.
    tools::run(cargo(&["build"]).args(SELECTION))?;
    let left_out = LeftOut::new(skip_emulators)?;
    if skip_emulators {
        eprintln!("\nLEAVING OUT what needs a peer that stands for a KMS, because of --skip-emulators.");
    } else {
        let set_up = target_directory()?.join("debug").join("set-up-emulators");
        if !succeeds(&mut program(set_up, &[]))? {
            report.broken.push(
                "what stands for KMSs could not be set up (see above): python3 with venv, and a package index that pip reaches, \
                 are needed for that once; `cargo xtask test --skip-emulators` leaves out what needs them"
                    .into(),
            );
        }
    }

    let runner = match tools::is_there(&mut cargo(&["nextest", "--version"])) {
        true => Runner::Nextest,
        false => Runner::Libtest,
    };
    let mut tests = match runner {
        Runner::Nextest => cargo(&["nextest", "run", "--no-fail-fast"]),
        Runner::Libtest => cargo(&[
            "test",
            "--no-fail-fast",
            "--lib",
            "--bins",
            "--tests",
            "--examples",
        ]),
    };
    left_out.tell(tests.args(SELECTION));
    let notes = target_directory()?.join("notes-of-tests");
    fs::write(&notes, "").with_context(|| format!("emptying {}", notes.display()))?;
    tests.env(NOTES_FILE, &notes).env(ALL_IS_BUILT, "1");
    let (tally, count, reasons) = left_out.counted(report.watch(runner, &mut tests)?)?;
    report.left_out.extend(reasons);
    report.read_notes(&fs::read_to_string(&notes)?);
    report.runs.push((
        if runner == Runner::Nextest {
            "unit and integration tests (nextest)"
        } else {
            "unit and integration tests"
        },
        tally,
    ));
    if skip_emulators && count == 0 {
        report
            .broken
            .push("no test said that it needs an emulator, so nothing is known of what was left out".into());
    }

    let mut examples = cargo(&["test", "--no-fail-fast", "--doc"]);
    // Examples in C: `--doc` heeds no `doctest = false`. `cargo xtask ffi-test` compiles what stands in the header.
    examples.args(SELECTION).args(["--exclude", "keystead-ffi"]);
    let tally = report.watch(Runner::Libtest, &mut examples)?;
    report.runs.push(("examples in the documentation", tally));
    if fuzz_seconds > 0 {
        report.fuzz(fuzz_seconds)?;
    }
    Ok(())
}

impl Report {
    /// Runs a test runner, passes on what it prints, and counts.
    fn watch(&mut self, runner: Runner, command: &mut Command) -> anyhow::Result<Tally> {
        announce(command);
        command
            .env("CARGO_TERM_COLOR", "never")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("running {}", spoken(command)))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (out, err) = std::thread::scope(|threads| {
            let err = threads.spawn(move || tally_of(runner, err, &mut std::io::stderr()));
            (tally_of(runner, out, &mut std::io::stdout()), err.join())
        });
        let status = child.wait()?;
        let err = err.map_err(|_| anyhow::anyhow!("reading what {} printed failed", spoken(command)))?;
        let tally: Tally = [out?, err?].into_iter().sum();
        if !status.success() && tally.failed == 0 {
            self.broken.push(format!(
                "{} ended with {status} and no test that failed: see above",
                spoken(command)
            ));
        }
        if tally == Tally::default() {
            self.broken.push(format!(
                "{} ran nothing, or its closing line was not understood",
                spoken(command)
            ));
        }
        Ok(tally)
    }

    /// Runs every fuzz target for so long; each one counts as a test.
    fn fuzz(&mut self, seconds: u64) -> anyhow::Result<()> {
        let jobs = crate::cores();
        let outcomes = fuzz::outcomes(&fuzz::Options {
            seconds,
            jobs,
            targets: Vec::new(),
        })?;
        let clean = outcomes.iter().filter(|outcome| outcome.is_clean()).count() as u64;
        let tally = Tally {
            passed: clean,
            failed: outcomes.len() as u64 - clean,
            skipped: 0,
        };
        self.runs.push(("fuzz targets", tally));
        Ok(())
    }

    /// A line is `kind<tab>backend<tab>what`.
    fn read_notes(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.splitn(3, '\t').map(str::to_owned);
            if let (Some(kind), Some(backend), Some(what)) = (words.next(), words.next(), words.next()) {
                self.notes
                    .entry(kind)
                    .or_default()
                    .entry(backend)
                    .or_default()
                    .insert(what);
            }
        }
    }

    /// Says everything; true when nothing failed.
    fn print(&self, skip_emulators: bool) -> bool {
        for (what, tally) in &self.runs {
            println!("  {what}: {tally}");
        }
        for (kind, title) in [
            ("tested with", "Each backend was tested with:"),
            ("conform", "What keystead-conform found of each plugin:"),
        ] {
            let Some(notes) = self.notes.get(kind) else {
                continue;
            };
            println!("\n{title}");
            for (backend, what) in notes {
                println!(
                    "  {backend}: {}",
                    what.iter().cloned().collect::<Vec<_>>().join("; ")
                );
            }
        }
        if !self.left_out.is_empty() {
            println!(
                "\nLEFT OUT{}:",
                if skip_emulators {
                    ", most of it because of --skip-emulators"
                } else {
                    ""
                }
            );
            for what in &self.left_out {
                println!("  {what}");
            }
        }
        if !self.broken.is_empty() {
            println!("\nBeside that:");
            for what in &self.broken {
                println!("  {what}");
            }
        }
        let mut total: Tally = self.runs.iter().map(|(_, tally)| *tally).sum();
        total.failed += self.broken.len() as u64;
        println!("\n{total}");
        total.failed == 0
    }
}

fn tally_of(runner: Runner, from: Option<impl Read>, to: &mut impl Write) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let Some(from) = from else { return Ok(tally) };
    let mut from = BufReader::new(from);
    // Bytes, not text: a test may print anything.
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        tally = [
            tally,
            runner
                .tally_of(&String::from_utf8_lossy(&line))
                .unwrap_or_default(),
        ]
        .into_iter()
        .sum();
        line.clear();
    }
    Ok(tally)
}

/// The file in which tests note that they leave out what they test.
///
/// Such a test ends at once and its runner counts it as passed; here it is skipped.
struct LeftOut {
    skip_emulators: bool,
    file: PathBuf,
}

impl LeftOut {
    fn new(skip_emulators: bool) -> anyhow::Result<Self> {
        let file = target_directory()?.join("left-out-tests");
        fs::write(&file, "").with_context(|| format!("emptying {}", file.display()))?;
        Ok(Self { skip_emulators, file })
    }

    fn tell(&self, tests: &mut Command) {
        tests
            .env(SKIP_EMULATORS, if self.skip_emulators { "1" } else { "0" })
            .env(LEFT_OUT_FILE, &self.file);
    }

    /// The tally with the left-out tests skipped; how many they are; what they would have tested.
    ///
    /// A line is `process thread<tab>what`: a test is known by process and thread, whichever runner runs it.
    fn counted(&self, tally: Tally) -> anyhow::Result<(Tally, u64, Vec<String>)> {
        let text =
            fs::read_to_string(&self.file).with_context(|| format!("reading {}", self.file.display()))?;
        let noted: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('\t')).collect();
        let tests: BTreeSet<&str> = noted.iter().map(|(test, _)| *test).collect();
        let reasons: BTreeSet<&str> = noted.iter().map(|(_, what)| *what).collect();
        let count = tests.len() as u64;
        let reasons = reasons
            .into_iter()
            .map(|what| {
                let tests: BTreeSet<&str> = noted
                    .iter()
                    .filter(|(_, other)| *other == what)
                    .map(|(test, _)| *test)
                    .collect();
                format!("{what} ({} tests)", tests.len())
            })
            .collect();
        Ok((tally.with_left_out(count), count, reasons))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_grouped_by_kind_and_backend_and_said_once() {
        let mut report = Report::default();
        report.read_notes(
            "tested with\taws\tmoto 5\nno note\ntested with\taws\tmoto 5\ntested with\taws\tministack 1\n",
        );
        let peers: Vec<&str> = report.notes["tested with"]["aws"]
            .iter()
            .map(String::as_str)
            .collect();
        assert_eq!(peers, ["ministack 1", "moto 5"]);
        assert_eq!(report.notes.len(), 1);
    }
}
