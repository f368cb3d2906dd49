//! Keystead's backend for Azure Key Vault and Managed HSM: keys of organizations in vaults of their own, used through
//! `wrapKey`, `unwrapKey` and, for [`status`](keystead_backend::KeyInstance::status) alone, `get`.
//!
//! # A registered key
//!
//! The *config* of a registered key is a JSON object. It stands in the store file and is untrusted: unknown fields are
//! refused by name, and it can name no file, secret or sign-in service. A key of Azure's is named by a URL, so its host is in the
//! config: one of Azure's own domains, or one that the settings allow expressly.
//!
//! | field | meaning |
//! | --- | --- |
//! | `key_id` | required: `https://<vault>.vault.azure.net/keys/<name>`, or the same in `managedhsm.azure.net`, `*.azure.cn`, `*.usgovcloudapi.net`. With `/<version>`, that version alone is used |
//! | `algorithm` | `RSA-OAEP-256` (in a key vault, unless said) or `A256KW` (in a managed HSM, unless said) |
//! | `tenant_id` | the tenant that gives out access tokens; unless said, that of the settings |
//! | `client_id` | the client id of the identity that `workload_identity` stands for |
//! | `workload_identity` | sign in as that identity with an OpenID Connect token: `{"audience": "api://AzureADTokenExchange"}` when the application mints it ([`Host::identity_token`](keystead_backend::Host::identity_token)), `{"token_file": true}` when it is in the settings' `token_file` |
//!
//! Without a version in `key_id` the newest version of the key wraps. Each wrap records the identifier of the version that
//! answered, and is unwrapped by that version, whatever is newest later; and the algorithm, so that a config may change.
//!
//! # Settings
//!
//! The *settings* come from the application, which is trusted. They are read as strictly.
//!
//! | field | meaning |
//! | --- | --- |
//! | `credential` | the application's own, for keys without `workload_identity`: `client-secret`, `workload-identity`, `managed-identity` or `developer-tools` |
//! | `tenant_id`, `client_id` | of the application's own identity |
//! | `client_secret_file`, `client_secret_env`, `client_secret_fd` | where the client secret is: one of the three |
//! | `token_file` | path of an OpenID Connect token; read anew for each session |
//! | `authority_host` | sign-in service instead of the cloud's own: `https://host[:port]` |
//! | `vault_address` | address and port at which vaults are reached instead of where their names lead, such as a private endpoint. TLS checks the vault's name all the same |
//! | `ca_file` | certificates (PEM) to trust beside the system's |
//! | `connect_timeout_ms`, `attempt_timeout_ms` | longest wait for a connection (2000) and for one attempt of a request (5000) |
//! | `max_attempts` | attempts of one request, the first included (3); the call's own deadline ends them earlier |
//! | `allowed_key_ids` | what a config may name: whole key identifiers, or beginnings of them followed by `*`. Without it, any key in Azure's own domains |
//!
//! Say `allowed_key_ids` where you can: whoever can write to the store file could otherwise have new epoch keys wrapped by
//! a key of their own.
//!
//! # Credentials
//!
//! - `workload_identity` in the config: an identity of the key owner's (a user-assigned managed identity, or an application) that
//!   has a federated credential for the application's issuer. No credential of the application's takes part.
//! - `client-secret`: the application's own service principal; with `tenant_id` in the config in the key owner's tenant.
//! - `workload-identity`: the application's own, by a token file; what the settings do not say comes from `AZURE_TENANT_ID`,
//!   `AZURE_CLIENT_ID` and `AZURE_FEDERATED_TOKEN_FILE`, as in Kubernetes.
//! - `managed-identity`: of the virtual machine or App Service; `client_id` says which, if it is a user-assigned one.
//! - `developer-tools`: whoever is signed in with `az` or `azd`. For a developer's machine.
//!
//! `AZURE_AUTHORITY_HOST`, `HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE` and `SSL_CERT_DIR` are the environment's, hence the
//! application's, and are obeyed.
//!
//! Access tokens are kept in memory alone and renewed five minutes before they end. One that the vault does not accept is
//! dropped; a call with one that was good before is repeated once with a new one. The first call of each registered key asks
//! the vault once without a token, to learn whom to sign in to: that request has no body.
//!
//! # What the key's owner grants
//!
//! The built-in role *Key Vault Crypto Service Encryption User* (or *Managed HSM Crypto Service Encryption User*) on the one key:
//! `keys/read`, `keys/wrap/action`, `keys/unwrap/action`. Without `keys/read`, wrapping and unwrapping work, and
//! [`status`](keystead_backend::KeyInstance::status) says that it is denied.
//!
//! Azure binds no context to a wrap, so the engine does: what is wrapped is the epoch key and a hash of its context, 64 bytes.
//!
//! **With RSA, wrapping needs the public key alone.** An RSA wrap proves nothing about who made it, and Azure wraps with a
//! *disabled* RSA key as well: only unwrapping is refused. The engine opens each wrap once before anything rests on it, so a
//! disabled key takes no new epoch. A256KW has neither weakness; it needs a managed HSM.
//!
//! # Errors
//!
//! Of the vault: by the code of the `innererror`, else by that of the `error`, else by HTTP status.
//!
//! | code of the vault | becomes |
//! | --- | --- |
//! | `KeyDisabled`, `KeyExpired`, `KeyNotYetValid` | `KeyDisabled` |
//! | `ObjectIsDeletedButRecoverable`, `ObjectIsBeingDeleted` | `KeyPendingDeletion` |
//! | `KeyNotFound`, `VaultNotFound`; HTTP 404. A deleted key that can be recovered is one of these, too | `KeyNotFound` |
//! | `Forbidden`, `AccessDenied`, `ForbiddenByPolicy`, `ForbiddenByRbac`, `ForbiddenByFirewall`, `ForbiddenByConnection`, `KeyOperationForbidden`; HTTP 403 | `AccessDenied` |
//! | `Unauthorized`; HTTP 401 | `Unauthenticated` |
//! | `BadParameter` to an unwrap | `InvalidCiphertext` |
//! | `BadParameter` to anything else; a vault that asks for a token for another service | `InvalidConfig` |
//! | an answer that names another key | `WrongKey` |
//! | `Throttled`, `TooManyRequests`; HTTP 429 | `Throttled`, with `retry_after` where the answer says one |
//! | `InternalServerError`, `ServiceUnavailable`, `ServerBusy`, `ObjectIsBeingRecovered`; HTTP 5xx | `Unavailable` |
//! | `RequestTimeout`; HTTP 408 | `Timeout` |
//! | no connection; an answer that cannot be read | `Unavailable` |
//! | connection or attempt timed out; the call's deadline passed | `Timeout` |
//! | anything else | `Internal` |
//!
//! Of Entra ID: by its number where it is here, else by HTTP status, where 400 is a refusal, too.
//!
//! | number | becomes |
//! | --- | --- |
//! | `AADSTS7000215`, `AADSTS7000222` (client secret wrong, expired); `AADSTS700016`, `AADSTS7000112`, `AADSTS7000229`, `AADSTS90002` (no such application or tenant, or a disabled one) | `Unauthenticated` |
//! | `AADSTS50027`, `AADSTS700024`, `AADSTS700027` (the token: none, expired, wrong signature); `AADSTS70021`, `AADSTS70025`, `AADSTS700211`, `AADSTS700212`, `AADSTS700213` (no federated credential for its issuer, audience, subject); HTTP 400, 401 | `Unauthenticated` |
//! | `AADSTS53003`, `AADSTS65001` (conditional access, consent); HTTP 403 | `AccessDenied` |
//! | `AADSTS900023`, `AADSTS500011` (no name of a tenant; the vault's service is not in it) | `InvalidConfig` |
//! | `AADSTS90055`, `AADSTS50196`; HTTP 429 | `Throttled` |
//! | `AADSTS90006`, `AADSTS90024`, `AADSTS90033`, `AADSTS50033`; HTTP 5xx | `Unavailable` |
//! | `AADSTS90012`; HTTP 408 | `Timeout` |
//! | managed identity or developer tools give no token; the token file or the client secret cannot be read | `Unavailable` |
//! | the application mints no token | `InvalidConfig` |
//!
//! # Deadlines and retries
//!
//! A call ends at [`Call::timeout`](keystead_backend::Call::timeout), and within some 10 ms of a cancellation or
//! [`interrupt`](keystead_backend::KeyInstance::interrupt), whatever the network does. Within that time requests are repeated
//! that illness or the network cut off, with jittered waits; not those that were throttled: how long to wait is said in
//! the error. A command of the developer tools that was started runs to its end.
//!
//! # Memory
//!
//! A plaintext key is copied into [`LockedBytes`](keystead_backend::LockedBytes) and this crate's other copies are
//! zeroized. The SDK's are not: its parameters, the JSON body with the key in base64 and the TLS buffers of each wrap and
//! unwrap lie in ordinary memory and are freed without being overwritten; so are access tokens, identity tokens and the client
//! secret. As a plugin this crate has an allocator that overwrites whatever is freed; an application that links it decides about
//! its own. The SDK traces requests with `tracing`: addresses and headers that are known to be harmless, no bodies.
//!
//! # Example
//!
//! ```
//! use keystead_azure_key_vault::AzureKeyVaultBackend;
//! use keystead_backend::KeyBackend;
//!
//! let backend = AzureKeyVaultBackend::default();
//! let description = backend.describe();
//! assert_eq!(description.name, "azure-key-vault");
//! assert!(!description.capabilities.binds_context);
//! ```

mod account;
mod algorithm;
mod classify;
mod config;
mod failure;
mod http;
mod instance;
mod key_id;
mod retries;
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
use crate::instance::AzureKey;
use crate::session::Session;
use crate::settings::Settings;

/// What either algorithm takes, in bytes: RSA-OAEP-256 under the smallest key, of 2048 bits, would take 190, and A256KW takes
/// multiples of 8. The engine wraps 64.
const PLAINTEXT_MAX_BYTES: u32 = 184;

/// Twice what the largest RSA key, of 4096 bits, makes.
const BLOB_MAX_BYTES: u32 = 1024;

/// Azure Key Vault and Managed HSM as a key backend.
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
/// use keystead_azure_key_vault::AzureKeyVaultBackend;
/// use keystead_backend::{BackendError, ErrorCode, Host, KeyBackend, LockedBytes, LogLevel, OpenRequest};
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
///     let settings = r#"{"credential": "managed-identity"}"#;
///     AzureKeyVaultBackend::default().open(OpenRequest { settings, config, host: Arc::new(Application) })
/// };
/// assert!(open(r#"{"key_id": "https://acme.vault.azure.net/keys/keystead"}"#).is_ok());
///
/// let error = open(r#"{"key_id": "keystead"}"#).err().expect("a name alone is not enough");
/// assert_eq!(error.code, ErrorCode::InvalidConfig);
/// assert!(error.message.starts_with("key_id"));
/// ```
pub struct AzureKeyVaultBackend {
    calls: Arc<Calls>,
    accounts: Accounts,
}

impl Default for AzureKeyVaultBackend {
    fn default() -> Self {
        Self {
            calls: Arc::new(Calls::new("keystead-azure")),
            accounts: Accounts::default(),
        }
    }
}

impl fmt::Debug for AzureKeyVaultBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureKeyVaultBackend").finish_non_exhaustive()
    }
}

impl KeyBackend for AzureKeyVaultBackend {
    fn describe(&self) -> Description {
        Description {
            config_schema: KeyConfig::schema(),
            settings_schema: Settings::schema(),
            limits: SizeLimits {
                plaintext_max_bytes: PLAINTEXT_MAX_BYTES,
                blob_max_bytes: BLOB_MAX_BYTES,
                key_id_max_bytes: 512,
                metadata_max_bytes: 32,
            },
            capabilities: Capabilities {
                binds_context: false,
                rewrap: false,
                interrupt: true,
            },
            credentials: vec![
                CredentialKind::Ambient,
                CredentialKind::TokenFile,
                CredentialKind::MintedToken,
                CredentialKind::Settings,
            ],
            ..Description::new("azure-key-vault", env!("CARGO_PKG_VERSION"))
        }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        let settings = Settings::parse(request.settings)?;
        let config = KeyConfig::parse(request.config, &settings)?;
        let account = self.accounts.get(settings);
        let session = Session::new(account, request.host, config.key.clone(), config.identity);
        Ok(Box::new(AzureKey::new(
            config.key,
            config.algorithm,
            session,
            Arc::clone(&self.calls),
        )))
    }
}
