//! Counts what a key backend is asked, whichever backend it is: a layer before it that changes nothing.

use crate::kms::Calls;
use keystead_backend::{
    BackendError, Call, Context, Description, KeyBackend, KeyInstance, LockedBytes, OpenRequest, Status,
    Wrapped,
};
use std::sync::{Arc, Mutex, PoisonError};

/// A count; clones share it.
///
/// # Examples
///
/// ```
/// use keystead::Backend;
/// use keystead_tests::counted::Counter;
/// use keystead_tests::kms::{Calls, SimulatedKms};
///
/// let counter = Counter::default();
/// let backend = Backend::new(counter.before(SimulatedKms::new())).named("managed");
/// assert_eq!(counter.calls(), Calls::default());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<Mutex<Calls>>);

impl Counter {
    /// The backend with this count before it.
    pub fn before<B: KeyBackend>(&self, backend: B) -> Counted<B> {
        Counted {
            backend,
            counter: self.clone(),
        }
    }

    /// How often it was asked until now.
    #[must_use]
    pub fn calls(&self) -> Calls {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, count: impl FnOnce(&mut Calls)) {
        count(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A backend whose calls are counted.
#[derive(Debug)]
pub struct Counted<B> {
    backend: B,
    counter: Counter,
}

struct CountedKey {
    key: Box<dyn KeyInstance>,
    counter: Counter,
}

impl<B: KeyBackend> KeyBackend for Counted<B> {
    fn describe(&self) -> Description {
        self.backend.describe()
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        Ok(Box::new(CountedKey {
            key: self.backend.open(request)?,
            counter: self.counter.clone(),
        }))
    }
}

impl KeyInstance for CountedKey {
    fn status(&self, call: &Call) -> Result<Status, BackendError> {
        self.key.status(call)
    }

    fn wrap(&self, call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        self.counter.count(|calls| calls.wraps += 1);
        self.key.wrap(call, context, plaintext)
    }

    fn unwrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes, BackendError> {
        self.counter.count(|calls| calls.unwraps += 1);
        self.key.unwrap(call, context, wrapped)
    }

    fn rewrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<Wrapped, BackendError> {
        self.counter.count(|calls| calls.wraps += 1);
        self.key.rewrap(call, context, wrapped)
    }

    fn interrupt(&self) {
        self.key.interrupt();
    }
}
