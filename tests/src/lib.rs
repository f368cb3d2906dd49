//! What the tests of Keystead share.

pub mod emulators;
pub mod kms;
