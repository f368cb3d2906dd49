//! The functions of the table.
//!
//! SAFETY, for all of them: the host keeps the rules of the header; what it breaks of those that can be checked (null,
//! sizes, text) is answered by `INVALID_ARGUMENT`.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Table;
use super::answers::{Failure, check_room, write};
use super::arguments::{self, sized_mut};
use super::upcalls::HostTable;
use crate::{Host, KeyInstance, OpenRequest, SizeLimits, Wrapped, abi};

/// What an instance pointer of the table points to.
struct Instance {
    key: Box<dyn KeyInstance>,
    host: Arc<HostTable>,
    limits: SizeLimits,
}

/// Runs `work`; none when it panicked. The panic's text is not handed on: nobody checked it for secrets.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => Some(value),
        Err(payload) => {
            // Dropping it could panic again.
            std::mem::forget(payload);
            None
        }
    }
}

/// Runs an exported function's work and answers its code.
///
/// # Safety
///
/// `error` is null or keeps the rules of the header.
unsafe fn answered(error: *mut abi::Error, work: impl FnOnce() -> Result<(), Failure>) -> i32 {
    let failure = match caught(work) {
        Some(Ok(())) => return abi::OK,
        Some(Err(failure)) => failure,
        None => {
            Failure::internal("the backend panicked; what it was doing is unknown. Report this to its maker")
        }
    };
    // SAFETY: as the caller says.
    unsafe { failure.answer(error) }
}

pub(super) unsafe extern "C" fn describe(
    backend: *mut c_void,
    json: *mut abi::Output,
    error: *mut abi::Error,
) -> i32 {
    // SAFETY: as the module says.
    unsafe {
        answered(error, || {
            let table = table(backend)?;
            let json = plain_mut(json, "the room for the description")?;
            let needed = u32::try_from(table.description_json.len()).unwrap_or(u32::MAX);
            check_room(json, needed, "the description")?;
            write(json, &table.description_json, "the description")
        })
    }
}

pub(super) unsafe extern "C" fn open(
    backend: *mut c_void,
    request: *const abi::OpenRequest,
    out: *mut *mut abi::Instance,
    error: *mut abi::Error,
) -> i32 {
    // SAFETY: as the module says.
    unsafe {
        answered(error, || {
            let table = table(backend)?;
            let out = plain_mut(out, "the place for the instance")?;
            let request = arguments::sized(request, "the request")?;
            let settings = arguments::text(&request.settings_json, abi::JSON_MAX, "the settings")?;
            let config = arguments::text(&request.config_json, abi::JSON_MAX, "the config")?;
            let mut gate = ShutOnDrop {
                host: Arc::new(HostTable::new(request.host)?),
                armed: true,
            };
            let host = Arc::clone(&gate.host);
            let offered: Arc<dyn Host> = Arc::<HostTable>::clone(&host);
            let key = table.backend.open(OpenRequest {
                settings,
                config,
                host: offered,
            })?;
            gate.armed = false;
            let instance = Instance {
                key,
                host,
                limits: table.description.limits,
            };
            *out = Box::into_raw(Box::new(instance)).cast();
            Ok(())
        })
    }
}

/// Shuts the gate to the host unless `open` succeeds: when it fails, and when it panics.
struct ShutOnDrop {
    host: Arc<HostTable>,
    armed: bool,
}

impl Drop for ShutOnDrop {
    fn drop(&mut self) {
        if self.armed {
            self.host.shut();
        }
    }
}

pub(super) unsafe extern "C" fn close(instance: *mut abi::Instance) {
    if instance.is_null() {
        return;
    }
    // SAFETY: the instance came from `open`, and the host does not use it again.
    let Instance { key, host, .. } = *unsafe { Box::from_raw(instance.cast::<Instance>()) };
    caught(|| drop(key));
    caught(|| host.shut());
}

pub(super) unsafe extern "C" fn status(
    instance: *mut abi::Instance,
    call: *const abi::Call,
    out: *mut abi::StatusOut,
    error: *mut abi::Error,
) -> i32 {
    // SAFETY: as the module says.
    unsafe {
        answered(error, || {
            let instance = self::instance(instance)?;
            let out = sized_mut(out, "the room for the status")?;
            check_room(&mut out.key_id, instance.limits.key_id_max_bytes, "the key id")?;
            let (call, _until_it_returns) = arguments::call(call)?;
            let status = instance.key.status(&call)?;
            write(&mut out.key_id, status.key_id.as_bytes(), "the key id")?;
            out.detail.write_cut(&status.detail);
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn wrap(
    instance: *mut abi::Instance,
    call: *const abi::Call,
    context: *const abi::Context,
    plaintext: *const abi::Input,
    out: *mut abi::WrappedOut,
    error: *mut abi::Error,
) -> i32 {
    // SAFETY: as the module says.
    unsafe {
        answered(error, || {
            let instance = self::instance(instance)?;
            let out = sized_mut(out, "the room for the wrapped key")?;
            check_wrapped_room(out, &instance.limits)?;
            let (call, _until_it_returns) = arguments::call(call)?;
            let context = arguments::context(context)?;
            let plaintext = plain(plaintext, "the plaintext")?;
            let plaintext = arguments::bytes(
                plaintext,
                instance.limits.plaintext_max_bytes.into(),
                "the plaintext",
            )?;
            write_wrapped(out, &instance.key.wrap(&call, &context, plaintext)?)
        })
    }
}

pub(super) unsafe extern "C" fn unwrap(
    instance: *mut abi::Instance,
    call: *const abi::Call,
    context: *const abi::Context,
    wrapped: *const abi::Wrapped,
    out: *mut abi::Output,
    error: *mut abi::Error,
) -> i32 {
    // SAFETY: as the module says.
    unsafe {
        answered(error, || {
            let instance = self::instance(instance)?;
            let out = plain_mut(out, "the room for the plaintext")?;
            check_room(out, instance.limits.plaintext_max_bytes, "the plaintext")?;
            let (call, _until_it_returns) = arguments::call(call)?;
            let context = arguments::context(context)?;
            let wrapped = arguments::wrapped(wrapped)?;
            // Dropped, and so zeroized, as soon as it is copied to the host's memory.
            let plaintext = instance.key.unwrap(&call, &context, &wrapped)?;
            write(out, plaintext.as_slice(), "the plaintext")
        })
    }
}

pub(super) unsafe extern "C" fn rewrap(
    instance: *mut abi::Instance,
    call: *const abi::Call,
    context: *const abi::Context,
    wrapped: *const abi::Wrapped,
    out: *mut abi::WrappedOut,
    error: *mut abi::Error,
) -> i32 {
    // SAFETY: as the module says.
    unsafe {
        answered(error, || {
            let instance = self::instance(instance)?;
            let out = sized_mut(out, "the room for the wrapped key")?;
            check_wrapped_room(out, &instance.limits)?;
            let (call, _until_it_returns) = arguments::call(call)?;
            let context = arguments::context(context)?;
            let wrapped = arguments::wrapped(wrapped)?;
            write_wrapped(out, &instance.key.rewrap(&call, &context, &wrapped)?)
        })
    }
}

pub(super) unsafe extern "C" fn interrupt(instance: *mut abi::Instance) {
    caught(|| {
        // SAFETY: as the module says.
        if let Ok(instance) = unsafe { self::instance(instance) } {
            instance.key.interrupt();
        }
    });
}

fn check_wrapped_room(out: &mut abi::WrappedOut, limits: &SizeLimits) -> Result<(), Failure> {
    // All three are looked at, so that every `len` says what is needed.
    let blob = check_room(&mut out.blob, limits.blob_max_bytes, "the blob");
    let key_id = check_room(&mut out.key_id, limits.key_id_max_bytes, "the key id");
    let metadata = check_room(&mut out.metadata, limits.metadata_max_bytes, "the metadata");
    blob.and(key_id).and(metadata)
}

/// # Safety
///
/// The outputs have their capacities in bytes behind their pointers.
unsafe fn write_wrapped(out: &mut abi::WrappedOut, wrapped: &Wrapped) -> Result<(), Failure> {
    if wrapped.blob.is_empty() || wrapped.key_id.is_empty() {
        return Err(Failure::internal(
            "the backend wrapped, but answered no blob or no key id",
        ));
    }
    // SAFETY: as the caller says.
    unsafe {
        write(&mut out.blob, &wrapped.blob, "the blob")?;
        write(&mut out.key_id, wrapped.key_id.as_bytes(), "the key id")?;
        write(&mut out.metadata, &wrapped.metadata, "the metadata")
    }
}

/// # Safety
///
/// `backend` is what the table says.
unsafe fn table<'a>(backend: *mut c_void) -> Result<&'a Table, Failure> {
    // SAFETY: as the caller says; the table lives as long as the process.
    unsafe { plain(backend.cast_const().cast::<Table>(), "the backend") }
}

/// # Safety
///
/// `instance` is null or came from `open` and was not closed.
unsafe fn instance<'a>(instance: *mut abi::Instance) -> Result<&'a Instance, Failure> {
    // SAFETY: as the caller says.
    unsafe { plain(instance.cast_const().cast::<Instance>(), "the instance") }
}

/// # Safety
///
/// `pointer` is null or may be read for `'a`.
unsafe fn plain<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Failure> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(Failure::argument(format!("{what} is null or misaligned")));
    }
    // SAFETY: checked, and borrowed as the caller says.
    Ok(unsafe { &*pointer })
}

/// # Safety
///
/// `pointer` is null or may be written for `'a`.
unsafe fn plain_mut<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: as the caller says.
    unsafe { plain(pointer.cast_const(), what)? };
    // SAFETY: checked, and borrowed as the caller says.
    Ok(unsafe { &mut *pointer })
}
