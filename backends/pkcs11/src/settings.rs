//! The application's settings for this backend. Trusted, but read just as strictly.

use std::collections::BTreeMap;
use std::path::PathBuf;

use keystead_backend::BackendError;
use keystead_backend_common::{Allowed, Object, SecretSource, kind, quote};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::key_id::TOKEN_MAX_BYTES;

/// The settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The library of the token's vendor. Its code runs in this process.
    pub(crate) module: PathBuf,
    pub(crate) tokens: BTreeMap<String, TokenSettings>,
    pub(crate) sessions_max: usize,
    pub(crate) gcm_iv: GcmIv,
}

/// One token that a config may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenSettings {
    pub(crate) serial: Option<String>,
    pub(crate) pin: SecretSource,
    pub(crate) allowed_keys: Allowed,
}

/// Who makes the initialization vector of an AES-GCM wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GcmIv {
    /// This backend, from random bytes of the host.
    Application,
    /// The token, which is given zeroes and says what it used.
    Token,
}

const SETTINGS: Object = Object::Settings("pkcs11");
const SESSIONS_MAX: u64 = 8;
const TOKENS_MAX: usize = 1024;
const TOKEN_FIELDS: [&str; 5] = ["serial", "pin_file", "pin_env", "pin_fd", "allowed_keys"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    module: Option<Value>,
    tokens: Option<Value>,
    sessions_max: Option<Value>,
    gcm_iv: Option<Value>,
}

impl Settings {
    /// Reads and checks settings.
    pub(crate) fn parse(text: &str) -> Result<Self, BackendError> {
        let fields: Fields = SETTINGS.read(text)?;
        let module = PathBuf::from(SETTINGS.required(
            "module",
            fields.module,
            4096,
            "the absolute path of the PKCS#11 library of the token's vendor",
        )?);
        if !module.is_absolute() {
            return Err(SETTINGS.wrong_field(
                "module",
                "is not an absolute path: which library runs must not depend on where the process is",
            ));
        }
        let tokens = match fields.tokens {
            Some(Value::Object(tokens)) if !tokens.is_empty() && tokens.len() <= TOKENS_MAX => tokens,
            Some(Value::Object(_)) => {
                return Err(SETTINGS.wrong_field("tokens", format!("must name 1 to {TOKENS_MAX} tokens")));
            }
            Some(other) => {
                return Err(SETTINGS.wrong_field(
                    "tokens",
                    format!(
                        "must be an object of tokens by their labels, and is {}",
                        kind(&other)
                    ),
                ));
            }
            None => {
                return Err(SETTINGS.wrong_field(
                    "tokens",
                    "is missing; give {\"<label of a token>\": {\"pin_file\": \"…\"}}",
                ));
            }
        };
        let tokens = tokens
            .into_iter()
            .map(|(label, value)| {
                let token = TokenSettings::parse(&label, value)?;
                Ok((label, token))
            })
            .collect::<Result<_, BackendError>>()?;
        let sessions_max = SETTINGS.number("sessions_max", fields.sessions_max, 1..=1024, SESSIONS_MAX)?;
        let gcm_iv = match SETTINGS.text("gcm_iv", fields.gcm_iv, 64)?.as_deref() {
            None | Some("application") => GcmIv::Application,
            Some("token") => GcmIv::Token,
            Some(_) => {
                return Err(SETTINGS.wrong_field("gcm_iv", "must be \"application\" or \"token\""));
            }
        };
        Ok(Self {
            module,
            tokens,
            sessions_max: usize::try_from(sessions_max).expect("the range ends at 1024"),
            gcm_iv,
        })
    }

    /// The JSON Schema of the settings.
    pub(crate) fn schema() -> Value {
        let text =
            |description: &str| json!({ "type": "string", "minLength": 1, "description": description });
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["module", "tokens"],
            "properties": {
                "module": text("Absolute path of the PKCS#11 library of the token's vendor. Its code runs in this process"),
                "tokens": {
                    "type": "object", "minProperties": 1, "maxProperties": TOKENS_MAX,
                    "description": "The tokens that a stored config may name, by their labels",
                    "additionalProperties": {
                        "type": "object",
                        "additionalProperties": false,
                        "oneOf": [{ "required": ["pin_file"] }, { "required": ["pin_env"] }, { "required": ["pin_fd"] }],
                        "properties": {
                            "serial": text("The token's serial number, where several have the same label"),
                            "pin_file": text("Absolute path of a file whose first line is the user PIN; read anew for each log-in"),
                            "pin_env": text("Environment variable with the user PIN"),
                            "pin_fd": { "type": "integer", "minimum": 0,
                                "description": "Descriptor to read the user PIN from, once, to its first newline or end" },
                            "allowed_keys": { "type": "array", "items": { "type": "string" },
                                "description": "Labels of keys that a stored config may name: whole, or beginnings followed by *. Without it any" }
                        }
                    }
                },
                "sessions_max": { "type": "integer", "minimum": 1, "maximum": 1024, "default": SESSIONS_MAX,
                    "description": "Sessions that are open with one token at once" },
                "gcm_iv": { "type": "string", "enum": ["application", "token"], "default": "application",
                    "description": "Who makes the initialization vector of AES-GCM: token for one that refuses to be given one" }
            }
        })
    }
}

impl TokenSettings {
    fn parse(label: &str, value: Value) -> Result<Self, BackendError> {
        let shown = quote(label);
        if label.is_empty() || label.len() > TOKEN_MAX_BYTES || label.chars().any(char::is_control) {
            return Err(SETTINGS.wrong_field(
                "tokens",
                format!("has {shown}, which is no label of a token: 1 to {TOKEN_MAX_BYTES} bytes of text"),
            ));
        }
        let field = |name: &str| format!("tokens.{shown}.{name}");
        let mut fields: Map<String, Value> = match value {
            Value::Object(fields) => fields,
            other => {
                return Err(SETTINGS.wrong_field(
                    &format!("tokens.{shown}"),
                    format!("must be an object, and is {}", kind(&other)),
                ));
            }
        };
        if let Some(unknown) = fields.keys().find(|name| !TOKEN_FIELDS.contains(&name.as_str())) {
            let hint = match unknown.as_str() {
                "pin" | "password" => "; a PIN does not stand in settings: say where to read it",
                _ => "",
            };
            return Err(SETTINGS.wrong_field(
                &format!("tokens.{shown}"),
                format!(
                    "has the unknown field {}{hint}; there are {}",
                    quote(unknown),
                    TOKEN_FIELDS.join(", ")
                ),
            ));
        }
        let serial = SETTINGS.text(&field("serial"), fields.remove("serial"), 64)?;
        let pin = SecretSource::parse(
            SETTINGS,
            &field("pin"),
            fields.remove("pin_env"),
            fields.remove("pin_fd"),
            fields.remove("pin_file"),
        )?
        .ok_or_else(|| {
            SETTINGS.wrong_field(
                &format!("tokens.{shown}"),
                "must say in exactly one way where the user PIN is: pin_file, pin_env or pin_fd",
            )
        })?;
        let allowed_keys = Allowed::parse(
            SETTINGS,
            &field("allowed_keys"),
            fields.remove("allowed_keys"),
            "",
            "a label",
        )?;
        Ok(Self {
            serial,
            pin,
            allowed_keys,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_backend::ErrorCode;

    const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

    #[test]
    fn a_module_and_a_token_are_enough() {
        let settings =
            json!({ "module": MODULE, "tokens": { "acme": { "pin_file": "/run/pin", "serial": "42" } } });
        let settings = Settings::parse(&settings.to_string()).unwrap();
        assert_eq!((settings.sessions_max, settings.gcm_iv), (8, GcmIv::Application));
        let token = &settings.tokens["acme"];
        assert_eq!(token.serial.as_deref(), Some("42"));
        assert_eq!(token.pin.field(), "tokens.\"acme\".pin_file");
        assert!(token.allowed_keys.is_any());
    }

    #[test]
    fn every_wrong_setting_is_refused_and_the_field_is_named_and_no_value_is_repeated() {
        let token = |token: Value| json!({ "module": MODULE, "tokens": { "acme": token } });
        for (settings, words) in [
            (json!({}), "module"),
            (json!({ "module": MODULE }), "tokens"),
            (json!({ "module": MODULE, "tokens": {} }), "tokens"),
            (json!({ "module": MODULE, "tokens": ["acme"] }), "tokens"),
            (
                json!({ "module": "softhsm2.so", "tokens": { "a": { "pin_fd": 3 } } }),
                "module",
            ),
            (
                json!({ "module": MODULE, "pin": "hunter2", "tokens": {} }),
                "unknown field `pin`",
            ),
            (
                json!({ "module": MODULE, "tokens": { "": { "pin_fd": 3 } } }),
                "tokens",
            ),
            (token(json!("hunter2")), "tokens.\"acme\""),
            (token(json!({})), "pin_file, pin_env or pin_fd"),
            (
                token(json!({ "pin": "hunter2" })),
                "a PIN does not stand in settings",
            ),
            (
                token(json!({ "pin_file": "/a", "pin_env": "B" })),
                "say one of the two",
            ),
            (token(json!({ "pin_file": "hunter2" })), "pin_file"),
            (token(json!({ "pin_env": "hunter2=hunter2" })), "pin_env"),
            (token(json!({ "pin_fd": "hunter2" })), "pin_fd"),
            (
                token(json!({ "pin_fd": 3, "allowed_keys": "hunter2" })),
                "allowed_keys",
            ),
            (
                json!({ "module": MODULE, "tokens": { "a": { "pin_fd": 3 } }, "sessions_max": 0 }),
                "sessions_max",
            ),
            (
                json!({ "module": MODULE, "tokens": { "a": { "pin_fd": 3 } }, "gcm_iv": "hunter2" }),
                "gcm_iv",
            ),
        ] {
            let error = Settings::parse(&settings.to_string())
                .err()
                .unwrap_or_else(|| panic!("{settings} passed"));
            assert_eq!(error.code, ErrorCode::InvalidConfig);
            assert!(error.message.contains(words), "{settings}: {error}");
            assert!(!error.message.contains("hunter2"), "{error}");
        }
    }
}
