//! A table that the application itself offers: a backend in another language, without a plugin's file.

#![allow(unsafe_code)]

use std::fmt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use keystead_backend::{BackendError, Description, KeyBackend, KeyInstance, OpenRequest, abi};

use crate::Refusal;
use crate::loaded::Loaded;

/// A backend behind a table of C functions in the application's own memory. It is checked as a plugin's table is (steps 6
/// and 7 of the [crate's front page](crate)), and called with the same care. Cheap to clone.
#[derive(Clone)]
pub struct OfferedTable {
    loaded: Arc<Loaded>,
}

/// The tables that were offered, by their addresses: one that wrote where it must not is not called any more, however
/// often it is offered again.
static OFFERED: Mutex<Vec<(usize, &'static AtomicBool)>> = Mutex::new(Vec::new());

impl OfferedTable {
    /// Checks a table. Its `describe` runs; it is not opened.
    ///
    /// # Safety
    ///
    /// `api` is null, or points to a table that keeps the rules of `keystead_backend.h` and that lives, unchanged, as long
    /// as the process: a call that overran its deadline may still be in it when everything else is closed.
    ///
    /// # Errors
    ///
    /// A null pointer, a table too small or of another version, a missing entry, a description against the rules.
    pub unsafe fn new(api: *const abi::Api) -> Result<Self, Refusal> {
        let stopped = stopped_flag(api);
        // SAFETY: as the caller promises.
        let (table, description) = unsafe { crate::negotiation::negotiate_offered(api, stopped) }?;
        let loaded = Loaded::new(
            Path::new("(offered by the application)"),
            stopped,
            table,
            description,
        );
        Ok(Self {
            loaded: Arc::new(loaded),
        })
    }

    /// What it says about itself.
    #[must_use]
    pub fn description(&self) -> &Description {
        self.loaded.description()
    }
}

fn stopped_flag(api: *const abi::Api) -> &'static AtomicBool {
    let mut offered = OFFERED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, stopped)) = offered.iter().find(|(address, _)| *address == api.addr()) {
        return stopped;
    }
    let stopped: &AtomicBool = Box::leak(Box::default());
    offered.push((api.addr(), stopped));
    stopped
}

impl KeyBackend for OfferedTable {
    fn describe(&self) -> Description {
        self.description().clone()
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        Ok(Box::new(crate::guest::Guest::open(&self.loaded, request)?))
    }
}

impl fmt::Debug for OfferedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfferedTable")
            .field("name", &self.description().name)
            .field("version", &self.description().version)
            .finish()
    }
}
