//! Hands libFuzzer's inputs to the target of this name: `ffi/calls/src/fuzz/mod.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: keystead_tests::fuzzing::begin(), |input: &[u8]| {
    keystead_tests::fuzzing::run_said("ffi_calls", input);
});
