//! The application's settings for this backend. Trusted, but read just as strictly.

use std::path::PathBuf;
use std::time::Duration;

use keystead_backend::BackendError;
use keystead_backend_common::{Allowed, Object, SecretSource};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::path::{KeyPath, PATH_MAX_BYTES, check_path};

/// The settings, checked. No secret is among them: they say where one is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) server: Server,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) own: Option<OwnIdentity>,
    allowed_keys: Allowed,
}

/// Where the server is, and how long it is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// Without a `/` at its end.
    pub(crate) address: String,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) connect_timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) max_attempts: u32,
}

/// As whom the application uses keys whose config names no role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OwnIdentity {
    /// A token of the server's, in a file.
    TokenFile(PathBuf),
    /// An AppRole.
    AppRole {
        role_id: String,
        secret_id: SecretSource,
        mount: String,
        namespace: Option<String>,
    },
}

pub(crate) const SETTINGS: Object = Object::Settings("transit");

const CONNECT_TIMEOUT_MS: u64 = 2_000;
const ATTEMPT_TIMEOUT_MS: u64 = 5_000;
const MAX_ATTEMPTS: u64 = 3;
const TIMEOUT_MAX_MS: u64 = 600_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    address: Option<Value>,
    ca_file: Option<Value>,
    token_file: Option<Value>,
    vault_token_file: Option<Value>,
    approle_role_id: Option<Value>,
    approle_secret_id_env: Option<Value>,
    approle_secret_id_file: Option<Value>,
    approle_mount: Option<Value>,
    approle_namespace: Option<Value>,
    connect_timeout_ms: Option<Value>,
    attempt_timeout_ms: Option<Value>,
    max_attempts: Option<Value>,
    allowed_keys: Option<Value>,
}

impl Settings {
    /// Reads and checks settings.
    pub(crate) fn parse(text: &str) -> Result<Self, BackendError> {
        let mut fields: Fields = SETTINGS.read(text)?;
        let path = |field, value| -> Result<Option<PathBuf>, BackendError> {
            Ok(SETTINGS.text(field, value, 4096)?.map(PathBuf::from))
        };
        let millis = |field, value, default| {
            SETTINGS
                .number(field, value, 1..=TIMEOUT_MAX_MS, default)
                .map(Duration::from_millis)
        };
        let address = SETTINGS
            .endpoint("address", fields.address.take())?
            .ok_or_else(|| {
                SETTINGS.wrong_field(
                    "address",
                    "is missing; give the URL of the server, such as https://bao.example:8200",
                )
            })?;
        if address.contains(['?', '#']) {
            return Err(SETTINGS.wrong_field("address", "must end before a ? or #"));
        }
        let max_attempts =
            SETTINGS.number("max_attempts", fields.max_attempts.take(), 1..=10, MAX_ATTEMPTS)?;
        Ok(Self {
            server: Server {
                address: address.trim_end_matches('/').into(),
                ca_file: path("ca_file", fields.ca_file.take())?,
                connect_timeout: millis(
                    "connect_timeout_ms",
                    fields.connect_timeout_ms.take(),
                    CONNECT_TIMEOUT_MS,
                )?,
                attempt_timeout: millis(
                    "attempt_timeout_ms",
                    fields.attempt_timeout_ms.take(),
                    ATTEMPT_TIMEOUT_MS,
                )?,
                max_attempts: u32::try_from(max_attempts).expect("the range ends at 10"),
            },
            token_file: path("token_file", fields.token_file.take())?,
            allowed_keys: Allowed::parse(
                SETTINGS,
                "allowed_keys",
                fields.allowed_keys.take(),
                "",
                "the path of a key",
            )?,
            own: own_identity(fields)?,
        })
    }

    /// True when a config may name this key.
    pub(crate) fn allows(&self, key: &KeyPath) -> bool {
        self.allowed_keys.allows(&key.to_string())
    }

    /// The JSON Schema of the settings.
    pub(crate) fn schema() -> Value {
        let text =
            |description: &str| json!({ "type": "string", "minLength": 1, "description": description });
        let millis = |default: u64, description: &str| json!({ "type": "integer", "minimum": 1, "maximum": TIMEOUT_MAX_MS, "default": default, "description": description });
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["address"],
            "properties": {
                "address": text("URL of the server, such as https://bao.example:8200; plain http only on loopback"),
                "ca_file": text("Path of the certificates (PEM) that the server's must come from, in place of the system's"),
                "token_file": text("Path of the OpenID Connect token for keys whose config says identity_token.token_file; read anew for each login"),
                "vault_token_file": text("Path of a token of the server's, for keys whose config names no role; read anew for each call"),
                "approle_role_id": text("AppRole to log in with, for keys whose config names no role"),
                "approle_secret_id_env": text("Environment variable with the AppRole's secret id"),
                "approle_secret_id_file": text("Absolute path of a file whose first line is the AppRole's secret id; read anew for each login"),
                "approle_mount": { "type": "string", "minLength": 1, "default": "approle", "description": "Where the AppRole method is mounted" },
                "approle_namespace": text("Namespace of the AppRole method; the root namespace unless said"),
                "connect_timeout_ms": millis(CONNECT_TIMEOUT_MS, "Longest wait for a connection"),
                "attempt_timeout_ms": millis(ATTEMPT_TIMEOUT_MS, "Longest wait for one attempt of a call"),
                "max_attempts": { "type": "integer", "minimum": 1, "maximum": 10, "default": MAX_ATTEMPTS,
                    "description": "Attempts of one call, the first included; the call's own deadline ends them earlier" },
                "allowed_keys": { "type": "array", "items": { "type": "string" },
                    "description": "Keys that a stored config may name: whole paths such as team/transit/keys/acme, or beginnings of paths followed by *. Without it any" }
            }
        })
    }
}

fn own_identity(fields: Fields) -> Result<Option<OwnIdentity>, BackendError> {
    let token_file = SETTINGS.text("vault_token_file", fields.vault_token_file, 4096)?;
    let role_id = SETTINGS.text("approle_role_id", fields.approle_role_id, 256)?;
    let secret_id = SecretSource::parse(
        SETTINGS,
        "approle_secret_id",
        fields.approle_secret_id_env,
        None,
        fields.approle_secret_id_file,
    )?;
    let mount = SETTINGS.text("approle_mount", fields.approle_mount, PATH_MAX_BYTES)?;
    let namespace = SETTINGS.text("approle_namespace", fields.approle_namespace, PATH_MAX_BYTES)?;
    for (field, path) in [("approle_mount", &mount), ("approle_namespace", &namespace)] {
        if let Some(path) = path {
            check_path(path).map_err(|what| SETTINGS.wrong_field(field, what))?;
        }
    }
    let Some(role_id) = role_id else {
        let lonely = [
            secret_id.as_ref().map(SecretSource::field),
            mount.as_ref().map(|_| "approle_mount"),
            namespace.as_ref().map(|_| "approle_namespace"),
        ];
        if let Some(field) = lonely.into_iter().flatten().next() {
            return Err(SETTINGS.wrong_field(field, "needs approle_role_id beside it"));
        }
        return Ok(token_file.map(|path| OwnIdentity::TokenFile(path.into())));
    };
    if token_file.is_some() {
        return Err(SETTINGS.wrong_field(
            "vault_token_file",
            "cannot stand beside approle_role_id: say one of the two",
        ));
    }
    let secret_id = secret_id.ok_or_else(|| {
        SETTINGS.wrong_field(
            "approle_secret_id_file",
            "is missing beside approle_role_id; or give approle_secret_id_env",
        )
    })?;
    Ok(Some(OwnIdentity::AppRole {
        role_id,
        secret_id,
        mount: mount.unwrap_or_else(|| "approle".into()),
        namespace,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_backend::ErrorCode;

    const ADDRESS: &str = "https://bao.example:8200";

    fn parse(mut settings: Value) -> Result<Settings, BackendError> {
        if settings.get("address").is_none() {
            settings["address"] = json!(ADDRESS);
        }
        Settings::parse(&settings.to_string())
    }

    #[test]
    fn an_address_is_enough_and_the_rest_has_defaults() {
        let settings = parse(json!({ "address": "https://bao.example:8200/" })).unwrap();
        assert_eq!(settings.server.address, ADDRESS);
        assert_eq!(settings.server.connect_timeout, Duration::from_secs(2));
        assert_eq!(settings.server.attempt_timeout, Duration::from_secs(5));
        assert_eq!(settings.server.max_attempts, 3);
        assert_eq!(settings.own, None);
    }

    #[test]
    fn the_application_is_an_approle_or_has_a_token() {
        let own = |settings| parse(settings).unwrap().own.unwrap();
        assert_eq!(
            own(json!({ "vault_token_file": "/run/token" })),
            OwnIdentity::TokenFile("/run/token".into())
        );
        let OwnIdentity::AppRole {
            mount,
            namespace,
            secret_id,
            ..
        } = own(json!({ "approle_role_id": "r", "approle_secret_id_file": "/run/secret" }))
        else {
            panic!("not an AppRole")
        };
        assert_eq!(
            (mount.as_str(), namespace, secret_id.field()),
            ("approle", None, "approle_secret_id_file")
        );
    }

    #[test]
    fn every_wrong_setting_is_refused_and_the_field_is_named() {
        assert!(
            Settings::parse("{}")
                .unwrap_err()
                .message
                .starts_with("address in the settings")
        );
        for (settings, words) in [
            (json!({ "token": "hvs.hunter2" }), "unknown field `token`"),
            (
                json!({ "approle_secret_id": "hunter2" }),
                "unknown field `approle_secret_id`",
            ),
            (
                json!({ "address": "http://bao.example" }),
                "address in the settings of the backend transit is plain http",
            ),
            (
                json!({ "address": "https://bao.example/?x" }),
                "address in the settings",
            ),
            (json!({ "max_attempts": 0 }), "max_attempts in the settings"),
            (
                json!({ "approle_mount": "approle" }),
                "approle_mount in the settings",
            ),
            (
                json!({ "approle_secret_id_env": "S" }),
                "approle_secret_id_env in the settings",
            ),
            (
                json!({ "approle_role_id": "r" }),
                "approle_secret_id_file in the settings",
            ),
            (
                json!({ "approle_role_id": "r", "approle_secret_id_file": "hunter2" }),
                "approle_secret_id_file in the settings",
            ),
            (
                json!({ "approle_role_id": "r", "approle_secret_id_env": "S", "approle_mount": "../sys" }),
                "approle_mount in the settings",
            ),
            (
                json!({ "approle_role_id": "r", "approle_secret_id_env": "S", "vault_token_file": "/t" }),
                "vault_token_file in the settings",
            ),
            (
                json!({ "allowed_keys": "transit/keys/acme" }),
                "allowed_keys in the settings",
            ),
        ] {
            let error = parse(settings.clone()).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidConfig);
            assert!(error.message.contains(words), "{settings}: {error}");
            assert!(!error.message.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_schema_has_the_fields_that_are_read() {
        let schema = Settings::schema();
        for field in schema["properties"].as_object().unwrap().keys() {
            let error = Settings::parse(&format!("{{\"{field}\": {{}}}}")).unwrap_err();
            assert!(!error.message.contains("unknown field"), "{field}: {error}");
        }
    }
}
