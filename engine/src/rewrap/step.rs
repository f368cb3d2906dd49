//! One step of a re-wrap job: hand over what waits for it, move batches of data keys, retire what is empty.
//!
//! A step does what can be done now and says what stands in its way. Everything it does is committed with the job's own
//! record, so a crash anywhere repeats nothing: a batch is there with its cursor, or neither is.

use crate::audit::{self, Attribution, AuditEvent};
use crate::crypto::{Cipher, wiping_stack};
use crate::env::now_ms;
use crate::error::{Error, Result};
use crate::keyring::cache::EpochKey;
use crate::keyring::data_key::{self, DataKeyPlace};
use crate::keyring::hand_over::OutOfReach;
use crate::keyring::{epoch, hand_over, read_key, second};
use crate::mutant::{Mutant, planted};
use crate::names::{EpochNumber, KeyName, Version};
use crate::rewrap::retire::{Retired, check_counts, retire_empty};
use crate::scope::Scope;
use crate::storage::records::{DataKeyRow, HeadRecord, RewrapJobRecord, SourceRecord, SourceState};
use crate::storage::{Rows, Table, Transaction, tables};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// Rows that one batch looks at, of which it may move none.
const SCANNED_PER_BATCH: usize = 65_536;

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more to do.
    Progress,
    /// Nothing more can be done now, for this reason.
    Blocked(String),
    /// The job is done, or there is none.
    Finished,
}

/// Does one step of the organization's job. `moved` is told after each batch. What it fails with is written down as what the job
/// waits for: whoever looks at its status would see nothing else of it.
pub(crate) fn step(scope: &Scope, moved: &dyn Fn()) -> Result<Step> {
    let _turn = scope.core.rewrap_steps.lock(scope.org);
    let outcome = go_on(scope, moved);
    if let Err(error) = &outcome
        && let Err(unnoted) = note_obstacle(scope, &error.to_string())
    {
        // After some errors the store takes no more changes.
        tracing::debug!(organization = %scope.organization, %unnoted, "a job's status does not tell why it waits");
    }
    outcome
}

fn go_on(scope: &Scope, moved: &dyn Fn()) -> Result<Step> {
    let Some(job) = scope.running_job(&*scope.snapshot())? else {
        return Ok(Step::Finished);
    };
    let by = Attribution {
        actor: job.actor.clone(),
        reason: job.reason.clone(),
    };
    let scope = &scope.acting(by);

    let mut obstacles = Vec::new();
    hand_over_waiting(scope, &mut obstacles)?;
    second::wrap_missing(scope, &mut obstacles)?;
    let Some(job) = scope.running_job(&*scope.snapshot())? else {
        return Ok(Step::Finished);
    };

    let mover = Mover::new(scope, &job, &mut obstacles)?;
    if !mover.routes.is_empty() {
        match mover.move_batches(scope, &job, moved)? {
            Moved::More => return Ok(Step::Progress),
            Moved::JobChanged => return Ok(Step::Progress),
            Moved::PassEnded { failed: 0 } => {}
            Moved::PassEnded { failed } => obstacles.push(format!(
                "{failed} data keys do not open; `verify` names them; destroy those versions, and the job goes on"
            )),
        }
    }
    match retire_empty(scope)? {
        Retired::All => return Ok(Step::Finished),
        Retired::Some => return Ok(Step::Progress),
        Retired::None => {}
    }
    if obstacles.is_empty() {
        check_counts(scope)?;
        return Ok(Step::Progress);
    }
    let reason = obstacles.join("; ");
    note_obstacle(scope, &reason)?;
    Ok(Step::Blocked(reason))
}

/// Wraps by the target's KMS the epochs that only the old KMS wraps yet.
fn hand_over_waiting(scope: &Scope, obstacles: &mut Vec<String>) -> Result<()> {
    let mut out_of_reach = OutOfReach::default();
    let mut done = EpochNumber(0);
    loop {
        // A turn for each of them: a change of keys that waits comes between.
        let _turn = scope.core.key_changes.lock(scope.org);
        let snapshot = scope.snapshot();
        let Some(job) = scope.running_job(&*snapshot)? else {
            return Ok(());
        };
        let head = scope.head(&*snapshot)?;
        // An epoch to which nothing refers needs no new wrap: it is about to be retired.
        let waits = |source: &&SourceRecord| {
            source.state == SourceState::HandOver
                && (head.references(source.epoch) > 0 || head.active_epoch == source.epoch)
        };
        let behind = |source: &&SourceRecord| source.epoch > done;
        let waiting = job.sources.iter().filter(waits).filter(behind);
        let Some(source) = waiting.min_by_key(|source| source.epoch) else {
            return Ok(());
        };
        done = source.epoch;
        let record = epoch::read(&*snapshot, scope.org, source.epoch)?;
        drop(snapshot);
        if out_of_reach.wraps(&record) || out_of_reach.is_target(&source.target_key) {
            continue;
        }
        let outcome = hand_over_one(scope, job.number, source)
            .inspect_err(|error| out_of_reach.note(&record, &source.target_key, error));
        match outcome {
            Ok(()) => {}
            Err(error) if error.is_obstacle() => obstacles.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
}

fn hand_over_one(scope: &Scope, job_number: u64, source: &SourceRecord) -> Result<()> {
    let to = read_key(
        &*scope.snapshot(),
        scope.org,
        &scope.organization,
        &KeyName::stored(&source.target_key),
    )?;
    let (unwrapped, began) = hand_over::unwrap_for_hand_over(scope, source.epoch)?;
    let handed = Arc::new(hand_over::hand_over(scope, source.epoch, &to, unwrapped, began)?);
    let (own, epoch, apply) = (scope.clone(), source.epoch, Arc::clone(&handed));
    scope.core.committer.submit(move |transaction| {
        let mut head = own.head(transaction)?;
        let Some(mut job) = own
            .running_job(transaction)?
            .filter(|job| job.number == job_number)
        else {
            return Ok(());
        };
        hand_over::apply_hand_over(&own, transaction, &mut head, &apply, &own.by)?;
        for source in job.sources.iter_mut().filter(|source| source.epoch == epoch) {
            source.state = SourceState::Rewrap;
        }
        // Its data keys may lie behind the cursor: the pass begins again.
        job.cursor = None;
        job.failed = 0;
        transaction.put_record(&tables::rewrap_job(own.org, false), &job)?;
        own.put_head(transaction, &head)
    })?;
    handed.cache(scope);
    Ok(())
}

/// Where the data keys of a source go, with both keys at hand.
struct Route {
    from: Arc<EpochKey>,
    to: Arc<EpochKey>,
}

/// Moves data keys along its routes.
struct Mover {
    routes: BTreeMap<EpochNumber, Route>,
}

enum Moved {
    More,
    /// The cursor came to the end; so many data keys did not open.
    PassEnded {
        failed: u64,
    },
    JobChanged,
}

/// Data keys that were opened and sealed outside of any transaction.
struct Batch {
    rows: Vec<Moving>,
    failed: u64,
    /// True for the first batch of a pass.
    begins_pass: bool,
    /// The last row looked at; `None` when the scan came to the end.
    cursor: Option<(u64, Version)>,
}

struct Moving {
    key: [u8; 16],
    old: [u8; DataKeyRow::BYTES],
    new: [u8; DataKeyRow::BYTES],
    from: EpochNumber,
    to: EpochNumber,
}

impl Mover {
    fn new(scope: &Scope, job: &RewrapJobRecord, obstacles: &mut Vec<String>) -> Result<Self> {
        let head = scope.head(&*scope.snapshot())?;
        let mut routes = BTreeMap::new();
        for source in job
            .sources
            .iter()
            .filter(|source| source.state == SourceState::Rewrap)
        {
            if head.references(source.epoch) == 0 {
                continue;
            }
            let keys = scope
                .epoch_key(source.epoch)
                .and_then(|from| Ok((from, scope.epoch_key(source.target)?)));
            match keys {
                Ok((from, to)) => {
                    routes.insert(source.epoch, Route { from, to });
                }
                Err(error) if error.is_obstacle() => obstacles.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(Self { routes })
    }

    /// While one batch is being committed the next one is opened and sealed on all cores.
    fn move_batches(&self, scope: &Scope, job: &RewrapJobRecord, moved: &dyn Fn()) -> Result<Moved> {
        let mut failed = if job.cursor.is_none() { 0 } else { job.failed };
        let mut prepared = self.prepare(scope, job.cursor)?;
        let batches = scope.core.limits.rewrap_batches_per_step;
        for number in 1..=batches {
            let cursor = prepared.cursor;
            failed += prepared.failed;
            let batch = Arc::new(prepared);
            let (committed, next) = std::thread::scope(|threads| {
                let ahead = cursor.filter(|_| number < batches);
                let ahead = ahead.map(|cursor| beside(threads, move || self.prepare(scope, Some(cursor))));
                let committed = commit_batch(scope, job.number, &batch);
                (committed, ahead.map(|ahead| ahead()))
            });
            if !committed? {
                return Ok(Moved::JobChanged);
            }
            moved();
            match next {
                None if cursor.is_none() => return Ok(Moved::PassEnded { failed }),
                None => break,
                Some(next) => prepared = next?,
            }
        }
        Ok(Moved::More)
    }

    /// Reads a batch from a snapshot, opens and seals it.
    fn prepare(&self, scope: &Scope, after: Option<(u64, Version)>) -> Result<Batch> {
        let (found, cursor) = self.find(scope, after)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        let share = found.len().div_ceil(threads).max(256);
        let (here, others) = found.split_at(share.min(found.len()));
        let parts = std::thread::scope(|spawn| {
            let working: Vec<_> = others
                .chunks(share)
                .map(|part| beside(spawn, move || wiping_stack(|| self.seal(scope, part))))
                .collect();
            let mut parts = vec![self.seal(scope, here)];
            parts.extend(working.into_iter().map(|part| part()));
            parts.into_iter().collect::<Result<Vec<_>>>()
        })?;
        let mut batch = Batch {
            rows: Vec::with_capacity(found.len()),
            failed: 0,
            begins_pass: after.is_none(),
            cursor,
        };
        for (rows, failed) in parts {
            batch.rows.extend(rows);
            batch.failed += failed;
        }
        Ok(batch)
    }

    #[allow(clippy::type_complexity, reason = "rows and the cursor behind them")]
    fn find(
        &self,
        scope: &Scope,
        after: Option<(u64, Version)>,
    ) -> Result<(Vec<([u8; 16], DataKeyRow)>, Option<(u64, Version)>)> {
        let batch = scope.core.limits.rewrap_batch;
        let mut found = Vec::with_capacity(batch);
        let mut scanned = 0;
        let mut cursor = None;
        let from = after.map(|(secret, version)| tables::version(scope.org, secret, version));
        let first = tables::organization(scope.org);
        let from = from
            .as_ref()
            .map_or(Bound::Included(&first[..]), |key| Bound::Excluded(&key[..]));
        let to = tables::after_prefix(&first);
        scope
            .snapshot()
            .scan(Table::DataKeys, from, to.as_deref(), |key, row| {
                let row = DataKeyRow::decode(row)?;
                if self.routes.contains_key(&row.epoch) {
                    let key = key
                        .try_into()
                        .map_err(|_| Error::damaged("a data key", "its row's key has the wrong length"))?;
                    found.push((key, row));
                }
                scanned += 1;
                if found.len() >= batch || scanned >= SCANNED_PER_BATCH {
                    cursor = tables::parse_version(key).map(|(_, secret, version)| (secret, version));
                    return Ok(ControlFlow::Break(()));
                }
                Ok(ControlFlow::Continue(()))
            })?;
        Ok((found, cursor))
    }

    fn seal(&self, scope: &Scope, part: &[([u8; 16], DataKeyRow)]) -> Result<(Vec<Moving>, u64)> {
        let mut ciphers: BTreeMap<EpochNumber, (Cipher, Cipher)> = BTreeMap::new();
        let mut nonces = vec![0; part.len() * 12];
        scope.env().fill_random(&mut nonces).map_err(Error::Randomness)?;
        let mut failed = 0;
        let mut rows = Vec::with_capacity(part.len());
        for ((key, old), nonce) in part.iter().zip(nonces.as_chunks::<12>().0) {
            let route = &self.routes[&old.epoch];
            let (from, to) = ciphers
                .entry(old.epoch)
                .or_insert_with(|| (route.from.cipher(), route.to.cipher()));
            let opened = tables::parse_version(key).and_then(|(org, secret_id, version)| {
                let place = DataKeyPlace {
                    store: scope.store(),
                    org,
                    secret_id,
                    version,
                };
                Some((place, data_key::open(from, &place, old)?))
            });
            let Some((place, data_key)) = opened else {
                failed += 1;
                continue;
            };
            let new = data_key::seal_with_nonce(to, route.to.epoch, &place, &data_key, *nonce);
            rows.push(Moving {
                key: *key,
                old: old.encode(),
                new: new.encode(),
                from: old.epoch,
                to: new.epoch,
            });
        }
        Ok((rows, failed))
    }
}

/// Does `work` on a thread of its own; where the system starts no further one, on the caller's, when it asks for the outcome.
fn beside<'scope, T: Send + 'scope>(
    threads: &'scope std::thread::Scope<'scope, '_>,
    work: impl Fn() -> T + Copy + Send + 'scope,
) -> impl FnOnce() -> T {
    let started = std::thread::Builder::new().spawn_scoped(threads, work);
    move || match started {
        Ok(thread) => thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(_) => work(),
    }
}

/// The short swap: each row that is still as it was read gets its new wrap; cursor, counts and one audit record go with it.
/// Says whether the job was still the same.
fn commit_batch(scope: &Scope, job_number: u64, batch: &Arc<Batch>) -> Result<bool> {
    let (own, batch) = (scope.clone(), Arc::clone(batch));
    let rows = Arc::clone(&batch);
    let committed = scope.core.committer.submit(move |transaction| {
        let Some(mut job) = own
            .running_job(transaction)?
            .filter(|job| job.number == job_number)
        else {
            return Ok(false);
        };
        let routes: BTreeSet<(EpochNumber, EpochNumber)> = job
            .sources
            .iter()
            .map(|source| (source.epoch, source.target))
            .collect();
        if batch.rows.iter().any(|row| !routes.contains(&(row.from, row.to))) {
            return Ok(false);
        }
        let mut head = own.head(transaction)?;
        for target in batch.rows.iter().map(|row| row.to).collect::<BTreeSet<_>>() {
            let more = batch.rows.iter().filter(|row| row.to == target).count();
            if head.live_epoch(target)?.wraps.saturating_add(more as u64)
                > own.core.limits.wraps_per_epoch_max
            {
                let organization = own.organization.clone();
                return Err(Error::EpochExhausted {
                    organization,
                    epoch: target,
                });
            }
        }
        let moved = match planted(Mutant::CursorBeforeRows) {
            true => batch.rows.len() as u64,
            false => move_rows(transaction, &mut head, &batch)?,
        };
        job.cursor = batch.cursor;
        job.done += moved;
        job.failed = batch.failed + if batch.begins_pass { 0 } else { job.failed };
        job.blocked = None;
        if moved + batch.failed > 0 {
            job.batches += 1;
            let event = AuditEvent::RewrapBatch {
                job: job.number,
                batch: job.batches,
                moved,
                failed: batch.failed,
            };
            audit::append(transaction, own.org, &mut head, &own.by, now_ms(own.env()), event)?;
            own.put_head(transaction, &head)?;
        }
        transaction.put_record(&tables::rewrap_job(own.org, false), &job)?;
        Ok(true)
    })?;
    if planted(Mutant::CursorBeforeRows) {
        let own = scope.clone();
        scope.core.committer.submit(move |transaction| {
            let mut head = own.head(transaction)?;
            move_rows(transaction, &mut head, &rows)?;
            own.put_head(transaction, &head)
        })?;
    }
    Ok(committed)
}

/// Gives each row that is still as it was read its new wrap; says how many there were.
fn move_rows(transaction: &mut Transaction<'_>, head: &mut HeadRecord, batch: &Batch) -> Result<u64> {
    let mut moved = 0;
    for row in &batch.rows {
        if transaction.replace(Table::DataKeys, &row.key, &row.old, &row.new)? {
            moved += 1;
            head.drop_reference(row.from)?;
            head.add_reference(row.to)?;
        }
    }
    Ok(moved)
}

/// What a step came to that panicked: the job waits, and says so. What the panic said may be anybody's secret.
pub(crate) fn note_panic(scope: &Scope) -> Result<Step> {
    let reason = "a step of it panicked, which is a bug: report it with what the application printed";
    note_obstacle(scope, reason)?;
    Ok(Step::Blocked(reason.into()))
}

/// Writes down why the job waits, once.
fn note_obstacle(scope: &Scope, reason: &str) -> Result<()> {
    let known = scope
        .running_job(&*scope.snapshot())?
        .is_none_or(|job| job.blocked.as_deref() == Some(reason));
    if known {
        return Ok(());
    }
    let (scope, reason) = (scope.clone(), reason.to_owned());
    scope.core.committer.clone().submit(move |transaction| {
        if let Some(mut job) = scope.running_job(transaction)? {
            job.blocked = Some(reason.clone());
            transaction.put_record(&tables::rewrap_job(scope.org, false), &job)?;
        }
        Ok(())
    })
}
