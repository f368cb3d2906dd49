//! Tests that leave out what they test say so, loudly: a machine without what they need is no reason to be silent.

use std::io::Write;

use crate::notes;

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
    // A test is known by process and thread, whichever runner runs it.
    let thread = std::thread::current();
    let test = format!("{} {}", std::process::id(), thread.name().unwrap_or("?"));
    notes::append(FILE_VARIABLE, &[&test, what]);
}
