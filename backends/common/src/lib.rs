//! What the backends share, so that each of them is about its KMS alone.
//!
//! | room | job |
//! | --- | --- |
//! | `Calls`, `Remaining` (feature `network`) | from a synchronous call to an asynchronous or blocking client and back, within the call's deadline |
//! | [`Object`] | strict reading of a key's config and of the application's settings |
//! | [`endpoint`](Object::endpoint) | a URL that key material may be sent to |
//! | [`Allowed`] | the keys that a stored config may name |
//! | `IdentityToken` (feature `network`) | OpenID Connect tokens: minted by the application, or in a file |
//! | [`SecretSource`] | a secret of the settings: in a file, an environment variable, a descriptor |
//! | [`words`], [`causes`] | what a service or its client said, fit for an error |
//! | [`without_secret`], [`Confided`] | an error that does not repeat what the service was sent |
//!
//! For this project's backends; not covered by any promise of stability. A backend in another project needs
//! `keystead-backend` alone.

mod allowed;
#[cfg(feature = "network")]
mod calls;
mod confided;
mod endpoint;
#[cfg(feature = "network")]
mod identity;
mod repeated;
mod secret;
mod strict;
mod words;

pub use allowed::Allowed;
#[cfg(feature = "network")]
pub use calls::{Calls, Interrupts, Remaining};
pub use confided::Confided;
#[cfg(feature = "network")]
pub use identity::{IdentityToken, TOKEN_MAX_BYTES, token_text, without_token};
pub use repeated::without_secret;
pub use secret::SecretSource;
pub use strict::{Object, kind};
pub use words::{causes, quote, words};
