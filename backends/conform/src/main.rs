//! `keystead-conform`: tells a plugin's author whether a key backend keeps the rules of the interface
//! (`backends/api/include/keystead_backend.h`), whatever language it is written in.
//!
//! ```text
//! keystead-conform PLUGIN --config FILE [--settings FILE] [--json] [--digest HEX]…
//! ```
//!
//! The plugin is loaded as an application loads it, through every step of `keystead-loader`, and called as the engine calls it
//! and as only a tool does: with every size of room, without an error to fill in, with structs of a later version. What is checked
//! is listed by `keystead-conform --list`, and each line of the report says it in words.
//!
//! Each check runs in a process of its own: a plugin that crashes, ends the process or never returns fails the check that it was
//! in, and the others go on. What it prints is looked at as well.
//!
//! **What cannot be checked is said, never passed.** Some checks need more than a config:
//!
//! | checks | what they need |
//! | --- | --- |
//! | `wrong-key` | another key: `--other-config`, `--other-settings`, or both |
//! | `cancel-during`, `deadline`, `interrupt` | a KMS that does not answer: `--silent-settings`, in which `@SILENT@` stands for the address (`127.0.0.1:port`) of a server that takes connections and says nothing. |
//! | `context` | a backend that binds the context; for one that does not, `store` shows that the host's frame does it |
//! | `memory` | Linux |
//!
//! A check that a backend is known to fail, for a reason that its documentation gives, is excepted with `--except`; the report
//! shows it with what was found.
//!
//! # Exit codes
//!
//! | code | |
//! | --- | --- |
//! | 0 | nothing failed; what was not checked or excepted is listed |
//! | 1 | a check failed |
//! | 2 | the tool could not do its work: arguments, files, the scratch directory |
//! | 3 | with `--complete`: nothing failed, and something was not checked |
//!
//! # What it does not see
//!
//! - Whether the key id is *the KMS's* word, and not the plugin's guess: it must be the same for the same key, and a foreign one
//!   must be refused.
//! - Copies of a key on stacks and in registers that are not whole; memory of other processes; what a plugin sends to others.
//! - The class of errors that only a KMS can provoke: disabled, deleted, denied, throttled. Those are for the backend's own tests.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for people")]
#![allow(
    clippy::disallowed_methods,
    reason = "it measures how long a plugin's calls take"
)]

mod bench;
mod checks;
mod host;
mod inside;
mod job;
mod memory;
mod outside;
mod report;
mod secret;
mod silent;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use job::Job;
use keystead_loader::{Digest, digest_file};

/// Tells whether a key backend plugin keeps the rules of the interface.
#[derive(Parser)]
#[command(name = "keystead-conform", version)]
struct Arguments {
    /// The plugin.
    #[arg(required_unless_present_any = ["list", "inside"])]
    plugin: Option<PathBuf>,
    /// The config of a key that may be used: a JSON object, as it would be registered with an organization.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["list", "inside"])]
    config: Option<PathBuf>,
    /// The application's settings for the backend; {} unless given.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// The config of another key.
    #[arg(long, value_name = "FILE")]
    other_config: Option<PathBuf>,
    /// The settings for another key; those of --settings unless given.
    #[arg(long, value_name = "FILE")]
    other_settings: Option<PathBuf>,
    /// Settings with which the KMS never answers: @SILENT@ in them is the address of a silent server.
    #[arg(long, value_name = "FILE")]
    silent_settings: Option<PathBuf>,
    /// A file with a token that the host mints when the plugin asks for one.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The BLAKE3 digest that the plugin must have; without one, any bytes are checked, and the report says which.
    #[arg(long, value_name = "HEX")]
    digest: Vec<Digest>,
    /// This check alone; may be repeated.
    #[arg(long, value_name = "CHECK")]
    only: Vec<String>,
    /// A check that the backend is known to fail; may be repeated.
    #[arg(long, value_name = "CHECK")]
    except: Vec<String>,
    /// Tries every size, byte and room, not a selection: many KMS calls.
    #[arg(long)]
    thorough: bool,
    /// Exit code 3 when something could not be checked.
    #[arg(long)]
    complete: bool,
    /// The longest that one check may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    check_max_s: u64,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
    /// Lists the checks.
    #[arg(long)]
    list: bool,
    /// Makes one check, in this process: the tool's own.
    #[arg(long, hide = true, value_name = "DIRECTORY")]
    inside: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("keystead-conform: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<u8> {
    if let Some(directory) = &arguments.inside {
        inside::run(directory)?;
        return Ok(0);
    }
    if arguments.list {
        for check in checks::ALL {
            println!("{:<16} {}", check.name, check.claim);
        }
        return Ok(0);
    }
    for name in arguments.only.iter().chain(&arguments.except) {
        if !checks::ALL.iter().any(|check| check.name == name) {
            bail!("there is no check {name:?}; --list lists them");
        }
    }
    let job = job(&arguments)?;
    let chosen = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    let checks: Vec<_> = checks::ALL.iter().filter(|check| chosen(check.name)).collect();
    let mut report = outside::run(&job, &checks, Duration::from_secs(arguments.check_max_s))?;
    report.except(&arguments.except);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(report.exit_code(arguments.complete))
}

fn job(arguments: &Arguments) -> anyhow::Result<Job> {
    let plugin = arguments.plugin.as_deref().context("no plugin was given")?;
    let plugin = std::path::absolute(plugin)?;
    let text = |file: &Option<PathBuf>| -> anyhow::Result<Option<String>> {
        let read = |file: &PathBuf| {
            std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
        };
        file.as_ref().map(read).transpose()
    };
    // As the engine gives it to a backend: an object, without blanks.
    let object = |file: &Option<PathBuf>| -> anyhow::Result<Option<String>> {
        let Some(text) = text(file)? else { return Ok(None) };
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&text).with_context(|| {
                format!(
                    "{} is not a JSON object",
                    file.as_deref().unwrap_or(Path::new("")).display()
                )
            })?;
        Ok(Some(serde_json::Value::Object(object).to_string()))
    };
    let digest = digest_file(&plugin).with_context(|| format!("reading {}", plugin.display()))?;
    Ok(Job {
        digest: digest.to_string(),
        allowed: arguments.digest.iter().map(ToString::to_string).collect(),
        plugin,
        config: object(&arguments.config)?.context("no config was given")?,
        settings: object(&arguments.settings)?.unwrap_or_else(|| "{}".into()),
        other_config: object(&arguments.other_config)?,
        other_settings: object(&arguments.other_settings)?,
        silent_settings: object(&arguments.silent_settings)?,
        token: text(&arguments.token_file)?.map(|token| token.trim_end().to_owned()),
        thorough: arguments.thorough,
    })
}
