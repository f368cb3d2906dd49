//! Looking for a key in this process's own memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use keystead_backend::LockedBytes;

use crate::secret;

/// Read at a time.
const PIECE_BYTES: usize = 1 << 20;

const MASK: u8 = 0xA5;

/// A key of which no whole copy exists here, in each form in which there may be one.
pub(crate) struct Masked {
    forms: Vec<Form>,
}

struct Form {
    /// For people.
    name: &'static str,
    masked: Vec<u8>,
}

impl Masked {
    /// Of these bytes; the caller erases its own.
    pub(crate) fn of(key: &[u8]) -> Self {
        let mask = |bytes: &[u8]| bytes.iter().map(|byte| byte ^ MASK).collect();
        let forms = secret::forms(key).into_iter().map(|(name, form)| Form {
            name,
            masked: mask(&form),
        });
        Self {
            forms: forms.collect(),
        }
    }
}

impl Form {
    fn begins(&self, bytes: &[u8]) -> bool {
        bytes.len() >= self.masked.len()
            && self
                .masked
                .iter()
                .zip(bytes)
                .all(|(masked, byte)| *masked == byte ^ MASK)
    }
}

/// 32 random bytes, in locked memory and nowhere else.
pub(crate) fn random_key() -> Result<LockedBytes, String> {
    LockedBytes::fill_with(32, getrandom::fill).map_err(|error| error.to_string())
}

/// The names of the mappings in which one of these stands, and in which form, once for each time; or why it cannot be known.
pub(crate) fn find(keys: &[&Masked]) -> Result<Vec<String>, String> {
    let maps =
        std::fs::read_to_string("/proc/self/maps").map_err(|error| format!("/proc/self/maps: {error}"))?;
    let memory = File::open("/proc/self/mem").map_err(|error| format!("/proc/self/mem: {error}"))?;
    // By their first byte.
    let mut forms: [Vec<&Form>; 256] = std::array::from_fn(|_| Vec::new());
    for form in keys.iter().flat_map(|key| &key.forms) {
        forms[usize::from(form.masked[0] ^ MASK)].push(form);
    }
    let longest = keys
        .iter()
        .flat_map(|key| &key.forms)
        .map(|form| form.masked.len());
    let longest = longest.max().unwrap_or(0);
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
                // What begins behind is in the next piece, too.
                for (place, first) in bytes.iter().take(PIECE_BYTES).enumerate() {
                    for form in &forms[usize::from(*first)] {
                        let address = at as usize + place;
                        if form.begins(&bytes[place..]) && !own.contains(&address) {
                            found.push(format!("{name} ({})", form.name));
                        }
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
