//! The Python environments that the peers run in.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::retry::three_times;

/// A program that stands for a KMS, with what it needs. Each is known by its name and stands in `tests/emulators/`.
#[derive(Debug)]
pub struct Peer {
    /// Its name; its two files are `<name>.py` and `<name>.txt`.
    pub name: &'static str,
    /// The backend whose peer it is; before which it stands, for a proxy.
    pub backend: &'static str,
    /// The Python packages that it runs on, every one pinned, as pip reads them.
    pub requirements: &'static str,
    /// The program. It announces its facts as one line of JSON, and ends when its standard input closes.
    pub program: &'static str,
}

/// The variable that names the directory in which environments are kept.
const CACHE_VARIABLE: &str = "KEYSTEAD_CACHE";

/// Set by `cargo xtask test`, which has installed everything before its tests, or has tried that as often as it makes sense: each
/// test that needs it would take as long again to fail.
const TRIED_BEFORE: &str = "KEYSTEAD_ALL_IS_BUILT";

/// Written last: an environment without it is not whole.
pub(super) const STAMP: &str = "whole";

/// Installs what a peer needs unless it is there already, and returns the path of its Python.
///
/// May be called from many processes at once: one installs, the others wait.
///
/// # Errors
///
/// No usable `python3`, or pip failed; the message has pip's last lines.
pub fn install(peer: &Peer) -> anyhow::Result<PathBuf> {
    let cache = cache()?;
    let version = run_quietly(Command::new("python3").arg("--version")).context(
        "python3 (3.10 or newer) is needed to run what stands for a KMS; install it and its venv module",
    )?;
    let mut hasher = DefaultHasher::new();
    (peer.requirements, &version).hash(&mut hasher);
    let environment = cache.join(format!("python-{:016x}", hasher.finish()));
    let python = environment.join("bin").join("python");
    if environment.join(STAMP).is_file() {
        return Ok(python);
    }
    let lock =
        File::create(cache.join("install.lock")).context("making the lock file of the installation")?;
    lock.lock()
        .context("waiting for another installation of the emulators")?;
    if !environment.join(STAMP).is_file() {
        make(peer, &environment, &python)?;
    }
    Ok(python)
}

fn make(peer: &Peer, environment: &Path, python: &Path) -> anyhow::Result<()> {
    run_quietly(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(environment),
    )
    .with_context(|| {
        format!(
            "making a Python environment in {}; on Debian the package python3-venv is needed",
            environment.display()
        )
    })?;
    let requirements = environment.join("requirements.txt");
    fs::write(&requirements, peer.requirements)?;
    // Every package is in the list, so pip has nothing to resolve.
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--no-deps",
        "--requirement",
    ])
    .arg(&requirements);
    match std::env::var_os(TRIED_BEFORE) {
        Some(_) => run_quietly(&mut pip),
        None => three_times("pip install", || run_quietly(&mut pip)),
    }
    .with_context(|| {
        format!(
            "pip could not install tests/emulators/{}.txt; does it reach a package index?",
            peer.name
        )
    })?;
    fs::write(environment.join(STAMP), "")?;
    Ok(())
}

/// The directory of environments, made if need be.
pub(super) fn cache() -> anyhow::Result<PathBuf> {
    let cache = match std::env::var_os(CACHE_VARIABLE) {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory),
        _ => Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/emulators"),
    };
    fs::create_dir_all(&cache).with_context(|| {
        format!(
            "making {} (set {CACHE_VARIABLE} to have it elsewhere)",
            cache.display()
        )
    })?;
    cache
        .canonicalize()
        .with_context(|| format!("finding {}", cache.display()))
}

/// Runs a command to its end; what it printed is returned, or is in the error.
pub(super) fn run_quietly(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", command.get_program().display()))?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if !output.status.success() {
        bail!(
            "{} ended with {}:\n{}",
            command.get_program().display(),
            output.status,
            last_lines(&said)
        );
    }
    Ok(said)
}

/// The end of a log, which is where the reason stands.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
