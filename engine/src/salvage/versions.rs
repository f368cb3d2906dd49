//! An organization's secrets and versions: which are whole, which were destroyed, which are lost. What is lost leaves a tombstone,
//! so that versions stay gapless and no number is given twice.

use super::bulk::Bulk;
use super::organization::Settling;
use super::proof::{self, Opened};
use super::report::{LossKind, SalvageReport};
use crate::env::now_ms;
use crate::error::Result;
use crate::keyring::data_key::DataKeyPlace;
use crate::names::{SecretPath, Version};
use crate::storage::records::{
    Body, DataKeyRow, DeletionRecord, HeaderCheck, SecretRecord, VersionHeader, VersionRow,
};
use crate::storage::{Rows, Table, tables};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// The most pairs of a nameless secret and a path that are tried on each other.
const NAMES_TRIED_MAX: usize = 1_000_000;

/// A version in its place.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    pub(super) path: &'p str,
    pub(super) secret_id: u64,
    pub(super) version: Version,
}

/// What became of a version.
enum Settled {
    /// It is there, or a tombstone is in its place.
    There,
    /// It is there and deleted.
    Deleted,
    /// There is nothing of it, and the file never had room for so many.
    NoRoom,
}

impl Settling<'_> {
    /// Settles every version by its rows. `chunked` learns which values have chunks to be copied.
    pub(super) fn versions(
        &mut self,
        bulk: &mut Bulk<'_>,
        report: &mut SalvageReport,
        chunked: &mut BTreeSet<[u8; 20]>,
    ) -> Result<()> {
        let prefix = tables::organization(self.org());
        let names_missing = self.is_touched(&[Table::Secrets]);
        if names_missing {
            self.find_names(bulk, report)?;
        }
        let mut known = BTreeMap::new();
        let rows_missing =
            self.is_touched(&[Table::Secrets, Table::Versions, Table::DataKeys, Table::Deletions])
                || self.gathered.journal_records_lost > 0;
        let mut next_secret_id = self.rest.head.next_secret_id;
        bulk.each(Table::Secrets, &prefix, |bulk, key, _| {
            let Some(mut secret) = bulk.record::<SecretRecord>(key)? else {
                return Ok(());
            };
            let path = std::str::from_utf8(&key[4..]).unwrap_or_default();
            if self.gathered.in_hole(Table::Secrets, key) {
                // Perhaps an older record: a version that it does not know yet must be named, and its number not given again.
                let told = self.witness.highest_put(path).unwrap_or(secret.latest);
                let found = self.highest_version(bulk, secret.secret_id)?;
                secret.latest = secret.latest.max(told).max(found);
            }
            secret.deleted = 0;
            for version in (1..=secret.latest.get()).map(Version) {
                let place = Place {
                    path,
                    secret_id: secret.secret_id,
                    version,
                };
                match self.version(bulk, report, place, secret.oldest_kept, chunked)? {
                    Settled::There => {}
                    Settled::Deleted => secret.deleted += 1,
                    Settled::NoRoom => {
                        self.cut_off(bulk, report, place, &mut secret)?;
                        break;
                    }
                }
            }
            next_secret_id = next_secret_id.max(secret.secret_id.saturating_add(1));
            if rows_missing {
                known.insert(secret.secret_id, secret.latest);
            }
            report.secrets += 1;
            bulk.put_record(key, &secret)
        })?;
        self.rest.head.next_secret_id = next_secret_id;
        if rows_missing {
            self.remove_strays(bulk, report, &known)?;
        }
        Ok(())
    }

    /// Gives up the versions of a secret from `first` on: some number made them more than the file has room for.
    fn cut_off(
        &mut self,
        bulk: &mut Bulk<'_>,
        report: &mut SalvageReport,
        first: Place<'_>,
        secret: &mut SecretRecord,
    ) -> Result<()> {
        let what = format!(
            "its versions {} to {}: the file never had room for so many, their number is wrong",
            first.version, secret.latest
        );
        let loss = self.loss(LossKind::Version, what);
        report.lose(loss.secret(Some(first.path), Some(first.secret_id), first.version));
        self.rest.versions_lost += u64::from(secret.latest.get() - first.version.get()) + 1;
        let from = tables::version(self.org(), first.secret_id, first.version);
        for table in [Table::Versions, Table::DataKeys, Table::Deletions] {
            bulk.each(table, &from[..12], |bulk, key, _| {
                if key >= from.as_slice() {
                    bulk.remove(table, key)?;
                }
                Ok(())
            })?;
        }
        secret.latest = Version(first.version.get() - 1);
        Ok(())
    }

    /// Settles one version.
    fn version(
        &mut self,
        bulk: &mut Bulk<'_>,
        report: &mut SalvageReport,
        place: Place<'_>,
        oldest_kept: Version,
        chunked: &mut BTreeSet<[u8; 20]>,
    ) -> Result<Settled> {
        let org = self.org();
        let key = tables::version(org, place.secret_id, place.version);
        let row = bulk.get(Table::Versions, &key)?;
        let header = row.as_ref().and_then(|row| {
            VersionRow::parse(bulk.place(), &key, row, HeaderCheck::PlaceTag)
                .ok()
                .map(|row| row.header)
        });
        if let Some(VersionHeader {
            body: Body::Destroyed { .. } | Body::Lost { .. },
            ..
        }) = header
        {
            bulk.remove(Table::DataKeys, &key)?;
            bulk.remove(Table::Deletions, &key)?;
            report.destroyed += 1;
            return Ok(Settled::There);
        }
        let data_key = bulk.get(Table::DataKeys, &key)?;
        let is_nowhere = row.is_none() && data_key.is_none() && place.version > Version(1);
        if is_nowhere && !self.gathered.may_miss_one_more() {
            return Ok(Settled::NoRoom);
        }
        let may_be_old = header.is_none()
            || self.gathered.in_hole(Table::Versions, &key)
            || self.gathered.journal_records_lost > 0;
        let destroyed_at = self.witness.destroyed_at(place.path, place.version).or_else(|| {
            // Without its data key by the tree's own word, it was destroyed: what a loose page has of it is older.
            let no_key = data_key.is_none()
                && self.gathered.in_hole(Table::Versions, &key)
                && !self.gathered.in_hole(Table::DataKeys, &key)
                && !self.made.contains(&place.secret_id);
            (place.version < oldest_kept || no_key).then_some(0)
        });
        let destroyed_at = destroyed_at.filter(|_| may_be_old);
        if let Some(at_ms) = destroyed_at {
            self.bury(bulk, place, header, Body::Destroyed { at_ms })?;
            report.destroyed += 1;
            return Ok(Settled::There);
        }
        let lost = |why: &str| Err((LossKind::Version, why.to_owned()));
        let whole = match (&header, &data_key) {
            (None, _) => lost("its row stood in a damaged page"),
            (_, None) => lost("its data key stood in a damaged page"),
            (Some(_), Some(row)) => match self.live_data_key(&key, row) {
                None => lost("the epoch of its data key is gone"),
                Some(_) if self.is_undecided(&key, place) && !self.options.keep_undecided => Err((
                    LossKind::Undecided,
                    "whether it was destroyed, nothing that is left says; it is kept when that is asked for"
                        .into(),
                )),
                Some(row) => {
                    bulk.put(Table::DataKeys, &key, row.encode().to_vec())?;
                    Ok(())
                }
            },
        };
        if let Err((kind, why)) = whole {
            self.lose(bulk, report, place, header, kind, why)?;
            return Ok(Settled::There);
        }
        if let Some(Body::Chunked { value_id, .. }) = header.map(|header| header.body) {
            chunked.insert(tables::upload(org, &value_id));
        }
        Ok(match self.deletion(bulk, &key, place)? {
            true => Settled::Deleted,
            false => Settled::There,
        })
    }

    /// The data key of a version under an epoch that is live: the row that was gathered, or another one.
    fn live_data_key(&self, key: &[u8], row: &[u8]) -> Option<DataKeyRow> {
        let others = self.gathered.others(self.damaged, Table::DataKeys, key);
        let rows = std::iter::once(row.to_vec()).chain(others);
        let rows = rows.filter_map(|row| DataKeyRow::decode(&row).ok());
        rows.into_iter()
            .find(|row| self.rest.live.contains_key(&row.epoch))
    }

    /// True when neither trees nor journal nor audit trail say that a version was not destroyed.
    fn is_undecided(&self, key: &[u8], place: Place<'_>) -> bool {
        self.gathered.in_hole(Table::Versions, key)
            && self.gathered.in_hole(Table::DataKeys, key)
            && !self.witness.rules_out_destruction(place.path, place.version)
    }

    /// Whether a version is deleted: as the tree says; else as the audit trail does; else deleted, which can be undone.
    fn deletion(&self, bulk: &mut Bulk<'_>, key: &[u8], place: Place<'_>) -> Result<bool> {
        let found = bulk.get(Table::Deletions, key)?.is_some();
        if !self.gathered.in_hole(Table::Deletions, key) {
            return Ok(found);
        }
        match self.witness.deleted_at(place.path, place.version) {
            None => Ok(found),
            Some(None) => {
                bulk.remove(Table::Deletions, key)?;
                Ok(false)
            }
            Some(Some(deleted_at_ms)) => {
                bulk.put_record(key, &DeletionRecord { deleted_at_ms })?;
                Ok(true)
            }
        }
    }

    pub(super) fn lose(
        &mut self,
        bulk: &mut Bulk<'_>,
        report: &mut SalvageReport,
        place: Place<'_>,
        header: Option<VersionHeader>,
        kind: LossKind,
        why: String,
    ) -> Result<()> {
        let loss = self.loss(kind, why);
        report.lose(loss.secret(Some(place.path), Some(place.secret_id), place.version));
        self.rest.versions_lost += 1;
        let at_ms = now_ms(&*self.core.env);
        self.bury(bulk, place, header, Body::Lost { at_ms })
    }

    /// A tombstone in place of a version, with what is known of it.
    fn bury(
        &self,
        bulk: &mut Bulk<'_>,
        place: Place<'_>,
        header: Option<VersionHeader>,
        body: Body,
    ) -> Result<()> {
        let key = tables::version(self.org(), place.secret_id, place.version);
        let unknown = VersionHeader {
            created_at_ms: 0,
            size_bytes: 0,
            content_type: None,
            labels: Vec::new(),
            body: body.clone(),
        };
        let header = VersionHeader {
            body,
            ..header.unwrap_or(unknown)
        };
        let row = VersionRow::begin(bulk.place(), &key, &header, 0);
        bulk.put(Table::Versions, &key, row)?;
        bulk.remove(Table::DataKeys, &key)?;
        bulk.remove(Table::Deletions, &key)
    }

    fn highest_version(&self, bulk: &mut Bulk<'_>, secret_id: u64) -> Result<Version> {
        let mut highest = Version(1);
        let prefix = &tables::version(self.org(), secret_id, Version(1))[..12];
        for table in [Table::Versions, Table::DataKeys] {
            bulk.snapshot()?.scan_prefix(table, prefix, |key, _| {
                highest = tables::parse_version(key).map_or(highest, |(_, _, version)| highest.max(version));
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(highest)
    }

    /// Secrets of which no record is left: those that a path of the audit trail opens get their record back; for the other paths one
    /// is made that says what was lost.
    fn find_names(&mut self, bulk: &mut Bulk<'_>, report: &mut SalvageReport) -> Result<()> {
        let org = self.org();
        let mut nameless = self.witness.nameless.clone();
        if nameless.is_empty() {
            return Ok(());
        }
        let prefix = tables::organization(org);
        let mut named = BTreeSet::new();
        bulk.each(Table::Secrets, &prefix, |bulk, key, _| {
            named.extend(bulk.record::<SecretRecord>(key)?.map(|secret| secret.secret_id));
            Ok(())
        })?;
        let mut tries = 0;
        let (mut found, mut last_id) = (Vec::new(), 0);
        bulk.each(Table::Versions, &prefix, |bulk, key, row| {
            let Some((_, secret_id, version)) = tables::parse_version(key) else {
                return Ok(());
            };
            last_id = last_id.max(secret_id);
            if named.contains(&secret_id) || tries > NAMES_TRIED_MAX {
                return Ok(());
            }
            let Ok(row) = VersionRow::parse(bulk.place(), key, row, HeaderCheck::PlaceTag) else {
                return Ok(());
            };
            let put_then =
                |versions: &BTreeMap<Version, u64>| versions.get(&version) == Some(&row.header.created_at_ms);
            let paths: Vec<String> = nameless
                .iter()
                .filter(|(_, versions)| put_then(versions))
                .map(|(path, _)| path.clone())
                .collect();
            for path in paths {
                tries += 1;
                if self.opens_at(bulk, report, &path, secret_id, version, &row)? {
                    named.insert(secret_id);
                    nameless.remove(&path);
                    found.push((path, secret_id));
                    break;
                }
            }
            Ok(())
        })?;
        let last_id = named.last().map_or(last_id, |last| last_id.max(*last));
        let mut next = self.rest.head.next_secret_id.max(last_id.saturating_add(1));
        for path in nameless.into_keys() {
            // The last number is never given: some number in the file is wrong, and there is none left.
            let Some(after) = next.checked_add(1) else {
                let loss = self.loss(LossKind::Version, "there is no number left for its secret");
                report.lose(loss.secret(Some(&path), None, Version(1)));
                continue;
            };
            self.made.insert(next);
            found.push((path, next));
            next = after;
        }
        self.rest.head.next_secret_id = next;
        for (path, secret_id) in found {
            self.make_secret(bulk, &path, secret_id)?;
        }
        Ok(())
    }

    fn make_secret(&self, bulk: &mut Bulk<'_>, path: &str, secret_id: u64) -> Result<()> {
        let puts = self.witness.nameless.get(path);
        let times = || puts.into_iter().flat_map(|puts| puts.values().copied());
        let latest = puts
            .and_then(|puts| puts.keys().next_back().copied())
            .unwrap_or(Version(1));
        let secret = SecretRecord {
            secret_id,
            latest,
            deleted: 0,
            oldest_kept: Version(1),
            retention: self.witness.retention.get(path).copied().flatten(),
            created_at_ms: times().min().unwrap_or(0),
            updated_at_ms: times().max().unwrap_or(0),
        };
        bulk.put_record(&tables::with_name(self.org(), path), &secret)
    }

    fn opens_at(
        &mut self,
        bulk: &Bulk<'_>,
        report: &mut SalvageReport,
        path: &str,
        secret_id: u64,
        version: Version,
        row: &VersionRow<'_>,
    ) -> Result<bool> {
        let key = tables::version(self.org(), secret_id, version);
        let Some(found) = bulk.get(Table::DataKeys, &key)? else {
            return Ok(false);
        };
        let Some(data_key) = self.live_data_key(&key, &found) else {
            return Ok(false);
        };
        let Some(epoch_key) = self.epoch_key(data_key.epoch, report) else {
            return Ok(false);
        };
        let place = DataKeyPlace {
            store: self.core.store,
            org: self.org(),
            secret_id,
            version,
        };
        let opened = proof::open(&place, &SecretPath::stored(path), row, &data_key, &epoch_key);
        Ok(matches!(opened, Some(Opened::Inline | Opened::Chunked(_))))
    }

    /// Removes rows that belong to no version of a secret, and names the versions that they were of.
    fn remove_strays(
        &mut self,
        bulk: &mut Bulk<'_>,
        report: &mut SalvageReport,
        known: &BTreeMap<u64, Version>,
    ) -> Result<()> {
        let org = self.org();
        let mut named = BTreeSet::new();
        for table in [Table::Versions, Table::DataKeys, Table::Deletions] {
            bulk.each(table, &tables::organization(org), |bulk, key, row| {
                let Some((_, secret_id, version)) = tables::parse_version(key) else {
                    return bulk.remove(table, key);
                };
                if known.get(&secret_id).is_some_and(|latest| version <= *latest) {
                    return Ok(());
                }
                let gone = table == Table::Versions
                    && VersionRow::parse(bulk.place(), key, row, HeaderCheck::PlaceTag).is_ok_and(|row| {
                        matches!(row.header.body, Body::Destroyed { .. } | Body::Lost { .. })
                    });
                if !gone && table != Table::Deletions && named.insert((secret_id, version)) {
                    let loss = self.loss(LossKind::Version, "the path of its secret is gone");
                    report.lose(loss.secret(None, Some(secret_id), version));
                    self.rest.versions_lost += 1;
                }
                bulk.remove(table, key)
            })?;
        }
        Ok(())
    }
}
