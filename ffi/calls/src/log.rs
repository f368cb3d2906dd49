//! The log of this process, as lines: what a program in C writes of each record.

#![allow(unsafe_code)]

use crate::{Owned, Refusal, told};
pub use keystead_ffi::log::{KEYSTEAD_LOG_DEBUG as DEBUG, KEYSTEAD_LOG_WARN as WARN};
use keystead_ffi::log::{keystead_log, keystead_log_free, keystead_log_open, keystead_log_record};
use keystead_ffi::text::keystead_text;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// What is done with a record besides writing it down.
pub type Also = fn(&str);

/// An open log.
#[derive(Debug)]
pub struct Log {
    // First, so that it ends before what it writes to.
    log: Owned<keystead_log>,
    lines: Box<Lines>,
}

#[derive(Debug)]
struct Lines {
    lines: Mutex<Vec<String>>,
    also: Option<Also>,
}

impl Log {
    /// Has everything up to this level written down.
    ///
    /// # Errors
    ///
    /// What the library says.
    pub fn open(level: i32) -> Result<Self, Refusal> {
        Self::open_and(level, None)
    }

    /// The same, and does something with each line, on the log's thread.
    ///
    /// # Errors
    ///
    /// What the library says.
    pub fn open_and(level: i32, also: Option<Also>) -> Result<Self, Refusal> {
        let lines = Box::new(Lines {
            lines: Mutex::default(),
            also,
        });
        let context: *const Lines = &raw const *lines;
        let log = Owned::from_call(keystead_log_free, |out| {
            // SAFETY: the context lives until the log has ended.
            told(|error| unsafe {
                keystead_log_open(level, Some(write_down), context.cast_mut().cast(), out, error)
            })
        })?;
        Ok(Self { log, lines })
    }

    /// Ends the log, and answers what it told.
    #[must_use]
    pub fn end(self) -> Vec<String> {
        drop(self.log);
        self.lines
            .lines
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

unsafe extern "C" fn write_down(context: *mut c_void, record: *const keystead_log_record) {
    // SAFETY: the context is that of `open_and`, and the record is the library's, for the time of this call.
    let (lines, record) = unsafe { (&*context.cast::<Lines>(), &*record) };
    let [target, message, fields] = [record.target, record.message, record.fields_json].map(text);
    let line = format!("{} {target}: {message} {fields}", record.level);
    if let Some(also) = lines.also {
        also(&line);
    }
    lines
        .lines
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(line);
}

fn text(text: keystead_text) -> String {
    // SAFETY: as many bytes as it says, for the time of the callback.
    let bytes = unsafe { std::slice::from_raw_parts(text.data.cast::<u8>(), text.len) };
    String::from_utf8_lossy(bytes).into_owned()
}
