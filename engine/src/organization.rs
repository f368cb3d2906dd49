//! One tenant's handle: its secrets, keys, epochs, re-wrap job and audit trail.

use crate::audit::{self, Attribution, AuditRecord};
use crate::error::{Error, Result};
use crate::keyring::change;
use crate::keyring::epoch::{self, Epoch, EpochState, WrappedBy};
use crate::keyring::second::{self, SecondKey};
use crate::names::{EpochNumber, KeyName, OrganizationId, OrganizationName, Version};
use crate::rewrap::worker::Workers;
use crate::rewrap::{self, RewrapJob, RewrapStatus};
use crate::scope::Scope;
use crate::secret::stream::{SecretReader, SecretWriter};
use crate::secret::{Batch, Expect, Page, PutOptions, Secret, SecretInfo, VersionInfo, read, remove, write};
use crate::storage::records::{HeadRecord, KeyState};
use crate::store::Inner;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The longest actor, in bytes.
const ACTOR_MAX_BYTES: usize = 256;
/// The longest reason, in bytes.
const REASON_MAX_BYTES: usize = 1024;

/// One organization of a store. Cheap to clone, to be used from any thread.
///
/// Every change is durable when its call returns. Reads run on a snapshot and never wait for writers.
///
/// # Examples
///
/// ```no_run
/// # fn example(acme: keystead::Organization) -> keystead::Result<()> {
/// use keystead::Expect;
///
/// let v1 = acme.put("prod/db/password", b"correct horse")?;
/// acme.put_if("prod/db/password", Expect::Version(v1), b"battery staple")?;
/// assert_eq!(acme.get("prod/db/password")?.value, b"battery staple");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Organization {
    inner: Arc<Inner>,
    scope: Scope,
}

impl Organization {
    pub(crate) fn new(inner: Arc<Inner>, id: OrganizationId, name: OrganizationName) -> Self {
        let scope = Scope {
            core: Arc::clone(&inner.core),
            org: id,
            organization: name,
            by: Arc::default(),
        };
        Self { inner, scope }
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(crate) fn workers(&self) -> &Arc<Workers> {
        &self.inner.workers
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Its number: given once, never given again.
    #[must_use]
    pub fn id(&self) -> OrganizationId {
        self.scope.org
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &OrganizationName {
        &self.scope.organization
    }

    /// The same organization, acting for somebody and for a reason: its audit records say so.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] when the actor has more than 256 bytes, the reason more than 1,024, or either has
    /// control characters.
    pub fn acting_as(&self, actor: &str, reason: &str) -> Result<Self> {
        for (what, text, most) in [
            ("an actor", actor, ACTOR_MAX_BYTES),
            ("a reason", reason, REASON_MAX_BYTES),
        ] {
            if text.len() > most || text.chars().any(char::is_control) {
                return Err(Error::InvalidArgument {
                    what,
                    reason: format!("at most {most} bytes, no control characters"),
                });
            }
        }
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let by = Attribution {
            actor: given(actor),
            reason: given(reason),
        };
        Ok(Self {
            inner: Arc::clone(&self.inner),
            scope: self.scope.acting(by),
        })
    }

    /// Organizations keep their names: audit records and the logs of KMSs refer to them.
    ///
    /// # Errors
    ///
    /// Always [`Error::RenameRefused`].
    pub fn rename(&self, _name: &str) -> Result<()> {
        Err(Error::RenameRefused {
            name: self.scope.organization.clone(),
        })
    }

    /// Writes a new version of a secret, of 0 bytes to 64 MiB, and returns its number when it is durable.
    ///
    /// Costs one commit, shared with whoever else writes at the moment (one `fdatasync`, a few KiB); a value of over 1 MiB
    /// one for each MiB. Calls a KMS only when the active epoch's key is not in memory.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`], [`Error::TooLarge`], [`Error::Kms`] when the active epoch's key cannot be had.
    pub fn put(&self, path: &str, value: impl AsRef<[u8]>) -> Result<Version> {
        self.put_with(path, value, PutOptions::new())
    }

    /// The same, if the latest version is as expected.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), and [`Error::VersionMismatch`].
    pub fn put_if(&self, path: &str, expect: Expect, value: impl AsRef<[u8]>) -> Result<Version> {
        self.put_with(path, value, PutOptions::new().expect(expect))
    }

    /// The same with labels, a content type, an expectation.
    ///
    /// # Errors
    ///
    /// As [`put_if`](Self::put_if), and [`Error::InvalidArgument`] for a label.
    pub fn put_with(&self, path: &str, value: impl AsRef<[u8]>, options: PutOptions) -> Result<Version> {
        write::put(&self.scope, &path.parse()?, value.as_ref(), options)
    }

    /// Writes all puts of a batch in one commit, or none. At most 10,000 puts with 16 MiB of values together.
    ///
    /// # Errors
    ///
    /// As [`put_with`](Self::put_with).
    pub fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        write::commit(&self.scope, batch)
    }

    /// Begins to write a value as a stream; the version is there when the writer is finished.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`], [`Error::InvalidArgument`].
    pub fn writer(&self, path: &str, options: PutOptions) -> Result<SecretWriter> {
        SecretWriter::begin(&self.scope, path.parse()?, options)
    }

    /// Reads the latest version of a secret.
    ///
    /// Costs three looks into a snapshot and two openings; calls a KMS only when the epoch's key is not in memory.
    ///
    /// # Errors
    ///
    /// [`Error::SecretNotFound`], [`Error::VersionDeleted`], [`Error::VersionDestroyed`]; [`Error::Kms`] when the epoch's
    /// key cannot be had ([`Error::is_revoked`]: its owner has taken it away); [`Error::Damaged`].
    pub fn get(&self, path: &str) -> Result<Secret> {
        read::get(&self.scope, &path.parse()?, None)
    }

    /// Reads one version of a secret.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and [`Error::VersionNotFound`].
    pub fn get_version(&self, path: &str, version: Version) -> Result<Secret> {
        read::get(&self.scope, &path.parse()?, Some(version))
    }

    /// Begins to read a value (its latest version, or the given one) as a stream, in bounded memory.
    ///
    /// # Errors
    ///
    /// As [`get_version`](Self::get_version).
    pub fn reader(&self, path: &str, version: Option<Version>) -> Result<SecretReader> {
        SecretReader::begin(&self.scope, path.parse()?, version)
    }

    /// What is known of a secret without opening it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`], [`Error::SecretNotFound`].
    pub fn info(&self, path: &str) -> Result<SecretInfo> {
        read::info(&self.scope, &path.parse()?)
    }

    /// The secrets whose paths begin with `prefix`, in the order of their bytes, at most `limit` (1 to 10,000) a page.
    /// Opens nothing and calls no KMS.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`] for a prefix that no path can have.
    pub fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page<SecretInfo>> {
        read::list(&self.scope, prefix, after, limit)
    }

    /// The versions of a secret behind `after`, oldest first, at most `limit` (1 to 10,000). Opens nothing and calls no KMS.
    ///
    /// # Errors
    ///
    /// [`Error::SecretNotFound`].
    pub fn history(&self, path: &str, after: Option<Version>, limit: usize) -> Result<Vec<VersionInfo>> {
        read::history(&self.scope, &path.parse()?, after, limit)
    }

    /// Deletes a version: it is kept, but not read, until it is undeleted. Doing it twice changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::SecretNotFound`], [`Error::VersionNotFound`], [`Error::VersionDestroyed`].
    pub fn delete(&self, path: &str, version: Version) -> Result<()> {
        remove::delete(&self.scope, &path.parse()?, version)
    }

    /// Brings a deleted version back.
    ///
    /// # Errors
    ///
    /// As [`delete`](Self::delete).
    pub fn undelete(&self, path: &str, version: Version) -> Result<()> {
        remove::undelete(&self.scope, &path.parse()?, version)
    }

    /// Destroys a version: **its data key and its value are gone for good**. Old pages of the file hold them, sealed, until
    /// their epoch is retired; [`Keys::rotate`] sees to that.
    ///
    /// # Errors
    ///
    /// As [`delete`](Self::delete).
    pub fn destroy(&self, path: &str, version: Version) -> Result<()> {
        remove::destroy(&self.scope, &path.parse()?, version)
    }

    /// Sets how many versions of a secret are kept: every further put **destroys** the oldest ones beyond that, at most 64
    /// at a time. `None`, the default, keeps all.
    ///
    /// # Errors
    ///
    /// [`Error::SecretNotFound`], [`Error::InvalidArgument`] for 0.
    pub fn set_retention(&self, path: &str, keep: Option<u32>) -> Result<()> {
        remove::set_retention(&self.scope, &path.parse()?, keep)
    }

    /// Its registered keys.
    #[must_use]
    pub fn keys(&self) -> Keys<'_> {
        Keys { organization: self }
    }

    /// Every epoch since the first. Reads the store only: it works while every KMS is down.
    ///
    /// # Errors
    ///
    /// Those of reading the store; [`Error::Damaged`] when the chain of epochs is broken.
    pub fn epochs(&self) -> Result<Vec<Epoch>> {
        let snapshot = self.scope.snapshot();
        let head = self.scope.head(&*snapshot)?;
        let mut previous = [0; 32];
        let mut epochs = Vec::new();
        for number in (1..=head.last_epoch.get()).map(EpochNumber) {
            let record = epoch::read(&*snapshot, self.scope.org, number)?;
            let hash = epoch::chained_hash(self.scope.org, number, &record);
            if record.opened.previous_hash != previous || record.hash != hash {
                let what = format!("epoch {number} of organization {:?}", self.scope.organization);
                return Err(Error::damaged(what, "it does not chain to the one before it"));
            }
            previous = hash;
            let state = match record.retired_at_ms {
                Some(_) => EpochState::Retired,
                None if number == head.active_epoch => EpochState::Active,
                None => EpochState::Live,
            };
            epochs.push(Epoch {
                number,
                key: record.opened.key,
                kms_key_id: record.opened.kms_key_id,
                wrapped_by: record
                    .wraps
                    .into_iter()
                    .map(|wrap| WrappedBy {
                        key: wrap.key,
                        kms_key_id: wrap.kms_key_id,
                    })
                    .collect(),
                opened_at_ms: record.opened.opened_at_ms,
                opened_by: Attribution {
                    actor: record.opened.actor,
                    reason: record.opened.reason,
                },
                cause: record.opened.cause,
                references: head.references(number),
                state,
                retired_at_ms: record.retired_at_ms,
                hash: audit::hex(&hash),
            });
        }
        if previous != head.epochs_hash {
            let what = format!("the epochs of organization {:?}", self.scope.organization);
            return Err(Error::damaged(what, "the newest ones are missing"));
        }
        Ok(epochs)
    }

    /// How its re-wrap job stands: the running one, or the last; `None` when there never was one. Calls no KMS.
    ///
    /// # Errors
    ///
    /// Those of reading the store.
    pub fn rewrap_status(&self) -> Result<Option<RewrapStatus>> {
        rewrap::status(self)
    }

    /// Its running re-wrap job, to wait for.
    ///
    /// # Errors
    ///
    /// [`Error::NoJob`] when none runs.
    pub fn rewrap_job(&self) -> Result<RewrapJob> {
        let running = self.scope.running_job(&*self.scope.snapshot())?;
        match running {
            Some(job) => Ok(RewrapJob::new(self.clone(), Some(job.number))),
            None => Err(Error::NoJob {
                organization: self.scope.organization.clone(),
            }),
        }
    }

    /// The audit records behind `after` (0: from the first), oldest first, at most `limit`; each is checked to chain to the
    /// one before it. Calls no KMS.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] where the chain is broken.
    pub fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditRecord>> {
        audit::read(
            &*self.scope.snapshot(),
            self.scope.org,
            after,
            limit.clamp(1, read::PAGE_MAX),
        )
    }

    /// Sequence and hash of the newest audit record: noted elsewhere, they show later that nothing before was changed.
    ///
    /// # Errors
    ///
    /// Those of reading the store.
    pub fn audit_head(&self) -> Result<AuditHead> {
        let head = self.scope.head(&*self.scope.snapshot())?;
        Ok(AuditHead::of(&head))
    }

    fn job(&self, number: Option<u64>) -> RewrapJob {
        if number.is_some() {
            self.inner.wake(&self.scope);
        }
        RewrapJob::new(self.clone(), number)
    }
}

impl std::fmt::Debug for Organization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Organization")
            .field("id", &self.scope.org.0)
            .field("name", &self.scope.organization)
            .finish()
    }
}

/// The newest audit record's place in its chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditHead {
    /// Its number.
    pub sequence: u64,
    /// Its hash, as hexadecimal digits.
    pub hash: String,
}

impl AuditHead {
    pub(crate) fn of(head: &HeadRecord) -> Self {
        Self {
            sequence: head.audit_sequence,
            hash: audit::hex(&head.audit_hash),
        }
    }
}

/// A registered key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// Its name, unique in its organization.
    pub name: String,
    /// The name of its backend.
    pub backend: String,
    /// The backend's config of this key.
    pub config: serde_json::Value,
    /// Whether new epochs may be opened under it.
    pub state: KeyState,
    /// True for the key under which the active epoch was opened.
    pub default: bool,
    /// When it was registered: milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// The registered keys of an organization, and what can be done with them.
///
/// Each change is one atomic commit with its audit records. KMS calls come before it, outside of any transaction: a change
/// that fails there has changed nothing.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'o> {
    organization: &'o Organization,
}

impl Keys<'_> {
    /// Every key, by name. Calls no KMS.
    ///
    /// # Errors
    ///
    /// Those of reading the store.
    pub fn list(&self) -> Result<Vec<KeyInfo>> {
        let scope = &self.organization.scope;
        let snapshot = scope.snapshot();
        let head = scope.head(&*snapshot)?;
        let keys = change::keys(&*snapshot, scope)?;
        keys.into_iter()
            .map(|(name, record)| {
                let config = serde_json::from_str(&record.config)
                    .map_err(|_| Error::damaged(format!("key {name:?}"), "its config is not JSON"))?;
                Ok(KeyInfo {
                    default: head.default_key == name.as_str(),
                    name: name.to_string(),
                    backend: record.backend,
                    config,
                    state: record.state,
                    created_at_ms: record.created_at_ms,
                })
            })
            .collect()
    }

    /// Registers a key of the KMS behind `backend`, a name that the application has registered, after a probe: random bytes
    /// are wrapped and unwrapped, and must not unwrap under another context.
    ///
    /// The first customer-managed key becomes the default and takes over everything: a new epoch is opened under it, the
    /// epoch keys of all older epochs are handed over to it (one unwrap by the old KMS and one wrap by the new one for each)
    /// and the old wraps erased, all before this returns; re-wrapping the data keys goes on in the background.
    ///
    /// # Errors
    ///
    /// [`Error::KeyExists`], [`Error::BackendNotRegistered`], [`Error::Kms`] with what the probe or the hand-over met.
    pub fn add(&self, name: &str, backend: &str, config: serde_json::Value) -> Result<RewrapJob> {
        let job = change::add(&self.organization.scope, &name.parse()?, backend, &config)?;
        Ok(self.organization.job(job))
    }

    /// Opens a new epoch under a key, which takes the new data keys from now on. Existing data keys stay where they are
    /// unless `rewrap` is true.
    ///
    /// # Errors
    ///
    /// [`Error::KeyNotFound`], [`Error::KeyRefused`] for a disabled key, [`Error::Kms`].
    pub fn set_default(&self, name: &str, rewrap: bool) -> Result<RewrapJob> {
        let job = change::set_default(&self.organization.scope, &name.parse()?, rewrap)?;
        Ok(self.organization.job(job))
    }

    /// Disables a key: everything under it is handed over and re-wrapped to `target`, then its epochs are retired and it is
    /// disabled. If its KMS cannot be reached, it stays on the way until it can.
    ///
    /// # Errors
    ///
    /// [`Error::KeyRefused`] for the default key, and for the target of a running job; [`Error::KeyNotFound`]; [`Error::Kms`]
    /// of the target.
    pub fn disable(&self, name: &str, target: &str) -> Result<RewrapJob> {
        let job = change::disable(&self.organization.scope, &name.parse()?, &target.parse()?)?;
        Ok(self.organization.job(job))
    }

    /// Back to the managed key: everything moves there, and all customer-managed keys are disabled.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] when there is no enabled one; [`Error::Kms`] of the managed key.
    pub fn disable_all(&self) -> Result<RewrapJob> {
        let job = change::disable_all(&self.organization.scope)?;
        Ok(self.organization.job(job))
    }

    /// Opens a new epoch under the same key (a new epoch key, wrapped by the KMS key's newest version), re-wraps to it what
    /// the key held, and retires the older epochs.
    ///
    /// # Errors
    ///
    /// [`Error::KeyNotFound`], [`Error::KeyRefused`] for a disabled key, [`Error::Kms`].
    pub fn rotate(&self, name: &str) -> Result<RewrapJob> {
        let job = change::rotate(&self.organization.scope, &name.parse()?)?;
        Ok(self.organization.job(job))
    }

    /// Gives the running re-wrap job another target: everything that it moves goes to a new epoch under `name`.
    ///
    /// # Errors
    ///
    /// [`Error::NoJob`], [`Error::KeyRefused`], [`Error::Kms`] of the new target.
    pub fn retarget(&self, name: &str) -> Result<RewrapJob> {
        let job = change::retarget(&self.organization.scope, &name.parse()?)?;
        Ok(self.organization.job(job))
    }

    /// Makes a registered key the second key: beside the key that each live epoch belongs to, it wraps that epoch too, and so every
    /// one that is opened later. While one of the two KMSs is out of reach, the other opens everything.
    ///
    /// Revoking either key is honoured: the epoch's own key is asked first, the second one in its outage, and a refusal of the one
    /// that is asked is the answer. With `either_opens` it is not: then both must be revoked to take the data away.
    ///
    /// KMS calls: a probe (three), then for each live epoch one unwrap by its own key, and one wrap and one unwrap by the second
    /// key. What its own key cannot unwrap now, the returned job does later; it is an ordinary re-wrap job that moves nothing.
    ///
    /// # Errors
    ///
    /// [`Error::KeyRefused`] for the managed key, the default key, a key to which epochs belong, and where there is a second key
    /// already; [`Error::KeyNotFound`]; [`Error::Kms`] of the second key. Then nothing has changed.
    pub fn set_second(&self, name: &str, either_opens: bool) -> Result<RewrapJob> {
        let job = second::set(&self.organization.scope, &name.parse()?, either_opens)?;
        Ok(self.organization.job(job))
    }

    /// The second key is one like the others again, and opens nothing: its wraps are erased before this returns. Calls no KMS.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where there is none; [`Error::KeyRefused`] when after a salvage it alone wraps an epoch.
    pub fn remove_second(&self) -> Result<()> {
        second::remove(&self.organization.scope)
    }

    /// The second key and how it stands; `None` where there is none. Calls no KMS.
    ///
    /// # Errors
    ///
    /// Those of reading the store.
    pub fn second(&self) -> Result<Option<SecondKey>> {
        second::status(&self.organization.scope)
    }

    /// Asks the KMS of a key now, by wrapping and unwrapping random bytes. Three KMS calls.
    ///
    /// # Errors
    ///
    /// [`Error::KeyNotFound`], [`Error::Kms`] with what it met.
    pub fn probe(&self, name: &str) -> Result<()> {
        let scope = &self.organization.scope;
        let name: KeyName = name.parse()?;
        let key = crate::keyring::read_key(&*scope.snapshot(), scope.org, &scope.organization, &name)?;
        scope.core.keyring.probe(&key)
    }
}
