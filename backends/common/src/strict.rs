//! Strict reading of JSON objects: each field known by name, of the right type, said once; every error names the
//! field and prints no value, for a value may be a secret.

use keystead_backend::{BackendError, ErrorCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The longest JSON text that is read at all, in bytes.
const TEXT_MAX_BYTES: usize = 64 * 1024;

/// What the names of fields are made of that stand in settings: for a hint to who writes one into a config.
const OF_THE_SETTINGS: [&str; 8] = [
    "endpoint",
    "token_file",
    "profile",
    "access_key",
    "secret",
    "module",
    "pin",
    "_file",
];

/// Which of the two objects is being read, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// The untrusted config of a registered key.
    Config,
    /// The application's settings for the backend of this name.
    Settings(&'static str),
}

impl Object {
    fn name(self) -> String {
        match self {
            Self::Config => "config of the key".into(),
            Self::Settings(backend) => format!("settings of the backend {backend}"),
        }
    }

    /// Reads the text into a struct of `Option<Value>` fields that denies unknown ones.
    ///
    /// Fields are read as plain values first, since serde's own message about a wrong type prints the value.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidConfig`]: not an object, too long, or with a field that is unknown or said twice.
    pub fn read<T: DeserializeOwned>(self, text: &str) -> Result<T, BackendError> {
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
                Self::Config if OF_THE_SETTINGS.iter().any(|w| {
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
    #[must_use]
    pub fn wrong(self, what: impl AsRef<str>) -> BackendError {
        BackendError::new(
            ErrorCode::InvalidConfig,
            format!("the {} {}", self.name(), what.as_ref()),
        )
    }

    /// The error that says what is wrong with one field.
    #[must_use]
    pub fn wrong_field(self, field: &str, what: impl AsRef<str>) -> BackendError {
        BackendError::new(
            ErrorCode::InvalidConfig,
            format!("{field} in the {} {}", self.name(), what.as_ref()),
        )
    }

    /// A text, neither empty nor beyond `max_bytes`, without control characters.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidConfig`] names the field.
    pub fn text(
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

    /// The same for a field that must be there; `what` says what to give.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidConfig`] names the field.
    pub fn required(
        self,
        field: &str,
        value: Option<Value>,
        max_bytes: usize,
        what: &str,
    ) -> Result<String, BackendError> {
        self.text(field, value, max_bytes)?
            .ok_or_else(|| self.wrong_field(field, format!("is missing; give {what}")))
    }

    /// True or false, or `default`.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidConfig`] names the field.
    pub fn boolean(self, field: &str, value: Option<Value>, default: bool) -> Result<bool, BackendError> {
        match value {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(value)) => Ok(value),
            Some(other) => {
                Err(self.wrong_field(field, format!("must be true or false, and is {}", kind(&other))))
            }
        }
    }

    /// A whole number within `range`, or `default`.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidConfig`] names the field and the range.
    pub fn number(
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
#[must_use]
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        #[allow(dead_code, reason = "the test is about what is refused")]
        key: Option<Value>,
    }

    #[test]
    fn what_is_not_an_object_of_known_fields_is_refused_and_its_values_are_not_repeated() {
        for (text, words) in [
            ("[]".to_owned(), "is not a JSON object"),
            ("{\"key\": 1, \"key\": 2}".to_owned(), "duplicate field `key`"),
            ("{\"kye\": \"hunter2\"}".to_owned(), "unknown field `kye`"),
            (
                format!("{{\"key\": \"{}\"}}", "x".repeat(TEXT_MAX_BYTES)),
                "bytes long",
            ),
        ] {
            let error = Object::Config.read::<Fields>(&text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidConfig);
            assert!(
                error.message.contains(words) && !error.message.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn who_writes_a_setting_into_a_config_is_told_where_it_belongs() {
        let error = Object::Config
            .read::<Fields>(r#"{"endpoint_url": "https://x"}"#)
            .unwrap_err();
        assert!(error.message.contains("application's settings"), "{error}");
    }

    #[test]
    fn a_field_of_the_wrong_type_is_named_and_its_value_not_repeated() {
        let settings = Object::Settings("a-kms");
        for error in [
            settings.text("key", Some(json!(1234567)), 9).unwrap_err(),
            settings
                .text("key", Some(json!("12345678901234567")), 9)
                .unwrap_err(),
            settings.text("key", Some(json!("a\nb")), 9).unwrap_err(),
            settings.text("key", Some(json!("")), 9).unwrap_err(),
            settings.required("key", None, 9, "a key").unwrap_err(),
            settings.boolean("key", Some(json!("1234567")), true).unwrap_err(),
            settings
                .number("key", Some(json!(1234567)), 1..=9, 1)
                .unwrap_err(),
        ] {
            assert!(
                error
                    .message
                    .starts_with("key in the settings of the backend a-kms"),
                "{error}"
            );
            assert!(!error.message.contains("1234567"), "{error}");
        }
    }
}
