//! AES-256-GCM-SIV by `aws-lc-rs` (feature `aws-lc`): the same bytes as the portable implementation, faster; needs a C
//! compiler to build.
//!
//! What is erased: the key schedule, which lives in a heap block that AWS-LC overwrites when it frees it. What is not:
//! the keys that AWS-LC derives for each nonce stand on the C stack, and stay there until it is used again.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{Algorithm, KEY_LEN, NONCE_LEN, OpenFailed, TAG_LEN};

/// "Less safe" says that the caller answers for the nonces; ours come from [`crate::crypto::chunk_nonce`] or from the
/// operating system, and AES-GCM-SIV survives one that repeats.
pub(crate) struct AwsLc(LessSafeKey);

impl Algorithm for AwsLc {
    fn new(key: &[u8; KEY_LEN]) -> Self {
        let key =
            UnboundKey::new(&AES_256_GCM_SIV, key).expect("a 32-byte key fits, and memory for it is there");
        Self(LessSafeKey::new(key))
    }

    fn encrypt(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), buffer)
            .expect("plaintext and associated data are shorter than 64 GiB");
        tag.as_ref()
            .try_into()
            .expect("AES-256-GCM-SIV has a 16-byte tag")
    }

    fn decrypt(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), OpenFailed> {
        self.0
            .open_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), tag, buffer)
            .map(|_plaintext| ())
            .map_err(|_unspecified| OpenFailed)
    }
}
