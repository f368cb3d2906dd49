//! The config of a registered key. It comes from the store file: untrusted.

use keystead_backend::BackendError;
use keystead_backend_common::{IdentityToken, Object};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arn::{KeyArn, check_role_arn};
use crate::settings::Settings;

/// What a store file says about one registered key, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyConfig {
    pub(crate) key: KeyArn,
    pub(crate) role: Option<Role>,
}

/// The role that is assumed for each use of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) arn: String,
    pub(crate) session_name: String,
    pub(crate) proof: Proof,
}

/// What is shown to STS so that it gives out the role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The application's own AWS credentials.
    Base { external_id: Option<String> },
    /// An OpenID Connect token.
    Token(IdentityToken),
}

/// How the role's sessions are called in CloudTrail when the config does not say.
const SESSION_NAME_DEFAULT: &str = "keystead";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    key_arn: Option<Value>,
    role_arn: Option<Value>,
    role_session_name: Option<Value>,
    external_id: Option<Value>,
    web_identity: Option<Value>,
}

impl KeyConfig {
    /// Reads and checks a config, also against what the settings allow.
    pub(crate) fn parse(text: &str, settings: &Settings) -> Result<Self, BackendError> {
        const CONFIG: Object = Object::Config;
        let fields: Fields = CONFIG.read(text)?;
        let key = CONFIG.text("key_arn", fields.key_arn, 512)?.ok_or_else(|| {
            CONFIG.wrong_field(
                "key_arn",
                "is missing; give the ARN of the KMS key or of an alias of it",
            )
        })?;
        let key = KeyArn::parse(&key).map_err(|what| CONFIG.wrong_field("key_arn", what))?;
        if !settings.allows(&key) {
            return Err(CONFIG.wrong_field(
                "key_arn",
                format!("is {key}, which no pattern in allowed_key_arns of the settings allows; the application must add it there first"),
            ));
        }
        let role_arn = CONFIG.text("role_arn", fields.role_arn, 2048)?;
        let session_name = CONFIG.text("role_session_name", fields.role_session_name, 64)?;
        let external_id = CONFIG.text("external_id", fields.external_id, 1224)?;
        let web_identity = fields.web_identity.filter(|value| !value.is_null());
        let Some(arn) = role_arn else {
            for (field, given) in [
                ("role_session_name", session_name.is_some()),
                ("external_id", external_id.is_some()),
                ("web_identity", web_identity.is_some()),
            ] {
                if given {
                    return Err(CONFIG.wrong_field(
                        field,
                        "needs role_arn beside it: it says how that role is assumed",
                    ));
                }
            }
            return Ok(Self { key, role: None });
        };
        check_role_arn(&arn, key.partition()).map_err(|what| CONFIG.wrong_field("role_arn", what))?;
        if session_name
            .as_ref()
            .is_some_and(|name| !is_made_of(name, b"_+=,.@-"))
        {
            return Err(CONFIG.wrong_field(
                "role_session_name",
                "must be 2 to 64 letters, digits or any of _+=,.@-",
            ));
        }
        if external_id
            .as_ref()
            .is_some_and(|id| !is_made_of(id, b"_+=,.@:/-"))
        {
            return Err(CONFIG.wrong_field(
                "external_id",
                "must be 2 to 1224 letters, digits or any of _+=,.@:/-",
            ));
        }
        let proof = match web_identity {
            None => Proof::Base { external_id },
            Some(_) if external_id.is_some() => {
                return Err(CONFIG.wrong_field(
                    "external_id",
                    "cannot stand beside web_identity: STS takes no external id with a token; the role's trust policy names the token's subject instead",
                ));
            }
            Some(value) => Proof::Token(IdentityToken::parse(
                "web_identity",
                value,
                settings.token_file.as_deref(),
            )?),
        };
        let session_name = session_name.unwrap_or_else(|| SESSION_NAME_DEFAULT.into());
        Ok(Self {
            key,
            role: Some(Role {
                arn,
                session_name,
                proof,
            }),
        })
    }

    /// The JSON Schema of a config.
    pub(crate) fn schema() -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["key_arn"],
            "properties": {
                "key_arn": { "type": "string", "description": "ARN of the KMS key, or of an alias of it" },
                "role_arn": { "type": "string", "description": "ARN of an IAM role to assume for using the key" },
                "role_session_name": { "type": "string", "minLength": 2, "maxLength": 64, "default": SESSION_NAME_DEFAULT,
                    "description": "How the role's sessions are called in CloudTrail" },
                "external_id": { "type": "string", "minLength": 2, "maxLength": 1224,
                    "description": "External id that the role's trust policy asks for; not together with web_identity" },
                "web_identity": IdentityToken::schema(
                    "Assume the role with an OpenID Connect token instead of the application's AWS credentials")
            }
        })
    }
}

/// True for two or more ASCII letters, digits and `others`.
fn is_made_of(text: &str, others: &[u8]) -> bool {
    text.len() >= 2
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_backend::ErrorCode;

    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1";
    const ROLE: &str = "arn:aws:iam::111122223333:role/R";

    fn parse(config: &Value) -> Result<KeyConfig, BackendError> {
        KeyConfig::parse(&config.to_string(), &Settings::parse("{}").unwrap())
    }

    #[test]
    fn a_key_alone_uses_the_applications_credentials() {
        let config = parse(&json!({ "key_arn": KEY })).unwrap();
        assert_eq!((config.key.as_str(), config.role), (KEY, None));
    }

    #[test]
    fn a_role_is_assumed_by_what_the_config_says() {
        let role = |config: Value| parse(&config).unwrap().role.unwrap();
        assert_eq!(
            role(
                json!({ "key_arn": KEY, "role_arn": ROLE, "external_id": "acme-1", "role_session_name": "app" })
            ),
            Role {
                arn: ROLE.into(),
                session_name: "app".into(),
                proof: Proof::Base {
                    external_id: Some("acme-1".into())
                }
            }
        );
        assert_eq!(
            role(json!({ "key_arn": KEY, "role_arn": ROLE, "web_identity": { "audience": "aws:acme" } })),
            Role {
                arn: ROLE.into(),
                session_name: "keystead".into(),
                proof: Proof::Token(IdentityToken::Minted {
                    audience: "aws:acme".into()
                })
            }
        );
        let settings = Settings::parse(r#"{"token_file": "/run/token"}"#).unwrap();
        let text =
            json!({ "key_arn": KEY, "role_arn": ROLE, "web_identity": { "token_file": true } }).to_string();
        assert_eq!(
            KeyConfig::parse(&text, &settings).unwrap().role.unwrap().proof,
            Proof::Token(IdentityToken::File {
                path: "/run/token".into()
            })
        );
    }

    #[test]
    fn every_wrong_config_is_refused_and_the_field_is_named() {
        for (config, words) in [
            (json!({}), "key_arn in the config of the key is missing"),
            (
                json!({ "key_arn": 7 }),
                "key_arn in the config of the key must be a string",
            ),
            (
                json!({ "key_arn": "" }),
                "key_arn in the config of the key is empty",
            ),
            (
                json!({ "key_arn": "alias/acme" }),
                "key_arn in the config of the key is not an ARN",
            ),
            (
                json!({ "key_arn": KEY, "endpoint_url": "http://127.0.0.1" }),
                "unknown field `endpoint_url`",
            ),
            (
                json!({ "key_arn": KEY, "region": "eu-west-1" }),
                "unknown field `region`",
            ),
            (
                json!({ "key_arn": KEY, "role_arn": "R" }),
                "role_arn in the config of the key is not an ARN",
            ),
            (
                json!({ "key_arn": KEY, "role_session_name": "app" }),
                "role_session_name in the config of the key needs role_arn",
            ),
            (
                json!({ "key_arn": KEY, "external_id": "acme" }),
                "external_id in the config of the key needs role_arn",
            ),
            (
                json!({ "key_arn": KEY, "web_identity": { "audience": "a" } }),
                "web_identity in the config of the key needs role_arn",
            ),
            (
                json!({ "key_arn": KEY, "role_arn": ROLE, "role_session_name": "a b" }),
                "role_session_name",
            ),
            (
                json!({ "key_arn": KEY, "role_arn": ROLE, "role_session_name": "a\nb" }),
                "control character",
            ),
            (
                json!({ "key_arn": KEY, "role_arn": ROLE, "external_id": "ü" }),
                "external_id",
            ),
            (
                json!({ "key_arn": KEY, "role_arn": ROLE, "external_id": "acme", "web_identity": { "audience": "a" } }),
                "external_id in the config of the key cannot stand beside web_identity",
            ),
            (
                json!({ "key_arn": KEY, "role_arn": ROLE, "web_identity": "a" }),
                "web_identity in the config of the key must be",
            ),
            (
                json!({ "key_arn": KEY, "role_arn": ROLE, "web_identity": {} }),
                "exactly one of",
            ),
            (
                json!({ "key_arn": KEY, "role_arn": ROLE, "web_identity": { "audience": "a", "token_file": true } }),
                "exactly one of",
            ),
            (
                json!({ "key_arn": KEY, "role_arn": ROLE, "web_identity": { "audience": "" } }),
                "web_identity.audience",
            ),
            (
                json!({ "key_arn": KEY, "role_arn": ROLE, "web_identity": { "issuer": "x" } }),
                "unknown field \"issuer\"",
            ),
            (
                json!({ "key_arn": KEY, "role_arn": ROLE, "web_identity": { "token_file": "/etc/passwd" } }),
                "web_identity.token_file in the config of the key can only be true",
            ),
            (
                json!({ "key_arn": KEY, "role_arn": ROLE, "web_identity": { "token_file": true } }),
                "the settings of the backend name no token_file",
            ),
        ] {
            let error = parse(&config).expect_err(&config.to_string());
            assert_eq!(error.code, ErrorCode::InvalidConfig, "{config}");
            assert!(error.message.contains(words), "{config}: {error}");
        }
    }

    #[test]
    fn text_that_is_not_one_object_is_refused() {
        for text in [
            "",
            "null",
            "[]",
            "{",
            "{} {}",
            r#"{"key_arn": "x", "key_arn": "y"}"#,
            &" ".repeat(70_000),
        ] {
            let error = KeyConfig::parse(text, &Settings::parse("{}").unwrap()).expect_err(text);
            assert_eq!(error.code, ErrorCode::InvalidConfig, "{text}");
        }
    }

    #[test]
    fn a_config_may_name_only_keys_that_the_settings_allow() {
        let settings =
            Settings::parse(r#"{"allowed_key_arns": ["arn:aws:kms:eu-west-1:111122223333:*"]}"#).unwrap();
        KeyConfig::parse(&json!({ "key_arn": KEY }).to_string(), &settings).unwrap();
        let foreign = json!({ "key_arn": "arn:aws:kms:eu-west-1:999922223333:key/1" }).to_string();
        let error = KeyConfig::parse(&foreign, &settings).unwrap_err();
        assert!(error.message.contains("allowed_key_arns"), "{error}");
    }
}
