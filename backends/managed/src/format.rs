//! The bytes of a keyring file, read and written; knows nothing of files. Numbers are little-endian.
//!
//! ```text
//! offset  bytes
//!      0      8  magic: "KSKEYRNG"
//!      8      2  format version: 1
//!     10      1  sealing: 0 none, 1 passphrase
//!     11      1  state: 0 enabled, 1 disabled
//!     12     16  keyring id, random
//!     28      4  n, the number of master keys: 1 to 1024
//!     32      4  Argon2id memory in KiB  ┐
//!     36      4  Argon2id passes         │
//!     40      4  Argon2id lanes          │ all zero
//!     44     16  Argon2id salt           │ when not sealed
//!     60     32  passphrase check        │
//!     92     12  nonce                   ┘
//!    104   44·n  master keys, versions ascending; in clear when not sealed, else ciphertext:
//!                  0   4  version, from 1
//!                  4   8  created, seconds since 1970
//!                 12  32  master key
//!      …     16  tag of AES-256-GCM-SIV; zero when not sealed
//!      …     32  BLAKE3 of everything before it
//! ```
//!
//! Sealed, the master keys are encrypted by AES-256-GCM-SIV with bytes 0 to 103 as associated data, under
//! `derive_key("keystead managed keyring 2025 sealing key v1", root)`, where `root` is Argon2id (version 0x13, 32 bytes)
//! of the passphrase; the passphrase check is
//! `derive_key("keystead managed keyring 2025 passphrase check v1", root)`. So nothing in a sealed file, its state
//! included, changes without the passphrase. The BLAKE3 at the end finds damage, in either kind, before anything
//! else is believed; it is no protection from somebody who can write the file.
//!
//! Every write takes a fresh random nonce. The salt stays for the file's life, so that a rotation costs no Argon2id.

use crate::error::{Result, damaged, invalid_config, unauthenticated, unsupported};
use crate::sealing::{CHECK_BYTES, KdfParameters, SALT_BYTES, SealingKey};
use aes_gcm_siv::aead::AeadInOut;
use aes_gcm_siv::{Aes256GcmSiv, KeyInit};
use keystead_backend::{BackendError, ErrorCode, LockedBytes};
use std::fmt;
use zeroize::Zeroizing;

pub(crate) const KEY_BYTES: usize = 32;
/// More versions than a monthly rotation makes in 80 years, and a file that is read in one go.
pub(crate) const KEYS_MAX: usize = 1024;
pub(crate) const FILE_MAX_BYTES: usize = HEADER_BYTES + KEYS_MAX * ENTRY_BYTES + TAG_BYTES + CHECKSUM_BYTES;
pub(crate) const NONCE_BYTES: usize = 12;

const MAGIC: &[u8; 8] = b"KSKEYRNG";
const FORMAT_VERSION: u16 = 1;
const HEADER_BYTES: usize = 104;
const ENTRY_BYTES: usize = 4 + 8 + KEY_BYTES;
const TAG_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 32;

/// A keyring's random name; 32 hexadecimal digits when displayed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyringId(pub(crate) [u8; 16]);

impl fmt::Display for KeyringId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyringId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyringId({self})")
    }
}

/// Whether a keyring may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyringState {
    /// It wraps and unwraps.
    Enabled,
    /// It refuses both with [`ErrorCode::KeyDisabled`] until it is enabled again.
    Disabled,
}

/// One version of the master key.
pub(crate) struct MasterKey {
    pub(crate) version: u32,
    pub(crate) created_unix_s: u64,
    pub(crate) key: LockedBytes,
}

/// What a keyring file says. Versions ascend; there is at least one key, except in memory while disabled.
pub(crate) struct Contents {
    pub(crate) id: KeyringId,
    pub(crate) state: KeyringState,
    pub(crate) keys: Vec<MasterKey>,
}

/// What seals a file: see [`SealingKey`]; the part of it that the file records in clear.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealRecord {
    pub(crate) kdf: KdfParameters,
    pub(crate) salt: [u8; SALT_BYTES],
    pub(crate) check: [u8; CHECK_BYTES],
}

/// A file whose outside has been checked: whole, known, within its limits. The keys are still closed.
pub(crate) struct Closed<'a> {
    /// `None` when the file is not sealed.
    pub(crate) seal: Option<SealRecord>,
    id: KeyringId,
    state: KeyringState,
    nonce: [u8; NONCE_BYTES],
    header: &'a [u8],
    entries: &'a [u8],
    tag: [u8; TAG_BYTES],
}

/// Checks all that can be checked without the passphrase.
pub(crate) fn parse(bytes: &[u8]) -> Result<Closed<'_>> {
    if !bytes.starts_with(MAGIC) {
        return Err(invalid_config(
            "this file is not a keyring (its first bytes are foreign); name the keyring file, or restore it from a backup",
        ));
    }
    let torn =
        || damaged("the file is damaged: it is cut short or has extra bytes; restore it from a backup");
    let mut rest = Reader(&bytes[MAGIC.len()..]);
    let format = u16::from_le_bytes(rest.take().ok_or_else(torn)?);
    if format != FORMAT_VERSION {
        return Err(unsupported(format!(
            "the file has format version {format}, this program knows version {FORMAT_VERSION}; use a newer program"
        )));
    }
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(torn)?;
    if blake3::hash(body) != *checksum {
        return Err(damaged(
            "the file is damaged: its checksum does not match; restore it from a backup",
        ));
    }
    let (body, tag) = body.split_last_chunk::<TAG_BYTES>().ok_or_else(torn)?;
    if body.len() < HEADER_BYTES {
        return Err(torn());
    }
    let (header, entries) = body.split_at(HEADER_BYTES);

    let mut rest = Reader(&header[MAGIC.len() + 2..]);
    let [sealing, state] = rest.take().ok_or_else(torn)?;
    let id = KeyringId(rest.take().ok_or_else(torn)?);
    let key_count = rest.u32().ok_or_else(torn)? as usize;
    let kdf = KdfParameters {
        memory_kib: rest.u32().ok_or_else(torn)?,
        passes: rest.u32().ok_or_else(torn)?,
        lanes: rest.u32().ok_or_else(torn)?,
    };
    let salt = rest.take().ok_or_else(torn)?;
    let check = rest.take().ok_or_else(torn)?;
    let nonce = rest.take().ok_or_else(torn)?;

    if !(1..=KEYS_MAX).contains(&key_count) || entries.len() != key_count * ENTRY_BYTES {
        return Err(torn());
    }
    let state = match state {
        0 => KeyringState::Enabled,
        1 => KeyringState::Disabled,
        other => return Err(damaged(format!("the file is damaged: unknown state {other}"))),
    };
    let seal = match sealing {
        0 if header[32..].iter().all(|&byte| byte == 0) && *tag == [0; TAG_BYTES] => None,
        0 => {
            return Err(damaged(
                "the file is damaged: it is not sealed, and yet has the parameters of a seal",
            ));
        }
        1 => {
            kdf.check()?;
            Some(SealRecord { kdf, salt, check })
        }
        other => {
            return Err(unsupported(format!(
                "unknown kind of sealing {other}; use a newer program"
            )));
        }
    };
    Ok(Closed {
        seal,
        id,
        state,
        nonce,
        header,
        entries,
        tag: *tag,
    })
}

impl Closed<'_> {
    /// The contents. `key` must be there exactly when the file is sealed.
    pub(crate) fn open(&self, key: Option<&SealingKey>) -> Result<Contents> {
        // One allocation, zeroized: the clear master keys go from here into locked memory and nowhere else.
        let mut entries = Zeroizing::new(self.entries.to_vec());
        match (&self.seal, key) {
            (None, None) => {}
            (None, Some(_)) => {
                return Err(invalid_config(
                    "the file is not sealed, but a passphrase is given; leave the passphrase out if that is meant, else \
                     somebody has put another file in its place",
                ));
            }
            (Some(_), None) => {
                return Err(unauthenticated(
                    "the file is sealed and no passphrase is given; set `passphrase_env`, `passphrase_fd` or \
                     `passphrase_file`",
                ));
            }
            (Some(seal), Some(key)) => {
                if !key.matches(&seal.check) {
                    return Err(unauthenticated(
                        "the passphrase is wrong; check where it comes from (also for a missing or extra character at its \
                         end)",
                    ));
                }
                cipher(key)?
                    .decrypt_inout_detached(
                        (&self.nonce).into(),
                        self.header,
                        entries.as_mut_slice().into(),
                        (&self.tag).into(),
                    )
                    .map_err(|_| {
                        damaged(
                            "the passphrase is right, but the file was changed without it; restore it from a backup and \
                             find out who writes there",
                        )
                    })?;
            }
        }
        let mut keys: Vec<MasterKey> = Vec::with_capacity(entries.len() / ENTRY_BYTES);
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let mut fields = Reader(entry);
            let (Some(version), Some(created)) = (fields.u32(), fields.take()) else {
                return Err(damaged("the file is damaged: a master key is cut short"));
            };
            if version <= keys.last().map_or(0, |last| last.version) {
                return Err(damaged(
                    "the file is damaged: the versions of its master keys do not ascend",
                ));
            }
            let key = LockedBytes::copy_from(fields.0);
            keys.push(MasterKey {
                version,
                created_unix_s: u64::from_le_bytes(created),
                key,
            });
        }
        Ok(Contents {
            id: self.id,
            state: self.state,
            keys,
        })
    }
}

/// The bytes of a whole file. `nonce` is fresh and random when sealed.
pub(crate) fn encode(
    contents: &Contents,
    key: Option<&SealingKey>,
    nonce: &[u8; NONCE_BYTES],
) -> Result<Zeroizing<Vec<u8>>> {
    let entries_bytes = contents.keys.len() * ENTRY_BYTES;
    let capacity_bytes = HEADER_BYTES + entries_bytes + TAG_BYTES + CHECKSUM_BYTES;
    // Full capacity at once: growing would leave copies of master keys behind.
    let mut out = Zeroizing::new(Vec::with_capacity(capacity_bytes));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.push(u8::from(key.is_some()));
    out.push(u8::from(contents.state == KeyringState::Disabled));
    out.extend_from_slice(&contents.id.0);
    let key_count = u32::try_from(contents.keys.len()).expect("at most KEYS_MAX keys");
    out.extend_from_slice(&key_count.to_le_bytes());
    if let Some(key) = key {
        for number in [key.kdf.memory_kib, key.kdf.passes, key.kdf.lanes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&key.salt);
        out.extend_from_slice(key.check());
        out.extend_from_slice(nonce);
    } else {
        out.resize(HEADER_BYTES, 0);
    }
    debug_assert_eq!(out.len(), HEADER_BYTES);
    for master in &contents.keys {
        out.extend_from_slice(&master.version.to_le_bytes());
        out.extend_from_slice(&master.created_unix_s.to_le_bytes());
        out.extend_from_slice(master.key.as_slice());
    }
    let mut tag = [0; TAG_BYTES];
    if let Some(key) = key {
        let (header, entries) = out.split_at_mut(HEADER_BYTES);
        tag = cipher(key)?
            .encrypt_inout_detached(nonce.into(), header, entries.into())
            .map_err(|_| BackendError::new(ErrorCode::Internal, "sealing failed"))?
            .into();
    }
    out.extend_from_slice(&tag);
    let checksum = blake3::hash(&out);
    out.extend_from_slice(checksum.as_bytes());
    debug_assert_eq!(out.len(), capacity_bytes);
    Ok(out)
}

fn cipher(key: &SealingKey) -> Result<Aes256GcmSiv> {
    Aes256GcmSiv::new_from_slice(key.key.as_slice())
        .map_err(|_| BackendError::new(ErrorCode::Internal, "a sealing key is not 32 bytes long"))
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
}
