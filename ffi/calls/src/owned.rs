//! Handles, each with the function that frees it.

#![allow(unsafe_code)]

use std::ptr;

/// An object of the library; freed when this is dropped.
#[derive(Debug)]
pub struct Owned<T> {
    pointer: *mut T,
    free: unsafe extern "C" fn(*mut T),
}

// SAFETY: the header says of every handle that any thread may use it, and many at once.
unsafe impl<T> Send for Owned<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Owned<T> {}

impl<T> Owned<T> {
    /// Has a call write an object, and takes it.
    ///
    /// # Errors
    ///
    /// The call's; nothing was written then.
    pub fn from_call<E>(
        free: unsafe extern "C" fn(*mut T),
        call: impl FnOnce(*mut *mut T) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut pointer = ptr::dangling_mut();
        let told = call(&raw mut pointer);
        match told {
            Ok(()) => {
                assert!(!pointer.is_null(), "it succeeded and gave nothing");
                Ok(Self { pointer, free })
            }
            Err(refusal) => {
                assert!(pointer.is_null(), "it failed and gave something");
                Err(refusal)
            }
        }
    }

    /// To be passed to calls, for as long as this lives.
    #[must_use]
    pub fn as_ptr(&self) -> *mut T {
        self.pointer
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it came from the library, and nobody has it any more.
        unsafe { (self.free)(self.pointer) };
    }
}
