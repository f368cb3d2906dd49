//! The demonstration: an organization's secrets move from the managed key to its own, while they are read and written.
//!
//! `cargo xtask demo` builds this and the plugin that it loads, and runs it. It needs no network service: a second keyring
//! stands for the customer's KMS, reached through a dynamic plugin as any other KMS would be.
//!
//! | module | what it is |
//! | --- | --- |
//! | `steps` | what is shown, in order |
//! | `application` | the process that is killed in the middle of the re-wrap |
//! | `traffic` | a reader and a writer that go on meanwhile |
//! | `kms`, `shred` | what makes things visible: counted KMS calls, shred keys found in the file |
//! | `world` | where things are, what is in them |
//! | `show` | steps, claims, the summary |

#![allow(clippy::print_stdout, reason = "a demonstration is there to be watched")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod application;
mod kms;
mod show;
mod shred;
mod steps;
mod traffic;
mod world;

use anyhow::{Context as _, bail};
use keystead_managed::{Keyring, Sealing};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use world::World;

const USAGE: &str = "usage: keystead-demo PLUGIN
PLUGIN is the library of the crate keystead-managed-plugin. `cargo xtask demo` builds both and gives it.";

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [plugin] if !plugin.starts_with('-') => demonstrate(Path::new(plugin)),
        // The parts that other processes play; the demonstration starts them by itself.
        ["application", directory, plugin, digest] => {
            let world = World {
                directory: directory.into(),
                plugin: plugin.into(),
                digest: digest.parse()?,
            };
            application::run(&world).map(|()| ExitCode::SUCCESS)
        }
        ["customer", what, keyring] => {
            customer(what, keyring.into())?;
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!(USAGE),
    }
}

/// The customer in its own KMS: nobody's business but its own.
fn customer(what: &str, keyring: PathBuf) -> anyhow::Result<()> {
    let keyring = Keyring::open(keyring, Sealing::none())?;
    match what {
        "disable" => keyring.disable()?,
        "enable" => keyring.enable()?,
        _ => bail!(USAGE),
    }
    Ok(())
}

fn demonstrate(plugin: &Path) -> anyhow::Result<ExitCode> {
    let directory = tempfile::Builder::new()
        .prefix("keystead-demo-")
        // Whatever the umask: a plugin in a directory that a group may write is refused.
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .context("making a directory")?;
    let outcome = steps::all(plugin, directory.path());
    // Removed in any case, and before the summary is the last thing on the screen.
    directory
        .close()
        .context("removing the demonstration's directory")?;
    Ok(if outcome?.end() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
