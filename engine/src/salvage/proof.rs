//! Whether a value opens in the place where it stands: its data key under its epoch, its body, each of its chunks.

use crate::crypto::Commitment;
use crate::keyring::cache::EpochKey;
use crate::keyring::data_key::{self, DataKeyPlace};
use crate::names::SecretPath;
use crate::secret::value::{BodyPlace, Chunks, ContentPlace, content_key};
use crate::storage::records::{Body, DataKeyRow, VersionRow};
use zeroize::Zeroizing;

/// A version's body that opened.
pub(super) enum Opened {
    /// The whole value.
    Inline,
    /// What opens the chunks.
    Chunked(Box<Chunks>),
}

/// Opens a version with its data key; `None` when it does not open, or is not as long as it says. Nothing of it is kept.
pub(super) fn open(
    place: &DataKeyPlace,
    path: &SecretPath,
    row: &VersionRow<'_>,
    data_key: &DataKeyRow,
    epoch_key: &EpochKey,
) -> Option<Opened> {
    let DataKeyPlace {
        store,
        org,
        secret_id,
        version,
    } = *place;
    let key = data_key::open(&epoch_key.cipher(), place, data_key)?;
    let (commitment, content_place) = match row.header.body {
        Body::Inline { commitment } => {
            let place = ContentPlace::Inline {
                org,
                secret_id,
                version,
            };
            (commitment, place)
        }
        Body::Chunked {
            commitment, value_id, ..
        } => (commitment, ContentPlace::Chunked { value_id }),
        Body::Destroyed { .. } | Body::Lost { .. } => return None,
    };
    let content = content_key(store, content_place, &key);
    if content.commitment != Commitment::from_bytes(commitment) {
        return None;
    }
    let mut body = Zeroizing::new(row.sealed.to_vec());
    let place = BodyPlace {
        store,
        org,
        secret_id,
        version,
        path,
    };
    place.open_body(&content, row.header_bytes, &mut body)?;
    match row.header.body {
        Body::Chunked { value_id, .. } => Some(Opened::Chunked(Box::new(Chunks::new(
            store, org, &value_id, &content,
        )))),
        _ => (body.len() as u64 == row.header.size_bytes).then_some(Opened::Inline),
    }
}

/// The length of a chunk that opens.
pub(super) fn chunk_bytes(chunks: &Chunks, index: u32, count: u32, sealed: &[u8]) -> Option<u64> {
    let mut sealed = Zeroizing::new(sealed.to_vec());
    chunks.open(index, index + 1 == count, &mut sealed)?;
    Some(sealed.len() as u64)
}
