//! What tests tell `cargo xtask test` beside whether they passed: it names a file in the environment, and prints at its end what
//! stands there.

use std::io::Write;

/// The file for what this module notes.
const FILE_VARIABLE: &str = "KEYSTEAD_NOTES_FILE";

/// Notes that a backend was tested with this peer, such as `moto 5.1.22`.
///
/// # Panics
///
/// When it cannot be noted.
pub fn tested_with(backend: &str, peer: &str) {
    append(FILE_VARIABLE, &["tested with", backend, peer]);
}

/// Notes what `keystead-conform` found of a plugin.
///
/// # Panics
///
/// When it cannot be noted.
pub fn conforms(plugin: &str, found: &str) {
    append(FILE_VARIABLE, &["conform", plugin, found]);
}

/// Appends a line of these words to the file that the variable names, if it names one.
pub(crate) fn append(variable: &str, words: &[&str]) {
    let Some(path) = std::env::var_os(variable) else {
        return;
    };
    let line = words.join("\t").replace('\n', " ");
    let note = || {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)?;
        // In one write, so that the lines of tests that run at the same time stay whole.
        file.write_all(format!("{line}\n").as_bytes())
    };
    note().unwrap_or_else(|error| panic!("noting {line:?} in {}: {error}", path.display()));
}
