//! One owner for every KMS: a running peer, settings for the backend, new keys, and what an owner does with both: switches a key off
//! and on, and has the KMS die, come back, and say nothing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};
use keystead_managed::{Keyring, Sealing};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::azure::{Application, Azure};
use super::gcp::Gcp;
use super::openbao::OpenBao;
use super::process::Process;
use super::softhsm::SoftHsm;
use super::{Emulator, SKIP_VARIABLE, is_skipped};
use crate::kms::Calls;

/// Which KMS, and how its keys wrap where there are two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kms {
    /// A keyring file.
    Managed,
    /// AWS KMS.
    Aws,
    /// An RSA key in an Azure Key Vault: RSA-OAEP-256.
    AzureVault,
    /// An AES key in an Azure Managed HSM: A256KW.
    AzureHsm,
    /// Google Cloud KMS.
    Gcp,
    /// OpenBao's Transit engine.
    Transit,
    /// A key on a token, with AES-GCM.
    Pkcs11,
    /// A key on a token, with AES key wrap.
    Pkcs11KeyWrap,
}

impl Kms {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::Managed,
        Self::Aws,
        Self::AzureVault,
        Self::AzureHsm,
        Self::Gcp,
        Self::Transit,
        Self::Pkcs11,
        Self::Pkcs11KeyWrap,
    ];

    /// The name of its backend.
    #[must_use]
    pub fn backend_name(self) -> &'static str {
        match self {
            Self::Managed => "managed",
            Self::Aws => "aws-kms",
            Self::AzureVault | Self::AzureHsm => "azure-key-vault",
            Self::Gcp => "gcp-kms",
            Self::Transit => "transit",
            Self::Pkcs11 | Self::Pkcs11KeyWrap => "pkcs11",
        }
    }

    /// The file name of its backend as a dynamic plugin, beside what cargo builds: see [`built`](crate::built).
    #[must_use]
    pub fn plugin_library(self) -> String {
        format!("libkeystead_{}.so", self.backend_name().replace('-', "_"))
    }

    /// Whether it is a process or a device of its own, which can be paused, and not only a file.
    #[must_use]
    pub fn is_apart(self) -> bool {
        self != Self::Managed
    }

    /// Whether each of its keys is another one: a keyring is one key.
    #[must_use]
    pub fn has_many_keys(self) -> bool {
        self != Self::Managed
    }
}

/// A key that its owner made and may switch off.
#[derive(Debug, Clone)]
pub struct Key {
    /// How it is registered with an organization.
    pub config: Value,
    /// The KMS's own name for it.
    pub name: String,
}

/// A KMS of a test's own, and all rights in it. It ends when this is dropped.
///
/// # Examples
///
/// ```no_run
/// use keystead_tests::emulators::{Kms, Owner};
///
/// # fn main() -> anyhow::Result<()> {
/// for kms in Kms::ALL {
///     let Some(mut owner) = Owner::start_or_skip(kms, "what holds for every KMS") else { continue };
///     let key = owner.new_key()?;
///     let (settings, config) = (owner.settings(), &key.config); // for the backend `kms.backend_name()`
///     // … use the key …
///     owner.disable(&key)?; // … which must fail now …
///     owner.enable(&key)?;
///     owner.kill()?; // … nobody answers …
///     owner.restart()?; // … and the key is there as before
/// }
/// # Ok(()) }
/// ```
///
/// # What dies, and how it comes back
///
/// | | killed by | what it comes back with |
/// | --- | --- | --- |
/// | [`Kms::Managed`] | its keyring file is moved away | the file |
/// | [`Kms::Aws`] | SIGKILL of ministack | its own state files, written before each change is answered |
/// | [`Kms::AzureVault`], [`Kms::AzureHsm`], [`Kms::Gcp`] | SIGKILL of the server | what it wrote before each change was answered |
/// | [`Kms::Transit`] | SIGKILL of OpenBao, no development server here | its storage (Raft, in a directory); it is unsealed again |
/// | [`Kms::Pkcs11`], [`Kms::Pkcs11KeyWrap`] | a token lives in the process that uses it: from then on each of its functions fails as `CKR_DEVICE_REMOVED` | the token |
///
/// A server comes back at its old address, and nobody else gets that in between. AWS is ministack, since moto uses disabled keys:
/// what ministack does not refuse stands in the table of [`emulators`](super).
#[derive(Debug)]
pub struct Owner {
    kms: Kms,
    peer: Peer,
    made: AtomicU32,
    /// For what settings name: files with credentials, the keyring.
    directory: TempDir,
}

#[derive(Debug)]
enum Peer {
    File(Keyring),
    Aws(Emulator),
    Azure { azure: Azure, application: Application },
    Gcp { gcp: Gcp, member: String },
    Transit(OpenBao),
    Token(SoftHsm),
}

impl Owner {
    /// Starts a KMS for a test alone, installing it first if need be. `None` if emulators are to be skipped; then `left_out` has been
    /// printed. (The managed key needs none, and is never skipped.)
    ///
    /// # Panics
    ///
    /// When it cannot be started: a test that needs it fails without it, unless it was told to skip.
    #[must_use]
    pub fn start_or_skip(kms: Kms, left_out: &str) -> Option<Self> {
        if kms.is_apart() && is_skipped(left_out) {
            return None;
        }
        let started = Self::start(kms).with_context(|| format!("starting the KMS {kms:?}"));
        Some(
            started.unwrap_or_else(|error| {
                panic!("{error:#}\n(to leave out what needs it, set {SKIP_VARIABLE}=1)")
            }),
        )
    }

    fn start(kms: Kms) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("keystead-owner-").tempdir()?;
        let peer = match kms {
            Kms::Managed => Peer::File(Keyring::create(
                directory.path().join("own.keyring"),
                Sealing::none(),
            )?),
            Kms::Aws => Peer::Aws(Emulator::start_kept()?),
            Kms::AzureVault | Kms::AzureHsm => {
                let azure = Azure::start_kept()?;
                let application = azure.create_application()?;
                std::fs::write(directory.path().join(CREDENTIAL), &application.secret)?;
                Peer::Azure { azure, application }
            }
            Kms::Gcp => {
                let gcp = Gcp::start_kept()?;
                let (email, file) = gcp.service_account()?;
                std::fs::write(directory.path().join(CREDENTIAL), file.to_string())?;
                let member = format!("serviceAccount:{email}");
                Peer::Gcp { gcp, member }
            }
            Kms::Transit => {
                let bao = OpenBao::start_kept()?;
                bao.put_policy(None, "keystead", &OpenBao::grant("*"))?;
                std::fs::write(directory.path().join(CREDENTIAL), bao.token("keystead", "24h")?)?;
                Peer::Transit(bao)
            }
            Kms::Pkcs11 | Kms::Pkcs11KeyWrap => Peer::Token(SoftHsm::set_up_own()?),
        };
        Ok(Self {
            kms,
            peer,
            made: AtomicU32::new(0),
            directory,
        })
    }

    /// Which KMS it is.
    #[must_use]
    pub fn kms(&self) -> Kms {
        self.kms
    }

    /// Settings for the backend: where the KMS is, and credentials that may use every key of this owner's.
    #[must_use]
    pub fn settings(&self) -> Value {
        let credential = self.directory.path().join(CREDENTIAL);
        let mut settings = match &self.peer {
            // Not to be made: a missing file is then the outage that it is meant to be.
            Peer::File(keyring) => return json!({ "keyring": keyring.path(), "create": false }),
            Peer::Token(hsm) => return hsm.settings(),
            Peer::Aws(aws) => aws.settings(),
            Peer::Azure { azure, application } => application.by_secret_file(azure.settings(), &credential),
            Peer::Gcp { gcp, .. } => {
                let mut settings = gcp.settings();
                settings["service_account_file"] = json!(credential);
                settings
            }
            Peer::Transit(bao) => json!({ "address": bao.address(), "vault_token_file": credential }),
        };
        // A busy machine is no outage.
        settings["attempt_timeout_ms"] = json!(20_000);
        settings
    }

    /// The same with `@SILENT@` where the KMS's address stood, as `keystead-conform` takes it for a server that says nothing. None
    /// where there is no address.
    #[must_use]
    pub fn silent_settings(&self) -> Option<Value> {
        let places = match &self.peer {
            Peer::File(_) | Peer::Token(_) => return None,
            Peer::Aws(_) => &["endpoint_url", "sts_endpoint_url"][..],
            Peer::Azure { .. } => &["authority_host", "vault_address"],
            Peer::Gcp { .. } => &["endpoint_url", "sts_token_url"],
            Peer::Transit(_) => &["address"],
        };
        let mut settings = self.settings();
        for place in places {
            let said = settings[place].as_str().unwrap_or_default();
            let scheme = said.find("://").map_or("", |end| &said[..end + 3]);
            settings[place] = json!(format!("{scheme}@SILENT@"));
        }
        Some(settings)
    }

    /// Makes a key that the settings' credentials may use. A keyring is one key: see [`Kms::has_many_keys`].
    ///
    /// # Errors
    ///
    /// Like every call here: the KMS was not reached, or refused; the message has its answer.
    pub fn new_key(&self) -> anyhow::Result<Key> {
        let name = format!("owned-{}", self.made.fetch_add(1, Ordering::Relaxed));
        let (name, config) = match &self.peer {
            Peer::File(keyring) => (keyring.path().display().to_string(), json!({})),
            Peer::Aws(aws) => {
                let arn = aws.account().create_key()?;
                (arn.clone(), json!({ "key_arn": arn }))
            }
            Peer::Azure { azure, application } => {
                let vault = if self.kms == Kms::AzureHsm {
                    "owner.managedhsm.azure.net"
                } else {
                    "owner.vault.azure.net"
                };
                let (id, _) = azure.create_key(vault, &name)?;
                azure.grant(&id, application, &["read", "wrap", "unwrap"])?;
                (id.clone(), json!({ "key_id": id }))
            }
            Peer::Gcp { gcp, member } => {
                let name = gcp.create_key()?;
                gcp.grant(&name, "cryptoKeyEncrypterDecrypter", &[member])?;
                (name.clone(), json!({ "key_name": name }))
            }
            Peer::Transit(bao) => {
                bao.create_key(None, &name)?;
                (name.clone(), json!({ "key": name }))
            }
            Peer::Token(hsm) => {
                hsm.owner("generate", &json!({ "label": name, "id": "01" }))?;
                let mechanism = if self.kms == Kms::Pkcs11KeyWrap {
                    "aes-key-wrap"
                } else {
                    "aes-gcm"
                };
                let config = json!({ "token": SoftHsm::TOKEN, "key_label": name, "mechanism": mechanism });
                (name, config)
            }
        };
        Ok(Key { config, name })
    }

    /// How often the KMS itself says that it was asked to wrap and to unwrap with this key since the last time this was asked. `None`
    /// where it keeps no account.
    pub fn seen(&self, key: &Key) -> anyhow::Result<Option<Calls>> {
        let (asked, field, wrap, unwrap) = match &self.peer {
            Peer::Azure { azure, .. } => (azure.requests()?, "operation", "wrapkey", "unwrapkey"),
            Peer::Gcp { gcp, .. } => (gcp.requests(&key.name)?, "rpc", "Encrypt", "Decrypt"),
            _ => return Ok(None),
        };
        // Azure's client asks once without a token, to be told where tokens are.
        let counts = |request: &&Value| request["authenticated"] != json!(false);
        let count = |what: &str| {
            let asked = asked.iter().filter(counts);
            asked.filter(|request| request[field] == what).count() as u64
        };
        Ok(Some(Calls {
            wraps: count(wrap),
            unwraps: count(unwrap),
        }))
    }

    /// Switches a key off: from the next call on it neither wraps nor unwraps. (As at Azure, a disabled RSA key still wraps.)
    pub fn disable(&self, key: &Key) -> anyhow::Result<()> {
        self.switch(key, false)
    }

    /// Switches a key on again.
    pub fn enable(&self, key: &Key) -> anyhow::Result<()> {
        self.switch(key, true)
    }

    fn switch(&self, key: &Key, is_on: bool) -> anyhow::Result<()> {
        let name = key.name.as_str();
        match (&self.peer, is_on) {
            (Peer::File(keyring), true) => Ok(keyring.enable()?),
            (Peer::File(keyring), false) => Ok(keyring.disable()?),
            (Peer::Aws(aws), true) => aws.account().enable_key(name),
            (Peer::Aws(aws), false) => aws.account().disable_key(name),
            (Peer::Azure { azure, .. }, _) => azure.set_enabled(name, None, is_on),
            (Peer::Gcp { gcp, .. }, true) => gcp.enable(&first_version(name)),
            (Peer::Gcp { gcp, .. }, false) => gcp.disable(&first_version(name)),
            (Peer::Transit(bao), true) => bao.restore(None, name),
            (Peer::Transit(bao), false) => bao.soft_delete(None, name),
            (Peer::Token(hsm), _) => {
                let uses = if self.kms == Kms::Pkcs11KeyWrap {
                    json!({ "wrap": is_on, "unwrap": is_on })
                } else {
                    json!({ "encrypt": is_on, "decrypt": is_on })
                };
                hsm.owner("allow", &json!({ "label": name, "uses": uses }))
                    .map(drop)
            }
        }
    }

    /// Has the KMS die in the middle of whatever it does: see [`Owner`] for how. Nobody answers until
    /// [`restart`](Self::restart).
    pub fn kill(&mut self) -> anyhow::Result<()> {
        match &mut self.peer {
            Peer::File(keyring) => Ok(std::fs::rename(keyring.path(), put_away(keyring.path()))?),
            Peer::Token(hsm) => hsm.request(&["gone"]),
            server => server.process()?.kill(),
        }
    }

    /// Has it come back after [`kill`](Self::kill), at the same address and with its keys.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        match &mut self.peer {
            Peer::File(keyring) => Ok(std::fs::rename(put_away(keyring.path()), keyring.path())?),
            Peer::Token(hsm) => hsm.request(&[]),
            Peer::Transit(bao) => bao.restart(),
            server => server.process()?.restart(),
        }
    }

    /// Stops it in its tracks: it takes connections (a token: calls) and does not answer, until [`resume`](Self::resume).
    ///
    /// # Errors
    ///
    /// A file cannot be stopped: see [`Kms::is_apart`].
    pub fn pause(&mut self) -> anyhow::Result<()> {
        match &mut self.peer {
            Peer::Token(hsm) => hsm.request(&["paused"]),
            server => server.process()?.pause(),
        }
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&mut self) -> anyhow::Result<()> {
        match &mut self.peer {
            Peer::Token(hsm) => hsm.request(&[]),
            server => server.process()?.resume(),
        }
    }
}

impl Peer {
    fn process(&mut self) -> anyhow::Result<&mut Process> {
        match self {
            Self::Aws(aws) => Ok(&mut aws.process),
            Self::Azure { azure, .. } => Ok(&mut azure.process),
            Self::Gcp { gcp, .. } => Ok(&mut gcp.process),
            Self::Transit(bao) => Ok(&mut bao.process),
            Self::File(_) | Self::Token(_) => bail!("it has no process of its own"),
        }
    }
}

/// The file with the credential that the settings name.
const CREDENTIAL: &str = "credential";

fn put_away(keyring: &Path) -> PathBuf {
    keyring.with_extension("away")
}

fn first_version(key: &str) -> String {
    format!("{key}/cryptoKeyVersions/1")
}
