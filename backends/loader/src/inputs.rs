//! What a call gives to a plugin, in C's form: borrowed for the time of the call, copied nowhere.

#![allow(unsafe_code)]

use std::ffi::c_void;

use keystead_backend::{BackendError, Call, CancelFlag, Context, ErrorCode, Wrapped, abi};

/// The header of a call, in C's form. The flag is borrowed, so it outlives the call.
pub(crate) struct CallHeader<'a> {
    header: abi::Call,
    _cancel: &'a CancelFlag,
}

impl<'a> CallHeader<'a> {
    pub(crate) fn new(call: &'a Call) -> Self {
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

    pub(crate) fn as_ptr(&self) -> *const abi::Call {
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
pub(crate) struct Pairs<'a> {
    entries: Vec<abi::ContextEntry>,
    canonical: Vec<u8>,
    _context: &'a Context,
}

impl<'a> Pairs<'a> {
    pub(crate) fn new(context: &'a Context) -> Result<Self, BackendError> {
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

    pub(crate) fn given(&self) -> abi::Context {
        abi::Context {
            struct_size: abi::struct_size::<abi::Context>(),
            count: u32::try_from(self.entries.len()).expect("checked against the limit of pairs"),
            entries: self.entries.as_ptr(),
            canonical: abi::Input::of(&self.canonical),
        }
    }
}

/// A wrapped key in C's form. Borrowed without the compiler's knowing: used within one call.
pub(crate) fn wrapped(wrapped: &Wrapped) -> abi::Wrapped {
    abi::Wrapped {
        struct_size: abi::struct_size::<abi::Wrapped>(),
        reserved: 0,
        blob: abi::Input::of(&wrapped.blob),
        key_id: abi::Input::of(wrapped.key_id.as_bytes()),
        metadata: abi::Input::of(&wrapped.metadata),
    }
}
