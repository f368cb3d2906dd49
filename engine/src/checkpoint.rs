//! A checkpoint: how far a store had come, noted where whoever writes its file cannot write.
//!
//! Everything in the file can be put back to an older state together, and then nothing in it tells. What tells is something
//! outside: the number and hash of an audit record of each organization. A store that does not reach that record, or has another
//! one in its place, is not opened.

use crate::audit;
use crate::error::{Error, Result};
use crate::names::{OrganizationId, StoreId};
use crate::organization::AuditHead;
use crate::storage::records::{HeadRecord, OrganizationNameRecord};
use crate::storage::{Rows, tables};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How far a store had come when this was taken: the newest audit record of each organization that it names.
///
/// Taken by [`Store::checkpoint`](crate::Store::checkpoint), kept apart from the store, and given to
/// [`StoreOptions::checkpoint`](crate::StoreOptions::checkpoint). It holds no secret, but its worth is that nobody who can write the
/// store can write it.
///
/// # Examples
///
/// ```no_run
/// # fn options() -> keystead::StoreOptions { unimplemented!() }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = options().open("app.keystead")?;
/// let pinned = serde_json::to_string(&store.checkpoint()?)?; // keep it elsewhere
/// drop(store);
///
/// let store = options().checkpoint(serde_json::from_str(&pinned)?).open("app.keystead")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The store's id: 32 hexadecimal digits.
    pub store: String,
    /// The newest audit record of each organization, by its name. What is not named is not checked.
    pub organizations: BTreeMap<String, AuditHead>,
}

impl Checkpoint {
    /// Refuses a store that is behind this, or whose trails do not hold what this pinned. Some rows for each organization.
    pub(crate) fn check(&self, rows: &impl Rows, store: StoreId) -> Result<()> {
        if self.store != store.to_string() {
            return Err(Error::CheckpointOfAnotherStore {
                pinned: self.store.clone(),
                found: store.to_string(),
            });
        }
        self.organizations
            .iter()
            .try_for_each(|(name, pinned)| check_organization(rows, name, pinned))
    }
}

fn check_organization(rows: &impl Rows, name: &str, pinned: &AuditHead) -> Result<()> {
    let behind = |found_sequence| Error::BehindCheckpoint {
        organization: name.into(),
        pinned_sequence: pinned.sequence,
        found_sequence,
    };
    let index: Option<OrganizationNameRecord> = rows.record(name.as_bytes())?;
    let org = OrganizationId(index.ok_or_else(|| behind(0))?.id);
    let head: HeadRecord = rows
        .record(&tables::organization(org))?
        .ok_or_else(|| behind(0))?;
    if head.audit_sequence < pinned.sequence {
        return Err(behind(head.audit_sequence));
    }
    let found = audit::hash_at(rows, org, pinned.sequence)?;
    let is_it = found.is_some_and(|hash| {
        // The head stands in a row of its own: it must be of the same history.
        let at_head = pinned.sequence == head.audit_sequence;
        audit::hex(&hash) == pinned.hash && (!at_head || hash == head.audit_hash)
    });
    if is_it {
        return Ok(());
    }
    Err(Error::NotOfCheckpoint {
        organization: name.into(),
        pinned_sequence: pinned.sequence,
        found_sequence: head.audit_sequence,
    })
}
