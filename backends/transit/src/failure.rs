//! From what the server answered, or did not, to errors for people.

use keystead_backend::{BackendError, ErrorCode};
use keystead_backend_common::words;

use crate::classify::{Asked, classify};
use crate::http::{Answer, Unanswered};
use crate::path::KeyPath;

/// What was being done when it failed: says the object and knows what to advise.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Doing<'a> {
    Wrap {
        key: &'a KeyPath,
    },
    Unwrap {
        key: &'a KeyPath,
    },
    /// Unwrapping the latest wrap to see whether that still works.
    Probe {
        key: &'a KeyPath,
    },
    /// `how` as in "with the role keystead at jwt".
    LogIn {
        key: &'a KeyPath,
        how: &'a str,
    },
    /// Renewing a token, or asking how long it lasts.
    Renew {
        key: &'a KeyPath,
    },
}

impl Doing<'_> {
    /// Begins a message.
    pub(crate) fn what(self) -> String {
        match self {
            Self::Wrap { key } => format!("wrapping with {key}"),
            Self::Unwrap { key } => format!("unwrapping with {key}"),
            Self::Probe { key } => format!("asking whether {key} can be used"),
            Self::LogIn { key, how } => format!("logging in {how} for {key}"),
            Self::Renew { key } => format!("renewing the token for {key}"),
        }
    }

    fn asked(self) -> Asked {
        match self {
            Self::LogIn { .. } => Asked::Login,
            _ => Asked::Key,
        }
    }

    /// The path that a policy must allow.
    fn path(self) -> String {
        match self {
            Self::Wrap { key } => format!("{}/encrypt/{}", key.mount, key.name),
            Self::Unwrap { key } | Self::Probe { key } => format!("{}/decrypt/{}", key.mount, key.name),
            Self::LogIn { .. } | Self::Renew { .. } => "auth/token/renew-self".into(),
        }
    }

    /// What to do about an error of this kind.
    fn advice(self, code: ErrorCode) -> String {
        match (code, self) {
            (ErrorCode::AccessDenied, _) => format!(
                "the caller's policy must allow \"update\" on {}, and the key must exist",
                self.path()
            ),
            (ErrorCode::Unauthenticated, Self::LogIn { .. }) => {
                "check the role and what it asks for (issuer, audience, subject, lifetime; or the secret id), and that the method is mounted there".into()
            }
            (ErrorCode::Unauthenticated, _) => {
                "the token is unknown or expired; put a fresh one into its file, or check the role's token_ttl".into()
            }
            (ErrorCode::KeyDisabled, _) => {
                "unlock the namespace, or lower the key's min_decryption_version, to allow it again".into()
            }
            (ErrorCode::KeyPendingDeletion, Self::Wrap { key } | Self::Unwrap { key } | Self::Probe { key }) => format!(
                "restore it (bao write -f {}/keys/{}/soft-delete-restore) before it is deleted; after that, what it wrapped is lost",
                key.mount, key.name
            ),
            (ErrorCode::KeyNotFound, _) => "check the key's name, mount and namespace; what a deleted key wrapped is lost, unless it is restored from a backup".into(),
            (ErrorCode::WrongKey, Self::Wrap { .. }) => {
                "the wrap is not used; check the address in the backend's settings".into()
            }
            (ErrorCode::WrongKey, _) => "the blob belongs to another key; nothing was opened".into(),
            (ErrorCode::InvalidCiphertext, _) => {
                "the blob is damaged, or was wrapped under another context or by another key of this name; nothing was opened".into()
            }
            (ErrorCode::Throttled, _) => "try again later; if this goes on, raise the server's quota".into(),
            (ErrorCode::Unavailable | ErrorCode::Timeout, _) => {
                "try again later; if this goes on, check the network, the address and the server's health (bao status)".into()
            }
            (ErrorCode::InvalidConfig, Self::LogIn { .. }) => "correct the key's config or the settings".into(),
            (ErrorCode::InvalidConfig, _) => {
                "correct the key's config, or the key itself: it must be of type aes256-gcm96, chacha20-poly1305 or another with associated data, and not derived".into()
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

    /// The same from an answer with another status than success.
    pub(crate) fn refused(self, answer: &Answer) -> BackendError {
        let errors = answer.errors();
        let meaning = classify(self.asked(), answer.status, errors.as_deref());
        let mut wrong = format!("the server says HTTP {}", answer.status);
        if let Some(errors) = errors.filter(|errors| !errors.is_empty()) {
            // "1 error occurred:\n\t* permission denied\n\n"
            let line = errors.join("; ").split_whitespace().collect::<Vec<_>>().join(" ");
            wrong.push_str(&format!(", \"{}\"", words(&line)));
        }
        let error = self.failed(meaning, wrong);
        match answer.retry_after {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }

    /// The same from an answer that is called a success and makes no sense.
    pub(crate) fn garbled(self, what: &str) -> BackendError {
        self.failed(
            ErrorCode::Unavailable,
            format!("the server gave an answer that cannot be read: {what}"),
        )
    }

    /// The same when there was no answer.
    pub(crate) fn unanswered(self, why: &Unanswered) -> BackendError {
        match why {
            Unanswered::Late => self.failed(ErrorCode::Timeout, "the server gave no answer in time"),
            Unanswered::Unreachable(reason) => self.failed(
                ErrorCode::Unavailable,
                format!("the server cannot be reached: {reason}"),
            ),
            Unanswered::Garbled(reason) => self.garbled(reason),
            Unanswered::Unsendable(reason) => self.failed(
                ErrorCode::InvalidConfig,
                format!("the call could not be sent: {reason}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::WORDS;

    fn key() -> KeyPath {
        KeyPath {
            namespace: Some("team".into()),
            mount: "transit".into(),
            name: "acme".into(),
        }
    }

    fn answer(status: u16, error: &str) -> Answer {
        Answer::for_tests(status, &serde_json::json!({ "errors": [error] }).to_string())
    }

    #[test]
    fn a_refusal_says_what_was_done_to_what_what_is_wrong_and_what_to_do() {
        let key = key();
        let error =
            Doing::Unwrap { key: &key }.refused(&answer(403, "1 error occurred:\n\t* permission denied\n\n"));
        assert_eq!(error.code, ErrorCode::AccessDenied);
        for part in [
            "unwrapping with team/transit/keys/acme",
            "HTTP 403",
            "\"1 error occurred: * permission denied\"",
            "\"update\" on transit/decrypt/acme",
        ] {
            assert!(error.message.contains(part), "{part} is not in: {error}");
        }
    }

    #[test]
    fn everything_that_the_server_is_known_to_say_has_advice() {
        let key = key();
        for (words, meaning) in WORDS {
            let error = Doing::Wrap { key: &key }.refused(&answer(400, words));
            assert_eq!(error.code, *meaning);
            assert!(!error.message.contains("please report"), "{error}");
        }
    }

    #[test]
    fn the_servers_words_are_short_and_paint_nothing() {
        let key = key();
        let error =
            Doing::Wrap { key: &key }.refused(&answer(400, &format!("\u{1b}[31m{}", "x".repeat(10_000))));
        assert!(
            error.message.len() < 1000 && !error.message.contains('\u{1b}'),
            "{error}"
        );
    }
}
