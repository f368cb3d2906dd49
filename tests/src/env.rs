//! A simulated clock and randomness, and the dice of the tests: everything follows from a seed.

use keystead::Env;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// When simulated time begins: the wall clock's reading, 2026-01-01.
const BEGINNING: Duration = Duration::from_secs(1_767_225_600);

/// A clock that stands still until it is moved, and random bytes that follow from a seed. Fit for nothing but tests.
#[derive(Debug)]
pub struct SimulatedEnv {
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    elapsed: Duration,
    draws: u64,
    keys: Vec<[u8; 32]>,
    forgets_keys: bool,
}

impl SimulatedEnv {
    /// An environment that repeats itself for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            state: Mutex::default(),
        }
    }

    /// The same, for tests that look for keys in memory: it keeps none, so that what is found is the store's.
    #[must_use]
    pub fn forgetful(seed: u64) -> Self {
        let env = Self::new(seed);
        env.lock().forgets_keys = true;
        env
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.lock().elapsed += by;
    }

    /// Everything of the length of a key that was drawn: epoch keys, data keys, shred keys. Nothing for one that is
    /// [forgetful](Self::forgetful).
    #[must_use]
    pub fn keys(&self) -> Vec<[u8; 32]> {
        self.lock().keys.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Env for SimulatedEnv {
    fn now(&self) -> Duration {
        BEGINNING + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        self.lock().elapsed
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), std::io::Error> {
        let mut state = self.lock();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&state.draws.to_le_bytes());
        state.draws += 1;
        hasher.finalize_xof().fill(out);
        if !state.forgets_keys
            && let Ok(key) = (&*out).try_into()
        {
            state.keys.push(key);
        }
        Ok(())
    }

    fn is_simulation(&self) -> bool {
        true
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

/// Dice that fall the same way for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice of their own for the `index`-th part of something.
    #[must_use]
    pub fn part(seed: u64, index: u64) -> Self {
        let mut dice = Self(seed ^ index.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        Self(dice.roll())
    }

    /// 64 random bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of them; they must not be empty.
    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// The seed of a random test: from `KEYSTEAD_SEED`, else `default`. It is printed, so that a failure can be repeated.
#[allow(clippy::print_stdout, reason = "a test prints its seed")]
#[must_use]
pub fn seed(default: u64) -> u64 {
    let seed = std::env::var("KEYSTEAD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(default);
    println!("KEYSTEAD_SEED={seed}");
    seed
}
