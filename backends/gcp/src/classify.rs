//! Which [`ErrorCode`] an answer of Cloud KMS or of the security token service is. Pure: from the answer's code, its message and
//! the HTTP status alone.

use keystead_backend::ErrorCode;

/// Every status of Cloud KMS that means the same whatever is said beside it. The crate's front page prints it; a test
/// holds the two together.
pub(crate) const STATUSES: &[(&str, ErrorCode)] = &[
    ("NOT_FOUND", ErrorCode::KeyNotFound),
    ("PERMISSION_DENIED", ErrorCode::AccessDenied),
    ("UNAUTHENTICATED", ErrorCode::Unauthenticated),
    ("RESOURCE_EXHAUSTED", ErrorCode::Throttled),
    ("UNAVAILABLE", ErrorCode::Unavailable),
    ("INTERNAL", ErrorCode::Unavailable),
    ("UNKNOWN", ErrorCode::Unavailable),
    ("ABORTED", ErrorCode::Unavailable),
    ("CANCELLED", ErrorCode::Unavailable),
    ("DATA_LOSS", ErrorCode::Unavailable),
    ("DEADLINE_EXCEEDED", ErrorCode::Timeout),
    ("OUT_OF_RANGE", ErrorCode::InvalidConfig),
    ("UNIMPLEMENTED", ErrorCode::InvalidConfig),
];

/// The status whose message has to be read: the version is in a state that does not allow the call.
pub(crate) const PRECONDITION: &str = "FAILED_PRECONDITION";

/// The status whose message has to be read: it is said of a bad blob, of a damaged request and of a wrong config.
pub(crate) const ARGUMENT: &str = "INVALID_ARGUMENT";

/// Every error of the token exchange that has a meaning of its own here (RFC 6749, RFC 8693).
pub(crate) const EXCHANGE: &[(&str, ErrorCode)] = &[
    ("invalid_grant", ErrorCode::Unauthenticated),
    ("invalid_client", ErrorCode::Unauthenticated),
    ("invalid_token", ErrorCode::Unauthenticated),
    ("unauthorized_client", ErrorCode::AccessDenied),
    ("access_denied", ErrorCode::AccessDenied),
    ("invalid_target", ErrorCode::AccessDenied),
    ("invalid_request", ErrorCode::InvalidConfig),
    ("invalid_scope", ErrorCode::InvalidConfig),
    ("unsupported_grant_type", ErrorCode::InvalidConfig),
    ("temporarily_unavailable", ErrorCode::Unavailable),
    ("server_error", ErrorCode::Unavailable),
];

/// Says what an answer of Cloud KMS means: its status by name, its own words, the HTTP status (0 when there was none).
/// `unwrapping` says that a blob was sent.
pub(crate) fn classify(status: Option<&str>, message: &str, http_status: u16, unwrapping: bool) -> ErrorCode {
    match status {
        Some(PRECONDITION) => by_state(message),
        Some(ARGUMENT) => by_argument(message, unwrapping),
        Some(status) => match STATUSES.iter().find(|(known, _)| *known == status) {
            Some((_, meaning)) => *meaning,
            None => by_http_status(http_status),
        },
        None => by_http_status(http_status),
    }
}

/// Says what an error of the token exchange means.
pub(crate) fn classify_exchange(error: Option<&str>, http_status: u16) -> ErrorCode {
    let known = error.and_then(|error| EXCHANGE.iter().find(|(known, _)| *known == error));
    known.map_or_else(|| by_http_status(http_status), |(_, meaning)| *meaning)
}

/// `FAILED_PRECONDITION` has many causes; only the text tells which.
///
/// Unknown text reads as [`ErrorCode::KeyDisabled`]: every state that an owner can set on purpose is a way of taking
/// the key away, and taking that for an outage would go on serving from the cache.
fn by_state(message: &str) -> ErrorCode {
    // What stands before has the key's name in it, and a key may be called DESTROYED.
    let state = message
        .rsplit_once("state is")
        .map_or(message, |(_, state)| state)
        .trim_matches(|c: char| !c.is_ascii_alphabetic());
    match state {
        "DESTROY_SCHEDULED" | "PENDING_EXTERNAL_DESTRUCTION" => ErrorCode::KeyPendingDeletion,
        "DESTROYED" => ErrorCode::KeyNotFound,
        // Comes by itself.
        "PENDING_GENERATION" => ErrorCode::Unavailable,
        _ => ErrorCode::KeyDisabled,
    }
}

fn by_argument(message: &str, unwrapping: bool) -> ErrorCode {
    if message.contains("checksum") || message.contains("crc32c") {
        // What arrived is not what was sent: damaged on the way, and worth another attempt.
        ErrorCode::Unavailable
    } else if unwrapping && message.contains("refers to the correct CryptoKey") {
        ErrorCode::WrongKey
    } else if unwrapping {
        ErrorCode::InvalidCiphertext
    } else {
        ErrorCode::InvalidConfig
    }
}

fn by_http_status(http_status: u16) -> ErrorCode {
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
    fn every_row_of_the_tables_is_what_classify_says() {
        for (status, meaning) in STATUSES {
            // The HTTP status must not matter for a known status.
            for http_status in [400, 403, 500] {
                for unwrapping in [true, false] {
                    assert_eq!(
                        classify(Some(status), "", http_status, unwrapping),
                        *meaning,
                        "{status} with HTTP {http_status}"
                    );
                }
            }
        }
        for (error, meaning) in EXCHANGE {
            assert_eq!(classify_exchange(Some(error), 400), *meaning, "{error}");
        }
    }

    #[test]
    fn the_front_page_names_every_row_with_its_meaning() {
        let page = include_str!("lib.rs");
        for (code, meaning) in STATUSES.iter().chain(EXCHANGE) {
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
    fn a_state_is_read_from_the_message_and_not_from_the_keys_name() {
        let version = "projects/p/locations/global/keyRings/DESTROYED/cryptoKeys/k/cryptoKeyVersions/1";
        let meaning = |state: &str| {
            let message = format!("{version} is not enabled, current state is: {state}.");
            classify(Some(PRECONDITION), &message, 400, true)
        };
        assert_eq!(meaning("DISABLED"), ErrorCode::KeyDisabled);
        assert_eq!(meaning("DESTROY_SCHEDULED"), ErrorCode::KeyPendingDeletion);
        assert_eq!(
            meaning("PENDING_EXTERNAL_DESTRUCTION"),
            ErrorCode::KeyPendingDeletion
        );
        assert_eq!(meaning("DESTROYED"), ErrorCode::KeyNotFound);
        assert_eq!(meaning("PENDING_GENERATION"), ErrorCode::Unavailable);
        assert_eq!(meaning("PENDING_IMPORT"), ErrorCode::KeyDisabled);
        assert_eq!(meaning("SOMETHING_NEW"), ErrorCode::KeyDisabled);
        assert_eq!(
            classify(Some(PRECONDITION), "the key has no primary version", 400, false),
            ErrorCode::KeyDisabled
        );
    }

    #[test]
    fn an_argument_that_is_wrong_is_the_blob_the_wire_or_the_config() {
        let meaning = |message, unwrapping| classify(Some(ARGUMENT), message, 400, unwrapping);
        assert_eq!(
            meaning("Decryption failed: the ciphertext is invalid.", true),
            ErrorCode::InvalidCiphertext
        );
        assert_eq!(
            meaning(
                "Decryption failed: verify that 'name' refers to the correct CryptoKey.",
                true
            ),
            ErrorCode::WrongKey
        );
        for unwrapping in [true, false] {
            assert_eq!(
                meaning("The checksum in field x_crc32c did not match.", unwrapping),
                ErrorCode::Unavailable
            );
        }
        assert_eq!(meaning("the purpose is wrong", false), ErrorCode::InvalidConfig);
    }

    #[test]
    fn an_unknown_or_missing_status_is_judged_by_http() {
        for status in [None, Some("SOMETHING_NEW")] {
            for (http_status, meaning) in [
                (401, ErrorCode::Unauthenticated),
                (403, ErrorCode::AccessDenied),
                (408, ErrorCode::Timeout),
                (429, ErrorCode::Throttled),
                (500, ErrorCode::Unavailable),
                (503, ErrorCode::Unavailable),
                (400, ErrorCode::Internal),
                (0, ErrorCode::Internal),
            ] {
                assert_eq!(classify(status, "", http_status, true), meaning);
                assert_eq!(classify_exchange(status, http_status), meaning);
            }
        }
    }
}
