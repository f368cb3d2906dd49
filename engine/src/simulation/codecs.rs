//! What the engine's own code makes of given bytes: rows, headers, prefixes. What it has to be is the tests' business.

use crate::audit;
use crate::crypto::{self, PlaceKey};
use crate::error::Result;
use crate::names;
use crate::storage::container::{HeaderView, check_page, read_header as read_header_copies};
use crate::storage::records::{
    self, DataKeyRow, DeletionRecord, EpochRecord, HeadRecord, HeaderCheck, KeyRecord,
    OrganizationNameRecord, OrganizationRecord, Record, RewrapJobRecord, SecretRecord, UploadRecord,
    VersionRow,
};
use crate::storage::{Table, tables, transaction};

/// What the codec of a table's rows makes of a row: `None`, it refuses the bytes (or the table has no codec); else whether
/// value → bytes → value gives the same value.
///
/// `place_tagged` appends the tag that binds such a row to its place, so that the codec behind it is reached.
#[must_use]
pub fn row_codec_holds(table: u8, row_key: &[u8], row: &[u8], place_tagged: bool) -> Option<bool> {
    let place = PlaceKey::of_store(&[7; 16]);
    let mut row = row.to_vec();
    if place_tagged {
        let tag = crypto::place_tag(&place, table, row_key, &row);
        row.extend_from_slice(&tag);
    }
    let seen = (&place, row_key, &row[..]);
    match Table::from_number(table)? {
        Table::Organizations => record_holds::<OrganizationRecord>(seen),
        Table::OrganizationNames => record_holds::<OrganizationNameRecord>(seen),
        Table::Heads => record_holds::<HeadRecord>(seen),
        Table::Keys => record_holds::<KeyRecord>(seen),
        Table::Epochs => record_holds::<EpochRecord>(seen),
        Table::Secrets => record_holds::<SecretRecord>(seen),
        Table::Uploads => record_holds::<UploadRecord>(seen),
        Table::Deletions => record_holds::<DeletionRecord>(seen),
        Table::RewrapJobs => record_holds::<RewrapJobRecord>(seen),
        Table::Versions => version_holds(seen),
        Table::DataKeys => {
            let decoded = DataKeyRow::decode(&row).ok()?;
            Some(decoded.encode()[..] == row[..])
        }
        Table::Audit => audit::codec_holds(&row),
        Table::Store | Table::Chunks | Table::CellsErasing | Table::CellsFree => None,
    }
}

/// Whether redb would be shown this page, in a file of so many bytes.
#[must_use]
pub fn page_is_taken(page: &[u8], file_bytes: u64) -> bool {
    check_page(page, file_bytes).is_ok()
}

fn record_holds<R: Record + PartialEq>((place, row_key, row): (&PlaceKey, &[u8], &[u8])) -> Option<bool> {
    let record: R = records::decode(place, row_key, row).ok()?;
    let encoded = records::encode(place, row_key, &record);
    Some(records::decode(place, row_key, &encoded).is_ok_and(|again: R| again == record))
}

fn version_holds((place, row_key, row): (&PlaceKey, &[u8], &[u8])) -> Option<bool> {
    let checked = VersionRow::parse(place, row_key, row, HeaderCheck::PlaceTag);
    // The AEAD checks the tag's place in this one: it must read as much, and the same.
    let unchecked = VersionRow::parse(place, row_key, row, HeaderCheck::ByAead).ok()?;
    let Ok(parsed) = checked else { return None };
    let mut encoded = VersionRow::begin(place, row_key, &parsed.header, parsed.sealed.len());
    encoded.extend_from_slice(parsed.sealed);
    let again = VersionRow::parse(place, row_key, &encoded, HeaderCheck::PlaceTag).ok();
    let same =
        again.is_some_and(|again| (again.header, again.sealed) == (parsed.header.clone(), parsed.sealed));
    Some(same && unchecked.header == parsed.header && unchecked.header_bytes == parsed.header_bytes)
}

/// What the codec of journal records makes of a payload: how many operations it reads from its beginning, and whether they
/// encode as they were.
#[must_use]
pub fn journal_codec_holds(payload: &[u8]) -> (usize, bool) {
    transaction::journal_codec_holds(payload)
}

/// What the front of a file says: both copies of the header, or less.
///
/// # Errors
///
/// What the engine says of it.
pub fn read_header(front: &[u8]) -> std::result::Result<HeaderView, String> {
    read_header_copies(front).map_err(|error| error.to_string())
}

/// Checks the beginning of a path, as listing does.
///
/// # Errors
///
/// [`Error::InvalidPath`](crate::Error::InvalidPath).
pub fn check_prefix(prefix: &str) -> Result<()> {
    names::check_prefix(prefix)
}

/// The smallest row key behind every one that begins with `prefix`; `None` when there is none.
#[must_use]
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    tables::after_prefix(prefix)
}
