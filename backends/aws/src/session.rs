//! Whose credentials a call is signed with: the application's own, or a session of the role that the config names.

use std::sync::Arc;
use std::time::SystemTime;

use aws_sdk_kms::config::Credentials;
use aws_sdk_sts::config::Builder as StsConfig;
use keystead_backend::{BackendError, ErrorCode, Host, LockedBytes};
use keystead_backend_common::{Confided, token_text, without_token};

use crate::account::{Account, is_fresh};
use crate::config::{Proof, Role};
use crate::failure::Doing;

/// Gives out credentials for one registered key and keeps them until shortly before they expire.
pub(crate) struct Session {
    account: Arc<Account>,
    host: Arc<dyn Host>,
    key: String,
    role: Option<Role>,
    /// Held while a new session is asked for: many calls at once ask STS once.
    cached: tokio::sync::Mutex<Option<Credentials>>,
    /// The session tokens that KMS and STS were shown. Secret access keys are never sent.
    given: Confided,
}

impl Session {
    pub(crate) fn new(account: Arc<Account>, host: Arc<dyn Host>, key: &str, role: Option<Role>) -> Self {
        Self {
            account,
            host,
            key: key.into(),
            role,
            cached: tokio::sync::Mutex::new(None),
            given: Confided::default(),
        }
    }

    /// The same error without any session token, should KMS or STS have repeated it.
    pub(crate) fn without_tokens(&self, error: BackendError, doing: &str) -> BackendError {
        self.given.without(error, doing)
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// Credentials for the next call.
    pub(crate) async fn signer(&self) -> Result<Signer, BackendError> {
        let Some(role) = &self.role else {
            return self.own_signer().await;
        };
        let mut cached = self.cached.lock().await;
        if let Some(credentials) = cached.as_ref().filter(|credentials| is_fresh(credentials)) {
            return Ok(self.signer_by(credentials.clone(), true));
        }
        let credentials = match &role.proof {
            Proof::Base { external_id } => self.assume(role, external_id.as_deref()).await?,
            Proof::Token(source) => {
                let token = source.get(&self.host, &self.key).await?;
                self.assume_with_token(role, &token).await?
            }
        };
        *cached = Some(credentials.clone());
        Ok(self.signer_by(credentials, false))
    }

    fn signer_by(&self, credentials: Credentials, used_before: bool) -> Signer {
        if let Some(token) = credentials.session_token() {
            self.given.note("the session token", token.as_bytes());
        }
        Signer {
            credentials,
            used_before,
        }
    }

    /// After a call that failed with `error`: credentials for a second attempt if AWS did not accept old ones, else
    /// the error again.
    ///
    /// Refused credentials are forgotten in any case: a session that was taken away answers with a denial, and the
    /// next call asks for a new one.
    pub(crate) async fn next_signer(
        &self,
        refused: Signer,
        error: BackendError,
    ) -> Result<Signer, BackendError> {
        if !may_be_the_signer(&error) {
            return Err(error);
        }
        if self.role.is_none() {
            return self.next_own_signer(refused, error).await;
        }
        {
            let mut cached = self.cached.lock().await;
            if cached.as_ref() == Some(&refused.credentials) {
                *cached = None;
            }
        }
        if refused.helps_to_renew(&error) {
            self.signer().await.map(Signer::last)
        } else {
            Err(error)
        }
    }

    async fn own_signer(&self) -> Result<Signer, BackendError> {
        let doing = Doing::Credentials { key: &self.key };
        let (credentials, used_before) = self.account.credentials(doing).await?;
        Ok(self.signer_by(credentials, used_before))
    }

    async fn next_own_signer(&self, refused: Signer, error: BackendError) -> Result<Signer, BackendError> {
        if !may_be_the_signer(&error) {
            return Err(error);
        }
        self.account.discard(&refused.credentials).await;
        if refused.helps_to_renew(&error) {
            self.own_signer().await.map(Signer::last)
        } else {
            Err(error)
        }
    }

    async fn assume(&self, role: &Role, external_id: Option<&str>) -> Result<Credentials, BackendError> {
        let doing = Doing::AssumeRole {
            key: &self.key,
            role: &role.arn,
        };
        let sts = &self.account.clients().await.sts;
        let mut signer = self.own_signer().await?;
        loop {
            let answer = sts
                .assume_role()
                .role_arn(&role.arn)
                .role_session_name(&role.session_name)
                .set_external_id(external_id.map(str::to_owned))
                .customize()
                .config_override(StsConfig::new().credentials_provider(signer.credentials.clone()))
                .send()
                .await;
            match answer {
                Ok(answer) => return issued(doing, answer.credentials),
                Err(error) => signer = self.next_own_signer(signer, doing.sdk_failed(&error)).await?,
            }
        }
    }

    async fn assume_with_token(&self, role: &Role, token: &LockedBytes) -> Result<Credentials, BackendError> {
        let doing = Doing::WebIdentity {
            key: &self.key,
            role: &role.arn,
        };
        let token = token_text(&doing.what(), token.as_slice())?;
        let answer = self
            .account
            .clients()
            .await
            .sts
            .assume_role_with_web_identity()
            .role_arn(&role.arn)
            .role_session_name(&role.session_name)
            .web_identity_token(token)
            .send()
            .await
            .map_err(|error| without_token(doing.sdk_failed(&error), token))?;
        issued(doing, answer.credentials)
    }
}

/// The credentials that one attempt is signed with.
pub(crate) struct Signer {
    pub(crate) credentials: Credentials,
    used_before: bool,
}

impl Signer {
    /// The same for an attempt after which there is no other, even if another call renewed the credentials meanwhile.
    fn last(self) -> Self {
        Self {
            used_before: false,
            ..self
        }
    }

    /// True when new credentials may succeed where these failed.
    fn helps_to_renew(&self, error: &BackendError) -> bool {
        self.used_before && error.code == ErrorCode::Unauthenticated
    }
}

fn may_be_the_signer(error: &BackendError) -> bool {
    matches!(error.code, ErrorCode::Unauthenticated | ErrorCode::AccessDenied)
}

fn issued(
    doing: Doing<'_>,
    answer: Option<aws_sdk_sts::types::Credentials>,
) -> Result<Credentials, BackendError> {
    let answer =
        answer.ok_or_else(|| doing.failed(ErrorCode::Unavailable, "STS answered without credentials"))?;
    let expiry = SystemTime::try_from(answer.expiration).map_err(|_| {
        doing.failed(
            ErrorCode::Unavailable,
            "STS answered with an expiry that is no date",
        )
    })?;
    Ok(Credentials::new(
        answer.access_key_id,
        answer.secret_access_key,
        Some(answer.session_token),
        Some(expiry),
        "keystead-role",
    ))
}
