//! Which [`ErrorCode`] an answer of OpenBao or Vault is. Pure: from what was asked, the HTTP status, and the errors in the answer.

use keystead_backend::ErrorCode;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A use of the key, or something about the token that is used.
    Key,
    /// A token, in exchange for an identity.
    Login,
}

/// Words by which an answer is known, whatever else it says, in lower case. The first that is found decides. The crate's front
/// page prints them; a test holds the two together.
pub(crate) const WORDS: &[(&str, ErrorCode)] = &[
    // the key's state
    ("encryption key not found", ErrorCode::KeyNotFound),
    ("no handler for route", ErrorCode::KeyNotFound),
    ("namespace not found", ErrorCode::KeyNotFound),
    ("disallowed by policy", ErrorCode::KeyDisabled),
    ("locked by an administrator", ErrorCode::KeyDisabled),
    ("soft-deleted key", ErrorCode::KeyPendingDeletion),
    // the blob
    ("message authentication failed", ErrorCode::InvalidCiphertext),
    ("invalid ciphertext", ErrorCode::InvalidCiphertext),
    // who asks
    ("invalid token", ErrorCode::Unauthenticated),
    ("missing client token", ErrorCode::Unauthenticated),
    // what was asked
    ("non-aead cipher suite", ErrorCode::InvalidConfig),
    ("not supported for key type", ErrorCode::InvalidConfig),
    ("missing 'context' for key derivation", ErrorCode::InvalidConfig),
    ("unsupported operation", ErrorCode::InvalidConfig),
    // illness and load
    ("rate limit quota exceeded", ErrorCode::Throttled),
    ("lease count quota exceeded", ErrorCode::Throttled),
    ("sealed", ErrorCode::Unavailable),
    ("fetching keys", ErrorCode::Unavailable),
];

/// Says what an answer means. `errors` is the list in the answer's JSON, `None` when the answer is not of that form: then
/// something else answered, such as a proxy.
pub(crate) fn classify(asked: Asked, status: u16, errors: Option<&[String]>) -> ErrorCode {
    if let Some(errors) = errors {
        let said = errors.join("\n").to_ascii_lowercase();
        if let Some((_, meaning)) = WORDS.iter().find(|(words, _)| said.contains(words)) {
            return *meaning;
        }
        match (asked, status) {
            // An identity that is refused is answered with 400, and a way to log in that is not there with 403.
            (Asked::Login, 400..=404) => return ErrorCode::Unauthenticated,
            // A token that is unknown or expired. A policy's refusal comes as a list: "1 error occurred: * permission denied".
            (_, 403) if said.trim() == "permission denied" => return ErrorCode::Unauthenticated,
            (_, 404) => return ErrorCode::KeyNotFound,
            _ => {}
        }
    }
    match status {
        401 => ErrorCode::Unauthenticated,
        403 => ErrorCode::AccessDenied,
        405 => ErrorCode::InvalidConfig,
        408 => ErrorCode::Timeout,
        429 => ErrorCode::Throttled,
        // 412: a follower that lags behind; 472 and 473: a standby.
        300..=399 | 404 | 412 | 472 | 473 | 500..=599 => ErrorCode::Unavailable,
        _ => ErrorCode::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(asked: Asked, status: u16, errors: &[&str]) -> ErrorCode {
        let errors: Vec<String> = errors.iter().map(|&error| error.to_owned()).collect();
        classify(asked, status, Some(&errors))
    }

    #[test]
    fn every_row_of_the_table_is_what_classify_says() {
        for (words, meaning) in WORDS {
            for status in [400, 404, 500, 503] {
                let error = format!("1 error occurred:\n\t* {words}: and more\n\n");
                assert_eq!(said(Asked::Key, status, &[&error]), *meaning, "{words}");
            }
        }
    }

    #[test]
    fn the_front_page_names_all_words_with_their_meaning() {
        let page = include_str!("lib.rs");
        for (words, meaning) in WORDS {
            let row = page.lines().find(|line| {
                line.starts_with("//! | ") && line.to_ascii_lowercase().contains(&format!("\"{words}\""))
            });
            let row = row.unwrap_or_else(|| panic!("the table in lib.rs has no row for \"{words}\""));
            assert!(
                row.contains(&format!("`{meaning:?}`")),
                "\"{words}\" is {meaning:?}, but its row says: {row}"
            );
        }
    }

    #[test]
    fn a_token_that_is_refused_is_told_apart_from_a_policy_that_refuses() {
        assert_eq!(
            said(Asked::Key, 403, &["permission denied"]),
            ErrorCode::Unauthenticated
        );
        assert_eq!(
            said(
                Asked::Key,
                403,
                &["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]
            ),
            ErrorCode::Unauthenticated
        );
        assert_eq!(
            said(Asked::Key, 403, &["1 error occurred:\n\t* permission denied\n\n"]),
            ErrorCode::AccessDenied
        );
    }

    #[test]
    fn an_identity_that_is_refused_is_unauthenticated_whatever_the_reason() {
        for (status, error) in [
            (400, "error validating token: invalid audience (aud) claim"),
            (400, "role \"nobody\" could not be found"),
            (400, "invalid role or secret ID"),
            (403, "permission denied"),
        ] {
            assert_eq!(said(Asked::Login, status, &[error]), ErrorCode::Unauthenticated);
        }
        assert_eq!(
            said(
                Asked::Login,
                400,
                &["error verifying token signature: fetching keys oidc: refused"]
            ),
            ErrorCode::Unavailable
        );
    }

    #[test]
    fn a_namespace_that_its_owner_locked_is_no_outage_and_a_sealed_server_is_one() {
        let locked =
            "API access to this namespace has been locked by an administrator - \"team/\" must be unlocked";
        assert_eq!(said(Asked::Key, 503, &[locked]), ErrorCode::KeyDisabled);
        assert_eq!(said(Asked::Login, 503, &[locked]), ErrorCode::KeyDisabled);
        assert_eq!(
            said(Asked::Key, 503, &["Vault is sealed"]),
            ErrorCode::Unavailable
        );
    }

    #[test]
    fn other_answers_are_judged_by_their_status() {
        for (status, meaning) in [
            (307, ErrorCode::Unavailable),
            (400, ErrorCode::Internal),
            (401, ErrorCode::Unauthenticated),
            (403, ErrorCode::AccessDenied),
            (404, ErrorCode::KeyNotFound),
            (405, ErrorCode::InvalidConfig),
            (408, ErrorCode::Timeout),
            (412, ErrorCode::Unavailable),
            (418, ErrorCode::Internal),
            (429, ErrorCode::Throttled),
            (472, ErrorCode::Unavailable),
            (473, ErrorCode::Unavailable),
            (500, ErrorCode::Unavailable),
            (503, ErrorCode::Unavailable),
        ] {
            assert_eq!(said(Asked::Key, status, &["something new"]), meaning, "{status}");
            assert_eq!(said(Asked::Key, status, &[]), meaning, "{status}");
        }
    }

    #[test]
    fn what_something_else_answers_never_says_that_the_key_is_gone() {
        assert_eq!(classify(Asked::Key, 404, None), ErrorCode::Unavailable);
        assert_eq!(classify(Asked::Login, 404, None), ErrorCode::Unavailable);
        assert_eq!(classify(Asked::Key, 403, None), ErrorCode::AccessDenied);
        assert_eq!(classify(Asked::Key, 502, None), ErrorCode::Unavailable);
    }
}
