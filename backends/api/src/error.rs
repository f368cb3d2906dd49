//! The errors of a backend: a code, a class, a message for people.

use std::fmt;
use std::time::Duration;

/// What went wrong in a call to a backend.
///
/// # Examples
///
/// ```
/// use keystead_backend::{BackendError, ErrorClass, ErrorCode};
///
/// let error = BackendError::new(ErrorCode::KeyDisabled, "key alias/acme is disabled; enable it in the KMS");
/// assert_eq!(error.code.class(), ErrorClass::Revoked);
/// assert_eq!(error.to_string(), "key disabled: key alias/acme is disabled; enable it in the KMS");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendError {
    /// What kind of failure it is.
    pub code: ErrorCode,
    /// What was being done, to what, what is wrong, what to do next. Never a secret.
    pub message: String,
    /// When the KMS said how long to wait before the next try.
    pub retry_after: Option<Duration>,
}

impl BackendError {
    /// An error of this kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    /// The same, with the KMS's wish for when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for BackendError {}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $class:ident, $text:literal;)*) => {
        /// The kinds of failure, with the numbers they have in the C table. `OK` is 0.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[$doc])* $name = $value,)* }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The code with this number in the C table; an unknown one reads as [`ErrorCode::Internal`].
            #[must_use]
            pub fn from_i32(value: i32) -> Self {
                match value { $($value => Self::$name,)* _ => Self::Internal }
            }

            /// What the engine does about it.
            #[must_use]
            pub fn class(self) -> ErrorClass {
                match self { $(Self::$name => ErrorClass::$class,)* }
            }

            fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

error_codes! {
    /// The settings or the config are wrong; the message names the field.
    InvalidConfig = 1, Config, "invalid config";
    /// The KMS does not accept the credentials.
    Unauthenticated = 2, Revoked, "not authenticated";
    /// The KMS knows the caller and refuses the use of the key.
    AccessDenied = 3, Revoked, "access denied";
    /// The key is switched off.
    KeyDisabled = 4, Revoked, "key disabled";
    /// The key is going to be deleted and cannot be used.
    KeyPendingDeletion = 5, Revoked, "key pending deletion";
    /// There is no such key.
    KeyNotFound = 6, Revoked, "key not found";
    /// The blob was wrapped by another key.
    WrongKey = 7, Integrity, "wrong key";
    /// The blob is damaged, or was wrapped under another context.
    InvalidCiphertext = 8, Integrity, "invalid ciphertext";
    /// Too many calls.
    Throttled = 9, Retryable, "throttled";
    /// The KMS cannot be reached, or is ill.
    Unavailable = 10, Retryable, "unavailable";
    /// The deadline passed.
    Timeout = 11, Retryable, "timed out";
    /// The host cancelled the call.
    Cancelled = 12, Failed, "cancelled";
    /// The backend cannot do this.
    Unsupported = 13, Failed, "unsupported";
    /// A fault in the backend.
    Internal = 14, Failed, "internal error";
}

impl ErrorCode {
    /// The number of this code in the C table.
    #[must_use]
    pub fn as_i32(self) -> i32 {
        self as i32
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What the engine does about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Refuse; nothing changed.
    Config,
    /// The owner took the key away: drop what is cached, at once; no retry loop.
    Revoked,
    /// Fail closed, no retry.
    Integrity,
    /// An outage: back off, keep serving from the cache within its lifetime.
    Retryable,
    /// Fail.
    Failed,
}
