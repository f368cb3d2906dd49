//! Runs cargo and other programs, from the workspace's root.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate stands one level below the root")
}

/// The directory in which cargo puts what it builds, `debug` and `release` below it: this program is in it, too.
pub(crate) fn target_directory() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program's own path")?;
    let target = program
        .parent()
        .and_then(Path::parent)
        .context("this program is not where cargo builds programs")?;
    Ok(target.to_owned())
}

/// A program, to be run in the workspace's root.
pub(crate) fn program(path: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(arguments).current_dir(root());
    command
}

/// The cargo that runs this.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    program(
        std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        arguments,
    )
}

/// Says what is run, runs it, and says whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> anyhow::Result<bool> {
    announce(command);
    let status = command
        .status()
        .with_context(|| format!("running {}", spoken(command)))?;
    Ok(status.success())
}

/// The same; a failure is an error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    match succeeds(command)? {
        true => Ok(()),
        false => bail!("{} failed", spoken(command)),
    }
}

/// Whether a program can be run and succeeds, without anything being seen of it.
pub(crate) fn is_there(command: &mut Command) -> bool {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Says what is run.
pub(crate) fn announce(command: &Command) {
    eprintln!("\n> {}", spoken(command));
}

/// A command as one would type it.
pub(crate) fn spoken(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A duration as people say it.
pub(crate) fn human(duration: Duration) -> String {
    match duration.as_secs() {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}
