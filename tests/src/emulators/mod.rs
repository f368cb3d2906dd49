//! What stands for KMSs in tests: installing, starting and stopping it, and an owner's side of the keys in it. Here the emulators
//! of AWS on loopback; each other peer has a file of its own, such as [`Gcp`], [`OpenBao`] and [`SoftHsm`]. [`Microburst`] makes
//! faults before one of AWS's. What is to hold for every KMS is tested with an [`Owner`], who has any of them.
//!
//! A test gets one in a line, and is left out loudly, never silently, where there is none:
//!
//! ```no_run
//! use keystead_tests::emulators::{Emulator, Kind};
//!
//! # fn main() -> anyhow::Result<()> {
//! let Some(aws) = Emulator::shared_or_skip(Kind::Ministack, "revocation by the key's owner") else { return Ok(()) };
//! let owner = aws.account();
//! let key_arn = owner.create_key()?;
//! let settings = aws.settings(); // for the backend: endpoints and credentials
//! // … use the key …
//! owner.disable_key(&key_arn)?;
//! // … the use of the key must fail now …
//! # Ok(()) }
//! ```
//!
//! # What each one enforces
//!
//! Found by trying, at the versions in `tests/emulators/aws.txt`. A test must run on one that refuses what it
//! tests the refusal of.
//!
//! | | [`Kind::Moto`] | [`Kind::Ministack`] |
//! | --- | --- | --- |
//! | wrong encryption context | refused: `InvalidCiphertextException` | the same |
//! | damaged ciphertext | refused: AES-GCM underneath | **opens to something else**, unless the first 68 bytes are hit |
//! | blob of another key, with this key's id | refused: `IncorrectKeyException`, see below | **opens to something else** |
//! | unknown key or alias | `NotFoundException` | `NotFoundException` |
//! | disabled key | **works on** | `DisabledException` |
//! | key pending deletion | **works on** | `KMSInvalidStateException` |
//! | alias moved | later wraps use the other key | the same |
//! | rotation on demand | yes | no |
//! | dry run | **ignored: does it** | **ignored: does it**, but checks state and policies |
//! | unknown access key | accepted | `UnrecognizedClientException` |
//! | wrong secret | accepted | refused, except for an account's root user |
//! | IAM and key policies | not checked | checked, without `kms:EncryptionContext` conditions |
//! | policies and aliases | – | an alias's own ARN, or `*`, must be allowed; AWS looks at the key's |
//! | role's trust policy, external id | not checked | checked |
//! | web identity token | accepted, whatever it is | issuer, audience and subject by the trust policy; not signature and expiry |
//! | accounts | one, [`Account::number`] | any; a key is found from its own account alone |
//!
//! moto itself says `AccessDeniedException` to a blob of another key, and to one whose own name of its key was hit.
//! `tests/emulators/aws.py` has it say what AWS's reference says. That is the one place where an emulator is not as it comes.
//!
//! # Where they live
//!
//! In a Python environment of their own under `KEYSTEAD_CACHE` (`.cache/emulators` of the workspace unless set), made
//! by the first test that needs it in some 30 seconds, with every version pinned; another list of versions gets another
//! environment. `python3` (3.10 or newer, with `venv`) and a package index that pip reaches are needed for that once.
//! `KEYSTEAD_SKIP_EMULATORS=1` leaves the tests out that need one, and prints which.
//!
//! An emulator listens on a free loopback port and ends when its [`Emulator`] is dropped or this process ends, however that
//! happens. Its keys live in its memory and go with it, unless an [`Owner`] has it.

mod account;
mod azure;
mod debian;
mod gcp;
mod install;
mod microburst;
mod openbao;
mod owner;
mod policy;
mod process;
mod softhsm;

pub use account::{AccessKey, Account};
pub use azure::{Application, Azure, TENANT};
pub use debian::{find, unpacked};
pub use gcp::{Gcp, GoogleClient, Provider};
pub use install::{Peer, install};
pub use microburst::Microburst;
pub use openbao::OpenBao;
pub use owner::{Key, Kms, Owner};
pub use policy::{allow, trust_account, trust_web_identity, unsigned_token};
pub use softhsm::{SoftHsm, install_softhsm};

use std::sync::OnceLock;
use std::time::Duration;

use crate::left_out::leave_out;
use anyhow::Context;
use process::Process;
use serde_json::{Value, json};

/// Set to `1`, it leaves the tests out that need an emulator.
pub const SKIP_VARIABLE: &str = "KEYSTEAD_SKIP_EMULATORS";

/// The region in which [`Emulator::account`] works.
pub const REGION: &str = "eu-west-1";

/// The emulators of AWS.
const AWS: Peer = Peer {
    name: "aws",
    backend: "aws-kms",
    requirements: include_str!("../../emulators/aws.txt"),
    program: include_str!("../../emulators/aws.py"),
};

/// Everything that stands for a KMS in tests.
pub const PEERS: &[&Peer] = &[
    &AWS,
    &azure::PEER,
    &gcp::GCP,
    &microburst::PEER,
    &openbao::PEER,
    &softhsm::SOFTHSM,
];

/// Which emulator; they enforce different things, see [the module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// moto: real encryption underneath, no states and no policies.
    Moto,
    /// ministack: states, policies, roles and sessions; toy encryption.
    Ministack,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Moto => "moto",
            Self::Ministack => "ministack",
        }
    }

    fn account_number(self) -> &'static str {
        match self {
            Self::Moto => "123456789012",
            Self::Ministack => "111122223333",
        }
    }
}

/// A running emulator.
#[derive(Debug)]
pub struct Emulator {
    kind: Kind,
    endpoint: String,
    process: Process,
}

impl Emulator {
    /// Starts an emulator of this kind, installing it first if need be, and waits until it answers.
    ///
    /// # Errors
    ///
    /// The installation failed, or the emulator did not answer within a minute; the message has the last lines of its
    /// log.
    pub fn start(kind: Kind) -> anyhow::Result<Self> {
        Self::start_by(kind, Process::start)
    }

    /// Starts ministack with keys that outlive its process.
    fn start_kept() -> anyhow::Result<Self> {
        Self::start_by(Kind::Ministack, Process::start_kept)
    }

    fn start_by(kind: Kind, start: process::Start) -> anyhow::Result<Self> {
        let python = install(&AWS).context("installing the AWS emulators")?;
        let process = start(&AWS, &python, &[kind.name()])
            .with_context(|| format!("starting the AWS emulator {}", kind.name()))?;
        let port = process.port().context("the emulator has no port")?;
        Ok(Self {
            kind,
            endpoint: format!("http://127.0.0.1:{port}"),
            process,
        })
    }

    /// The emulator of this kind that all tests of this process share: started by the first, it ends with the process.
    /// `None` if emulators are to be skipped; then `left_out` has been printed.
    ///
    /// # Panics
    ///
    /// When it cannot be started: a test that needs an emulator fails without one, unless it was told to skip.
    pub fn shared_or_skip(kind: Kind, left_out: &str) -> Option<&'static Self> {
        static MOTO: OnceLock<Emulator> = OnceLock::new();
        static MINISTACK: OnceLock<Emulator> = OnceLock::new();
        if is_skipped(left_out) {
            return None;
        }
        let place = match kind {
            Kind::Moto => &MOTO,
            Kind::Ministack => &MINISTACK,
        };
        Some(place.get_or_init(|| Self::start_or_explain(kind)))
    }

    /// An emulator of this kind for one test alone, for tests that [`pause`](Self::pause) or stop it. `None` if emulators
    /// are to be skipped; then `left_out` has been printed.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn own_or_skip(kind: Kind, left_out: &str) -> Option<Self> {
        if is_skipped(left_out) {
            None
        } else {
            Some(Self::start_or_explain(kind))
        }
    }

    fn start_or_explain(kind: Kind) -> Self {
        Self::start(kind).unwrap_or_else(|error| {
            panic!("{error:#}\n(to leave out what needs an AWS emulator, set {SKIP_VARIABLE}=1)")
        })
    }

    /// Where KMS, STS and IAM answer, such as `http://127.0.0.1:40123`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The same over HTTPS, and the certificate to trust there (PEM, for 127.0.0.1, of this process alone). Only
    /// ministack has it.
    pub fn https(&self) -> Option<(String, &str)> {
        Some((
            format!("https://127.0.0.1:{}", self.process.https_port()?),
            self.process.certificate()?,
        ))
    }

    /// The owner's side of the emulator's usual account, in [`REGION`].
    pub fn account(&self) -> Account {
        self.account_numbered(self.kind.account_number())
    }

    /// The owner's side of another account (12 digits). Only ministack has more than one.
    pub fn account_numbered(&self, number: &str) -> Account {
        Account::new(&self.endpoint, number)
    }

    /// Settings for the backend `aws-kms`: this emulator's endpoints, and the credentials of the usual account's root
    /// user, who may do anything there.
    pub fn settings(&self) -> Value {
        self.settings_for(&AccessKey {
            id: self.kind.account_number().into(),
            secret: "test".into(),
        })
    }

    /// Settings for the backend `aws-kms`: this emulator's endpoints, and these credentials.
    pub fn settings_for(&self, key: &AccessKey) -> Value {
        json!({
            "endpoint_url": self.endpoint,
            "sts_endpoint_url": self.endpoint,
            "access_key_id": key.id,
            "secret_access_key": key.secret,
        })
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

fn is_skipped(left_out: &str) -> bool {
    let skipped = std::env::var_os(SKIP_VARIABLE).is_some_and(|value| value == "1");
    if skipped {
        leave_out(left_out, &format!("{SKIP_VARIABLE}=1"));
    }
    skipped
}

/// Waits before something is looked at again.
fn pause_a_moment() {
    std::thread::sleep(Duration::from_millis(50));
}
