//! By which token a call is made: one that was logged in for, or one of a file; renewed in time, got anew when it is refused.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use keystead_backend::{BackendError, ErrorClass, ErrorCode, Host};
use keystead_backend_common::{
    IdentityToken, Remaining, SecretSource, token_text, without_secret, without_token,
};
use serde::Deserialize;
use serde_json::json;
use zeroize::{Zeroize, Zeroizing};

use crate::failure::Doing;
use crate::http::{Client, Request};
use crate::path::KeyPath;

/// The longest token that is sent, in bytes. Batch tokens are the longest, some hundreds.
const TOKEN_MAX_BYTES: usize = 8192;

/// How often a call that waits for another one's login looks whether that is done.
const POLL: Duration = Duration::from_millis(5);

/// Where tokens come from.
pub(crate) enum Login {
    /// A role of a JWT method.
    Role {
        role: String,
        mount: String,
        namespace: Option<String>,
        token: IdentityToken,
    },
    AppRole {
        role_id: String,
        secret_id: SecretSource,
        mount: String,
        namespace: Option<String>,
    },
    /// A token in a file, which somebody else keeps there.
    File { path: PathBuf },
}

/// Gives out tokens for one identity, and keeps the latest.
pub(crate) struct Session {
    login: Login,
    /// Held while a token is got: many calls at once log in once.
    cached: Mutex<Option<Token>>,
}

/// What a call brings along for getting a token.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) client: &'a Client,
    pub(crate) host: &'a Arc<dyn Host>,
    pub(crate) key: &'a KeyPath,
    pub(crate) remaining: &'a Remaining,
}

/// A token for one attempt.
pub(crate) struct Used {
    pub(crate) text: Zeroizing<String>,
    used_before: bool,
}

struct Token {
    text: Zeroizing<String>,
    /// `None` when it does not end, or nothing is known of it.
    lease: Option<Lease>,
}

struct Lease {
    since: Instant,
    lasts: Duration,
    /// What it lasted at first: a renewal that brings much less says that the end is near.
    lasted_at_first: Duration,
    renewable: bool,
}

/// What the server says about a token that it gives out or renews.
#[derive(Deserialize)]
struct Auth {
    client_token: String,
    lease_duration: u64,
    renewable: bool,
}

#[derive(Deserialize)]
struct AuthAnswer {
    auth: Auth,
}

impl Session {
    pub(crate) fn new(login: Login) -> Self {
        Self {
            login,
            cached: Mutex::new(None),
        }
    }

    /// A token for the next attempt.
    pub(crate) fn token(&self, asker: Asker<'_>) -> Result<Used, BackendError> {
        let mut cached = self.lock(asker)?;
        if let Login::File { path } = &self.login {
            let text = read_token(path, asker.key)?;
            if cached.as_ref().is_none_or(|known| *known.text != *text) {
                *cached = Some(self.look_up(asker, text)?);
                return Ok(Used::of(cached.as_ref(), false));
            }
        }
        match cached.as_mut() {
            Some(token) if !token.is_worn() => Ok(Used::of(cached.as_ref(), true)),
            Some(token) => {
                let ends = token.is_over();
                match self.replace(asker, token) {
                    Ok(fresh) => *token = fresh,
                    // The old one is good for a while, and so is the hope that the server gets well.
                    Err(error) if !ends && error.code.class() == ErrorClass::Retryable => {}
                    Err(error) => {
                        *cached = None;
                        return Err(error);
                    }
                }
                Ok(Used::of(cached.as_ref(), true))
            }
            None => {
                *cached = Some(self.log_in(asker)?);
                Ok(Used::of(cached.as_ref(), false))
            }
        }
    }

    /// After an attempt that failed with `error`: a token for a second attempt if an old one was not accepted, else the
    /// error again. A refused token is forgotten in any case: what a role may do is decided when it is logged in to.
    pub(crate) fn next_token(
        &self,
        asker: Asker<'_>,
        refused: Used,
        error: BackendError,
    ) -> Result<Used, BackendError> {
        if !matches!(error.code, ErrorCode::Unauthenticated | ErrorCode::AccessDenied) {
            return Err(error);
        }
        {
            let mut cached = self.lock(asker)?;
            if cached.as_ref().is_some_and(|token| *token.text == *refused.text) {
                *cached = None;
            }
        }
        if !refused.used_before || error.code != ErrorCode::Unauthenticated {
            return Err(error);
        }
        let next = self.token(asker)?;
        if *next.text == *refused.text {
            return Err(error);
        }
        // After this one there is no other, even if another call got it before.
        Ok(Used {
            used_before: false,
            ..next
        })
    }

    /// Waits for whoever is getting a token, as long as the call has time.
    fn lock(&self, asker: Asker<'_>) -> Result<MutexGuard<'_, Option<Token>>, BackendError> {
        loop {
            match self.cached.try_lock() {
                Ok(cached) => return Ok(cached),
                Err(TryLockError::Poisoned(poisoned)) => {
                    let mut cached = poisoned.into_inner();
                    *cached = None;
                    self.cached.clear_poison();
                    return Ok(cached);
                }
                Err(TryLockError::WouldBlock) if asker.remaining.sleep(POLL) => {}
                Err(TryLockError::WouldBlock) => {
                    let doing = Doing::LogIn {
                        key: asker.key,
                        how: &self.how(),
                    };
                    return Err(doing.failed(ErrorCode::Timeout, "another call's login is not done in time"));
                }
            }
        }
    }

    fn how(&self) -> String {
        match &self.login {
            Login::Role { role, mount, .. } => format!("to the role {role} at {mount}"),
            Login::AppRole { role_id, mount, .. } => format!("as the AppRole {role_id} at {mount}"),
            Login::File { path } => format!("with the token in {}", path.display()),
        }
    }

    /// Makes a worn token good for longer, or gets another one.
    fn replace(&self, asker: Asker<'_>, worn: &Token) -> Result<Token, BackendError> {
        if worn.lease.as_ref().is_some_and(|lease| lease.renewable) && !worn.is_over() {
            match self.renew(asker, worn) {
                Ok(renewed) if !renewed.is_nearly_over() => return Ok(renewed),
                // The server lets no token live longer than its max_ttl.
                Ok(renewed) if matches!(self.login, Login::File { .. }) => return Ok(renewed),
                Ok(_) => {}
                Err(error) if error.code.class() == ErrorClass::Retryable => return Err(error),
                Err(_) => {}
            }
        }
        match &self.login {
            // Whether it is still good only the server can say.
            Login::File { .. } => Ok(Token {
                text: worn.text.clone(),
                lease: None,
            }),
            _ => self.log_in(asker),
        }
    }

    fn renew(&self, asker: Asker<'_>, token: &Token) -> Result<Token, BackendError> {
        let doing = Doing::Renew { key: asker.key };
        let request = Request {
            path: "auth/token/renew-self".into(),
            namespace: self.namespace(asker),
            token: Some(&token.text),
            body: Some(b"{}"),
        };
        let answer = asker
            .client
            .ask(asker.remaining, asker.host, doing, &request)
            .map_err(|error| without_secret(error, &doing.what(), token.text.as_bytes(), "the token"))?;
        let AuthAnswer { mut auth } = answer.json(doing)?;
        auth.client_token.zeroize();
        let at_first = token.lease.as_ref().map(|lease| lease.lasted_at_first);
        Ok(Token {
            text: token.text.clone(),
            lease: Lease::of(auth.lease_duration, auth.renewable, at_first),
        })
    }

    /// Asks how long a token of a file lasts. Most policies allow that; where they do not, it is used until it is refused.
    fn look_up(&self, asker: Asker<'_>, text: Zeroizing<String>) -> Result<Token, BackendError> {
        #[derive(Deserialize)]
        struct Found {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            ttl: u64,
            #[serde(default)]
            renewable: bool,
        }
        let doing = Doing::Renew { key: asker.key };
        let request = Request {
            path: "auth/token/lookup-self".into(),
            namespace: self.namespace(asker),
            token: Some(&text),
            body: None,
        };
        let lease = match asker.client.ask(asker.remaining, asker.host, doing, &request) {
            Ok(answer) => {
                let found: Found = answer.json(doing)?;
                Lease::of(found.data.ttl, found.data.renewable, None)
            }
            Err(error) if error.code.class() == ErrorClass::Retryable => {
                return Err(without_secret(error, &doing.what(), text.as_bytes(), "the token"));
            }
            Err(_) => None,
        };
        Ok(Token { text, lease })
    }

    fn log_in(&self, asker: Asker<'_>) -> Result<Token, BackendError> {
        let how = self.how();
        let doing = Doing::LogIn {
            key: asker.key,
            how: &how,
        };
        match &self.login {
            Login::Role {
                role, mount, token, ..
            } => {
                let token = token.get_blocking(asker.host, &asker.key.to_string())?;
                let jwt = token_text(&doing.what(), token.as_slice())?;
                let body = Zeroizing::new(json!({ "role": role, "jwt": jwt }).to_string());
                self.exchange(asker, doing, mount, &body)
                    .map_err(|error| without_token(error, jwt))
            }
            Login::AppRole {
                role_id,
                secret_id,
                mount,
                ..
            } => {
                let secret = secret_id.read(&doing.what())?;
                let secret = std::str::from_utf8(secret.as_slice()).map_err(|_| {
                    doing.failed(
                        ErrorCode::Unauthenticated,
                        format!("the secret id ({}) is not text", secret_id.field()),
                    )
                })?;
                let body = Zeroizing::new(json!({ "role_id": role_id, "secret_id": secret }).to_string());
                self.exchange(asker, doing, mount, &body)
                    .map_err(|error| without_secret(error, &doing.what(), secret.as_bytes(), "the secret id"))
            }
            Login::File { path } => {
                let text = read_token(path, asker.key)?;
                self.look_up(asker, text)
            }
        }
    }

    fn exchange(
        &self,
        asker: Asker<'_>,
        doing: Doing<'_>,
        mount: &str,
        body: &str,
    ) -> Result<Token, BackendError> {
        let request = Request {
            path: format!("auth/{mount}/login"),
            namespace: self.namespace(asker),
            token: None,
            body: Some(body.as_bytes()),
        };
        let answer = asker.client.ask(asker.remaining, asker.host, doing, &request)?;
        let AuthAnswer { auth } = answer.json(doing)?;
        let text = Zeroizing::new(auth.client_token);
        if !is_token(&text) {
            return Err(doing.garbled("its token has characters that no token has"));
        }
        Ok(Token {
            text,
            lease: Lease::of(auth.lease_duration, auth.renewable, None),
        })
    }

    /// Where the token is at home.
    fn namespace<'a>(&'a self, asker: Asker<'a>) -> Option<&'a str> {
        match &self.login {
            Login::Role { namespace, .. } | Login::AppRole { namespace, .. } => namespace.as_deref(),
            Login::File { .. } => asker.key.namespace.as_deref(),
        }
    }
}

impl Used {
    fn of(token: Option<&Token>, used_before: bool) -> Self {
        Self {
            text: token.map(|token| token.text.clone()).unwrap_or_default(),
            used_before,
        }
    }
}

impl Token {
    /// Two thirds of its life are over.
    fn is_worn(&self) -> bool {
        self.lease
            .as_ref()
            .is_some_and(|lease| lease.age() >= lease.lasts * 2 / 3)
    }

    fn is_over(&self) -> bool {
        self.lease
            .as_ref()
            .is_some_and(|lease| lease.age() >= lease.lasts)
    }

    /// A renewal brought less than half of what it brought at first.
    fn is_nearly_over(&self) -> bool {
        self.lease
            .as_ref()
            .is_some_and(|lease| lease.lasts < lease.lasted_at_first / 2)
    }
}

impl Lease {
    /// A lease of so many seconds from now on; 0 is one that does not end.
    #[allow(
        clippy::disallowed_methods,
        reason = "how long a token lasts is real time; it decides nothing else"
    )]
    fn of(seconds: u64, renewable: bool, lasted_at_first: Option<Duration>) -> Option<Self> {
        // So that no sum overflows; a token that lasts a year needs no renewal here.
        let lasts = Duration::from_secs(seconds.min(365 * 24 * 60 * 60));
        (seconds > 0).then(|| Self {
            since: Instant::now(),
            lasts,
            lasted_at_first: lasted_at_first.unwrap_or(lasts),
            renewable,
        })
    }

    fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

fn read_token(path: &PathBuf, key: &KeyPath) -> Result<Zeroizing<String>, BackendError> {
    let wrong = |what: &str| {
        BackendError::new(
            ErrorCode::Unavailable,
            format!(
                "reading the token for {key} in {}: {what}; put a token there, or correct vault_token_file in the backend's settings",
                path.display()
            ),
        )
    };
    let length = fs::metadata(path)
        .map_err(|error| wrong(&error.to_string()))?
        .len();
    if length > TOKEN_MAX_BYTES as u64 {
        return Err(wrong("the file is longer than any token"));
    }
    let text = fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| wrong(&error.to_string()))?;
    let text = Zeroizing::new(text.trim().to_owned());
    if is_token(&text) {
        Ok(text)
    } else {
        Err(wrong("what is in it is no token"))
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= TOKEN_MAX_BYTES && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_worn_after_two_thirds_and_nearly_over_when_a_renewal_brings_little() {
        let token = |lease| Token {
            text: Zeroizing::new("t".into()),
            lease,
        };
        let fresh = token(Lease::of(3600, true, None));
        assert!(!fresh.is_worn() && !fresh.is_over() && !fresh.is_nearly_over());
        let aged = |seconds| {
            let mut lease = Lease::of(3600, true, None).unwrap();
            lease.since -= Duration::from_secs(seconds);
            token(Some(lease))
        };
        assert!(!aged(2399).is_worn());
        assert!(aged(2400).is_worn() && !aged(2400).is_over());
        assert!(aged(3600).is_over());
        let hour = Some(Duration::from_secs(3600));
        assert!(!token(Lease::of(1800, true, hour)).is_nearly_over());
        assert!(token(Lease::of(1799, true, hour)).is_nearly_over());
        assert!(!token(Lease::of(0, false, None)).is_worn());
    }

    #[test]
    fn what_cannot_be_a_token_is_not_sent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let key = KeyPath {
            namespace: None,
            mount: "transit".into(),
            name: "acme".into(),
        };
        std::fs::write(&path, "s.abc\n").unwrap();
        assert_eq!(*read_token(&path, &key).unwrap(), "s.abc");
        for text in ["", "a b", "a\u{1}b", "ä", &"x".repeat(8193)] {
            std::fs::write(&path, text).unwrap();
            let error = read_token(&path, &key).unwrap_err();
            assert!(error.message.contains("vault_token_file"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(read_token(&path, &key).is_err());
    }
}
