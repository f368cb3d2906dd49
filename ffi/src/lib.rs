//! libkeystead: the C ABI of Keystead. The manual of each function is the comment at it, which stands in
//! `include/keystead.h`, too; the guide is `docs/embedding.md`.
//!
//! | file | what it is |
//! | --- | --- |
//! | `guard` | the seam that every exported function goes through: panics, pointers, lengths |
//! | `process` | which process this is |
//! | `structs` | structs that begin with their size, and grow |
//! | `text` | text and labels on their way to C |
//! | `error` | codes, classes, the error object |
//! | `list` | answers of many items |
//! | `backend`, `identity` | plugins, tables, the managed keyring; tokens that the application mints |
//! | `keyring` | care of the managed keyring's file |
//! | `store`, `organization` | opening, creating; one tenant |
//! | `secret`, `batch`, `stream`, `history` | writing, reading; many at once; large values; lists and versions |
//! | `keys`, `second`, `epochs`, `rewrap` | registered keys; the second one; epochs; jobs |
//! | `audit`, `checkpoint`, `verify` | the trail; how far a store has come; checking everything |
//! | `log` | what the engine and plugins log, to a callback |
//! | `salvage` | what is whole in a damaged file, into a new store |
//!
//! Rust programs use the crate `keystead` itself.

#![allow(non_camel_case_types, reason = "types have their names of C")]
#![allow(
    clippy::missing_safety_doc,
    reason = "the header's rules, at its top, are what is asked of every caller"
)]
#![allow(clippy::too_many_arguments, reason = "a length comes with every pointer")]

pub mod audit;
pub mod backend;
pub mod batch;
pub mod checkpoint;
pub mod epochs;
pub mod error;
mod guard;
pub mod history;
pub mod identity;
pub mod keyring;
pub mod keys;
mod list;
pub mod log;
pub mod organization;
mod process;
pub mod rewrap;
pub mod salvage;
pub mod second;
pub mod secret;
pub mod store;
pub mod stream;
mod structs;
pub mod text;
pub mod verify;
pub mod version;
