//! The host's services as a plugin sees them: the table of C functions around a [`Host`].

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;

use keystead_backend::{BackendError, ErrorCode, Host, LockedBytes, LogLevel, abi};
use zeroize::Zeroize;

/// The longest line of log that a plugin gets through, in bytes; the rest is cut.
const LOG_LINE_MAX_BYTES: u64 = 4096;

/// The table of one instance, or of one that is being opened. Lives as long as this value: the instance owns it and drops
/// it after `close` has returned.
pub(crate) struct HostTable {
    bridge: NonNull<Bridge>,
    /// Never freed, for a plugin that may use it for longer than it is allowed to.
    kept: bool,
}

struct Bridge {
    table: abi::Host,
    host: Arc<dyn Host>,
}

// SAFETY: a `Host` is for all threads, and the table is only read.
unsafe impl Send for HostTable {}
// SAFETY: as above.
unsafe impl Sync for HostTable {}

impl HostTable {
    pub(crate) fn new(host: Arc<dyn Host>) -> Self {
        let table = abi::Host {
            struct_size: abi::struct_size::<abi::Host>(),
            abi: abi::ABI,
            context: std::ptr::null_mut(),
            log: Some(log),
            zero: Some(zero),
            random: Some(random),
            identity_token: Some(identity_token),
        };
        // From here on reached by raw pointers alone, since the plugin holds some.
        let bridge = NonNull::from(Box::leak(Box::new(Bridge { table, host })));
        // SAFETY: just made, and not shared yet.
        unsafe { (*bridge.as_ptr()).table.context = bridge.as_ptr().cast() };
        Self { bridge, kept: false }
    }

    /// A table that is never freed: so that a late call on it can be told, and does no harm.
    #[cfg(feature = "probe")]
    pub(crate) fn kept(host: Arc<dyn Host>) -> Self {
        let mut table = Self::new(host);
        table.kept = true;
        table
    }

    pub(crate) fn as_ptr(&self) -> *const abi::Host {
        // SAFETY: the bridge lives as long as `self`.
        unsafe { &raw const (*self.bridge.as_ptr()).table }
    }
}

impl Drop for HostTable {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // SAFETY: made from a box in `new`, and the instance that used it is closed.
        drop(unsafe { Box::from_raw(self.bridge.as_ptr()) });
    }
}

/// The table for what belongs to no instance. Lives as long as the process.
pub(crate) fn process_table() -> *const abi::Host {
    static TABLE: std::sync::OnceLock<HostTable> = std::sync::OnceLock::new();
    TABLE
        .get_or_init(|| HostTable::new(Arc::new(ProcessHost)))
        .as_ptr()
}

struct ProcessHost;

impl Host for ProcessHost {
    fn log(&self, level: LogLevel, message: &str) {
        match level {
            LogLevel::Error => tracing::error!(target: "keystead::plugin", "{message}"),
            LogLevel::Warn => tracing::warn!(target: "keystead::plugin", "{message}"),
            LogLevel::Info => tracing::info!(target: "keystead::plugin", "{message}"),
            LogLevel::Debug => tracing::debug!(target: "keystead::plugin", "{message}"),
        }
    }

    fn random(&self, out: &mut [u8]) -> Result<(), BackendError> {
        getrandom::fill(out).map_err(|error| {
            BackendError::new(
                ErrorCode::Internal,
                format!("the system gave no random bytes: {error}"),
            )
        })
    }

    fn identity_token(&self, _audience: &str) -> Result<LockedBytes, BackendError> {
        Err(BackendError::new(
            ErrorCode::Unsupported,
            "tokens are minted for an instance, not for a plugin",
        ))
    }
}

/// # Safety
///
/// `context` is that of a table here.
unsafe fn host<'a>(context: *mut c_void) -> Option<&'a dyn Host> {
    // SAFETY: it points to the bridge, which outlives the call.
    unsafe { context.cast::<Bridge>().cast_const().as_ref() }.map(|bridge| &*bridge.host)
}

/// No panic of the application's code goes through the plugin's frames.
fn caught<T>(work: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        std::mem::forget(payload); // dropping it could panic again
        None
    })
}

unsafe extern "C" fn log(context: *mut c_void, level: i32, message: *const abi::Input) {
    caught(|| {
        // SAFETY: the plugin keeps the rules of the header.
        let (host, message) = unsafe { (host(context)?, message.as_ref()?) };
        let cut = abi::Input {
            data: message.data,
            len: message.len.min(LOG_LINE_MAX_BYTES),
        };
        // SAFETY: as above, and no longer than the plugin says.
        let text = crate::loaded::for_people(unsafe { cut.as_slice()? });
        let level = match level {
            1 => LogLevel::Error,
            2 => LogLevel::Warn,
            4 => LogLevel::Debug,
            _ => LogLevel::Info,
        };
        host.log(level, &text);
        Some(())
    });
}

unsafe extern "C" fn zero(data: *mut c_void, len: u64) {
    let Ok(len) = usize::try_from(len) else { return };
    if !data.is_null() && isize::try_from(len).is_ok() {
        // SAFETY: the plugin says that it has so many bytes there.
        unsafe { std::slice::from_raw_parts_mut(data.cast::<u8>(), len) }.zeroize();
    }
}

unsafe extern "C" fn random(context: *mut c_void, out: *mut u8, len: u64) -> i32 {
    let work = || {
        let len = usize::try_from(len)
            .ok()
            .filter(|&len| isize::try_from(len).is_ok())?;
        if out.is_null() {
            return Some(if len == 0 { abi::OK } else { abi::INVALID_ARGUMENT });
        }
        // SAFETY: the plugin says that it has so many bytes there. Zeroed first, since they may never have been written.
        let out = unsafe {
            out.write_bytes(0, len);
            std::slice::from_raw_parts_mut(out, len)
        };
        // SAFETY: the plugin keeps the rules of the header.
        let host = unsafe { host(context)? };
        Some(
            host.random(out)
                .map_or_else(|error| error.code.as_i32(), |()| abi::OK),
        )
    };
    caught(work).unwrap_or(ErrorCode::Internal.as_i32())
}

unsafe extern "C" fn identity_token(
    context: *mut c_void,
    audience: *const abi::Input,
    token: *mut abi::Output,
    error: *mut abi::Error,
) -> i32 {
    let work = || {
        // SAFETY: the plugin keeps the rules of the header.
        let (host, audience, token) = unsafe { (host(context)?, audience.as_ref()?, token.as_mut()?) };
        // SAFETY: as above.
        let audience = std::str::from_utf8(unsafe { audience.as_slice()? }).ok()?;
        let minted = match host.identity_token(audience) {
            Ok(minted) => minted,
            Err(refused) => {
                let code = refused.code.as_i32();
                // SAFETY: as above.
                unsafe { abi::Error::fill(error, code, refused.retry_after, &refused.message) };
                return Some(code);
            }
        };
        let bytes = minted.as_slice();
        let len = bytes.len() as u64;
        if len > abi::TOKEN_MAX {
            let message = "the application minted a token longer than a token may be";
            // SAFETY: as above.
            unsafe { abi::Error::fill(error, ErrorCode::Internal.as_i32(), None, message) };
            return Some(ErrorCode::Internal.as_i32());
        }
        token.len = len;
        if len > token.capacity || (token.data.is_null() && len > 0) {
            // SAFETY: as above.
            unsafe { abi::Error::fill(error, abi::BUFFER_TOO_SMALL, None, "no room for the token") };
            return Some(abi::BUFFER_TOO_SMALL);
        }
        if len > 0 {
            // SAFETY: there is room, as the plugin says, and the token is ours.
            unsafe { token.data.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        Some(abi::OK)
    };
    caught(work).unwrap_or_else(|| {
        let message = "the host could not mint a token: an argument was wrong, or the application panicked";
        // SAFETY: as above.
        unsafe { abi::Error::fill(error, ErrorCode::Internal.as_i32(), None, message) };
        ErrorCode::Internal.as_i32()
    })
}
