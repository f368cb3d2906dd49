//! The config of a registered key. It comes from the store file: untrusted.

use keystead_backend::BackendError;
use keystead_backend_common::{IdentityToken, Object, quote};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::algorithm::Algorithm;
use crate::key_id::KeyId;
use crate::settings::{Credential, Settings};

/// What a store file says about one registered key, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyConfig {
    pub(crate) key: KeyId,
    pub(crate) algorithm: Algorithm,
    pub(crate) identity: Identity,
}

/// As whom the key is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The application's own, from the settings; perhaps in another tenant.
    Application { tenant_id: Option<String> },
    /// One of the key owner's, which trusts tokens of the application's issuer.
    Federated {
        tenant_id: String,
        client_id: String,
        token: IdentityToken,
    },
}

const CONFIG: Object = Object::Config;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    key_id: Option<Value>,
    algorithm: Option<Value>,
    tenant_id: Option<Value>,
    client_id: Option<Value>,
    workload_identity: Option<Value>,
}

impl KeyConfig {
    /// Reads and checks a config, also against what the settings allow.
    pub(crate) fn parse(text: &str, settings: &Settings) -> Result<Self, BackendError> {
        let fields: Fields = CONFIG.read(text)?;
        let what = "the key's identifier, https://<vault>.vault.azure.net/keys/<name>";
        let key = CONFIG.required("key_id", fields.key_id, 512, what)?;
        let key = KeyId::parse(&key).map_err(|what| CONFIG.wrong_field("key_id", what))?;
        settings
            .check_allowed(&key)
            .map_err(|what| CONFIG.wrong_field("key_id", what))?;
        let algorithm = match CONFIG.text("algorithm", fields.algorithm, 64)? {
            None => Algorithm::usual(key.service()),
            Some(name) => Algorithm::parse(&name).ok_or_else(|| {
                CONFIG.wrong_field(
                    "algorithm",
                    format!("is {}; it must be RSA-OAEP-256 or A256KW", quote(&name)),
                )
            })?,
        };
        let tenant_id = CONFIG.text("tenant_id", fields.tenant_id, 253)?;
        if let Some(tenant) = &tenant_id {
            check_tenant_id(tenant).map_err(|what| CONFIG.wrong_field("tenant_id", what))?;
        }
        let client_id = CONFIG.text("client_id", fields.client_id, 64)?;
        if let Some(client) = &client_id {
            check_client_id(client).map_err(|what| CONFIG.wrong_field("client_id", what))?;
        }
        let identity = match fields.workload_identity.filter(|value| !value.is_null()) {
            Some(token) => {
                let missing = |field: &str| {
                    CONFIG.wrong_field(
                        field,
                        "is missing beside workload_identity: it says which identity the token stands for",
                    )
                };
                Identity::Federated {
                    tenant_id: tenant_id.ok_or_else(|| missing("tenant_id"))?,
                    client_id: client_id.ok_or_else(|| missing("client_id"))?,
                    token: IdentityToken::parse("workload_identity", token, settings.token_file.as_deref())?,
                }
            }
            None if client_id.is_some() => {
                return Err(CONFIG.wrong_field(
                    "client_id",
                    "needs workload_identity beside it: it says how that identity is proven",
                ));
            }
            None => own_identity(tenant_id, settings.credential.as_ref())?,
        };
        Ok(Self {
            key,
            algorithm,
            identity,
        })
    }

    /// The JSON Schema of a config.
    pub(crate) fn schema() -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["key_id"],
            "properties": {
                "key_id": { "type": "string", "description": "The key's identifier: https://<vault>.vault.azure.net/keys/<name>, perhaps with /<version>" },
                "algorithm": { "enum": ["RSA-OAEP-256", "A256KW"],
                    "description": "How keys are wrapped; RSA-OAEP-256 in a key vault and A256KW in a managed HSM unless said" },
                "tenant_id": { "type": "string", "description": "Tenant that gives out the access tokens" },
                "client_id": { "type": "string", "description": "Client id of the identity that the workload identity token stands for" },
                "workload_identity": IdentityToken::schema(
                    "Sign in as client_id with an OpenID Connect token instead of the application's own credential")
            }
        })
    }
}

fn own_identity(
    tenant_id: Option<String>,
    credential: Option<&Credential>,
) -> Result<Identity, BackendError> {
    match (tenant_id, credential) {
        (_, None) => Err(CONFIG.wrong_field(
            "workload_identity",
            "is missing, and the settings of the backend have no credential; one of the two must say who uses the key",
        )),
        (Some(_), Some(Credential::ManagedIdentity { .. } | Credential::DeveloperTools)) => {
            Err(CONFIG.wrong_field(
                "tenant_id",
                "is of no use with the credential of the settings, which has a tenant of its own",
            ))
        }
        (tenant_id, Some(_)) => Ok(Identity::Application { tenant_id }),
    }
}

/// Says what is wrong with the name of a tenant, which becomes a part of a URL.
pub(crate) fn check_tenant_id(text: &str) -> Result<(), String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    let named = text.bytes().any(|b| b.is_ascii_alphanumeric());
    if named && text.len() <= 253 && text.bytes().all(fits) && !text.contains("..") {
        Ok(())
    } else {
        Err(format!(
            "is {}; it must be a tenant's id or one of its domains",
            quote(text)
        ))
    }
}

/// Says what is wrong with a client id, which is a GUID.
pub(crate) fn check_client_id(text: &str) -> Result<(), String> {
    let fits = |(at, b): (usize, u8)| {
        if matches!(at, 8 | 13 | 18 | 23) {
            b == b'-'
        } else {
            b.is_ascii_hexdigit()
        }
    };
    if text.len() == 36 && text.bytes().enumerate().all(fits) {
        Ok(())
    } else {
        Err(format!(
            "is {}; it must be the GUID that Azure calls the application's or identity's client id",
            quote(text)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_backend::ErrorCode;

    const KEY: &str = "https://acme.vault.azure.net/keys/keystead";
    const HSM: &str = "https://acme.managedhsm.azure.net/keys/keystead";
    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    const CLIENT: &str = "0f9b7e31-5d27-4d0c-8f1e-6a2b3c4d5e6f";

    fn parse_with(settings: &Value, config: &Value) -> Result<KeyConfig, BackendError> {
        KeyConfig::parse(
            &config.to_string(),
            &Settings::parse(&settings.to_string()).unwrap(),
        )
    }

    fn parse(config: &Value) -> Result<KeyConfig, BackendError> {
        parse_with(&json!({ "credential": "managed-identity" }), config)
    }

    #[test]
    fn a_key_alone_uses_the_applications_credential_and_its_services_algorithm() {
        let config = parse(&json!({ "key_id": KEY })).unwrap();
        assert_eq!(
            (config.key.as_str(), config.algorithm, config.identity),
            (
                KEY,
                Algorithm::RsaOaep256,
                Identity::Application { tenant_id: None }
            )
        );
        assert_eq!(
            parse(&json!({ "key_id": HSM })).unwrap().algorithm,
            Algorithm::A256Kw
        );
        let said = parse(&json!({ "key_id": HSM, "algorithm": "RSA-OAEP-256" })).unwrap();
        assert_eq!(said.algorithm, Algorithm::RsaOaep256);
    }

    #[test]
    fn an_identity_of_the_owners_is_proven_by_a_token() {
        let identity = |settings: Value, token: Value| {
            let config = json!({ "key_id": KEY, "tenant_id": TENANT, "client_id": CLIENT, "workload_identity": token });
            parse_with(&settings, &config).unwrap().identity
        };
        let federated = |token| Identity::Federated {
            tenant_id: TENANT.into(),
            client_id: CLIENT.into(),
            token,
        };
        assert_eq!(
            identity(json!({}), json!({ "audience": "api://AzureADTokenExchange" })),
            federated(IdentityToken::Minted {
                audience: "api://AzureADTokenExchange".into()
            })
        );
        assert_eq!(
            identity(
                json!({ "token_file": "/run/token" }),
                json!({ "token_file": true })
            ),
            federated(IdentityToken::File {
                path: "/run/token".into()
            })
        );
    }

    #[test]
    fn the_applications_client_secret_may_be_used_in_the_owners_tenant() {
        let settings = json!({ "credential": "client-secret", "tenant_id": "app.example", "client_id": CLIENT, "client_secret_env": "S" });
        let config = json!({ "key_id": KEY, "tenant_id": TENANT });
        assert_eq!(
            parse_with(&settings, &config).unwrap().identity,
            Identity::Application {
                tenant_id: Some(TENANT.into())
            }
        );
    }

    #[test]
    fn every_wrong_config_is_refused_and_the_field_is_named() {
        let token = json!({ "audience": "a" });
        for (config, words) in [
            (json!({}), "key_id in the config of the key is missing"),
            (
                json!({ "key_id": 7 }),
                "key_id in the config of the key must be a string",
            ),
            (
                json!({ "key_id": "keystead" }),
                "key_id in the config of the key is not a key identifier",
            ),
            (
                json!({ "key_id": "https://evil.example/keys/k" }),
                "none of Azure's key vaults",
            ),
            (
                json!({ "key_id": KEY, "authority_host": "https://x" }),
                "unknown field `authority_host`",
            ),
            (
                json!({ "key_id": KEY, "client_secret": "hunter2" }),
                "unknown field `client_secret`",
            ),
            (json!({ "key_id": KEY, "algorithm": "RSA1_5" }), "algorithm"),
            (
                json!({ "key_id": KEY, "tenant_id": TENANT }),
                "tenant_id in the config of the key is of no use",
            ),
            (json!({ "key_id": KEY, "tenant_id": "a/b" }), "tenant_id"),
            (json!({ "key_id": KEY, "tenant_id": ".." }), "tenant_id"),
            (
                json!({ "key_id": KEY, "client_id": CLIENT }),
                "client_id in the config of the key needs workload_identity",
            ),
            (json!({ "key_id": KEY, "client_id": "me" }), "client_id"),
            (
                json!({ "key_id": KEY, "workload_identity": token }),
                "tenant_id in the config of the key is missing",
            ),
            (
                json!({ "key_id": KEY, "tenant_id": TENANT, "workload_identity": token }),
                "client_id in the config of the key is missing",
            ),
            (
                json!({ "key_id": KEY, "tenant_id": TENANT, "client_id": CLIENT, "workload_identity": { "token_file": "/etc/passwd" } }),
                "workload_identity.token_file in the config of the key can only be true",
            ),
            (
                json!({ "key_id": KEY, "tenant_id": TENANT, "client_id": CLIENT, "workload_identity": { "token_file": true } }),
                "the settings of the backend name no token_file",
            ),
        ] {
            let error = parse(&config).expect_err(&config.to_string());
            assert_eq!(error.code, ErrorCode::InvalidConfig, "{config}");
            assert!(error.message.contains(words), "{config}: {error}");
            assert!(!error.message.contains("hunter2"), "{error}");
        }
        let error = parse_with(&json!({}), &json!({ "key_id": KEY })).unwrap_err();
        assert!(
            error.message.contains("workload_identity") && error.message.contains("credential"),
            "{error}"
        );
    }
}
