//! Errors that do not repeat what a service was sent in confidence, should it, or something that stands before it, have done so.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use keystead_backend::BackendError;
use zeroize::Zeroizing;

/// So many characters of a secret in a row are no chance. A message has a part of the service's words alone, which may begin or end
/// within the secret.
const RUN_BYTES: usize = 12;

/// What is shorter than this is met by chance.
const SECRET_MIN_BYTES: usize = 8;

/// The same error, or, if a part of the secret stands in its words (as text, in base64 or in hexadecimal), one without them.
///
/// `doing` leads the message then, `secret` is what was sent, `what` its name for people, such as "the client secret". For the errors of the
/// calls that sent it: this costs nothing where nothing fails.
///
/// # Examples
///
/// ```
/// use keystead_backend::{BackendError, ErrorCode};
/// use keystead_backend_common::without_secret;
///
/// let said = BackendError::new(ErrorCode::InvalidConfig, "the value c2VjcmV0LWtleS1vZi1hY21l is not valid");
/// let error = without_secret(said, "wrapping with acme", b"secret-key-of-acme", "the key");
/// assert!(error.code == ErrorCode::InvalidConfig && !error.message.contains("c2Vj"));
/// ```
#[must_use]
pub fn without_secret(mut error: BackendError, doing: &str, secret: &[u8], what: &str) -> BackendError {
    if repeats(&error.message, secret) {
        error.message =
            format!("{doing}: the service refused, with words that repeat {what} and are left out here");
    }
    error
}

fn repeats(message: &str, secret: &[u8]) -> bool {
    let hex = || {
        let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
        Zeroizing::new(secret.iter().flat_map(digits).collect::<Vec<u8>>())
    };
    let in_base64 = |engine: &dyn Fn() -> String| Zeroizing::new(engine().into_bytes());
    // Digits in either case.
    let lower = message.to_ascii_lowercase();
    has_a_run_of(message, secret)
        || has_a_run_of(message, &in_base64(&|| STANDARD_NO_PAD.encode(secret)))
        || has_a_run_of(message, &in_base64(&|| URL_SAFE_NO_PAD.encode(secret)))
        || has_a_run_of(&lower, &hex())
}

/// Whether so many bytes of `secret` in a row stand in the message.
pub(crate) fn has_a_run_of(message: &str, secret: &[u8]) -> bool {
    let message = message.as_bytes();
    secret.len() >= SECRET_MIN_BYTES
        && secret
            .windows(RUN_BYTES.min(secret.len()))
            .any(|run| message.windows(run.len()).any(|part| part == run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_backend::ErrorCode;

    const SECRET: &[u8] = b"~8Q.correct-horse_battery?staple";

    fn after(message: &str) -> BackendError {
        without_secret(
            BackendError::new(ErrorCode::Unauthenticated, message),
            "signing in",
            SECRET,
            "the client secret",
        )
    }

    #[test]
    fn words_that_repeat_a_secret_in_any_form_whole_or_cut_are_left_out() {
        let text = String::from_utf8(SECRET.to_vec()).unwrap();
        let hex: String = SECRET.iter().map(|byte| format!("{byte:02X}")).collect();
        for said in [
            text.clone(),
            text[3..20].to_owned(),
            STANDARD_NO_PAD.encode(SECRET),
            STANDARD_NO_PAD.encode(SECRET)[..16].to_owned(),
            URL_SAFE_NO_PAD.encode(SECRET),
            hex[10..30].to_owned(),
            hex.to_lowercase(),
        ] {
            let error = after(&format!("signing in: \"{said}\" is not valid"));
            assert_eq!(error.code, ErrorCode::Unauthenticated);
            assert!(
                error.message.starts_with("signing in: ")
                    && error.message.contains("repeat the client secret")
                    && !error.message.contains(&said),
                "{error}"
            );
        }
    }

    #[test]
    fn other_words_stay_and_so_do_those_about_what_is_too_short_to_be_told() {
        for message in ["the horse is correct", "", "AADSTS7000215: invalid client secret"] {
            assert_eq!(after(message).message, message);
        }
        let said = BackendError::new(ErrorCode::Internal, "wrapping 7 bytes: short as it is");
        assert_eq!(without_secret(said.clone(), "wrapping", b"short", "it"), said);
    }
}
