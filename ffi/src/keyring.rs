//! The managed key's keyring file: made, looked at, rotated, disabled, resealed. For those who administer it.

#![allow(unsafe_code)]

use crate::backend::keystead_backend;
use crate::error::{Failure, KEYSTEAD_KMS, keystead_error};
use crate::guard::{self, Called, Handle, Life};
use crate::store;
use crate::structs::Struct;
use crate::text::{Text, keystead_text};
use engine::backend::BackendError;
use keystead_managed::{KdfParameters, Keyring, KeyringState, ManagedBackend, Sealing};
use std::ffi::c_char;
use std::sync::Arc;

/// A keyring file. Every call looks at the file anew, so any number of processes may use and change one keyring at once; a
/// change holds for each of them from its next call of a key on. **The keyring is the key: back it up.** Freed with
/// keystead_keyring_free(). Threads: any, also at once.
#[derive(Debug)]
pub struct keystead_keyring {
    keyring: Keyring,
    sealing: Sealing,
    life: Arc<Life>,
}

impl Handle for keystead_keyring {
    const WHAT: &'static str = "keyring";

    fn life(&self) -> &Arc<Life> {
        &self.life
    }
}

/// What seals a keyring file, beside its mode. Begins with its size; what is 0 has its default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_keyring_options {
    /// sizeof(keystead_keyring_options).
    pub struct_size: u32,
    /// Of Argon2id, which makes a key of the passphrase: its memory, for a file that is made or resealed; one that is there has
    /// its own. 0: 65,536.
    pub kdf_memory_kib: u32,
    /// Its passes over the memory. 0: 3.
    pub kdf_passes: u32,
    /// Its lanes. 0: 4.
    pub kdf_lanes: u32,
    /// The passphrase, 1 to 4,096 bytes; the library keeps a copy in locked memory, and the caller erases its own. Null: the file
    /// is not sealed, and its mode and the disk are all that protects it.
    pub passphrase: *const u8,
    /// Its length.
    pub passphrase_len: usize,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_keyring_options {
    const FIRST_SIZE: usize = 32;
}

/// A version of a keyring's master key. This struct does not grow.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_keyring_version {
    /// Numbers start at 1 and never repeat.
    pub number: u32,
    /// 0.
    pub reserved: u32,
    /// When it was made, by the clock of the machine that made it: milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// A keyring, as it stood. Freed with keystead_keyring_status_free(). Threads: any, also at once.
#[derive(Debug)]
pub struct keystead_keyring_status {
    id: Text,
    enabled: bool,
    sealed: bool,
    versions: Vec<keystead_keyring_version>,
}

/// How a keyring stands.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_keyring_info {
    /// sizeof(keystead_keyring_info), set by the caller.
    pub struct_size: u32,
    /// 1 when it is enabled, 0 when it is disabled.
    pub enabled: i32,
    /// 1 when a passphrase seals it, else 0.
    pub sealed: i32,
    /// 0.
    pub reserved: u32,
    /// Its id, 32 hexadecimal digits: a part of the KMS key id of whatever it wraps.
    pub id: keystead_text,
    /// The versions of its master key, ascending; the last one wraps.
    pub versions: *const keystead_keyring_version,
    /// How many.
    pub versions_len: usize,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_keyring_info {
    const FIRST_SIZE: usize = 48;
}

/// Makes a new keyring file with one master key, mode 0600. Its directory must exist. options may be null. Blocks for the sync
/// of a file, and with a passphrase for Argon2id, some tenths of a second.
///
/// Errors: KEYSTEAD_KMS + KEYSTEAD_BACKEND_INVALID_CONFIG when there is a file already, which is left as it is, and for a
/// passphrase or a cost that is against the rules; KEYSTEAD_KMS + what else is wrong with the file. Threads: any.
///
///     keystead_keyring_options sealing = { sizeof sealing };
///     sealing.passphrase = passphrase;
///     sealing.passphrase_len = passphrase_len;
///     code = keystead_keyring_create("/var/lib/app/app.keyring", KEYSTEAD_ZERO_TERMINATED, &sealing, &keyring, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_keyring_create(
    path: *const c_char,
    path_len: usize,
    options: *const keystead_keyring_options,
    out: *mut *mut keystead_keyring,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let path = store::file_path(called, path, path_len, "path")?;
            let sealing = sealing(called, options)?;
            let keyring = Keyring::create(path, sealing.clone()).map_err(failed)?;
            out.give(keystead_keyring::new(keyring, sealing));
            Ok(())
        })
    }
}

/// Opens a keyring file that is there, and checks that the passphrase opens it. options may be null.
///
/// Errors: KEYSTEAD_KMS + KEYSTEAD_BACKEND_UNAUTHENTICATED when the passphrase is wrong or missing, _UNAVAILABLE when there is
/// no file, _ACCESS_DENIED when others may read it, _INVALID_CIPHERTEXT when it is damaged. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_keyring_open(
    path: *const c_char,
    path_len: usize,
    options: *const keystead_keyring_options,
    out: *mut *mut keystead_keyring,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let path = store::file_path(called, path, path_len, "path")?;
            let sealing = sealing(called, options)?;
            let keyring = Keyring::open(path, sealing.clone()).map_err(failed)?;
            out.give(keystead_keyring::new(keyring, sealing));
            Ok(())
        })
    }
}

/// The backend "managed" on this keyring, opened as the handle was: for a program that has its passphrase in memory and not where
/// keystead_backend_managed() reads one. It makes no file, should this one be gone. The keyring may be freed before.
///
/// Errors: none but those of the handle. Threads: any.
///
///     code = keystead_keyring_backend(keyring, &managed, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_keyring_backend(
    keyring: *const keystead_keyring,
    out: *mut *mut keystead_backend,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(keyring)?;
            let backend = ManagedBackend::keyring(handle.keyring.path())
                .sealing(handle.sealing.clone())
                .create(false);
            out.give(keystead_backend::managed(backend));
            Ok(())
        })
    }
}

/// Adds a version of the master key, and writes its number to *out, which may be null. New wraps use it; what older versions
/// wrapped still opens, for they stay. Works on a disabled keyring, too. Blocks for up to 10 seconds while another process
/// changes the keyring. To have data keys under it, rotate the key "managed" of each organization.
///
/// Errors: KEYSTEAD_KMS + KEYSTEAD_BACKEND_UNSUPPORTED at 1,024 versions, _TIMEOUT, and those of the file. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_keyring_rotate(
    keyring: *const keystead_keyring,
    out: *mut u32,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.optional_out(out, 0);
            let version = called.handle(keyring)?.keyring.rotate().map_err(failed)?;
            if let Some(out) = out {
                out.set(version);
            }
            Ok(())
        })
    }
}

/// Disables the keyring: every process that uses it is refused from its next call on and drops the master keys from memory.
/// **Everything under it is unreadable until keystead_keyring_enable().** The keys stay in the file. Doing it twice changes
/// nothing.
///
/// Errors: KEYSTEAD_KMS + what is wrong with the file. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_keyring_disable(
    keyring: *const keystead_keyring,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            called.handle(keyring)?.keyring.disable().map_err(failed)
        })
    }
}

/// Enables the keyring again. Doing it twice changes nothing.
///
/// Errors: KEYSTEAD_KMS + what is wrong with the file. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_keyring_enable(
    keyring: *const keystead_keyring,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            called.handle(keyring)?.keyring.enable().map_err(failed)
        })
    }
}

/// Puts the keyring under another passphrase, or none; *out is the keyring so opened. The master keys stay the same. Whoever has
/// the old passphrase, this handle and backends of it too, gets KEYSTEAD_KMS + KEYSTEAD_BACKEND_UNAUTHENTICATED from the next call
/// on; copies of the old file still open with it. options may be null: **no sealing any more**.
///
/// Errors: as keystead_keyring_create(), but for the file that is there. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_keyring_reseal(
    keyring: *const keystead_keyring,
    options: *const keystead_keyring_options,
    out: *mut *mut keystead_keyring,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(keyring)?;
            let sealing = sealing(called, options)?;
            let resealed = handle.keyring.reseal(sealing.clone()).map_err(failed)?;
            out.give(keystead_keyring::new(resealed, sealing));
            Ok(())
        })
    }
}

/// How the keyring stands now.
///
/// Errors: KEYSTEAD_KMS + what is wrong with the file. Threads: any.
///
///     keystead_keyring_info info = { sizeof info };
///     code = keystead_keyring_read(keyring, &standing, &error);
///     if (code == KEYSTEAD_OK && keystead_keyring_status_look(standing, &info, NULL) == KEYSTEAD_OK) {
///         printf("%s: version %u wraps\n", info.id.data, (unsigned)info.versions[info.versions_len - 1].number);
///     }
///     keystead_keyring_status_free(standing);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_keyring_read(
    keyring: *const keystead_keyring,
    out: *mut *mut keystead_keyring_status,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(keyring)?;
            let versions = handle.keyring.versions().map_err(failed)?;
            out.give(keystead_keyring_status {
                id: Text::new(handle.keyring.id().map_err(failed)?.to_string()),
                enabled: handle.keyring.state().map_err(failed)? == KeyringState::Enabled,
                sealed: handle.sealing.is_sealed(),
                versions: versions
                    .into_iter()
                    .map(|version| keystead_keyring_version {
                        number: version.number,
                        reserved: 0,
                        created_at_ms: version.created_unix_s.saturating_mul(1000),
                    })
                    .collect(),
            });
            Ok(())
        })
    }
}

/// Writes how the keyring stood to *out, whose struct_size is set. What is pointed to belongs to the status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_keyring_status_look(
    status: *const keystead_keyring_status,
    out: *mut keystead_keyring_info,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let status = called.data(status, "status")?;
            called.fill(
                out,
                keystead_keyring_info {
                    struct_size: 0,
                    enabled: status.enabled.into(),
                    sealed: status.sealed.into(),
                    reserved: 0,
                    id: status.id.view(),
                    versions: status.versions.as_ptr(),
                    versions_len: status.versions.len(),
                },
            )
        })
    }
}

/// Frees a status. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_keyring_status_free(status: *mut keystead_keyring_status) {
    // SAFETY: null or a status that is not used any more, as the header says.
    unsafe { guard::free(status) }
}

/// Frees the handle, and erases its passphrase and keys in memory. Null does nothing. The file stays, and backends of it go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_keyring_free(keyring: *mut keystead_keyring) {
    // SAFETY: null or a keyring that is not used any more, as the header says.
    unsafe { guard::free_handle(keyring) }
}

impl keystead_keyring {
    fn new(keyring: Keyring, sealing: Sealing) -> Self {
        Self {
            keyring,
            sealing,
            life: Life::begin(),
        }
    }
}

fn sealing(called: &Called<'_>, options: *const keystead_keyring_options) -> Result<Sealing, Failure> {
    let given = called.options(options, "options")?;
    let sealing = if given.passphrase.is_null() && given.passphrase_len == 0 {
        Sealing::none()
    } else {
        let passphrase = called.bytes(given.passphrase, given.passphrase_len, "passphrase")?;
        Sealing::passphrase(passphrase).map_err(failed)?
    };
    let default = KdfParameters::default();
    let or = |given: u32, default: u32| if given == 0 { default } else { given };
    let kdf = KdfParameters {
        memory_kib: or(given.kdf_memory_kib, default.memory_kib),
        passes: or(given.kdf_passes, default.passes),
        lanes: or(given.kdf_lanes, default.lanes),
    };
    kdf.check().map_err(failed)?;
    Ok(sealing.with_kdf(kdf))
}

/// A keyring's errors are those of the backend "managed".
fn failed(error: BackendError) -> Failure {
    Failure::new(KEYSTEAD_KMS + error.code.as_i32(), error.message)
}
