//! What the tests of Keystead share.

pub mod disk;
pub mod emulators;
pub mod env;
pub mod explore;
pub mod gate;
pub mod kms;
pub mod life;
pub mod model;
pub mod observe;
pub mod power;
