//! One tenant's handle.

#![allow(unsafe_code)]

use crate::error::keystead_error;
use crate::guard::{self, Handle, Life};
use crate::text::Text;
use engine::Organization;
use std::ffi::c_char;
use std::sync::Arc;

/// One organization of a store: its secrets, keys, epochs, audit trail.
///
/// Freed with keystead_organization_free(), before or after its store's handle. Threads: any, also at once. Each change is
/// durable when its call returns; reads never wait for writers. Not to be used in the child of a fork().
#[derive(Debug)]
pub struct keystead_organization {
    pub(crate) organization: Organization,
    pub(crate) life: Arc<Life>,
    name: Text,
}

impl keystead_organization {
    pub(crate) fn new(organization: Organization, life: &Arc<Life>) -> Self {
        Self {
            name: Text::new(organization.name().as_str()),
            organization,
            life: Arc::clone(life),
        }
    }
}

impl Handle for keystead_organization {
    const WHAT: &'static str = "organization";

    fn life(&self) -> &Arc<Life> {
        &self.life
    }
}

/// The organization's name, with a zero byte at its end. Belongs to the handle. Null gives "".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_organization_name(
    organization: *const keystead_organization,
) -> *const c_char {
    // SAFETY: null or a live handle, as the header says.
    unsafe {
        guard::look(organization, c"".as_ptr(), |organization| {
            organization.name.as_ptr()
        })
    }
}

/// The organization's number in its store: given once, never given again. Null gives 0, which may be a number, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_organization_id(organization: *const keystead_organization) -> u32 {
    // SAFETY: null or a live handle, as the header says.
    unsafe {
        guard::look(organization, 0, |organization| {
            organization.organization.id().get()
        })
    }
}

/// A further handle on the same organization, acting for somebody and for a reason: the audit records of what is done with
/// it say so. actor has at most 256 bytes, reason at most 1024, neither has control characters; null: not said. To be freed
/// as well.
///
/// Errors: KEYSTEAD_INVALID_ARGUMENT. Threads: any.
///
///     code = keystead_organization_acting_as(acme, "alice@acme", KEYSTEAD_ZERO_TERMINATED, "ticket 4711",
///                                            KEYSTEAD_ZERO_TERMINATED, &alice, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_organization_acting_as(
    organization: *const keystead_organization,
    actor: *const c_char,
    actor_len: usize,
    reason: *const c_char,
    reason_len: usize,
    out: *mut *mut keystead_organization,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(organization)?;
            let actor = called
                .optional_text(actor, actor_len, "actor")?
                .unwrap_or_default();
            let reason = called
                .optional_text(reason, reason_len, "reason")?
                .unwrap_or_default();
            let acting = handle.organization.acting_as(actor, reason)?;
            out.give(keystead_organization::new(acting, &handle.life));
            Ok(())
        })
    }
}

/// Frees the handle. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_organization_free(organization: *mut keystead_organization) {
    // SAFETY: null or a handle that is not used any more, as the header says.
    unsafe { guard::free_handle(organization) }
}
