//! What all instances with the same settings share: the HTTP connections, and the application's own credentials. An instance
//! itself holds no connection, so a store may have very many.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{Secret, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::http::{ClientMethodOptions, ClientOptions, HttpClient, RetryOptions, Transport};
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions, DeveloperToolsCredential, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId,
};
use keystead_backend::{BackendError, ErrorCode, Host};
use keystead_backend_common::{Confided, IdentityToken, token_text, words};

use crate::config::Identity;
use crate::failure::How;
use crate::http::{self, Towards};
use crate::key_id::Cloud;
use crate::retries::Retries;
use crate::settings::{Credential, Settings};

/// What instances with the same settings share.
pub(crate) struct Account {
    pub(crate) settings: Settings,
    clients: Mutex<HashMap<Towards, Arc<dyn HttpClient>>>,
    own: Mutex<HashMap<Where, Credentials>>,
}

/// Whom the SDK signs in as.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) sdks: Arc<dyn TokenCredential>,
    /// What Entra ID is shown to prove who asks: an identity token or a client secret. No error repeats it.
    pub(crate) shown: Arc<Confided>,
}

/// What errors call it.
const PROOF: &str = "what was to prove who asks";

/// The tenant, if a config says another one than the settings, and the cloud that the application signs in to.
type Where = (Option<String>, Cloud);

impl Account {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            clients: Mutex::default(),
            own: Mutex::default(),
        }
    }

    /// How the SDK is to send requests.
    pub(crate) fn client_options(
        &self,
        towards: Towards,
        cloud: Cloud,
    ) -> Result<ClientOptions, BackendError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match clients.get(&towards) {
            Some(client) => Arc::clone(client),
            None => {
                let client = http::client(&self.settings, towards)?;
                clients.insert(towards, Arc::clone(&client));
                client
            }
        };
        Ok(ClientOptions {
            transport: Some(Transport::new(client)),
            retry: RetryOptions::none(),
            per_call_policies: vec![Arc::new(Retries {
                max_attempts: self.settings.max_attempts,
            })],
            cloud: self.sign_in_service(cloud).map(Arc::new),
            ..ClientOptions::default()
        })
    }

    /// The settings' sign-in service, else that of the environment (none is said then, and the SDK reads
    /// `AZURE_AUTHORITY_HOST`), else that of the vault's cloud.
    fn sign_in_service(&self, cloud: Cloud) -> Option<CloudConfiguration> {
        if let Some(host) = &self.settings.authority_host {
            let mut custom = CustomConfiguration::default();
            custom.authority_host = host.clone();
            return Some(custom.into());
        }
        if std::env::var_os("AZURE_AUTHORITY_HOST").is_some_and(|host| !host.is_empty()) {
            return None;
        }
        Some(match cloud {
            Cloud::China => CloudConfiguration::AzureChina,
            Cloud::Government => CloudConfiguration::AzureGovernment,
            Cloud::Public | Cloud::Other => CloudConfiguration::AzurePublic,
        })
    }

    /// A credential for an identity. Those of the application's own are shared, and so are their access tokens.
    pub(crate) fn credential(
        &self,
        identity: &Identity,
        cloud: Cloud,
        host: &Arc<dyn Host>,
        key: &str,
    ) -> Result<Credentials, BackendError> {
        let tenant = match identity {
            Identity::Federated {
                tenant_id,
                client_id,
                token,
            } => return self.federated(tenant_id, client_id, token, cloud, host, key),
            Identity::Application { tenant_id } => tenant_id,
        };
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let place: Where = (tenant.clone(), cloud);
        if let Some(credentials) = own.get(&place) {
            return Ok(credentials.clone());
        }
        let credentials = self.own_credential(tenant.as_deref(), cloud, host, key)?;
        own.insert(place, credentials.clone());
        Ok(credentials)
    }

    /// Forgets this credential, if it is a shared one: its access tokens were not accepted.
    pub(crate) fn discard(&self, refused: &Credentials) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.retain(|_, credentials| !Arc::ptr_eq(&credentials.sdks, &refused.sdks));
    }

    /// How an identity is proven, for messages.
    pub(crate) fn how(&self, identity: &Identity) -> How {
        match (identity, &self.settings.credential) {
            (Identity::Federated { .. }, _) => How::Federated,
            (_, Some(Credential::ManagedIdentity { .. })) => How::ManagedIdentity,
            (_, Some(Credential::DeveloperTools)) => How::DeveloperTools,
            (_, Some(Credential::WorkloadIdentity { .. })) => How::WorkloadIdentity,
            (_, Some(Credential::ClientSecret { .. }) | None) => How::ClientSecret,
        }
    }

    fn own_credential(
        &self,
        tenant: Option<&str>,
        cloud: Cloud,
        host: &Arc<dyn Host>,
        key: &str,
    ) -> Result<Credentials, BackendError> {
        let shown = Arc::new(Confided::default());
        let sdks: Arc<dyn TokenCredential> = match self.settings.credential.as_ref() {
            Some(Credential::ClientSecret {
                tenant_id,
                client_id,
                secret,
            }) => {
                let secret = secret.read(&format!(
                    "signing in by the application's client secret for {key}"
                ))?;
                let text = std::str::from_utf8(secret.as_slice()).map_err(|_| {
                    BackendError::new(
                        ErrorCode::InvalidConfig,
                        "the client secret that the backend's settings name is not text",
                    )
                })?;
                let options = ClientSecretCredentialOptions {
                    client_options: self.client_options(Towards::SignIn, cloud)?,
                };
                let tenant = tenant.unwrap_or(tenant_id);
                let sent = Secret::new(text.to_owned());
                shown.note(PROOF, secret.as_slice());
                ClientSecretCredential::new(tenant, client_id.clone(), sent, Some(options))
                    .map_err(|error| not_made(&error))?
            }
            Some(Credential::WorkloadIdentity {
                tenant_id,
                client_id,
                token_file,
            }) => {
                let token = IdentityToken::File {
                    path: token_file.clone(),
                };
                let tenant = tenant.unwrap_or(tenant_id);
                return self.federated(tenant, client_id, &token, cloud, host, key);
            }
            Some(Credential::ManagedIdentity { client_id }) => {
                let options = ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                    client_options: self.client_options(Towards::Platform, cloud)?,
                };
                ManagedIdentityCredential::new(Some(options)).map_err(|error| not_made(&error))?
            }
            Some(Credential::DeveloperTools) => {
                DeveloperToolsCredential::new(None).map_err(|error| not_made(&error))?
            }
            None => {
                return Err(BackendError::new(
                    ErrorCode::Internal,
                    "the key was opened without a credential; please report this",
                ));
            }
        };
        Ok(Credentials { sdks, shown })
    }

    fn federated(
        &self,
        tenant_id: &str,
        client_id: &str,
        token: &IdentityToken,
        cloud: Cloud,
        host: &Arc<dyn Host>,
        key: &str,
    ) -> Result<Credentials, BackendError> {
        let shown = Arc::new(Confided::default());
        let assertion = Assertion {
            token: token.clone(),
            host: Arc::clone(host),
            key: key.into(),
            shown: Arc::clone(&shown),
        };
        let options = ClientAssertionCredentialOptions {
            client_options: self.client_options(Towards::SignIn, cloud)?,
        };
        let sdks =
            ClientAssertionCredential::new(tenant_id.into(), client_id.into(), assertion, Some(options))
                .map_err(|error| not_made(&error))?;
        Ok(Credentials { sdks, shown })
    }
}

/// Everything that a credential is made of was checked before, but for the platform's environment.
fn not_made(error: &azure_core::Error) -> BackendError {
    BackendError::new(
        ErrorCode::InvalidConfig,
        format!(
            "the credential of the backend's settings cannot be used: {}",
            words(&error.to_string())
        ),
    )
}

/// Gets a fresh identity token each time that Entra ID is asked for an access token.
struct Assertion {
    token: IdentityToken,
    host: Arc<dyn Host>,
    key: String,
    shown: Arc<Confided>,
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion").finish_non_exhaustive()
    }
}

#[async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _options: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let failed = |error: BackendError| azure_core::Error::new(ErrorKind::Credential, error);
        let token = self.token.get(&self.host, &self.key).await.map_err(failed)?;
        let what = format!("signing in by workload identity federation for {}", self.key);
        let text = token_text(&what, token.as_slice())
            .map(str::to_owned)
            .map_err(failed)?;
        self.shown.note(PROOF, token.as_slice());
        Ok(text)
    }
}

/// The accounts in use. One that no instance uses any more goes away.
#[derive(Default)]
pub(crate) struct Accounts(Mutex<Vec<Weak<Account>>>);

impl Accounts {
    /// The account with these settings: an application has few.
    pub(crate) fn get(&self, settings: Settings) -> Arc<Account> {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.retain(|account| account.strong_count() > 0);
        let mut known = accounts.iter().filter_map(Weak::upgrade);
        if let Some(account) = known.find(|account| account.settings == settings) {
            return account;
        }
        drop(known);
        let account = Arc::new(Account::new(settings));
        accounts.push(Arc::downgrade(&account));
        account
    }
}
