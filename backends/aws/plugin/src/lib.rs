//! The backend of the crate `keystead-aws-kms` as a dynamic plugin, and nothing else.
//!
//! A crate of its own, since the symbol that it exports must not be in the library that applications link statically: two
//! backends in one program would both define it.

/// Overwrites every block of memory when it is freed: clients, codecs and TLS copy keys and tokens, and do not.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

keystead_backend::export_backend!(keystead_aws_kms::AwsKmsBackend::default());
