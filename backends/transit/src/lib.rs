//! Keystead's backend for the Transit secrets engine of OpenBao and HashiCorp Vault: keys of organizations in a server of theirs or
//! a namespace of their own, used through `encrypt` and `decrypt` and nothing else.
//!
//! # A registered key
//!
//! The *config* of a registered key is a JSON object. It stands in the store file and is untrusted: unknown fields are
//! refused by name, names and paths are strict, and it can name no address, file or credential.
//!
//! | field | meaning |
//! | --- | --- |
//! | `key` | required: the name of a Transit key whose type takes associated data (`aes256-gcm96`, `chacha20-poly1305`; not RSA), not derived |
//! | `mount` | where the engine is mounted; `transit` unless said |
//! | `namespace` | the namespace of the engine, such as `team/a`; the root namespace unless said |
//! | `role` | role of a JWT method, in the same namespace, that is logged in to for using the key |
//! | `role_mount` | where that method is mounted; `jwt` unless said |
//! | `identity_token` | the OpenID Connect token that is shown to the role: `{"audience": "…"}` when the application mints it ([`Host::identity_token`](keystead_backend::Host::identity_token)), `{"token_file": true}` when it is in the settings' `token_file` |
//!
//! Each wrap records the key's path and the version that the server used, such as `team/transit/keys/acme:3`. After a rotation
//! in the server new wraps use the new version, and old ones go on opening until the owner raises `min_decryption_version`.
//!
//! # Settings
//!
//! The *settings* come from the application, which is trusted. They are read as strictly, and have no secret in them.
//!
//! | field | meaning |
//! | --- | --- |
//! | `address` | required: URL of the server; plain `http` on loopback only. Another server is another registration, under a name of its own |
//! | `ca_file` | the certificates (PEM) that the server's must come from, in place of the system's |
//! | `token_file` | path of an OpenID Connect token; read anew for each login |
//! | `vault_token_file` | path of a token of the server's; read anew for each call, renewed while it is used |
//! | `approle_role_id` | an AppRole to log in with |
//! | `approle_secret_id_file`, `approle_secret_id_env` | where its secret id is: the first line of a file, read anew for each login, or an environment variable |
//! | `approle_mount`, `approle_namespace` | where the AppRole method is: `approle` in the root namespace unless said |
//! | `connect_timeout_ms`, `attempt_timeout_ms` | longest wait for a connection (2000) and for one attempt (5000) |
//! | `max_attempts` | attempts of one request, the first included (3); the call's own deadline ends them earlier |
//! | `allowed_keys` | what a config may name: whole paths such as `team/transit/keys/acme`, or beginnings of paths followed by `*`. Without it, anything |
//!
//! Say `allowed_keys` where you can: whoever can write to the store file could otherwise have new epoch keys wrapped by
//! a key of their own.
//!
//! # Credentials
//!
//! - `role` with `identity_token` in the config: a login with a fresh token. No credentials of the application's are
//!   involved, and the tokens that come of it are used for this key alone.
//! - neither: the application's own identity, by `vault_token_file` or `approle_role_id` of the settings.
//!
//! The server's tokens are kept in memory alone. After two thirds of its life a token is renewed, by the next call; when the server
//! gives it less than half of its first life (`token_max_ttl` is near), when it cannot be renewed, and when it is refused, the
//! backend logs in again. A call whose old token was refused is repeated once with the new one. While the server is ill, a token is used
//! to its end. A token of a file whose holder may not `lookup-self` is used until it is refused, and not renewed.
//! `VAULT_TOKEN`, `VAULT_ADDR` and their like are not read; `HTTPS_PROXY` and `NO_PROXY` are, for https.
//!
//! # What the key's owner grants
//!
//! ```hcl
//! path "transit/encrypt/acme" { capabilities = ["update"] }
//! path "transit/decrypt/acme" { capabilities = ["update"] }
//! ```
//!
//! Never `create`: with it, an `encrypt` under a name that is not there makes a new key, be it a typing error or a key that was
//! deleted. The context of each wrap is sent as associated data. [`status`](keystead_backend::KeyInstance::status) unwraps the latest
//! wrap that passed through the instance and drops the plaintext; before any, it says that the server was not asked.
//!
//! # Errors
//!
//! By the words of the server's `errors`, whatever the status; then by what was asked and the HTTP status.
//!
//! | the server's answer | becomes |
//! | --- | --- |
//! | "encryption key not found"; "no handler for route" (the engine is gone); "namespace not found" | `KeyNotFound` |
//! | "disallowed by policy" (below `min_decryption_version`); "locked by an administrator" (the namespace) | `KeyDisabled` |
//! | "refusing to use soft-deleted key": "soft-deleted key" | `KeyPendingDeletion` |
//! | "message authentication failed", "invalid ciphertext" | `InvalidCiphertext` |
//! | "invalid token", "missing client token"; 403 with "permission denied" and no more (unknown or expired token); 401 | `Unauthenticated` |
//! | a login that is refused: 400 to 404, for any reason that has no row of its own | `Unauthenticated` |
//! | 403 otherwise, such as "1 error occurred: * permission denied" (a policy) | `AccessDenied` |
//! | a record of another key | `WrongKey` |
//! | "non-AEAD cipher suite", "not supported for key type", "missing 'context' for key derivation", "unsupported operation"; 405 | `InvalidConfig` |
//! | "rate limit quota exceeded", "lease count quota exceeded"; 429 | `Throttled`, with `retry_after` where the answer says one |
//! | "sealed"; "fetching keys" (the server does not reach the token's issuer) | `Unavailable` |
//! | 404 otherwise, with the server's form of answer | `KeyNotFound` |
//! | 404 otherwise, in another form; 412, 472, 473, 5xx; a redirect; no connection, or a certificate that is not trusted; an answer that cannot be read; a file of the settings that cannot be read | `Unavailable` |
//! | 408; connection or attempt timed out; the call's deadline passed | `Timeout` |
//! | anything else | `Internal` |
//!
//! # Deadlines and retries
//!
//! A call ends at [`Call::timeout`](keystead_backend::Call::timeout), and within some 10 ms of a cancellation or
//! [`interrupt`](keystead_backend::KeyInstance::interrupt), whatever the network does; its thread ends with the attempt that it is in,
//! at the latest after `attempt_timeout_ms`. Within that time `Throttled`, `Unavailable` and `Timeout` are tried again, with
//! jittered waits. A repeated `encrypt` or `decrypt` changes nothing in the server.
//!
//! # Memory
//!
//! A plaintext key is copied into [`LockedBytes`](keystead_backend::LockedBytes), and this crate's other copies are zeroized: the JSON
//! of each request and answer, tokens, secret ids. The HTTP client's are not: its buffers and those of TLS lie in ordinary memory
//! and are freed without being overwritten, the header with the token too. As a plugin this crate has an allocator that overwrites
//! whatever is freed; an application that links it decides about its own.
//!
//! At its finest level (`TRACE`, target `ureq_proto`) the HTTP client logs whole requests and answers, with the token and the key in
//! them, by the crate `log`. This crate keeps that from subscribers of `tracing`. It cannot keep it from another logger: **an application
//! that links this crate and logs by another one than `tracing` must leave `TRACE` of `ureq_proto` off**. A plugin has no logger.
//!
//! # Example
//!
//! ```
//! use keystead_backend::KeyBackend;
//! use keystead_transit::TransitBackend;
//!
//! let description = TransitBackend::default().describe();
//! assert_eq!(description.name, "transit");
//! assert!(description.capabilities.binds_context);
//! ```

mod classify;
mod config;
mod failure;
mod homes;
mod http;
mod instance;
mod path;
mod session;
mod settings;

use std::fmt;
use std::sync::Arc;

use keystead_backend::{
    BackendError, Capabilities, CredentialKind, Description, KeyBackend, KeyInstance, OpenRequest, SizeLimits,
};
use keystead_backend_common::Calls;

use crate::config::KeyConfig;
use crate::homes::Homes;
use crate::instance::{Shared, TransitKey};
use crate::session::{Login, Session};
use crate::settings::Settings;

/// What is wrapped at most, in bytes. The server would take more.
const PLAINTEXT_MAX_BYTES: u32 = 4096;

/// What comes of that at most, in bytes: base64, a nonce and a tag, and the version.
const BLOB_MAX_BYTES: u32 = 8192;

/// OpenBao's and Vault's Transit engine as a key backend.
///
/// Cheap to make: threads and connections come with the first call. Instances with the same settings share their
/// connections and the application's own token, so any number of keys may be open.
///
/// # Examples
///
/// Opening a key checks its config and reaches no network:
///
/// ```
/// use std::sync::Arc;
/// use keystead_backend::{BackendError, ErrorCode, Host, KeyBackend, LockedBytes, LogLevel, OpenRequest};
/// use keystead_transit::TransitBackend;
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
///     let settings = r#"{"address": "https://bao.example:8200", "vault_token_file": "/run/bao/token"}"#;
///     TransitBackend::default().open(OpenRequest { settings, config, host: Arc::new(Application) })
/// };
/// assert!(open(r#"{"key": "acme", "namespace": "customers/acme"}"#).is_ok());
///
/// let error = open(r#"{"key": "../sys/seal"}"#).err().expect("that is no key's name");
/// assert_eq!(error.code, ErrorCode::InvalidConfig);
/// assert!(error.message.starts_with("key"));
/// ```
pub struct TransitBackend {
    calls: Arc<Calls>,
    homes: Homes,
}

impl Default for TransitBackend {
    fn default() -> Self {
        Self {
            calls: Arc::new(Calls::new("keystead-bao")),
            homes: Homes::default(),
        }
    }
}

impl fmt::Debug for TransitBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransitBackend").finish_non_exhaustive()
    }
}

impl KeyBackend for TransitBackend {
    fn describe(&self) -> Description {
        Description {
            config_schema: KeyConfig::schema(),
            settings_schema: Settings::schema(),
            limits: SizeLimits {
                plaintext_max_bytes: PLAINTEXT_MAX_BYTES,
                blob_max_bytes: BLOB_MAX_BYTES,
                key_id_max_bytes: 1024,
                metadata_max_bytes: 0,
            },
            capabilities: Capabilities {
                binds_context: true,
                rewrap: false,
                interrupt: true,
            },
            credentials: vec![
                CredentialKind::TokenFile,
                CredentialKind::MintedToken,
                CredentialKind::Settings,
            ],
            ..Description::new("transit", env!("CARGO_PKG_VERSION"))
        }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        let settings = Settings::parse(request.settings)?;
        let KeyConfig { key, role } = KeyConfig::parse(request.config, &settings)?;
        let home = self.homes.get(settings);
        let session = match role {
            Some(role) => Arc::new(Session::new(Login::Role {
                role: role.name,
                mount: role.mount,
                namespace: key.namespace.clone(),
                token: role.token,
            })),
            None => home
                .own
                .clone()
                .expect("a config without a role is refused where there is no other identity"),
        };
        let shared = Shared {
            key,
            home,
            session,
            host: request.host,
        };
        Ok(Box::new(TransitKey::new(shared, Arc::clone(&self.calls))))
    }
}
