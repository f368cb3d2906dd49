//! The config file: where the store is, and which backends there are.
//!
//! ```toml
//! store = "app.keystead"                 # relative: to this file's directory
//!
//! [backends.managed]
//! builtin = "managed"
//! settings = { keyring = "/var/lib/app/app.keyring", passphrase_file = "/run/secrets/keyring" }
//!
//! [backends.aws-kms]
//! plugin = "/usr/lib/keystead/libkeystead_aws_kms.so"
//! digests = ["af1349b9…"]                # BLAKE3, as `keystead backends digest` prints it
//! settings = { profile = "keystead" }
//! ```
//!
//! An unknown field is refused by its name. A file that names code to run, or has settings, which say what is trusted, is one that nobody
//! else may write to or put another file in the place of.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What a config file says.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The store file.
    pub(crate) store: Option<PathBuf>,
    /// The backends by the names under which they are registered.
    #[serde(default)]
    pub(crate) backends: BTreeMap<String, BackendConfig>,
    /// Who else may write to the file that was read, or to a directory above it.
    #[serde(skip)]
    pub(crate) other_writers: Option<String>,
}

/// One backend.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackendConfig {
    /// A backend that is part of this command.
    pub(crate) builtin: Option<Builtin>,
    /// Or the absolute path of a plugin.
    pub(crate) plugin: Option<PathBuf>,
    /// The plugin's bytes, as BLAKE3 digests: one of these they must have.
    #[serde(default)]
    pub(crate) digests: Vec<String>,
    /// The backend's settings, as it documents them.
    #[serde(default)]
    pub(crate) settings: serde_json::Map<String, serde_json::Value>,
}

/// The backends that are part of this command.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Builtin {
    Managed,
}

impl Config {
    /// Reads a config file.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let refuse = |reason: String| format!("config file {}: {reason}", path.display());
        // What was checked is what is read, whatever happens to the path meanwhile.
        let (file, other_writers) = match open_trusted(path) {
            Ok(file) => (Ok(file), None),
            Err(reason) => (File::open(path), Some(reason)),
        };
        let text = file
            .and_then(std::io::read_to_string)
            .map_err(|error| refuse(error.to_string()))?;
        let mut config = Self::parse(&text).map_err(refuse)?;
        if let (Some(store), Some(directory)) = (&mut config.store, path.parent()) {
            *store = directory.join(&*store);
        }
        if let Some(reason) = &other_writers
            && config.backends.values().any(BackendConfig::must_be_trusted)
        {
            return Err(refuse(format!(
                "it names a plugin or has settings, and is not safe from others: {reason}"
            )));
        }
        config.other_writers = other_writers;
        Ok(config)
    }

    /// What the text of a config file says.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| {
            // Not the error's own picture of the place: the line could hold what nobody should see.
            let line = error.span().map(|span| {
                1 + text.as_bytes()[..span.start.min(text.len())]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count()
            });
            match line {
                Some(line) => format!("line {line}: {}", error.message()),
                None => error.message().to_owned(),
            }
        })?;
        for (name, backend) in &config.backends {
            backend
                .check()
                .map_err(|reason| format!("[backends.{name}]: {reason}"))?;
        }
        Ok(config)
    }
}

impl BackendConfig {
    /// True when a setting is a secret itself, as some providers' access keys are, by its name.
    pub(crate) fn has_secret(&self) -> bool {
        let secret = |name: &String| name.starts_with("secret") || name == "session_token";
        self.settings.keys().any(secret)
    }

    /// True when whoever writes it decides what code runs, or what is trusted with keys.
    fn must_be_trusted(&self) -> bool {
        self.plugin.is_some() || !self.settings.is_empty()
    }

    fn check(&self) -> Result<(), &'static str> {
        match (self.builtin, &self.plugin) {
            (Some(_), Some(_)) => Err("both `builtin` and `plugin`; give one of them"),
            (None, None) => Err("neither `builtin` nor `plugin`; give one of them"),
            (Some(_), None) if !self.digests.is_empty() => Err("`digests` are for a `plugin`"),
            (None, Some(_)) if self.digests.is_empty() => {
                Err("`digests` is missing; `keystead backends digest FILE` prints a plugin's")
            }
            _ => Ok(()),
        }
    }
}

/// Opens the file that a path leads to, by the rules for plugins: it and all above it belong to root or to us, and others write to none of
/// them.
fn open_trusted(path: &Path) -> Result<File, String> {
    let direct = path.canonicalize().map_err(|error| error.to_string())?;
    keystead_loader::open_trusted(&direct).map_err(|refusal| refusal.to_string())
}
