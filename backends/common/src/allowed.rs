//! The keys that a stored config may name.

use keystead_backend::BackendError;
use serde_json::Value;

use crate::strict::{Object, kind};

/// The keys that a stored config may name, as the application's settings say: whole names, or beginnings of names followed
/// by `*`. Whoever can write to the store file could otherwise have new epoch keys wrapped by a key of their own.
///
/// # Examples
///
/// ```
/// use keystead_backend_common::{Allowed, Object};
/// use serde_json::json;
///
/// let list = Some(json!(["https://acme.example/keys/*"]));
/// let allowed = Allowed::parse(Object::Settings("a-kms"), "allowed_keys", list, "https://", "a URL").unwrap();
/// assert!(allowed.allows("https://acme.example/keys/1"));
/// assert!(!allowed.allows("https://evil.example/keys/1"));
/// assert!(Allowed::default().allows("any name at all"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowed(Option<Vec<String>>);

impl Allowed {
    /// Reads a list; without one, every key may be named. Each pattern must begin with `start`, which is the beginning of
    /// `name`, what such a name is called ("an ARN").
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](keystead_backend::ErrorCode::InvalidConfig) names the field and the place in the list.
    pub fn parse(
        object: Object,
        field: &str,
        value: Option<Value>,
        start: &str,
        name: &str,
    ) -> Result<Self, BackendError> {
        let list = match value {
            None | Some(Value::Null) => return Ok(Self(None)),
            Some(Value::Array(list)) => list,
            Some(other) => {
                return Err(object.wrong_field(
                    field,
                    format!("must be a list of strings, and is {}", kind(&other)),
                ));
            }
        };
        let mut patterns = Vec::with_capacity(list.len());
        for (index, item) in list.into_iter().enumerate() {
            let field = format!("{field}[{index}]");
            let pattern = object
                .text(&field, Some(item), 512)?
                .ok_or_else(|| object.wrong_field(&field, "must be a string, and is null"))?;
            let beginning = pattern.strip_suffix('*').unwrap_or(&pattern);
            if beginning.contains('*') {
                return Err(object.wrong_field(
                    &field,
                    "has a * in the middle; only the last character can be one",
                ));
            }
            if !beginning.starts_with(start) {
                return Err(object.wrong_field(
                    &field,
                    format!("must be {name}, or the beginning of one followed by *"),
                ));
            }
            patterns.push(pattern);
        }
        Ok(Self(Some(patterns)))
    }

    /// True without a list: every key may be named.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0.is_none()
    }

    /// True when a config may name this key.
    #[must_use]
    pub fn allows(&self, key: &str) -> bool {
        let Some(patterns) = &self.0 else {
            return true;
        };
        patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => key.starts_with(start),
            None => key == pattern,
        })
    }
}
