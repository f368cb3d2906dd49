//! The keys of all organizations: registered keys, epochs, and the cache of unwrapped epoch keys.
//!
//! - [`registry`]: which backends the application registered, and their open instances.
//! - [`calls`]: the threads on which backends run, with deadlines.
//! - [`kms`]: probe, wrap, unwrap.
//! - [`cache`]: epoch keys in memory, for a fixed lifetime.
//! - [`epoch`]: the records of epochs, and their wraps under shred keys.
//! - [`data_key`]: sealing and opening data keys.
//! - [`hand_over`]: an epoch's key goes from one KMS to another.
//! - [`second`]: the second key, which wraps every live epoch as well.
//! - [`job`]: the beginning of a re-wrap job.
//! - [`change`]: add, set default, disable, rotate: what moves an organization to another key.

pub(crate) mod cache;
mod calls;
pub(crate) mod change;
pub(crate) mod data_key;
pub(crate) mod epoch;
pub(crate) mod hand_over;
pub(crate) mod job;
pub(crate) mod kms;
pub(crate) mod registry;
pub(crate) mod second;

use crate::env::Env;
use crate::error::{Error, Result};
use crate::keyring::cache::{CachePolicy, EpochId, EpochKey, EpochKeyCache, Lookup};
use crate::keyring::kms::{Kms, derive_wrapping_key};
use crate::keyring::registry::{RegisteredKey, kms_error};
use crate::keyring::second::StandIns;
use crate::names::{EpochNumber, KeyName, OrganizationId, OrganizationName, StoreId};
use crate::storage::commit::lock;
use crate::storage::records::{EpochRecord, KeyRecord, WrapRecord};
use crate::storage::{Committer, Rows, tables};
use keystead_backend::{BackendError, ErrorClass, ErrorCode, LockedBytes, Wrapped};
use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use subtle::ConstantTimeEq;

/// How often a reader whose snapshot was overtaken by a hand-over or a retirement looks again.
const OVERTAKEN_MAX: usize = 8;
/// Epoch keys that are renewed in the background at once, over all organizations.
const RENEWALS_MAX: usize = 32;

/// The keys of all organizations of a store.
pub(crate) struct Keyring {
    pub(crate) kms: Kms,
    pub(crate) cache: Arc<EpochKeyCache>,
    committer: Arc<Committer>,
    store: StoreId,
    /// Epochs that some thread is unwrapping right now: the others wait for it.
    unwrapping: Mutex<HashSet<EpochId>>,
    unwrapped: Condvar,
    /// Held once by each renewal in the background.
    renewing: Arc<()>,
    pub(crate) standing_in: StandIns,
}

impl Keyring {
    pub(crate) fn new(
        kms: Kms,
        env: Arc<dyn Env>,
        policy: CachePolicy,
        committer: Arc<Committer>,
        store: StoreId,
    ) -> Self {
        Self {
            kms,
            cache: EpochKeyCache::new(Arc::clone(&env), policy),
            committer,
            store,
            unwrapping: Mutex::default(),
            unwrapped: Condvar::new(),
            renewing: Arc::default(),
            standing_in: StandIns::new(env, policy.entries_max),
        }
    }

    /// The key of an epoch: from the cache, or unwrapped by the KMS (one call, however many threads ask).
    pub(crate) fn epoch_key(
        self: &Arc<Self>,
        org: OrganizationId,
        organization: &OrganizationName,
        epoch: EpochNumber,
    ) -> Result<Arc<EpochKey>> {
        loop {
            if let Some(known) = self.known_epoch_key(org, organization, epoch) {
                return known;
            }
            if let Some(_turn) = self.take_turn((org, epoch)) {
                // Whoever had the turn before may have unwrapped it after this thread had looked. One that is aging by now is
                // unwrapped here: that is its renewal.
                return match self.cache.lookup((org, epoch)) {
                    Lookup::Cached(key) => Ok(key),
                    Lookup::Failed(kms_key, error) => Err(failed_before(organization, epoch, kms_key, error)),
                    Lookup::Aging(_) | Lookup::Missing => self.unwrap_epoch(org, organization, epoch),
                };
            }
        }
    }

    /// The key of an epoch, or why there is none, as far as that is known without waiting for its KMS.
    pub(crate) fn known_epoch_key(
        self: &Arc<Self>,
        org: OrganizationId,
        organization: &OrganizationName,
        epoch: EpochNumber,
    ) -> Option<Result<Arc<EpochKey>>> {
        match self.cache.lookup((org, epoch)) {
            Lookup::Cached(key) => Some(Ok(key)),
            Lookup::Aging(key) => {
                self.refresh(org, organization, epoch);
                Some(Ok(key))
            }
            Lookup::Failed(kms_key, error) => Some(Err(failed_before(organization, epoch, kms_key, error))),
            Lookup::Missing => None,
        }
    }

    /// Wraps an epoch's key. Two KMS calls. A key that is found to be taken away is dropped from memory, as by an unwrap.
    pub(crate) fn wrap(
        &self,
        key: &RegisteredKey,
        epoch: EpochNumber,
        epoch_key: &LockedBytes,
    ) -> Result<Wrapped> {
        let wrapped = self.kms.wrap(key, epoch, epoch_key);
        self.honour_revocation(key, wrapped)
    }

    /// Tells whether a key can be used. Three KMS calls. A key that is found to be taken away is dropped from memory.
    pub(crate) fn probe(&self, key: &RegisteredKey) -> Result<()> {
        let probed = self.kms.probe(key);
        self.honour_revocation(key, probed)
    }

    fn honour_revocation<T>(&self, key: &RegisteredKey, outcome: Result<T>) -> Result<T> {
        if let Err(Error::Kms { source, .. }) = &outcome
            && source.code.class() == ErrorClass::Revoked
        {
            self.cache.revoked(key.org, &key.name);
        }
        outcome
    }

    /// Asks the KMS again in the background, on the threads of the backend. Where that cannot be now, a later use does.
    fn refresh(self: &Arc<Self>, org: OrganizationId, organization: &OrganizationName, epoch: EpochNumber) {
        let (keyring, organization) = (Arc::downgrade(self), organization.clone());
        let renew = move || {
            let Some(keyring) = keyring.upgrade() else { return };
            if let Some(_turn) = keyring.take_turn((org, epoch))
                && let Err(error) = keyring.unwrap_epoch(org, &organization, epoch)
            {
                tracing::warn!(%organization, %epoch, %error, "an epoch key could not be renewed");
                keyring.cache.not_renewed((org, epoch));
            }
        };
        if self.cache.is_simulation() {
            return renew();
        }
        // A KMS that hangs holds its renewals for as long as a call takes; there is one for each epoch in use.
        let renewing = Arc::clone(&self.renewing);
        if Arc::strong_count(&renewing) > RENEWALS_MAX + 1 {
            return self.cache.not_renewed((org, epoch));
        }
        let spawned = std::thread::Builder::new()
            .name("keystead-refresh".into())
            .spawn(move || {
                renew();
                drop(renewing);
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread to renew an epoch key; a later use tries again");
            self.cache.not_renewed((org, epoch));
        }
    }

    /// The turn to unwrap an epoch; `None` after another thread had it, whose outcome is in the cache.
    fn take_turn(&self, id: EpochId) -> Option<Turn<'_>> {
        let mut unwrapping = lock(&self.unwrapping);
        if unwrapping.insert(id) {
            return Some(Turn { keyring: self, id });
        }
        while unwrapping.contains(&id) {
            unwrapping = self
                .unwrapped
                .wait(unwrapping)
                .unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    fn unwrap_epoch(
        &self,
        org: OrganizationId,
        organization: &OrganizationName,
        epoch: EpochNumber,
    ) -> Result<Arc<EpochKey>> {
        let began = self.cache.now();
        let (kms_key, epoch_key) = match self.unwrap_recorded(org, organization, epoch) {
            Ok(unwrapped) => unwrapped,
            Err(error) => {
                if let Error::Kms { key, source, .. } = &error {
                    self.cache.failed((org, epoch), key, source);
                }
                return Err(error);
            }
        };
        let derived = derive_wrapping_key(self.store, &kms_key, epoch, &epoch_key)?;
        let key = Arc::new(EpochKey::new(epoch, &derived.key));
        self.cache
            .insert((org, epoch), Arc::clone(&key), kms_key.name, began);
        Ok(key)
    }

    /// Has an epoch's key unwrapped by a key that wraps it, and checks that it is the one that the record commits to: by the
    /// key that the epoch belongs to, and where that one does not answer by the second key, if there is one.
    pub(crate) fn unwrap_recorded(
        &self,
        org: OrganizationId,
        organization: &OrganizationName,
        epoch: EpochNumber,
    ) -> Result<(RegisteredKey, LockedBytes)> {
        let mut overtaken = 0;
        'record: loop {
            let snapshot = self.committer.snapshot();
            let record = epoch::read(&*snapshot, org, epoch)?;
            let sequence = snapshot.sequence;
            // A damaged row of one key does not keep the other from opening the epoch.
            let keys: Vec<Result<RegisteredKey>> = record
                .wraps
                .iter()
                .map(|wrap| read_key(&*snapshot, org, organization, &KeyName::stored(&wrap.key)))
                .collect();
            let either_opens = second::either_opens(&*snapshot, org, &record);
            drop(snapshot);
            let mut refused: Option<Error> = None;
            for (wrap, key) in record.wraps.iter().zip(keys) {
                let opened = epoch::open_wrap(self.committer.container(), self.store, org, epoch, wrap);
                let unwrapped = opened.and_then(|wrapped| {
                    let key = key?;
                    let epoch_key = self.kms.unwrap(&key, epoch, &wrapped)?;
                    self.check_commitment(&key, epoch, &record, &epoch_key)?;
                    Ok((key, epoch_key))
                });
                match unwrapped {
                    Ok((key, epoch_key)) => {
                        self.standing_in.answered(&key, refused);
                        return Ok((key, epoch_key));
                    }
                    // What its old KMS says of it counts no more, nor that its cell was erased.
                    Err(_) if overtaken < OVERTAKEN_MAX && self.was_replaced(org, epoch, wrap, sequence) => {
                        overtaken += 1;
                        continue 'record;
                    }
                    Err(error) if second::asks_on(&error, either_opens) => {
                        refused = Some(second::worse(refused, error));
                    }
                    Err(error) => return Err(error),
                }
            }
            return Err(refused.unwrap_or_else(|| {
                Error::damaged(
                    format!("epoch {epoch} of organization {organization:?}"),
                    "a data key refers to it, but it is retired",
                )
            }));
        }
    }

    /// True when a wrap that the snapshot of `sequence` held is the epoch's no more: it was handed over since, or retired.
    fn was_replaced(
        &self,
        org: OrganizationId,
        epoch: EpochNumber,
        wrap: &WrapRecord,
        sequence: u64,
    ) -> bool {
        let newest = self.committer.snapshot();
        newest.sequence != sequence
            && epoch::read(&*newest, org, epoch).is_ok_and(|record| !record.wraps.contains(wrap))
    }

    /// AES-GCM-SIV does not commit to its key: a wrong epoch key is told from damaged data here, and named.
    fn check_commitment(
        &self,
        key: &RegisteredKey,
        epoch: EpochNumber,
        record: &EpochRecord,
        epoch_key: &LockedBytes,
    ) -> Result<()> {
        let derived = derive_wrapping_key(self.store, key, epoch, epoch_key)?;
        if bool::from(derived.commitment.as_bytes().ct_eq(&record.opened.commitment)) {
            return Ok(());
        }
        let error = BackendError::new(
            ErrorCode::WrongKey,
            "the KMS returned another key than the one of this epoch",
        );
        Err(kms_error(key, format!("unwrap epoch {epoch}"), error))
    }

    pub(crate) fn store(&self) -> StoreId {
        self.store
    }
}

/// Ends a thread's turn to unwrap, whatever came of it.
struct Turn<'k> {
    keyring: &'k Keyring,
    id: EpochId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.keyring.unwrapping).remove(&self.id);
        self.keyring.unwrapped.notify_all();
    }
}

/// What an unwrap that failed a moment ago answers to others.
fn failed_before(
    organization: &OrganizationName,
    epoch: EpochNumber,
    key: KeyName,
    source: BackendError,
) -> Error {
    Error::Kms {
        organization: organization.clone(),
        key,
        doing: format!("unwrap epoch {epoch}"),
        source,
    }
}

/// A registered key with all that is needed to call its KMS.
pub(crate) fn read_key(
    rows: &impl Rows,
    org: OrganizationId,
    organization: &OrganizationName,
    name: &KeyName,
) -> Result<RegisteredKey> {
    let record: KeyRecord = rows
        .record(&tables::with_name(org, name.as_str()))?
        .ok_or_else(|| Error::KeyNotFound {
            organization: organization.clone(),
            key: name.clone(),
        })?;
    Ok(RegisteredKey {
        org,
        organization: organization.clone(),
        name: name.clone(),
        backend: record.backend,
        config: record.config,
    })
}
