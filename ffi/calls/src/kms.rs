//! A KMS as a table of functions of the program: it turns a key's bits around, which is good for tests alone. There is one in a
//! process, as a table lives as long as that.

#![allow(unsafe_code)]

use keystead_backend::abi;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const DESCRIPTION: &[u8] = br#"{"name":"own-kms","version":"1"}"#;
const KEY_ID: &[u8] = b"own:1";
const TURN: u8 = 0x5a;

/// Is told a key.
pub type Watcher = fn(&[u8]);

/// What every call but `describe`, `open` and `close` answers.
static ANSWER: AtomicI32 = AtomicI32::new(abi::OK);
/// Told of every key that is wrapped, before it is.
static WATCHER: Mutex<Option<Watcher>> = Mutex::new(None);

static TABLE: Table = Table(abi::Api {
    struct_size: abi::struct_size::<abi::Api>(),
    abi: abi::ABI,
    capabilities: 0,
    backend: ptr::null_mut(),
    describe: Some(describe),
    open: Some(open),
    close: Some(close),
    status: Some(status),
    wrap: Some(wrap),
    unwrap: Some(unwrap),
    rewrap: None,
    interrupt: None,
});

struct Table(abi::Api);

// SAFETY: it is never changed, and its functions may be called by any thread.
unsafe impl Sync for Table {}

/// The table.
#[must_use]
pub fn table() -> *const abi::Api {
    &raw const TABLE.0
}

/// Answers this code from now on, until it is told [`abi::OK`].
pub fn answer(code: i32) {
    ANSWER.store(code, Ordering::SeqCst);
}

/// Is told every key that is wrapped from now on.
pub fn watch(watcher: Watcher) {
    *WATCHER.lock().unwrap_or_else(PoisonError::into_inner) = Some(watcher);
}

unsafe extern "C" fn describe(_: *mut c_void, json: *mut abi::Output, _: *mut abi::Error) -> i32 {
    // SAFETY: room of the host, by the rules of the interface.
    unsafe { put(json, DESCRIPTION.iter().copied()) }
}

unsafe extern "C" fn open(
    _: *mut c_void,
    _: *const abi::OpenRequest,
    out: *mut *mut abi::Instance,
    _: *mut abi::Error,
) -> i32 {
    // SAFETY: room of the host. An instance is not looked at, here or there: any pointer that is not null.
    unsafe { out.write(table().cast_mut().cast()) };
    abi::OK
}

unsafe extern "C" fn close(_: *mut abi::Instance) {}

unsafe extern "C" fn status(
    _: *mut abi::Instance,
    _: *const abi::Call,
    _: *mut abi::StatusOut,
    error: *mut abi::Error,
) -> i32 {
    // SAFETY: the host's, by the rules of the interface.
    unsafe { answered(error) }
}

unsafe extern "C" fn wrap(
    _: *mut abi::Instance,
    _: *const abi::Call,
    _: *const abi::Context,
    plaintext: *const abi::Input,
    out: *mut abi::WrappedOut,
    error: *mut abi::Error,
) -> i32 {
    // SAFETY: all of it is the host's, by the rules of the interface, for the time of the call.
    unsafe {
        let code = answered(error);
        if code != abi::OK {
            return code;
        }
        let key = (*plaintext).as_slice().unwrap_or_default();
        if let Some(watcher) = *WATCHER.lock().unwrap_or_else(PoisonError::into_inner) {
            watcher(key);
        }
        put(&raw mut (*out).key_id, KEY_ID.iter().copied());
        put(&raw mut (*out).blob, key.iter().map(|byte| byte ^ TURN))
    }
}

unsafe extern "C" fn unwrap(
    _: *mut abi::Instance,
    _: *const abi::Call,
    _: *const abi::Context,
    wrapped: *const abi::Wrapped,
    out: *mut abi::Output,
    error: *mut abi::Error,
) -> i32 {
    // SAFETY: all of it is the host's, by the rules of the interface, for the time of the call.
    unsafe {
        let code = answered(error);
        if code != abi::OK {
            return code;
        }
        let blob = (*wrapped).blob.as_slice().unwrap_or_default();
        put(out, blob.iter().map(|byte| byte ^ TURN))
    }
}

/// # Safety
///
/// `error` is the host's.
unsafe fn answered(error: *mut abi::Error) -> i32 {
    let code = ANSWER.load(Ordering::SeqCst);
    if code != abi::OK {
        // SAFETY: as the caller says.
        unsafe { abi::Error::fill(error, code, Some(Duration::from_millis(1)), "as it was told") };
    }
    code
}

/// # Safety
///
/// `out` is the host's.
unsafe fn put(out: *mut abi::Output, bytes: impl ExactSizeIterator<Item = u8>) -> i32 {
    // SAFETY: as the caller says.
    let out = unsafe { &mut *out };
    out.len = bytes.len() as u64;
    if out.len > out.capacity {
        return abi::BUFFER_TOO_SMALL;
    }
    for (at, byte) in bytes.enumerate() {
        // SAFETY: within the capacity.
        unsafe { out.data.add(at).write(byte) };
    }
    abi::OK
}
