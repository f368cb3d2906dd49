//! `cargo xtask soak` and `cargo xtask replay`: simulated lives of stores from fresh seeds, and one of them once more.

use crate::tools::{cargo, succeeds};

/// Gives its arguments to the simulation. Built like the tests: they have the debug checks of all that is simulated.
pub(crate) fn run(command: &str, given: &[String]) -> anyhow::Result<bool> {
    let program = [
        "run",
        "--quiet",
        "--package",
        "keystead-tests",
        "--bin",
        "keystead-soak",
        "--",
        command,
    ];
    succeeds(cargo(&program).args(given))
}
