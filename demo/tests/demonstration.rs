//! The demonstration, run as a whole: every claim of it holds.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::Path;
use std::process::Command;

#[test]
fn every_claim_of_the_demonstration_holds() {
    let program = Path::new(env!("CARGO_BIN_EXE_keystead-demo"));
    let plugin = program.with_file_name(format!("{DLL_PREFIX}keystead_managed{DLL_SUFFIX}"));
    assert!(
        plugin.is_file(),
        "{} is not there: build it (`cargo build --package keystead-managed-plugin`; `cargo xtask test` does)",
        plugin.display()
    );
    let output = Command::new(program)
        .arg(plugin)
        .output()
        .expect("the demonstration starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "it ended with {}:\n{said}\n{failed}",
        output.status
    );
    assert!(said.contains("All of it held"), "{said}");
    assert!(!said.contains("[FAIL]"), "{said}");
}
