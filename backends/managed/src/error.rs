//! Short names for making this backend's errors, and the operating system's errors in this backend's words.

use keystead_backend::{BackendError, ErrorCode};
use std::fmt::Display;
use std::io;
use std::path::Path;

pub(crate) type Result<T> = std::result::Result<T, BackendError>;

pub(crate) fn invalid_config(message: impl Into<String>) -> BackendError {
    BackendError::new(ErrorCode::InvalidConfig, message)
}

pub(crate) fn damaged(message: impl Into<String>) -> BackendError {
    BackendError::new(ErrorCode::InvalidCiphertext, message)
}

pub(crate) fn unauthenticated(message: impl Into<String>) -> BackendError {
    BackendError::new(ErrorCode::Unauthenticated, message)
}

pub(crate) fn unsupported(message: impl Into<String>) -> BackendError {
    BackendError::new(ErrorCode::Unsupported, message)
}

/// The same error, led by what was being done and to which keyring.
pub(crate) fn about(doing: &str, path: &Path) -> impl FnOnce(BackendError) -> BackendError {
    move |error| BackendError {
        message: format!("{doing} the keyring {}: {}", path.display(), error.message),
        ..error
    }
}

/// An error of the operating system on the keyring file or what lies beside it. A refusal is a revocation, a link in
/// the way is a wrong configuration, all else (also a file that is gone) is an outage.
pub(crate) fn from_io(what: impl Display, error: &io::Error) -> BackendError {
    match error.kind() {
        io::ErrorKind::NotFound => BackendError::new(
            ErrorCode::Unavailable,
            format!("{what}: it is not there; mount or restore it (nothing is made in its place)"),
        ),
        io::ErrorKind::PermissionDenied => BackendError::new(
            ErrorCode::AccessDenied,
            format!(
                "{what}: the operating system denies it to this process's user; check its owner and mode"
            ),
        ),
        _ if error.raw_os_error() == Some(libc::ELOOP) => invalid_config(format!(
            "{what}: it is a symbolic link, and links are not followed; name the file itself"
        )),
        _ => BackendError::new(ErrorCode::Unavailable, format!("{what}: {error}")),
    }
}
