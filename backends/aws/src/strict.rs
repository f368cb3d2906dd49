//! Strict reading of JSON objects: each field known by name, of the right type, said once; every error names the
//! field and prints no value, for a value may be a secret.

use keystead_backend::{BackendError, ErrorCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The longest JSON text that is read at all, in bytes.
const TEXT_MAX_BYTES: usize = 64 * 1024;

/// Which of the two objects is being read, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Object {
    /// The untrusted config of a registered key.
    Config,
    /// The application's settings.
    Settings,
}

impl Object {
    fn name(self) -> &'static str {
        match self {
            Self::Config => "config of the key",
            Self::Settings => "settings of the backend aws-kms",
        }
    }

    /// Reads the text into a struct of `Option<Value>` fields that denies unknown ones.
    ///
    /// Fields are read as plain values first, since serde's own message about a wrong type prints the value.
    pub(crate) fn read<T: DeserializeOwned>(self, text: &str) -> Result<T, BackendError> {
        if text.len() > TEXT_MAX_BYTES {
            return Err(self.wrong(format!(
                "is {} bytes long; at most {TEXT_MAX_BYTES} are read",
                text.len()
            )));
        }
        if !text.trim_start().starts_with('{') {
            return Err(self.wrong("is not a JSON object; write {\"field\": value, …}"));
        }
        serde_json::from_str(text).map_err(|error| {
            let place = format!(" at line {} column {}", error.line(), error.column());
            let text = error.to_string();
            let what = text.strip_suffix(&place).unwrap_or(&text);
            let hint = match self {
                Self::Config if ["endpoint", "token_file", "profile", "access_key"].iter().any(|w| {
                    what.strip_prefix("unknown field `").is_some_and(|rest| {
                        rest.split('`').next().is_some_and(|field| field.contains(w))
                    })
                }) => ". Endpoints, files and credentials are said in the application's settings, never in a config",
                _ => "",
            };
            self.wrong(format!("cannot be read: {what}{place}{hint}"))
        })
    }

    /// The error that says what is wrong with the object as a whole.
    pub(crate) fn wrong(self, what: impl AsRef<str>) -> BackendError {
        BackendError::new(
            ErrorCode::InvalidConfig,
            format!("the {} {}", self.name(), what.as_ref()),
        )
    }

    /// The error that says what is wrong with one field.
    pub(crate) fn wrong_field(self, field: &str, what: impl AsRef<str>) -> BackendError {
        BackendError::new(
            ErrorCode::InvalidConfig,
            format!("{field} in the {} {}", self.name(), what.as_ref()),
        )
    }

    /// A text, neither empty nor beyond `max_bytes`, without control characters.
    pub(crate) fn text(
        self,
        field: &str,
        value: Option<Value>,
        max_bytes: usize,
    ) -> Result<Option<String>, BackendError> {
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => {
                Err(self.wrong_field(field, "is empty; leave it out instead"))
            }
            Some(Value::String(text)) if text.len() > max_bytes => Err(self.wrong_field(
                field,
                format!("is {} bytes long; at most {max_bytes} are allowed", text.len()),
            )),
            Some(Value::String(text)) if text.chars().any(char::is_control) => {
                Err(self.wrong_field(field, "has a control character in it"))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_field(field, format!("must be a string, and is {}", kind(&other)))),
        }
    }

    /// A whole number within `range`, or `default`.
    pub(crate) fn number(
        self,
        field: &str,
        value: Option<Value>,
        range: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, BackendError> {
        match value {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_u64()
                .filter(|number| range.contains(number))
                .ok_or_else(|| {
                    self.wrong_field(
                        field,
                        format!("must be a whole number from {} to {}", range.start(), range.end()),
                    )
                }),
        }
    }
}

/// What a value is, without saying it.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
