//! What is looked for: every 8 bytes of each secret, at any offset of what is searched.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Found;

pub(crate) const WINDOW: usize = 8;

/// Of one name so many are kept; the rest says nothing new.
const FOUND_MAX: usize = 4;

/// The table would itself be found in the heap, were it kept as it is.
const MASK: u64 = 0xA5A5_5A5A_C3C3_3C3C;

/// Says quickly that 8 bytes are none of those sought: a bit for each value of 20 of their bits.
static SIEVE: [AtomicU64; 1 << 14] = [const { AtomicU64::new(0) }; 1 << 14];

fn sieve(window: u64) -> (&'static AtomicU64, u64) {
    (&SIEVE[(window >> 6) as usize % SIEVE.len()], 1 << (window % 64))
}

static STATE: Mutex<State> = Mutex::new(State {
    names: Vec::new(),
    windows: Vec::new(),
    found: Vec::new(),
});

struct State {
    names: Vec<String>,
    /// Masked, sorted; with the index of the name.
    windows: Vec<(u64, usize)>,
    found: Vec<Found>,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn add(name: &str, secret: &[u8]) {
    let mut state = state();
    let index = state.names.len();
    state.names.push(name.to_owned());
    for window in secret.as_chunks::<WINDOW>().0 {
        let window = u64::from_le_bytes(*window);
        let (word, bit) = sieve(window);
        word.fetch_or(bit, Ordering::Relaxed);
        let masked = window ^ MASK;
        let place = state.windows.partition_point(|(known, _)| *known < masked);
        state.windows.insert(place, (masked, index));
    }
}

impl State {
    /// Calls `hit` with the name's index and the offset for each window that stands in `bytes`.
    fn search(&self, bytes: &[u8], mut hit: impl FnMut(usize, usize)) {
        for (at, window) in candidates(bytes) {
            let masked = window ^ MASK;
            let first = self.windows.partition_point(|(known, _)| *known < masked);
            if let Some((known, index)) = self.windows.get(first)
                && *known == masked
            {
                hit(*index, at);
            }
        }
    }
}

/// What may be one of the windows sought, with its offset.
fn candidates(bytes: &[u8]) -> impl Iterator<Item = (usize, u64)> {
    let windows = bytes
        .array_windows::<WINDOW>()
        .map(|window| u64::from_le_bytes(*window));
    windows.enumerate().filter(|(_, window)| {
        let (word, bit) = sieve(*window);
        word.load(Ordering::Relaxed) & bit != 0
    })
}

/// The names of those that stand in `bytes`, each with where it begins first.
pub(crate) fn search(bytes: &[u8]) -> Vec<(String, usize)> {
    let mut hits: Vec<(String, usize)> = Vec::new();
    if candidates(bytes).next().is_none() {
        return hits;
    }
    let state = state();
    state.search(bytes, |index, at| {
        let name = &state.names[index];
        if !hits.iter().any(|(known, _)| known == name) {
            hits.push((name.clone(), at));
        }
    });
    hits
}

/// Searches many blocks without taking memory.
pub(crate) struct Searcher<'s> {
    state: &'s State,
    /// Name, offset, size of the block; within its capacity.
    hits: Vec<(usize, usize, usize)>,
}

impl Searcher<'_> {
    pub(crate) fn search(&mut self, block: &[u8]) {
        let hits = &mut self.hits;
        self.state.search(block, |index, at| {
            if hits.len() < hits.capacity() {
                hits.push((index, at, block.len()));
            }
        });
    }
}

/// Has `work` search, and says what it found.
pub(crate) fn searching(work: impl FnOnce(&mut Searcher<'_>)) -> Vec<Found> {
    let state = state();
    let mut searcher = Searcher {
        state: &state,
        hits: Vec::with_capacity(4096),
    };
    work(&mut searcher);
    let found = searcher.hits.iter().map(|(index, at, block_bytes)| Found {
        name: state.names[*index].clone(),
        block_bytes: *block_bytes,
        at: *at,
        freed_by: String::new(),
    });
    found.collect()
}

/// Searches a block that is being freed, and keeps what it holds.
pub(crate) fn search_freed(block: &[u8]) {
    for (name, at) in search(block) {
        if state().found.iter().filter(|found| found.name == name).count() == FOUND_MAX {
            continue;
        }
        // Taken without the lock: it reads files and takes its time.
        let freed_by = std::backtrace::Backtrace::force_capture().to_string();
        state().found.push(Found {
            name,
            block_bytes: block.len(),
            at,
            freed_by,
        });
    }
}

pub(crate) fn found() -> Vec<Found> {
    state().found.clone()
}
