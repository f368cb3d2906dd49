//! Large values by writer and reader, in bounded memory.
//!
//! A writer seals chunks as they come and commits them a few at a time under a random value id; nothing refers to them until
//! the last commit makes the version. A writer that is dropped, or dies with its process, leaves an upload record behind, by
//! which its chunks are found and removed.

use crate::crypto::{Derived, SecretBytes, wiping_stack};
use crate::env::now_ms;
use crate::error::{Error, Result};
use crate::keyring::data_key::{self, DataKey};
use crate::names::{SecretPath, Version};
use crate::scope::Scope;
use crate::secret::read::{self, Opened, OpenedVersion};
use crate::secret::value::{CHUNK_BYTES, Chunks, ContentPlace, content_key};
use crate::secret::write::{NewBody, Writer, check_size, with_active_epoch};
use crate::secret::{PutOptions, VersionInfo, VersionState, remove};
use crate::storage::records::UploadRecord;
use crate::storage::tables::ValueId;
use crate::storage::{Rows, Table, Transaction, tables};
use std::io::{self, Read, Write};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use zeroize::Zeroize;

/// Sealed chunks that one commit takes.
const CHUNKS_PER_COMMIT: usize = 12;

/// Writes one large value; the version is there when [`finish`](Self::finish) returns. Dropped before, it leaves nothing.
///
/// Holds at most about 1 MiB. Each MiB written costs one commit, [`finish`](Self::finish) one more.
///
/// # Examples
///
/// ```no_run
/// # fn example(acme: keystead::Organization, mut source: std::fs::File) -> Result<(), Box<dyn std::error::Error>> {
/// let mut writer = acme.writer("backups/keyring", keystead::PutOptions::new())?;
/// std::io::copy(&mut source, &mut writer)?;
/// let version = writer.finish()?;
/// # Ok(())
/// # }
/// ```
pub struct SecretWriter {
    scope: Scope,
    path: SecretPath,
    options: PutOptions,
    value_id: ValueId,
    key: Arc<DataKey>,
    content: Derived,
    /// At most one chunk of plaintext: a chunk is sealed when it is known whether it is the last.
    pending: Vec<u8>,
    sealed: Vec<Vec<u8>>,
    next_index: u32,
    size_bytes: u64,
    uploaded: bool,
    finished: bool,
}

impl SecretWriter {
    pub(crate) fn begin(scope: &Scope, path: SecretPath, options: PutOptions) -> Result<Self> {
        options.check()?;
        let mut value_id = [0; 16];
        scope
            .env()
            .fill_random(&mut value_id)
            .map_err(Error::Randomness)?;
        let (key, content) = wiping_stack(|| {
            let key = data_key::generate(scope.env())?;
            let content = content_key(scope.store(), ContentPlace::Chunked { value_id }, &key);
            Ok::<_, Error>((Arc::new(key), content))
        })?;
        Ok(Self {
            scope: scope.clone(),
            path,
            options,
            value_id,
            key,
            content,
            pending: Vec::with_capacity(CHUNK_BYTES),
            sealed: Vec::new(),
            next_index: 0,
            size_bytes: 0,
            uploaded: false,
            finished: false,
        })
    }

    /// Makes the version, and returns its number when it is durable.
    ///
    /// # Errors
    ///
    /// Those of a put; nothing is left of the value then.
    pub fn finish(mut self) -> Result<Version> {
        self.seal_pending(true)?;
        self.commit_sealed(CHUNKS_PER_COMMIT)?;
        let last_chunks: Arc<Vec<(u32, Vec<u8>)>> = Arc::new(self.take_sealed());
        let (path, options, key) = (self.path.clone(), self.options.clone(), Arc::clone(&self.key));
        let body = NewBody::Chunked {
            value_id: self.value_id,
            chunks: self.next_index,
            size_bytes: self.size_bytes,
        };
        let scope = &self.scope;
        let value_id = self.value_id;
        let version = with_active_epoch(scope, |epoch_key| {
            let (scope, path, options, key) =
                (scope.clone(), path.clone(), options.clone(), Arc::clone(&key));
            let last_chunks = Arc::clone(&last_chunks);
            scope.core.committer.clone().submit(move |transaction| {
                wiping_stack(|| {
                    let mut writer = Writer::begin(&scope, transaction, &epoch_key)?;
                    let actual = writer.secret(&path)?.map_or(0, |secret| secret.latest.get());
                    writer.check_expectation(&path, options.expect, actual)?;
                    writer.check_wraps(1)?;
                    put_chunks(&scope, writer.transaction(), &value_id, &last_chunks)?;
                    writer
                        .transaction()
                        .remove(Table::Uploads, &tables::upload(scope.org, &value_id))?;
                    let version = writer.put_version(&path, &options, &key, body)?;
                    writer.finish()?;
                    Ok(version)
                })
            })
        })?;
        self.finished = true;
        Ok(version)
    }

    fn seal_pending(&mut self, last: bool) -> Result<()> {
        let sealed = wiping_stack(|| {
            Chunks::new(self.scope.store(), self.scope.org, &self.value_id, &self.content).seal(
                self.next_index,
                last,
                &self.pending,
            )
        });
        self.sealed.push(sealed);
        self.next_index += 1;
        self.pending.zeroize();
        Ok(())
    }

    /// Commits sealed chunks when there are more than `most`.
    fn commit_sealed(&mut self, most: usize) -> Result<()> {
        if self.sealed.len() <= most {
            return Ok(());
        }
        let chunks = Arc::new(self.take_sealed());
        let (scope, value_id) = (self.scope.clone(), self.value_id);
        let started_at_ms = now_ms(scope.env());
        self.uploaded = true;
        scope.core.committer.clone().submit(move |transaction| {
            transaction.put_record(
                &tables::upload(scope.org, &value_id),
                &UploadRecord { started_at_ms },
            )?;
            put_chunks(&scope, transaction, &value_id, &chunks)
        })
    }

    fn take_sealed(&mut self) -> Vec<(u32, Vec<u8>)> {
        let sealed = std::mem::take(&mut self.sealed);
        let first = self.next_index - u32::try_from(sealed.len()).expect("a few chunks");
        (first..).zip(sealed).collect()
    }
}

fn put_chunks(
    scope: &Scope,
    transaction: &mut Transaction<'_>,
    value_id: &ValueId,
    chunks: &[(u32, Vec<u8>)],
) -> Result<()> {
    for (index, sealed) in chunks {
        transaction.put(Table::Chunks, &tables::chunk(scope.org, value_id, *index), sealed)?;
    }
    Ok(())
}

impl Write for SecretWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.pending.len() == CHUNK_BYTES {
            self.seal_pending(false).map_err(io::Error::other)?;
            self.commit_sealed(CHUNKS_PER_COMMIT - 1)
                .map_err(io::Error::other)?;
        }
        let take = bytes.len().min(CHUNK_BYTES - self.pending.len());
        check_size(self.size_bytes + take as u64).map_err(io::Error::other)?;
        self.pending.extend_from_slice(&bytes[..take]);
        self.size_bytes += take as u64;
        Ok(take)
    }

    /// Does nothing: a value is durable when [`finish`](SecretWriter::finish) returns.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for SecretWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretWriter")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Drop for SecretWriter {
    fn drop(&mut self) {
        self.pending.zeroize();
        if self.finished || !self.uploaded {
            return;
        }
        let key = tables::upload(self.scope.org, &self.value_id);
        if let Err(error) = remove_upload(&self.scope, key) {
            tracing::debug!(%error, "the chunks of an unfinished value stay until the store is opened again");
        }
    }
}

fn remove_upload(scope: &Scope, key: [u8; 20]) -> Result<()> {
    let scope = scope.clone();
    scope.core.committer.clone().submit(move |transaction| {
        remove::remove_chunks(&scope, transaction, &key)?;
        transaction.remove(Table::Uploads, &key)?;
        Ok(())
    })
}

/// Removes what writers left behind when the process died. Costs one look when there is nothing.
pub(crate) fn remove_unfinished(snapshot: &impl Rows, submit: impl Fn([u8; 20]) -> Result<()>) -> Result<()> {
    let mut found = Vec::new();
    snapshot.scan(Table::Uploads, Bound::Unbounded, None, |key, _| {
        found.push(
            key.try_into()
                .map_err(|_| Error::damaged("an upload", "its row's key has the wrong length"))?,
        );
        Ok(ControlFlow::Continue(()))
    })?;
    found.into_iter().try_for_each(submit)
}

/// Writes a value that is in memory as a stream.
pub(crate) fn put_large(
    scope: &Scope,
    path: &SecretPath,
    value: &[u8],
    options: PutOptions,
) -> Result<Version> {
    let mut writer = SecretWriter::begin(scope, path.clone(), options)?;
    writer
        .write_all(value)
        .map_err(|source| from_stream("writing a value", source))?;
    writer.finish()
}

/// The engine's error in an `io::Error` that came out of a writer or a reader.
fn from_stream(doing: &'static str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(source) => Error::Stream { doing, source },
    }
}

/// Reads one value chunk by chunk. Every chunk that it returns is authenticated; the end is reached only when the last chunk
/// was, so a reader that was cut short returns an error, never a shorter value.
///
/// # Examples
///
/// ```no_run
/// # fn example(acme: keystead::Organization, mut sink: std::fs::File) -> Result<(), Box<dyn std::error::Error>> {
/// let mut reader = acme.reader("backups/keyring", None)?;
/// std::io::copy(&mut reader, &mut sink)?;
/// # Ok(())
/// # }
/// ```
pub struct SecretReader {
    scope: Scope,
    path: SecretPath,
    info: VersionInfo,
    source: Source,
    current: SecretBytes,
    position: usize,
    delivered: u64,
}

enum Source {
    Inline,
    Chunked {
        value_id: ValueId,
        chunks: Box<Chunks>,
        next: u32,
        count: u32,
    },
}

impl SecretReader {
    pub(crate) fn begin(scope: &Scope, path: SecretPath, version: Option<Version>) -> Result<Self> {
        let OpenedVersion {
            version,
            header,
            body,
        } = read::open(scope, &path, version)?;
        let (source, current) = match body {
            Opened::Inline(value) => (Source::Inline, value),
            Opened::Chunked {
                value_id,
                chunks,
                count,
            } => (
                Source::Chunked {
                    value_id,
                    chunks,
                    next: 0,
                    count,
                },
                SecretBytes::from_slice(&[]),
            ),
        };
        let info = VersionInfo {
            version,
            created_at_ms: header.created_at_ms,
            size_bytes: header.size_bytes,
            content_type: header.content_type,
            labels: header.labels.into_iter().collect(),
            state: VersionState::Live,
        };
        Ok(Self {
            scope: scope.clone(),
            path,
            info,
            source,
            current,
            position: 0,
            delivered: 0,
        })
    }

    /// What is known of the version that is being read.
    #[must_use]
    pub fn info(&self) -> &VersionInfo {
        &self.info
    }

    fn next_chunk(&mut self) -> Result<bool> {
        let Source::Chunked {
            value_id,
            chunks,
            next,
            count,
        } = &mut self.source
        else {
            return Ok(false);
        };
        if *next == *count {
            if self.delivered == self.info.size_bytes {
                return Ok(false);
            }
            let what = format!("version {} of secret {:?}", self.info.version, self.path);
            return Err(Error::damaged(what, "its chunks are not as long as its size"));
        }
        self.current = read::read_chunk(
            &self.scope,
            value_id,
            chunks,
            *next,
            *count,
            &self.path,
            self.info.version,
        )?;
        self.position = 0;
        *next += 1;
        Ok(true)
    }
}

impl Read for SecretReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        while self.position == self.current.len() {
            if !self.next_chunk().map_err(io::Error::other)? {
                return Ok(0);
            }
        }
        let from = &self.current.as_slice()[self.position..];
        let take = from.len().min(out.len());
        out[..take].copy_from_slice(&from[..take]);
        self.position += take;
        self.delivered += take as u64;
        Ok(take)
    }
}

impl std::fmt::Debug for SecretReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretReader")
            .field("path", &self.path)
            .field("version", &self.info.version)
            .finish_non_exhaustive()
    }
}

/// Removes one upload that nobody will finish, whoever's it was.
pub(crate) fn remove_upload_of(scope: &Scope, key: [u8; 20]) -> Result<()> {
    remove_upload(scope, key)
}
