//! Key epochs: opening one, sealing what a KMS returned under a shred key, and getting an epoch's key back.

use crate::audit::{self, Attribution, AuditEvent};
use crate::crypto::{Cipher, EPOCH_CHAIN, chain_hash};
use crate::env::{Env, now_ms};
use crate::error::{Error, Result};
use crate::keyring::registry::RegisteredKey;
use crate::names::{EpochNumber, KeyName, OrganizationId, StoreId};
use crate::storage::container::{CellNumber, Container};
use crate::storage::records::{EpochCause, EpochOpened, EpochRecord, HeadRecord, LiveEpoch, WrapRecord};
use crate::storage::transaction::container_failed;
use crate::storage::{Rows, Transaction, tables};
use keystead_backend::Wrapped;
use serde::Serialize;
use zeroize::Zeroizing;

/// An epoch, as an organization's owner or auditor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Epoch {
    /// Its number, from 1.
    pub number: EpochNumber,
    /// The registered key under which it was opened.
    pub key: String,
    /// The KMS's own key id and version that wrapped it when it was opened.
    pub kms_key_id: String,
    /// The registered keys that wrap it now: the one that it belongs to, then the second key where there is one. Empty when
    /// it is retired.
    pub wrapped_by: Vec<WrappedBy>,
    /// When it was opened: milliseconds since the Unix epoch.
    pub opened_at_ms: u64,
    /// Who opened it, and the reason given.
    #[serde(flatten)]
    pub opened_by: Attribution,
    /// Why it was opened.
    pub cause: EpochCause,
    /// How many data keys refer to it.
    pub references: u64,
    /// What it is good for.
    pub state: EpochState,
    /// When it was retired: milliseconds since the Unix epoch.
    pub retired_at_ms: Option<u64>,
    /// The hash that chains it to the epochs before, as hexadecimal digits.
    pub hash: String,
}

/// A registered key that wraps an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrappedBy {
    /// The registered key.
    pub key: String,
    /// The KMS's own key id and version, as that wrap used it.
    pub kms_key_id: String,
}

/// What an epoch is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EpochState {
    /// New data keys are wrapped under it.
    Active,
    /// Data keys are, or are going to be, wrapped under it.
    Live,
    /// No data key refers to it; its wraps are erased.
    Retired,
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            EpochState::Active => "active",
            EpochState::Live => "live",
            EpochState::Retired => "retired",
        };
        let keys = if self.references == 1 {
            "data key"
        } else {
            "data keys"
        };
        write!(
            f,
            "{} {} {state}, {} {keys}",
            self.number, self.key, self.references
        )
    }
}

pub(crate) fn read(rows: &impl Rows, org: OrganizationId, epoch: EpochNumber) -> Result<EpochRecord> {
    rows.record(&tables::epoch(org, epoch))?.ok_or_else(|| {
        Error::damaged(
            format!("epoch {epoch} of organization {org}"),
            "its record is missing",
        )
    })
}

pub(crate) fn write(
    transaction: &mut Transaction<'_>,
    org: OrganizationId,
    epoch: EpochNumber,
    record: &EpochRecord,
) -> Result<()> {
    transaction.put_record(&tables::epoch(org, epoch), record)
}

/// Everything a new epoch needs, made before the transaction: its key exists, and the KMS has wrapped it.
#[derive(Clone)]
pub(crate) struct NewEpoch {
    pub(crate) number: EpochNumber,
    pub(crate) key: KeyName,
    pub(crate) wrapped: Wrapped,
    /// The same by the organization's second key, where there is one and its KMS answered.
    pub(crate) second: Option<(KeyName, Wrapped)>,
    pub(crate) commitment: [u8; 32],
}

/// Writes the record of a new epoch, chained to those before, and counts it among the live ones.
pub(crate) fn open_epoch(
    transaction: &mut Transaction<'_>,
    place: &EpochPlace<'_>,
    head: &mut HeadRecord,
    new: &NewEpoch,
    cause: EpochCause,
    by: &Attribution,
) -> Result<()> {
    let at_ms = now_ms(place.env);
    let opened = EpochOpened {
        key: new.key.to_string(),
        kms_key_id: new.wrapped.key_id.clone(),
        opened_at_ms: at_ms,
        actor: by.actor.clone(),
        reason: by.reason.clone(),
        cause: cause.clone(),
        commitment: new.commitment,
        previous_hash: head.epochs_hash,
    };
    let hash = hash_of(place.org, new.number, &opened);
    let mut wraps = vec![seal_wrap(
        transaction,
        place,
        new.number,
        &new.key,
        &new.wrapped,
        at_ms,
    )?];
    if let Some((key, wrapped)) = &new.second {
        wraps.push(seal_wrap(transaction, place, new.number, key, wrapped, at_ms)?);
    }
    let record = EpochRecord {
        opened,
        hash,
        wraps,
        retired_at_ms: None,
    };
    write(transaction, place.org, new.number, &record)?;
    head.epochs_hash = hash;
    head.last_epoch = new.number;
    head.live_epochs.push(LiveEpoch {
        epoch: new.number,
        references: 0,
        wraps: 0,
    });
    let event = AuditEvent::EpochOpened {
        epoch: new.number,
        key: new.key.to_string(),
        cause,
        hash,
    };
    audit::append(transaction, place.org, head, by, at_ms, event)?;
    let Some((key, _)) = &new.second else {
        return Ok(());
    };
    let event = AuditEvent::EpochWrappedBySecond {
        epoch: new.number,
        key: key.to_string(),
    };
    audit::append(transaction, place.org, head, by, at_ms, event)
}

/// The hash that chains an epoch to those before it.
pub(crate) fn hash_of(org: OrganizationId, epoch: EpochNumber, opened: &EpochOpened) -> [u8; 32] {
    let bytes = postcard::to_allocvec(opened).expect("records encode into memory");
    chain_hash(
        &EPOCH_CHAIN,
        &opened.previous_hash,
        &[&tables::epoch(org, epoch), &bytes],
    )
}

/// The hash that the epoch behind this one must name. A record that was lost is hashed no more: what stands in its place says
/// which hash the next one names.
pub(crate) fn chained_hash(org: OrganizationId, epoch: EpochNumber, record: &EpochRecord) -> [u8; 32] {
    if record.opened.cause == EpochCause::RecordLost {
        record.hash
    } else {
        hash_of(org, epoch, &record.opened)
    }
}

/// Where an epoch stands, and where its randomness comes from.
pub(crate) struct EpochPlace<'a> {
    pub(crate) env: &'a dyn Env,
    pub(crate) store: StoreId,
    pub(crate) org: OrganizationId,
}

const WRAP_DOMAIN: &str = "keystead 1 wrap";
/// A shred key seals one wrap and nothing else, so its nonce is a constant.
const WRAP_NONCE: [u8; 12] = [0; 12];

fn wrap_associated_data(store: StoreId, org: OrganizationId, epoch: EpochNumber, key: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(WRAP_DOMAIN.as_bytes());
    out.extend_from_slice(store.as_bytes());
    out.extend_from_slice(&tables::epoch(org, epoch));
    out.extend_from_slice(key.as_bytes());
    out
}

#[derive(Serialize, serde::Deserialize)]
struct SealedWrap {
    blob: Vec<u8>,
    metadata: Vec<u8>,
}

/// Seals what a KMS returned under a fresh shred key in a cell of its own: whoever erases the cell erases the wrap, and
/// every copy of it that the file still holds.
pub(crate) fn seal_wrap(
    transaction: &mut Transaction<'_>,
    place: &EpochPlace<'_>,
    epoch: EpochNumber,
    key: &KeyName,
    wrapped: &Wrapped,
    at_ms: u64,
) -> Result<WrapRecord> {
    let mut shred_key = Zeroizing::new([0; 32]);
    place
        .env
        .fill_random(&mut *shred_key)
        .map_err(Error::Randomness)?;
    let plain = SealedWrap {
        blob: wrapped.blob.clone(),
        metadata: wrapped.metadata.clone(),
    };
    let mut sealed = postcard::to_allocvec(&plain).expect("a wrap encodes into memory");
    let associated = wrap_associated_data(place.store, place.org, epoch, key.as_str());
    Cipher::new(&shred_key).seal(&WRAP_NONCE, &associated, &mut sealed);
    let cell = transaction.stage_cell(shred_key)?;
    Ok(WrapRecord {
        key: key.to_string(),
        kms_key_id: wrapped.key_id.clone(),
        cell: cell.0,
        sealed,
        wrapped_at_ms: at_ms,
    })
}

/// Opens a wrap with the shred key in its cell.
pub(crate) fn open_wrap(
    container: &Container,
    store: StoreId,
    org: OrganizationId,
    epoch: EpochNumber,
    wrap: &WrapRecord,
) -> Result<Wrapped> {
    let damaged = |reason: &str| {
        Error::damaged(
            format!(
                "the wrap of epoch {epoch} of organization {org} by key {:?}",
                wrap.key
            ),
            reason,
        )
    };
    let shred_key = container
        .read_cell(CellNumber(wrap.cell))
        .map_err(|error| container_failed("reading a shred cell", &error))?;
    let shred_key = shred_key
        .as_slice()
        .try_into()
        .map_err(|_| damaged("its cell has no key"))?;
    open_wrap_with(shred_key, store, org, epoch, wrap)
        .ok_or_else(|| damaged("it does not open under its shred key"))
}

/// Opens a wrap with this shred key, if it is the one under which it was sealed.
pub(crate) fn open_wrap_with(
    shred_key: &[u8; 32],
    store: StoreId,
    org: OrganizationId,
    epoch: EpochNumber,
    wrap: &WrapRecord,
) -> Option<Wrapped> {
    let mut sealed = wrap.sealed.clone();
    let associated = wrap_associated_data(store, org, epoch, &wrap.key);
    let opened = Cipher::new(shred_key)
        .open_in_place(&WRAP_NONCE, &associated, &mut sealed)
        .ok()?;
    sealed.truncate(opened);
    let plain: SealedWrap = postcard::from_bytes(&sealed).ok()?;
    Some(Wrapped {
        blob: plain.blob,
        key_id: wrap.kms_key_id.clone(),
        metadata: plain.metadata,
    })
}

/// Drops the wraps of an epoch: their cells are overwritten as soon as the transaction is durable.
pub(crate) fn drop_wraps(transaction: &mut Transaction<'_>, wraps: &[WrapRecord]) -> Result<()> {
    wraps
        .iter()
        .try_for_each(|wrap| transaction.drop_cell(CellNumber(wrap.cell)))
}

/// True when the epoch belongs to this key: its wrap stands first. One by the second key may stand behind it.
pub(crate) fn belongs_to(record: &EpochRecord, key: &KeyName) -> bool {
    record.wraps.first().is_some_and(|wrap| wrap.key == key.as_str())
}

/// True when this key is among those that wrap the epoch.
pub(crate) fn is_wrapped_by(record: &EpochRecord, key: &KeyName) -> bool {
    record.wraps.iter().any(|wrap| wrap.key == key.as_str())
}

impl NewEpoch {
    /// The key of this epoch as a KMS wrapped it.
    pub(crate) fn of(
        number: EpochNumber,
        key: &RegisteredKey,
        wrapped: Wrapped,
        commitment: [u8; 32],
    ) -> Self {
        Self {
            number,
            key: key.name.clone(),
            wrapped,
            second: None,
            commitment,
        }
    }
}
