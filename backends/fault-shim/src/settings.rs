//! The application's settings, read strictly.

use std::path::PathBuf;

use keystead_backend::{BackendError, ErrorCode};
use keystead_backend_common::{Object, kind};
use keystead_loader::Digest;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::script::{Script, Step};

const OBJECT: Object = Object::Settings("fault-shim");
const PATH_MAX_BYTES: usize = 4096;

pub(crate) struct Settings {
    pub(crate) plugin: PathBuf,
    pub(crate) digest: Digest,
    /// Of the plugin behind the shim, as JSON.
    pub(crate) settings: String,
    pub(crate) script: Script,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    plugin: Option<Value>,
    digest: Option<Value>,
    settings: Option<Value>,
    script: Option<Value>,
}

impl Settings {
    pub(crate) fn read(text: &str) -> Result<Self, BackendError> {
        let fields: Fields = OBJECT.read(text)?;
        let plugin = OBJECT.required(
            "plugin",
            fields.plugin,
            PATH_MAX_BYTES,
            "the absolute path of the plugin",
        )?;
        let digest = OBJECT.required("digest", fields.digest, 64, "the plugin's BLAKE3 digest")?;
        let digest = digest
            .parse()
            .map_err(|_| wrong("digest", "is not 64 hexadecimal digits".into()))?;
        let settings = match fields.settings {
            None => "{}".to_owned(),
            Some(settings @ Value::Object(_)) => settings.to_string(),
            Some(other) => {
                return Err(wrong(
                    "settings",
                    format!("must be an object, and is {}", kind(&other)),
                ));
            }
        };
        let steps: Vec<Step> = match fields.script {
            None => Vec::new(),
            Some(script) => serde_json::from_value(script)
                .map_err(|error| wrong("script", format!("cannot be read: {error}")))?,
        };
        Ok(Self {
            plugin: plugin.into(),
            digest,
            settings,
            script: Script::new(steps)?,
        })
    }
}

/// The error that says what is wrong with one field of the settings.
pub(crate) fn wrong(field: &str, what: String) -> BackendError {
    OBJECT.wrong_field(field, what)
}

/// The codes by the names that a script gives them.
pub(crate) fn code(name: &str) -> Option<ErrorCode> {
    ErrorCode::ALL
        .iter()
        .copied()
        .find(|code| code_name(*code) == name)
}

pub(crate) fn code_name(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidConfig => "invalid-config",
        ErrorCode::Unauthenticated => "unauthenticated",
        ErrorCode::AccessDenied => "access-denied",
        ErrorCode::KeyDisabled => "key-disabled",
        ErrorCode::KeyPendingDeletion => "key-pending-deletion",
        ErrorCode::KeyNotFound => "key-not-found",
        ErrorCode::WrongKey => "wrong-key",
        ErrorCode::InvalidCiphertext => "invalid-ciphertext",
        ErrorCode::Throttled => "throttled",
        ErrorCode::Unavailable => "unavailable",
        ErrorCode::Timeout => "timeout",
        ErrorCode::Cancelled => "cancelled",
        ErrorCode::Unsupported => "unsupported",
        _ => "internal",
    }
}

pub(crate) fn schema() -> Value {
    let count = json!({ "type": "integer", "minimum": 1 });
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["plugin", "digest"],
        "properties": {
            "plugin": { "type": "string" },
            "digest": { "type": "string", "pattern": "^[0-9a-fA-F]{64}$" },
            "settings": { "type": "object" },
            "script": { "type": "array", "items": {
                "type": "object",
                "additionalProperties": false,
                "required": ["on"],
                "properties": {
                    "on": { "enum": ["open", "status", "wrap", "unwrap", "any"] },
                    "from": count,
                    "times": count,
                    "every": count,
                    "delay_ms": { "type": "integer", "minimum": 0 },
                    "error": { "enum": ErrorCode::ALL.iter().map(|code| code_name(*code)).collect::<Vec<_>>() },
                    "retry_after_ms": { "type": "integer", "minimum": 0 },
                    "lose_answer": { "type": "boolean" }
                }
            } }
        }
    })
}
