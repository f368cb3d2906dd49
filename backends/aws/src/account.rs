//! What all instances with the same settings and region share: the HTTP connections, the SDK's clients and the
//! application's own AWS credentials. An instance itself holds no connection, so a store may have very many.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{
    Credentials, IdentityCache, ProvideCredentials, Region, SharedCredentialsProvider, SharedHttpClient,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use keystead_backend::{BackendError, ErrorCode};
use tokio::sync::OnceCell;

use crate::failure::Doing;
use crate::provider_error;
use crate::settings::Settings;

/// Credentials are renewed this long before they expire.
const RENEW_BEFORE_EXPIRY: Duration = Duration::from_secs(120);

/// The first wait before another attempt; grows with each, and is jittered by the SDK.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What instances with the same settings and region share.
pub(crate) struct Account {
    settings: Settings,
    region: String,
    clients: OnceCell<Clients>,
    credentials: tokio::sync::Mutex<Option<Credentials>>,
}

/// The SDK's clients. They hold no credentials: each call brings its own.
pub(crate) struct Clients {
    pub(crate) kms: aws_sdk_kms::Client,
    pub(crate) sts: aws_sdk_sts::Client,
    provider: Option<SharedCredentialsProvider>,
}

impl Account {
    fn new(settings: Settings, region: &str) -> Self {
        Self {
            settings,
            region: region.into(),
            clients: OnceCell::new(),
            credentials: tokio::sync::Mutex::new(None),
        }
    }

    /// The clients; made at the first call.
    pub(crate) async fn clients(&self) -> &Clients {
        self.clients.get_or_init(|| self.connect()).await
    }

    /// The application's own credentials: of the settings, or of the standard chain. The flag says that they come
    /// from the cache.
    pub(crate) async fn credentials(&self, doing: Doing<'_>) -> Result<(Credentials, bool), BackendError> {
        let mut cached = self.credentials.lock().await;
        if let Some(credentials) = cached.as_ref().filter(|credentials| is_fresh(credentials)) {
            return Ok((credentials.clone(), true));
        }
        let provider = self.clients().await.provider.as_ref().ok_or_else(|| {
            doing.failed(
                ErrorCode::Internal,
                "the SDK was set up without a credential chain",
            )
        })?;
        let credentials = provider
            .provide_credentials()
            .await
            .map_err(|error| provider_error::explain(doing, &error))
            .map_err(|error| provider_error::without_what_was_shown(error, doing))?;
        *cached = Some(credentials.clone());
        Ok((credentials, false))
    }

    /// Forgets these credentials, if they are still the cached ones: AWS did not accept them.
    pub(crate) async fn discard(&self, refused: &Credentials) {
        let mut cached = self.credentials.lock().await;
        if cached.as_ref() == Some(refused) {
            *cached = None;
        }
    }

    async fn connect(&self) -> Clients {
        let settings = &self.settings;
        let retry = RetryConfig::standard()
            .with_max_attempts(settings.max_attempts)
            .with_initial_backoff(BACKOFF_FIRST)
            .with_max_backoff(BACKOFF_MAX);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(settings.connect_timeout)
            .operation_attempt_timeout(settings.attempt_timeout)
            .build();
        let mut loader: ConfigLoader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(Region::new(self.region.clone()))
            .http_client(http_client())
            .retry_config(retry)
            .timeout_config(timeouts)
            .identity_cache(IdentityCache::no_cache());
        if let Some(profile) = &settings.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(own) = &settings.credentials {
            let token = own.session_token.as_ref().map(|token| token.to_string());
            loader = loader.credentials_provider(Credentials::new(
                own.access_key_id.clone(),
                own.secret_access_key.as_str(),
                token,
                None,
                "keystead-settings",
            ));
        }
        let sdk: SdkConfig = loader.load().await;
        let mut kms = aws_sdk_kms::config::Builder::from(&sdk);
        if let Some(url) = &settings.endpoint_url {
            kms = kms.endpoint_url(url);
        }
        let mut sts = aws_sdk_sts::config::Builder::from(&sdk);
        if let Some(url) = &settings.sts_endpoint_url {
            sts = sts.endpoint_url(url);
        }
        Clients {
            kms: aws_sdk_kms::Client::from_conf(kms.build()),
            sts: aws_sdk_sts::Client::from_conf(sts.build()),
            provider: sdk.credentials_provider(),
        }
    }
}

/// True while credentials can be used: they do not expire, or not soon.
#[allow(
    clippy::disallowed_methods,
    reason = "the expiry of AWS credentials is a moment of real time"
)]
pub(crate) fn is_fresh(credentials: &Credentials) -> bool {
    credentials
        .expiry()
        .is_none_or(|expiry| expiry > SystemTime::now() + RENEW_BEFORE_EXPIRY)
}

/// One TLS stack (rustls with ring), the system's certificates, and for https the proxy that the environment names.
fn http_client() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .proxy_config(proxy());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.build()
    })
}

/// `HTTPS_PROXY` and `NO_PROXY`. Plain http is never sent through a proxy: it is for loopback, and for the instance's
/// own metadata service.
fn proxy() -> ProxyConfig {
    let variable = |names: [&str; 2]| {
        names
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
    };
    let Some(url) = variable(["https_proxy", "HTTPS_PROXY"]) else {
        return ProxyConfig::disabled();
    };
    match ProxyConfig::https(url) {
        Ok(proxy) => match variable(["no_proxy", "NO_PROXY"]) {
            Some(rules) => proxy.no_proxy(rules),
            None => proxy,
        },
        Err(_) => ProxyConfig::disabled(),
    }
}

/// The accounts in use. One that no instance uses any more goes away.
#[derive(Default)]
pub(crate) struct Accounts(Mutex<Vec<Weak<Account>>>);

impl Accounts {
    /// The account with these settings in this region. Few differ: an application has one set of settings, and its
    /// customers' keys are in some tens of regions.
    pub(crate) fn get(&self, settings: Settings, region: &str) -> Arc<Account> {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.retain(|account| account.strong_count() > 0);
        let known = accounts.iter().filter_map(Weak::upgrade);
        let mut same = known.filter(|account| account.region == region && account.settings == settings);
        if let Some(account) = same.next() {
            return account;
        }
        drop(same);
        let account = Arc::new(Account::new(settings, region));
        accounts.push(Arc::downgrade(&account));
        account
    }
}
