//! The SDK's client for one registered key, and as whom it asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_security_keyvault_keys::{KeyClient, KeyClientOptions};
use keystead_backend::{BackendError, ErrorCode, Host};
use keystead_backend_common::Confided;

use crate::account::{Account, Credentials};
use crate::config::Identity;
use crate::failure::Doing;
use crate::http::Towards;
use crate::key_id::KeyId;

/// Gives out a client for one registered key, with an access token that it keeps until shortly before it expires.
pub(crate) struct Session {
    account: Arc<Account>,
    host: Arc<dyn Host>,
    key: KeyId,
    identity: Identity,
    cached: tokio::sync::Mutex<Option<Arc<Client>>>,
    /// The access tokens that the vault was shown.
    given: Arc<Confided>,
}

/// The SDK's client, which signs in by itself at its first call.
struct Client {
    keys: KeyClient,
    credentials: Credentials,
    /// True once a call has succeeded: its access token was good then.
    proven: AtomicBool,
}

impl Session {
    pub(crate) fn new(account: Arc<Account>, host: Arc<dyn Host>, key: KeyId, identity: Identity) -> Self {
        Self {
            account,
            host,
            key,
            identity,
            cached: tokio::sync::Mutex::new(None),
            given: Arc::default(),
        }
    }

    /// The same error without any access token, should the vault have repeated it.
    pub(crate) fn without_tokens(&self, error: BackendError, doing: &str) -> BackendError {
        self.given.without(error, doing)
    }

    /// The first attempt of a call.
    pub(crate) async fn attempt(&self) -> Result<Attempt<'_>, BackendError> {
        Ok(Attempt {
            session: self,
            client: self.client().await?,
            is_first: true,
        })
    }

    async fn client(&self) -> Result<Arc<Client>, BackendError> {
        let mut cached = self.cached.lock().await;
        if let Some(client) = cached.as_ref() {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(self.connect()?);
        *cached = Some(Arc::clone(&client));
        Ok(client)
    }

    /// Forgets a client and its access token; the next call signs in anew.
    async fn discard(&self, refused: &Arc<Client>) {
        let mut cached = self.cached.lock().await;
        if cached.as_ref().is_some_and(|client| Arc::ptr_eq(client, refused)) {
            *cached = None;
        }
        drop(cached);
        self.account.discard(&refused.credentials);
    }

    fn connect(&self) -> Result<Client, BackendError> {
        let cloud = self.key.cloud();
        let credentials = self
            .account
            .credential(&self.identity, cloud, &self.host, self.key.as_str())?;
        let options = KeyClientOptions {
            client_options: self.account.client_options(Towards::Vaults, cloud)?,
            // A vault that asks for a token for another service gets none.
            verify_challenge_resource: Some(true),
            ..KeyClientOptions::default()
        };
        let noting = Arc::new(Noting {
            sdks: Arc::clone(&credentials.sdks),
            given: Arc::clone(&self.given),
        });
        let keys = KeyClient::new(&self.key.vault(), noting, Some(options)).map_err(|error| {
            Doing::Look {
                key: self.key.as_str(),
            }
            .failed(ErrorCode::Internal, error.to_string())
        })?;
        Ok(Client {
            keys,
            credentials,
            proven: AtomicBool::new(false),
        })
    }
}

/// The SDK asks for an access token in the middle of a call: here it goes by.
#[derive(Debug)]
struct Noting {
    sdks: Arc<dyn TokenCredential>,
    given: Arc<Confided>,
}

#[async_trait]
impl TokenCredential for Noting {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let token = self.sdks.get_token(scopes, options).await?;
        self.given
            .note("the access token", token.token.secret().as_bytes());
        Ok(token)
    }
}

/// One of the at most two attempts of a call.
pub(crate) struct Attempt<'a> {
    session: &'a Session,
    client: Arc<Client>,
    is_first: bool,
}

impl Attempt<'_> {
    pub(crate) fn keys(&self) -> &KeyClient {
        &self.client.keys
    }

    /// Hands the answer on, and remembers that the access token was good.
    pub(crate) fn succeeded<T>(self, answer: T) -> T {
        self.client.proven.store(true, Ordering::Relaxed);
        answer
    }

    /// After a failure: the second attempt, if an access token that was good is not accepted any more, else the error for
    /// people. A client that was refused is forgotten in any case.
    pub(crate) async fn failed(
        &mut self,
        doing: Doing<'_>,
        error: &azure_core::Error,
    ) -> Result<(), BackendError> {
        let how = self.session.account.how(&self.session.identity);
        let shown = &self.client.credentials.shown;
        let error = shown.without(doing.sdk_failed(error, how), &doing.what());
        if !matches!(error.code, ErrorCode::Unauthenticated | ErrorCode::AccessDenied) {
            return Err(error);
        }
        self.session.discard(&self.client).await;
        let was_good = self.client.proven.load(Ordering::Relaxed);
        if !(self.is_first && was_good && error.code == ErrorCode::Unauthenticated) {
            return Err(error);
        }
        self.is_first = false;
        self.client = self.session.client().await?;
        Ok(())
    }
}
