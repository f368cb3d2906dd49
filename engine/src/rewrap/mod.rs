//! Re-wrap: moving every data key of some epochs to other epochs, online and crash-safe.
//!
//! - [`plan`]: which epochs move, and where to.
//! - [`step`]: one step of a job.
//! - [`retire`]: its end: empty epochs are retired, the job is done.
//! - [`worker`]: the threads that do the steps.
//!
//! This file is what an application sees of a job: its status, and a handle to wait for it.

pub(crate) mod plan;
mod retire;
pub(crate) mod step;
pub(crate) mod worker;

use crate::error::{Error, Result};
use crate::names::EpochNumber;
use crate::organization::Organization;
use crate::rewrap::step::Step;
use crate::storage::records::{RewrapJobRecord, SourceState};
use crate::storage::{Rows, tables};
use serde::Serialize;
use std::time::Duration;

/// How a re-wrap job stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RewrapStatus {
    /// The job's number in its organization.
    pub job: u64,
    /// What it is doing.
    pub phase: RewrapPhase,
    /// Whether it goes on.
    pub state: RewrapState,
    /// Data keys that it has moved and is still to move.
    pub total: u64,
    /// Data keys that it has moved.
    pub done: u64,
    /// Data keys that did not open in this pass, and stay where they are.
    pub failed: u64,
    /// Data keys that it is still to move.
    pub remaining: u64,
    /// Data keys a second, since this process began to watch; 0 when that is not known yet.
    pub rate: f64,
    /// Batches committed so far.
    pub batches: u64,
    /// The epochs that it moves.
    pub sources: Vec<RewrapSource>,
}

/// One of the epochs that a job moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RewrapSource {
    /// The epoch.
    pub epoch: EpochNumber,
    /// Where its data keys go.
    pub target: EpochNumber,
    /// True once the target's KMS wraps its key.
    pub handed_over: bool,
    /// True once nothing refers to it and its wraps are erased.
    pub retired: bool,
}

/// What a re-wrap job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewrapPhase {
    /// Some source epoch is still wrapped by its old KMS alone.
    HandOver,
    /// Data keys are being moved; no KMS takes part in it.
    Rewrap,
}

/// Whether a re-wrap job goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "reason")]
pub enum RewrapState {
    /// It goes on.
    Running,
    /// It waits and tries again; the text says for what.
    Blocked(String),
    /// It is done: every source is retired.
    Done,
}

/// A re-wrap job, to watch and to wait for. The job goes on without it.
///
/// # Examples
///
/// ```no_run
/// # fn example(acme: keystead::Organization) -> keystead::Result<()> {
/// let job = acme.keys().rotate("managed")?;
/// let status = job.wait_with(|progress| println!("{} of {}", progress.done, progress.total))?;
/// assert_eq!(status.remaining, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RewrapJob {
    organization: Organization,
    /// `None`: there was nothing to move.
    number: Option<u64>,
}

impl RewrapJob {
    pub(crate) fn new(organization: Organization, number: Option<u64>) -> Self {
        Self { organization, number }
    }

    /// The job's number; `None` when the change moved nothing, and there is nothing to wait for.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        self.number
    }

    /// How the job stands now. Reads three rows; no KMS.
    ///
    /// # Errors
    ///
    /// Those of reading the store.
    pub fn status(&self) -> Result<RewrapStatus> {
        match (self.number, status(&self.organization)?) {
            (Some(number), Some(status)) if status.job == number => Ok(status),
            // A later job took over, which it may only when this one is done; or there was nothing to do.
            (number, _) => Ok(nothing_left(number.unwrap_or(0))),
        }
    }

    /// Waits until the job is done. A job that is blocked goes on trying, and this goes on waiting.
    ///
    /// # Errors
    ///
    /// Those of reading the store; [`Error::Closed`] when it is closed meanwhile.
    pub fn wait(&self) -> Result<RewrapStatus> {
        self.wait_with(|_| {})
    }

    /// The same, telling `progress` of every change.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_with(&self, mut progress: impl FnMut(&RewrapStatus)) -> Result<RewrapStatus> {
        loop {
            if let Some(status) = self.wait_for(Duration::from_secs(3600), &mut progress)? {
                return Ok(status);
            }
        }
    }

    /// Waits until the job is done, or until `at_most` has passed: then `None`.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_for(
        &self,
        at_most: Duration,
        mut progress: impl FnMut(&RewrapStatus),
    ) -> Result<Option<RewrapStatus>> {
        let workers = self.organization.workers();
        let env = self.organization.scope().env();
        let until = env.elapsed().saturating_add(at_most);
        loop {
            let seen = workers.moves();
            let status = self.status()?;
            progress(&status);
            if status.state == RewrapState::Done {
                return Ok(Some(status));
            }
            let now = env.elapsed();
            if now >= until {
                return Ok(None);
            }
            if self.organization.is_closed() {
                return Err(Error::Closed {
                    reason: "while a re-wrap job was being waited for".into(),
                });
            }
            workers.wait_beyond(seen, (until - now).min(Duration::from_millis(500)));
        }
    }

    /// Does the job's work on the calling thread until it is done or blocked, telling `progress` after every batch.
    ///
    /// # Errors
    ///
    /// Those of the store; a KMS that does not answer is not an error but a status of [`RewrapState::Blocked`].
    pub fn run_here(&self, mut progress: impl FnMut(&RewrapStatus)) -> Result<RewrapStatus> {
        loop {
            let outcome = step::step(self.organization.scope(), &|| self.organization.workers().tell())?;
            let status = self.status()?;
            progress(&status);
            match outcome {
                Step::Progress if status.state != RewrapState::Done => {}
                _ => return Ok(status),
            }
        }
    }
}

fn nothing_left(job: u64) -> RewrapStatus {
    RewrapStatus {
        job,
        phase: RewrapPhase::Rewrap,
        state: RewrapState::Done,
        total: 0,
        done: 0,
        failed: 0,
        remaining: 0,
        rate: 0.0,
        batches: 0,
        sources: Vec::new(),
    }
}

/// The running job's status, or that of the last one; `None` when there never was one.
pub(crate) fn status(organization: &Organization) -> Result<Option<RewrapStatus>> {
    let scope = organization.scope();
    let snapshot = scope.snapshot();
    let record = match scope.running_job(&*snapshot)? {
        Some(running) => running,
        None => match snapshot.record::<RewrapJobRecord>(&tables::rewrap_job(scope.org, true))? {
            Some(finished) => finished,
            None => return Ok(None),
        },
    };
    let head = scope.head(&*snapshot)?;
    let sources: Vec<RewrapSource> = record
        .sources
        .iter()
        .map(|source| RewrapSource {
            epoch: source.epoch,
            target: source.target,
            handed_over: source.state != SourceState::HandOver,
            retired: source.state == SourceState::Retired,
        })
        .collect();
    let finished = record.finished_at_ms.is_some();
    let remaining = if finished {
        0
    } else {
        sources.iter().map(|source| head.references(source.epoch)).sum()
    };
    let waiting = sources
        .iter()
        .any(|source| !source.handed_over && !source.retired);
    let rate = organization.workers().rate(scope.org, &record);
    Ok(Some(RewrapStatus {
        job: record.number,
        phase: if waiting {
            RewrapPhase::HandOver
        } else {
            RewrapPhase::Rewrap
        },
        state: match record.blocked {
            _ if finished => RewrapState::Done,
            Some(reason) => RewrapState::Blocked(reason),
            None => RewrapState::Running,
        },
        total: record.done + remaining,
        done: record.done,
        failed: record.failed,
        remaining,
        rate,
        batches: record.batches,
        sources,
    }))
}
