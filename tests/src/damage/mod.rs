//! Damaged store files: a sample store, kinds of damage done to it by dice, and what the engine makes of each image: a right
//! answer or a typed error; never a wrong value, a panic that escapes, an abort, a hang, or memory without bound.

pub mod child;
pub mod examine;
pub mod kinds;
pub mod parent;
pub mod report;
pub mod sample;

pub use examine::{Examined, examine};
pub use kinds::Kind;
pub use sample::Sample;
