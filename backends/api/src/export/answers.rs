//! From Rust to C: outputs and errors.

use crate::{BackendError, ErrorCode, abi};

/// What an exported function returns instead of `OK`.
pub(super) struct Failure {
    code: i32,
    message: String,
    retry_after_ms: u64,
}

impl Failure {
    /// The host broke the interface's rules.
    pub(super) fn argument(message: impl Into<String>) -> Self {
        Self {
            code: abi::INVALID_ARGUMENT,
            message: message.into(),
            retry_after_ms: 0,
        }
    }

    /// There is no room for an answer.
    pub(super) fn too_small(what: &str, capacity: u64, needed: u64) -> Self {
        let message = format!("there is room for {capacity} bytes of {what}; it takes {needed}");
        Self {
            code: abi::BUFFER_TOO_SMALL,
            message,
            retry_after_ms: 0,
        }
    }

    /// The plugin itself is at fault.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::Internal.as_i32(),
            message: message.into(),
            retry_after_ms: 0,
        }
    }

    /// Writes the error where the host wants to know it, and answers the code to return.
    ///
    /// # Safety
    ///
    /// `error` is null or keeps the rules of the header.
    pub(super) unsafe fn answer(self, error: *mut abi::Error) -> i32 {
        // SAFETY: as the caller says.
        if let Ok(error) = unsafe { super::arguments::sized_mut(error, "the error") } {
            error.code = self.code;
            error.retry_after_ms = self.retry_after_ms;
            // SAFETY: as the caller says.
            unsafe { write_cut(&mut error.message, &self.message) };
        }
        self.code
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        // Rounded up: a wait of half a millisecond must not read as "did not say".
        let retry_after_ms = error.retry_after.map_or(0, |wait| {
            u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
        });
        Self {
            code: error.code.as_i32(),
            message: error.message,
            retry_after_ms,
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

/// Writes text for people, cut on a character's boundary when there is no room for all of it.
///
/// # Safety
///
/// `output` has its capacity in bytes behind its pointer, or the pointer is null.
pub(super) unsafe fn write_cut(output: &mut abi::Output, text: &str) {
    let room = if output.data.is_null() {
        0
    } else {
        usize::try_from(output.capacity).unwrap_or(usize::MAX)
    };
    let cut = &text[..text.floor_char_boundary(room)];
    if !cut.is_empty() {
        // SAFETY: no more than the capacity, and not overlapping.
        unsafe { output.data.copy_from_nonoverlapping(cut.as_ptr(), cut.len()) };
    }
    output.len = cut.len() as u64;
}
