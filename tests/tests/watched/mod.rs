//! A world whose every secret is known and watched: the clock and the randomness, the KMS, the disk, the values.
#![allow(dead_code, reason = "each test file uses its part of this")]

mod life;
mod written;

#[allow(unused_imports, reason = "each test file uses its part of this")]
pub(crate) use life::{live, read_everything, read_everything_well};
#[allow(unused_imports, reason = "each test file uses its part of this")]
pub(crate) use written::{read_damaged, secrets_in};

use keystead::backend::ErrorCode;
use keystead::simulation::Disk;
use keystead::{Backend, Env, Store, StoreOptions};
use keystead_tests::env::SimulatedEnv;
use keystead_tests::masking::MaskingKms;
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
    /// What people were told: every error, in every form.
    told: Arc<Mutex<String>>,
}

impl WatchedWorld {
    pub(crate) fn new(binds_context: bool) -> Self {
        let seed = keystead_tests::env::seed(20) + u64::from(binds_context);
        Self {
            env: Arc::new(WatchedEnv {
                prefix: format!("drawn in world {seed}"),
                inner: SimulatedEnv::forgetful(seed),
                drawn: Mutex::default(),
            }),
            kms: MaskingKms::new(binds_context),
            disk: Arc::default(),
            told: Arc::default(),
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
        self.kms.fail(code);
    }

    /// Unwraps answer a key that was never wrapped.
    pub(crate) fn kms_answers_another_key(&self, another: bool) {
        self.kms.answer_another_key(another);
    }

    /// Long enough for a remembered failure to be forgotten.
    pub(crate) fn pass_time(&self) {
        self.env.inner.advance(Duration::from_secs(2));
    }

    /// Flips a bit of the disk; again, and it is as it was.
    pub(crate) fn flip(&self, byte: usize, bit: u32) {
        lock(&self.disk.state).bytes[byte] ^= 1 << bit;
    }

    /// What stands on the disk, to be [restored](Self::restore_disk).
    pub(crate) fn copy_disk(&self) -> Vec<u8> {
        lock(&self.disk.state).bytes.clone()
    }

    pub(crate) fn restore_disk(&self, bytes: Vec<u8>) {
        lock(&self.disk.state).bytes = bytes;
    }

    pub(crate) fn disk_bytes(&self) -> usize {
        lock(&self.disk.state).bytes.len()
    }

    /// Something failed, as it should; what its error says is kept.
    #[track_caller]
    pub(crate) fn refused<T>(&self, outcome: keystead::Result<T>) {
        self.tell(&outcome.err().expect("it should fail"));
    }

    /// Keeps what an error says: to people, to programmers, and of its causes.
    pub(crate) fn tell(&self, error: &dyn std::error::Error) {
        let mut told = lock(&self.told);
        let mut cause = Some(error);
        while let Some(error) = cause {
            *told += &format!("{error}\n{error:?}\n{error:#?}\n");
            cause = error.source();
        }
    }

    /// Keeps what something shows of itself to programmers.
    pub(crate) fn tell_debug(&self, shown: &dyn std::fmt::Debug) {
        *lock(&self.told) += &format!("{shown:?}\n{shown:#?}\n");
    }

    pub(crate) fn told(&self) -> String {
        lock(&self.told).clone()
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

/// A disk in memory that remembers which watched secrets were written to it.
#[derive(Default)]
struct WatchedDisk {
    state: Mutex<DiskState>,
}

#[derive(Debug, Default)]
struct DiskState {
    bytes: Vec<u8>,
    secrets: BTreeSet<String>,
}

impl std::fmt::Debug for WatchedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WatchedDisk")
    }
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
