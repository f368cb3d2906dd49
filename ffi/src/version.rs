//! Which library this is.

#![allow(unsafe_code)]

use crate::guard;
use std::ffi::c_char;

/// The version of the C interface that this header describes. Rises when something is taken away or changes its meaning;
/// what is added does not raise it.
pub const KEYSTEAD_ABI_VERSION: u32 = 1;

/// The version of the library that runs, such as "0.1.0". Lives as long as the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_version() -> *const c_char {
    // SAFETY: a reference is a live object.
    unsafe { guard::look(&raw const VERSION, c"".as_ptr(), |version| version.as_ptr()) }
}

/// The version of the interface of the library that runs: the header's KEYSTEAD_ABI_VERSION, or the program was built
/// against another one and must not go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_abi_version() -> u32 {
    // SAFETY: a reference is a live object.
    unsafe { guard::look(&raw const VERSION, 0, |_| KEYSTEAD_ABI_VERSION) }
}

static VERSION: &std::ffi::CStr =
    match std::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };
