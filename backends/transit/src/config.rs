//! The config of a registered key. It comes from the store file: untrusted.

use keystead_backend::BackendError;
use keystead_backend_common::{IdentityToken, Object};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::path::{KeyPath, NAME_MAX_BYTES, PATH_MAX_BYTES, check_name, check_path};
use crate::settings::Settings;

/// What a store file says about one registered key, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyConfig {
    pub(crate) key: KeyPath,
    pub(crate) role: Option<Role>,
}

/// The role of a JWT method that is logged in to for each use of the key, in the key's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) mount: String,
    pub(crate) token: IdentityToken,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    key: Option<Value>,
    mount: Option<Value>,
    namespace: Option<Value>,
    role: Option<Value>,
    role_mount: Option<Value>,
    identity_token: Option<Value>,
}

const CONFIG: Object = Object::Config;

impl KeyConfig {
    /// Reads and checks a config, also against what the settings allow.
    pub(crate) fn parse(text: &str, settings: &Settings) -> Result<Self, BackendError> {
        let fields: Fields = CONFIG.read(text)?;
        let name = CONFIG.required("key", fields.key, NAME_MAX_BYTES, "the name of the Transit key")?;
        check_name(&name).map_err(|what| CONFIG.wrong_field("key", what))?;
        let key = KeyPath {
            namespace: path("namespace", fields.namespace)?,
            mount: path("mount", fields.mount)?.unwrap_or_else(|| "transit".into()),
            name,
        };
        if !settings.allows(&key) {
            return Err(CONFIG.wrong_field(
                "key",
                format!("is {key}, which no pattern in allowed_keys of the settings allows; the application must add it there first"),
            ));
        }
        let role = CONFIG.text("role", fields.role, PATH_MAX_BYTES)?;
        let role_mount = path("role_mount", fields.role_mount)?;
        let identity_token = fields.identity_token.filter(|value| !value.is_null());
        let role = match (role, identity_token) {
            (Some(name), Some(token)) => Some(Role {
                name,
                mount: role_mount.unwrap_or_else(|| "jwt".into()),
                token: IdentityToken::parse("identity_token", token, settings.token_file.as_deref())?,
            }),
            (Some(_), None) => {
                return Err(CONFIG.wrong_field(
                    "identity_token",
                    "is missing beside role: it says by which token that role is logged in to",
                ));
            }
            (None, Some(_)) => {
                return Err(CONFIG.wrong_field(
                    "role",
                    "is missing beside identity_token: give the role of the JWT method",
                ));
            }
            (None, None) if role_mount.is_some() => {
                return Err(CONFIG.wrong_field(
                    "role_mount",
                    "needs role and identity_token beside it: it says where that role is",
                ));
            }
            (None, None) if settings.own.is_none() => {
                return Err(CONFIG.wrong_field(
                    "role",
                    "is missing, and the settings of the backend have neither vault_token_file nor approle_role_id: give role and identity_token here, or one of these there",
                ));
            }
            (None, None) => None,
        };
        Ok(Self { key, role })
    }

    /// The JSON Schema of a config.
    pub(crate) fn schema() -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["key"],
            "properties": {
                "key": { "type": "string", "minLength": 1, "maxLength": NAME_MAX_BYTES, "description": "Name of the Transit key" },
                "mount": { "type": "string", "minLength": 1, "maxLength": PATH_MAX_BYTES, "default": "transit",
                    "description": "Where the Transit engine is mounted" },
                "namespace": { "type": "string", "minLength": 1, "maxLength": PATH_MAX_BYTES,
                    "description": "Namespace of the engine and of the role; the root namespace unless said" },
                "role": { "type": "string", "minLength": 1, "maxLength": PATH_MAX_BYTES,
                    "description": "Role of a JWT method to log in to for using the key" },
                "role_mount": { "type": "string", "minLength": 1, "maxLength": PATH_MAX_BYTES, "default": "jwt",
                    "description": "Where that JWT method is mounted" },
                "identity_token": IdentityToken::schema(
                    "The OpenID Connect token by which the role is logged in to, instead of the application's own identity")
            }
        })
    }
}

fn path(field: &str, value: Option<Value>) -> Result<Option<String>, BackendError> {
    let path = CONFIG.text(field, value, PATH_MAX_BYTES)?;
    if let Some(path) = &path {
        check_path(path).map_err(|what| CONFIG.wrong_field(field, what))?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_backend::ErrorCode;

    fn parse_with(settings: Value, config: &Value) -> Result<KeyConfig, BackendError> {
        let mut settings = settings;
        settings["address"] = json!("https://bao.example");
        KeyConfig::parse(
            &config.to_string(),
            &Settings::parse(&settings.to_string()).unwrap(),
        )
    }

    fn parse(config: &Value) -> Result<KeyConfig, BackendError> {
        parse_with(json!({ "vault_token_file": "/run/token" }), config)
    }

    #[test]
    fn a_key_alone_is_used_by_the_applications_own_identity() {
        let config = parse(&json!({ "key": "acme" })).unwrap();
        assert_eq!(
            (config.key.to_string().as_str(), config.role),
            ("transit/keys/acme", None)
        );
    }

    #[test]
    fn a_role_is_logged_in_to_by_what_the_config_says() {
        let config = json!({ "key": "acme", "mount": "kms/transit", "namespace": "team/a",
            "role": "keystead", "role_mount": "oidc", "identity_token": { "audience": "bao:acme" } });
        let config = parse_with(json!({}), &config).unwrap();
        assert_eq!(config.key.to_string(), "team/a/kms/transit/keys/acme");
        assert_eq!(
            config.role,
            Some(Role {
                name: "keystead".into(),
                mount: "oidc".into(),
                token: IdentityToken::Minted {
                    audience: "bao:acme".into()
                }
            })
        );
        let config = json!({ "key": "acme", "role": "r", "identity_token": { "token_file": true } });
        let role = parse_with(json!({ "token_file": "/run/oidc" }), &config)
            .unwrap()
            .role
            .unwrap();
        assert_eq!(
            (role.mount.as_str(), role.token),
            (
                "jwt",
                IdentityToken::File {
                    path: "/run/oidc".into()
                }
            )
        );
    }

    #[test]
    fn every_wrong_config_is_refused_and_the_field_is_named() {
        for (config, field) in [
            (json!({}), "key"),
            (json!({ "key": "a/b" }), "key"),
            (json!({ "key": "../../sys/seal" }), "key"),
            (json!({ "key": 7 }), "key"),
            (json!({ "key": "a", "mount": "../sys" }), "mount"),
            (json!({ "key": "a", "mount": "/transit" }), "mount"),
            (json!({ "key": "a", "namespace": "team/" }), "namespace"),
            (json!({ "key": "a", "role": "r" }), "identity_token"),
            (
                json!({ "key": "a", "identity_token": { "audience": "x" } }),
                "role",
            ),
            (json!({ "key": "a", "role_mount": "jwt" }), "role_mount"),
            (
                json!({ "key": "a", "role": "r", "identity_token": { "token_file": true } }),
                "identity_token.token_file",
            ),
            (
                json!({ "key": "a", "role": "r", "identity_token": { "token_file": "/etc/shadow" } }),
                "identity_token.token_file",
            ),
        ] {
            let error = parse(&config).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidConfig);
            assert!(
                error.message.starts_with(&format!("{field} ")),
                "{config}: {error}"
            );
        }
        for field in [
            "address",
            "ca_file",
            "vault_token_file",
            "approle_secret_id_file",
            "token",
        ] {
            let error = parse(&json!({ "key": "a", field: "x" })).unwrap_err();
            assert!(
                error.message.contains(&format!("unknown field `{field}`")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_key_without_anybody_to_use_it_is_refused() {
        let error = parse_with(json!({}), &json!({ "key": "a" })).unwrap_err();
        assert!(error.message.contains("vault_token_file"), "{error}");
    }

    #[test]
    fn a_key_that_the_settings_do_not_allow_is_refused() {
        let settings =
            json!({ "vault_token_file": "/t", "allowed_keys": ["team/transit/keys/*", "transit/keys/acme"] });
        for (config, allowed) in [
            (json!({ "key": "acme" }), true),
            (json!({ "key": "acme2" }), false),
            (json!({ "key": "any", "namespace": "team" }), true),
            (json!({ "key": "acme", "mount": "other" }), false),
        ] {
            let result = parse_with(settings.clone(), &config);
            assert_eq!(result.is_ok(), allowed, "{config}");
            if let Err(error) = result {
                assert!(error.message.contains("allowed_keys"), "{error}");
            }
        }
    }

    #[test]
    fn the_schema_has_the_fields_that_are_read() {
        for field in KeyConfig::schema()["properties"].as_object().unwrap().keys() {
            let error = parse(&json!({ field: ["x"] })).unwrap_err();
            assert!(!error.message.contains("unknown field"), "{field}: {error}");
        }
    }
}
