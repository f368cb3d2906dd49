//! What a service was shown in confidence lately, so that no error repeats it, whichever way it came there.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use keystead_backend::BackendError;
use zeroize::Zeroizing;

use crate::without_secret;

/// How many are kept: the one in use, the one before it, with which a call may still be under way, and one that led to them.
const KEPT_MAX: usize = 3;

/// The newest secrets that one identity proved itself with: access tokens, session tokens. They are got by an SDK in the middle of a
/// call, so whoever makes the error does not know them: who sees one go by notes it here.
///
/// Kept as the SDKs keep them, in ordinary memory, and zeroized when they are forgotten.
///
/// # Examples
///
/// ```
/// use keystead_backend::{BackendError, ErrorCode};
/// use keystead_backend_common::Confided;
///
/// let confided = Confided::default();
/// confided.note("the access token", b"ya29.a-token-of-a-few-letters");
/// let said = BackendError::new(ErrorCode::Unauthenticated, "ya29.a-token-of-a-few-letters is not valid");
/// let error = confided.without(said, "wrapping with acme");
/// assert!(error.message.contains("repeat the access token") && !error.message.contains("ya29"));
/// ```
#[derive(Default)]
pub struct Confided(Mutex<VecDeque<Secret>>);

struct Secret {
    what: &'static str,
    bytes: Zeroizing<Vec<u8>>,
}

impl Confided {
    /// Notes a secret that goes out; `what` is its name for people. The same one again costs a comparison.
    pub fn note(&self, what: &'static str, secret: &[u8]) {
        let mut kept = self.kept();
        let known = kept.iter().position(|known| *known.bytes == secret);
        let known = known.and_then(|place| kept.remove(place));
        kept.push_back(known.unwrap_or_else(|| Secret {
            what,
            bytes: Zeroizing::new(secret.to_vec()),
        }));
        if kept.len() > KEPT_MAX {
            kept.pop_front();
        }
    }

    /// The same error, or one without its words if they repeat a part of what is kept: see [`without_secret`].
    #[must_use]
    pub fn without(&self, error: BackendError, doing: &str) -> BackendError {
        self.kept().iter().fold(error, |error, secret| {
            without_secret(error, doing, &secret.bytes, secret.what)
        })
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Secret>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Confided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confided").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_backend::ErrorCode;

    fn token(number: usize) -> String {
        format!("ya29.the-token-number-{number}-of-many")
    }

    fn tells(confided: &Confided, number: usize) -> bool {
        let said = BackendError::new(ErrorCode::AccessDenied, format!("not by {}", token(number)));
        confided.without(said, "wrapping").message.contains("number")
    }

    #[test]
    fn the_newest_secrets_are_left_out_of_errors_and_old_ones_forgotten() {
        let confided = Confided::default();
        assert!(tells(&confided, 0));
        for number in 0..=KEPT_MAX {
            confided.note("the access token", token(number).as_bytes());
            assert!(!tells(&confided, number));
        }
        assert!(!tells(&confided, 1));
        // The oldest was the first to go, and one that is used again is not the oldest.
        confided.note("the access token", token(1).as_bytes());
        confided.note("the access token", token(9).as_bytes());
        let kept: Vec<_> = (0..10).filter(|number| confided.has(&token(*number))).collect();
        assert_eq!(kept, [1, 3, 9]);
        assert!(!format!("{confided:?}").contains("token-number"));
    }

    impl Confided {
        fn has(&self, secret: &str) -> bool {
            self.kept().iter().any(|kept| *kept.bytes == secret.as_bytes())
        }
    }
}
