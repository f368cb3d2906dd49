//! The application's settings and a key's config, parsed strictly. Errors name the field and never show its value, which
//! could be a secret in the wrong place.

use crate::error::{Result, invalid_config};
use keystead_backend_common::{Object, SecretSource};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// What the settings ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settings {
    Keyring {
        path: PathBuf,
        passphrase: Option<SecretSource>,
        create: bool,
    },
    MasterKey(SecretSource),
}

const FIELDS: &[&str] = &[
    "keyring",
    "passphrase_env",
    "passphrase_fd",
    "passphrase_file",
    "create",
    "master_key_env",
    "master_key_fd",
];

/// For the messages of what is read by the room of all backends.
const SETTINGS: Object = Object::Settings("managed");

/// Parses the settings; `None` for `{}`.
pub(crate) fn parse_settings(text: &str) -> Result<Option<Settings>> {
    let mut fields = object("settings", text)?;
    if fields.is_empty() {
        return Ok(None);
    }
    if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        let hint = match unknown.as_str() {
            "passphrase" | "master_key" | "key" | "password" => {
                "; secrets do not stand in settings: say where to read it"
            }
            _ => "",
        };
        return Err(invalid_config(format!(
            "settings: unknown field `{}`{hint}; there are {}",
            shown(unknown),
            FIELDS.join(", ")
        )));
    }

    let keyring = path(&mut fields, "keyring")?;
    let create = boolean(&mut fields, "create")?;
    let mut secret = |name: &str| {
        let mut field = |kind: &str| fields.remove(&format!("{name}_{kind}"));
        SecretSource::parse(SETTINGS, name, field("env"), field("fd"), field("file"))
    };
    let (passphrase, master_key) = (secret("passphrase")?, secret("master_key")?);

    match (keyring, master_key) {
        (Some(_), Some(_)) => Err(invalid_config(
            "settings: both `keyring` and a master key; a master key given directly needs no keyring file: give one of \
             them",
        )),
        (Some(path), None) => Ok(Some(Settings::Keyring {
            path,
            passphrase,
            create: create.unwrap_or(true),
        })),
        (None, Some(_)) if passphrase.is_some() || create.is_some() => Err(invalid_config(
            "settings: a passphrase and `create` are for a `keyring` file, not for a master key given directly; leave \
             them out",
        )),
        (None, Some(source)) => Ok(Some(Settings::MasterKey(source))),
        (None, None) => Err(invalid_config(
            "settings: `keyring` is missing; set it to the absolute path of the keyring file",
        )),
    }
}

/// Checks a registered key's config: the managed key has none.
pub(crate) fn check_config(text: &str) -> Result<()> {
    match object("config", text)?.keys().next() {
        None => Ok(()),
        Some(unknown) => Err(invalid_config(format!(
            "config: unknown field `{}`; the managed key takes no config: give {{}}",
            shown(unknown)
        ))),
    }
}

/// The error for `{}` where nothing else says which keyring to use.
pub(crate) fn missing_settings() -> keystead_backend::BackendError {
    invalid_config(
        "the managed key has no settings; set `keyring` to the absolute path of its keyring file (with \
         `passphrase_env`, `passphrase_fd` or `passphrase_file` to seal it), or set `master_key_env` or `master_key_fd`",
    )
}

pub(crate) fn settings_schema() -> Value {
    let name = |text: &str| json!({ "type": "string", "minLength": 1, "description": text });
    let number = |text: &str| json!({ "type": "integer", "minimum": 0, "description": text });
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "keyring": name("Absolute path of the keyring file."),
            "passphrase_env": name("Environment variable with the passphrase that seals the file."),
            "passphrase_fd": number("Descriptor to read the passphrase from, once, to its first newline or end."),
            "passphrase_file": name("Absolute path of a file whose first line is the passphrase."),
            "create": {
                "type": "boolean", "default": true,
                "description": "Make the keyring file at the first wrap when it is not there."
            },
            "master_key_env": name("Instead of a keyring: environment variable with the master key, 64 hexadecimal digits."),
            "master_key_fd": number("Instead of a keyring: descriptor to read the master key from, 64 hexadecimal digits.")
        },
        "oneOf": [
            { "required": ["keyring"] }, { "required": ["master_key_env"] }, { "required": ["master_key_fd"] }
        ]
    })
}

pub(crate) fn config_schema() -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": {} })
}

fn object(what: &str, text: &str) -> Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(invalid_config(format!(
            "{what}: not a JSON object; give one, such as {{}}"
        ))),
        // The position only: the parser's own words could repeat a secret.
        Err(error) => Err(invalid_config(format!(
            "{what}: not JSON, at line {} column {}; give a JSON object",
            error.line(),
            error.column()
        ))),
    }
}

fn path(fields: &mut Map<String, Value>, field: &str) -> Result<Option<PathBuf>> {
    let Some(text) = string(fields, field)? else {
        return Ok(None);
    };
    let path = PathBuf::from(text);
    if !path.is_absolute() || path.file_name().is_none() {
        return Err(invalid_config(format!(
            "settings: `{field}` is not the absolute path of a file; give one that begins with /"
        )));
    }
    Ok(Some(path))
}

fn string(fields: &mut Map<String, Value>, field: &str) -> Result<Option<String>> {
    match fields.remove(field) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(invalid_config(format!(
            "settings: `{field}` is not a string with something in it; give one"
        ))),
    }
}

fn boolean(fields: &mut Map<String, Value>, field: &str) -> Result<Option<bool>> {
    match fields.remove(field) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(value)),
        Some(_) => Err(invalid_config(format!(
            "settings: `{field}` is neither true nor false; give one of them"
        ))),
    }
}

/// A name from untrusted input as a message may show it: short, and without control characters.
fn shown(name: &str) -> String {
    name.chars()
        .take(64)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
