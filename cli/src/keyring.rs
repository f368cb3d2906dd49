//! The managed key's keyring file: create, status, rotate, disable, enable.

use crate::args::KeyringCommand;
use crate::exit::{Failure, Outcome};
use crate::open::Session;
use crate::output::time;
use keystead_managed::{Keyring, KeyringState, Sealing};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct KeyringView {
    keyring: PathBuf,
    id: String,
    state: &'static str,
    sealed: bool,
    versions: Vec<VersionView>,
}

#[derive(Serialize)]
struct VersionView {
    number: u32,
    created_unix_s: u64,
}

pub(crate) fn run(session: &Session, command: KeyringCommand) -> Result<Outcome, Failure> {
    let (path, sealing) = session
        .keyring()?
        .ok_or_else(|| Failure::usage("which keyring? give --keyring PATH"))?;
    let sealed = sealing.is_sealed();
    let keyring = match command {
        KeyringCommand::Create => Keyring::create(path, sealing)?,
        _ => Keyring::open(path, sealing)?,
    };
    match command {
        KeyringCommand::Create | KeyringCommand::Status => {}
        KeyringCommand::Rotate => drop(keyring.rotate()?),
        KeyringCommand::Disable => keyring.disable()?,
        KeyringCommand::Enable => keyring.enable()?,
    }
    let view = KeyringView {
        keyring: keyring.path().to_owned(),
        id: keyring.id()?.to_string(),
        state: match keyring.state()? {
            KeyringState::Enabled => "enabled",
            KeyringState::Disabled => "disabled",
        },
        sealed,
        versions: keyring
            .versions()?
            .into_iter()
            .map(|version| VersionView {
                number: version.number,
                created_unix_s: version.created_unix_s,
            })
            .collect(),
    };
    session.out.show(&view, |out| {
        let sealed = if sealed { "sealed" } else { "not sealed" };
        writeln!(
            out,
            "keyring {} ({}): {}, {sealed}",
            view.keyring.display(),
            view.id,
            view.state
        )?;
        view.versions.iter().try_for_each(|version| {
            writeln!(
                out,
                "version {}: {}",
                version.number,
                time(version.created_unix_s.saturating_mul(1000))
            )
        })
    })?;
    Ok(Outcome::Done)
}

/// Makes the keyring if it is not there, else checks that the sealing opens it. True when it was made.
pub(crate) fn create_missing(path: &Path, sealing: Sealing) -> Result<bool, Failure> {
    if path.symlink_metadata().is_ok() {
        Keyring::open(path, sealing)?;
        return Ok(false);
    }
    Keyring::create(path, sealing)?;
    Ok(true)
}
