//! Looking for a key in this process's own memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use keystead_backend::LockedBytes;

/// Read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A key of which no whole copy exists here.
pub(crate) struct Masked {
    masked: Vec<u8>,
    mask: u8,
}

impl Masked {
    /// Of these bytes; the caller erases its own.
    pub(crate) fn of(key: &[u8]) -> Self {
        let mask = 0xA5;
        Self {
            masked: key.iter().map(|byte| byte ^ mask).collect(),
            mask,
        }
    }

    fn begins(&self, bytes: &[u8]) -> bool {
        bytes.len() >= self.masked.len()
            && self
                .masked
                .iter()
                .zip(bytes)
                .all(|(masked, byte)| *masked == byte ^ self.mask)
    }
}

/// 32 random bytes, in locked memory and nowhere else.
pub(crate) fn random_key() -> Result<LockedBytes, String> {
    LockedBytes::fill_with(32, getrandom::fill).map_err(|error| error.to_string())
}

/// The names of the mappings in which one of these stands, one name for each time; or why it cannot be known.
pub(crate) fn find(keys: &[&Masked]) -> Result<Vec<String>, String> {
    let maps =
        std::fs::read_to_string("/proc/self/maps").map_err(|error| format!("/proc/self/maps: {error}"))?;
    let memory = File::open("/proc/self/mem").map_err(|error| format!("/proc/self/mem: {error}"))?;
    let longest = keys.iter().map(|key| key.masked.len()).max().unwrap_or(0);
    let mut piece = vec![0u8; PIECE_BYTES + longest];
    let own = piece.as_ptr().addr()..piece.as_ptr().addr() + piece.len();
    let mut found = Vec::new();
    for line in maps.lines() {
        let Some((from, to, name)) = writable(line) else {
            continue;
        };
        let mut at = from;
        while at < to {
            let len = (to - at).min(piece.len() as u64) as usize;
            let bytes = &mut piece[..len];
            // What cannot be read, such as a guard page, holds nothing.
            if memory.read_exact_at(bytes, at).is_ok() {
                for key in keys {
                    let first = key.masked[0] ^ key.mask;
                    let mut from = 0;
                    while let Some(next) = bytes[from..].iter().position(|byte| *byte == first) {
                        let place = from + next;
                        let address = at as usize + place;
                        // In the next piece, too, if it begins in what both have.
                        let is_next = place >= PIECE_BYTES;
                        if !is_next && !own.contains(&address) && key.begins(&bytes[place..]) {
                            found.push(name.clone());
                        }
                        from = place + 1;
                    }
                }
            }
            at += PIECE_BYTES as u64;
        }
    }
    piece.fill(0);
    Ok(found)
}

/// A mapping that can be written: from, to, and its name for people.
fn writable(line: &str) -> Option<(u64, u64, String)> {
    let mut words = line.split_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    if !words.next()?.starts_with("rw") {
        return None;
    }
    let name = words.nth(3).unwrap_or("memory that has no name");
    let address = |text| u64::from_str_radix(text, 16).ok();
    Some((address(from)?, address(to)?, name.to_owned()))
}
