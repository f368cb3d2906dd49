//! `salvage`: whatever is provably right in a damaged file is copied into a new store, and what is not is named.
//!
//! The new store has the same id, and every row stands in it where it stood: nothing is sealed anew but the wraps of epoch
//! keys, which get shred cells of their own; so history stays, and organizations whose KMS is out of reach are salvaged, too.
//!
//! - [`start`]: the two files.
//! - [`gather`]: rows out of the damaged file: by its trees as far as they go, from loose pages where they do not, and from the journal.
//! - [`bulk`]: rows into the new store, many at a time.
//! - [`witness`]: what an organization's audit trail tells of what is lost.
//! - [`organization`], [`keys`], [`versions`], [`values`], [`trail`]: what was gathered of one organization is made whole: versions, epochs,
//!   counts, audit trail.
//! - [`proof`]: whether a value opens.
//! - [`report`]: what came of it.
//!
//! `docs/decisions/0014-salvage-copies-rows.md` says why it goes about it so.

mod bulk;
mod gather;
mod keys;
mod organization;
mod proof;
mod report;
#[cfg(feature = "simulation")]
pub(crate) mod simulation;
mod start;
mod trail;
mod values;
mod versions;
mod witness;

pub use report::{Loss, LossKind, SalvageOptions, SalvageProgress, SalvageReport};

use crate::error::Result;
use crate::names::{OrganizationId, OrganizationName};
use crate::scope::Core;
use crate::storage::raw::Damaged;
use crate::storage::records::OrganizationNameRecord;
use crate::storage::{Table, tables};
use bulk::Bulk;
use gather::Gathered;
use organization::Settling;
use std::collections::BTreeSet;
use std::sync::Arc;

const FACT_NEXT_ORGANIZATION: &str = "next_organization";

/// Copies what is whole in `damaged` into the store of `core`, which is new and empty.
pub(crate) fn salvage(
    damaged: &Damaged,
    core: &Arc<Core>,
    options: &SalvageOptions,
    progress: &mut dyn FnMut(SalvageProgress),
) -> Result<SalvageReport> {
    let mut report = SalvageReport::new(core.store);
    let mut bulk = Bulk::new(&core.committer);
    let gathered = Gathered::all_but_chunks(damaged, &mut bulk, progress)?;
    report.journal_records_lost = gathered.journal_records_lost;
    if gathered.journal_records_lost > 0 {
        report.lose(Loss::journal(gathered.journal_records_lost));
    }
    let found = organizations(&gathered, &mut bulk, &mut report)?;

    // First every version's rows, so that it is known which chunks belong to anything.
    let mut settling = Vec::new();
    let mut chunked = BTreeSet::new();
    for (done, (id, name)) in found.iter().enumerate() {
        progress(SalvageProgress::new(
            "settling versions",
            done as u64,
            Some(found.len() as u64),
        ));
        let mut one = Settling::new(core, damaged, &gathered, options, *id, name.clone());
        one.keys(&mut bulk, &mut report)?;
        one.versions(&mut bulk, &mut report, &mut chunked)?;
        settling.push(one.rest());
    }
    let chunks = Gathered::chunks(damaged, &chunked, &mut bulk, progress)?;
    drop(chunked);

    let mut versions = 0;
    for ((id, name), rest) in found.iter().zip(settling) {
        let mut one = Settling::resume(core, damaged, &gathered, options, (*id, name.clone()), rest);
        one.values(&chunks, &mut bulk, &mut report, &mut |report| {
            versions = report.versions;
            progress(SalvageProgress::new("proving values", versions, None));
        })?;
        one.finish(&mut bulk, &mut report)?;
        report.organizations += 1;
    }
    let next = found
        .iter()
        .map(|(id, _)| id.0)
        .max()
        .map_or(1, |last| u64::from(last) + 1);
    let next = next.max(gathered.next_organization);
    bulk.put(
        Table::Store,
        FACT_NEXT_ORGANIZATION.as_bytes(),
        next.to_le_bytes().to_vec(),
    )?;
    bulk.flush()?;
    Ok(report)
}

/// The organizations of which anything is left, with their names, by number. Their records are made whole.
fn organizations(
    gathered: &Gathered,
    bulk: &mut Bulk<'_>,
    report: &mut SalvageReport,
) -> Result<Vec<(OrganizationId, OrganizationName)>> {
    bulk.flush()?;
    let mut found = Vec::new();
    for id in gathered.organizations(bulk)? {
        match witness::name_of(bulk, id)? {
            Some((name, record)) => {
                bulk.put_record(&tables::organization(id), &record)?;
                bulk.put_record(name.as_str().as_bytes(), &OrganizationNameRecord { id: id.0 })?;
                found.push((id, name));
            }
            // Its KMSs were told its name with every key: under another one nothing would open.
            None => organization::lose_whole(bulk, id, report)?,
        }
    }
    bulk.flush()?;
    Ok(found)
}
