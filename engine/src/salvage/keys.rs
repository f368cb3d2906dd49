//! An organization's registered keys, epochs and re-wrap job. A wrap is whole when it opens under the shred key in its cell, which
//! needs no KMS; it gets a cell of its own in the new store.

use super::bulk::Bulk;
use super::organization::Settling;
use super::report::{LossKind, SalvageReport};
use super::witness::Witness;
use crate::env::now_ms;
use crate::error::Result;
use crate::keyring::epoch::{self, EpochPlace};
use crate::names::{EpochNumber, KeyName};
use crate::storage::records::{
    EpochCause, EpochOpened, EpochRecord, HeadRecord, KeyRecord, KeyState, RewrapJobRecord, SourceState,
};
use crate::storage::{Table, tables};
use keystead_backend::Wrapped;
use std::collections::{BTreeMap, BTreeSet};

/// A wrap that opened: the key's name, what its KMS returned, and when.
type OpenWrap = (KeyName, Wrapped, u64);

impl Settling<'_> {
    /// Makes keys and epochs whole, and hears the audit trail where something is missing.
    pub(super) fn keys(&mut self, bulk: &mut Bulk<'_>, report: &mut SalvageReport) -> Result<()> {
        let org = self.org();
        let row_key = tables::organization(org);
        let head: Option<HeadRecord> = bulk.record(&row_key).unwrap_or(None);
        let speaks_of = [
            Table::Heads,
            Table::Keys,
            Table::Epochs,
            Table::RewrapJobs,
            Table::Secrets,
            Table::Deletions,
            Table::Versions,
            Table::DataKeys,
        ];
        if head.is_none() || self.is_touched(&speaks_of) || self.gathered.journal_records_lost > 0 {
            let paths = self.is_touched(&[Table::Secrets]);
            self.witness = Witness::read(bulk, self.gathered, org, head.as_ref(), paths)?;
        }
        if let Some(head) = &head {
            self.rest.old_audit_head = (head.audit_sequence, head.audit_hash);
        }
        self.rest.head = head.unwrap_or_else(|| self.rest.head.clone());
        let keys = self.registered_keys(bulk, report)?;
        self.epochs(bulk, report, &keys)?;
        self.choose_active(bulk, &keys)
    }

    fn registered_keys(
        &self,
        bulk: &mut Bulk<'_>,
        report: &mut SalvageReport,
    ) -> Result<BTreeMap<String, KeyState>> {
        let org = self.org();
        let mut keys = BTreeMap::new();
        bulk.each(Table::Keys, &tables::organization(org), |bulk, key, _| {
            let name = std::str::from_utf8(&key[4..]).unwrap_or_default().to_owned();
            if let Ok(Some(record)) = bulk.record::<KeyRecord>(key) {
                keys.insert(name, record.state);
            }
            Ok(())
        })?;
        if !keys.contains_key(KeyName::MANAGED) {
            // What every organization is born with needs no config.
            let managed = KeyRecord {
                backend: KeyName::MANAGED.into(),
                config: "{}".into(),
                state: KeyState::Enabled,
                created_at_ms: 0,
            };
            bulk.put_record(&tables::with_name(org, KeyName::MANAGED), &managed)?;
            keys.insert(KeyName::MANAGED.into(), KeyState::Enabled);
        }
        self.lost_keys(bulk, report, &keys)?;
        Ok(keys)
    }

    /// Keys of which no record is left, but which trail, epochs or jobs name. Each leaves a disabled one without a config, so that what
    /// names it names something, and no other key gets its name.
    fn lost_keys(
        &self,
        bulk: &mut Bulk<'_>,
        report: &mut SalvageReport,
        keys: &BTreeMap<String, KeyState>,
    ) -> Result<()> {
        let org = self.org();
        let mut named = BTreeSet::new();
        bulk.each(Table::Epochs, &tables::organization(org), |bulk, key, _| {
            if let Ok(Some(record)) = bulk.record::<EpochRecord>(key) {
                named.extend(record.wraps.into_iter().map(|wrap| wrap.key));
                named.extend(
                    Some(record.opened.key).filter(|_| record.opened.cause != EpochCause::RecordLost),
                );
            }
            Ok(())
        })?;
        for finished in [false, true] {
            let job = bulk.record::<RewrapJobRecord>(&tables::rewrap_job(org, finished));
            if let Some(job) = job.unwrap_or(None) {
                named.extend(job.sources.into_iter().map(|source| source.target_key));
                named.extend(job.disabling);
            }
        }
        let told = self.witness.keys_added.iter();
        let mut backends: BTreeMap<&str, &str> = told.map(|(key, backend)| (&**key, &**backend)).collect();
        for name in &named {
            backends.entry(name).or_default();
        }
        for (name, backend) in backends {
            if keys.contains_key(name) {
                continue;
            }
            let what = format!("key {name:?} (backend {backend:?}): its config is gone");
            report.lose(self.loss(LossKind::Key, what));
            let lost = KeyRecord {
                backend: backend.into(),
                config: "{}".into(),
                state: KeyState::Disabled,
                created_at_ms: 0,
            };
            bulk.put_record(&tables::with_name(org, name), &lost)?;
        }
        Ok(())
    }

    fn epochs(
        &mut self,
        bulk: &mut Bulk<'_>,
        report: &mut SalvageReport,
        keys: &BTreeMap<String, KeyState>,
    ) -> Result<()> {
        let org = self.org();
        let at_ms = now_ms(&*self.core.env);
        let mut last = self.rest.head.last_epoch;
        bulk.each(Table::Epochs, &tables::organization(org), |_, key, _| {
            let number = key
                .get(4..)
                .and_then(|number| number.try_into().ok())
                .map_or(0, u32::from_be_bytes);
            last = last.max(EpochNumber(number));
            Ok(())
        })?;
        last = last.max(self.witness.epochs.keys().copied().max().unwrap_or(last));
        let mut previous = [0; 32];
        for number in (1..=last.get()).map(EpochNumber) {
            let read = |bulk: &Bulk<'_>, number| {
                bulk.record::<EpochRecord>(&tables::epoch(org, number))
                    .unwrap_or(None)
            };
            let record = match read(bulk, number) {
                Some(record) => self.epoch(bulk, report, keys, number, record, at_ms)?,
                None if number > EpochNumber(1) && !self.gathered.may_miss_one_more() => {
                    last = self.cut_off_epochs(bulk, report, number, last)?;
                    break;
                }
                None => {
                    let next = number.get().checked_add(1).map(EpochNumber);
                    let next = next.and_then(|next| read(bulk, next));
                    let next = next.map(|next| next.opened.previous_hash);
                    let record = self.lost_epoch(number, previous, next, at_ms);
                    bulk.put_record(&tables::epoch(org, number), &record)?;
                    report.lose(self.loss(LossKind::Epoch, format!("epoch {number}: its record is gone")));
                    record
                }
            };
            previous = epoch::chained_hash(org, number, &record);
        }
        self.rest.head.last_epoch = last;
        self.rest.head.epochs_hash = previous;
        bulk.flush()
    }

    /// Gives up the epochs from `first` on: some number made them more than the file has room for. Says which is the last one now.
    fn cut_off_epochs(
        &self,
        bulk: &mut Bulk<'_>,
        report: &mut SalvageReport,
        first: EpochNumber,
        last: EpochNumber,
    ) -> Result<EpochNumber> {
        let what =
            format!("epochs {first} to {last}: the file never had room for so many, their number is wrong");
        report.lose(self.loss(LossKind::Epoch, what));
        let from = tables::epoch(self.org(), first);
        bulk.each(
            Table::Epochs,
            &tables::organization(self.org()),
            |bulk, key, _| {
                if key >= from.as_slice() {
                    bulk.remove(Table::Epochs, key)?;
                }
                Ok(())
            },
        )?;
        Ok(EpochNumber(first.get() - 1))
    }

    /// Copies an epoch; one that is live with wraps under cells of their own.
    fn epoch(
        &mut self,
        bulk: &mut Bulk<'_>,
        report: &mut SalvageReport,
        keys: &BTreeMap<String, KeyState>,
        number: EpochNumber,
        mut record: EpochRecord,
        at_ms: u64,
    ) -> Result<EpochRecord> {
        let row_key = tables::epoch(self.org(), number);
        if record.retired_at_ms.is_some() {
            record.wraps.clear();
            bulk.put_record(&row_key, &record)?;
            return Ok(record);
        }
        let mut whole: Vec<OpenWrap> = Vec::new();
        let mut reasons = Vec::new();
        for wrap in &record.wraps {
            let (container, store) = (self.damaged.container(), self.core.store);
            match epoch::open_wrap(container, store, self.org(), number, wrap) {
                Ok(wrapped) if keys.contains_key(&wrap.key) => {
                    whole.push((KeyName::stored(&wrap.key), wrapped, wrap.wrapped_at_ms));
                }
                Ok(_) => reasons.push(format!("the config of key {:?} is gone", wrap.key)),
                Err(error) if container.cell_is_damaged(wrap.cell) => {
                    tracing::debug!(%error, "a shred cell is damaged");
                    reasons.push(format!(
                        "the shred cell of its wrap by key {:?} is damaged",
                        wrap.key
                    ));
                }
                Err(_) => reasons.push(format!("its wrap by key {:?} was erased since", wrap.key)),
            }
        }
        record.wraps.clear();
        if whole.is_empty() {
            // Its key is gone for good, which is what retiring an epoch means.
            record.retired_at_ms = Some(at_ms);
            bulk.put_record(&row_key, &record)?;
            let what = format!("the key of epoch {number}: {}", reasons.join("; "));
            report.lose(self.loss(LossKind::Epoch, what));
            return Ok(record);
        }
        let wraps_before = self
            .rest
            .head
            .live_epochs
            .iter()
            .find(|live| live.epoch == number);
        self.rest
            .live
            .insert(number, wraps_before.map_or(0, |live| live.wraps));
        bulk.flush()?;
        self.write_wraps(number, record, whole)
    }

    fn write_wraps(
        &self,
        number: EpochNumber,
        record: EpochRecord,
        whole: Vec<OpenWrap>,
    ) -> Result<EpochRecord> {
        let (scope, org) = (self.scope.clone(), self.org());
        self.core.committer.submit(move |transaction| {
            let place = EpochPlace {
                env: scope.env(),
                store: scope.store(),
                org,
            };
            let mut record = record.clone();
            for (key, wrapped, at_ms) in &whole {
                let wrap = epoch::seal_wrap(transaction, &place, number, key, wrapped, *at_ms)?;
                record.wraps.push(wrap);
            }
            epoch::write(transaction, org, number, &record)?;
            Ok(record)
        })
    }

    /// What stands for an epoch whose record is gone: what the audit trail tells of it, and the hash that the next one names.
    fn lost_epoch(
        &self,
        number: EpochNumber,
        previous_hash: [u8; 32],
        named_by_next: Option<[u8; 32]>,
        at_ms: u64,
    ) -> EpochRecord {
        let told = self.witness.epochs.get(&number);
        let opened = EpochOpened {
            key: told.map_or_else(String::new, |told| told.key.clone()),
            kms_key_id: String::new(),
            opened_at_ms: told.map_or(0, |told| told.opened_at_ms),
            actor: told.and_then(|told| told.by.actor.clone()),
            reason: told.and_then(|told| told.by.reason.clone()),
            cause: EpochCause::RecordLost,
            commitment: [0; 32],
            previous_hash,
        };
        let hash = named_by_next
            .or(told.map(|told| told.hash))
            .unwrap_or_else(|| epoch::hash_of(self.org(), number, &opened));
        EpochRecord {
            opened,
            hash,
            wraps: Vec::new(),
            retired_at_ms: Some(at_ms),
        }
    }

    /// The default key and the epoch that takes new data keys: as the head says, where it is known to be the newest.
    fn choose_active(&mut self, bulk: &mut Bulk<'_>, keys: &BTreeMap<String, KeyState>) -> Result<()> {
        let org = self.org();
        let head = &mut self.rest.head;
        let is_known = !self.gathered.in_hole(Table::Heads, &tables::organization(org));
        if !is_known && let Some(key) = &self.witness.default_key {
            head.default_key.clone_from(key);
        }
        if !keys.contains_key(&head.default_key) {
            head.default_key = KeyName::MANAGED.into();
        }
        if is_known && self.rest.live.contains_key(&head.active_epoch) {
            return Ok(());
        }
        let job: Option<RewrapJobRecord> = bulk.record(&tables::rewrap_job(org, false)).unwrap_or(None);
        let moving: BTreeSet<EpochNumber> = job
            .iter()
            .flat_map(|job| job.sources.iter().map(|source| source.epoch))
            .collect();
        let mut best = None;
        for number in self.rest.live.keys().filter(|number| !moving.contains(number)) {
            let record: Option<EpochRecord> = bulk.record(&tables::epoch(org, *number))?;
            let under_default = record
                .is_some_and(|record| epoch::is_wrapped_by(&record, &KeyName::stored(&head.default_key)));
            best = best.max(Some((under_default, *number)));
        }
        head.active_epoch = match best {
            Some((_, number)) => number,
            // None that stays: one that moves, or one that is gone. Rotating the default key opens a new one.
            None => self.rest.live.keys().copied().max().unwrap_or(head.last_epoch),
        };
        Ok(())
    }

    /// The re-wrap job goes on with what is left of it; a key that waited for a job that is gone is enabled again.
    pub(super) fn job(&mut self, bulk: &mut Bulk<'_>) -> Result<()> {
        let org = self.org();
        let at_ms = now_ms(&*self.core.env);
        let (running, finished) = (tables::rewrap_job(org, false), tables::rewrap_job(org, true));
        let job: Option<RewrapJobRecord> = bulk.record(&running).unwrap_or(None);
        let last: Option<RewrapJobRecord> = bulk.record(&finished).unwrap_or(None);
        let newest = job
            .iter()
            .chain(&last)
            .map(|job| job.number.saturating_add(1))
            .max()
            .unwrap_or(1);
        self.rest.head.next_job = self.rest.head.next_job.max(newest);
        let mut disabling = Vec::new();
        if job.is_some() {
            bulk.remove(Table::RewrapJobs, &running)?;
        }
        // A loose page may hold a job as it was before it was finished.
        let is_over = |job: &RewrapJobRecord| last.as_ref().is_some_and(|last| last.number >= job.number);
        if let Some(mut job) = job.filter(|job| !is_over(job)) {
            let (live, active) = (&self.rest.live, self.rest.head.active_epoch);
            let last_epoch = self.rest.head.last_epoch;
            job.sources.retain(|source| {
                live.contains_key(&source.target) && source.epoch != active && source.epoch <= last_epoch
            });
            for source in &mut job.sources {
                let record: Option<EpochRecord> = bulk.record(&tables::epoch(org, source.epoch))?;
                let target = KeyName::stored(&source.target_key);
                source.state = match record {
                    Some(record) if !live.contains_key(&source.epoch) || record.retired_at_ms.is_some() => {
                        SourceState::Retired
                    }
                    Some(record) if epoch::belongs_to(&record, &target) => SourceState::Rewrap,
                    _ => SourceState::HandOver,
                };
            }
            (job.cursor, job.failed, job.blocked) = (None, 0, None);
            if job
                .sources
                .iter()
                .any(|source| source.state != SourceState::Retired)
            {
                disabling.clone_from(&job.disabling);
                bulk.remove(Table::RewrapJobs, &finished)?;
                bulk.put_record(&running, &job)?;
            } else {
                job.finished_at_ms = Some(at_ms);
                bulk.put_record(&finished, &job)?;
            }
        }
        let mut waiting = Vec::new();
        bulk.each(Table::Keys, &tables::organization(org), |bulk, key, _| {
            let record: Option<KeyRecord> = bulk.record(key)?;
            if let Some(record) = record.filter(|record| record.state == KeyState::Disabling) {
                waiting.push((key.to_vec(), record));
            }
            Ok(())
        })?;
        for (key, mut record) in waiting {
            let name = std::str::from_utf8(&key[4..]).unwrap_or_default();
            if !disabling.iter().any(|disabling| disabling == name) {
                record.state = KeyState::Enabled;
                bulk.put_record(&key, &record)?;
            }
        }
        Ok(())
    }
}
