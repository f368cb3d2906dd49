//! Google's credentials as the client library keeps them, and when to give them up.
//!
//! The library gets a token in a task of its own and renews it four minutes before it ends. A refusal for good ends that
//! task, and the credentials fail from then on: they have to be made anew. So they are given up at every failure, and when
//! a call did not get its token before its own end: whoever hangs there may hang for good.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use google_cloud_auth::credentials::{CacheableResource, Credentials};
use google_cloud_gax::error::CredentialsError;
use http::{Extensions, HeaderMap};
use keystead_backend_common::Confided;

/// Credentials in use.
pub(crate) struct Held {
    credentials: Credentials,
    abandoned: AtomicBool,
    /// What they send to be given a token, as far as it is known. No error repeats it.
    pub(crate) shown: Confided,
}

/// Why there is no proof.
pub(crate) enum NoProof {
    /// Refused, or the way there is broken.
    Failed(CredentialsError),
    /// No answer in time.
    Late,
}

impl Held {
    pub(crate) fn new(credentials: Credentials, shown: Confided) -> Self {
        Self {
            credentials,
            abandoned: AtomicBool::new(false),
            shown,
        }
    }

    /// True once they failed, or a call left before it got its token.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// The header that proves to KMS who asks.
    pub(crate) async fn proof(&self, patience: Duration) -> Result<HeaderMap, NoProof> {
        let waiting = Waiting(&self.abandoned);
        let proof = match tokio::time::timeout(patience, self.credentials.headers(Extensions::new())).await {
            Err(_) => return Err(NoProof::Late),
            Ok(Err(error)) => return Err(NoProof::Failed(error)),
            Ok(Ok(CacheableResource::New { data, .. })) => data,
            Ok(Ok(CacheableResource::NotModified)) => HeaderMap::new(),
        };
        waiting.succeeded();
        Ok(proof)
    }
}

/// Abandons the credentials unless the wait succeeds: also when its call is dropped in the middle of it.
struct Waiting<'a>(&'a AtomicBool);

impl Waiting<'_> {
    fn succeeded(self) {
        std::mem::forget(self);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
