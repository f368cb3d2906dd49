//! A store and its organizations, through the C interface alone.

#![allow(unsafe_code)]

use crate::{Owned, Refusal, kms, told};
use keystead_ffi::backend::{keystead_backend, keystead_backend_free, keystead_backend_from_table};
use keystead_ffi::organization::{keystead_organization, keystead_organization_free};
use keystead_ffi::secret::{
    keystead_get, keystead_put, keystead_secret_data, keystead_secret_free, keystead_secret_len,
};
use keystead_ffi::store::{
    keystead_organization_create, keystead_store, keystead_store_create, keystead_store_free,
    keystead_store_open, keystead_store_options,
};
use std::ffi::c_char;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// The names of the two backends that a store is opened with: the KMS of this program under both.
pub const BACKENDS: [&str; 2] = ["managed", "own-kms"];

/// A text as C passes it.
#[must_use]
pub fn text(text: &str) -> (*const c_char, usize) {
    (text.as_ptr().cast(), text.len())
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    pub(crate) store: Owned<keystead_store>,
}

/// An organization of it.
#[derive(Debug)]
pub struct Organization {
    pub(crate) organization: Owned<keystead_organization>,
}

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// There is none yet.
    Create,
    /// It is there.
    Open,
}

impl Store {
    /// Opens a store with the KMS of this program, without threads for re-wrap jobs.
    ///
    /// # Errors
    ///
    /// What the library says.
    pub fn at(path: &Path, opening: Opening) -> Result<Self, Refusal> {
        let backends: Vec<Owned<keystead_backend>> =
            BACKENDS.into_iter().map(backend).collect::<Result<_, _>>()?;
        let pointers: Vec<*const keystead_backend> = backends
            .iter()
            .map(|backend| backend.as_ptr().cast_const())
            .collect();
        // SAFETY: zeros are a value of each field, and the default.
        let mut options: keystead_store_options = unsafe { std::mem::zeroed() };
        options.struct_size = u32::try_from(size_of::<keystead_store_options>()).expect("small");
        options.without_background_rewrap = 1;
        options.kms_attempts_max = 1;
        options.backends = pointers.as_ptr();
        options.backends_len = pointers.len();
        let call = match opening {
            Opening::Create => keystead_store_create,
            Opening::Open => keystead_store_open,
        };
        let path = path.as_os_str().as_bytes();
        let store = Owned::from_call(keystead_store_free, |out| {
            // SAFETY: everything lives until the call is over.
            told(|error| unsafe { call(path.as_ptr().cast(), path.len(), &raw const options, out, error) })
        })?;
        Ok(Self { store })
    }

    /// Creates an organization.
    ///
    /// # Errors
    ///
    /// What the library says.
    pub fn create_organization(&self, name: &str) -> Result<Organization, Refusal> {
        let (name, len) = text(name);
        let organization = Owned::from_call(keystead_organization_free, |out| {
            // SAFETY: everything lives until the call is over.
            told(|error| unsafe { keystead_organization_create(self.store.as_ptr(), name, len, out, error) })
        })?;
        Ok(Organization { organization })
    }
}

fn backend(name: &str) -> Result<Owned<keystead_backend>, Refusal> {
    let (name, len) = text(name);
    Owned::from_call(keystead_backend_free, |out| {
        // SAFETY: the table lives as long as the process.
        told(|error| unsafe {
            keystead_backend_from_table(kms::table(), name, len, ptr::null(), 0, out, error)
        })
    })
}

impl Organization {
    /// Its handle, for calls that this client has no method for.
    #[must_use]
    pub fn as_ptr(&self) -> *mut keystead_organization {
        self.organization.as_ptr()
    }

    /// Writes a new version.
    ///
    /// # Errors
    ///
    /// What the library says.
    pub fn put(&self, path: &str, value: &[u8]) -> Result<u32, Refusal> {
        let (path, len) = text(path);
        let mut version = 0;
        // SAFETY: everything lives until the call is over.
        told(|error| unsafe {
            keystead_put(
                self.as_ptr(),
                path,
                len,
                value.as_ptr(),
                value.len(),
                ptr::null(),
                &raw mut version,
                error,
            )
        })?;
        Ok(version)
    }

    /// Reads the latest version, shows it, and frees it: three calls, as a program in C makes them.
    ///
    /// # Errors
    ///
    /// What the library says.
    pub fn get<R>(&self, path: &str, see: impl FnOnce(&[u8]) -> R) -> Result<R, Refusal> {
        let (path, len) = text(path);
        let secret = Owned::from_call(keystead_secret_free, |out| {
            // SAFETY: everything lives until the call is over.
            told(|error| unsafe { keystead_get(self.as_ptr(), path, len, 0, out, error) })
        })?;
        // SAFETY: the bytes belong to the secret, which lives until they were seen.
        let value = unsafe {
            let data = keystead_secret_data(secret.as_ptr());
            std::slice::from_raw_parts(data, keystead_secret_len(secret.as_ptr()))
        };
        Ok(see(value))
    }
}
