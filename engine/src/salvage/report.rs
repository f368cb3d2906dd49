//! What a salvage is asked for, and what came of it.

use crate::names::{OrganizationId, OrganizationName, StoreId, Version};
use serde::Serialize;

/// What to salvage, and how.
#[derive(Debug, Clone)]
pub struct SalvageOptions {
    pub(crate) open_values: bool,
    pub(crate) keep_undecided: bool,
    pub(crate) store_id: Option<StoreId>,
}

impl Default for SalvageOptions {
    fn default() -> Self {
        Self {
            open_values: true,
            keep_undecided: false,
            store_id: None,
        }
    }
}

impl SalvageOptions {
    /// Whether to open every value whose epoch key can be had: asks the KMS of every live epoch once. Default: yes. Without, and
    /// where a KMS does not answer, a value is taken for right when the tags of its blocks and rows are.
    #[must_use]
    pub fn open_values(mut self, open: bool) -> Self {
        self.open_values = open;
        self
    }

    /// Whether to keep values of which nothing left says whether they were destroyed. Default: no, for what was destroyed must not
    /// come back; they are named as lost.
    #[must_use]
    pub fn keep_undecided(mut self, keep: bool) -> Self {
        self.keep_undecided = keep;
        self
    }

    /// The store's id, for a file of which neither copy of the header is whole.
    #[must_use]
    pub fn store_id(mut self, id: StoreId) -> Self {
        self.store_id = Some(id);
        self
    }
}

/// How far a salvage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SalvageProgress {
    /// What it is doing.
    pub phase: &'static str,
    /// How much of it is done: rows, blocks, organizations or versions.
    pub done: u64,
    /// Of how much, where that is known.
    pub total: Option<u64>,
}

impl SalvageProgress {
    pub(crate) fn new(phase: &'static str, done: u64, total: Option<u64>) -> Self {
        Self { phase, done, total }
    }
}

/// What came of a salvage. Takes memory for what was lost, about 200 bytes for each version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SalvageReport {
    /// The id of both stores.
    pub store_id: String,
    /// Organizations in the new store.
    pub organizations: u64,
    /// Secrets in the new store, those included of which no version is left.
    pub secrets: u64,
    /// Versions whose values are in the new store.
    pub versions: u64,
    /// Of those, the ones that were opened.
    pub opened: u64,
    /// Of those, the ones whose rows all carry their tags, but which were not opened.
    pub tagged: u64,
    /// Of those, the ones that stood in pages which nothing led to, beyond one block, and were not opened: whether they are right
    /// shows when they are read.
    pub unproven: u64,
    /// Versions that were destroyed before: their numbers stay.
    pub destroyed: u64,
    /// Audit records that were kept in their chain.
    pub audit_kept: u64,
    /// Audit records behind a missing one, carried over into the new chain.
    pub audit_carried: u64,
    /// Records of the journal that are missing: what their commits changed is as it was before.
    pub journal_records_lost: u64,
    /// What was lost, every version by name.
    pub lost: Vec<Loss>,
    /// Why values were not opened: an epoch whose KMS did not answer, by organization.
    pub unopened: Vec<Loss>,
}

impl SalvageReport {
    pub(crate) fn new(store: StoreId) -> Self {
        Self {
            store_id: store.to_string(),
            organizations: 0,
            secrets: 0,
            versions: 0,
            opened: 0,
            tagged: 0,
            unproven: 0,
            destroyed: 0,
            audit_kept: 0,
            audit_carried: 0,
            journal_records_lost: 0,
            lost: Vec::new(),
            unopened: Vec::new(),
        }
    }

    /// True when nothing was lost.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty()
    }

    pub(crate) fn lose(&mut self, loss: Loss) {
        self.lost.push(loss);
    }
}

/// What kind of thing was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// A value.
    Version,
    /// A value that may have been destroyed: nothing that is left says. See [`SalvageOptions::keep_undecided`].
    Undecided,
    /// A registered key: its config is gone. Register the KMS key again under another name.
    Key,
    /// An epoch: its key cannot be had any more, or its record is gone.
    Epoch,
    /// Audit records.
    AuditRecords,
    /// An organization with all that it had: its name is gone.
    Organization,
    /// Records of the journal, the newest commits.
    Journal,
}

/// One thing that was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// What kind of thing.
    pub kind: LossKind,
    /// Whose.
    pub organization: Option<String>,
    /// Whose, by number.
    pub organization_id: Option<u32>,
    /// At which path; `None` when it is not of a secret, or its path is gone as well.
    pub path: Option<String>,
    /// The secret's number, where it is known.
    pub secret_id: Option<u64>,
    /// In which version.
    pub version: Option<Version>,
    /// What it was, and why it is lost.
    pub what: String,
}

impl Loss {
    pub(crate) fn journal(records: u64) -> Self {
        Self {
            kind: LossKind::Journal,
            organization: None,
            organization_id: None,
            path: None,
            secret_id: None,
            version: None,
            what: format!(
                "{records} records of the journal are damaged: what their commits changed is as it was before"
            ),
        }
    }

    pub(crate) fn of(
        kind: LossKind,
        id: OrganizationId,
        organization: Option<&OrganizationName>,
        what: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            organization: organization.map(ToString::to_string),
            organization_id: Some(id.0),
            path: None,
            secret_id: None,
            version: None,
            what: what.into(),
        }
    }

    pub(crate) fn secret(mut self, path: Option<&str>, secret_id: Option<u64>, version: Version) -> Self {
        self.path = path.map(str::to_owned);
        self.secret_id = secret_id;
        self.version = Some(version);
        self
    }
}
