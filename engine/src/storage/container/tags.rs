//! The tags: keyed BLAKE3 over what they protect and where it stands.
//!
//! The keys are derived from the store id, which is in the header for all to see: tags find damage, and pieces of one store in
//! another or in the wrong place. They stop nobody who writes to the file on purpose; what is sealed inside stops them.

use blake3::Hasher;
use zeroize::Zeroize;

use super::geometry::TAG_BYTES;

/// The keys of a store's tags, derived once.
pub(crate) struct Tags {
    block: [u8; 32],
    redb_header: [u8; 32],
    cell: [u8; 32],
    journal_head: [u8; 32],
    journal_record: [u8; 32],
}

impl std::fmt::Debug for Tags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tags")
    }
}

impl Tags {
    pub(crate) fn new(store_id: &[u8; 16]) -> Self {
        Self {
            block: blake3::derive_key("keystead container v1: tag of a block", store_id),
            redb_header: blake3::derive_key("keystead container v1: seal of the header of redb", store_id),
            cell: blake3::derive_key("keystead container v1: tag of a shred cell", store_id),
            journal_head: blake3::derive_key(
                "keystead container v1: tag of the head of a journal record",
                store_id,
            ),
            journal_record: blake3::derive_key("keystead container v1: tag of a journal record", store_id),
        }
    }

    /// Of a block: over its bytes, then its number. (In this order the hash takes the block's four chunks at once.)
    pub(crate) fn block(&self, number: u64, bytes: &[u8; 4096]) -> [u8; TAG_BYTES] {
        first(
            Hasher::new_keyed(&self.block)
                .update(bytes)
                .update(&number.to_le_bytes()),
        )
    }

    /// Of the part of block 0 that redb uses.
    pub(crate) fn redb_header(&self, bytes: &[u8]) -> [u8; 32] {
        first(Hasher::new_keyed(&self.redb_header).update(bytes))
    }

    /// Of a shred cell: over its number, then its key.
    pub(crate) fn cell(&self, number: u64, key: &[u8]) -> [u8; 24] {
        let mut hasher = Hasher::new_keyed(&self.cell);
        let tag = first(hasher.update(&number.to_le_bytes()).update(key));
        hasher.zeroize();
        tag
    }

    /// Of the first 24 bytes of a journal record.
    pub(crate) fn journal_head(&self, head: &[u8]) -> [u8; 16] {
        first(Hasher::new_keyed(&self.journal_head).update(head))
    }

    /// Of a whole journal record: over its first 24 bytes, then its payload.
    pub(crate) fn journal_record(&self, head: &[u8], payload: &[u8]) -> [u8; 32] {
        first(
            Hasher::new_keyed(&self.journal_record)
                .update(head)
                .update(payload),
        )
    }
}

fn first<const N: usize>(hasher: &Hasher) -> [u8; N] {
    let mut tag = [0; N];
    hasher.finalize_xof().fill(&mut tag);
    tag
}
