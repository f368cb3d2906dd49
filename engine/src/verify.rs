//! `verify`: everything that can be checked about a store, with and without its keys.

use crate::audit;
use crate::error::{Error, Result};
use crate::names::{EpochNumber, OrganizationId, OrganizationName, SecretPath, Version};
use crate::organization::Organization;
use crate::secret::read;
use crate::storage::records::{
    self, Body, DataKeyRow, HeadRecord, HeaderCheck, OrganizationRecord, SecretRecord, VersionRow,
};
use crate::storage::{Rows, Table, tables};
use crate::store::Inner;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// What to verify.
#[derive(Debug, Clone, Copy, Default)]
pub struct VerifyOptions {
    /// Open every data key and every value, too: asks the KMS of every live epoch.
    pub open_values: bool,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct VerifyReport {
    /// Organizations looked at.
    pub organizations: u64,
    /// Secrets looked at.
    pub secrets: u64,
    /// Versions looked at.
    pub versions: u64,
    /// Values that were opened.
    pub values_opened: u64,
    /// Epochs looked at.
    pub epochs: u64,
    /// Audit records looked at.
    pub audit_records: u64,
    /// What is wrong; empty when all is well. At most 10,000 are listed.
    pub problems: Vec<Problem>,
    /// Why some values were not opened: a KMS that did not answer, a key that was taken away.
    pub unopened: Vec<Problem>,
}

impl VerifyReport {
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

pub(crate) fn verify(
    inner: &Arc<Inner>,
    options: VerifyOptions,
    progress: impl FnMut(u64),
) -> Result<VerifyReport> {
    let mut verifier = Verifier {
        inner,
        options,
        report: VerifyReport::default(),
        progress,
    };
    verifier.organizations()?;
    Ok(verifier.report)
}

struct Verifier<'a, P> {
    inner: &'a Arc<Inner>,
    options: VerifyOptions,
    report: VerifyReport,
    progress: P,
}

impl<P: FnMut(u64)> Verifier<'_, P> {
    fn organizations(&mut self) -> Result<()> {
        let snapshot = self.inner.core.committer.snapshot();
        let mut found = Vec::new();
        let scanned = snapshot.scan(Table::Organizations, Bound::Unbounded, None, |key, row| {
            let record: OrganizationRecord = records::decode(snapshot.place(), key, row)?;
            let bytes = key
                .try_into()
                .map_err(|_| records::damaged(Table::Organizations, "its key has the wrong length"))?;
            found.push((
                OrganizationId(u32::from_be_bytes(bytes)),
                OrganizationName::stored(&record.name),
            ));
            Ok(ControlFlow::Continue(()))
        });
        self.note(None, scanned)?;
        drop(snapshot);
        for (id, name) in found {
            self.report.organizations += 1;
            let organization = Organization::new(Arc::clone(self.inner), id, name.clone());
            let checked = self.organization(&organization);
            self.note(Some(&name), checked)?;
        }
        Ok(())
    }

    fn organization(&mut self, organization: &Organization) -> Result<()> {
        let scope = organization.scope().clone();
        let name = &scope.organization;
        let snapshot = scope.snapshot();
        let head = scope.head(&*snapshot)?;
        let index: Option<records::OrganizationNameRecord> = snapshot.record(name.as_str().as_bytes())?;
        if index.is_none_or(|index| index.id != scope.org.0) {
            self.problem(
                Some(name),
                None,
                None,
                "its name leads to another organization, or nowhere".into(),
            );
        }
        self.audit(&scope, &*snapshot, &head)?;
        let epochs = organization
            .epochs()
            .map(|epochs| self.report.epochs += epochs.len() as u64);
        self.note(Some(name), epochs)?;
        let keys = crate::keyring::change::keys(&*snapshot, &scope).map(drop);
        self.note(Some(name), keys)?;

        // Every data key, by the epoch that wraps it, against the counts.
        let mut counted: BTreeMap<EpochNumber, u64> = BTreeMap::new();
        let mut data_keys = 0;
        let scanned = snapshot.scan_prefix(Table::DataKeys, &tables::organization(scope.org), |_, row| {
            *counted.entry(DataKeyRow::decode(row)?.epoch).or_default() += 1;
            data_keys += 1;
            Ok(ControlFlow::Continue(()))
        });
        self.note(Some(name), scanned)?;
        for live in &head.live_epochs {
            let found = counted.remove(&live.epoch).unwrap_or(0);
            if found != live.references {
                let what = format!(
                    "epoch {} counts {} data keys; {found} refer to it",
                    live.epoch, live.references
                );
                self.problem(Some(name), None, None, what);
            }
        }
        for (epoch, found) in counted {
            self.problem(
                Some(name),
                None,
                None,
                format!("{found} data keys refer to epoch {epoch}, which is not live"),
            );
        }

        let mut secrets = Vec::new();
        let prefix = tables::organization(scope.org);
        let scanned = snapshot.scan_prefix(Table::Secrets, &prefix, |key, row| {
            let path = std::str::from_utf8(&key[prefix.len()..])
                .map_err(|_| records::damaged(Table::Secrets, "its path is not UTF-8"))?;
            secrets.push((
                SecretPath::stored(path),
                records::decode::<SecretRecord>(snapshot.place(), key, row)?,
            ));
            Ok(ControlFlow::Continue(()))
        });
        self.note(Some(name), scanned)?;
        if secrets.len() as u64 != head.secrets {
            let what = format!("it counts {} secrets; there are {}", head.secrets, secrets.len());
            self.problem(Some(name), None, None, what);
        }
        let mut live_versions = 0;
        for (path, secret) in &secrets {
            self.report.secrets += 1;
            live_versions += self.secret(&scope, &*snapshot, path, secret)?;
        }
        if live_versions != data_keys {
            let what = format!(
                "there are {data_keys} data keys for {live_versions} versions that are not destroyed"
            );
            self.problem(Some(name), None, None, what);
        }
        Ok(())
    }

    fn audit(&mut self, scope: &crate::scope::Scope, rows: &impl Rows, head: &HeadRecord) -> Result<()> {
        let (mut count, mut last) = (0, [0; 32]);
        let walked = audit::walk(rows, scope.org, 0, |_, hash| {
            count += 1;
            last = hash;
            Ok(ControlFlow::Continue(()))
        });
        self.report.audit_records += count;
        let whole = walked.is_ok();
        self.note(Some(&scope.organization), walked)?;
        if whole && (count != head.audit_sequence || last != head.audit_hash) {
            let what = format!(
                "its audit trail ends at record {count}; its head says {}",
                head.audit_sequence
            );
            self.problem(Some(&scope.organization), None, None, what);
        }
        Ok(())
    }

    /// Checks the versions of one secret; says how many are not destroyed.
    fn secret(
        &mut self,
        scope: &crate::scope::Scope,
        rows: &impl Rows,
        path: &SecretPath,
        secret: &SecretRecord,
    ) -> Result<u64> {
        let mut live = 0;
        let mut deleted = 0;
        for number in 1..=secret.latest.get() {
            let version = Version(number);
            self.report.versions += 1;
            (self.progress)(self.report.versions);
            let key = tables::version(scope.org, secret.secret_id, version);
            let header = rows.get_with(Table::Versions, &key, |row| {
                Ok(VersionRow::parse(rows.place(), &key, row, HeaderCheck::PlaceTag)?.header)
            });
            let problem = match header {
                Ok(Some(header)) => match (header.body, rows.get_with(Table::DataKeys, &key, |_| Ok(()))?) {
                    (Body::Destroyed { .. } | Body::Lost { .. }, None) => continue,
                    (Body::Destroyed { .. } | Body::Lost { .. }, Some(())) => {
                        Some("it is destroyed or lost, but its data key is there".to_owned())
                    }
                    (_, None) => Some("its data key is missing".into()),
                    (_, Some(())) => None,
                },
                Ok(None) => Some("its row is missing".into()),
                Err(error @ (Error::Closed { .. } | Error::Storage { .. })) => return Err(error),
                Err(error) => Some(error.to_string()),
            };
            live += 1;
            let is_deleted = rows.get_with(Table::Deletions, &key, |_| Ok(()))?.is_some();
            deleted += u32::from(is_deleted);
            match problem {
                Some(what) => self.problem(Some(&scope.organization), Some(path), Some(version), what),
                None if self.options.open_values && !is_deleted => self.value(scope, path, version)?,
                None => {}
            }
        }
        if deleted != secret.deleted {
            let what = format!("it counts {} deleted versions; {deleted} are", secret.deleted);
            self.problem(Some(&scope.organization), Some(path), None, what);
        }
        Ok(live)
    }

    fn value(&mut self, scope: &crate::scope::Scope, path: &SecretPath, version: Version) -> Result<()> {
        match read::get(scope, path, Some(version)) {
            Ok(_) => self.report.values_opened += 1,
            Err(error @ (Error::Closed { .. } | Error::Storage { .. })) => return Err(error),
            // Changed since the snapshot.
            Err(
                Error::VersionDeleted { .. } | Error::VersionDestroyed { .. } | Error::VersionLost { .. },
            ) => {}
            Err(error @ (Error::Kms { .. } | Error::BackendNotRegistered { .. })) => {
                if self.report.unopened.len() < PROBLEMS_MAX {
                    self.report.unopened.push(Problem {
                        organization: Some(scope.organization.to_string()),
                        path: Some(path.to_string()),
                        version: Some(version),
                        what: error.to_string(),
                    });
                }
            }
            Err(error) => self.problem(
                Some(&scope.organization),
                Some(path),
                Some(version),
                error.to_string(),
            ),
        }
        Ok(())
    }

    /// Damage goes into the report; a store that is closed or a disk that fails ends the verification.
    fn note(&mut self, organization: Option<&OrganizationName>, outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => Ok(()),
            Err(error @ (Error::Closed { .. } | Error::Storage { .. })) => Err(error),
            Err(error) => {
                self.problem(organization, None, None, error.to_string());
                Ok(())
            }
        }
    }

    fn problem(
        &mut self,
        organization: Option<&OrganizationName>,
        path: Option<&SecretPath>,
        version: Option<Version>,
        what: String,
    ) {
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push(Problem {
                organization: organization.map(ToString::to_string),
                path: path.map(ToString::to_string),
                version,
                what,
            });
        }
    }
}
