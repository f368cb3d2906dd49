//! What was found: for people and as JSON.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The whole report. Its JSON is what `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) plugin: String,
    pub(crate) digest: String,
    /// Name and version, once it is loaded.
    pub(crate) backend: Option<String>,
    pub(crate) checks: Vec<Line>,
}

/// One check.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) claim: &'static str,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
    pub(crate) milliseconds: u64,
}

/// What came of a check.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    /// What is wrong, why it was not checked, or what is worth knowing.
    pub(crate) notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Passed,
    Failed,
    NotChecked,
    /// It failed, and was to be excepted.
    Excepted,
}

impl Verdict {
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Failed,
            notes: vec![what.into()],
        }
    }

    pub(crate) fn not_checked(why: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::NotChecked,
            notes: vec![why.into()],
        }
    }
}

impl Report {
    /// Excepts what failed of these checks.
    pub(crate) fn except(&mut self, names: &[String]) {
        for line in &mut self.checks {
            if line.verdict.outcome == Outcome::Failed && names.iter().any(|name| name == line.name) {
                line.verdict.outcome = Outcome::Excepted;
            }
        }
    }

    pub(crate) fn exit_code(&self, complete: bool) -> u8 {
        match (self.count(Outcome::Failed), self.count(Outcome::NotChecked)) {
            (0, 0) => 0,
            (0, _) if complete => 3,
            (0, _) => 0,
            _ => 1,
        }
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.checks
            .iter()
            .filter(|line| line.verdict.outcome == outcome)
            .count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.plugin)?;
        writeln!(
            f,
            "{}, BLAKE3 {}\n",
            self.backend.as_deref().unwrap_or("(not loaded)"),
            self.digest
        )?;
        for line in &self.checks {
            let outcome = line.verdict.outcome.to_string();
            writeln!(f, "{outcome:<12} {:<20} {}", line.name, line.claim)?;
            for note in &line.verdict.notes {
                writeln!(f, "{:33} {note}", "")?;
            }
        }
        let milliseconds: u64 = self.checks.iter().map(|line| line.milliseconds).sum();
        writeln!(
            f,
            "\n{} passed, {} failed, {} not checked, {} excepted, in {:.1} s",
            self.count(Outcome::Passed),
            self.count(Outcome::Failed),
            self.count(Outcome::NotChecked),
            self.count(Outcome::Excepted),
            milliseconds as f64 / 1000.0
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::NotChecked => "not checked",
            Self::Excepted => "excepted",
        })
    }
}
