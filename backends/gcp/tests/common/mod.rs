//! What the tests of this backend share: a host, a key that a service account may use, and short ways to open and call.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

use std::sync::Arc;

use keystead_backend::{Context, KeyInstance};
use keystead_gcp_kms::GcpKmsBackend;
use keystead_tests::direct;
pub(crate) use keystead_tests::direct::{KEY, TestHost, assert_fails, call, context, unwrap, wrap};
use keystead_tests::emulators::Gcp;
use serde_json::{Value, json};

/// A key with one version, and a service account that may use it.
pub(crate) struct Granted {
    pub(crate) key: String,
    pub(crate) member: String,
    /// The service account's file, as JSON.
    pub(crate) file: Value,
    /// Settings with that service account; one attempt, unless a test wants more.
    pub(crate) settings: Value,
    _directory: tempfile::TempDir,
}

impl Granted {
    pub(crate) fn new(gcp: &Gcp) -> Self {
        let key = gcp.create_key().unwrap();
        let (email, file) = gcp.service_account().unwrap();
        let member = format!("serviceAccount:{email}");
        gcp.grant(&key, "cryptoKeyEncrypterDecrypter", &[&member])
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("service-account.json");
        std::fs::write(&path, file.to_string()).unwrap();
        let mut settings = gcp.settings();
        settings["service_account_file"] = json!(path);
        settings["max_attempts"] = json!(1);
        // A busy machine is no outage.
        settings["attempt_timeout_ms"] = json!(20_000);
        Self {
            key,
            member,
            file,
            settings,
            _directory: directory,
        }
    }

    pub(crate) fn config(&self) -> Value {
        json!({ "key_name": self.key })
    }

    pub(crate) fn open(&self) -> Box<dyn KeyInstance> {
        open(&self.settings, &self.config())
    }

    pub(crate) fn version(&self, number: u32) -> String {
        format!("{}/cryptoKeyVersions/{number}", self.key)
    }

    /// The names of the calls that were made with the key.
    pub(crate) fn calls(&self, gcp: &Gcp) -> Vec<String> {
        let requests = gcp.requests(&self.key).unwrap();
        let names = requests
            .iter()
            .filter_map(|request| request["rpc"].as_str())
            .filter(|name| matches!(*name, "Encrypt" | "Decrypt"));
        names.map(str::to_owned).collect()
    }
}

pub(crate) fn open(settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    open_with(Arc::default(), settings, config)
}

pub(crate) fn open_with(host: Arc<TestHost>, settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    // A backend of its own: it lives as long as the instance.
    direct::open_with(&GcpKmsBackend::default(), host, settings, config)
}

pub(crate) fn context_of(epoch: &str) -> Context {
    let [store, organization, (name, _)] = direct::CONTEXT;
    Context::new([store, organization, (name, epoch)])
}

/// An answer of Google's that is an error, as a fault.
pub(crate) fn refusal(rpc: &str, http: u16, status: &str, message: &str) -> Value {
    json!({ "rpc": rpc, "status": http,
        "body": { "error": { "code": http, "status": status, "message": message } } })
}
