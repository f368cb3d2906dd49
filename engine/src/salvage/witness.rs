//! What an organization's audit trail tells of what is lost: names of secrets, what was destroyed and deleted, keys and epochs.

use super::bulk::Bulk;
use super::gather::Gathered;
use crate::audit::{self, AuditEvent};
use crate::error::Result;
use crate::names::{EpochNumber, OrganizationId, OrganizationName, Version};
use crate::storage::records::{HeadRecord, OrganizationNameRecord, OrganizationRecord};
use crate::storage::{Rows, Table, tables};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

/// Memory: what was destroyed or deleted in this organization, and, where records are missing, the versions that were put behind
/// the last of them.
#[derive(Default)]
pub(super) struct Witness {
    /// The newest record that is missing; `None`: it may be one behind all that are left; 0: none is missing.
    pub(super) last_missing: Option<u64>,
    /// Path and version → when it was destroyed.
    destroyed: BTreeMap<(String, Version), u64>,
    /// Path and version → when it was deleted; `None`: it was undeleted since.
    deleted: BTreeMap<(String, Version), Option<u64>>,
    /// Versions that were put behind the last missing record.
    put_since: BTreeSet<(String, Version)>,
    /// Paths of which no record of the secret is left: version → when it was put.
    pub(super) nameless: BTreeMap<String, BTreeMap<Version, u64>>,
    /// Paths whose record came from a loose page, and may be an older one: the highest version that was put.
    highest_put: BTreeMap<String, Version>,
    /// How many versions of a nameless secret are kept.
    pub(super) retention: BTreeMap<String, Option<u32>>,
    pub(super) keys_added: BTreeMap<String, String>,
    pub(super) default_key: Option<String>,
    pub(super) epochs: BTreeMap<EpochNumber, WitnessedEpoch>,
}

/// What a trail tells of an epoch.
pub(super) struct WitnessedEpoch {
    pub(super) key: String,
    pub(super) hash: [u8; 32],
    pub(super) opened_at_ms: u64,
    pub(super) by: audit::Attribution,
}

impl Witness {
    /// Reads an organization's trail as far as it is left. `paths`: whether to look for secrets without a record.
    pub(super) fn read(
        bulk: &mut Bulk<'_>,
        gathered: &Gathered,
        org: OrganizationId,
        head: Option<&HeadRecord>,
        paths: bool,
    ) -> Result<Self> {
        let prefix = tables::organization(org);
        let mut witness = Self::default();
        let (mut last, mut missing) = (0_u64, 0);
        bulk.snapshot()?.scan_prefix(Table::Audit, &prefix, |key, _| {
            let sequence = sequence_of(key);
            if sequence != last.saturating_add(1) {
                missing = sequence.saturating_sub(1);
            }
            last = sequence;
            Ok(ControlFlow::Continue(()))
        })?;
        let end_is_known =
            !gathered.in_hole(Table::Heads, &prefix) || !gathered.touches(Table::Audit, &prefix);
        witness.last_missing = match head.map(|head| head.audit_sequence) {
            Some(newest) if newest > last => Some(newest),
            _ => Some(missing),
        }
        .filter(|_| end_is_known);
        let since = witness.last_missing.unwrap_or(u64::MAX);
        bulk.each(Table::Audit, &prefix, |bulk, key, row| {
            let Ok(loose) = audit::read_loose(row) else {
                return Ok(());
            };
            let (mut at_ms, mut by, mut event) = (loose.at_ms, loose.by, loose.event);
            if let AuditEvent::Carried {
                at_ms: carried_at,
                by: carried_by,
                event: carried,
                ..
            } = event
            {
                let Some(inner) = carried.event() else {
                    return Ok(());
                };
                (at_ms, by, event) = (carried_at, carried_by, inner);
            }
            if let AuditEvent::VersionPut { path, version } = &event {
                if since > 0 && sequence_of(key) > since {
                    witness.put_since.insert((path.clone(), *version));
                }
                let row_key = tables::with_name(org, path);
                if paths && gathered.in_hole(Table::Secrets, &row_key) {
                    let highest = witness.highest_put.entry(path.clone()).or_insert(*version);
                    *highest = (*highest).max(*version);
                }
                if paths && bulk.get(Table::Secrets, &row_key)?.is_none() {
                    witness
                        .nameless
                        .entry(path.clone())
                        .or_default()
                        .insert(*version, at_ms);
                }
            }
            witness.hear(at_ms, by, event, paths);
            Ok(())
        })?;
        Ok(witness)
    }

    fn hear(&mut self, at_ms: u64, by: audit::Attribution, event: AuditEvent, paths: bool) {
        match event {
            AuditEvent::VersionDestroyed { path, version, .. } => {
                self.destroyed.insert((path, version), at_ms);
            }
            AuditEvent::VersionDeleted { path, version } => {
                self.deleted.insert((path, version), Some(at_ms));
            }
            AuditEvent::VersionUndeleted { path, version } => {
                self.deleted.insert((path, version), None);
            }
            AuditEvent::RetentionSet { path, keep } if paths => {
                self.retention.insert(path, keep);
            }
            AuditEvent::KeyAdded { key, backend } => {
                self.keys_added.insert(key, backend);
            }
            AuditEvent::DefaultKeySet { key } => self.default_key = Some(key),
            AuditEvent::EpochOpened { epoch, key, hash, .. } => {
                let witnessed = WitnessedEpoch {
                    key,
                    hash,
                    opened_at_ms: at_ms,
                    by,
                };
                self.epochs.insert(epoch, witnessed);
            }
            _ => {}
        }
    }

    /// The highest version of a path that the trail tells of; for paths whose record may be an older one.
    pub(super) fn highest_put(&self, path: &str) -> Option<Version> {
        self.highest_put.get(path).copied()
    }

    pub(super) fn destroyed_at(&self, path: &str, version: Version) -> Option<u64> {
        self.destroyed.get(&(path.to_owned(), version)).copied()
    }

    /// Whether a version is deleted, and since when; outer `None`: the trail does not say.
    pub(super) fn deleted_at(&self, path: &str, version: Version) -> Option<Option<u64>> {
        self.deleted.get(&(path.to_owned(), version)).copied()
    }

    /// True when the trail is whole since the version was put, and has no word of its being destroyed.
    pub(super) fn rules_out_destruction(&self, path: &str, version: Version) -> bool {
        let since_put = self.last_missing == Some(0) || self.put_since.contains(&(path.to_owned(), version));
        since_put && self.destroyed_at(path, version).is_none()
    }
}

pub(super) fn sequence_of(key: &[u8]) -> u64 {
    key.get(4..)
        .and_then(|sequence| sequence.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

/// An organization's name and record: from the record, the index of names, or the first word of the audit trail.
pub(super) fn name_of(
    bulk: &mut Bulk<'_>,
    id: OrganizationId,
) -> Result<Option<(OrganizationName, OrganizationRecord)>> {
    let found = match bulk.record::<OrganizationRecord>(&tables::organization(id)) {
        Ok(Some(record)) => Some(record),
        _ => from_trail(bulk, id)?,
    };
    let found = match found {
        Some(record) => Some(record),
        None => from_index(bulk, id)?,
    };
    Ok(found.map(|record| (OrganizationName::stored(&record.name), record)))
}

fn from_trail(bulk: &mut Bulk<'_>, id: OrganizationId) -> Result<Option<OrganizationRecord>> {
    let Some(row) = bulk.get(Table::Audit, &tables::audit(id, 1))? else {
        return Ok(None);
    };
    Ok(match audit::read_loose(&row) {
        Ok(audit::Loose {
            at_ms,
            event: AuditEvent::OrganizationCreated { name },
            ..
        }) => Some(OrganizationRecord {
            name,
            created_at_ms: at_ms,
        }),
        _ => None,
    })
}

fn from_index(bulk: &mut Bulk<'_>, id: OrganizationId) -> Result<Option<OrganizationRecord>> {
    let mut found = None;
    let snapshot = bulk.snapshot()?;
    snapshot.scan(Table::OrganizationNames, Bound::Unbounded, None, |key, row| {
        let record: OrganizationNameRecord = crate::storage::records::decode(snapshot.place(), key, row)?;
        if record.id == id.0
            && let Ok(name) = std::str::from_utf8(key)
        {
            found = Some(OrganizationRecord {
                name: name.to_owned(),
                created_at_ms: 0,
            });
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}
