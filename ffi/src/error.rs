//! Codes, classes, and the error object.

#![allow(unsafe_code)]

use crate::guard;
use crate::text::Text;
use engine::Error;
use engine::backend::{ErrorClass, ErrorCode};
use std::ffi::c_char;
use std::fmt::Display;

/// It was done.
pub const KEYSTEAD_OK: i32 = 0;
/// An argument is against the rules: a null pointer, text that is not UTF-8, a struct_size that is too small.
pub const KEYSTEAD_INVALID_ARGUMENT: i32 = 1;
/// A path of a secret, or a prefix of paths, is against the rules.
pub const KEYSTEAD_INVALID_PATH: i32 = 2;
/// A name of an organization or a key is against the rules.
pub const KEYSTEAD_INVALID_NAME: i32 = 3;
/// A value, or a batch of values, is too large.
pub const KEYSTEAD_TOO_LARGE: i32 = 4;
/// The caller's buffer has no room for the answer.
pub const KEYSTEAD_BUFFER_TOO_SMALL: i32 = 5;
/// Options ask for something that this library is too old for.
pub const KEYSTEAD_UNSUPPORTED_OPTION: i32 = 6;
/// The time that the caller gave is over; the work goes on.
pub const KEYSTEAD_TIMED_OUT: i32 = 7;
/// The caller's own callback asked to stop waiting.
pub const KEYSTEAD_STOPPED: i32 = 8;
/// A fault in the library: it panicked. The handles on this store, or this backend, can be freed, and nothing else.
pub const KEYSTEAD_PANICKED: i32 = 9;
/// The handle belongs to the process that forked this one.
pub const KEYSTEAD_FORKED: i32 = 10;
/// Something failed that this header has no code for.
pub const KEYSTEAD_OTHER: i32 = 11;
/// A process has one log, and it is open.
pub const KEYSTEAD_LOG_TAKEN: i32 = 12;
/// There is no organization of this name.
pub const KEYSTEAD_ORGANIZATION_NOT_FOUND: i32 = 20;
/// There is an organization of this name already.
pub const KEYSTEAD_ORGANIZATION_EXISTS: i32 = 21;
/// Organizations keep their names.
pub const KEYSTEAD_RENAME_REFUSED: i32 = 22;
/// There is no secret at this path.
pub const KEYSTEAD_SECRET_NOT_FOUND: i32 = 30;
/// The secret has no such version.
pub const KEYSTEAD_VERSION_NOT_FOUND: i32 = 31;
/// The version is deleted; it can be undeleted.
pub const KEYSTEAD_VERSION_DELETED: i32 = 32;
/// The version is destroyed, for good.
pub const KEYSTEAD_VERSION_DESTROYED: i32 = 33;
/// The latest version is another one than the caller expected.
pub const KEYSTEAD_VERSION_MISMATCH: i32 = 34;
/// The version was lost to damage of the file; the store was salvaged from what was left.
pub const KEYSTEAD_VERSION_LOST: i32 = 35;
/// There is no key of this name.
pub const KEYSTEAD_KEY_NOT_FOUND: i32 = 40;
/// There is, or was, a key of this name.
pub const KEYSTEAD_KEY_EXISTS: i32 = 41;
/// The key's state does not allow what was asked.
pub const KEYSTEAD_KEY_REFUSED: i32 = 42;
/// The key's backend is not among those that the store was opened with.
pub const KEYSTEAD_BACKEND_NOT_REGISTERED: i32 = 43;
/// The epoch has given out as many wraps as is safe: rotate the key.
pub const KEYSTEAD_EPOCH_EXHAUSTED: i32 = 44;
/// No re-wrap job runs.
pub const KEYSTEAD_NO_JOB: i32 = 45;
/// There is a file at this path already.
pub const KEYSTEAD_STORE_EXISTS: i32 = 60;
/// There is no file at this path.
pub const KEYSTEAD_STORE_NOT_FOUND: i32 = 61;
/// The store is open already, here or in another process.
pub const KEYSTEAD_ALREADY_OPEN: i32 = 62;
/// The file is not a store that this library can open.
pub const KEYSTEAD_NOT_A_STORE: i32 = 63;
/// Bytes of the store are not what was written.
pub const KEYSTEAD_DAMAGED: i32 = 64;
/// The disk or the file system failed; the store has closed itself.
pub const KEYSTEAD_STORAGE: i32 = 65;
/// The store is closed.
pub const KEYSTEAD_CLOSED: i32 = 66;
/// The operating system gave no random bytes.
pub const KEYSTEAD_RANDOMNESS: i32 = 67;
/// The store is older than the checkpoint that it was to be opened with: it was rolled back.
pub const KEYSTEAD_BEHIND_CHECKPOINT: i32 = 68;
/// The store has another audit record than the one that its checkpoint pinned: history was written anew.
pub const KEYSTEAD_NOT_OF_CHECKPOINT: i32 = 69;
/// The checkpoint is of a store with another id.
pub const KEYSTEAD_CHECKPOINT_OF_ANOTHER_STORE: i32 = 70;
/// A plugin, or a table, was refused; the message says at which step and why.
pub const KEYSTEAD_PLUGIN_REFUSED: i32 = 80;
/// What a backend answers, as a code of KEYSTEAD_BACKEND_..., stands 100 higher: KEYSTEAD_KMS + KEYSTEAD_BACKEND_THROTTLED.
pub const KEYSTEAD_KMS: i32 = 100;

/// The class of KEYSTEAD_OK.
pub const KEYSTEAD_CLASS_NONE: i32 = 0;
/// The caller asked for what is against the rules: correct the call.
pub const KEYSTEAD_CLASS_CALLER: i32 = 1;
/// What was asked for is not there.
pub const KEYSTEAD_CLASS_NOT_FOUND: i32 = 2;
/// What is there does not go with what was asked: it exists already, it is at another version, it is in use.
pub const KEYSTEAD_CLASS_CONFLICT: i32 = 3;
/// The owner has taken the key away: disabled, deleted, denied.
pub const KEYSTEAD_CLASS_REVOKED: i32 = 4;
/// Bytes are not what was written: of the store, or of what a KMS wrapped. Nothing was guessed.
pub const KEYSTEAD_CLASS_INTEGRITY: i32 = 5;
/// An outage: the same call may succeed later without anybody's doing.
pub const KEYSTEAD_CLASS_OUTAGE: i32 = 6;
/// Settings of a backend, or the config of a key, are wrong; a plugin was refused.
pub const KEYSTEAD_CLASS_CONFIG: i32 = 7;
/// The disk, the file system, the operating system.
pub const KEYSTEAD_CLASS_SYSTEM: i32 = 8;
/// A fault in the library or in a backend.
pub const KEYSTEAD_CLASS_FAULT: i32 = 9;

/// Why a call failed. Belongs to the caller, who frees it with keystead_error_free().
///
/// Every function that can fail takes `keystead_error **error` as its last argument. It may be null: then the code is all
/// that is told. Else *error is set, to null when the call succeeds, without looking at what was there; so free an error
/// before its variable is used again. Threads: any, also at once; freed once.
///
///     keystead_error *error = NULL;
///     if (keystead_store_open("app.keystead", KEYSTEAD_ZERO_TERMINATED, &options, &store, &error) != KEYSTEAD_OK) {
///         fprintf(stderr, "%s\n", keystead_error_message(error));
///         keystead_error_free(error);
///     }
#[derive(Debug)]
pub struct keystead_error {
    code: i32,
    retry_after_ms: u64,
    message: Text,
}

/// Why a call fails, on its way to the caller.
#[derive(Debug)]
pub(crate) enum Failure {
    Engine(Error),
    Own { code: i32, message: String },
}

impl Failure {
    pub(crate) fn new(code: i32, message: impl Into<String>) -> Self {
        Self::Own {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn refused(reason: &impl Display) -> Self {
        Self::new(KEYSTEAD_PLUGIN_REFUSED, reason.to_string())
    }

    pub(crate) fn panicked() -> Self {
        Self::new(
            KEYSTEAD_PANICKED,
            "a fault in Keystead: it panicked, and this handle can only be freed; please report it",
        )
    }

    pub(crate) fn code(&self) -> i32 {
        match self {
            Self::Engine(error) => code_of(error),
            Self::Own { code, .. } => *code,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

/// The code of an engine's error. Codes are stable: one that was given stays.
fn code_of(error: &Error) -> i32 {
    match error {
        Error::InvalidPath { .. } => KEYSTEAD_INVALID_PATH,
        Error::InvalidName { .. } => KEYSTEAD_INVALID_NAME,
        Error::InvalidArgument { .. } => KEYSTEAD_INVALID_ARGUMENT,
        Error::TooLarge { .. } => KEYSTEAD_TOO_LARGE,
        Error::OrganizationNotFound { .. } => KEYSTEAD_ORGANIZATION_NOT_FOUND,
        Error::OrganizationExists { .. } => KEYSTEAD_ORGANIZATION_EXISTS,
        Error::RenameRefused { .. } => KEYSTEAD_RENAME_REFUSED,
        Error::SecretNotFound { .. } => KEYSTEAD_SECRET_NOT_FOUND,
        Error::VersionNotFound { .. } => KEYSTEAD_VERSION_NOT_FOUND,
        Error::VersionDeleted { .. } => KEYSTEAD_VERSION_DELETED,
        Error::VersionDestroyed { .. } => KEYSTEAD_VERSION_DESTROYED,
        Error::VersionMismatch { .. } => KEYSTEAD_VERSION_MISMATCH,
        Error::VersionLost { .. } => KEYSTEAD_VERSION_LOST,
        Error::KeyNotFound { .. } => KEYSTEAD_KEY_NOT_FOUND,
        Error::KeyExists { .. } => KEYSTEAD_KEY_EXISTS,
        Error::KeyRefused { .. } => KEYSTEAD_KEY_REFUSED,
        Error::BackendNotRegistered { .. } => KEYSTEAD_BACKEND_NOT_REGISTERED,
        Error::Kms { source, .. } => KEYSTEAD_KMS + source.code.as_i32(),
        Error::EpochExhausted { .. } => KEYSTEAD_EPOCH_EXHAUSTED,
        Error::NoJob { .. } => KEYSTEAD_NO_JOB,
        Error::StoreExists { .. } => KEYSTEAD_STORE_EXISTS,
        Error::StoreNotFound { .. } => KEYSTEAD_STORE_NOT_FOUND,
        Error::AlreadyOpen { .. } => KEYSTEAD_ALREADY_OPEN,
        Error::NotAStore { .. } => KEYSTEAD_NOT_A_STORE,
        Error::Damaged { .. } | Error::StorePanicked { .. } => KEYSTEAD_DAMAGED,
        Error::Storage { .. } => KEYSTEAD_STORAGE,
        Error::Closed { .. } => KEYSTEAD_CLOSED,
        Error::Randomness(_) => KEYSTEAD_RANDOMNESS,
        Error::BehindCheckpoint { .. } => KEYSTEAD_BEHIND_CHECKPOINT,
        Error::NotOfCheckpoint { .. } => KEYSTEAD_NOT_OF_CHECKPOINT,
        Error::CheckpointOfAnotherStore { .. } => KEYSTEAD_CHECKPOINT_OF_ANOTHER_STORE,
        _ => KEYSTEAD_OTHER,
    }
}

fn class_of(code: i32) -> i32 {
    match code {
        KEYSTEAD_OK => KEYSTEAD_CLASS_NONE,
        KEYSTEAD_INVALID_ARGUMENT..=KEYSTEAD_UNSUPPORTED_OPTION | KEYSTEAD_STOPPED | KEYSTEAD_FORKED => {
            KEYSTEAD_CLASS_CALLER
        }
        KEYSTEAD_TIMED_OUT => KEYSTEAD_CLASS_OUTAGE,
        KEYSTEAD_ORGANIZATION_NOT_FOUND
        | KEYSTEAD_SECRET_NOT_FOUND..=KEYSTEAD_VERSION_DESTROYED
        | KEYSTEAD_KEY_NOT_FOUND
        | KEYSTEAD_NO_JOB
        | KEYSTEAD_STORE_NOT_FOUND => KEYSTEAD_CLASS_NOT_FOUND,
        KEYSTEAD_ORGANIZATION_EXISTS
        | KEYSTEAD_RENAME_REFUSED
        | KEYSTEAD_VERSION_MISMATCH
        | KEYSTEAD_KEY_EXISTS
        | KEYSTEAD_KEY_REFUSED
        | KEYSTEAD_EPOCH_EXHAUSTED
        | KEYSTEAD_STORE_EXISTS
        | KEYSTEAD_ALREADY_OPEN
        | KEYSTEAD_LOG_TAKEN
        | KEYSTEAD_CLOSED => KEYSTEAD_CLASS_CONFLICT,
        KEYSTEAD_NOT_A_STORE
        | KEYSTEAD_DAMAGED
        | KEYSTEAD_VERSION_LOST
        | KEYSTEAD_BEHIND_CHECKPOINT
        | KEYSTEAD_NOT_OF_CHECKPOINT
        | KEYSTEAD_CHECKPOINT_OF_ANOTHER_STORE => KEYSTEAD_CLASS_INTEGRITY,
        KEYSTEAD_STORAGE | KEYSTEAD_RANDOMNESS => KEYSTEAD_CLASS_SYSTEM,
        KEYSTEAD_PLUGIN_REFUSED | KEYSTEAD_BACKEND_NOT_REGISTERED => KEYSTEAD_CLASS_CONFIG,
        code if code > KEYSTEAD_KMS => match ErrorCode::from_i32(code - KEYSTEAD_KMS).class() {
            ErrorClass::Config => KEYSTEAD_CLASS_CONFIG,
            ErrorClass::Revoked => KEYSTEAD_CLASS_REVOKED,
            ErrorClass::Integrity => KEYSTEAD_CLASS_INTEGRITY,
            ErrorClass::Retryable => KEYSTEAD_CLASS_OUTAGE,
            ErrorClass::Failed => KEYSTEAD_CLASS_FAULT,
        },
        _ => KEYSTEAD_CLASS_FAULT,
    }
}

impl keystead_error {
    pub(crate) fn new(failure: Failure) -> Self {
        let code = failure.code();
        let (message, retry_after) = match failure {
            Failure::Engine(error) => {
                let retry_after = match &error {
                    Error::Kms { source, .. } => source.retry_after,
                    _ => None,
                };
                (error.to_string(), retry_after)
            }
            Failure::Own { message, .. } => (message, None),
        };
        Self {
            code,
            retry_after_ms: retry_after
                .map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            // C reads it to its zero byte.
            message: Text::new(message.replace('\0', "\u{fffd}")),
        }
    }
}

/// The code of an error, KEYSTEAD_...: the same as the call returned. Null gives KEYSTEAD_OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_error_code(error: *const keystead_error) -> i32 {
    // SAFETY: null or a live error, as the header says.
    unsafe { guard::look(error, KEYSTEAD_OK, |error| error.code) }
}

/// The class of an error, KEYSTEAD_CLASS_...: what to do about it. Null gives KEYSTEAD_CLASS_NONE. Later versions may have
/// codes that this header does not know; their classes are among the known ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_error_class(error: *const keystead_error) -> i32 {
    // SAFETY: null or a live error, as the header says.
    unsafe { guard::look(error, KEYSTEAD_CLASS_NONE, |error| class_of(error.code)) }
}

/// 1 when the same call may succeed later without anybody's doing, else 0. Null gives 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_error_is_retryable(error: *const keystead_error) -> i32 {
    // SAFETY: null or a live error, as the header says.
    unsafe {
        guard::look(error, 0, |error| {
            (class_of(error.code) == KEYSTEAD_CLASS_OUTAGE).into()
        })
    }
}

/// How long a KMS asks to wait before the next try, in milliseconds; 0 when it did not say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_error_retry_after_ms(error: *const keystead_error) -> u64 {
    // SAFETY: null or a live error, as the header says.
    unsafe { guard::look(error, 0, |error| error.retry_after_ms) }
}

/// What was being done, to which object, what is wrong, what to do: for people, in English, with a zero byte at its end,
/// and never with a secret in it. Belongs to the error. Null gives "".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_error_message(error: *const keystead_error) -> *const c_char {
    // SAFETY: null or a live error, as the header says.
    unsafe { guard::look(error, c"".as_ptr(), |error| error.message.as_ptr()) }
}

/// Frees an error. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_error_free(error: *mut keystead_error) {
    // SAFETY: null or an error that is not used any more, as the header says.
    unsafe { guard::free(error) }
}

/// The class of a code, for callers that keep no error object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_class_of(code: i32) -> i32 {
    // SAFETY: a reference is a live object.
    unsafe { guard::look(&raw const code, KEYSTEAD_CLASS_FAULT, |code| class_of(*code)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_version_is_told_from_other_damage_and_is_of_the_same_class() {
        let error = Error::VersionLost {
            organization: "acme".parse().unwrap(),
            path: "prod/db/password".parse().unwrap(),
            version: engine::Version::new(2).unwrap(),
        };
        let error = keystead_error::new(error.into());
        assert_eq!(error.code, KEYSTEAD_VERSION_LOST);
        assert_eq!(class_of(error.code), class_of(KEYSTEAD_DAMAGED));
    }
}
