//! The second key: it wraps every live epoch beside the key that the epoch belongs to, so that an outage of either KMS is
//! survived.
//!
//! What it is: a registered key in a state of its own ([`KeyState::Second`], [`KeyState::SecondEither`]). What it wraps: each
//! live epoch; the wrap stands behind the one of the epoch's own key, and a hand-over leaves it where it is. What is missing
//! (its KMS was out of reach when an epoch was opened) the organization's re-wrap job adds, which is not done before.
//!
//! Who is asked: the epoch's own key first. Where it does not answer, for whatever reason but one, the second key. The one
//! reason is revocation, which is honoured whichever key is asked; of a key that is [`KeyState::SecondEither`] the owner has said
//! otherwise.

use crate::audit::{self, AuditEvent};
use crate::env::{Env, now_ms};
use crate::error::{Error, Result};
use crate::keyring::change::{self, enabled_key, live_epochs, set_key_state};
use crate::keyring::epoch::{self, EpochPlace};
use crate::keyring::hand_over::{OutOfReach, unwrap_for_hand_over};
use crate::keyring::registry::RegisteredKey;
use crate::keyring::{job, read_key};
use crate::mutant::{Mutant, planted};
use crate::names::{EpochNumber, KeyName, OrganizationId};
use crate::scope::Scope;
use crate::storage::commit::lock;
use crate::storage::records::{EpochRecord, HeadRecord, KeyRecord, KeyState};
use crate::storage::{Rows, Transaction, tables};
use keystead_backend::{ErrorClass, Wrapped};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Epochs that become wrapped in the change itself; the job does the others.
const WRAPS_PER_CHANGE: usize = 1000;

/// An organization's second key, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecondKey {
    /// The registered key.
    pub key: String,
    /// True when revoking one of the two keys is not enough: the other opens the epochs alone.
    pub either_opens: bool,
    /// Live epochs that it wraps.
    pub wrapped: u64,
    /// Live epochs that it does not wrap yet; the organization's re-wrap job goes on until there are none.
    pub missing: u64,
    /// Why the job waits, if it does.
    pub blocked: Option<String>,
    /// Set while one key serves because another does not answer: as this process last saw it.
    pub standing_in: Option<StandingIn>,
}

/// One key serves because another does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StandingIn {
    /// The key that serves.
    pub key: String,
    /// Since when: milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// What the other key met, in the words of the error.
    pub because: String,
}

/// The second key of an organization, and its state; `None` where there is none.
pub(crate) fn second_key(rows: &impl Rows, scope: &Scope) -> Result<Option<(KeyName, KeyState)>> {
    Ok(change::keys(rows, scope)?
        .into_iter()
        .map(|(name, record)| (name, record.state))
        .find(|(_, state)| state.is_second()))
}

/// True when the owner has said that either of the keys that wrap this epoch opens it, also when the other is revoked. A row that
/// cannot be read says no such thing.
pub(crate) fn either_opens(rows: &impl Rows, org: OrganizationId, record: &EpochRecord) -> bool {
    record.wraps.iter().any(|wrap| {
        let key: Result<Option<KeyRecord>> = rows.record(&tables::with_name(org, &wrap.key));
        matches!(key, Ok(Some(key)) if key.state == KeyState::SecondEither)
    })
}

/// Whether the next key is asked after this one failed so.
pub(crate) fn asks_on(error: &Error, either_opens: bool) -> bool {
    match error {
        Error::Kms { .. } if planted(Mutant::SecondNotAsked) => false,
        Error::Kms { source, .. } => {
            source.code.class() != ErrorClass::Revoked || either_opens || planted(Mutant::SecondOpensRevoked)
        }
        Error::BackendNotRegistered { .. } | Error::KeyNotFound { .. } | Error::Damaged { .. } => true,
        _ => false,
    }
}

/// Of what two keys met, the one to report, with the other's words in it: an outage, which ends; else the first.
pub(crate) fn worse(first: Option<Error>, second: Error) -> Error {
    let Some(first) = first else { return second };
    let (mut told, other) = if is_outage(&second) && !is_outage(&first) {
        (second, first)
    } else {
        (first, second)
    };
    if let Error::Kms { source, .. } = &mut told {
        source.message = format!("{}; and the other key that wraps it: {other}", source.message);
    }
    told
}

fn is_outage(error: &Error) -> bool {
    matches!(error, Error::Kms { source, .. } if source.code.class() == ErrorClass::Retryable)
}

/// Where one key stands in for another, as this process last saw it. Bounded.
pub(crate) struct StandIns {
    env: Arc<dyn Env>,
    most: usize,
    known: Mutex<HashMap<OrganizationId, StandingIn>>,
}

impl StandIns {
    pub(crate) fn new(env: Arc<dyn Env>, most: usize) -> Self {
        Self {
            env,
            most,
            known: Mutex::default(),
        }
    }

    /// Notes which key answered, and what kept the one that was asked before it.
    pub(crate) fn answered(&self, key: &RegisteredKey, refused: Option<Error>) {
        let org = key.org;
        let mut known = lock(&self.known);
        let Some(refused) = refused else {
            known.remove(&org);
            return;
        };
        tracing::warn!(organization = %key.organization, key = %key.name, %refused, "a second key stands in for one that does not answer");
        let now = StandingIn {
            key: key.name.to_string(),
            since_ms: now_ms(&*self.env),
            because: refused.to_string(),
        };
        if known.len() >= self.most && !known.contains_key(&org) {
            known.clear();
        }
        known
            .entry(org)
            .and_modify(|old| old.because.clone_from(&now.because))
            .or_insert(now);
    }

    fn of(&self, org: OrganizationId) -> Option<StandingIn> {
        lock(&self.known).get(&org).cloned()
    }
}

/// How the second key stands; `None` where there is none. Calls no KMS.
pub(crate) fn status(scope: &Scope) -> Result<Option<SecondKey>> {
    let snapshot = scope.snapshot();
    let Some((key, state)) = second_key(&*snapshot, scope)? else {
        return Ok(None);
    };
    let records = live_epochs(scope, &*snapshot, &scope.head(&*snapshot)?)?;
    let wrapped = records
        .values()
        .filter(|record| epoch::is_wrapped_by(record, &key))
        .count();
    let job = scope.running_job(&*snapshot)?;
    Ok(Some(SecondKey {
        key: key.to_string(),
        either_opens: state == KeyState::SecondEither,
        wrapped: wrapped as u64,
        missing: (records.len() - wrapped) as u64,
        blocked: job.and_then(|job| job.blocked),
        standing_in: scope.core.keyring.standing_in.of(scope.org),
    }))
}

/// Makes a registered key the second key, and has it wrap every live epoch. Returns the job that does what could not be done
/// at once.
pub(crate) fn set(scope: &Scope, name: &KeyName, either_opens: bool) -> Result<Option<u64>> {
    let _turn = scope.core.key_changes.lock(scope.org);
    let key = enabled_key(scope, name, DOING)?;
    let snapshot = scope.snapshot();
    let head = scope.head(&*snapshot)?;
    let records = live_epochs(scope, &*snapshot, &head)?;
    let second = second_key(&*snapshot, scope)?;
    drop(snapshot);
    let refuse = |reason: String| {
        Err(Error::KeyRefused {
            organization: scope.organization.clone(),
            key: name.clone(),
            doing: DOING,
            reason,
        })
    };
    if let Some((other, _)) = second {
        return refuse(format!(
            "key {:?} is the second key; remove it first",
            other.as_str()
        ));
    }
    if name.as_str() == KeyName::MANAGED {
        return refuse(
            "with the managed key beside it, revoking the organization's own key would take nothing away"
                .into(),
        );
    }
    if head.default_key == name.as_str() {
        return refuse("it is the default key; a second key beside itself survives no outage".into());
    }
    if records.values().any(|record| epoch::belongs_to(record, name)) {
        return refuse("epochs belong to it still; re-wrap them to the default key first".into());
    }
    scope.core.keyring.probe(&key)?;
    let (mut made, mut out_of_reach) = (Vec::new(), OutOfReach::default());
    for (epoch, record) in records.iter().take(WRAPS_PER_CHANGE) {
        if out_of_reach.wraps(record) {
            continue;
        }
        match unwrap_for_hand_over(scope, *epoch) {
            Ok(((_, epoch_key), _)) => {
                made.push((*epoch, scope.core.keyring.wrap(&key, *epoch, &epoch_key)?));
            }
            Err(error) if error.is_obstacle() => {
                out_of_reach.note(record, name.as_str(), &error);
                tracing::warn!(organization = %scope.organization, %epoch, %error, "an epoch waits for its second wrap");
            }
            Err(error) => return Err(error),
        }
    }
    let state = if either_opens {
        KeyState::SecondEither
    } else {
        KeyState::Second
    };
    let (own, name) = (scope.clone(), name.clone());
    scope.core.committer.clone().submit(move |transaction| {
        let mut head = own.head(transaction)?;
        set_key_state(&own, transaction, &name, state)?;
        let event = AuditEvent::SecondKeySet {
            key: name.to_string(),
            either_opens,
        };
        audit::append(transaction, own.org, &mut head, &own.by, now_ms(own.env()), event)?;
        for (epoch, wrapped) in &made {
            add_wrap(&own, transaction, &mut head, &name, *epoch, wrapped)?;
        }
        let job = job::start_for_second(&own, transaction, &mut head)?;
        own.put_head(transaction, &head)?;
        Ok(job)
    })
}

const DOING: &str = "make the second key";

/// The second key is one like the others again; its wraps are erased as soon as that is durable. Calls no KMS.
pub(crate) fn remove(scope: &Scope) -> Result<()> {
    let _turn = scope.core.key_changes.lock(scope.org);
    let own = scope.clone();
    scope.core.committer.clone().submit(move |transaction| {
        let Some((name, _)) = second_key(transaction, &own)? else {
            return Err(Error::InvalidArgument {
                what: "removing the second key",
                reason: format!("organization {:?} has none", own.organization),
            });
        };
        let mut head = own.head(transaction)?;
        for (epoch, mut record) in live_epochs(&own, transaction, &head)? {
            if epoch::belongs_to(&record, &name) {
                // A salvage found no other wrap of it whole.
                return Err(Error::KeyRefused {
                    organization: own.organization.clone(),
                    key: name,
                    doing: "remove as the second key",
                    reason: format!("it alone wraps epoch {epoch}; re-wrap that to the default key first"),
                });
            }
            let (gone, kept) = std::mem::take(&mut record.wraps)
                .into_iter()
                .partition::<Vec<_>, _>(|wrap| wrap.key == name.as_str());
            if gone.is_empty() || planted(Mutant::SecondWrapKept) {
                continue;
            }
            record.wraps = kept;
            epoch::drop_wraps(transaction, &gone)?;
            epoch::write(transaction, own.org, epoch, &record)?;
        }
        set_key_state(&own, transaction, &name, KeyState::Enabled)?;
        let event = AuditEvent::SecondKeyRemoved {
            key: name.to_string(),
        };
        audit::append(transaction, own.org, &mut head, &own.by, now_ms(own.env()), event)?;
        own.put_head(transaction, &head)
    })
}

/// The wrap of a new epoch's key by the second key. Two KMS calls where there is one. That its KMS is out of reach does not keep
/// an organization from changing its keys: the job adds the wrap later.
pub(crate) fn wrap_new(
    scope: &Scope,
    rows: &impl Rows,
    epoch: EpochNumber,
    epoch_key: &keystead_backend::LockedBytes,
) -> Result<Option<(KeyName, Wrapped)>> {
    let Some((name, _)) = second_key(rows, scope)? else {
        return Ok(None);
    };
    let key = read_key(rows, scope.org, &scope.organization, &name)?;
    match scope.core.keyring.wrap(&key, epoch, epoch_key) {
        Ok(wrapped) => Ok(Some((name, wrapped))),
        Err(error) if error.is_obstacle() => {
            tracing::warn!(organization = %scope.organization, %epoch, %error, "an epoch waits for its second wrap");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The second key and the live epochs that it does not wrap yet.
pub(crate) fn missing(
    scope: &Scope,
    rows: &impl Rows,
    head: &HeadRecord,
) -> Result<Option<(KeyName, Vec<EpochNumber>)>> {
    let Some((name, _)) = second_key(rows, scope)? else {
        return Ok(None);
    };
    if planted(Mutant::SecondWrapForgotten) {
        return Ok(None);
    }
    let missing: Vec<EpochNumber> = live_epochs(scope, rows, head)?
        .into_iter()
        .filter(|(_, record)| !epoch::is_wrapped_by(record, &name))
        .map(|(epoch, _)| epoch)
        .collect();
    Ok((!missing.is_empty()).then_some((name, missing)))
}

/// A part of the organization's job: has the second key wrap the epochs that it does not wrap yet. Three KMS calls for each.
pub(crate) fn wrap_missing(scope: &Scope, obstacles: &mut Vec<String>) -> Result<()> {
    let mut done = EpochNumber(0);
    loop {
        // A turn for each of them: a change of keys that waits comes between.
        let _turn = scope.core.key_changes.lock(scope.org);
        let snapshot = scope.snapshot();
        let Some((name, epochs)) = missing(scope, &*snapshot, &scope.head(&*snapshot)?)? else {
            return Ok(());
        };
        let Some(epoch) = epochs.into_iter().find(|epoch| *epoch > done) else {
            return Ok(());
        };
        done = epoch;
        let key = read_key(&*snapshot, scope.org, &scope.organization, &name)?;
        drop(snapshot);
        match wrap_one(scope, &key, epoch) {
            Ok(()) => {}
            Err(error) if error.is_obstacle() => {
                obstacles.push(error.to_string());
                // What one call met, the next one would meet too.
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

fn wrap_one(scope: &Scope, key: &RegisteredKey, epoch: EpochNumber) -> Result<()> {
    let ((_, epoch_key), _) = unwrap_for_hand_over(scope, epoch)?;
    let wrapped = scope.core.keyring.wrap(key, epoch, &epoch_key)?;
    let (own, name) = (scope.clone(), key.name.clone());
    scope.core.committer.submit(move |transaction| {
        let mut head = own.head(transaction)?;
        add_wrap(&own, transaction, &mut head, &name, epoch, &wrapped)?;
        own.put_head(transaction, &head)
    })
}

/// Puts the second key's wrap behind the others of an epoch, unless it is there or the epoch is retired.
fn add_wrap(
    scope: &Scope,
    transaction: &mut Transaction<'_>,
    head: &mut HeadRecord,
    key: &KeyName,
    number: EpochNumber,
    wrapped: &Wrapped,
) -> Result<()> {
    let mut record = epoch::read(transaction, scope.org, number)?;
    if record.retired_at_ms.is_some() || epoch::is_wrapped_by(&record, key) {
        return Ok(());
    }
    let at_ms = now_ms(scope.env());
    let place = EpochPlace {
        env: scope.env(),
        store: scope.store(),
        org: scope.org,
    };
    let wrap = epoch::seal_wrap(transaction, &place, number, key, wrapped, at_ms)?;
    record.wraps.push(wrap);
    epoch::write(transaction, scope.org, number, &record)?;
    let event = AuditEvent::EpochWrappedBySecond {
        epoch: number,
        key: key.to_string(),
    };
    audit::append(transaction, scope.org, head, &scope.by, at_ms, event)
}
