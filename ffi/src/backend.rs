//! Backends: by a plugin's path and digest, by a table of the application, and the managed keyring that is linked in.

#![allow(unsafe_code)]

use crate::error::{Failure, keystead_error};
use crate::guard::{self, Called, Handle, Life, invalid};
use crate::structs::Struct;
use crate::text::Text;
use engine::Backend;
use engine::backend::abi;
use keystead_loader::{Digest, OfferedTable, Plugin, PluginSource};
use keystead_managed::ManagedBackend;
use std::ffi::{OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// The table of a backend: keystead_backend.h says what it is.
pub use engine::backend::abi::Api as keystead_backend_api;

/// A backend, to be registered with stores by keystead_store_options. Freed with keystead_backend_free(), at any time:
/// stores that were opened with it keep what they need. Threads: any, also at once.
///
/// A plugin, or a table, is never unloaded: it must be there as long as the process lives.
#[derive(Debug)]
pub struct keystead_backend {
    pub(crate) backend: Backend,
    name: Text,
    description_json: Text,
    life: Arc<Life>,
}

impl Handle for keystead_backend {
    const WHAT: &'static str = "backend";

    fn life(&self) -> &Arc<Life> {
        &self.life
    }
}

/// Which plugin is loaded, under which name, with which settings. Begins with its size; what is 0 has its default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_plugin_options {
    /// sizeof(keystead_plugin_options).
    pub struct_size: u32,
    /// 1 allows *whatever is at the path*: an update, a half-written file, or what an intruder put there. For development.
    /// Digests that are given are still required.
    pub dangerously_without_digest: i32,
    /// The BLAKE3 digests of the bytes that are allowed (`b3sum` prints them), 32 bytes each, one behind the other.
    pub digests: *const u8,
    /// How many digests. With none, and without dangerously_without_digest, nothing is loaded.
    pub digests_len: usize,
    /// A file larger than this is refused. 0: 512 MiB.
    pub size_max_bytes: u64,
    /// The name by which stored keys refer to this backend. Null: the backend's own name, such as "aws-kms".
    pub name: *const c_char,
    /// Its length.
    pub name_len: usize,
    /// The backend's settings, a JSON object: endpoints, files, credentials. Trusted, never stored. Null: {}.
    pub settings_json: *const c_char,
    /// Its length.
    pub settings_json_len: usize,
    /// 1: the plugin is loaded when a key of it is first used, not now; of many that are registered, those that no key needs
    /// cost nothing. `name` is given then, and no more is checked now than that the path is absolute and a digest is there.
    /// What else refuses the plugin is the error of that use, KEYSTEAD_KMS + KEYSTEAD_BACKEND_INVALID_CONFIG, and the next use
    /// tries again. A program that gives up rights, or its view of the file system, loads before.
    pub at_first_use: i32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_plugin_options {
    const FIRST_SIZE: usize = 64;
}

/// Loads a plugin, after checking its path, owners, modes and digest: see the guide. Nothing of a plugin that fails there
/// runs. path is absolute. options cannot be null, since a digest must be given. No KMS is asked.
///
/// Errors: KEYSTEAD_PLUGIN_REFUSED with the step and the reason; KEYSTEAD_INVALID_ARGUMENT for settings that are no JSON
/// object, and for at_first_use without a name. Threads: any.
///
///     keystead_plugin_options options = { sizeof options };
///     options.digests = digest;
///     options.digests_len = 1;
///     code = keystead_backend_load("/usr/lib/keystead/libkeystead_aws_kms.so", KEYSTEAD_ZERO_TERMINATED, &options,
///                                  &backend, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_backend_load(
    path: *const c_char,
    path_len: usize,
    options: *const keystead_plugin_options,
    out: *mut *mut keystead_backend,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let path = OsStr::from_bytes(called.text_bytes(path, path_len, "path")?);
            let options = called.options(options, "options")?;
            let mut source = PluginSource::new(path);
            let digests_len = options
                .digests_len
                .checked_mul(32)
                .ok_or_else(|| invalid("digests_len is larger than any memory".into()))?;
            for digest in called
                .array(options.digests, digests_len, "digests")?
                .chunks_exact(32)
            {
                let digest: [u8; 32] = digest.try_into().expect("chunks of 32");
                source = source.digest(Digest::from(digest));
            }
            if options.dangerously_without_digest != 0 {
                source = source.dangerously_without_digest();
            }
            if options.size_max_bytes != 0 {
                source = source.size_max_bytes(options.size_max_bytes);
            }
            let named = Named {
                name: called.optional_text(options.name, options.name_len, "name")?,
                settings: settings(called, options.settings_json, options.settings_json_len)?,
            };
            let backend = if options.at_first_use == 0 {
                let plugin = Plugin::load(&source).map_err(|refusal| Failure::refused(&refusal))?;
                named.apply(Backend::new(plugin))
            } else {
                source.check().map_err(|refusal| Failure::refused(&refusal))?;
                named.apply_at_first_use(source)?
            };
            out.give(backend);
            Ok(())
        })
    }
}

/// Writes the BLAKE3 digest of a file to out, which has room for 32 bytes: for tools that make an allow-list. It reads
/// whatever is there and checks nothing: be sure that the file is the one you mean.
///
/// Errors: KEYSTEAD_PLUGIN_REFUSED with what the system says about reading it. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_plugin_digest(
    path: *const c_char,
    path_len: usize,
    out: *mut u8,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let path = Path::new(OsStr::from_bytes(called.text_bytes(path, path_len, "path")?));
            let out = called.buffer(out, 32)?;
            let digest = keystead_loader::digest_file(path).map_err(|error| {
                Failure::refused(&format_args!("cannot read {}: {error}", path.display()))
            })?;
            out.copy_from_slice(digest.as_bytes());
            Ok(())
        })
    }
}

/// A backend behind a table of functions of the application itself, by the rules of keystead_backend.h: a KMS in the
/// application's own language. The table, and what its functions need, lives unchanged **as long as the process**. Its
/// functions are called from threads of the library, many at once. name and settings_json may be null, as in
/// keystead_plugin_options. describe() is called now, open() when a key is used.
///
/// Errors: KEYSTEAD_PLUGIN_REFUSED with what is wrong with the table; KEYSTEAD_INVALID_ARGUMENT. Threads: any.
///
///     code = keystead_backend_from_table(&my_table, NULL, 0, NULL, 0, &backend, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_backend_from_table(
    table: *const keystead_backend_api,
    name: *const c_char,
    name_len: usize,
    settings_json: *const c_char,
    settings_json_len: usize,
    out: *mut *mut keystead_backend,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let named = Named {
                name: called.optional_text(name, name_len, "name")?,
                settings: settings(called, settings_json, settings_json_len)?,
            };
            let table = offered(table)?;
            out.give(named.apply(Backend::new(table)));
            Ok(())
        })
    }
}

fn offered(table: *const abi::Api) -> Result<OfferedTable, Failure> {
    // SAFETY: null, or a table by the rules that lives as long as the process, as the header says.
    unsafe { OfferedTable::new(table) }
        .map_err(|refusal| Failure::refused(&format_args!("the application's table was refused: {refusal}")))
}

/// The managed key's backend, linked into this library: a local keyring file. settings_json is a JSON object; its fields
/// are `keyring` (an absolute path), `create` (make the file at the first wrap; true unless told otherwise), and for a
/// sealed keyring `passphrase_env`, `passphrase_fd` or `passphrase_file`; the guide says more. Its name is "managed", the
/// one that every organization's first key refers to.
///
/// Errors: KEYSTEAD_INVALID_ARGUMENT for what is no JSON object; a wrong field is told at the first use of a key. Threads:
/// any.
///
///     code = keystead_backend_managed("{\"keyring\":\"/var/lib/app/app.keyring\"}", KEYSTEAD_ZERO_TERMINATED, &managed, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_backend_managed(
    settings_json: *const c_char,
    settings_json_len: usize,
    out: *mut *mut keystead_backend,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let named = Named {
                name: None,
                settings: settings(called, settings_json, settings_json_len)?,
            };
            out.give(named.apply(Backend::new(ManagedBackend::default())));
            Ok(())
        })
    }
}

/// The name by which stored keys refer to the backend. Belongs to the backend. Null gives "".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_backend_name(backend: *const keystead_backend) -> *const c_char {
    // SAFETY: null or a live backend, as the header says.
    unsafe { guard::look(backend, c"".as_ptr(), |backend| backend.name.as_ptr()) }
}

/// What the backend says about itself: a JSON object with its own name, version, limits and schemas, as keystead_backend.h
/// describes it; {} for a plugin that is loaded at its first use. Belongs to the backend. Null gives "".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_backend_description_json(
    backend: *const keystead_backend,
) -> *const c_char {
    // SAFETY: null or a live backend, as the header says.
    unsafe { guard::look(backend, c"".as_ptr(), |backend| backend.description_json.as_ptr()) }
}

/// Frees a backend. Null does nothing. Stores that were opened with it go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_backend_free(backend: *mut keystead_backend) {
    // SAFETY: null or a backend that is not used any more, as the header says.
    unsafe { guard::free_handle(backend) }
}

struct Named<'a> {
    name: Option<&'a str>,
    settings: serde_json::Value,
}

impl Named<'_> {
    fn apply(self, backend: Backend) -> keystead_backend {
        let description = serde_json::to_string(&backend.describe()).unwrap_or_default();
        let backend = match self.name {
            Some(name) => backend.named(name),
            None => backend,
        };
        keystead_backend::new(backend.settings(self.settings), description)
    }

    fn apply_at_first_use(self, source: PluginSource) -> Result<keystead_backend, Failure> {
        let name = self.name.ok_or_else(|| {
            invalid("name is NULL: a plugin that is loaded at its first use is given one".into())
        })?;
        let backend = Backend::deferred(name, move || Ok(Plugin::load(&source)?));
        Ok(keystead_backend::new(backend.settings(self.settings), "{}"))
    }
}

impl keystead_backend {
    /// The managed key's backend, with settings of its own.
    pub(crate) fn managed(backend: ManagedBackend) -> Self {
        let named = Named {
            name: None,
            settings: serde_json::json!({}),
        };
        named.apply(Backend::new(backend))
    }

    fn new(backend: Backend, description_json: impl Into<String>) -> Self {
        Self {
            name: Text::new(backend.name()),
            description_json: Text::new(description_json),
            backend,
            life: Life::begin(),
        }
    }
}

/// A JSON object; `{}` when it is left out.
pub(crate) fn json(
    called: &Called<'_>,
    data: *const c_char,
    len: usize,
    what: &'static str,
) -> Result<serde_json::Value, Failure> {
    let Some(text) = called.optional_text(data, len, what)? else {
        return Ok(serde_json::json!({}));
    };
    // What serde_json says may quote the text, and settings may hold a credential: only the place is told.
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        invalid(format!("{what} is not JSON: line {line}, column {column}"))
    })?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(invalid(format!("{what} is not a JSON object")))
    }
}

fn settings(called: &Called<'_>, data: *const c_char, len: usize) -> Result<serde_json::Value, Failure> {
    json(called, data, len, "settings_json")
}
