//! The host's services, as a backend in a plugin sees them.
//!
//! The host offers its table until `close` has returned. A backend holds an `Arc<dyn Host>`, which a task of it may keep
//! for longer; so the table sits behind a gate that `close` shuts after the last call through it is over.

use std::sync::{PoisonError, RwLock};
use zeroize::Zeroizing;

use super::answers::Failure;
use super::arguments;
use crate::{BackendError, ErrorCode, Host, LockedBytes, LogLevel, abi};

/// The host's table of one instance.
pub(super) struct HostTable(RwLock<Option<Open>>);

struct Open(*const abi::Host);

// SAFETY: the header says that the host's functions may be called from any thread.
unsafe impl Send for Open {}
// SAFETY: as above.
unsafe impl Sync for Open {}

impl HostTable {
    /// # Safety
    ///
    /// `table` is null or keeps the rules of the header until [`shut`](Self::shut) has returned.
    pub(super) unsafe fn new(table: *const abi::Host) -> Result<Self, Failure> {
        // SAFETY: as the caller says.
        let host = unsafe { arguments::sized(table, "the host's table")? };
        if host.log.is_none() || host.zero.is_none() || host.random.is_none() || host.identity_token.is_none()
        {
            return Err(Failure::argument("an entry of the host's table is null"));
        }
        Ok(Self(RwLock::new(Some(Open(table)))))
    }

    /// Waits for calls to the host that are under way; none is made afterwards.
    pub(super) fn shut(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn with<T>(&self, ask: impl FnOnce(&abi::Host) -> Option<T>) -> Option<T> {
        let gate = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the gate is not shut, so the table is there.
        gate.as_ref().and_then(|open| ask(unsafe { &*open.0 }))
    }
}

impl Host for HostTable {
    fn log(&self, level: LogLevel, message: &str) {
        self.with(|host| {
            // SAFETY: as the header says; the message is borrowed for the call.
            unsafe { (host.log?)(host.context, level as i32, &abi::Input::of(message.as_bytes())) };
            Some(())
        });
    }

    fn random(&self, out: &mut [u8]) -> Result<(), BackendError> {
        let code = self.with(|host| {
            let fill = host.random?;
            // SAFETY: as the header says; `out` has so many bytes.
            Some(unsafe { fill(host.context, out.as_mut_ptr(), out.len() as u64) })
        });
        match code {
            Some(abi::OK) => Ok(()),
            Some(code) => Err(BackendError::new(
                ErrorCode::from_i32(code),
                "the host gave no random bytes",
            )),
            None => Err(closed()),
        }
    }

    fn identity_token(&self, audience: &str) -> Result<LockedBytes, BackendError> {
        let mut token = Zeroizing::new(vec![0; abi::TOKEN_MAX as usize]);
        let mut message = vec![0; abi::MESSAGE_MAX as usize];
        let mut output = abi::Output::of(&mut token);
        let mut error = abi::Error::with_room(&mut message);
        let audience = abi::Input::of(audience.as_bytes());
        let code = self
            .with(|host| {
                let ask = host.identity_token?;
                // SAFETY: as the header says; all that is given is borrowed for the call.
                Some(unsafe { ask(host.context, &audience, &mut output, &mut error) })
            })
            .ok_or_else(closed)?;
        let (written, explained) = (output.len, error.message.len);
        if code != abi::OK {
            let explained = usize::try_from(explained)
                .unwrap_or(usize::MAX)
                .min(message.len());
            let text = String::from_utf8_lossy(&message[..explained]).into_owned();
            return Err(BackendError::new(ErrorCode::from_i32(code), text));
        }
        let written = usize::try_from(written).ok().and_then(|len| token.get(..len));
        written.map(LockedBytes::copy_from).ok_or_else(|| {
            BackendError::new(
                ErrorCode::Internal,
                "the host answered an identity token longer than its room",
            )
        })
    }
}

fn closed() -> BackendError {
    BackendError::new(
        ErrorCode::Internal,
        "the instance was closed: the host cannot be asked any more",
    )
}
