//! From Rust to C: outputs and errors.

use std::time::Duration;

use crate::{BackendError, ErrorCode, abi};

/// What an exported function returns instead of `OK`.
pub(super) struct Failure {
    code: i32,
    message: String,
    retry_after: Option<Duration>,
}

impl Failure {
    /// The host broke the interface's rules.
    pub(super) fn argument(message: impl Into<String>) -> Self {
        Self {
            code: abi::INVALID_ARGUMENT,
            message: message.into(),
            retry_after: None,
        }
    }

    /// There is no room for an answer.
    pub(super) fn too_small(what: &str, capacity: u64, needed: u64) -> Self {
        let message = format!("there is room for {capacity} bytes of {what}; it takes {needed}");
        Self {
            code: abi::BUFFER_TOO_SMALL,
            message,
            retry_after: None,
        }
    }

    /// The plugin itself is at fault.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::Internal.as_i32(),
            message: message.into(),
            retry_after: None,
        }
    }

    /// Writes the error where the host wants to know it, and answers the code to return.
    ///
    /// # Safety
    ///
    /// `error` is null or keeps the rules of the header.
    pub(super) unsafe fn answer(self, error: *mut abi::Error) -> i32 {
        // SAFETY: as the caller says.
        unsafe { abi::Error::fill(error, self.code, self.retry_after, &self.message) };
        self.code
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        Self {
            code: error.code.as_i32(),
            message: error.message,
            retry_after: error.retry_after,
        }
    }
}

/// Refuses, before the backend is asked, an output that may turn out too small.
pub(super) fn check_room(output: &mut abi::Output, needed: u32, what: &str) -> Result<(), Failure> {
    let needed = u64::from(needed);
    if output.capacity < needed {
        output.len = needed;
        return Err(Failure::too_small(what, output.capacity, needed));
    }
    if output.data.is_null() && needed > 0 {
        return Err(Failure::argument(format!("the room for {what} is null")));
    }
    output.len = 0;
    Ok(())
}

/// Writes an answer whose room was checked for the largest answer that the backend described.
///
/// # Safety
///
/// `output` has its capacity in bytes behind its pointer.
pub(super) unsafe fn write(output: &mut abi::Output, answer: &[u8], what: &str) -> Result<(), Failure> {
    if answer.len() as u64 > output.capacity {
        return Err(Failure::internal(format!(
            "the backend answered {} bytes of {what}, more than it describes; report this to the backend's maker",
            answer.len()
        )));
    }
    if !answer.is_empty() {
        // SAFETY: there is room, and an answer of ours does not overlap memory of the host.
        unsafe {
            output
                .data
                .copy_from_nonoverlapping(answer.as_ptr(), answer.len())
        };
    }
    output.len = answer.len() as u64;
    Ok(())
}
