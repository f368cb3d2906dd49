//! The application's settings for this backend. Trusted, but read just as strictly.

use std::path::PathBuf;
use std::time::Duration;

use keystead_backend::BackendError;
use keystead_backend_common::{Allowed, Object};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::arn::KeyArn;

/// The settings, checked.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) endpoint_url: Option<String>,
    pub(crate) sts_endpoint_url: Option<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) profile: Option<String>,
    pub(crate) credentials: Option<StaticCredentials>,
    pub(crate) connect_timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) max_attempts: u32,
    allowed_key_arns: Allowed,
}

/// An access key that the application gives itself. Not `Debug`: one half of it is a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StaticCredentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Zeroizing<String>,
    pub(crate) session_token: Option<Zeroizing<String>>,
}

const SETTINGS: Object = Object::Settings("aws-kms");

const CONNECT_TIMEOUT_MS: u64 = 2_000;
const ATTEMPT_TIMEOUT_MS: u64 = 5_000;
const MAX_ATTEMPTS: u64 = 3;
const TIMEOUT_MAX_MS: u64 = 600_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    endpoint_url: Option<Value>,
    sts_endpoint_url: Option<Value>,
    token_file: Option<Value>,
    profile: Option<Value>,
    access_key_id: Option<Value>,
    secret_access_key: Option<Value>,
    session_token: Option<Value>,
    connect_timeout_ms: Option<Value>,
    attempt_timeout_ms: Option<Value>,
    max_attempts: Option<Value>,
    allowed_key_arns: Option<Value>,
}

impl Settings {
    /// Reads and checks settings.
    pub(crate) fn parse(text: &str) -> Result<Self, BackendError> {
        let fields: Fields = SETTINGS.read(text)?;
        let profile = SETTINGS.text("profile", fields.profile, 256)?;
        let access_key_id = SETTINGS.text("access_key_id", fields.access_key_id, 256)?;
        let secret_access_key = SETTINGS
            .text("secret_access_key", fields.secret_access_key, 1024)?
            .map(Zeroizing::new);
        let session_token = SETTINGS
            .text("session_token", fields.session_token, 16 * 1024)?
            .map(Zeroizing::new);
        let credentials = match (access_key_id, secret_access_key) {
            (Some(access_key_id), Some(secret_access_key)) => Some(StaticCredentials {
                access_key_id,
                secret_access_key,
                session_token,
            }),
            (None, None) if session_token.is_some() => {
                return Err(SETTINGS.wrong_field(
                    "session_token",
                    "needs access_key_id and secret_access_key beside it",
                ));
            }
            (None, None) => None,
            (Some(_), None) => {
                return Err(SETTINGS.wrong_field("secret_access_key", "is missing beside access_key_id"));
            }
            (None, Some(_)) => {
                return Err(SETTINGS.wrong_field("access_key_id", "is missing beside secret_access_key"));
            }
        };
        if credentials.is_some() && profile.is_some() {
            return Err(
                SETTINGS.wrong_field("profile", "cannot stand beside access_key_id: say one of the two")
            );
        }
        let millis = |field, value, default| {
            SETTINGS
                .number(field, value, 1..=TIMEOUT_MAX_MS, default)
                .map(Duration::from_millis)
        };
        let max_attempts = SETTINGS.number("max_attempts", fields.max_attempts, 1..=10, MAX_ATTEMPTS)?;
        Ok(Self {
            endpoint_url: SETTINGS.endpoint("endpoint_url", fields.endpoint_url)?,
            sts_endpoint_url: SETTINGS.endpoint("sts_endpoint_url", fields.sts_endpoint_url)?,
            token_file: SETTINGS
                .text("token_file", fields.token_file, 4096)?
                .map(PathBuf::from),
            profile,
            credentials,
            connect_timeout: millis(
                "connect_timeout_ms",
                fields.connect_timeout_ms,
                CONNECT_TIMEOUT_MS,
            )?,
            attempt_timeout: millis(
                "attempt_timeout_ms",
                fields.attempt_timeout_ms,
                ATTEMPT_TIMEOUT_MS,
            )?,
            max_attempts: u32::try_from(max_attempts).expect("the range ends at 10"),
            allowed_key_arns: Allowed::parse(
                SETTINGS,
                "allowed_key_arns",
                fields.allowed_key_arns,
                "arn:",
                "an ARN",
            )?,
        })
    }

    /// True when a config may name this key.
    pub(crate) fn allows(&self, key: &KeyArn) -> bool {
        self.allowed_key_arns.allows(key.as_str())
    }

    /// The JSON Schema of the settings.
    pub(crate) fn schema() -> Value {
        let text =
            |description: &str| json!({ "type": "string", "minLength": 1, "description": description });
        let millis = |default: u64, description: &str| json!({ "type": "integer", "minimum": 1, "maximum": TIMEOUT_MAX_MS, "default": default, "description": description });
        json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "endpoint_url": text("KMS endpoint instead of the region's own, such as a VPC endpoint; plain http only on loopback"),
                "sts_endpoint_url": text("STS endpoint instead of the region's own; plain http only on loopback"),
                "token_file": text("Path of the OpenID Connect token for keys whose config says web_identity.token_file; read anew for each session"),
                "profile": text("Profile of the AWS config files that the standard credential chain uses"),
                "access_key_id": text("Access key to use instead of the standard credential chain"),
                "secret_access_key": text("The secret half of access_key_id"),
                "session_token": text("Session token of a temporary access key"),
                "connect_timeout_ms": millis(CONNECT_TIMEOUT_MS, "Longest wait for a connection"),
                "attempt_timeout_ms": millis(ATTEMPT_TIMEOUT_MS, "Longest wait for one attempt of a call"),
                "max_attempts": { "type": "integer", "minimum": 1, "maximum": 10, "default": MAX_ATTEMPTS,
                    "description": "Attempts of one call, the first included; the call's own deadline ends them earlier" },
                "allowed_key_arns": { "type": "array", "items": { "type": "string" },
                    "description": "Keys and aliases that a stored config may name: whole ARNs, or beginnings of ARNs followed by *. Without it any" }
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
        assert_eq!(settings.connect_timeout, Duration::from_secs(2));
        assert_eq!(settings.attempt_timeout, Duration::from_secs(5));
        assert_eq!(settings.max_attempts, 3);
        assert!(
            settings.endpoint_url.is_none() && settings.credentials.is_none() && settings.profile.is_none()
        );
    }

    #[test]
    fn every_wrong_setting_is_refused_and_the_field_is_named() {
        for (settings, words) in [
            (json!({ "endpoint": "https://x" }), "unknown field `endpoint`"),
            (
                json!({ "endpoint_url": "kms.local" }),
                "endpoint_url in the settings of the backend aws-kms must begin with https://",
            ),
            (
                json!({ "endpoint_url": "http://kms.example" }),
                "endpoint_url in the settings of the backend aws-kms is plain http to another machine",
            ),
            (
                json!({ "endpoint_url": "http://127.0.0.1.example:80" }),
                "plain http",
            ),
            (
                json!({ "endpoint_url": "http://localhost@example" }),
                "is not a URL of a host",
            ),
            (json!({ "sts_endpoint_url": "https://" }), "sts_endpoint_url"),
            (json!({ "access_key_id": "A" }), "secret_access_key"),
            (json!({ "secret_access_key": "hunter2" }), "access_key_id"),
            (
                json!({ "secret_access_key": 1234567 }),
                "secret_access_key in the settings of the backend aws-kms must be a string",
            ),
            (json!({ "session_token": "hunter2" }), "session_token"),
            (
                json!({ "access_key_id": "A", "secret_access_key": "hunter2", "profile": "p" }),
                "profile",
            ),
            (json!({ "connect_timeout_ms": 0 }), "connect_timeout_ms"),
            (json!({ "attempt_timeout_ms": "1s" }), "attempt_timeout_ms"),
            (json!({ "max_attempts": 11 }), "max_attempts"),
            (json!({ "max_attempts": 1.5 }), "max_attempts"),
            (json!({ "allowed_key_arns": "arn:*" }), "allowed_key_arns"),
            (json!({ "allowed_key_arns": [1] }), "allowed_key_arns[0]"),
            (
                json!({ "allowed_key_arns": ["arn:aws:kms:*:1"] }),
                "allowed_key_arns[0]",
            ),
            (
                json!({ "allowed_key_arns": ["arn:aws:kms:*", "*"] }),
                "allowed_key_arns[1]",
            ),
        ] {
            let error = Settings::parse(&settings.to_string())
                .err()
                .unwrap_or_else(|| panic!("{settings} passed"));
            assert_eq!(error.code, ErrorCode::InvalidConfig);
            assert!(error.message.contains(words), "{settings}: {error}");
            assert!(
                !error.message.contains("hunter2") && !error.message.contains("1234567"),
                "{error}"
            );
        }
    }

    #[test]
    fn plain_http_is_for_loopback_alone() {
        for url in [
            "http://127.0.0.1:5555",
            "http://localhost:1/",
            "http://[::1]:80",
            "http://127.9.9.9",
            "https://vpce.example",
        ] {
            let text = json!({ "endpoint_url": url }).to_string();
            assert_eq!(
                Settings::parse(&text)
                    .unwrap_or_else(|e| panic!("{url}: {e}"))
                    .endpoint_url
                    .as_deref(),
                Some(url)
            );
        }
    }

    #[test]
    fn a_pattern_is_a_whole_arn_or_the_beginning_of_one() {
        let settings = Settings::parse(
            r#"{"allowed_key_arns": ["arn:aws:kms:eu-west-1:111122223333:key/1", "arn:aws:kms:us-east-1:111122223333:alias/ks-*"]}"#,
        )
        .unwrap();
        let allows = |arn| settings.allows(&KeyArn::parse(arn).unwrap());
        assert!(allows("arn:aws:kms:eu-west-1:111122223333:key/1"));
        assert!(!allows("arn:aws:kms:eu-west-1:111122223333:key/12"));
        assert!(allows("arn:aws:kms:us-east-1:111122223333:alias/ks-acme"));
        assert!(!allows("arn:aws:kms:us-east-1:111122223333:key/1"));
        assert!(
            !Settings::parse(r#"{"allowed_key_arns": []}"#)
                .unwrap()
                .allows(&KeyArn::parse("arn:aws:kms:us-east-1:111122223333:key/1").unwrap())
        );
    }
}
