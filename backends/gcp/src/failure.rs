//! From the client's errors to errors for people.

use std::error::Error;
use std::time::Duration;

use google_cloud_gax::error::rpc::{Status, StatusDetails};
use google_cloud_gax::error::{CredentialsError, Error as RpcError};
use http::HeaderMap;
use keystead_backend::{BackendError, ErrorCode};
use keystead_backend_common::{causes, words};
use serde::Deserialize;

use crate::classify::{classify, classify_exchange};

/// What was being done when it failed: says the object and knows what to advise.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Doing<'a> {
    /// `Encrypt`
    Wrap { key: &'a str },
    /// `Decrypt`
    Unwrap { key: &'a str },
    /// `Encrypt` and `Decrypt` of nothing secret.
    Probe { key: &'a str },
    /// A token of another issuer is exchanged.
    Exchange { key: &'a str, provider: &'a str },
    /// The application's own credentials.
    Credentials { key: &'a str },
}

impl Doing<'_> {
    /// Begins a message.
    pub(crate) fn what(self) -> String {
        match self {
            Self::Wrap { key } => format!("wrapping with {key}"),
            Self::Unwrap { key } => format!("unwrapping with {key}"),
            Self::Probe { key } => format!("asking whether {key} can be used"),
            Self::Exchange { key, provider } => format!("exchanging a token at {provider} for {key}"),
            Self::Credentials { key } => format!("getting Google credentials for {key}"),
        }
    }

    fn permission(self) -> &'static str {
        match self {
            Self::Wrap { .. } => "cloudkms.cryptoKeyVersions.useToEncrypt",
            Self::Unwrap { .. } => "cloudkms.cryptoKeyVersions.useToDecrypt",
            _ => "cloudkms.cryptoKeyVersions.useToEncrypt and useToDecrypt",
        }
    }

    fn service(self) -> &'static str {
        match self {
            Self::Wrap { .. } | Self::Unwrap { .. } | Self::Probe { .. } => "Cloud KMS",
            Self::Exchange { .. } => "the security token service",
            Self::Credentials { .. } => "the credential provider",
        }
    }

    fn is_of_credentials(self) -> bool {
        matches!(self, Self::Exchange { .. } | Self::Credentials { .. })
    }

    /// What to do about an error of this kind.
    fn advice(self, code: ErrorCode) -> String {
        match (code, self) {
            (ErrorCode::AccessDenied, Self::Exchange { provider, .. }) => format!(
                "{provider} and its pool must exist and be enabled, and its attribute condition must accept the token's subject"
            ),
            (ErrorCode::AccessDenied, Self::Credentials { .. }) => {
                "allow the call to the identity that the application runs as".into()
            }
            (ErrorCode::AccessDenied, _) => format!(
                "grant roles/cloudkms.cryptoKeyEncrypterDecrypter ({}) on this key to the identity that asked, and enable the Cloud KMS API in the key's project",
                self.permission()
            ),
            (ErrorCode::Unauthenticated, Self::Exchange { .. }) => {
                "check the token's issuer, audience, subject and lifetime against the provider's, and this machine's clock".into()
            }
            (ErrorCode::Unauthenticated, _) => {
                "check the credentials that the application runs with (is the service account, or its key, disabled or deleted?), and this machine's clock".into()
            }
            (ErrorCode::KeyDisabled, _) => {
                "enable the key's version (gcloud kms keys versions enable); when it says that there is no primary version, give the key one (gcloud kms keys set-primary-version)".into()
            }
            (ErrorCode::KeyPendingDeletion, _) => {
                "restore the key's version (gcloud kms keys versions restore) and enable it before it is destroyed; after that, what it wrapped is lost".into()
            }
            (ErrorCode::KeyNotFound, _) => {
                "check the project, location, key ring and key; what a destroyed version wrapped cannot be unwrapped again".into()
            }
            (ErrorCode::WrongKey, Self::Wrap { .. } | Self::Probe { .. }) => {
                "the wrap is not used; check the endpoint in the backend's settings".into()
            }
            (ErrorCode::WrongKey, _) => {
                "the blob belongs to another key, or its beginning is damaged; nothing was opened".into()
            }
            (ErrorCode::InvalidCiphertext, _) => {
                "the blob is damaged, or was wrapped under another context; nothing was opened".into()
            }
            (ErrorCode::Throttled, _) => {
                "try again later; if this goes on, ask Google for a higher quota of cryptographic requests".into()
            }
            (ErrorCode::Unavailable | ErrorCode::Timeout, Self::Credentials { .. }) => {
                "try again later; if this goes on, give the application credentials: GOOGLE_APPLICATION_CREDENTIALS, an attached service account, or service_account_file in the backend's settings".into()
            }
            (ErrorCode::Unavailable | ErrorCode::Timeout, _) => {
                "try again later; if this goes on, check the network, the endpoint and Google Cloud's service health".into()
            }
            (ErrorCode::InvalidConfig, Self::Exchange { .. }) => {
                "correct workload_identity_provider and web_identity in the key's config".into()
            }
            (ErrorCode::InvalidConfig, Self::Credentials { .. }) => {
                "correct the credentials file, or service_account_file in the backend's settings".into()
            }
            (ErrorCode::InvalidConfig, _) => {
                "correct the key's config, or the key itself: its purpose must be ENCRYPT_DECRYPT".into()
            }
            _ => "please report this".into(),
        }
    }

    /// An error of this kind: what was being done, what is wrong, what to do.
    pub(crate) fn failed(self, code: ErrorCode, wrong: impl AsRef<str>) -> BackendError {
        BackendError::new(
            code,
            format!("{}: {}; {}", self.what(), wrong.as_ref(), self.advice(code)),
        )
    }

    /// The same from an error of the KMS client.
    pub(crate) fn rpc_failed(self, error: &RpcError) -> BackendError {
        let service = self.service();
        if let Some(status) = error.status() {
            return self.refused(
                status,
                error.http_status_code().unwrap_or_default(),
                error.http_headers(),
            );
        }
        if error.is_exhausted()
            && let Some(last) = error
                .source()
                .and_then(|source| source.downcast_ref::<RpcError>())
        {
            return self.rpc_failed(last);
        }
        if let Some(http_status) = error.http_status_code() {
            return self.garbled(http_status, error.http_headers());
        }
        if error.is_timeout() || transport(error).is_some_and(reqwest::Error::is_timeout) {
            return self.failed(ErrorCode::Timeout, format!("{service} gave no answer in time"));
        }
        if error.is_connect() {
            return self.failed(
                ErrorCode::Unavailable,
                format!("{service} cannot be reached: {}", causes(error)),
            );
        }
        // What an answer has in it is not repeated: it may be a key.
        if error.is_io() || error.is_deserialization() || error.is_transport() {
            return self.failed(
                ErrorCode::Unavailable,
                format!("the answer of {service} was cut off or cannot be read"),
            );
        }
        self.failed(
            ErrorCode::Internal,
            format!("the call could not be made: {}", causes(error)),
        )
    }

    /// The same from what the service answered.
    fn refused(self, status: &Status, http_status: u16, headers: Option<&HeaderMap>) -> BackendError {
        let name = status.code.name();
        let unwrapping = matches!(self, Self::Unwrap { .. });
        let meaning = classify(Some(name), &status.message, http_status, unwrapping);
        let mut wrong = format!("{} says {}", self.service(), words(name));
        if !status.message.is_empty() {
            wrong.push_str(&format!(", \"{}\"", words(&status.message)));
        }
        let error = self.failed(meaning, wrong);
        match asked_to_wait(status).or_else(|| retry_after(headers)) {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }

    /// The same from an answer that is not the service's: a proxy's, for one. Nothing in it says that the owner took the key
    /// away, unless its status does.
    fn garbled(self, http_status: u16, headers: Option<&HeaderMap>) -> BackendError {
        let code = match classify(None, "", http_status, false) {
            ErrorCode::Internal => ErrorCode::Unavailable,
            code => code,
        };
        let error = self.failed(
            code,
            format!(
                "{} gave an answer that cannot be read (HTTP {http_status})",
                self.service()
            ),
        );
        match retry_after(headers) {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }

    /// The same from why there are no credentials.
    ///
    /// Only what was refused in so many words is a refusal. That nothing was found, or that the metadata server did not
    /// answer, says nothing about the owner's will: it is an outage, and what is cached may be served.
    pub(crate) fn unproven(self, error: &CredentialsError) -> BackendError {
        let service = self.service();
        let transport = transport(error);
        let http_status = transport
            .and_then(reqwest::Error::status)
            .map_or(0, |s| s.as_u16());
        if let Some(refusal) = Refusal::find(error) {
            let meaning = match classify_exchange(Some(&refusal.error), http_status) {
                ErrorCode::Internal => ErrorCode::Unavailable,
                code => code,
            };
            return self.failed(
                meaning,
                format!(
                    "{service} says {}, \"{}\"",
                    words(&refusal.error),
                    words(&refusal.error_description)
                ),
            );
        }
        if http_status != 0 {
            let meaning = match classify_exchange(None, http_status) {
                ErrorCode::Internal => ErrorCode::Unavailable,
                code => code,
            };
            return self.failed(meaning, format!("{service} answered with HTTP {http_status}"));
        }
        match transport {
            Some(transport) if transport.is_timeout() => {
                self.failed(ErrorCode::Timeout, format!("{service} gave no answer in time"))
            }
            Some(transport) if transport.is_decode() || transport.is_body() => self.failed(
                ErrorCode::Unavailable,
                format!("the answer of {service} was cut off or cannot be read"),
            ),
            Some(transport) => self.failed(
                ErrorCode::Unavailable,
                format!("{service} cannot be reached: {}", causes(transport)),
            ),
            None => self.failed(
                ErrorCode::Unavailable,
                format!("no token could be made ({})", innermost(error)),
            ),
        }
    }

    /// The credentials gave no token in time.
    pub(crate) fn unproven_in_time(self) -> BackendError {
        debug_assert!(self.is_of_credentials());
        self.failed(
            ErrorCode::Timeout,
            format!("{} gave no answer in time", self.service()),
        )
    }
}

/// What a token endpoint says when it refuses (RFC 6749, 5.2).
#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Refusal {
    /// The client has the body of the answer in the text of its error, and nowhere else.
    fn find(error: &CredentialsError) -> Option<Self> {
        chain(error).find_map(|cause| {
            let text = cause.to_string();
            let body = text.split_once("body=<")?.1;
            serde_json::from_str(&body[..body.rfind('>')?]).ok()
        })
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    fn source<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    }
    std::iter::successors(Some(error), source).take(16)
}

fn transport<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a reqwest::Error> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

/// The innermost cause says the most. The body of an answer is left out: there may be a token in it.
fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map_or_else(String::new, |cause| {
        let text = cause.to_string();
        words(text.split("body=<").next().unwrap_or_default())
    })
}

/// The server's wish for when to try again, at most a day: in its answer,
fn asked_to_wait(status: &Status) -> Option<Duration> {
    status.details.iter().find_map(|detail| match detail {
        StatusDetails::RetryInfo(info) => {
            let delay = info.retry_delay.as_ref()?;
            let wait = Duration::new(
                u64::try_from(delay.seconds()).ok()?,
                u32::try_from(delay.nanos()).ok()?,
            );
            Some(wait.min(DAY))
        }
        _ => None,
    })
}

/// or beside it.
fn retry_after(headers: Option<&HeaderMap>) -> Option<Duration> {
    let seconds = headers?.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(DAY))
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::{ARGUMENT, EXCHANGE, STATUSES};
    use google_cloud_gax::error::rpc::Code;

    const KEY: &str = "projects/p/locations/global/keyRings/r/cryptoKeys/k";

    fn refusal(doing: Doing<'_>, code: &str, message: &str) -> BackendError {
        let code = Code::try_from(code).unwrap();
        let status = Status::default().set_code(code).set_message(message);
        doing.rpc_failed(&RpcError::service(status))
    }

    #[test]
    fn a_refusal_says_what_was_done_to_what_what_is_wrong_and_what_to_do() {
        let error = refusal(
            Doing::Unwrap { key: KEY },
            "PERMISSION_DENIED",
            "Permission 'cloudkms.cryptoKeyVersions.useToDecrypt' denied on resource (or it may not exist).",
        );
        assert_eq!(error.code, ErrorCode::AccessDenied);
        for part in [
            "unwrapping with",
            KEY,
            "PERMISSION_DENIED",
            "may not exist",
            "grant roles/cloudkms.cryptoKeyEncrypterDecrypter",
        ] {
            assert!(error.message.contains(part), "{part} is not in: {error}");
        }
    }

    #[test]
    fn every_answer_that_the_tables_know_has_advice() {
        for (status, meaning) in STATUSES {
            let error = refusal(Doing::Wrap { key: KEY }, status, "");
            assert_eq!(error.code, *meaning, "{status}");
            assert!(!error.message.contains("please report"), "{error}");
        }
        for doing in [Doing::Wrap { key: KEY }, Doing::Unwrap { key: KEY }] {
            assert!(!refusal(doing, ARGUMENT, "").message.contains("please report"));
        }
        for (code, meaning) in EXCHANGE {
            let said = format!(
                "failed to exchange token, body=<{{\"error\":\"{code}\",\"error_description\":\"no > yes\"}}>"
            );
            let error = Doing::Exchange {
                key: KEY,
                provider: "projects/1/locations/global/workloadIdentityPools/a/providers/b",
            }
            .unproven(&CredentialsError::from_msg(false, said));
            assert_eq!(error.code, *meaning, "{code}");
            assert!(
                error.message.contains("no > yes") && !error.message.contains("please report"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_body_that_is_no_refusal_is_not_repeated() {
        let said = "failed to exchange token, body=<<html>hunter2</html>>";
        let error = Doing::Credentials { key: KEY }.unproven(&CredentialsError::new(
            false,
            said,
            std::io::Error::other("reset"),
        ));
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(
            error.message.contains("reset") && !error.message.contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn only_the_first_line_of_the_services_words_is_repeated() {
        let error = refusal(Doing::Wrap { key: KEY }, ARGUMENT, "bad\u{1b}[31m\nhunter2");
        assert!(
            !error.message.contains("hunter2") && !error.message.contains('\u{1b}'),
            "{error}"
        );
        let endless = "x".repeat(10_000);
        assert!(
            refusal(Doing::Wrap { key: KEY }, ARGUMENT, &endless)
                .message
                .len()
                < 1000
        );
    }
}
