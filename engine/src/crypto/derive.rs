//! What is derived by BLAKE3: keys with their commitments, the tags that bind plain rows to their place, and the
//! hashes that chain records. Every use has a [`Label`] of its own, so no output of one can be taken for that of
//! another.

use std::fmt;
use std::sync::OnceLock;

use blake3::Hasher;
use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::KEY_LEN;

/// From an epoch key to the key that wraps the epoch's data keys.
pub(crate) static EPOCH_WRAPPING_KEY: Label = Label::new("keystead 1 epoch wrapping key");
/// From a data key to the key that seals one secret version.
pub(crate) static CONTENT_KEY: Label = Label::new("keystead 1 content key");
/// The chain of an organization's audit records.
pub(crate) static AUDIT_CHAIN: Label = Label::new("keystead 1 audit chain");
/// The chain of an organization's epoch records.
pub(crate) static EPOCH_CHAIN: Label = Label::new("keystead 1 epoch chain");
static WRAP_CONTEXT: Label = Label::new("keystead 1 wrap context");
static PLACE: Label = Label::new("keystead 1 place of a row");

/// Length in bytes of a [`place_tag`].
pub(crate) const PLACE_TAG_LEN: usize = 16;

/// What something is derived for: the context string of BLAKE3's `derive_key` mode. A constant of the format, never
/// made from data; the number in it is the format's version.
pub(crate) struct Label {
    context: &'static str,
    /// The hash of the context, which is the same every time: computed once, at the first use.
    context_key: OnceLock<ContextKey>,
}

impl Label {
    const fn new(context: &'static str) -> Self {
        Self {
            context,
            context_key: OnceLock::new(),
        }
    }

    fn hasher(&self) -> Hasher {
        Hasher::new_from_context_key(
            self.context_key
                .get_or_init(|| hash_derive_key_context(self.context)),
        )
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Label({:?})", self.context)
    }
}

/// What [`derive_pair`] gives: the key to seal and open with, and what proves it the right one.
pub(crate) struct Derived {
    /// In the heap: moving it leaves no copy on the stack.
    pub(crate) key: Box<Zeroizing<[u8; KEY_LEN]>>,
    pub(crate) commitment: Commitment,
}

/// Derives from `key` and `context` the key that seals, and the commitment to both.
///
/// The derivation is BLAKE3's `derive_key` of the label over `key ‖ context`, 64 bytes of it: first the derived key,
/// then the commitment. The input is one block of BLAKE3, the output another. `context` says whom the key belongs to;
/// a context longer than 32 bytes is hashed by the caller.
///
/// The hash's state held the key, and is erased before this returns: 120 of the 200 ns that a derivation takes
/// (x86-64). What BLAKE3 leaves in its own stack frames is
/// erased by [`wiping_stack`](super::wiping_stack) around the caller.
pub(crate) fn derive_pair(label: &Label, key: &[u8; KEY_LEN], context: &[u8; 32]) -> Derived {
    let mut hasher = label.hasher();
    hasher.update(key).update(context);
    let mut reader = hasher.finalize_xof();
    // One block of output: two reads of 32 bytes would compute it twice.
    let mut output = Zeroizing::new([0; 64]);
    reader.fill(&mut *output);
    hasher.zeroize();
    reader.zeroize();

    let (derived_key, commitment) = output.split_at(KEY_LEN);
    let mut key = Box::new(Zeroizing::new([0; KEY_LEN]));
    key.copy_from_slice(derived_key);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(commitment);
    Derived {
        key,
        commitment: Commitment(bytes),
    }
}

/// Proves which key sealed something, and gives nothing of the key away: stored in clear beside what was sealed, and
/// compared before anything is opened.
///
/// AES-GCM-SIV does not commit to its key: one ciphertext can be made that opens under two. And it cannot tell a
/// wrong key from damaged bytes; the commitment can. Finding two keys with one commitment means finding a collision
/// of BLAKE3.
///
/// Compares in constant time.
#[derive(Clone, Copy)]
pub(crate) struct Commitment([u8; 32]);

impl Commitment {
    /// The commitment that stands in a record.
    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What to put into a record.
    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Commitment {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Commitment {}

/// The first four bytes in hexadecimal: enough to tell two apart.
impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Commitment({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

/// The key of a store's place tags: derived from the store's id once, when the store is opened. No secret, for the id
/// is none: what it does is to make the tags of one store differ from those of every other.
#[derive(Clone, Copy)]
pub(crate) struct PlaceKey([u8; KEY_LEN]);

impl PlaceKey {
    /// The place key of the store with this id.
    pub(crate) fn of_store(store_id: &[u8; 16]) -> Self {
        Self(*PLACE.hasher().update(store_id).finalize().as_bytes())
    }
}

/// The tag that binds a plain row to its place: this store, this table, this row key, this body.
///
/// It detects damage, and a row that was moved or copied to another key, table or store. It is *not* a MAC against
/// somebody who can write the file: such a person can read the store's id there and compute every tag. What must not
/// be forged is sealed under a key.
///
/// Keyed BLAKE3 over `table ‖ length of the row key, u32 little-endian ‖ row key ‖ body`, cut to 16 bytes. The length
/// keeps bytes from wandering between row key and body.
///
/// # Panics
///
/// If the row key is 4 GiB or longer; row keys are bounded far below.
pub(crate) fn place_tag(key: &PlaceKey, table: u8, row_key: &[u8], body: &[u8]) -> [u8; PLACE_TAG_LEN] {
    let row_key_len = u32::try_from(row_key.len()).expect("row keys are far shorter than 4 GiB");
    let mut hasher = Hasher::new_keyed(&key.0);
    hasher
        .update(&[table])
        .update(&row_key_len.to_le_bytes())
        .update(row_key)
        .update(body);
    let mut tag = [0; PLACE_TAG_LEN];
    hasher.finalize_xof().fill(&mut tag);
    tag
}

/// The hash of a wrap's context, given in its canonical bytes: what stands for the context where 32 bytes of it are
/// wanted, as in the plaintext that goes to a KMS which binds no context itself. BLAKE3's `derive_key` of its own label.
pub(crate) fn context_hash(canonical: &[u8]) -> [u8; 32] {
    *WRAP_CONTEXT.hasher().update(canonical).finalize().as_bytes()
}

/// The hash of the next record of a chain: [`AUDIT_CHAIN`] or [`EPOCH_CHAIN`]. The first record of a chain follows 32
/// zeros.
///
/// A record cannot be changed, dropped or put in without changing the hash of every record after it; whoever keeps
/// the newest hash elsewhere sees that. (Whoever can write the file can compute the whole chain anew.)
///
/// BLAKE3's `derive_key` of the chain's label over the previous hash and then, for each part, its length as u64
/// little-endian and the part: where one part ends and the next begins is part of what is hashed.
pub(crate) fn chain_hash(chain: &Label, previous: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = chain.hasher();
    hasher.update(previous);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests;
