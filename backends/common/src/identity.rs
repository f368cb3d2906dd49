//! OpenID Connect tokens, by which an application proves who it is: minted by the application itself, or kept fresh in a
//! file by its surroundings.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keystead_backend::{BackendError, ErrorCode, Host, LockedBytes};
use serde_json::Value;

use crate::repeated::has_a_run_of;
use crate::strict::{Object, kind};
use crate::words::quote;

/// The longest token that is sent, in bytes: what AWS STS takes; no other service is known to take more.
pub const TOKEN_MAX_BYTES: usize = 20_000;

const SHAPES: &str = "{\"audience\": \"…\"} (the application mints the token) or {\"token_file\": true} (it is read from token_file of the settings)";

/// Where the token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityToken {
    /// The application mints it for this audience: [`Host::identity_token`].
    Minted {
        /// Whom the token is for.
        audience: String,
    },
    /// It is in this file, which the application's settings name. Read anew each time: whoever keeps it there replaces it
    /// before it expires.
    File {
        /// The file.
        path: PathBuf,
    },
}

impl IdentityToken {
    /// Reads a field of a config: `{"audience": "…"}`, or `{"token_file": true}` where the settings name a file. A config never
    /// names a file itself: it is untrusted.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidConfig`] names the field and the two shapes that it can have.
    pub fn parse(field: &str, value: Value, token_file: Option<&Path>) -> Result<Self, BackendError> {
        const CONFIG: Object = Object::Config;
        let Value::Object(mut fields) = value else {
            return Err(CONFIG.wrong_field(field, format!("must be {SHAPES}, and is {}", kind(&value))));
        };
        let audience = fields.remove("audience").filter(|value| !value.is_null());
        let wants_file = fields.remove("token_file").filter(|value| !value.is_null());
        if let Some(unknown) = fields.keys().next() {
            return Err(CONFIG.wrong_field(
                field,
                format!("has the unknown field {}; it must be {SHAPES}", quote(unknown)),
            ));
        }
        match (audience, wants_file, token_file) {
            (Some(audience), None, _) => {
                let audience = CONFIG
                    .text(&format!("{field}.audience"), Some(audience), 1024)?
                    .unwrap_or_default();
                Ok(Self::Minted { audience })
            }
            (None, Some(Value::Bool(true)), Some(path)) => Ok(Self::File { path: path.to_owned() }),
            (None, Some(Value::Bool(true)), None) => Err(CONFIG.wrong_field(
                &format!("{field}.token_file"),
                "is true, but the settings of the backend name no token_file; the application must say its path there",
            )),
            (None, Some(_), _) => Err(CONFIG.wrong_field(
                &format!("{field}.token_file"),
                "can only be true; the path of the file is said in token_file of the application's settings",
            )),
            _ => Err(CONFIG.wrong_field(field, format!("must be exactly one of {SHAPES}"))),
        }
    }

    /// The JSON Schema of such a field.
    #[must_use]
    pub fn schema(description: &str) -> Value {
        serde_json::json!({
            "description": description,
            "oneOf": [
                { "type": "object", "additionalProperties": false, "required": ["audience"],
                  "properties": { "audience": { "type": "string", "description": "The application mints the token for this audience" } } },
                { "type": "object", "additionalProperties": false, "required": ["token_file"],
                  "properties": { "token_file": { "const": true, "description": "The token is read from token_file of the settings" } } }
            ]
        })
    }

    /// Gets a token, on a thread that may block: inside of [`Calls::run`](crate::Calls::run) only. `key` is for whom, as errors
    /// say it.
    ///
    /// # Errors
    ///
    /// Those of [`get_blocking`](Self::get_blocking).
    pub async fn get(&self, host: &Arc<dyn Host>, key: &str) -> Result<LockedBytes, BackendError> {
        let (this, host, for_key) = (self.clone(), Arc::clone(host), key.to_owned());
        match tokio::task::spawn_blocking(move || this.get_blocking(&host, &for_key)).await {
            Ok(result) => result,
            Err(_) => Err(BackendError::new(
                ErrorCode::Internal,
                format!("{}: it panicked", self.doing(key)),
            )),
        }
    }

    /// The same, waiting for it: inside of [`Calls::run_blocking`](crate::Calls::run_blocking) only.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidConfig`] when the application mints none; its own error when it does not this time;
    /// [`ErrorCode::Unavailable`] when the file cannot be read. What it returns is not yet known to be a token: see
    /// [`token_text`].
    pub fn get_blocking(&self, host: &Arc<dyn Host>, key: &str) -> Result<LockedBytes, BackendError> {
        let doing = self.doing(key);
        match self {
            Self::Minted { audience } => host.identity_token(audience).map_err(|mut error| {
                if error.code == ErrorCode::Unsupported {
                    return BackendError::new(
                        ErrorCode::InvalidConfig,
                        format!(
                            "{doing}: it mints none; take the identity token out of the config of {key}, or give the application an issuer ({})",
                            error.message
                        ),
                    );
                }
                error.message = format!("{doing}: {}", error.message);
                error
            }),
            Self::File { path } => read(path).map_err(|error| {
                BackendError::new(
                    ErrorCode::Unavailable,
                    format!(
                        "{doing}: {error}; put a fresh token there, or correct token_file in the backend's settings"
                    ),
                )
            }),
        }
    }

    fn doing(&self, key: &str) -> String {
        match self {
            Self::Minted { audience } => format!(
                "asking the application for a token with the audience {}",
                quote(audience)
            ),
            Self::File { path } => format!("reading the token file {} for {key}", path.display()),
        }
    }
}

fn read(path: &Path) -> std::io::Result<LockedBytes> {
    let mut file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    // One byte more than is ever sent, so that a longer file is seen to be longer.
    let mut length = 0;
    let whole = LockedBytes::fill_with(TOKEN_MAX_BYTES + 1, |buffer| {
        while length < buffer.len() {
            match file.read(&mut buffer[length..])? {
                0 => break,
                read => length += read,
            }
        }
        Ok::<_, std::io::Error>(())
    })?;
    Ok(LockedBytes::copy_from(whole.as_slice()[..length].trim_ascii()))
}

/// The token as a service takes it; what cannot be one is not sent. `doing` leads the error's message.
///
/// # Errors
///
/// [`ErrorCode::Unauthenticated`]: empty, longer than [`TOKEN_MAX_BYTES`], or with characters that no token has.
pub fn token_text<'a>(doing: &str, token: &'a [u8]) -> Result<&'a str, BackendError> {
    let wrong = |what: &str| {
        Err(BackendError::new(
            ErrorCode::Unauthenticated,
            format!("{doing}: the identity token {what}; it must be a signed OpenID Connect token"),
        ))
    };
    match std::str::from_utf8(token) {
        Ok("") => wrong("is empty"),
        Ok(text) if text.len() > TOKEN_MAX_BYTES => wrong("is longer than the 20000 bytes that are sent"),
        Ok(text) if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(text),
        _ => wrong("has characters that no token has"),
    }
}

/// An error that does not repeat the token, should the service have done so.
#[must_use]
pub fn without_token(mut error: BackendError, token: &str) -> BackendError {
    let repeated = token
        .split('.')
        .any(|part| has_a_run_of(&error.message, part.as_bytes()));
    if repeated {
        error.message = "the service refused the identity token, with words that repeat it and are left out here; check the token's issuer, audience, subject and lifetime".into();
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_cannot_be_a_token_is_not_sent() {
        assert_eq!(
            token_text("proving", b"eyJh.eyJz.c2ln").unwrap(),
            "eyJh.eyJz.c2ln"
        );
        for token in [
            &b""[..],
            b"a b",
            b"a\nb",
            b"\xff\xfe",
            &[b'a'; TOKEN_MAX_BYTES + 1],
        ] {
            let error = token_text("proving", token).unwrap_err();
            assert_eq!(error.code, ErrorCode::Unauthenticated);
            assert!(error.message.contains("identity token"), "{error}");
        }
    }

    #[test]
    fn an_error_that_repeats_the_token_loses_its_words() {
        let error = |message: &str| BackendError::new(ErrorCode::Unauthenticated, message);
        let token = "eyJhbGciOi.eyJzdWIiOiJ.c2lnbmF0dXJl";
        assert_eq!(
            without_token(error("token expired"), token).message,
            "token expired"
        );
        for message in [
            format!("bad token {token}"),
            "claims eyJzdWIiOiJ are wrong".to_owned(),
        ] {
            assert!(
                !without_token(error(&message), token)
                    .message
                    .contains("eyJzdWIiOiJ")
            );
        }
    }

    #[test]
    fn a_token_file_is_read_whole_and_trimmed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "  abc.def.ghi\n").unwrap();
        assert_eq!(read(&path).unwrap().as_slice(), b"abc.def.ghi");
        std::fs::write(&path, vec![b'x'; 50_000]).unwrap();
        assert!(token_text("proving", read(&path).unwrap().as_slice()).is_err());
        assert!(read(directory.path()).is_err());
        assert!(read(&directory.path().join("none")).is_err());
    }

    #[test]
    fn a_config_says_an_audience_or_asks_for_the_settings_file() {
        let file = Path::new("/run/token");
        let parse = |value: Value, file: Option<&Path>| IdentityToken::parse("web_identity", value, file);
        assert_eq!(
            parse(json!({ "audience": "aws:acme" }), None).unwrap(),
            IdentityToken::Minted {
                audience: "aws:acme".into()
            }
        );
        assert_eq!(
            parse(json!({ "token_file": true }), Some(file)).unwrap(),
            IdentityToken::File { path: file.into() }
        );
        for (value, file) in [
            (json!({ "token_file": true }), None),
            (json!({ "token_file": "/etc/shadow" }), Some(file)),
            (json!({ "audience": "a", "token_file": true }), Some(file)),
            (json!({}), Some(file)),
            (json!({ "audience": "a", "issuer": "b" }), None),
            (json!("audience"), None),
        ] {
            let error = parse(value.clone(), file).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidConfig);
            assert!(error.message.starts_with("web_identity"), "{value}: {error}");
        }
    }
}
