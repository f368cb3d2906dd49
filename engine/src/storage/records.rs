//! The records in the tables: one format byte, then the record in postcard's encoding, then a tag that binds the row to
//! its place.
//!
//! A row of `Versions` and one of `DataKeys` hold sealed bytes and have their own layouts ([`VersionRow`],
//! [`DataKeyRow`]): the AEAD authenticates them. An audit row ends with the hash that chains it.

use crate::crypto::{self, PlaceKey};
use crate::error::{Error, Result};
use crate::names::{EpochNumber, Version};
use crate::storage::tables::{Table, ValueId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The first byte of every row that has a format of its own: records, versions, data keys, audit.
pub(crate) const RECORD_FORMAT: u8 = 1;
const PLACE_TAG_BYTES: usize = 16;

/// A record that stands in a table of its own kind.
pub(crate) trait Record: Serialize + DeserializeOwned {
    const TABLE: Table;
}

macro_rules! record {
    ($name:ident in $table:ident) => {
        impl Record for $name {
            const TABLE: Table = Table::$table;
        }
    };
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrganizationRecord {
    pub(crate) name: String,
    pub(crate) created_at_ms: u64,
}
record!(OrganizationRecord in Organizations);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrganizationNameRecord {
    pub(crate) id: u32,
}
record!(OrganizationNameRecord in OrganizationNames);

/// What every change of an organization moves on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeadRecord {
    pub(crate) next_secret_id: u64,
    pub(crate) secrets: u64,
    pub(crate) next_job: u64,
    pub(crate) audit_sequence: u64,
    pub(crate) audit_hash: [u8; 32],
    pub(crate) default_key: String,
    pub(crate) active_epoch: EpochNumber,
    pub(crate) last_epoch: EpochNumber,
    pub(crate) epochs_hash: [u8; 32],
    /// The epochs that are not retired.
    pub(crate) live_epochs: Vec<LiveEpoch>,
}
record!(HeadRecord in Heads);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LiveEpoch {
    pub(crate) epoch: EpochNumber,
    /// Data keys that are wrapped under this epoch: always exact.
    pub(crate) references: u64,
    /// Data keys ever wrapped under it: each took a random 96-bit nonce.
    pub(crate) wraps: u64,
}

impl HeadRecord {
    pub(crate) fn live_epoch(&mut self, epoch: EpochNumber) -> Result<&mut LiveEpoch> {
        self.live_epochs
            .iter_mut()
            .find(|live| live.epoch == epoch)
            .ok_or_else(|| {
                Error::damaged(
                    format!("epoch {epoch}"),
                    "a data key refers to it, but it is retired",
                )
            })
    }

    /// One data key of this epoch is gone. A count of 0 is damage: somebody changed the file.
    pub(crate) fn drop_reference(&mut self, epoch: EpochNumber) -> Result<()> {
        let live = self.live_epoch(epoch)?;
        live.references = live.references.checked_sub(1).ok_or_else(|| {
            Error::damaged(
                format!("epoch {epoch}"),
                "its count is 0, but a data key refers to it",
            )
        })?;
        Ok(())
    }

    /// One data key more is wrapped under this epoch.
    pub(crate) fn add_reference(&mut self, epoch: EpochNumber) -> Result<()> {
        let live = self.live_epoch(epoch)?;
        live.references = live.references.saturating_add(1);
        live.wraps = live.wraps.saturating_add(1);
        Ok(())
    }

    pub(crate) fn references(&self, epoch: EpochNumber) -> u64 {
        self.live_epochs
            .iter()
            .find(|live| live.epoch == epoch)
            .map_or(0, |live| live.references)
    }
}

/// A registered key's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    /// New epochs may be opened under it.
    Enabled,
    /// Its data keys are being re-wrapped to another key.
    Disabling,
    /// No data key is under it, and none will be.
    Disabled,
    /// The organization's second key: it wraps every live epoch beside the key that the epoch belongs to, and opens it while
    /// that one is out of reach. Revoking either is honoured.
    Second,
    /// The same, but revoking one is not enough: the other opens the epoch alone.
    SecondEither,
}

impl KeyState {
    /// True for the organization's second key.
    #[must_use]
    pub fn is_second(self) -> bool {
        matches!(self, Self::Second | Self::SecondEither)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    pub(crate) backend: String,
    pub(crate) config: String,
    pub(crate) state: KeyState,
    pub(crate) created_at_ms: u64,
}
record!(KeyRecord in Keys);

/// Why an epoch was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EpochCause {
    /// The organization was created.
    OrganizationCreated,
    /// The first customer-managed key was added.
    FirstOwnKey,
    /// A key was made the default.
    SetDefault,
    /// A key was rotated.
    Rotation,
    /// A key was disabled, and this epoch takes what it held.
    KeyDisabled,
    /// All customer-managed keys were disabled.
    AllKeysDisabled,
    /// Why is not known: the epoch's record was lost to damage, and a salvage put this one in its place.
    RecordLost,
}

/// What is fixed when an epoch is opened; the chain of epochs hashes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EpochOpened {
    pub(crate) key: String,
    pub(crate) kms_key_id: String,
    pub(crate) opened_at_ms: u64,
    pub(crate) actor: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) cause: EpochCause,
    pub(crate) commitment: [u8; 32],
    pub(crate) previous_hash: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EpochRecord {
    pub(crate) opened: EpochOpened,
    pub(crate) hash: [u8; 32],
    /// The epoch key as each KMS wrapped it; empty once the epoch is retired.
    pub(crate) wraps: Vec<WrapRecord>,
    pub(crate) retired_at_ms: Option<u64>,
}
record!(EpochRecord in Epochs);

/// What one KMS returned for one epoch, sealed once more under the shred key in a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WrapRecord {
    pub(crate) key: String,
    pub(crate) kms_key_id: String,
    pub(crate) cell: u64,
    pub(crate) sealed: Vec<u8>,
    pub(crate) wrapped_at_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecretRecord {
    pub(crate) secret_id: u64,
    pub(crate) latest: Version,
    /// How many versions stand in `Deletions`: 0 spares a read the look.
    pub(crate) deleted: u32,
    /// Versions below this one are destroyed by retention.
    pub(crate) oldest_kept: Version,
    /// Keep at most this many versions; `None`: all.
    pub(crate) retention: Option<u32>,
    pub(crate) created_at_ms: u64,
    pub(crate) updated_at_ms: u64,
}
record!(SecretRecord in Secrets);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UploadRecord {
    pub(crate) started_at_ms: u64,
}
record!(UploadRecord in Uploads);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeletionRecord {
    pub(crate) deleted_at_ms: u64,
}
record!(DeletionRecord in Deletions);

/// The persistent record of moving every data key of some epochs to a target epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RewrapJobRecord {
    pub(crate) number: u64,
    pub(crate) started_at_ms: u64,
    pub(crate) finished_at_ms: Option<u64>,
    pub(crate) actor: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) cause: EpochCause,
    pub(crate) sources: Vec<SourceRecord>,
    /// Keys that are `disabled` as soon as no epoch is wrapped by them.
    pub(crate) disabling: Vec<String>,
    /// The last data key of this pass that was looked at.
    pub(crate) cursor: Option<(u64, Version)>,
    /// What went wrong with the last step; the job tries again.
    pub(crate) blocked: Option<String>,
    pub(crate) done: u64,
    /// Data keys of this pass that did not open.
    pub(crate) failed: u64,
    pub(crate) batches: u64,
}
record!(RewrapJobRecord in RewrapJobs);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceRecord {
    pub(crate) epoch: EpochNumber,
    pub(crate) state: SourceState,
    /// Where its data keys go.
    pub(crate) target: EpochNumber,
    /// The key that wraps the target, and takes over this epoch's key.
    pub(crate) target_key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SourceState {
    /// Wrapped by the old KMS still.
    HandOver,
    /// The target's KMS wraps it; its data keys are being moved.
    Rewrap,
    /// No data key is left under it; its wraps are erased.
    Retired,
}

/// Encodes a record with its format byte and the tag that binds it to its row.
pub(crate) fn encode<R: Record>(place: &PlaceKey, row_key: &[u8], record: &R) -> Vec<u8> {
    let mut row = postcard::to_extend(record, vec![RECORD_FORMAT]).expect("records encode into memory");
    let tag = crypto::place_tag(place, R::TABLE as u8, row_key, &row);
    row.extend_from_slice(&tag);
    row
}

/// Decodes what [`encode`] made for this very row; anything else is damage.
pub(crate) fn decode<R: Record>(place: &PlaceKey, row_key: &[u8], row: &[u8]) -> Result<R> {
    let body = checked_body(place, R::TABLE, row_key, row)?;
    postcard::from_bytes(&body[1..])
        .map_err(|error| damaged(R::TABLE, &format!("it does not decode: {error}")))
}

/// True when the tag of a row says that it stands in this very place; for tables whose rows have such a tag.
pub(crate) fn is_in_place(place: &PlaceKey, table: Table, row_key: &[u8], row: &[u8]) -> bool {
    match table {
        Table::Versions => VersionRow::parse(place, row_key, row, HeaderCheck::PlaceTag).is_ok(),
        _ => checked_body(place, table, row_key, row).is_ok(),
    }
}

fn checked_body<'r>(place: &PlaceKey, table: Table, row_key: &[u8], row: &'r [u8]) -> Result<&'r [u8]> {
    let Some(split) = row.len().checked_sub(PLACE_TAG_BYTES).filter(|split| *split >= 1) else {
        return Err(damaged(table, "it is too short"));
    };
    let (body, tag) = row.split_at(split);
    if crypto::place_tag(place, table as u8, row_key, body)[..] != *tag {
        return Err(damaged(
            table,
            "its tag does not fit: damaged, or moved here from another place",
        ));
    }
    check_format(table, body)?;
    Ok(body)
}

fn check_format(table: Table, row: &[u8]) -> Result<()> {
    match row.first() {
        Some(&RECORD_FORMAT) => Ok(()),
        Some(other) => Err(damaged(
            table,
            &format!("its format {other} is not known to this version"),
        )),
        None => Err(damaged(table, "it is empty")),
    }
}

pub(crate) fn damaged(table: Table, reason: &str) -> Error {
    Error::damaged(format!("a row of table {}", table.name()), reason)
}

/// What is known of a version without its data key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VersionHeader {
    pub(crate) created_at_ms: u64,
    pub(crate) size_bytes: u64,
    pub(crate) content_type: Option<String>,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    /// The sealed value follows the header.
    Inline { commitment: [u8; 32] },
    /// The sealed value stands in chunks of its own; an empty sealed body authenticates this header.
    Chunked {
        commitment: [u8; 32],
        value_id: ValueId,
        chunks: u32,
    },
    /// Gone for good.
    Destroyed { at_ms: u64 },
    /// Lost to damage: a salvage put this in its place.
    Lost { at_ms: u64 },
}

/// A row of `Versions`: format (1 byte), length of the header (4 bytes, little-endian), header, place tag (16 bytes), sealed
/// body. The tag covers what is before it; the AEAD authenticates the sealed body and, as associated data, the header.
pub(crate) struct VersionRow<'r> {
    pub(crate) header: VersionHeader,
    /// The header as encoded: associated data of the value.
    pub(crate) header_bytes: &'r [u8],
    pub(crate) sealed: &'r [u8],
}

const VERSION_PREFIX_BYTES: usize = 5;

/// How a row of `Versions` is to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderCheck {
    /// Check the place tag: the value is not going to be opened.
    PlaceTag,
    /// Leave it to the AEAD, which is about to authenticate the header with the value.
    ByAead,
}

impl<'r> VersionRow<'r> {
    /// Begins a row; the sealed body is appended to it.
    pub(crate) fn begin(
        place: &PlaceKey,
        row_key: &[u8],
        header: &VersionHeader,
        body_bytes: usize,
    ) -> Vec<u8> {
        let header_bytes = postcard::to_allocvec(header).expect("headers encode into memory");
        let mut row =
            Vec::with_capacity(VERSION_PREFIX_BYTES + header_bytes.len() + PLACE_TAG_BYTES + body_bytes);
        row.push(RECORD_FORMAT);
        row.extend_from_slice(
            &u32::try_from(header_bytes.len())
                .expect("labels are limited")
                .to_le_bytes(),
        );
        row.extend_from_slice(&header_bytes);
        let tag = crypto::place_tag(place, Table::Versions as u8, row_key, &row);
        row.extend_from_slice(&tag);
        row
    }

    /// The header's bytes of a row made by [`begin`](Self::begin).
    pub(crate) fn header_of(row: &[u8]) -> &[u8] {
        let len = u32::from_le_bytes([row[1], row[2], row[3], row[4]]) as usize;
        &row[VERSION_PREFIX_BYTES..VERSION_PREFIX_BYTES + len]
    }

    pub(crate) fn parse(place: &PlaceKey, row_key: &[u8], row: &'r [u8], check: HeaderCheck) -> Result<Self> {
        let short = || damaged(Table::Versions, "it is too short");
        check_format(Table::Versions, row)?;
        let len = row
            .get(1..VERSION_PREFIX_BYTES)
            .and_then(|len| len.try_into().ok())
            .map(u32::from_le_bytes);
        let len = usize::try_from(len.ok_or_else(short)?).map_err(|_| short())?;
        let tagged = VERSION_PREFIX_BYTES.checked_add(len).ok_or_else(short)?;
        let sealed_from = tagged.checked_add(PLACE_TAG_BYTES).ok_or_else(short)?;
        if row.len() < sealed_from {
            return Err(short());
        }
        if check == HeaderCheck::PlaceTag {
            checked_body(place, Table::Versions, row_key, &row[..sealed_from])?;
        }
        let header_bytes = &row[VERSION_PREFIX_BYTES..tagged];
        let header = postcard::from_bytes(header_bytes)
            .map_err(|error| damaged(Table::Versions, &format!("its header does not decode: {error}")))?;
        Ok(Self {
            header,
            header_bytes,
            sealed: &row[sealed_from..],
        })
    }
}

/// A row of `DataKeys`: format (1 byte), epoch (4 bytes, little-endian), nonce (12 bytes), data key sealed under the epoch's
/// wrapping key (32 + 16 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataKeyRow {
    pub(crate) epoch: EpochNumber,
    pub(crate) nonce: [u8; 12],
    pub(crate) sealed: [u8; 48],
}

impl DataKeyRow {
    pub(crate) const BYTES: usize = 65;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut row = [0; Self::BYTES];
        row[0] = RECORD_FORMAT;
        row[1..5].copy_from_slice(&self.epoch.0.to_le_bytes());
        row[5..17].copy_from_slice(&self.nonce);
        row[17..].copy_from_slice(&self.sealed);
        row
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self> {
        check_format(Table::DataKeys, row)?;
        let row: &[u8; Self::BYTES] = row
            .try_into()
            .map_err(|_| damaged(Table::DataKeys, "it has the wrong length"))?;
        let (mut epoch, mut nonce, mut sealed) = ([0; 4], [0; 12], [0; 48]);
        epoch.copy_from_slice(&row[1..5]);
        nonce.copy_from_slice(&row[5..17]);
        sealed.copy_from_slice(&row[17..]);
        Ok(Self {
            epoch: EpochNumber(u32::from_le_bytes(epoch)),
            nonce,
            sealed,
        })
    }
}
