//! Which plugin an application wants, and under which conditions.

use std::path::{Path, PathBuf};

use crate::{Digest, LoadError, Refusal};

/// Where a plugin is and which bytes are expected there.
///
/// # Examples
///
/// ```
/// use keystead_loader::{Digest, PluginSource};
///
/// let source = PluginSource::new("/usr/lib/keystead/libkeystead_aws_kms.so")
///     .digest([7; 32]) // this release
///     .digest([8; 32]); // or the one before
/// assert_eq!(source.path().file_name().and_then(|name| name.to_str()), Some("libkeystead_aws_kms.so"));
/// ```
#[derive(Debug, Clone)]
pub struct PluginSource {
    path: PathBuf,
    digests: Vec<Digest>,
    any_digest: bool,
    size_max_bytes: u64,
}

/// Above the size of any plugin seen, debug builds with a large SDK included.
const SIZE_MAX_BYTES: u64 = 512 * 1024 * 1024;

impl PluginSource {
    /// The plugin at this absolute path. It does not load until a digest is given, too.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            digests: Vec::new(),
            any_digest: false,
            size_max_bytes: SIZE_MAX_BYTES,
        }
    }

    /// Allows the bytes with this digest. Given more than once, any of them will do.
    #[must_use]
    pub fn digest(mut self, digest: impl Into<Digest>) -> Self {
        self.digests.push(digest.into());
        self
    }

    /// Allows *whatever is at the path*: an update, a half-written file, or what an intruder who got the rights of the
    /// file's owner put there. For development. Digests that were given are still required.
    #[must_use]
    pub fn dangerously_without_digest(mut self) -> Self {
        self.any_digest = true;
        self
    }

    /// Refuses a file larger than this; 512 MiB unless set.
    #[must_use]
    pub fn size_max_bytes(mut self, size_max_bytes: u64) -> Self {
        self.size_max_bytes = size_max_bytes;
        self
    }

    /// Where the plugin is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Step 1, which needs no file: the path is absolute and direct, and a digest is given or its absence is spelled out. For a
    /// plugin that is loaded later, to refuse at once what cannot be right; [`Plugin::load`](crate::Plugin::load) does it again.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    #[cfg(unix)]
    pub fn check(&self) -> Result<(), LoadError> {
        let refused = |refusal| LoadError::new(&self.path, refusal);
        if !self.says_what_to_expect() {
            return Err(refused(Refusal::NoDigest));
        }
        crate::policy::components(&self.path).map(drop).map_err(refused)
    }

    /// Refuses: plugins are loaded on Unix systems only.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnsupportedPlatform`].
    #[cfg(not(unix))]
    pub fn check(&self) -> Result<(), LoadError> {
        Err(LoadError::new(&self.path, Refusal::UnsupportedPlatform))
    }

    #[cfg(unix)]
    pub(crate) fn size_cap(&self) -> u64 {
        self.size_max_bytes
    }

    /// Whether anything at all may pass [`allows`](Self::allows).
    #[cfg(unix)]
    pub(crate) fn says_what_to_expect(&self) -> bool {
        self.any_digest || !self.digests.is_empty()
    }

    #[cfg(unix)]
    pub(crate) fn allows(&self, digest: Digest) -> bool {
        if self.digests.is_empty() {
            return self.any_digest;
        }
        // Every entry is looked at, so that the time says nothing about which one it was.
        self.digests
            .iter()
            .fold(false, |found, allowed| found | (*allowed == digest))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn no_digest_is_allowed_unless_it_is_listed_or_any_is_and_a_list_always_counts() {
        let (one, other) = (Digest::from([1; 32]), Digest::from([2; 32]));
        let bare = PluginSource::new("/plugin.so");
        assert!(!bare.allows(one) && !bare.says_what_to_expect());
        let listed = bare.clone().digest([1; 32]).digest([3; 32]);
        assert!(listed.allows(one) && !listed.allows(other));
        let any = bare.dangerously_without_digest();
        assert!(any.allows(one) && any.allows(other));
        let both = listed.dangerously_without_digest();
        assert!(both.allows(one) && !both.allows(other));
    }
}
