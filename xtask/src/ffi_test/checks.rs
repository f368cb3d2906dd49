//! What was checked, and how it went: said at once, and in a table at the end.

use crate::tools::human;
use std::time::{Duration, Instant};

#[derive(Default)]
pub(super) struct Checks {
    rows: Vec<Row>,
}

struct Row {
    name: String,
    took: Duration,
    failure: Option<String>,
}

impl Checks {
    pub(super) fn check(&mut self, name: impl Into<String>, work: impl FnOnce() -> anyhow::Result<()>) {
        let name = name.into();
        eprintln!("\n== {name}");
        let began = Instant::now();
        let failure = work().err().map(|error| format!("{error:#}"));
        if let Some(failure) = &failure {
            eprintln!("ffi-test: {name} FAILED: {failure}");
        }
        self.rows.push(Row {
            name,
            took: began.elapsed(),
            failure,
        });
    }

    /// Prints the table; true when everything passed.
    pub(super) fn print(&self, took: Duration) -> bool {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        println!("\n{:<width$}  {:>11}  result", "check", "took");
        for row in &self.rows {
            let result = if row.failure.is_none() { "passed" } else { "FAILED" };
            println!("{:<width$}  {:>11}  {result}", row.name, human(row.took));
        }
        for row in &self.rows {
            if let Some(failure) = &row.failure {
                println!("\n{}: {failure}", row.name);
            }
        }
        let failed = self.rows.iter().filter(|row| row.failure.is_some()).count();
        let passed = self.rows.len() - failed;
        println!("\nffi-test: {passed} passed, {failed} failed, in {}", human(took));
        failed == 0 && passed > 0
    }
}
