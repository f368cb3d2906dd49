//! When a request is made again within one call.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request, StatusCode};
use azure_core::sleep::sleep;
use azure_core::time::Duration;

/// Repeats what illness or the network cut off, with jittered waits that double. Not what was throttled: a vault may ask for a
/// wait far beyond the call's deadline, so that answer goes to the engine, which has the time.
///
/// In the place of the SDK's own retries. A client's first request is sent without its body, for the vault to say where to sign in;
/// the SDK takes the body out of the request that it would repeat, so that one whose first attempt failed was sent empty, and the vault's
/// "bad parameter" looked like a wrong config. Here each attempt has a request of its own.
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

#[async_trait]
#[allow(
    elided_lifetimes_in_paths,
    reason = "async_trait makes another method of one that names the context's lifetime"
)]
impl Policy for Retries {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let mut attempts = 0;
        loop {
            let answer = next[0].send(context, &mut request.clone(), &next[1..]).await;
            attempts += 1;
            if attempts >= self.max_attempts || !is_illness(&answer) {
                return answer;
            }
            sleep(wait_before(attempts)).await;
        }
    }
}

fn is_illness(answer: &PolicyResult) -> bool {
    match answer {
        Ok(answer) => REPEATED.contains(&answer.status()),
        Err(error) => matches!(error.kind(), ErrorKind::Io | ErrorKind::Connection),
    }
}

/// The wait after so many attempts.
fn wait_before(attempts: u32) -> Duration {
    let whole = FIRST_WAIT_MS << attempts.saturating_sub(1).min(DOUBLINGS_MAX);
    // Each RandomState has keys of its own: jitter for free.
    let jitter = RandomState::new().hash_one(attempts) % (whole / 2);
    Duration::milliseconds(i64::try_from(whole / 2 + jitter).expect("far below the end of i64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_some_seconds_and_are_jittered() {
        for (done, whole) in [(1, 200), (2, 400), (5, 3200), (60, 3200)] {
            let wait = wait_before(done);
            assert!(
                wait >= Duration::milliseconds(whole / 2) && wait < Duration::milliseconds(whole),
                "{wait}"
            );
        }
    }
}
