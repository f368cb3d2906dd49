//! Every seed of the fuzzers, and every input that was ever a finding, by an ordinary compiler: `fuzz/seeds/<target>/` and
//! `fuzz/regressions/<target>/`. A finding has its story where it was fixed; here it stays fixed.

#![allow(clippy::print_stdout, reason = "a failure is looked for by its input")]

use keystead_tests::fuzzing;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn inputs(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz")
        .join(kind)
        .join(target);
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

fn run(target: &str) {
    let seeds = inputs("seeds", target);
    assert!(!seeds.is_empty(), "{target} has no seeds");
    for (path, input) in seeds.into_iter().chain(inputs("regressions", target)) {
        // The name first: when the target panics, it is what one looks for.
        println!("{}", path.display());
        fuzzing::run(target, &input);
    }
}

#[test]
fn two_ciphers_agree() {
    run("aead_pair");
}

#[test]
fn a_config_is_refused_with_a_reason_or_taken() {
    run("backend_config");
}

#[test]
fn a_header_is_refused_or_is_what_is_written_again() {
    run("container_header");
}

#[test]
fn whatever_is_called_of_the_c_interface_each_call_answers_as_it_must() {
    run("ffi_calls");
}

#[test]
fn a_crafted_file_gives_errors_and_never_a_wrong_value() {
    run("file_image");
}

#[test]
fn a_life_with_faults_and_losses_of_power_keeps_what_was_acknowledged() {
    run("lives");
}

#[test]
fn text_is_refused_or_a_path_a_name_or_an_arn() {
    run("paths");
}

#[test]
fn whatever_a_plugin_answers_its_host_gets_an_error_or_an_answer_within_limits() {
    run("plugin_answers");
}

#[test]
fn any_row_is_refused_or_encodes_as_itself() {
    run("records");
}

#[test]
fn a_page_is_read_as_far_as_it_is_one() {
    run("redb_leaf");
}

#[test]
fn the_fuzzers_that_are_built_are_the_targets_that_there_are() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    let built: BTreeSet<String> = std::fs::read_dir(sources)
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(
        built,
        fuzzing::TARGETS
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect()
    );
}
