//! The end of a re-wrap job: sources to which no data key refers are retired, keys that wrap nothing any more are disabled, and
//! the job is done when no source is left.

use crate::audit::{self, AuditEvent};
use crate::env::now_ms;
use crate::error::{Error, Result};
use crate::keyring::{change, epoch, second};
use crate::mutant::{Mutant, planted};
use crate::names::{EpochNumber, KeyName};
use crate::scope::Scope;
use crate::storage::records::{DataKeyRow, HeadRecord, KeyState, RewrapJobRecord, SourceState};
use crate::storage::{Rows, Table, Transaction, tables};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// What a look for empty sources came to.
pub(super) enum Retired {
    None,
    Some,
    /// No source is left: the job is done.
    All,
}

/// Retires the sources to which no data key refers: by the count, and by a scan.
pub(super) fn retire_empty(scope: &Scope) -> Result<Retired> {
    let _turn = scope.core.key_changes.lock(scope.org);
    let snapshot = scope.snapshot();
    let Some(job) = scope.running_job(&*snapshot)? else {
        return Ok(Retired::All);
    };
    let head = scope.head(&*snapshot)?;
    let empty: Vec<EpochNumber> = job
        .sources
        .iter()
        .filter(|source| source.state != SourceState::Retired && is_empty(&head, source.epoch))
        .map(|source| source.epoch)
        .collect();
    let nothing_moves = job
        .sources
        .iter()
        .all(|source| source.state == SourceState::Retired);
    if empty.is_empty() && (!nothing_moves || second::missing(scope, &*snapshot, &head)?.is_some()) {
        return Ok(Retired::None);
    }
    // The source takes no new data keys, so what this snapshot shows stays so.
    snapshot.scan_prefix(Table::DataKeys, &tables::organization(scope.org), |key, row| {
        let epoch = DataKeyRow::decode(row)?.epoch;
        if empty.contains(&epoch) && !planted(Mutant::RetiredUnscanned) {
            let at = tables::parse_version(key).map_or_else(String::new, |(_, secret, v)| {
                format!(" (secret {secret}, version {v})")
            });
            let reason = format!("its count is 0, but a data key refers to it{at}");
            return Err(Error::damaged(
                format!("epoch {epoch} of organization {:?}", scope.organization),
                reason,
            ));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    drop(snapshot);

    let number = job.number;
    let own = scope.clone();
    let (retired, finished) = scope.core.committer.submit(move |transaction| {
        let mut head = own.head(transaction)?;
        let Some(mut job) = own.running_job(transaction)?.filter(|job| job.number == number) else {
            return Ok((Vec::new(), false));
        };
        let mut retired = Vec::new();
        for source in job
            .sources
            .iter_mut()
            .filter(|source| empty.contains(&source.epoch))
        {
            if is_empty(&head, source.epoch) && head.active_epoch != source.epoch {
                retire(&own, transaction, &mut head, source.epoch)?;
                source.state = SourceState::Retired;
                retired.push(source.epoch);
            }
        }
        disable_unused_keys(&own, transaction, &mut head, &mut job)?;
        let finished = finish_if_done(&own, transaction, &mut head, job)?;
        own.put_head(transaction, &head)?;
        Ok((retired, finished))
    })?;
    for epoch in &retired {
        scope.core.keyring.cache.evict((scope.org, *epoch));
    }
    Ok(match (finished, retired.is_empty()) {
        (true, _) => Retired::All,
        (false, false) => Retired::Some,
        (false, true) => Retired::None,
    })
}

/// For when all that moves has moved and no source became empty: then either more data keys came to be, or a source's count is
/// larger than its rows, and will never be 0.
pub(super) fn check_counts(scope: &Scope) -> Result<()> {
    let snapshot = scope.snapshot();
    let Some(job) = scope.running_job(&*snapshot)? else {
        return Ok(());
    };
    let head = scope.head(&*snapshot)?;
    let mut found: BTreeMap<EpochNumber, u64> = job
        .sources
        .iter()
        .filter(|source| source.state != SourceState::Retired)
        .map(|source| (source.epoch, 0))
        .collect();
    snapshot.scan_prefix(Table::DataKeys, &tables::organization(scope.org), |_, row| {
        if let Some(count) = found.get_mut(&DataKeyRow::decode(row)?.epoch) {
            *count += 1;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for (epoch, rows) in found {
        let count = head.references(epoch);
        if count != rows {
            return Err(Error::damaged(
                format!("epoch {epoch} of organization {:?}", scope.organization),
                format!("its count is {count}, but {rows} data keys refer to it"),
            ));
        }
    }
    Ok(())
}

fn is_empty(head: &HeadRecord, epoch: EpochNumber) -> bool {
    head.references(epoch) == 0 || planted(Mutant::RetiredUnscanned)
}

fn retire(
    scope: &Scope,
    transaction: &mut Transaction<'_>,
    head: &mut HeadRecord,
    number: EpochNumber,
) -> Result<()> {
    let at_ms = now_ms(scope.env());
    let mut record = epoch::read(transaction, scope.org, number)?;
    epoch::drop_wraps(transaction, &std::mem::take(&mut record.wraps))?;
    record.retired_at_ms = Some(at_ms);
    epoch::write(transaction, scope.org, number, &record)?;
    head.live_epochs.retain(|live| live.epoch != number);
    audit::append(
        transaction,
        scope.org,
        head,
        &scope.by,
        at_ms,
        AuditEvent::EpochRetired { epoch: number },
    )
}

/// A key on its way to be disabled is disabled as soon as no epoch is wrapped by it.
fn disable_unused_keys(
    scope: &Scope,
    transaction: &mut Transaction<'_>,
    head: &mut HeadRecord,
    job: &mut RewrapJobRecord,
) -> Result<()> {
    let mut in_use = BTreeSet::new();
    for live in &head.live_epochs {
        in_use.extend(
            epoch::read(transaction, scope.org, live.epoch)?
                .wraps
                .into_iter()
                .map(|wrap| wrap.key),
        );
    }
    let (waiting, unused): (Vec<_>, Vec<_>) = std::mem::take(&mut job.disabling)
        .into_iter()
        .partition(|key| in_use.contains(key));
    job.disabling = waiting;
    for key in unused {
        change::set_key_state(scope, transaction, &KeyName::stored(&key), KeyState::Disabled)?;
        let event = AuditEvent::KeyDisabled { key };
        audit::append(
            transaction,
            scope.org,
            head,
            &scope.by,
            now_ms(scope.env()),
            event,
        )?;
    }
    Ok(())
}

fn finish_if_done(
    scope: &Scope,
    transaction: &mut Transaction<'_>,
    head: &mut HeadRecord,
    mut job: RewrapJobRecord,
) -> Result<bool> {
    let running = tables::rewrap_job(scope.org, false);
    if job
        .sources
        .iter()
        .any(|source| source.state != SourceState::Retired)
        || second::missing(scope, transaction, head)?.is_some()
    {
        transaction.put_record(&running, &job)?;
        return Ok(false);
    }
    let at_ms = now_ms(scope.env());
    job.finished_at_ms = Some(at_ms);
    job.blocked = None;
    let event = AuditEvent::RewrapFinished {
        job: job.number,
        done: job.done,
    };
    audit::append(transaction, scope.org, head, &scope.by, at_ms, event)?;
    transaction.remove(Table::RewrapJobs, &running)?;
    transaction.put_record(&tables::rewrap_job(scope.org, true), &job)?;
    Ok(true)
}
