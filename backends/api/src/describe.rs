//! What a backend says about itself.

use serde::{Deserialize, Serialize};

/// A backend's description: who it is, how its config looks, how large its answers can be.
///
/// # Examples
///
/// ```
/// use keystead_backend::Description;
///
/// let description = Description::new("my-kms", "1.0.0");
/// assert!(description.limits.blob_max_bytes >= 64);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The backend's own name, such as `aws-kms`.
    pub name: String,
    /// The backend's version.
    pub version: String,
    /// JSON Schema of the config of a registered key.
    #[serde(default)]
    pub config_schema: serde_json::Value,
    /// JSON Schema of the application's settings.
    #[serde(default)]
    pub settings_schema: serde_json::Value,
    /// The largest sizes of what this backend takes and returns.
    #[serde(default)]
    pub limits: SizeLimits,
    /// What it can do beyond wrapping and unwrapping.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// Kinds of credentials that it understands.
    #[serde(default)]
    pub credentials: Vec<CredentialKind>,
}

impl Description {
    /// A description with default limits, all capabilities off, and empty schemas.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            config_schema: serde_json::json!({}),
            settings_schema: serde_json::json!({}),
            limits: SizeLimits::default(),
            capabilities: Capabilities::default(),
            credentials: Vec::new(),
        }
    }
}

/// The largest sizes of what a backend takes and returns, in bytes: the host takes memory for an answer before it
/// asks, so that no KMS call is repeated for want of room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeLimits {
    /// What can be wrapped.
    pub plaintext_max_bytes: u32,
    /// A wrapped blob.
    pub blob_max_bytes: u32,
    /// A key id.
    pub key_id_max_bytes: u32,
    /// The metadata beside a blob.
    pub metadata_max_bytes: u32,
}

impl Default for SizeLimits {
    fn default() -> Self {
        Self {
            plaintext_max_bytes: 256,
            blob_max_bytes: 8192,
            key_id_max_bytes: 2048,
            metadata_max_bytes: 1024,
        }
    }
}

/// What a backend can do beyond wrapping and unwrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capabilities {
    /// The KMS authenticates the context. Without this the host frames the plaintext with a hash of the context and
    /// checks it after each unwrap.
    pub binds_context: bool,
    /// [`KeyInstance::rewrap`](crate::KeyInstance::rewrap) works.
    pub rewrap: bool,
    /// [`KeyInstance::interrupt`](crate::KeyInstance::interrupt) works.
    pub interrupt: bool,
}

/// A way to prove to a KMS who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialKind {
    /// None is needed: a local file, say.
    None,
    /// The provider's usual chain: environment, profile, instance.
    Ambient,
    /// A token file of a workload identity.
    TokenFile,
    /// A token that the application mints, by [`Host::identity_token`](crate::Host::identity_token).
    MintedToken,
    /// A secret in the application's settings.
    Settings,
}
