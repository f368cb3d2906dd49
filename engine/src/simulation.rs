//! The seams of the simulation, of the fuzzers and of the damage tests, for this project's own tests; not covered by any promise
//! of stability.

mod codecs;

pub use crate::crypto::Implementation as Aead;
pub use crate::salvage::simulation::{Places, RowPlace, parse_page, places};
pub use crate::storage::container::{Disk, HeaderView, repair_image};
pub use codecs::{
    after_prefix, check_prefix, journal_codec_holds, page_is_taken, read_header, row_codec_holds,
};

use crate::error::Result;
use crate::keyring::epoch;
use crate::names::{EpochNumber, OrganizationId, StoreId};
use crate::organization::Organization;
use crate::rewrap::step::{self, Step};
use crate::storage::records::WrapRecord;
use crate::store::Store;
use std::sync::Arc;

/// A wrap of an epoch's key as it stands in the file, to be kept by a test as somebody would who copied the file: it opens
/// with the key in its shred cell alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedWrap {
    /// The name of the organization.
    pub organization: String,
    /// Which epoch.
    pub epoch: EpochNumber,
    /// The registered key whose KMS made it.
    pub key: String,
    store: StoreId,
    org: OrganizationId,
    record: WrapRecord,
}

impl SealedWrap {
    /// The sealed bytes, as they stand in the row.
    #[must_use]
    pub fn sealed(&self) -> &[u8] {
        &self.record.sealed
    }

    /// What the KMS returned, if this is the key of its shred cell.
    #[must_use]
    pub fn open(&self, shred_key: &[u8; 32]) -> Option<Vec<u8>> {
        let opened = epoch::open_wrap_with(shred_key, self.store, self.org, self.epoch, &self.record)?;
        Some(opened.blob)
    }
}

/// Every wrap of every epoch key of the store, sealed as it stands.
///
/// # Errors
///
/// Those of reading the store.
pub fn sealed_wraps(store: &Store) -> Result<Vec<SealedWrap>> {
    let mut wraps = Vec::new();
    for info in store.organizations(None, 10_000)?.items {
        let organization = store.organization(&info.name)?;
        let scope = organization.scope();
        let snapshot = scope.snapshot();
        for number in 1..=scope.head(&*snapshot)?.last_epoch.0 {
            let epoch = EpochNumber(number);
            let record = epoch::read(&*snapshot, scope.org, epoch)?;
            wraps.extend(record.wraps.into_iter().map(|record| SealedWrap {
                organization: info.name.clone(),
                epoch,
                key: record.key.clone(),
                store: scope.store(),
                org: scope.org,
                record,
            }));
        }
    }
    Ok(wraps)
}

/// How many readers hold the snapshot of the newest state, of which no page is written over meanwhile.
#[must_use]
pub fn snapshot_readers(organization: &Organization) -> usize {
    // The store itself holds it, and this.
    Arc::strong_count(&organization.scope().snapshot()) - 2
}

/// Does one step of the organization's re-wrap job, and says whether there is more that can be done now.
///
/// # Errors
///
/// As [`RewrapJob::run_here`](crate::RewrapJob::run_here).
pub fn rewrap_step(organization: &Organization) -> Result<bool> {
    let done = step::step(organization.scope(), &|| organization.workers().tell())?;
    Ok(done == Step::Progress)
}
