//! What stands on a simulated disk: bytes in pages that copies share, and a fingerprint that tells apart any two of them.

use std::fmt;
use std::sync::{Arc, LazyLock};

const PAGE: usize = 4096;
/// Pages that are shared as one by copies: an image costs what it changed, not what the disk holds.
const CHUNK: usize = 64;

type Page = Arc<[u8; PAGE]>;
type Chunk = Arc<[Option<Page>; CHUNK]>;

/// Zeros that were written: they take room, a hole does not.
static ZEROS: LazyLock<Page> = LazyLock::new(|| Arc::new([0; PAGE]));

/// What stands on a disk. Clones share what neither of them has changed.
#[derive(Clone, Default)]
pub struct Contents {
    len: u64,
    chunks: Vec<Option<Chunk>>,
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Contents({} bytes)", self.len)
    }
}

impl Contents {
    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True when the length is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn page(&self, number: usize) -> Option<&Page> {
        self.chunks[number / CHUNK].as_ref()?[number % CHUNK].as_ref()
    }

    fn slot(&mut self, number: usize) -> &mut Option<Page> {
        let chunk = self.chunks[number / CHUNK].get_or_insert_with(|| Arc::new([const { None }; CHUNK]));
        &mut Arc::make_mut(chunk)[number % CHUNK]
    }

    /// Copies what stands at `offset` into `out`; false, and nothing is copied, when the disk ends before.
    #[must_use]
    pub fn read(&self, offset: u64, out: &mut [u8]) -> bool {
        if offset.saturating_add(out.len() as u64) > self.len {
            return false;
        }
        for (page, within, part) in pieces(offset, out.len()) {
            let out = &mut out[part.clone()];
            match self.page(page) {
                Some(bytes) => out.copy_from_slice(&bytes[within..within + part.len()]),
                None => out.fill(0),
            }
        }
        true
    }

    /// Writes the part of `data` that lies within the length.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let within_len = self.len.saturating_sub(offset).min(data.len() as u64) as usize;
        for (page, within, part) in pieces(offset, within_len) {
            let (slot, data) = (self.slot(page), &data[part.clone()]);
            if part.len() == PAGE {
                *slot = Some(if *data == ZEROS[..] {
                    Arc::clone(&ZEROS)
                } else {
                    Arc::new(data.try_into().expect("a page is a page long"))
                });
            } else {
                let page = slot.get_or_insert_with(|| Arc::clone(&ZEROS));
                Arc::make_mut(page)[within..within + part.len()].copy_from_slice(data);
            }
        }
    }

    /// Cuts off the end, or appends zeros.
    pub fn set_len(&mut self, len: u64) {
        let pages = len.div_ceil(PAGE as u64) as usize;
        if len < self.len {
            self.chunks.truncate(pages.div_ceil(CHUNK));
            let end = self.chunks.len() * CHUNK;
            for page in pages..end {
                if self.page(page).is_some() {
                    *self.slot(page) = None;
                }
            }
            let within = (len % PAGE as u64) as usize;
            if within > 0
                && let Some(last) = self.slot(pages - 1)
            {
                Arc::make_mut(last)[within..].fill(0);
            }
        } else {
            self.chunks.resize(pages.div_ceil(CHUNK), None);
        }
        self.len = len;
    }

    /// How many bytes of pages were ever written, zeros included.
    #[must_use]
    pub fn allocated_bytes(&self) -> u64 {
        let chunks = self.chunks.iter().flatten();
        (chunks.map(|chunk| chunk.iter().flatten().count()).sum::<usize>() * PAGE) as u64
    }

    /// A number that differs when the length or any byte differs (128 bits of BLAKE3, added up over the pages).
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        self.fingerprint_from(&Self::default(), Self::default().len_print())
    }

    /// The same, from the fingerprint of `base`: costs what differs from it.
    #[must_use]
    pub fn fingerprint_from(&self, base: &Self, base_fingerprint: u128) -> u128 {
        let mut print = base_fingerprint
            .wrapping_sub(base.len_print())
            .wrapping_add(self.len_print());
        const EMPTY: [Option<Page>; CHUNK] = [const { None }; CHUNK];
        for number in 0..self.chunks.len().max(base.chunks.len()) {
            let chunk = |of: &Self| of.chunks.get(number).cloned().flatten();
            let (mine, its) = (chunk(self), chunk(base));
            if matches!((&mine, &its), (Some(a), Some(b)) if Arc::ptr_eq(a, b)) {
                continue;
            }
            let mine = mine.as_deref().unwrap_or(&EMPTY);
            let its = its.as_deref().unwrap_or(&EMPTY);
            for (at, (a, b)) in mine.iter().zip(its).enumerate() {
                let same = matches!((a, b), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
                if !same {
                    let number = number * CHUNK + at;
                    print = print
                        .wrapping_sub(page_print(number, b.as_ref()))
                        .wrapping_add(page_print(number, a.as_ref()));
                }
            }
        }
        print
    }

    fn len_print(&self) -> u128 {
        page_hash(usize::MAX, &self.len.to_le_bytes())
    }
}

/// A page of zeros and a hole read the same.
fn page_print(number: usize, page: Option<&Page>) -> u128 {
    match page {
        Some(page) if !Arc::ptr_eq(page, &ZEROS) && **page != **ZEROS => page_hash(number, &page[..]),
        _ => 0,
    }
}

fn page_hash(number: usize, bytes: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes);
    hasher.update(&number.to_le_bytes());
    let hash = *hasher.finalize().as_bytes();
    u128::from_le_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
}

/// Splits a range of bytes at the pages' borders: page, offset in it, range of the whole.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset as usize + done;
        let (page, within) = (at / PAGE, at % PAGE);
        let from = done;
        done += (PAGE - within).min(len - done);
        Some((page, within, from..done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_of_the_bytes_and_not_of_the_way_to_them() {
        let mut base = Contents::default();
        base.set_len(3_000_000);
        base.write(100, b"something");
        let print = base.fingerprint();
        let mut other = base.clone();
        other.write(1_000_000, &[7; 10_000]);
        let changed = other.fingerprint_from(&base, print);
        assert_ne!(changed, print);
        assert_eq!(changed, other.fingerprint());
        other.write(1_000_000, &[0; 10_000]);
        assert_eq!(other.fingerprint_from(&base, print), print);
        other.set_len(50);
        other.set_len(3_000_000);
        let mut empty = Contents::default();
        empty.set_len(3_000_000);
        assert_eq!(other.fingerprint(), empty.fingerprint());
        assert_eq!(other.fingerprint_from(&base, print), empty.fingerprint());
    }
}
