//! Calls that follow from random bytes: what the fuzz target `ffi_calls` does, for a moment. It runs again from its seed.

#![allow(clippy::print_stderr)]

const SEED: &str = "KEYSTEAD_SEED";
const INPUTS: u64 = 40;
const INPUT_BYTES: usize = 400;

/// SplitMix64: a stream of numbers that follows from the seed.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn whatever_is_called_in_whatever_order_each_call_answers_as_it_must() {
    let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    // The same in each run: to find others is the fuzz target's work.
    let first = given.unwrap_or(1);
    let inputs = if given.is_some() { 1 } else { INPUTS };
    for seed in first..first + inputs {
        let mut state = seed;
        let input: Vec<u8> = std::iter::repeat_with(|| next(&mut state) as u8)
            .take(INPUT_BYTES)
            .collect();
        // The first that is seen when it panics.
        eprintln!("{SEED}={seed}");
        keystead_ffi_calls::fuzz::run(&input);
    }
}
