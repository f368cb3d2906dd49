//! SoftHSM: a token in software that speaks PKCS#11, loaded into the test's own process.
//!
//! ```no_run
//! use keystead_tests::emulators::SoftHsm;
//! use serde_json::json;
//!
//! # fn main() -> anyhow::Result<()> {
//! let Some(hsm) = SoftHsm::shared_or_skip("keys on a token") else { return Ok(()) };
//! hsm.owner("generate", &json!({ "label": "cmk", "id": "01" }))?;
//! let settings = hsm.settings(); // for the backend: library, token, PIN
//! // … use the key …
//! hsm.request(&["C_Decrypt 0x32 1"])?; // the device is removed, once
//! hsm.owner("allow", &json!({ "label": "cmk", "uses": { "decrypt": false } }))?;
//! // … the use of the key must fail now …
//! # Ok(()) }
//! ```
//!
//! SoftHSM is the system's, or Debian's packages unpacked into the cache. The owner's side is another process that runs
//! `python-pkcs11` (`tests/emulators/softhsm.py`), which is also the second client of the cross tests. Between the test and
//! SoftHSM stands `tests/emulators/softhsm-between.c`: it notes the calls and answers errors on request.
//!
//! What it enforces: a damaged blob or another context is refused (as `CKR_GENERAL_ERROR`), a use that the key's attributes
//! do not allow (`CKR_KEY_FUNCTION_NOT_PERMITTED`), a wrong PIN (never locking it). It knows no dates of keys, no lost
//! tokens and no vectors of its own for AES-GCM: those are the library's in between.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::Context;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::debian;
use super::install::{Peer, install, run_quietly};
use super::{SKIP_VARIABLE, is_skipped};
use crate::notes;

pub(super) const SOFTHSM: Peer = Peer {
    name: "softhsm",
    backend: "pkcs11",
    requirements: include_str!("../../emulators/softhsm.txt"),
    program: include_str!("../../emulators/softhsm.py"),
};

const BETWEEN: &str = include_str!("../../emulators/softhsm-between.c");

/// Where systems have the library.
const LIBRARIES: [&str; 5] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// SoftHSM, installed.
struct Installed {
    library: PathBuf,
    /// The tool that makes tokens.
    tool: PathBuf,
}

/// Installs SoftHSM unless the system or the cache has it, and returns where its library is.
///
/// # Errors
///
/// The system has no SoftHSM and Debian's packages cannot be had.
pub fn install_softhsm() -> anyhow::Result<PathBuf> {
    Ok(installed()?.library)
}

fn installed() -> anyhow::Result<Installed> {
    let tool = Path::new("/usr/bin/softhsm2-util");
    let library = LIBRARIES.iter().map(Path::new).find(|path| path.is_file());
    if let (Some(library), true) = (library, tool.is_file()) {
        return Ok(Installed {
            library: library.to_owned(),
            tool: tool.to_owned(),
        });
    }
    let root = debian::unpacked("softhsm", &["softhsm2", "libsofthsm2", "softhsm2-common"])?;
    Ok(Installed {
        library: debian::find(&root, "libsofthsm2.so")?,
        tool: debian::find(&root, "softhsm2-util")?,
    })
}

/// SoftHSM with tokens in a directory of its own, which goes with it.
#[derive(Debug)]
pub struct SoftHsm {
    directory: TempDir,
    library: PathBuf,
    python: PathBuf,
    /// Where the library is, if it is this one's own.
    copies: Option<TempDir>,
}

impl SoftHsm {
    /// The label of the token that [`settings`](Self::settings) and [`owner`](Self::owner) are about.
    pub const TOKEN: &'static str = "acme";
    /// The user PIN of that token and of all others.
    pub const PIN: &'static str = "24680135";
    /// Two tokens have this label.
    pub const TWINS: &'static str = "twin";
    /// A token to which those log in who test that.
    pub const OTHER: &'static str = "other";
    /// A token to which nobody logs in.
    pub const SHUT: &'static str = "shut";

    /// The SoftHSM that all tests of this process share, one after the other: a process loads a library once. `None` if
    /// emulators are to be skipped; then `left_out` has been printed.
    ///
    /// # Panics
    ///
    /// When it cannot be installed or set up.
    pub fn shared_or_skip(left_out: &str) -> Option<MutexGuard<'static, Self>> {
        static SHARED: OnceLock<Mutex<SoftHsm>> = OnceLock::new();
        if is_skipped(left_out) {
            return None;
        }
        let shared = SHARED.get_or_init(|| {
            Mutex::new(Self::set_up().unwrap_or_else(|error| {
                panic!("{error:#}\n(to leave out what needs SoftHSM, set {SKIP_VARIABLE}=1)")
            }))
        });
        let hsm = shared.lock().unwrap_or_else(PoisonError::into_inner);
        hsm.request(&[]).expect("the directory is ours");
        hsm.forget_calls();
        Some(hsm)
    }

    fn set_up() -> anyhow::Result<Self> {
        let installed = installed().context("installing SoftHSM")?;
        Self::set_up_with(
            installed,
            &[Self::TOKEN, Self::OTHER, Self::SHUT, Self::TWINS, Self::TWINS],
        )
    }

    /// One beside others in this process, with the one token [`TOKEN`](Self::TOKEN): the library is a copy, which the system loads
    /// as another one.
    pub(super) fn set_up_own() -> anyhow::Result<Self> {
        let mut installed = installed().context("installing SoftHSM")?;
        let copies = tempfile::Builder::new().prefix("keystead-softhsm-").tempdir()?;
        let copy = copies.path().join("libsofthsm2.so");
        fs::copy(&installed.library, &copy).context("copying SoftHSM's library")?;
        installed.library = copy;
        let mut this = Self::set_up_with(installed, &[Self::TOKEN])?;
        this.copies = Some(copies);
        Ok(this)
    }

    fn set_up_with(installed: Installed, tokens: &[&str]) -> anyhow::Result<Self> {
        let python = install(&SOFTHSM).context("installing python-pkcs11")?;
        // It lives in this process and announces nothing: its tool, which comes with it, knows its version.
        let version = run_quietly(Command::new(&installed.tool).arg("--version"))?;
        notes::tested_with(SOFTHSM.backend, &format!("SoftHSM {}", version.trim()));
        let directory = tempfile::Builder::new().prefix("keystead-softhsm-").tempdir()?;
        let this = Self {
            library: installed.library,
            python,
            directory,
            copies: None,
        };
        fs::create_dir(this.path("tokens"))?;
        fs::write(
            this.path("softhsm2.conf"),
            format!(
                "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
                this.path("tokens").display()
            ),
        )?;
        fs::write(this.path("pin"), format!("{}\n", Self::PIN))?;
        for &label in tokens {
            run_quietly(
                this.command(&installed.tool)
                    .arg("--module")
                    .arg(&this.library)
                    .args(["--init-token", "--free", "--label", label])
                    .args(["--so-pin", "13572468", "--pin", Self::PIN]),
            )
            .with_context(|| format!("making the token {label}"))?;
        }
        this.build_between().context("building softhsm-between.c")?;
        Ok(this)
    }

    fn build_between(&self) -> anyhow::Result<()> {
        let source = self.path("softhsm-between.c");
        fs::write(&source, BETWEEN)?;
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut build = Command::new(compiler);
        build.args([
            "-std=gnu99",
            "-Wall",
            "-Wextra",
            "-Wno-cast-function-type",
            "-Werror",
            "-shared",
            "-fPIC",
        ]);
        for (name, value) in [
            ("TOKEN_LIBRARY", self.library.clone()),
            ("TOKEN_CONFIGURATION", self.path("softhsm2.conf")),
            ("REQUESTS", self.path("requests")),
            ("CALLS", self.path("calls")),
        ] {
            build.arg(format!("-D{name}=\"{}\"", value.display()));
        }
        build
            .arg("-o")
            .arg(self.module())
            .arg(&source)
            .args(["-ldl", "-lpthread"]);
        run_quietly(&mut build)?;
        Ok(())
    }

    /// A file in the directory of this SoftHSM.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The PKCS#11 library to load.
    #[must_use]
    pub fn module(&self) -> PathBuf {
        self.path("softhsm-between.so")
    }

    /// Settings for the backend `pkcs11`: the library, the token and where its PIN is.
    #[must_use]
    pub fn settings(&self) -> Value {
        json!({ "module": self.module(), "tokens": { Self::TOKEN: { "pin_file": self.path("pin") } } })
    }

    /// What the owner does, by a tool of its own in a process of its own: `generate`, `allow`, `destroy`, `wrap`,
    /// `unwrap` of `tests/emulators/softhsm.py`.
    ///
    /// # Errors
    ///
    /// What the tool said.
    pub fn owner(&self, command: &str, about: &Value) -> anyhow::Result<Value> {
        let said = run_quietly(
            self.command(&self.python)
                .args(["-c", SOFTHSM.program])
                .arg(&self.library)
                .args([Self::TOKEN, Self::PIN, command, &about.to_string()]),
        )?;
        let line = said.lines().last().context("the owner's tool said nothing")?;
        serde_json::from_str(line).with_context(|| format!("the owner's tool said {said}"))
    }

    /// What the library in between is to do from now on, instead of what it was asked before.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn request(&self, lines: &[&str]) -> anyhow::Result<()> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(self.path("requests.new"), text)?;
        fs::rename(self.path("requests.new"), self.path("requests"))?;
        Ok(())
    }

    /// How often a function of the library was called since [`forget_calls`](Self::forget_calls).
    #[must_use]
    pub fn calls_of(&self, function: &str) -> usize {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().filter(|line| *line == function).count()
    }

    /// Begins to count anew.
    pub fn forget_calls(&self) {
        // There is no file before the first call.
        let _ = fs::remove_file(self.path("calls"));
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command
    }
}
