//! The macro that turns a [`KeyBackend`] into a plugin.
//!
//! | file | job |
//! | --- | --- |
//! | `export.rs` | the macro, the table, the negotiation |
//! | `export/calls.rs` | the functions of the table |
//! | `export/arguments.rs` | from C to Rust: every pointer, size and text is checked |
//! | `export/answers.rs` | from Rust to C: room is checked before the backend is asked, errors are written |
//! | `export/upcalls.rs` | the host's services, safe to hold for longer than the host offers them |

#![allow(unsafe_code)]

use std::sync::OnceLock;

use crate::{Description, KeyBackend, abi};

mod answers;
mod arguments;
mod calls;
mod upcalls;

/// Exports a [`KeyBackend`] as a plugin: defines the symbol that the header `keystead_backend.h` asks for.
///
/// The argument is an expression that makes the backend. It runs once, when the plugin is first asked for its table.
///
/// In the functions that it exports every panic is caught and becomes [`ErrorCode::Internal`](crate::ErrorCode::Internal)
/// (which needs `panic = "unwind"`, the default), every pointer, size and text is checked, room for the largest answer is
/// there before the backend is asked, copies of plaintext are zeroized, and what a backend keeps of the host or of a
/// call's [`CancelFlag`](crate::CancelFlag) beyond their time does nothing instead of touching freed memory.
///
/// # Where to use it
///
/// In a crate of its own that does nothing else, a `cdylib` beside the backend's library:
///
/// ```toml
/// [lib]
/// crate-type = ["cdylib"]
///
/// [dependencies]
/// keystead-backend = "…"
/// my-backend = "…"
/// ```
///
/// Not in the backend's own crate, not even behind a feature: an application may link two backends statically, features
/// are unified over a build, and two definitions of one symbol do not link. The plugin's crate may deny unsafe code, not
/// forbid it: the symbol's own attribute counts as unsafe.
///
/// # Examples
///
/// ```
/// use keystead_backend::{BackendError, Description, ErrorCode, KeyBackend, KeyInstance, OpenRequest};
///
/// #[derive(Default)]
/// struct Nowhere;
///
/// impl KeyBackend for Nowhere {
///     fn describe(&self) -> Description {
///         Description::new("nowhere", "0.1.0")
///     }
///     fn open(&self, _request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
///         Err(BackendError::new(ErrorCode::Unavailable, "there is no KMS here; register another backend"))
///     }
/// }
///
/// keystead_backend::export_backend!(Nowhere::default());
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export_backend {
    ($backend:expr) => {
        const _: () = {
            /// The one symbol of a key backend: see `keystead_backend.h`.
            // SAFETY: the symbol's name is the interface's own; a plugin crate uses this macro once.
            #[allow(unsafe_code)]
            #[unsafe(no_mangle)]
            unsafe extern "C" fn keystead_backend_get_interface(
                abi_min: u32,
                abi_max: u32,
                host: *const $crate::abi::Host,
                out: *mut *const $crate::abi::Api,
            ) -> i32 {
                static EXPORTED: $crate::export::Exported = $crate::export::Exported::new();
                let make =
                    || -> ::std::boxed::Box<dyn $crate::KeyBackend> { ::std::boxed::Box::new($backend) };
                // SAFETY: the caller keeps the rules of the header.
                unsafe { $crate::export::get_interface(&EXPORTED, make, abi_min, abi_max, host, out) }
            }
        };
    };
}

/// What [`export_backend!`](crate::export_backend) keeps: the backend, once it was asked for, and its table.
#[doc(hidden)]
pub struct Exported(OnceLock<Box<Table>>);

/// The table, and what its functions need. The table's `backend` points to the whole.
struct Table {
    api: abi::Api,
    backend: Box<dyn KeyBackend>,
    description: Description,
    description_json: Vec<u8>,
}

// SAFETY: the pointer in `api` is to the table itself, which does not change once it is made.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Exported {
    #[doc(hidden)]
    #[allow(clippy::new_without_default)] // for the macro alone
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }
}

/// What the exported symbol does.
///
/// # Safety
///
/// `out` is null or may be written.
#[doc(hidden)]
pub unsafe fn get_interface(
    exported: &'static Exported,
    make: impl FnOnce() -> Box<dyn KeyBackend>,
    abi_min: u32,
    abi_max: u32,
    host: *const abi::Host,
    out: *mut *const abi::Api,
) -> i32 {
    if out.is_null() || host.is_null() || abi_min > abi_max {
        return abi::INVALID_ARGUMENT;
    }
    if !(abi_min..=abi_max).contains(&abi::ABI) {
        return abi::UNSUPPORTED_ABI;
    }
    let table = calls::caught(|| exported.0.get_or_init(|| table(make())));
    match table {
        Some(table) => {
            // SAFETY: not null, and the caller says that it may be written.
            unsafe { out.write(&raw const table.api) };
            abi::OK
        }
        None => crate::ErrorCode::Internal.as_i32(),
    }
}

fn table(backend: Box<dyn KeyBackend>) -> Box<Table> {
    let description = backend.describe();
    let description_json = serde_json::to_vec(&description).unwrap_or_default();
    let can = description.capabilities;
    let bit = |on: bool, bit: u64| if on { bit } else { 0 };
    let api = abi::Api {
        struct_size: abi::struct_size::<abi::Api>(),
        abi: abi::ABI,
        capabilities: bit(can.binds_context, abi::BINDS_CONTEXT)
            | bit(can.rewrap, abi::CAN_REWRAP)
            | bit(can.interrupt, abi::CAN_INTERRUPT),
        backend: std::ptr::null_mut(),
        describe: Some(calls::describe),
        open: Some(calls::open),
        close: Some(calls::close),
        status: Some(calls::status),
        wrap: Some(calls::wrap),
        unwrap: Some(calls::unwrap),
        rewrap: can.rewrap.then_some(calls::rewrap as abi::Rewrap),
        interrupt: can.interrupt.then_some(calls::interrupt as abi::Interrupt),
    };
    let mut table = Box::new(Table {
        api,
        backend,
        description,
        description_json,
    });
    table.api.backend = (&raw mut *table).cast();
    table
}
