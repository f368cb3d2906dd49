//! Requests to the server: one attempt, and as many as the call has time for. Everything here blocks, within limits.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keystead_backend::{BackendError, ErrorClass, ErrorCode, Host};
use keystead_backend_common::{Remaining, causes, words};
use serde::Deserialize;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use zeroize::Zeroizing;

use crate::failure::Doing;
use crate::settings::{SETTINGS, Server};

/// The largest answer that is read. What is asked here is answered with a few kilobytes.
const ANSWER_MAX_BYTES: usize = 256 * 1024;

/// Connections that are kept, and how long an idle one is: shorter than servers and balancers keep theirs.
const IDLE_CONNECTIONS_MAX: usize = 8;
const IDLE_AGE_MAX: Duration = Duration::from_secs(20);

/// The first wait before another attempt; it doubles with each, and is jittered.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The longest wait that a server may wish for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What is asked of the server.
pub(crate) struct Request<'a> {
    /// Behind `/v1/`; made of checked names.
    pub(crate) path: String,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) token: Option<&'a str>,
    /// JSON to post; without it the path is read.
    pub(crate) body: Option<&'a [u8]>,
}

/// What the server answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    body: Zeroizing<Vec<u8>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    Late,
    Unreachable(String),
    Garbled(String),
    Unsendable(String),
}

impl Answer {
    /// The errors in the answer, `None` when it is not of the server's form.
    pub(crate) fn errors(&self) -> Option<Vec<String>> {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<String>,
        }
        serde_json::from_slice::<Errors>(&self.body)
            .ok()
            .map(|answer| answer.errors)
    }

    /// The answer's JSON. What is wrong with it is said without its content.
    pub(crate) fn json<'a, T: Deserialize<'a>>(&'a self, doing: Doing<'_>) -> Result<T, BackendError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            doing.garbled(&format!(
                "it is not the JSON that was expected, at line {} column {}",
                error.line(),
                error.column()
            ))
        })
    }

    #[cfg(test)]
    pub(crate) fn for_tests(status: u16, body: &str) -> Self {
        Self {
            status,
            retry_after: None,
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }
}

/// The way to one server, shared by all instances with the same settings. Connections come with the first call.
pub(crate) struct Client {
    server: Server,
    agent: Mutex<Option<ureq::Agent>>,
}

impl Client {
    pub(crate) fn new(server: Server) -> Self {
        Self {
            server,
            agent: Mutex::new(None),
        }
    }

    /// Asks until there is an answer that is no illness of the server or the network, the attempts are used up, or the time
    /// is. An answer is returned if it is a success, else its error.
    pub(crate) fn ask(
        &self,
        remaining: &Remaining,
        host: &Arc<dyn Host>,
        doing: Doing<'_>,
        request: &Request<'_>,
    ) -> Result<Answer, BackendError> {
        let agent = self.agent(doing)?;
        let mut backoff = BACKOFF_FIRST;
        for attempt in 1.. {
            let attempted = unlogged(|| self.attempt(&agent, remaining, request));
            let error = match attempted {
                Ok(answer) if (200..300).contains(&answer.status) => return Ok(answer),
                Ok(answer) => doing.refused(&answer),
                Err(why) => doing.unanswered(&why),
            };
            if attempt >= self.server.max_attempts || error.code.class() != ErrorClass::Retryable {
                return Err(error);
            }
            let wait = error.retry_after.unwrap_or_default().max(jittered(backoff, host));
            if wait >= remaining.time() || !remaining.sleep(wait) {
                return Err(error);
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        unreachable!("the last attempt returns")
    }

    fn attempt(
        &self,
        agent: &ureq::Agent,
        remaining: &Remaining,
        request: &Request<'_>,
    ) -> Result<Answer, Unanswered> {
        let time = remaining.time().min(self.server.attempt_timeout);
        if time.is_zero() {
            return Err(Unanswered::Late);
        }
        let url = format!("{}/v1/{}", self.server.address, request.path);
        let answer = match request.body {
            Some(body) => {
                let post = agent
                    .post(&url)
                    .config()
                    .timeout_global(Some(time))
                    .build()
                    .header("content-type", "application/json");
                with_headers(post, request).send(body)
            }
            None => {
                let get = agent.get(&url).config().timeout_global(Some(time)).build();
                with_headers(get, request).call()
            }
        };
        let answer = answer.map_err(|error| unanswered(&error))?;
        let status = answer.status().as_u16();
        let retry_after = answer
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        let body = read(answer.into_body().into_reader())?;
        Ok(Answer {
            status,
            retry_after,
            body,
        })
    }

    fn agent(&self, doing: Doing<'_>) -> Result<ureq::Agent, BackendError> {
        let mut agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = &*agent {
            return Ok(agent.clone());
        }
        let encrypted = self.server.address.starts_with("https://");
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would send key material to an address that the settings do not name.
            .max_redirects(0)
            .user_agent("keystead")
            .timeout_connect(Some(self.server.connect_timeout))
            .max_idle_connections(IDLE_CONNECTIONS_MAX)
            .max_idle_connections_per_host(IDLE_CONNECTIONS_MAX)
            .max_idle_age(IDLE_AGE_MAX)
            // A proxy for plain http would see key material; one for https sees none.
            .proxy(if encrypted {
                ureq::Proxy::try_from_env()
            } else {
                None
            });
        if encrypted {
            let roots = match &self.server.ca_file {
                Some(path) => roots_in(path, doing)?,
                None => roots_of_the_system(doing)?,
            };
            let roots = RootCerts::Specific(Arc::new(roots));
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(agent.insert(config.build().new_agent()).clone())
    }
}

/// At its finest level the client logs whole requests and answers, the token and the key in them. Nothing of that comes to a subscriber
/// of `tracing`; of other loggers the crate's front page warns.
fn unlogged<T>(work: impl FnOnce() -> T) -> T {
    tracing::dispatcher::with_default(&tracing::Dispatch::none(), work)
}

fn with_headers<B>(mut builder: ureq::RequestBuilder<B>, request: &Request<'_>) -> ureq::RequestBuilder<B> {
    // By which the server knows that no browser was tricked into the request.
    builder = builder.header("x-vault-request", "true");
    if let Some(namespace) = request.namespace {
        builder = builder.header("x-vault-namespace", namespace);
    }
    if let Some(token) = request.token {
        builder = builder.header("x-vault-token", token);
    }
    builder
}

/// Room for the whole answer is taken at once: growing would leave copies of what is in it behind.
fn read(mut reader: impl Read) -> Result<Zeroizing<Vec<u8>>, Unanswered> {
    let mut body = Zeroizing::new(vec![0; ANSWER_MAX_BYTES]);
    let mut length = 0;
    loop {
        if length == body.len() {
            return Err(Unanswered::Garbled(format!(
                "it is longer than {ANSWER_MAX_BYTES} bytes"
            )));
        }
        match reader.read(&mut body[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unanswered(&ureq::Error::from(error))),
        }
    }
    body.truncate(length);
    Ok(body)
}

fn unanswered(error: &ureq::Error) -> Unanswered {
    use ureq::Error;
    let said = words(&error.to_string());
    match error {
        Error::Timeout(_) => Unanswered::Late,
        Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => Unanswered::Late,
        Error::Protocol(_) | Error::LargeResponseHeader(..) => Unanswered::Garbled(said),
        Error::Http(_) | Error::BadUri(_) | Error::InvalidProxyUrl => Unanswered::Unsendable(said),
        Error::Io(error) if error.get_ref().is_some() => {
            let cause = causes(error);
            Unanswered::Unreachable(if cause == "no reason given" {
                said
            } else {
                format!("{said}: {cause}")
            })
        }
        _ => Unanswered::Unreachable(said),
    }
}

fn roots_in(path: &Path, doing: Doing<'_>) -> Result<Vec<Certificate<'static>>, BackendError> {
    let wrong = |what: &str| {
        let error = SETTINGS.wrong_field("ca_file", format!("({}) {what}", path.display()));
        BackendError::new(error.code, format!("{}: {}", doing.what(), error.message))
    };
    let pem = fs::read(path).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    let mut roots = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => roots.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(wrong("is not PEM")),
        }
    }
    if roots.is_empty() {
        return Err(wrong("has no certificate in it"));
    }
    Ok(roots)
}

fn roots_of_the_system(doing: Doing<'_>) -> Result<Vec<Certificate<'static>>, BackendError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(doing.failed(
            ErrorCode::Unavailable,
            "no trusted certificates were found on this system; name the server's in ca_file of the settings",
        ));
    }
    Ok(found
        .certs
        .iter()
        .map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned())
        .collect())
}

/// From half of the wait to the whole, so that many who were turned away together do not come back together.
fn jittered(wait: Duration, host: &Arc<dyn Host>) -> Duration {
    let mut random = [0; 1];
    match host.random(&mut random) {
        Ok(()) => wait / 2 + wait / 2 * u32::from(random[0]) / 256,
        Err(_) => wait,
    }
}
