//! `cargo xtask plugins`: builds the plugin of every KMS as it is shipped, and prints what each costs.

use crate::tools::{self, cargo, program, root, succeeds, target_directory};
use anyhow::Context;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};

pub(crate) fn run() -> anyhow::Result<bool> {
    let plugins = plugins()?;
    let packages = plugins.iter().map(|(package, _)| package.as_str());
    let packages: Vec<&str> = packages
        .chain(["keystead-tests"])
        .flat_map(|package| ["--package", package])
        .collect();
    tools::run(cargo(&["build", "--release"]).args(&packages))?;
    let built = target_directory()?.join("release");
    let files = plugins
        .iter()
        .map(|(_, library)| built.join(format!("{DLL_PREFIX}{library}{DLL_SUFFIX}")));
    succeeds(program(built.join("plugin-figures"), &[]).args(files))
}

/// A plugin that is none of a KMS: it stands before others in tests.
const SHIM: &str = "fault-shim";

/// Package and library of each `backends/<name>/plugin/` of a KMS.
fn plugins() -> anyhow::Result<Vec<(String, String)>> {
    let mut plugins = Vec::new();
    for backend in std::fs::read_dir(root().join("backends"))? {
        let backend = backend?;
        let manifest = backend.path().join("plugin").join("Cargo.toml");
        if backend.file_name() == SHIM {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&manifest) else {
            continue;
        };
        // The package's name, then the library's.
        let mut names = text.lines().filter_map(|line| line.strip_prefix("name = "));
        let mut next = || names.next().map(|name| name.trim_matches('"').to_owned());
        let names = next().zip(next());
        plugins.push(names.with_context(|| format!("{} names no package and library", manifest.display()))?);
    }
    plugins.sort();
    Ok(plugins)
}
