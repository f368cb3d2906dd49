//! What stands for Azure: Key Vaults, a managed HSM, Entra ID, managed identities; and Microsoft's own client.
//!
//! No emulator of Key Vault was found that wraps keys and has states, grants and a sign-in that checks anything. This is a server
//! of our own, `tests/emulators/azure.py`, on Microsoft's published definitions; it shares no code with the backend, and Microsoft's
//! Python client works with it as it is. What it proves is that backend and client agree about the interface; what Azure does beside
//! that, and how fast a change takes effect there, it cannot prove.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::install::{Peer, install};
use super::process::{Process, Start};
use super::{SKIP_VARIABLE, is_skipped};

pub(super) const PEER: Peer = Peer {
    name: "azure",
    backend: "azure-key-vault",
    requirements: include_str!("../../emulators/azure.txt"),
    program: include_str!("../../emulators/azure.py"),
};

/// The tenant in which everything is made unless another is said.
pub const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

/// A running peer.
#[derive(Debug)]
pub struct Azure {
    pub(super) process: Process,
    python: PathBuf,
    agent: ureq::Agent,
    authority: tempfile::NamedTempFile,
}

/// An application or a managed identity in a tenant.
#[derive(Debug, Clone)]
pub struct Application {
    /// Its tenant.
    pub tenant: String,
    /// Its client id.
    pub client_id: String,
    /// Its client secret; it guards nothing but this peer.
    pub secret: String,
}

impl Azure {
    /// Starts one, installing what it needs first, and waits until it answers.
    ///
    /// # Errors
    ///
    /// The installation failed, or it did not answer within a minute; the message has the last lines of its log.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_by(Process::start)
    }

    /// Starts one in which everything outlives its process.
    pub(super) fn start_kept() -> anyhow::Result<Self> {
        Self::start_by(Process::start_kept)
    }

    fn start_by(start: Start) -> anyhow::Result<Self> {
        let python = install(&PEER).context("installing what stands for Azure")?;
        let process = start(&PEER, &python, &["serve"]).context("starting what stands for Azure")?;
        let mut authority = tempfile::NamedTempFile::new()?;
        let certificate = process.certificate().context("it has no certificate")?;
        authority.write_all(certificate.as_bytes())?;
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(30)))
            .proxy(None)
            .build()
            .new_agent();
        Ok(Self {
            process,
            python,
            agent,
            authority,
        })
    }

    /// The one that all tests of this process share. `None` if emulators are to be skipped; then `left_out` has been printed.
    ///
    /// # Panics
    ///
    /// When it cannot be started: a test that needs it fails without it, unless it was told to skip.
    pub fn shared_or_skip(left_out: &str) -> Option<&'static Self> {
        static SHARED: OnceLock<Azure> = OnceLock::new();
        (!is_skipped(left_out)).then(|| SHARED.get_or_init(Self::start_or_explain))
    }

    /// One for a test alone, which pauses it, injects faults, or counts its requests. `None` if emulators are to be skipped;
    /// then `left_out` has been printed.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn own_or_skip(left_out: &str) -> Option<Self> {
        (!is_skipped(left_out)).then(Self::start_or_explain)
    }

    fn start_or_explain() -> Self {
        Self::start()
            .unwrap_or_else(|error| panic!("{error:#}\n(to leave out what needs it, set {SKIP_VARIABLE}=1)"))
    }

    /// The port at which vaults and Entra ID answer.
    ///
    /// # Panics
    ///
    /// Never: it was announced.
    pub fn https_port(&self) -> u16 {
        self.process.https_port().expect("it was announced")
    }

    /// Settings for the backend `azure-key-vault`: where vaults and the sign-in are, whom to trust, and patience, since a busy machine
    /// is no outage. No credential.
    pub fn settings(&self) -> Value {
        json!({
            "authority_host": format!("https://127.0.0.1:{}", self.https_port()),
            "vault_address": format!("127.0.0.1:{}", self.https_port()),
            "ca_file": self.authority_file(),
            "connect_timeout_ms": 20_000,
            "attempt_timeout_ms": 20_000,
        })
    }

    /// The file with the certificate of the authority that has certified it.
    pub fn authority_file(&self) -> &Path {
        self.authority.path()
    }

    /// Where the machine asks for tokens of its managed identity.
    ///
    /// # Panics
    ///
    /// Never: the port was announced.
    pub fn identity_endpoint(&self) -> String {
        format!(
            "http://127.0.0.1:{}/msi/token",
            self.process.port().expect("it was announced")
        )
    }

    /// An action of the owner's side, as `tests/emulators/azure.py` documents it.
    ///
    /// # Errors
    ///
    /// It was not reached, or refused.
    pub fn control(&self, action: &str, said: &Value) -> anyhow::Result<Value> {
        let port = self.process.port().context("it has no port")?;
        let mut answer = self
            .agent
            .post(format!("http://127.0.0.1:{port}/control/{action}"))
            .send(said.to_string())
            .with_context(|| format!("asking it for {action}"))?;
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    }

    /// Makes a key, or a new version of it, and returns its identifier and the version.
    ///
    /// # Errors
    ///
    /// Like every call here: it was not reached, or refused.
    pub fn create_key(&self, vault: &str, name: &str) -> anyhow::Result<(String, String)> {
        let (kty, bits) = if vault.ends_with(".managedhsm.azure.net") {
            ("oct-HSM", 256)
        } else {
            ("RSA", 2048)
        };
        let said = json!({ "vault": vault, "tenant": TENANT, "name": name, "kty": kty, "bits": bits });
        let answer = self.control("create_key", &said)?;
        let text = |field: &str| Some(answer[field].as_str()?.to_owned());
        let made = text("id").zip(text("version"));
        made.context("it made a key without a name")
    }

    /// Switches a key's versions on or off; with a version, that one.
    pub fn set_enabled(&self, key_id: &str, version: Option<&str>, enabled: bool) -> anyhow::Result<()> {
        let (vault, name) = split(key_id)?;
        let said = json!({ "vault": vault, "name": name, "version": version, "enabled": enabled });
        self.control("set_key", &said).map(drop)
    }

    /// Deletes a key; it can be recovered.
    pub fn delete_key(&self, key_id: &str) -> anyhow::Result<()> {
        let (vault, name) = split(key_id)?;
        self.control("delete_key", &json!({ "vault": vault, "name": name }))
            .map(drop)
    }

    /// Recovers a deleted key.
    pub fn recover_key(&self, key_id: &str) -> anyhow::Result<()> {
        let (vault, name) = split(key_id)?;
        self.control("recover_key", &json!({ "vault": vault, "name": name }))
            .map(drop)
    }

    /// Makes an application in [`TENANT`].
    pub fn create_application(&self) -> anyhow::Result<Application> {
        let answer = self.control("create_application", &json!({ "tenant": TENANT }))?;
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        Ok(Application {
            tenant: TENANT.into(),
            client_id: text("client_id"),
            secret: text("secret"),
        })
    }

    /// Lets an application do this with a key, in place of what it was allowed before: `read`, `wrap`, `unwrap`.
    pub fn grant(&self, key_id: &str, to: &Application, actions: &[&str]) -> anyhow::Result<()> {
        let (vault, name) = split(key_id)?;
        let said = json!({ "vault": vault, "name": name, "client_id": to.client_id, "actions": actions });
        self.control("grant", &said).map(drop)
    }

    /// Lets tokens of an issuer, subject and audience stand for an application.
    pub fn federate(
        &self,
        application: &Application,
        issuer: &str,
        subject: &str,
        audience: &str,
    ) -> anyhow::Result<()> {
        let said = json!({
            "tenant": application.tenant, "client_id": application.client_id,
            "issuer": issuer, "subject": subject, "audience": audience,
        });
        self.control("federate", &said).map(drop)
    }

    /// A signed token of an issuer, for so many seconds.
    pub fn mint(&self, issuer: &str, subject: &str, audience: &str, lifetime: i64) -> anyhow::Result<String> {
        let said =
            json!({ "issuer": issuer, "subject": subject, "audience": audience, "lifetime": lifetime });
        let answer = self.control("mint", &said)?;
        Ok(answer["token"].as_str().context("it minted nothing")?.to_owned())
    }

    /// Has requests answered otherwise: see `do_inject` in `tests/emulators/azure.py`.
    pub fn inject(&self, fault: &Value) -> anyhow::Result<()> {
        self.control("inject", fault).map(drop)
    }

    /// The requests since the last time this was asked, oldest first.
    pub fn requests(&self) -> anyhow::Result<Vec<Value>> {
        match self.control("requests", &json!({}))?["requests"].take() {
            Value::Array(requests) => Ok(requests),
            _ => bail!("it said no requests"),
        }
    }

    /// Has Microsoft's own client wrap (or unwrap) with a key, whose identifier has a version. Returns the identifier that it
    /// says, and what came out.
    pub fn microsofts_client(
        &self,
        operation: &str,
        application: &Application,
        key_id: &str,
        algorithm: &str,
        value: &[u8],
    ) -> anyhow::Result<(String, Vec<u8>)> {
        let said = json!({
            "https_port": self.https_port(), "ca_file": self.authority_file(), "tenant": application.tenant,
            "client_id": application.client_id, "secret": application.secret, "key_id": key_id,
            "operation": operation, "algorithm": algorithm, "value": STANDARD.encode(value),
        });
        let mut child = Command::new(&self.python)
            .args(["-c", PEER.program, "client"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut to = child.stdin.take().context("it has no standard input")?;
        writeln!(to, "{said}")?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "Microsoft's client failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        let text = |field: &str| answer[field].as_str().unwrap_or_default();
        Ok((text("key_id").to_owned(), STANDARD.decode(text("value"))?))
    }

    /// Stops it in its tracks: connections are taken and get no answer, until [`resume`](Self::resume).
    ///
    /// # Errors
    ///
    /// The signal could not be sent.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.process.pause()
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// The signal could not be sent.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.process.resume()
    }
}

impl Application {
    /// These settings, with the client secret in this file.
    pub fn by_secret_file(&self, mut settings: Value, file: &Path) -> Value {
        settings["credential"] = json!("client-secret");
        settings["tenant_id"] = json!(self.tenant);
        settings["client_id"] = json!(self.client_id);
        settings["client_secret_file"] = json!(file);
        settings
    }
}

/// The vault's host and the key's name in an identifier.
fn split(key_id: &str) -> anyhow::Result<(&str, &str)> {
    let rest = key_id
        .strip_prefix("https://")
        .context("a key identifier is a URL")?;
    let (vault, rest) = rest.split_once("/keys/").context("it names no key")?;
    Ok((vault, rest.split('/').next().unwrap_or_default()))
}
