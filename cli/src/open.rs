//! From the command line and the config file to backends and an open store.

use crate::args::{Global, Passphrase};
use crate::config::{BackendConfig, Builtin, Config};
use crate::exit::Failure;
use crate::output::Output;
use keystead::backend::{BackendError, ErrorCode};
use keystead::{Backend, Checkpoint, Organization, Store, StoreOptions};
use keystead_loader::{Digest, Plugin, PluginSource};
use keystead_managed::{ManagedBackend, Sealing};
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The managed backend's name.
const MANAGED: &str = "managed";
/// The longest passphrase, as the keyring allows it.
const PASSPHRASE_MAX_BYTES: usize = 4096;

/// One run of the command: what it was told, and the store that it opens.
pub(crate) struct Session {
    pub(crate) global: Global,
    pub(crate) out: Output,
    config: OnceCell<Config>,
}

/// A backend of the config file, ready to be registered.
pub(crate) struct Configured {
    pub(crate) backend: Backend,
    /// The plugin behind it; `None` for one that is part of this command.
    pub(crate) plugin: Option<Plugin>,
}

impl From<Backend> for Configured {
    fn from(backend: Backend) -> Self {
        Self {
            backend,
            plugin: None,
        }
    }
}

impl Session {
    pub(crate) fn new(global: Global, out: Output) -> Self {
        Self {
            global,
            out,
            config: OnceCell::new(),
        }
    }

    /// What the config file says; the default when there is none.
    pub(crate) fn config(&self) -> Result<&Config, Failure> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let config = match &self.global.config {
            Some(path) => Config::read(path).map_err(Failure::usage)?,
            None => Config::default(),
        };
        Ok(self.config.get_or_init(|| config))
    }

    pub(crate) fn store_path(&self) -> Result<PathBuf, Failure> {
        match &self.global.store {
            Some(path) => Ok(path.clone()),
            None => self.config()?.store.clone().ok_or_else(|| {
                Failure::usage(
                    "which store? give --store PATH, KEYSTEAD_STORE, or `store` in the config file",
                )
            }),
        }
    }

    /// Opens the store with no backend: for what reads and writes rows without a KMS. Works while every KMS, and every
    /// plugin, is out of order.
    pub(crate) fn open_rows(&self) -> Result<Store, Failure> {
        self.open(Store::options().background_rewrap(false))
    }

    /// Opens the store with all backends. Its re-wrap jobs rest: a command does only what it was asked for.
    pub(crate) fn open_keys(&self) -> Result<Store, Failure> {
        self.open(self.with_backends(Store::options().background_rewrap(false))?)
    }

    /// Opens the store with all backends, and lets its re-wrap jobs go on.
    pub(crate) fn open_working(&self) -> Result<Store, Failure> {
        self.open(self.with_backends(Store::options())?)
    }

    /// Opens the store with these backends alone. Its re-wrap jobs rest.
    pub(crate) fn open_with(&self, backends: &[Backend]) -> Result<Store, Failure> {
        let options = Store::options().background_rewrap(false);
        self.open(backends.iter().cloned().fold(options, StoreOptions::backend))
    }

    /// Options with all backends, for a salvage.
    pub(crate) fn salvage_options(&self) -> Result<StoreOptions, Failure> {
        self.with_backends(Store::options().background_rewrap(false))
    }

    fn open(&self, options: StoreOptions) -> Result<Store, Failure> {
        let options = match &self.global.checkpoint {
            Some(file) => options.checkpoint(read_checkpoint(file)?),
            None => options,
        };
        Ok(options.open(self.store_path()?)?)
    }

    fn with_backends(&self, options: StoreOptions) -> Result<StoreOptions, Failure> {
        let backends = self.backends_by(at_first_use)?;
        Ok(backends.into_iter().fold(options, StoreOptions::backend))
    }

    /// The organization, acting for whom the command line names.
    pub(crate) fn organization(&self, store: &Store) -> Result<Organization, Failure> {
        let organization = store.organization(self.organization_name()?)?;
        let (actor, reason) = (self.global.actor.as_deref(), self.global.reason.as_deref());
        Ok(organization.acting_as(actor.unwrap_or_default(), reason.unwrap_or_default())?)
    }

    /// The organization's name.
    pub(crate) fn organization_name(&self) -> Result<&str, Failure> {
        let name = self.global.org.as_deref();
        name.ok_or_else(|| Failure::usage("which organization? give --org NAME or KEYSTEAD_ORG"))
    }

    /// Every backend that the command line and the config file name, its plugin loaded.
    pub(crate) fn backends(&self) -> Result<Vec<Configured>, Failure> {
        self.backends_by(configured)
    }

    fn backends_by<B: From<Backend>>(
        &self,
        make: impl Fn(&str, &BackendConfig) -> Result<B, Failure>,
    ) -> Result<Vec<B>, Failure> {
        let config = self.config()?;
        let mut backends = Vec::new();
        if let Some(backend) = self.keyring_backend()? {
            if config.backends.contains_key(MANAGED) {
                let message = "both --keyring and [backends.managed] of the config file; give one of them";
                return Err(Failure::usage(message));
            }
            backends.push(backend.into());
        }
        for (name, backend) in &config.backends {
            backends.push(make(name, backend)?);
        }
        Ok(backends)
    }

    /// The keyring of the command line, with how it is sealed.
    pub(crate) fn keyring(&self) -> Result<Option<(&Path, Sealing)>, Failure> {
        let Some(path) = &self.global.keyring else {
            return if self.global.passphrase.is_given() {
                Err(Failure::usage("a keyring passphrase is given, but no --keyring"))
            } else {
                Ok(None)
            };
        };
        let sealing = match self.global.passphrase.read()? {
            Some(passphrase) => Sealing::passphrase(&*passphrase)?,
            None => Sealing::none(),
        };
        Ok(Some((path, sealing)))
    }

    /// The managed backend of the command line.
    pub(crate) fn keyring_backend(&self) -> Result<Option<Backend>, Failure> {
        // Never made by the way: `init` and `keyring create` make it, and a disk that is not mounted stays an outage.
        let backend = |(path, sealing): (&Path, Sealing)| {
            Backend::from(ManagedBackend::keyring(path).sealing(sealing).create(false))
        };
        Ok(self.keyring()?.map(backend))
    }
}

fn read_checkpoint(file: &Path) -> Result<Checkpoint, Failure> {
    let doing = || format!("reading the checkpoint {}", file.display());
    let text = std::fs::read(file).map_err(|error| Failure::io(doing(), error))?;
    serde_json::from_slice(&text).map_err(|error| Failure::usage(format!("{}: {error}", doing())))
}

/// Makes one backend of the config file ready: loads its plugin, if it is one.
pub(crate) fn configured(name: &str, config: &BackendConfig) -> Result<Configured, Failure> {
    let plugin = match source(name, config)? {
        Some(source) => Some(Plugin::load(&source).map_err(|error| refused(name, &error))?),
        None => None,
    };
    let backend = match &plugin {
        Some(plugin) => Backend::new(plugin.clone()),
        None => Backend::new(ManagedBackend::default()),
    };
    let backend = registered(backend, name, config);
    Ok(Configured { backend, plugin })
}

/// The same for opening a store: a plugin is loaded when a key of it is used. A command uses a key or two, and the others' plugins
/// cost nothing and may be out of order.
fn at_first_use(name: &str, config: &BackendConfig) -> Result<Backend, Failure> {
    let Some(source) = source(name, config)? else {
        return Ok(configured(name, config)?.backend);
    };
    let place = place(name);
    let load = move || {
        Plugin::load(&source)
            .map_err(|error| BackendError::new(ErrorCode::InvalidConfig, format!("{place}: {error}")))
    };
    Ok(registered(Backend::deferred(name, load), name, config))
}

/// The plugin that a backend of the config file names; `None` for one that is part of this command.
fn source(name: &str, config: &BackendConfig) -> Result<Option<PluginSource>, Failure> {
    let plugin = match (config.builtin, &config.plugin) {
        (Some(Builtin::Managed), _) => return Ok(None),
        (None, plugin) => plugin.as_deref().unwrap_or(Path::new("")),
    };
    let mut source = PluginSource::new(plugin);
    for digest in &config.digests {
        source = source.digest(digest.parse::<Digest>().map_err(|error| refused(name, &error))?);
    }
    source.check().map_err(|error| refused(name, &error))?;
    Ok(Some(source))
}

fn registered(backend: Backend, name: &str, config: &BackendConfig) -> Backend {
    let settings = serde_json::Value::Object(config.settings.clone());
    backend.named(name).settings(settings)
}

fn place(name: &str) -> String {
    format!("[backends.{name}]")
}

fn refused(name: &str, reason: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("{}: {reason}", place(name)))
}

impl Passphrase {
    fn is_given(&self) -> bool {
        self.keyring_passphrase_env.is_some()
            || self.keyring_passphrase_file.is_some()
            || self.keyring_passphrase_fd.is_some()
    }

    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let (source, passphrase) = if let Some(name) = &self.keyring_passphrase_env {
            let value = std::env::var_os(name).ok_or_else(|| {
                Failure::usage(format!(
                    "--keyring-passphrase-env: the variable {name} is not set"
                ))
            })?;
            (
                format!("the variable {name}"),
                Zeroizing::new(value.into_encoded_bytes()),
            )
        } else if let Some(path) = &self.keyring_passphrase_file {
            (path.display().to_string(), first_line(path)?)
        } else if let Some(number) = self.keyring_passphrase_fd {
            let path = PathBuf::from(format!("/dev/fd/{number}"));
            (format!("descriptor {number}"), first_line(&path)?)
        } else {
            return Ok(None);
        };
        if passphrase.is_empty() {
            return Err(Failure::usage(format!(
                "the keyring's passphrase in {source} is empty"
            )));
        }
        Ok(Some(passphrase))
    }
}

fn first_line(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let refuse = |reason: String| {
        Failure::usage(format!(
            "reading the passphrase from {}: {reason}",
            path.display()
        ))
    };
    let file = std::fs::File::open(path).map_err(|error| refuse(error.to_string()))?;
    // Its full size at once: growing would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(PASSPHRASE_MAX_BYTES + 2));
    let mut file = std::io::Read::take(file, PASSPHRASE_MAX_BYTES as u64 + 2);
    std::io::Read::read_to_end(&mut file, &mut line).map_err(|error| refuse(error.to_string()))?;
    if let Some(end) = line.iter().position(|&byte| byte == b'\n') {
        line.truncate(end);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    if line.len() > PASSPHRASE_MAX_BYTES {
        return Err(refuse(format!(
            "its first line has more than {PASSPHRASE_MAX_BYTES} bytes"
        )));
    }
    Ok(line)
}

/// The limit on core dumps as the command found it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CoreLimit {
    /// Bytes that a core dump may have; `None`: any number.
    pub(crate) before: Option<u64>,
    /// True when there are none any more.
    pub(crate) lowered: bool,
}

/// Forbids core dumps of this process: they would hold secrets.
pub(crate) fn without_core_dumps() -> CoreLimit {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Core);
    let none = Rlimit {
        current: Some(0),
        maximum: before.maximum,
    };
    CoreLimit {
        before: before.current,
        lowered: setrlimit(Resource::Core, none).is_ok(),
    }
}
