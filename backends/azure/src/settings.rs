//! The application's settings for this backend. Trusted, but read just as strictly.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use keystead_backend::BackendError;
use keystead_backend_common::{Allowed, Object, SecretSource};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{check_client_id, check_tenant_id};
use crate::key_id::{Cloud, KeyId};

/// The settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) credential: Option<Credential>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) authority_host: Option<String>,
    pub(crate) vault_address: Option<SocketAddr>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) connect_timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) max_attempts: u32,
    allowed_key_ids: Option<Allowed>,
}

/// The application's own credential: for keys whose config brings no identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    ClientSecret {
        tenant_id: String,
        client_id: String,
        secret: SecretSource,
    },
    WorkloadIdentity {
        tenant_id: String,
        client_id: String,
        token_file: PathBuf,
    },
    ManagedIdentity {
        client_id: Option<String>,
    },
    DeveloperTools,
}

pub(crate) const SETTINGS: Object = Object::Settings("azure-key-vault");

const KINDS: &str = "client-secret, workload-identity, managed-identity or developer-tools";
const CONNECT_TIMEOUT_MS: u64 = 2_000;
const ATTEMPT_TIMEOUT_MS: u64 = 5_000;
const MAX_ATTEMPTS: u64 = 3;
const TIMEOUT_MAX_MS: u64 = 600_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    credential: Option<Value>,
    tenant_id: Option<Value>,
    client_id: Option<Value>,
    client_secret_file: Option<Value>,
    client_secret_env: Option<Value>,
    client_secret_fd: Option<Value>,
    token_file: Option<Value>,
    authority_host: Option<Value>,
    vault_address: Option<Value>,
    ca_file: Option<Value>,
    connect_timeout_ms: Option<Value>,
    attempt_timeout_ms: Option<Value>,
    max_attempts: Option<Value>,
    allowed_key_ids: Option<Value>,
}

impl Settings {
    /// Reads and checks settings.
    pub(crate) fn parse(text: &str) -> Result<Self, BackendError> {
        let fields: Fields = SETTINGS.read(text)?;
        let path = |field, value| {
            let path = SETTINGS.text(field, value, 4096)?;
            Ok::<_, BackendError>(path.map(PathBuf::from))
        };
        let token_file = path("token_file", fields.token_file)?;
        let secret = SecretSource::parse(
            SETTINGS,
            "client_secret",
            fields.client_secret_env,
            fields.client_secret_fd,
            fields.client_secret_file,
        )?;
        let credential = credential(
            fields.credential,
            fields.tenant_id,
            fields.client_id,
            secret,
            token_file.as_ref(),
        )?;
        let vault_address = SETTINGS
            .text("vault_address", fields.vault_address, 64)?
            .map(|text| {
                text.parse::<SocketAddr>()
                    .ok()
                    .filter(|address| address.port() != 0)
                    .ok_or_else(|| {
                        SETTINGS.wrong_field(
                            "vault_address",
                            "must be an address and a port, such as 10.0.0.4:443",
                        )
                    })
            })
            .transpose()?;
        let millis = |field, value, default| {
            SETTINGS
                .number(field, value, 1..=TIMEOUT_MAX_MS, default)
                .map(Duration::from_millis)
        };
        let max_attempts = SETTINGS.number("max_attempts", fields.max_attempts, 1..=10, MAX_ATTEMPTS)?;
        let allowed_key_ids = fields
            .allowed_key_ids
            .filter(|value| !value.is_null())
            .map(|list| {
                Allowed::parse(
                    SETTINGS,
                    "allowed_key_ids",
                    Some(list),
                    "https://",
                    "a key identifier",
                )
            })
            .transpose()?;
        Ok(Self {
            credential,
            token_file,
            authority_host: authority_host(fields.authority_host)?,
            vault_address,
            ca_file: path("ca_file", fields.ca_file)?,
            connect_timeout: millis(
                "connect_timeout_ms",
                fields.connect_timeout_ms,
                CONNECT_TIMEOUT_MS,
            )?,
            attempt_timeout: millis(
                "attempt_timeout_ms",
                fields.attempt_timeout_ms,
                ATTEMPT_TIMEOUT_MS,
            )?,
            max_attempts: u32::try_from(max_attempts).expect("the range ends at 10"),
            allowed_key_ids,
        })
    }

    /// Says why a config may not name this key, if it may not.
    pub(crate) fn check_allowed(&self, key: &KeyId) -> Result<(), String> {
        match &self.allowed_key_ids {
            Some(allowed) if allowed.allows(key.as_str()) => Ok(()),
            Some(_) => Err(format!(
                "is {key}, which no pattern in allowed_key_ids of the settings allows; the application must add it there first"
            )),
            None if key.cloud() == Cloud::Other => Err(format!(
                "is {key}, whose host is none of Azure's key vaults; if it is right, the application must name it in allowed_key_ids of the settings"
            )),
            None => Ok(()),
        }
    }

    /// The JSON Schema of the settings.
    pub(crate) fn schema() -> Value {
        let text =
            |description: &str| json!({ "type": "string", "minLength": 1, "description": description });
        let millis = |default: u64, description: &str| json!({ "type": "integer", "minimum": 1, "maximum": TIMEOUT_MAX_MS, "default": default, "description": description });
        json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "credential": { "enum": ["client-secret", "workload-identity", "managed-identity", "developer-tools"],
                    "description": "The application's own credential, for keys whose config has no workload_identity" },
                "tenant_id": text("Tenant of the application's own identity"),
                "client_id": text("Client id of the application's own identity; for managed-identity that of a user-assigned one"),
                "client_secret_file": text("File whose first line is the client secret"),
                "client_secret_env": text("Environment variable with the client secret"),
                "client_secret_fd": { "type": "integer", "minimum": 0, "description": "Descriptor to read the client secret from, once" },
                "token_file": text("Path of an OpenID Connect token; read anew for each session"),
                "authority_host": text("Sign-in service instead of the cloud's own: https://host[:port]"),
                "vault_address": text("Address and port to reach vaults at instead of what their names stand for, such as a private endpoint; TLS still checks the vault's name"),
                "ca_file": text("File of certificates (PEM) to trust beside the system's"),
                "connect_timeout_ms": millis(CONNECT_TIMEOUT_MS, "Longest wait for a connection"),
                "attempt_timeout_ms": millis(ATTEMPT_TIMEOUT_MS, "Longest wait for one attempt of a request"),
                "max_attempts": { "type": "integer", "minimum": 1, "maximum": 10, "default": MAX_ATTEMPTS,
                    "description": "Attempts of one request, the first included; the call's own deadline ends them earlier" },
                "allowed_key_ids": { "type": "array", "items": { "type": "string" },
                    "description": "Keys that a stored config may name: whole key identifiers, or beginnings of them followed by *. Without it any in Azure's own domains" }
            }
        })
    }
}

fn credential(
    kind: Option<Value>,
    tenant_id: Option<Value>,
    client_id: Option<Value>,
    secret: Option<SecretSource>,
    token_file: Option<&PathBuf>,
) -> Result<Option<Credential>, BackendError> {
    let kind = SETTINGS.text("credential", kind, 64)?;
    let tenant_id = SETTINGS.text("tenant_id", tenant_id, 253)?;
    let client_id = SETTINGS.text("client_id", client_id, 64)?;
    if let Some(tenant) = &tenant_id {
        check_tenant_id(tenant).map_err(|what| SETTINGS.wrong_field("tenant_id", what))?;
    }
    if let Some(client) = &client_id {
        check_client_id(client).map_err(|what| SETTINGS.wrong_field("client_id", what))?;
    }
    let unused = |field: &str, given: bool, with: &str| {
        if given {
            Err(SETTINGS.wrong_field(field, format!("is of no use {with}")))
        } else {
            Ok(())
        }
    };
    let missing = |field: &str, what: &str| SETTINGS.wrong_field(field, format!("is missing; give {what}"));
    match kind.as_deref() {
        None => {
            let with = format!("without credential; say {KINDS} there");
            unused("client_secret_*", secret.is_some(), &with)?;
            unused("tenant_id", tenant_id.is_some(), &with)?;
            unused("client_id", client_id.is_some(), &with)?;
            Ok(None)
        }
        Some("client-secret") => Ok(Some(Credential::ClientSecret {
            tenant_id: tenant_id.ok_or_else(|| missing("tenant_id", "the tenant of the application"))?,
            client_id: client_id.ok_or_else(|| missing("client_id", "the client id of the application"))?,
            secret: secret.ok_or_else(|| {
                missing(
                    "client_secret_file",
                    "it, or client_secret_env or client_secret_fd: where the client secret is",
                )
            })?,
        })),
        Some("workload-identity") => {
            unused("client_secret_*", secret.is_some(), "with this credential")?;
            let or_environment = |field: &str, given: Option<String>, variable: &str| {
                let set = || std::env::var(variable).ok().filter(|value| !value.is_empty());
                given
                    .or_else(set)
                    .ok_or_else(|| missing(field, &format!("it, or set {variable} in the environment")))
            };
            let token_file = token_file.map(|path| path.display().to_string());
            let tenant_id = or_environment("tenant_id", tenant_id, "AZURE_TENANT_ID")?;
            let client_id = or_environment("client_id", client_id, "AZURE_CLIENT_ID")?;
            check_tenant_id(&tenant_id).map_err(|what| SETTINGS.wrong_field("tenant_id", what))?;
            check_client_id(&client_id).map_err(|what| SETTINGS.wrong_field("client_id", what))?;
            Ok(Some(Credential::WorkloadIdentity {
                tenant_id,
                client_id,
                token_file: or_environment("token_file", token_file, "AZURE_FEDERATED_TOKEN_FILE")?.into(),
            }))
        }
        Some("managed-identity") => {
            unused("client_secret_*", secret.is_some(), "with this credential")?;
            unused("tenant_id", tenant_id.is_some(), "with this credential")?;
            Ok(Some(Credential::ManagedIdentity { client_id }))
        }
        Some("developer-tools") => {
            unused("client_secret_*", secret.is_some(), "with this credential")?;
            unused("tenant_id", tenant_id.is_some(), "with this credential")?;
            unused("client_id", client_id.is_some(), "with this credential")?;
            Ok(Some(Credential::DeveloperTools))
        }
        Some(_) => Err(SETTINGS.wrong_field("credential", format!("must be {KINDS}"))),
    }
}

/// Secrets and tokens go there: https only, and no path, for the SDK puts its own.
fn authority_host(value: Option<Value>) -> Result<Option<String>, BackendError> {
    let Some(url) = SETTINGS.endpoint("authority_host", value)? else {
        return Ok(None);
    };
    let url = url.trim_end_matches('/').to_owned();
    match url.strip_prefix("https://") {
        Some(host) if !host.contains(['/', '?', '#']) => Ok(Some(url)),
        _ => Err(SETTINGS.wrong_field("authority_host", "must be https://host[:port], without a path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_backend::ErrorCode;

    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    const CLIENT: &str = "0f9b7e31-5d27-4d0c-8f1e-6a2b3c4d5e6f";

    #[test]
    fn no_settings_are_the_defaults() {
        let settings = Settings::parse("{}").unwrap();
        assert_eq!(settings.connect_timeout, Duration::from_secs(2));
        assert_eq!(settings.attempt_timeout, Duration::from_secs(5));
        assert_eq!(settings.max_attempts, 3);
        assert!(settings.credential.is_none() && settings.authority_host.is_none());
    }

    #[test]
    fn each_credential_is_said_by_its_name() {
        let parse = |settings: Value| {
            let settings = Settings::parse(&settings.to_string());
            settings.map(|settings| settings.credential.unwrap())
        };
        let secret = SecretSource::parse(SETTINGS, "client_secret", Some(json!("S")), None, None).unwrap();
        assert_eq!(
            parse(
                json!({ "credential": "client-secret", "tenant_id": TENANT, "client_id": CLIENT, "client_secret_env": "S" })
            )
            .unwrap(),
            Credential::ClientSecret {
                tenant_id: TENANT.into(),
                client_id: CLIENT.into(),
                secret: secret.unwrap(),
            }
        );
        assert_eq!(
            parse(
                json!({ "credential": "workload-identity", "tenant_id": TENANT, "client_id": CLIENT, "token_file": "/t" })
            )
            .unwrap(),
            Credential::WorkloadIdentity {
                tenant_id: TENANT.into(),
                client_id: CLIENT.into(),
                token_file: "/t".into(),
            }
        );
        assert_eq!(
            parse(json!({ "credential": "managed-identity" })).unwrap(),
            Credential::ManagedIdentity { client_id: None }
        );
        assert_eq!(
            parse(json!({ "credential": "developer-tools" })).unwrap(),
            Credential::DeveloperTools
        );
    }

    #[test]
    fn every_wrong_setting_is_refused_and_the_field_is_named() {
        for (settings, words) in [
            (json!({ "endpoint": "https://x" }), "unknown field `endpoint`"),
            (
                json!({ "client_secret": "hunter2" }),
                "unknown field `client_secret`",
            ),
            (
                json!({ "credential": "password" }),
                "credential in the settings of the backend azure-key-vault must be client-secret",
            ),
            (json!({ "credential": "client-secret" }), "tenant_id"),
            (
                json!({ "credential": "client-secret", "tenant_id": TENANT }),
                "client_id",
            ),
            (
                json!({ "credential": "client-secret", "tenant_id": TENANT, "client_id": CLIENT }),
                "client_secret_file",
            ),
            (
                json!({ "credential": "client-secret", "tenant_id": "a/b", "client_id": CLIENT, "client_secret_fd": 3 }),
                "tenant_id",
            ),
            (
                json!({ "credential": "client-secret", "tenant_id": TENANT, "client_id": "me", "client_secret_fd": 3 }),
                "client_id",
            ),
            (
                json!({ "credential": "managed-identity", "tenant_id": TENANT }),
                "tenant_id in the settings of the backend azure-key-vault is of no use",
            ),
            (
                json!({ "credential": "developer-tools", "client_id": CLIENT }),
                "client_id",
            ),
            (json!({ "client_id": CLIENT }), "without credential"),
            (
                json!({ "client_secret_env": "S", "client_secret_fd": 3 }),
                "client_secret_fd in the settings",
            ),
            (json!({ "authority_host": "login.example" }), "authority_host"),
            (
                json!({ "authority_host": "http://127.0.0.1:1" }),
                "authority_host",
            ),
            (
                json!({ "authority_host": "https://login.example/tenant" }),
                "without a path",
            ),
            (json!({ "vault_address": "vault.example:443" }), "vault_address"),
            (json!({ "vault_address": "10.0.0.4" }), "vault_address"),
            (json!({ "ca_file": 7 }), "ca_file"),
            (json!({ "connect_timeout_ms": 0 }), "connect_timeout_ms"),
            (json!({ "attempt_timeout_ms": "1s" }), "attempt_timeout_ms"),
            (json!({ "max_attempts": 11 }), "max_attempts"),
            (json!({ "allowed_key_ids": "https://*" }), "allowed_key_ids"),
            (json!({ "allowed_key_ids": ["*"] }), "allowed_key_ids[0]"),
        ] {
            let error = Settings::parse(&settings.to_string())
                .err()
                .unwrap_or_else(|| panic!("{settings} passed"));
            assert_eq!(error.code, ErrorCode::InvalidConfig);
            assert!(error.message.contains(words), "{settings}: {error}");
            assert!(!error.message.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_host_that_is_not_azures_must_be_allowed_by_the_settings() {
        let key = |text| KeyId::parse(text).unwrap();
        let azure = key("https://acme.vault.azure.net/keys/k");
        let stack = key("https://acme.vault.local.azurestack.external/keys/k");
        let none = Settings::parse("{}").unwrap();
        none.check_allowed(&azure).unwrap();
        assert!(
            none.check_allowed(&stack)
                .unwrap_err()
                .contains("allowed_key_ids")
        );
        let some = Settings::parse(
            r#"{"allowed_key_ids": ["https://acme.vault.local.azurestack.external/keys/*"]}"#,
        )
        .unwrap();
        some.check_allowed(&stack).unwrap();
        assert!(
            some.check_allowed(&azure)
                .unwrap_err()
                .contains("allowed_key_ids")
        );
    }
}
