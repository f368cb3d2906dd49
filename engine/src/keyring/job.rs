//! The beginning of a re-wrap job: of a change that moves epochs, or of a second key that does not wrap all of them yet.

use crate::audit::{self, AuditEvent};
use crate::env::now_ms;
use crate::error::Result;
use crate::keyring::{epoch, second};
use crate::names::{EpochNumber, KeyName};
use crate::rewrap::plan::{self, Target};
use crate::scope::Scope;
use crate::storage::records::{EpochCause, HeadRecord, RewrapJobRecord};
use crate::storage::{Table, Transaction, tables};
use std::collections::BTreeMap;

/// What a change moves, and where to.
pub(crate) struct Moving<'a> {
    pub(crate) sources: &'a [EpochNumber],
    pub(crate) target: EpochNumber,
    pub(crate) target_key: &'a KeyName,
    pub(crate) cause: &'a EpochCause,
    /// Keys that are disabled when nothing is under them any more.
    pub(crate) disabling: &'a [KeyName],
}

/// Starts the job that a change calls for, or gives the running one more to do. `None` when there is nothing to do.
pub(crate) fn start_for(
    scope: &Scope,
    transaction: &mut Transaction<'_>,
    head: &mut HeadRecord,
    moving: &Moving<'_>,
    running: Option<RewrapJobRecord>,
    at_ms: u64,
) -> Result<Option<u64>> {
    if moving.sources.is_empty() {
        return match running {
            Some(_) => Ok(None),
            None => start_for_second(scope, transaction, head),
        };
    }
    let mut wraps = BTreeMap::new();
    for live in &head.live_epochs {
        wraps.insert(live.epoch, epoch::read(transaction, scope.org, live.epoch)?);
    }
    let target = Target {
        epoch: moving.target,
        key: moving.target_key.to_string(),
    };
    let needs_hand_over = |epoch: EpochNumber, key: &str| {
        wraps
            .get(&epoch)
            .is_some_and(|record| !epoch::belongs_to(record, &KeyName::stored(key)))
    };
    let before = running.as_ref().map_or(&[][..], |job| &job.sources);
    let sources = plan::merge(before, moving.sources, &target, needs_hand_over);
    let mut disabling = running
        .as_ref()
        .map_or_else(Vec::new, |job| job.disabling.clone());
    disabling.extend(moving.disabling.iter().map(KeyName::to_string));
    let job = RewrapJobRecord {
        number: running.as_ref().map_or(head.next_job, |job| job.number),
        started_at_ms: running.as_ref().map_or(at_ms, |job| job.started_at_ms),
        finished_at_ms: None,
        actor: scope.by.actor.clone(),
        reason: scope.by.reason.clone(),
        cause: moving.cause.clone(),
        sources,
        disabling,
        cursor: None,
        blocked: None,
        done: running.as_ref().map_or(0, |job| job.done),
        failed: 0,
        batches: running.as_ref().map_or(0, |job| job.batches),
    };
    put(scope, transaction, head, job, at_ms)
}

/// Starts a job that moves nothing and lasts until the second key wraps every live epoch; the one that runs does that too.
/// `None` when nothing is missing.
pub(crate) fn start_for_second(
    scope: &Scope,
    transaction: &mut Transaction<'_>,
    head: &mut HeadRecord,
) -> Result<Option<u64>> {
    if second::missing(scope, transaction, head)?.is_none() {
        return Ok(None);
    }
    if let Some(running) = scope.running_job(transaction)? {
        return Ok(Some(running.number));
    }
    let at_ms = now_ms(scope.env());
    let job = RewrapJobRecord {
        number: head.next_job,
        started_at_ms: at_ms,
        finished_at_ms: None,
        actor: scope.by.actor.clone(),
        reason: scope.by.reason.clone(),
        cause: EpochCause::SetDefault,
        sources: Vec::new(),
        disabling: Vec::new(),
        cursor: None,
        blocked: None,
        done: 0,
        failed: 0,
        batches: 0,
    };
    put(scope, transaction, head, job, at_ms)
}

/// Writes a job that begins, or one that has taken on more, and its audit record.
fn put(
    scope: &Scope,
    transaction: &mut Transaction<'_>,
    head: &mut HeadRecord,
    job: RewrapJobRecord,
    at_ms: u64,
) -> Result<Option<u64>> {
    head.next_job = head.next_job.max(job.number.saturating_add(1));
    let moves = job
        .sources
        .iter()
        .map(|source| (source.epoch, source.target))
        .collect();
    let event = AuditEvent::RewrapStarted {
        job: job.number,
        moves,
    };
    audit::append(transaction, scope.org, head, &scope.by, at_ms, event)?;
    transaction.remove(Table::RewrapJobs, &tables::rewrap_job(scope.org, true))?;
    transaction.put_record(&tables::rewrap_job(scope.org, false), &job)?;
    Ok(Some(job.number))
}
