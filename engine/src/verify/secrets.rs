//! An organization's secrets, versions, data keys, deletions, values and chunks, each against the others.

use super::{Numbers, Place, Verifier, VerifyProgress, first_key};
use crate::error::{Error, Result};
use crate::names::{EpochNumber, SecretPath, Version};
use crate::scope::Scope;
use crate::secret::read::{self, Opened};
use crate::secret::value::CHUNK_BYTES;
use crate::storage::records::{
    self, Body, DataKeyRow, DeletionRecord, HeadRecord, HeaderCheck, SecretRecord, UploadRecord,
    VersionHeader, VersionRow,
};
use crate::storage::tables::ValueId;
use crate::storage::{Rows, Snapshot, Table, tables};
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

/// Bytes that sealing adds.
const SEAL_BYTES: usize = 16;

/// What the walk over the secrets has met: what is met elsewhere and is not in here belongs to nobody.
#[derive(Default)]
struct Seen {
    secrets: Numbers,
    count: u64,
    values: HashSet<ValueId>,
}

/// The secret that is being looked at.
struct Looked<'l> {
    scope: &'l Scope,
    snapshot: &'l Snapshot,
    head: Option<&'l HeadRecord>,
    path: &'l SecretPath,
    secret: &'l SecretRecord,
}

impl<'l> Looked<'l> {
    fn place(&self) -> Place<'l> {
        Place::of(&self.scope.organization).path(self.path)
    }
}

impl<P: FnMut(VerifyProgress)> Verifier<'_, P> {
    pub(super) fn secrets(
        &mut self,
        scope: &Scope,
        snapshot: &Snapshot,
        head: Option<&HeadRecord>,
    ) -> Result<()> {
        let mut seen = Seen::default();
        let place = Place::of(&scope.organization);
        let prefix = tables::organization(scope.org);
        let walked = snapshot.scan_prefix(Table::Secrets, &prefix, |key, row| {
            seen.count += 1;
            let text = String::from_utf8_lossy(&key[prefix.len()..]);
            let path = SecretPath::stored(&text);
            if text.parse::<SecretPath>().is_err() {
                self.problem(&place.path(&path), "it has a path that is not allowed".into());
            }
            match records::decode::<SecretRecord>(snapshot.place(), key, row) {
                Ok(secret) => {
                    let looked = Looked {
                        scope,
                        snapshot,
                        head,
                        path: &path,
                        secret: &secret,
                    };
                    let checked = self.secret(&looked, &mut seen);
                    self.note(&looked.place(), checked)?;
                }
                Err(error) => self.note(&place.path(&path), Err(error))?,
            }
            self.secret_done();
            Ok(ControlFlow::Continue(()))
        });
        self.note(&place, walked)?;
        if let Some(head) = head
            && seen.count != head.secrets
        {
            self.problem(
                &place,
                format!("it counts {} secrets; there are {}", head.secrets, seen.count),
            );
        }
        self.data_keys(scope, snapshot, head, &seen)?;
        self.deletions(scope, snapshot, &seen)?;
        self.versions_of_nothing(scope, snapshot, &seen)?;
        self.chunks_of_nothing(scope, snapshot, &seen)
    }

    fn secret(&mut self, looked: &Looked<'_>, seen: &mut Seen) -> Result<()> {
        let Looked {
            scope,
            snapshot,
            secret,
            ..
        } = *looked;
        let place = looked.place();
        if !seen.secrets.insert(secret.secret_id) {
            self.problem(
                &place,
                "it has the number of another secret: its versions are that one's".into(),
            );
            return Ok(());
        }
        if looked
            .head
            .is_some_and(|head| secret.secret_id >= head.next_secret_id)
        {
            self.problem(&place, "it has a number that was not given out".into());
        }
        let first = tables::version(scope.org, secret.secret_id, Version(0));
        let (mut expected, mut deleted) = (1, 0);
        snapshot.scan_prefix(Table::Versions, &first[..12], |key, row| {
            let Some((_, _, version)) = tables::parse_version(key) else {
                self.problem(&place, "a row of its versions has a key of the wrong form".into());
                return Ok(ControlFlow::Continue(()));
            };
            self.missing(
                &place,
                expected,
                version.get().saturating_sub(1).min(secret.latest.get()),
            );
            expected = version.get().saturating_add(1);
            let place = place.version(version);
            if version > secret.latest {
                self.problem(
                    &place,
                    format!("it is there, but the latest is {}", secret.latest),
                );
            }
            self.report.versions += 1;
            let checked = self.version(looked, version, key, row, seen);
            let is_deleted = checked.as_ref().is_ok_and(|deleted| *deleted);
            deleted += u32::from(is_deleted);
            self.note(&place, checked.map(drop))?;
            Ok(ControlFlow::Continue(()))
        })?;
        self.missing(&place, expected, secret.latest.get());
        if deleted != secret.deleted {
            self.problem(
                &place,
                format!("it counts {} deleted versions; {deleted} are", secret.deleted),
            );
        }
        if secret.retention == Some(0) {
            self.problem(&place, "it is to keep no version".into());
        }
        Ok(())
    }

    fn missing(&mut self, place: &Place<'_>, from: u32, to: u32) {
        match from.cmp(&to) {
            std::cmp::Ordering::Greater => {}
            std::cmp::Ordering::Equal => {
                self.problem(&place.version(Version(from)), "its row is missing".into())
            }
            std::cmp::Ordering::Less => {
                self.problem(
                    place,
                    format!("the rows of its versions {from} to {to} are missing"),
                );
            }
        }
    }

    /// Looks at one version; says whether it is deleted.
    fn version(
        &mut self,
        looked: &Looked<'_>,
        version: Version,
        key: &[u8],
        row: &[u8],
        seen: &mut Seen,
    ) -> Result<bool> {
        let Looked {
            scope,
            snapshot,
            secret,
            ..
        } = *looked;
        let place = looked.place().version(version);
        let data_key = snapshot.get_with(Table::DataKeys, key, DataKeyRow::decode)?;
        let deleted = snapshot.record::<DeletionRecord>(key)?.is_some();
        let VersionRow { header, sealed, .. } =
            VersionRow::parse(snapshot.place(), key, row, HeaderCheck::PlaceTag)?;
        let gone = matches!(header.body, Body::Destroyed { .. } | Body::Lost { .. });
        let mut fault = |what: String| self.problem(&place, what);
        match (gone, data_key) {
            (true, Some(_)) => fault("it is destroyed or lost, but its data key is there".into()),
            (false, None) => fault("its data key is missing".into()),
            (false, Some(data_key)) => {
                let live =
                    |head: &HeadRecord| head.live_epochs.iter().any(|live| live.epoch == data_key.epoch);
                if !looked.head.is_none_or(live) {
                    fault(format!(
                        "its data key is under epoch {}, which is not live",
                        data_key.epoch
                    ));
                }
            }
            (true, None) => {}
        }
        if gone && (deleted || !sealed.is_empty()) {
            fault("it is destroyed or lost, and deleted, or holds a value still".into());
        }
        if !gone && version < secret.oldest_kept {
            fault(format!(
                "retention has destroyed the versions before {}; it is there",
                secret.oldest_kept
            ));
        }
        if let Body::Chunked { value_id, chunks, .. } = header.body {
            self.chunks(looked, version, &header, &value_id, chunks, seen)?;
        }
        if self.options.open_values && !gone && data_key.is_some() {
            let opened = open_value(looked, version, row);
            self.value(scope, snapshot, &place, key, row, opened)?;
        }
        Ok(deleted)
    }

    /// The chunks of a value: all there, none more, and of the right lengths.
    fn chunks(
        &mut self,
        looked: &Looked<'_>,
        version: Version,
        header: &VersionHeader,
        value_id: &ValueId,
        chunks: u32,
        seen: &mut Seen,
    ) -> Result<()> {
        let place = looked.place().version(version);
        if !seen.values.insert(*value_id) {
            self.problem(&place, "its chunks are another version's, too".into());
        }
        let prefix = tables::upload(looked.scope.org, value_id);
        let (mut count, mut size) = (0_u32, 0_u64);
        let (mut in_order, mut full) = (true, true);
        looked.snapshot.scan_prefix(Table::Chunks, &prefix, |key, row| {
            in_order &= key == tables::chunk(looked.scope.org, value_id, count);
            // Every chunk but the last is full.
            full &= count == 0 || size == u64::from(count) * CHUNK_BYTES as u64;
            count = count.saturating_add(1);
            size += row.len().saturating_sub(SEAL_BYTES) as u64;
            self.report.chunks += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        if !in_order || count != chunks {
            self.problem(
                &place,
                format!("it has {chunks} chunks; {count} are there, or not these"),
            );
        } else if !full || size != header.size_bytes {
            self.problem(
                &place,
                format!(
                    "its chunks are not of the lengths that {} bytes have",
                    header.size_bytes
                ),
            );
        }
        Ok(())
    }

    /// What came of opening a value.
    fn value(
        &mut self,
        scope: &Scope,
        snapshot: &Snapshot,
        place: &Place<'_>,
        key: &[u8],
        row: &[u8],
        opened: Result<()>,
    ) -> Result<()> {
        match opened {
            Ok(()) => {
                self.report.values_opened += 1;
                Ok(())
            }
            Err(error @ (Error::Kms { .. } | Error::BackendNotRegistered { .. })) => {
                self.unopened(place, error.to_string());
                Ok(())
            }
            Err(error) => {
                // Destroyed since the snapshot was taken: then its row is another one now.
                let newest = scope.snapshot();
                let changed = newest.sequence != snapshot.sequence
                    && newest.get_with(Table::Versions, key, |now| Ok(now == row))? != Some(true);
                if changed {
                    Ok(())
                } else {
                    self.note(place, Err(error))
                }
            }
        }
    }

    /// Every data key by the epoch that wraps it, against the counts; and those of no version.
    fn data_keys(
        &mut self,
        scope: &Scope,
        snapshot: &Snapshot,
        head: Option<&HeadRecord>,
        seen: &Seen,
    ) -> Result<()> {
        let place = Place::of(&scope.organization);
        let mut counted: BTreeMap<EpochNumber, u64> = BTreeMap::new();
        let walked = snapshot.scan_prefix(Table::DataKeys, &tables::organization(scope.org), |key, row| {
            if let Ok(row) = DataKeyRow::decode(row) {
                *counted.entry(row.epoch).or_default() += 1;
            }
            self.of_a_version(scope, snapshot, Table::DataKeys, key, seen)?;
            Ok(ControlFlow::Continue(()))
        });
        self.note(&place, walked)?;
        let Some(head) = head else { return Ok(()) };
        for live in &head.live_epochs {
            let found = counted.remove(&live.epoch).unwrap_or(0);
            if found != live.references {
                let what = format!(
                    "epoch {} counts {} data keys; {found} refer to it",
                    live.epoch, live.references
                );
                self.problem(&place, what);
            }
        }
        for (epoch, found) in counted {
            self.problem(
                &place,
                format!("{found} data keys refer to epoch {epoch}, which is not live"),
            );
        }
        Ok(())
    }

    fn deletions(&mut self, scope: &Scope, snapshot: &Snapshot, seen: &Seen) -> Result<()> {
        let walked = snapshot.scan_prefix(Table::Deletions, &tables::organization(scope.org), |key, _| {
            self.of_a_version(scope, snapshot, Table::Deletions, key, seen)?;
            Ok(ControlFlow::Continue(()))
        });
        self.note(&Place::of(&scope.organization), walked)
    }

    /// Reports a row that stands beside a version which is not there.
    fn of_a_version(
        &mut self,
        scope: &Scope,
        snapshot: &Snapshot,
        table: Table,
        key: &[u8],
        seen: &Seen,
    ) -> Result<()> {
        let what = match tables::parse_version(key) {
            None => format!("a row of table {} has a key of the wrong form", table.name()),
            Some((_, secret_id, version)) => {
                let is_there = seen.secrets.contains(secret_id)
                    && snapshot.get_with(Table::Versions, key, |_| Ok(()))?.is_some();
                if is_there {
                    return Ok(());
                }
                format!(
                    "a row of table {} is of version {version} of secret number {secret_id}, which is not there",
                    table.name()
                )
            }
        };
        self.problem(&Place::of(&scope.organization), what);
        Ok(())
    }

    /// Versions whose secret is not there. One step down the tree for each secret.
    fn versions_of_nothing(&mut self, scope: &Scope, snapshot: &Snapshot, seen: &Seen) -> Result<()> {
        let place = Place::of(&scope.organization);
        let mut from = tables::organization(scope.org).to_vec();
        while let Some(key) = first_key(snapshot, Table::Versions, &from)? {
            if !key.starts_with(&tables::organization(scope.org)) {
                break;
            }
            let id = key
                .get(4..12)
                .and_then(|id| id.try_into().ok())
                .map(u64::from_be_bytes);
            let Some(id) = id.filter(|_| key.len() == 16) else {
                self.problem(
                    &place,
                    "a row of table versions has a key of the wrong form".into(),
                );
                from = [&key[..], &[0]].concat();
                continue;
            };
            if !seen.secrets.contains(id) {
                let what = format!(
                    "versions of secret number {id} are there; no secret that can be read has that number"
                );
                self.problem(&place, what);
            }
            let Some(next) = id.checked_add(1) else { break };
            from = [&tables::organization(scope.org)[..], &next.to_be_bytes()].concat();
        }
        Ok(())
    }

    /// Chunks that no version and no writer needs. One step down the tree for each large value.
    fn chunks_of_nothing(&mut self, scope: &Scope, snapshot: &Snapshot, seen: &Seen) -> Result<()> {
        let place = Place::of(&scope.organization);
        let prefix = tables::organization(scope.org);
        let mut from = prefix.to_vec();
        while let Some(key) = first_key(snapshot, Table::Chunks, &from)? {
            if !key.starts_with(&prefix) {
                break;
            }
            let Some(value_id) = key.get(4..20).and_then(|id| ValueId::try_from(id).ok()) else {
                self.problem(&place, "a row of table chunks has a key of the wrong form".into());
                from = [&key[..], &[0]].concat();
                continue;
            };
            let upload = tables::upload(scope.org, &value_id);
            let is_written = || snapshot.get_with(Table::Uploads, &upload, |_| Ok(()));
            if !seen.values.contains(&value_id) && is_written()?.is_none() {
                self.problem(&place, "chunks are there that belong to no version".into());
            }
            let Some(next) = u128::from_be_bytes(value_id).checked_add(1) else {
                break;
            };
            from = [&prefix[..], &next.to_be_bytes()].concat();
        }
        let walked = snapshot.scan_prefix(Table::Uploads, &prefix, |key, row| {
            let decoded = records::decode::<UploadRecord>(snapshot.place(), key, row).map(drop);
            self.note(&place, decoded)?;
            let value_id = key.get(4..).and_then(|id| ValueId::try_from(id).ok());
            if value_id.is_none_or(|id| seen.values.contains(&id)) {
                self.problem(
                    &place,
                    "a value is said to be still written, and a version has it, or its key is odd".into(),
                );
            }
            Ok(ControlFlow::Continue(()))
        });
        self.note(&place, walked)
    }
}

/// Opens a value, a chunk at a time, and lets go of it.
fn open_value(looked: &Looked<'_>, version: Version, row: &[u8]) -> Result<()> {
    let Looked {
        scope,
        snapshot,
        path,
        secret,
        ..
    } = *looked;
    let data_key = || read::open_data_key(scope, snapshot, path, secret.secret_id, version);
    let opened = read::open_row(scope, snapshot, path, secret.secret_id, version, row, data_key)?;
    let Opened::Chunked {
        value_id,
        chunks,
        count,
    } = opened.body
    else {
        return Ok(());
    };
    let mut size = 0;
    for index in 0..count {
        size += read::read_chunk(scope, &value_id, &chunks, index, count, path, version)?.len() as u64;
    }
    if size != opened.header.size_bytes {
        return Err(Error::damaged(
            format!("version {version} of secret {path:?}"),
            "its chunks are not as long as its size",
        ));
    }
    Ok(())
}
