//! Whose credentials a call is signed with: the application's own, or a session of the role that the config names.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use aws_sdk_kms::config::Credentials;
use aws_sdk_sts::config::Builder as StsConfig;
use keystead_backend::{BackendError, ErrorCode, Host, LockedBytes};

use crate::account::{Account, is_fresh};
use crate::config::{Proof, Role};
use crate::failure::Doing;

/// The longest token that STS takes, in bytes.
const TOKEN_MAX_BYTES: usize = 20_000;

/// Gives out credentials for one registered key and keeps them until shortly before they expire.
pub(crate) struct Session {
    account: Arc<Account>,
    host: Arc<dyn Host>,
    key: String,
    role: Option<Role>,
    /// Held while a new session is asked for: many calls at once ask STS once.
    cached: tokio::sync::Mutex<Option<Credentials>>,
}

impl Session {
    pub(crate) fn new(account: Arc<Account>, host: Arc<dyn Host>, key: &str, role: Option<Role>) -> Self {
        Self {
            account,
            host,
            key: key.into(),
            role,
            cached: tokio::sync::Mutex::new(None),
        }
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
            return Ok(Signer {
                credentials: credentials.clone(),
                used_before: true,
            });
        }
        let credentials = match &role.proof {
            Proof::Base { external_id } => self.assume(role, external_id.as_deref()).await?,
            Proof::MintedToken { audience } => {
                let token = self.minted_token(audience).await?;
                self.assume_with_token(role, &token).await?
            }
            Proof::TokenFile => {
                let token = self.token_from_file().await?;
                self.assume_with_token(role, &token).await?
            }
        };
        *cached = Some(credentials.clone());
        Ok(Signer {
            credentials,
            used_before: false,
        })
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
        Ok(Signer {
            credentials,
            used_before,
        })
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
        let token = token_text(doing, token.as_slice())?;
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
            .map_err(|error| without(doing.sdk_failed(&error), token))?;
        issued(doing, answer.credentials)
    }

    /// Asks the application for a token, on a thread that may block.
    async fn minted_token(&self, audience: &str) -> Result<LockedBytes, BackendError> {
        let (host, wanted) = (Arc::clone(&self.host), audience.to_owned());
        let minted = tokio::task::spawn_blocking(move || host.identity_token(&wanted)).await;
        let what = format!(
            "asking the application for a token with the audience {}",
            crate::arn::quote(audience)
        );
        match minted {
            Ok(Ok(token)) => Ok(token),
            Ok(Err(error)) if error.code == ErrorCode::Unsupported => Err(BackendError::new(
                ErrorCode::InvalidConfig,
                format!(
                    "{what}: it mints none; take web_identity out of the config of {}, or give the application an issuer ({})",
                    self.key, error.message
                ),
            )),
            Ok(Err(mut error)) => {
                error.message = format!("{what}: {}", error.message);
                Err(error)
            }
            Err(_) => Err(BackendError::new(
                ErrorCode::Internal,
                format!("{what}: it panicked"),
            )),
        }
    }

    /// Reads the token file, anew each time: whoever keeps it there replaces it before it expires.
    async fn token_from_file(&self) -> Result<LockedBytes, BackendError> {
        let Some(path) = self.account.settings().token_file.clone() else {
            return Err(BackendError::new(
                ErrorCode::InvalidConfig,
                "token_file is missing in the backend's settings",
            ));
        };
        let said = format!("reading the token file {} for {}", path.display(), self.key);
        let read = tokio::task::spawn_blocking(move || read_token(&path)).await;
        match read {
            Ok(Ok(token)) => Ok(token),
            Ok(Err(error)) => Err(BackendError::new(
                ErrorCode::Unavailable,
                format!(
                    "{said}: {error}; put a fresh token there, or correct token_file in the backend's settings"
                ),
            )),
            Err(_) => Err(BackendError::new(
                ErrorCode::Internal,
                format!("{said}: the reader broke off"),
            )),
        }
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

fn read_token(path: &Path) -> std::io::Result<LockedBytes> {
    let mut file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    // One byte more than STS takes, so that a longer file is seen to be longer.
    let mut length = 0;
    let whole = LockedBytes::fill_with(TOKEN_MAX_BYTES + 1, |buffer| {
        while length < buffer.len() {
            match file.read(&mut buffer[length..])? {
                0 => break,
                read => length += read,
            }
        }
        Ok::<_, std::io::Error>(())
    })?;
    Ok(LockedBytes::copy_from(whole.as_slice()[..length].trim_ascii()))
}

/// The token as STS takes it; what cannot be one is not sent.
fn token_text<'a>(doing: Doing<'_>, token: &'a [u8]) -> Result<&'a str, BackendError> {
    let wrong = |what: &str| {
        Err(BackendError::new(
            ErrorCode::Unauthenticated,
            format!(
                "{}: the identity token {what}; it must be a signed OpenID Connect token",
                doing.what()
            ),
        ))
    };
    match std::str::from_utf8(token) {
        Ok("") => wrong("is empty"),
        Ok(text) if text.len() > TOKEN_MAX_BYTES => wrong("is longer than the 20000 bytes that STS takes"),
        Ok(text) if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(text),
        _ => wrong("has characters that no token has"),
    }
}

/// An error that does not repeat the token, should the server have done so.
fn without(mut error: BackendError, token: &str) -> BackendError {
    let repeated = token
        .split('.')
        .filter(|part| part.len() >= 8)
        .any(|part| error.message.contains(part));
    if repeated {
        error.message = "STS refused the identity token, with words that repeat it and are left out here; check the token's issuer, audience, subject and lifetime".into();
    }
    error
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

#[cfg(test)]
mod tests {
    use super::*;

    const DOING: Doing<'_> = Doing::WebIdentity {
        key: "arn:key",
        role: "arn:role",
    };

    #[test]
    fn what_cannot_be_a_token_is_not_sent() {
        assert_eq!(token_text(DOING, b"eyJh.eyJz.c2ln").unwrap(), "eyJh.eyJz.c2ln");
        for token in [
            &b""[..],
            b"a b",
            b"a\nb",
            b"\xff\xfe",
            &[b'a'; TOKEN_MAX_BYTES + 1],
        ] {
            let error = token_text(DOING, token).unwrap_err();
            assert_eq!(error.code, ErrorCode::Unauthenticated);
            assert!(error.message.contains("identity token"), "{error}");
        }
    }

    #[test]
    fn an_error_that_repeats_the_token_loses_its_words() {
        let error = |message: &str| BackendError::new(ErrorCode::Unauthenticated, message);
        let token = "eyJhbGciOi.eyJzdWIiOiJ.c2lnbmF0dXJl";
        assert_eq!(without(error("token expired"), token).message, "token expired");
        for message in [
            format!("bad token {token}"),
            "claims eyJzdWIiOiJ are wrong".to_owned(),
        ] {
            assert!(!without(error(&message), token).message.contains("eyJzdWIiOiJ"));
        }
    }

    #[test]
    fn a_token_file_is_read_whole_and_trimmed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "  abc.def.ghi\n").unwrap();
        assert_eq!(read_token(&path).unwrap().as_slice(), b"abc.def.ghi");
        std::fs::write(&path, vec![b'x'; 50_000]).unwrap();
        assert!(token_text(DOING, read_token(&path).unwrap().as_slice()).is_err());
        assert!(read_token(directory.path()).is_err());
        assert!(read_token(&directory.path().join("none")).is_err());
    }
}
