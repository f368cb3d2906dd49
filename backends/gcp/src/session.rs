//! Who asks: the application itself, or the identity that the key's config federates to.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use google_cloud_auth::credentials::external_account::ProgrammaticBuilder;
use google_cloud_auth::credentials::subject_token::{
    Builder as SubjectTokenBuilder, SubjectToken, SubjectTokenProvider,
};
use google_cloud_auth::errors::SubjectTokenProviderError;
use google_cloud_gax::error::CredentialsError;
use google_cloud_gax::retry_policy::{Aip194Strict, RetryPolicyExt};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use keystead_backend::{BackendError, ErrorCode, Host, LockedBytes};
use keystead_backend_common::{Confided, token_text, without_token};
use tokio::time::Instant;

use crate::account::{Account, use_ring};
use crate::config::Federation;
use crate::failure::Doing;
use crate::held::{Held, NoProof};

/// What an OpenID Connect token is called in an exchange.
const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";

/// Credentials of a key that no call used for so long are not renewed.
const IDLE_AFTER: Duration = Duration::from_secs(10 * 60);

/// Gives out proofs of identity for one registered key.
pub(crate) struct Session {
    account: Arc<Account>,
    key: String,
    federated: Option<Federated>,
    /// The access tokens that KMS was shown.
    given: Confided,
}

struct Federated {
    source: Arc<Source>,
    /// Held while new credentials are made: many calls at once exchange one token.
    current: tokio::sync::Mutex<Option<Arc<Held>>>,
}

/// What one attempt proves itself with.
pub(crate) struct Signer {
    held: Arc<Held>,
    pub(crate) proof: HeaderMap,
    used_before: bool,
}

impl Session {
    pub(crate) fn new(
        account: Arc<Account>,
        host: Arc<dyn Host>,
        key: &str,
        federation: Option<Federation>,
    ) -> Self {
        let federated = federation.map(|federation| Federated {
            source: Arc::new(Source {
                host,
                key: key.into(),
                federation,
                wanted: Mutex::new(None),
                shown: Mutex::new(None),
            }),
            current: tokio::sync::Mutex::new(None),
        });
        Self {
            account,
            key: key.into(),
            federated,
            given: Confided::default(),
        }
    }

    /// The same error without any access token, should KMS have repeated it.
    pub(crate) fn without_tokens(&self, error: BackendError, doing: &str) -> BackendError {
        self.given.without(error, doing)
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// A proof for the next call.
    pub(crate) async fn signer(&self) -> Result<Signer, BackendError> {
        let settings = self.account.settings();
        let patience = settings.attempt_timeout * settings.max_attempts;
        loop {
            let (held, used_before) = self.current().await?;
            let error = match held.proof(patience).await {
                Ok(proof) => {
                    self.note(&proof);
                    return Ok(Signer {
                        held,
                        proof,
                        used_before,
                    });
                }
                Err(NoProof::Late) => self.doing().unproven_in_time(),
                Err(NoProof::Failed(error)) => held.shown.without(self.explain(&error), &self.doing().what()),
            };
            self.discard(&held).await;
            // Kept ones may have failed long ago, or have gone idle.
            if !used_before {
                return Err(error);
            }
        }
    }

    /// After a call that failed with `error`: a proof for a second attempt if Google did not accept an old one, else the
    /// error again.
    ///
    /// Refused credentials are forgotten in any case: the next call proves itself anew.
    pub(crate) async fn next_signer(
        &self,
        refused: Signer,
        error: BackendError,
    ) -> Result<Signer, BackendError> {
        if !matches!(error.code, ErrorCode::Unauthenticated | ErrorCode::AccessDenied) {
            return Err(error);
        }
        self.discard(&refused.held).await;
        if refused.used_before && error.code == ErrorCode::Unauthenticated {
            // The last attempt, even if another call renewed the credentials meanwhile.
            let signer = self.signer().await?;
            Ok(Signer {
                used_before: false,
                ..signer
            })
        } else {
            Err(error)
        }
    }

    async fn current(&self) -> Result<(Arc<Held>, bool), BackendError> {
        let Some(federated) = &self.federated else {
            return self.account.own(self.doing()).await;
        };
        federated.source.want();
        let mut current = federated.current.lock().await;
        if let Some(held) = current.as_ref().filter(|held| !held.is_abandoned()) {
            return Ok((Arc::clone(held), true));
        }
        use_ring();
        let settings = self.account.settings();
        let mut builder = ProgrammaticBuilder::new(Arc::clone(&federated.source) as _)
            .with_audience(format!(
                "//iam.googleapis.com/{}",
                federated.source.federation.provider
            ))
            .with_subject_token_type(TOKEN_TYPE)
            .with_retry_policy(Aip194Strict.with_attempt_limit(settings.max_attempts));
        if let Some(url) = &settings.sts_token_url {
            builder = builder.with_token_url(url);
        }
        let credentials = builder.build().map_err(|error| {
            self.doing().failed(
                ErrorCode::Internal,
                format!("the exchange could not be set up ({error})"),
            )
        })?;
        let held = Arc::new(Held::new(credentials, Confided::default()));
        *current = Some(Arc::clone(&held));
        Ok((held, false))
    }

    async fn discard(&self, refused: &Arc<Held>) {
        let Some(federated) = &self.federated else {
            return self.account.discard(refused).await;
        };
        let mut current = federated.current.lock().await;
        if current.as_ref().is_some_and(|held| Arc::ptr_eq(held, refused)) {
            *current = None;
        }
    }

    fn note(&self, proof: &HeaderMap) {
        for value in proof.get_all(AUTHORIZATION) {
            let value = value.as_bytes();
            self.given.note(
                "the access token",
                value.strip_prefix(b"Bearer ").unwrap_or(value),
            );
        }
    }

    fn doing(&self) -> Doing<'_> {
        match &self.federated {
            Some(federated) => Doing::Exchange {
                key: &self.key,
                provider: &federated.source.federation.provider,
            },
            None => Doing::Credentials { key: &self.key },
        }
    }

    fn explain(&self, error: &CredentialsError) -> BackendError {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(cause) = next {
            if let Some(NoToken(error)) = cause.downcast_ref() {
                return error.clone();
            }
            next = cause.source();
        }
        let explained = self.doing().unproven(error);
        match &self.federated {
            Some(federated) => federated.source.without_shown(explained),
            None => explained,
        }
    }
}

/// Where the tokens come from that are exchanged.
struct Source {
    host: Arc<dyn Host>,
    key: String,
    federation: Federation,
    /// When a call last wanted credentials. The client library renews them for ever; a key that nobody uses must not make
    /// the application mint tokens.
    wanted: Mutex<Option<Instant>>,
    /// The latest token, so that no error repeats it.
    shown: Mutex<Option<LockedBytes>>,
}

impl Source {
    async fn token(&self) -> Result<SubjectToken, BackendError> {
        let doing = Doing::Exchange {
            key: &self.key,
            provider: &self.federation.provider,
        };
        if self.is_idle(Instant::now()) {
            return Err(doing.failed(
                ErrorCode::Unavailable,
                "the key was not in use, and its credentials were not renewed",
            ));
        }
        let token = self.federation.token.get(&self.host, &self.key).await?;
        let made = SubjectTokenBuilder::new(token_text(&doing.what(), token.as_slice())?).build();
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(made)
    }

    fn want(&self) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_idle(&self, now: Instant) -> bool {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.is_none_or(|wanted| now.duration_since(wanted) > IDLE_AFTER)
    }

    fn without_shown(&self, error: BackendError) -> BackendError {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match shown
            .as_ref()
            .and_then(|token| std::str::from_utf8(token.as_slice()).ok())
        {
            Some(token) => without_token(error, token),
            None => error,
        }
    }
}

impl SubjectTokenProvider for Source {
    type Error = NoToken;

    async fn subject_token(&self) -> Result<SubjectToken, NoToken> {
        self.token().await.map_err(NoToken)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("federation", &self.federation)
            .finish_non_exhaustive()
    }
}

/// Why there is no token to exchange, on its way through the client library.
#[derive(Debug)]
struct NoToken(BackendError);

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for NoToken {}

impl SubjectTokenProviderError for NoToken {
    /// Never: the credentials end with it, and the next call begins anew.
    fn is_transient(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_backend::LogLevel;
    use keystead_backend_common::IdentityToken;

    struct Minting;

    impl Host for Minting {
        fn log(&self, _level: LogLevel, _message: &str) {}

        fn random(&self, _out: &mut [u8]) -> Result<(), BackendError> {
            Err(BackendError::new(ErrorCode::Unsupported, "not needed"))
        }

        fn identity_token(&self, _audience: &str) -> Result<LockedBytes, BackendError> {
            Ok(LockedBytes::copy_from(b"eyJh.eyJz.c2ln"))
        }
    }

    #[test]
    fn the_application_is_asked_for_tokens_of_keys_in_use_alone() {
        let source = Source {
            host: Arc::new(Minting),
            key: "projects/p/locations/global/keyRings/r/cryptoKeys/k".into(),
            federation: Federation {
                provider: "projects/1/locations/global/workloadIdentityPools/a/providers/b".into(),
                token: IdentityToken::Minted {
                    audience: "gcp:acme".into(),
                },
            },
            wanted: Mutex::new(None),
            shown: Mutex::new(None),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let error = runtime.block_on(source.token()).unwrap_err();
        assert!(error.message.contains("not in use"), "{error}");
        source.want();
        // As often as an exchange needs it.
        runtime.block_on(source.token()).unwrap();
        runtime.block_on(source.token()).unwrap();
        let now = Instant::now();
        assert!(!source.is_idle(now) && source.is_idle(now + IDLE_AFTER + Duration::from_secs(1)));
    }
}
