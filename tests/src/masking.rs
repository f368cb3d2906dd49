//! A KMS that keeps nothing: a wrap is the plaintext under a mask that follows from the key's config. For tests that look for
//! keys in memory, where one that remembers what it wrapped would be found. It protects nothing.

use keystead_backend::{
    BackendError, Call, Capabilities, Context, Description, ErrorCode, KeyBackend, KeyInstance, LockedBytes,
    OpenRequest, Status, Wrapped,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The KMS: clones share it.
#[derive(Debug, Clone)]
pub struct MaskingKms {
    state: Arc<Mutex<KmsState>>,
}

#[derive(Debug)]
struct KmsState {
    binds_context: bool,
    fails: Option<ErrorCode>,
    another_key: bool,
}

impl MaskingKms {
    /// A KMS that binds the context, or says that it does not.
    #[must_use]
    pub fn new(binds_context: bool) -> Self {
        Self {
            state: Arc::new(Mutex::new(KmsState {
                binds_context,
                fails: None,
                another_key: false,
            })),
        }
    }

    /// Every call fails with this code from now on; with none, calls succeed again.
    pub fn fail(&self, code: Option<ErrorCode>) {
        lock(&self.state).fails = code;
    }

    /// Unwraps answer a key that was never wrapped, from now on or no more.
    pub fn answer_another_key(&self, another: bool) {
        lock(&self.state).another_key = another;
    }
}

fn lock(state: &Mutex<KmsState>) -> MutexGuard<'_, KmsState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeyBackend for MaskingKms {
    fn describe(&self) -> Description {
        let mut description = Description::new("masking", "1");
        description.capabilities = Capabilities {
            binds_context: lock(&self.state).binds_context,
            ..Capabilities::default()
        };
        description
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        Ok(Box::new(MaskingKey {
            state: self.state.clone(),
            config: request.config.to_owned(),
        }))
    }
}

struct MaskingKey {
    state: Arc<Mutex<KmsState>>,
    config: String,
}

impl MaskingKey {
    fn check(&self) -> Result<(), BackendError> {
        match lock(&self.state).fails {
            Some(code) => Err(BackendError::new(code, "the KMS of the test was told to fail")),
            None => Ok(()),
        }
    }

    fn mask(&self, context: &Context, len: usize) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.config.as_bytes());
        if lock(&self.state).binds_context {
            hasher.update(&context.canonical_bytes());
        }
        let mut mask = vec![0; len];
        hasher.finalize_xof().fill(&mut mask);
        mask
    }
}

impl KeyInstance for MaskingKey {
    fn status(&self, _call: &Call) -> Result<Status, BackendError> {
        self.check()?;
        Ok(Status {
            key_id: "mask".into(),
            detail: String::new(),
        })
    }

    fn wrap(&self, _call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        self.check()?;
        let mut blob = self.mask(context, plaintext.len());
        let tag = blake3::keyed_hash(&[7; 32], &blob);
        blob.iter_mut()
            .zip(plaintext)
            .for_each(|(mask, byte)| *mask ^= byte);
        blob.extend_from_slice(tag.as_bytes());
        Ok(Wrapped {
            blob,
            key_id: "mask".into(),
            metadata: Vec::new(),
        })
    }

    fn unwrap(
        &self,
        _call: &Call,
        context: &Context,
        wrapped: &Wrapped,
    ) -> Result<LockedBytes, BackendError> {
        self.check()?;
        let len = wrapped.blob.len().saturating_sub(32);
        let mask = self.mask(context, len);
        if blake3::keyed_hash(&[7; 32], &mask) != wrapped.blob[len..] {
            return Err(BackendError::new(
                ErrorCode::InvalidCiphertext,
                "not under this key and context",
            ));
        }
        let another = u8::from(lock(&self.state).another_key);
        LockedBytes::fill_with(len, |out| {
            for ((out, sealed), mask) in out.iter_mut().zip(&wrapped.blob).zip(&mask) {
                *out = sealed ^ mask ^ another;
            }
            Ok(())
        })
    }
}
