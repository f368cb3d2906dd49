//! The managed key as a backend: [`ManagedBackend`] and the instance of one registered key.

use crate::error::{Result, invalid_config};
use crate::format::{KEY_BYTES, KeyringId, KeyringState, MasterKey};
use crate::keyring::{KeySet, Keyring};
use crate::sealing::Sealing;
use crate::settings::{self, Settings};
use crate::wrap;
use keystead_backend::{
    BackendError, Call, Capabilities, Context, CredentialKind, Description, ErrorCode, Host, KeyBackend,
    KeyInstance, LockedBytes, LogLevel, OpenRequest, SizeLimits, Status, Wrapped,
};
use keystead_backend_common::SecretSource;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// How many different settings one backend remembers; an application has one or two.
const OPENED_MAX: usize = 16;
const KEYRING_ID_LABEL: &str = "keystead managed keyring 2025 id of a lone master key v1";

/// The managed key's backend.
///
/// Either it brings its settings with it ([`keyring`](Self::keyring), [`master_key`](Self::master_key)), or they come
/// from the application as JSON ([`default`](Self::default)). All instances that one `ManagedBackend` opens with the
/// same settings share one keyring: the passphrase is read once and Argon2id runs once, however many organizations
/// there are.
///
/// # Examples
///
/// ```
/// use keystead_backend::KeyBackend;
/// use keystead_managed::ManagedBackend;
///
/// let backend = ManagedBackend::keyring("app.keyring").passphrase("correct horse battery staple");
/// assert_eq!(backend.describe().name, "managed");
/// ```
#[derive(Default)]
pub struct ManagedBackend {
    own: Own,
    opened: Mutex<Vec<(Source, Arc<Ring>)>>,
}

/// Settings that the application gave in Rust.
#[derive(Default)]
enum Own {
    /// None: they come as JSON.
    #[default]
    Json,
    Keyring {
        path: PathBuf,
        sealing: Sealing,
        create: bool,
    },
    MasterKey(Arc<LockedBytes>),
    /// The builder was used wrongly; opening says how.
    Misused(BackendError),
}

/// Which settings a ring was opened with.
#[derive(PartialEq, Eq)]
enum Source {
    Own,
    Json(Settings),
}

impl ManagedBackend {
    /// A backend on this keyring file, not sealed unless [`passphrase`](Self::passphrase) follows. It is made at the
    /// first wrap when it is not there. A relative path is taken from the working directory of now.
    pub fn keyring(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let path = std::path::absolute(&path).unwrap_or(path);
        Self::with(Own::Keyring {
            path,
            sealing: Sealing::none(),
            create: true,
        })
    }

    /// A backend on this master key alone, without a file: for applications that have a place for it. The key is
    /// copied; the caller zeroizes its own. It has one version and cannot be disabled.
    #[must_use]
    pub fn master_key(key: &[u8; 32]) -> Self {
        Self::with(Own::MasterKey(Arc::new(LockedBytes::copy_from(key))))
    }

    /// Seals the keyring file under a key derived from this passphrase (1 to 4096 bytes; the caller zeroizes its own
    /// copy). Only after [`keyring`](Self::keyring): otherwise opening fails with [`ErrorCode::InvalidConfig`].
    #[must_use]
    pub fn passphrase(self, passphrase: impl AsRef<[u8]>) -> Self {
        match Sealing::passphrase(passphrase) {
            Ok(sealing) => self.sealing(sealing),
            Err(error) => Self::with(Own::Misused(error)),
        }
    }

    /// Seals the keyring file so. Only after [`keyring`](Self::keyring): otherwise opening fails with
    /// [`ErrorCode::InvalidConfig`].
    #[must_use]
    pub fn sealing(self, new: Sealing) -> Self {
        self.edit("a passphrase", |sealing, _| *sealing = new)
    }

    /// Whether the keyring file is made at the first wrap when it is not there (as it is unless told otherwise). Only
    /// after [`keyring`](Self::keyring): otherwise opening fails with [`ErrorCode::InvalidConfig`].
    #[must_use]
    pub fn create(self, new: bool) -> Self {
        self.edit("`create`", |_, create| *create = new)
    }

    fn with(own: Own) -> Self {
        Self {
            own,
            opened: Mutex::default(),
        }
    }

    fn edit(self, what: &str, edit: impl FnOnce(&mut Sealing, &mut bool)) -> Self {
        let own = match self.own {
            Own::Keyring {
                path,
                mut sealing,
                mut create,
            } => {
                edit(&mut sealing, &mut create);
                Own::Keyring {
                    path,
                    sealing,
                    create,
                }
            }
            Own::Misused(error) => Own::Misused(error),
            Own::Json | Own::MasterKey(_) => Own::Misused(invalid_config(format!(
                "{what} was given for a managed key without a keyring file; begin with ManagedBackend::keyring(path)"
            ))),
        };
        Self::with(own)
    }

    /// The ring of these settings: the one that is open already, or a new one.
    fn ring(&self, json: Option<Settings>) -> Result<Arc<Ring>> {
        let source = match (&self.own, json) {
            (Own::Misused(error), _) => return Err(error.clone()),
            (Own::Json, None) => return Err(settings::missing_settings()),
            (Own::Json, Some(settings)) => Source::Json(settings),
            (_, None) => Source::Own,
            (_, Some(_)) => {
                return Err(invalid_config(
                    "the managed key has settings from the program already (ManagedBackend::keyring or master_key), so \
                     JSON settings must be {}; give one of the two",
                ));
            }
        };
        // Held while the ring is made: a pipe gives its passphrase once, whoever comes second must find the ring.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, ring)) = opened.iter().find(|(known, _)| *known == source) {
            return Ok(Arc::clone(ring));
        }
        let ring = Arc::new(match &source {
            Source::Own => self.own_ring()?,
            Source::Json(settings) => json_ring(settings)?,
        });
        if opened.len() >= OPENED_MAX {
            opened.remove(0);
        }
        opened.push((source, Arc::clone(&ring)));
        Ok(ring)
    }

    fn own_ring(&self) -> Result<Ring> {
        match &self.own {
            Own::Keyring {
                path,
                sealing,
                create,
            } => {
                if path.file_name().is_none() {
                    return Err(invalid_config(format!(
                        "the keyring path {} names no file",
                        path.display()
                    )));
                }
                Ok(Ring::File {
                    keyring: Keyring::at(path, sealing.clone()),
                    create: *create,
                })
            }
            Own::MasterKey(key) => Ok(Ring::lone(LockedBytes::copy_from(key.as_slice()))),
            Own::Json => Err(settings::missing_settings()),
            Own::Misused(error) => Err(error.clone()),
        }
    }
}

fn json_ring(settings: &Settings) -> Result<Ring> {
    match settings {
        Settings::Keyring {
            path,
            passphrase,
            create,
        } => {
            let sealing = match passphrase {
                Some(source) => Sealing::passphrase(read(source)?.as_slice())?,
                None => Sealing::none(),
            };
            Ok(Ring::File {
                keyring: Keyring::at(path, sealing),
                create: *create,
            })
        }
        Settings::MasterKey(source) => Ok(Ring::lone(read_master_key(source)?)),
    }
}

/// Read once, when the keyring is opened: a source that gives nothing then was set up wrongly.
fn read(source: &SecretSource) -> Result<LockedBytes> {
    let read = source.read("opening the managed key");
    read.map_err(|error| invalid_config(error.message))
}

fn read_master_key(source: &SecretSource) -> Result<LockedBytes> {
    let digits = read(source)?;
    let key: Zeroizing<[u8; KEY_BYTES]> = wrap::decode_hex(digits.as_slice())
        .map(Zeroizing::new)
        .ok_or_else(|| {
            invalid_config(format!(
                "the master key (`{}`) is not 64 hexadecimal digits; give 32 random bytes so",
                source.field()
            ))
        })?;
    Ok(LockedBytes::copy_from(&*key))
}

impl fmt::Debug for ManagedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ManagedBackend");
        match &self.own {
            Own::Json => out.field("settings", &"JSON"),
            Own::Keyring {
                path,
                sealing,
                create,
            } => out
                .field("keyring", path)
                .field("sealing", sealing)
                .field("create", create),
            Own::MasterKey(key) => out.field("master_key", key),
            Own::Misused(error) => out.field("misused", error),
        };
        out.finish_non_exhaustive()
    }
}

impl KeyBackend for ManagedBackend {
    fn describe(&self) -> Description {
        let size = |bytes: usize| u32::try_from(bytes).expect("the limits are small constants");
        Description {
            config_schema: settings::config_schema(),
            settings_schema: settings::settings_schema(),
            limits: SizeLimits {
                plaintext_max_bytes: size(wrap::PLAINTEXT_MAX_BYTES),
                blob_max_bytes: size(wrap::BLOB_MAX_BYTES),
                key_id_max_bytes: size(wrap::KEY_ID_MAX_BYTES),
                metadata_max_bytes: 0,
            },
            capabilities: Capabilities {
                binds_context: true,
                rewrap: true,
                interrupt: false,
            },
            credentials: vec![CredentialKind::None, CredentialKind::Settings],
            ..Description::new("managed", env!("CARGO_PKG_VERSION"))
        }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>> {
        settings::check_config(request.config)?;
        let ring = self.ring(settings::parse_settings(request.settings)?)?;
        Ok(Box::new(ManagedKey {
            ring,
            host: request.host,
        }))
    }
}

/// What instances share: a keyring file, or a master key without one.
enum Ring {
    File { keyring: Keyring, create: bool },
    Lone(Arc<KeySet>),
}

impl Ring {
    fn lone(key: LockedBytes) -> Self {
        // The id comes from the key, so that whoever has the key has the id, and so that another key is named so.
        let derived = blake3::derive_key(KEYRING_ID_LABEL, key.as_slice());
        let mut id = [0; 16];
        id.copy_from_slice(&derived[..16]);
        Self::Lone(Arc::new(KeySet {
            id: KeyringId(id),
            state: KeyringState::Enabled,
            keys: vec![MasterKey {
                version: 1,
                created_unix_s: 0,
                key,
            }],
            newest_version: 1,
        }))
    }

    fn enabled(&self) -> Result<Arc<KeySet>> {
        let (keys, name) = match self {
            Self::Lone(keys) => return Ok(Arc::clone(keys)),
            Self::File { keyring, .. } => (keyring.current()?, keyring.path().display()),
        };
        match keys.state {
            KeyringState::Enabled => Ok(keys),
            KeyringState::Disabled => Err(BackendError::new(
                ErrorCode::KeyDisabled,
                format!(
                    "the keyring {name} ({}) is disabled; whoever disabled it can enable it again",
                    keys.id
                ),
            )),
        }
    }

    /// True when the file is not there, never was for this process, and may be made.
    fn is_to_be_made(&self) -> Result<bool> {
        match self {
            Self::File {
                keyring,
                create: true,
            } if !keyring.was_seen() => Ok(!keyring.exists()?),
            _ => Ok(false),
        }
    }
}

/// One registered key: the keyring that all organizations of the application share, told apart by the context.
struct ManagedKey {
    ring: Arc<Ring>,
    host: Arc<dyn Host>,
}

impl ManagedKey {
    fn random(&self) -> impl Fn(&mut [u8]) -> Result<()> + '_ {
        |out| self.host.random(out)
    }
}

impl KeyInstance for ManagedKey {
    fn status(&self, call: &Call) -> Result<Status> {
        admit(call)?;
        if self.ring.is_to_be_made()? {
            let detail = "the keyring file is not there yet; the first wrap makes it".to_owned();
            return Ok(Status {
                key_id: String::new(),
                detail,
            });
        }
        let keys = self.ring.enabled()?;
        let kind = match &*self.ring {
            Ring::Lone(_) => "a master key without a keyring file".to_owned(),
            Ring::File { keyring, .. } => format!("keyring {}", keyring.path().display()),
        };
        Ok(Status {
            key_id: wrap::key_id(keys.id, keys.newest_version),
            detail: format!("{kind}, {} version(s), enabled", keys.keys.len()),
        })
    }

    fn wrap(&self, call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped> {
        admit(call)?;
        // Only a wrap makes a keyring: what is to be unwrapped, some keyring wrapped, and a new one cannot open it.
        if let Ring::File { keyring, .. } = &*self.ring
            && self.ring.is_to_be_made()?
            && keyring.create_missing(&self.random(), call.timeout)?
        {
            self.host.log(
                LogLevel::Warn,
                &format!(
                    "made the keyring {}; back it up: without it nothing under it opens",
                    keyring.path().display()
                ),
            );
        }
        wrap::wrap(&*self.ring.enabled()?, context, plaintext, &self.random())
    }

    fn unwrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes> {
        admit(call)?;
        wrap::unwrap(&*self.ring.enabled()?, context, wrapped)
    }

    fn rewrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<Wrapped> {
        admit(call)?;
        let keys = self.ring.enabled()?;
        let plaintext = wrap::unwrap(&keys, context, wrapped)?;
        wrap::wrap(&keys, context, plaintext.as_slice(), &self.random())
    }
}

fn admit(call: &Call) -> Result<()> {
    if call.is_cancelled() {
        return Err(BackendError::new(
            ErrorCode::Cancelled,
            "the host cancelled the call before it began",
        ));
    }
    if call.timeout.is_zero() {
        return Err(BackendError::new(
            ErrorCode::Timeout,
            "the deadline had passed before the call began",
        ));
    }
    Ok(())
}
