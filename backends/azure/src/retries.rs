//! When the SDK tries again within one call.

use std::hash::{BuildHasher, RandomState};

use azure_core::http::StatusCode;
use azure_core::http::policies::{RetryHeaders, RetryPolicy};
use azure_core::time::Duration;

/// Repeats what illness or the network cut off, with jittered waits that double. Not what was throttled: a vault may ask for a
/// wait far beyond the call's deadline, so that answer goes to the engine, which has the time.
#[derive(Debug)]
pub(crate) struct Retries {
    pub(crate) max_attempts: u32,
}

const FIRST_WAIT_MS: u64 = 200;
const DOUBLINGS_MAX: u32 = 4;

const REPEATED: [StatusCode; 5] = [
    StatusCode::RequestTimeout,
    StatusCode::InternalServerError,
    StatusCode::BadGateway,
    StatusCode::ServiceUnavailable,
    StatusCode::GatewayTimeout,
];

impl RetryPolicy for Retries {
    fn is_expired(&self, _since_start: Duration, retries: u32) -> bool {
        retries + 1 >= self.max_attempts
    }

    fn retry_headers(&self) -> Option<&RetryHeaders> {
        None
    }

    fn retry_status_codes(&self) -> &[StatusCode] {
        &REPEATED
    }

    fn sleep_duration(&self, retries: u32) -> Duration {
        let whole = FIRST_WAIT_MS << retries.saturating_sub(1).min(DOUBLINGS_MAX);
        // Each RandomState has keys of its own: jitter for free.
        let jitter = RandomState::new().hash_one(retries) % (whole / 2);
        Duration::milliseconds(i64::try_from(whole / 2 + jitter).expect("far below the end of i64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_with_the_first() {
        let attempts = |max_attempts| {
            let retries = Retries { max_attempts };
            (0..).position(|done| retries.is_expired(Duration::ZERO, done))
        };
        assert_eq!((attempts(1), attempts(3)), (Some(0), Some(2)));
    }

    #[test]
    fn waits_double_to_some_seconds_and_are_jittered() {
        let retries = Retries { max_attempts: 9 };
        for (done, whole) in [(1, 200), (2, 400), (5, 3200), (60, 3200)] {
            let wait = retries.sleep_duration(done);
            assert!(
                wait >= Duration::milliseconds(whole / 2) && wait < Duration::milliseconds(whole),
                "{wait}"
            );
        }
    }
}
