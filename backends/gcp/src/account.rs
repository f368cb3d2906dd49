//! What all instances with the same settings share: the HTTP connections of the KMS client, and the application's own
//! credentials. An instance itself holds no connection, so a store may have very many.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::Duration;

use google_cloud_auth::credentials::{
    Builder as DefaultCredentials, CacheableResource, Credentials, CredentialsProvider, service_account,
};
use google_cloud_gax::error::CredentialsError;
use google_cloud_gax::exponential_backoff::ExponentialBackoffBuilder;
use google_cloud_gax::retry_policy::{Aip194Strict, RetryPolicyExt};
use google_cloud_gax::retry_result::RetryResult;
use google_cloud_gax::retry_throttler::RetryThrottler;
use google_cloud_kms_v1::client::KeyManagementService;
use http::{Extensions, HeaderMap};
use keystead_backend::{BackendError, ErrorCode};
use keystead_backend_common::Confided;
use serde_json::Value;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::failure::Doing;
use crate::held::Held;
use crate::settings::Settings;

/// The first wait before another attempt; grows with each, and is jittered by the client.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The largest credentials file that is read, in bytes.
const FILE_MAX_BYTES: u64 = 64 * 1024;

tokio::task_local! {
    /// What the call in this task proves itself with.
    static PROOF: HeaderMap;
}

/// What instances with the same settings share.
pub(crate) struct Account {
    settings: Settings,
    kms: OnceCell<KeyManagementService>,
    own: tokio::sync::Mutex<Option<Arc<Held>>>,
}

impl Account {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            kms: OnceCell::new(),
            own: tokio::sync::Mutex::new(None),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The KMS client; made at the first call. It holds no credentials: each call brings its own, by [`proven`].
    pub(crate) async fn kms(&self, doing: Doing<'_>) -> Result<&KeyManagementService, BackendError> {
        self.kms
            .get_or_try_init(|| async {
                use_ring();
                let retry = Aip194Strict
                    .continue_on_too_many_requests()
                    .continue_on_client_timeout()
                    .with_attempt_limit(self.settings.max_attempts);
                let backoff = ExponentialBackoffBuilder::new()
                    .with_initial_delay(BACKOFF_FIRST)
                    .with_maximum_delay(BACKOFF_MAX)
                    .clamp();
                let mut builder = KeyManagementService::builder()
                    .with_credentials(Credentials::from(ProofOfTheTask))
                    .with_retry_policy(retry)
                    .with_backoff_policy(backoff)
                    .with_retry_throttler(NoThrottle)
                    .with_attempt_timeout(self.settings.attempt_timeout);
                if let Some(url) = &self.settings.endpoint_url {
                    builder = builder.with_endpoint(url);
                }
                builder.build().await
            })
            .await
            .map_err(|error| {
                doing.failed(
                    ErrorCode::Internal,
                    format!("the client could not be set up ({error})"),
                )
            })
    }

    /// The application's own credentials: of the settings, or the application default ones. The flag says that they were
    /// there before.
    pub(crate) async fn own(&self, doing: Doing<'_>) -> Result<(Arc<Held>, bool), BackendError> {
        let mut own = self.own.lock().await;
        if let Some(held) = own.as_ref().filter(|held| !held.is_abandoned()) {
            return Ok((Arc::clone(held), true));
        }
        use_ring();
        let file = self.settings.service_account_file.clone();
        let made = tokio::task::spawn_blocking(move || match file {
            // A token that it signs is all that it shows.
            Some(path) => from_file(&path).map(|credentials| (credentials, Confided::default())),
            None => DefaultCredentials::default()
                .build()
                .map(|credentials| (credentials, shown_by_default()))
                .map_err(|error| format!("there are none ({error})")),
        })
        .await;
        let (credentials, shown) = match made {
            Ok(Ok(made)) => made,
            // Says nothing about the owner's will; and a file may be put in order.
            Ok(Err(what)) => return Err(doing.failed(ErrorCode::Unavailable, what)),
            Err(_) => return Err(doing.failed(ErrorCode::Internal, "the reader broke off")),
        };
        let held = Arc::new(Held::new(credentials, shown));
        *own = Some(Arc::clone(&held));
        Ok((held, false))
    }

    /// Forgets these credentials, if they are still the ones in use: Google did not accept them.
    pub(crate) async fn discard(&self, refused: &Arc<Held>) {
        let mut own = self.own.lock().await;
        if own.as_ref().is_some_and(|held| Arc::ptr_eq(held, refused)) {
            *own = None;
        }
    }
}

/// Runs one call of the KMS client with this proof of who asks.
pub(crate) async fn proven<T>(proof: HeaderMap, call: impl Future<Output = T>) -> T {
    PROOF.scope(proof, call).await
}

/// The client asks it for each attempt, inside of the task that calls: so one client, with its connections, serves keys
/// of many identities.
#[derive(Debug)]
struct ProofOfTheTask;

impl CredentialsProvider for ProofOfTheTask {
    async fn headers(
        &self,
        _extensions: Extensions,
    ) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        PROOF
            .try_with(|proof| CacheableResource::New {
                entity_tag: google_cloud_auth::credentials::EntityTag::new(),
                data: proof.clone(),
            })
            .map_err(|_| CredentialsError::from_msg(false, "this call brought no proof of who asks"))
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}

/// The client's own throttle counts the failures of all calls: one customer's outage would hold back another's attempts.
#[derive(Debug)]
struct NoThrottle;

impl RetryThrottler for NoThrottle {
    fn throttle_retry_attempt(&self) -> bool {
        false
    }

    fn on_retry_failure(&mut self, _flow: &RetryResult) {}

    fn on_success(&mut self) {}
}

/// The key of a service account, as Google's console gives it out. Nothing of what is in the file is repeated.
fn from_file(path: &Path) -> Result<Credentials, String> {
    let wrong = |what: &str| format!("the service_account_file {} {what}", path.display());
    let key = read_json(path).map_err(|what| wrong(&what))?;
    if key["type"] != "service_account" {
        return Err(wrong(
            "is not the key of a service account (\"type\": \"service_account\"); other kinds of credentials go into GOOGLE_APPLICATION_CREDENTIALS",
        ));
    }
    service_account::Builder::new(key)
        .build()
        .map_err(|_| wrong("lacks a field that the key of a service account has"))
}

fn read_json(path: &Path) -> Result<Value, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > FILE_MAX_BYTES {
        return Err("is not a regular file, or is too long for a key".into());
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(unreadable)?);
    serde_json::from_str(&text).map_err(|_| "is not JSON".into())
}

/// What the application default credentials show to whoever gives out tokens, where they are a user's. The client library tells nobody,
/// so it is read where that reads it.
fn shown_by_default() -> Confided {
    let shown = Confided::default();
    let named = std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from);
    let usual = || {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(".config/gcloud/application_default_credentials.json"))
    };
    let Some(file) = named.or_else(usual).and_then(|path| read_json(&path).ok()) else {
        return shown;
    };
    // One level down in those that impersonate a service account.
    for user in [&file, &file["source_credentials"]] {
        for (field, what) in [
            ("client_secret", "the client secret"),
            ("refresh_token", "the refresh token"),
        ] {
            if let Some(secret) = user[field].as_str() {
                shown.note(what, secret.as_bytes());
            }
        }
    }
    shown
}

/// One TLS stack: rustls with ring. The client takes what the process has chosen, and a process that has chosen nothing gets
/// ring; in a plugin that choice is the plugin's own.
pub(crate) fn use_ring() {
    static CHOSEN: Once = Once::new();
    CHOSEN.call_once(|| {
        // Refused when the application has chosen already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// The accounts in use. One that no instance uses any more goes away.
#[derive(Default)]
pub(crate) struct Accounts(Mutex<Vec<Weak<Account>>>);

impl Accounts {
    /// The account with these settings. Few differ: an application has one set of settings.
    pub(crate) fn get(&self, settings: Settings) -> Arc<Account> {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.retain(|account| account.strong_count() > 0);
        let same = accounts
            .iter()
            .filter_map(Weak::upgrade)
            .find(|account| account.settings == settings);
        same.unwrap_or_else(|| {
            let account = Arc::new(Account::new(settings));
            accounts.push(Arc::downgrade(&account));
            account
        })
    }
}
