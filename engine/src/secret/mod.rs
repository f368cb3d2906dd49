//! Secrets: versioned values at paths, append-only.
//!
//! - [`value`]: how a value is sealed and opened.
//! - [`write`]: `put`, batches, retention.
//! - [`read`]: `get`, `list`, `history`.
//! - [`remove`]: `delete`, `undelete`, `destroy`.
//! - [`stream`]: large values by writer and reader, in bounded memory.

pub(crate) mod read;
pub(crate) mod remove;
pub(crate) mod stream;
pub(crate) mod value;
pub(crate) mod write;

use crate::crypto::SecretBytes;
use crate::error::{Error, Result};
use crate::names::{SecretPath, Version};
use serde::Serialize;
use std::collections::BTreeMap;

/// The largest value, in bytes.
pub const VALUE_MAX_BYTES: u64 = 64 << 20;
/// The most labels beside one value.
pub const LABELS_MAX: usize = 64;
/// The longest name of a label, and the longest content type, in bytes.
pub const LABEL_NAME_MAX_BYTES: usize = 128;
/// The longest value of a label, in bytes.
pub const LABEL_VALUE_MAX_BYTES: usize = 1024;
/// The most puts in one batch.
pub const BATCH_MAX: usize = 10_000;
/// The most bytes of values in one batch.
pub const BATCH_MAX_BYTES: u64 = 16 << 20;

/// A value that was read. It is erased from memory when it is dropped.
#[derive(Debug)]
pub struct Secret {
    /// The value.
    pub value: SecretBytes,
    /// Which version it is.
    pub version: Version,
    /// What the labels beside it say.
    pub labels: BTreeMap<String, String>,
    /// What kind of content it is, such as `text/plain`, if its writer said so.
    pub content_type: Option<String>,
    /// When it was written: milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// A secret in a list. Nothing of it was decrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretInfo {
    /// Its path.
    pub path: String,
    /// Its latest version.
    pub latest: Version,
    /// How many of its versions are deleted, and can be undeleted.
    pub deleted: u32,
    /// How many versions are kept; `None`: all.
    pub retention: Option<u32>,
    /// When its first version was written: milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// When its latest version was written: milliseconds since the Unix epoch.
    pub updated_at_ms: u64,
}

/// A version in a history. Nothing of it was decrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionInfo {
    /// Its number.
    pub version: Version,
    /// When it was written: milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// The size of its value in bytes.
    pub size_bytes: u64,
    /// What kind of content it is, if its writer said so.
    pub content_type: Option<String>,
    /// The labels beside it.
    pub labels: BTreeMap<String, String>,
    /// Whether it can be read.
    pub state: VersionState,
}

/// Whether a version can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum VersionState {
    /// It can.
    Live,
    /// It was deleted; `undelete` brings it back.
    Deleted {
        /// When: milliseconds since the Unix epoch.
        deleted_at_ms: u64,
    },
    /// Its data key and its value are gone for good.
    Destroyed {
        /// When: milliseconds since the Unix epoch.
        destroyed_at_ms: u64,
    },
    /// It was lost to damage of the file, from which the rest was salvaged. The other fields may be empty.
    Lost {
        /// When it was salvaged: milliseconds since the Unix epoch.
        lost_at_ms: u64,
    },
}

/// Part of a list, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// What to pass as `after` for the next page; `None` when this was the last one.
    pub next: Option<String>,
}

/// What the latest version must be for a put to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expect {
    /// Whatever it is.
    #[default]
    Any,
    /// The secret must be new.
    New,
    /// The latest version must be this one.
    Version(Version),
}

impl Expect {
    /// The version of this number, and [`Expect::New`] for 0.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        Version::new(number).map_or(Self::New, Self::Version)
    }

    pub(crate) fn number(self) -> Option<u32> {
        match self {
            Self::Any => None,
            Self::New => Some(0),
            Self::Version(version) => Some(version.get()),
        }
    }
}

/// What goes with a value.
///
/// # Examples
///
/// ```
/// use keystead::{Expect, PutOptions};
///
/// let options = PutOptions::new().label("owner", "team-db").content_type("text/plain").expect(Expect::New);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutOptions {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) content_type: Option<String>,
    pub(crate) expect: Expect,
}

impl PutOptions {
    /// No labels, no content type, whatever version there is.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a label beside the value. Labels are kept in clear. A label's value may have several lines, and no zero character.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Says what kind of content it is. Kept in clear.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Says what the latest version must be.
    #[must_use]
    pub fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |reason: String| {
            Err(Error::InvalidArgument {
                what: "a label",
                reason,
            })
        };
        if self.labels.len() > LABELS_MAX {
            return refuse(format!(
                "there are {}; at most {LABELS_MAX} are allowed",
                self.labels.len()
            ));
        }
        for (name, value) in &self.labels {
            if name.is_empty() || name.len() > LABEL_NAME_MAX_BYTES || name.chars().any(char::is_control) {
                return refuse(format!(
                    "a name has 1 to {LABEL_NAME_MAX_BYTES} bytes and no control characters"
                ));
            }
            if value.len() > LABEL_VALUE_MAX_BYTES {
                return refuse(format!(
                    "the value of one has {} bytes; at most {LABEL_VALUE_MAX_BYTES} are allowed",
                    value.len()
                ));
            }
            // Labels are in clear, and the largest such text: without zeros no part of them looks like a page or a record.
            if value.contains('\0') {
                return refuse("the value of one has a zero character".into());
            }
        }
        match &self.content_type {
            Some(text) if text.len() > LABEL_NAME_MAX_BYTES || text.chars().any(char::is_control) => {
                Err(Error::InvalidArgument {
                    what: "the content type",
                    reason: format!("it has at most {LABEL_NAME_MAX_BYTES} bytes and no control characters"),
                })
            }
            _ => Ok(()),
        }
    }
}

/// Several puts that become durable together, or not at all.
///
/// # Examples
///
/// ```no_run
/// # fn example(acme: keystead::Organization) -> keystead::Result<()> {
/// use keystead::Batch;
///
/// let versions = acme.commit(Batch::new().put("db/user", "app")?.put("db/password", "correct horse")?)?;
/// assert_eq!(versions.len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) puts: Vec<BatchPut>,
}

#[derive(Debug)]
pub(crate) struct BatchPut {
    pub(crate) path: SecretPath,
    pub(crate) value: SecretBytes,
    pub(crate) options: PutOptions,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`].
    pub fn put(self, path: &str, value: impl AsRef<[u8]>) -> Result<Self> {
        self.put_with(path, value, PutOptions::new())
    }

    /// Adds a put with options. A path may come more than once: each put is a version of its own, in order.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`], [`Error::InvalidArgument`] for a label.
    pub fn put_with(mut self, path: &str, value: impl AsRef<[u8]>, options: PutOptions) -> Result<Self> {
        options.check()?;
        self.puts.push(BatchPut {
            path: path.parse()?,
            value: SecretBytes::from_slice(value.as_ref()),
            options,
        });
        Ok(self)
    }

    /// How many puts it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.puts.len()
    }

    /// True when it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty()
    }
}
