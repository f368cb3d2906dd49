//! What the tests of this backend share: a host, and short ways to open and call.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

use std::sync::Arc;

use keystead_azure_key_vault::AzureKeyVaultBackend;
use keystead_backend::{BackendError, KeyInstance};
use keystead_tests::direct;
pub(crate) use keystead_tests::direct::{KEY, TestHost, assert_fails, call, context, unwrap, wrap};
use keystead_tests::emulators::{Application, Azure};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) fn open(settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    open_with(Arc::default(), settings, config)
}

pub(crate) fn open_with(host: Arc<TestHost>, settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    direct::open_with(&AzureKeyVaultBackend::default(), host, settings, config)
}

pub(crate) fn try_open(
    host: Arc<TestHost>,
    settings: &Value,
    config: &Value,
) -> Result<Box<dyn KeyInstance>, BackendError> {
    direct::try_open(&AzureKeyVaultBackend::default(), host, settings, config)
}

/// A key, an application that may use it, and settings by which the backend is that application.
pub(crate) struct Owned {
    pub(crate) key: String,
    pub(crate) version: String,
    pub(crate) application: Application,
    pub(crate) settings: Value,
    directory: TempDir,
}

impl Owned {
    /// A key in `vault`, whose application may wrap and unwrap with it.
    pub(crate) fn new(azure: &Azure, vault: &str) -> Self {
        let (key, version) = azure.create_key(vault, "keystead").unwrap();
        let application = azure.create_application().unwrap();
        azure.grant(&key, &application, &["wrap", "unwrap"]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("client-secret");
        std::fs::write(&file, format!("{}\n", application.secret)).unwrap();
        let settings = application.by_secret_file(azure.settings(), &file);
        Self {
            key,
            version,
            application,
            settings,
            directory,
        }
    }

    /// The key's identifier with the version that it had at first.
    pub(crate) fn first_version(&self) -> String {
        format!("{}/{}", self.key, self.version)
    }

    pub(crate) fn open(&self) -> Box<dyn KeyInstance> {
        open(&self.settings, &json!({ "key_id": self.key }))
    }

    /// A directory of its own.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}
