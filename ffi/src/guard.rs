//! The one seam that every exported function goes through: no panic leaves it, and what C passed is looked at here.
//!
//! [`Called`] exists only inside of a guarded call. Its methods take what the caller of the exported function passed, and
//! rely on what the header asks of that caller: a pointer is null, or points to what the header says, for the time of the
//! call. A test reads the sources and checks that every exported function goes through here.

#![allow(unsafe_code)]

use crate::error::keystead_error;
use crate::error::{Failure, KEYSTEAD_FORKED, KEYSTEAD_INVALID_ARGUMENT, KEYSTEAD_OK, KEYSTEAD_TOO_LARGE};
use crate::process;
use crate::structs::{self, Struct};
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The longest text that is taken, in bytes: as long as a backend's settings may be.
const TEXT_MAX_BYTES: usize = 1 << 20;
/// The most items of an array that is taken.
const ITEMS_MAX: usize = 1 << 16;
const ZERO_TERMINATED: usize = usize::MAX;

/// What the handles on one store, or on one backend, share.
#[derive(Debug)]
pub(crate) struct Life {
    process: u32,
    panicked: AtomicBool,
}

impl Life {
    pub(crate) fn begin() -> Arc<Self> {
        process::keep_id();
        Arc::new(Self {
            process: process::id(),
            panicked: AtomicBool::new(false),
        })
    }

    fn is_of_another_process(&self) -> bool {
        self.process != process::id()
    }

    fn check(&self, what: &str) -> Result<(), Failure> {
        if self.panicked.load(Ordering::Acquire) {
            return Err(Failure::panicked());
        }
        if self.is_of_another_process() {
            return Err(Failure::new(
                KEYSTEAD_FORKED,
                format!("the {what} was opened by the process that forked this one: open it again here"),
            ));
        }
        Ok(())
    }
}

/// A handle that can be used for as long as its store, or its backend, is sound.
pub(crate) trait Handle {
    /// What it is called in messages.
    const WHAT: &'static str;

    fn life(&self) -> &Arc<Life>;
}

/// What an exported function has been called with.
#[derive(Default)]
pub(crate) struct Called<'a> {
    lives: [Option<&'a Life>; 2],
}

/// Does the work of an exported function, catches its panics, and tells its error.
///
/// # Safety
///
/// `error` is null or can be written, and whatever the work gives to [`Called`] is what the caller of the exported function
/// passed, who keeps the rules of the header.
pub(crate) unsafe fn call<'a>(
    error: *mut *mut keystead_error,
    work: impl FnOnce(&mut Called<'a>) -> Result<(), Failure>,
) -> i32 {
    // SAFETY: as the caller promises.
    unsafe { tell(error, std::ptr::null_mut()) };
    let mut called = Called::default();
    let failure = match catch_unwind(AssertUnwindSafe(|| work(&mut called))) {
        Ok(Ok(())) => return KEYSTEAD_OK,
        Ok(Err(failure)) => failure,
        Err(payload) => {
            // What a panic carries may panic when it is dropped.
            std::mem::forget(payload);
            for life in called.lives.into_iter().flatten() {
                life.panicked.store(true, Ordering::Release);
            }
            Failure::panicked()
        }
    };
    let code = failure.code();
    if !error.is_null() {
        // SAFETY: as the caller promises.
        unsafe { tell(error, Box::into_raw(Box::new(keystead_error::new(failure)))) };
    }
    code
}

/// # Safety
///
/// `error` is null or can be written.
unsafe fn tell(error: *mut *mut keystead_error, value: *mut keystead_error) {
    if !error.is_null() {
        // SAFETY: as the caller promises.
        unsafe { error.write(value) };
    }
}

/// Reads something of an object that cannot fail; null, and a panic, give `otherwise`.
///
/// # Safety
///
/// `pointer` is null or points to a live object of this library.
pub(crate) unsafe fn look<'a, T: 'a, R>(pointer: *const T, otherwise: R, look: impl FnOnce(&'a T) -> R) -> R {
    // SAFETY: as the caller promises.
    let Some(object) = (unsafe { pointer.as_ref() }) else {
        return otherwise;
    };
    match catch_unwind(AssertUnwindSafe(|| look(object))) {
        Ok(seen) => seen,
        Err(payload) => {
            std::mem::forget(payload);
            otherwise
        }
    }
}

/// Frees what [`Out::give`] gave; null does nothing. For objects that are data alone.
///
/// # Safety
///
/// `pointer` is null or came from this library, and is not used any more.
pub(crate) unsafe fn free<T>(pointer: *mut T) {
    if pointer.is_null() {
        return;
    }
    // SAFETY: as the caller promises, it came from a box.
    let object = unsafe { Box::from_raw(pointer) };
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(object))) {
        std::mem::forget(payload);
    }
}

/// Frees a handle; null does nothing. In the child of a fork nothing is closed, since the store is its parent's.
///
/// # Safety
///
/// As [`free`].
pub(crate) unsafe fn free_handle<T: Handle>(pointer: *mut T) {
    // SAFETY: as the caller promises.
    if let Some(handle) = unsafe { pointer.as_ref() }
        && handle.life().is_of_another_process()
    {
        return;
    }
    // SAFETY: as the caller promises.
    unsafe { free(pointer) };
}

impl<'a> Called<'a> {
    /// A handle that is used in this call. If it panics, the handle is good for closing alone.
    pub(crate) fn handle<T: Handle>(&mut self, pointer: *const T) -> Result<&'a T, Failure> {
        // SAFETY: null, or a live handle, as the header says.
        let handle: &'a T = unsafe { pointer.as_ref() }.ok_or_else(|| null(T::WHAT))?;
        let life: &'a Life = handle.life();
        if let Some(place) = self.lives.iter_mut().find(|place| place.is_none()) {
            *place = Some(life);
        }
        life.check(T::WHAT)?;
        Ok(handle)
    }

    /// An object that is data alone.
    pub(crate) fn data<T>(&self, pointer: *const T, what: &'static str) -> Result<&'a T, Failure> {
        // SAFETY: null, or a live object, as the header says.
        unsafe { pointer.as_ref() }.ok_or_else(|| null(what))
    }

    pub(crate) fn text(
        &self,
        data: *const c_char,
        len: usize,
        what: &'static str,
    ) -> Result<&'a str, Failure> {
        utf8(self.text_bytes(data, len, what)?, what)
    }

    /// A text that may be left out: null.
    pub(crate) fn optional_text(
        &self,
        data: *const c_char,
        len: usize,
        what: &'static str,
    ) -> Result<Option<&'a str>, Failure> {
        let given = self.optional_bytes_of_text(data, len, what, TEXT_MAX_BYTES)?;
        given.map(|bytes| utf8(bytes, what)).transpose()
    }

    /// A text's bytes, which need not be UTF-8: a path of the file system.
    pub(crate) fn text_bytes(
        &self,
        data: *const c_char,
        len: usize,
        what: &'static str,
    ) -> Result<&'a [u8], Failure> {
        self.bytes_of_text(data, len, what, TEXT_MAX_BYTES)
    }

    /// The bytes of a text that may be left out, and may be longer than texts are.
    pub(crate) fn optional_bytes_of_text(
        &self,
        data: *const c_char,
        len: usize,
        what: &'static str,
        max_bytes: usize,
    ) -> Result<Option<&'a [u8]>, Failure> {
        if data.is_null() && matches!(len, 0 | ZERO_TERMINATED) {
            return Ok(None);
        }
        self.bytes_of_text(data, len, what, max_bytes).map(Some)
    }

    fn bytes_of_text(
        &self,
        data: *const c_char,
        len: usize,
        what: &'static str,
        max_bytes: usize,
    ) -> Result<&'a [u8], Failure> {
        if data.is_null() {
            return if len == 0 { Ok(&[]) } else { Err(null(what)) };
        }
        let too_long = || invalid(format!("{what} is longer than {max_bytes} bytes"));
        let len = if len == ZERO_TERMINATED {
            // SAFETY: a zero byte ends it, as the header says; nothing behind that is read.
            let ends = |at: &usize| unsafe { data.add(*at).read() } == 0;
            (0..=max_bytes).find(ends).ok_or_else(too_long)?
        } else {
            len
        };
        if len > max_bytes {
            return Err(too_long());
        }
        // SAFETY: it has that many bytes, as the header says.
        Ok(unsafe { std::slice::from_raw_parts(data.cast(), len) })
    }

    /// Bytes of a value, or of a part of it.
    pub(crate) fn bytes(&self, data: *const u8, len: usize, what: &'static str) -> Result<&'a [u8], Failure> {
        if len == 0 {
            return Ok(&[]);
        }
        if data.is_null() {
            return Err(null(what));
        }
        if len as u64 > engine::VALUE_MAX_BYTES {
            let reason = format!(
                "{what} has {len} bytes; at most {} are allowed",
                engine::VALUE_MAX_BYTES
            );
            return Err(Failure::new(KEYSTEAD_TOO_LARGE, reason));
        }
        // SAFETY: it has that many bytes, as the header says.
        Ok(unsafe { std::slice::from_raw_parts(data, len) })
    }

    /// A buffer of the caller.
    pub(crate) fn buffer(&self, data: *mut u8, capacity: usize) -> Result<&'a mut [u8], Failure> {
        if capacity == 0 {
            return Ok(&mut []);
        }
        if data.is_null() {
            return Err(null("buffer"));
        }
        if capacity > isize::MAX as usize {
            return Err(invalid("the buffer's capacity is larger than any memory".into()));
        }
        // SAFETY: it has that room, which nobody else uses during the call, as the header says.
        Ok(unsafe { std::slice::from_raw_parts_mut(data, capacity) })
    }

    /// An array of the caller.
    pub(crate) fn array<T>(
        &self,
        data: *const T,
        len: usize,
        what: &'static str,
    ) -> Result<&'a [T], Failure> {
        if len == 0 {
            return Ok(&[]);
        }
        if data.is_null() || !data.is_aligned() {
            return Err(null(what));
        }
        if len > ITEMS_MAX {
            return Err(invalid(format!(
                "{what} has {len} items; at most {ITEMS_MAX} are allowed"
            )));
        }
        // SAFETY: it has that many items, as the header says.
        Ok(unsafe { std::slice::from_raw_parts(data, len) })
    }

    /// Options, which may be left out: null.
    pub(crate) fn options<T: Struct>(&self, pointer: *const T, what: &'static str) -> Result<T, Failure> {
        // SAFETY: null, or as large as its struct_size says, as the header says.
        unsafe { structs::read(pointer, what) }
    }

    /// Room for an answer; it holds `empty` until there is one.
    pub(crate) fn out<T>(&self, pointer: *mut T, what: &'static str, empty: T) -> Result<Out<T>, Failure> {
        if pointer.is_null() {
            return Err(null(what));
        }
        // SAFETY: it can be written, as the header says.
        unsafe { pointer.write(empty) };
        Ok(Out(pointer))
    }

    /// Room for an answer that the caller may not want: null.
    pub(crate) fn optional_out<T>(&self, pointer: *mut T, empty: T) -> Option<Out<T>> {
        self.out(pointer, "out", empty).ok()
    }

    /// Room for an answer that is an object.
    pub(crate) fn out_object<T>(
        &self,
        pointer: *mut *mut T,
        what: &'static str,
    ) -> Result<Out<*mut T>, Failure> {
        self.out(pointer, what, std::ptr::null_mut())
    }

    /// Writes a struct, as much of it as its struct_size says.
    pub(crate) fn fill<T: Struct>(&self, pointer: *mut T, value: T) -> Result<(), Failure> {
        // SAFETY: null, or as large as its struct_size says, as the header says.
        unsafe { structs::write(pointer, value) }
    }
}

/// Room of the caller for one answer.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    pub(crate) fn set(self, value: T) {
        // SAFETY: checked when this was made; the call is not over.
        unsafe { self.0.write(value) };
    }
}

impl<T> Out<*mut T> {
    /// Gives an object to the caller, who frees it.
    pub(crate) fn give(self, object: T) {
        self.set(Box::into_raw(Box::new(object)));
    }
}

fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, Failure> {
    std::str::from_utf8(bytes).map_err(|_| invalid(format!("{what} is not UTF-8")))
}

pub(crate) fn null(what: &str) -> Failure {
    invalid(format!("{what} is NULL"))
}

pub(crate) fn invalid(reason: String) -> Failure {
    Failure::new(KEYSTEAD_INVALID_ARGUMENT, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{KEYSTEAD_PANICKED, keystead_error_code, keystead_error_free};

    struct Sound(Arc<Life>);

    impl Handle for Sound {
        const WHAT: &'static str = "handle";

        fn life(&self) -> &Arc<Life> {
            &self.0
        }
    }

    fn code_of_a_call(handle: &Sound, work: impl FnOnce() -> Result<(), Failure>) -> i32 {
        let mut error = std::ptr::null_mut();
        // SAFETY: the error can be written, the handle lives.
        unsafe {
            let code = call(&raw mut error, |called| {
                called.handle(&raw const *handle)?;
                work()
            });
            assert_eq!(
                keystead_error_code(error),
                code,
                "the error object says what the call returned"
            );
            keystead_error_free(error);
            code
        }
    }

    #[test]
    fn a_panic_does_not_leave_and_the_handles_of_its_store_are_good_for_nothing_any_more() {
        let one = Sound(Life::begin());
        let sibling = Sound(Arc::clone(&one.0));
        let other = Sound(Life::begin());
        assert_eq!(code_of_a_call(&one, || panic!("planted")), KEYSTEAD_PANICKED);
        assert_eq!(code_of_a_call(&one, || Ok(())), KEYSTEAD_PANICKED);
        assert_eq!(code_of_a_call(&sibling, || Ok(())), KEYSTEAD_PANICKED);
        assert_eq!(
            code_of_a_call(&other, || Ok(())),
            KEYSTEAD_OK,
            "another store goes on"
        );
    }

    #[test]
    fn a_panic_while_freeing_or_looking_does_not_leave() {
        struct Bad;
        static SEVEN: i32 = 7;
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("planted");
            }
        }
        // SAFETY: a box, freed once; a live object.
        unsafe {
            free(Box::into_raw(Box::new(Bad)));
            assert_eq!(look(&raw const SEVEN, 1, |_: &i32| panic!("planted")), 1);
        }
    }

    #[test]
    fn a_handle_of_another_process_is_refused_and_not_closed() {
        let here = Sound(Life::begin());
        let elsewhere = Sound(Arc::new(Life {
            process: here.0.process.wrapping_add(1),
            panicked: AtomicBool::new(false),
        }));
        assert_eq!(code_of_a_call(&elsewhere, || Ok(())), KEYSTEAD_FORKED);
        let life = Arc::clone(&elsewhere.0);
        // SAFETY: a box, freed once.
        unsafe { free_handle(Box::into_raw(Box::new(elsewhere))) };
        assert_eq!(Arc::strong_count(&life), 2, "what it holds is left alone");
    }
}
