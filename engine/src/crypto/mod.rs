//! The front of all cryptography: seal, open, derive, erase. The only user of the AEAD and hash crates for keys and
//! values; the layers above name what they seal and where it belongs, and choose no algorithm.
//!
//! - [`Cipher`]: AES-256-GCM-SIV, in place, for the length of a few operations.
//! - [`derive_pair`]: from an epoch key or a data key to the key that seals, and the commitment that names it.
//! - [`place_tag`], [`chain_hash`], [`context_hash`]: what binds plain rows to their place, records to those before
//!   them, and a wrap to its context where the KMS does not.
//! - [`chunk_nonce`]: the nonces of a value, sealed in one chunk or in many.
//! - [`SecretBytes`]: bytes that are erased when they are dropped.
//! - [`wiping_stack`]: erases what all of this leaves on the stack.
//!
//! Nothing here draws randomness, reads a clock or keeps a key: keys come in by reference, and what is derived from
//! them is erased when it is dropped.

mod aead;
mod derive;
mod secret_bytes;
mod stack;
mod stream;

#[cfg(feature = "simulation")]
pub use aead::Implementation;
pub(crate) use aead::{Cipher, TAG_LEN};
pub(crate) use derive::{
    AUDIT_CHAIN, CONTENT_KEY, Commitment, Derived, EPOCH_CHAIN, EPOCH_WRAPPING_KEY, PlaceKey, chain_hash,
    context_hash, derive_pair, place_tag,
};
pub use secret_bytes::SecretBytes;
pub(crate) use stack::{wiping_registers, wiping_stack};
pub(crate) use stream::chunk_nonce;

/// Length in bytes of every key: epoch keys, data keys and all that is derived from them.
pub(crate) const KEY_LEN: usize = 32;

/// The bytes that this hexadecimal text stands for, in the vectors of this module's tests.
#[cfg(test)]
fn unhex(text: &str) -> Vec<u8> {
    assert!(
        text.is_ascii() && text.len().is_multiple_of(2),
        "a vector is whole bytes in hexadecimal"
    );
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("a vector is hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}
