//! Which process this is: what every call asks, since a handle belongs to the process that made it.

#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the process's id is kept; 0 in a process that has not been asked for it yet. `None` where there is no such page.
static KEPT: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();

/// Begins to keep the process's id. Before the first call of [`id`] that should be cheap.
pub(crate) fn keep_id() {
    KEPT.get_or_init(page_that_forks_empty);
}

/// The process's id, as [`std::process::id`] says. That is a system call, and a tenth of what a get of 1 KiB takes; so it is kept
/// in a page that the kernel empties in the child of a fork, however that is made.
pub(crate) fn id() -> u32 {
    // Does not wait: in a child, who was making the page may be gone.
    let Some(kept) = KEPT.get().copied().flatten() else {
        return std::process::id();
    };
    match kept.load(Ordering::Relaxed) {
        0 => {
            let id = std::process::id();
            kept.store(id, Ordering::Relaxed);
            id
        }
        id => id,
    }
}

#[cfg(target_os = "linux")]
fn page_that_forks_empty() -> Option<&'static AtomicU32> {
    const BYTES: usize = size_of::<AtomicU32>();
    // SAFETY: a new mapping, where the kernel likes; it is whole pages, and zeros.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping of just now, which nobody else knows.
    unsafe {
        if libc::madvise(start, BYTES, libc::MADV_WIPEONFORK) == 0 {
            // Never unmapped. All zeros are an atomic number, and pages are aligned.
            return Some(&*start.cast::<AtomicU32>());
        }
        libc::munmap(start, BYTES);
    }
    None
}

#[cfg(not(target_os = "linux"))]
fn page_that_forks_empty() -> Option<&'static AtomicU32> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_that_of_the_process_that_asks_also_in_the_child_of_a_fork() {
        assert_eq!(id(), std::process::id(), "also before a page is there");
        keep_id();
        assert!(KEPT.get().unwrap().is_some(), "the kernel knows such pages");
        assert_eq!((id(), id()), (std::process::id(), std::process::id()));
        // SAFETY: the child looks at a page, asks the kernel for its id, and ends.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::_exit((id() != std::process::id() || id() != std::process::id()).into());
            }
            let mut status = -1;
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0);
        }
        assert_eq!(id(), std::process::id());
    }
}
