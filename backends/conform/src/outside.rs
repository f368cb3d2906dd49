//! The outer half: a process for each check, and what became of it.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::checks::Check;
use crate::inside::{JOB, OUTCOME, Outcome, SECRETS, STDERR, STDOUT};
use crate::job::Job;
use crate::report::{self, Line, Report, Verdict};
use crate::secret;

/// How long a process may take to end after its check is over: a plugin's own threads may be in the way.
const END_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// Makes these checks, one after the other.
pub(crate) fn run(job: &Job, checks: &[&'static Check], check_max: Duration) -> anyhow::Result<Report> {
    let scratch = tempfile::tempdir().context("making a scratch directory")?;
    let mut report = Report {
        plugin: job.plugin.display().to_string(),
        digest: job.digest.clone(),
        backend: None,
        checks: Vec::new(),
    };
    let mut loads = true;
    let mut leaks = Vec::new();
    for check in checks {
        let began = Instant::now();
        let verdict = if loads {
            let made = make(job, check.name, scratch.path(), check_max)?;
            leaks.extend(
                made.leaks
                    .into_iter()
                    .map(|leak| format!("{leak} (in the check {})", check.name)),
            );
            report.backend = report.backend.or(made.backend);
            made.verdict
        } else {
            Verdict::not_checked("it does not load")
        };
        if check.name == "loads" && verdict.outcome == report::Outcome::Failed {
            loads = false;
        }
        report.checks.push(Line {
            name: check.name,
            claim: check.claim,
            verdict,
            milliseconds: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
    }
    if let Some(line) = report.checks.iter_mut().find(|line| line.name == "secrets")
        && !leaks.is_empty()
    {
        if line.verdict.outcome != report::Outcome::Failed {
            line.verdict = Verdict {
                outcome: report::Outcome::Failed,
                notes: Vec::new(),
            };
        }
        line.verdict.notes.extend(leaks);
    }
    Ok(report)
}

struct Made {
    verdict: Verdict,
    backend: Option<String>,
    leaks: Vec<String>,
}

fn make(job: &Job, check: &str, scratch: &Path, check_max: Duration) -> anyhow::Result<Made> {
    // What one process of a check hands to the next stands in the scratch directory itself.
    let directory = scratch.join(check);
    std::fs::create_dir(&directory)?;
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes);
    write(JOB, &serde_json::to_vec(&(check, job))?)?;
    let child = Command::new(std::env::current_exe()?)
        .arg("--inside")
        .arg(&directory)
        .stdin(Stdio::null())
        .stdout(File::create(directory.join(STDOUT))?)
        .stderr(File::create(directory.join(STDERR))?)
        .spawn()
        .context("starting the process of a check")?;
    let ended = wait(child, &directory, check_max)?;
    let outcome: Option<Outcome> = match std::fs::read(directory.join(OUTCOME)) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes)?),
        Err(_) => None,
    };
    let backend = outcome.as_ref().and_then(|outcome| outcome.backend.clone());
    let verdict = verdict(outcome, ended, &directory, check_max);
    let leaks = leaks(&directory)?;
    let again = crate::checks::AGAIN.iter().find(|(first, _)| *first == check);
    if let (Some((_, second)), report::Outcome::Passed) = (again, verdict.outcome) {
        let made = make(job, second.name, scratch, check_max)?;
        let leaks = [leaks, made.leaks].concat();
        return Ok(Made {
            backend,
            leaks,
            ..made
        });
    }
    Ok(Made {
        verdict,
        backend,
        leaks,
    })
}

enum Ended {
    By(ExitStatus),
    /// It was ended, since it did not do so itself.
    Late,
}

fn wait(mut child: Child, directory: &Path, check_max: Duration) -> anyhow::Result<Ended> {
    let began = Instant::now();
    let mut over: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::By(status));
        }
        if over.is_none() && directory.join(OUTCOME).exists() {
            over = Some(Instant::now());
        }
        if began.elapsed() > check_max || over.is_some_and(|over| over.elapsed() > END_MAX) {
            child.kill()?;
            child.wait()?;
            return Ok(Ended::Late);
        }
        std::thread::sleep(POLL);
    }
}

fn verdict(outcome: Option<Outcome>, ended: Ended, directory: &Path, check_max: Duration) -> Verdict {
    let said = || {
        let text = std::fs::read(directory.join(STDERR)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines()
            .last()
            .map(|line| format!("; its last words: {line}"))
            .unwrap_or_default()
    };
    match (outcome, ended) {
        (Some(outcome), Ended::By(status)) if status.signal().is_none() => outcome.verdict,
        (Some(outcome), Ended::Late) => outcome.verdict,
        (_, Ended::By(status)) => {
            let how = match status.signal() {
                Some(signal) => format!("signal {signal}{}", name_of(signal)),
                None => format!("exit code {}", status.code().unwrap_or_default()),
            };
            Verdict::failed(format!("the process ended with {how}{}", said()))
        }
        (None, Ended::Late) => Verdict::failed(format!(
            "the check was not over after {} s: a call never returns, or is far too slow (--check-max-s)",
            check_max.as_secs()
        )),
    }
}

fn name_of(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT: abort, or a panic that left the plugin)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        11 => " (SIGSEGV: a wrong pointer)",
        _ => "",
    }
}

/// What of the secrets that the process had stands in what it printed.
fn leaks(directory: &Path) -> anyhow::Result<Vec<String>> {
    let secrets = secret::read_all(&directory.join(SECRETS))?;
    let mut leaks = Vec::new();
    for (file, name) in [(STDOUT, "standard output"), (STDERR, "standard error")] {
        let printed = std::fs::read(directory.join(file))?;
        if secrets.iter().any(|secret| secret.is_in(&printed)) {
            leaks.push(format!("a plaintext was printed to {name}"));
        }
    }
    Ok(leaks)
}
