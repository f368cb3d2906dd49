//! Arguments that are against the rules, and are checked: each is answered by a code, and nothing is read or written for it.

#![allow(unsafe_code)]

use crate::told;
use keystead_ffi::error::{KEYSTEAD_INVALID_ARGUMENT, KEYSTEAD_TOO_LARGE, keystead_error};
use keystead_ffi::history::keystead_list;
use keystead_ffi::organization::keystead_organization;
use keystead_ffi::secret::{keystead_get, keystead_get_into, keystead_put, keystead_put_options};
use std::ptr;

/// How many kinds there are.
pub(super) const KINDS: u8 = 10;

/// Larger than any text, or array, that is taken.
const SENSELESS: usize = usize::MAX / 2;

/// Makes one such call.
pub(super) fn refused(kind: u8, organization: *mut keystead_organization, bytes: &[u8]) {
    let path = b"a".as_ptr().cast();
    let mut secret = ptr::dangling_mut();
    let mut len = 7;
    // SAFETY: zeros are a value of each field.
    let mut options: keystead_put_options = unsafe { std::mem::zeroed() };
    options.struct_size = u32::try_from(size_of::<keystead_put_options>()).expect("small");
    // What is pointed to is there, or is not looked at, since a length or a size before it is refused.
    let call = |error: *mut *mut keystead_error| {
        // SAFETY: as said above; the organization is a live handle.
        unsafe {
            match kind % KINDS {
                0 => keystead_get(ptr::null(), path, 1, 0, &raw mut secret, error),
                1 => keystead_get(organization, ptr::null(), 1, 0, &raw mut secret, error),
                2 => keystead_get(organization, path, 1, 0, ptr::null_mut(), error),
                3 => keystead_get(organization, path, SENSELESS, 0, &raw mut secret, error),
                4 => keystead_put(
                    organization,
                    path,
                    1,
                    ptr::null(),
                    1,
                    ptr::null(),
                    ptr::null_mut(),
                    error,
                ),
                5 => keystead_put(
                    organization,
                    path,
                    1,
                    bytes.as_ptr(),
                    SENSELESS,
                    ptr::null(),
                    ptr::null_mut(),
                    error,
                ),
                6 => {
                    // Too small, or larger than any struct will be.
                    options.struct_size = if bytes.len().is_multiple_of(2) {
                        4
                    } else {
                        u32::MAX
                    };
                    keystead_put(
                        organization,
                        path,
                        1,
                        bytes.as_ptr(),
                        0,
                        &raw const options,
                        ptr::null_mut(),
                        error,
                    )
                }
                7 => {
                    options.labels_len = SENSELESS;
                    options.labels = ptr::dangling();
                    keystead_put(
                        organization,
                        path,
                        1,
                        bytes.as_ptr(),
                        0,
                        &raw const options,
                        ptr::null_mut(),
                        error,
                    )
                }
                8 => keystead_get_into(organization, path, 1, 0, ptr::null_mut(), 1, &raw mut len, error),
                _ => keystead_list(
                    organization,
                    ptr::null(),
                    0,
                    path,
                    SENSELESS,
                    1,
                    ptr::null_mut(),
                    error,
                ),
            }
        }
    };
    let refusal = told(call).expect_err("it is against the rules");
    let codes = [KEYSTEAD_INVALID_ARGUMENT, KEYSTEAD_TOO_LARGE];
    assert!(codes.contains(&refusal.code), "{refusal:?}");
    assert!(
        secret.is_null() || secret == ptr::dangling_mut(),
        "a call that was refused gave something"
    );
}
