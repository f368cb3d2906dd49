//! The record of every change: one event, in the change's own transaction, chained to the one before.
//!
//! Each organization has a chain of its own. An event's hash covers its place (organization and sequence), its bytes and
//! the hash before it, so an event cannot be changed, moved or left out without changing every hash behind it; that the
//! newest ones were cut off shows against a head that was noted elsewhere.

mod carried;

pub use carried::CarriedEvent;

use crate::crypto::{AUDIT_CHAIN, chain_hash};
use crate::error::{Error, Result};
use crate::mutant::{Mutant, planted};
use crate::names::{EpochNumber, OrganizationId, Version};
use crate::storage::records::{EpochCause, HeadRecord, RECORD_FORMAT, damaged};
use crate::storage::{Rows, Table, Transaction, tables};
use serde::{Deserialize, Serialize};
use std::ops::{Bound, ControlFlow};

/// Who acts, and why: the application says so with `acting_as`, and the audit records have it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attribution {
    /// Who acts, such as `alice@acme`.
    pub actor: Option<String>,
    /// Why, such as `ticket 4711`.
    pub reason: Option<String>,
}

/// One record of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditRecord {
    /// Its number in the organization's chain, from 1.
    pub sequence: u64,
    /// When it happened: milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who did it and why.
    #[serde(flatten)]
    pub by: Attribution,
    /// What happened.
    #[serde(flatten)]
    pub event: AuditEvent,
    /// The hash that chains it, as hexadecimal digits.
    pub hash: String,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AuditEvent {
    /// The organization was created.
    OrganizationCreated {
        /// Its name.
        name: String,
    },
    /// A version of a secret was written.
    VersionPut {
        /// The secret's path.
        path: String,
        /// The new version.
        version: Version,
    },
    /// A version was deleted; undelete brings it back.
    VersionDeleted {
        /// The secret's path.
        path: String,
        /// Which.
        version: Version,
    },
    /// A deleted version was brought back.
    VersionUndeleted {
        /// The secret's path.
        path: String,
        /// Which.
        version: Version,
    },
    /// A version's data key and value were removed for good.
    VersionDestroyed {
        /// The secret's path.
        path: String,
        /// Which.
        version: Version,
        /// True when retention did it.
        by_retention: bool,
    },
    /// How many versions of a secret are kept was set.
    RetentionSet {
        /// The secret's path.
        path: String,
        /// At most this many; `None`: all.
        keep: Option<u32>,
    },
    /// A key was registered.
    KeyAdded {
        /// Its name.
        key: String,
        /// Its backend.
        backend: String,
    },
    /// New epochs are opened under this key from now on.
    DefaultKeySet {
        /// Its name.
        key: String,
    },
    /// A key is on its way to be disabled.
    KeyDisabling {
        /// Its name.
        key: String,
        /// Where its data keys go.
        target: String,
    },
    /// Nothing is wrapped by this key any more, and nothing will be.
    KeyDisabled {
        /// Its name.
        key: String,
    },
    /// A key epoch was opened.
    EpochOpened {
        /// Its number.
        epoch: EpochNumber,
        /// The key that wraps it.
        key: String,
        /// Why.
        cause: EpochCause,
        /// The hash that chains the epochs.
        hash: [u8; 32],
    },
    /// An epoch's key was wrapped by another KMS key, and the old wraps were erased.
    EpochHandedOver {
        /// Which epoch.
        epoch: EpochNumber,
        /// The keys that wrapped it before.
        from: Vec<String>,
        /// The key that wraps it now.
        to: String,
    },
    /// No data key refers to the epoch; its wraps were erased.
    EpochRetired {
        /// Which epoch.
        epoch: EpochNumber,
    },
    /// A re-wrap job began, or a running one took on more.
    RewrapStarted {
        /// The job's number.
        job: u64,
        /// The epochs that it moves, with their targets.
        moves: Vec<(EpochNumber, EpochNumber)>,
    },
    /// A batch of data keys was re-wrapped.
    RewrapBatch {
        /// The job's number.
        job: u64,
        /// The batch's number in the job, from 1.
        batch: u64,
        /// Data keys moved.
        moved: u64,
        /// Data keys that did not open and stay where they are.
        failed: u64,
    },
    /// A re-wrap job is done: its source epochs are retired.
    RewrapFinished {
        /// The job's number.
        job: u64,
        /// Data keys moved in all.
        done: u64,
    },
    /// The store was salvaged from a damaged file: from here on the chain is a new one.
    Salvaged {
        /// The newest record that the damaged file is known to have had; 0 when that is not known.
        old_sequence: u64,
        /// Its hash; zeros when that is not known.
        old_hash: [u8; 32],
        /// Records that are missing from the trail.
        records_lost: u64,
        /// Versions whose values were lost.
        versions_lost: u64,
    },
    /// A record of the damaged file behind the first one that was missing, as it was found: nothing shows any more that it
    /// follows those before it.
    Carried {
        /// Its number in the damaged file.
        sequence: u64,
        /// Its hash there.
        hash: [u8; 32],
        /// When it happened: milliseconds since the Unix epoch.
        at_ms: u64,
        /// Who did it and why.
        by: Attribution,
        /// What happened.
        event: CarriedEvent,
    },
    /// A key became the organization's second key: it wraps every live epoch beside the key that the epoch belongs to.
    SecondKeySet {
        /// Its name.
        key: String,
        /// True when revoking one of the two is not enough.
        either_opens: bool,
    },
    /// The second key is one like the others again; its wraps were erased.
    SecondKeyRemoved {
        /// Its name.
        key: String,
    },
    /// An epoch's key was wrapped by the second key as well.
    EpochWrappedBySecond {
        /// Which epoch.
        epoch: EpochNumber,
        /// The second key.
        key: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Body {
    at_ms: u64,
    by: Attribution,
    event: AuditEvent,
}

const HASH_BYTES: usize = 32;

/// Appends an event to the organization's chain and moves the head on; the caller writes the head.
pub(crate) fn append(
    transaction: &mut Transaction<'_>,
    org: OrganizationId,
    head: &mut HeadRecord,
    by: &Attribution,
    at_ms: u64,
    event: AuditEvent,
) -> Result<()> {
    if planted(Mutant::AuditForgotten) && matches!(event, AuditEvent::VersionDeleted { .. }) {
        return Ok(());
    }
    if head.audit_sequence == u64::MAX {
        let what = format!("the audit trail of organization {org}");
        return Err(Error::damaged(what, "no number is left for another record"));
    }
    let (key, row) = next_row(org, head, by, at_ms, event);
    transaction.put(Table::Audit, &key, &row)
}

/// The row of the next event of the chain, and its key; moves the head on.
pub(crate) fn next_row(
    org: OrganizationId,
    head: &mut HeadRecord,
    by: &Attribution,
    at_ms: u64,
    event: AuditEvent,
) -> ([u8; 12], Vec<u8>) {
    let body = Body {
        at_ms,
        by: by.clone(),
        event,
    };
    let mut row = postcard::to_extend(&body, vec![RECORD_FORMAT]).expect("events encode into memory");
    let sequence = head.audit_sequence.saturating_add(1);
    let key = tables::audit(org, sequence);
    let hash = chain_hash(&AUDIT_CHAIN, &head.audit_hash, &[&key, &row]);
    row.extend_from_slice(&hash);
    head.audit_sequence = sequence;
    head.audit_hash = hash;
    (key, row)
}

/// Reads at most `limit` records behind `after`, checking that each one chains to the one before it.
pub(crate) fn read(
    rows: &impl Rows,
    org: OrganizationId,
    after: u64,
    limit: usize,
) -> Result<Vec<AuditRecord>> {
    let mut records = Vec::new();
    walk(rows, org, after, |record, _| {
        if records.len() < limit {
            records.push(record);
        }
        Ok(if records.len() < limit {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        })
    })?;
    Ok(records)
}

/// Visits the records behind `after` in order with their hashes; an error where the chain is broken.
pub(crate) fn walk(
    rows: &impl Rows,
    org: OrganizationId,
    after: u64,
    mut visit: impl FnMut(AuditRecord, [u8; 32]) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut sequence = after;
    let mut previous = match after {
        0 => [0; HASH_BYTES],
        after => rows
            .get_with(Table::Audit, &tables::audit(org, after), |row| Ok(split(row)?.1))?
            .ok_or_else(|| Error::InvalidArgument {
                what: "the audit sequence",
                reason: format!("there is no record {after}"),
            })?,
    };
    let from = tables::audit(org, after + 1);
    let to = tables::after_prefix(&tables::organization(org));
    rows.scan(Table::Audit, Bound::Included(&from), to.as_deref(), |key, row| {
        sequence += 1;
        let broken = |reason: &str| {
            Err(Error::damaged(
                format!("audit record {sequence} of organization {org}"),
                reason,
            ))
        };
        if key != tables::audit(org, sequence) {
            return broken("it is missing");
        }
        let (bytes, hash) = split(row)?;
        if chain_hash(&AUDIT_CHAIN, &previous, &[key, bytes]) != hash {
            return broken("it does not chain to the one before it");
        }
        previous = hash;
        let body: Body = postcard::from_bytes(&bytes[1..])
            .map_err(|error| damaged(Table::Audit, &format!("it does not decode: {error}")))?;
        visit(
            AuditRecord {
                sequence,
                at_ms: body.at_ms,
                by: body.by,
                event: body.event,
                hash: hex(&hash),
            },
            hash,
        )
    })
}

/// A record by itself, as far as its row tells: whether it chains to the one before it is not looked at.
pub(crate) struct Loose {
    pub(crate) at_ms: u64,
    pub(crate) by: Attribution,
    pub(crate) event: AuditEvent,
    pub(crate) hash: [u8; HASH_BYTES],
}

/// Reads a row by itself.
pub(crate) fn read_loose(row: &[u8]) -> Result<Loose> {
    let (bytes, hash) = split(row)?;
    let body: Body = postcard::from_bytes(&bytes[1..])
        .map_err(|error| damaged(Table::Audit, &format!("it does not decode: {error}")))?;
    let Body { at_ms, by, event } = body;
    Ok(Loose {
        at_ms,
        by,
        event,
        hash,
    })
}

/// True when the row of this key chains to `previous`.
pub(crate) fn chains(previous: &[u8; HASH_BYTES], key: &[u8], row: &[u8]) -> bool {
    split(row).is_ok_and(|(bytes, hash)| chain_hash(&AUDIT_CHAIN, previous, &[key, bytes]) == hash)
}

/// The hash of a record, made anew from it and the one before it; `None` when there is no such record.
pub(crate) fn hash_at(
    rows: &impl Rows,
    org: OrganizationId,
    sequence: u64,
) -> Result<Option<[u8; HASH_BYTES]>> {
    let previous = match sequence {
        0 => return Ok(None),
        1 => [0; HASH_BYTES],
        _ => {
            let before = tables::audit(org, sequence - 1);
            match rows.get_with(Table::Audit, &before, |row| Ok(split(row)?.1))? {
                Some(hash) => hash,
                None => return Ok(None),
            }
        }
    };
    let key = tables::audit(org, sequence);
    rows.get_with(Table::Audit, &key, |row| {
        let (bytes, hash) = split(row)?;
        if chain_hash(&AUDIT_CHAIN, &previous, &[&key, bytes]) != hash {
            return Err(Error::damaged(
                format!("audit record {sequence} of organization {org}"),
                "it does not chain to the one before it",
            ));
        }
        Ok(hash)
    })
}

fn split(row: &[u8]) -> Result<(&[u8], [u8; HASH_BYTES])> {
    match row.split_last_chunk::<HASH_BYTES>() {
        Some((bytes, hash)) if bytes.first() == Some(&RECORD_FORMAT) => Ok((bytes, *hash)),
        _ => Err(damaged(
            Table::Audit,
            "it is too short, or its format is not known to this version",
        )),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// What the codec of a row makes of any bytes: `None`, it refuses them; else whether value → bytes → value is the same.
#[cfg(feature = "simulation")]
pub(crate) fn codec_holds(row: &[u8]) -> Option<bool> {
    let (bytes, _) = split(row).ok()?;
    let body: Body = postcard::from_bytes(&bytes[1..]).ok()?;
    let encoded = postcard::to_allocvec(&body).ok()?;
    let again: Option<Body> = postcard::from_bytes(&encoded).ok();
    Some(again.is_some_and(|again| (again.at_ms, again.by, again.event) == (body.at_ms, body.by, body.event)))
}
