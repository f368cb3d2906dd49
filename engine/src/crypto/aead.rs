//! AES-256-GCM-SIV (RFC 8452) behind one seam: sealing and opening in place, with two implementations that write
//! identical bytes.
//!
//! | implementation | built | 32 bytes | 1 KiB | 64 KiB |
//! | --- | --- | --- | --- | --- |
//! | `portable`, crate `aes-gcm-siv` | without the feature `aws-lc` | 750 ns | 1.05 µs | 22.8 µs |
//! | `aws_lc`, crate `aws-lc-rs` | with it | 190 ns | 0.45 µs | 17.4 µs |
//! | portable : AWS-LC | | 3.9 | 2.3 | 1.3 |
//!
//! Times are of making a [`Cipher`], sealing once and dropping it, on one x86-64 core with AES, AVX-512 and VAES;
//! opening takes the same. Of small inputs most is key schedules: one of the key, one of the nonce's own keys. Which
//! implementation is used is decided when the crate is built, in [`Chosen`] and nowhere else.

#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(any(test, feature = "simulation", not(feature = "aws-lc")))]
mod portable;
#[cfg(test)]
mod tests;

use zeroize::Zeroize;

use super::KEY_LEN;

/// Length in bytes of a nonce.
pub(crate) const NONCE_LEN: usize = 12;

/// Length in bytes of the tag that sealing appends: a sealed value is this much longer than the plaintext.
pub(crate) const TAG_LEN: usize = 16;

/// A key, ready to seal and open.
///
/// Made for the length of a few operations and dropped: never stored, so that no key schedule outlives the call that
/// needed it. Dropping it erases the key schedule; what an implementation cannot erase is said in its own file.
pub(crate) type Cipher = GcmSiv<Chosen>;

#[cfg(feature = "aws-lc")]
type Chosen = aws_lc::AwsLc;
#[cfg(not(feature = "aws-lc"))]
type Chosen = portable::Portable;

/// What was to be opened was not sealed under this key, with this nonce and this associated data; or its bytes have
/// changed since. The algorithm cannot tell which: the layer above knows what it was opening, and says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the sealed bytes do not open: another key or another place than they were sealed for, or damaged bytes"
)]
pub(crate) struct OpenFailed;

/// The seam: the bare algorithm on a buffer, its tag apart.
pub(crate) trait Algorithm {
    fn new(key: &[u8; KEY_LEN]) -> Self;

    /// Encrypts `buffer` in place and returns the tag.
    fn encrypt(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN];

    /// Decrypts `buffer` in place. On failure its contents are anything: the caller erases them.
    fn decrypt(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), OpenFailed>;
}

/// AES-256-GCM-SIV by the implementation `A`. Used as [`Cipher`].
pub(crate) struct GcmSiv<A>(A);

#[allow(
    private_bounds,
    reason = "the seam is this file's own; callers only ever name `Cipher`"
)]
impl<A: Algorithm> GcmSiv<A> {
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> Self {
        Self(A::new(key))
    }

    /// Encrypts all of `buffer` in place and appends the tag.
    ///
    /// # Panics
    ///
    /// As [`GcmSiv::seal_from`].
    pub(crate) fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut Vec<u8>) {
        self.seal_from(nonce, aad, 0, buffer);
    }

    /// Encrypts `buffer[from..]` in place and appends the tag. What stands before `from`, a header, stays as it is and
    /// is not authenticated unless the caller puts it into `aad`.
    ///
    /// The tag comes last, after the plaintext is gone: should the buffer have to grow for it, what is copied and left
    /// behind in freed memory is ciphertext.
    ///
    /// # Panics
    ///
    /// If `from` lies past the end of `buffer`, or the plaintext or `aad` is longer than the 64 GiB of RFC 8452: both
    /// are mistakes of the caller, whose chunks and records are bounded far below.
    pub(crate) fn seal_from(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], from: usize, buffer: &mut Vec<u8>) {
        let tag = self.0.encrypt(nonce, aad, &mut buffer[from..]);
        buffer.extend_from_slice(&tag);
    }

    /// Opens `buffer`, ciphertext and tag, in place, and returns the plaintext's length: the plaintext is
    /// `buffer[..length]`, and the spent tag still stands after it.
    ///
    /// # Errors
    ///
    /// [`OpenFailed`] if the buffer is shorter than a tag or does not open. The whole buffer is zeros then: neither
    /// unauthenticated plaintext nor anything to try again with is left.
    pub(crate) fn open_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<usize, OpenFailed> {
        let opened = match buffer.split_last_chunk_mut::<TAG_LEN>() {
            Some((ciphertext, tag)) => self
                .0
                .decrypt(nonce, aad, ciphertext, tag)
                .map(|()| ciphertext.len()),
            None => Err(OpenFailed),
        };
        if opened.is_err() {
            buffer.zeroize();
        }
        opened
    }
}

/// One implementation, by name, for tests that set both beside each other.
#[cfg(feature = "simulation")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Implementation {
    /// The crate `aes-gcm-siv`.
    Portable,
    /// The crate `aws-lc-rs`.
    #[cfg(feature = "aws-lc")]
    AwsLc,
}

#[cfg(feature = "simulation")]
impl Implementation {
    /// All that this build has.
    pub const ALL: &'static [Self] = &[
        Self::Portable,
        #[cfg(feature = "aws-lc")]
        Self::AwsLc,
    ];

    /// Seals: ciphertext, then tag.
    #[must_use]
    pub fn seal(self, key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut buffer = plaintext.to_vec();
        match self {
            Self::Portable => GcmSiv::<portable::Portable>::new(key).seal(nonce, aad, &mut buffer),
            #[cfg(feature = "aws-lc")]
            Self::AwsLc => GcmSiv::<aws_lc::AwsLc>::new(key).seal(nonce, aad, &mut buffer),
        }
        buffer
    }

    /// Opens what was sealed; `None` when it does not open, and the buffer is zeros then.
    pub fn open(self, key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> Option<usize> {
        let opened = match self {
            Self::Portable => GcmSiv::<portable::Portable>::new(key).open_in_place(nonce, aad, buffer),
            #[cfg(feature = "aws-lc")]
            Self::AwsLc => GcmSiv::<aws_lc::AwsLc>::new(key).open_in_place(nonce, aad, buffer),
        };
        opened.ok()
    }
}
