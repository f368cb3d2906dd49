//! Keystead's backend for Google Cloud KMS: keys of organizations in Google Cloud projects of their own, used through
//! `Encrypt` and `Decrypt` and nothing else.
//!
//! # A registered key
//!
//! The *config* of a registered key is a JSON object. It stands in the store file and is untrusted: unknown fields are
//! refused by name, names of resources are parsed strictly, and it can name no endpoint, file or credential.
//!
//! | field | meaning |
//! | --- | --- |
//! | `key_name` | required: `projects/…/locations/…/keyRings/…/cryptoKeys/…`, a key with the purpose `ENCRYPT_DECRYPT` |
//! | `workload_identity_provider` | exchange an OpenID Connect token at this provider: `projects/<number>/locations/global/workloadIdentityPools/…/providers/…` |
//! | `web_identity` | with it, the token: `{"audience": "…"}` when the application mints it ([`Host::identity_token`](keystead_backend::Host::identity_token)), `{"token_file": true}` when it is in the settings' `token_file` |
//!
//! Cloud KMS wraps with the key's primary version, and each wrap records the full name of the version that answered. It unwraps
//! through the key: the version stands in the ciphertext. So a wrap of another key is refused before Google is asked,
//! and after a rotation older wraps open as long as their versions are enabled.
//!
//! # Settings
//!
//! The *settings* come from the application, which is trusted. They are read as strictly.
//!
//! | field | meaning |
//! | --- | --- |
//! | `endpoint_url` | Cloud KMS endpoint instead of `https://cloudkms.googleapis.com`; plain `http` on loopback only |
//! | `sts_token_url` | token URL of the security token service instead of `https://sts.googleapis.com/v1/token`; the same |
//! | `token_file` | path of an OpenID Connect token; read anew for each exchange |
//! | `service_account_file` | path of a service account's key (JSON), instead of the application default credentials |
//! | `attempt_timeout_ms` | longest wait for one attempt, connecting included (5000) |
//! | `max_attempts` | attempts of one call, the first included (3); the call's own deadline ends them earlier |
//! | `allowed_keys` | what a config may name: whole names, or beginnings of names followed by `*`. Without it, anything |
//!
//! Say `allowed_keys` where you can: whoever can write to the store file could otherwise have new epoch keys wrapped by
//! a key of their own.
//!
//! # Credentials
//!
//! - `workload_identity_provider` with `web_identity`: the token is exchanged at Google's security token service. No
//!   Google credentials of the application's are involved, and no service account: the grant on the key names the
//!   token's subject.
//! - else `service_account_file` of the settings; its key signs, and no token endpoint is asked.
//! - else the application default credentials: the file that `GOOGLE_APPLICATION_CREDENTIALS` names (a service account,
//!   an external account, impersonation, a user), the one of `gcloud auth application-default login`, the metadata server.
//!
//! Access tokens are kept in memory alone, and renewed four minutes before they end by a task of the client library; for a
//! federated key that no call used for ten minutes they are not renewed, so that an application mints tokens for keys in
//! use alone. Credentials that Google does not accept are dropped; a call with ones used before is repeated once with new ones.
//!
//! # What the key's owner grants
//!
//! ```text
//! gcloud kms keys add-iam-policy-binding KEY --keyring RING --location LOCATION \
//!     --role roles/cloudkms.cryptoKeyEncrypterDecrypter \
//!     --member principal://iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/subject/SUBJECT
//! ```
//!
//! The context of each wrap is sent as additional authenticated data
//! ([`Context::canonical_bytes`](keystead_backend::Context::canonical_bytes)); Google does not log it.
//! [`status`](keystead_backend::KeyInstance::status) encrypts and decrypts a text that is no secret: two KMS requests,
//! and the answer names the primary version, which changes with a rotation.
//!
//! # Checksums
//!
//! Plaintext, ciphertext and context go with their CRC32C, and Google must say that it checked them; the ciphertext's and
//! the plaintext's are checked in the answer. What does not add up is not used and reads as `Unavailable`: it was damaged
//! on the way.
//!
//! # Errors
//!
//! By the status of Cloud KMS; by HTTP status where there is none.
//!
//! | answer of Google | becomes |
//! | --- | --- |
//! | `FAILED_PRECONDITION`, state `DISABLED`, `PENDING_IMPORT`, any other, none | `KeyDisabled` |
//! | `FAILED_PRECONDITION`, state `DESTROY_SCHEDULED`, `PENDING_EXTERNAL_DESTRUCTION` | `KeyPendingDeletion` |
//! | `FAILED_PRECONDITION`, state `DESTROYED` | `KeyNotFound` |
//! | `FAILED_PRECONDITION`, state `PENDING_GENERATION` | `Unavailable` |
//! | `NOT_FOUND` | `KeyNotFound` |
//! | `PERMISSION_DENIED`; HTTP 403 | `AccessDenied` |
//! | `UNAUTHENTICATED`; HTTP 401 | `Unauthenticated` |
//! | `INVALID_ARGUMENT` of an unwrap | `InvalidCiphertext` |
//! | `INVALID_ARGUMENT` of an unwrap, "verify that 'name' refers to the correct CryptoKey"; an answer that names another key | `WrongKey` |
//! | `INVALID_ARGUMENT`, a checksum | `Unavailable` |
//! | `INVALID_ARGUMENT` of a wrap, `OUT_OF_RANGE`, `UNIMPLEMENTED` | `InvalidConfig` |
//! | `RESOURCE_EXHAUSTED`; HTTP 429 | `Throttled`, with `retry_after` where the answer says one |
//! | `UNAVAILABLE`, `INTERNAL`, `UNKNOWN`, `ABORTED`, `CANCELLED`, `DATA_LOSS`; HTTP 5xx | `Unavailable` |
//! | `DEADLINE_EXCEEDED`; HTTP 408 | `Timeout` |
//! | no connection; an answer that cannot be read, or whose checksums do not add up | `Unavailable` |
//! | an attempt timed out; the call's deadline passed | `Timeout` |
//! | token exchange: `invalid_grant`, `invalid_client`, `invalid_token` | `Unauthenticated` |
//! | token exchange: `invalid_target` (the pool or provider is gone or disabled), `unauthorized_client` (its condition refuses), `access_denied` | `AccessDenied` |
//! | token exchange: `invalid_request`, `invalid_scope`, `unsupported_grant_type` | `InvalidConfig` |
//! | token exchange: `temporarily_unavailable`, `server_error`; no credentials found; a credentials or token file unreadable | `Unavailable` |
//! | anything else | `Internal` |
//!
//! # Deadlines and retries
//!
//! A call ends at [`Call::timeout`](keystead_backend::Call::timeout), and within some 10 ms of a cancellation or
//! [`interrupt`](keystead_backend::KeyInstance::interrupt), whatever the network does. Within that time the client library
//! repeats what no connection, a broken one, an attempt without answer, `UNAVAILABLE` and HTTP 429 cut off, with jittered
//! waits. A repeated `Encrypt` or `Decrypt` changes nothing at Google but the bill.
//!
//! # Revocation
//!
//! Disabling a key's version takes effect at Google within seconds to three hours, taking a grant away within seconds to
//! minutes. The lifetime of cached epoch keys is counted from then.
//!
//! # Memory
//!
//! A plaintext key is copied into [`LockedBytes`](keystead_backend::LockedBytes), and this crate's other copies and the
//! client's answer are zeroized. What lies in between is not: the request with the key, its JSON in base64 and the
//! TLS buffers lie in ordinary memory and are freed without being overwritten; so are tokens. As a plugin this crate has an
//! allocator that overwrites whatever is freed; an application that links it decides about its own. Never set
//! `GOOGLE_CLOUD_RUST_LOGGING`.
//!
//! # TLS and proxies
//!
//! rustls with ring, and the system's certificates. The client library takes the process's default provider; where there is
//! none at the first call, this crate installs ring's. `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are obeyed, the second
//! also for a plain `http` endpoint on loopback, unless `NO_PROXY` leaves that out.
//!
//! # Example
//!
//! ```
//! use keystead_backend::KeyBackend;
//! use keystead_gcp_kms::GcpKmsBackend;
//!
//! let backend = GcpKmsBackend::default();
//! let description = backend.describe();
//! assert_eq!(description.name, "gcp-kms");
//! assert!(description.capabilities.binds_context);
//! ```

mod account;
mod classify;
mod config;
mod failure;
mod held;
mod instance;
mod name;
mod session;
mod settings;

use std::fmt;
use std::sync::Arc;

use keystead_backend::{
    BackendError, Capabilities, CredentialKind, Description, KeyBackend, KeyInstance, OpenRequest, SizeLimits,
};
use keystead_backend_common::Calls;

use crate::account::Accounts;
use crate::config::KeyConfig;
use crate::instance::GcpKey;
use crate::session::Session;
use crate::settings::Settings;

/// Below what `Encrypt` takes at every protection level: with the context 8 KiB for an HSM key, 64 KiB for a software key.
const PLAINTEXT_MAX_BYTES: u32 = 4096;

/// Far above what `Encrypt` makes of that.
const BLOB_MAX_BYTES: u32 = 8192;

/// Google Cloud KMS as a key backend.
///
/// Cheap to make: threads and connections come with the first call. Instances with the same settings share their
/// connections, so any number of keys may be open.
///
/// # Examples
///
/// Opening a key checks its config and reaches no network:
///
/// ```
/// use std::sync::Arc;
/// use keystead_backend::{BackendError, ErrorCode, Host, KeyBackend, LockedBytes, LogLevel, OpenRequest};
/// use keystead_gcp_kms::GcpKmsBackend;
///
/// struct Application;
///
/// impl Host for Application {
///     fn log(&self, _level: LogLevel, _message: &str) {}
///     fn random(&self, _out: &mut [u8]) -> Result<(), BackendError> {
///         Err(BackendError::new(ErrorCode::Unsupported, "not needed here"))
///     }
///     fn identity_token(&self, _audience: &str) -> Result<LockedBytes, BackendError> {
///         Err(BackendError::new(ErrorCode::Unsupported, "this application is no issuer"))
///     }
/// }
///
/// let open = |config| {
///     GcpKmsBackend::default().open(OpenRequest { settings: "{}", config, host: Arc::new(Application) })
/// };
/// let config = r#"{"key_name": "projects/acme/locations/europe-west1/keyRings/keystead/cryptoKeys/epochs"}"#;
/// assert!(open(config).is_ok());
///
/// let error = open(r#"{"key_name": "epochs"}"#).err().expect("a key's id alone is not enough");
/// assert_eq!(error.code, ErrorCode::InvalidConfig);
/// assert!(error.message.starts_with("key_name"));
/// ```
pub struct GcpKmsBackend {
    calls: Arc<Calls>,
    accounts: Accounts,
}

impl Default for GcpKmsBackend {
    fn default() -> Self {
        Self {
            calls: Arc::new(Calls::new("keystead-gcp")),
            accounts: Accounts::default(),
        }
    }
}

impl fmt::Debug for GcpKmsBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcpKmsBackend").finish_non_exhaustive()
    }
}

impl KeyBackend for GcpKmsBackend {
    fn describe(&self) -> Description {
        Description {
            config_schema: KeyConfig::schema(),
            settings_schema: Settings::schema(),
            limits: SizeLimits {
                plaintext_max_bytes: PLAINTEXT_MAX_BYTES,
                blob_max_bytes: BLOB_MAX_BYTES,
                key_id_max_bytes: 512,
                metadata_max_bytes: 0,
            },
            capabilities: Capabilities {
                binds_context: true,
                rewrap: false,
                interrupt: true,
            },
            credentials: vec![
                CredentialKind::Ambient,
                CredentialKind::TokenFile,
                CredentialKind::MintedToken,
                CredentialKind::Settings,
            ],
            ..Description::new("gcp-kms", env!("CARGO_PKG_VERSION"))
        }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        let settings = Settings::parse(request.settings)?;
        let config = KeyConfig::parse(request.config, &settings)?;
        let account = self.accounts.get(settings);
        let session = Session::new(account, request.host, config.key.as_str(), config.federation);
        Ok(Box::new(GcpKey::new(
            config.key,
            session,
            Arc::clone(&self.calls),
        )))
    }
}
