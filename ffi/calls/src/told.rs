//! What a call returns, and that its error object says the same.

#![allow(unsafe_code)]

use keystead_ffi::error::{
    KEYSTEAD_CLASS_CALLER, KEYSTEAD_CLASS_FAULT, KEYSTEAD_OK, KEYSTEAD_OTHER, KEYSTEAD_PANICKED,
    keystead_class_of, keystead_error, keystead_error_class, keystead_error_code, keystead_error_free,
    keystead_error_message,
};
use std::ffi::CStr;
use std::ptr;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `KEYSTEAD_…`.
    pub code: i32,
    /// For people.
    pub message: String,
}

/// Makes a call, which is given where its error goes.
///
/// # Panics
///
/// When what it returns and what its error object says do not fit together, or when it is no error that anybody should meet: a
/// panic that was caught, or one without a code of its own.
pub fn told(call: impl FnOnce(*mut *mut keystead_error) -> i32) -> Result<(), Refusal> {
    // Something that is no pointer to an error, and must not be looked at.
    let mut error: *mut keystead_error = ptr::dangling_mut();
    let code = call(&raw mut error);
    if code == KEYSTEAD_OK {
        assert!(error.is_null(), "an error object of a call that succeeded");
        return Ok(());
    }
    assert!(!error.is_null(), "code {code} without an error object");
    // SAFETY: the call failed, so this is its error, which is freed once; the message belongs to it.
    let message = unsafe {
        assert_eq!(keystead_error_code(error), code);
        assert_eq!(keystead_error_class(error), keystead_class_of(code));
        let message = CStr::from_ptr(keystead_error_message(error)).to_str();
        let message = message.expect("messages are UTF-8").to_owned();
        keystead_error_free(error);
        message
    };
    assert!(!message.is_empty(), "code {code} says nothing");
    assert!(
        code != KEYSTEAD_PANICKED && code != KEYSTEAD_OTHER,
        "code {code}: {message}"
    );
    // SAFETY: a number.
    let class = unsafe { keystead_class_of(code) };
    assert!(
        (KEYSTEAD_CLASS_CALLER..=KEYSTEAD_CLASS_FAULT).contains(&class),
        "{class}"
    );
    Err(Refusal { code, message })
}
