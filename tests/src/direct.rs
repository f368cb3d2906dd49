//! A backend called directly, without a store around it: a host, a call, a context, a key to wrap, and short ways to open and call.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keystead_backend::{
    BackendError, Call, Context, ErrorCode, Host, KeyBackend, KeyInstance, LockedBytes, LogLevel,
    OpenRequest, Wrapped,
};
use serde_json::Value;

/// A key to wrap; the same in every test.
pub const KEY: [u8; 32] = *b"0123456789abcdef0123456789abcdef";

/// The context of [`context`].
pub const CONTEXT: [(&str, &str); 3] = [
    ("keystead:store", "00ff"),
    ("keystead:organization", "acme"),
    ("keystead:epoch", "1"),
];

type Mint = dyn Fn(&str) -> Option<String> + Send + Sync;
type Random = fn(&mut [u8]) -> Result<(), BackendError>;

/// An application that keeps what it was asked and told. It mints no tokens and has no random bytes, unless it is made so.
pub struct TestHost {
    mint: Mutex<Box<Mint>>,
    random: Random,
    audiences: Mutex<Vec<String>>,
    logged: Mutex<Vec<String>>,
}

impl Default for TestHost {
    fn default() -> Self {
        Self::by(|_| None)
    }
}

impl TestHost {
    fn by(mint: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self {
            mint: Mutex::new(Box::new(mint)),
            random: |_| {
                Err(BackendError::new(
                    ErrorCode::Unsupported,
                    "the backend needs no random bytes",
                ))
            },
            audiences: Mutex::default(),
            logged: Mutex::default(),
        }
    }

    /// One that mints this token for every audience.
    pub fn minting(token: impl Into<String>) -> Arc<Self> {
        let token = token.into();
        Self::minting_by(move |_| Some(token.clone()))
    }

    /// One that mints for an audience what this makes of it.
    pub fn minting_by(mint: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self::by(mint))
    }

    /// The same with these random bytes.
    #[must_use]
    pub fn with_random(mut self: Arc<Self>, random: Random) -> Arc<Self> {
        Arc::get_mut(&mut self).expect("nobody else has it yet").random = random;
        self
    }

    /// Mints this token from now on.
    pub fn mint_from_now_on(&self, token: impl Into<String>) {
        let token = token.into();
        *lock(&self.mint) = Box::new(move |_| Some(token.clone()));
    }

    /// The audiences for which it was asked for a token.
    pub fn audiences(&self) -> Vec<String> {
        lock(&self.audiences).clone()
    }

    /// How often it was asked for a token.
    pub fn asked(&self) -> usize {
        lock(&self.audiences).len()
    }

    /// What was logged.
    pub fn logged(&self) -> Vec<String> {
        lock(&self.logged).clone()
    }
}

impl fmt::Debug for TestHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestHost").finish_non_exhaustive()
    }
}

impl Host for TestHost {
    fn log(&self, _level: LogLevel, message: &str) {
        lock(&self.logged).push(message.to_owned());
    }

    fn random(&self, out: &mut [u8]) -> Result<(), BackendError> {
        (self.random)(out)
    }

    fn identity_token(&self, audience: &str) -> Result<LockedBytes, BackendError> {
        lock(&self.audiences).push(audience.to_owned());
        match (lock(&self.mint))(audience) {
            Some(token) => Ok(LockedBytes::copy_from(token.as_bytes())),
            None => Err(BackendError::new(
                ErrorCode::Unsupported,
                "this application is no issuer",
            )),
        }
    }
}

/// Random bytes for [`with_random`](TestHost::with_random) that are fit for tests: never the same twice.
///
/// # Errors
///
/// None.
pub fn never_twice(out: &mut [u8]) -> Result<(), BackendError> {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    out.fill(7);
    let length = out.len().min(count.len());
    out[..length].copy_from_slice(&count[..length]);
    Ok(())
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a key.
///
/// # Errors
///
/// What the backend says.
pub fn try_open(
    backend: &dyn KeyBackend,
    host: Arc<TestHost>,
    settings: &Value,
    config: &Value,
) -> Result<Box<dyn KeyInstance>, BackendError> {
    let (settings, config) = (settings.to_string(), config.to_string());
    backend.open(OpenRequest {
        settings: &settings,
        config: &config,
        host,
    })
}

/// Opens a key of this backend, which must succeed.
///
/// # Panics
///
/// When it does not.
#[track_caller]
pub fn open_with(
    backend: &dyn KeyBackend,
    host: Arc<TestHost>,
    settings: &Value,
    config: &Value,
) -> Box<dyn KeyInstance> {
    try_open(backend, host, settings, config)
        .unwrap_or_else(|error| panic!("{config} with {settings}: {error}"))
}

/// These settings, with 20 s in each of these fields that they leave out: a busy machine is no outage.
///
/// # Panics
///
/// When they are no object.
#[must_use]
pub fn patient(settings: &Value, timeouts: &[&str]) -> Value {
    let mut settings = settings.clone();
    let fields = settings.as_object_mut().expect("settings are an object");
    for timeout in timeouts {
        fields.entry(*timeout).or_insert_with(|| Value::from(20_000));
    }
    settings
}

/// A call with time enough for a slow machine.
#[must_use]
pub fn call() -> Call {
    Call::with_timeout(Duration::from_secs(30))
}

/// A context as the engine makes them.
#[must_use]
pub fn context() -> Context {
    Context::new(CONTEXT)
}

/// Wraps [`KEY`] under [`context`].
///
/// # Errors
///
/// What the backend says.
pub fn wrap(key: &dyn KeyInstance) -> Result<Wrapped, BackendError> {
    key.wrap(&call(), &context(), &KEY)
}

/// Unwraps under [`context`].
///
/// # Errors
///
/// What the backend says.
pub fn unwrap(key: &dyn KeyInstance, wrapped: &Wrapped) -> Result<Vec<u8>, BackendError> {
    key.unwrap(&call(), &context(), wrapped)
        .map(|plaintext| plaintext.as_slice().to_vec())
}

/// Asserts that a call failed so, that its message has these words, and nothing of [`KEY`], a token or a private key.
///
/// # Panics
///
/// When it did not.
#[track_caller]
pub fn assert_fails<T>(result: Result<T, BackendError>, code: ErrorCode, words: &[&str]) -> BackendError {
    let Err(error) = result else {
        panic!("it succeeded, but should have failed with {code}")
    };
    assert_eq!(error.code, code, "{error}");
    for word in words {
        assert!(error.message.contains(word), "\"{word}\" is not in: {error}");
    }
    // The beginning of the key, as text and in base64; of an access token of Google's; of a PEM file.
    for secret in ["0123456789abcdef", "MDEyMzQ1Njc4", "ya29.", "PRIVATE KEY"] {
        assert!(!error.message.contains(secret), "{error}");
    }
    assert!(!has_web_token(&error.message), "{error}");
    error
}

/// True when there is a part of a JSON Web Token in the text: an object, `{"…`, in base64.
///
/// Four letters more than every such object begins with are looked for: a directory for a test has six at random in its name.
#[must_use]
pub fn has_web_token(text: &str) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.match_indices("eyJ").any(|(at, begin)| {
        let rest = &text.as_bytes()[at + begin.len()..];
        rest.iter().take(4).filter(|byte| is_base64(byte)).count() == 4
    })
}

#[cfg(test)]
mod tests {
    use super::has_web_token;

    #[test]
    fn every_part_of_a_web_token_is_seen_and_the_name_of_a_directory_is_none() {
        let token = "eyJhbGciOiJub25l.eyJzdWIiOiJhY21l.c2lnbmF0dXJl";
        let parts: Vec<_> = token.split('.').collect();
        assert!(has_web_token(token) && has_web_token(&format!("{} is bad", parts[0])));
        assert!(has_web_token(&format!("refused: {}", parts[1])));
        assert!(!has_web_token(parts[2]));
        assert!(!has_web_token("/tmp/.tmpeyJabc/secret cannot be read"));
        assert!(!has_web_token("eyJ"));
    }
}
