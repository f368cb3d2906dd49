//! `verify`: everything that can be checked about a store, with and without its keys.
//!
//! - `mod`: what is asked and what is found; the blocks and the structure of the pages.
//! - `organization`: an organization's head, names, audit trail, epochs, keys and job.
//! - `secrets`: its secrets, versions, data keys, deletions and values, each against the others.
//! - `strays`: rows that belong to nobody; shred cells against the wraps that need them.
//!
//! Nothing is collected that grows with the values: memory is a few bytes for each secret of one organization, 16 for each
//! of its large values, and a few for each shred cell.

mod organization;
mod secrets;
mod strays;

use crate::error::{Error, Result};
use crate::names::{OrganizationId, OrganizationName, SecretPath, Version};
use crate::organization::Organization;
use crate::storage::records::{self, HeadRecord, OrganizationRecord};
use crate::storage::transaction::container_failed;
use crate::storage::{Rows, Table, tables};
use crate::store::Inner;
use serde::Serialize;
use std::collections::HashMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Duration;

/// What to verify.
#[derive(Debug, Clone, Copy, Default)]
pub struct VerifyOptions {
    /// Open every data key and every value, too: asks the KMS of every live epoch.
    pub open_values: bool,
}

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct VerifyProgress {
    /// What is being looked at.
    pub phase: VerifyPhase,
    /// How much of it is done: blocks, or secrets.
    pub done: u64,
    /// How much there is.
    pub total: u64,
}

/// What a verification looks at, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyPhase {
    /// Blocks of 4 KiB, each against its tag.
    Blocks,
    /// Secrets, with all that belongs to them.
    Secrets,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct VerifyReport {
    /// Blocks of 4 KiB that were read and compared with their tags.
    pub blocks: u64,
    /// Blocks that do not match their tags, and to which nothing refers: a crash in the middle of a commit leaves such ones.
    pub stale_blocks: u64,
    /// Organizations looked at.
    pub organizations: u64,
    /// Secrets looked at.
    pub secrets: u64,
    /// Versions looked at.
    pub versions: u64,
    /// Chunks of large values looked at.
    pub chunks: u64,
    /// Values that were opened, those of deleted versions included.
    pub values_opened: u64,
    /// Epochs looked at.
    pub epochs: u64,
    /// Wraps of epoch keys that were opened under the shred keys in their cells.
    pub wraps: u64,
    /// Audit records looked at.
    pub audit_records: u64,
    /// False when something was so damaged that not all could be looked at: what it was is among the problems.
    pub complete: bool,
    /// What is wrong; empty when all is well. At most 10,000 are listed.
    pub problems: Vec<Problem>,
    /// Why some values were not opened: a KMS that did not answer, a key that was taken away. At most 10,000 are listed.
    pub unopened: Vec<Problem>,
}

impl VerifyReport {
    /// The report of a verification that was ended before it could make one.
    #[must_use]
    pub fn ended_early(why: String) -> Self {
        Self {
            problems: vec![problem(&Place::default(), why)],
            ..Self::default()
        }
    }

    /// True when nothing is wrong with what could be checked.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whose.
    pub organization: Option<String>,
    /// At which path.
    pub path: Option<String>,
    /// In which version.
    pub version: Option<Version>,
    /// What.
    pub what: String,
}

const PROBLEMS_MAX: usize = 10_000;
/// Organizations whose names are in memory at once.
const ORGANIZATIONS_AT_ONCE: usize = 1000;
/// Damaged blocks that are named one by one.
const BLOCKS_NAMED: usize = 100;
/// Time for a writer that is between a block and its tag.
const WRITING: Duration = Duration::from_millis(2);

pub(crate) fn verify(
    inner: &Arc<Inner>,
    options: VerifyOptions,
    progress: impl FnMut(VerifyProgress),
) -> Result<VerifyReport> {
    let mut verifier = Verifier {
        inner,
        options,
        report: VerifyReport {
            complete: true,
            ..VerifyReport::default()
        },
        secrets_total: 0,
        progress,
    };
    match verifier.all() {
        Ok(()) => {}
        // After a page that cannot be read, redb reads no more: what was found so far is what can be said.
        Err(error) if !inner.is_closed() => {
            verifier.report.complete = false;
            let what = match inner.core.committer.container().failure() {
                Some(failure) => format!("the rest was not looked at: {failure}"),
                None => format!("the rest was not looked at: {error}"),
            };
            verifier.problem(&Place::default(), what);
        }
        Err(error) => return Err(error),
    }
    Ok(verifier.report)
}

struct Verifier<'a, P> {
    inner: &'a Arc<Inner>,
    options: VerifyOptions,
    report: VerifyReport,
    secrets_total: u64,
    progress: P,
}

/// What a problem is about.
#[derive(Clone, Copy, Default)]
struct Place<'p> {
    organization: Option<&'p OrganizationName>,
    path: Option<&'p SecretPath>,
    version: Option<Version>,
}

impl<'p> Place<'p> {
    fn of(organization: &'p OrganizationName) -> Self {
        Self {
            organization: Some(organization),
            ..Self::default()
        }
    }

    fn path(self, path: &'p SecretPath) -> Self {
        Self {
            path: Some(path),
            ..self
        }
    }

    fn version(self, version: Version) -> Self {
        Self {
            version: Some(version),
            ..self
        }
    }
}

impl<P: FnMut(VerifyProgress)> Verifier<'_, P> {
    fn all(&mut self) -> Result<()> {
        self.pages()?;
        self.organizations()?;
        self.strays()?;
        self.cells()
    }

    /// The blocks against their tags, and what is built of them, all from the disk.
    fn pages(&mut self) -> Result<()> {
        let (committer, env) = (&self.inner.core.committer, &self.inner.core.env);
        let progress = &mut self.progress;
        let scan = committer
            .container()
            .scan_blocks(
                |done, total| {
                    progress(VerifyProgress {
                        phase: VerifyPhase::Blocks,
                        done,
                        total,
                    });
                },
                || env.sleep(WRITING),
            )
            .map_err(|error| container_failed("reading every block", &error))?;
        self.report.blocks = scan.blocks;
        let Err(error) = committer.check_structure() else {
            self.report.stale_blocks = scan.unmatched.len() as u64;
            return Ok(());
        };
        for block in scan.unmatched.iter().take(BLOCKS_NAMED) {
            self.problem(&Place::default(), format!("block {block} does not match its tag"));
        }
        if let Some(more) = scan
            .unmatched
            .len()
            .checked_sub(BLOCKS_NAMED)
            .filter(|more| *more > 0)
        {
            self.problem(
                &Place::default(),
                format!("{more} more blocks do not match their tags"),
            );
        }
        self.problem(&Place::default(), format!("the structure of the pages: {error}"));
        Ok(())
    }

    fn organizations(&mut self) -> Result<()> {
        self.count_secrets()?;
        let mut after: Option<OrganizationId> = None;
        loop {
            let snapshot = self.inner.core.committer.snapshot();
            let mut found = Vec::new();
            let mut last = None;
            let from = after.map(tables::organization);
            let from = from
                .as_ref()
                .map_or(Bound::Unbounded, |id| Bound::Excluded(&id[..]));
            snapshot.scan(Table::Organizations, from, None, |key, row| {
                let Ok(id) = key.try_into().map(u32::from_be_bytes) else {
                    self.problem(
                        &Place::default(),
                        "a row of organizations has a key of the wrong length".into(),
                    );
                    return Ok(ControlFlow::Continue(()));
                };
                last = Some(OrganizationId(id));
                match records::decode::<OrganizationRecord>(snapshot.place(), key, row) {
                    Ok(record) => found.push((OrganizationId(id), OrganizationName::stored(&record.name))),
                    Err(error) => {
                        self.note(&Place::default(), Err(error))?;
                        let name = OrganizationName::stored(&format!("(number {id})"));
                        found.push((OrganizationId(id), name));
                    }
                }
                Ok(if found.len() < ORGANIZATIONS_AT_ONCE {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                })
            })?;
            drop(snapshot);
            if last.is_none() {
                return Ok(());
            }
            after = last;
            for (id, name) in found {
                self.report.organizations += 1;
                let organization = Organization::new(Arc::clone(self.inner), id, name.clone());
                let checked = self.organization(&organization);
                self.note(&Place::of(&name), checked)?;
            }
        }
    }

    /// How many secrets there are, as far as the heads can be read: for the progress alone.
    fn count_secrets(&mut self) -> Result<()> {
        let snapshot = self.inner.core.committer.snapshot();
        snapshot.scan(Table::Heads, Bound::Unbounded, None, |key, row| {
            if let Ok(head) = records::decode::<HeadRecord>(snapshot.place(), key, row) {
                self.secrets_total = self.secrets_total.saturating_add(head.secrets);
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn secret_done(&mut self) {
        self.report.secrets += 1;
        (self.progress)(VerifyProgress {
            phase: VerifyPhase::Secrets,
            done: self.report.secrets,
            total: self.secrets_total.max(self.report.secrets),
        });
    }

    /// Damage goes into the report; a store that is closed or a disk that fails ends the verification.
    fn note(&mut self, place: &Place<'_>, outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => Ok(()),
            Err(error @ (Error::Closed { .. } | Error::Storage { .. } | Error::StorePanicked { .. })) => {
                Err(error)
            }
            Err(error) => {
                self.problem(place, error.to_string());
                Ok(())
            }
        }
    }

    fn problem(&mut self, place: &Place<'_>, what: String) {
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push(problem(place, what));
        }
    }

    fn unopened(&mut self, place: &Place<'_>, what: String) {
        if self.report.unopened.len() < PROBLEMS_MAX {
            self.report.unopened.push(problem(place, what));
        }
    }
}

fn problem(place: &Place<'_>, what: String) -> Problem {
    Problem {
        organization: place.organization.map(ToString::to_string),
        path: place.path.map(ToString::to_string),
        version: place.version,
        what,
    }
}

/// A set of numbers that are mostly close together: a few bits for each then.
#[derive(Default)]
struct Numbers(HashMap<u64, u64>);

impl Numbers {
    /// False when it was in there already.
    fn insert(&mut self, number: u64) -> bool {
        let bits = self.0.entry(number / 64).or_default();
        let bit = 1 << (number % 64);
        let is_new = *bits & bit == 0;
        *bits |= bit;
        is_new
    }

    fn contains(&self, number: u64) -> bool {
        self.0
            .get(&(number / 64))
            .is_some_and(|bits| bits & (1 << (number % 64)) != 0)
    }
}

/// The first row from `from` on: its key.
fn first_key(rows: &impl Rows, table: Table, from: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut found = None;
    rows.scan(table, Bound::Included(from), None, |key, _| {
        found = Some(key.to_vec());
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}
