//! What the command writes: aligned columns for people, one JSON document for programs, progress bars on a terminal.

use crate::args::{Command, RewrapCommand};
use crate::exit::Failure;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use keystead::{RewrapState, RewrapStatus, SalvageProgress, VerifyPhase, VerifyProgress};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// The result of a command: one JSON document, or what `people` writes. A reader that has gone away has had enough of it, and what
    /// the command came to is the same.
    pub(crate) fn show(
        self,
        document: &impl Serialize,
        people: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let written = if self.json {
            serde_json::to_writer(&mut stdout, document)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(stdout))
        } else {
            people(&mut stdout)
        };
        match written.and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|error| Failure::io("writing the output", error)),
        }
    }

    /// A remark for people, beside the result; programs do not get it.
    #[allow(clippy::unused_self, reason = "remarks belong to the output, whatever it is")]
    pub(crate) fn remark(self, text: impl Display) {
        if !self.json {
            // A remark that nobody can read changes nothing.
            let _ = writeln!(io::stderr(), "{}", printable(&text.to_string()));
        }
    }
}

/// Text as it may go to a terminal: what came from a store, a KMS or a file cannot drive it.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Aligned columns under a line of headings.
pub(crate) struct Columns {
    table: Table,
}

impl Columns {
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Self {
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(headings.map(str::to_uppercase));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { table }
    }

    pub(crate) fn right<const N: usize>(mut self, columns: [usize; N]) -> Self {
        for index in columns {
            if let Some(column) = self.table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.table
            .add_row(cells.map(|cell| printable(&cell).replace('\n', "\u{fffd}")));
    }

    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for line in self.table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A moment as people read it: UTC, to the second.
pub(crate) fn time(at_ms: u64) -> String {
    let at = i64::try_from(at_ms)
        .ok()
        .and_then(|at_ms| jiff::Timestamp::from_millisecond(at_ms).ok());
    at.map_or_else(
        || format!("{at_ms} ms"),
        |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

pub(crate) fn or_dash(text: Option<impl Display>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// A re-wrap job's status, flat, as programs get it.
#[derive(Debug, Serialize)]
pub(crate) struct StatusView<'a> {
    job: Option<u64>,
    phase: Option<keystead::RewrapPhase>,
    state: &'static str,
    blocked_reason: Option<&'a str>,
    total: u64,
    done: u64,
    failed: u64,
    remaining: u64,
    rate: f64,
    batches: u64,
    sources: &'a [keystead::RewrapSource],
}

impl<'a> StatusView<'a> {
    pub(crate) fn of(status: Option<&'a RewrapStatus>) -> Self {
        let Some(status) = status else {
            return Self {
                job: None,
                phase: None,
                state: "none",
                blocked_reason: None,
                total: 0,
                done: 0,
                failed: 0,
                remaining: 0,
                rate: 0.0,
                batches: 0,
                sources: &[],
            };
        };
        let (state, blocked_reason) = match &status.state {
            RewrapState::Running => ("running", None),
            RewrapState::Blocked(reason) => ("blocked", Some(reason.as_str())),
            RewrapState::Done => ("done", None),
        };
        Self {
            job: Some(status.job),
            phase: Some(status.phase),
            state,
            blocked_reason,
            total: status.total,
            done: status.done,
            failed: status.failed,
            remaining: status.remaining,
            rate: status.rate,
            batches: status.batches,
            sources: &status.sources,
        }
    }

    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some(job) = self.job else {
            return writeln!(out, "no re-wrap job so far");
        };
        let phase = match self.phase {
            Some(keystead::RewrapPhase::HandOver) => "hand-over",
            _ => "re-wrap",
        };
        writeln!(out, "job {job}: {} ({phase})", self.state)?;
        if let Some(reason) = self.blocked_reason {
            writeln!(out, "waits for: {}", printable(reason))?;
        }
        writeln!(
            out,
            "data keys: {} of {} moved, {} to go, {} failed",
            self.done, self.total, self.remaining, self.failed
        )?;
        for source in self.sources {
            let state = match (source.retired, source.handed_over) {
                (true, _) => "retired",
                (false, true) => "handed over",
                (false, false) => "waits for its hand-over",
            };
            writeln!(out, "epoch {} -> {}: {state}", source.epoch, source.target)?;
        }
        Ok(())
    }
}

/// A progress bar on standard error; hidden where that is no terminal, and with --json.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// For a re-wrap job.
    pub(crate) fn of_rewrap(out: Output) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target(out));
        bar.set_style(style(
            "{prefix} {bar:32} {human_pos}/{human_len} data keys {per_sec} {msg}",
        ));
        bar.set_prefix("re-wrap");
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// For a salvage, which goes through phases.
    pub(crate) fn of_phases(out: Output) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target(out));
        bar.set_style(style("{prefix} {bar:32} {human_pos}/{human_len} {per_sec}"));
        Self { bar }
    }

    pub(crate) fn tell_salvage(&self, progress: SalvageProgress) {
        self.bar.set_prefix(progress.phase);
        self.bar.set_length(progress.total.unwrap_or(progress.done));
        self.bar.set_position(progress.done);
    }

    /// For a verification.
    pub(crate) fn of_verify(out: Output) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target(out));
        bar.set_style(style("{prefix} {bar:32} {human_pos}/{human_len} {msg} ({eta})"));
        bar.set_prefix("verify");
        Self { bar }
    }

    pub(crate) fn tell_verified(&self, progress: &VerifyProgress) {
        self.bar.set_message(match progress.phase {
            VerifyPhase::Blocks => "blocks",
            VerifyPhase::Secrets => "secrets",
        });
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.done);
    }

    pub(crate) fn tell(&self, status: &RewrapStatus) {
        self.bar.set_length(status.total);
        self.bar.set_position(status.done);
        self.bar.set_message(match &status.state {
            RewrapState::Blocked(reason) => format!("waits: {}", printable(reason)),
            _ => String::new(),
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn target(out: Output) -> ProgressDrawTarget {
    if out.is_json() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constants of this file")
}

/// Has the engine's and the backends' log lines written to standard error.
pub(crate) fn log_to_stderr(verbose: u8, command: &Command) {
    let level = match (verbose, command) {
        // The progress bar says what a watched job waits for.
        (0, Command::Rewrap(RewrapCommand::Watch)) => "off",
        (0, _) => "warn",
        (1, _) => "info",
        (2, _) => "debug",
        _ => "trace",
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(verbose > 1)
        .init();
}
