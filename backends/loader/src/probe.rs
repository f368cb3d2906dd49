//! A loaded plugin, called as no host calls it: with less room than it describes, without an error to fill in, with structs
//! that are shorter or longer than ours. What the header allows a host to do, and what it says happens when a host is wrong; for
//! `keystead-conform`, and not covered by any promise of stability.
//!
//! The plugin went through every step of [`Plugin::load`]. What is written beyond what was given meets memory of this module's
//! on both sides, as much as the plugin describes and more, so that it is told and does no harm; the instance is closed when it is
//! dropped, and the host's table is kept for good, so that a late call on it is told as well.

#![allow(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use keystead_backend::{
    BackendError, Call, CancelFlag, Context, ErrorCode, KeyInstance, LockedBytes, OpenRequest, Status,
    Wrapped, abi,
};

use crate::Plugin;
use crate::guest::Guest;
use crate::image::Linked;
use crate::inputs::{self, CallHeader, Pairs};
use crate::upcalls::{self, HostTable};

mod yard;

use yard::{LATER_BYTES, Longer, Yard};

/// A plugin, to be called oddly.
#[derive(Clone)]
pub struct Probe {
    plugin: Plugin,
    linked: Linked,
}

/// What [`Probe::interface`] was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// What the function returned.
    pub code: i32,
    /// What became of the place for the table.
    pub table: Table,
}

/// What became of the place for a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// It is as it was.
    Untouched,
    /// A null or a misaligned pointer was written.
    None,
    /// A table.
    At {
        /// Where it is: the same each time.
        address: usize,
        /// Its version.
        abi: u32,
    },
}

/// How an odd call is made. As it is by default, it is one that any host could make.
#[derive(Debug, Clone)]
pub struct Given {
    /// Room for each output, in the order of the struct; `None`, and beyond the list: as much as is described.
    pub rooms: Vec<Option<usize>>,
    /// Room for an error's message; a host gives [`abi::MESSAGE_MAX`].
    pub message_room: usize,
    /// The pointer to the error is null.
    pub no_error: bool,
    /// The pointer to the cancel callback is null.
    pub no_cancel: bool,
    /// A struct says another size than it has in this version.
    pub size: Option<(Struct, Size)>,
    /// The deadline.
    pub timeout: Duration,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            rooms: Vec::new(),
            message_room: abi::MESSAGE_MAX as usize,
            no_error: false,
            no_cancel: false,
            size: None,
            timeout: Duration::from_secs(30),
        }
    }
}

/// A struct of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Struct {
    /// The header of a call.
    Call,
    /// The context.
    Context,
    /// What was wrapped.
    Wrapped,
    /// Where an answer goes.
    Answer,
    /// The error.
    Error,
    /// What `open` gets.
    OpenRequest,
}

/// What a struct says about its size. Its memory is there in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// So many bytes, fewer than it has.
    Short(u32),
    /// More than it has: that of a host of a later version.
    Longer,
}

/// What an odd call was answered, as it was written.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What the function returned.
    pub code: i32,
    /// What stands in the error; `None` when there was none.
    pub said: Option<Said>,
    /// The outputs, in the order of the struct.
    pub outputs: Vec<Written>,
    /// What was written to that was not given: the names of the outputs and structs around it.
    pub overruns: Vec<&'static str>,
}

/// What stands in an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The code.
    pub code: i32,
    /// The wait, in milliseconds.
    pub retry_after_ms: u64,
    /// The message's length, as it was said.
    pub message_len: u64,
    /// The message, as far as there is room.
    pub message: Vec<u8>,
}

/// What stands in an output.
#[derive(Debug, Clone)]
pub struct Written {
    /// The output's name.
    pub name: &'static str,
    /// The room that was given.
    pub capacity: usize,
    /// The length, as it was said.
    pub len: u64,
    /// The answer, as far as there is room.
    pub bytes: Vec<u8>,
}

impl Probe {
    /// The plugin; `None` when it was not loaded from a file.
    #[must_use]
    pub fn new(plugin: &Plugin) -> Option<Self> {
        Some(Self {
            linked: Linked::find(plugin.digest())?,
            plugin: plugin.clone(),
        })
    }

    /// Asks for a table of a version within this range.
    #[must_use]
    pub fn interface(&self, abi_min: u32, abi_max: u32) -> Interface {
        let (code, out) = self.ask(abi_min, abi_max);
        let table = match out {
            None => Table::Untouched,
            Some(out) if out.is_null() || !out.is_aligned() => Table::None,
            Some(out) => Table::At {
                address: out.addr(),
                // SAFETY: what a plugin answers is a table, as long as the process lives; its version stands in every one.
                abi: unsafe { (&raw const (*out).abi).read() },
            },
        };
        Interface { code, table }
    }

    /// The code, and the table if one was written.
    fn ask(&self, abi_min: u32, abi_max: u32) -> (i32, Option<*const abi::Api>) {
        let mark = 0u64;
        let mark = (&raw const mark).cast::<abi::Api>();
        let mut out = mark;
        let symbol = self
            .linked
            .symbol(abi::SYMBOL)
            .expect("it was there when the plugin was loaded");
        // SAFETY: as in `negotiation.rs`.
        let code = unsafe {
            let get_interface = std::mem::transmute::<*mut std::ffi::c_void, abi::GetInterface>(symbol);
            get_interface(abi_min, abi_max, upcalls::process_table(), &raw mut out)
        };
        (code, (out != mark).then_some(out))
    }

    /// Asks for the description, with so much room. `None` when the plugin does not answer its table again.
    #[must_use]
    pub fn describe(&self, room: usize) -> Option<Answer> {
        let (code, table) = self.ask(abi::ABI, abi::ABI);
        let table = table.filter(|table| code == abi::OK && !table.is_null() && table.is_aligned())?;
        // SAFETY: a table of this version, as long as the process lives.
        let describe = unsafe { (*table).describe }?;
        let mut json = Yard::new("description", room, abi::JSON_MAX as usize);
        let mut out = json.output();
        let mut asked = Asked::new(&Given::default());
        // SAFETY: a function of the table, with what the header says.
        let code = unsafe { describe(self.plugin.loaded.table().backend, &raw mut out, asked.error()) };
        Some(asked.answer(code, vec![(json, out.len)]))
    }

    /// Opens an instance, on a host's table that is kept for good.
    ///
    /// # Errors
    ///
    /// As [`keystead_backend::KeyBackend::open`].
    pub fn open(&self, request: &OpenRequest<'_>) -> Result<ProbedKey, BackendError> {
        let host = HostTable::kept(Arc::clone(&request.host));
        Guest::open_with(&self.plugin.loaded, request, host).map(ProbedKey)
    }

    /// Opens an instance as `given` says, and closes it again. Its only output is whether there was an instance: 1 byte.
    #[must_use]
    pub fn open_as(&self, given: &Given, request: &OpenRequest<'_>) -> Answer {
        let host = HostTable::kept(Arc::clone(&request.host));
        let table = self.plugin.loaded.table();
        let mut asked = Asked::new(given);
        let mut open = Longer::new(
            "the request",
            abi::OpenRequest {
                struct_size: given.size_of::<abi::OpenRequest>(Struct::OpenRequest),
                reserved: 0,
                host: host.as_ptr(),
                settings_json: abi::Input::of(request.settings.as_bytes()),
                config_json: abi::Input::of(request.config.as_bytes()),
            },
        );
        let mut instance = std::ptr::null_mut();
        // SAFETY: a function of the table; what it is given lives until it returns, the host's table for good.
        let code =
            unsafe { (table.open)(table.backend, open.as_mut_ptr(), &raw mut instance, asked.error()) };
        let mut opened = Yard::new("instance", 1, 0);
        opened.output();
        let len = u64::from(!instance.is_null());
        if code == abi::OK && !instance.is_null() {
            // SAFETY: it was opened just now, and nothing was called on it.
            unsafe { (table.close)(instance) };
        }
        asked.structs.extend(open.is_overrun());
        asked.answer(code, vec![(opened, len)])
    }

    /// Closes no instance: `close(NULL)`.
    pub fn close_nothing(&self) {
        // SAFETY: the header says that it does nothing.
        unsafe { (self.plugin.loaded.table().close)(std::ptr::null_mut()) };
    }
}

/// An instance in a plugin. As a [`KeyInstance`] it is called as a host calls it.
pub struct ProbedKey(Guest);

impl ProbedKey {
    /// `status`, made as `given` says. Outputs: key id, detail.
    #[must_use]
    pub fn status_as(&self, given: &Given) -> Answer {
        let mut asked = Asked::new(given);
        let key_id_max = self.0.limits().key_id_max_bytes as usize;
        let mut key_id = given.yard(0, "key id", key_id_max);
        let mut detail = given.yard(1, "detail", abi::MESSAGE_MAX as usize);
        let mut out = Longer::new(
            "the place for the status",
            abi::StatusOut {
                struct_size: given.size_of::<abi::StatusOut>(Struct::Answer),
                reserved: 0,
                key_id: key_id.output(),
                detail: detail.output(),
            },
        );
        let table = self.0.loaded.table();
        // SAFETY: a function of the table, with an open instance; all that is given lives until it returns.
        let code = unsafe {
            (table.status)(
                self.0.instance.as_ptr(),
                asked.call(),
                out.as_mut_ptr(),
                asked.error(),
            )
        };
        asked.structs.extend(out.is_overrun());
        let lens = (out.get().key_id.len, out.get().detail.len);
        asked.answer(code, vec![(key_id, lens.0), (detail, lens.1)])
    }

    /// `wrap`, made as `given` says. Outputs: blob, key id, metadata.
    ///
    /// # Errors
    ///
    /// The context does not fit the interface.
    pub fn wrap_as(
        &self,
        given: &Given,
        context: &Context,
        plaintext: &[u8],
    ) -> Result<Answer, BackendError> {
        let plaintext = input(plaintext);
        let wrap = self.0.loaded.table().wrap;
        self.wrapped(given, context, |instance, call, context, out, error| {
            // SAFETY: a function of the table, with an open instance; all that is given lives until it returns.
            unsafe { wrap(instance, call, context, &raw const plaintext, out, error) }
        })
    }

    /// `rewrap`, made as `given` says; outputs as of [`wrap_as`](Self::wrap_as). `None` when the plugin has none.
    ///
    /// # Errors
    ///
    /// The context does not fit the interface.
    pub fn rewrap_as(
        &self,
        given: &Given,
        context: &Context,
        wrapped: &Wrapped,
    ) -> Result<Option<Answer>, BackendError> {
        let Some(rewrap) = self.0.loaded.table().rewrap else {
            return Ok(None);
        };
        let mut wrapped = given.wrapped(wrapped);
        self.wrapped(given, context, |instance, call, context, out, error| {
            // SAFETY: a function of the table, with an open instance; all that is given lives until it returns.
            unsafe { rewrap(instance, call, context, wrapped.as_mut_ptr(), out, error) }
        })
        .map(Some)
    }

    fn wrapped(
        &self,
        given: &Given,
        context: &Context,
        make: impl FnOnce(
            *mut abi::Instance,
            *const abi::Call,
            *const abi::Context,
            *mut abi::WrappedOut,
            *mut abi::Error,
        ) -> i32,
    ) -> Result<Answer, BackendError> {
        let mut asked = Asked::new(given);
        let pairs = Pairs::new(context)?;
        let mut context = given.context(&pairs);
        let limits = *self.0.limits();
        let mut blob = given.yard(0, "blob", limits.blob_max_bytes as usize);
        let mut key_id = given.yard(1, "key id", limits.key_id_max_bytes as usize);
        let mut metadata = given.yard(2, "metadata", limits.metadata_max_bytes as usize);
        let mut out = Longer::new(
            "the place for the wrapped key",
            abi::WrappedOut {
                struct_size: given.size_of::<abi::WrappedOut>(Struct::Answer),
                reserved: 0,
                blob: blob.output(),
                key_id: key_id.output(),
                metadata: metadata.output(),
            },
        );
        let (call, error) = (asked.call(), asked.error());
        let code = make(
            self.0.instance.as_ptr(),
            call,
            context.as_mut_ptr(),
            out.as_mut_ptr(),
            error,
        );
        asked.structs.extend(out.is_overrun());
        let said = out.get();
        let lens = (said.blob.len, said.key_id.len, said.metadata.len);
        Ok(asked.answer(code, vec![(blob, lens.0), (key_id, lens.1), (metadata, lens.2)]))
    }

    /// `unwrap`, made as `given` says. Output: plaintext.
    ///
    /// # Errors
    ///
    /// The context does not fit the interface.
    pub fn unwrap_as(
        &self,
        given: &Given,
        context: &Context,
        wrapped: &Wrapped,
    ) -> Result<Answer, BackendError> {
        let mut asked = Asked::new(given);
        let pairs = Pairs::new(context)?;
        let mut context = given.context(&pairs);
        let mut wrapped = given.wrapped(wrapped);
        let mut plaintext = given.yard(0, "plaintext", self.0.limits().plaintext_max_bytes as usize);
        let mut out = plaintext.output();
        // SAFETY: a function of the table, with an open instance; all that is given lives until it returns.
        let code = unsafe {
            (self.0.loaded.table().unwrap)(
                self.0.instance.as_ptr(),
                asked.call(),
                context.as_mut_ptr(),
                wrapped.as_mut_ptr(),
                &raw mut out,
                asked.error(),
            )
        };
        Ok(asked.answer(code, vec![(plaintext, out.len)]))
    }
}

impl KeyInstance for ProbedKey {
    fn status(&self, call: &Call) -> Result<Status, BackendError> {
        self.0.status(call)
    }

    fn wrap(&self, call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        self.0.wrap(call, context, plaintext)
    }

    fn unwrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes, BackendError> {
        self.0.unwrap(call, context, wrapped)
    }

    fn rewrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<Wrapped, BackendError> {
        self.0.rewrap(call, context, wrapped)
    }

    fn interrupt(&self) {
        self.0.interrupt();
    }
}

impl Given {
    fn size_of<T>(&self, which: Struct) -> u32 {
        match self.size {
            Some((changed, Size::Short(bytes))) if changed == which => bytes,
            Some((changed, Size::Longer)) if changed == which => abi::struct_size::<T>() + LATER_BYTES as u32,
            _ => abi::struct_size::<T>(),
        }
    }

    fn yard(&self, output: usize, name: &'static str, described: usize) -> Yard {
        let room = self.rooms.get(output).copied().flatten().unwrap_or(described);
        Yard::new(name, room, described)
    }

    fn context(&self, pairs: &Pairs<'_>) -> Longer<abi::Context> {
        let mut given = pairs.given();
        given.struct_size = self.size_of::<abi::Context>(Struct::Context);
        Longer::new("the context", given)
    }

    fn wrapped(&self, wrapped: &Wrapped) -> Longer<abi::Wrapped> {
        let mut given = inputs::wrapped(wrapped);
        given.struct_size = self.size_of::<abi::Wrapped>(Struct::Wrapped);
        for part in [&mut given.blob, &mut given.key_id, &mut given.metadata] {
            if part.len == 0 {
                part.data = std::ptr::null();
            }
        }
        Longer::new("the wrapped key", given)
    }
}

/// Null when it is empty, as it may be.
fn input(bytes: &[u8]) -> abi::Input {
    match bytes {
        [] => abi::Input {
            data: std::ptr::null(),
            len: 0,
        },
        _ => abi::Input::of(bytes),
    }
}

/// What each call is given beside what it is about: its header, and an error.
struct Asked {
    _cancel: Box<CancelFlag>,
    call: Longer<abi::Call>,
    error: Longer<abi::Error>,
    message: Yard,
    no_error: bool,
    structs: Vec<&'static str>,
}

impl Asked {
    fn new(given: &Given) -> Self {
        let cancel = Box::<CancelFlag>::default();
        let call = Call {
            timeout: given.timeout,
            request_id: 1,
            cancel: CancelFlag::clone(&cancel),
        };
        let header = CallHeader::new(&call);
        // SAFETY: it was made just now.
        let mut header = unsafe { header.as_ptr().read() };
        // The flag of the box, which stays where it is.
        header.cancel_context = (&raw const *cancel).cast_mut().cast();
        header.struct_size = given.size_of::<abi::Call>(Struct::Call);
        if given.no_cancel {
            (header.is_cancelled, header.cancel_context) = (None, std::ptr::null_mut());
        }
        let mut message = Yard::new("message", given.message_room, abi::MESSAGE_MAX as usize);
        let error = abi::Error {
            struct_size: given.size_of::<abi::Error>(Struct::Error),
            code: abi::OK,
            retry_after_ms: 0,
            message: message.output(),
        };
        Self {
            _cancel: cancel,
            call: Longer::new("the call header", header),
            error: Longer::new("the error", error),
            message,
            no_error: given.no_error,
            structs: Vec::new(),
        }
    }

    fn call(&mut self) -> *const abi::Call {
        self.call.as_mut_ptr()
    }

    fn error(&mut self) -> *mut abi::Error {
        if self.no_error {
            return std::ptr::null_mut();
        }
        self.error.as_mut_ptr()
    }

    fn answer(mut self, code: i32, outputs: Vec<(Yard, u64)>) -> Answer {
        let error = self.error.get();
        let said = Said {
            code: error.code,
            retry_after_ms: error.retry_after_ms,
            message_len: error.message.len,
            message: self.message.bytes(error.message.len),
        };
        self.structs.extend(self.error.is_overrun());
        self.structs.extend(self.call.is_overrun());
        self.structs.extend(self.message.is_overrun());
        self.structs
            .extend(outputs.iter().filter_map(|(yard, _)| yard.is_overrun()));
        let outputs = outputs.into_iter().map(|(yard, len)| Written {
            name: yard.name,
            capacity: yard.capacity,
            len,
            bytes: yard.bytes(len),
        });
        Answer {
            code,
            said: (!self.no_error).then_some(said),
            outputs: outputs.collect(),
            overruns: self.structs,
        }
    }
}

impl Answer {
    /// The code as the engine reads it; `None` for [`abi::OK`].
    #[must_use]
    pub fn failure(&self) -> Option<ErrorCode> {
        (self.code != abi::OK).then(|| ErrorCode::from_i32(self.code))
    }
}
