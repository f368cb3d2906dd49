//! What the tests of this backend share: a host, and short ways to open and call.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

pub(crate) mod server;

use std::path::PathBuf;
use std::sync::Arc;

use keystead_backend::KeyInstance;
use keystead_tests::direct;
pub(crate) use keystead_tests::direct::{KEY, TestHost, assert_fails, call, context, unwrap, wrap};
use keystead_tests::emulators::OpenBao;
use keystead_transit::TransitBackend;
use serde_json::{Value, json};

/// A host that mints what `mint` makes of an audience. What it draws is the least that can be drawn, so that waits are short.
pub(crate) fn host(mint: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Arc<TestHost> {
    TestHost::minting_by(mint).with_random(|out| {
        out.fill(0);
        Ok(())
    })
}

pub(crate) fn open(settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    open_with(host(|_| None), settings, config)
}

pub(crate) fn open_with(host: Arc<TestHost>, settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    direct::open_with(&TransitBackend::default(), host, &patient(settings), config)
}

/// These settings, with which a busy machine is no outage.
pub(crate) fn patient(settings: &Value) -> Value {
    direct::patient(settings, &["connect_timeout_ms", "attempt_timeout_ms"])
}

/// A file with a secret in it, in a directory of its own that goes with it.
pub(crate) struct Secret {
    _directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Secret {
    pub(crate) fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, format!("{text}\n")).unwrap();
        Self {
            _directory: directory,
            path,
        }
    }

    pub(crate) fn replace(&self, text: &str) {
        std::fs::write(&self.path, format!("{text}\n")).unwrap();
    }
}

/// A key in the server, and an application that may use it and do nothing else.
pub(crate) struct Granted {
    pub(crate) bao: &'static OpenBao,
    pub(crate) name: String,
    pub(crate) token: Secret,
    pub(crate) key: Box<dyn KeyInstance>,
}

/// Makes a key of this name and opens it by a token with the least policy.
pub(crate) fn granted(name: &str, left_out: &str) -> Option<Granted> {
    granted_of(name, &json!({}), left_out)
}

pub(crate) fn granted_of(name: &str, parameters: &Value, left_out: &str) -> Option<Granted> {
    let bao = OpenBao::shared_or_skip(left_out)?;
    bao.create_key_of(None, name, parameters).unwrap();
    bao.put_policy(None, name, &OpenBao::grant(name)).unwrap();
    let token = Secret::new(&bao.token(name, "1h").unwrap());
    let key = open(&settings(bao, &token), &json!({ "key": name }));
    Some(Granted {
        bao,
        name: name.into(),
        token,
        key,
    })
}

pub(crate) fn settings(bao: &OpenBao, token: &Secret) -> Value {
    json!({ "address": bao.address(), "vault_token_file": token.path })
}
