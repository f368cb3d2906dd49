//! Hands libFuzzer's inputs to the target of this name: `tests/src/fuzzing/redb_leaf.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: keystead_tests::fuzzing::begin(), |input: &[u8]| {
    keystead_tests::fuzzing::run_said("redb_leaf", input);
});
