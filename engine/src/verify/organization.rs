//! An organization's head, names, audit trail, epochs, keys and job.

use super::{Place, Verifier, VerifyProgress};
use crate::audit::{self, AuditEvent};
use crate::error::{Error, Result};
use crate::keyring::{change, epoch};
use crate::names::{EpochNumber, KeyName, SecretPath, Version};
use crate::organization::Organization;
use crate::scope::Scope;
use crate::storage::records::{
    EpochCause, EpochRecord, HeadRecord, KeyRecord, OrganizationNameRecord, RewrapJobRecord, SecretRecord,
    SourceState,
};
use crate::storage::{Rows, Snapshot, Table, tables};
use std::collections::HashMap;
use std::ops::ControlFlow;

impl<P: FnMut(VerifyProgress)> Verifier<'_, P> {
    pub(super) fn organization(&mut self, organization: &Organization) -> Result<()> {
        let scope = organization.scope().clone();
        let place = Place::of(&scope.organization);
        let snapshot = scope.snapshot();
        let index: Result<Option<OrganizationNameRecord>> =
            snapshot.record(scope.organization.as_str().as_bytes());
        match index {
            Ok(Some(index)) if index.id == scope.org.0 => {}
            Ok(_) => self.problem(
                &place,
                "its name leads to another organization, or nowhere".into(),
            ),
            Err(error) => self.note(&place, Err(error))?,
        }
        let head = match scope.head(&*snapshot) {
            Ok(head) => head,
            // What hangs on the head cannot be checked; the secrets can be.
            Err(error) => {
                self.note(&place, Err(error))?;
                return self.secrets(&scope, &snapshot, None);
            }
        };
        let salvaged = match self.audit(&scope, &*snapshot, &head) {
            Ok(salvaged) => salvaged,
            Err(error) => {
                self.note(&place, Err(error))?;
                false
            }
        };
        let keys: HashMap<String, KeyRecord> = match change::keys(&*snapshot, &scope) {
            Ok(keys) => keys
                .into_iter()
                .map(|(name, key)| (name.to_string(), key))
                .collect(),
            Err(error) => {
                self.note(&place, Err(error))?;
                HashMap::new()
            }
        };
        if !keys.contains_key(&head.default_key) {
            self.problem(
                &place,
                format!("its default key {:?} is not there", head.default_key),
            );
        }
        let epochs = self.epochs(&scope, &snapshot, &head, &keys, salvaged);
        self.note(&place, epochs)?;
        for finished in [false, true] {
            let job = self.job(&scope, &snapshot, &head, &keys, finished);
            self.note(&place, job)?;
        }
        self.secrets(&scope, &snapshot, Some(&head))
    }

    /// The audit trail, against its head and against the rows it tells of; whether it tells of a salvage.
    fn audit(&mut self, scope: &Scope, rows: &impl Rows, head: &HeadRecord) -> Result<bool> {
        let (mut count, mut last, mut salvaged) = (0, [0; 32], false);
        let walked = audit::walk(rows, scope.org, 0, |record, hash| {
            count += 1;
            last = hash;
            salvaged |= matches!(record.event, AuditEvent::Salvaged { .. });
            let fault = missing_of(scope, rows, &record.event)?;
            if let Some((path, version, what)) = fault {
                let what = format!("{what}, as audit record {} says", record.sequence);
                let place = Place::of(&scope.organization);
                let path = path.as_deref().map(SecretPath::stored);
                let place = path.as_ref().map_or(place, |path| place.path(path));
                self.problem(&version.map_or(place, |version| place.version(version)), what);
            }
            Ok(ControlFlow::Continue(()))
        });
        self.report.audit_records += count;
        walked?;
        if count != head.audit_sequence || last != head.audit_hash {
            let what = format!(
                "its audit trail ends at record {count}; its head says {}, or another hash",
                head.audit_sequence
            );
            self.problem(&Place::of(&scope.organization), what);
        }
        Ok(salvaged)
    }

    /// The chain of epochs; which of them are live, and what wraps those.
    fn epochs(
        &mut self,
        scope: &Scope,
        snapshot: &Snapshot,
        head: &HeadRecord,
        keys: &HashMap<String, KeyRecord>,
        salvaged: bool,
    ) -> Result<()> {
        let name = scope.organization.clone();
        let place = Place::of(&name);
        let second = keys.iter().find(|(_, key)| key.state.is_second());
        let second = second.map(|(name, _)| KeyName::stored(name));
        let mut waits_for_second = None;
        let (mut number, mut previous) = (0, [0; 32]);
        let prefix = tables::organization(scope.org);
        snapshot.scan_prefix(Table::Epochs, &prefix, |key, row| {
            number += 1;
            let epoch = EpochNumber(number);
            self.report.epochs += 1;
            if key != tables::epoch(scope.org, epoch) {
                return Err(Error::damaged(
                    format!("epoch {epoch}"),
                    "it is missing, or its key is odd",
                ));
            }
            let record: EpochRecord = crate::storage::records::decode(snapshot.place(), key, row)?;
            let hash = epoch::chained_hash(scope.org, epoch, &record);
            if record.opened.previous_hash != previous || record.hash != hash {
                self.problem(
                    &place,
                    format!("epoch {epoch} does not chain to the one before it"),
                );
            }
            previous = record.hash;
            let live = head.live_epochs.iter().find(|live| live.epoch == epoch);
            for what in faults_of_epoch(&record, live.is_some(), keys) {
                self.problem(&place, format!("epoch {epoch} {what}"));
            }
            if let Some(second) = &second
                && live.is_some()
                && !epoch::is_wrapped_by(&record, second)
            {
                waits_for_second = Some((epoch, second));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if let Some((epoch, second)) = waits_for_second
            && scope.running_job(snapshot).is_ok_and(|job| job.is_none())
        {
            let what = format!(
                "epoch {epoch} is not wrapped by the second key, {:?}, and no job is to see to that",
                second.as_str()
            );
            self.problem(&place, what);
        }
        if EpochNumber(number) != head.last_epoch || previous != head.epochs_hash {
            let what = format!(
                "its epochs end at {number}; its head says {}, or another hash",
                head.last_epoch
            );
            self.problem(&place, what);
        }
        let mut seen = super::Numbers::default();
        for live in &head.live_epochs {
            if live.epoch.get() == 0
                || live.epoch > head.last_epoch
                || !seen.insert(u64::from(live.epoch.get()))
            {
                self.problem(
                    &place,
                    format!(
                        "its head names the live epoch {} that is not there, or twice",
                        live.epoch
                    ),
                );
            }
            if live.wraps < live.references {
                let what = format!(
                    "epoch {} counts {} data keys and fewer wraps, {}",
                    live.epoch, live.references, live.wraps
                );
                self.problem(&place, what);
            }
            // Where there are data keys, opening them tells. An epoch without any may be about to be retired: then the key that
            // wraps it is not to be asked any more.
            if self.options.open_values && live.references == 0 && live.epoch == head.active_epoch {
                match scope.epoch_key(live.epoch) {
                    Ok(_) => {}
                    Err(error @ (Error::Kms { .. } | Error::BackendNotRegistered { .. })) => {
                        self.unopened(&place, error.to_string());
                    }
                    // It was retired since.
                    Err(_) if scope.snapshot().sequence != snapshot.sequence => {}
                    Err(error) => self.note(&place, Err(error))?,
                }
            }
        }
        let active_lives = head
            .live_epochs
            .iter()
            .any(|live| live.epoch == head.active_epoch);
        // A salvage that found the active epoch's key gone leaves the organization without one until a rotation.
        if !active_lives && !salvaged {
            self.problem(
                &place,
                format!("its active epoch {} is not live", head.active_epoch),
            );
        }
        Ok(())
    }

    /// A job against the epochs and keys that it names.
    fn job(
        &mut self,
        scope: &Scope,
        snapshot: &Snapshot,
        head: &HeadRecord,
        keys: &HashMap<String, KeyRecord>,
        finished: bool,
    ) -> Result<()> {
        let Some(job) = snapshot.record::<RewrapJobRecord>(&tables::rewrap_job(scope.org, finished))? else {
            return Ok(());
        };
        let name = scope.organization.clone();
        let mut fault = |what: String| {
            self.problem(&Place::of(&name), format!("re-wrap job {} {what}", job.number));
        };
        if job.number >= head.next_job {
            fault(format!(
                "has a number that was not given out: the next is {}",
                head.next_job
            ));
        }
        if finished != job.finished_at_ms.is_some() {
            fault("stands among the finished ones and is not, or the other way round".into());
        }
        let is_live = |epoch| head.live_epochs.iter().any(|live| live.epoch == epoch);
        for source in &job.sources {
            if source.epoch > head.last_epoch || source.target > head.last_epoch {
                fault(format!(
                    "moves epoch {} to {}: not both are there",
                    source.epoch, source.target
                ));
            }
            let retired = source.state == SourceState::Retired;
            if !finished && retired == is_live(source.epoch) {
                fault(format!(
                    "and the head do not agree whether epoch {} is retired",
                    source.epoch
                ));
            }
            if !finished && !retired && !is_live(source.target) {
                fault(format!(
                    "moves data keys to epoch {}, which is retired",
                    source.target
                ));
            }
            if finished && !retired {
                fault(format!("is finished, but not done with epoch {}", source.epoch));
            }
            if !keys.contains_key(&source.target_key) {
                fault(format!(
                    "names the key {:?}, which is not there",
                    source.target_key
                ));
            }
        }
        for key in &job.disabling {
            if !keys.contains_key(key) {
                fault(format!("is to disable the key {key:?}, which is not there"));
            }
        }
        Ok(())
    }
}

/// At which path, in which version, and what.
type Missing = (Option<String>, Option<Version>, &'static str);

/// What a record of the trail says was done, and the rows do not show. So whoever takes a row away, or puts an older one in
/// its place, must write the trail anew as well, which a checkpoint shows.
fn missing_of(scope: &Scope, rows: &impl Rows, event: &AuditEvent) -> Result<Option<Missing>> {
    let secret = |path: &str| -> Option<SecretRecord> {
        // One that cannot be read is reported where the secrets are walked.
        rows.record(&tables::with_name(scope.org, path))
            .unwrap_or_default()
    };
    let fault = match event {
        AuditEvent::VersionPut { path, version } => {
            let there = rows.get_with(Table::Secrets, &tables::with_name(scope.org, path), |_| Ok(()))?;
            match (there, secret(path)) {
                (None, _) => Some("the secret is not there, but was put"),
                (_, Some(secret)) if secret.latest < *version => {
                    Some("the version is not there, but was put")
                }
                _ => None,
            }
            .map(|what| (Some(path.clone()), Some(*version), what))
        }
        AuditEvent::VersionDestroyed { path, version, .. } => match secret(path) {
            Some(secret) => {
                let key = tables::version(scope.org, secret.secret_id, *version);
                let has_key = rows.get_with(Table::DataKeys, &key, |_| Ok(()))?.is_some();
                has_key.then(|| {
                    (
                        Some(path.clone()),
                        Some(*version),
                        "the version is there, but was destroyed",
                    )
                })
            }
            None => None,
        },
        AuditEvent::EpochOpened { epoch, hash, .. } => {
            let record: Option<EpochRecord> =
                rows.record(&tables::epoch(scope.org, *epoch)).unwrap_or_default();
            // In the place of a lost record stands one that says so.
            let other = record
                .is_some_and(|record| record.opened.cause != EpochCause::RecordLost && record.hash != *hash);
            other.then_some((None, None, "an epoch is another one than was opened"))
        }
        _ => None,
    };
    Ok(fault)
}

fn faults_of_epoch(record: &EpochRecord, live: bool, keys: &HashMap<String, KeyRecord>) -> Vec<String> {
    let mut faults = Vec::new();
    if live == record.retired_at_ms.is_some() {
        faults.push("is retired and live, or neither".into());
    }
    if live == record.wraps.is_empty() {
        faults.push(if live {
            "is live, but nothing wraps its key".into()
        } else {
            "is retired, but its key is wrapped still".into()
        });
    }
    let wraps = record.wraps.iter().map(|wrap| &wrap.key);
    // Of a record that was lost, nobody knows the key.
    let opened = (record.opened.cause != EpochCause::RecordLost).then_some(&record.opened.key);
    for key in wraps.chain(opened) {
        if !keys.contains_key(key) {
            faults.push(format!("names the key {key:?}, which is not there"));
        }
    }
    faults
}
