//! Attempts to have a plugin loaded that must not be, through the front door; and what an application is told.

mod common;

use std::path::Path;

use common::{c_plugin, directory, install, load, rust_plugin, set_mode};
use keystead_backend::KeyBackend;
use keystead_loader::{Digest, LoadStep, Plugin, PluginSource, Refusal, digest_file};

#[test]
fn nothing_loads_without_a_digest_unless_that_is_spelled_out() {
    let directory = directory();
    let path = install(rust_plugin(), directory.path(), "plugin.so");
    let error = Plugin::load(&PluginSource::new(&path)).expect_err("no digest");
    assert!(matches!(error.refusal(), Refusal::NoDigest));
    assert!(Plugin::load(&PluginSource::new(&path).dangerously_without_digest()).is_ok());
    let both = PluginSource::new(&path)
        .dangerously_without_digest()
        .digest([0; 32]);
    let error = Plugin::load(&both).expect_err("a digest that is given counts");
    assert_eq!(error.step(), LoadStep::Digest);
}

#[test]
fn the_digest_of_another_file_is_refused_and_the_error_tells_the_one_found() {
    let directory = directory();
    let path = install(rust_plugin(), directory.path(), "plugin.so");
    let other = c_plugin("toy_cipher", &[], directory.path());
    let source = PluginSource::new(&path).digest(digest_file(&other).expect("readable"));
    let error = Plugin::load(&source).expect_err("the digest of another");
    let found = digest_file(&path).expect("readable");
    assert!(matches!(error.refusal(), Refusal::DigestMismatch { actual } if *actual == found));
    assert!(
        error.to_string().contains(&found.to_string()) && error.to_string().contains("plugin.so"),
        "{error}"
    );
    assert!(
        Plugin::load(&source.digest(found)).is_ok(),
        "one of several will do"
    );
}

#[test]
fn one_flipped_bit_anywhere_is_another_plugin() {
    let directory = directory();
    let path = c_plugin("toy_cipher", &[], directory.path());
    let digest = digest_file(&path).expect("readable");
    let sound = std::fs::read(&path).expect("readable");
    for position in [0, 1, sound.len() / 3, sound.len() / 2, sound.len() - 1] {
        let mut flipped = sound.clone();
        flipped[position] ^= 1;
        std::fs::write(&path, flipped).expect("written");
        let error = Plugin::load(&PluginSource::new(&path).digest(digest)).expect_err("flipped");
        assert_eq!(error.step(), LoadStep::Digest, "byte {position}");
    }
    std::fs::write(&path, sound).expect("written");
    assert!(Plugin::load(&PluginSource::new(&path).digest(digest)).is_ok());
}

#[test]
fn no_constructor_of_a_refused_plugin_runs() {
    let directory = directory();
    let marker = directory.path().join("marker");
    let path = c_plugin(
        "faulty",
        &[&format!("MARKER={:?}", marker.display().to_string())],
        directory.path(),
    );
    assert!(Plugin::load(&PluginSource::new(&path).digest([0; 32])).is_err());
    set_mode(&path, 0o777);
    assert!(load(&path).is_err());
    set_mode(&path, 0o755);
    assert!(
        Plugin::load(
            &PluginSource::new(&path)
                .dangerously_without_digest()
                .size_max_bytes(100)
        )
        .is_err()
    );
    assert!(!marker.exists(), "code of a refused plugin ran");
    assert!(load(&path).is_ok());
    assert!(
        marker.exists(),
        "the test proves nothing: the constructor does not run at all"
    );
}

#[test]
fn the_first_step_that_fails_is_the_one_that_is_named() {
    let directory = directory();
    let path = install(rust_plugin(), directory.path(), "plugin.so");
    // Everything is wrong with it: the cap, the digest, the mode.
    let source = PluginSource::new(&path).digest([0; 32]).size_max_bytes(1);
    set_mode(&path, 0o777);
    assert_eq!(
        Plugin::load(&source).expect_err("mode").step(),
        LoadStep::Permissions
    );
    set_mode(&path, 0o755);
    assert_eq!(Plugin::load(&source).expect_err("cap").step(), LoadStep::Read);
    assert_eq!(
        Plugin::load(&source.clone().size_max_bytes(u64::MAX))
            .expect_err("digest")
            .step(),
        LoadStep::Digest
    );
    let relative = PluginSource::new("plugin.so").digest([0; 32]);
    assert_eq!(
        Plugin::load(&relative).expect_err("relative").step(),
        LoadStep::Path
    );
}

#[test]
fn a_text_file_with_the_right_digest_is_refused_by_the_dynamic_linker() {
    let directory = directory();
    let path = directory.path().join("plugin.so");
    std::fs::write(&path, "not a library").expect("written");
    set_mode(&path, 0o755);
    let error = load(&path).expect_err("no library");
    assert_eq!(error.step(), LoadStep::Image);
    assert!(
        error.to_string().contains("the dynamic linker refuses it"),
        "{error}"
    );
}

#[test]
fn a_plugin_stays_usable_after_its_file_is_gone() {
    let directory = directory();
    let path = c_plugin("faulty", &["NAME=\"gone\"", "VARIANT=7"], directory.path());
    let plugin = load(&path).expect("loads");
    drop(directory);
    assert_eq!(plugin.describe().name, "gone");
    assert!(common::open(&plugin, "none").is_ok());
}

#[test]
fn several_plugins_live_side_by_side_and_each_keeps_its_own_symbols() {
    let directory = directory();
    let rust = load(&install(rust_plugin(), directory.path(), "rust.so")).expect("loads");
    let toy = load(&c_plugin("toy_cipher", &[], directory.path())).expect("loads");
    let faulty = load(&c_plugin("faulty", &[], directory.path())).expect("loads");
    let names = [&rust, &toy, &faulty].map(|plugin| plugin.describe().name);
    assert_eq!(names, ["demonstration", "toy-cipher", "faulty"]);
}

#[test]
fn the_digest_of_a_file_is_what_b3sum_prints() {
    let directory = directory();
    let path = directory.path().join("abc");
    std::fs::write(&path, "abc").expect("written");
    // The published BLAKE3 digest of the three bytes "abc".
    let published = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
    assert_eq!(
        digest_file(&path).expect("readable"),
        published.parse::<Digest>().expect("a digest")
    );
    assert!(digest_file(Path::new("/nowhere")).is_err());
}

#[test]
fn debug_of_a_plugin_names_it_and_the_bytes_that_run() {
    let directory = directory();
    let path = c_plugin("toy_cipher", &[], directory.path());
    let shown = format!("{:?}", load(&path).expect("loads"));
    for part in [
        "toy-cipher",
        "0.1.0",
        &path.display().to_string(),
        &digest_file(&path).expect("there").to_string(),
    ] {
        assert!(shown.contains(part), "{shown} lacks {part}");
    }
}
