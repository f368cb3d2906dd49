//! From a linked library to a table and a description that can be relied on: steps 6 and 7.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use keystead_backend::{Capabilities, Description, SizeLimits, abi};

use crate::error::Refusal;
use crate::image::Linked;
use crate::loaded::explain;
use crate::room::{Fault, Room};
use crate::upcalls;

/// The functions of a plugin, each known to be there.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    pub(crate) backend: *mut c_void,
    pub(crate) open: abi::Open,
    pub(crate) close: abi::Close,
    pub(crate) status: abi::Status,
    pub(crate) wrap: abi::Wrap,
    pub(crate) unwrap: abi::Unwrap,
    pub(crate) rewrap: Option<abi::Rewrap>,
    pub(crate) interrupt: Option<abi::Interrupt>,
}

// SAFETY: the header says that every function may be called from any thread, with the plugin's own pointer.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

/// The room that `describe` gets at first. Most need no more.
const DESCRIPTION_ROOM_BYTES: u64 = 64 * 1024;

const NAME_MAX_BYTES: usize = 64;

/// Asks the plugin for its table and its description, and checks both.
pub(crate) fn negotiate(linked: Linked) -> Result<(Table, Description), Refusal> {
    unless_stopped(linked.stopped(), || table_and_description(interface(linked)?))
}

/// The same for a table that the application itself offers.
///
/// # Safety
///
/// `api` is null, or points to a table that keeps the rules of the header, as long as the process lives.
pub(crate) unsafe fn negotiate_offered(
    api: *const abi::Api,
    stopped: &AtomicBool,
) -> Result<(Table, Description), Refusal> {
    // SAFETY: as the caller promises.
    unless_stopped(stopped, || table_and_description(unsafe { read(api) }?))
}

fn unless_stopped(
    stopped: &AtomicBool,
    negotiate: impl FnOnce() -> Result<(Table, Description), Refusal>,
) -> Result<(Table, Description), Refusal> {
    if stopped.load(Ordering::Acquire) {
        return Err(Refusal::Overrun);
    }
    let negotiated = negotiate();
    if matches!(negotiated, Err(Refusal::Overrun)) {
        stopped.store(true, Ordering::Release);
    }
    negotiated
}

fn table_and_description(api: abi::Api) -> Result<(Table, Description), Refusal> {
    let required = |entry| Refusal::NullEntry { entry };
    let describe = api.describe.ok_or_else(|| required("describe"))?;
    let can = |bit: u64| api.capabilities & bit != 0;
    let table = Table {
        backend: api.backend,
        open: api.open.ok_or_else(|| required("open"))?,
        close: api.close.ok_or_else(|| required("close"))?,
        status: api.status.ok_or_else(|| required("status"))?,
        wrap: api.wrap.ok_or_else(|| required("wrap"))?,
        unwrap: api.unwrap.ok_or_else(|| required("unwrap"))?,
        rewrap: optional(can(abi::CAN_REWRAP), api.rewrap, "rewrap")?,
        interrupt: optional(can(abi::CAN_INTERRUPT), api.interrupt, "interrupt")?,
    };
    let capabilities = Capabilities {
        binds_context: can(abi::BINDS_CONTEXT),
        rewrap: table.rewrap.is_some(),
        interrupt: table.interrupt.is_some(),
    };
    let description = parse(&ask(describe, api.backend)?, capabilities)?;
    Ok((table, description))
}

/// An entry that a capability bit promises must be there; without the bit it is not used.
fn optional<T>(promised: bool, entry: Option<T>, name: &'static str) -> Result<Option<T>, Refusal> {
    match (promised, entry) {
        (false, _) => Ok(None),
        (true, Some(entry)) => Ok(Some(entry)),
        (true, None) => Err(Refusal::NullEntry { entry: name }),
    }
}

fn interface(linked: Linked) -> Result<abi::Api, Refusal> {
    let symbol = linked.symbol(abi::SYMBOL).ok_or(Refusal::SymbolMissing)?;
    // SAFETY: a function of this name has this type: that is what the header says and all that can be known.
    let get_interface = unsafe { std::mem::transmute::<*mut c_void, abi::GetInterface>(symbol) };
    let mut api = std::ptr::null();
    // SAFETY: the host's table lives as long as the process, and `api` may be written.
    match unsafe { get_interface(abi::ABI, abi::ABI, upcalls::process_table(), &raw mut api) } {
        abi::OK => {}
        abi::UNSUPPORTED_ABI => return Err(Refusal::AbiRange),
        code => return Err(Refusal::InterfaceFailed { code }),
    }
    // SAFETY: what a plugin answers is a table, as long as the process lives.
    unsafe { read(api) }
}

/// # Safety
///
/// `api` is null, or points to a table, as long as the process lives.
unsafe fn read(api: *const abi::Api) -> Result<abi::Api, Refusal> {
    if api.is_null() || !api.is_aligned() {
        return Err(Refusal::NoTable);
    }
    // SAFETY: a table begins with these two, in every version.
    let (struct_size, version) = unsafe { ((*api).struct_size, (&raw const (*api).abi).read()) };
    if struct_size < abi::struct_size::<abi::Api>() {
        return Err(Refusal::ShortTable { struct_size });
    }
    if version != abi::ABI {
        return Err(Refusal::TableAbi { abi: version });
    }
    // SAFETY: it is as large as this version knows it, and lives as long as the process.
    Ok(unsafe { api.read() })
}

/// The bytes of the description. `describe` costs nothing, so it is asked a second time when there was no room.
fn ask(describe: abi::Describe, backend: *mut c_void) -> Result<Vec<u8>, Refusal> {
    match ask_with_room(describe, backend, DESCRIPTION_ROOM_BYTES)? {
        Answer::Description(json) => Ok(json),
        Answer::Needs(bytes) if bytes > abi::JSON_MAX => Err(too_long(bytes)),
        Answer::Needs(bytes) => match ask_with_room(describe, backend, bytes)? {
            Answer::Description(json) => Ok(json),
            Answer::Needs(more) => Err(too_long(more)),
        },
    }
}

enum Answer {
    Description(Vec<u8>),
    Needs(u64),
}

fn ask_with_room(describe: abi::Describe, backend: *mut c_void, capacity: u64) -> Result<Answer, Refusal> {
    let mut room = Room::new(usize::try_from(capacity).map_err(|_| too_long(capacity))?);
    let mut message = Room::new(abi::MESSAGE_MAX as usize);
    let mut json = room.output();
    let mut error = message.error();
    // SAFETY: a function of the plugin's table, with the arguments that the header says.
    let code = unsafe { describe(backend, &raw mut json, &raw mut error) };
    let (json_len, message_len) = (json.len, error.message.len);
    if [room.answer(0), message.answer(0)].contains(&Err(Fault::Overrun)) {
        return Err(Refusal::Overrun);
    }
    match code {
        abi::OK => {
            let json = room.answer(json_len).map_err(|_| too_long(json_len))?;
            Ok(Answer::Description(json.to_vec()))
        }
        abi::BUFFER_TOO_SMALL => Ok(Answer::Needs(json_len)),
        code => {
            let explained = explain(code, error.code, message.answer(message_len).unwrap_or_default());
            Err(Refusal::DescribeFailed {
                reason: explained.to_string(),
            })
        }
    }
}

fn too_long(len: u64) -> Refusal {
    invalid(format!(
        "it claims a length of {len} bytes, beyond its room or beyond {} bytes",
        abi::JSON_MAX
    ))
}

fn invalid(reason: impl Into<String>) -> Refusal {
    Refusal::InvalidDescription {
        reason: reason.into(),
    }
}

/// Parses the description. The table's bits say what the plugin can do; the description may repeat them, not contradict.
fn parse(json: &[u8], capabilities: Capabilities) -> Result<Description, Refusal> {
    let value: serde_json::Value =
        serde_json::from_slice(json).map_err(|error| invalid(format!("it is not JSON: {error}")))?;
    let repeats = value.get("capabilities").is_some();
    let mut description: Description = serde_json::from_value(value)
        .map_err(|error| invalid(format!("it lacks or garbles a member: {error}")))?;
    if repeats && description.capabilities != capabilities {
        return Err(invalid("its capabilities contradict those of the table"));
    }
    description.capabilities = capabilities;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if description.name.is_empty()
        || description.name.len() > NAME_MAX_BYTES
        || !description.name.bytes().all(plain)
    {
        return Err(invalid("its name is not 1 to 64 of a-z, 0-9 and `-`"));
    }
    if description.version.is_empty()
        || description.version.len() > NAME_MAX_BYTES
        || description.version.chars().any(char::is_control)
    {
        return Err(invalid("its version is not 1 to 64 bytes of printable text"));
    }
    check_limits(&description.limits)?;
    Ok(description)
}

fn check_limits(limits: &SizeLimits) -> Result<(), Refusal> {
    for (limit, value, (least, most)) in [
        (
            "plaintext_max_bytes",
            limits.plaintext_max_bytes,
            abi::PLAINTEXT_MAX_RANGE,
        ),
        ("blob_max_bytes", limits.blob_max_bytes, abi::BLOB_MAX_RANGE),
        ("key_id_max_bytes", limits.key_id_max_bytes, abi::KEY_ID_MAX_RANGE),
        (
            "metadata_max_bytes",
            limits.metadata_max_bytes,
            abi::METADATA_MAX_RANGE,
        ),
    ] {
        if !(least..=most).contains(&value) {
            return Err(Refusal::LimitOutOfRange {
                limit,
                value,
                least,
                most,
            });
        }
    }
    Ok(())
}
