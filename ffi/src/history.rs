//! Lists of secrets, and the versions of one. Nothing is decrypted for them.

#![allow(unsafe_code)]

use crate::error::keystead_error;
use crate::guard;
use crate::list::Items;
use crate::organization::keystead_organization;
use crate::structs::Struct;
use crate::text::{self, Labels, Text, keystead_label, keystead_text};
use engine::{SecretInfo, Version, VersionInfo, VersionState};
use std::ffi::c_char;

/// Secrets by path: one page. Freed with keystead_secret_list_free(). Threads: any, also at once.
#[derive(Debug)]
pub struct keystead_secret_list(Items<SecretItem>);

#[derive(Debug)]
struct SecretItem {
    path: Text,
    info: SecretInfo,
}

impl From<SecretInfo> for SecretItem {
    fn from(info: SecretInfo) -> Self {
        Self {
            path: Text::new(info.path.as_str()),
            info,
        }
    }
}

/// A secret in a list.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_secret_info {
    /// sizeof(keystead_secret_info), set by the caller.
    pub struct_size: u32,
    /// Its latest version.
    pub latest: u32,
    /// How many of its versions are deleted, and can be undeleted.
    pub deleted: u32,
    /// How many versions are kept. 0: all.
    pub retention: u32,
    /// Its path.
    pub path: keystead_text,
    /// When its first version was written: milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// When its latest version was written: milliseconds since the Unix epoch.
    pub updated_at_ms: u64,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_secret_info {
    const FIRST_SIZE: usize = 48;
}

/// The secrets whose paths begin with prefix (null: all), in the order of their bytes, behind `after` (a path; null: from the
/// first), at most limit (1 to 10,000) of them. Asks no KMS.
///
/// Errors: KEYSTEAD_INVALID_PATH for a prefix that no path can have. Threads: any.
///
///     code = keystead_list(acme, "prod/", KEYSTEAD_ZERO_TERMINATED, NULL, 0, 100, &list, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_list(
    organization: *const keystead_organization,
    prefix: *const c_char,
    prefix_len: usize,
    after: *const c_char,
    after_len: usize,
    limit: usize,
    out: *mut *mut keystead_secret_list,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(organization)?;
            let prefix = called
                .optional_text(prefix, prefix_len, "prefix")?
                .unwrap_or_default();
            let after = called.optional_text(after, after_len, "after")?;
            let page = handle.organization.list(prefix, after, limit)?;
            out.give(keystead_secret_list(Items {
                items: page.items.into_iter().map(SecretItem::from).collect(),
                next: page.next.map(Text::new),
            }));
            Ok(())
        })
    }
}

/// What is known of one secret without opening it: a list of one item.
///
/// Errors: KEYSTEAD_INVALID_PATH, KEYSTEAD_SECRET_NOT_FOUND. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_info(
    organization: *const keystead_organization,
    path: *const c_char,
    path_len: usize,
    out: *mut *mut keystead_secret_list,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(organization)?;
            let info = handle.organization.info(called.text(path, path_len, "path")?)?;
            out.give(keystead_secret_list(Items::whole([SecretItem::from(info)])));
            Ok(())
        })
    }
}

/// How many secrets it has. Null gives 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_secret_list_len(list: *const keystead_secret_list) -> usize {
    // SAFETY: null or a live list, as the header says.
    unsafe { guard::look(list, 0, |list| list.0.items.len()) }
}

/// What to pass as `after` for the next page, with a zero byte at its end; null when this was the last one. Belongs to the
/// list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_secret_list_next(list: *const keystead_secret_list) -> *const c_char {
    // SAFETY: null or a live list, as the header says.
    unsafe { guard::look(list, std::ptr::null(), |list| text::pointer(&list.0.next)) }
}

/// Writes the item at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_secret_list_get(
    list: *const keystead_secret_list,
    index: usize,
    out: *mut keystead_secret_info,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let list = called.data(list, "list")?;
            list.0.fill(called, index, out, |item| keystead_secret_info {
                struct_size: 0,
                latest: item.info.latest.get(),
                deleted: item.info.deleted,
                retention: item.info.retention.unwrap_or(0),
                path: item.path.view(),
                created_at_ms: item.info.created_at_ms,
                updated_at_ms: item.info.updated_at_ms,
            })
        })
    }
}

/// Frees a list. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_secret_list_free(list: *mut keystead_secret_list) {
    // SAFETY: null or a list that is not used any more, as the header says.
    unsafe { guard::free(list) }
}

/// It can be read.
pub const KEYSTEAD_VERSION_LIVE: i32 = 1;
/// It was deleted; keystead_undelete() brings it back.
pub const KEYSTEAD_VERSION_IS_DELETED: i32 = 2;
/// Its data key and its value are gone for good.
pub const KEYSTEAD_VERSION_IS_DESTROYED: i32 = 3;
/// It was lost to damage of the file, from which the rest was salvaged.
pub const KEYSTEAD_VERSION_IS_LOST: i32 = 4;

/// Versions of a secret, oldest first. Freed with keystead_version_list_free(). Threads: any, also at once.
#[derive(Debug)]
pub struct keystead_version_list(Items<VersionItem>);

#[derive(Debug)]
pub(crate) struct VersionItem {
    version: u32,
    state: i32,
    state_at_ms: u64,
    created_at_ms: u64,
    size_bytes: u64,
    content_type: Option<Text>,
    labels: Labels,
}

impl From<VersionInfo> for VersionItem {
    fn from(info: VersionInfo) -> Self {
        let (state, state_at_ms) = match info.state {
            VersionState::Live => (KEYSTEAD_VERSION_LIVE, 0),
            VersionState::Deleted { deleted_at_ms } => (KEYSTEAD_VERSION_IS_DELETED, deleted_at_ms),
            VersionState::Destroyed { destroyed_at_ms } => (KEYSTEAD_VERSION_IS_DESTROYED, destroyed_at_ms),
            VersionState::Lost { lost_at_ms } => (KEYSTEAD_VERSION_IS_LOST, lost_at_ms),
        };
        Self {
            version: info.version.get(),
            state,
            state_at_ms,
            created_at_ms: info.created_at_ms,
            size_bytes: info.size_bytes,
            content_type: text::optional(info.content_type),
            labels: Labels::new(info.labels),
        }
    }
}

impl VersionItem {
    pub(crate) fn view(&self) -> keystead_version_info {
        keystead_version_info {
            struct_size: 0,
            version: self.version,
            state: self.state,
            reserved: 0,
            state_at_ms: self.state_at_ms,
            created_at_ms: self.created_at_ms,
            size_bytes: self.size_bytes,
            content_type: text::view(&self.content_type),
            labels: self.labels.as_ptr(),
            labels_len: self.labels.len(),
        }
    }
}

/// A version of a secret.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_version_info {
    /// sizeof(keystead_version_info), set by the caller.
    pub struct_size: u32,
    /// Its number.
    pub version: u32,
    /// KEYSTEAD_VERSION_...: whether it can be read.
    pub state: i32,
    /// 0.
    pub reserved: u32,
    /// When it was deleted or destroyed: milliseconds since the Unix epoch; 0 when it is live.
    pub state_at_ms: u64,
    /// When it was written: milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// The size of its value in bytes.
    pub size_bytes: u64,
    /// What kind of content it is, if its writer said so.
    pub content_type: keystead_text,
    /// The labels beside it, by name.
    pub labels: *const keystead_label,
    /// How many.
    pub labels_len: usize,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_version_info {
    const FIRST_SIZE: usize = 72;
}

/// The versions of a secret behind `after` (0: from the first), oldest first, at most limit (1 to 10,000) of them. Asks no KMS.
///
/// Errors: KEYSTEAD_SECRET_NOT_FOUND. Threads: any.
///
///     code = keystead_history(acme, "prod/db/password", KEYSTEAD_ZERO_TERMINATED, 0, 100, &list, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_history(
    organization: *const keystead_organization,
    path: *const c_char,
    path_len: usize,
    after: u32,
    limit: usize,
    out: *mut *mut keystead_version_list,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(organization)?;
            let path = called.text(path, path_len, "path")?;
            let versions = handle.organization.history(path, Version::new(after), limit)?;
            out.give(keystead_version_list(Items::whole(
                versions.into_iter().map(VersionItem::from),
            )));
            Ok(())
        })
    }
}

/// How many versions it has. Null gives 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_version_list_len(list: *const keystead_version_list) -> usize {
    // SAFETY: null or a live list, as the header says.
    unsafe { guard::look(list, 0, |list| list.0.items.len()) }
}

/// Writes the item at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_version_list_get(
    list: *const keystead_version_list,
    index: usize,
    out: *mut keystead_version_info,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let list = called.data(list, "list")?;
            list.0.fill(called, index, out, VersionItem::view)
        })
    }
}

/// Frees a list. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_version_list_free(list: *mut keystead_version_list) {
    // SAFETY: null or a list that is not used any more, as the header says.
    unsafe { guard::free(list) }
}
