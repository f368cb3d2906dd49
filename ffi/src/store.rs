//! Create, open, close; the organizations of a store.

#![allow(unsafe_code)]

use crate::backend::keystead_backend;
use crate::checkpoint;
use crate::error::{Failure, keystead_error};
use crate::guard::{self, Called, Handle, Life, invalid};
use crate::identity::{Minter, keystead_identity_token};
use crate::list::Items;
use crate::organization::keystead_organization;
use crate::structs::Struct;
use crate::text::{Text, keystead_text};
use engine::{Store, StoreOptions};
use std::ffi::{OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// An open store. One process at a time has a store open.
///
/// Freed with keystead_store_free(), at any time: organizations, jobs, readers and writers of it go on working, and the
/// file is released when the last of them is freed. Threads: any, also at once. Not to be used in the child of a fork():
/// there each call returns KEYSTEAD_FORKED, and freeing does nothing.
#[derive(Debug)]
pub struct keystead_store {
    pub(crate) store: Store,
    life: Arc<Life>,
}

impl Handle for keystead_store {
    const WHAT: &'static str = "store";

    fn life(&self) -> &Arc<Life> {
        &self.life
    }
}

/// How a store is created or opened. Begins with its size; what is 0 has its default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_store_options {
    /// sizeof(keystead_store_options).
    pub struct_size: u32,
    /// Re-wrap jobs go on by themselves on threads of the library, unless this is 1: then only in
    /// keystead_rewrap_run_here().
    pub without_background_rewrap: i32,
    /// The backends, each under its name. One named "managed" wraps the key that every organization is born with.
    pub backends: *const *const keystead_backend,
    /// How many.
    pub backends_len: usize,
    /// Memory for pages of the file, in bytes. 0: 64 MiB.
    pub cache_bytes: u64,
    /// How long an epoch's key stays in memory, from its unwrapping: the bound of revocation, and the grace in an outage.
    /// 0: 300,000 (5 minutes).
    pub key_lifetime_ms: u64,
    /// The deadline of one KMS call. 0: 10,000.
    pub kms_timeout_ms: u64,
    /// How many epoch keys stay in memory. 0: 10,000.
    pub epoch_keys_max: u64,
    /// How many data keys an epoch wraps before its key must be rotated, at most 2^32. 0: 2^30.
    pub wraps_per_epoch_max: u64,
    /// How often a KMS is tried while it is out of reach, the first time included. 0: 3.
    pub kms_attempts_max: u32,
    /// How many data keys one batch of a re-wrap moves, at most 65,536. 0: 2,048.
    pub rewrap_batch: u32,
    /// Mints tokens for backends that log in with them. May be null.
    pub identity_token: keystead_identity_token,
    /// Given to identity_token. Lives as long as the process.
    pub identity_context: *mut c_void,
    /// What keystead_checkpoint_json() said: the store is opened only if it has come as far. Null: nothing is asked of it. Of no
    /// use to keystead_store_create(), which refuses it.
    pub checkpoint_json: *const c_char,
    /// Its length.
    pub checkpoint_json_len: usize,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_store_options {
    const FIRST_SIZE: usize = 88;
}

pub(crate) fn options(
    called: &mut Called<'_>,
    given: *const keystead_store_options,
) -> Result<StoreOptions, Failure> {
    let given = called.options(given, "options")?;
    let mut options = Store::options();
    for backend in called.array(given.backends, given.backends_len, "backends")? {
        options = options.backend(called.handle(*backend)?.backend.clone());
    }
    let size = |value: u64| usize::try_from(value).map_err(|_| invalid("a size is beyond any memory".into()));
    if given.cache_bytes != 0 {
        options = options.cache_bytes(size(given.cache_bytes)?);
    }
    if given.key_lifetime_ms != 0 {
        options = options.key_lifetime(milliseconds(given.key_lifetime_ms));
    }
    if given.kms_timeout_ms != 0 {
        options = options.kms_timeout(milliseconds(given.kms_timeout_ms));
    }
    if given.epoch_keys_max != 0 {
        options = options.epoch_keys_max(size(given.epoch_keys_max)?);
    }
    if given.wraps_per_epoch_max != 0 {
        options = options.wraps_per_epoch_max(given.wraps_per_epoch_max);
    }
    if given.kms_attempts_max != 0 {
        options = options.kms_attempts_max(given.kms_attempts_max);
    }
    if given.rewrap_batch != 0 {
        options = options.rewrap_batch(given.rewrap_batch as usize);
    }
    if let Some(mint) = given.identity_token {
        options = options.identity_provider(Minter {
            mint,
            context: given.identity_context,
        });
    }
    if let Some(pinned) = checkpoint::given(called, given.checkpoint_json, given.checkpoint_json_len)? {
        options = options.checkpoint(pinned);
    }
    Ok(options.background_rewrap(given.without_background_rewrap == 0))
}

/// At most ten years: what is longer is a mistake, and would reach clock arithmetic.
pub(crate) fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds.min(10 * 365 * 24 * 3600 * 1000))
}

/// Creates a store: the file appears when it is whole and synced, mode 0600. options may be null.
///
/// Errors: KEYSTEAD_STORE_EXISTS, KEYSTEAD_STORAGE, KEYSTEAD_INVALID_ARGUMENT for two backends of one name. Blocks for about
/// ten syncs of the disk. Threads: any.
///
///     keystead_store_options options = { sizeof options };
///     const keystead_backend *backends[1];
///     backends[0] = managed;
///     options.backends = backends;
///     options.backends_len = 1;
///     code = keystead_store_create("app.keystead", KEYSTEAD_ZERO_TERMINATED, &options, &store, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_store_create(
    path: *const c_char,
    path_len: usize,
    options: *const keystead_store_options,
    out: *mut *mut keystead_store,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let path = file_path(called, path, path_len, "path")?;
            let store = self::options(called, options)?.create(path)?;
            out.give(keystead_store {
                store,
                life: Life::begin(),
            });
            Ok(())
        })
    }
}

/// Opens a store, brings back what a crash left in its journal, and lets its re-wrap jobs go on. options may be null. The
/// cost does not grow with the store; no KMS is asked.
///
/// Errors: KEYSTEAD_STORE_NOT_FOUND, KEYSTEAD_ALREADY_OPEN, KEYSTEAD_NOT_A_STORE, KEYSTEAD_DAMAGED,
/// KEYSTEAD_INVALID_ARGUMENT; with a checkpoint KEYSTEAD_BEHIND_CHECKPOINT, KEYSTEAD_NOT_OF_CHECKPOINT,
/// KEYSTEAD_CHECKPOINT_OF_ANOTHER_STORE. Threads: any.
///
///     code = keystead_store_open("app.keystead", KEYSTEAD_ZERO_TERMINATED, &options, &store, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_store_open(
    path: *const c_char,
    path_len: usize,
    options: *const keystead_store_options,
    out: *mut *mut keystead_store,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let path = file_path(called, path, path_len, "path")?;
            let store = self::options(called, options)?.open(path)?;
            out.give(keystead_store {
                store,
                life: Life::begin(),
            });
            Ok(())
        })
    }
}

pub(crate) fn file_path<'a>(
    called: &Called<'a>,
    path: *const c_char,
    len: usize,
    what: &'static str,
) -> Result<&'a Path, Failure> {
    let bytes = called.text_bytes(path, len, what)?;
    if bytes.is_empty() {
        return Err(invalid(format!("{what} is empty")));
    }
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

/// Closes a store now: stops the background work and brings the file into its resting state. Whatever needs the file returns
/// KEYSTEAD_CLOSED from then on, through every handle; a writer says so at the latest when it finishes. The handle is still to be freed. Not needed before keystead_store_free(), which
/// does the same with the last handle, but cannot tell an error. Null does nothing.
///
/// Errors: those of the disk; nothing that was acknowledged is lost by them. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_store_close(
    store: *mut keystead_store,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            if store.is_null() {
                return Ok(());
            }
            called.handle(store)?.store.close()?;
            Ok(())
        })
    }
}

/// Frees the handle; null does nothing. With the last handle on the store (store, organizations, jobs, readers, writers),
/// the store is closed and the file is released; that may wait for a batch of a re-wrap and for some syncs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_store_free(store: *mut keystead_store) {
    // SAFETY: null or a store handle that is not used any more, as the header says.
    unsafe { guard::free_handle(store) }
}

/// Writes the store's random id, 16 bytes, to out, which has room for 16.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_store_id(
    store: *const keystead_store,
    out: *mut u8,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let store = called.handle(store)?;
            called
                .buffer(out, 16)?
                .copy_from_slice(store.store.id().as_bytes());
            Ok(())
        })
    }
}

/// Creates an organization with its first epoch under the key "managed". name: 1 to 128 bytes of UTF-8, no control
/// characters, no white space at either end. One KMS call, one commit; durable when it returns.
///
/// Errors: KEYSTEAD_INVALID_NAME, KEYSTEAD_ORGANIZATION_EXISTS, KEYSTEAD_BACKEND_NOT_REGISTERED without a backend named
/// "managed", KEYSTEAD_KMS + what it said. Threads: any.
///
///     code = keystead_organization_create(store, "acme", KEYSTEAD_ZERO_TERMINATED, &acme, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_organization_create(
    store: *const keystead_store,
    name: *const c_char,
    name_len: usize,
    out: *mut *mut keystead_organization,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let store = called.handle(store)?;
            let name = called.text(name, name_len, "name")?;
            let organization = store.store.create_organization(name)?;
            out.give(keystead_organization::new(organization, &store.life));
            Ok(())
        })
    }
}

/// The handle of an organization.
///
/// Errors: KEYSTEAD_INVALID_NAME, KEYSTEAD_ORGANIZATION_NOT_FOUND. Threads: any.
///
///     code = keystead_organization_open(store, "acme", KEYSTEAD_ZERO_TERMINATED, &acme, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_organization_open(
    store: *const keystead_store,
    name: *const c_char,
    name_len: usize,
    out: *mut *mut keystead_organization,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let store = called.handle(store)?;
            let name = called.text(name, name_len, "name")?;
            let organization = store.store.organization(name)?;
            out.give(keystead_organization::new(organization, &store.life));
            Ok(())
        })
    }
}

/// Organizations of a store, by name: one page. Freed with keystead_organization_list_free(). Threads: any, also at once.
#[derive(Debug)]
pub struct keystead_organization_list(Items<OrganizationItem>);

#[derive(Debug)]
struct OrganizationItem {
    name: Text,
    info: engine::OrganizationInfo,
}

/// An organization in a list.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_organization_info {
    /// sizeof(keystead_organization_info), set by the caller.
    pub struct_size: u32,
    /// Its number: given once, never given again.
    pub id: u32,
    /// Its name. Belongs to the list.
    pub name: keystead_text,
    /// When it was created: milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// How many secrets it has.
    pub secrets: u64,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_organization_info {
    const FIRST_SIZE: usize = 40;
}

/// The organizations behind `after` (a name; null: from the first), by name, at most limit (1 to 10,000) of them. Asks no
/// KMS.
///
///     code = keystead_organization_list_read(store, NULL, 0, 100, &list, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_organization_list_read(
    store: *const keystead_store,
    after: *const c_char,
    after_len: usize,
    limit: usize,
    out: *mut *mut keystead_organization_list,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let store = called.handle(store)?;
            let after = called.optional_text(after, after_len, "after")?;
            let page = store.store.organizations(after, limit)?;
            let items = page.items.into_iter().map(|info| OrganizationItem {
                name: Text::new(info.name.as_str()),
                info,
            });
            out.give(keystead_organization_list(Items {
                items: items.collect(),
                next: page.next.map(Text::new),
            }));
            Ok(())
        })
    }
}

/// How many organizations are in the list. Null gives 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_organization_list_len(list: *const keystead_organization_list) -> usize {
    // SAFETY: null or a live list, as the header says.
    unsafe { guard::look(list, 0, |list| list.0.items.len()) }
}

/// What to pass as `after` for the next page, with a zero byte at its end; null when this was the last one. Belongs to the
/// list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_organization_list_next(
    list: *const keystead_organization_list,
) -> *const c_char {
    // SAFETY: null or a live list, as the header says.
    unsafe { guard::look(list, std::ptr::null(), |list| crate::text::pointer(&list.0.next)) }
}

/// Writes the item at index (from 0) to *out, whose struct_size is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_organization_list_get(
    list: *const keystead_organization_list,
    index: usize,
    out: *mut keystead_organization_info,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let list = called.data(list, "list")?;
            list.0
                .fill(called, index, out, |item| keystead_organization_info {
                    struct_size: 0,
                    id: item.info.id.get(),
                    name: item.name.view(),
                    created_at_ms: item.info.created_at_ms,
                    secrets: item.info.secrets,
                })
        })
    }
}

/// Frees a list. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_organization_list_free(list: *mut keystead_organization_list) {
    // SAFETY: null or a list that is not used any more, as the header says.
    unsafe { guard::free(list) }
}

/// Drops every epoch key of the store from memory: the next use of each asks its KMS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_store_forget_epoch_keys(
    store: *const keystead_store,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            called.handle(store)?.store.forget_epoch_keys();
            Ok(())
        })
    }
}

/// Writes how many epoch keys are in memory now to *out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_store_cached_epoch_keys(
    store: *const keystead_store,
    out: *mut usize,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out(out, "out", 0)?;
            out.set(called.handle(store)?.store.cached_epoch_keys());
            Ok(())
        })
    }
}
