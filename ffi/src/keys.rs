//! Registered keys, and what can be done with them.

#![allow(unsafe_code)]

use crate::backend;
use crate::error::keystead_error;
use crate::guard;
use crate::list::Items;
use crate::organization::keystead_organization;
use crate::rewrap::keystead_rewrap_job;
use crate::structs::Struct;
use crate::text::{Text, keystead_text};
use engine::{KeyInfo, KeyState};
use std::ffi::c_char;

/// New epochs may be opened under it.
pub const KEYSTEAD_KEY_ENABLED: i32 = 1;
/// Its data keys are being re-wrapped to another key.
pub const KEYSTEAD_KEY_DISABLING: i32 = 2;
/// No data key is under it, and none will be.
pub const KEYSTEAD_KEY_DISABLED: i32 = 3;
/// The second key: it wraps every live epoch as well, and opens them while the other KMS is out of reach.
pub const KEYSTEAD_KEY_SECOND: i32 = 4;
/// The same, where revoking one of the two is not enough: the other opens the epochs alone.
pub const KEYSTEAD_KEY_SECOND_EITHER: i32 = 5;

/// The keys of an organization, by name. Freed with keystead_key_list_free(). Threads: any, also at once.
#[derive(Debug)]
pub struct keystead_key_list(Items<KeyItem>);

#[derive(Debug)]
struct KeyItem {
    name: Text,
    backend: Text,
    config_json: Text,
    state: i32,
    is_default: bool,
    created_at_ms: u64,
}

impl From<KeyInfo> for KeyItem {
    fn from(info: KeyInfo) -> Self {
        Self {
            name: Text::new(info.name),
            backend: Text::new(info.backend),
            config_json: Text::new(info.config.to_string()),
            state: match info.state {
                KeyState::Enabled => KEYSTEAD_KEY_ENABLED,
                KeyState::Disabling => KEYSTEAD_KEY_DISABLING,
                KeyState::Disabled => KEYSTEAD_KEY_DISABLED,
                KeyState::Second => KEYSTEAD_KEY_SECOND,
                KeyState::SecondEither => KEYSTEAD_KEY_SECOND_EITHER,
            },
            is_default: info.default,
            created_at_ms: info.created_at_ms,
        }
    }
}

/// A registered key.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_key_info {
    /// sizeof(keystead_key_info), set by the caller.
    pub struct_size: u32,
    /// KEYSTEAD_KEY_...: whether new epochs may be opened under it.
    pub state: i32,
    /// 1 for the key under which the active epoch was opened, else 0.
    pub is_default: i32,
    /// 0.
    pub reserved: u32,
    /// Its name, unique in its organization.
    pub name: keystead_text,
    /// The name of its backend.
    pub backend: keystead_text,
    /// The backend's config of this key: a JSON object.
    pub config_json: keystead_text,
    /// When it was registered: milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_key_info {
    const FIRST_SIZE: usize = 72;
}

/// Every key of the organization, by name. Asks no KMS. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_key_list_read(
    organization: *const keystead_organization,
    out: *mut *mut keystead_key_list,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(organization)?;
            let keys = handle.organization.keys().list()?;
            out.give(keystead_key_list(Items::whole(
                keys.into_iter().map(KeyItem::from),
            )));
            Ok(())
        })
    }
}

/// How many keys it has. Null gives 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_key_list_len(list: *const keystead_key_list) -> usize {
    // SAFETY: null or a live list, as the header says.
    unsafe { guard::look(list, 0, |list| list.0.items.len()) }
}

/// Writes the item at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_key_list_get(
    list: *const keystead_key_list,
    index: usize,
    out: *mut keystead_key_info,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let list = called.data(list, "list")?;
            list.0.fill(called, index, out, |item| keystead_key_info {
                struct_size: 0,
                state: item.state,
                is_default: item.is_default.into(),
                reserved: 0,
                name: item.name.view(),
                backend: item.backend.view(),
                config_json: item.config_json.view(),
                created_at_ms: item.created_at_ms,
            })
        })
    }
}

/// Frees a list. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_key_list_free(list: *mut keystead_key_list) {
    // SAFETY: null or a list that is not used any more, as the header says.
    unsafe { guard::free(list) }
}

/// Registers a key of the KMS behind `backend`, a name that the store was opened with, after a probe: random bytes are wrapped
/// and unwrapped, and must not unwrap under another context. config_json is the key's config, a JSON object (null: {}); it is
/// kept in the store, in clear.
///
/// The first customer-managed key becomes the default and takes over everything: its KMS wraps the epochs before this returns;
/// re-wrapping the data keys goes on in the background. *out is the job, to wait for, and to be freed; out may be null, and
/// the job goes on by itself.
///
/// Errors: KEYSTEAD_KEY_EXISTS, KEYSTEAD_BACKEND_NOT_REGISTERED, KEYSTEAD_INVALID_NAME, KEYSTEAD_KMS + what the probe or the
/// hand-over met; nothing is changed then. Blocks for some KMS calls. Threads: any.
///
///     code = keystead_key_add(acme, "acme-cmk", KEYSTEAD_ZERO_TERMINATED, "aws-kms", KEYSTEAD_ZERO_TERMINATED, config_json,
///                             KEYSTEAD_ZERO_TERMINATED, &job, &error);
///     code = keystead_rewrap_wait(job, 60000, NULL, NULL, NULL, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_key_add(
    organization: *const keystead_organization,
    name: *const c_char,
    name_len: usize,
    backend: *const c_char,
    backend_len: usize,
    config_json: *const c_char,
    config_json_len: usize,
    out: *mut *mut keystead_rewrap_job,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.optional_out(out, std::ptr::null_mut());
            let handle = called.handle(organization)?;
            let name = called.text(name, name_len, "name")?;
            let backend = called.text(backend, backend_len, "backend")?;
            let config = backend::json(called, config_json, config_json_len, "config_json")?;
            let job = handle.organization.keys().add(name, backend, config)?;
            if let Some(out) = out {
                out.give(keystead_rewrap_job::new(job, handle));
            }
            Ok(())
        })
    }
}

/// Opens a new epoch under a key, which takes the new data keys from now on. Existing data keys stay where they are unless
/// rewrap is 1. *out (which may be null) is the job, to be freed.
///
/// Errors: KEYSTEAD_KEY_NOT_FOUND, KEYSTEAD_KEY_REFUSED for a disabled key, KEYSTEAD_KMS + what it said. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_key_set_default(
    organization: *const keystead_organization,
    name: *const c_char,
    name_len: usize,
    rewrap: i32,
    out: *mut *mut keystead_rewrap_job,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.optional_out(out, std::ptr::null_mut());
            let handle = called.handle(organization)?;
            let name = called.text(name, name_len, "name")?;
            let job = handle.organization.keys().set_default(name, rewrap != 0)?;
            if let Some(out) = out {
                out.give(keystead_rewrap_job::new(job, handle));
            }
            Ok(())
        })
    }
}

/// Disables a key: everything under it is handed over and re-wrapped to the key `target`, then its epochs are retired and it
/// is disabled. If its KMS cannot be reached, it stays on the way until it can. *out (which may be null) is the job, to be
/// freed.
///
/// Errors: KEYSTEAD_KEY_REFUSED for the default key and for the target of a running job, KEYSTEAD_KEY_NOT_FOUND, KEYSTEAD_KMS +
/// what the target's said. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_key_disable(
    organization: *const keystead_organization,
    name: *const c_char,
    name_len: usize,
    target: *const c_char,
    target_len: usize,
    out: *mut *mut keystead_rewrap_job,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.optional_out(out, std::ptr::null_mut());
            let handle = called.handle(organization)?;
            let name = called.text(name, name_len, "name")?;
            let target = called.text(target, target_len, "target")?;
            let job = handle.organization.keys().disable(name, target)?;
            if let Some(out) = out {
                out.give(keystead_rewrap_job::new(job, handle));
            }
            Ok(())
        })
    }
}

/// Back to the managed key: everything moves there, and all customer-managed keys are disabled. *out (which may be null) is the
/// job, to be freed.
///
/// Errors: KEYSTEAD_INVALID_ARGUMENT when there is no enabled one, KEYSTEAD_KMS + what the managed key's said. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_key_disable_all(
    organization: *const keystead_organization,
    out: *mut *mut keystead_rewrap_job,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.optional_out(out, std::ptr::null_mut());
            let handle = called.handle(organization)?;
            let job = handle.organization.keys().disable_all()?;
            if let Some(out) = out {
                out.give(keystead_rewrap_job::new(job, handle));
            }
            Ok(())
        })
    }
}

/// Opens a new epoch under the same key (a new epoch key, wrapped by the KMS key's newest version), re-wraps to it what the key
/// held, and retires the older epochs. *out (which may be null) is the job, to be freed.
///
/// Errors: KEYSTEAD_KEY_NOT_FOUND, KEYSTEAD_KEY_REFUSED for a disabled key, KEYSTEAD_KMS + what it said. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_key_rotate(
    organization: *const keystead_organization,
    name: *const c_char,
    name_len: usize,
    out: *mut *mut keystead_rewrap_job,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.optional_out(out, std::ptr::null_mut());
            let handle = called.handle(organization)?;
            let name = called.text(name, name_len, "name")?;
            let job = handle.organization.keys().rotate(name)?;
            if let Some(out) = out {
                out.give(keystead_rewrap_job::new(job, handle));
            }
            Ok(())
        })
    }
}

/// Gives the running re-wrap job another target: everything that it moves goes to a new epoch under this key. *out (which may
/// be null) is the job, to be freed.
///
/// Errors: KEYSTEAD_NO_JOB, KEYSTEAD_KEY_REFUSED, KEYSTEAD_KMS + what the new target's said. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_key_retarget(
    organization: *const keystead_organization,
    name: *const c_char,
    name_len: usize,
    out: *mut *mut keystead_rewrap_job,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.optional_out(out, std::ptr::null_mut());
            let handle = called.handle(organization)?;
            let name = called.text(name, name_len, "name")?;
            let job = handle.organization.keys().retarget(name)?;
            if let Some(out) = out {
                out.give(keystead_rewrap_job::new(job, handle));
            }
            Ok(())
        })
    }
}

/// Asks the KMS of a key now, by wrapping and unwrapping random bytes: three KMS calls.
///
/// Errors: KEYSTEAD_KEY_NOT_FOUND, KEYSTEAD_KMS + what it met. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_key_probe(
    organization: *const keystead_organization,
    name: *const c_char,
    name_len: usize,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let handle = called.handle(organization)?;
            let name = called.text(name, name_len, "name")?;
            Ok(handle.organization.keys().probe(name)?)
        })
    }
}
