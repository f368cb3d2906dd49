//! Structs that grow: they begin with their size, and both sides know how much the other one knows.
//!
//! - What the caller gives: a shorter struct than ours comes from an older caller, and what it lacks is 0, which is every
//!   field's default. A longer one comes from a newer caller; if what we do not know is 0, nothing was asked that we do not
//!   do, else it is refused.
//! - What the caller gets: as much as there is room for. What we do not know is 0.

#![allow(unsafe_code)]

use crate::error::{Failure, KEYSTEAD_UNSUPPORTED_OPTION};
use crate::guard::{invalid, null};
use std::mem::{offset_of, size_of};

/// A struct that begins with `uint32_t struct_size`.
///
/// # Safety
///
/// `repr(C)`, begins with a `u32`, has no padding, and zeros are a value of each field.
pub(crate) unsafe trait Struct: Copy {
    /// Its size in the first version of the library that had it.
    const FIRST_SIZE: usize;
}

/// A struct as this build knows it. The tests build a library whose structs have all grown by one field.
#[repr(C)]
#[derive(Clone, Copy)]
struct Known<T> {
    known: T,
    #[cfg(keystead_grown)]
    added: u64,
}

/// Larger than any struct will ever be.
const SIZE_MAX: usize = 4096;

/// # Safety
///
/// `pointer` is null, or points to a struct whose first field says how large it is.
unsafe fn size_of_given<T: Struct>(pointer: *const T, what: &str) -> Result<usize, Failure> {
    if !pointer.is_aligned() {
        return Err(invalid(format!("{what} is not aligned as its struct")));
    }
    // SAFETY: every such struct begins with its size.
    let size = unsafe { pointer.cast::<u32>().read() } as usize;
    if !(T::FIRST_SIZE..=SIZE_MAX).contains(&size) {
        return Err(invalid(format!(
            "{what}: struct_size is {size}: set it to the size of the struct, at least {}",
            T::FIRST_SIZE
        )));
    }
    Ok(size)
}

/// # Safety
///
/// As [`size_of_given`].
pub(crate) unsafe fn read<T: Struct>(pointer: *const T, what: &str) -> Result<T, Failure> {
    // SAFETY: zeros are a value of each field.
    let mut known: Known<T> = unsafe { std::mem::zeroed() };
    if pointer.is_null() {
        return Ok(known.known);
    }
    // SAFETY: as the caller promises.
    let size = unsafe { size_of_given(pointer, what) }?;
    let ours = size_of::<Known<T>>();
    // SAFETY: it is as large as it says, and what is copied fits both.
    unsafe {
        pointer
            .cast::<u8>()
            .copy_to_nonoverlapping((&raw mut known).cast::<u8>(), size.min(ours));
    }
    // SAFETY: as large as it says.
    let unknown = (ours..size).any(|at| unsafe { pointer.cast::<u8>().add(at).read() } != 0);
    if unknown {
        return Err(Failure::new(
            KEYSTEAD_UNSUPPORTED_OPTION,
            format!(
                "{what} asks for something that this library is too old for: it is version {}",
                env!("CARGO_PKG_VERSION")
            ),
        ));
    }
    Ok(known.known)
}

/// # Safety
///
/// As [`size_of_given`], and it can be written.
pub(crate) unsafe fn write<T: Struct>(pointer: *mut T, value: T) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(null("out"));
    }
    // SAFETY: as the caller promises.
    let size = unsafe { size_of_given(pointer.cast_const(), "out") }?;
    let known = Known {
        known: value,
        #[cfg(keystead_grown)]
        added: 0xdead_beef_dead_beef,
    };
    let ours = size_of::<Known<T>>();
    let first = size_of::<u32>();
    debug_assert_eq!(
        offset_of!(Known<T>, known),
        0,
        "a struct that has grown begins as before"
    );
    // SAFETY: it is as large as it says; the size itself stays as the caller wrote it.
    unsafe {
        let (from, to) = ((&raw const known).cast::<u8>(), pointer.cast::<u8>());
        from.add(first)
            .copy_to_nonoverlapping(to.add(first), size.min(ours) - first);
        if size > ours {
            to.add(ours).write_bytes(0, size - ours);
        }
    }
    Ok(())
}
