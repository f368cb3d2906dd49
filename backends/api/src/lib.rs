//! What a key backend is: the connector between Keystead and one kind of key management service (KMS).
//!
//! A backend is written against the two traits here, [`KeyBackend`] (the kind of KMS) and [`KeyInstance`] (one
//! registered key in it). The engine knows these traits alone. Linked statically a backend is used as it is; built as
//! a dynamic plugin it is exported through the C table of `include/keystead_backend.h` by the macro [`export_backend!`], and
//! the crate `keystead-loader` turns the plugin into a `KeyBackend` again. A plugin in another language needs the
//! header alone.
//!
//! | word | meaning |
//! | --- | --- |
//! | settings | what the *application* says about a backend when it registers it: endpoints, files, credentials. Trusted |
//! | config | what is stored about one *registered key* in the store file: a key ARN, a role. Untrusted input |
//! | context | authenticated data: names the store, the organization and the epoch; what is wrapped under one context does not unwrap under another |
//!
//! Rules that every backend keeps:
//!
//! - `config` and `settings` are strict: an unknown field is refused by its name.
//! - The key id that [`KeyInstance::wrap`] returns is the one that *this call* used, never a guess; `unwrap` gives it
//!   back to the KMS.
//! - Errors carry a class ([`ErrorCode`]) and a message for people, never a secret.
//! - No call blocks beyond [`Call::timeout`] by more than a moment.
//! - Memory that held a key is zeroized.

pub mod abi;
mod call;
mod context;
mod describe;
mod error;
#[doc(hidden)]
pub mod export;
mod locked;

use std::sync::Arc;

pub use call::{Call, CancelFlag};
pub use context::Context;
pub use describe::{Capabilities, CredentialKind, Description, SizeLimits};
pub use error::{BackendError, ErrorClass, ErrorCode};
pub use locked::{LockedBytes, LockedMemoryStatus, locked_memory_status};

/// A kind of KMS: makes an instance for each key that is registered with it.
///
/// # Examples
///
/// ```
/// use keystead_backend::{BackendError, Description, KeyBackend, KeyInstance, OpenRequest, ErrorCode};
///
/// struct Nowhere;
///
/// impl KeyBackend for Nowhere {
///     fn describe(&self) -> Description {
///         Description::new("nowhere", "0.1.0")
///     }
///     fn open(&self, _request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
///         Err(BackendError::new(ErrorCode::Unavailable, "there is no KMS here; register another backend"))
///     }
/// }
/// assert_eq!(Nowhere.describe().name, "nowhere");
/// ```
pub trait KeyBackend: Send + Sync {
    /// Says what this backend is and how large its answers can be. Needs no network and no key, and always says the
    /// same.
    fn describe(&self) -> Description;

    /// Makes an instance for one registered key. Checks `settings` and `config` strictly; need not reach the KMS.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidConfig`] names the field and what is wrong with it.
    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError>;
}

/// One registered key in a KMS.
///
/// Every call may be made from many threads at once.
pub trait KeyInstance: Send + Sync {
    /// Health, and the key's id and version as the KMS names it now, where the KMS can say so under a least-privilege
    /// grant. Cheap, safe to poll.
    fn status(&self, call: &Call) -> Result<Status, BackendError>;

    /// Wraps `plaintext` (an epoch key: 32 bytes, or up to [`SizeLimits::plaintext_max_bytes`]) under the KMS key, bound
    /// to `context`. One KMS call.
    fn wrap(&self, call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError>;

    /// Unwraps what [`wrap`](Self::wrap) returned, under the same context. One KMS call.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidCiphertext`] when the blob is damaged or was wrapped under another context,
    /// [`ErrorCode::WrongKey`] when another key wrapped it.
    fn unwrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes, BackendError>;

    /// Wraps the same plaintext under the newest version of the key, inside of the KMS. Optional:
    /// [`ErrorCode::Unsupported`] unless the backend says [`Capabilities::rewrap`].
    fn rewrap(&self, _call: &Call, _context: &Context, _wrapped: &Wrapped) -> Result<Wrapped, BackendError> {
        Err(BackendError::new(
            ErrorCode::Unsupported,
            "this backend does not re-wrap on the server's side",
        ))
    }

    /// Asks calls in flight on this instance to return soon, with [`ErrorCode::Cancelled`]. Returns at once.
    fn interrupt(&self) {}
}

/// What a backend gets when an instance is opened.
#[derive(Clone)]
pub struct OpenRequest<'a> {
    /// The application's settings for this backend: a JSON object, `{}` when there are none. Trusted.
    pub settings: &'a str,
    /// The registered key's config: a JSON object. It comes from the store file: untrusted.
    pub config: &'a str,
    /// Services of the host.
    pub host: Arc<dyn Host>,
}

/// What the host offers to a backend.
pub trait Host: Send + Sync {
    /// Writes one line to the application's log. No secrets, ever.
    fn log(&self, level: LogLevel, message: &str);

    /// Fills `out` with random bytes fit for keys.
    fn random(&self, out: &mut [u8]) -> Result<(), BackendError>;

    /// Asks the application, as an OpenID Connect issuer, for a token for this key's organization with the given
    /// audience.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Unsupported`] when the application mints no tokens.
    fn identity_token(&self, audience: &str) -> Result<LockedBytes, BackendError>;
}

/// How loud a line of log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum LogLevel {
    /// Something failed that somebody must look at.
    Error = 1,
    /// Something is odd.
    Warn = 2,
    /// Something happened.
    Info = 3,
    /// For the one who looks for a fault.
    Debug = 4,
}

/// What [`KeyInstance::wrap`] returns: all that a later unwrap needs beside the context. Nothing in it is secret
/// without the KMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The ciphertext, as the KMS gave it.
    pub blob: Vec<u8>,
    /// The KMS's own name for the key, with its version where it has one, as this call used it.
    pub key_id: String,
    /// What else the backend needs for unwrapping (an algorithm, an initialization vector); may be empty.
    pub metadata: Vec<u8>,
}

/// What [`KeyInstance::status`] says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// The KMS's own name for the key, with its version where it has one; empty where a least-privilege grant does not
    /// tell.
    pub key_id: String,
    /// One line for people.
    pub detail: String,
}
