//! House rules that no other tool checks.
//!
//! - Unsafe code stands where the map of the project says, and nowhere else: every crate takes the workspace's lints, which
//!   deny it, and only the places below may allow it.
//! - No work is left as a note in the code.
//! - Planted bugs are asked for by one function, so that what is released has none of them.
//! - A source file is a comfortable room.
//! - What a backend's page says of its tests is so: see `error_tables`.

use crate::error_tables;
use anyhow::Context;
use std::fs;
use std::path::{Path, PathBuf};

/// Where unsafe code may stand: what a C edge needs. (Plugin crates have it by the macro of `backends/api`.)
const UNSAFE_ALLOWED: [&str; 3] = ["backends/api/", "backends/loader/", "ffi/"];
/// Lines of a source file, tests left out: about 400 are comfortable, more than this are not.
const LINES_MAX: usize = 600;
/// The `cfg` of the planted bugs, and where it may stand: where they are declared and where they are built for the suite.
const PLANTED_CFG: &str = "keystead_mutants";
const PLANTED_ALLOWED: [&str; 5] = [
    "engine/src/mutant.rs",
    "engine/src/lib.rs",
    "tests/src/bin/planted-bugs.rs",
    "xtask/src/mutants.rs",
    "xtask/src/house_rules.rs",
];
/// The `cfg` of what the benchmark leaves out, and where it may stand.
const MEASURED_CFG: &str = "keystead_measured";
const MEASURED_ALLOWED: [&str; 5] = [
    "engine/src/measured.rs",
    "engine/src/lib.rs",
    "bench/src/cases/mod.rs",
    "xtask/src/bench.rs",
    "xtask/src/house_rules.rs",
];
/// Directories in which nothing of ours stands.
const FOREIGN: [&str; 4] = ["target", ".git", ".cache", "node_modules"];

/// Every broken rule, as `file:line: what`.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    let mut broken = Vec::new();
    for file in files {
        let name = file
            .strip_prefix(root)
            .unwrap_or(&file)
            .to_string_lossy()
            .replace('\\', "/");
        let text = || fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()));
        if name.ends_with(".rs") {
            check_source(&name, &text()?, &mut broken);
        } else if name.ends_with("/Cargo.toml") {
            check_manifest(&name, &text()?, &mut broken);
        }
    }
    broken.extend(error_tables::check(root)?);
    Ok(broken)
}

pub(crate) fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        if kind.is_dir() && !FOREIGN.iter().any(|foreign| name == *foreign) {
            collect(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn check_manifest(name: &str, text: &str, broken: &mut Vec<String>) {
    let is_package = text.lines().any(|line| line.trim() == "[package]");
    let takes_lints = text.split_once("[lints]").is_some_and(|(_, after)| {
        after.lines().map(str::trim).find(|line| !line.is_empty()) == Some("workspace = true")
    });
    if is_package && !takes_lints {
        broken.push(format!(
            "{name}: the crate does not take the workspace's lints; add `[lints]` with `workspace = true`"
        ));
    }
}

fn check_source(name: &str, text: &str, broken: &mut Vec<String>) {
    let may_be_unsafe = UNSAFE_ALLOWED.iter().any(|place| name.starts_with(place));
    for (number, line) in (1..).zip(text.lines()) {
        let mut say = |what: &str| broken.push(format!("{name}:{number}: {what}"));
        let code = line.split_once("//").map_or(line, |(code, _)| code);
        if !may_be_unsafe && is_unsafe(code) {
            say("unsafe code; it stands in backends/api, backends/loader and ffi alone");
        }
        if code.contains(PLANTED_CFG) && !PLANTED_ALLOWED.contains(&name) {
            say("the cfg of the planted bugs; ask `planted` of engine/src/mutant.rs");
        }
        if code.contains(MEASURED_CFG) && !MEASURED_ALLOWED.contains(&name) {
            say("the cfg of what is left out to be measured; ask `is_left_out` of engine/src/measured.rs");
        }
        if is_note(line) {
            say("a note of work to do; do it, or open an issue");
        }
    }
    let lines = text.lines().count();
    let is_test = name.contains("/tests/") || name.ends_with("/tests.rs");
    if lines > LINES_MAX && !is_test {
        broken.push(format!(
            "{name}: {lines} lines, more than {LINES_MAX}; split it into files that each do one thing"
        ));
    }
}

fn is_unsafe(code: &str) -> bool {
    let is_attribute = code.trim_start().starts_with('#');
    let allows =
        is_attribute && code.contains("unsafe_code") && (code.contains("allow(") || code.contains("expect("));
    let keyword = ["{", "fn ", "impl ", "impl<", "extern ", "trait "];
    allows
        || keyword
            .iter()
            .any(|after| code.contains(&["unsafe ", after].concat()))
}

fn is_note(line: &str) -> bool {
    // Put together here, so that this file is not its own first finding.
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let is_word = |at: usize, length: usize| {
        let is_letter =
            |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        let bytes = line.as_bytes();
        !is_letter(at.checked_sub(1).and_then(|before| bytes.get(before)))
            && !is_letter(bytes.get(at + length))
    };
    notes
        .iter()
        .any(|note| line.match_indices(note).any(|(at, _)| is_word(at, note.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, text: &str) -> Vec<String> {
        let mut broken = Vec::new();
        check_source(name, text, &mut broken);
        broken
    }

    #[test]
    fn this_project_keeps_them() {
        let broken = check(crate::tools::root()).expect("its files can be read");
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    #[test]
    fn unsafe_code_is_found_outside_of_its_places_only() {
        let text = ["let x = ", "unsafe", " { *pointer };"].concat();
        assert_eq!(findings("engine/src/store.rs", &text).len(), 1);
        assert_eq!(findings("backends/api/src/abi.rs", &text), Vec::<String>::new());
        assert_eq!(
            findings("engine/src/lib.rs", "#![forbid(unsafe_code)]"),
            Vec::<String>::new()
        );
        let allowed = ["#![allow(", "unsafe_code)]"].concat();
        assert_eq!(findings("cli/src/main.rs", &allowed).len(), 1);
    }

    #[test]
    fn planted_bugs_are_asked_for_by_one_function() {
        let direct = "#[cfg(keystead_mutants)]";
        assert_eq!(findings("engine/src/storage/commit.rs", direct).len(), 1);
        assert_eq!(findings("engine/src/mutant.rs", direct), Vec::<String>::new());
        let asked = "if !planted(Mutant::JournalUnsynced) {";
        assert_eq!(
            findings("engine/src/storage/commit.rs", asked),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_note_is_a_word_of_its_own() {
        assert!(is_note(&["// TO", "DO: later"].concat()));
        assert!(is_note(&["XX", "X"].concat()));
        assert!(!is_note(&["keystead-XX", "XXXX"].concat()));
        assert!(!is_note("method"));
    }

    #[test]
    fn a_crate_without_the_workspaces_lints_is_found() {
        let mut broken = Vec::new();
        check_manifest("cli/Cargo.toml", "[package]\nname = \"cli\"\n", &mut broken);
        assert_eq!(broken.len(), 1);
        check_manifest(
            "cli/Cargo.toml",
            "[package]\n\n[lints]\nworkspace = true\n",
            &mut broken,
        );
        assert_eq!(broken.len(), 1);
    }

    #[test]
    fn a_source_file_beyond_the_limit_is_found_but_a_test_may_be_long() {
        let long = "//\n".repeat(LINES_MAX + 1);
        assert_eq!(findings("engine/src/long.rs", &long).len(), 1);
        assert_eq!(findings("engine/tests/long.rs", &long), Vec::<String>::new());
    }
}
