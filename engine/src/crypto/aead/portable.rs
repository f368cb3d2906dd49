//! AES-256-GCM-SIV by the crate `aes-gcm-siv`: pure Rust, uses the processor's AES and carry-less multiplication
//! where it has them, and is constant-time where it has not.
//!
//! What is erased: the key schedules of the key and of each nonce's own keys, and the state of POLYVAL, when they are
//! dropped. Not by `aes-gcm-siv`'s own feature `zeroize`, which only erases the buffers it derives those keys in, but
//! by that of the crates `aes` and `polyval`, which the engine therefore names in its manifest. What is not: blocks
//! of keystream, and copies that the compiler made when it moved a key schedule, may stay on the stack until it is
//! used again.

use aes_gcm_siv::{AeadInOut, Aes256GcmSiv, KeyInit};

use super::{Algorithm, KEY_LEN, NONCE_LEN, OpenFailed, TAG_LEN};

pub(crate) struct Portable(Aes256GcmSiv);

impl Algorithm for Portable {
    fn new(key: &[u8; KEY_LEN]) -> Self {
        Self(Aes256GcmSiv::new(key.into()))
    }

    fn encrypt(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
        self.0
            .encrypt_inout_detached(nonce.into(), aad, buffer.into())
            .expect("plaintext and associated data are shorter than 64 GiB")
            .into()
    }

    fn decrypt(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), OpenFailed> {
        self.0
            .decrypt_inout_detached(nonce.into(), aad, buffer.into(), tag.into())
            .map_err(|aes_gcm_siv::Error| OpenFailed)
    }
}

/// Fails to compile should the key schedule ever be built without being erased on drop: a feature that another
/// crate's manifest turned off does so without a word.
const _: fn() = || {
    fn erases<T: zeroize::ZeroizeOnDrop>() {}
    erases::<aes_gcm_siv::aes::Aes256>();
};
