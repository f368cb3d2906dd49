//! Running the tool, and building what it is run on.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A directory that a plugin may lie in: ours, below the sticky `/tmp`, writable by nobody else.
pub fn directory() -> tempfile::TempDir {
    let directory = tempfile::Builder::new()
        .prefix("keystead-conform-")
        .tempdir_in("/tmp")
        .expect("/tmp is there");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))
        .expect("ours to change");
    directory
}

/// The plugin with planted faults.
pub fn planted(directory: &Path) -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let plugin = directory.join("libplanted.so");
    let mut build = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    build.args([
        "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread", "-g", "-I",
    ]);
    build.arg(manifest.join("../api/include")).arg("-o").arg(&plugin);
    build.arg(manifest.join("tests/plugins/planted.c"));
    run(&mut build);
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).expect("ours to change");
    plugin
}

/// A plugin of this workspace, copied to where it may be loaded from whatever the umask under which it was built.
pub fn installed(package: &str, library: &str, directory: &Path) -> PathBuf {
    let plugin = directory.join(format!("lib{library}.so"));
    std::fs::copy(built(package, library), &plugin).expect("there is room");
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).expect("ours to change");
    plugin
}

/// A plugin of this workspace, built beside this test: now, unless `cargo xtask test` has built everything.
fn built(package: &str, library: &str) -> PathBuf {
    // This binary lies in `<target>/<profile>/deps`.
    let own = std::env::current_exe().expect("known");
    let profile = own.parent().and_then(Path::parent).expect("two levels up");
    let plugin = profile.join(format!("lib{library}.so"));
    if std::env::var_os("KEYSTEAD_ALL_IS_BUILT").is_some() {
        return plugin;
    }
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--package", package, "--target-dir"]);
    build.arg(profile.parent().expect("one more level up"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    run(&mut build);
    plugin
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Writes a file for the tool to read.
pub fn file(directory: &Path, name: &str, text: impl ToString) -> PathBuf {
    let file = directory.join(name);
    std::fs::write(&file, text.to_string()).expect("there is room");
    file
}

/// What the tool found.
pub struct Found {
    pub code: i32,
    pub report: Value,
}

impl Found {
    /// The checks with this outcome.
    pub fn with(&self, outcome: &str) -> Vec<&str> {
        let checks = self.report["checks"].as_array().expect("a list");
        checks
            .iter()
            .filter(|check| check["outcome"] == outcome)
            .map(|check| check["name"].as_str().expect("a name"))
            .collect()
    }

    /// The notes of one check.
    pub fn notes(&self, check: &str) -> String {
        let checks = self.report["checks"].as_array().expect("a list");
        let check = checks
            .iter()
            .find(|line| line["name"] == check)
            .expect("it was made");
        check["notes"].to_string()
    }
}

/// Runs the tool, for JSON.
pub fn conform(arguments: &mut Command) -> Found {
    let output = arguments.arg("--json").output().expect("it starts");
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{errors}"));
    Found {
        code: output.status.code().expect("it ends by itself"),
        report,
    }
}

/// The tool, on a plugin.
pub fn tool(plugin: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keystead-conform"));
    command.arg(plugin);
    command
}
