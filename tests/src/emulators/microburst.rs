//! microburst: a proxy before an emulator of AWS that throttles, delays, cuts and loses answers, in the form of AWS's own.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::install::{Peer, install};
use super::process::Process;
use super::{Emulator, SKIP_VARIABLE};

/// The proxy.
pub(super) const PEER: Peer = Peer {
    name: "microburst",
    backend: "aws-kms",
    requirements: include_str!("../../emulators/microburst.txt"),
    program: include_str!("../../emulators/microburst.py"),
};

/// A running proxy before one emulator. Ends when it is dropped.
///
/// # Examples
///
/// ```no_run
/// use keystead_tests::emulators::{Emulator, Kind, Microburst};
/// use serde_json::json;
///
/// # fn main() -> anyhow::Result<()> {
/// let Some(aws) = Emulator::shared_or_skip(Kind::Ministack, "throttling") else { return Ok(()) };
/// let proxy = Microburst::before(aws);
/// proxy.rules(&json!([{ "service": "kms", "times": 2, "error": { "code": "ThrottlingException" } }]))?;
/// let settings = proxy.settings(aws); // for the backend
/// // … use a key …
/// assert_eq!(proxy.fired()?.len(), 2);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Microburst {
    process: Process,
    agent: ureq::Agent,
}

impl Microburst {
    /// Starts a proxy before an emulator, without rules: everything passes.
    ///
    /// # Panics
    ///
    /// When it cannot be started. Who has an emulator was not told to skip.
    pub fn before(emulator: &Emulator) -> Self {
        Self::start(emulator.endpoint()).unwrap_or_else(|error| {
            panic!("{error:#}\n(to leave out what needs an AWS emulator, set {SKIP_VARIABLE}=1)")
        })
    }

    fn start(upstream: &str) -> anyhow::Result<Self> {
        let python = install(&PEER).context("installing microburst")?;
        let process = Process::start(&PEER, &python, &[upstream]).context("starting microburst")?;
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(120)))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .new_agent();
        let proxy = Self { process, agent };
        proxy.warm_up()?;
        Ok(proxy)
    }

    /// Has it read AWS's models of KMS and its errors, which takes seconds, before a test's clock runs.
    fn warm_up(&self) -> anyhow::Result<()> {
        self.rules(&json!([{ "service": "kms", "error": { "code": "ThrottlingException" } }]))?;
        let answer = self
            .agent
            .post(self.endpoint())
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=A/20260101/eu-west-1/kms/aws4_request, SignedHeaders=host, Signature=00",
            )
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", "TrentService.Decrypt")
            .send("{}")?;
        if answer.status() != 400 {
            bail!("microburst answered to throttling with HTTP {}", answer.status());
        }
        self.rules(&json!([]))
    }

    /// Where KMS and STS answer through the proxy.
    ///
    /// # Panics
    ///
    /// When the proxy announced no port.
    pub fn endpoint(&self) -> String {
        let port = self.process.port().expect("it announces a port");
        format!("http://127.0.0.1:{port}")
    }

    /// The emulator's settings for the backend `aws-kms`, by way of the proxy.
    pub fn settings(&self, emulator: &Emulator) -> Value {
        let mut settings = emulator.settings();
        settings["endpoint_url"] = json!(self.endpoint());
        settings["sts_endpoint_url"] = json!(self.endpoint());
        settings
    }

    /// Replaces the rules, in microburst's own form.
    ///
    /// # Errors
    ///
    /// The proxy was not reached, or knows no such rule.
    pub fn rules(&self, rules: &Value) -> anyhow::Result<()> {
        self.control("POST", "rules", rules)?;
        self.control("DELETE", "fired", &Value::Null).map(drop)
    }

    /// What the rules did since they were set, such as `error:ThrottlingException`.
    ///
    /// # Errors
    ///
    /// The proxy was not reached.
    pub fn fired(&self) -> anyhow::Result<Vec<String>> {
        let events = self.control("GET", "fired", &Value::Null)?;
        let events = events.as_array().context("what fired is no list")?;
        Ok(events
            .iter()
            .map(|event| event["action"].as_str().unwrap_or_default().to_owned())
            .collect())
    }

    fn control(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}/_microburst/{path}", self.endpoint()))
            .header("content-type", "application/json")
            .body(text)?;
        let mut answer = self.agent.run(request)?;
        let text = answer.body_mut().read_to_string()?;
        if !answer.status().is_success() {
            bail!("microburst refused {path} with HTTP {}: {text}", answer.status());
        }
        Ok(serde_json::from_str(&text)?)
    }
}
