//! Installs the emulators of AWS, so that no test has to wait for that. `cargo xtask test` runs it.

#![allow(clippy::print_stderr, reason = "it says what it does")]

fn main() -> anyhow::Result<()> {
    eprintln!("AWS emulators: installing them, unless they are there already (half a minute)");
    let python = keystead_tests::emulators::install()?;
    eprintln!("AWS emulators: ready, run by {}", python.display());
    Ok(())
}
