//! `cargo xtask mutants`: does the test suite notice planted bugs?
//!
//! The engine is built once with all of them in it (`engine/src/mutant.rs`), and the suite runs once for each, and once for none:
//! that must be clean, or a bug "caught" says nothing.

use crate::tools::{announce, cargo, human, root, run, target_directory};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the suite may take for one planted bug before that counts as missed.
const BOUND: Duration = Duration::from_secs(240);

/// What the suite said of one planted bug.
enum Verdict {
    Caught {
        checker: String,
        part: String,
        steps: String,
        story: String,
    },
    Clean(String),
    /// It ended otherwise, or not at all.
    Nothing(String),
}

/// Runs the named ones, or all; true when each is caught and the suite is clean without.
pub(crate) fn run_all(names: &[String], stories: bool) -> anyhow::Result<bool> {
    let began = Instant::now();
    let suite = build()?;
    let built = began.elapsed();

    let listed = Command::new(&suite)
        .arg("--list")
        .output()
        .context("listing the planted bugs")?;
    let listed = String::from_utf8(listed.stdout).context("listing the planted bugs")?;
    let all: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    if let Some(unknown) = names
        .iter()
        .find(|name| !all.iter().any(|(known, _)| known == name))
    {
        let known: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        bail!(
            "there is no planted bug {unknown:?}; there are: {}",
            known.join(", ")
        );
    }
    let chosen = |name: &str| names.is_empty() || names.iter().any(|other| other == name);

    println!("Built in {}. The suite without a planted bug:", human(built));
    let (control, took) = judge(&suite, None)?;
    let Verdict::Clean(steps) = control else {
        println!("  NOT clean: {}", control.words());
        return Ok(false);
    };
    println!("  clean after {steps}, in {}\n", human(took));
    println!(
        "{:<26} {:<24} {:<18} {:<22} {:>7}",
        "planted bug", "caught by", "part", "after", ""
    );
    let mut missed = Vec::new();
    let mut count = 0;
    for (name, what) in all.iter().filter(|(name, _)| chosen(name)) {
        count += 1;
        let (verdict, took) = judge(&suite, Some(name))?;
        match &verdict {
            Verdict::Caught {
                checker,
                part,
                steps,
                story,
            } => {
                println!(
                    "{name:<26} {checker:<24} {part:<18} {steps:<22} {:>7}",
                    human(took)
                );
                if stories {
                    println!("    {what}\n    {story}");
                }
            }
            other => {
                println!(
                    "{name:<26} NOT CAUGHT: {} ({}): {}",
                    what,
                    human(took),
                    other.words()
                );
                missed.push(*name);
            }
        }
    }
    println!(
        "\n{} of {count} planted bugs caught, in {}",
        count - missed.len(),
        human(began.elapsed())
    );
    if !missed.is_empty() {
        println!("The suite has a hole: {} went unnoticed.", missed.join(", "));
    }
    Ok(missed.is_empty())
}

/// Builds the suite with all planted bugs in it. Cargo gives the wrapper to the workspace's own crates alone, and keeps what comes
/// of it apart: nothing else is built twice, and the ordinary build is not thrown away.
fn build() -> anyhow::Result<PathBuf> {
    run(
        cargo(&["build", "--package", "keystead-tests", "--bin", "planted-bugs"])
            .env("RUSTC_WORKSPACE_WRAPPER", root().join("xtask/with-planted-bugs")),
    )?;
    // The next ordinary build would put another program in its place.
    let directory = target_directory()?;
    let suite = directory.join("suite-with-planted-bugs");
    std::fs::copy(directory.join("debug").join("planted-bugs"), &suite).context("keeping the program")?;
    Ok(suite)
}

fn judge(suite: &Path, mutant: Option<&str>) -> anyhow::Result<(Verdict, Duration)> {
    let began = Instant::now();
    let mut command = Command::new(suite);
    command
        .env_remove("KEYSTEAD_MUTANT")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(mutant) = mutant {
        command.env("KEYSTEAD_MUTANT", mutant);
    } else {
        announce(&command);
    }
    let child = command.spawn().context("running the suite")?;
    let said = within(BOUND, child)?;
    let verdict = match said.as_deref().map(last_line_of) {
        None => Verdict::Nothing(format!("no end within {}", human(BOUND))),
        Some(fields) => match fields[..] {
            ["clean", steps] => Verdict::Clean(steps.into()),
            ["caught", checker, part, steps, story] => Verdict::Caught {
                checker: checker.into(),
                part: part.into(),
                steps: steps.into(),
                story: story.into(),
            },
            _ => Verdict::Nothing("it said nothing".into()),
        },
    };
    Ok((verdict, began.elapsed()))
}

fn last_line_of(said: &str) -> Vec<&str> {
    said.lines().last().unwrap_or_default().split('\t').collect()
}

/// What a child says until its end; `None` when that does not come in time.
fn within(bound: Duration, mut child: Child) -> anyhow::Result<Option<String>> {
    let deadline = Instant::now() + bound;
    // Its one line fits into the pipe, so it need not be read meanwhile.
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some(
        String::from_utf8_lossy(&child.wait_with_output()?.stdout).into_owned(),
    ))
}

impl Verdict {
    fn words(&self) -> String {
        match self {
            Self::Caught {
                checker,
                part,
                steps,
                story,
            } => format!("{checker}, {part}, {steps}: {story}"),
            Self::Clean(steps) => format!("clean after {steps}"),
            Self::Nothing(why) => why.clone(),
        }
    }
}
