//! What moves an organization to other keys: add, set default, disable, rotate. Each is one atomic change with its audit
//! records; KMS calls come before it, outside of any transaction.
//!
//! A change that moves data keys begins with the hand-over: the epoch keys of the source epochs are unwrapped by the old KMS
//! and wrapped by the new one, and the old wraps are erased as soon as that is durable. From then on the new key alone opens
//! everything. Moving the data keys themselves is the re-wrap job's work, which this starts.

use crate::audit::{self, AuditEvent};
use crate::env::now_ms;
use crate::error::{Error, Result};
use crate::keyring::cache::{EpochKey, Unwrapped};
use crate::keyring::epoch::{self, EpochPlace, NewEpoch};
use crate::keyring::hand_over::{Handed, OutOfReach, apply_hand_over, hand_over, unwrap_for_hand_over};
use crate::keyring::job::{self, Moving};
use crate::keyring::kms::derive_wrapping_key;
use crate::keyring::read_key;
use crate::keyring::registry::RegisteredKey;
use crate::keyring::second;
use crate::names::{EpochNumber, KeyName};
use crate::scope::Scope;
use crate::storage::records::{
    EpochCause, EpochRecord, HeadRecord, KeyRecord, KeyState, RewrapJobRecord, SourceRecord, SourceState,
};
use crate::storage::{Rows, Table, Transaction, tables};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Source epochs whose hand-over goes into the change itself; a job hands over the others.
const HAND_OVERS_PER_CHANGE: usize = 1000;

/// Registers a key, after a probe. The first customer-managed key becomes the default, and everything is re-wrapped to it.
/// Returns the number of the re-wrap job, if one began.
pub(crate) fn add(
    scope: &Scope,
    name: &KeyName,
    backend: &str,
    config: &serde_json::Value,
) -> Result<Option<u64>> {
    let _turn = scope.core.key_changes.lock(scope.org);
    if !config.is_object() {
        return Err(Error::InvalidArgument {
            what: "the key's config",
            reason: "it must be a JSON object".into(),
        });
    }
    let snapshot = scope.snapshot();
    if snapshot
        .record::<KeyRecord>(&tables::with_name(scope.org, name.as_str()))?
        .is_some()
    {
        return Err(Error::KeyExists {
            organization: scope.organization.clone(),
            key: name.clone(),
        });
    }
    let first = !keys(&*snapshot, scope)?.iter().any(|(other, record)| {
        other.as_str() != KeyName::MANAGED && (record.state == KeyState::Enabled || record.state.is_second())
    });
    let key = RegisteredKey {
        org: scope.org,
        organization: scope.organization.clone(),
        name: name.clone(),
        backend: backend.into(),
        config: config.to_string(),
    };
    drop(snapshot);
    if !scope.core.keyring.kms.registry.is_registered(backend) {
        return Err(Error::BackendNotRegistered {
            organization: scope.organization.clone(),
            key: name.clone(),
            backend: backend.into(),
        });
    }
    scope.core.keyring.probe(&key)?;
    let record = KeyRecord {
        backend: key.backend.clone(),
        config: key.config.clone(),
        state: KeyState::Enabled,
        created_at_ms: now_ms(scope.env()),
    };
    if first {
        let change = Change {
            key,
            register: Some(record),
            cause: EpochCause::FirstOwnKey,
            becomes_default: true,
            sources: Sources::All,
            disabling: Vec::new(),
        };
        return begin(scope, change);
    }
    let (scope, row_key, name) = (
        scope.clone(),
        tables::with_name(scope.org, name.as_str()),
        name.to_string(),
    );
    scope.core.committer.clone().submit(move |transaction| {
        let mut head = scope.head(transaction)?;
        transaction.put_record(&row_key, &record)?;
        let event = AuditEvent::KeyAdded {
            key: name.clone(),
            backend: record.backend.clone(),
        };
        audit::append(
            transaction,
            scope.org,
            &mut head,
            &scope.by,
            record.created_at_ms,
            event,
        )?;
        scope.put_head(transaction, &head)
    })?;
    Ok(None)
}

/// Opens a new epoch under a key, which takes new data keys from then on; with `rewrap` everything moves there.
pub(crate) fn set_default(scope: &Scope, name: &KeyName, rewrap: bool) -> Result<Option<u64>> {
    let _turn = scope.core.key_changes.lock(scope.org);
    let key = enabled_key(scope, name, "make the default")?;
    let sources = if rewrap { Sources::All } else { Sources::None };
    begin(scope, Change::to(key, EpochCause::SetDefault, true, sources))
}

/// Opens a new epoch under the same key and moves there what the key held.
pub(crate) fn rotate(scope: &Scope, name: &KeyName) -> Result<Option<u64>> {
    let _turn = scope.core.key_changes.lock(scope.org);
    let key = enabled_key(scope, name, "rotate")?;
    let is_default = scope.head(&*scope.snapshot())?.default_key == name.as_str();
    begin(
        scope,
        Change::to(
            key,
            EpochCause::Rotation,
            is_default,
            Sources::WrappedBy(name.clone()),
        ),
    )
}

/// Moves everything under a key to `target`; when nothing is under it any more, it is disabled.
pub(crate) fn disable(scope: &Scope, name: &KeyName, target: &KeyName) -> Result<Option<u64>> {
    let _turn = scope.core.key_changes.lock(scope.org);
    enabled_key(scope, name, "disable")?;
    let refuse = |reason: String| {
        Err(Error::KeyRefused {
            organization: scope.organization.clone(),
            key: name.clone(),
            doing: "disable",
            reason,
        })
    };
    if name == target {
        return refuse("it cannot be its own target; name another enabled key".into());
    }
    let snapshot = scope.snapshot();
    if scope.head(&*snapshot)?.default_key == name.as_str() {
        return refuse("it is the default key; make another key the default first".into());
    }
    if let Some(job) = scope.running_job(&*snapshot)?
        && job
            .sources
            .iter()
            .any(|source| source.state != SourceState::Retired && source.target_key == name.as_str())
    {
        return refuse(format!(
            "re-wrap job {} is moving data keys to it; wait for it, or give it another target",
            job.number
        ));
    }
    drop(snapshot);
    let key = enabled_key(scope, target, "move data keys to")?;
    let change = Change {
        disabling: vec![name.clone()],
        ..Change::to(
            key,
            EpochCause::KeyDisabled,
            false,
            Sources::WrappedBy(name.clone()),
        )
    };
    begin(scope, change)
}

/// Back to the managed key: everything moves there, and every customer-managed key is disabled.
pub(crate) fn disable_all(scope: &Scope) -> Result<Option<u64>> {
    let _turn = scope.core.key_changes.lock(scope.org);
    let key = enabled_key(scope, &KeyName::managed(), "go back to")?;
    if let Some((second, _)) = second::second_key(&*scope.snapshot(), scope)? {
        return Err(Error::KeyRefused {
            organization: scope.organization.clone(),
            key: second,
            doing: "disable",
            reason: "it is the second key; remove it as the second key first, which needs no KMS".into(),
        });
    }
    let disabling: Vec<KeyName> = keys(&*scope.snapshot(), scope)?
        .into_iter()
        .filter(|(name, record)| name.as_str() != KeyName::MANAGED && record.state == KeyState::Enabled)
        .map(|(name, _)| name)
        .collect();
    if disabling.is_empty() {
        return Err(Error::InvalidArgument {
            what: "disabling all keys",
            reason: format!(
                "organization {:?} has no enabled customer-managed key",
                scope.organization
            ),
        });
    }
    begin(
        scope,
        Change {
            disabling,
            ..Change::to(key, EpochCause::AllKeysDisabled, true, Sources::All)
        },
    )
}

/// Gives the running job another target: everything that is on its way goes to a new epoch under `name`.
pub(crate) fn retarget(scope: &Scope, name: &KeyName) -> Result<Option<u64>> {
    let _turn = scope.core.key_changes.lock(scope.org);
    let key = enabled_key(scope, name, "move data keys to")?;
    let snapshot = scope.snapshot();
    // A job that only waits for the second key moves nothing.
    let moves = |job: &RewrapJobRecord| {
        job.sources
            .iter()
            .any(|source| source.state != SourceState::Retired)
    };
    let job = scope
        .running_job(&*snapshot)?
        .filter(moves)
        .ok_or_else(|| Error::NoJob {
            organization: scope.organization.clone(),
        })?;
    if job.disabling.iter().any(|disabling| disabling == name.as_str()) {
        return Err(Error::KeyRefused {
            organization: scope.organization.clone(),
            key: name.clone(),
            doing: "move data keys to",
            reason: "it is on its way to be disabled".into(),
        });
    }
    let head = scope.head(&*snapshot)?;
    drop(snapshot);
    let is_default = head.default_key == name.as_str();
    begin(
        scope,
        Change::to(key, EpochCause::SetDefault, is_default, Sources::Running),
    )
}

/// Every registered key, by name.
pub(crate) fn keys(rows: &impl Rows, scope: &Scope) -> Result<Vec<(KeyName, KeyRecord)>> {
    let prefix = tables::organization(scope.org);
    let mut found = Vec::new();
    rows.scan_prefix(Table::Keys, &prefix, |key, row| {
        let name = std::str::from_utf8(&key[prefix.len()..])
            .map_err(|_| crate::storage::records::damaged(Table::Keys, "its name is not UTF-8"))?;
        found.push((
            KeyName::stored(name),
            crate::storage::records::decode(rows.place(), key, row)?,
        ));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

pub(crate) fn enabled_key(scope: &Scope, name: &KeyName, doing: &'static str) -> Result<RegisteredKey> {
    let snapshot = scope.snapshot();
    let not_found = || Error::KeyNotFound {
        organization: scope.organization.clone(),
        key: name.clone(),
    };
    let record: KeyRecord = snapshot
        .record(&tables::with_name(scope.org, name.as_str()))?
        .ok_or_else(not_found)?;
    let state = match record.state {
        KeyState::Enabled => return read_key(&*snapshot, scope.org, &scope.organization, name),
        KeyState::Disabling => "it is on its way to be disabled",
        KeyState::Disabled => "it is disabled; register the KMS key again under another name",
        KeyState::Second | KeyState::SecondEither => {
            "it is the second key; remove it as the second key first, which needs no KMS"
        }
    };
    Err(Error::KeyRefused {
        organization: scope.organization.clone(),
        key: name.clone(),
        doing,
        reason: state.into(),
    })
}

/// A change of keys, before the KMSs are asked.
struct Change {
    /// The key that the data keys go to.
    key: RegisteredKey,
    /// Its record, when this change registers it.
    register: Option<KeyRecord>,
    cause: EpochCause,
    becomes_default: bool,
    sources: Sources,
    disabling: Vec<KeyName>,
}

enum Sources {
    None,
    /// Every live epoch.
    All,
    /// The epochs that this key wraps.
    WrappedBy(KeyName),
    /// The epochs that the running job moves.
    Running,
}

impl Change {
    fn to(key: RegisteredKey, cause: EpochCause, becomes_default: bool, sources: Sources) -> Self {
        Self {
            key,
            register: None,
            cause,
            becomes_default,
            sources,
            disabling: Vec::new(),
        }
    }
}

/// The same with all that the KMSs had to say: ready to be applied, more than once if need be.
struct Prepared {
    change: Change,
    target: EpochNumber,
    new_epoch: Option<NewEpoch>,
    sources: Vec<EpochNumber>,
    handed: Vec<Handed>,
}

/// Asks the KMSs, applies the change, and remembers the keys that were unwrapped on the way. The caller holds the
/// organization's turn for key changes.
fn begin(scope: &Scope, change: Change) -> Result<Option<u64>> {
    let keyring = &scope.core.keyring;
    let snapshot = scope.snapshot();
    let head = scope.head(&*snapshot)?;
    let records = live_epochs(scope, &*snapshot, &head)?;
    let running = scope.running_job(&*snapshot)?;
    drop(snapshot);

    let moving = choose_sources(&change, &records, running.as_ref());
    let reusable = reusable_target(&change, &head, &records, &moving, running.as_ref());
    let began = keyring.cache.now();
    let (target, new_epoch, new_key) = match reusable {
        Some(epoch) => (epoch, None, None),
        None if change.cause == EpochCause::KeyDisabled && moving.is_empty() => {
            (head.active_epoch, None, None)
        }
        None => {
            let number = head.last_epoch.0.checked_add(1).map(EpochNumber);
            let number = number.ok_or_else(|| scope.no_number_left("epoch"))?;
            let epoch_key = keyring.kms.random_key()?;
            let wrapped = keyring.wrap(&change.key, number, &epoch_key)?;
            let derived = derive_wrapping_key(keyring.store(), &change.key, number, &epoch_key)?;
            let mut new = NewEpoch::of(number, &change.key, wrapped, *derived.commitment.as_bytes());
            new.second = second::wrap_new(scope, &*scope.snapshot(), number, &epoch_key)?;
            (
                number,
                Some(new),
                Some(Arc::new(EpochKey::new(number, &derived.key))),
            )
        }
    };

    let (mut handed, mut out_of_reach) = (Vec::new(), OutOfReach::default());
    for epoch in moving
        .iter()
        .filter(|epoch| !epoch::belongs_to(&records[epoch], &change.key.name))
    {
        // Nothing refers to it: it is retired as it is, and no KMS need be asked.
        if head.references(*epoch) == 0 && *epoch != head.active_epoch
            || handed.len() == HAND_OVERS_PER_CHANGE
            || out_of_reach.wraps(&records[epoch])
        {
            continue;
        }
        match unwrap_for_hand_over(scope, *epoch) {
            Ok((epoch_key, unwrapped)) => {
                handed.push(hand_over(scope, *epoch, &change.key, epoch_key, unwrapped)?)
            }
            Err(error) if error.is_obstacle() => {
                out_of_reach.note(&records[epoch], change.key.name.as_str(), &error);
                tracing::warn!(organization = %scope.organization, %epoch, %error, "an epoch waits for its hand-over");
            }
            Err(error) => return Err(error),
        }
    }

    let cached: Vec<(EpochNumber, Arc<EpochKey>, Unwrapped)> = handed
        .iter()
        .map(|handed| (handed.epoch, Arc::clone(&handed.epoch_key), handed.unwrapped))
        .chain(new_key.map(|key| (target, key, began)))
        .collect();
    let name = change.key.name.clone();
    let prepared = Prepared {
        change,
        target,
        new_epoch,
        sources: moving,
        handed,
    };
    let job = {
        let scope = scope.clone();
        scope
            .core
            .committer
            .clone()
            .submit(move |transaction| apply(&scope, transaction, &prepared))?
    };
    for (epoch, key, unwrapped) in cached {
        keyring
            .cache
            .insert((scope.org, epoch), key, name.clone(), unwrapped);
    }
    Ok(job)
}

pub(crate) fn live_epochs(
    scope: &Scope,
    rows: &impl Rows,
    head: &HeadRecord,
) -> Result<BTreeMap<EpochNumber, EpochRecord>> {
    head.live_epochs
        .iter()
        .map(|live| Ok((live.epoch, epoch::read(rows, scope.org, live.epoch)?)))
        .collect()
}

fn choose_sources(
    change: &Change,
    records: &BTreeMap<EpochNumber, EpochRecord>,
    running: Option<&RewrapJobRecord>,
) -> Vec<EpochNumber> {
    let unfinished = |source: &&SourceRecord| source.state != SourceState::Retired;
    let moving = |epoch: EpochNumber| {
        running.is_some_and(|job| job.sources.iter().filter(unfinished).any(|s| s.epoch == epoch))
    };
    match &change.sources {
        Sources::None => Vec::new(),
        Sources::All => records.keys().copied().collect(),
        Sources::WrappedBy(key) => records
            .iter()
            .filter(|(_, record)| epoch::is_wrapped_by(record, key))
            .map(|(epoch, _)| *epoch)
            .collect(),
        Sources::Running => records.keys().copied().filter(|epoch| moving(*epoch)).collect(),
    }
}

/// Disabling a key needs no new epoch when its target has one that stays.
fn reusable_target(
    change: &Change,
    head: &HeadRecord,
    records: &BTreeMap<EpochNumber, EpochRecord>,
    moving: &[EpochNumber],
    running: Option<&RewrapJobRecord>,
) -> Option<EpochNumber> {
    if change.cause != EpochCause::KeyDisabled {
        return None;
    }
    let stays = |epoch: &EpochNumber| {
        !moving.contains(epoch)
            && !running.is_some_and(|job| job.sources.iter().any(|source| source.epoch == *epoch))
    };
    let of_target = |epoch: &EpochNumber| epoch::belongs_to(&records[epoch], &change.key.name);
    let mut candidates = records
        .keys()
        .copied()
        .filter(|epoch| stays(epoch) && of_target(epoch));
    if of_target(&head.active_epoch) && stays(&head.active_epoch) {
        Some(head.active_epoch)
    } else {
        candidates.next_back()
    }
}

/// The one atomic change: key, epoch, default, hand-overs, job, each with its audit record.
fn apply(scope: &Scope, transaction: &mut Transaction<'_>, prepared: &Prepared) -> Result<Option<u64>> {
    let at_ms = now_ms(scope.env());
    let change = &prepared.change;
    let mut head = scope.head(transaction)?;
    let running = scope.running_job(transaction)?;
    let by = &*scope.by;

    if let Some(record) = &change.register {
        transaction.put_record(&tables::with_name(scope.org, change.key.name.as_str()), record)?;
        let event = AuditEvent::KeyAdded {
            key: change.key.name.to_string(),
            backend: record.backend.clone(),
        };
        audit::append(transaction, scope.org, &mut head, by, at_ms, event)?;
    }
    if let Some(new) = &prepared.new_epoch {
        let place = EpochPlace {
            env: scope.env(),
            store: scope.store(),
            org: scope.org,
        };
        epoch::open_epoch(transaction, &place, &mut head, new, change.cause.clone(), by)?;
    }
    if change.becomes_default {
        if head.default_key != change.key.name.as_str() {
            head.default_key = change.key.name.to_string();
            let event = AuditEvent::DefaultKeySet {
                key: head.default_key.clone(),
            };
            audit::append(transaction, scope.org, &mut head, by, at_ms, event)?;
        }
        head.active_epoch = prepared.target;
    }
    for handed in &prepared.handed {
        apply_hand_over(scope, transaction, &mut head, handed, by)?;
    }
    for name in &change.disabling {
        let state = if prepared.sources.is_empty() {
            KeyState::Disabled
        } else {
            KeyState::Disabling
        };
        set_key_state(scope, transaction, name, state)?;
        let event = AuditEvent::KeyDisabling {
            key: name.to_string(),
            target: change.key.name.to_string(),
        };
        audit::append(transaction, scope.org, &mut head, by, at_ms, event)?;
        if state == KeyState::Disabled {
            let event = AuditEvent::KeyDisabled {
                key: name.to_string(),
            };
            audit::append(transaction, scope.org, &mut head, by, at_ms, event)?;
        }
    }
    let job = {
        let moving = Moving {
            sources: &prepared.sources,
            target: prepared.target,
            target_key: &change.key.name,
            cause: &change.cause,
            disabling: &change.disabling,
        };
        job::start_for(scope, transaction, &mut head, &moving, running, at_ms)?
    };
    scope.put_head(transaction, &head)?;
    Ok(job)
}

pub(crate) fn set_key_state(
    scope: &Scope,
    transaction: &mut Transaction<'_>,
    name: &KeyName,
    state: KeyState,
) -> Result<()> {
    let row_key = tables::with_name(scope.org, name.as_str());
    let mut record: KeyRecord = transaction.record(&row_key)?.ok_or_else(|| Error::KeyNotFound {
        organization: scope.organization.clone(),
        key: name.clone(),
    })?;
    record.state = state;
    transaction.put_record(&row_key, &record)
}
