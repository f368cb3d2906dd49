//! `cargo xtask demo`: builds the demonstration and the plugin that it loads, and runs it.

use crate::tools::{self, cargo, program, succeeds, target_directory};
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};

pub(crate) fn run() -> anyhow::Result<bool> {
    let packages = [
        "--package",
        "keystead-demo",
        "--package",
        "keystead-managed-plugin",
    ];
    tools::run(cargo(&["build", "--release"]).args(packages))?;
    let built = target_directory()?.join("release");
    let plugin = built.join(format!("{DLL_PREFIX}keystead_managed{DLL_SUFFIX}"));
    succeeds(program(built.join("keystead-demo"), &[]).arg(plugin))
}
