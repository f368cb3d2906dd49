//! Which backends the application registered, and the instances that are open for registered keys.
//!
//! The store file never names a library or an endpoint: a stored key names a backend, and it is used only with the one
//! that the application registered under that name.

use crate::env::Env;
use crate::error::{Error, Result};
use crate::keyring::calls::{CallPool, Failed};
use crate::names::{KeyName, OrganizationId, OrganizationName};
use crate::storage::commit::lock;
use keystead_backend::{
    BackendError, Call, CredentialKind, Description, ErrorCode, Host, KeyBackend, KeyInstance, LockedBytes,
    LogLevel, OpenRequest,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Instances that are open at once, over all organizations.
const INSTANCES_MAX: usize = 1024;

/// A backend as an application registers it: the connector, the name that stored keys use for it, and the application's
/// settings.
///
/// # Examples
///
/// ```
/// # use keystead_backend::{BackendError, Description, ErrorCode, KeyBackend, KeyInstance, OpenRequest};
/// # struct MyKms;
/// # impl KeyBackend for MyKms {
/// #     fn describe(&self) -> Description { Description::new("my-kms", "1") }
/// #     fn open(&self, _: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
/// #         Err(BackendError::new(ErrorCode::Unavailable, "an example"))
/// #     }
/// # }
/// use keystead::Backend;
///
/// let backend = Backend::new(MyKms).named("customer-kms").settings(serde_json::json!({ "region": "eu-central-1" }));
/// assert_eq!(backend.name(), "customer-kms");
/// ```
#[derive(Clone)]
pub struct Backend {
    name: String,
    connector: Connector,
    settings: serde_json::Value,
}

#[derive(Clone)]
enum Connector {
    Here(Arc<dyn KeyBackend>),
    Deferred(Arc<Deferred>),
}

/// A connector that is made when it is first needed, and again when that failed.
struct Deferred {
    load: Box<Load>,
    loaded: Mutex<Option<Arc<dyn KeyBackend>>>,
}

type Load = dyn Fn() -> std::result::Result<Arc<dyn KeyBackend>, BackendError> + Send + Sync;

impl Connector {
    fn get(&self) -> std::result::Result<Arc<dyn KeyBackend>, BackendError> {
        match self {
            Self::Here(connector) => Ok(Arc::clone(connector)),
            Self::Deferred(deferred) => {
                let mut loaded = lock(&deferred.loaded);
                if loaded.is_none() {
                    *loaded = Some((deferred.load)()?);
                }
                Ok(Arc::clone(loaded.as_ref().expect("it was filled just now")))
            }
        }
    }
}

impl Backend {
    /// A backend under its own name, with no settings.
    pub fn new(connector: impl KeyBackend + 'static) -> Self {
        Self::shared(Arc::new(connector))
    }

    /// The same for a connector that is shared.
    #[must_use]
    pub fn shared(connector: Arc<dyn KeyBackend>) -> Self {
        Self {
            name: connector.describe().name,
            connector: Connector::Here(connector),
            settings: serde_json::json!({}),
        }
    }

    /// A backend that is made by `load` when a key of it is first used, not before: of many registered plugins, those that no
    /// key needs cost nothing. What `load` fails with is the error of that use, and it is asked again by the next one.
    ///
    /// # Examples
    ///
    /// ```
    /// use keystead::Backend;
    /// # use keystead_backend::{BackendError, Description, KeyBackend, KeyInstance, OpenRequest, ErrorCode};
    /// # struct Plugin;
    /// # impl Plugin { fn load() -> Result<Self, BackendError> { Ok(Self) } }
    /// # impl KeyBackend for Plugin {
    /// #     fn describe(&self) -> Description { Description::new("my-kms", "1") }
    /// #     fn open(&self, _: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
    /// #         Err(BackendError::new(ErrorCode::Unavailable, "an example"))
    /// #     }
    /// # }
    /// let backend = Backend::deferred("aws-kms", || Ok(Plugin::load()?));
    /// assert_eq!(backend.name(), "aws-kms");
    /// ```
    pub fn deferred<B: KeyBackend + 'static>(
        name: impl Into<String>,
        load: impl Fn() -> std::result::Result<B, BackendError> + Send + Sync + 'static,
    ) -> Self {
        let load = move || load().map(|connector| Arc::new(connector) as Arc<dyn KeyBackend>);
        Self {
            name: name.into(),
            connector: Connector::Deferred(Arc::new(Deferred {
                load: Box::new(load),
                loaded: Mutex::default(),
            })),
            settings: serde_json::json!({}),
        }
    }

    /// The name by which stored keys refer to this backend.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The application's settings: endpoints, files, credentials. They are trusted and never stored.
    #[must_use]
    pub fn settings(mut self, settings: serde_json::Value) -> Self {
        self.settings = settings;
        self
    }

    /// The name by which stored keys refer to this backend.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the backend says about itself. A deferred one is made for that; if it cannot be, its name is all there is.
    #[must_use]
    pub fn describe(&self) -> Description {
        match self.connector.get() {
            Ok(connector) => connector.describe(),
            Err(_) => Description::new(&self.name, "not loaded"),
        }
    }
}

impl<B: KeyBackend + 'static> From<B> for Backend {
    fn from(connector: B) -> Self {
        Self::new(connector)
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Mints identity tokens: an application that is its own OpenID Connect issuer implements this, and backends log in to
/// each organization's cloud with a token made for that organization.
pub trait IdentityProvider: Send + Sync {
    /// A token for this request, as the cloud's token service takes it.
    ///
    /// # Errors
    ///
    /// What the application cannot do, in words for people; it reaches the caller as a KMS error. Its code decides as one of the
    /// KMS does: `Unavailable` when the application cannot mint at the moment, since `Unauthenticated` and the like take the key
    /// away.
    fn token(&self, request: &IdentityRequest<'_>) -> Result<LockedBytes, BackendError>;
}

/// For whom a token is asked.
#[derive(Debug, Clone, Copy)]
pub struct IdentityRequest<'a> {
    /// The audience that the key's config names, such as `aws:acme`.
    pub audience: &'a str,
    /// Whose key.
    pub organization: &'a OrganizationName,
    /// Which key.
    pub key: &'a KeyName,
}

/// A registered key of an organization: all that is needed to call its KMS.
#[derive(Debug, Clone)]
pub(crate) struct RegisteredKey {
    pub(crate) org: OrganizationId,
    pub(crate) organization: OrganizationName,
    pub(crate) name: KeyName,
    pub(crate) backend: String,
    pub(crate) config: String,
}

/// An open instance, with the threads that its calls run on.
#[derive(Clone)]
pub(crate) struct OpenInstance {
    instance: Arc<HeldInstance>,
    pub(crate) binds_context: bool,
}

impl OpenInstance {
    /// Makes a call on a thread of the backend, and waits for its answer.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        call: Call,
        make: impl FnOnce(&dyn KeyInstance, &Call) -> std::result::Result<T, BackendError> + Send + 'static,
    ) -> std::result::Result<T, Failed> {
        let held = &self.instance;
        let (interrupted, asked) = (Arc::clone(held), Arc::clone(held));
        held.pool.run(
            &held.id,
            call,
            move || interrupted.key().interrupt(),
            move |call| make(asked.key(), call),
        )
    }
}

/// An instance that closes on a thread of its backend, whoever lets go of it last: closing is the backend's code too, and may take
/// its time.
struct HeldInstance {
    id: Arc<InstanceId>,
    /// Empty when it is being dropped.
    instance: Option<Box<dyn KeyInstance>>,
    pool: Arc<CallPool>,
}

impl HeldInstance {
    fn key(&self) -> &dyn KeyInstance {
        self.instance.as_deref().expect("it is there until it is dropped")
    }
}

impl Drop for HeldInstance {
    fn drop(&mut self) {
        let instance = self.instance.take();
        self.pool.errand(&self.id, move || drop(instance));
    }
}

struct Registered {
    backend: Backend,
    /// Empty until a deferred one is there.
    description: OnceLock<Description>,
    pool: Arc<CallPool>,
}

impl Registered {
    fn description(&self) -> std::result::Result<&Description, BackendError> {
        if let Some(description) = self.description.get() {
            return Ok(description);
        }
        let description = self.backend.connector.get()?.describe();
        Ok(self.description.get_or_init(|| description))
    }
}

/// Instances are shared by keys with the same backend and config, unless the backend logs in with tokens that are minted
/// for one organization's key.
pub(super) type InstanceId = (String, String, Option<(OrganizationId, KeyName)>);

#[derive(Default)]
struct Instances {
    open: HashMap<Arc<InstanceId>, OpenInstance>,
    order: VecDeque<Arc<InstanceId>>,
}

/// The registered backends and their open instances.
pub(crate) struct Registry {
    env: Arc<dyn Env>,
    backends: BTreeMap<String, Registered>,
    identity: Option<Arc<dyn IdentityProvider>>,
    instances: Mutex<Instances>,
}

impl Registry {
    pub(crate) fn new(
        env: Arc<dyn Env>,
        backends: Vec<Backend>,
        identity: Option<Arc<dyn IdentityProvider>>,
    ) -> Result<Self> {
        let mut registered = BTreeMap::new();
        for backend in backends {
            let name = backend.name.clone();
            let description = match &backend.connector {
                Connector::Here(connector) => connector.describe().into(),
                Connector::Deferred(_) => OnceLock::new(),
            };
            let entry = Registered {
                backend,
                description,
                pool: Arc::new(CallPool::new(Arc::clone(&env))),
            };
            if registered.insert(name.clone(), entry).is_some() {
                return Err(Error::InvalidArgument {
                    what: "the set of backends",
                    reason: format!("two are registered under the name {name:?}"),
                });
            }
        }
        Ok(Self {
            env,
            backends: registered,
            identity,
            instances: Mutex::default(),
        })
    }

    pub(crate) fn descriptions(&self) -> Vec<(String, Description)> {
        self.backends
            .iter()
            .filter_map(|(name, entry)| Some((name.clone(), entry.description().ok()?.clone())))
            .collect()
    }

    pub(crate) fn is_registered(&self, backend: &str) -> bool {
        self.backends.contains_key(backend)
    }

    /// The instance for a key: an open one, or a new one. A backend opens it on its own threads, within the deadline of a call.
    pub(crate) fn instance(&self, key: &RegisteredKey, timeout: Duration) -> Result<OpenInstance> {
        let entry = self
            .backends
            .get(&key.backend)
            .ok_or_else(|| Error::BackendNotRegistered {
                organization: key.organization.clone(),
                key: key.name.clone(),
                backend: key.backend.clone(),
            })?;
        let cannot = |source| kms_error(key, "open its backend", source);
        let description = entry.description().map_err(cannot)?;
        let id = Arc::new(Self::instance_id(description, key));
        if let Some(open) = lock(&self.instances).open.get(&id) {
            return Ok(open.clone());
        }
        let host = Arc::new(InstanceHost {
            env: Arc::clone(&self.env),
            identity: self.identity.clone(),
            organization: key.organization.clone(),
            key: key.name.clone(),
        });
        let (connector, settings) = (
            entry.backend.connector.clone(),
            entry.backend.settings.to_string(),
        );
        let config = key.config.clone();
        let (held, pool) = (Arc::clone(&id), Arc::clone(&entry.pool));
        let open = move || {
            let request = OpenRequest {
                settings: &settings,
                config: &config,
                host,
            };
            let instance = connector.get()?.open(request)?;
            Ok(HeldInstance {
                id: held,
                instance: Some(instance),
                pool,
            })
        };
        let instance = entry
            .pool
            .open(&id, timeout, open)
            .map_err(|failed| cannot(failed.error))?;
        let open = OpenInstance {
            instance: Arc::new(instance),
            binds_context: description.capabilities.binds_context,
        };
        let mut instances = lock(&self.instances);
        let replaced = instances.open.insert(Arc::clone(&id), open.clone());
        if replaced.is_none() {
            instances.order.push_back(id);
        }
        let evicted = (instances.order.len() > INSTANCES_MAX)
            .then(|| instances.order.pop_front())
            .flatten()
            .and_then(|oldest| instances.open.remove(&oldest));
        drop(instances);
        drop((replaced, evicted));
        Ok(open)
    }

    /// Forgets the instance of a key, after a call of it did not come back: the next one gets a new instance.
    pub(crate) fn forget(&self, key: &RegisteredKey) {
        let entry = self.backends.get(&key.backend);
        if let Some(description) = entry.and_then(|entry| entry.description.get()) {
            let id = Self::instance_id(description, key);
            let mut instances = lock(&self.instances);
            let forgotten = instances.open.remove(&id);
            instances.order.retain(|other| **other != id);
            drop(instances);
            drop(forgotten);
        }
    }

    fn instance_id(description: &Description, key: &RegisteredKey) -> InstanceId {
        let own = description.credentials.contains(&CredentialKind::MintedToken);
        (
            key.backend.clone(),
            key.config.clone(),
            own.then(|| (key.org, key.name.clone())),
        )
    }
}

pub(crate) fn kms_error(key: &RegisteredKey, doing: impl Into<String>, source: BackendError) -> Error {
    Error::Kms {
        organization: key.organization.clone(),
        key: key.name.clone(),
        doing: doing.into(),
        source,
    }
}

struct InstanceHost {
    env: Arc<dyn Env>,
    identity: Option<Arc<dyn IdentityProvider>>,
    organization: OrganizationName,
    key: KeyName,
}

impl Host for InstanceHost {
    fn log(&self, level: LogLevel, message: &str) {
        let (organization, key) = (&self.organization, &self.key);
        match level {
            LogLevel::Error => tracing::error!(%organization, %key, "{message}"),
            LogLevel::Warn => tracing::warn!(%organization, %key, "{message}"),
            LogLevel::Info => tracing::info!(%organization, %key, "{message}"),
            LogLevel::Debug => tracing::debug!(%organization, %key, "{message}"),
        }
    }

    fn random(&self, out: &mut [u8]) -> Result<(), BackendError> {
        self.env
            .fill_random(out)
            .map_err(|error| BackendError::new(ErrorCode::Internal, format!("no random bytes: {error}")))
    }

    fn identity_token(&self, audience: &str) -> Result<LockedBytes, BackendError> {
        match &self.identity {
            Some(provider) => provider.token(&IdentityRequest {
                audience,
                organization: &self.organization,
                key: &self.key,
            }),
            None => Err(BackendError::new(
                ErrorCode::Unsupported,
                "this application mints no identity tokens; give it an identity provider, or configure a token file",
            )),
        }
    }
}

#[cfg(test)]
mod tests;
