//! Which [`ErrorCode`] an answer of KMS or STS is. Pure: from the error's code, its message and the HTTP status alone.

use keystead_backend::ErrorCode;

/// Every error code of KMS and STS that has a meaning of its own here, with that meaning. The crate's front page
/// prints it; a test holds the two together.
pub(crate) const CODES: &[(&str, ErrorCode)] = &[
    // the key's state
    ("DisabledException", ErrorCode::KeyDisabled),
    ("NotFoundException", ErrorCode::KeyNotFound),
    // who asks, and whether that one may
    ("AccessDeniedException", ErrorCode::AccessDenied),
    ("AccessDenied", ErrorCode::AccessDenied),
    ("NotAuthorized", ErrorCode::AccessDenied),
    ("OptInRequired", ErrorCode::AccessDenied),
    ("UnrecognizedClientException", ErrorCode::Unauthenticated),
    ("InvalidClientTokenId", ErrorCode::Unauthenticated),
    ("InvalidAccessKeyId", ErrorCode::Unauthenticated),
    ("ExpiredToken", ErrorCode::Unauthenticated),
    ("ExpiredTokenException", ErrorCode::Unauthenticated),
    ("RequestExpired", ErrorCode::Unauthenticated),
    ("InvalidIdentityToken", ErrorCode::Unauthenticated),
    ("IDPRejectedClaim", ErrorCode::Unauthenticated),
    ("InvalidSignatureException", ErrorCode::Unauthenticated),
    ("SignatureDoesNotMatch", ErrorCode::Unauthenticated),
    ("IncompleteSignature", ErrorCode::Unauthenticated),
    ("IncompleteSignatureException", ErrorCode::Unauthenticated),
    ("MissingAuthenticationToken", ErrorCode::Unauthenticated),
    ("MissingAuthenticationTokenException", ErrorCode::Unauthenticated),
    // the blob
    ("InvalidCiphertextException", ErrorCode::InvalidCiphertext),
    ("IncorrectKeyException", ErrorCode::WrongKey),
    // what was asked
    ("InvalidArnException", ErrorCode::InvalidConfig),
    ("InvalidKeyUsageException", ErrorCode::InvalidConfig),
    ("UnsupportedOperationException", ErrorCode::InvalidConfig),
    ("InvalidGrantTokenException", ErrorCode::InvalidConfig),
    ("ValidationException", ErrorCode::InvalidConfig),
    ("ValidationError", ErrorCode::InvalidConfig),
    ("InvalidParameterValue", ErrorCode::InvalidConfig),
    ("RegionDisabledException", ErrorCode::InvalidConfig),
    // load
    ("Throttling", ErrorCode::Throttled),
    ("ThrottlingException", ErrorCode::Throttled),
    ("ThrottledException", ErrorCode::Throttled),
    ("TooManyRequestsException", ErrorCode::Throttled),
    ("RequestLimitExceeded", ErrorCode::Throttled),
    ("RequestThrottled", ErrorCode::Throttled),
    ("LimitExceededException", ErrorCode::Throttled),
    ("SlowDown", ErrorCode::Throttled),
    // illness
    ("DependencyTimeoutException", ErrorCode::Unavailable),
    ("KMSInternalException", ErrorCode::Unavailable),
    ("KeyUnavailableException", ErrorCode::Unavailable),
    ("InternalFailure", ErrorCode::Unavailable),
    ("InternalServerError", ErrorCode::Unavailable),
    ("InternalError", ErrorCode::Unavailable),
    ("ServiceUnavailable", ErrorCode::Unavailable),
    ("ServiceUnavailableException", ErrorCode::Unavailable),
    ("IDPCommunicationError", ErrorCode::Unavailable),
    ("RequestTimeout", ErrorCode::Timeout),
    ("RequestTimeoutException", ErrorCode::Timeout),
];

/// The code that says that a dry run would have succeeded.
pub(crate) const DRY_RUN_SUCCEEDED: &str = "DryRunOperationException";

/// The code whose message has to be read: the key is in a state that does not allow the call.
pub(crate) const INVALID_STATE: &str = "KMSInvalidStateException";

/// Says what an answer means.
///
/// `code` is the error's code without namespace, `message` KMS's own text, `http_status` the answer's status (0 when
/// there was none).
pub(crate) fn classify(code: Option<&str>, message: &str, http_status: u16) -> ErrorCode {
    match code {
        Some(INVALID_STATE) => by_state(message),
        Some(code) => match CODES.iter().find(|(known, _)| *known == code) {
            Some((_, meaning)) => *meaning,
            None => by_status(http_status),
        },
        None => by_status(http_status),
    }
}

/// `KMSInvalidStateException` has many causes; only the text tells which.
///
/// Unknown text reads as [`ErrorCode::KeyDisabled`]: every state that an owner can set on purpose is a way of taking
/// the key away, and taking that for an outage would go on serving from the cache.
fn by_state(message: &str) -> ErrorCode {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&[
        "pending deletion",
        "pendingdeletion",
        "pending replica deletion",
        "pendingreplicadeletion",
    ]) {
        ErrorCode::KeyPendingDeletion
    } else if says(&[
        "unavailable",
        "creating",
        "updating",
        "not connected",
        "disconnected",
    ]) {
        // A custom key store that is cut off, or a replica that is not there yet: comes back by itself.
        ErrorCode::Unavailable
    } else {
        ErrorCode::KeyDisabled
    }
}

fn by_status(http_status: u16) -> ErrorCode {
    match http_status {
        401 => ErrorCode::Unauthenticated,
        403 => ErrorCode::AccessDenied,
        408 => ErrorCode::Timeout,
        429 => ErrorCode::Throttled,
        500..=599 => ErrorCode::Unavailable,
        _ => ErrorCode::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_what_classify_says() {
        for (code, meaning) in CODES {
            // The status must not matter for a known code: AWS sends most of these with 400.
            for status in [400, 403, 500] {
                assert_eq!(
                    classify(Some(code), "", status),
                    *meaning,
                    "{code} with HTTP {status}"
                );
            }
        }
    }

    #[test]
    fn no_code_stands_in_the_table_twice() {
        for (index, (code, _)) in CODES.iter().enumerate() {
            assert!(
                !CODES[..index].iter().any(|(earlier, _)| earlier == code),
                "{code} stands there twice"
            );
        }
    }

    #[test]
    fn the_front_page_names_every_code_with_its_meaning() {
        let page = include_str!("lib.rs");
        for (code, meaning) in CODES {
            let row = page
                .lines()
                .find(|line| line.starts_with("//! | ") && line.contains(&format!("`{code}`")));
            let row = row.unwrap_or_else(|| panic!("the table in lib.rs has no row for {code}"));
            assert!(
                row.contains(&format!("`{meaning:?}`")),
                "{code} is {meaning:?}, but its row says: {row}"
            );
        }
    }

    #[test]
    fn an_invalid_state_is_told_apart_by_its_text() {
        let arn = "arn:aws:kms:eu-west-1:111122223333:key/0e1f";
        let meaning = |text: &str| classify(Some(INVALID_STATE), &format!("{arn} is {text}."), 400);
        assert_eq!(meaning("pending deletion"), ErrorCode::KeyPendingDeletion);
        assert_eq!(meaning("pending replica deletion"), ErrorCode::KeyPendingDeletion);
        assert_eq!(meaning("in state PendingDeletion"), ErrorCode::KeyPendingDeletion);
        assert_eq!(meaning("unavailable"), ErrorCode::Unavailable);
        assert_eq!(meaning("creating"), ErrorCode::Unavailable);
        assert_eq!(meaning("updating"), ErrorCode::Unavailable);
        assert_eq!(meaning("disabled"), ErrorCode::KeyDisabled);
        assert_eq!(meaning("pending import"), ErrorCode::KeyDisabled);
        assert_eq!(
            meaning("in a state that nobody has heard of"),
            ErrorCode::KeyDisabled
        );
    }

    #[test]
    fn an_unknown_or_missing_code_is_judged_by_the_status() {
        for code in [None, Some("SomethingNewException")] {
            assert_eq!(classify(code, "", 401), ErrorCode::Unauthenticated);
            assert_eq!(classify(code, "", 403), ErrorCode::AccessDenied);
            assert_eq!(classify(code, "", 408), ErrorCode::Timeout);
            assert_eq!(classify(code, "", 429), ErrorCode::Throttled);
            assert_eq!(classify(code, "", 500), ErrorCode::Unavailable);
            assert_eq!(classify(code, "", 503), ErrorCode::Unavailable);
            assert_eq!(classify(code, "", 400), ErrorCode::Internal);
            assert_eq!(classify(code, "", 0), ErrorCode::Internal);
        }
    }
}
