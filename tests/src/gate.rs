//! A gate in front of the simulated KMS: it writes down which organizations unwrap by which keys, so that a test can say "these
//! keys and no others open what it reads".

use crate::kms::SimulatedKms;
use keystead_backend::{
    BackendError, Call, Context, Description, KeyBackend, KeyInstance, LockedBytes, OpenRequest, Status,
    Wrapped,
};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Organization and KMS key.
pub type Grant = (String, String);

/// A KMS behind a gate that writes down who passes. Clones share both.
#[derive(Clone)]
pub struct GatedKms {
    kms: SimulatedKms,
    used: Arc<Mutex<BTreeSet<Grant>>>,
}

impl GatedKms {
    /// A gate through which nobody has passed.
    #[must_use]
    pub fn new(kms: SimulatedKms) -> Self {
        Self {
            kms,
            used: Arc::default(),
        }
    }

    /// The organizations and keys for which something was unwrapped, or was to be.
    #[must_use]
    pub fn used(&self) -> BTreeSet<Grant> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Grant>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyBackend for GatedKms {
    fn describe(&self) -> Description {
        self.kms.describe()
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        let config: serde_json::Value = serde_json::from_str(request.config).unwrap_or_default();
        let key = config["key"].as_str().unwrap_or("managed").to_owned();
        Ok(Box::new(GatedKey {
            inner: self.kms.open(request)?,
            key,
            gate: self.clone(),
        }))
    }
}

struct GatedKey {
    inner: Box<dyn KeyInstance>,
    key: String,
    gate: GatedKms,
}

impl KeyInstance for GatedKey {
    fn status(&self, call: &Call) -> Result<Status, BackendError> {
        self.inner.status(call)
    }

    fn wrap(&self, call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        self.inner.wrap(call, context, plaintext)
    }

    fn unwrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes, BackendError> {
        if let Some((_, organization)) = context
            .entries()
            .find(|(name, _)| *name == "keystead:organization")
        {
            let grant = (organization.to_owned(), self.key.clone());
            self.gate.lock().insert(grant);
        }
        self.inner.unwrap(call, context, wrapped)
    }
}
