//! How a value is sealed and opened: a data key of its own, a content key derived from that, and associated data that bind
//! it to its place, its path and its labels.
//!
//! Every value has a *body* beside its header: an inline value itself, or, for a value in chunks, nothing. The body is sealed
//! with the header as associated data, so that opening it authenticates the header. Chunks are sealed by the STREAM
//! construction under the same content key, whose nonces are different.

use crate::crypto::{CONTENT_KEY, Cipher, Derived, TAG_LEN, chunk_nonce, derive_pair};
use crate::keyring::data_key::DataKey;
use crate::names::{OrganizationId, SecretPath, StoreId, Version};
use crate::storage::tables::ValueId;

/// Values up to this size stand in the row of their version.
pub(crate) const INLINE_MAX_BYTES: usize = 16 << 10;
/// A chunk and its row's key end just under 64 KiB: pages are powers of two.
pub(crate) const CHUNK_BYTES: usize = (64 << 10) - 128;
/// Nonce of the body: no chunk has it (their nonces end in 0 or 1).
const BODY_NONCE: [u8; 12] = [0xff; 12];
const BODY_DOMAIN: &[u8] = b"keystead 1 value";
const CHUNK_DOMAIN: &[u8] = b"keystead 1 chunk";

/// Which value a content key is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ContentPlace {
    /// A value in the row of this version.
    Inline {
        org: OrganizationId,
        secret_id: u64,
        version: Version,
    },
    /// A value in chunks, which are sealed before their version is known.
    Chunked { value_id: ValueId },
}

/// From a data key to the content key and its commitment.
pub(crate) fn content_key(store: StoreId, place: ContentPlace, key: &DataKey) -> Derived {
    let mut context = [0; 32];
    context[..16].copy_from_slice(store.as_bytes());
    match place {
        ContentPlace::Inline {
            org,
            secret_id,
            version,
        } => {
            context[16..].copy_from_slice(&crate::storage::tables::version(org, secret_id, version));
        }
        ContentPlace::Chunked { value_id } => context[16..].copy_from_slice(&value_id),
    }
    derive_pair(&CONTENT_KEY, key, &context)
}

/// Where a version stands, for its body's associated data.
pub(crate) struct BodyPlace<'a> {
    pub(crate) store: StoreId,
    pub(crate) org: OrganizationId,
    pub(crate) secret_id: u64,
    pub(crate) version: Version,
    pub(crate) path: &'a SecretPath,
}

impl BodyPlace<'_> {
    fn associated_data(&self, header: &[u8]) -> Vec<u8> {
        let path = self.path.as_str().as_bytes();
        let mut out = Vec::with_capacity(BODY_DOMAIN.len() + 16 + 16 + 2 + path.len() + header.len());
        out.extend_from_slice(BODY_DOMAIN);
        out.extend_from_slice(self.store.as_bytes());
        out.extend_from_slice(&crate::storage::tables::version(
            self.org,
            self.secret_id,
            self.version,
        ));
        out.extend_from_slice(&u16::try_from(path.len()).expect("paths are short").to_le_bytes());
        out.extend_from_slice(path);
        out.extend_from_slice(header);
        out
    }

    /// Appends `value`, sealed, to `row`, which ends where the body begins.
    pub(crate) fn seal_body(&self, content: &Derived, header: &[u8], value: &[u8], row: &mut Vec<u8>) {
        let associated = self.associated_data(header);
        let from = row.len();
        row.extend_from_slice(value);
        Cipher::new(&content.key).seal_from(&BODY_NONCE, &associated, from, row);
    }

    /// Opens a body in place and cuts it to its plaintext; `None` when it does not open.
    pub(crate) fn open_body(&self, content: &Derived, header: &[u8], body: &mut Vec<u8>) -> Option<()> {
        let associated = self.associated_data(header);
        let opened = Cipher::new(&content.key)
            .open_in_place(&BODY_NONCE, &associated, body)
            .ok()?;
        body.truncate(opened);
        Some(())
    }
}

fn chunk_associated_data(store: StoreId, org: OrganizationId, value_id: &ValueId) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(CHUNK_DOMAIN);
    out.extend_from_slice(store.as_bytes());
    out.extend_from_slice(&crate::storage::tables::upload(org, value_id));
    out
}

/// Seals and opens the chunks of one value.
pub(crate) struct Chunks {
    cipher: Cipher,
    associated: Vec<u8>,
}

impl Chunks {
    pub(crate) fn new(store: StoreId, org: OrganizationId, value_id: &ValueId, content: &Derived) -> Self {
        Self {
            cipher: Cipher::new(&content.key),
            associated: chunk_associated_data(store, org, value_id),
        }
    }

    pub(crate) fn seal(&self, index: u32, last: bool, chunk: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(chunk.len() + TAG_LEN);
        sealed.extend_from_slice(chunk);
        self.cipher
            .seal(&chunk_nonce(index, last), &self.associated, &mut sealed);
        sealed
    }

    pub(crate) fn open(&self, index: u32, last: bool, sealed: &mut Vec<u8>) -> Option<()> {
        let opened = self
            .cipher
            .open_in_place(&chunk_nonce(index, last), &self.associated, sealed)
            .ok()?;
        sealed.truncate(opened);
        Some(())
    }
}
