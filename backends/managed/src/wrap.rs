//! A wrap: one plaintext under one version of the master key, bound to its context.
//!
//! ```text
//! offset  bytes
//!      0      1  blob format: 1
//!      1     16  salt, random
//!     17     12  nonce, random
//!     29      p  ciphertext of the plaintext (p bytes: 32 for an epoch key, at most 256)
//!   29+p     16  tag of AES-256-GCM-SIV
//! ```
//!
//! The key is `derive_key("keystead managed keyring 2025 wrapping key v1", master key ‖ salt)` (BLAKE3), one for each wrap,
//! so no number of wraps wears out a master key. The associated data are the context's canonical bytes. Keyring and
//! version stand in the key id, `managed:<keyring id, 32 hexadecimal digits>:v<version>`; a wrong one derives a wrong
//! key and does not open.

use crate::error::{Result, damaged, unsupported};
use crate::format::{KeyringId, MasterKey};
use crate::keyring::{KeySet, Random};
use aes_gcm_siv::aead::AeadInOut;
use aes_gcm_siv::{Aes256GcmSiv, KeyInit};
use keystead_backend::{BackendError, Context, ErrorCode, LockedBytes, Wrapped};
use zeroize::{Zeroize, Zeroizing};

pub(crate) const PLAINTEXT_MAX_BYTES: usize = 256;
pub(crate) const BLOB_MAX_BYTES: usize = PREFIX_BYTES + PLAINTEXT_MAX_BYTES + TAG_BYTES;
/// `managed:`, 32 digits, `:v`, 10 digits.
pub(crate) const KEY_ID_MAX_BYTES: usize = 8 + 32 + 2 + 10;

const BLOB_FORMAT: u8 = 1;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const PREFIX_BYTES: usize = 1 + SALT_BYTES + NONCE_BYTES;
const WRAPPING_KEY_LABEL: &str = "keystead managed keyring 2025 wrapping key v1";

/// Wraps under the newest version.
pub(crate) fn wrap(
    keys: &KeySet,
    context: &Context,
    plaintext: &[u8],
    random: Random<'_>,
) -> Result<Wrapped> {
    if plaintext.len() > PLAINTEXT_MAX_BYTES {
        return Err(unsupported(format!(
            "{} bytes are too many to wrap: the managed key takes up to {PLAINTEXT_MAX_BYTES}",
            plaintext.len()
        )));
    }
    let newest = keys
        .keys
        .last()
        .ok_or_else(|| BackendError::new(ErrorCode::Internal, "a keyring without keys"))?;
    let mut blob = Vec::with_capacity(PREFIX_BYTES + plaintext.len() + TAG_BYTES);
    blob.push(BLOB_FORMAT);
    blob.resize(PREFIX_BYTES, 0);
    random(&mut blob[1..])?;
    blob.extend_from_slice(plaintext);

    let (prefix, text) = blob.split_at_mut(PREFIX_BYTES);
    let (salt, nonce) = salt_and_nonce(prefix)?;
    let tag = cipher(newest, salt)?.encrypt_inout_detached(
        nonce.into(),
        &context.canonical_bytes(),
        (&mut *text).into(),
    );
    let Ok(tag) = tag else {
        blob.zeroize();
        return Err(BackendError::new(ErrorCode::Internal, "wrapping failed"));
    };
    blob.extend_from_slice(&tag);
    Ok(Wrapped {
        blob,
        key_id: key_id(keys.id, newest.version),
        metadata: Vec::new(),
    })
}

/// Unwraps under the version that the key id names.
pub(crate) fn unwrap(keys: &KeySet, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes> {
    let (id, version) = parse_key_id(&wrapped.key_id).ok_or_else(|| {
        BackendError::new(
            ErrorCode::WrongKey,
            format!(
                "the key id is not one of a managed key (`managed:<keyring>:v<version>`), so another backend wrapped this; \
                 this keyring is {}",
                keys.id
            ),
        )
    })?;
    if id != keys.id {
        return Err(BackendError::new(
            ErrorCode::WrongKey,
            format!(
                "keyring {id} wrapped this, but the keyring here is {}; bring the other keyring",
                keys.id
            ),
        ));
    }
    let master = keys.keys.iter().find(|key| key.version == version).ok_or_else(|| {
        BackendError::new(
            ErrorCode::KeyNotFound,
            format!(
                "keyring {id} has no version {version}, its newest is {}; the keyring file is perhaps an older backup: \
                 restore the newest one",
                keys.newest_version
            ),
        )
    })?;
    let foreign = || damaged("the blob is not one of a managed key: its length or its format is wrong");
    if !wrapped.metadata.is_empty() || wrapped.blob.len() > BLOB_MAX_BYTES {
        return Err(foreign());
    }
    let (prefix, rest) = wrapped.blob.split_at_checked(PREFIX_BYTES).ok_or_else(foreign)?;
    let (text, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(foreign)?;
    if prefix[0] != BLOB_FORMAT {
        return Err(foreign());
    }
    let (salt, nonce) = salt_and_nonce(prefix)?;
    let cipher = cipher(master, salt)?;
    LockedBytes::fill_with(text.len(), |out| {
        out.copy_from_slice(text);
        cipher.decrypt_inout_detached(nonce.into(), &context.canonical_bytes(), out.into(), tag.into()).map_err(|_| {
            damaged(format!(
                "the blob does not open under version {version} of keyring {id}: it is damaged, or was wrapped under \
                 another context"
            ))
        })
    })
}

pub(crate) fn key_id(id: KeyringId, version: u32) -> String {
    format!("managed:{id}:v{version}")
}

/// Accepts what [`key_id`] writes and nothing else, so that one key has one name.
fn parse_key_id(text: &str) -> Option<(KeyringId, u32)> {
    let (id, version) = text.strip_prefix("managed:")?.split_once(":v")?;
    let id: [u8; 16] = decode_hex(id.as_bytes())?;
    let parsed = (KeyringId(id), version.parse().ok()?);
    (key_id(parsed.0, parsed.1) == text).then_some(parsed)
}

/// `N` bytes of exactly `2·N` hexadecimal digits.
pub(crate) fn decode_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    let mut out = Zeroizing::new([0; N]);
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(*out)
}

fn salt_and_nonce(prefix: &[u8]) -> Result<(&[u8; SALT_BYTES], &[u8; NONCE_BYTES])> {
    prefix[1..]
        .split_first_chunk()
        .and_then(|(salt, nonce)| Some((salt, nonce.try_into().ok()?)))
        .ok_or_else(|| BackendError::new(ErrorCode::Internal, "a blob's prefix has the wrong length"))
}

fn cipher(master: &MasterKey, salt: &[u8; SALT_BYTES]) -> Result<Aes256GcmSiv> {
    let mut hasher = blake3::Hasher::new_derive_key(WRAPPING_KEY_LABEL);
    hasher.update(master.key.as_slice()).update(salt);
    let mut key = hasher.finalize();
    hasher.zeroize();
    let cipher = Aes256GcmSiv::new_from_slice(key.as_bytes());
    key.zeroize();
    cipher.map_err(|_| BackendError::new(ErrorCode::Internal, "a wrapping key is not 32 bytes long"))
}
