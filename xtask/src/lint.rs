//! `cargo xtask lint`: formatting, clippy, documentation, house rules. All of them run, so that one run says everything.

use crate::house_rules;
use crate::tools::{cargo, root, spoken, succeeds};

pub(crate) fn run() -> anyhow::Result<bool> {
    let deny = ["--all-targets", "--", "--deny", "warnings"];
    // The benchmark's feature `sqlcipher` compiles OpenSSL even to be looked at, so it is left to `cargo xtask bench`.
    let all = ["--workspace", "--exclude", "keystead-bench", "--all-features"];
    let mut clippy_all = cargo(&["clippy", "--keep-going"]);
    clippy_all.args(all).args(deny);
    // As applications get the engine: the portable cipher, no seams for tests.
    let mut clippy_plain = cargo(&["clippy", "--package", "keystead", "--package", "keystead-bench"]);
    clippy_plain.args(deny);
    let mut documentation = cargo(&["doc", "--no-deps"]);
    documentation.args(all).env("RUSTDOCFLAGS", "--deny warnings");
    let mut checks = [
        cargo(&["fmt", "--all", "--check"]),
        clippy_all,
        clippy_plain,
        documentation,
    ];

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
