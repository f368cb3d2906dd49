//! Rows that belong to nobody; shred cells against the wraps that need them.

use super::{Numbers, Place, Verifier, VerifyProgress, first_key};
use crate::error::{Error, Result};
use crate::keyring::epoch::{self, open_wrap};
use crate::names::{EpochNumber, OrganizationId, OrganizationName};
use crate::storage::container::CellNumber;
use crate::storage::records::{self, EpochRecord, OrganizationNameRecord, OrganizationRecord, WrapRecord};
use crate::storage::transaction::{cells_used, container_failed, parse_cell};
use crate::storage::{Rows, Snapshot, Table, tables};
use std::ops::{Bound, ControlFlow};

/// The tables whose keys begin with the number of an organization.
const OF_ORGANIZATIONS: [Table; 10] = [
    Table::Heads,
    Table::Keys,
    Table::Epochs,
    Table::Secrets,
    Table::Versions,
    Table::DataKeys,
    Table::Chunks,
    Table::Uploads,
    Table::Deletions,
    Table::Audit,
];

/// The facts that the store knows.
const FACTS: [&[u8]; 3] = [b"journal_generation", b"cells_used", b"next_organization"];

impl<P: FnMut(VerifyProgress)> Verifier<'_, P> {
    /// Rows that no organization owns, names that lead nowhere, facts that nobody wrote.
    pub(super) fn strays(&mut self) -> Result<()> {
        let snapshot = self.inner.core.committer.snapshot();
        for table in OF_ORGANIZATIONS {
            self.rows_of_nobody(&snapshot, table)?;
        }
        self.jobs_of_nobody(&snapshot)?;
        self.names(&snapshot)?;
        self.facts(&snapshot)
    }

    /// One step down the tree for each organization that has rows.
    fn rows_of_nobody(&mut self, snapshot: &Snapshot, table: Table) -> Result<()> {
        let mut from = Vec::new();
        while let Some(key) = first_key(snapshot, table, &from)? {
            let Some(id) = key.first_chunk().copied().map(u32::from_be_bytes) else {
                self.stray(table, "has a key that is too short");
                from = [&key[..], &[0]].concat();
                continue;
            };
            if !exists(snapshot, OrganizationId(id))? {
                self.stray(table, &format!("is of organization {id}, which is not there"));
            }
            let Some(next) = id.checked_add(1) else { break };
            from = next.to_be_bytes().to_vec();
        }
        Ok(())
    }

    fn jobs_of_nobody(&mut self, snapshot: &Snapshot) -> Result<()> {
        let table = Table::RewrapJobs;
        snapshot.scan(table, Bound::Unbounded, None, |key, _| {
            let id = match key {
                [0 | 1, id @ ..] => id.try_into().ok().map(u32::from_be_bytes),
                _ => None,
            };
            match id {
                None => self.stray(table, "has a key of the wrong form"),
                Some(id) if exists(snapshot, OrganizationId(id))? => {}
                Some(id) => self.stray(table, &format!("is of organization {id}, which is not there")),
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn names(&mut self, snapshot: &Snapshot) -> Result<()> {
        let table = Table::OrganizationNames;
        snapshot.scan(table, Bound::Unbounded, None, |key, row| {
            let index = match records::decode::<OrganizationNameRecord>(snapshot.place(), key, row) {
                Ok(index) => index,
                Err(error) => {
                    self.note(&Place::default(), Err(error))?;
                    return Ok(ControlFlow::Continue(()));
                }
            };
            let id = OrganizationId(index.id);
            // A record that cannot be read has been reported where the organizations are walked.
            if let Ok(found) = snapshot.record::<OrganizationRecord>(&tables::organization(id))
                && found.is_none_or(|found| found.name.as_bytes() != key)
            {
                let name = String::from_utf8_lossy(key).into_owned();
                self.stray(
                    table,
                    &format!(
                        "leads from {name:?} to organization {id}, which has another name or is not there"
                    ),
                );
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn facts(&mut self, snapshot: &Snapshot) -> Result<()> {
        let table = Table::Store;
        snapshot.scan(table, Bound::Unbounded, None, |key, row| {
            if !FACTS.contains(&key) || row.len() != 8 {
                let name = String::from_utf8_lossy(key).into_owned();
                self.stray(
                    table,
                    &format!("is a fact {name:?} that is not known, or of the wrong length"),
                );
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let next = snapshot.fact("next_organization")?;
        let Ok(beyond) = u32::try_from(next) else {
            return Ok(());
        };
        if next > 0 && first_key(snapshot, Table::Organizations, &beyond.to_be_bytes())?.is_some() {
            self.stray(
                table,
                "says that a number of an organization is not given yet, and it is",
            );
        }
        Ok(())
    }

    fn stray(&mut self, table: Table, what: &str) {
        self.problem(
            &Place::default(),
            format!("a row of table {} {what}", table.name()),
        );
    }

    /// Every cell that was ever given out is in use by one wrap, to be overwritten, or free; what is in use opens its wrap,
    /// and what is free is empty.
    pub(super) fn cells(&mut self) -> Result<()> {
        let core = &self.inner.core;
        let snapshot = core.committer.snapshot();
        let (used, capacity) = (
            cells_used(&*snapshot)?,
            core.committer.container().cell_capacity(),
        );
        let mut known = Numbers::default();
        let mut count = 0;
        self.wraps(&snapshot, &mut known, &mut count)?;
        for table in [Table::CellsErasing, Table::CellsFree] {
            snapshot.scan(table, Bound::Unbounded, None, |key, _| {
                let cell = match parse_cell(table, key) {
                    Ok(cell) => cell,
                    Err(error) => {
                        self.note(&Place::default(), Err(error))?;
                        return Ok(ControlFlow::Continue(()));
                    }
                };
                if cell.0 >= used {
                    self.stray(table, &format!("is of cell {}, which was not given out", cell.0));
                } else if !known.insert(cell.0) {
                    self.stray(
                        table,
                        &format!("is of cell {}, which is in use, or in two lists", cell.0),
                    );
                } else {
                    count += 1;
                    if table == Table::CellsFree {
                        self.free_cell(&snapshot, cell)?;
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        if used > capacity {
            let what = format!("{used} shred cells are said to be in use; there is room for {capacity}");
            self.problem(&Place::default(), what);
        } else if count < used && self.is_current(&snapshot) {
            let lost: Vec<u64> = (0..used).filter(|cell| !known.contains(*cell)).take(10).collect();
            let what = format!(
                "{} shred cells belong to nothing, the first of them: {lost:?}",
                used - count
            );
            self.problem(&Place::default(), what);
        }
        Ok(())
    }

    fn free_cell(&mut self, snapshot: &Snapshot, cell: CellNumber) -> Result<()> {
        let container = self.inner.core.committer.container();
        let erased = container
            .cell_is_erased(cell)
            .map_err(|error| container_failed("reading a shred cell", &error));
        match erased {
            Ok(false) if self.is_current(snapshot) => {
                self.problem(
                    &Place::default(),
                    format!("shred cell {} is free, and not empty", cell.0),
                );
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => self.note(&Place::default(), Err(error)),
        }
    }

    fn wraps(&mut self, snapshot: &Snapshot, known: &mut Numbers, count: &mut u64) -> Result<()> {
        let used = cells_used(snapshot)?;
        snapshot.scan(Table::Epochs, Bound::Unbounded, None, |key, row| {
            let Some((org, number)) = parse_epoch(key) else {
                self.stray(Table::Epochs, "has a key of the wrong length");
                return Ok(ControlFlow::Continue(()));
            };
            // What cannot be read, and what is of nobody, has been reported.
            let Ok(record) = records::decode::<EpochRecord>(snapshot.place(), key, row) else {
                return Ok(ControlFlow::Continue(()));
            };
            for wrap in &record.wraps {
                self.report.wraps += 1;
                if wrap.cell >= used || !known.insert(wrap.cell) {
                    let what = format!(
                        "epoch {number} uses shred cell {}, which is another's or was not given out",
                        wrap.cell
                    );
                    self.problem(
                        &name_of(snapshot, org)
                            .as_ref()
                            .map_or(Place::default(), Place::of),
                        what,
                    );
                    continue;
                }
                *count += 1;
                self.wrap(snapshot, org, number, wrap)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Opens a wrap with the shred key in its cell; the KMS is not asked.
    fn wrap(
        &mut self,
        snapshot: &Snapshot,
        org: OrganizationId,
        number: EpochNumber,
        wrap: &WrapRecord,
    ) -> Result<()> {
        let core = &self.inner.core;
        let Err(error) = open_wrap(core.committer.container(), core.store, org, number, wrap) else {
            return Ok(());
        };
        // It was erased since the snapshot was taken, if the record does not name it any more.
        let newest = core.committer.snapshot();
        if newest.sequence != snapshot.sequence {
            let record = epoch::read(&*newest, org, number)?;
            if !record.wraps.iter().any(|other| other.cell == wrap.cell) {
                return Ok(());
            }
        }
        let name = name_of(snapshot, org);
        let place = name.as_ref().map_or(Place::default(), Place::of);
        match error {
            Error::Storage { .. } => self.problem(&place, format!("the wrap of epoch {number}: {error}")),
            error => self.note(&place, Err(error))?,
        }
        Ok(())
    }

    fn is_current(&self, snapshot: &Snapshot) -> bool {
        self.inner.core.committer.snapshot().sequence == snapshot.sequence
    }
}

fn exists(rows: &impl Rows, org: OrganizationId) -> Result<bool> {
    let found = rows.get_with(Table::Organizations, &tables::organization(org), |_| Ok(()))?;
    Ok(found.is_some())
}

fn name_of(rows: &impl Rows, org: OrganizationId) -> Option<OrganizationName> {
    let record: OrganizationRecord = rows.record(&tables::organization(org)).ok()??;
    Some(OrganizationName::stored(&record.name))
}

fn parse_epoch(key: &[u8]) -> Option<(OrganizationId, EpochNumber)> {
    let key: &[u8; 8] = key.try_into().ok()?;
    let (org, epoch) = key.split_first_chunk::<4>()?;
    Some((
        OrganizationId(u32::from_be_bytes(*org)),
        EpochNumber(u32::from_be_bytes(epoch.try_into().ok()?)),
    ))
}
