//! The values themselves: chunks counted, what can be opened opened, data keys counted by epoch.

use super::bulk::Bulk;
use super::gather::Gathered;
use super::organization::Settling;
use super::proof::{self, Opened};
use super::report::{LossKind, SalvageReport};
use super::versions::Place;
use crate::error::Result;
use crate::keyring::data_key::DataKeyPlace;
use crate::names::{SecretPath, Version};
use crate::storage::records::{Body, DataKeyRow, HeaderCheck, LiveEpoch, SecretRecord, VersionRow};
use crate::storage::tables::ValueId;
use crate::storage::{Table, tables};
use std::collections::BTreeMap;

/// How it is known that a value is right.
enum Proof {
    Opened,
    Tagged,
    /// A part of it stood in loose pages, beyond one block.
    None,
}

impl Settling<'_> {
    /// Proves every value that is there, and counts the data keys under each epoch.
    pub(super) fn values(
        &mut self,
        chunks: &Gathered,
        bulk: &mut Bulk<'_>,
        report: &mut SalvageReport,
        progress: &mut dyn FnMut(&SalvageReport),
    ) -> Result<()> {
        let mut references = BTreeMap::new();
        let mut secrets = 0;
        bulk.each(
            Table::Secrets,
            &tables::organization(self.org()),
            |bulk, key, _| {
                let Some(mut secret) = bulk.record::<SecretRecord>(key)? else {
                    return Ok(());
                };
                let path = std::str::from_utf8(&key[4..]).unwrap_or_default();
                let deleted = secret.deleted;
                for version in (1..=secret.latest.get()).map(Version) {
                    let place = Place {
                        path,
                        secret_id: secret.secret_id,
                        version,
                    };
                    self.value(chunks, bulk, report, place, &mut secret, &mut references)?;
                    progress(report);
                }
                secrets += 1;
                if secret.deleted != deleted {
                    bulk.put_record(key, &secret)?;
                }
                Ok(())
            },
        )?;
        self.rest.head.secrets = secrets;
        let live = self.rest.live.iter();
        self.rest.head.live_epochs = live
            .map(|(epoch, wraps)| {
                let references = references.get(epoch).copied().unwrap_or(0);
                LiveEpoch {
                    epoch: *epoch,
                    references,
                    // Each wrap took a random nonce: never count fewer than there are.
                    wraps: (*wraps).max(references),
                }
            })
            .collect();
        Ok(())
    }

    fn value(
        &mut self,
        chunks: &Gathered,
        bulk: &mut Bulk<'_>,
        report: &mut SalvageReport,
        place: Place<'_>,
        secret: &mut SecretRecord,
        references: &mut BTreeMap<crate::names::EpochNumber, u64>,
    ) -> Result<()> {
        let key = tables::version(self.org(), place.secret_id, place.version);
        let Some(row) = bulk.get(Table::Versions, &key)? else {
            return Ok(());
        };
        let parsed = VersionRow::parse(bulk.place(), &key, &row, HeaderCheck::PlaceTag)?;
        if let Body::Destroyed { .. } | Body::Lost { .. } = parsed.header.body {
            return Ok(());
        }
        match self.prove(chunks, bulk, report, place, &key, &row)? {
            Ok((proof, data_key)) => {
                report.versions += 1;
                *match proof {
                    Proof::Opened => &mut report.opened,
                    Proof::Tagged => &mut report.tagged,
                    Proof::None => &mut report.unproven,
                } += 1;
                *references.entry(data_key.epoch).or_default() += 1;
            }
            Err(why) => {
                let is_deleted = bulk.get(Table::Deletions, &key)?.is_some();
                secret.deleted -= u32::from(is_deleted);
                if let Body::Chunked { value_id, .. } = parsed.header.body {
                    self.remove_chunks(bulk, &value_id)?;
                }
                self.lose(bulk, report, place, Some(parsed.header), LossKind::Version, why)?;
            }
        }
        Ok(())
    }

    /// How a value is known to be right, with its data key; or why it is lost.
    fn prove(
        &mut self,
        chunks: &Gathered,
        bulk: &mut Bulk<'_>,
        report: &mut SalvageReport,
        place: Place<'_>,
        key: &[u8; 16],
        row: &[u8],
    ) -> Result<Result<(Proof, DataKeyRow), String>> {
        let found = match bulk
            .get(Table::DataKeys, key)?
            .map(|row| DataKeyRow::decode(&row))
        {
            Some(Ok(found)) => found,
            _ => return Ok(Err("its data key is gone".into())),
        };
        let data_keys: Vec<DataKeyRow> = std::iter::once(found.encode().to_vec())
            .chain(self.gathered.others(self.damaged, Table::DataKeys, key))
            .filter_map(|row| DataKeyRow::decode(&row).ok())
            .filter(|row| self.rest.live.contains_key(&row.epoch))
            .collect();
        let other_rows = self.gathered.others(self.damaged, Table::Versions, key);
        let data_key_place = DataKeyPlace {
            store: self.core.store,
            org: self.org(),
            secret_id: place.secret_id,
            version: place.version,
        };
        let path = SecretPath::stored(place.path);
        let mut asked = false;
        for data_key in &data_keys {
            let Some(epoch_key) = self.epoch_key(data_key.epoch, report) else {
                continue;
            };
            asked = true;
            for row in std::iter::once(row).chain(other_rows.iter().map(Vec::as_slice)) {
                let Ok(parsed) = VersionRow::parse(bulk.place(), key, row, HeaderCheck::PlaceTag) else {
                    continue;
                };
                let Some(opened) = proof::open(&data_key_place, &path, &parsed, data_key, &epoch_key) else {
                    continue;
                };
                bulk.put(Table::DataKeys, key, data_key.encode().to_vec())?;
                bulk.put(Table::Versions, key, row.to_vec())?;
                let chunks = self.open_chunks(chunks, bulk, &parsed, opened)?;
                return Ok(chunks.map(|()| (Proof::Opened, *data_key)));
            }
        }
        if asked {
            let why = "it does not open: what stands in its place is not what was written";
            return Ok(Err(why.into()));
        }
        let mut spans = self.gathered.is_spanning(Table::Versions, key) || !other_rows.is_empty();
        if let Body::Chunked {
            value_id,
            chunks: count,
            ..
        } = VersionRow::parse(bulk.place(), key, row, HeaderCheck::PlaceTag)?
            .header
            .body
        {
            for index in 0..count {
                let key = tables::chunk(self.org(), &value_id, index);
                if bulk.get(Table::Chunks, &key)?.is_none() {
                    return Ok(Err(missing_chunk(index, count)));
                }
                spans |= chunks.is_spanning(Table::Chunks, &key);
            }
        }
        let proof = if spans { Proof::None } else { Proof::Tagged };
        Ok(Ok((proof, found)))
    }

    /// Opens each chunk, in the order of the value.
    fn open_chunks(
        &self,
        gathered: &Gathered,
        bulk: &mut Bulk<'_>,
        row: &VersionRow<'_>,
        opened: Opened,
    ) -> Result<Result<(), String>> {
        let (
            Opened::Chunked(chunks),
            Body::Chunked {
                value_id,
                chunks: count,
                ..
            },
        ) = (opened, &row.header.body)
        else {
            return Ok(Ok(()));
        };
        let mut bytes = 0;
        for index in 0..*count {
            let key = tables::chunk(self.org(), value_id, index);
            let Some(found) = bulk.get(Table::Chunks, &key)? else {
                return Ok(Err(missing_chunk(index, *count)));
            };
            let length = |sealed: &[u8]| proof::chunk_bytes(&chunks, index, *count, sealed);
            if let Some(length) = length(&found) {
                bytes += length;
                continue;
            }
            let others = gathered.others(self.damaged, Table::Chunks, &key);
            let Some((other, length)) = others
                .into_iter()
                .find_map(|other| Some((length(&other)?, other)))
                .map(|(length, other)| (other, length))
            else {
                return Ok(Err(format!("its chunk {} of {count} does not open", index + 1)));
            };
            bytes += length;
            bulk.put(Table::Chunks, &key, other)?;
        }
        Ok(if bytes == row.header.size_bytes {
            Ok(())
        } else {
            Err("its chunks are not as long as its size".into())
        })
    }

    fn remove_chunks(&self, bulk: &mut Bulk<'_>, value_id: &ValueId) -> Result<()> {
        bulk.each(
            Table::Chunks,
            &tables::upload(self.org(), value_id),
            |bulk, key, _| bulk.remove(Table::Chunks, key),
        )
    }
}

fn missing_chunk(index: u32, count: u32) -> String {
    format!("its chunk {} of {count} stood in a damaged page", index + 1)
}
