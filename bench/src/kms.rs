//! A KMS inside of the process, which counts its calls and takes the time of its answers: what a figure says beside them is
//! the engine's own.
//!
//! It keeps nothing, so that another process of the same benchmark unwraps what this one wrapped. It stands for a KMS; it
//! protects nothing, because its master key is in this file.

use crate::measure::now;
use keystead_backend::{
    BackendError, Call, Capabilities, Context, Description, ErrorCode, KeyBackend, KeyInstance, LockedBytes,
    OpenRequest, Status, Wrapped,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const MASTER_KEY: &[u8; 32] = b"keystead-bench stands for a KMS.";
const TAG_BYTES: usize = 32;

/// The KMS: clones share what it counts.
#[derive(Clone, Default)]
pub(crate) struct BenchKms {
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    wraps: AtomicU64,
    unwraps: AtomicU64,
    busy_ns: AtomicU64,
    latency_us: AtomicU64,
}

/// What the KMS was asked, and how long it took to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) wraps: u64,
    pub(crate) unwraps: u64,
    pub(crate) busy: Duration,
}

impl Calls {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            wraps: self.wraps - before.wraps,
            unwraps: self.unwraps - before.unwraps,
            busy: self.busy - before.busy,
        }
    }
}

impl BenchKms {
    pub(crate) fn calls(&self) -> Calls {
        Calls {
            wraps: self.counters.wraps.load(Relaxed),
            unwraps: self.counters.unwraps.load(Relaxed),
            busy: Duration::from_nanos(self.counters.busy_ns.load(Relaxed)),
        }
    }

    /// Every call takes this long from now on.
    pub(crate) fn set_latency(&self, latency: Duration) {
        self.counters
            .latency_us
            .store(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl Counters {
    fn answer<T>(&self, count: &AtomicU64, answer: impl FnOnce() -> T) -> T {
        let began = now();
        count.fetch_add(1, Relaxed);
        let latency = self.latency_us.load(Relaxed);
        if latency > 0 {
            std::thread::sleep(Duration::from_micros(latency));
        }
        let answer = answer();
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.busy_ns.fetch_add(took, Relaxed);
        answer
    }
}

impl KeyBackend for BenchKms {
    fn describe(&self) -> Description {
        let mut description = Description::new("bench", env!("CARGO_PKG_VERSION"));
        description.capabilities = Capabilities {
            binds_context: true,
            ..Capabilities::default()
        };
        description
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        let master = blake3::keyed_hash(MASTER_KEY, request.config.as_bytes());
        Ok(Box::new(BenchKey {
            key: *master.as_bytes(),
            counters: Arc::clone(&self.counters),
        }))
    }
}

struct BenchKey {
    key: [u8; 32],
    counters: Arc<Counters>,
}

impl BenchKey {
    fn tag(&self, context: &Context, sealed: &[u8]) -> blake3::Hash {
        blake3::Hasher::new_keyed(&self.key)
            .update(&context.canonical_bytes())
            .update(b"tag")
            .update(sealed)
            .finalize()
    }

    fn mask(&self, context: &Context, bytes: &mut [u8]) {
        let mut stream = vec![0; bytes.len()];
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher
            .update(&context.canonical_bytes())
            .update(b"mask")
            .finalize_xof()
            .fill(&mut stream);
        for (byte, mask) in bytes.iter_mut().zip(stream) {
            *byte ^= mask;
        }
    }
}

impl KeyInstance for BenchKey {
    fn status(&self, _call: &Call) -> Result<Status, BackendError> {
        Ok(Status {
            key_id: "bench/1".into(),
            detail: "ready".into(),
        })
    }

    fn wrap(&self, _call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        self.counters.answer(&self.counters.wraps, || {
            let mut blob = plaintext.to_vec();
            self.mask(context, &mut blob);
            let tag = self.tag(context, &blob);
            blob.extend_from_slice(tag.as_bytes());
            Ok(Wrapped {
                blob,
                key_id: "bench/1".into(),
                metadata: Vec::new(),
            })
        })
    }

    fn unwrap(
        &self,
        _call: &Call,
        context: &Context,
        wrapped: &Wrapped,
    ) -> Result<LockedBytes, BackendError> {
        self.counters.answer(&self.counters.unwraps, || {
            let refuse = || BackendError::new(ErrorCode::InvalidCiphertext, "another context or another key");
            let at = wrapped.blob.len().checked_sub(TAG_BYTES).ok_or_else(refuse)?;
            let (sealed, tag) = wrapped.blob.split_at(at);
            if self.tag(context, sealed).as_bytes() != tag {
                return Err(refuse());
            }
            let mut plaintext = sealed.to_vec();
            self.mask(context, &mut plaintext);
            Ok(LockedBytes::copy_from(&plaintext))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kms: &BenchKms) -> BenchKey {
        BenchKey {
            key: *MASTER_KEY,
            counters: Arc::clone(&kms.counters),
        }
    }

    #[test]
    fn what_one_process_wrapped_another_one_unwraps_under_the_same_context_alone() {
        let (here, there) = (BenchKms::default(), BenchKms::default());
        let call = Call::with_timeout(Duration::from_secs(1));
        let context = Context::new([("organization", "acme")]);
        let wrapped = key(&here).wrap(&call, &context, &[7; 32]).unwrap();
        assert_ne!(wrapped.blob[..32], [7; 32]);
        assert_eq!(
            key(&there).unwrap(&call, &context, &wrapped).unwrap().as_slice(),
            [7; 32]
        );
        let other = Context::new([("organization", "globex")]);
        assert_eq!(
            key(&there).unwrap(&call, &other, &wrapped).unwrap_err().code,
            ErrorCode::InvalidCiphertext
        );
    }

    #[test]
    fn calls_and_the_time_of_their_answers_are_counted() {
        let kms = BenchKms::default();
        kms.set_latency(Duration::from_millis(2));
        let before = kms.calls();
        let call = Call::with_timeout(Duration::from_secs(1));
        key(&kms)
            .wrap(&call, &Context::new([("a", "b")]), &[7; 32])
            .unwrap();
        let asked = kms.calls().since(before);
        assert_eq!((asked.wraps, asked.unwraps), (1, 0));
        assert!(asked.busy >= Duration::from_millis(2));
    }
}
