//! An organization's audit trail and head. The trail is kept as far as it is whole; then comes a record that says what was lost, and
//! behind it what is left of the old trail, carried over one by one: behind a missing record, nothing shows what follows what.

use super::bulk::Bulk;
use super::organization::Settling;
use super::report::{LossKind, SalvageReport};
use super::witness::sequence_of;
use crate::audit::{self, Attribution, AuditEvent, CarriedEvent};
use crate::env::now_ms;
use crate::error::Result;
use crate::keyring::job;
use crate::storage::{Table, tables};

impl Settling<'_> {
    /// Finishes the organization: job, audit trail, head.
    pub(super) fn finish(&mut self, bulk: &mut Bulk<'_>, report: &mut SalvageReport) -> Result<()> {
        self.job(bulk)?;
        self.trail(bulk, report)?;
        let key = tables::organization(self.org());
        bulk.put_record(&key, &self.rest.head)?;
        bulk.flush()?;
        self.miss_second_wraps()
    }

    /// What the second key does not wrap any more, or did not yet, a job will have it wrap.
    fn miss_second_wraps(&self) -> Result<()> {
        let scope = self.scope.clone();
        self.core.committer.submit(move |transaction| {
            let mut head = scope.head(transaction)?;
            if job::start_for_second(&scope, transaction, &mut head)?.is_some() {
                scope.put_head(transaction, &head)?;
            }
            Ok(())
        })
    }

    fn trail(&mut self, bulk: &mut Bulk<'_>, report: &mut SalvageReport) -> Result<()> {
        let org = self.org();
        let prefix = tables::organization(org);
        let (mut kept, mut hash) = (0, [0; 32]);
        let (mut carried, mut last) = (0, (0, [0; 32]));
        let mut broken = false;
        bulk.each(Table::Audit, &prefix, |_, key, row| {
            let sequence = sequence_of(key);
            let Ok(loose) = audit::read_loose(row) else {
                broken = true;
                return Ok(());
            };
            last = (sequence, loose.hash);
            broken |= sequence != kept + 1 || !audit::chains(&hash, key, row);
            if broken {
                carried += 1;
            } else {
                (kept, hash) = (sequence, loose.hash);
            }
            Ok(())
        })?;
        if last.0 > self.rest.old_audit_head.0 {
            self.rest.old_audit_head = last;
        }
        let (old_sequence, old_hash) = self.rest.old_audit_head;
        let records_lost = old_sequence.saturating_sub(kept + carried);
        let head = &mut self.rest.head;
        (head.audit_sequence, head.audit_hash) = (kept, hash);
        let salvaged = AuditEvent::Salvaged {
            old_sequence,
            old_hash,
            records_lost,
            versions_lost: self.rest.versions_lost,
        };
        self.carry_over(bulk, kept, salvaged)?;
        report.audit_kept += kept;
        report.audit_carried += carried;
        if records_lost > 0 {
            let what = format!(
                "{records_lost} audit records: the trail is whole up to record {kept} of {old_sequence}; {carried} behind it are left"
            );
            report.lose(self.loss(LossKind::AuditRecords, what));
        }
        Ok(())
    }

    /// Writes the new records behind `kept`, in place of the old ones. What is being written never reaches what is still to be read:
    /// at least one old record is missing, or there is none behind.
    fn carry_over(&mut self, bulk: &mut Bulk<'_>, kept: u64, salvaged: AuditEvent) -> Result<()> {
        let (org, at_ms) = (self.org(), now_ms(&*self.core.env));
        let by = Attribution::default();
        let head = &mut self.rest.head;
        let mut waiting = Some(audit::next_row(org, head, &by, at_ms, salvaged));
        bulk.each(Table::Audit, &tables::organization(org), |bulk, key, row| {
            let sequence = sequence_of(key);
            if sequence <= kept {
                return Ok(());
            }
            let loose = audit::read_loose(row);
            bulk.remove(Table::Audit, key)?;
            if let Some((key, row)) = waiting.take() {
                bulk.put(Table::Audit, &key, row)?;
            }
            let Ok(loose) = loose else { return Ok(()) };
            let event = match loose.event {
                // One that was carried before is not carried in another one.
                carried @ AuditEvent::Carried { .. } => carried,
                event => AuditEvent::Carried {
                    sequence,
                    hash: loose.hash,
                    at_ms: loose.at_ms,
                    by: loose.by,
                    event: CarriedEvent::new(&event),
                },
            };
            waiting = Some(audit::next_row(org, head, &by, at_ms, event));
            Ok(())
        })?;
        match waiting {
            Some((key, row)) => bulk.put(Table::Audit, &key, row),
            None => Ok(()),
        }
    }
}
