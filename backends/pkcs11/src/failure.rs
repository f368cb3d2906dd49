//! From a token's answers to errors for people.

use cryptoki::error::{Error, RvError};
use keystead_backend::{BackendError, ErrorCode};
use keystead_backend_common::words;

use crate::classify::{classify, name};

/// Why a piece of work with a token failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The token, or the way to it, said so.
    Token(Error),
    /// This backend said so; the session is as good as before.
    Ours(BackendError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Token(error)
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        Self::Ours(error)
    }
}

/// What was being done when it failed: says the object and knows what to advise.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Doing<'a> {
    Wrap { key: &'a str },
    Unwrap { key: &'a str },
    Look { key: &'a str },
}

impl Doing<'_> {
    /// Begins a message.
    pub(crate) fn what(self) -> String {
        match self {
            Self::Wrap { key } => format!("wrapping with {key}"),
            Self::Unwrap { key } => format!("unwrapping with {key}"),
            Self::Look { key } => format!("looking at {key}"),
        }
    }

    fn advice(self, code: ErrorCode) -> &'static str {
        match code {
            ErrorCode::KeyDisabled => {
                "the key's attributes do not allow this use: CKA_ENCRYPT and CKA_DECRYPT for AES-GCM, CKA_WRAP and CKA_UNWRAP for AES key wrap"
            }
            ErrorCode::KeyNotFound => {
                "check the labels in the key's config, and that the key is an AES key that this user may see; a key that was deleted from the token takes what it wrapped with it"
            }
            ErrorCode::Unauthenticated => {
                "check the user PIN in the source that the settings name, and the token's state; a wrong PIN is not tried again, lest the token lock it"
            }
            ErrorCode::AccessDenied => "the token's own rules refuse it; ask its administrator",
            ErrorCode::InvalidCiphertext => {
                "the blob is damaged, was wrapped under another context, or the key was replaced; nothing was opened"
            }
            ErrorCode::WrongKey => "the blob belongs to another key; nothing was opened",
            ErrorCode::InvalidConfig => {
                "check the key's config (mechanism), the settings (module, tokens, gcm_iv), and what the token offers"
            }
            ErrorCode::Throttled => "the token has no session left; lower sessions_max, or try again later",
            ErrorCode::Unavailable | ErrorCode::Timeout => {
                "try again later; if this goes on, check that the token is there and that its vendor's library reaches it"
            }
            ErrorCode::Cancelled => "try again",
            _ => "please report this",
        }
    }

    /// An error of this kind: what was being done, what is wrong, what to do.
    pub(crate) fn failed(self, code: ErrorCode, wrong: impl AsRef<str>) -> BackendError {
        BackendError::new(
            code,
            format!("{}: {}; {}", self.what(), wrong.as_ref(), self.advice(code)),
        )
    }

    /// The same from what the token or its library said.
    pub(crate) fn token_failed(self, error: &Error) -> BackendError {
        match error {
            Error::Pkcs11(answer, function) => self.failed(
                classify(*answer),
                format!("the token says {} to C_{function:?}", name(*answer)),
            ),
            Error::LibraryLoading(error) => self.failed(
                ErrorCode::InvalidConfig,
                format!(
                    "the PKCS#11 module cannot be loaded: {}",
                    words(&error.to_string())
                ),
            ),
            Error::MissingSymbol(symbol) => self.failed(
                ErrorCode::InvalidConfig,
                format!("the module of the settings is no PKCS#11 library: it has no {symbol}"),
            ),
            Error::NullFunctionPointer | Error::NotSupported => self.failed(
                ErrorCode::InvalidConfig,
                "the PKCS#11 module lacks a function that is needed",
            ),
            other => self.failed(
                ErrorCode::Internal,
                format!(
                    "the PKCS#11 module answered senselessly: {}",
                    words(&other.to_string())
                ),
            ),
        }
    }

    pub(crate) fn failure(self, failure: Failure) -> BackendError {
        match failure {
            Failure::Ours(error) => error,
            Failure::Token(error) => self.token_failed(&error),
        }
    }
}

/// True for answers that say that the PIN itself is wrong.
pub(crate) fn refuses_the_pin(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange,
            _
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::ANSWERS;
    use cryptoki::context::Function;

    #[test]
    fn a_failure_says_what_was_done_to_what_what_is_wrong_and_what_to_do() {
        let doing = Doing::Unwrap {
            key: "pkcs11:token=acme;object=cmk",
        };
        let error = doing.token_failed(&Error::Pkcs11(
            RvError::KeyFunctionNotPermitted,
            Function::DecryptInit,
        ));
        assert_eq!(error.code, ErrorCode::KeyDisabled);
        for part in [
            "unwrapping with pkcs11:token=acme;object=cmk",
            "CKR_KEY_FUNCTION_NOT_PERMITTED to C_DecryptInit",
            "CKA_DECRYPT",
        ] {
            assert!(error.message.contains(part), "{part} is not in: {error}");
        }
    }

    #[test]
    fn every_answer_that_is_known_has_advice() {
        for (answer, name, meaning) in ANSWERS {
            let error = Doing::Wrap { key: "k" }.token_failed(&Error::Pkcs11(*answer, Function::Encrypt));
            assert_eq!(error.code, *meaning);
            assert!(
                error.message.contains(name) && !error.message.contains("please report"),
                "{error}"
            );
        }
    }
}
