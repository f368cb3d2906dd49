//! Writing and reading one secret; deleting, undeleting, destroying its versions.

#![allow(unsafe_code)]

use crate::error::{Failure, KEYSTEAD_BUFFER_TOO_SMALL, keystead_error};
use crate::guard::{self, Called, invalid};
use crate::organization::keystead_organization;
use crate::structs::Struct;
use crate::text::{self, Labels, Text, keystead_label, keystead_text};
use engine::{Expect, PutOptions, Secret, SecretBytes, Version};
use std::ffi::c_char;

/// The latest version may be any, or there may be none.
pub const KEYSTEAD_EXPECT_ANY: i32 = 0;
/// The secret must be new.
pub const KEYSTEAD_EXPECT_NEW: i32 = 1;
/// The latest version must be expect_version.
pub const KEYSTEAD_EXPECT_VERSION: i32 = 2;

/// What goes with a value. Begins with its size; what is 0 has its default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_put_options {
    /// sizeof(keystead_put_options).
    pub struct_size: u32,
    /// KEYSTEAD_EXPECT_...: what the latest version must be for the put to go through.
    pub expect: i32,
    /// The version that is expected, with KEYSTEAD_EXPECT_VERSION.
    pub expect_version: u32,
    /// 0.
    pub reserved: u32,
    /// What kind of content it is, such as "text/plain"; at most 128 bytes. Kept in clear. Null: not said.
    pub content_type: *const c_char,
    /// Its length.
    pub content_type_len: usize,
    /// Labels beside the value, at most 64. Kept in clear.
    pub labels: *const keystead_label,
    /// How many.
    pub labels_len: usize,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_put_options {
    const FIRST_SIZE: usize = 48;
}

pub(crate) fn put_options(
    called: &Called<'_>,
    given: *const keystead_put_options,
) -> Result<PutOptions, Failure> {
    let mut options = PutOptions::new();
    if given.is_null() {
        return Ok(options);
    }
    let given = called.options(given, "options")?;
    options = match (given.expect, given.expect_version) {
        (KEYSTEAD_EXPECT_ANY, 0) => options,
        (KEYSTEAD_EXPECT_NEW, 0) => options.expect(Expect::New),
        (KEYSTEAD_EXPECT_VERSION, number) => options.expect(Expect::Version(a_version(number)?)),
        _ => return Err(invalid("expect and expect_version do not go together".into())),
    };
    if given.reserved != 0 {
        return Err(invalid("options: reserved is not 0".into()));
    }
    let content_type = called.optional_text(given.content_type, given.content_type_len, "content_type")?;
    if let Some(content_type) = content_type {
        options = options.content_type(content_type);
    }
    for label in called.array(given.labels, given.labels_len, "labels")? {
        let name = label.name.given(called, "a label's name")?;
        let value = label.value.given(called, "a label's value")?;
        options = options.label(name, value);
    }
    Ok(options)
}

pub(crate) fn a_version(number: u32) -> Result<Version, Failure> {
    Version::new(number).ok_or_else(|| invalid("versions begin with 1".into()))
}

/// Writes a new version of a secret, of 0 bytes to 64 MiB, and its number to *out_version (which may be null) when it is
/// durable. options may be null.
///
/// Errors: KEYSTEAD_INVALID_PATH, KEYSTEAD_TOO_LARGE, KEYSTEAD_VERSION_MISMATCH, KEYSTEAD_KMS + what it said when the
/// active epoch's key cannot be had. Blocks for one sync of the disk, shared with whoever else writes. Threads: any.
///
///     code = keystead_put(acme, "prod/db/password", KEYSTEAD_ZERO_TERMINATED, (const uint8_t *)"correct horse", 13, NULL,
///                         &version, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_put(
    organization: *const keystead_organization,
    path: *const c_char,
    path_len: usize,
    value: *const u8,
    value_len: usize,
    options: *const keystead_put_options,
    out_version: *mut u32,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.optional_out(out_version, 0);
            let organization = called.handle(organization)?;
            let path = called.text(path, path_len, "path")?;
            let value = called.bytes(value, value_len, "value")?;
            let options = put_options(called, options)?;
            let version = organization.organization.put_with(path, value, options)?;
            if let Some(out) = out {
                out.set(version.get());
            }
            Ok(())
        })
    }
}

/// A value that was read, with what stands beside it. Freed with keystead_secret_free(), which erases it from memory.
/// Needs its store no longer. Threads: any, also at once.
#[derive(Debug)]
pub struct keystead_secret {
    value: SecretBytes,
    version: Version,
    created_at_ms: u64,
    content_type: Option<Text>,
    labels: Labels,
}

impl From<Secret> for keystead_secret {
    fn from(secret: Secret) -> Self {
        Self {
            value: secret.value,
            version: secret.version,
            created_at_ms: secret.created_at_ms,
            content_type: text::optional(secret.content_type),
            labels: Labels::new(secret.labels),
        }
    }
}

/// Reads a version of a secret; version 0: the latest.
///
/// Errors: KEYSTEAD_SECRET_NOT_FOUND, KEYSTEAD_VERSION_NOT_FOUND, KEYSTEAD_VERSION_DELETED, KEYSTEAD_VERSION_DESTROYED,
/// KEYSTEAD_VERSION_LOST; KEYSTEAD_KMS + what it said when the epoch's key cannot be had (class KEYSTEAD_CLASS_REVOKED: its owner has taken it
/// away); KEYSTEAD_DAMAGED. Asks a KMS only when the epoch's key is not in memory. Threads: any.
///
///     if (keystead_get(acme, "prod/db/password", KEYSTEAD_ZERO_TERMINATED, 0, &secret, &error) == KEYSTEAD_OK) {
///         log_in(keystead_secret_data(secret), keystead_secret_len(secret));
///         keystead_secret_free(secret);
///     }
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_get(
    organization: *const keystead_organization,
    path: *const c_char,
    path_len: usize,
    version: u32,
    out: *mut *mut keystead_secret,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let organization = called.handle(organization)?;
            let path = called.text(path, path_len, "path")?;
            out.give(read(organization, path, version)?.into());
            Ok(())
        })
    }
}

fn read(handle: &keystead_organization, path: &str, version: u32) -> Result<Secret, Failure> {
    Ok(match Version::new(version) {
        None => handle.organization.get(path)?,
        Some(version) => handle.organization.get_version(path, version)?,
    })
}

/// Reads a version of a secret (0: the latest) into the caller's buffer, and its length to *out_len. The library keeps no
/// copy; the caller erases the buffer.
///
/// Errors: as keystead_get(), and KEYSTEAD_BUFFER_TOO_SMALL: *out_len is the room that is needed, the buffer is as it was.
/// Threads: any.
///
///     code = keystead_get_into(acme, "prod/db/password", KEYSTEAD_ZERO_TERMINATED, 0, buffer, sizeof buffer, &len, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_get_into(
    organization: *const keystead_organization,
    path: *const c_char,
    path_len: usize,
    version: u32,
    buffer: *mut u8,
    capacity: usize,
    out_len: *mut usize,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out(out_len, "out_len", 0)?;
            let organization = called.handle(organization)?;
            let path = called.text(path, path_len, "path")?;
            let buffer = called.buffer(buffer, capacity)?;
            let secret = read(organization, path, version)?;
            let len = secret.value.len();
            out.set(len);
            let Some(room) = buffer.get_mut(..len) else {
                let reason = format!("the value has {len} bytes, the buffer has room for {capacity}");
                return Err(Failure::new(KEYSTEAD_BUFFER_TOO_SMALL, reason));
            };
            room.copy_from_slice(secret.value.as_slice());
            Ok(())
        })
    }
}

/// The value's bytes; never null for a secret, also when it is empty. They belong to the secret. Null gives null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_secret_data(secret: *const keystead_secret) -> *const u8 {
    // SAFETY: null or a live secret, as the header says.
    unsafe {
        guard::look(secret, std::ptr::null(), |secret| {
            secret.value.as_slice().as_ptr()
        })
    }
}

/// The value's number of bytes. Null gives 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_secret_len(secret: *const keystead_secret) -> usize {
    // SAFETY: null or a live secret, as the header says.
    unsafe { guard::look(secret, 0, |secret| secret.value.len()) }
}

/// Which version it is. Null gives 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_secret_version(secret: *const keystead_secret) -> u32 {
    // SAFETY: null or a live secret, as the header says.
    unsafe { guard::look(secret, 0, |secret| secret.version.get()) }
}

/// A value that was read, as a struct.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_secret_view {
    /// sizeof(keystead_secret_view), set by the caller.
    pub struct_size: u32,
    /// Which version it is.
    pub version: u32,
    /// The value's bytes.
    pub data: *const u8,
    /// Their number.
    pub len: usize,
    /// When it was written: milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// What kind of content it is, if its writer said so.
    pub content_type: keystead_text,
    /// The labels beside it, by name.
    pub labels: *const keystead_label,
    /// How many.
    pub labels_len: usize,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_secret_view {
    const FIRST_SIZE: usize = 64;
}

/// Writes what the secret holds to *out, whose struct_size is set. What is pointed to belongs to the secret.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_secret_look(
    secret: *const keystead_secret,
    out: *mut keystead_secret_view,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let secret = called.data(secret, "secret")?;
            called.fill(
                out,
                keystead_secret_view {
                    struct_size: 0,
                    version: secret.version.get(),
                    data: secret.value.as_slice().as_ptr(),
                    len: secret.value.len(),
                    created_at_ms: secret.created_at_ms,
                    content_type: text::view(&secret.content_type),
                    labels: secret.labels.as_ptr(),
                    labels_len: secret.labels.len(),
                },
            )
        })
    }
}

/// Erases the value from memory and frees it. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_secret_free(secret: *mut keystead_secret) {
    // SAFETY: null or a secret that is not used any more, as the header says.
    unsafe { guard::free(secret) }
}

/// Deletes a version: it is kept, but not read, until it is undeleted. Doing it twice changes nothing. Durable when it
/// returns.
///
/// Errors: KEYSTEAD_SECRET_NOT_FOUND, KEYSTEAD_VERSION_NOT_FOUND, KEYSTEAD_VERSION_DESTROYED. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_delete(
    organization: *const keystead_organization,
    path: *const c_char,
    path_len: usize,
    version: u32,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let handle = called.handle(organization)?;
            let path = called.text(path, path_len, "path")?;
            Ok(handle.organization.delete(path, a_version(version)?)?)
        })
    }
}

/// Brings a deleted version back. Durable when it returns.
///
/// Errors: as keystead_delete(). Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_undelete(
    organization: *const keystead_organization,
    path: *const c_char,
    path_len: usize,
    version: u32,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let handle = called.handle(organization)?;
            let path = called.text(path, path_len, "path")?;
            Ok(handle.organization.undelete(path, a_version(version)?)?)
        })
    }
}

/// Destroys a version: **its data key and its value are gone for good.** Durable when it returns.
///
/// Errors: as keystead_delete(). Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_destroy(
    organization: *const keystead_organization,
    path: *const c_char,
    path_len: usize,
    version: u32,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let handle = called.handle(organization)?;
            let path = called.text(path, path_len, "path")?;
            Ok(handle.organization.destroy(path, a_version(version)?)?)
        })
    }
}

/// Sets how many versions of a secret are kept: every further put **destroys** the oldest ones beyond that. 0: all are
/// kept, which is the default.
///
/// Errors: KEYSTEAD_SECRET_NOT_FOUND. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_set_retention(
    organization: *const keystead_organization,
    path: *const c_char,
    path_len: usize,
    keep: u32,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let handle = called.handle(organization)?;
            let path = called.text(path, path_len, "path")?;
            let keep = (keep > 0).then_some(keep);
            Ok(handle.organization.set_retention(path, keep)?)
        })
    }
}
