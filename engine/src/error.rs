//! The one error type: what was being done, to which object, what is wrong, what to do next. Never a secret.

use crate::names::{EpochNumber, KeyName, OrganizationName, SecretPath, Version};
use keystead_backend::{BackendError, ErrorClass};
use std::path::PathBuf;

/// Why a call did not do what it was asked. Unless a variant says otherwise, nothing was changed.
///
/// # Examples
///
/// ```
/// use keystead::{Error, SecretPath};
///
/// let error = "a//b".parse::<SecretPath>().unwrap_err();
/// assert!(matches!(error, Error::InvalidPath { .. }));
/// assert!(!error.is_retryable());
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path, or a prefix of paths, is against the rules of [`SecretPath`].
    #[error("path {path:?} is not allowed: {reason}")]
    InvalidPath {
        /// The path as given, made printable.
        path: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// A name is against the rules.
    #[error("{what} name {name:?} is not allowed: {reason}")]
    InvalidName {
        /// Whose name: an organization's, a key's.
        what: &'static str,
        /// The name as given, made printable.
        name: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// Another argument is not allowed.
    #[error("{what} is not allowed: {reason}")]
    InvalidArgument {
        /// Which argument.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A value, or a batch of values, is too large.
    #[error("{what} of {size_bytes} bytes is too large: at most {max_bytes} bytes are allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },

    /// There is no organization of this name.
    #[error("there is no organization {name:?} in this store")]
    OrganizationNotFound {
        /// The name.
        name: OrganizationName,
    },
    /// There is an organization of this name.
    #[error("there is an organization {name:?} already; names are unique and are not given again")]
    OrganizationExists {
        /// The name.
        name: OrganizationName,
    },
    /// Organizations keep their names: audit records and KMS logs refer to them.
    #[error("organization {name:?} cannot be renamed: its audit records and its KMS's logs refer to it")]
    RenameRefused {
        /// The name that stays.
        name: OrganizationName,
    },
    /// There is no secret at this path.
    #[error("there is no secret {path:?} in organization {organization:?}")]
    SecretNotFound {
        /// Whose.
        organization: OrganizationName,
        /// Where.
        path: SecretPath,
    },
    /// The secret has no such version.
    #[error(
        "secret {path:?} of organization {organization:?} has no version {version}; its latest is {latest}"
    )]
    VersionNotFound {
        /// Whose.
        organization: OrganizationName,
        /// Where.
        path: SecretPath,
        /// The version that was asked for.
        version: Version,
        /// The latest one.
        latest: Version,
    },
    /// The version is deleted; `undelete` brings it back.
    #[error(
        "version {version} of secret {path:?} of organization {organization:?} is deleted; undelete brings it back"
    )]
    VersionDeleted {
        /// Whose.
        organization: OrganizationName,
        /// Where.
        path: SecretPath,
        /// Which.
        version: Version,
    },
    /// The version is destroyed: its data key and its value are gone for good.
    #[error(
        "version {version} of secret {path:?} of organization {organization:?} is destroyed; nothing brings it back"
    )]
    VersionDestroyed {
        /// Whose.
        organization: OrganizationName,
        /// Where.
        path: SecretPath,
        /// Which.
        version: Version,
    },
    /// The version was lost when the file was damaged; the store was salvaged from what was left.
    #[error(
        "version {version} of secret {path:?} of organization {organization:?} was lost to damage of the file; restore it from a copy"
    )]
    VersionLost {
        /// Whose.
        organization: OrganizationName,
        /// Where.
        path: SecretPath,
        /// Which.
        version: Version,
    },
    /// `put_if` found another latest version than the one expected.
    #[error(
        "secret {path:?} of organization {organization:?} is at version {actual}, not {expected}: read it again"
    )]
    VersionMismatch {
        /// Whose.
        organization: OrganizationName,
        /// Where.
        path: SecretPath,
        /// The version that was expected; 0 when the secret was to be new.
        expected: u32,
        /// The latest version; 0 when there is none.
        actual: u32,
    },

    /// There is no key of this name.
    #[error("organization {organization:?} has no key {key:?}")]
    KeyNotFound {
        /// Whose.
        organization: OrganizationName,
        /// The name.
        key: KeyName,
    },
    /// There is, or was, a key of this name.
    #[error("organization {organization:?} has a key {key:?} already; key names are not given again")]
    KeyExists {
        /// Whose.
        organization: OrganizationName,
        /// The name.
        key: KeyName,
    },
    /// The key's state does not allow what was asked.
    #[error("cannot {doing} key {key:?} of organization {organization:?}: {reason}")]
    KeyRefused {
        /// Whose.
        organization: OrganizationName,
        /// The key.
        key: KeyName,
        /// What was asked.
        doing: &'static str,
        /// Why not, and what to do.
        reason: String,
    },
    /// The key's backend is not registered with this store.
    #[error(
        "key {key:?} of organization {organization:?} needs the backend {backend:?}, which this application has not registered"
    )]
    BackendNotRegistered {
        /// Whose.
        organization: OrganizationName,
        /// The key.
        key: KeyName,
        /// The backend's name.
        backend: String,
    },
    /// A KMS, or the backend that speaks to it, did not do what was asked.
    #[error("key {key:?} of organization {organization:?}: cannot {doing}: {source}")]
    Kms {
        /// Whose.
        organization: OrganizationName,
        /// The key.
        key: KeyName,
        /// What was being done.
        doing: String,
        /// What the backend said.
        source: BackendError,
    },
    /// The epoch has given out as many wraps as is safe; rotate the key, or give the job that moves data keys to it another target.
    #[error(
        "epoch {epoch} of organization {organization:?} has reached its limit of wraps: rotate the key, or give the job that \
         moves data keys there another target"
    )]
    EpochExhausted {
        /// Whose.
        organization: OrganizationName,
        /// Which.
        epoch: EpochNumber,
    },
    /// No re-wrap job runs in this organization.
    #[error("organization {organization:?} has no re-wrap job")]
    NoJob {
        /// Whose.
        organization: OrganizationName,
    },

    /// There is a file at this path already.
    #[error("cannot create the store {path:?}: there is a file already; open it, or choose another path")]
    StoreExists {
        /// The path.
        path: PathBuf,
    },
    /// There is no file at this path.
    #[error("cannot open the store {path:?}: there is no such file; create it first")]
    StoreNotFound {
        /// The path.
        path: PathBuf,
    },
    /// The store is another one than the checkpoint is of.
    #[error("the checkpoint is of the store {pinned}; this is the store {found}")]
    CheckpointOfAnotherStore {
        /// The checkpoint's store id.
        pinned: String,
        /// This store's id.
        found: String,
    },
    /// The store is older than the checkpoint: the file was rolled back, or its audit trail was cut off.
    #[error(
        "the store is behind its checkpoint: organization {organization:?} was pinned at audit record {pinned_sequence}, the \
         store has {found_sequence}: it was rolled back"
    )]
    BehindCheckpoint {
        /// Whose trail.
        organization: String,
        /// The newest record when the checkpoint was taken.
        pinned_sequence: u64,
        /// The newest record of the store; 0 when it does not know the organization.
        found_sequence: u64,
    },
    /// The record that the checkpoint pinned is another one: history was written anew.
    #[error(
        "the store does not hold what its checkpoint pinned: audit record {pinned_sequence} of organization {organization:?} is \
         another one (of {found_sequence}): history was written anew"
    )]
    NotOfCheckpoint {
        /// Whose trail.
        organization: String,
        /// The record that was pinned.
        pinned_sequence: u64,
        /// The newest record of the store.
        found_sequence: u64,
    },
    /// Another handle, here or in another process, has the store open.
    #[error(
        "cannot open the store {path:?}: it is open already, here or in another process; one process at a time"
    )]
    AlreadyOpen {
        /// The path.
        path: PathBuf,
    },
    /// The file is not a store that this version can open.
    #[error("cannot open the store {path:?}: {reason}")]
    NotAStore {
        /// The path.
        path: PathBuf,
        /// Empty, foreign, too new, a link, …
        reason: String,
    },
    /// Bytes of the store are not what was written: refused, never guessed at.
    #[error("the store is damaged: {what}: {reason}; run `keystead verify`, restore from a copy")]
    Damaged {
        /// Which piece.
        what: String,
        /// How it shows.
        reason: String,
    },
    /// The disk, or the file system, failed. A change that was being made is perhaps durable, perhaps not: the store
    /// has closed itself; open it again to see.
    #[error("storage failed {doing}: {reason}; the store has closed itself, open it again")]
    Storage {
        /// What was being done.
        doing: &'static str,
        /// What failed.
        reason: String,
    },
    /// The storage engine panicked, and the panic was caught: pages of the file fit their tags but not each other. A disk
    /// that lied about a sync leaves such a file, or somebody who wrote it on purpose; else it is a bug. The store has
    /// closed itself; a change that was being made is perhaps durable, perhaps not.
    #[error(
        "the storage engine panicked {doing} ({reason}); the store has closed itself: run `keystead verify`, restore from a copy"
    )]
    StorePanicked {
        /// What was being done.
        doing: &'static str,
        /// What the panic said, if that quotes nothing of the store.
        reason: &'static str,
    },
    /// The store closed itself after a failure, or was closed.
    #[error("the store is closed: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Randomness(#[source] std::io::Error),
    /// Reading from the caller's source, or writing to its sink, failed.
    #[error("{doing}: {source}")]
    Stream {
        /// What was being done.
        doing: &'static str,
        /// What failed.
        source: std::io::Error,
    },

    /// The active epoch changed between preparing a change and applying it; the caller prepares again. Never returned
    /// to an application.
    #[doc(hidden)]
    #[error("the active epoch has moved on")]
    EpochMoved,
}

impl Error {
    /// True for what stands in a job's way and may go by itself or be put right: the job waits. Anything else, such as a disk that
    /// fails, ends what is being done.
    pub(crate) fn is_obstacle(&self) -> bool {
        matches!(
            self,
            Self::Kms { .. } | Self::BackendNotRegistered { .. } | Self::Damaged { .. }
        )
    }

    /// True when the same call may succeed later without anybody's doing: a KMS that is out of reach or throttles.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Kms { source, .. } if source.code.class() == ErrorClass::Retryable)
    }

    /// True when the owner has taken the key away: disabled, deleted, denied.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        matches!(self, Self::Kms { source, .. } if source.code.class() == ErrorClass::Revoked)
    }

    /// True when what was asked for is not there: an organization, secret, version or key.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::OrganizationNotFound { .. }
                | Self::SecretNotFound { .. }
                | Self::VersionNotFound { .. }
                | Self::VersionDeleted { .. }
                | Self::VersionDestroyed { .. }
                | Self::KeyNotFound { .. }
                | Self::StoreNotFound { .. }
        )
    }

    /// True when bytes of the store are not what was written.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    pub(crate) fn damaged(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Damaged {
            what: what.into(),
            reason: reason.into(),
        }
    }
}

/// A result with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
