//! The config of a registered key. It comes from the store file: untrusted.

use keystead_backend::BackendError;
use keystead_backend_common::{IdentityToken, Object};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::name::{KeyName, check_provider};
use crate::settings::Settings;

/// What a store file says about one registered key, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyConfig {
    pub(crate) key: KeyName,
    pub(crate) federation: Option<Federation>,
}

/// Workload identity federation: a token of another issuer is exchanged for one of Google's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Federation {
    /// `projects/…/workloadIdentityPools/…/providers/…`
    pub(crate) provider: String,
    pub(crate) token: IdentityToken,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    key_name: Option<Value>,
    workload_identity_provider: Option<Value>,
    web_identity: Option<Value>,
}

impl KeyConfig {
    /// Reads and checks a config, also against what the settings allow.
    pub(crate) fn parse(text: &str, settings: &Settings) -> Result<Self, BackendError> {
        const CONFIG: Object = Object::Config;
        let fields: Fields = CONFIG.read(text)?;
        let key = CONFIG.required(
            "key_name",
            fields.key_name,
            512,
            "the resource name of the crypto key (gcloud kms keys list)",
        )?;
        let key = KeyName::parse(&key).map_err(|what| CONFIG.wrong_field("key_name", what))?;
        if !settings.allows(&key) {
            return Err(CONFIG.wrong_field(
                "key_name",
                format!("is {key}, which no pattern in allowed_keys of the settings allows; the application must add it there first"),
            ));
        }
        let provider = CONFIG.text(
            "workload_identity_provider",
            fields.workload_identity_provider,
            512,
        )?;
        let web_identity = fields.web_identity.filter(|value| !value.is_null());
        let federation = match (provider, web_identity) {
            (None, None) => None,
            (Some(provider), Some(value)) => {
                check_provider(&provider)
                    .map_err(|what| CONFIG.wrong_field("workload_identity_provider", what))?;
                let token = IdentityToken::parse("web_identity", value, settings.token_file.as_deref())?;
                Some(Federation { provider, token })
            }
            (Some(_), None) => {
                return Err(CONFIG.wrong_field(
                    "workload_identity_provider",
                    "needs web_identity beside it: it says which token the provider is shown",
                ));
            }
            (None, Some(_)) => {
                return Err(CONFIG.wrong_field(
                    "web_identity",
                    "needs workload_identity_provider beside it: it says where the token is exchanged",
                ));
            }
        };
        Ok(Self { key, federation })
    }

    /// The JSON Schema of a config.
    pub(crate) fn schema() -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["key_name"],
            "properties": {
                "key_name": { "type": "string",
                    "description": "projects/<project>/locations/<location>/keyRings/<ring>/cryptoKeys/<key>" },
                "workload_identity_provider": { "type": "string",
                    "description": "projects/<project number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>" },
                "web_identity": IdentityToken::schema("The OpenID Connect token that is exchanged at the workload identity provider")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_backend::ErrorCode;

    const KEY: &str = "projects/acme/locations/europe-west1/keyRings/r/cryptoKeys/k";
    const PROVIDER: &str =
        "projects/123456789012/locations/global/workloadIdentityPools/pool/providers/keystead";

    fn parse(config: &Value) -> Result<KeyConfig, BackendError> {
        KeyConfig::parse(&config.to_string(), &Settings::parse("{}").unwrap())
    }

    #[test]
    fn a_key_alone_uses_the_applications_credentials() {
        let config = parse(&json!({ "key_name": KEY })).unwrap();
        assert_eq!((config.key.as_str(), config.federation), (KEY, None));
    }

    #[test]
    fn a_token_is_minted_or_read_as_the_config_says() {
        let config = |web_identity: Value| json!({ "key_name": KEY, "workload_identity_provider": PROVIDER, "web_identity": web_identity });
        assert_eq!(
            parse(&config(json!({ "audience": "gcp:acme" })))
                .unwrap()
                .federation,
            Some(Federation {
                provider: PROVIDER.into(),
                token: IdentityToken::Minted {
                    audience: "gcp:acme".into()
                }
            })
        );
        let settings = Settings::parse(r#"{"token_file": "/run/token"}"#).unwrap();
        let parsed = KeyConfig::parse(&config(json!({ "token_file": true })).to_string(), &settings).unwrap();
        assert_eq!(
            parsed.federation.unwrap().token,
            IdentityToken::File {
                path: "/run/token".into()
            }
        );
    }

    #[test]
    fn every_wrong_config_is_refused_and_the_field_is_named() {
        let token = json!({ "audience": "a" });
        for (config, words) in [
            (json!({}), "key_name in the config of the key is missing"),
            (
                json!({ "key_name": 7 }),
                "key_name in the config of the key must be a string",
            ),
            (
                json!({ "key_name": "k" }),
                "key_name in the config of the key is not the name of a crypto key",
            ),
            (
                json!({ "key_name": format!("{KEY}/cryptoKeyVersions/1") }),
                "names one version of a key",
            ),
            (
                json!({ "key_name": KEY, "endpoint_url": "http://127.0.0.1" }),
                "unknown field `endpoint_url`",
            ),
            (
                json!({ "key_name": KEY, "service_account_file": "/etc/key.json" }),
                "settings, never in a config",
            ),
            (
                json!({ "key_name": KEY, "web_identity": token }),
                "web_identity in the config of the key needs workload_identity_provider",
            ),
            (
                json!({ "key_name": KEY, "workload_identity_provider": PROVIDER }),
                "workload_identity_provider in the config of the key needs web_identity",
            ),
            (
                json!({ "key_name": KEY, "workload_identity_provider": "pool", "web_identity": token }),
                "workload_identity_provider in the config of the key is not the name",
            ),
            (
                json!({ "key_name": KEY, "workload_identity_provider": PROVIDER, "web_identity": { "token_file": "/etc/passwd" } }),
                "web_identity.token_file in the config of the key can only be true",
            ),
            (
                json!({ "key_name": KEY, "workload_identity_provider": PROVIDER, "web_identity": { "token_file": true } }),
                "the settings of the backend name no token_file",
            ),
        ] {
            let error = parse(&config).expect_err(&config.to_string());
            assert_eq!(error.code, ErrorCode::InvalidConfig, "{config}");
            assert!(error.message.contains(words), "{config}: {error}");
        }
    }

    #[test]
    fn a_config_may_name_only_keys_that_the_settings_allow() {
        let settings = Settings::parse(r#"{"allowed_keys": ["projects/acme/*"]}"#).unwrap();
        KeyConfig::parse(&json!({ "key_name": KEY }).to_string(), &settings).unwrap();
        let foreign = KEY.replace("acme", "evil");
        let error = KeyConfig::parse(&json!({ "key_name": foreign }).to_string(), &settings).unwrap_err();
        assert!(error.message.contains("allowed_keys"), "{error}");
    }
}
