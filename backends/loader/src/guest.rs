//! A plugin as a key backend: the calls over the C table, and what is checked in every answer.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keystead_backend::{
    BackendError, Call, CancelFlag, Context, Description, ErrorCode, KeyInstance, LockedBytes, OpenRequest,
    SizeLimits, Status, Wrapped, abi,
};

use crate::Digest;
use crate::negotiation::Table;
use crate::room::{self, CANARY_BYTES, Fault, Room};
use crate::upcalls::HostTable;

/// The longest wait that a plugin may ask for: what is longer is a mistake, and would reach its caller's clock arithmetic.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A plugin that passed every step.
pub(crate) struct Loaded {
    path: PathBuf,
    digest: Digest,
    table: Table,
    description: Description,
    /// It wrote where it must not: it is not called any more.
    stopped: AtomicBool,
}

impl Loaded {
    pub(crate) fn new(path: &Path, digest: Digest, table: Table, description: Description) -> Self {
        Self {
            path: path.to_owned(),
            digest,
            table,
            description,
            stopped: AtomicBool::new(false),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    pub(crate) fn description(&self) -> &Description {
        &self.description
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn check_that_it_is_not_stopped(&self) -> Result<(), BackendError> {
        if !self.is_stopped() {
            return Ok(());
        }
        Err(self.internal(
            "wrote beyond the memory that it was given and is not called any more: restart the process, and report this \
             to the plugin's maker",
        ))
    }

    fn internal(&self, what: &str) -> BackendError {
        BackendError::new(
            ErrorCode::Internal,
            format!("the plugin {} {what}", self.description.name),
        )
    }

    fn fault(&self, fault: Fault, what: &str) -> BackendError {
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
    fn answer<'a>(&self, room: &'a Room, len: u64, what: &str) -> Result<&'a [u8], BackendError> {
        room.answer(len).map_err(|fault| self.fault(fault, what))
    }

    fn text(&self, room: &Room, len: u64, what: &str) -> Result<String, BackendError> {
        let bytes = self.answer(room, len, what)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| {
            self.internal(&format!(
                "answered {what} that is not UTF-8; report this to the plugin's maker"
            ))
        })
    }

    /// Makes a call: gives it an error to fill in, and reads that.
    fn call(&self, call: impl FnOnce(*mut abi::Error) -> i32) -> Result<(), BackendError> {
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

/// One instance in a plugin.
pub(crate) struct Guest {
    loaded: Arc<Loaded>,
    instance: NonNull<abi::Instance>,
    /// Dropped after the instance is closed. None once it was given up to a plugin that may still use it.
    host: Option<HostTable>,
}

// SAFETY: the header says that every call may be made from any thread, and many at once.
unsafe impl Send for Guest {}
// SAFETY: as above.
unsafe impl Sync for Guest {}

impl Guest {
    pub(crate) fn open(loaded: &Arc<Loaded>, request: OpenRequest<'_>) -> Result<Self, BackendError> {
        for (name, json) in [("settings", request.settings), ("config", request.config)] {
            if json.len() as u64 > abi::JSON_MAX {
                let message = format!("the {name} are longer than {} bytes", abi::JSON_MAX);
                return Err(BackendError::new(ErrorCode::InvalidConfig, message));
            }
        }
        let host = HostTable::new(request.host);
        let given = abi::OpenRequest {
            struct_size: abi::struct_size::<abi::OpenRequest>(),
            reserved: 0,
            host: host.as_ptr(),
            settings_json: abi::Input::of(request.settings.as_bytes()),
            config_json: abi::Input::of(request.config.as_bytes()),
        };
        let mut instance = std::ptr::null_mut();
        let opened = loaded.call(|error| {
            // SAFETY: a function of the table; everything it is given lives until it returns, the host's table longer.
            unsafe { (loaded.table.open)(loaded.table.backend, &raw const given, &raw mut instance, error) }
        });
        if loaded.is_stopped() {
            // What it still does with the table is not known.
            std::mem::forget(host);
            return opened
                .and_then(|()| loaded.check_that_it_is_not_stopped())
                .and(Err(loaded.internal("failed")));
        }
        opened?;
        let instance = NonNull::new(instance).ok_or_else(|| {
            loaded.internal("opened, but answered no instance; report this to the plugin's maker")
        })?;
        Ok(Self {
            loaded: Arc::clone(loaded),
            instance,
            host: Some(host),
        })
    }

    fn limits(&self) -> &SizeLimits {
        &self.loaded.description.limits
    }

    fn check_wrapped(&self, wrapped: &Wrapped) -> Result<(), BackendError> {
        let limits = self.limits();
        let fits = |len: usize, max: u32| len as u64 <= u64::from(max);
        if fits(wrapped.blob.len(), limits.blob_max_bytes)
            && fits(wrapped.key_id.len(), limits.key_id_max_bytes)
            && fits(wrapped.metadata.len(), limits.metadata_max_bytes)
        {
            return Ok(());
        }
        Err(BackendError::new(
            ErrorCode::InvalidCiphertext,
            format!(
                "the wrapped key is larger than any that the plugin {} makes",
                self.loaded.description.name
            ),
        ))
    }

    /// Does a call that answers a wrapped key.
    fn wrapped(
        &self,
        call: impl FnOnce(*mut abi::WrappedOut, *mut abi::Error) -> i32,
    ) -> Result<Wrapped, BackendError> {
        let limits = self.limits();
        let mut blob = Room::new(limits.blob_max_bytes as usize);
        let mut key_id = Room::new(limits.key_id_max_bytes as usize);
        let mut metadata = Room::new(limits.metadata_max_bytes as usize);
        let mut out = abi::WrappedOut {
            struct_size: abi::struct_size::<abi::WrappedOut>(),
            reserved: 0,
            blob: blob.output(),
            key_id: key_id.output(),
            metadata: metadata.output(),
        };
        let result = self.loaded.call(|error| call(&raw mut out, error));
        for (room, what) in [(&blob, "a blob"), (&key_id, "a key id"), (&metadata, "metadata")] {
            self.loaded.answer(room, 0, what)?;
        }
        result?;
        let wrapped = Wrapped {
            blob: self.loaded.answer(&blob, out.blob.len, "a blob")?.to_vec(),
            key_id: self.loaded.text(&key_id, out.key_id.len, "a key id")?,
            metadata: self
                .loaded
                .answer(&metadata, out.metadata.len, "metadata")?
                .to_vec(),
        };
        if wrapped.blob.is_empty() || wrapped.key_id.is_empty() {
            return Err(self
                .loaded
                .internal("wrapped, but answered no blob or no key id; report this to its maker"));
        }
        Ok(wrapped)
    }
}

impl KeyInstance for Guest {
    fn status(&self, call: &Call) -> Result<Status, BackendError> {
        let header = Header::new(call);
        let mut key_id = Room::new(self.limits().key_id_max_bytes as usize);
        let mut detail = Room::new(abi::MESSAGE_MAX as usize);
        let mut out = abi::StatusOut {
            struct_size: abi::struct_size::<abi::StatusOut>(),
            reserved: 0,
            key_id: key_id.output(),
            detail: detail.output(),
        };
        let result = self.loaded.call(|error| {
            // SAFETY: a function of the table, with an open instance; all that is given lives until it returns.
            unsafe {
                (self.loaded.table.status)(self.instance.as_ptr(), header.as_ptr(), &raw mut out, error)
            }
        });
        for (room, what) in [(&key_id, "a key id"), (&detail, "a status")] {
            self.loaded.answer(room, 0, what)?;
        }
        result?;
        Ok(Status {
            key_id: self.loaded.text(&key_id, out.key_id.len, "a key id")?,
            detail: for_people(self.loaded.answer(&detail, out.detail.len, "a status")?),
        })
    }

    fn wrap(&self, call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        let max = self.limits().plaintext_max_bytes;
        if plaintext.len() as u64 > u64::from(max) {
            return Err(BackendError::new(
                ErrorCode::Unsupported,
                format!(
                    "the plugin {} wraps at most {max} bytes",
                    self.loaded.description.name
                ),
            ));
        }
        let header = Header::new(call);
        let context = Pairs::new(context)?;
        let plaintext = abi::Input::of(plaintext);
        self.wrapped(|out, error| {
            // SAFETY: a function of the table, with an open instance; all that is given lives until it returns.
            unsafe {
                (self.loaded.table.wrap)(
                    self.instance.as_ptr(),
                    header.as_ptr(),
                    &context.given(),
                    &raw const plaintext,
                    out,
                    error,
                )
            }
        })
    }

    fn unwrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes, BackendError> {
        self.check_wrapped(wrapped)?;
        let header = Header::new(call);
        let context = Pairs::new(context)?;
        let wrapped = given(wrapped);
        let mut plaintext = None;
        // The room is locked memory, too: the key has no copy elsewhere on its way to its own place.
        let capacity = self.limits().plaintext_max_bytes as usize;
        LockedBytes::fill_with(capacity + CANARY_BYTES, |memory| {
            let mut out = room::arm(memory);
            let result = self.loaded.call(|error| {
                // SAFETY: a function of the table, with an open instance; all that is given lives until it returns.
                unsafe {
                    (self.loaded.table.unwrap)(
                        self.instance.as_ptr(),
                        header.as_ptr(),
                        &context.given(),
                        &raw const wrapped,
                        &raw mut out,
                        error,
                    )
                }
            });
            let answer = room::answer(memory, if result.is_ok() { out.len } else { 0 });
            let bytes = answer.map_err(|fault| self.loaded.fault(fault, "a plaintext"))?;
            result?;
            plaintext = Some(LockedBytes::copy_from(bytes));
            Ok::<(), BackendError>(())
        })?;
        plaintext.ok_or_else(|| self.loaded.internal("answered nothing"))
    }

    fn rewrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<Wrapped, BackendError> {
        let rewrap = self.loaded.table.rewrap.ok_or_else(|| {
            BackendError::new(
                ErrorCode::Unsupported,
                format!(
                    "the plugin {} does not re-wrap on the server's side",
                    self.loaded.description.name
                ),
            )
        })?;
        self.check_wrapped(wrapped)?;
        let header = Header::new(call);
        let context = Pairs::new(context)?;
        let wrapped = given(wrapped);
        self.wrapped(|out, error| {
            // SAFETY: a function of the table, with an open instance; all that is given lives until it returns.
            unsafe {
                rewrap(
                    self.instance.as_ptr(),
                    header.as_ptr(),
                    &context.given(),
                    &raw const wrapped,
                    out,
                    error,
                )
            }
        })
    }

    fn interrupt(&self) {
        if let Some(interrupt) = self.loaded.table.interrupt.filter(|_| !self.loaded.is_stopped()) {
            // SAFETY: a function of the table, with an open instance.
            unsafe { interrupt(self.instance.as_ptr()) };
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.loaded.is_stopped() {
            // Not called any more, so not closed; and its threads may still use the table.
            std::mem::forget(self.host.take());
            return;
        }
        // SAFETY: the instance is open, and no call is in it: each one borrows `self`.
        unsafe { (self.loaded.table.close)(self.instance.as_ptr()) };
    }
}

/// The header of a call, in C's form. The flag is borrowed, so it outlives the call.
struct Header<'a> {
    header: abi::Call,
    _cancel: &'a CancelFlag,
}

impl<'a> Header<'a> {
    fn new(call: &'a Call) -> Self {
        // Rounded up: half a millisecond is some time, not none.
        let timeout_ms = u32::try_from(call.timeout.as_micros().div_ceil(1000)).unwrap_or(u32::MAX);
        let header = abi::Call {
            struct_size: abi::struct_size::<abi::Call>(),
            timeout_ms,
            request_id: call.request_id,
            is_cancelled: Some(is_cancelled),
            cancel_context: (&raw const call.cancel).cast_mut().cast(),
        };
        Self {
            header,
            _cancel: &call.cancel,
        }
    }

    fn as_ptr(&self) -> *const abi::Call {
        &raw const self.header
    }
}

unsafe extern "C" fn is_cancelled(cancel_context: *mut c_void) -> i32 {
    // SAFETY: the plugin asks during the call only, for whose time the flag is borrowed; a flag is for all threads.
    unsafe { cancel_context.cast::<CancelFlag>().cast_const().as_ref() }
        .is_some_and(CancelFlag::is_cancelled)
        .into()
}

/// A context in C's form, in memory that is borrowed from the context.
struct Pairs<'a> {
    entries: Vec<abi::ContextEntry>,
    canonical: Vec<u8>,
    _context: &'a Context,
}

impl<'a> Pairs<'a> {
    fn new(context: &'a Context) -> Result<Self, BackendError> {
        let entries: Vec<_> = context
            .entries()
            .map(|(name, value)| abi::ContextEntry {
                name: abi::Input::of(name.as_bytes()),
                value: abi::Input::of(value.as_bytes()),
            })
            .collect();
        let canonical = context.canonical_bytes();
        if entries.len() > abi::CONTEXT_ENTRIES_MAX as usize
            || canonical.len() as u64 > abi::CONTEXT_MAX
            || entries.iter().any(|entry| entry.name.len == 0)
        {
            return Err(BackendError::new(
                ErrorCode::Unsupported,
                format!(
                    "the context does not fit the interface: at most {} pairs with names, {} bytes in all",
                    abi::CONTEXT_ENTRIES_MAX,
                    abi::CONTEXT_MAX
                ),
            ));
        }
        Ok(Self {
            entries,
            canonical,
            _context: context,
        })
    }

    fn given(&self) -> abi::Context {
        abi::Context {
            struct_size: abi::struct_size::<abi::Context>(),
            count: u32::try_from(self.entries.len()).expect("checked against the limit of pairs"),
            entries: self.entries.as_ptr(),
            canonical: abi::Input::of(&self.canonical),
        }
    }
}

/// A wrapped key in C's form. Borrowed without the compiler's knowing: used within one call.
fn given(wrapped: &Wrapped) -> abi::Wrapped {
    abi::Wrapped {
        struct_size: abi::struct_size::<abi::Wrapped>(),
        reserved: 0,
        blob: abi::Input::of(&wrapped.blob),
        key_id: abi::Input::of(wrapped.key_id.as_bytes()),
        metadata: abi::Input::of(&wrapped.metadata),
    }
}
