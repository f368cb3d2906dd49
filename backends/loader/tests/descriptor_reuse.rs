//! The dynamic linker knows a library by its name, which here is that of a descriptor. Should something in the process close
//! a descriptor that is not its own, the next plugin may get the number, and the dynamic linker would answer the first one
//! for it. In a binary of its own, since it closes a descriptor under the loader.
#![cfg(target_os = "linux")]

mod common;

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use common::{c_plugin, directory, load};
use keystead_backend::KeyBackend;
use keystead_loader::Refusal;

fn memory_files() -> Vec<RawFd> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| {
            std::fs::read_link(entry.path())
                .is_ok_and(|target| target.display().to_string().contains("memfd:libfaulty"))
        })
        .map(|entry| {
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
                .expect("a number")
        })
        .collect()
}

#[test]
fn a_plugin_whose_descriptor_number_was_closed_by_others_is_not_taken_for_the_next() {
    let (first, second) = (directory(), directory());
    let one = load(&c_plugin("faulty", &["NAME=\"one\""], first.path())).expect("loads");
    let descriptors = memory_files();
    assert_eq!(descriptors.len(), 1, "one descriptor stays open for each plugin");

    let path = c_plugin("faulty", &["NAME=\"two\""], second.path());
    // SAFETY: this is the foul play that is tested; nobody else uses the number meanwhile, as there is one thread.
    #[allow(unsafe_code)]
    drop(unsafe { OwnedFd::from_raw_fd(descriptors[0]) });
    match load(&path) {
        Ok(two) => assert_eq!(two.describe().name, "two"),
        Err(error) => assert!(matches!(error.refusal(), Refusal::Link { .. }), "{error}"),
    }
    assert_eq!(one.describe().name, "one");
}
