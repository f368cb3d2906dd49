//! A world whose every secret is known and watched: the clock and the randomness, the KMS, the disk, the values.

use keystead::backend::{
    BackendError, Call, Capabilities, Context, Description, ErrorCode, KeyBackend, KeyInstance, LockedBytes,
    OpenRequest, Status, Wrapped,
};
use keystead::simulation::Disk;
use keystead::{Backend, Env, Store, StoreOptions};
use keystead_tests::env::SimulatedEnv;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use zeroize::Zeroizing;

/// Length of an epoch key, a data key and a shred key, and of nothing else that is drawn at random.
const KEY_BYTES: usize = 32;

#[derive(Debug, Clone)]
pub(crate) struct WatchedWorld {
    env: Arc<WatchedEnv>,
    kms: MaskingKms,
    disk: Arc<WatchedDisk>,
}

impl WatchedWorld {
    pub(crate) fn new(binds_context: bool) -> Self {
        let seed = keystead_tests::env::seed(20) + u64::from(binds_context);
        Self {
            env: Arc::new(WatchedEnv {
                prefix: format!("drawn in world {seed}"),
                inner: SimulatedEnv::new(seed),
                drawn: Mutex::default(),
            }),
            kms: MaskingKms {
                state: Arc::new(Mutex::new(KmsState {
                    binds_context,
                    fails: None,
                    another_key: false,
                })),
            },
            disk: Arc::default(),
        }
    }

    pub(crate) fn options(&self) -> StoreOptions {
        Store::options()
            .backend(Backend::new(self.kms.clone()).named("managed"))
            .backend(Backend::new(self.kms.clone()).named("customer-kms"))
            .env(self.env.clone())
            .background_rewrap(false)
            .kms_attempts_max(2)
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    /// Every call fails with this code from now on.
    pub(crate) fn kms_fails(&self, code: Option<ErrorCode>) {
        lock(&self.kms.state).fails = code;
    }

    /// Unwraps answer a key that was never wrapped.
    pub(crate) fn kms_answers_another_key(&self, another: bool) {
        lock(&self.kms.state).another_key = another;
    }

    /// Long enough for a remembered failure to be forgotten.
    pub(crate) fn pass_time(&self) {
        self.env.inner.advance(Duration::from_secs(2));
    }

    /// Whether it was written to the disk in clear: a shred key, then.
    pub(crate) fn is_on_disk(&self, name: &str) -> bool {
        lock(&self.disk.state).secrets.contains(name)
    }

    /// How many keys were drawn that were never written to the disk.
    pub(crate) fn secret_keys(&self) -> usize {
        let drawn = lock(&self.env.drawn);
        drawn.keys.iter().filter(|name| !self.is_on_disk(name)).count()
    }

    /// How many keys that were derived are the store's: their commitments stand on the disk.
    pub(crate) fn derived_keys(&self) -> usize {
        let state = lock(&self.disk.state);
        state
            .secrets
            .iter()
            .filter(|name| name.starts_with(COMMITMENT))
            .count()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches every key that is drawn, and those that may be derived from it.
#[derive(Debug)]
struct WatchedEnv {
    prefix: String,
    inner: SimulatedEnv,
    drawn: Mutex<Drawn>,
}

#[derive(Debug, Default)]
struct Drawn {
    keys: Vec<String>,
    store: Option<[u8; 16]>,
    /// The last 16 bytes drawn: perhaps the id of a value.
    last_id: [u8; 16],
    last_key: Zeroizing<[u8; KEY_BYTES]>,
}

const COMMITMENT: &str = "commitment to";

impl Env for WatchedEnv {
    fn now(&self) -> Duration {
        self.inner.now()
    }

    fn elapsed(&self) -> Duration {
        self.inner.elapsed()
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), io::Error> {
        self.inner.fill_random(out)?;
        let mut drawn = lock(&self.drawn);
        if let Ok(id) = <[u8; 16]>::try_from(&*out) {
            // The first that a store draws is its own.
            let store = *drawn.store.get_or_insert(id);
            drawn.last_id = id;
            watch_derived("chunks' content key", &drawn.last_key, &[&store, &id]);
        } else if out.len() == KEY_BYTES {
            let name = format!("{}, number {}", self.prefix, drawn.keys.len());
            keystead_canary::watch(&name, out);
            drawn.keys.push(name);
            drawn.last_key.copy_from_slice(out);
            if let Some(store) = drawn.store {
                watch_all_derived(&store, &drawn.last_id, &drawn.last_key);
            }
        }
        Ok(())
    }

    fn sleep(&self, duration: Duration) {
        self.inner.sleep(duration);
    }
}

/// What `docs/format.md` derives from a key, whichever kind of key it is: for the organizations, epochs, secrets and versions
/// that a short life has.
fn watch_all_derived(store: &[u8; 16], last_id: &[u8; 16], key: &[u8; KEY_BYTES]) {
    let org = 1_u32.to_be_bytes();
    for epoch in 1..=12_u32 {
        watch_derived(
            "epoch wrapping key",
            key,
            &[store, &org, &epoch.to_be_bytes(), &[0; 8]],
        );
    }
    for secret in 1..=16_u64 {
        for version in 1..=4_u32 {
            let place = [store, &org[..], &secret.to_be_bytes(), &version.to_be_bytes()];
            watch_derived("content key", key, &place);
        }
    }
    watch_derived("chunks' content key", key, &[store, last_id]);
}

fn watch_derived(what: &str, key: &[u8; KEY_BYTES], context: &[&[u8]]) {
    let label = match what {
        "epoch wrapping key" => "keystead 1 epoch wrapping key",
        _ => "keystead 1 content key",
    };
    let mut hasher = blake3::Hasher::new_derive_key(label);
    hasher.update(key);
    for part in context {
        hasher.update(part);
    }
    let mut derived = Zeroizing::new([0; 2 * KEY_BYTES]);
    hasher.finalize_xof().fill(&mut *derived);
    let name = format!("{what} derived with {}", blake3::hash(&*derived).to_hex());
    keystead_canary::watch(&name, &derived[..KEY_BYTES]);
    keystead_canary::watch(&format!("{COMMITMENT} {name}"), &derived[KEY_BYTES..]);
}

/// A KMS that keeps nothing: a wrap is the plaintext under a mask, which is all that its keys differ in.
#[derive(Debug, Clone)]
struct MaskingKms {
    state: Arc<Mutex<KmsState>>,
}

#[derive(Debug)]
struct KmsState {
    binds_context: bool,
    fails: Option<ErrorCode>,
    another_key: bool,
}

impl KeyBackend for MaskingKms {
    fn describe(&self) -> Description {
        let mut description = Description::new("masking", "1");
        description.capabilities = Capabilities {
            binds_context: lock(&self.state).binds_context,
            ..Capabilities::default()
        };
        description
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        Ok(Box::new(MaskingKey {
            state: self.state.clone(),
            config: request.config.to_owned(),
        }))
    }
}

struct MaskingKey {
    state: Arc<Mutex<KmsState>>,
    config: String,
}

impl MaskingKey {
    fn check(&self) -> Result<(), BackendError> {
        match lock(&self.state).fails {
            Some(code) => Err(BackendError::new(code, "the KMS of the test was told to fail")),
            None => Ok(()),
        }
    }

    fn mask(&self, context: &Context, len: usize) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.config.as_bytes());
        if lock(&self.state).binds_context {
            hasher.update(&context.canonical_bytes());
        }
        let mut mask = vec![0; len];
        hasher.finalize_xof().fill(&mut mask);
        mask
    }
}

impl KeyInstance for MaskingKey {
    fn status(&self, _call: &Call) -> Result<Status, BackendError> {
        self.check()?;
        Ok(Status {
            key_id: "mask".into(),
            detail: String::new(),
        })
    }

    fn wrap(&self, _call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        self.check()?;
        let mut blob = self.mask(context, plaintext.len());
        let tag = blake3::keyed_hash(&[7; 32], &blob);
        blob.iter_mut()
            .zip(plaintext)
            .for_each(|(mask, byte)| *mask ^= byte);
        blob.extend_from_slice(tag.as_bytes());
        Ok(Wrapped {
            blob,
            key_id: "mask".into(),
            metadata: Vec::new(),
        })
    }

    fn unwrap(
        &self,
        _call: &Call,
        context: &Context,
        wrapped: &Wrapped,
    ) -> Result<LockedBytes, BackendError> {
        self.check()?;
        let len = wrapped.blob.len().saturating_sub(32);
        let mask = self.mask(context, len);
        if blake3::keyed_hash(&[7; 32], &mask) != wrapped.blob[len..] {
            return Err(BackendError::new(
                ErrorCode::InvalidCiphertext,
                "not under this key and context",
            ));
        }
        let another = u8::from(lock(&self.state).another_key);
        LockedBytes::fill_with(len, |out| {
            for ((out, sealed), mask) in out.iter_mut().zip(&wrapped.blob).zip(&mask) {
                *out = sealed ^ mask ^ another;
            }
            Ok(())
        })
    }
}

/// A disk in memory that remembers which watched secrets were written to it.
#[derive(Debug, Default)]
struct WatchedDisk {
    state: Mutex<DiskState>,
}

#[derive(Debug, Default)]
struct DiskState {
    bytes: Vec<u8>,
    secrets: BTreeSet<String>,
}

impl Disk for WatchedDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.state).bytes.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        lock(&self.state).bytes.resize(len as usize, 0);
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = lock(&self.state);
        let from = state.bytes.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let secrets = keystead_canary::search(data);
        let mut state = lock(&self.state);
        state.bytes[offset as usize..][..data.len()].copy_from_slice(data);
        state.secrets.extend(secrets);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Values that are made of watched bytes, over and over.
pub(crate) struct Values {
    unit: Zeroizing<[u8; KEY_BYTES]>,
}

impl Values {
    /// Values that are put whole: in a row, in chunks, in several commits.
    pub(crate) const WHOLE: [(&'static str, usize); 5] = [
        ("tiny", 9),
        ("small", 700),
        ("inline", 16_384),
        ("chunked", 200_000),
        ("large", 3_000_000),
    ];

    /// What finds are called that are of a value.
    pub(crate) const NAME: &'static str = "a value";

    pub(crate) fn new(binds_context: bool) -> Self {
        let mut unit = Zeroizing::new(*b"canary-0123456789-abcdefghijklmn");
        unit[6] = if binds_context { b'+' } else { b'-' };
        unit.iter_mut()
            .enumerate()
            .for_each(|(at, byte)| *byte = byte.wrapping_mul(3) ^ (at as u8) << 3);
        keystead_canary::watch(Self::NAME, &*unit);
        Self { unit }
    }

    /// A value of this many bytes, erased when it is dropped.
    pub(crate) fn of(&self, size: usize) -> Zeroizing<Vec<u8>> {
        let mut value = Zeroizing::new(Vec::with_capacity(size));
        value.extend(self.unit.iter().cycle().take(size));
        value
    }
}
