//! Tokens that the application mints, as an OpenID Connect issuer of its own.

#![allow(unsafe_code)]

use crate::text::{Text, keystead_text};
use engine::backend::{BackendError, ErrorCode, LockedBytes, abi};
use engine::{IdentityProvider, IdentityRequest};
use std::ffi::c_void;

/// For whom a token is asked. Valid during the callback. Later versions add fields at the end.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_identity_request {
    /// How large it is.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// The audience that the key's config names, such as `aws:acme`.
    pub audience: keystead_text,
    /// Whose key.
    pub organization: keystead_text,
    /// Which key.
    pub key: keystead_text,
}

/// Mints a token: writes at most capacity bytes to token, their number to *token_len, and returns 0; or returns a code of
/// KEYSTEAD_BACKEND_... that says why not. KEYSTEAD_BACKEND_UNAVAILABLE when it cannot be minted at the moment: what is cached
/// serves on; a code of the class KEYSTEAD_CLASS_REVOKED takes the key away. Called from threads of the library, several at
/// once; throws nothing. The token is a secret; the library erases its copy.
pub type keystead_identity_token = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        request: *const keystead_identity_request,
        token: *mut u8,
        capacity: usize,
        token_len: *mut usize,
    ) -> i32,
>;

/// The application's callback as the engine's provider.
pub(crate) struct Minter {
    pub(crate) mint: unsafe extern "C" fn(
        *mut c_void,
        *const keystead_identity_request,
        *mut u8,
        usize,
        *mut usize,
    ) -> i32,
    pub(crate) context: *mut c_void,
}

// SAFETY: the header says that the callback is called from any thread, with its context.
unsafe impl Send for Minter {}
// SAFETY: as above.
unsafe impl Sync for Minter {}

impl IdentityProvider for Minter {
    fn token(&self, request: &IdentityRequest<'_>) -> Result<LockedBytes, BackendError> {
        let texts = [
            request.audience,
            request.organization.as_str(),
            request.key.as_str(),
        ]
        .map(Text::new);
        let [audience, organization, key] = texts.each_ref().map(Text::view);
        let asked = keystead_identity_request {
            struct_size: u32::try_from(size_of::<keystead_identity_request>()).expect("small"),
            reserved: 0,
            audience,
            organization,
            key,
        };
        let mut len = 0;
        let mut token = None;
        let room = usize::try_from(abi::TOKEN_MAX).expect("16 KiB");
        LockedBytes::fill_with(room, |memory| {
            // SAFETY: the callback of the application, with what the header says, all of which lives until it returns.
            let code = unsafe {
                (self.mint)(
                    self.context,
                    &raw const asked,
                    memory.as_mut_ptr(),
                    memory.len(),
                    &raw mut len,
                )
            };
            if code != 0 {
                let code = ErrorCode::from_i32(code);
                return Err(BackendError::new(code, "the application minted no token"));
            }
            let minted = memory.get(..len).ok_or_else(|| {
                BackendError::new(
                    ErrorCode::Internal,
                    "the application minted a token longer than its room",
                )
            })?;
            token = Some(LockedBytes::copy_from(minted));
            Ok(())
        })?;
        token.ok_or_else(|| BackendError::new(ErrorCode::Internal, "the application minted no token"))
    }
}
