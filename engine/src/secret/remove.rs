//! `delete`, `undelete`, `destroy`, and retention. None of them needs a KMS.

use crate::audit::{self, AuditEvent};
use crate::env::now_ms;
use crate::error::{Error, Result};
use crate::mutant::{Mutant, planted};
use crate::names::{SecretPath, Version};
use crate::scope::Scope;
use crate::secret::read::{lost_version, missing_version};
use crate::storage::records::{
    Body, DataKeyRow, DeletionRecord, HeadRecord, HeaderCheck, SecretRecord, VersionHeader, VersionRow,
};
use crate::storage::{Rows, Table, Transaction, tables};
use std::ops::ControlFlow;

/// Versions that one put destroys for retention: bounds what a put costs after retention was tightened.
const RETENTION_PER_PUT: u32 = 64;

/// Deletes a version: it stays, unread, until it is undeleted or destroyed.
pub(crate) fn delete(scope: &Scope, path: &SecretPath, version: Version) -> Result<()> {
    mark(scope, path, version, true)
}

/// Brings a deleted version back.
pub(crate) fn undelete(scope: &Scope, path: &SecretPath, version: Version) -> Result<()> {
    mark(scope, path, version, false)
}

fn mark(scope: &Scope, path: &SecretPath, version: Version, delete: bool) -> Result<()> {
    change(
        scope,
        path,
        version,
        move |own, transaction, head, secret, path| {
            let key = tables::version(own.org, secret.secret_id, version);
            read_header(own, transaction, path, secret, version)?;
            let at_ms = now_ms(own.env());
            let is_deleted = transaction.record::<DeletionRecord>(&key)?.is_some();
            if is_deleted == delete {
                return Ok(());
            }
            let event = if delete {
                transaction.put_record(&key, &DeletionRecord { deleted_at_ms: at_ms })?;
                secret.deleted = secret.deleted.saturating_add(1);
                AuditEvent::VersionDeleted {
                    path: path.to_string(),
                    version,
                }
            } else {
                transaction.remove(Table::Deletions, &key)?;
                secret.deleted = secret.deleted.saturating_sub(1);
                AuditEvent::VersionUndeleted {
                    path: path.to_string(),
                    version,
                }
            };
            audit::append(transaction, own.org, head, &own.by, at_ms, event)
        },
    )
}

/// Removes a version's data key and value for good; its number and header stay, as a tombstone.
pub(crate) fn destroy(scope: &Scope, path: &SecretPath, version: Version) -> Result<()> {
    change(
        scope,
        path,
        version,
        move |own, transaction, head, secret, path| {
            let header = read_header(own, transaction, path, secret, version)?;
            destroy_version(own, transaction, head, path, secret, version, header, false)
        },
    )
}

/// Sets how many versions of a secret are kept; it takes effect with the next put.
pub(crate) fn set_retention(scope: &Scope, path: &SecretPath, keep: Option<u32>) -> Result<()> {
    if keep == Some(0) {
        return Err(Error::InvalidArgument {
            what: "a retention",
            reason: "at least one version is kept".into(),
        });
    }
    change(
        scope,
        path,
        Version(1),
        move |own, transaction, head, secret, path| {
            secret.retention = keep;
            let event = AuditEvent::RetentionSet {
                path: path.to_string(),
                keep,
            };
            audit::append(transaction, own.org, head, &own.by, now_ms(own.env()), event)
        },
    )
}

fn change(
    scope: &Scope,
    path: &SecretPath,
    version: Version,
    apply: impl Fn(&Scope, &mut Transaction<'_>, &mut HeadRecord, &mut SecretRecord, &SecretPath) -> Result<()>
    + Send
    + 'static,
) -> Result<()> {
    let (scope, path) = (scope.clone(), path.clone());
    scope.core.committer.clone().submit(move |transaction| {
        let mut head = scope.head(transaction)?;
        let key = tables::with_name(scope.org, path.as_str());
        let mut secret: SecretRecord = transaction.record(&key)?.ok_or_else(|| Error::SecretNotFound {
            organization: scope.organization.clone(),
            path: path.clone(),
        })?;
        if version > secret.latest {
            return Err(missing_version(&scope, &path, version, secret.latest));
        }
        let before = transaction.changes();
        apply(&scope, transaction, &mut head, &mut secret, &path)?;
        if transaction.changes() > before {
            transaction.put_record(&key, &secret)?;
            scope.put_head(transaction, &head)?;
        }
        Ok(())
    })
}

/// The header of a version that is neither destroyed nor lost.
fn read_header(
    scope: &Scope,
    rows: &impl Rows,
    path: &SecretPath,
    secret: &SecretRecord,
    version: Version,
) -> Result<VersionHeader> {
    let key = tables::version(scope.org, secret.secret_id, version);
    let header = rows
        .get_with(Table::Versions, &key, |row| {
            Ok(VersionRow::parse(rows.place(), &key, row, HeaderCheck::PlaceTag)?.header)
        })?
        .ok_or_else(|| {
            Error::damaged(
                format!("version {version} of secret {path:?}"),
                "its row is missing",
            )
        })?;
    if let Body::Destroyed { .. } = header.body {
        let (organization, path) = (scope.organization.clone(), path.clone());
        return Err(Error::VersionDestroyed {
            organization,
            path,
            version,
        });
    }
    if let Body::Lost { .. } = header.body {
        return Err(lost_version(scope, path, version));
    }
    Ok(header)
}

#[allow(
    clippy::too_many_arguments,
    reason = "one version in its place, and what is counted with it"
)]
fn destroy_version(
    scope: &Scope,
    transaction: &mut Transaction<'_>,
    head: &mut HeadRecord,
    path: &SecretPath,
    secret: &mut SecretRecord,
    version: Version,
    header: VersionHeader,
    by_retention: bool,
) -> Result<()> {
    let at_ms = now_ms(scope.env());
    let key = tables::version(scope.org, secret.secret_id, version);
    if let Body::Chunked { value_id, .. } = header.body {
        remove_chunks(scope, transaction, &tables::upload(scope.org, &value_id))?;
    }
    if let Some(epoch) =
        transaction.get_with(Table::DataKeys, &key, |row| Ok(DataKeyRow::decode(row)?.epoch))?
    {
        transaction.remove(Table::DataKeys, &key)?;
        if !planted(Mutant::CountKeptAtDestroy) {
            head.drop_reference(epoch)?;
        }
    }
    if transaction.remove(Table::Deletions, &key)? {
        secret.deleted = secret.deleted.saturating_sub(1);
    }
    let tombstone = VersionHeader {
        body: Body::Destroyed { at_ms },
        ..header
    };
    let row = VersionRow::begin(transaction.place(), &key, &tombstone, 0);
    transaction.put(Table::Versions, &key, &row)?;
    let event = AuditEvent::VersionDestroyed {
        path: path.to_string(),
        version,
        by_retention,
    };
    audit::append(transaction, scope.org, head, &scope.by, at_ms, event)
}

/// Removes the chunks of a value. At most some thousand rows.
pub(crate) fn remove_chunks(
    scope: &Scope,
    transaction: &mut Transaction<'_>,
    prefix: &[u8; 20],
) -> Result<()> {
    debug_assert_eq!(prefix[..4], tables::organization(scope.org));
    let mut keys = Vec::new();
    transaction.scan_prefix(Table::Chunks, prefix, |key, _| {
        keys.push(key.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    for key in keys {
        transaction.remove(Table::Chunks, &key)?;
    }
    Ok(())
}

/// Destroys the versions that a secret's retention does not keep.
pub(crate) fn apply_retention(
    scope: &Scope,
    transaction: &mut Transaction<'_>,
    head: &mut HeadRecord,
    path: &SecretPath,
    secret: &mut SecretRecord,
) -> Result<()> {
    let Some(keep) = secret.retention else {
        return Ok(());
    };
    let first_kept = secret.latest.get().saturating_sub(keep.saturating_sub(1)).max(1);
    let until = first_kept.min(secret.oldest_kept.get().saturating_add(RETENTION_PER_PUT));
    for number in secret.oldest_kept.get()..until {
        let version = Version(number);
        match read_header(scope, transaction, path, secret, version) {
            Ok(header) => destroy_version(scope, transaction, head, path, secret, version, header, true)?,
            Err(Error::VersionDestroyed { .. } | Error::VersionLost { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    secret.oldest_kept = Version(until.max(secret.oldest_kept.get()));
    Ok(())
}
