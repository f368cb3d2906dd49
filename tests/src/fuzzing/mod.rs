//! What the fuzzers do with their inputs. Each target takes any bytes, makes what it needs of them (`arbitrary`), and panics when
//! a promise does not hold. `fuzz/` hands these to libFuzzer; an ordinary test hands them every seed and every input that was
//! ever a finding.

#![allow(clippy::print_stderr, reason = "a fuzzer says what it found")]

mod aead_pair;
mod backend_config;
mod container_header;
mod file_image;
mod lives;
mod paths;
mod plugin_answers;
mod records;
mod redb_leaf;

/// A target: any bytes in, a panic where something is wrong.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: [(&str, Target); 10] = [
    ("aead_pair", aead_pair::run),
    ("backend_config", backend_config::run),
    ("container_header", container_header::run),
    // Calls of the C interface are unsafe code, which stands in `ffi/`.
    ("ffi_calls", keystead_ffi_calls::fuzz::run),
    ("file_image", file_image::run),
    ("lives", lives::run),
    ("paths", paths::run),
    ("plugin_answers", plugin_answers::run),
    ("records", records::run),
    ("redb_leaf", redb_leaf::run),
];

/// Runs the target of this name.
///
/// # Panics
///
/// When there is none, or when it finds something.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, run) = target.unwrap_or_else(|| panic!("there is no target {name}"));
    run(input);
}

/// What libFuzzer is to do once, before the first input: panics that the engine catches are none of its business. (One that
/// reaches the fuzzer ends it all the same.) A panic that comes while another one unwinds aborts the process next: it says both,
/// and where.
pub fn begin() {
    std::panic::set_hook(Box::new(|info| {
        let said = info.to_string();
        if std::env::var_os("KEYSTEAD_PANICS").is_some() {
            eprintln!("{said}");
        } else if said.contains(IN_A_DESTRUCTOR) {
            let before = LAST_PANIC.take().unwrap_or_default();
            eprintln!("{before}\n{said}\n{}", std::backtrace::Backtrace::force_capture());
        } else {
            LAST_PANIC.set(Some(said));
        }
    }));
}

/// What the standard library says before it aborts.
const IN_A_DESTRUCTOR: &str = "panic in a destructor during cleanup";

thread_local! {
    static LAST_PANIC: std::cell::Cell<Option<String>> = const { std::cell::Cell::new(None) };
}

/// Runs a target of the fuzzer: says what panicked before it lets the panic go on.
pub fn run_said(name: &str, input: &[u8]) {
    if let Err(panic) = std::panic::catch_unwind(|| run(name, input)) {
        eprintln!("{name}: {}", LAST_PANIC.take().unwrap_or_default());
        std::panic::resume_unwind(panic);
    }
}
