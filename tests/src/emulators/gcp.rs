//! What stands for Google Cloud KMS, and the owner's side of the keys in it.
//!
//! No emulator of it is known that has versions, states and permissions. `tests/emulators/gcp.py` is a server built on
//! what Google publishes (its messages and URL templates, from the package google-cloud-kms); it shares nothing with the
//! backend. `tests/emulators/gcp_client.py` is Google's own client: what one of the two wrapped, the other opens.
//!
//! | | |
//! | --- | --- |
//! | wrong context, damaged ciphertext, blob of another key | refused, AES-GCM underneath |
//! | version disabled, scheduled for destruction, destroyed | refused at once (Google: seconds to hours) |
//! | rotation, several versions, older ones opened | yes |
//! | permission to encrypt and to decrypt, by key and identity | checked |
//! | checksums of what is sent | checked |
//! | federated token | signature, times, issuer, audience, attribute condition (a prefix of the subject) |
//! | service account | its self-signed token, or one of the token endpoint |
//! | fields and paths that Google does not have | refused |
//! | quotas, outages, lies | when a test says so: [`Gcp::fault`] |

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::install::{Peer, install};
use super::process::{Process, Start};
use super::{SKIP_VARIABLE, is_skipped};

/// What stands for Google Cloud KMS.
pub(super) const GCP: Peer = Peer {
    name: "gcp",
    backend: "gcp-kms",
    requirements: include_str!("../../emulators/gcp.txt"),
    program: include_str!("../../emulators/gcp.py"),
};

const CLIENT: &str = include_str!("../../emulators/gcp_client.py");

/// The project, location and ring of all keys here.
const RING: &str = "projects/acme-prod/locations/europe-west1/keyRings/keystead";

/// A running server, and all rights in it.
#[derive(Debug)]
pub struct Gcp {
    pub(super) process: Process,
    python: std::path::PathBuf,
    endpoint: String,
    owner_token: String,
    agent: ureq::Agent,
    made: AtomicU32,
}

impl Gcp {
    /// Starts one, installing what it needs first, and makes the key ring.
    ///
    /// # Errors
    ///
    /// The installation failed, or it did not answer within a minute; the message has the end of its log.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_by(Process::start)
    }

    /// Starts one in which everything outlives its process.
    pub(super) fn start_kept() -> anyhow::Result<Self> {
        Self::start_by(Process::start_kept)
    }

    fn start_by(start: Start) -> anyhow::Result<Self> {
        let python = install(&GCP).context("installing what stands for Google Cloud KMS")?;
        let process = start(&GCP, &python, &[]).context("starting what stands for Google Cloud KMS")?;
        let port = process.port().context("it has no port")?;
        let owner_token = process.text("owner_token").context("it has no owner")?.to_owned();
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(30)))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .new_agent();
        let this = Self {
            process,
            python,
            endpoint: format!("http://127.0.0.1:{port}"),
            owner_token,
            agent,
            made: AtomicU32::new(0),
        };
        let (parent, ring) = RING.split_once("/keyRings/").context("the ring has a parent")?;
        this.owner("POST", &format!("{parent}/keyRings?keyRingId={ring}"), &json!({}))?;
        Ok(this)
    }

    /// The one that all tests of this process share. `None` if such are to be skipped; then `left_out` has been printed.
    ///
    /// # Panics
    ///
    /// When it cannot be started: a test that needs it fails without it, unless it was told to skip.
    pub fn shared_or_skip(left_out: &str) -> Option<&'static Self> {
        static SHARED: OnceLock<Gcp> = OnceLock::new();
        (!is_skipped(left_out)).then(|| SHARED.get_or_init(Self::start_or_explain))
    }

    /// One for a test alone that [pauses](Self::pause) or ends it. `None` if such are to be skipped.
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

    /// Where Cloud KMS answers.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Settings for the backend `gcp-kms` that lead here; credentials are to be added.
    pub fn settings(&self) -> Value {
        json!({ "endpoint_url": self.endpoint, "sts_token_url": format!("{}/v1/token", self.endpoint) })
    }

    /// Makes a key with one version and returns its name. It is like no other test's.
    ///
    /// # Errors
    ///
    /// Like every call here: the server was not reached, or refused; the message has its answer.
    pub fn create_key(&self) -> anyhow::Result<String> {
        self.create_key_for("ENCRYPT_DECRYPT")
    }

    /// The same for another purpose.
    pub fn create_key_for(&self, purpose: &str) -> anyhow::Result<String> {
        let id = format!("key-{}", self.made.fetch_add(1, Ordering::Relaxed));
        let path = format!("{RING}/cryptoKeys?cryptoKeyId={id}");
        self.owner("POST", &path, &json!({ "purpose": purpose }))?;
        Ok(format!("{RING}/cryptoKeys/{id}"))
    }

    /// Makes a new version, and makes it the primary one: a rotation. Returns the version's name.
    pub fn rotate(&self, key: &str) -> anyhow::Result<String> {
        let answer = self.owner("POST", &format!("{key}/cryptoKeyVersions"), &json!({}))?;
        let name = answer["name"]
            .as_str()
            .context("a version has a name")?
            .to_owned();
        let number = name.rsplit('/').next().unwrap_or_default();
        let primary = json!({ "cryptoKeyVersionId": number });
        self.owner("POST", &format!("{key}:updatePrimaryVersion"), &primary)?;
        Ok(name)
    }

    /// Switches a version off.
    pub fn disable(&self, version: &str) -> anyhow::Result<()> {
        self.set_state(version, "DISABLED")
    }

    /// Switches a version on again.
    pub fn enable(&self, version: &str) -> anyhow::Result<()> {
        self.set_state(version, "ENABLED")
    }

    fn set_state(&self, version: &str, state: &str) -> anyhow::Result<()> {
        let path = format!("{version}?updateMask=state");
        self.owner("PATCH", &path, &json!({ "state": state })).map(drop)
    }

    /// Schedules a version's destruction.
    pub fn schedule_destruction(&self, version: &str) -> anyhow::Result<()> {
        self.owner("POST", &format!("{version}:destroy"), &json!({}))
            .map(drop)
    }

    /// Takes that back; the version is then disabled.
    pub fn restore(&self, version: &str) -> anyhow::Result<()> {
        self.owner("POST", &format!("{version}:restore"), &json!({}))
            .map(drop)
    }

    /// Gives these members (`serviceAccount:…`, `principal://…`) this role on a key, and takes away what was granted before.
    pub fn grant(&self, key: &str, role: &str, members: &[&str]) -> anyhow::Result<()> {
        let binding = json!({ "role": format!("roles/cloudkms.{role}"), "members": members });
        let policy = json!({ "policy": { "bindings": [binding] } });
        self.owner("POST", &format!("{key}:setIamPolicy"), &policy)
            .map(drop)
    }

    /// The owner's call of the service.
    fn owner(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let url = format!("{}/v1/{path}", self.endpoint);
        let request = match method {
            "PATCH" => self.agent.patch(&url),
            _ => self.agent.post(&url),
        };
        let request = request.header("authorization", format!("Bearer {}", self.owner_token));
        answer_of(&format!("{method} {path}"), request.send(body.to_string()))
    }

    /// What no owner can do: see `Control` in `tests/emulators/gcp.py`.
    pub fn control(&self, name: &str, arguments: &Value) -> anyhow::Result<Value> {
        let url = format!("{}/control/{name}", self.endpoint);
        answer_of(name, self.agent.post(&url).send(arguments.to_string()))
    }

    /// The next calls on this key (or exchanges at this provider) meet these faults, one each, such as
    /// `{"rpc": "Decrypt", "status": 503, "body": …}`; see `Handler.harm` and `Handler.lie` there.
    pub fn fault(&self, on: &str, faults: &[Value]) -> anyhow::Result<()> {
        self.control("faults", &json!({ "on": on, "faults": faults }))
            .map(drop)
    }

    /// What was asked of this key, or exchanged at this provider: `rpc`, `member`, `request`.
    pub fn requests(&self, on: &str) -> anyhow::Result<Vec<Value>> {
        let answer = self.control("requests", &json!({ "on": on }))?;
        Ok(answer["requests"].as_array().cloned().unwrap_or_default())
    }

    /// Makes a service account; returns its email and the file that Google's console would give out.
    pub fn service_account(&self) -> anyhow::Result<(String, Value)> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let email = format!("keystead-{number}@acme-prod.iam.gserviceaccount.com");
        let token_uri = format!("{}/token", self.endpoint);
        let file = self.control(
            "service_account",
            &json!({ "email": email, "token_uri": token_uri }),
        )?;
        Ok((email, file))
    }

    /// Makes a workload identity pool with one provider, for tokens of this issuer and audience. It is like no other test's.
    pub fn provider(&self, issuer: &str, audience: &str) -> anyhow::Result<Provider> {
        let pool = format!(
            "projects/123456789012/locations/global/workloadIdentityPools/pool-{}",
            self.made.fetch_add(1, Ordering::Relaxed)
        );
        let provider = Provider {
            name: format!("{pool}/providers/keystead"),
            pool,
            issuer: issuer.into(),
            audience: audience.into(),
        };
        self.change_provider(&provider, &json!({}))?;
        // The issuer comes into being.
        self.mint(&provider, "nobody", &json!({}))?;
        Ok(provider)
    }

    /// Changes the provider: `disabled`, `subject_prefix` (its attribute condition), `lifetime_s` of what it issues.
    pub fn change_provider(&self, provider: &Provider, change: &Value) -> anyhow::Result<()> {
        let mut arguments = json!({
            "name": provider.name, "issuer": provider.issuer, "audiences": [provider.audience],
        });
        merge(&mut arguments, change);
        self.control("provider", &arguments).map(drop)
    }

    /// A token of the provider's issuer; `change` says what is wrong with it (`audience`, `lifetime_s`, `forged`).
    pub fn mint(&self, provider: &Provider, subject: &str, change: &Value) -> anyhow::Result<String> {
        let mut arguments = json!({
            "issuer": provider.issuer, "audience": provider.audience, "subject": subject,
        });
        merge(&mut arguments, change);
        let answer = self.control("mint", &arguments)?;
        Ok(answer["token"].as_str().context("a token is minted")?.to_owned())
    }

    /// Google's own client, with these credentials (`{"service_account": …}`, `{"external_account": …}`).
    pub fn client(&self, credentials: Value) -> GoogleClient<'_> {
        GoogleClient {
            gcp: self,
            credentials,
        }
    }

    /// Google's own client, as the owner.
    pub fn owners_client(&self) -> GoogleClient<'_> {
        self.client(json!({ "token": self.owner_token }))
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

/// A workload identity provider.
#[derive(Debug, Clone)]
pub struct Provider {
    /// `projects/…/workloadIdentityPools/…/providers/…`
    pub name: String,
    pool: String,
    issuer: String,
    audience: String,
}

impl Provider {
    /// How a policy names who has a token of this subject.
    pub fn principal(&self, subject: &str) -> String {
        format!("principal://iam.googleapis.com/{}/subject/{subject}", self.pool)
    }

    /// The audience of its tokens.
    pub fn audience(&self) -> &str {
        &self.audience
    }
}

/// Google's own client of Cloud KMS in Python, over REST. Each call is a process of its own, and takes seconds.
#[derive(Debug)]
pub struct GoogleClient<'a> {
    gcp: &'a Gcp,
    credentials: Value,
}

impl GoogleClient<'_> {
    /// Encrypts; returns the name of the version and the ciphertext.
    pub fn encrypt(&self, key: &str, plaintext: &[u8], aad: &[u8]) -> anyhow::Result<(String, Vec<u8>)> {
        let arguments =
            json!({ "name": key, "plaintext": STANDARD.encode(plaintext), "aad": STANDARD.encode(aad) });
        let answer = self.call(&json!({ "encrypt": arguments }))?;
        let text = |field: &str| answer[field].as_str().context("the client answers");
        Ok((text("name")?.into(), STANDARD.decode(text("ciphertext")?)?))
    }

    /// Decrypts; returns the plaintext.
    pub fn decrypt(&self, key: &str, ciphertext: &[u8], aad: &[u8]) -> anyhow::Result<Vec<u8>> {
        let arguments =
            json!({ "name": key, "ciphertext": STANDARD.encode(ciphertext), "aad": STANDARD.encode(aad) });
        let answer = self.call(&json!({ "decrypt": arguments }))?;
        let text = answer["plaintext"].as_str().context("the client answers")?;
        Ok(STANDARD.decode(text)?)
    }

    fn call(&self, call: &Value) -> anyhow::Result<Value> {
        let mut command = Command::new(&self.gcp.python);
        for (name, _) in std::env::vars_os() {
            // The caller's own credentials must not reach into the client.
            if name.to_string_lossy().starts_with("GOOGLE_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(["-c", CLIENT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("running Google's client")?;
        let given =
            json!({ "endpoint": self.gcp.endpoint, "credentials": self.credentials, "calls": [call] });
        child
            .stdin
            .take()
            .context("it has a standard input")?
            .write_all(given.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "Google's client ended with {}:\n{}",
                output.status,
                super::install::last_lines(&String::from_utf8_lossy(&output.stderr))
            );
        }
        let answers: Value = serde_json::from_slice(&output.stdout)?;
        match answers[0].get("ok") {
            Some(ok) => Ok(ok.clone()),
            None => bail!("Google's client was refused: {}", answers[0]),
        }
    }
}

fn answer_of(
    what: &str,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> anyhow::Result<Value> {
    let mut answer = answer.with_context(|| format!("calling {what}"))?;
    let text = answer.body_mut().read_to_string()?;
    if answer.status() != 200 {
        bail!("{what} was refused with HTTP {}: {text}", answer.status());
    }
    Ok(serde_json::from_str(&text)?)
}

fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
}
