//! The C table of `include/keystead_backend.h`, version 1, as Rust types.
//!
//! What each field means, and who may do what when, is written in the header, which is the specification; the names
//! here are its names without the prefix `keystead_backend_`. A test compares the layout of every struct and the value
//! of every constant with what a C compiler says.
//!
//! Few need this module: a backend in Rust implements [`KeyBackend`](crate::KeyBackend) and is exported by
//! [`export_backend!`](crate::export_backend), and the crate `keystead-loader` is the host's side.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

/// The version of the interface that these types describe.
pub const ABI: u32 = 1;

/// The symbol that a plugin exports; its type is [`GetInterface`].
pub const SYMBOL: &str = "keystead_backend_get_interface";

/// No failure. The other codes up to 99 are those of [`ErrorCode`](crate::ErrorCode).
pub const OK: i32 = 0;
/// An output has no room; its `len` says how much is needed. The KMS was not called.
pub const BUFFER_TOO_SMALL: i32 = 100;
/// A null pointer, a `struct_size` too small, text that is not UTF-8.
pub const INVALID_ARGUMENT: i32 = 101;
/// No version within the range that was asked for.
pub const UNSUPPORTED_ABI: i32 = 102;

/// The most bytes of settings, a config or a description.
pub const JSON_MAX: u64 = 1_048_576;
/// The most pairs in a context.
pub const CONTEXT_ENTRIES_MAX: u32 = 32;
/// The most canonical bytes of a context.
pub const CONTEXT_MAX: u64 = 8192;
/// The room for an error's message or a status detail, in bytes; longer ones are cut.
pub const MESSAGE_MAX: u64 = 1024;
/// The most bytes of an identity token.
pub const TOKEN_MAX: u64 = 16_384;

/// What `plaintext_max_bytes` of a description may be: least and most.
pub const PLAINTEXT_MAX_RANGE: (u32, u32) = (64, 65_536);
/// What `blob_max_bytes` of a description may be.
pub const BLOB_MAX_RANGE: (u32, u32) = (64, 1_048_576);
/// What `key_id_max_bytes` of a description may be.
pub const KEY_ID_MAX_RANGE: (u32, u32) = (1, 16_384);
/// What `metadata_max_bytes` of a description may be.
pub const METADATA_MAX_RANGE: (u32, u32) = (0, 65_536);

/// Bit of [`Api::capabilities`]: the KMS authenticates the context.
pub const BINDS_CONTEXT: u64 = 1;
/// Bit of [`Api::capabilities`]: `rewrap` is set and works.
pub const CAN_REWRAP: u64 = 2;
/// Bit of [`Api::capabilities`]: `interrupt` is set and works.
pub const CAN_INTERRUPT: u64 = 4;

/// The `struct_size` of a struct of this module.
#[must_use]
pub const fn struct_size<T>() -> u32 {
    assert!(size_of::<T>() <= u32::MAX as usize);
    size_of::<T>() as u32
}

/// A struct of this module behind a pointer from the other side: none unless it is not null, aligned, and at least as large
/// as this version knows it.
///
/// # Safety
///
/// `T` is one of the structs here that begin with `struct_size`; `pointer` is null, or points to one that is as large as it
/// says and that nobody writes for as long as `'a`.
#[must_use]
pub unsafe fn sized<'a, T>(pointer: *const T) -> Option<&'a T> {
    if pointer.is_null() || !pointer.is_aligned() {
        return None;
    }
    // SAFETY: not null, aligned, and every such struct begins with its size.
    let size = unsafe { pointer.cast::<u32>().read() };
    // SAFETY: it is as large as `T`, and the caller says that it is borrowed for `'a`.
    (size >= struct_size::<T>()).then(|| unsafe { &*pointer })
}

/// Borrowed bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Input {
    /// Null only when `len` is 0.
    pub data: *const u8,
    /// In bytes.
    pub len: u64,
}

impl Input {
    /// These bytes, to be used no longer than they are borrowed.
    #[must_use]
    pub const fn of(bytes: &[u8]) -> Self {
        Self {
            data: bytes.as_ptr(),
            len: bytes.len() as u64,
        }
    }

    /// The bytes; none when the pointer is null and the length is not 0, or when the length is beyond what memory holds.
    ///
    /// # Safety
    ///
    /// `data` is null or points to `len` bytes, which nobody writes for as long as `'a`.
    #[must_use]
    pub unsafe fn as_slice<'a>(&self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.len)
            .ok()
            .filter(|&len| isize::try_from(len).is_ok())?;
        match (self.data.is_null(), len) {
            (_, 0) => Some(&[]),
            (true, _) => None,
            // SAFETY: as the caller says.
            (false, _) => Some(unsafe { std::slice::from_raw_parts(self.data, len) }),
        }
    }
}

/// Room for an answer.
#[derive(Debug)]
#[repr(C)]
pub struct Output {
    /// Null only when `capacity` is 0.
    pub data: *mut u8,
    /// How many bytes may be written.
    pub capacity: u64,
    /// How many were.
    pub len: u64,
}

impl Output {
    /// No room at all.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            data: ptr::null_mut(),
            capacity: 0,
            len: 0,
        }
    }

    /// Room in these bytes, to be used no longer than they are borrowed.
    #[must_use]
    pub const fn of(room: &mut [u8]) -> Self {
        Self {
            data: room.as_mut_ptr(),
            capacity: room.len() as u64,
            len: 0,
        }
    }

    /// Writes text for people, cut on a character's boundary when there is no room for all of it.
    ///
    /// # Safety
    ///
    /// `data` is null or has `capacity` bytes behind it, which nobody else uses now.
    pub unsafe fn write_cut(&mut self, text: &str) {
        let room = if self.data.is_null() {
            0
        } else {
            usize::try_from(self.capacity).unwrap_or(usize::MAX)
        };
        let cut = &text[..text.floor_char_boundary(room)];
        if !cut.is_empty() {
            // SAFETY: no more than the capacity, and not overlapping.
            unsafe { self.data.copy_from_nonoverlapping(cut.as_ptr(), cut.len()) };
        }
        self.len = cut.len() as u64;
    }
}

/// One name and value of a context.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ContextEntry {
    /// Text, not empty.
    pub name: Input,
    /// Text.
    pub value: Input,
}

/// What a wrap is bound to.
#[derive(Debug)]
#[repr(C)]
pub struct Context {
    /// See the header.
    pub struct_size: u32,
    /// How many pairs.
    pub count: u32,
    /// The pairs, strictly ascending by name.
    pub entries: *const ContextEntry,
    /// The same as [`Context::canonical_bytes`](crate::Context::canonical_bytes).
    pub canonical: Input,
}

/// The header of a call.
#[derive(Debug)]
#[repr(C)]
pub struct Call {
    /// See the header.
    pub struct_size: u32,
    /// Milliseconds.
    pub timeout_ms: u32,
    /// Names the call in logs.
    pub request_id: u64,
    /// Answers 1 once nobody waits any more.
    pub is_cancelled: Option<unsafe extern "C" fn(*mut c_void) -> i32>,
    /// Given to `is_cancelled`.
    pub cancel_context: *mut c_void,
}

/// Why a call failed.
#[derive(Debug)]
#[repr(C)]
pub struct Error {
    /// See the header.
    pub struct_size: u32,
    /// The same as the function returns.
    pub code: i32,
    /// Milliseconds; 0 when the KMS did not say.
    pub retry_after_ms: u64,
    /// For people.
    pub message: Output,
}

impl Error {
    /// An error to be filled in by the other side.
    #[must_use]
    pub const fn with_room(message: &mut [u8]) -> Self {
        Self {
            struct_size: struct_size::<Self>(),
            code: OK,
            retry_after_ms: 0,
            message: Output::of(message),
        }
    }

    /// Fills in the error of the other side, if it wants to know. The wait is rounded up to whole milliseconds, so that
    /// half of one does not read as "did not say".
    ///
    /// # Safety
    ///
    /// `error` is null or keeps the rules of the header, and nobody else uses it now.
    pub unsafe fn fill(error: *mut Self, code: i32, retry_after: Option<Duration>, message: &str) {
        // SAFETY: as the caller says.
        if unsafe { sized(error.cast_const()) }.is_none() {
            return;
        }
        // SAFETY: checked just now, and exclusively ours as the caller says.
        let error = unsafe { &mut *error };
        error.code = code;
        error.retry_after_ms = retry_after.map_or(0, |wait| {
            u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
        });
        // SAFETY: as the caller says.
        unsafe { error.message.write_cut(message) };
    }
}

/// What the host offers.
#[derive(Debug)]
#[repr(C)]
pub struct Host {
    /// See the header.
    pub struct_size: u32,
    /// The highest version of the interface that the host speaks.
    pub abi: u32,
    /// Given to the functions.
    pub context: *mut c_void,
    /// Writes a line of log.
    pub log: Option<unsafe extern "C" fn(*mut c_void, i32, *const Input)>,
    /// Overwrites memory with zeroes.
    pub zero: Option<unsafe extern "C" fn(*mut c_void, u64)>,
    /// Random bytes fit for keys.
    pub random: Option<unsafe extern "C" fn(*mut c_void, *mut u8, u64) -> i32>,
    /// Asks the application for a token.
    pub identity_token:
        Option<unsafe extern "C" fn(*mut c_void, *const Input, *mut Output, *mut Error) -> i32>,
}

/// One registered key; opaque to the host.
#[derive(Debug)]
#[repr(C)]
pub struct Instance {
    _opaque: [u8; 0],
    _not_send_not_unpin: std::marker::PhantomData<(*mut u8, std::marker::PhantomPinned)>,
}

/// What `open` gets.
#[derive(Debug)]
#[repr(C)]
pub struct OpenRequest {
    /// See the header.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Services for the instance.
    pub host: *const Host,
    /// The application's. Trusted.
    pub settings_json: Input,
    /// The registered key's. Untrusted.
    pub config_json: Input,
}

/// Where `status` puts its answer.
#[derive(Debug)]
#[repr(C)]
pub struct StatusOut {
    /// See the header.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Text, may be empty.
    pub key_id: Output,
    /// One line for people.
    pub detail: Output,
}

/// What `wrap` once answered.
#[derive(Debug)]
#[repr(C)]
pub struct Wrapped {
    /// See the header.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// The ciphertext.
    pub blob: Input,
    /// Text.
    pub key_id: Input,
    /// May be empty.
    pub metadata: Input,
}

/// Where `wrap` puts its answer.
#[derive(Debug)]
#[repr(C)]
pub struct WrappedOut {
    /// See the header.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Not empty.
    pub blob: Output,
    /// Text, not empty.
    pub key_id: Output,
    /// May be empty.
    pub metadata: Output,
}

/// The type of `describe`.
pub type Describe = unsafe extern "C" fn(*mut c_void, *mut Output, *mut Error) -> i32;
/// The type of `open`.
pub type Open = unsafe extern "C" fn(*mut c_void, *const OpenRequest, *mut *mut Instance, *mut Error) -> i32;
/// The type of `close`.
pub type Close = unsafe extern "C" fn(*mut Instance);
/// The type of `status`.
pub type Status = unsafe extern "C" fn(*mut Instance, *const Call, *mut StatusOut, *mut Error) -> i32;
/// The type of `wrap`.
pub type Wrap = unsafe extern "C" fn(
    *mut Instance,
    *const Call,
    *const Context,
    *const Input,
    *mut WrappedOut,
    *mut Error,
) -> i32;
/// The type of `unwrap`.
pub type Unwrap = unsafe extern "C" fn(
    *mut Instance,
    *const Call,
    *const Context,
    *const Wrapped,
    *mut Output,
    *mut Error,
) -> i32;
/// The type of `rewrap`.
pub type Rewrap = unsafe extern "C" fn(
    *mut Instance,
    *const Call,
    *const Context,
    *const Wrapped,
    *mut WrappedOut,
    *mut Error,
) -> i32;
/// The type of `interrupt`.
pub type Interrupt = unsafe extern "C" fn(*mut Instance);

/// The plugin's table.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Api {
    /// See the header.
    pub struct_size: u32,
    /// The version of this table.
    pub abi: u32,
    /// [`BINDS_CONTEXT`], [`CAN_REWRAP`], [`CAN_INTERRUPT`].
    pub capabilities: u64,
    /// Given to `describe` and `open`.
    pub backend: *mut c_void,
    /// Says what the backend is.
    pub describe: Option<Describe>,
    /// Makes an instance.
    pub open: Option<Open>,
    /// Ends it.
    pub close: Option<Close>,
    /// Health and key id.
    pub status: Option<Status>,
    /// Wraps.
    pub wrap: Option<Wrap>,
    /// Unwraps.
    pub unwrap: Option<Unwrap>,
    /// Wraps anew; may be absent.
    pub rewrap: Option<Rewrap>,
    /// Makes calls return; may be absent.
    pub interrupt: Option<Interrupt>,
}

/// The type of the exported symbol.
pub type GetInterface = unsafe extern "C" fn(u32, u32, *const Host, *mut *const Api) -> i32;
