//! The backend of the crate `keystead-fault-shim` as a dynamic plugin, and nothing else.
//!
//! A crate of its own, since the symbol that it exports must not be in the library that applications link statically: two
//! backends in one program would both define it.

keystead_backend::export_backend!(keystead_fault_shim::FaultShim::default());
