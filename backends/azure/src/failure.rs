//! From the SDK's errors to errors for people.

use std::error::Error;
use std::time::Duration;

use azure_core::error::ErrorKind;
use azure_core::http::RawResponse;
use azure_core::http::headers::{HeaderName, Headers};
use keystead_backend::{BackendError, ErrorCode};
use keystead_backend_common::{causes, words};
use serde::Deserialize;

use crate::classify;

/// What was being done when it failed: says the object and knows what to advise.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Doing<'a> {
    Wrap { key: &'a str },
    Unwrap { key: &'a str },
    Look { key: &'a str },
    SignIn { key: &'a str, how: How },
}

/// How the caller proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// As an identity of the key owner's, by a token.
    Federated,
    /// As the application, by a token.
    WorkloadIdentity,
    ClientSecret,
    ManagedIdentity,
    DeveloperTools,
}

impl How {
    fn name(self) -> &'static str {
        match self {
            Self::Federated => "workload identity federation",
            Self::WorkloadIdentity => "the application's workload identity",
            Self::ClientSecret => "the application's client secret",
            Self::ManagedIdentity => "the managed identity",
            Self::DeveloperTools => "the Azure developer tools",
        }
    }

    /// True when Entra ID itself is asked, and so can refuse.
    fn asks_entra(self) -> bool {
        !matches!(self, Self::ManagedIdentity | Self::DeveloperTools)
    }
}

impl<'a> Doing<'a> {
    /// Begins a message.
    pub(crate) fn what(self) -> String {
        match self {
            Self::Wrap { key } => format!("wrapping with {key}"),
            Self::Unwrap { key } => format!("unwrapping with {key}"),
            Self::Look { key } => format!("looking at {key}"),
            Self::SignIn { key, how } => format!("signing in by {} for {key}", how.name()),
        }
    }

    fn key(self) -> &'a str {
        match self {
            Self::Wrap { key } | Self::Unwrap { key } | Self::Look { key } | Self::SignIn { key, .. } => key,
        }
    }

    fn service(self) -> &'static str {
        match self {
            Self::SignIn { how, .. } if how.asks_entra() => "Entra ID",
            Self::SignIn { .. } => "the platform",
            _ => "the vault",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Wrap { .. } => "keys/wrap/action",
            Self::Unwrap { .. } => "keys/unwrap/action",
            Self::Look { .. } => "keys/read",
            Self::SignIn { .. } => "signing in",
        }
    }

    /// What to do about an error of this kind.
    fn advice(self, code: ErrorCode) -> String {
        match (code, self) {
            (ErrorCode::Unavailable, Self::SignIn { how: How::ManagedIdentity, .. }) => {
                "check that this machine has a managed identity, and the one of client_id in the settings if that is said".into()
            }
            (ErrorCode::Unavailable, Self::SignIn { how: How::DeveloperTools, .. }) => {
                "sign in with az login or azd auth login".into()
            }
            (ErrorCode::Unauthenticated, Self::SignIn { how: How::Federated, .. }) => {
                "check tenant_id and client_id, the federated credential of that identity (issuer, subject, audience), the token's lifetime and this machine's clock".into()
            }
            (ErrorCode::Unauthenticated, Self::SignIn { .. }) => {
                "check tenant_id, client_id and the credential of the backend's settings, and this machine's clock".into()
            }
            (ErrorCode::AccessDenied, Self::SignIn { .. }) => {
                "the tenant's administrator must consent to the application, and conditional access let it in".into()
            }
            (ErrorCode::AccessDenied, _) => format!(
                "the caller needs {} on this key (the role Key Vault Crypto Service Encryption User has it), and the vault's firewall must let this machine in",
                self.action()
            ),
            (ErrorCode::Unauthenticated, _) => {
                "check that the identity is one of the vault's own tenant, and this machine's clock".into()
            }
            (ErrorCode::KeyDisabled, _) => {
                "enable the key version (az keyvault key set-attributes --enabled true), and look at its dates of activation and expiry".into()
            }
            (ErrorCode::KeyPendingDeletion, _) => {
                "recover the key (az keyvault key recover) before its retention ends; after that, what it wrapped is lost".into()
            }
            (ErrorCode::KeyNotFound, _) => {
                "check the identifier; a deleted key can be recovered (az keyvault key recover) until its retention ends".into()
            }
            (ErrorCode::WrongKey, Self::Wrap { .. }) => "the wrap is not used".into(),
            (ErrorCode::WrongKey, _) => "the blob belongs to another key; nothing was opened".into(),
            (ErrorCode::InvalidCiphertext, _) => "the blob is damaged, or was wrapped with another key; nothing was opened".into(),
            (ErrorCode::Throttled, _) => "try again later; if this goes on, ask for fewer keys in one vault".into(),
            (ErrorCode::Unavailable | ErrorCode::Timeout, _) => {
                "try again later; if this goes on, check the network, the vault's name and the Azure status page".into()
            }
            (ErrorCode::InvalidConfig, Self::SignIn { .. }) => {
                "correct tenant_id in the key's config or in the backend's settings".into()
            }
            (ErrorCode::InvalidConfig, _) => {
                "correct the key's config, or the key itself: RSA-OAEP-256 needs an RSA key, A256KW a 256-bit AES key in a managed HSM, and key operations wrapKey and unwrapKey".into()
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

    /// The same from an error of the SDK, which signs in by itself, too: `how`.
    pub(crate) fn sdk_failed(self, error: &azure_core::Error, how: How) -> BackendError {
        if let Some(own) = layers(error).find_map(|layer| layer.downcast_ref::<BackendError>()) {
            return own.clone();
        }
        let kinds = || {
            layers(error)
                .filter_map(|layer| layer.downcast_ref::<azure_core::Error>())
                .map(azure_core::Error::kind)
        };
        let doing = if kinds().any(|kind| matches!(kind, ErrorKind::Credential)) {
            Self::SignIn { key: self.key(), how }
        } else {
            self
        };
        for kind in kinds() {
            if let ErrorKind::HttpResponse {
                status, raw_response, ..
            } = kind
            {
                return doing.refused((*status).into(), raw_response.as_deref());
            }
        }
        let timed_out = layers(error)
            .filter_map(|layer| layer.downcast_ref::<reqwest::Error>())
            .any(reqwest::Error::is_timeout);
        let reached = !kinds().any(|kind| matches!(kind, ErrorKind::Io | ErrorKind::Connection));
        if timed_out {
            let wrong = format!("{} gave no answer in time", doing.service());
            return doing.failed(ErrorCode::Timeout, wrong);
        }
        if !reached {
            let wrong = format!("{} cannot be reached: {}", doing.service(), causes(error));
            return doing.failed(ErrorCode::Unavailable, wrong);
        }
        doing.sdk_refused(
            error,
            kinds().any(|kind| matches!(kind, ErrorKind::DataConversion)),
        )
    }

    /// The same from an error that the SDK made of an answer, or instead of a request.
    fn sdk_refused(self, error: &azure_core::Error, garbled: bool) -> BackendError {
        let innermost = layers(error).last().map(ToString::to_string).unwrap_or_default();
        let said = words(&innermost);
        match self {
            // A tool that is missing, not signed in, or cannot be run.
            Self::SignIn {
                how: How::DeveloperTools,
                ..
            } => self.failed(
                ErrorCode::Unavailable,
                format!("they gave no token ({})", without_newlines(error)),
            ),
            _ if garbled => self.failed(
                ErrorCode::Unavailable,
                format!("{} gave an answer that cannot be read", self.service()),
            ),
            Self::SignIn { .. } => {
                self.failed(ErrorCode::Unavailable, format!("no token was given ({said})"))
            }
            // The vault's challenge names a service that it is not: no token is given to it.
            _ => BackendError::new(
                ErrorCode::InvalidConfig,
                format!(
                    "{}: the SDK did not send the request ({said}); check the vault's name, and who answers for it",
                    self.what()
                ),
            ),
        }
    }

    /// The same from what the service answered.
    fn refused(self, status: u16, answer: Option<&RawResponse>) -> BackendError {
        let body = answer.map_or(&b""[..], |answer| answer.body().as_ref());
        let (code, name, message) = match self {
            Self::SignIn { how, .. } if how.asks_entra() => entra_refusal(status, body),
            // Says nothing about the owner's will: this machine has no such identity, or the service is not there.
            Self::SignIn { .. } => (platform_refusal(status), format!("HTTP {status}"), String::new()),
            _ => vault_refusal(status, body, matches!(self, Self::Unwrap { .. })),
        };
        let mut wrong = format!("{} says {name}", self.service());
        if !message.is_empty() {
            wrong.push_str(&format!(", \"{message}\""));
        }
        let headers = answer.map(RawResponse::headers);
        if let Some(id) = headers.and_then(|headers| header(headers, "x-ms-request-id")) {
            wrong.push_str(&format!(" (request id {})", words(&id)));
        }
        let error = self.failed(code, wrong);
        match headers.and_then(retry_after) {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }
}

fn platform_refusal(status: u16) -> ErrorCode {
    match status {
        408 => ErrorCode::Timeout,
        429 => ErrorCode::Throttled,
        _ => ErrorCode::Unavailable,
    }
}

#[derive(Deserialize)]
struct VaultAnswer {
    error: VaultError,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct VaultError {
    code: Option<String>,
    message: Option<String>,
    #[serde(alias = "innerError")]
    innererror: Option<Box<VaultError>>,
}

/// The code, its name, and the vault's words. The innermost code says the most.
fn vault_refusal(status: u16, body: &[u8], opening: bool) -> (ErrorCode, String, String) {
    let answer = serde_json::from_slice::<VaultAnswer>(body).ok();
    let outer = answer.as_ref().map(|answer| &answer.error);
    let inner = outer.and_then(|error| error.innererror.as_deref());
    let code = |error: Option<&VaultError>| error.and_then(|error| error.code.clone());
    let name = match (code(inner), code(outer)) {
        (Some(inner), _) if classify::VAULT_CODES.iter().any(|(known, _)| *known == inner) => Some(inner),
        (inner, outer) => outer.or(inner),
    };
    let message = outer
        .and_then(|error| error.message.as_deref())
        .unwrap_or_default();
    (
        classify::vault(name.as_deref(), status, opening),
        name.map_or_else(|| format!("HTTP {status}"), |name| words(&name)),
        words(message),
    )
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct EntraAnswer {
    error_codes: Vec<u32>,
    error_description: String,
}

fn entra_refusal(status: u16, body: &[u8]) -> (ErrorCode, String, String) {
    let answer: EntraAnswer = serde_json::from_slice(body).unwrap_or_default();
    let known = |number: &&u32| classify::ENTRA_CODES.iter().any(|(known, _)| known == *number);
    let number = answer.error_codes.iter().find(known);
    let number = number.or(answer.error_codes.first()).copied();
    (
        classify::entra(number, status),
        number.map_or_else(|| format!("HTTP {status}"), |number| format!("AADSTS{number}")),
        words(&answer.error_description),
    )
}

/// An error and what lies under it, outermost first.
fn layers<'a>(error: &'a azure_core::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let outermost: &'a (dyn Error + 'static) = error;
    std::iter::successors(Some(outermost), |layer| {
        let layer: &'a (dyn Error + 'static) = *layer;
        layer.source()
    })
}

/// The words of a tool, which come on many lines.
fn without_newlines(error: &azure_core::Error) -> String {
    words(&error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
}

fn header(headers: &Headers, name: &'static str) -> Option<String> {
    headers
        .get_optional_str(&HeaderName::from_static(name))
        .map(str::to_owned)
}

/// The server's wish for when to try again, at most a day.
fn retry_after(headers: &Headers) -> Option<Duration> {
    let number = |name| header(headers, name)?.trim().parse::<u64>().ok();
    let wait = number("retry-after-ms")
        .or_else(|| number("x-ms-retry-after-ms"))
        .map(Duration::from_millis);
    let wait = wait.or_else(|| number("retry-after").map(Duration::from_secs))?;
    Some(wait.min(Duration::from_secs(24 * 60 * 60)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use azure_core::http::StatusCode;

    const KEY: &str = "https://acme.vault.azure.net/keys/k/1";

    fn answer(status: u16, body: &str) -> azure_core::Error {
        let mut headers = Headers::new();
        headers.insert("retry-after", "7");
        headers.insert("x-ms-request-id", "r-1");
        let status = StatusCode::from(status);
        let raw = RawResponse::from_bytes(status, headers, body.as_bytes().to_vec());
        azure_core::Error::with_message(
            ErrorKind::HttpResponse {
                status,
                error_code: None,
                raw_response: Some(Box::new(raw)),
            },
            "refused",
        )
    }

    fn signing_in(error: azure_core::Error) -> azure_core::Error {
        azure_core::Error::with_error(ErrorKind::Credential, error, "authentication failed")
            .with_context("more")
    }

    #[test]
    fn a_refusal_says_what_was_done_to_what_what_is_wrong_and_what_to_do() {
        let body = r#"{"error":{"code":"Forbidden","message":"Caller is not \"authorized\".\r\nCaller: appid=1","innererror":{"code":"ForbiddenByRbac"}}}"#;
        let error = Doing::Unwrap { key: KEY }.sdk_failed(&answer(403, body), How::ClientSecret);
        assert_eq!(error.code, ErrorCode::AccessDenied);
        for part in [
            "unwrapping with",
            KEY,
            "ForbiddenByRbac",
            "not \"authorized\"",
            "r-1",
            "keys/unwrap/action",
        ] {
            assert!(error.message.contains(part), "{part} is not in: {error}");
        }
        assert!(!error.message.contains('\n'), "{error}");
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn the_inner_code_decides_where_it_is_known() {
        for (inner, code) in [
            (r#","innererror":{"code":"KeyDisabled"}"#, ErrorCode::KeyDisabled),
            (r#","innerError":{"code":"KeyDisabled"}"#, ErrorCode::KeyDisabled),
            (
                r#","innererror":{"code":"SomethingNew"}"#,
                ErrorCode::AccessDenied,
            ),
            (r#","innererror":null"#, ErrorCode::AccessDenied),
            ("", ErrorCode::AccessDenied),
        ] {
            let body = format!(r#"{{"error":{{"code":"Forbidden","message":"no"{inner}}}}}"#);
            let error = Doing::Wrap { key: KEY }.sdk_failed(&answer(403, &body), How::ClientSecret);
            assert_eq!(error.code, code, "{body}");
        }
    }

    #[test]
    fn what_lies_under_a_credential_is_a_refusal_of_entra_id() {
        let body = r#"{"error_codes":[7000215],"error_description":"AADSTS7000215: Invalid client secret."}"#;
        let error = signing_in(answer(401, body));
        let error = Doing::Wrap { key: KEY }.sdk_failed(&error, How::ClientSecret);
        assert_eq!(error.code, ErrorCode::Unauthenticated);
        assert!(
            error
                .message
                .contains("signing in by the application's client secret")
                && error.message.contains("AADSTS7000215"),
            "{error}"
        );
    }

    #[test]
    fn a_machine_without_an_identity_is_an_outage() {
        for status in [400, 404, 500] {
            let error = signing_in(answer(status, "no identity"));
            let error = Doing::Wrap { key: KEY }.sdk_failed(&error, How::ManagedIdentity);
            assert_eq!(error.code, ErrorCode::Unavailable);
            assert!(error.message.contains("managed identity"), "{error}");
        }
    }

    #[test]
    fn an_error_of_the_backends_own_comes_out_as_it_went_in() {
        let own = BackendError::new(ErrorCode::InvalidConfig, "the application mints none");
        let error = signing_in(azure_core::Error::new(ErrorKind::Credential, own.clone()));
        assert_eq!(Doing::Wrap { key: KEY }.sdk_failed(&error, How::Federated), own);
    }

    #[test]
    fn every_code_that_can_come_from_azure_has_advice() {
        for (code, meaning) in classify::VAULT_CODES {
            let body = format!(r#"{{"error":{{"code":"{code}","message":"no"}}}}"#);
            let error = Doing::Wrap { key: KEY }.sdk_failed(&answer(400, &body), How::ClientSecret);
            assert_eq!(error.code, *meaning);
            assert!(!error.message.contains("please report"), "{error}");
        }
        for (code, meaning) in classify::ENTRA_CODES {
            let body = format!(r#"{{"error_codes":[{code}],"error_description":"no"}}"#);
            let error = signing_in(answer(400, &body));
            let error = Doing::Wrap { key: KEY }.sdk_failed(&error, How::Federated);
            assert_eq!(error.code, *meaning);
            assert!(!error.message.contains("please report"), "{error}");
        }
    }

    #[test]
    fn an_answer_of_something_else_is_judged_by_its_status() {
        for (status, code) in [
            (502, ErrorCode::Unavailable),
            (403, ErrorCode::AccessDenied),
            (429, ErrorCode::Throttled),
        ] {
            let error = Doing::Unwrap { key: KEY }
                .sdk_failed(&answer(status, "<html>proxy</html>"), How::ClientSecret);
            assert_eq!(error.code, code);
            assert!(error.message.contains(&format!("HTTP {status}")), "{error}");
        }
    }
}
