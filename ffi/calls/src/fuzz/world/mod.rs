//! What the calls are made on, and what they must answer.

#![allow(unsafe_code)]

mod keys;
mod parts;
mod secrets;

use super::arguments;
use super::model::Secrets;
use crate::client::{Opening, Organization, Store, text};
use crate::{Owned, Refusal, kms, told};
use arbitrary::{Result, Unstructured};
use keystead_backend::abi;
use keystead_ffi::batch::keystead_batch;
use keystead_ffi::error::{
    KEYSTEAD_CLOSED, KEYSTEAD_INVALID_ARGUMENT, KEYSTEAD_INVALID_PATH, KEYSTEAD_KMS, KEYSTEAD_OK,
};
use keystead_ffi::organization::{keystead_organization_acting_as, keystead_organization_free};
use keystead_ffi::rewrap::keystead_rewrap_job;
use keystead_ffi::secret::{
    keystead_get, keystead_secret, keystead_secret_data, keystead_secret_free, keystead_secret_len,
    keystead_secret_version,
};
use keystead_ffi::store::{keystead_organization_open, keystead_store_close};
use keystead_ffi::stream::{keystead_reader, keystead_writer};
use std::path::PathBuf;

const ORGANIZATIONS: [&str; 2] = ["acme", "globex"];
const PATHS: [&str; 6] = ["a", "a/b", "a/c", "b/ünï", "prod/db/password", "prod/db/user"];
/// Of each kind of handle so many are open at a time.
const OPEN_MAX: usize = 4;

/// What one call is told: the code, where anything else than the model's is wrong.
type Told<T> = std::result::Result<T, Refusal>;

/// A secret that was read, and what it holds.
struct Read {
    secret: Owned<keystead_secret>,
    version: u32,
    value: Vec<u8>,
}

/// A writer, and what was written so far; nothing when it has ended.
struct Writing {
    writer: Owned<keystead_writer>,
    organization: usize,
    path: &'static str,
    written: Option<Vec<u8>>,
}

/// A reader, and what is still to come.
struct Reading {
    reader: Owned<keystead_reader>,
    rest: Vec<u8>,
}

struct Gathered {
    batch: Owned<keystead_batch>,
    puts: Vec<(&'static str, Vec<u8>)>,
}

pub(super) struct World {
    directory: tempfile::TempDir,
    store: Option<Store>,
    /// Whose each handle is.
    organizations: Vec<(usize, Organization)>,
    secrets: Vec<Read>,
    writers: Vec<Writing>,
    readers: Vec<Reading>,
    batches: Vec<Gathered>,
    jobs: Vec<Owned<keystead_rewrap_job>>,
    model: [Secrets; 2],
    closed: bool,
    /// The KMS has failed, and may be remembered for it.
    failing: bool,
}

impl World {
    pub(super) fn new() -> Self {
        kms::answer(abi::OK);
        // In memory where there is such a place: an input costs some dozens of syncs.
        let memory = PathBuf::from("/dev/shm");
        let directory = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let directory = directory.expect("a directory of our own");
        let store = Store::at(&directory.path().join("store"), Opening::Create).expect("it is new");
        let organizations = ORGANIZATIONS.map(|name| store.create_organization(name).expect("it is new"));
        Self {
            directory,
            store: Some(store),
            organizations: organizations.into_iter().enumerate().collect(),
            secrets: Vec::new(),
            writers: Vec::new(),
            readers: Vec::new(),
            batches: Vec::new(),
            jobs: Vec::new(),
            model: [Secrets::default(), Secrets::default()],
            closed: false,
            failing: false,
        }
    }

    /// Does one thing. Errors when the input is over.
    pub(super) fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.arbitrary::<u8>()? % 24 {
            0..=2 => self.put(input),
            3 | 4 => self.get(input),
            5 => self.get_into(input),
            6 | 7 => self.change(input),
            8 => self.retention(input),
            9 => self.list(input),
            10 => self.history(input),
            11 | 12 => self.batch(input),
            13 | 14 => self.write(input),
            15 => self.read(input),
            16 | 17 => self.key(input),
            18 => self.job(input),
            19 => self.look_around(input),
            20 => self.kms(input),
            21 => self.senseless(input),
            22 => self.open_or_free(input),
            _ => self.close_or_open_again(input),
        }
    }

    /// Opens everything once more, and checks every value.
    pub(super) fn end(mut self) {
        kms::answer(abi::OK);
        self.free_all();
        let store = Store::at(&self.directory.path().join("store"), Opening::Open).expect("it is there");
        (self.closed, self.failing) = (false, false);
        self.store = Some(store);
        for number in 0..ORGANIZATIONS.len() {
            self.organizations
                .push((number, self.opened(number).expect("it is there")));
        }
        for at in 0..ORGANIZATIONS.len() {
            for path in PATHS {
                let secret = self.read_secret(at, path, 0);
                let expected = self.model[at].get(path, 0).map(<[u8]>::to_vec);
                match (secret, expected) {
                    (Ok(secret), Ok(value)) => assert_eq!(value_of(&secret), value, "{path}"),
                    (Err(refusal), Err(code)) => assert_eq!(refusal.code, code, "{path}: {refusal:?}"),
                    (told, expected) => panic!("{path}: {told:?}, not {expected:?}"),
                }
            }
        }
        self.verifies(true);
        self.free_all();
    }

    /// One of the open handles.
    fn organization(&self, input: &mut Unstructured<'_>) -> Result<(usize, usize)> {
        let at = input.choose_index(self.organizations.len())?;
        Ok((at, self.organizations[at].0))
    }

    fn pointer(&self, at: usize) -> *mut keystead_ffi::organization::keystead_organization {
        self.organizations[at].1.as_ptr()
    }

    /// Whether it went through, as `code` says that it must: a closed store says that it is, and where a KMS has failed, it may be
    /// told.
    fn agrees<T>(&self, what: &str, told: Told<T>, code: i32) -> Option<T> {
        assert!(told.is_err() || !self.closed, "{what} on a closed store");
        self.agrees_without_file(what, told, code)
    }

    /// The same of a call that need not look at the file, and may go through on a closed store.
    fn agrees_without_file<T>(&self, what: &str, told: Told<T>, code: i32) -> Option<T> {
        match told {
            Ok(given) => {
                assert_eq!(KEYSTEAD_OK, code, "{what} went through");
                Some(given)
            }
            Err(refusal) => {
                let told = refusal.code;
                let may = told == code
                    || (self.closed && told == KEYSTEAD_CLOSED)
                    || (self.failing && told > KEYSTEAD_KMS);
                assert!(may, "{what}: {refusal:?}, not {code}");
                None
            }
        }
    }

    fn senseless(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (at, whose) = self.organization(input)?;
        let kind = input.arbitrary::<u8>()?;
        let bytes = input.bytes(input.len().min(9))?;
        if kind % 2 == 0 {
            arguments::refused(kind / 2, self.pointer(at), bytes);
            return Ok(());
        }
        // Any bytes as a path: it is refused, or there is no such secret, or there is one by chance.
        let told = Owned::from_call(keystead_secret_free, |out| {
            // SAFETY: there are as many bytes as is said.
            told(|error| unsafe {
                keystead_get(
                    self.pointer(at),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    0,
                    out,
                    error,
                )
            })
        });
        let code = match (&told, std::str::from_utf8(bytes)) {
            (_, Err(_)) => KEYSTEAD_INVALID_ARGUMENT,
            (Err(refusal), Ok(_)) if refusal.code == KEYSTEAD_INVALID_PATH => KEYSTEAD_INVALID_PATH,
            (_, Ok(path)) => self.model[whose].get(path, 0).err().unwrap_or(KEYSTEAD_OK),
        };
        self.agrees("any bytes as a path", told, code);
        Ok(())
    }

    /// Another handle on an organization, of which at least one stays; or something is freed, whatever it belongs to.
    fn open_or_free(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let what = input.arbitrary::<u8>()? % 9;
        let (at, number) = self.organization(input)?;
        match what {
            0 => {
                if let Some(opened) = self.opened(number) {
                    keep(&mut self.organizations, (number, opened));
                }
            }
            1 => {
                let ((actor, actor_len), (reason, reason_len)) = (text("alice"), text("ticket"));
                let told = Owned::from_call(keystead_organization_free, |out| {
                    // SAFETY: everything lives until the call is over.
                    told(|error| unsafe {
                        keystead_organization_acting_as(
                            self.pointer(at),
                            actor,
                            actor_len,
                            reason,
                            reason_len,
                            out,
                            error,
                        )
                    })
                });
                let organization = told.expect("it needs no store");
                keep(&mut self.organizations, (number, Organization { organization }));
            }
            2 if self.organizations.len() > 1 => drop(self.organizations.swap_remove(at)),
            3 => self.store = None,
            4 => self.free_secret(),
            5 => drop(self.writers.pop()),
            6 => drop(self.readers.pop()),
            7 => drop(self.jobs.pop()),
            _ => drop(self.batches.pop()),
        }
        Ok(())
    }

    /// A secret needs nothing any more, and holds what it held, until it is freed.
    fn free_secret(&mut self) {
        if let Some(Read {
            secret,
            version,
            value,
        }) = self.secrets.pop()
        {
            assert_eq!(value_of(&secret), value);
            // SAFETY: a live secret.
            assert_eq!(unsafe { keystead_secret_version(secret.as_ptr()) }, version);
        }
    }

    fn opened(&self, number: usize) -> Option<Organization> {
        let store = self.store.as_ref()?;
        let (name, len) = text(ORGANIZATIONS[number]);
        let told = Owned::from_call(keystead_organization_free, |out| {
            // SAFETY: everything lives until the call is over.
            told(|error| unsafe { keystead_organization_open(store.store.as_ptr(), name, len, out, error) })
        });
        let organization = self.agrees("opening an organization", told, KEYSTEAD_OK)?;
        Some(Organization { organization })
    }

    fn close_or_open_again(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if input.arbitrary::<bool>()?
            && let Some(store) = &self.store
        {
            // SAFETY: a live handle.
            let told = told(|error| unsafe { keystead_store_close(store.store.as_ptr(), error) });
            assert!(told.is_ok() || self.closed, "closing what is open: {told:?}");
            self.closed = true;
            return Ok(());
        }
        self.free_all();
        let store = Store::at(&self.directory.path().join("store"), Opening::Open).expect("it is there");
        self.closed = false;
        self.store = Some(store);
        for number in 0..ORGANIZATIONS.len() {
            let opened = self.opened(number).expect("it is there");
            self.organizations.push((number, opened));
        }
        Ok(())
    }

    /// Everything that keeps the store open, the store in the middle.
    fn free_all(&mut self) {
        self.organizations.clear();
        self.writers.clear();
        self.store = None;
        self.readers.clear();
        self.jobs.clear();
    }
}

/// Keeps an object, and frees the oldest one when there are too many.
fn keep<T>(kept: &mut Vec<T>, object: T) {
    if kept.len() == OPEN_MAX {
        kept.remove(0);
    }
    kept.push(object);
}

fn path(input: &mut Unstructured<'_>) -> Result<&'static str> {
    Ok(PATHS[input.choose_index(PATHS.len())?])
}

/// A value of nothing up to some hundred kilobytes: in a row, and in chunks.
fn value(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let (of, many) = (input.arbitrary::<u8>()?, usize::from(input.arbitrary::<u8>()?));
    let len = many * [1, 1, 97, 1031][usize::from(of) % 4];
    Ok((0..len).map(|at| of.wrapping_add(at as u8)).collect())
}

fn value_of(secret: &Owned<keystead_secret>) -> &[u8] {
    // SAFETY: a live secret; the bytes belong to it.
    unsafe {
        let data = keystead_secret_data(secret.as_ptr());
        assert!(!data.is_null(), "also when it is empty");
        std::slice::from_raw_parts(data, keystead_secret_len(secret.as_ptr()))
    }
}

fn size_of_struct<T>(_: &T) -> u32 {
    u32::try_from(size_of::<T>()).expect("small")
}

/// A call that has no reason to fail.
fn told_well(call: impl FnOnce(*mut *mut keystead_ffi::error::keystead_error) -> i32) {
    if let Err(refusal) = told(call) {
        panic!("{refusal:?}");
    }
}
