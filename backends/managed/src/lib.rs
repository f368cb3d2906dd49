//! The managed key: a local keyring file of 256-bit master keys with versions.
//!
//! Every organization of a store is born with the key `managed`. This crate is the backend behind it: linked into the
//! application ([`ManagedBackend`]) or loaded as a plugin. [`Keyring`] is the administration of the file: make, rotate,
//! disable, enable, reseal.
//!
//! # Settings
//!
//! By the builder, in Rust:
//!
//! ```
//! use keystead_managed::ManagedBackend;
//!
//! let unsealed = ManagedBackend::keyring("app.keyring");
//! let sealed = ManagedBackend::keyring("app.keyring").passphrase("correct horse battery staple").create(false);
//! ```
//!
//! or as JSON from the application, strict (an unknown field is refused by its name):
//!
//! | field | |
//! | --- | --- |
//! | `keyring` | absolute path of the keyring file |
//! | `passphrase_env` | the file is sealed; the passphrase is in this environment variable |
//! | `passphrase_fd` | … or is read from this descriptor, once, to its first newline or end (a pipe or a file; needs `/dev/fd`) |
//! | `passphrase_file` | … or is the first line of this file. Links are followed and its mode is not checked: secret mounts of container platforms have both |
//! | `create` | make the keyring at the first wrap when it is not there; `true` unless told otherwise |
//! | `master_key_env`, `master_key_fd` | instead of `keyring`: the master key itself, 64 hexadecimal digits; no file, one version |
//!
//! A passphrase is 1 to 4096 bytes. An environment variable is visible to whoever may look into the process and is
//! inherited by its children; a descriptor is better. A registered key's config is `{}`: all organizations share the
//! application's keyring, and their wraps are told apart by the context.
//!
//! # What it does
//!
//! - The file is closed to others (mode 0600), written under a temporary name, synced and renamed; links are not
//!   followed. Read, it must be the user's own, and closed to everybody else. Changes are guarded by a lock on
//!   `<keyring>.lock`, so of two processes that make a keyring at once, one makes it and both use it.
//! - A wrap is AES-256-GCM-SIV under a key of its own, derived from the newest master key and a random salt, bound to the
//!   context. Its key id is `managed:<keyring id>:v<version>`.
//! - Each call looks at the file (one `stat`): a rotation or a disabling by another process holds from the next call on.
//! - Master keys lie in locked memory where the platform allows ([`LockedBytes`](keystead_backend::LockedBytes)); a
//!   disabled keyring's keys are dropped. The passphrase and what Argon2id made of it stay in locked memory while the
//!   backend lives, so that a rotation by another process can be read.
//!
//! # What to know
//!
//! - **The keyring is the key: back it up.** Lost, everything under it is lost. An unsealed keyring in the same backup as
//!   the store file protects nothing.
//! - **A missing file is an outage, not a revocation**: calls fail as retryable and the engine may serve from its cache
//!   for a bounded time. To revoke, [`Keyring::disable`] it.
//! - **Once the keyring exists, set `create` to false.** With it true, a process that starts while the keyring's disk is
//!   not mounted, but its directory is there, makes a new keyring at its first wrap. (An unwrap never makes one, nor does
//!   a process that has seen the file.)
//! - Whoever can write the keyring's directory can put an older copy in the file's place, and so undo a disabling. Keep the
//!   directory closed to others. Whoever has an old copy and its passphrase has the master keys in it.
//! - It is for Unix: modes, owners and `O_NOFOLLOW` are what it leans on.
//!
//! # Errors
//!
//! | what happened | code | class |
//! | --- | --- | --- |
//! | settings or config: unknown field, wrong type, contradiction, nothing set; source of a secret missing or empty; master key not 64 digits | `INVALID_CONFIG` | config |
//! | the path is a link, a directory or a foreign file; a keyring to be made is there already | `INVALID_CONFIG` | config |
//! | Argon2id parameters outside of the limits, in a file or given | `INVALID_CONFIG` | config |
//! | a passphrase is given, the file is not sealed | `INVALID_CONFIG` | config |
//! | passphrase wrong, or needed and not given | `UNAUTHENTICATED` | revoked |
//! | mode lets others in, file is another user's, the system denies access | `ACCESS_DENIED` | revoked |
//! | the keyring is disabled | `KEY_DISABLED` | revoked |
//! | the keyring has no such version | `KEY_NOT_FOUND` | revoked |
//! | the key id is another keyring's or another backend's | `WRONG_KEY` | integrity |
//! | blob damaged, or wrapped under another context | `INVALID_CIPHERTEXT` | integrity |
//! | keyring file damaged, or changed without the passphrase | `INVALID_CIPHERTEXT` | integrity |
//! | file or directory not there; other input or output error; no memory for Argon2id; no random bytes | `UNAVAILABLE` | retryable |
//! | another process holds the lock; deadline of zero | `TIMEOUT` | retryable |
//! | cancelled before it began | `CANCELLED` | failed |
//! | newer file format; plaintext over 256 bytes; version 1025 | `UNSUPPORTED` | failed |
//! | a fault in this crate | `INTERNAL` | failed |
//!
//! The bytes of the file are drawn at the top of `src/format.rs`, those of a wrap in `src/wrap.rs`.

mod backend;
mod error;
mod file;
mod format;
mod keyring;
mod sealing;
mod settings;
mod wrap;

pub use backend::ManagedBackend;
pub use format::{KeyringId, KeyringState};
pub use keyring::{KeyVersion, Keyring};
pub use sealing::{KdfParameters, Sealing};

/// For this project's own fuzzers: not covered by any promise of stability.
#[cfg(feature = "simulation")]
pub mod simulation {
    /// Parses settings and a config as opening does; reads nothing that they name.
    ///
    /// # Errors
    ///
    /// What opening would say.
    pub fn check(settings: &str, config: &str) -> Result<(), keystead_backend::BackendError> {
        crate::settings::check_config(config)?;
        crate::settings::parse_settings(settings).map(drop)
    }
}
