//! A real OpenBao server on loopback, an OpenID Connect issuer beside it, and the owner's side of the keys in it.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::install::{Peer, install};
use super::process::{Process, STARTS_MAX, Start};
use super::{SKIP_VARIABLE, is_skipped, pause_a_moment};

/// The server, its vendor's client and the issuer.
pub(super) const PEER: Peer = Peer {
    name: "openbao",
    backend: "transit",
    requirements: include_str!("../../emulators/openbao.txt"),
    program: include_str!("../../emulators/openbao.py"),
};

/// The vendor's client for Python.
const CLIENT: &str = include_str!("../../emulators/openbao_client.py");

/// Whom the issuer's tokens say that they are from.
const ISSUER: &str = "https://keystead.example";

/// A running server in development mode: unsealed, everything in its memory, all features that the real one has. That of an
/// [`Owner`](super::Owner) has its storage in a directory instead.
///
/// Its methods are the owner's side. Plain HTTP, written here: the tests of a backend must not share its client.
///
/// # Examples
///
/// ```no_run
/// use keystead_tests::emulators::OpenBao;
///
/// # fn main() -> anyhow::Result<()> {
/// let Some(bao) = OpenBao::shared_or_skip("a key in Transit") else { return Ok(()) };
/// bao.create_key(None, "acme")?;
/// bao.put_policy(None, "acme", &OpenBao::grant("acme"))?;
/// let token = bao.token("acme", "1h")?; // for the file that the backend's settings name
/// // … use the key …
/// bao.soft_delete(None, "acme")?;
/// // … the use of the key must fail now …
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct OpenBao {
    pub(super) process: Process,
    python: PathBuf,
    address: String,
    root_token: String,
    unseal_key: Option<String>,
    issuer: String,
    agent: ureq::Agent,
}

impl OpenBao {
    /// Starts a server, installing it first if need be, and waits until it is unsealed.
    ///
    /// # Errors
    ///
    /// The installation failed, or the server is not there within a minute; the message has the last lines of its log.
    pub fn start() -> anyhow::Result<Self> {
        Self::some_times(|| {
            let mut bao = Self::start_by(Process::start)?;
            bao.wait_until_unsealed()?;
            bao.enable_transit(None)?;
            Ok(bao)
        })
    }

    /// A server chooses its ports before it binds them, and another test may take them in between: it ends then, and what answers at its
    /// address is somebody else, who does not know its token. So a start counts when the server has done what it is asked first.
    fn some_times(start: impl Fn() -> anyhow::Result<Self>) -> anyhow::Result<Self> {
        let mut starts = 1;
        loop {
            match start() {
                Ok(bao) => return Ok(bao),
                Err(_) if starts < STARTS_MAX => starts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts one that is no development server: its storage is a directory, which outlives its process.
    pub(super) fn start_kept() -> anyhow::Result<Self> {
        Self::some_times(Self::start_kept_once)
    }

    fn start_kept_once() -> anyhow::Result<Self> {
        let mut bao = Self::start_by(Process::start_kept)?;
        let one_share = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let made = bao.post(None, "sys/init", &one_share)?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        bao.root_token = text(&made["root_token"]).context("OpenBao made no root token")?;
        bao.unseal_key = text(&made["keys_base64"][0]);
        bao.unseal()?;
        bao.enable_transit(None)?;
        Ok(bao)
    }

    /// Starts one that is kept again, with all that is in its storage, and unseals it.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.process.restart()?;
        self.unseal()
    }

    fn unseal(&mut self) -> anyhow::Result<()> {
        let key = self
            .unseal_key
            .as_deref()
            .context("it is not known what unseals it")?;
        self.post(None, "sys/unseal", &json!({ "key": key }))?;
        self.wait_until_unsealed()
    }

    fn wait_until_unsealed(&mut self) -> anyhow::Result<()> {
        for _ in 0..1200 {
            self.process.still_runs()?;
            if self.call("GET", None, "sys/health", &Value::Null).is_ok() {
                return Ok(());
            }
            pause_a_moment();
        }
        bail!("OpenBao was not unsealed within a minute")
    }

    fn start_by(start: Start) -> anyhow::Result<Self> {
        let python = install(&PEER).context("installing OpenBao")?;
        let process = start(&PEER, &python, &[]).context("starting OpenBao")?;
        let fact = |name: &str| {
            let text = process.text(name).map(str::to_owned);
            text.with_context(|| format!("OpenBao announced no {name}"))
        };
        Ok(Self {
            python,
            address: format!(
                "http://127.0.0.1:{}",
                process.port().context("OpenBao has no port")?
            ),
            root_token: fact("root_token")?,
            unseal_key: None,
            issuer: fact("issuer")?,
            agent: ureq::Agent::config_builder()
                .timeout_global(Some(Duration::from_secs(30)))
                .http_status_as_error(false)
                .proxy(None)
                .build()
                .new_agent(),
            process,
        })
    }

    /// The server that all tests of this process share. `None` if emulators are to be skipped; then `left_out` has been printed.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn shared_or_skip(left_out: &str) -> Option<&'static Self> {
        static SHARED: OnceLock<OpenBao> = OnceLock::new();
        if is_skipped(left_out) {
            return None;
        }
        Some(SHARED.get_or_init(Self::start_or_explain))
    }

    /// A server for one test alone, for tests that pause, seal or stop it. `None` if emulators are to be skipped; then `left_out`
    /// has been printed.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn own_or_skip(left_out: &str) -> Option<Self> {
        (!is_skipped(left_out)).then(Self::start_or_explain)
    }

    fn start_or_explain() -> Self {
        Self::start().unwrap_or_else(|error| {
            panic!("{error:#}\n(to leave out what needs OpenBao, set {SKIP_VARIABLE}=1)")
        })
    }

    /// Where it answers, in plain HTTP.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The same over HTTPS, and the certificate to trust there (PEM, for 127.0.0.1, of this process alone).
    ///
    /// # Panics
    ///
    /// When the server announced none.
    pub fn https(&self) -> (String, &str) {
        let port = self.process.https_port().expect("it announces an https_port");
        let certificate = self.process.certificate().expect("it announces a certificate");
        (format!("https://127.0.0.1:{port}"), certificate)
    }

    /// The token of the root user, who may do anything.
    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// The URL of the issuer; `/keys` and `/once` behind it are key sets.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Any call as the root user. Null as body sends none.
    ///
    /// # Errors
    ///
    /// Like every call here: the server was not reached, or refused; the message has its answer.
    pub fn call(
        &self,
        method: &str,
        namespace: Option<&str>,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", self.address))
            .header("x-vault-token", &self.root_token);
        if let Some(namespace) = namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        let mut answer = self
            .agent
            .run(request.body(text)?)
            .with_context(|| format!("{method} {path}"))?;
        let text = answer.body_mut().read_to_string()?;
        if !answer.status().is_success() {
            bail!(
                "{method} {path} was refused with HTTP {}: {text}",
                answer.status()
            );
        }
        if text.is_empty() {
            Ok(Value::Null)
        } else {
            Ok(serde_json::from_str(&text)?)
        }
    }

    fn post(&self, namespace: Option<&str>, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call("POST", namespace, path, body)
    }

    /// Makes a namespace.
    pub fn create_namespace(&self, path: &str) -> anyhow::Result<()> {
        self.post(None, &format!("sys/namespaces/{path}"), &json!({}))
            .map(drop)
    }

    /// Locks a namespace, and returns what unlocks it.
    pub fn lock_namespace(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.post(None, &format!("sys/namespaces/api-lock/lock/{path}"), &json!({}))?;
        Ok(answer["data"]["unlock_key"]
            .as_str()
            .context("a lock without an unlock_key")?
            .to_owned())
    }

    /// Unlocks a namespace.
    pub fn unlock_namespace(&self, path: &str, unlock_key: &str) -> anyhow::Result<()> {
        self.post(
            None,
            &format!("sys/namespaces/api-lock/unlock/{path}"),
            &json!({ "unlock_key": unlock_key }),
        )
        .map(drop)
    }

    /// Mounts a Transit engine at `transit`. The root namespace has one from the start.
    pub fn enable_transit(&self, namespace: Option<&str>) -> anyhow::Result<()> {
        self.post(namespace, "sys/mounts/transit", &json!({ "type": "transit" }))
            .map(drop)
    }

    /// Makes a key of the usual type, `aes256-gcm96`.
    pub fn create_key(&self, namespace: Option<&str>, name: &str) -> anyhow::Result<()> {
        self.create_key_of(namespace, name, &json!({ "type": "aes256-gcm96" }))
    }

    /// Makes a key with these parameters.
    pub fn create_key_of(
        &self,
        namespace: Option<&str>,
        name: &str,
        parameters: &Value,
    ) -> anyhow::Result<()> {
        self.post(namespace, &format!("transit/keys/{name}"), parameters)
            .map(drop)
    }

    /// Gives a key a new version.
    pub fn rotate(&self, namespace: Option<&str>, name: &str) -> anyhow::Result<()> {
        self.post(namespace, &format!("transit/keys/{name}/rotate"), &json!({}))
            .map(drop)
    }

    /// Changes a key's config, such as `min_decryption_version`.
    pub fn configure_key(
        &self,
        namespace: Option<&str>,
        name: &str,
        parameters: &Value,
    ) -> anyhow::Result<()> {
        self.post(namespace, &format!("transit/keys/{name}/config"), parameters)
            .map(drop)
    }

    /// Marks a key as deleted: it cannot be used until it is restored.
    pub fn soft_delete(&self, namespace: Option<&str>, name: &str) -> anyhow::Result<()> {
        self.call(
            "DELETE",
            namespace,
            &format!("transit/keys/{name}/soft-delete"),
            &Value::Null,
        )
        .map(drop)
    }

    /// Takes that back.
    pub fn restore(&self, namespace: Option<&str>, name: &str) -> anyhow::Result<()> {
        self.post(
            namespace,
            &format!("transit/keys/{name}/soft-delete-restore"),
            &json!({}),
        )
        .map(drop)
    }

    /// Deletes a key for good.
    pub fn delete_key(&self, namespace: Option<&str>, name: &str) -> anyhow::Result<()> {
        self.configure_key(namespace, name, &json!({ "deletion_allowed": true }))?;
        self.call("DELETE", namespace, &format!("transit/keys/{name}"), &Value::Null)
            .map(drop)
    }

    /// The policy that lets use a key, as the documentation of the backend prints it.
    pub fn grant(key: &str) -> String {
        format!(
            "path \"transit/encrypt/{key}\" {{ capabilities = [\"update\"] }}\n\
             path \"transit/decrypt/{key}\" {{ capabilities = [\"update\"] }}\n"
        )
    }

    /// Makes or replaces a policy.
    pub fn put_policy(&self, namespace: Option<&str>, name: &str, policy: &str) -> anyhow::Result<()> {
        self.post(
            namespace,
            &format!("sys/policies/acl/{name}"),
            &json!({ "policy": policy }),
        )
        .map(drop)
    }

    /// A token of the root namespace with one policy (and the default one), for so long, such as `1h`.
    pub fn token(&self, policy: &str, ttl: &str) -> anyhow::Result<String> {
        self.token_of(&json!({ "policies": [policy], "ttl": ttl, "no_parent": true }))
    }

    /// A token of the root namespace with these parameters.
    pub fn token_of(&self, parameters: &Value) -> anyhow::Result<String> {
        let answer = self.post(None, "auth/token/create", parameters)?;
        Ok(answer["auth"]["client_token"]
            .as_str()
            .context("a token without text")?
            .to_owned())
    }

    /// Takes a token away.
    pub fn revoke(&self, token: &str) -> anyhow::Result<()> {
        self.post(None, "auth/token/revoke", &json!({ "token": token }))
            .map(drop)
    }

    /// Mounts a JWT method at `mount` that trusts the issuer by its key set under `keys` (`keys` or `once`).
    pub fn enable_jwt(&self, namespace: Option<&str>, mount: &str, keys: &str) -> anyhow::Result<()> {
        self.post(namespace, &format!("sys/auth/{mount}"), &json!({ "type": "jwt" }))?;
        let config = json!({ "jwks_url": format!("{}/{keys}", self.issuer), "bound_issuer": ISSUER });
        self.post(namespace, &format!("auth/{mount}/config"), &config)
            .map(drop)
    }

    /// Makes a role for tokens of this audience and subject, as the documentation of the backend prints it; `more` is put over
    /// it.
    pub fn create_role(
        &self,
        namespace: Option<&str>,
        mount: &str,
        role: &str,
        audience: &str,
        subject: &str,
        more: &Value,
    ) -> anyhow::Result<()> {
        let mut body = json!({
            "role_type": "jwt", "user_claim": "sub", "bound_audiences": [audience], "bound_subject": subject,
            "token_policies": [role], "token_ttl": "15m", "token_max_ttl": "1h",
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            body[field] = value.clone();
        }
        self.post(namespace, &format!("auth/{mount}/role/{role}"), &body)
            .map(drop)
    }

    /// A token of the issuer's for this audience and subject, for ten minutes; `more` is put over its claims.
    #[allow(clippy::disallowed_methods, reason = "tokens are about real time")]
    pub fn identity_token(&self, audience: &str, subject: &str, more: &Value) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut claims = json!({
            "iss": ISSUER, "aud": audience, "sub": subject, "iat": now, "nbf": now - 5, "exp": now + 600,
        });
        for (claim, value) in more.as_object().into_iter().flatten() {
            claims[claim] = value.clone();
        }
        let mut answer = self
            .agent
            .post(format!("{}/token", self.issuer))
            .send(claims.to_string())?;
        Ok(answer.body_mut().read_to_string()?)
    }

    /// Mounts AppRole at `approle` and makes a role with one policy; returns its role id. `more` is put over its parameters.
    pub fn create_app_role(&self, name: &str, policy: &str, more: &Value) -> anyhow::Result<String> {
        // It may be there already.
        let _ = self.post(None, "sys/auth/approle", &json!({ "type": "approle" }));
        let mut body = json!({ "token_policies": [policy], "token_ttl": "15m", "token_max_ttl": "1h" });
        for (field, value) in more.as_object().into_iter().flatten() {
            body[field] = value.clone();
        }
        self.post(None, &format!("auth/approle/role/{name}"), &body)?;
        let answer = self.call(
            "GET",
            None,
            &format!("auth/approle/role/{name}/role-id"),
            &Value::Null,
        )?;
        Ok(answer["data"]["role_id"]
            .as_str()
            .context("an AppRole without a role_id")?
            .to_owned())
    }

    /// A new secret id of an AppRole.
    pub fn secret_id(&self, name: &str) -> anyhow::Result<String> {
        let answer = self.post(None, &format!("auth/approle/role/{name}/secret-id"), &json!({}))?;
        Ok(answer["data"]["secret_id"]
            .as_str()
            .context("a secret id without text")?
            .to_owned())
    }

    /// Seals the server: until somebody unseals it, it answers nothing.
    pub fn seal(&self) -> anyhow::Result<()> {
        self.post(None, "sys/seal", &json!({})).map(drop)
    }

    /// Wraps by the vendor's client for Python, as the root user; all in base64. Returns the ciphertext.
    pub fn client_wrap(
        &self,
        namespace: Option<&str>,
        key: &str,
        associated_data: &str,
        plaintext: &str,
    ) -> anyhow::Result<String> {
        let asked = json!({ "associated_data": associated_data, "plaintext": plaintext });
        self.client("wrap", namespace, key, asked)
    }

    /// Unwraps by the vendor's client for Python, as the root user. Returns the plaintext in base64.
    pub fn client_unwrap(
        &self,
        namespace: Option<&str>,
        key: &str,
        associated_data: &str,
        ciphertext: &str,
    ) -> anyhow::Result<String> {
        let asked = json!({ "associated_data": associated_data, "ciphertext": ciphertext });
        self.client("unwrap", namespace, key, asked)
    }

    fn client(
        &self,
        operation: &str,
        namespace: Option<&str>,
        key: &str,
        mut asked: Value,
    ) -> anyhow::Result<String> {
        for (field, value) in [
            ("address", json!(self.address)),
            ("token", json!(self.root_token)),
            ("namespace", json!(namespace)),
            ("mount", json!("transit")),
            ("key", json!(key)),
        ] {
            asked[field] = value;
        }
        let mut client = Command::new(&self.python)
            .args(["-c", CLIENT, operation])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = client.stdin.take().context("the client has no standard input")?;
        stdin.write_all(asked.to_string().as_bytes())?;
        drop(stdin);
        let output = client.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "the vendor's client refused to {operation}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Stops it in its tracks: connections are taken and get no answer, until [`resume`](Self::resume).
    pub fn pause(&self) -> anyhow::Result<()> {
        self.process.pause()
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) -> anyhow::Result<()> {
        self.process.resume()
    }
}
