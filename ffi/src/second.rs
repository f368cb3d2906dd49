//! The second key: set, removed, and how it stands.

#![allow(unsafe_code)]

use crate::error::keystead_error;
use crate::guard;
use crate::organization::keystead_organization;
use crate::rewrap::keystead_rewrap_job;
use crate::structs::Struct;
use crate::text::{self, Text, keystead_text};
use engine::SecondKey;
use std::ffi::c_char;

/// Makes a registered key the second key: beside the key that each live epoch belongs to, it wraps that epoch too, and so every
/// one that is opened later. While one of the two KMSs is out of reach, the other opens everything. It must be enabled, and
/// not the default key.
///
/// Revoking either key is honoured: the epoch's own key is asked first, the second one in its outage, and a refusal of the one
/// that is asked is the answer. With either_opens 1 it is not: **then both must be revoked to take the data away**.
///
/// *out (which may be null) is the job, to be freed. It moves nothing, and is done when every live epoch is wrapped by both keys:
/// its number is 0 when that is so already, and it is blocked while an epoch's own key cannot be asked.
///
/// Errors: KEYSTEAD_KEY_REFUSED for the managed key, the default key, a key that is not enabled or to which epochs belong, and
/// where there is a second key already; KEYSTEAD_KEY_NOT_FOUND; KEYSTEAD_KMS + what the second key's said. Nothing is changed
/// then. Blocks for three KMS calls, and three more for each live epoch. Threads: any.
///
///     code = keystead_key_set_second(acme, "acme-paris", KEYSTEAD_ZERO_TERMINATED, 0, &job, &error);
///     code = keystead_rewrap_wait(job, 60000, NULL, NULL, NULL, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_key_set_second(
    organization: *const keystead_organization,
    name: *const c_char,
    name_len: usize,
    either_opens: i32,
    out: *mut *mut keystead_rewrap_job,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.optional_out(out, std::ptr::null_mut());
            let handle = called.handle(organization)?;
            let name = called.text(name, name_len, "name")?;
            let job = handle.organization.keys().set_second(name, either_opens != 0)?;
            if let Some(out) = out {
                out.give(keystead_rewrap_job::new(job, handle));
            }
            Ok(())
        })
    }
}

/// The second key is one like the others again, and opens nothing: its wraps are erased before this returns. Asks no KMS.
///
/// Errors: KEYSTEAD_INVALID_ARGUMENT where there is none; KEYSTEAD_KEY_REFUSED when after a salvage it alone wraps an epoch.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_key_remove_second(
    organization: *const keystead_organization,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            Ok(called.handle(organization)?.organization.keys().remove_second()?)
        })
    }
}

/// An organization's second key, as it stood. Freed with keystead_second_key_free(). Threads: any, also at once.
#[derive(Debug)]
pub struct keystead_second_key {
    second: SecondKey,
    key: Text,
    blocked: Option<Text>,
    standing_in: Option<(Text, Text)>,
}

impl From<SecondKey> for keystead_second_key {
    fn from(second: SecondKey) -> Self {
        let standing_in = second.standing_in.as_ref();
        Self {
            key: Text::new(second.key.as_str()),
            blocked: text::optional(second.blocked.clone()),
            standing_in: standing_in
                .map(|now| (Text::new(now.key.as_str()), Text::new(now.because.as_str()))),
            second,
        }
    }
}

/// How an organization's second key stands.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_second_key_status {
    /// sizeof(keystead_second_key_status), set by the caller.
    pub struct_size: u32,
    /// 1 when revoking one of the two keys is not enough, since the other opens the epochs alone; else 0.
    pub either_opens: i32,
    /// The registered key.
    pub key: keystead_text,
    /// Live epochs that it wraps.
    pub wrapped: u64,
    /// Live epochs that it does not wrap yet; the organization's re-wrap job goes on until there are none.
    pub missing: u64,
    /// Why the job waits, if it does.
    pub blocked: keystead_text,
    /// While one key serves because another does not answer, as this process last saw it: the one that serves. Else null.
    pub standing_in: keystead_text,
    /// What the other one met, in the words of the error.
    pub standing_in_because: keystead_text,
    /// Since when: milliseconds since the Unix epoch; 0 when each key answers for itself.
    pub standing_in_since_ms: u64,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_second_key_status {
    const FIRST_SIZE: usize = 96;
}

/// The organization's second key, and how it stands. *out is null where there is none. Asks no KMS. Threads: any.
///
///     keystead_second_key_status standing = { sizeof standing };
///     code = keystead_second_key_read(acme, &second, &error);
///     if (second != NULL) {
///         keystead_second_key_look(second, &standing, NULL);
///         printf("%s wraps %lu epochs\n", standing.key.data, (unsigned long)standing.wrapped);
///     }
///     keystead_second_key_free(second);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_second_key_read(
    organization: *const keystead_organization,
    out: *mut *mut keystead_second_key,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(organization)?;
            if let Some(second) = handle.organization.keys().second()? {
                out.give(second.into());
            }
            Ok(())
        })
    }
}

/// Writes how the second key stood to *out, whose struct_size is set. What is pointed to belongs to the second key's object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_second_key_look(
    second: *const keystead_second_key,
    out: *mut keystead_second_key_status,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let seen = called.data(second, "second")?;
            let (standing_in, because) = match &seen.standing_in {
                Some((key, because)) => (key.view(), because.view()),
                None => (keystead_text::NONE, keystead_text::NONE),
            };
            let since = seen.second.standing_in.as_ref();
            called.fill(
                out,
                keystead_second_key_status {
                    struct_size: 0,
                    either_opens: seen.second.either_opens.into(),
                    key: seen.key.view(),
                    wrapped: seen.second.wrapped,
                    missing: seen.second.missing,
                    blocked: text::view(&seen.blocked),
                    standing_in,
                    standing_in_because: because,
                    standing_in_since_ms: since.map_or(0, |now| now.since_ms),
                },
            )
        })
    }
}

/// Frees what was read of a second key. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_second_key_free(second: *mut keystead_second_key) {
    // SAFETY: null or an object that is not used any more, as the header says.
    unsafe { guard::free(second) }
}
