//! What cargo has built beside the test that asks: commands and dynamic plugins.

use crate::left_out::leave_out;
use keystead_loader::{Plugin, PluginSource, digest_file};
use std::path::{Path, PathBuf};

/// The file of this name in the directory of what cargo builds, if it is there.
///
/// # Panics
///
/// When the running program is in no directory.
#[must_use]
pub fn built(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().expect("a running program has a file");
    let deps = own.parent().and_then(Path::parent);
    let file = deps.expect("tests are built into `deps`").join(name);
    file.is_file().then_some(file)
}

/// Loads a plugin that cargo has built, such as `libkeystead_aws_kms.so`, by every step of the loader and with its digest. `None`
/// when it is not built; then `left_out` has been printed.
///
/// # Panics
///
/// When it is there and does not load.
#[must_use]
pub fn plugin_or_leave_out(library: &str, left_out: &str) -> Option<Plugin> {
    let Some(path) = built(library) else {
        leave_out(
            left_out,
            &format!("{library} is not built; `cargo xtask test` builds it"),
        );
        return None;
    };
    let digest = digest_file(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let loaded = Plugin::load(&PluginSource::new(&path).digest(digest));
    Some(loaded.unwrap_or_else(|error| panic!("{error}")))
}
