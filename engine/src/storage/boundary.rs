//! The boundary around redb: a panic inside of it becomes a typed error, and the store closes itself.
//!
//! redb checks what it reads less than it trusts it: pages that fit their tags but not each other (a disk that lied about a
//! sync, somebody who wrote the file on purpose) make it panic. Every call into redb goes through [`Boundary::call`], and
//! everything of redb's that has a destructor is a [`Guarded`].
//!
//! Destructors are the dangerous part: a panic that leaves one while another unwinds aborts the process. So nothing of redb's
//! is dropped once the boundary is broken: it is leaked, the page cache with it (at most the memory that the store was given
//! for pages, once for each store that breaks). The file is not leaked: redb's hold on it is a weak one (`container::pages`),
//! so the lock is released with the store's last handle. What this cannot reach are redb's own frames: a panic in there that
//! meets a destructor which panics as well (a lock that the first one poisoned) still aborts. `docs/decisions/0011` has the
//! list.

use crate::error::{Error, Result};
use std::any::Any;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The boundary of one open store. Shared by everything of redb's that it guards.
#[derive(Default)]
pub(crate) struct Boundary {
    /// What broke it.
    broken: OnceLock<String>,
    /// The store was closed by its application.
    closed: AtomicBool,
}

impl Boundary {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Calls into redb. A panic is caught and breaks the boundary: this call fails with [`Error::StorePanicked`], every
    /// later one with [`Error::Closed`]. Costs two atomic loads.
    pub(crate) fn call<T>(&self, doing: &'static str, call: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check()?;
        // Nothing behind the boundary is looked at again after a panic: there is nothing that could be seen half done.
        catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(self.break_by(doing, &*panic)))
    }

    /// Nothing is read or written any more: every call fails with [`Error::Closed`]. What is there is let go of as ever.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn check(&self) -> Result<()> {
        match self.broken.get() {
            None if self.closed.load(Ordering::Acquire) => Err(Error::Closed {
                reason: "it was closed".into(),
            }),
            None => Ok(()),
            Some(reason) => Err(Error::Closed {
                reason: reason.clone(),
            }),
        }
    }

    fn is_broken(&self) -> bool {
        self.broken.get().is_some()
    }

    fn break_by(&self, doing: &'static str, panic: &(dyn Any + Send)) -> Error {
        // A literal of the code can be repeated. A message that was put together may quote bytes of the store: it is not.
        let reason = panic
            .downcast_ref::<&'static str>()
            .map_or("an assertion", |literal| *literal);
        let error = Error::StorePanicked { doing, reason };
        if self.broken.set(error.to_string()).is_ok() {
            tracing::error!(%error, "the store closes itself");
        }
        error
    }
}

impl fmt::Debug for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boundary").field("broken", &self.broken).finish()
    }
}

/// Something of redb's that has a destructor: dropped inside of the boundary, leaked once that is broken.
pub(crate) struct Guarded<T> {
    boundary: Arc<Boundary>,
    thing: Option<T>,
}

impl<T> Guarded<T> {
    pub(crate) fn new(boundary: &Arc<Boundary>, thing: T) -> Self {
        Self {
            boundary: Arc::clone(boundary),
            thing: Some(thing),
        }
    }

    /// A call that uses it up.
    pub(crate) fn consume<U>(mut self, doing: &'static str, call: impl FnOnce(T) -> Result<U>) -> Result<U> {
        // If the boundary is broken, `call` is not made, and what it would have used up is leaked.
        let thing = ManuallyDrop::new(self.thing.take());
        self.boundary
            .call(doing, move || call(ManuallyDrop::into_inner(thing).expect(THERE)))
    }
}

const THERE: &str = "it is taken out only by the value's end";

impl<T> Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.thing.as_ref().expect(THERE)
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let Some(thing) = self.thing.take() else { return };
        if self.boundary.is_broken() {
            std::mem::forget(thing);
            return;
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(thing))) {
            self.boundary.break_by("letting go of pages", &*panic);
        }
    }
}

/// Lends something of redb's to `using` and drops it after; if `using` panics, it is leaked: no unwinding of ours runs a
/// destructor of redb's.
pub(crate) fn holding<T, U>(thing: T, using: impl FnOnce(&mut T) -> U) -> U {
    let mut thing = ManuallyDrop::new(thing);
    let used = using(&mut thing);
    drop(ManuallyDrop::into_inner(thing));
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn end(thing: Counted) -> Result<()> {
        drop(thing);
        Ok(())
    }

    static DROPPED: AtomicUsize = AtomicUsize::new(0);

    struct Counted(bool);

    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::SeqCst);
            assert!(!self.0, "a destructor that panics");
        }
    }

    #[test]
    fn a_panic_is_an_error_and_every_later_call_says_what_it_was() {
        let boundary = Boundary::new();
        assert_eq!(boundary.call("counting", || Ok(1)).unwrap(), 1);
        let error = boundary
            .call("reading a row", || -> Result<()> { panic!("a literal") })
            .unwrap_err();
        assert!(
            matches!(
                error,
                Error::StorePanicked {
                    doing: "reading a row",
                    reason: "a literal"
                }
            ),
            "{error:?}"
        );
        let later = boundary.call("counting", || Ok(1)).unwrap_err();
        assert!(
            matches!(&later, Error::Closed { reason } if reason.contains("reading a row")),
            "{later}"
        );
    }

    #[test]
    fn a_message_that_may_quote_bytes_of_the_store_is_not_repeated() {
        let boundary = Boundary::new();
        let canary = "cleartext canary";
        let error = boundary
            .call("reading a row", || -> Result<()> {
                panic!("row {canary} is odd")
            })
            .unwrap_err();
        assert!(!format!("{error} {error:?}").contains(canary), "{error:?}");
        let later = boundary.call("counting", || Ok(1)).unwrap_err();
        assert!(!format!("{later} {later:?}").contains(canary), "{later:?}");
    }

    #[test]
    fn what_is_guarded_is_dropped_while_all_is_well_and_leaked_after_a_panic() {
        let boundary = Boundary::new();
        let before = DROPPED.load(Ordering::SeqCst);
        drop(Guarded::new(&boundary, Counted(false)));
        Guarded::new(&boundary, Counted(false))
            .consume("committing", end)
            .unwrap();
        assert_eq!(DROPPED.load(Ordering::SeqCst), before + 2);

        let held = Guarded::new(&boundary, Counted(false));
        let used_up = Guarded::new(&boundary, Counted(false));
        // A destructor that panics breaks the boundary and goes no further.
        drop(Guarded::new(&boundary, Counted(true)));
        assert_eq!(DROPPED.load(Ordering::SeqCst), before + 3);
        let refused = used_up.consume("committing", end);
        assert!(matches!(refused, Err(Error::Closed { .. })));
        drop(held);
        assert_eq!(
            DROPPED.load(Ordering::SeqCst),
            before + 3,
            "nothing more is dropped"
        );
    }
}
