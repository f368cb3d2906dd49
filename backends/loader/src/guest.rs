//! One registered key in a plugin: the calls over the C table, and what is checked in every answer.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use keystead_backend::{
    BackendError, Call, Context, ErrorCode, KeyInstance, LockedBytes, OpenRequest, SizeLimits, Status,
    Wrapped, abi,
};

use crate::inputs::{self, CallHeader, Pairs};
use crate::loaded::{Loaded, for_people};
use crate::room::{self, CANARY_BYTES, Room};
use crate::upcalls::HostTable;

/// One instance in a plugin.
pub(crate) struct Guest {
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) instance: NonNull<abi::Instance>,
    /// Dropped after the instance is closed. None once it was given up to a plugin that may still use it.
    host: Option<HostTable>,
}

// SAFETY: the header says that every call may be made from any thread, and many at once.
unsafe impl Send for Guest {}
// SAFETY: as above.
unsafe impl Sync for Guest {}

impl Guest {
    pub(crate) fn open(loaded: &Arc<Loaded>, request: OpenRequest<'_>) -> Result<Self, BackendError> {
        let host = HostTable::new(Arc::clone(&request.host));
        Self::open_with(loaded, &request, host)
    }

    pub(crate) fn open_with(
        loaded: &Arc<Loaded>,
        request: &OpenRequest<'_>,
        host: HostTable,
    ) -> Result<Self, BackendError> {
        for (name, json) in [("settings", request.settings), ("config", request.config)] {
            if json.len() as u64 > abi::JSON_MAX {
                let message = format!("the {name} are longer than {} bytes", abi::JSON_MAX);
                return Err(BackendError::new(ErrorCode::InvalidConfig, message));
            }
        }
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
            unsafe {
                (loaded.table().open)(loaded.table().backend, &raw const given, &raw mut instance, error)
            }
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

    pub(crate) fn limits(&self) -> &SizeLimits {
        &self.loaded.description().limits
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
                self.loaded.description().name
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
            key_id: self.loaded.key_id(&key_id, out.key_id.len)?,
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
        let header = CallHeader::new(call);
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
                (self.loaded.table().status)(self.instance.as_ptr(), header.as_ptr(), &raw mut out, error)
            }
        });
        for (room, what) in [(&key_id, "a key id"), (&detail, "a status")] {
            self.loaded.answer(room, 0, what)?;
        }
        result?;
        Ok(Status {
            key_id: self.loaded.key_id(&key_id, out.key_id.len)?,
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
                    self.loaded.description().name
                ),
            ));
        }
        let header = CallHeader::new(call);
        let context = Pairs::new(context)?;
        let plaintext = abi::Input::of(plaintext);
        self.wrapped(|out, error| {
            // SAFETY: a function of the table, with an open instance; all that is given lives until it returns.
            unsafe {
                (self.loaded.table().wrap)(
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
        let header = CallHeader::new(call);
        let context = Pairs::new(context)?;
        let wrapped = inputs::wrapped(wrapped);
        let mut plaintext = None;
        // The room is locked memory, too: the key has no copy elsewhere on its way to its own place.
        let capacity = self.limits().plaintext_max_bytes as usize;
        LockedBytes::fill_with(capacity + CANARY_BYTES, |memory| {
            let mut out = room::arm(memory);
            let result = self.loaded.call(|error| {
                // SAFETY: a function of the table, with an open instance; all that is given lives until it returns.
                unsafe {
                    (self.loaded.table().unwrap)(
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
        let rewrap = self.loaded.table().rewrap.ok_or_else(|| {
            BackendError::new(
                ErrorCode::Unsupported,
                format!(
                    "the plugin {} does not re-wrap on the server's side",
                    self.loaded.description().name
                ),
            )
        })?;
        self.check_wrapped(wrapped)?;
        let header = CallHeader::new(call);
        let context = Pairs::new(context)?;
        let wrapped = inputs::wrapped(wrapped);
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
        if let Some(interrupt) = self
            .loaded
            .table()
            .interrupt
            .filter(|_| !self.loaded.is_stopped())
        {
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
        unsafe { (self.loaded.table().close)(self.instance.as_ptr()) };
    }
}
