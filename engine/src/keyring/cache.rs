//! The cache of epoch keys: bounded, each with a lifetime that is counted from its unwrapping and that use does not
//! extend.
//!
//! A key serves for [`CachePolicy::lifetime`] at most. After half of it the next use asks the KMS again in the background:
//! if the KMS answers, a new lifetime begins (it is a new unwrapping); if it is out of reach, the old key serves for the
//! rest of its lifetime, which is the grace that an outage has; if it says that the key was taken away, the key is dropped at
//! once. A keeper thread drops what has expired though nobody asks; it ends when nothing is left to keep.

use crate::env::Env;
use crate::mutant::{Mutant, planted};
use crate::names::{EpochNumber, KeyName, OrganizationId};
use keystead_backend::{BackendError, ErrorClass, LockedBytes};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

/// How long, and how many, epoch keys stay in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CachePolicy {
    pub(crate) lifetime: Duration,
    pub(crate) entries_max: usize,
    /// How long a refusal or an outage is remembered before the KMS is asked again.
    pub(crate) failure_lifetime: Duration,
}

/// What an unwrapped epoch key is used for: the key that wraps data keys, in locked memory.
pub(crate) struct EpochKey {
    pub(crate) epoch: EpochNumber,
    wrapping: LockedBytes,
}

impl EpochKey {
    pub(crate) fn new(epoch: EpochNumber, wrapping: &[u8; 32]) -> Self {
        Self {
            epoch,
            wrapping: LockedBytes::copy_from(wrapping),
        }
    }

    pub(crate) fn wrapping_key(&self) -> &[u8; 32] {
        self.wrapping
            .as_slice()
            .try_into()
            .expect("it was made of 32 bytes")
    }
}

impl std::fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EpochKey({})", self.epoch)
    }
}

pub(crate) type EpochId = (OrganizationId, EpochNumber);

/// What the cache knows of an epoch's key.
pub(crate) enum Lookup {
    Cached(Arc<EpochKey>),
    /// Serves still, and this caller is the one to ask the KMS again.
    Aging(Arc<EpochKey>),
    /// The KMS refused, or was out of reach, a moment ago.
    Failed(KeyName, BackendError),
    Missing,
}

#[derive(Clone, Copy)]
struct Instant {
    /// Two clocks: the one that never goes back may stand still while the machine sleeps.
    elapsed: Duration,
    wall: Duration,
}

impl Instant {
    fn now(env: &dyn Env) -> Self {
        Self {
            elapsed: env.elapsed(),
            wall: env.now(),
        }
    }

    fn age(self, now: Self) -> Duration {
        now.elapsed
            .saturating_sub(self.elapsed)
            .max(now.wall.saturating_sub(self.wall))
    }
}

struct Entry {
    key: Arc<EpochKey>,
    kms_key: KeyName,
    unwrapped: Instant,
    refreshing: bool,
    /// When asking again last failed in an outage.
    refresh_failed: Option<Instant>,
}

struct Failure {
    kms_key: KeyName,
    error: BackendError,
    at: Instant,
}

#[derive(Default)]
struct Entries {
    keys: HashMap<EpochId, Entry>,
    /// In the order of their unwrapping, which is the order of their expiry. They do not come in it: an unwrapping that began first
    /// may end last.
    order: VecDeque<EpochId>,
    failures: HashMap<EpochId, Failure>,
    /// Counts what may not be outlived by an unwrapping that was in flight when it happened: revocations, retirements, clearings.
    generation: u64,
    /// The generation at which each of these happened last. What is left out here is covered by `floor`.
    gone: HashMap<Gone, u64>,
    /// An unwrapping that began before this generation is not kept, whatever it was of.
    floor: u64,
    /// The store is closed: nothing is kept any more, whenever its unwrapping began.
    closed: bool,
}

/// What an unwrapping in flight may not bring back.
#[derive(PartialEq, Eq, Hash)]
enum Gone {
    /// Everything that a KMS key unwraps for an organization: it was taken away.
    Key(OrganizationId, KeyName),
    /// An epoch: it was retired.
    Epoch(EpochId),
}

/// The cache. Shared by all organizations of a store.
pub(crate) struct EpochKeyCache {
    env: Arc<dyn Env>,
    policy: CachePolicy,
    entries: RwLock<Entries>,
    keeper: Arc<Keeper>,
}

#[derive(Default)]
struct Keeper {
    state: Mutex<KeeperState>,
    wake: Condvar,
}

#[derive(Default)]
struct KeeperState {
    running: bool,
    stop: bool,
    /// A key came in that expires before all others.
    sooner: bool,
}

impl EpochKeyCache {
    pub(crate) fn new(env: Arc<dyn Env>, policy: CachePolicy) -> Arc<Self> {
        Arc::new(Self {
            env,
            policy,
            entries: RwLock::default(),
            keeper: Arc::default(),
        })
    }

    pub(crate) fn now(&self) -> Unwrapped {
        Unwrapped {
            at: Instant::now(&*self.env),
            generation: self
                .entries
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .generation,
        }
    }

    /// Costs a shared lock and two looks at the clock.
    pub(crate) fn lookup(&self, id: EpochId) -> Lookup {
        let now = Instant::now(&*self.env);
        if planted(Mutant::CacheExtendedByUse)
            && let Some(entry) = self.write().keys.get_mut(&id)
        {
            entry.unwrapped = now;
        }
        {
            let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
            match entries.keys.get(&id) {
                Some(entry) => {
                    let age = entry.unwrapped.age(now);
                    let waits = entry.refreshing
                        || entry
                            .refresh_failed
                            .is_some_and(|at| at.age(now) < self.policy.failure_lifetime);
                    if age < self.policy.lifetime / 2 || (waits && age < self.policy.lifetime) {
                        return Lookup::Cached(Arc::clone(&entry.key));
                    }
                }
                None => match entries.failures.get(&id) {
                    Some(failure) if failure.at.age(now) < self.policy.failure_lifetime => {
                        return Lookup::Failed(failure.kms_key.clone(), failure.error.clone());
                    }
                    _ => return Lookup::Missing,
                },
            }
        }
        let mut entries = self.write();
        let Some(entry) = entries.keys.get_mut(&id) else {
            return Lookup::Missing;
        };
        if entry.unwrapped.age(now) >= self.policy.lifetime && !planted(Mutant::CacheUnending) {
            entries.remove(id);
            return Lookup::Missing;
        }
        let first = !std::mem::replace(&mut entry.refreshing, true);
        let key = Arc::clone(&entry.key);
        if first {
            Lookup::Aging(key)
        } else {
            Lookup::Cached(key)
        }
    }

    /// Keeps a key whose unwrapping by `kms_key` began at `unwrapped`, unless that is longer ago than keys live.
    pub(crate) fn insert(
        self: &Arc<Self>,
        id: EpochId,
        key: Arc<EpochKey>,
        kms_key: KeyName,
        unwrapped: Unwrapped,
    ) {
        let now = Instant::now(&*self.env);
        let age = unwrapped.at.age(now);
        let mut entries = self.write();
        if entries.closed || age >= self.policy.lifetime || entries.was_overtaken(id, &kms_key, &unwrapped) {
            return;
        }
        entries.failures.remove(&id);
        entries.remove(id);
        while entries.order.len() >= self.policy.entries_max {
            let Some(oldest) = entries.order.front().copied() else {
                break;
            };
            entries.remove(oldest);
        }
        entries.keys.insert(
            id,
            Entry {
                key,
                kms_key,
                unwrapped: unwrapped.at,
                refreshing: false,
                refresh_failed: None,
            },
        );
        let older = |other: &EpochId| {
            let other = entries.keys.get(other);
            other.is_none_or(|other| other.unwrapped.age(now) >= age)
        };
        let place = entries.order.iter().rposition(older).map_or(0, |place| place + 1);
        entries.order.insert(place, id);
        drop(entries);
        self.start_keeper(place == 0);
    }

    /// Notes what the KMS said. A key that was taken away is dropped at once, with everything of the organization that
    /// the same KMS key had unwrapped; in an outage what is cached serves on, and the next use asks again.
    pub(crate) fn failed(&self, id: EpochId, kms_key: &KeyName, error: &BackendError) {
        let now = Instant::now(&*self.env);
        let mut entries = self.write();
        let is_outage = error.code.class() == ErrorClass::Retryable && !planted(Mutant::OutageAsRevocation);
        if is_outage || planted(Mutant::RevocationAsOutage) {
            if let Some(entry) = entries.keys.get_mut(&id) {
                entry.refreshing = false;
                entry.refresh_failed = Some(now);
                return;
            }
        } else {
            entries.remove(id);
        }
        if error.code.class() == ErrorClass::Revoked && !planted(Mutant::RevocationOfOneEpoch) {
            entries.take_away(id.0, kms_key, self.policy.entries_max);
        }
        if entries.failures.len() >= self.policy.entries_max {
            entries.failures.clear();
        }
        entries.failures.insert(
            id,
            Failure {
                kms_key: kms_key.clone(),
                error: error.clone(),
                at: now,
            },
        );
    }

    /// Notes that a renewal came to nothing, and not by the KMS's word: the key serves on, and a use after a moment asks again.
    pub(crate) fn not_renewed(&self, id: EpochId) {
        let now = Instant::now(&*self.env);
        if let Some(entry) = self.write().keys.get_mut(&id) {
            entry.refreshing = false;
            entry.refresh_failed = Some(now);
        }
    }

    /// Drops everything of the organization that this KMS key had unwrapped.
    pub(crate) fn revoked(&self, org: OrganizationId, kms_key: &KeyName) {
        self.write().take_away(org, kms_key, self.policy.entries_max);
    }

    pub(crate) fn evict(&self, id: EpochId) {
        let mut entries = self.write();
        entries.remove(id);
        entries.failures.remove(&id);
        entries.note_gone(Gone::Epoch(id), self.policy.entries_max);
    }

    /// Drops every key. In-flight operations finish with what they hold.
    pub(crate) fn clear(&self) {
        self.write().clear();
    }

    /// Drops every key, and keeps none from now on: an operation that was let in before the store closed may ask a KMS after it.
    pub(crate) fn close(&self) {
        let mut entries = self.write();
        entries.clear();
        entries.closed = true;
    }

    pub(crate) fn len(&self) -> usize {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .keys
            .len()
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_expired(&self) -> Option<Duration> {
        let now = Instant::now(&*self.env);
        let mut entries = self.write();
        while let Some(oldest) = entries.order.front().copied() {
            let age = entries
                .keys
                .get(&oldest)
                .map_or(self.policy.lifetime, |entry| entry.unwrapped.age(now));
            if age < self.policy.lifetime {
                return Some(self.policy.lifetime - age);
            }
            entries.remove(oldest);
        }
        None
    }

    pub(crate) fn is_simulation(&self) -> bool {
        self.env.is_simulation()
    }

    /// Has a keeper; one that waits for a later expiry looks again.
    fn start_keeper(self: &Arc<Self>, sooner: bool) {
        if self.is_simulation() {
            return;
        }
        let mut state = self.keeper.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut state.running, true) {
            if sooner {
                state.sooner = true;
                self.keeper.wake.notify_all();
            }
            return;
        }
        let (cache, keeper) = (Arc::downgrade(self), Arc::clone(&self.keeper));
        let spawned = std::thread::Builder::new()
            .name("keystead-keeper".into())
            .spawn(move || keep(&cache, &keeper));
        // Without the thread a key is still not used beyond its lifetime; it only stays in memory until it is asked for.
        state.running = spawned.is_ok();
    }
}

fn keep(cache: &Weak<EpochKeyCache>, keeper: &Keeper) {
    loop {
        // The cache is held before the keeper's lock and never inside of it: dropping it takes that lock.
        let next = cache.upgrade().and_then(|cache| cache.drop_expired());
        let mut state = keeper.state.lock().unwrap_or_else(PoisonError::into_inner);
        match next {
            Some(_) if std::mem::take(&mut state.sooner) && !state.stop => {}
            Some(next) if !state.stop => {
                drop(
                    keeper
                        .wake
                        .wait_timeout(state, next)
                        .unwrap_or_else(PoisonError::into_inner),
                );
            }
            _ => {
                state.running = false;
                drop(state);
                // A key that came in just now found a keeper running: keep on for it.
                if let Some(cache) = cache.upgrade().filter(|cache| cache.len() > 0) {
                    cache.start_keeper(false);
                }
                return;
            }
        }
    }
}

impl Drop for EpochKeyCache {
    fn drop(&mut self) {
        self.keeper
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stop = true;
        self.keeper.wake.notify_all();
    }
}

impl Entries {
    fn clear(&mut self) {
        let generation = self.generation + 1;
        *self = Self {
            generation,
            floor: generation,
            closed: self.closed,
            ..Self::default()
        };
    }

    /// A KMS key was taken away: everything of the organization that it unwrapped goes, and what it is still unwrapping is not
    /// kept.
    fn take_away(&mut self, org: OrganizationId, kms_key: &KeyName, most: usize) {
        let all: Vec<EpochId> = self
            .keys
            .iter()
            .filter(|(id, entry)| id.0 == org && entry.kms_key == *kms_key)
            .map(|(id, _)| *id)
            .collect();
        all.into_iter().for_each(|id| self.remove(id));
        self.note_gone(Gone::Key(org, kms_key.clone()), most);
    }

    fn note_gone(&mut self, gone: Gone, most: usize) {
        self.generation += 1;
        if self.gone.len() >= most {
            self.gone.clear();
            self.floor = self.generation;
        }
        self.gone.insert(gone, self.generation);
    }

    /// True when the key was taken away, or the epoch retired, after this unwrapping began.
    fn was_overtaken(&self, id: EpochId, kms_key: &KeyName, unwrapped: &Unwrapped) -> bool {
        let after = |gone| self.gone.get(&gone).is_some_and(|at| unwrapped.generation < *at);
        unwrapped.generation < self.floor || after(Gone::Epoch(id)) || after(Gone::Key(id.0, kms_key.clone()))
    }

    fn remove(&mut self, id: EpochId) {
        if self.keys.remove(&id).is_some() {
            if self.order.front() == Some(&id) {
                self.order.pop_front();
            } else {
                self.order.retain(|other| *other != id);
            }
        }
    }
}

/// When an unwrapping began: its lifetime is counted from here, and what is taken away after it is not brought back by it.
#[derive(Clone, Copy)]
pub(crate) struct Unwrapped {
    at: Instant,
    generation: u64,
}

#[cfg(test)]
mod tests;
