//! From C to Rust: every pointer, size and text that the host gave is checked before it is used.

use std::ffi::c_void;
use std::time::Duration;

use super::answers::Failure;
use crate::call::ProbeGuard;
use crate::{Call, CancelFlag, Context, Wrapped, abi};

/// A struct of the table behind a pointer: not null, aligned, and as large as this version knows it.
///
/// # Safety
///
/// `pointer` is null or points to a struct that begins with `struct_size` and is as large as that says, borrowed for `'a`.
pub(super) unsafe fn sized<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: as the caller says.
    unsafe { abi::sized(pointer) }.ok_or_else(|| {
        Failure::argument(format!(
            "{what} is null, misaligned, or shorter than version 1 has it"
        ))
    })
}

/// The same for a struct that is written to.
///
/// # Safety
///
/// As for [`sized`], and nobody else uses the struct for `'a`.
pub(super) unsafe fn sized_mut<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: as the caller says.
    unsafe { sized(pointer.cast_const(), what)? };
    // SAFETY: checked, and exclusively borrowed as the caller says.
    Ok(unsafe { &mut *pointer })
}

/// Borrowed bytes, no more than `max` of them.
///
/// # Safety
///
/// As for [`abi::Input::as_slice`].
pub(super) unsafe fn bytes<'a>(input: &abi::Input, max: u64, what: &str) -> Result<&'a [u8], Failure> {
    if input.len > max {
        return Err(Failure::argument(format!(
            "{what} has {} bytes, more than {max}",
            input.len
        )));
    }
    // SAFETY: as the caller says.
    unsafe { input.as_slice() }.ok_or_else(|| Failure::argument(format!("{what} is null, but not empty")))
}

/// Borrowed text.
///
/// # Safety
///
/// As for [`abi::Input::as_slice`].
pub(super) unsafe fn text<'a>(input: &abi::Input, max: u64, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: as the caller says.
    let bytes = unsafe { bytes(input, max, what)? };
    std::str::from_utf8(bytes).map_err(|_| Failure::argument(format!("{what} is not UTF-8")))
}

/// The call's header. The guard is to be dropped before the call returns.
///
/// # Safety
///
/// As for [`sized`]; the callback in it may be called until the guard is dropped.
pub(super) unsafe fn call(pointer: *const abi::Call) -> Result<(Call, Option<ProbeGuard>), Failure> {
    // SAFETY: as the caller says.
    let header = unsafe { sized(pointer, "the call header")? };
    let (cancel, guard) = match header.is_cancelled {
        Some(is_cancelled) => {
            let probe = CancelProbe {
                is_cancelled,
                context: header.cancel_context,
            };
            let (flag, guard) = CancelFlag::asking(move || probe.ask());
            (flag, Some(guard))
        }
        None => (CancelFlag::default(), None),
    };
    let timeout = Duration::from_millis(u64::from(header.timeout_ms));
    Ok((
        Call {
            timeout,
            request_id: header.request_id,
            cancel,
        },
        guard,
    ))
}

struct CancelProbe {
    is_cancelled: unsafe extern "C" fn(*mut c_void) -> i32,
    context: *mut c_void,
}

// SAFETY: the header says that the callback may be called from any thread.
unsafe impl Send for CancelProbe {}

impl CancelProbe {
    fn ask(&self) -> bool {
        // SAFETY: the call has not returned, or the guard would have taken the probe away.
        unsafe { (self.is_cancelled)(self.context) != 0 }
    }
}

/// The context.
///
/// # Safety
///
/// As for [`sized`], and for what it points to.
pub(super) unsafe fn context(pointer: *const abi::Context) -> Result<Context, Failure> {
    // SAFETY: as the caller says.
    let context = unsafe { sized(pointer, "the context")? };
    if context.count > abi::CONTEXT_ENTRIES_MAX {
        return Err(Failure::argument(format!(
            "the context has {} pairs",
            context.count
        )));
    }
    let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(context.count as usize);
    if context.count > 0 {
        if context.entries.is_null() || !context.entries.is_aligned() {
            return Err(Failure::argument("the context's pairs are null or misaligned"));
        }
        // SAFETY: not null, aligned, and the caller says that there are `count` of them.
        for entry in unsafe { std::slice::from_raw_parts(context.entries, context.count as usize) } {
            // SAFETY: as the caller says.
            let (name, value) = unsafe {
                (
                    text(&entry.name, abi::CONTEXT_MAX, "a context name")?,
                    text(&entry.value, abi::CONTEXT_MAX, "a context value")?,
                )
            };
            if name.is_empty() || pairs.last().is_some_and(|(before, _)| *before >= name) {
                return Err(Failure::argument(
                    "the context's names are not in ascending order, or one is empty",
                ));
            }
            pairs.push((name, value));
        }
    }
    Ok(Context::new(pairs))
}

/// What `wrap` once answered.
///
/// # Safety
///
/// As for [`sized`], and for what it points to.
pub(super) unsafe fn wrapped(pointer: *const abi::Wrapped) -> Result<Wrapped, Failure> {
    // SAFETY: as the caller says.
    unsafe {
        let wrapped = sized(pointer, "the wrapped key")?;
        Ok(Wrapped {
            blob: bytes(&wrapped.blob, abi::BLOB_MAX_RANGE.1.into(), "the blob")?.to_vec(),
            key_id: text(&wrapped.key_id, abi::KEY_ID_MAX_RANGE.1.into(), "the key id")?.to_owned(),
            metadata: bytes(
                &wrapped.metadata,
                abi::METADATA_MAX_RANGE.1.into(),
                "the metadata",
            )?
            .to_vec(),
        })
    }
}
