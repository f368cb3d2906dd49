//! What the layers above the storage share: the open store's parts, and one organization's place in it.

use crate::audit::Attribution;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::keyring::Keyring;
use crate::keyring::cache::EpochKey;
use crate::names::{EpochNumber, OrganizationId, OrganizationName, StoreId};
use crate::storage::commit::lock;
use crate::storage::records::{HeadRecord, RewrapJobRecord};
use crate::storage::{Committer, Rows, Snapshot, Transaction, tables};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The parts of an open store.
pub(crate) struct Core {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) store: StoreId,
    pub(crate) committer: Arc<Committer>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) limits: Limits,
    /// Changes of an organization's keys and epochs come one after the other: they call a KMS before they commit.
    pub(crate) key_changes: OrganizationLocks,
    /// One thread at a time works on an organization's re-wrap job.
    pub(crate) rewrap_steps: OrganizationLocks,
}

/// Limits that an application may set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// An epoch takes no more wraps than this; long before, its key is rotated.
    pub(crate) wraps_per_epoch_max: u64,
    pub(crate) rewrap_batch: usize,
    /// Batches that one step of a re-wrap moves before others have their turn.
    pub(crate) rewrap_batches_per_step: usize,
}

/// An organization, as the layers below its handle see it: where its rows are, and who acts.
#[derive(Clone)]
pub(crate) struct Scope {
    pub(crate) core: Arc<Core>,
    pub(crate) org: OrganizationId,
    pub(crate) organization: OrganizationName,
    pub(crate) by: Arc<Attribution>,
}

impl Scope {
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.core.committer.snapshot()
    }

    pub(crate) fn env(&self) -> &dyn Env {
        &*self.core.env
    }

    pub(crate) fn store(&self) -> StoreId {
        self.core.store
    }

    pub(crate) fn head(&self, rows: &impl Rows) -> Result<HeadRecord> {
        rows.record(&tables::organization(self.org))?.ok_or_else(|| {
            Error::damaged(
                format!("organization {:?}", self.organization),
                "its head is missing",
            )
        })
    }

    /// A number of the head is the last one there can be. No store comes to that by itself: somebody wrote it.
    pub(crate) fn no_number_left(&self, what: &str) -> Error {
        Error::damaged(
            format!("organization {:?}", self.organization),
            format!("no number is left for another {what}"),
        )
    }

    pub(crate) fn put_head(&self, transaction: &mut Transaction<'_>, head: &HeadRecord) -> Result<()> {
        transaction.put_record(&tables::organization(self.org), head)
    }

    /// The running re-wrap job.
    pub(crate) fn running_job(&self, rows: &impl Rows) -> Result<Option<RewrapJobRecord>> {
        rows.record(&tables::rewrap_job(self.org, false))
    }

    /// An epoch's key: from the cache, or from its KMS.
    pub(crate) fn epoch_key(&self, epoch: EpochNumber) -> Result<Arc<EpochKey>> {
        self.core.keyring.epoch_key(self.org, &self.organization, epoch)
    }

    /// An epoch's key, or why there is none, if that is known without waiting for its KMS.
    pub(crate) fn known_epoch_key(&self, epoch: EpochNumber) -> Option<Result<Arc<EpochKey>>> {
        let keyring = &self.core.keyring;
        keyring.known_epoch_key(self.org, &self.organization, epoch)
    }

    /// The key of the epoch that takes new data keys. [`Error::EpochMoved`] when that changed meanwhile: then the one before
    /// may be retired already, and whatever is said of it is of no matter.
    pub(crate) fn active_epoch_key(&self) -> Result<Arc<EpochKey>> {
        let active = self.head(&*self.snapshot())?.active_epoch;
        match self.epoch_key(active) {
            Err(_) if self.head(&*self.snapshot())?.active_epoch != active => Err(Error::EpochMoved),
            outcome => outcome,
        }
    }

    /// The same organization, acting for somebody else.
    pub(crate) fn acting(&self, by: Attribution) -> Self {
        Self {
            by: Arc::new(by),
            ..self.clone()
        }
    }
}

/// One lock for each organization, without one being kept for each. Who has waited longest goes first: a loop that lets go of it
/// and takes it again does not keep the others out.
#[derive(Default)]
pub(crate) struct OrganizationLocks {
    lines: Mutex<HashMap<OrganizationId, Line>>,
    moved: Condvar,
}

/// Who holds an organization's lock and who waits for it, by numbers that count up.
#[derive(Default)]
struct Line {
    served: u64,
    next: u64,
}

pub(crate) struct OrganizationGuard<'l> {
    locks: &'l OrganizationLocks,
    org: OrganizationId,
}

impl OrganizationLocks {
    pub(crate) fn lock(&self, org: OrganizationId) -> OrganizationGuard<'_> {
        let mut lines = lock(&self.lines);
        let line = lines.entry(org).or_default();
        let number = line.next;
        line.next += 1;
        while lines.get(&org).is_some_and(|line| line.served != number) {
            lines = self.moved.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
        OrganizationGuard { locks: self, org }
    }
}

impl Drop for OrganizationGuard<'_> {
    fn drop(&mut self) {
        let mut lines = lock(&self.locks.lines);
        if let Some(line) = lines.get_mut(&self.org) {
            line.served += 1;
            if line.served == line.next {
                lines.remove(&self.org);
            }
        }
        drop(lines);
        self.locks.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn who_waited_longest_for_an_organization_goes_first_and_nothing_is_kept() {
        let locks = OrganizationLocks::default();
        let (one, other) = (OrganizationId(1), OrganizationId(2));
        let waiting = |number: u64| {
            while lock(&locks.lines)[&one].next <= number {
                std::thread::yield_now();
            }
        };
        let (tell, told) = channel();
        std::thread::scope(|scope| {
            let held = locks.lock(one);
            drop(locks.lock(other));
            for number in 1..=3 {
                let (tell, locks) = (tell.clone(), &locks);
                scope.spawn(move || {
                    let _held = locks.lock(one);
                    tell.send(number).unwrap();
                });
                waiting(number);
            }
            drop(held);
            // It let go, and comes after those who were waiting.
            let _again = locks.lock(one);
            assert_eq!(told.try_iter().collect::<Vec<_>>(), [1, 2, 3]);
        });
        assert!(lock(&locks.lines).is_empty());
    }
}
