//! Large values, in parts and in bounded memory.

#![allow(unsafe_code)]

use crate::error::{Failure, KEYSTEAD_OTHER, keystead_error};
use crate::guard::{self, Handle, Life, invalid};
use crate::history::{VersionItem, keystead_version_info};
use crate::organization::keystead_organization;
use crate::secret::{keystead_put_options, put_options};
use engine::{Error, Organization, SecretReader, SecretWriter, Version};
use std::ffi::c_char;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Writes one large value. Freed with keystead_writer_free(); before keystead_writer_finish(), that leaves nothing of the
/// value. Holds at most about 1 MiB. Threads: any; calls on one writer wait for each other.
#[derive(Debug)]
pub struct keystead_writer {
    writer: Mutex<Option<SecretWriter>>,
    life: Arc<Life>,
    /// Keeps the store open.
    _organization: Organization,
}

impl Handle for keystead_writer {
    const WHAT: &'static str = "writer";

    fn life(&self) -> &Arc<Life> {
        &self.life
    }
}

/// Reads one value in parts. Freed with keystead_reader_free(). Threads: any; calls on one reader wait for each other.
#[derive(Debug)]
pub struct keystead_reader {
    reader: Mutex<SecretReader>,
    info: VersionItem,
    life: Arc<Life>,
    /// Keeps the store open.
    _organization: Organization,
}

impl Handle for keystead_reader {
    const WHAT: &'static str = "reader";

    fn life(&self) -> &Arc<Life> {
        &self.life
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The engine's error in what a writer or a reader says.
fn from_stream(error: io::Error) -> Failure {
    match error.downcast::<Error>() {
        Ok(own) => own.into(),
        Err(other) => Failure::new(KEYSTEAD_OTHER, other.to_string()),
    }
}

/// Begins to write a value in parts. options may be null.
///
/// Errors: KEYSTEAD_INVALID_PATH, KEYSTEAD_INVALID_ARGUMENT. Threads: any.
///
///     code = keystead_writer_open(acme, "backups/keyring", KEYSTEAD_ZERO_TERMINATED, NULL, &writer, &error);
///     while ((len = fread(part, 1, sizeof part, file)) > 0) {
///         code = keystead_writer_write(writer, part, len, &error);
///     }
///     code = keystead_writer_finish(writer, &version, &error);
///     keystead_writer_free(writer);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_writer_open(
    organization: *const keystead_organization,
    path: *const c_char,
    path_len: usize,
    options: *const keystead_put_options,
    out: *mut *mut keystead_writer,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(organization)?;
            let path = called.text(path, path_len, "path")?;
            let options = put_options(called, options)?;
            let writer = handle.organization.writer(path, options)?;
            out.give(keystead_writer {
                writer: Mutex::new(Some(writer)),
                life: Arc::clone(&handle.life),
                _organization: handle.organization.clone(),
            });
            Ok(())
        })
    }
}

/// Writes a part of any size. All of it is taken, or the call fails, and the writer can only be freed.
///
/// Errors: KEYSTEAD_TOO_LARGE when the whole value would be longer than 64 MiB; those of keystead_put(). Blocks for one sync
/// for each MiB.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_writer_write(
    writer: *mut keystead_writer,
    data: *const u8,
    len: usize,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let handle = called.handle(writer)?;
            let part = called.bytes(data, len, "data")?;
            let mut open = lock(&handle.writer);
            let mut writer = open.take().ok_or_else(over)?;
            writer.write_all(part).map_err(from_stream)?;
            *open = Some(writer);
            Ok(())
        })
    }
}

/// Makes the version, and writes its number to *out_version (which may be null) when it is durable. The writer can only be
/// freed then.
///
/// Errors: those of keystead_put(); nothing is left of the value then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_writer_finish(
    writer: *mut keystead_writer,
    out_version: *mut u32,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.optional_out(out_version, 0);
            let handle = called.handle(writer)?;
            let writer = lock(&handle.writer).take().ok_or_else(over)?;
            let version = writer.finish()?;
            if let Some(out) = out {
                out.set(version.get());
            }
            Ok(())
        })
    }
}

fn over() -> Failure {
    invalid("the writer has finished, or has failed: it can only be freed".into())
}

/// Frees a writer; unfinished, its value is as if it had never begun. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_writer_free(writer: *mut keystead_writer) {
    // SAFETY: null or a writer that is not used any more, as the header says.
    unsafe { guard::free_handle(writer) }
}

/// Begins to read a version of a secret (0: the latest) in parts.
///
/// Errors: as keystead_get(). Threads: any.
///
///     code = keystead_reader_open(acme, "backups/keyring", KEYSTEAD_ZERO_TERMINATED, 0, &reader, &error);
///     do {
///         code = keystead_reader_read(reader, part, sizeof part, &len, &error);
///         use(part, len);
///     } while (code == KEYSTEAD_OK && len > 0);
///     keystead_reader_free(reader);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_reader_open(
    organization: *const keystead_organization,
    path: *const c_char,
    path_len: usize,
    version: u32,
    out: *mut *mut keystead_reader,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(organization)?;
            let path = called.text(path, path_len, "path")?;
            let reader = handle.organization.reader(path, Version::new(version))?;
            out.give(keystead_reader {
                info: VersionItem::from(reader.info().clone()),
                reader: Mutex::new(reader),
                life: Arc::clone(&handle.life),
                _organization: handle.organization.clone(),
            });
            Ok(())
        })
    }
}

/// Reads the next part, at most capacity bytes, and writes its length to *out_len; 0: the value has ended. Every byte that is
/// answered is authenticated. A part may be shorter than capacity before the end. The caller erases the buffer.
///
/// Errors: KEYSTEAD_DAMAGED; KEYSTEAD_INVALID_ARGUMENT for a capacity of 0; those of the store.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_reader_read(
    reader: *mut keystead_reader,
    buffer: *mut u8,
    capacity: usize,
    out_len: *mut usize,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out(out_len, "out_len", 0)?;
            let handle = called.handle(reader)?;
            let buffer = called.buffer(buffer, capacity)?;
            if buffer.is_empty() {
                return Err(invalid("a capacity of 0 cannot be told from the end".into()));
            }
            out.set(lock(&handle.reader).read(buffer).map_err(from_stream)?);
            Ok(())
        })
    }
}

/// Writes what is known of the version that is being read to *out, whose struct_size is set. What is pointed to belongs to the
/// reader.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_reader_info(
    reader: *const keystead_reader,
    out: *mut keystead_version_info,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let handle = called.handle(reader)?;
            called.fill(out, handle.info.view())
        })
    }
}

/// Frees a reader. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_reader_free(reader: *mut keystead_reader) {
    // SAFETY: null or a reader that is not used any more, as the header says.
    unsafe { guard::free_handle(reader) }
}
