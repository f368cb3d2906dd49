//! `get`, `list`, `history`: on a shared snapshot, never waiting for a writer.

use crate::crypto::{Commitment, SecretBytes, wiping_stack};
use crate::error::{Error, Result};
use crate::keyring::cache::EpochKey;
use crate::keyring::data_key::{self, DataKey, DataKeyPlace};
use crate::names::{self, SecretPath, Version};
use crate::scope::Scope;
use crate::secret::value::{BodyPlace, CHUNK_BYTES, Chunks, ContentPlace, content_key};
use crate::secret::{Page, Secret, SecretInfo, VersionInfo, VersionState};
use crate::storage::records::{
    self, Body, DataKeyRow, DeletionRecord, HeaderCheck, SecretRecord, VersionHeader, VersionRow,
};
use crate::storage::tables::ValueId;
use crate::storage::{Rows, Snapshot, Table, tables};
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// The most items of one page.
pub(crate) const PAGE_MAX: usize = 10_000;

/// A value that is opened, or the way to its chunks.
pub(crate) enum Opened {
    Inline(SecretBytes),
    Chunked {
        value_id: ValueId,
        chunks: Box<Chunks>,
        count: u32,
    },
}

/// A version with its header authenticated.
pub(crate) struct OpenedVersion {
    pub(crate) version: Version,
    pub(crate) header: VersionHeader,
    pub(crate) body: Opened,
}

/// Reads a value: the latest version, or the one that is asked for.
pub(crate) fn get(scope: &Scope, path: &SecretPath, version: Option<Version>) -> Result<Secret> {
    let opened = open(scope, path, version)?;
    let value = match opened.body {
        Opened::Inline(value) => value,
        Opened::Chunked {
            value_id,
            chunks,
            count,
        } => {
            let size = usize::try_from(opened.header.size_bytes).unwrap_or(usize::MAX);
            let most = count as usize * CHUNK_BYTES;
            if size > most || opened.header.size_bytes > super::VALUE_MAX_BYTES {
                return Err(damaged_version(
                    path,
                    opened.version,
                    "its size does not fit its chunks",
                ));
            }
            let mut value = zeroize::Zeroizing::new(Vec::with_capacity(size));
            for index in 0..count {
                let chunk = read_chunk(scope, &value_id, &chunks, index, count, path, opened.version)?;
                if value.len() + chunk.len() > size {
                    return Err(damaged_version(
                        path,
                        opened.version,
                        "its chunks are longer than its size",
                    ));
                }
                value.extend_from_slice(chunk.as_slice());
            }
            if value.len() != size {
                return Err(damaged_version(
                    path,
                    opened.version,
                    "its chunks are shorter than its size",
                ));
            }
            SecretBytes::from(std::mem::take(&mut *value))
        }
    };
    Ok(Secret {
        value,
        version: opened.version,
        labels: opened.header.labels.into_iter().collect(),
        content_type: opened.header.content_type,
        created_at_ms: opened.header.created_at_ms,
    })
}

/// Opens a version: its data key, its header, and its value if that is inline.
///
/// While a KMS is asked, which may take its time, no snapshot is held: pages that one sees are not written over, so the file would grow
/// with every write meanwhile. Then the read begins anew.
pub(crate) fn open(scope: &Scope, path: &SecretPath, version: Option<Version>) -> Result<OpenedVersion> {
    let mut asked: Option<Arc<EpochKey>> = None;
    let mut overtaken = false;
    loop {
        let snapshot = scope.snapshot();
        let secret = find(scope, &*snapshot, path)?;
        let version = version.unwrap_or(secret.latest);
        if version > secret.latest {
            return Err(missing_version(scope, path, version, secret.latest));
        }
        let key = tables::version(scope.org, secret.secret_id, version);
        if secret.deleted > 0 && snapshot.record::<DeletionRecord>(&key)?.is_some() {
            let (organization, path) = (scope.organization.clone(), path.clone());
            return Err(Error::VersionDeleted {
                organization,
                path,
                version,
            });
        }
        let wrapped = snapshot.get_with(Table::DataKeys, &key, DataKeyRow::decode)?;
        let epoch_key = match &wrapped {
            // Destroyed, lost or damaged: the version's own row says which.
            None => None,
            Some(row) => match asked.take().filter(|key| key.epoch == row.epoch) {
                Some(key) => Some(key),
                None => scope.known_epoch_key(row.epoch).transpose()?,
            },
        };
        if let (Some(row), None) = (&wrapped, &epoch_key) {
            let (epoch, sequence) = (row.epoch, snapshot.sequence);
            drop(snapshot);
            match scope.epoch_key(epoch) {
                Ok(key) => asked = Some(key),
                // Its data keys were re-wrapped and it was retired since.
                Err(error) if error.is_damaged() && !overtaken && scope.snapshot().sequence != sequence => {
                    overtaken = true;
                }
                Err(error) => return Err(error),
            }
            continue;
        }
        let data_key = || {
            let (row, epoch_key) = wrapped
                .as_ref()
                .zip(epoch_key.as_ref())
                .ok_or_else(|| missing_data_key(path, version))?;
            open_data_key_row(scope, path, secret.secret_id, version, row, epoch_key)
        };
        let opened = wiping_stack(|| {
            snapshot.get_with(Table::Versions, &key, |row| {
                open_row(scope, &snapshot, path, secret.secret_id, version, row, data_key)
            })
        })?;
        return opened.ok_or_else(|| damaged_version(path, version, "its row is missing"));
    }
}

pub(crate) fn open_row(
    scope: &Scope,
    snapshot: &Snapshot,
    path: &SecretPath,
    secret_id: u64,
    version: Version,
    row: &[u8],
    data_key: impl FnOnce() -> Result<DataKey>,
) -> Result<OpenedVersion> {
    let (store, org) = (scope.store(), scope.org);
    let key = tables::version(org, secret_id, version);
    let VersionRow {
        header,
        header_bytes,
        sealed,
    } = VersionRow::parse(snapshot.place(), &key, row, HeaderCheck::ByAead)?;
    let (commitment, place) = match header.body {
        Body::Inline { commitment } => (
            commitment,
            ContentPlace::Inline {
                org,
                secret_id,
                version,
            },
        ),
        Body::Chunked {
            commitment, value_id, ..
        } => (commitment, ContentPlace::Chunked { value_id }),
        Body::Destroyed { .. } => {
            let (organization, path) = (scope.organization.clone(), path.clone());
            return Err(Error::VersionDestroyed {
                organization,
                path,
                version,
            });
        }
        Body::Lost { .. } => return Err(lost_version(scope, path, version)),
    };
    let content = content_key(store, place, &data_key()?);
    if content.commitment != Commitment::from_bytes(commitment) {
        return Err(damaged_version(
            path,
            version,
            "its data key is not the one that it commits to",
        ));
    }
    let mut body = sealed.to_vec();
    BodyPlace {
        store,
        org,
        secret_id,
        version,
        path,
    }
    .open_body(&content, header_bytes, &mut body)
    .ok_or_else(|| {
        damaged_version(
            path,
            version,
            "it does not open: damaged, or moved here from another place",
        )
    })?;
    let body = match header.body {
        Body::Chunked { value_id, chunks, .. } => Opened::Chunked {
            value_id,
            chunks: Box::new(Chunks::new(store, org, &value_id, &content)),
            count: chunks,
        },
        _ if body.len() as u64 != header.size_bytes => {
            return Err(damaged_version(
                path,
                version,
                "its size is not the one that its header says",
            ));
        }
        _ => Opened::Inline(SecretBytes::from(body)),
    };
    Ok(OpenedVersion {
        version,
        header,
        body,
    })
}

/// Opens a version's data key under the epoch that wraps it in this snapshot; if that epoch was retired since, under the one
/// that wraps it now.
pub(crate) fn open_data_key(
    scope: &Scope,
    snapshot: &Snapshot,
    path: &SecretPath,
    secret_id: u64,
    version: Version,
) -> Result<DataKey> {
    match open_data_key_in(scope, snapshot, path, secret_id, version) {
        Err(error) if error.is_damaged() => {
            let newer = scope.snapshot();
            if newer.sequence == snapshot.sequence {
                return Err(error);
            }
            open_data_key_in(scope, &newer, path, secret_id, version)
        }
        outcome => outcome,
    }
}

fn open_data_key_in(
    scope: &Scope,
    snapshot: &Snapshot,
    path: &SecretPath,
    secret_id: u64,
    version: Version,
) -> Result<DataKey> {
    let row = snapshot
        .get_with(
            Table::DataKeys,
            &tables::version(scope.org, secret_id, version),
            DataKeyRow::decode,
        )?
        .ok_or_else(|| missing_data_key(path, version))?;
    let epoch_key = scope.epoch_key(row.epoch)?;
    open_data_key_row(scope, path, secret_id, version, &row, &epoch_key)
}

fn open_data_key_row(
    scope: &Scope,
    path: &SecretPath,
    secret_id: u64,
    version: Version,
    row: &DataKeyRow,
    epoch_key: &EpochKey,
) -> Result<DataKey> {
    let place = DataKeyPlace {
        store: scope.store(),
        org: scope.org,
        secret_id,
        version,
    };
    data_key::open(&epoch_key.cipher(), &place, row).ok_or_else(|| {
        damaged_version(
            path,
            version,
            "its data key does not open: damaged, or moved from another place",
        )
    })
}

/// Reads and opens one chunk of a value, from the newest snapshot: no reader is held open over a long value.
pub(crate) fn read_chunk(
    scope: &Scope,
    value_id: &ValueId,
    chunks: &Chunks,
    index: u32,
    count: u32,
    path: &SecretPath,
    version: Version,
) -> Result<SecretBytes> {
    let key = tables::chunk(scope.org, value_id, index);
    let sealed = scope
        .snapshot()
        .get_with(Table::Chunks, &key, |row| Ok(row.to_vec()))?;
    let Some(mut sealed) = sealed else {
        // Destroyed meanwhile, or damaged: the version's own row says which.
        let snapshot = scope.snapshot();
        let secret = find(scope, &*snapshot, path)?;
        let info = version_info(scope, &*snapshot, path, &secret, version)?;
        if let VersionState::Destroyed { .. } = info.state {
            let (organization, path) = (scope.organization.clone(), path.clone());
            return Err(Error::VersionDestroyed {
                organization,
                path,
                version,
            });
        }
        return Err(damaged_version(
            path,
            version,
            &format!("its chunk {index} is missing"),
        ));
    };
    wiping_stack(|| chunks.open(index, index + 1 == count, &mut sealed))
        .ok_or_else(|| damaged_version(path, version, &format!("its chunk {index} does not open")))?;
    Ok(SecretBytes::from(sealed))
}

/// A secret as a list shows it.
pub(crate) fn info(scope: &Scope, path: &SecretPath) -> Result<SecretInfo> {
    let secret = find(scope, &*scope.snapshot(), path)?;
    Ok(secret_info(path.as_str(), &secret))
}

/// The secrets whose paths begin with `prefix`, in the order of their paths' bytes.
pub(crate) fn list(
    scope: &Scope,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<SecretInfo>> {
    names::check_prefix(prefix)?;
    let limit = limit.clamp(1, PAGE_MAX);
    let first = tables::with_name(scope.org, prefix);
    let behind = after
        .map(|after| tables::with_name(scope.org, after))
        .filter(|behind| *behind >= first);
    let from = behind
        .as_deref()
        .map_or(Bound::Included(&first[..]), Bound::Excluded);
    let to = tables::after_prefix(&first);
    let mut page = Page {
        items: Vec::new(),
        next: None,
    };
    let snapshot = scope.snapshot();
    snapshot.scan(Table::Secrets, from, to.as_deref(), |key, row| {
        if page.items.len() == limit {
            page.next = page.items.last().map(|last: &SecretInfo| last.path.clone());
            return Ok(ControlFlow::Break(()));
        }
        let path = std::str::from_utf8(&key[4..])
            .map_err(|_| records::damaged(Table::Secrets, "its path is not UTF-8"))?;
        page.items
            .push(secret_info(path, &records::decode(snapshot.place(), key, row)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(page)
}

/// The versions of a secret behind `after`, oldest first.
pub(crate) fn history(
    scope: &Scope,
    path: &SecretPath,
    after: Option<Version>,
    limit: usize,
) -> Result<Vec<VersionInfo>> {
    let limit = limit.clamp(1, PAGE_MAX);
    let snapshot = scope.snapshot();
    let secret = find(scope, &*snapshot, path)?;
    let first = after.map_or(1, |after| after.get().saturating_add(1));
    (first..=secret.latest.get())
        .take(limit)
        .map(|number| version_info(scope, &*snapshot, path, &secret, Version(number)))
        .collect()
}

fn version_info(
    scope: &Scope,
    rows: &impl Rows,
    path: &SecretPath,
    secret: &SecretRecord,
    version: Version,
) -> Result<VersionInfo> {
    let key = tables::version(scope.org, secret.secret_id, version);
    let header = rows
        .get_with(Table::Versions, &key, |row| {
            Ok(VersionRow::parse(rows.place(), &key, row, HeaderCheck::PlaceTag)?.header)
        })?
        .ok_or_else(|| damaged_version(path, version, "its row is missing"))?;
    let deleted = if secret.deleted > 0 {
        rows.record::<DeletionRecord>(&key)?
    } else {
        None
    };
    let state = match (&header.body, deleted) {
        (Body::Destroyed { at_ms }, _) => VersionState::Destroyed {
            destroyed_at_ms: *at_ms,
        },
        (Body::Lost { at_ms }, _) => VersionState::Lost { lost_at_ms: *at_ms },
        (_, Some(deletion)) => VersionState::Deleted {
            deleted_at_ms: deletion.deleted_at_ms,
        },
        (_, None) => VersionState::Live,
    };
    Ok(VersionInfo {
        version,
        created_at_ms: header.created_at_ms,
        size_bytes: header.size_bytes,
        content_type: header.content_type,
        labels: header.labels.into_iter().collect::<BTreeMap<_, _>>(),
        state,
    })
}

fn secret_info(path: &str, secret: &SecretRecord) -> SecretInfo {
    SecretInfo {
        path: path.into(),
        latest: secret.latest,
        deleted: secret.deleted,
        retention: secret.retention,
        created_at_ms: secret.created_at_ms,
        updated_at_ms: secret.updated_at_ms,
    }
}

fn find(scope: &Scope, rows: &impl Rows, path: &SecretPath) -> Result<SecretRecord> {
    rows.record(&tables::with_name(scope.org, path.as_str()))?
        .ok_or_else(|| Error::SecretNotFound {
            organization: scope.organization.clone(),
            path: path.clone(),
        })
}

pub(crate) fn missing_version(scope: &Scope, path: &SecretPath, version: Version, latest: Version) -> Error {
    Error::VersionNotFound {
        organization: scope.organization.clone(),
        path: path.clone(),
        version,
        latest,
    }
}

pub(crate) fn lost_version(scope: &Scope, path: &SecretPath, version: Version) -> Error {
    Error::VersionLost {
        organization: scope.organization.clone(),
        path: path.clone(),
        version,
    }
}

fn missing_data_key(path: &SecretPath, version: Version) -> Error {
    damaged_version(path, version, "its data key is missing")
}

fn damaged_version(path: &SecretPath, version: Version, reason: &str) -> Error {
    Error::damaged(format!("version {version} of secret {path:?}"), reason)
}
