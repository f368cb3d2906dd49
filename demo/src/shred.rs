//! Finds shred keys in the bytes of a store file, without knowing its format.
//!
//! Every wrap of an epoch key is sealed once more under a shred key of its own. That key stands in clear in a cell of the file,
//! and nowhere else; when the wrap is dropped the cell is overwritten. Here the source of randomness is listened to, so
//! each 32 random bytes that the engine drew can be looked for in the file: those that are there in clear are shred keys.

use keystead::{Env, SystemEnv};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const KEY_BYTES: usize = 32;

/// The system's clock and randomness, with what was drawn in pieces of 32 bytes remembered while somebody listens.
///
/// It has data keys and epoch keys among what it remembers: a thing for a demonstration alone.
#[derive(Debug, Default)]
pub(crate) struct ListeningEnv {
    system: SystemEnv,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    is_listening: bool,
    keys: Vec<[u8; KEY_BYTES]>,
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.keys.len())
    }
}

impl ListeningEnv {
    /// What 32-byte pieces are drawn while `during` runs.
    pub(crate) fn listen<T>(&self, during: impl FnOnce() -> T) -> (T, Vec<[u8; KEY_BYTES]>) {
        self.heard().is_listening = true;
        let outcome = during();
        let mut heard = self.heard();
        heard.is_listening = false;
        (outcome, std::mem::take(&mut heard.keys))
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Env for ListeningEnv {
    fn now(&self) -> Duration {
        self.system.now()
    }

    fn elapsed(&self) -> Duration {
        self.system.elapsed()
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.system.fill_random(out)?;
        if let Ok(key) = <[u8; KEY_BYTES]>::try_from(&*out) {
            let mut heard = self.heard();
            if heard.is_listening {
                heard.keys.push(key);
            }
        }
        Ok(())
    }
}

/// Where in a file each of these keys stands in clear; keys that are nowhere are left out.
pub(crate) fn find(file: &Path, keys: &[[u8; KEY_BYTES]]) -> std::io::Result<Vec<(usize, [u8; KEY_BYTES])>> {
    let bytes = std::fs::read(file)?;
    let mut found = Vec::new();
    for (offset, window) in bytes.windows(KEY_BYTES).enumerate() {
        // Most windows are told apart by their first byte.
        if let Some(key) = keys.iter().find(|key| key[0] == window[0] && key[..] == *window) {
            found.push((offset, *key));
        }
    }
    Ok(found)
}
