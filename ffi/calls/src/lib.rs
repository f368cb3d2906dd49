//! Calls libkeystead as a program in C does: pointers, lengths, codes, error objects, and a KMS in a table of the program's own.
//!
//! | file | what it is |
//! | --- | --- |
//! | `told` | what a call returns, and that its error object says the same |
//! | `owned` | handles, each with the function that frees it |
//! | `kms` | a KMS as a table of functions |
//! | `client` | a store and its organizations: what the benchmark and the test of freed memory need |
//! | `log` | the log of this process, as lines |
//! | `fuzz` | sequences of calls that follow from any bytes, beside a model of what each must answer |
//!
//! It is a crate of its own because the tests and the benchmark forbid themselves the unsafe code that such calls are. Nothing
//! but tests and the benchmark depends on it.

pub mod client;
pub mod fuzz;
pub mod kms;
pub mod log;
mod owned;
mod told;

pub use owned::Owned;
pub use told::{Refusal, told};
