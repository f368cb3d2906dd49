//! `cargo xtask soak` and `cargo xtask replay`: simulated lives of stores from fresh seeds, and one of them once more.

use crate::tools::{cargo, succeeds};

/// Gives its arguments to the simulation. Built as users get the engine: the tests have the debug checks, redb's among them, which
/// hide what a release meets and cost half of the states.
pub(crate) fn run(command: &str, given: &[String]) -> anyhow::Result<bool> {
    let program = [
        "run",
        "--quiet",
        "--release",
        "--package",
        "keystead-tests",
        "--bin",
        "keystead-soak",
        "--",
        command,
    ];
    succeeds(cargo(&program).args(given))
}
