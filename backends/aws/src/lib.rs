//! Keystead's backend for AWS KMS: keys of organizations in AWS accounts of their own, used through
//! `kms:Encrypt` and `kms:Decrypt` and nothing else.
//!
//! # A registered key
//!
//! The *config* of a registered key is a JSON object. It stands in the store file and is untrusted: unknown fields are
//! refused by name, the region is taken from the ARN alone, and it can name no endpoint, file or credential.
//!
//! | field | meaning |
//! | --- | --- |
//! | `key_arn` | required: the ARN of a symmetric KMS key, or of an alias of it |
//! | `role_arn` | an IAM role to assume for using the key |
//! | `role_session_name` | how the role's sessions are called in CloudTrail; `keystead` unless said |
//! | `external_id` | the external id that the role's trust policy asks for; not together with `web_identity` |
//! | `web_identity` | assume the role with an OpenID Connect token: `{"audience": "…"}` when the application mints it ([`Host::identity_token`](keystead_backend::Host::identity_token)), `{"token_file": true}` when it is in the settings' `token_file` |
//!
//! With an alias, each wrap records the full ARN of the key that answered, and is unwrapped by that key, wherever the
//! alias points later. An alias stands for keys of its own account and region alone.
//!
//! # Settings
//!
//! The *settings* come from the application, which is trusted. They are read as strictly.
//!
//! | field | meaning |
//! | --- | --- |
//! | `endpoint_url`, `sts_endpoint_url` | KMS and STS endpoints instead of the region's own, such as VPC endpoints; plain `http` on loopback only |
//! | `token_file` | path of an OpenID Connect token; read anew for each session |
//! | `profile` | profile of the AWS config files for the standard credential chain |
//! | `access_key_id`, `secret_access_key`, `session_token` | credentials instead of the standard chain |
//! | `connect_timeout_ms`, `attempt_timeout_ms` | longest wait for a connection (2000) and for one attempt (5000) |
//! | `max_attempts` | attempts of one call, the first included (3); the call's own deadline ends them earlier |
//! | `allowed_key_arns` | what a config may name: whole ARNs, or beginnings of ARNs followed by `*`. Without it, anything |
//!
//! Say `allowed_key_arns` where you can: whoever can write to the store file could otherwise have new epoch keys wrapped by
//! a key of their own.
//!
//! # Credentials
//!
//! - `role_arn` with `web_identity`: `sts:AssumeRoleWithWebIdentity` with a fresh token for each session. No AWS
//!   credentials of the application's are involved.
//! - `role_arn` alone: `sts:AssumeRole` by the application's own credentials.
//! - neither: the application's own credentials.
//!
//! The application's own credentials are those of the settings, else the SDK's standard chain: environment, AWS profile, web
//! identity of the environment, container, instance metadata. Profiles that need single sign-on or a `credential_process`
//! are not built in. `AWS_ENDPOINT_URL_KMS` and its like, FIPS and dual-stack switches are the environment's, hence the
//! application's, and are obeyed; `HTTPS_PROXY` and `NO_PROXY` too, for https.
//!
//! Sessions last as long as STS gives them (an hour), are kept in memory alone and renewed two minutes before they end.
//! Credentials that AWS does not accept are dropped; a call with ones used before is repeated once with new ones.
//!
//! # What the key's owner grants
//!
//! ```json
//! { "Effect": "Allow", "Principal": { "AWS": "arn:aws:iam::111122223333:role/keystead" },
//!   "Action": ["kms:Encrypt", "kms:Decrypt"], "Resource": "*" }
//! ```
//!
//! The context of each wrap is sent as KMS encryption context: it stands in the owner's CloudTrail, and policies can ask
//! for it with `kms:EncryptionContext:…` conditions. [`status`](keystead_backend::KeyInstance::status) is a dry run of
//! `kms:Decrypt` on the latest wrap that passed through the instance: one KMS request, no plaintext. Before any, it says
//! that KMS was not asked: there is no other honest way under this grant.
//!
//! # Errors
//!
//! By error code of KMS or STS; by HTTP status for a code that is not here.
//!
//! | code of AWS | becomes |
//! | --- | --- |
//! | `DisabledException` | `KeyDisabled` |
//! | `KMSInvalidStateException`, "pending deletion" | `KeyPendingDeletion` |
//! | `KMSInvalidStateException`, "unavailable", "creating", "updating" | `Unavailable` |
//! | `KMSInvalidStateException`, anything else, such as "pending import" | `KeyDisabled` |
//! | `NotFoundException` | `KeyNotFound` |
//! | `AccessDeniedException`, `AccessDenied`, `NotAuthorized`, `OptInRequired`; HTTP 403 | `AccessDenied` |
//! | `UnrecognizedClientException`, `InvalidClientTokenId`, `InvalidAccessKeyId`, `ExpiredToken`, `ExpiredTokenException`, `RequestExpired`; HTTP 401 | `Unauthenticated` |
//! | `InvalidIdentityToken`, `IDPRejectedClaim` | `Unauthenticated` |
//! | `InvalidSignatureException`, `SignatureDoesNotMatch`, `IncompleteSignature`, `IncompleteSignatureException`, `MissingAuthenticationToken`, `MissingAuthenticationTokenException` | `Unauthenticated` |
//! | `InvalidCiphertextException` | `InvalidCiphertext` |
//! | `IncorrectKeyException`; an answer that names another key | `WrongKey` |
//! | `InvalidArnException`, `InvalidKeyUsageException`, `UnsupportedOperationException`, `InvalidGrantTokenException`, `ValidationException`, `ValidationError`, `InvalidParameterValue`, `RegionDisabledException` | `InvalidConfig` |
//! | `Throttling`, `ThrottlingException`, `ThrottledException`, `TooManyRequestsException`, `RequestLimitExceeded`, `RequestThrottled`, `LimitExceededException`, `SlowDown`; HTTP 429 | `Throttled`, with `retry_after` where the answer says one |
//! | `DependencyTimeoutException`, `KMSInternalException`, `KeyUnavailableException`, `InternalFailure`, `InternalServerError`, `InternalError`, `ServiceUnavailable`, `ServiceUnavailableException`, `IDPCommunicationError`; HTTP 5xx | `Unavailable` |
//! | `RequestTimeout`, `RequestTimeoutException`; HTTP 408 | `Timeout` |
//! | no connection; an answer that cannot be read; no credentials found; token file unreadable | `Unavailable` |
//! | connection or attempt timed out; the call's deadline passed | `Timeout` |
//! | anything else | `Internal` |
//!
//! # Deadlines and retries
//!
//! A call ends at [`Call::timeout`](keystead_backend::Call::timeout), and within some 10 ms of a cancellation or
//! [`interrupt`](keystead_backend::KeyInstance::interrupt), whatever the network does. Within that time the SDK's standard
//! retry repeats what throttling and illness cut off, with jittered waits; its adaptive mode is off. A repeated
//! `Encrypt` or `Decrypt` changes nothing at AWS but the bill.
//!
//! # Memory
//!
//! A plaintext key is copied into [`LockedBytes`](keystead_backend::LockedBytes) and this crate's other copies are
//! zeroized. The SDK's are not: its `Blob`, the JSON body with the key in base64 and the TLS buffers of each wrap and
//! unwrap lie in ordinary memory and are freed without being overwritten; so is the token given to STS. As a plugin this crate has an
//! allocator that overwrites whatever is freed; an application that links it decides about its own. AWS credentials are
//! zeroized by the SDK when the last copy goes. Never set `LOG_SENSITIVE_BODIES`: the SDK then writes bodies to the log. At
//! `TRACE` it logs what KMS and STS say when they refuse, as they say it.
//!
//! # Example
//!
//! ```
//! use keystead_aws_kms::AwsKmsBackend;
//! use keystead_backend::KeyBackend;
//!
//! let backend = AwsKmsBackend::default();
//! let description = backend.describe();
//! assert_eq!(description.name, "aws-kms");
//! assert!(description.capabilities.binds_context);
//! ```

mod account;
mod arn;
mod classify;
mod config;
mod failure;
mod instance;
mod provider_error;
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
use crate::instance::AwsKey;
use crate::session::Session;
use crate::settings::Settings;

/// What KMS's `Encrypt` takes under a symmetric key, in bytes.
const PLAINTEXT_MAX_BYTES: u32 = 4096;

/// What KMS's `Decrypt` takes, in bytes.
const BLOB_MAX_BYTES: u32 = 6144;

/// AWS KMS as a key backend.
///
/// Cheap to make: threads and connections come with the first call. Instances with the same settings and region share
/// their connections, so any number of keys may be open.
///
/// # Examples
///
/// Opening a key checks its config and reaches no network:
///
/// ```
/// use std::sync::Arc;
/// use keystead_aws_kms::AwsKmsBackend;
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
///     AwsKmsBackend::default().open(OpenRequest { settings: "{}", config, host: Arc::new(Application) })
/// };
/// assert!(open(r#"{"key_arn": "arn:aws:kms:eu-west-1:111122223333:alias/acme"}"#).is_ok());
///
/// let error = open(r#"{"key_arn": "alias/acme"}"#).err().expect("an alias name alone is not enough");
/// assert_eq!(error.code, ErrorCode::InvalidConfig);
/// assert!(error.message.starts_with("key_arn"));
/// ```
pub struct AwsKmsBackend {
    calls: Arc<Calls>,
    accounts: Accounts,
}

impl Default for AwsKmsBackend {
    fn default() -> Self {
        Self {
            calls: Arc::new(Calls::new("keystead-aws")),
            accounts: Accounts::default(),
        }
    }
}

impl fmt::Debug for AwsKmsBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKmsBackend").finish_non_exhaustive()
    }
}

impl KeyBackend for AwsKmsBackend {
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
            ..Description::new("aws-kms", env!("CARGO_PKG_VERSION"))
        }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        let settings = Settings::parse(request.settings)?;
        let config = KeyConfig::parse(request.config, &settings)?;
        let account = self.accounts.get(settings, config.key.region());
        let session = Session::new(account, request.host, config.key.as_str(), config.role);
        Ok(Box::new(AwsKey::new(
            config.key,
            session,
            Arc::clone(&self.calls),
        )))
    }
}
