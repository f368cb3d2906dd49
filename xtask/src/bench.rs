//! `cargo xtask bench`: builds the benchmark and runs it, at real-time priority where that is allowed.
//!
//! On a machine that is used by others, each sync of the disk waits for a tick of the scheduler unless the benchmark goes before
//! them: its durable figures are noise then, and it says so.

use crate::ffi_test;
use crate::tools::{self, cargo, program, root, succeeds, target_directory};
use std::path::PathBuf;
use std::process::Command;

const REAL_TIME: [&str; 2] = ["-r", "10"];

/// The build in which parts of the engine can be left out, and the case that measures them.
const CHECKS: &str = "--checks";
const MEASURED: [&str; 2] = ["--cfg", "keystead_measured"];

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<bool> {
    if let Some((_, rest)) = arguments.split_first().filter(|(first, _)| *first == CHECKS) {
        let target = target_directory()?.join("measured");
        let mut build = cargo(&[
            "build",
            "--release",
            "--package",
            "keystead-bench",
            "--target-dir",
        ]);
        tools::run(build.arg(&target).env("RUSTFLAGS", MEASURED.join(" ")))?;
        let bench = target.join("release").join("keystead-bench");
        return measure(&bench, &[&["--only".into(), "checks".into()], rest].concat());
    }
    // With SQLCipher, whose build compiles OpenSSL: the first one takes minutes.
    let selection = ["--package", "keystead-bench", "--features", "sqlcipher"];
    tools::run(cargo(&["build", "--release"]).args(selection))?;
    let bench = target_directory()?.join("release").join("keystead-bench");
    measure(&bench, arguments)
}

fn measure(bench: &std::path::Path, arguments: &[String]) -> anyhow::Result<bool> {
    let python = match asks_for_python(arguments) {
        true => Some(python()?),
        false => None,
    };
    let with_python = |command: &mut Command| match &python {
        Some(python) => succeeds(command.args(arguments).env("KEYSTEAD_BENCH_PYTHON", python)),
        None => succeeds(command.args(arguments)),
    };
    if tools::is_there(program("chrt", &REAL_TIME).arg("true")) {
        return with_python(program("chrt", &REAL_TIME).arg(bench));
    }
    eprintln!(
        "\nchrt -r 10 is not allowed here: what is durable is measured at ordinary priority, and is noise unless the machine is idle."
    );
    with_python(&mut program(bench, &[]))
}

/// Whether the case that measures Python is among those that are run.
fn asks_for_python(arguments: &[String]) -> bool {
    !arguments
        .iter()
        .any(|given| given.starts_with("--only") || given == "--help")
        || arguments.iter().any(|given| given.contains("languages"))
}

/// The interpreter of an environment with the package for Python in it, built for release.
fn python() -> anyhow::Result<PathBuf> {
    let place = target_directory()?.join("bench-python");
    let prefix = ffi_test::install(&place.join("prefix"), "release")?;
    let script = root().join("ffi/bindings/python/install.sh");
    let mut install = program("sh", &[]);
    install.arg(script).arg(&place);
    install.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    tools::run(&mut install)?;
    Ok(place.join("venv/bin/python"))
}
