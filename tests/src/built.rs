//! What cargo has built beside the test that asks: commands and dynamic plugins.

use crate::left_out::leave_out;
use keystead_loader::{Plugin, PluginSource, digest_file};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

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

/// A copy of a plugin where it may be loaded from: what cargo builds may lie in directories, and be files, that the group may write.
/// It is there for as long as the directory.
///
/// # Panics
///
/// When it cannot be copied.
#[must_use]
pub fn installed(plugin: &Path) -> (TempDir, PathBuf) {
    let directory = tempfile::Builder::new()
        .prefix("keystead-plugin-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in("/tmp")
        .expect("/tmp is there");
    let copy = directory.path().join(plugin.file_name().expect("a file"));
    std::fs::copy(plugin, &copy).expect("there is room");
    std::fs::set_permissions(&copy, Permissions::from_mode(0o600)).expect("ours to change");
    (directory, copy)
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
    // A plugin that is loaded needs its file no more.
    let (_directory, path) = installed(&path);
    let digest = digest_file(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let loaded = Plugin::load(&PluginSource::new(&path).digest(digest));
    Some(loaded.unwrap_or_else(|error| panic!("{error}")))
}
