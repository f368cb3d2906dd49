//! `cargo xtask bench`: builds the benchmark and runs it, at real-time priority where that is allowed.
//!
//! On a machine that is used by others, each sync of the disk waits for a tick of the scheduler unless the benchmark goes before
//! them: its durable figures are noise then, and it says so.

use crate::tools::{self, cargo, program, succeeds, target_directory};

const REAL_TIME: [&str; 2] = ["-r", "10"];

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<bool> {
    // With SQLCipher, whose build compiles OpenSSL: the first one takes minutes.
    let selection = ["--package", "keystead-bench", "--features", "sqlcipher"];
    tools::run(cargo(&["build", "--release"]).args(selection))?;
    let bench = target_directory()?.join("release").join("keystead-bench");
    if tools::is_there(program("chrt", &REAL_TIME).arg("true")) {
        return succeeds(program("chrt", &REAL_TIME).arg(bench).args(arguments));
    }
    eprintln!(
        "\nchrt -r 10 is not allowed here: what is durable is measured at ordinary priority, and is noise unless the machine is idle."
    );
    succeeds(program(bench, &[]).args(arguments))
}
