//! Hand-over: an epoch's key, unwrapped by its old KMS, is wrapped by the new one, and the old wraps are erased as soon as that
//! is durable. From then on the new key alone opens the epoch.

use crate::audit::{self, Attribution, AuditEvent};
use crate::env::now_ms;
use crate::error::{Error, Result};
use crate::keyring::cache::{EpochKey, Unwrapped};
use crate::keyring::epoch::{self, EpochPlace};
use crate::keyring::kms::derive_wrapping_key;
use crate::keyring::registry::RegisteredKey;
use crate::keyring::second;
use crate::mutant::{Mutant, planted};
use crate::names::{EpochNumber, KeyName};
use crate::scope::Scope;
use crate::storage::Transaction;
use crate::storage::records::{EpochRecord, HeadRecord, WrapRecord};
use keystead_backend::Wrapped;
use std::collections::BTreeSet;
use std::sync::Arc;

/// An epoch's key, unwrapped by its old KMS and wrapped by the new one.
pub(crate) struct Handed {
    pub(crate) epoch: EpochNumber,
    pub(crate) key: KeyName,
    pub(crate) wrapped: Wrapped,
    pub(crate) epoch_key: Arc<EpochKey>,
    pub(crate) unwrapped: Unwrapped,
}

/// What one round of hand-overs has learned of the KMSs: an epoch that the same keys wrap as one that did not open will not open
/// either, and asking may cost the whole deadline again.
#[derive(Default)]
pub(crate) struct OutOfReach {
    /// The keys that wrap an epoch, in the order in which they are asked. Another order, or one key more, is another fate.
    wraps: BTreeSet<Vec<String>>,
    targets: BTreeSet<String>,
}

impl OutOfReach {
    /// True when an epoch that the same keys wrap did not open.
    pub(crate) fn wraps(&self, record: &EpochRecord) -> bool {
        self.wraps.contains(&wrapping_keys(record))
    }

    /// True when this key did not wrap.
    pub(crate) fn is_target(&self, key: &str) -> bool {
        self.targets.contains(key)
    }

    /// Notes what unwrapping this epoch met, or wrapping it by the target. What says nothing of other epochs is left out.
    pub(crate) fn note(&mut self, record: &EpochRecord, target: &str, error: &Error) {
        let Error::Kms { key, .. } = error else { return };
        if !error.is_retryable() && !error.is_revoked() {
            return;
        }
        if key.as_str() == target {
            self.targets.insert(target.to_owned());
        } else {
            self.wraps.insert(wrapping_keys(record));
        }
    }
}

fn wrapping_keys(record: &EpochRecord) -> Vec<String> {
    record.wraps.iter().map(|wrap| wrap.key.clone()).collect()
}

pub(crate) type UnwrappedEpoch = (RegisteredKey, keystead_backend::LockedBytes);

/// First half of a hand-over: the old KMS unwraps the epoch's key. One KMS call.
pub(crate) fn unwrap_for_hand_over(scope: &Scope, epoch: EpochNumber) -> Result<(UnwrappedEpoch, Unwrapped)> {
    let began = scope.core.keyring.cache.now();
    let unwrapped = scope
        .core
        .keyring
        .unwrap_recorded(scope.org, &scope.organization, epoch)
        .inspect_err(|error| {
            if let Error::Kms { key, source, .. } = error {
                scope.core.keyring.cache.failed((scope.org, epoch), key, source);
            }
        })?;
    Ok((unwrapped, began))
}

/// Second half: the new KMS wraps it, and shows that it opens. Two KMS calls.
pub(crate) fn hand_over(
    scope: &Scope,
    epoch: EpochNumber,
    to: &RegisteredKey,
    (_, epoch_key): UnwrappedEpoch,
    unwrapped: Unwrapped,
) -> Result<Handed> {
    let wrapped = scope.core.keyring.wrap(to, epoch, &epoch_key)?;
    let derived = derive_wrapping_key(scope.store(), to, epoch, &epoch_key)?;
    let epoch_key = Arc::new(EpochKey::new(epoch, &derived.key));
    Ok(Handed {
        epoch,
        key: to.name.clone(),
        wrapped,
        epoch_key,
        unwrapped,
    })
}

impl Handed {
    /// Keeps the epoch's key, under the key that answers for it now.
    pub(crate) fn cache(&self, scope: &Scope) {
        let id = (scope.org, self.epoch);
        scope
            .core
            .keyring
            .cache
            .insert(id, Arc::clone(&self.epoch_key), self.key.clone(), self.unwrapped);
    }
}

/// Puts the new wrap in place of the old ones, which are erased as soon as this is durable.
pub(crate) fn apply_hand_over(
    scope: &Scope,
    transaction: &mut Transaction<'_>,
    head: &mut HeadRecord,
    handed: &Handed,
    by: &Attribution,
) -> Result<()> {
    let at_ms = now_ms(scope.env());
    let place = EpochPlace {
        env: scope.env(),
        store: scope.store(),
        org: scope.org,
    };
    let mut record = epoch::read(transaction, scope.org, handed.epoch)?;
    let second = second::second_key(transaction, scope)?;
    let wrap = epoch::seal_wrap(
        transaction,
        &place,
        handed.epoch,
        &handed.key,
        &handed.wrapped,
        at_ms,
    )?;
    // The second key's wrap holds the same key: it stays.
    let is_second = |wrap: &WrapRecord| second.as_ref().is_some_and(|(key, _)| wrap.key == key.as_str());
    let (kept, old) = std::mem::take(&mut record.wraps)
        .into_iter()
        .partition::<Vec<_>, _>(is_second);
    record.wraps = std::iter::once(wrap).chain(kept).collect();
    if planted(Mutant::WrapKeptAtHandOver) {
        record.wraps.extend_from_slice(&old);
    } else {
        epoch::drop_wraps(transaction, &old)?;
    }
    epoch::write(transaction, scope.org, handed.epoch, &record)?;
    let event = AuditEvent::EpochHandedOver {
        epoch: handed.epoch,
        from: old.into_iter().map(|wrap| wrap.key).collect(),
        to: handed.key.to_string(),
    };
    audit::append(transaction, scope.org, head, by, at_ms, event)
}
