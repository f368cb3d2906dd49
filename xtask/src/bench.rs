//! `cargo xtask bench`: builds the benchmark and runs it, at real-time priority where that is allowed.
//!
//! On a machine that is used by others, each sync of the disk waits for a tick of the scheduler unless the benchmark goes before
//! them: its durable figures are noise then, and it says so.

use crate::tools::{self, cargo, program, succeeds, target_directory};

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
    if tools::is_there(program("chrt", &REAL_TIME).arg("true")) {
        return succeeds(program("chrt", &REAL_TIME).arg(bench).args(arguments));
    }
    eprintln!(
        "\nchrt -r 10 is not allowed here: what is durable is measured at ordinary priority, and is noise unless the machine is idle."
    );
    succeeds(program(bench, &[]).args(arguments))
}
