//! `cargo xtask lint`: formatting, clippy, documentation, house rules. All of them run, so that one run says everything.

use crate::house_rules;
use crate::tools::{cargo, root, spoken, succeeds};

pub(crate) fn run() -> anyhow::Result<bool> {
    let mut checks = [
        cargo(&["fmt", "--all", "--check"]),
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "--deny",
            "warnings",
        ]),
        // The engine as applications get it: the portable cipher, no seams for tests.
        cargo(&[
            "clippy",
            "--package",
            "keystead",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]),
        cargo(&["doc", "--workspace", "--all-features", "--no-deps"]),
    ];
    checks[3].env("RUSTDOCFLAGS", "--deny warnings");

    let mut failed = Vec::new();
    for check in &mut checks {
        if !succeeds(check)? {
            failed.push(spoken(check));
        }
    }
    eprintln!("\n> house rules");
    let broken = house_rules::check(root())?;
    for line in &broken {
        eprintln!("{line}");
    }
    if !broken.is_empty() {
        failed.push(format!("house rules ({} broken)", broken.len()));
    }

    match failed.is_empty() {
        true => println!("\nlint: clean"),
        false => println!("\nlint: NOT clean:\n  {}", failed.join("\n  ")),
    }
    Ok(failed.is_empty())
}
