//! Many puts that become durable together.

#![allow(unsafe_code)]

use crate::error::{Failure, KEYSTEAD_BUFFER_TOO_SMALL, keystead_error};
use crate::guard::{self, invalid};
use crate::organization::keystead_organization;
use crate::secret::{keystead_put_options, put_options};
use engine::Batch;
use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};

/// Several puts that become durable together, or not at all. Freed with keystead_batch_free(), which erases the values that
/// were not committed. Threads: any; calls on one batch wait for each other.
#[derive(Debug)]
pub struct keystead_batch {
    batch: Mutex<Batch>,
}

/// An empty batch.
///
///     keystead_batch *batch = NULL;
///     code = keystead_batch_new(&batch, &error);
///     code = keystead_batch_put(batch, "db/user", KEYSTEAD_ZERO_TERMINATED, (const uint8_t *)"app", 3, NULL, &error);
///     code = keystead_batch_put(batch, "db/password", KEYSTEAD_ZERO_TERMINATED, (const uint8_t *)"correct horse", 13, NULL,
///                               &error);
///     code = keystead_batch_commit(acme, batch, versions, 2, &error);
///     keystead_batch_free(batch);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_batch_new(
    out: *mut *mut keystead_batch,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            out.give(keystead_batch {
                batch: Mutex::default(),
            });
            Ok(())
        })
    }
}

/// Adds a put; the value is copied. A path may come more than once: each put is a version of its own. options may be null.
///
/// Errors: KEYSTEAD_INVALID_PATH, KEYSTEAD_INVALID_ARGUMENT for a label, KEYSTEAD_TOO_LARGE: the batch is as it was then. What
/// all values together may be is checked at the commit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_batch_put(
    batch: *mut keystead_batch,
    path: *const c_char,
    path_len: usize,
    value: *const u8,
    value_len: usize,
    options: *const keystead_put_options,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let batch = called.data(batch, "batch")?;
            let path = called.text(path, path_len, "path")?;
            let value = called.bytes(value, value_len, "value")?;
            let options = put_options(called, options)?;
            // One put of its own first: a refused one takes its batch with it.
            let checked = Batch::new().put_with(path, [], options.clone())?;
            drop(checked);
            let mut batch = batch.batch.lock().unwrap_or_else(PoisonError::into_inner);
            if batch.len() >= engine::BATCH_MAX {
                return Err(invalid(format!("a batch has at most {} puts", engine::BATCH_MAX)));
            }
            *batch = std::mem::take(&mut *batch).put_with(path, value, options)?;
            Ok(())
        })
    }
}

/// Writes all puts of a batch in one commit, or none, and the new versions to out_versions, in the order of the puts.
/// out_versions has room for out_versions_len numbers, at least as many as the batch has puts; or it is null. The batch is
/// empty then, whatever comes of it.
///
/// Errors: KEYSTEAD_BUFFER_TOO_SMALL (nothing is written, the batch is as it was); those of keystead_put(); KEYSTEAD_TOO_LARGE
/// when there are more than 10,000 puts or 16 MiB. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_batch_commit(
    organization: *const keystead_organization,
    batch: *mut keystead_batch,
    out_versions: *mut u32,
    out_versions_len: usize,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let handle = called.handle(organization)?;
            let batch = called.data(batch, "batch")?;
            let mut batch = batch.batch.lock().unwrap_or_else(PoisonError::into_inner);
            if !out_versions.is_null() && out_versions_len < batch.len() {
                let reason = format!(
                    "there is room for {out_versions_len} versions; the batch has {}",
                    batch.len()
                );
                return Err(Failure::new(KEYSTEAD_BUFFER_TOO_SMALL, reason));
            }
            let versions = handle.organization.commit(std::mem::take(&mut *batch))?;
            if !out_versions.is_null() {
                for (at, version) in versions.iter().enumerate() {
                    called.out(out_versions.wrapping_add(at), "out_versions", version.get())?;
                }
            }
            Ok(())
        })
    }
}

/// How many puts a batch holds. Null gives 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_batch_len(batch: *const keystead_batch) -> usize {
    // SAFETY: null or a live batch, as the header says.
    unsafe {
        guard::look(batch, 0, |batch| {
            batch.batch.lock().unwrap_or_else(PoisonError::into_inner).len()
        })
    }
}

/// Frees a batch, and erases the values that it still holds. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_batch_free(batch: *mut keystead_batch) {
    // SAFETY: null or a batch that is not used any more, as the header says.
    unsafe { guard::free(batch) }
}
