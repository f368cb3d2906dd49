//! A plugin that is a script: a C table whose functions answer what they are told to. For this project's own fuzzers and tests,
//! not covered by any promise of stability.
//!
//! It goes through steps 6 and 7 and through every check of an answer, as a plugin from a file does. What it writes stays
//! within the memory that it is given and the canary behind that: an overrun is one that the loader can find.

#![allow(unsafe_code)]

use std::cell::{RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keystead_backend::abi;

use crate::loaded::Loaded;
use crate::room::CANARY_BYTES;
use crate::{Digest, Plugin, Refusal, negotiation};

/// What a call writes into one output.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// Written from the output's beginning; what is beyond room and canary is left out.
    pub bytes: Vec<u8>,
    /// What it says that it wrote; `None`: as many as it was told to write.
    pub len: Option<u64>,
}

/// How one call is answered.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// What the function returns.
    pub code: i32,
    /// The code in the error; `None`: the same.
    pub said: Option<i32>,
    /// The error's wait, in milliseconds.
    pub retry_after_ms: u64,
    /// The error's message.
    pub message: Written,
    /// Description, plaintext, blob or status key id; key id or status detail; metadata.
    pub outputs: [Written; 3],
    /// `open` answers no instance.
    pub no_instance: bool,
}

/// What the table is.
#[derive(Debug, Clone)]
pub struct Interface {
    /// It answers no table.
    pub no_table: bool,
    /// The table's size and version.
    pub struct_size: u32,
    /// See above.
    pub abi: u32,
    /// The table's capability bits.
    pub capabilities: u64,
    /// Bit n: entry n (describe, open, close, status, wrap, unwrap, rewrap, interrupt) is null.
    pub null_entries: u8,
}

impl Default for Interface {
    fn default() -> Self {
        Self {
            no_table: false,
            struct_size: abi::struct_size::<abi::Api>(),
            abi: abi::ABI,
            capabilities: abi::BINDS_CONTEXT | abi::CAN_REWRAP | abi::CAN_INTERRUPT,
            null_entries: 0,
        }
    }
}

/// All that a plugin does on this thread: its table, and an answer for each call, in their order. When they run out, calls
/// succeed and answer nothing.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// The table.
    pub interface: Interface,
    /// The answers; the first ones are to `describe`.
    pub answers: VecDeque<Answer>,
}

thread_local! {
    static ANSWERS: RefCell<VecDeque<Answer>> = const { RefCell::new(VecDeque::new()) };
    static API: &'static Place = Box::leak(Box::new(Place(UnsafeCell::new(MaybeUninit::uninit()))));
    static STOPPED: &'static AtomicBool = Box::leak(Box::default());
}

/// The table of this thread, at an address that stays.
struct Place(UnsafeCell<MaybeUninit<abi::Api>>);

impl Script {
    /// The plugin, as far as it passes steps 6 and 7. It is this thread's only one, answers on this thread alone, and a script that
    /// is begun later takes its place.
    ///
    /// # Errors
    ///
    /// Why it is refused.
    pub fn begin(self) -> Result<Plugin, Refusal> {
        ANSWERS.set(self.answers);
        let stopped = STOPPED.with(|stopped| *stopped);
        stopped.store(false, Ordering::Release);
        let table = if self.interface.no_table {
            std::ptr::null()
        } else {
            self.interface.table()
        };
        // SAFETY: null, or this thread's table: it is never freed, and its functions keep within their rooms and canaries.
        let (table, description) = unsafe { negotiation::negotiate_offered(table, stopped) }?;
        let loaded = Loaded::new(Path::new("(a script)"), stopped, table, description);
        Ok(Plugin {
            loaded: Arc::new(loaded),
            digest: Digest::from([0; 32]),
        })
    }
}

fn next() -> Answer {
    ANSWERS.with_borrow_mut(VecDeque::pop_front).unwrap_or_default()
}

impl Interface {
    /// The table, at this thread's place for it.
    fn table(&self) -> *const abi::Api {
        let api = abi::Api {
            struct_size: self.struct_size,
            abi: self.abi,
            capabilities: self.capabilities,
            backend: std::ptr::null_mut(),
            describe: self.entry(0, describe as abi::Describe),
            open: self.entry(1, open as abi::Open),
            close: self.entry(2, close as abi::Close),
            status: self.entry(3, status as abi::Status),
            wrap: self.entry(4, wrap as abi::Wrap),
            unwrap: self.entry(5, unwrap as abi::Unwrap),
            rewrap: self.entry(6, rewrap as abi::Rewrap),
            interrupt: self.entry(7, interrupt as abi::Interrupt),
        };
        let place = API.with(|api| api.0.get()).cast::<abi::Api>();
        // SAFETY: the place is this thread's, large enough and never freed; whoever reads the table copies it at once.
        unsafe { place.write(api) };
        place
    }

    /// Entry `n` of the table, unless the script says that it is null.
    fn entry<T>(&self, n: u8, function: T) -> Option<T> {
        (self.null_entries >> n & 1 == 0).then_some(function)
    }
}

/// # Safety
///
/// `out` is null or a room of the loader's, with a canary behind its capacity.
unsafe fn write(out: *mut abi::Output, written: &Written) {
    // SAFETY: as the caller says.
    let Some(out) = (unsafe { out.as_mut() }) else {
        return;
    };
    let room = usize::try_from(out.capacity).unwrap_or(0) + CANARY_BYTES;
    let count = written.bytes.len().min(room);
    // SAFETY: within the room and its canary.
    unsafe { out.data.copy_from_nonoverlapping(written.bytes.as_ptr(), count) };
    out.len = written.len.unwrap_or(written.bytes.len() as u64);
}

/// # Safety
///
/// `error` is null or an error whose message has a room of the loader's.
unsafe fn finish(answer: &Answer, error: *mut abi::Error) -> i32 {
    // SAFETY: as the caller says.
    if let Some(error) = unsafe { error.as_mut() } {
        error.code = answer.said.unwrap_or(answer.code);
        error.retry_after_ms = answer.retry_after_ms;
        // SAFETY: as the caller says.
        unsafe { write(&raw mut error.message, &answer.message) };
    }
    answer.code
}

unsafe extern "C" fn describe(_backend: *mut c_void, out: *mut abi::Output, error: *mut abi::Error) -> i32 {
    let answer = next();
    // SAFETY: the loader's rooms, as the header says.
    unsafe {
        write(out, &answer.outputs[0]);
        finish(&answer, error)
    }
}

unsafe extern "C" fn open(
    _backend: *mut c_void,
    _request: *const abi::OpenRequest,
    out: *mut *mut abi::Instance,
    error: *mut abi::Error,
) -> i32 {
    let answer = next();
    if !answer.no_instance {
        // SAFETY: `out` may be written. The instance is opaque, and nobody reads through it.
        unsafe { out.write(NonNull::<abi::Instance>::dangling().as_ptr()) };
    }
    // SAFETY: the loader's room, as the header says.
    unsafe { finish(&answer, error) }
}

unsafe extern "C" fn close(_instance: *mut abi::Instance) {}

unsafe extern "C" fn interrupt(_instance: *mut abi::Instance) {}

unsafe extern "C" fn status(
    _instance: *mut abi::Instance,
    _call: *const abi::Call,
    out: *mut abi::StatusOut,
    error: *mut abi::Error,
) -> i32 {
    let answer = next();
    // SAFETY: the loader's rooms, as the header says.
    unsafe {
        write(&raw mut (*out).key_id, &answer.outputs[0]);
        write(&raw mut (*out).detail, &answer.outputs[1]);
        finish(&answer, error)
    }
}

/// # Safety
///
/// As the header says of `wrap`.
unsafe fn wrapped(out: *mut abi::WrappedOut, error: *mut abi::Error) -> i32 {
    let answer = next();
    // SAFETY: as the caller says.
    unsafe {
        write(&raw mut (*out).blob, &answer.outputs[0]);
        write(&raw mut (*out).key_id, &answer.outputs[1]);
        write(&raw mut (*out).metadata, &answer.outputs[2]);
        finish(&answer, error)
    }
}

unsafe extern "C" fn wrap(
    _instance: *mut abi::Instance,
    _call: *const abi::Call,
    _context: *const abi::Context,
    _plaintext: *const abi::Input,
    out: *mut abi::WrappedOut,
    error: *mut abi::Error,
) -> i32 {
    // SAFETY: the loader's rooms, as the header says.
    unsafe { wrapped(out, error) }
}

unsafe extern "C" fn rewrap(
    _instance: *mut abi::Instance,
    _call: *const abi::Call,
    _context: *const abi::Context,
    _wrapped: *const abi::Wrapped,
    out: *mut abi::WrappedOut,
    error: *mut abi::Error,
) -> i32 {
    // SAFETY: the loader's rooms, as the header says.
    unsafe { wrapped(out, error) }
}

unsafe extern "C" fn unwrap(
    _instance: *mut abi::Instance,
    _call: *const abi::Call,
    _context: *const abi::Context,
    _wrapped: *const abi::Wrapped,
    out: *mut abi::Output,
    error: *mut abi::Error,
) -> i32 {
    let answer = next();
    // SAFETY: the loader's rooms, as the header says.
    unsafe {
        write(out, &answer.outputs[0]);
        finish(&answer, error)
    }
}
