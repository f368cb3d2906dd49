//! `put`: a new version with a data key of its own, wrapped by the active epoch; one commit, with its audit record.

use crate::audit::{self, AuditEvent};
use crate::crypto::{SecretBytes, wiping_stack};
use crate::env::now_ms;
use crate::error::{Error, Result};
use crate::keyring::cache::EpochKey;
use crate::keyring::data_key::{self, DataKey, DataKeyPlace};
use crate::mutant::{Mutant, planted};
use crate::names::{EpochNumber, SecretPath, Version};
use crate::scope::Scope;
use crate::secret::value::{BodyPlace, CHUNK_BYTES, Chunks, ContentPlace, INLINE_MAX_BYTES, content_key};
use crate::secret::{
    BATCH_MAX, BATCH_MAX_BYTES, Batch, BatchPut, Expect, PutOptions, VALUE_MAX_BYTES, remove, stream,
};
use crate::storage::records::{Body, HeadRecord, SecretRecord, VersionHeader, VersionRow};
use crate::storage::tables::ValueId;
use crate::storage::{Rows, Table, Transaction, tables};
use std::sync::Arc;

/// Larger values are written as a stream, in several commits; the last one makes the version.
const ONE_COMMIT_MAX_BYTES: usize = 1 << 20;
/// How often a put is prepared again because the active epoch moved on.
const EPOCH_MOVED_MAX: usize = 16;

/// Writes a new version of one secret.
pub(crate) fn put(scope: &Scope, path: &SecretPath, value: &[u8], options: PutOptions) -> Result<Version> {
    options.check()?;
    check_size(value.len() as u64)?;
    if value.len() > ONE_COMMIT_MAX_BYTES {
        return stream::put_large(scope, path, value, options);
    }
    let put = BatchPut {
        path: path.clone(),
        value: SecretBytes::from_slice(value),
        options,
    };
    let versions = put_all(scope, vec![put])?;
    Ok(versions[0])
}

/// Writes several versions in one commit: all or nothing.
pub(crate) fn commit(scope: &Scope, batch: Batch) -> Result<Vec<Version>> {
    if batch.puts.len() > BATCH_MAX {
        return Err(Error::InvalidArgument {
            what: "a batch",
            reason: format!(
                "it has {} puts; at most {BATCH_MAX} are allowed",
                batch.puts.len()
            ),
        });
    }
    let bytes = batch.puts.iter().map(|put| put.value.len() as u64).sum();
    if bytes > BATCH_MAX_BYTES {
        return Err(Error::TooLarge {
            what: "a batch",
            size_bytes: bytes,
            max_bytes: BATCH_MAX_BYTES,
        });
    }
    if batch.puts.is_empty() {
        Ok(Vec::new())
    } else {
        put_all(scope, batch.puts)
    }
}

pub(crate) fn check_size(size_bytes: u64) -> Result<()> {
    if size_bytes > VALUE_MAX_BYTES {
        return Err(Error::TooLarge {
            what: "a value",
            size_bytes,
            max_bytes: VALUE_MAX_BYTES,
        });
    }
    Ok(())
}

fn put_all(scope: &Scope, puts: Vec<BatchPut>) -> Result<Vec<Version>> {
    let puts = Arc::new(puts);
    with_active_epoch(scope, |key| {
        let (scope, puts) = (scope.clone(), Arc::clone(&puts));
        scope.core.committer.clone().submit(move |transaction| {
            wiping_stack(|| {
                let mut writer = Writer::begin(&scope, transaction, &key)?;
                // Every expectation is looked at before anything is written: a batch that fails changes nothing.
                writer.check_expectations(&puts)?;
                let versions = puts
                    .iter()
                    .map(|put| writer.put(put))
                    .collect::<Result<Vec<_>>>()?;
                writer.finish()?;
                Ok(versions)
            })
        })
    })
}

/// Has `submit` done with the key of the active epoch; again, when the epoch moved on meanwhile.
pub(crate) fn with_active_epoch<T>(scope: &Scope, submit: impl Fn(Arc<EpochKey>) -> Result<T>) -> Result<T> {
    for _ in 0..EPOCH_MOVED_MAX {
        match scope.active_epoch_key().and_then(&submit) {
            Err(Error::EpochMoved) => {}
            outcome => return outcome,
        }
    }
    Err(Error::InvalidArgument {
        what: "a put",
        reason: format!("the active epoch changed {EPOCH_MOVED_MAX} times meanwhile; try again"),
    })
}

/// Writes versions inside of one transaction.
pub(crate) struct Writer<'a, 't> {
    scope: &'a Scope,
    transaction: &'a mut Transaction<'t>,
    head: HeadRecord,
    epoch: EpochNumber,
    cipher: crate::crypto::Cipher,
    at_ms: u64,
}

impl<'a, 't> Writer<'a, 't> {
    /// Fails, having changed nothing, when the key is not the active epoch's any more.
    pub(crate) fn begin(
        scope: &'a Scope,
        transaction: &'a mut Transaction<'t>,
        key: &EpochKey,
    ) -> Result<Self> {
        let head = scope.head(transaction)?;
        if head.active_epoch != key.epoch && !planted(Mutant::PutOnRetiringEpoch) {
            return Err(Error::EpochMoved);
        }
        let at_ms = now_ms(scope.env());
        Ok(Self {
            scope,
            transaction,
            head,
            epoch: key.epoch,
            cipher: key.cipher(),
            at_ms,
        })
    }

    pub(crate) fn finish(self) -> Result<()> {
        self.scope.put_head(self.transaction, &self.head)
    }

    /// The active epoch takes so many wraps more.
    pub(crate) fn check_wraps(&mut self, more: u64) -> Result<()> {
        let live = self.head.live_epoch(self.epoch)?;
        if live.wraps.saturating_add(more) > self.scope.core.limits.wraps_per_epoch_max {
            let organization = self.scope.organization.clone();
            return Err(Error::EpochExhausted {
                organization,
                epoch: self.epoch,
            });
        }
        Ok(())
    }

    fn check_expectations(&mut self, puts: &[BatchPut]) -> Result<()> {
        self.check_wraps(puts.len() as u64)?;
        for (index, put) in puts.iter().enumerate() {
            if put.options.expect == Expect::Any {
                continue;
            }
            let before = u32::try_from(
                puts[..index]
                    .iter()
                    .filter(|other| other.path == put.path)
                    .count(),
            );
            let stored = self.secret(&put.path)?.map_or(0, |secret| secret.latest.get());
            self.check_expectation(&put.path, put.options.expect, stored + before.unwrap_or(u32::MAX))?;
        }
        Ok(())
    }

    pub(crate) fn check_expectation(&self, path: &SecretPath, expect: Expect, actual: u32) -> Result<()> {
        match expect.number() {
            Some(expected) if expected != actual => Err(Error::VersionMismatch {
                organization: self.scope.organization.clone(),
                path: path.clone(),
                expected,
                actual,
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn secret(&self, path: &SecretPath) -> Result<Option<SecretRecord>> {
        self.transaction
            .record(&tables::with_name(self.scope.org, path.as_str()))
    }

    fn put(&mut self, put: &BatchPut) -> Result<Version> {
        let key = data_key::generate(self.scope.env())?;
        let value = put.value.as_slice();
        if value.len() <= INLINE_MAX_BYTES {
            return self.put_version(&put.path, &put.options, &key, NewBody::Inline(value));
        }
        let mut value_id = [0; 16];
        self.scope
            .env()
            .fill_random(&mut value_id)
            .map_err(Error::Randomness)?;
        let content = content_key(self.scope.store(), ContentPlace::Chunked { value_id }, &key);
        let chunks = Chunks::new(self.scope.store(), self.scope.org, &value_id, &content);
        let count = u32::try_from(value.len().div_ceil(CHUNK_BYTES))
            .expect("a value has at most some thousand chunks");
        for (index, chunk) in (0..count).zip(value.chunks(CHUNK_BYTES)) {
            let sealed = chunks.seal(index, index + 1 == count, chunk);
            self.transaction.put(
                Table::Chunks,
                &tables::chunk(self.scope.org, &value_id, index),
                &sealed,
            )?;
        }
        let body = NewBody::Chunked {
            value_id,
            chunks: count,
            size_bytes: value.len() as u64,
        };
        self.put_version(&put.path, &put.options, &key, body)
    }

    /// Writes the rows of a new version: its header and body, its data key, the secret's record, the audit record.
    pub(crate) fn put_version(
        &mut self,
        path: &SecretPath,
        options: &PutOptions,
        key: &DataKey,
        body: NewBody<'_>,
    ) -> Result<Version> {
        let scope = self.scope;
        let secret_key = tables::with_name(scope.org, path.as_str());
        let mut secret = match self.secret(path)? {
            Some(mut secret) => {
                let next = secret.latest.get().checked_add(1).and_then(Version::new);
                secret.latest = next.ok_or(Error::InvalidArgument {
                    what: "a put",
                    reason: "the secret has as many versions as can be numbered".into(),
                })?;
                secret.updated_at_ms = self.at_ms;
                secret
            }
            None => self.new_secret()?,
        };
        let (secret_id, version) = (secret.secret_id, secret.latest);

        self.write_version_row(path, options, key, &body, secret_id, version)?;
        let place = DataKeyPlace {
            store: scope.store(),
            org: scope.org,
            secret_id,
            version,
        };
        let wrapped = data_key::seal(scope.env(), &self.cipher, self.epoch, &place, key)?;
        self.transaction.put(
            Table::DataKeys,
            &tables::version(scope.org, secret_id, version),
            &wrapped.encode(),
        )?;
        self.head.add_reference(self.epoch)?;

        let event = AuditEvent::VersionPut {
            path: path.to_string(),
            version,
        };
        audit::append(
            self.transaction,
            scope.org,
            &mut self.head,
            &scope.by,
            self.at_ms,
            event,
        )?;
        remove::apply_retention(scope, self.transaction, &mut self.head, path, &mut secret)?;
        self.transaction.put_record(&secret_key, &secret)?;
        Ok(version)
    }

    fn new_secret(&mut self) -> Result<SecretRecord> {
        let secret_id = self.head.next_secret_id;
        let next = secret_id.checked_add(1);
        self.head.next_secret_id = next.ok_or_else(|| self.scope.no_number_left("secret"))?;
        self.head.secrets = self.head.secrets.saturating_add(1);
        Ok(SecretRecord {
            secret_id,
            latest: Version(1),
            deleted: 0,
            oldest_kept: Version(1),
            retention: None,
            created_at_ms: self.at_ms,
            updated_at_ms: self.at_ms,
        })
    }

    fn write_version_row(
        &mut self,
        path: &SecretPath,
        options: &PutOptions,
        key: &DataKey,
        body: &NewBody<'_>,
        secret_id: u64,
        version: Version,
    ) -> Result<()> {
        let (store, org) = (self.scope.store(), self.scope.org);
        let (place, value, size_bytes) = match *body {
            NewBody::Inline(value) => (
                ContentPlace::Inline {
                    org,
                    secret_id,
                    version,
                },
                value,
                value.len() as u64,
            ),
            NewBody::Chunked {
                value_id, size_bytes, ..
            } => (ContentPlace::Chunked { value_id }, &[][..], size_bytes),
        };
        let content = content_key(store, place, key);
        let commitment = *content.commitment.as_bytes();
        let header = VersionHeader {
            created_at_ms: self.at_ms,
            size_bytes,
            content_type: options.content_type.clone(),
            labels: options.labels.clone().into_iter().collect(),
            body: match *body {
                NewBody::Inline(_) => Body::Inline { commitment },
                NewBody::Chunked { value_id, chunks, .. } => Body::Chunked {
                    commitment,
                    value_id,
                    chunks,
                },
            },
        };
        let row_key = tables::version(org, secret_id, version);
        let mut row = VersionRow::begin(
            self.transaction.place(),
            &row_key,
            &header,
            value.len() + crate::crypto::TAG_LEN,
        );
        let header_bytes = VersionRow::header_of(&row).to_vec();
        let place = BodyPlace {
            store,
            org,
            secret_id,
            version,
            path,
        };
        place.seal_body(&content, &header_bytes, value, &mut row);
        self.transaction.put(Table::Versions, &row_key, &row)
    }

    pub(crate) fn transaction(&mut self) -> &mut Transaction<'t> {
        self.transaction
    }
}

/// The body of a version that is being written.
#[derive(Clone, Copy)]
pub(crate) enum NewBody<'v> {
    Inline(&'v [u8]),
    /// Its chunks are written.
    Chunked {
        value_id: ValueId,
        chunks: u32,
        size_bytes: u64,
    },
}
