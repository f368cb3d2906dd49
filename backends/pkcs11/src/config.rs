//! The config of a registered key. It comes from the store file: untrusted.

use keystead_backend::BackendError;
use keystead_backend_common::{Object, quote};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cipher::Cipher;
use crate::key_id::{ID_MAX_BYTES, LABEL_MAX_BYTES, TOKEN_MAX_BYTES, from_hex};
use crate::settings::Settings;

/// What a store file says about one registered key, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyConfig {
    pub(crate) token: String,
    pub(crate) label: Option<String>,
    pub(crate) id: Option<Vec<u8>>,
    /// What new wraps are made with; what the token has, when it is not said.
    pub(crate) cipher: Option<Cipher>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    token: Option<Value>,
    key_label: Option<Value>,
    key_id: Option<Value>,
    mechanism: Option<Value>,
}

impl KeyConfig {
    /// Reads and checks a config, also against what the settings allow.
    pub(crate) fn parse(text: &str, settings: &Settings) -> Result<Self, BackendError> {
        const CONFIG: Object = Object::Config;
        let fields: Fields = CONFIG.read(text)?;
        let token = CONFIG.required(
            "token",
            fields.token,
            TOKEN_MAX_BYTES,
            "the label of the token that the key is on",
        )?;
        let label = CONFIG.text("key_label", fields.key_label, LABEL_MAX_BYTES)?;
        let id = CONFIG
            .text("key_id", fields.key_id, 2 * ID_MAX_BYTES)?
            .map(|digits| {
                from_hex(&digits).ok_or_else(|| {
                    CONFIG.wrong_field(
                        "key_id",
                        "must be the key's CKA_ID in hexadecimal digits, two for each byte",
                    )
                })
            })
            .transpose()?;
        let cipher = CONFIG
            .text("mechanism", fields.mechanism, 64)?
            .map(|name| {
                Cipher::named(&name)
                    .ok_or_else(|| CONFIG.wrong_field("mechanism", "must be \"aes-gcm\" or \"aes-key-wrap\""))
            })
            .transpose()?;
        let Some(known) = settings.tokens.get(&token) else {
            return Err(CONFIG.wrong_field(
                "token",
                format!(
                    "is {}, which is not among the tokens of the settings; the application must add it there first",
                    quote(&token)
                ),
            ));
        };
        if label.is_none() && id.is_none() {
            return Err(CONFIG.wrong_field(
                "key_label",
                "is missing; give the key's label, its key_id, or both",
            ));
        }
        if !known.allowed_keys.is_any() {
            let Some(label) = &label else {
                return Err(CONFIG.wrong_field(
                    "key_label",
                    "is missing: the settings' allowed_keys of this token go by it",
                ));
            };
            if !known.allowed_keys.allows(label) {
                return Err(CONFIG.wrong_field(
                    "key_label",
                    format!(
                        "is {}, which no pattern in allowed_keys of the settings allows; the application must add it there first",
                        quote(label)
                    ),
                ));
            }
        }
        Ok(Self {
            token,
            label,
            id,
            cipher,
        })
    }

    /// The JSON Schema of a config.
    pub(crate) fn schema() -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["token"],
            "anyOf": [{ "required": ["key_label"] }, { "required": ["key_id"] }],
            "properties": {
                "token": { "type": "string", "minLength": 1, "maxLength": TOKEN_MAX_BYTES,
                    "description": "Label of the token, one of those in the application's settings" },
                "key_label": { "type": "string", "minLength": 1, "maxLength": LABEL_MAX_BYTES,
                    "description": "CKA_LABEL of an AES key on the token. Of several keys with it, the one with the greatest CKA_ID wraps" },
                "key_id": { "type": "string", "pattern": "^([0-9A-Fa-f]{2})+$", "maxLength": 2 * ID_MAX_BYTES,
                    "description": "CKA_ID of the key that wraps, in hexadecimal digits" },
                "mechanism": { "type": "string", "enum": ["aes-gcm", "aes-key-wrap"],
                    "description": "What new wraps are made with; without it AES-GCM where the token has it, else AES key wrap" }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_backend::ErrorCode;

    fn parse(config: &Value, allowed: Option<Value>) -> Result<KeyConfig, BackendError> {
        let settings = json!({
            "module": "/usr/lib/softhsm/libsofthsm2.so",
            "tokens": { "acme": { "pin_env": "PIN", "allowed_keys": allowed } },
        });
        KeyConfig::parse(
            &config.to_string(),
            &Settings::parse(&settings.to_string()).unwrap(),
        )
    }

    #[test]
    fn a_key_is_named_by_its_label_its_id_or_both() {
        let config = parse(
            &json!({ "token": "acme", "key_label": "cmk", "key_id": "00aF", "mechanism": "aes-key-wrap" }),
            None,
        )
        .unwrap();
        assert_eq!(
            config,
            KeyConfig {
                token: "acme".into(),
                label: Some("cmk".into()),
                id: Some(vec![0, 0xaf]),
                cipher: Some(Cipher::KeyWrap)
            }
        );
        assert_eq!(
            parse(&json!({ "token": "acme", "key_id": "01" }), None)
                .unwrap()
                .id,
            Some(vec![1])
        );
        assert_eq!(
            parse(&json!({ "token": "acme", "key_label": "cmk" }), None)
                .unwrap()
                .cipher,
            None
        );
    }

    #[test]
    fn what_is_wrong_is_refused_by_its_field() {
        for (config, words) in [
            (json!({}), "token"),
            (json!({ "token": "acme" }), "key_label"),
            (json!({ "token": "other", "key_label": "cmk" }), "token"),
            (json!({ "token": "acme", "key_label": 7 }), "key_label"),
            (json!({ "token": "acme", "key_label": "" }), "key_label"),
            (json!({ "token": "acme", "key_id": "0" }), "key_id"),
            (json!({ "token": "acme", "key_id": "0x01" }), "key_id"),
            (
                json!({ "token": "acme", "key_label": "cmk", "mechanism": "aes-cbc" }),
                "mechanism",
            ),
        ] {
            let error = parse(&config, None).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidConfig);
            assert!(error.message.starts_with(words), "{config}: {error}");
        }
    }

    #[test]
    fn a_store_file_names_no_module_and_no_pin() {
        for field in ["module", "pin", "pin_file", "pin_env"] {
            let config = json!({ "token": "acme", "key_label": "cmk", field: "/tmp/evil.so" });
            let error = parse(&config, None).unwrap_err();
            assert!(
                error.message.contains(&format!("unknown field `{field}`"))
                    && error.message.contains("application's settings")
                    && !error.message.contains("evil"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_settings_can_say_which_keys_may_be_named() {
        let allowed = Some(json!(["saas-*"]));
        assert!(
            parse(
                &json!({ "token": "acme", "key_label": "saas-1" }),
                allowed.clone()
            )
            .is_ok()
        );
        for config in [
            json!({ "token": "acme", "key_label": "payroll" }),
            json!({ "token": "acme", "key_id": "01" }),
        ] {
            let error = parse(&config, allowed.clone()).unwrap_err();
            assert!(error.message.starts_with("key_label"), "{error}");
        }
    }
}
