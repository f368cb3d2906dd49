//! A gate in front of the simulated KMS: it lets an organization unwrap by some keys alone, so that a test can say "these keys
//! and no others open what it reads".

use crate::kms::SimulatedKms;
use keystead_backend::{
    BackendError, Call, Context, Description, ErrorCode, KeyBackend, KeyInstance, LockedBytes, OpenRequest,
    Status, Wrapped,
};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Organization and KMS key.
pub type Grant = (String, String);

/// A KMS behind a gate. Clones share both.
#[derive(Clone)]
pub struct GatedKms {
    kms: SimulatedKms,
    grants: Arc<Mutex<Option<BTreeSet<Grant>>>>,
}

impl GatedKms {
    /// An open gate.
    #[must_use]
    pub fn new(kms: SimulatedKms) -> Self {
        Self {
            kms,
            grants: Arc::default(),
        }
    }

    /// From now on, unwraps by organizations and keys beside these are denied.
    pub fn grant_only(&self, grants: BTreeSet<Grant>) {
        *self.grants.lock().unwrap_or_else(PoisonError::into_inner) = Some(grants);
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
        let organization = context
            .entries()
            .find(|(name, _)| *name == "keystead:organization")
            .map(|(_, value)| value.to_owned());
        let grants = self.gate.grants.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(grants), Some(organization)) = (&*grants, organization)
            && !grants.contains(&(organization.clone(), self.key.clone()))
        {
            return Err(BackendError::new(
                ErrorCode::AccessDenied,
                format!(
                    "the gate: {organization} must not need the key {:?} any more",
                    self.key
                ),
            ));
        }
        drop(grants);
        self.inner.unwrap(call, context, wrapped)
    }
}
