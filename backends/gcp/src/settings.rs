//! The application's settings for this backend. Trusted, but read just as strictly.

use std::path::PathBuf;
use std::time::Duration;

use keystead_backend::BackendError;
use keystead_backend_common::{Allowed, Object};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::name::KeyName;

/// The settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) endpoint_url: Option<String>,
    pub(crate) sts_token_url: Option<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) service_account_file: Option<PathBuf>,
    pub(crate) attempt_timeout: Duration,
    pub(crate) max_attempts: u32,
    allowed_keys: Allowed,
}

const SETTINGS: Object = Object::Settings("gcp-kms");

const ATTEMPT_TIMEOUT_MS: u64 = 5_000;
const MAX_ATTEMPTS: u64 = 3;
const TIMEOUT_MAX_MS: u64 = 600_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    endpoint_url: Option<Value>,
    sts_token_url: Option<Value>,
    token_file: Option<Value>,
    service_account_file: Option<Value>,
    attempt_timeout_ms: Option<Value>,
    max_attempts: Option<Value>,
    allowed_keys: Option<Value>,
}

impl Settings {
    /// Reads and checks settings.
    pub(crate) fn parse(text: &str) -> Result<Self, BackendError> {
        let fields: Fields = SETTINGS.read(text)?;
        let path = |field, value| {
            SETTINGS
                .text(field, value, 4096)
                .map(|text| text.map(PathBuf::from))
        };
        let attempt_timeout_ms = SETTINGS.number(
            "attempt_timeout_ms",
            fields.attempt_timeout_ms,
            1..=TIMEOUT_MAX_MS,
            ATTEMPT_TIMEOUT_MS,
        )?;
        let max_attempts = SETTINGS.number("max_attempts", fields.max_attempts, 1..=10, MAX_ATTEMPTS)?;
        Ok(Self {
            endpoint_url: SETTINGS.endpoint("endpoint_url", fields.endpoint_url)?,
            sts_token_url: SETTINGS.endpoint("sts_token_url", fields.sts_token_url)?,
            token_file: path("token_file", fields.token_file)?,
            service_account_file: path("service_account_file", fields.service_account_file)?,
            attempt_timeout: Duration::from_millis(attempt_timeout_ms),
            max_attempts: u32::try_from(max_attempts).expect("the range ends at 10"),
            allowed_keys: Allowed::parse(
                SETTINGS,
                "allowed_keys",
                fields.allowed_keys,
                "projects/",
                "a key's name",
            )?,
        })
    }

    /// True when a config may name this key.
    pub(crate) fn allows(&self, key: &KeyName) -> bool {
        self.allowed_keys.allows(key.as_str())
    }

    /// The JSON Schema of the settings.
    pub(crate) fn schema() -> Value {
        let text =
            |description: &str| json!({ "type": "string", "minLength": 1, "description": description });
        json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "endpoint_url": text("Cloud KMS endpoint instead of https://cloudkms.googleapis.com, such as a regional or private one; plain http only on loopback"),
                "sts_token_url": text("Token URL of the security token service instead of https://sts.googleapis.com/v1/token; plain http only on loopback"),
                "token_file": text("Path of the OpenID Connect token for keys whose config says web_identity.token_file; read anew for each exchange"),
                "service_account_file": text("Path of a service account's key (JSON) to use instead of the application default credentials"),
                "attempt_timeout_ms": { "type": "integer", "minimum": 1, "maximum": TIMEOUT_MAX_MS, "default": ATTEMPT_TIMEOUT_MS,
                    "description": "Longest wait for one attempt of a call, connecting included" },
                "max_attempts": { "type": "integer", "minimum": 1, "maximum": 10, "default": MAX_ATTEMPTS,
                    "description": "Attempts of one call, the first included; the call's own deadline ends them earlier" },
                "allowed_keys": { "type": "array", "items": { "type": "string" },
                    "description": "Keys that a stored config may name: whole names, or beginnings of names followed by *. Without it any" }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_backend::ErrorCode;

    #[test]
    fn no_settings_are_the_defaults() {
        let settings = Settings::parse("{}").unwrap();
        assert_eq!(
            (settings.attempt_timeout, settings.max_attempts),
            (Duration::from_secs(5), 3)
        );
        assert!(settings.endpoint_url.is_none() && settings.service_account_file.is_none());
    }

    #[test]
    fn every_wrong_setting_is_refused_and_the_field_is_named() {
        for (settings, words) in [
            (json!({ "endpoint": "https://x" }), "unknown field `endpoint`"),
            (
                json!({ "endpoint_url": "cloudkms.googleapis.com" }),
                "endpoint_url in the settings of the backend gcp-kms must begin with https://",
            ),
            (
                json!({ "endpoint_url": "http://kms.example" }),
                "endpoint_url in the settings of the backend gcp-kms is plain http",
            ),
            (
                json!({ "sts_token_url": "http://sts.example/v1/token" }),
                "sts_token_url",
            ),
            (json!({ "token_file": 1234567 }), "token_file"),
            (
                json!({ "service_account_file": { "private_key": "hunter2" } }),
                "service_account_file",
            ),
            (json!({ "attempt_timeout_ms": 0 }), "attempt_timeout_ms"),
            (json!({ "max_attempts": 11 }), "max_attempts"),
            (json!({ "allowed_keys": ["*"] }), "allowed_keys[0]"),
            (
                json!({ "allowed_keys": ["projects/*/locations"] }),
                "allowed_keys[0]",
            ),
        ] {
            let error = Settings::parse(&settings.to_string()).expect_err(&settings.to_string());
            assert_eq!(error.code, ErrorCode::InvalidConfig);
            assert!(error.message.contains(words), "{settings}: {error}");
            assert!(
                !error.message.contains("hunter2") && !error.message.contains("1234567"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_pattern_is_a_whole_name_or_the_beginning_of_one() {
        let settings = Settings::parse(r#"{"allowed_keys": ["projects/acme/*"]}"#).unwrap();
        let allows = |project: &str| {
            settings.allows(
                &KeyName::parse(&format!(
                    "projects/{project}/locations/global/keyRings/r/cryptoKeys/k"
                ))
                .unwrap(),
            )
        };
        assert!(allows("acme") && !allows("acme-2"));
    }
}
