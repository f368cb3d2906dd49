//! What the tests of this backend share: short ways to open and call, and a server in place of KMS.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

pub(crate) mod scripted;
pub(crate) mod server;

use std::sync::Arc;

use keystead_aws_kms::AwsKmsBackend;
use keystead_backend::{BackendError, KeyInstance};
use keystead_tests::direct;
pub(crate) use keystead_tests::direct::{KEY, TestHost, assert_fails, call, context, unwrap, wrap};
use serde_json::Value;

pub(crate) fn open(settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    open_with(Arc::default(), settings, config)
}

pub(crate) fn open_with(host: Arc<TestHost>, settings: &Value, config: &Value) -> Box<dyn KeyInstance> {
    let settings = direct::patient(settings, &["connect_timeout_ms", "attempt_timeout_ms"]);
    direct::open_with(&AwsKmsBackend::default(), host, &settings, config)
}

pub(crate) fn try_open(
    host: Arc<TestHost>,
    settings: &Value,
    config: &Value,
) -> Result<Box<dyn KeyInstance>, BackendError> {
    direct::try_open(&AwsKmsBackend::default(), host, settings, config)
}
