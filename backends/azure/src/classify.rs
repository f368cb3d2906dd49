//! Which [`ErrorCode`] an answer of a vault or of Entra ID is. Pure: from the error's code and the HTTP status alone.

use keystead_backend::ErrorCode;

/// Every error code of Key Vault and Managed HSM that has a meaning of its own here, with that meaning: the code of the
/// `innererror` where there is one, else that of the `error`. The crate's front page prints it; a test holds the two together.
pub(crate) const VAULT_CODES: &[(&str, ErrorCode)] = &[
    // the key's state
    ("KeyDisabled", ErrorCode::KeyDisabled),
    ("KeyExpired", ErrorCode::KeyDisabled),
    ("KeyNotYetValid", ErrorCode::KeyDisabled),
    ("KeyNotFound", ErrorCode::KeyNotFound),
    ("VaultNotFound", ErrorCode::KeyNotFound),
    ("ObjectIsDeletedButRecoverable", ErrorCode::KeyPendingDeletion),
    ("ObjectIsBeingDeleted", ErrorCode::KeyPendingDeletion),
    ("ObjectIsBeingRecovered", ErrorCode::Unavailable),
    // who asks, and whether that one may
    ("Unauthorized", ErrorCode::Unauthenticated),
    ("Forbidden", ErrorCode::AccessDenied),
    ("AccessDenied", ErrorCode::AccessDenied),
    ("ForbiddenByPolicy", ErrorCode::AccessDenied),
    ("ForbiddenByRbac", ErrorCode::AccessDenied),
    ("ForbiddenByFirewall", ErrorCode::AccessDenied),
    ("ForbiddenByConnection", ErrorCode::AccessDenied),
    ("KeyOperationForbidden", ErrorCode::AccessDenied),
    // load
    ("Throttled", ErrorCode::Throttled),
    ("TooManyRequests", ErrorCode::Throttled),
    // illness
    ("InternalServerError", ErrorCode::Unavailable),
    ("ServiceUnavailable", ErrorCode::Unavailable),
    ("ServerBusy", ErrorCode::Unavailable),
    ("RequestTimeout", ErrorCode::Timeout),
];

/// The code of a vault that does not like the parameters. What that means depends on the call: see [`vault`].
pub(crate) const BAD_PARAMETER: &str = "BadParameter";

/// Every error of Entra ID that has a meaning of its own here, by its number (`AADSTS…`), with that meaning.
pub(crate) const ENTRA_CODES: &[(u32, ErrorCode)] = &[
    // the application, or its proof, is not accepted
    (7000215, ErrorCode::Unauthenticated), // wrong client secret
    (7000222, ErrorCode::Unauthenticated), // expired client secret
    (700016, ErrorCode::Unauthenticated),  // no such application in the tenant
    (7000112, ErrorCode::Unauthenticated), // the application is disabled
    (7000229, ErrorCode::Unauthenticated), // no service principal in the tenant
    (90002, ErrorCode::Unauthenticated),   // no such tenant
    (50027, ErrorCode::Unauthenticated),   // not a token
    (700024, ErrorCode::Unauthenticated),  // token expired, or not valid yet
    (700027, ErrorCode::Unauthenticated),  // signature of the token
    (70021, ErrorCode::Unauthenticated),   // no federated credential fits
    (70025, ErrorCode::Unauthenticated),   // the identity has no federated credential
    (700211, ErrorCode::Unauthenticated),  // none for the token's issuer
    (700212, ErrorCode::Unauthenticated),  // none for its audience
    (700213, ErrorCode::Unauthenticated),  // none for its subject
    // it is known, and refused
    (53003, ErrorCode::AccessDenied), // conditional access
    (65001, ErrorCode::AccessDenied), // no consent
    // what was asked
    (900023, ErrorCode::InvalidConfig), // no name of a tenant
    (500011, ErrorCode::InvalidConfig), // the vault's service is not in the tenant
    // load and illness
    (90055, ErrorCode::Throttled),
    (50196, ErrorCode::Throttled),
    (90006, ErrorCode::Unavailable),
    (90024, ErrorCode::Unavailable),
    (90033, ErrorCode::Unavailable),
    (50033, ErrorCode::Unavailable),
    (90012, ErrorCode::Timeout),
];

/// What a vault's answer means. `opening` is true for an unwrap: there, bad parameters are a blob that does not open; elsewhere
/// they are an algorithm that the key does not have.
pub(crate) fn vault(code: Option<&str>, http_status: u16, opening: bool) -> ErrorCode {
    match code {
        Some(BAD_PARAMETER) if opening => ErrorCode::InvalidCiphertext,
        Some(BAD_PARAMETER) => ErrorCode::InvalidConfig,
        Some(code) => match VAULT_CODES.iter().find(|(known, _)| *known == code) {
            Some((_, meaning)) => *meaning,
            None => by_status(http_status),
        },
        None => by_status(http_status),
    }
}

/// What an answer of Entra ID means. Its numbers may change at any time, says Microsoft: one that is not known is judged by the
/// status, where 400 and 401 are a refusal.
pub(crate) fn entra(code: Option<u32>, http_status: u16) -> ErrorCode {
    let known = code.and_then(|code| ENTRA_CODES.iter().find(|(known, _)| *known == code));
    match (known, http_status) {
        (Some((_, meaning)), _) => *meaning,
        (None, 400) => ErrorCode::Unauthenticated,
        (None, status) => by_status(status),
    }
}

fn by_status(http_status: u16) -> ErrorCode {
    match http_status {
        401 => ErrorCode::Unauthenticated,
        403 => ErrorCode::AccessDenied,
        404 => ErrorCode::KeyNotFound,
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
        for (code, meaning) in VAULT_CODES {
            // The status must not matter for a known code.
            for status in [400, 403, 500] {
                assert_eq!(vault(Some(code), status, true), *meaning, "{code} {status}");
            }
        }
        for (code, meaning) in ENTRA_CODES {
            for status in [400, 401, 500] {
                assert_eq!(entra(Some(*code), status), *meaning, "{code} {status}");
            }
        }
    }

    #[test]
    fn no_code_stands_in_the_tables_twice() {
        for (index, (code, _)) in VAULT_CODES.iter().enumerate() {
            assert!(VAULT_CODES[..index].iter().all(|(earlier, _)| earlier != code));
        }
        for (index, (code, _)) in ENTRA_CODES.iter().enumerate() {
            assert!(ENTRA_CODES[..index].iter().all(|(earlier, _)| earlier != code));
        }
    }

    #[test]
    fn the_front_page_names_every_code_with_its_meaning() {
        let page = include_str!("lib.rs");
        let vault = VAULT_CODES
            .iter()
            .map(|(code, meaning)| (format!("`{code}`"), *meaning));
        let entra = ENTRA_CODES
            .iter()
            .map(|(code, meaning)| (format!("`AADSTS{code}`"), *meaning));
        for (code, meaning) in vault.chain(entra) {
            let row = page
                .lines()
                .find(|line| line.starts_with("//! | ") && line.contains(&code));
            let row = row.unwrap_or_else(|| panic!("the table in lib.rs has no row for {code}"));
            assert!(
                row.contains(&format!("`{meaning:?}`")),
                "{code} is {meaning:?}, but its row says: {row}"
            );
        }
    }

    #[test]
    fn bad_parameters_are_a_blob_that_does_not_open_or_a_key_that_cannot() {
        assert_eq!(
            vault(Some(BAD_PARAMETER), 400, true),
            ErrorCode::InvalidCiphertext
        );
        assert_eq!(vault(Some(BAD_PARAMETER), 400, false), ErrorCode::InvalidConfig);
    }

    #[test]
    fn an_unknown_or_missing_code_is_judged_by_the_status() {
        for code in [None, Some("SomethingNew")] {
            for (status, meaning) in [
                (401, ErrorCode::Unauthenticated),
                (403, ErrorCode::AccessDenied),
                (404, ErrorCode::KeyNotFound),
                (408, ErrorCode::Timeout),
                (429, ErrorCode::Throttled),
                (500, ErrorCode::Unavailable),
                (503, ErrorCode::Unavailable),
                (400, ErrorCode::Internal),
                (302, ErrorCode::Internal),
            ] {
                assert_eq!(vault(code, status, true), meaning, "{code:?} {status}");
            }
        }
        for code in [None, Some(1)] {
            for (status, meaning) in [
                (400, ErrorCode::Unauthenticated),
                (401, ErrorCode::Unauthenticated),
                (429, ErrorCode::Throttled),
                (503, ErrorCode::Unavailable),
            ] {
                assert_eq!(entra(code, status), meaning, "{code:?} {status}");
            }
        }
    }
}
