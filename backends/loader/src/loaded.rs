//! A plugin that passed every step: what is common to the calls on all of its instances.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keystead_backend::{BackendError, Description, ErrorCode, abi};

use crate::negotiation::Table;
use crate::room::{Fault, Room};

/// The longest wait that a plugin may ask for: what is longer is a mistake, and would reach its caller's clock arithmetic.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A plugin that passed every step, or a table that the application offered.
pub(crate) struct Loaded {
    path: PathBuf,
    table: Table,
    description: Description,
    stopped: &'static AtomicBool,
}

impl Loaded {
    /// `stopped` is set once the plugin wrote where it must not: it is not called any more.
    pub(crate) fn new(
        path: &Path,
        stopped: &'static AtomicBool,
        table: Table,
        description: Description,
    ) -> Self {
        Self {
            path: path.to_owned(),
            table,
            description,
            stopped,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn description(&self) -> &Description {
        &self.description
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn check_that_it_is_not_stopped(&self) -> Result<(), BackendError> {
        if !self.is_stopped() {
            return Ok(());
        }
        Err(self.internal(
            "wrote beyond the memory that it was given and is not called any more: restart the process, and report this \
             to the plugin's maker",
        ))
    }

    pub(crate) fn internal(&self, what: &str) -> BackendError {
        BackendError::new(
            ErrorCode::Internal,
            format!("the plugin {} {what}", self.description.name),
        )
    }

    pub(crate) fn fault(&self, fault: Fault, what: &str) -> BackendError {
        match fault {
            Fault::Overrun => {
                self.stopped.store(true, Ordering::Release);
                tracing::error!(plugin = %self.path.display(), "a plugin wrote beyond its room for {what}");
                self.internal(
                    "wrote beyond the memory that it was given, and the process's memory may be damaged: restart the \
                     process, and report this to the plugin's maker",
                )
            }
            Fault::TooLong => self.internal(&format!(
                "answered {what} longer than the room that it described; report this to the plugin's maker"
            )),
        }
    }

    /// Checks what a room holds after a call; the first fault found is the error.
    pub(crate) fn answer<'a>(&self, room: &'a Room, len: u64, what: &str) -> Result<&'a [u8], BackendError> {
        room.answer(len).map_err(|fault| self.fault(fault, what))
    }

    /// A key id. It is stored and shown to people, so it has no line breaks and no escapes.
    pub(crate) fn key_id(&self, room: &Room, len: u64) -> Result<String, BackendError> {
        let bytes = self.answer(room, len, "a key id")?;
        String::from_utf8(bytes.to_vec())
            .ok()
            .filter(|text| !text.contains(char::is_control))
            .ok_or_else(|| {
                self.internal(
                    "answered a key id that is not UTF-8 or has control characters; report this to its maker",
                )
            })
    }

    /// Makes a call: gives it an error to fill in, and reads that.
    pub(crate) fn call(&self, call: impl FnOnce(*mut abi::Error) -> i32) -> Result<(), BackendError> {
        self.check_that_it_is_not_stopped()?;
        let mut message = Room::new(abi::MESSAGE_MAX as usize);
        let mut error = message.error();
        let code = call(&raw mut error);
        let (said, retry_after_ms, len) = (error.code, error.retry_after_ms, error.message.len);
        // Looked at in every case: an overrun is one, whatever the code says.
        let text = match message.answer(len) {
            Err(Fault::Overrun) => return Err(self.fault(Fault::Overrun, "a message")),
            Err(Fault::TooLong) => &[],
            Ok(text) => text,
        };
        if code == abi::OK {
            return Ok(());
        }
        let mut explained = explain(code, said, text);
        if retry_after_ms > 0 {
            explained =
                explained.with_retry_after(Duration::from_millis(retry_after_ms).min(RETRY_AFTER_MAX));
        }
        Err(explained)
    }
}

/// A code and a message of a plugin as an error. A code that does not exist, or that the plugin contradicts itself about,
/// is a fault of the plugin.
pub(crate) fn explain(code: i32, said: i32, message: &[u8]) -> BackendError {
    let text = for_people(message);
    let known = ErrorCode::ALL.iter().any(|known| known.as_i32() == code);
    if code != said {
        let text = format!("the plugin returned code {code} and wrote code {said}: {text}");
        return BackendError::new(ErrorCode::Internal, text);
    }
    if !known {
        return BackendError::new(
            ErrorCode::Internal,
            format!("the plugin answered code {code}: {text}"),
        );
    }
    let text = if text.is_empty() {
        "the plugin gave no reason".to_owned()
    } else {
        text
    };
    BackendError::new(ErrorCode::from_i32(code), text)
}

/// Text from a plugin, fit for a log and a terminal: no line breaks, no escapes.
pub(crate) fn for_people(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}
