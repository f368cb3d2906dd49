//! A loaded plugin.

use std::fmt;
use std::path::Path;

use keystead_backend::{BackendError, Description, KeyBackend, KeyInstance, OpenRequest};

use crate::{Digest, LoadError, PluginSource, Refusal};

/// A plugin that passed every step: see the [crate's front page](crate). Cheap to clone; clones are the same plugin.
///
/// Dropping it unloads nothing: a plugin stays until the process ends.
#[derive(Clone)]
pub struct Plugin {
    #[cfg(unix)]
    pub(crate) loaded: std::sync::Arc<crate::loaded::Loaded>,
    #[cfg(unix)]
    pub(crate) digest: Digest,
    #[cfg(not(unix))]
    loaded: std::convert::Infallible,
}

impl Plugin {
    /// Verifies and loads a plugin. Its constructors and its `describe` run; it is not opened, and no KMS is asked.
    ///
    /// May be called again, also for the same file: each step is done again, but bytes that are loaded already are used
    /// as they are.
    ///
    /// # Errors
    ///
    /// Which step failed, and why. Nothing of a plugin that fails in step 1 to 4 runs.
    ///
    /// # Examples
    ///
    /// ```
    /// use keystead_loader::{LoadStep, Plugin, PluginSource};
    ///
    /// let error = Plugin::load(&PluginSource::new("libkeystead_aws_kms.so").digest([0; 32])).err().expect("refused");
    /// assert_eq!(error.step(), LoadStep::Path);
    /// assert!(error.to_string().contains("the path is relative"));
    /// ```
    #[cfg(unix)]
    pub fn load(source: &PluginSource) -> Result<Self, LoadError> {
        let refused = |refusal| LoadError::new(source.path(), refusal);
        source.check()?;
        let file = crate::policy::open(source.path()).map_err(refused)?;
        let image = crate::image::Image::read(file, source.path(), source.size_cap()).map_err(refused)?;
        let digest = image.digest();
        if !source.allows(digest) {
            return Err(refused(Refusal::DigestMismatch { actual: digest }));
        }
        let linked = image.link().map_err(refused)?;
        let (table, description) = crate::negotiation::negotiate(linked).map_err(refused)?;
        let loaded = crate::loaded::Loaded::new(source.path(), linked.stopped(), table, description);
        Ok(Self {
            loaded: std::sync::Arc::new(loaded),
            digest,
        })
    }

    /// Refuses: plugins are loaded on Unix systems only.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnsupportedPlatform`].
    #[cfg(not(unix))]
    pub fn load(source: &PluginSource) -> Result<Self, LoadError> {
        Err(LoadError::new(source.path(), Refusal::UnsupportedPlatform))
    }
}

#[cfg(unix)]
impl Plugin {
    /// Where it was loaded from.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.loaded.path()
    }

    /// The digest of the bytes that run.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What it says about itself.
    #[must_use]
    pub fn description(&self) -> &Description {
        self.loaded.description()
    }
}

#[cfg(not(unix))]
impl Plugin {
    /// Where it was loaded from.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self.loaded {}
    }

    /// The digest of the bytes that run.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self.loaded {}
    }

    /// What it says about itself.
    #[must_use]
    pub fn description(&self) -> &Description {
        match self.loaded {}
    }
}

impl KeyBackend for Plugin {
    fn describe(&self) -> Description {
        self.description().clone()
    }

    #[cfg(unix)]
    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        Ok(Box::new(crate::guest::Guest::open(&self.loaded, request)?))
    }

    #[cfg(not(unix))]
    fn open(&self, _request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        match self.loaded {}
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.description().name)
            .field("version", &self.description().version)
            .field("path", &self.path())
            .field("digest", &self.digest())
            .finish()
    }
}
