//! Tests that leave out what they test say so, loudly: a machine without what they need is no reason to be silent.

use std::io::Write;

/// The file in which tests note that they leave something out.
const FILE_VARIABLE: &str = "KEYSTEAD_LEFT_OUT_FILE";

/// Says that the test that calls this leaves out `what`, and why. `cargo xtask test` counts it as skipped, and lists it at its
/// end.
///
/// # Panics
///
/// When it cannot be noted.
pub fn leave_out(what: &str, because: &str) {
    // Past the test runner, which keeps to itself what a passing test prints with a macro.
    let _ = writeln!(std::io::stderr(), "LEFT OUT because {because}: {what}");
    let Some(path) = std::env::var_os(FILE_VARIABLE) else {
        return;
    };
    // A test is known by process and thread, whichever runner runs it.
    let thread = std::thread::current();
    let test = format!("{} {}", std::process::id(), thread.name().unwrap_or("?"));
    let note = || {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)?;
        // In one write, so that the lines of tests that run at the same time stay whole.
        file.write_all(format!("{test}\t{what}\n").as_bytes())
    };
    note().unwrap_or_else(|error| panic!("noting in {} what is left out: {error}", path.display()));
}
