//! Keystead's backend for hardware security modules and whatever else speaks PKCS#11: an AES key on a token, which never
//! leaves it, wraps.
//!
//! # A registered key
//!
//! The *config* of a registered key is a JSON object. It stands in the store file and is untrusted: unknown fields are
//! refused by name, and it can name no library and no PIN, for either would let whoever writes the file run code or spend
//! a token's few tries.
//!
//! | field | meaning |
//! | --- | --- |
//! | `token` | required: the label of the token, one of those in the settings |
//! | `key_label` | the key's label (`CKA_LABEL`) |
//! | `key_id` | the key's id (`CKA_ID`), in hexadecimal digits. One of the two is required |
//! | `mechanism` | what new wraps are made with: `aes-gcm` or `aes-key-wrap`. Without it, AES-GCM where the token has it |
//!
//! The key is a secret key of type AES on the token. **Versions**: of several keys with the same label, the one whose id is
//! greatest (as a number) wraps. Each wrap records label and id of the key that made it, as a PKCS#11 URI, and is unwrapped
//! by that one. So an owner rotates by making a key with the same label and the next id.
//!
//! # Settings
//!
//! The *settings* come from the application, which is trusted. They are read as strictly.
//!
//! | field | meaning |
//! | --- | --- |
//! | `module` | required: absolute path of the vendor's PKCS#11 library. **Its code runs in this process** |
//! | `tokens` | required: the tokens that a config may name, by label: `{"acme": {"pin_file": "/run/secrets/acme-pin"}}` |
//! | `tokens.….pin_file`, `pin_env`, `pin_fd` | exactly one: where the user PIN is. A file is read anew for each log-in, a descriptor once |
//! | `tokens.….serial` | the token's serial number, where several tokens have the label |
//! | `tokens.….allowed_keys` | labels that a config may name: whole, or beginnings followed by `*`. Without it, any |
//! | `sessions_max` | sessions open with one token at once (8); one more keeps the log-in |
//! | `gcm_iv` | `application`, or `token` for one that refuses to be given an initialization vector |
//!
//! # How it wraps
//!
//! | mechanism | |
//! | --- | --- |
//! | `aes-gcm` | `CKM_AES_GCM` with 12 random bytes, a tag of 16 and the context's canonical bytes as associated data |
//! | `aes-key-wrap` | `CKM_AES_KEY_WRAP` (RFC 3394) of a frame: the key and the SHA-256 of the context's canonical bytes. The frame passes through the token as an object of the session |
//!
//! Either binds the context; what a wrap was made with stands in its metadata, so `mechanism` can change. AES-GCM allows
//! 2^32 wraps with random vectors under one key; Keystead makes one for each epoch and hand-over.
//!
//! *Tokens that make the vector themselves*: with `gcm_iv` set to `token` zeroes are given, and what the token wrote in
//! their place (as AWS CloudHSM does), or behind the tag (as Luna does in FIPS mode), is recorded. A token that makes none
//! is refused. Only stand-ins for such tokens were at hand for tests.
//!
//! # Logging in, sessions, loss
//!
//! The library is loaded and initialized by the first call, and never unloaded or finalized. PKCS#11 knows one log-in for a
//! process: a library that is initialized and a user who is logged in already (by the application, say) are as good. Then
//! sessions are shared among all keys on the token. Handles of keys are looked up in each call, so what an owner deletes
//! or forbids holds from the next call on.
//!
//! When sessions are gone, the token was removed, the library finalized or the user logged out by somebody else, the call
//! connects and logs in anew, once, and is done again. A token shows private keys to a user who is logged in alone, so who finds
//! no key asks for that as well. **A PIN that was refused is not tried again**, unless its source
//! gives another one, or the token's flags show that somebody has logged in since: tokens lock after a few tries. Each
//! process has a try of its own.
//!
//! # Deadlines
//!
//! A function of PKCS#11 blocks as long as the vendor's library likes, and cannot be called off: there is no `interrupt`.
//! This backend looks at deadline and cancellation before each call into the library that takes long, and while it waits
//! for a session or for another call's log-in. What overruns inside of the library is left behind by the host, with its
//! thread; a call that hangs there keeps its session, of which there are `sessions_max`.
//!
//! # Errors
//!
//! | the token says | becomes |
//! | --- | --- |
//! | `CKR_KEY_FUNCTION_NOT_PERMITTED`: the owner has switched `CKA_DECRYPT`, `CKA_UNWRAP` or the like off | `KeyDisabled` |
//! | no such key is found; `CKR_KEY_HANDLE_INVALID`, `CKR_OBJECT_HANDLE_INVALID`, `CKR_WRAPPING_KEY_HANDLE_INVALID`, `CKR_UNWRAPPING_KEY_HANDLE_INVALID` | `KeyNotFound` |
//! | `CKR_PIN_INCORRECT`, `CKR_PIN_INVALID`, `CKR_PIN_LEN_RANGE`, `CKR_PIN_EXPIRED`, `CKR_PIN_LOCKED`, `CKR_USER_PIN_NOT_INITIALIZED`, `CKR_USER_NOT_LOGGED_IN` (after another log-in), `CKR_USER_TYPE_INVALID` | `Unauthenticated` |
//! | `CKR_ACTION_PROHIBITED`, `CKR_FUNCTION_REJECTED` | `AccessDenied` |
//! | `CKR_ENCRYPTED_DATA_INVALID`, `CKR_ENCRYPTED_DATA_LEN_RANGE`, `CKR_WRAPPED_KEY_INVALID`, `CKR_WRAPPED_KEY_LEN_RANGE`, `CKR_AEAD_DECRYPT_FAILED`; another context's frame | `InvalidCiphertext` |
//! | another token, label or id is recorded | `WrongKey` |
//! | `CKR_MECHANISM_INVALID`, `CKR_MECHANISM_PARAM_INVALID`, `CKR_FUNCTION_NOT_SUPPORTED`, `CKR_KEY_SIZE_RANGE`, `CKR_KEY_TYPE_INCONSISTENT`, `CKR_WRAPPING_KEY_SIZE_RANGE`, `CKR_WRAPPING_KEY_TYPE_INCONSISTENT`, `CKR_UNWRAPPING_KEY_SIZE_RANGE`, `CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT` | `InvalidConfig` |
//! | `CKR_KEY_NOT_WRAPPABLE`, `CKR_KEY_UNEXTRACTABLE`, `CKR_ATTRIBUTE_SENSITIVE`, `CKR_ATTRIBUTE_READ_ONLY`, `CKR_ATTRIBUTE_TYPE_INVALID`, `CKR_ATTRIBUTE_VALUE_INVALID`, `CKR_TEMPLATE_INCOMPLETE`, `CKR_TEMPLATE_INCONSISTENT`: a token whose rules forbid what key wrap needs | `InvalidConfig` |
//! | `CKR_CANT_LOCK`, `CKR_NEED_TO_CREATE_THREADS`; the module cannot be loaded or is no PKCS#11 library; a label that is ambiguous; no mechanism | `InvalidConfig` |
//! | `CKR_SESSION_COUNT` | `Throttled` |
//! | no such token in any slot; a PIN's source missing or empty; `CKR_TOKEN_NOT_PRESENT`, `CKR_TOKEN_NOT_RECOGNIZED`, `CKR_SLOT_ID_INVALID`, `CKR_DEVICE_REMOVED`, `CKR_DEVICE_ERROR`, `CKR_DEVICE_MEMORY`, `CKR_HOST_MEMORY` | `Unavailable` |
//! | `CKR_GENERAL_ERROR`, `CKR_FUNCTION_FAILED`, a vendor's own code | `Unavailable`; see below |
//! | `CKR_SESSION_CLOSED`, `CKR_SESSION_HANDLE_INVALID`, `CKR_CRYPTOKI_NOT_INITIALIZED`, `CKR_USER_ANOTHER_ALREADY_LOGGED_IN`, `CKR_USER_TOO_MANY_TYPES`, `CKR_OPERATION_ACTIVE`, `CKR_OPERATION_NOT_INITIALIZED`, `CKR_FIPS_SELF_TEST_FAILED`, `CKR_LIBRARY_LOAD_FAILED` | `Unavailable` |
//! | the call's deadline passed | `Timeout` |
//! | the call was cancelled; `CKR_CANCEL`, `CKR_FUNCTION_CANCELED` | `Cancelled` |
//! | anything else | `Internal` |
//!
//! Many tokens, SoftHSM among them, answer to a damaged blob what they also answer when they are ill:
//! `CKR_GENERAL_ERROR` and its like. So when an unwrap fails so, the same key wraps and opens a few bytes: if it can, the blob
//! is to blame (`InvalidCiphertext`), else the token is (`Unavailable`). Key ids do not tell a key from another one that was
//! put in its place under the same label and id: that is `InvalidCiphertext`, too.
//!
//! # Memory
//!
//! Keys lie in [`LockedBytes`](keystead_backend::LockedBytes); what passes through this crate beside them is zeroized, and so
//! is the PIN. What the vendor's library keeps is its own. An unwrap by `aes-key-wrap` reads the frame through a buffer of the crate
//! `cryptoki`, which frees it without overwriting it; as a plugin this crate has an allocator that overwrites whatever is freed, and
//! an application that links it decides about its own.
//!
//! # Example
//!
//! ```
//! use keystead_backend::KeyBackend;
//! use keystead_pkcs11::Pkcs11Backend;
//!
//! let description = Pkcs11Backend::default().describe();
//! assert_eq!(description.name, "pkcs11");
//! assert!(description.capabilities.binds_context && !description.capabilities.interrupt);
//! ```

mod cipher;
mod classify;
mod config;
mod failure;
mod frame;
mod instance;
mod key_id;
mod module;
mod settings;
mod token;
mod wait;

use keystead_backend::{
    BackendError, Capabilities, CredentialKind, Description, KeyBackend, KeyInstance, OpenRequest, SizeLimits,
};
use keystead_backend_common::Object;

use crate::cipher::METADATA_MAX_BYTES;
use crate::config::KeyConfig;
use crate::instance::Pkcs11Key;
use crate::key_id::KEY_ID_MAX_BYTES;
use crate::settings::Settings;
use crate::token::Token;

const PLAINTEXT_MAX_BYTES: u32 = 256;

/// A key of 256 bytes in the frame of key wrap has 312; AES-GCM adds 16 or 32 bytes.
const BLOB_MAX_BYTES: u32 = 512;

/// Tokens that speak PKCS#11 as a key backend.
///
/// Cheap to make and to open keys with: the vendor's library is loaded by the first call, and what is made of it (the
/// log-in, the sessions) is shared by the whole process.
///
/// # Examples
///
/// Opening a key checks its config and touches no token:
///
/// ```
/// use std::sync::Arc;
/// use keystead_backend::{BackendError, ErrorCode, Host, KeyBackend, LockedBytes, LogLevel, OpenRequest};
/// use keystead_pkcs11::Pkcs11Backend;
///
/// struct Application;
///
/// impl Host for Application {
///     fn log(&self, _level: LogLevel, _message: &str) {}
///     fn random(&self, _out: &mut [u8]) -> Result<(), BackendError> {
///         Err(BackendError::new(ErrorCode::Unsupported, "not needed here"))
///     }
///     fn identity_token(&self, _audience: &str) -> Result<LockedBytes, BackendError> {
///         Err(BackendError::new(ErrorCode::Unsupported, "not needed here"))
///     }
/// }
///
/// let settings = r#"{"module": "/usr/lib/softhsm/libsofthsm2.so", "tokens": {"acme": {"pin_env": "ACME_PIN"}}}"#;
/// let open = |config| {
///     Pkcs11Backend::default().open(OpenRequest { settings, config, host: Arc::new(Application) })
/// };
/// assert!(open(r#"{"token": "acme", "key_label": "cmk"}"#).is_ok());
///
/// let error = open(r#"{"token": "acme", "key_label": "cmk", "module": "/tmp/evil.so"}"#).err().expect("a setting");
/// assert_eq!(error.code, ErrorCode::InvalidConfig);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Pkcs11Backend {
    _private: (),
}

impl KeyBackend for Pkcs11Backend {
    fn describe(&self) -> Description {
        Description {
            config_schema: KeyConfig::schema(),
            settings_schema: Settings::schema(),
            limits: SizeLimits {
                plaintext_max_bytes: PLAINTEXT_MAX_BYTES,
                blob_max_bytes: BLOB_MAX_BYTES,
                key_id_max_bytes: u32::try_from(KEY_ID_MAX_BYTES).expect("some hundred"),
                metadata_max_bytes: u32::try_from(METADATA_MAX_BYTES).expect("some"),
            },
            capabilities: Capabilities {
                binds_context: true,
                rewrap: false,
                interrupt: false,
            },
            credentials: vec![CredentialKind::Settings],
            ..Description::new("pkcs11", env!("CARGO_PKG_VERSION"))
        }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        let settings = Settings::parse(request.settings)?;
        let config = KeyConfig::parse(request.config, &settings)?;
        let token = Token::of(&settings, &config.token)
            .ok_or_else(|| Object::Config.wrong_field("token", "is not among the tokens of the settings"))?;
        Ok(Box::new(Pkcs11Key::new(
            config,
            token,
            settings.gcm_iv,
            request.host,
        )))
    }
}
