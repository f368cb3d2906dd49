//! From the SDK's errors to errors for people.

use std::error::Error;
use std::time::Duration;

use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use keystead_backend::{BackendError, ErrorCode};

use keystead_backend_common::{causes, words};

use crate::classify::classify;

/// What was being done when it failed: says the object and knows what to advise.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Doing<'a> {
    /// `kms:Encrypt`
    Wrap { key: &'a str },
    /// `kms:Decrypt`
    Unwrap { key: &'a str },
    /// A dry run of `kms:Decrypt`
    Probe { key: &'a str },
    /// `sts:AssumeRole`
    AssumeRole { key: &'a str, role: &'a str },
    /// `sts:AssumeRoleWithWebIdentity`
    WebIdentity { key: &'a str, role: &'a str },
    /// The standard credential chain.
    Credentials { key: &'a str },
}

impl Doing<'_> {
    /// Begins a message.
    pub(crate) fn what(self) -> String {
        match self {
            Self::Wrap { key } => format!("wrapping with {key}"),
            Self::Unwrap { key } => format!("unwrapping with {key}"),
            Self::Probe { key } => format!("asking whether {key} can be used"),
            Self::AssumeRole { key, role } | Self::WebIdentity { key, role } => {
                format!("assuming the role {role} for {key}")
            }
            Self::Credentials { key } => format!("looking for AWS credentials for {key}"),
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Wrap { .. } => "kms:Encrypt",
            Self::Unwrap { .. } | Self::Probe { .. } => "kms:Decrypt",
            Self::AssumeRole { .. } => "sts:AssumeRole",
            Self::WebIdentity { .. } => "sts:AssumeRoleWithWebIdentity",
            Self::Credentials { .. } => "the credential provider's call",
        }
    }

    fn service(self) -> &'static str {
        match self {
            Self::Wrap { .. } | Self::Unwrap { .. } | Self::Probe { .. } => "KMS",
            Self::AssumeRole { .. } | Self::WebIdentity { .. } => "STS",
            Self::Credentials { .. } => "the credential provider",
        }
    }

    /// What to do about an error of this kind.
    fn advice(self, code: ErrorCode) -> String {
        match (code, self) {
            (ErrorCode::AccessDenied, Self::AssumeRole { role, .. }) => format!(
                "the trust policy of {role} must allow sts:AssumeRole to the application (with the external id, where it asks for one), and the application's own policy must allow it too"
            ),
            (ErrorCode::AccessDenied, Self::WebIdentity { role, .. }) => format!(
                "the trust policy of {role} must allow sts:AssumeRoleWithWebIdentity to tokens of this issuer, audience and subject"
            ),
            (ErrorCode::AccessDenied, Self::Credentials { .. }) => {
                "allow the call to the identity that the application runs as".into()
            }
            (ErrorCode::AccessDenied, _) => format!(
                "the key policy, or the caller's IAM policy, must allow {} on this key, with this encryption context where it asks for one",
                self.action()
            ),
            (ErrorCode::Unauthenticated, Self::WebIdentity { .. }) => {
                "check the token's issuer, audience and lifetime, that the role's account has the issuer as identity provider, and this machine's clock".into()
            }
            (ErrorCode::Unauthenticated, _) => {
                "check the AWS credentials that the application runs with, and this machine's clock".into()
            }
            (ErrorCode::KeyDisabled, _) => "enable the key in KMS (aws kms enable-key)".into(),
            (ErrorCode::KeyPendingDeletion, _) => {
                "cancel the deletion (aws kms cancel-key-deletion) and enable the key before its waiting period ends; after that, what it wrapped is lost".into()
            }
            (ErrorCode::KeyNotFound, _) => "check the ARN's account, region and id".into(),
            (ErrorCode::WrongKey, Self::Wrap { .. }) => {
                "the wrap is not used; check the endpoint in the backend's settings".into()
            }
            (ErrorCode::WrongKey, _) => "the blob belongs to another key; nothing was opened".into(),
            (ErrorCode::InvalidCiphertext, _) => {
                "the blob is damaged, or was wrapped under another encryption context; nothing was opened".into()
            }
            (ErrorCode::Throttled, _) => {
                "try again later; if this goes on, ask AWS for a higher quota of requests".into()
            }
            (ErrorCode::Unavailable | ErrorCode::Timeout, _) => {
                "try again later; if this goes on, check the network, the endpoint and the AWS health dashboard".into()
            }
            (ErrorCode::InvalidConfig, _) => {
                "correct the key's config, or the key itself: it must be a symmetric key for encryption and decryption".into()
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

    /// The same from an error of the SDK.
    pub(crate) fn sdk_failed<E>(self, error: &SdkError<E>) -> BackendError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(refusal) => {
                let meta = refusal.err().meta();
                // The SDK also calls a good answer that it cannot read an error of the service.
                if meta.code().is_none() && refusal.raw().status().is_success() {
                    return self.garbled(refusal.raw());
                }
                self.refused(
                    meta.code(),
                    meta.message().unwrap_or_default(),
                    Some(refusal.raw()),
                )
            }
            SdkError::ResponseError(error) => self.garbled(error.raw()),
            SdkError::TimeoutError(_) => self.failed(
                ErrorCode::Timeout,
                format!("{} gave no answer in time", self.service()),
            ),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => self.failed(
                ErrorCode::Timeout,
                format!("no connection to {} in time: {}", self.service(), causes(error)),
            ),
            SdkError::DispatchFailure(failure) if failure.is_user() => self.failed(
                ErrorCode::InvalidConfig,
                format!(
                    "the call could not be sent to {}: {}",
                    self.service(),
                    causes(error)
                ),
            ),
            SdkError::DispatchFailure(_) => self.failed(
                ErrorCode::Unavailable,
                format!("{} cannot be reached: {}", self.service(), causes(error)),
            ),
            _ => self.failed(
                ErrorCode::Internal,
                format!("the call could not be made: {}", causes(error)),
            ),
        }
    }

    /// The same from an answer that makes no sense. Nothing in it says that the owner took the key away.
    fn garbled(self, answer: &HttpResponse) -> BackendError {
        let status = answer.status().as_u16();
        let code = match classify(None, "", status) {
            ErrorCode::Internal => ErrorCode::Unavailable,
            code => code,
        };
        self.failed(
            code,
            format!(
                "{} gave an answer that cannot be read (HTTP {status})",
                self.service()
            ),
        )
    }

    /// The same from what the service answered.
    pub(crate) fn refused(
        self,
        code: Option<&str>,
        message: &str,
        answer: Option<&HttpResponse>,
    ) -> BackendError {
        let status = answer.map_or(0, |answer| answer.status().as_u16());
        let meaning = classify(code, message, status);
        let mut wrong = format!(
            "{} says {}",
            self.service(),
            code.map_or_else(|| format!("HTTP {status}"), words)
        );
        if !message.is_empty() {
            wrong.push_str(&format!(", \"{}\"", words(message)));
        }
        if let Some(id) = answer.and_then(|answer| answer.headers().get("x-amzn-requestid")) {
            wrong.push_str(&format!(" (request id {})", words(id)));
        }
        let error = self.failed(meaning, wrong);
        match answer.and_then(retry_after) {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }
}

/// The server's wish for when to try again, at most a day.
fn retry_after(answer: &HttpResponse) -> Option<Duration> {
    let number = |name| answer.headers().get(name)?.trim().parse::<u64>().ok();
    let wait = number("x-amz-retry-after").map(Duration::from_millis);
    let wait = wait.or_else(|| number("retry-after").map(Duration::from_secs))?;
    Some(wait.min(Duration::from_secs(24 * 60 * 60)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1";
    const ROLE: &str = "arn:aws:iam::111122223333:role/R";

    #[test]
    fn a_refusal_says_what_was_done_to_what_what_is_wrong_and_what_to_do() {
        let error = Doing::Unwrap { key: KEY }.refused(
            Some("AccessDeniedException"),
            "User: arn:aws:iam::111122223333:user/u is not authorized to perform: kms:Decrypt",
            None,
        );
        assert_eq!(error.code, ErrorCode::AccessDenied);
        for part in [
            "unwrapping with",
            KEY,
            "AccessDeniedException",
            "user/u",
            "must allow kms:Decrypt",
        ] {
            assert!(error.message.contains(part), "{part} is not in: {error}");
        }
    }

    #[test]
    fn each_action_is_advised_by_its_own_name() {
        for (doing, action) in [
            (Doing::Wrap { key: KEY }, "kms:Encrypt"),
            (Doing::Unwrap { key: KEY }, "kms:Decrypt"),
            (Doing::Probe { key: KEY }, "kms:Decrypt"),
            (Doing::AssumeRole { key: KEY, role: ROLE }, "sts:AssumeRole "),
            (
                Doing::WebIdentity { key: KEY, role: ROLE },
                "sts:AssumeRoleWithWebIdentity",
            ),
        ] {
            let error = doing.refused(Some("AccessDenied"), "", None);
            assert!(error.message.contains(action), "{error}");
        }
    }

    #[test]
    fn every_code_that_can_come_from_aws_has_advice() {
        for (code, meaning) in crate::classify::CODES {
            let error = Doing::Wrap { key: KEY }.refused(Some(code), "", None);
            assert_eq!(error.code, *meaning);
            assert!(!error.message.contains("please report"), "{error}");
        }
    }

    #[test]
    fn only_the_first_line_of_the_services_words_is_repeated() {
        let said = "The request signature does not match.\n\nx-amz-security-token:FwoGhunter2\n";
        let error =
            Doing::AssumeRole { key: KEY, role: ROLE }.refused(Some("SignatureDoesNotMatch"), said, None);
        assert!(
            error.message.contains("does not match") && !error.message.contains("hunter2"),
            "{error}"
        );
        let endless = "x".repeat(10_000);
        let error = Doing::Wrap { key: KEY }.refused(Some("ValidationException"), &endless, None);
        assert!(error.message.len() < 1000);
        let painted = Doing::Wrap { key: KEY }.refused(Some("ValidationException"), "a\u{1b}[31mred", None);
        assert!(!painted.message.contains('\u{1b}'));
    }
}
