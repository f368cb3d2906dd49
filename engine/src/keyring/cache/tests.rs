//! The cache's lifetimes, on a clock that the tests move.

use super::{CachePolicy, EpochKey, EpochKeyCache, Lookup};
use crate::env::Env;
use crate::names::{EpochNumber, KeyName, OrganizationId};
use keystead_backend::{BackendError, ErrorCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A clock that stands still until it is moved; the wall clock may run ahead of the steady one, as after a suspended night.
#[derive(Debug, Default)]
struct Clock {
    steady_ms: AtomicU64,
    asleep_ms: AtomicU64,
    random: Mutex<u8>,
}

impl Env for Clock {
    fn now(&self) -> Duration {
        let asleep = self.asleep_ms.load(Ordering::SeqCst);
        Duration::from_millis(1_000_000 + self.steady_ms.load(Ordering::SeqCst) + asleep)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.steady_ms.load(Ordering::SeqCst))
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), std::io::Error> {
        let mut random = self.random.lock().unwrap();
        *random += 1;
        out.fill(*random);
        Ok(())
    }
}

const LIFETIME_MS: u64 = 10_000;

fn cache(entries_max: usize) -> (Arc<Clock>, Arc<EpochKeyCache>) {
    let clock = Arc::new(Clock::default());
    let policy = CachePolicy {
        lifetime: Duration::from_millis(LIFETIME_MS),
        entries_max,
        failure_lifetime: Duration::from_millis(1000),
    };
    let cache = EpochKeyCache::new(Arc::clone(&clock) as _, policy);
    (clock, cache)
}

fn id(org: u32, epoch: u32) -> (OrganizationId, EpochNumber) {
    (OrganizationId(org), EpochNumber(epoch))
}

fn insert(cache: &Arc<EpochKeyCache>, org: u32, epoch: u32, kms_key: &str) {
    let key = Arc::new(EpochKey::new(EpochNumber(epoch), &[1; 32]));
    cache.insert(id(org, epoch), key, KeyName::stored(kms_key), cache.now());
}

fn error(code: ErrorCode) -> BackendError {
    BackendError::new(code, "a test says so")
}

#[test]
fn a_key_lives_for_its_lifetime_from_its_unwrapping_and_use_does_not_extend_it() {
    let (clock, cache) = cache(10);
    insert(&cache, 1, 1, "k");
    for _ in 0..9 {
        clock.steady_ms.fetch_add(1000, Ordering::SeqCst);
        assert!(matches!(
            cache.lookup(id(1, 1)),
            Lookup::Cached(_) | Lookup::Aging(_)
        ));
    }
    clock.steady_ms.fetch_add(1000, Ordering::SeqCst);
    assert!(matches!(cache.lookup(id(1, 1)), Lookup::Missing));
}

#[test]
fn a_night_asleep_counts() {
    let (clock, cache) = cache(10);
    insert(&cache, 1, 1, "k");
    clock.asleep_ms.fetch_add(LIFETIME_MS, Ordering::SeqCst);
    assert!(matches!(cache.lookup(id(1, 1)), Lookup::Missing));
}

#[test]
fn after_half_of_its_lifetime_one_caller_is_asked_to_renew_it() {
    let (clock, cache) = cache(10);
    insert(&cache, 1, 1, "k");
    clock.steady_ms.store(LIFETIME_MS / 2, Ordering::SeqCst);
    assert!(matches!(cache.lookup(id(1, 1)), Lookup::Aging(_)));
    assert!(
        matches!(cache.lookup(id(1, 1)), Lookup::Cached(_)),
        "the others go on"
    );
}

#[test]
fn an_outage_leaves_the_key_and_asks_again_a_moment_later() {
    let (clock, cache) = cache(10);
    insert(&cache, 1, 1, "k");
    clock.steady_ms.store(LIFETIME_MS / 2, Ordering::SeqCst);
    assert!(matches!(cache.lookup(id(1, 1)), Lookup::Aging(_)));
    cache.failed(id(1, 1), &KeyName::stored("k"), &error(ErrorCode::Unavailable));
    assert!(matches!(cache.lookup(id(1, 1)), Lookup::Cached(_)), "not at once");
    clock.steady_ms.fetch_add(1000, Ordering::SeqCst);
    assert!(matches!(cache.lookup(id(1, 1)), Lookup::Aging(_)));
}

#[test]
fn a_key_that_was_taken_away_goes_at_once_with_all_that_it_had_unwrapped_for_its_organization() {
    let (_, cache) = cache(10);
    insert(&cache, 1, 1, "revoked");
    insert(&cache, 1, 2, "revoked");
    insert(&cache, 1, 3, "other");
    insert(&cache, 2, 1, "revoked");
    cache.failed(
        id(1, 1),
        &KeyName::stored("revoked"),
        &error(ErrorCode::AccessDenied),
    );
    assert!(matches!(cache.lookup(id(1, 1)), Lookup::Failed(..)));
    assert!(matches!(cache.lookup(id(1, 2)), Lookup::Missing));
    assert!(matches!(cache.lookup(id(1, 3)), Lookup::Cached(_)));
    assert!(
        matches!(cache.lookup(id(2, 1)), Lookup::Cached(_)),
        "another organization's key of that name is another key"
    );
}

/// Two unwrappings of one KMS key were in flight; the first to answer said that the key is disabled. The other one's answer,
/// which the KMS gave a moment earlier, put the key back into memory for a whole lifetime.
#[test]
fn an_unwrapping_that_began_before_a_revocation_does_not_bring_the_key_back() {
    let (_, cache) = cache(10);
    let key = |epoch| Arc::new(EpochKey::new(EpochNumber(epoch), &[1; 32]));
    let name = || KeyName::stored("k");
    let began = cache.now();
    cache.failed(id(1, 1), &name(), &error(ErrorCode::KeyDisabled));
    cache.insert(id(1, 2), key(2), name(), began);
    assert!(matches!(cache.lookup(id(1, 2)), Lookup::Missing));
    // Another organization's key, and one that is asked for after the revocation, are kept.
    cache.insert(id(2, 2), key(2), name(), began);
    assert!(matches!(cache.lookup(id(2, 2)), Lookup::Cached(_)));
    cache.insert(id(1, 2), key(2), name(), cache.now());
    assert!(matches!(cache.lookup(id(1, 2)), Lookup::Cached(_)));
}

#[test]
fn an_unwrapping_that_began_before_its_epoch_was_retired_or_all_was_forgotten_is_not_kept() {
    let (_, cache) = cache(10);
    let key = || Arc::new(EpochKey::new(EpochNumber(1), &[1; 32]));
    let began = cache.now();
    cache.evict(id(1, 1));
    cache.insert(id(1, 1), key(), KeyName::stored("k"), began);
    assert!(matches!(cache.lookup(id(1, 1)), Lookup::Missing));
    let began = cache.now();
    cache.clear();
    cache.insert(id(1, 2), key(), KeyName::stored("k"), began);
    assert!(matches!(cache.lookup(id(1, 2)), Lookup::Missing));
}

/// A read that is let in a moment before the store closes, and asks for its epoch's key a moment after, put that key into the cache
/// of the closed store, where it stayed until the last handle went or its lifetime ended.
#[test]
fn a_closed_cache_keeps_no_key_whenever_its_unwrapping_began() {
    let (_, cache) = cache(10);
    let key = |epoch| Arc::new(EpochKey::new(EpochNumber(epoch), &[1; 32]));
    insert(&cache, 1, 1, "k");
    let before = cache.now();
    cache.close();
    assert_eq!(cache.len(), 0);
    cache.insert(id(1, 2), key(2), KeyName::stored("k"), before);
    cache.insert(id(1, 3), key(3), KeyName::stored("k"), cache.now());
    assert_eq!(cache.len(), 0);
    // Forgetting everything does not open it again.
    cache.clear();
    cache.insert(id(1, 4), key(4), KeyName::stored("k"), cache.now());
    assert_eq!(cache.len(), 0);
    assert!(matches!(cache.lookup(id(1, 4)), Lookup::Missing));
}

#[test]
fn what_was_taken_away_is_remembered_within_bounds() {
    let (_, cache) = cache(3);
    let key = || Arc::new(EpochKey::new(EpochNumber(1), &[1; 32]));
    let began = cache.now();
    for org in 1..=20 {
        cache.failed(id(org, 1), &KeyName::stored("k"), &error(ErrorCode::KeyDisabled));
    }
    for org in 1..=20 {
        cache.insert(id(org, 2), key(), KeyName::stored("k"), began);
        assert!(matches!(cache.lookup(id(org, 2)), Lookup::Missing), "{org}");
    }
}

#[test]
fn a_refusal_is_remembered_for_a_moment() {
    let (clock, cache) = cache(10);
    cache.failed(id(1, 1), &KeyName::stored("k"), &error(ErrorCode::KeyDisabled));
    assert!(
        matches!(cache.lookup(id(1, 1)), Lookup::Failed(_, error) if error.code == ErrorCode::KeyDisabled)
    );
    clock.steady_ms.fetch_add(1000, Ordering::SeqCst);
    assert!(matches!(cache.lookup(id(1, 1)), Lookup::Missing));
}

#[test]
fn the_cache_is_bounded_and_the_oldest_unwrapping_leaves_first() {
    let (clock, cache) = cache(3);
    for epoch in 1..=5 {
        insert(&cache, 1, epoch, "k");
        clock.steady_ms.fetch_add(1, Ordering::SeqCst);
    }
    assert_eq!(cache.len(), 3);
    assert!(matches!(cache.lookup(id(1, 2)), Lookup::Missing));
    assert!(matches!(cache.lookup(id(1, 3)), Lookup::Cached(_)));
}

/// Keys stood in the order in which they came in. One whose unwrapping had taken long stood behind younger ones, and the keeper, which
/// stopped at the first that was not due, left it in memory beyond its lifetime.
#[test]
fn a_key_whose_unwrapping_took_long_leaves_memory_before_younger_ones_that_came_in_first() {
    let (clock, cache) = cache(10);
    let key = || Arc::new(EpochKey::new(EpochNumber(1), &[1; 32]));
    let advance = |ms| {
        clock.steady_ms.fetch_add(ms, Ordering::SeqCst);
    };
    let began = cache.now();
    advance(LIFETIME_MS / 4);
    insert(&cache, 1, 1, "k");
    advance(LIFETIME_MS / 4);
    cache.insert(id(2, 1), key(), KeyName::stored("k"), began);
    assert_eq!(cache.len(), 2);
    advance(LIFETIME_MS / 2);
    assert_eq!(
        cache.drop_expired(),
        Some(Duration::from_millis(LIFETIME_MS / 4)),
        "the other one is due then"
    );
    assert_eq!(cache.len(), 1);
    assert!(matches!(cache.lookup(id(2, 1)), Lookup::Missing));

    cache.insert(id(2, 1), key(), KeyName::stored("k"), began);
    assert_eq!(cache.len(), 1, "it is older than keys live");
}

/// The keeper waited for the next expiry that it knew of.
#[test]
fn the_keeper_looks_again_when_a_key_comes_in_that_expires_before_all_others() {
    const LIFETIME: Duration = Duration::from_secs(60);
    let policy = CachePolicy {
        lifetime: LIFETIME,
        entries_max: 10,
        failure_lifetime: Duration::from_secs(1),
    };
    let env = Arc::new(crate::SystemEnv::default());
    let cache = EpochKeyCache::new(Arc::clone(&env) as _, policy);
    insert(&cache, 1, 1, "k");
    // By then the keeper waits, for a minute.
    std::thread::sleep(Duration::from_millis(50));
    let mut began = cache.now();
    began.at.wall -= LIFETIME - Duration::from_millis(300);
    let key = Arc::new(EpochKey::new(EpochNumber(1), &[1; 32]));
    cache.insert(id(2, 1), key, KeyName::stored("k"), began);
    while cache.len() > 1 {
        assert!(env.elapsed() < LIFETIME / 2, "it stays");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!matches!(cache.lookup(id(1, 1)), Lookup::Missing));
}
