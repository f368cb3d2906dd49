//! One organization on its way into the new store: what was gathered of it is made whole.

use super::bulk::Bulk;
use super::gather::Gathered;
use super::report::{Loss, LossKind, SalvageOptions, SalvageReport};
use super::witness::Witness;
use crate::audit::Attribution;
use crate::error::Result;
use crate::keyring::cache::EpochKey;
use crate::names::{EpochNumber, OrganizationId, OrganizationName};
use crate::scope::{Core, Scope};
use crate::storage::raw::Damaged;
use crate::storage::records::HeadRecord;
use crate::storage::{Table, tables};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is kept of an organization between the passes over all of them: some hundred bytes.
pub(super) struct Rest {
    pub(super) head: HeadRecord,
    /// Number and hash of the newest audit record of the damaged file, as far as known.
    pub(super) old_audit_head: (u64, [u8; 32]),
    /// Live epochs, and how many data keys each ever wrapped.
    pub(super) live: BTreeMap<EpochNumber, u64>,
    pub(super) versions_lost: u64,
}

/// One organization.
pub(super) struct Settling<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) damaged: &'a Damaged,
    pub(super) gathered: &'a Gathered,
    pub(super) options: &'a SalvageOptions,
    pub(super) scope: Scope,
    pub(super) rest: Rest,
    pub(super) witness: Witness,
    /// Secrets that were made for a path of which nothing but the name is left.
    pub(super) made: BTreeSet<u64>,
    /// Epoch keys that were asked for; `None`: its KMS did not give it, which the report says.
    pub(super) epoch_keys: BTreeMap<EpochNumber, Option<Arc<EpochKey>>>,
}

impl<'a> Settling<'a> {
    pub(super) fn new(
        core: &'a Arc<Core>,
        damaged: &'a Damaged,
        gathered: &'a Gathered,
        options: &'a SalvageOptions,
        org: OrganizationId,
        organization: OrganizationName,
    ) -> Self {
        let head = HeadRecord {
            next_secret_id: 1,
            secrets: 0,
            next_job: 1,
            audit_sequence: 0,
            audit_hash: [0; 32],
            default_key: String::new(),
            active_epoch: EpochNumber(0),
            last_epoch: EpochNumber(0),
            epochs_hash: [0; 32],
            live_epochs: Vec::new(),
        };
        let rest = Rest {
            head,
            old_audit_head: (0, [0; 32]),
            live: BTreeMap::new(),
            versions_lost: 0,
        };
        Self::resume(core, damaged, gathered, options, (org, organization), rest)
    }

    pub(super) fn resume(
        core: &'a Arc<Core>,
        damaged: &'a Damaged,
        gathered: &'a Gathered,
        options: &'a SalvageOptions,
        (org, organization): (OrganizationId, OrganizationName),
        rest: Rest,
    ) -> Self {
        let scope = Scope {
            core: Arc::clone(core),
            org,
            organization,
            by: Arc::new(Attribution::default()),
        };
        Self {
            core,
            damaged,
            gathered,
            options,
            scope,
            rest,
            witness: Witness::default(),
            made: BTreeSet::new(),
            epoch_keys: BTreeMap::new(),
        }
    }

    pub(super) fn rest(self) -> Rest {
        self.rest
    }

    pub(super) fn org(&self) -> OrganizationId {
        self.scope.org
    }

    pub(super) fn loss(&self, kind: LossKind, what: impl Into<String>) -> Loss {
        Loss::of(kind, self.scope.org, Some(&self.scope.organization), what)
    }

    /// True when a hole of one of these tables may hold a row of this organization.
    pub(super) fn is_touched(&self, of: &[Table]) -> bool {
        let prefix = tables::organization(self.scope.org);
        of.iter().any(|table| self.gathered.touches(*table, &prefix))
    }

    /// An epoch's key: from its KMS, which is asked once.
    pub(super) fn epoch_key(
        &mut self,
        epoch: EpochNumber,
        report: &mut SalvageReport,
    ) -> Option<Arc<EpochKey>> {
        if !self.options.open_values {
            return None;
        }
        if let Some(asked) = self.epoch_keys.get(&epoch) {
            return asked.clone();
        }
        let key = self.scope.epoch_key(epoch).map_err(|error| {
            let what = format!("epoch {epoch}: {error}");
            report.unopened.push(self.loss(LossKind::Epoch, what));
        });
        let key = key.ok();
        self.epoch_keys.insert(epoch, key.clone());
        key
    }
}

/// Removes every row of an organization whose name is gone, and says so.
pub(super) fn lose_whole(bulk: &mut Bulk<'_>, id: OrganizationId, report: &mut SalvageReport) -> Result<()> {
    let prefix = tables::organization(id);
    let what = "its name is gone: under another one its keys do not open";
    report.lose(Loss::of(LossKind::Organization, id, None, what));
    for table in [
        Table::Heads,
        Table::Keys,
        Table::Epochs,
        Table::Secrets,
        Table::Deletions,
        Table::Audit,
        Table::Versions,
        Table::DataKeys,
    ] {
        bulk.each(table, &prefix, |bulk, key, _| {
            if let (Table::Versions, Some((_, secret_id, version))) = (table, tables::parse_version(key)) {
                let loss = Loss::of(LossKind::Version, id, None, "its organization's name is gone");
                report.lose(loss.secret(None, Some(secret_id), version));
            }
            bulk.remove(table, key)
        })?;
    }
    for finished in [false, true] {
        bulk.remove(Table::RewrapJobs, &tables::rewrap_job(id, finished))?;
    }
    bulk.flush()
}
