//! Linux: a process-wide arena of locked pages, which hands out slots of a few sizes.
//!
//! Chunks of pages are mapped as they are needed and kept until the process ends; each chunk holds slots of one size.
//! What is longer than the largest slot gets a mapping of its own. Both count toward one bound.

#![allow(unsafe_code)]

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroize;

/// The sizes of slots, in bytes. A 256-bit key takes one of the smallest.
const SLOT_SIZES: [usize; 4] = [64, 128, 256, 512];

/// How much is mapped at a time for slots of one size: little, since the limit on locked memory can be as low as 64 KiB.
const CHUNK_BYTES: usize = 16 * 1024;

/// The most that an arena maps, in bytes: a million keys.
const MAPPED_MAX_BYTES: usize = 64 * 1024 * 1024;

/// The arena of this process; null before its first use, and again in the child of a fork.
static CURRENT: AtomicPtr<Arena> = AtomicPtr::new(ptr::null_mut());

/// How many forks lie between this process and the one that first used an arena. Tells whether a slot's pages exist here.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// A slot of at least `len` bytes, zeroed. None when the arena is full or the system gives no memory.
pub(super) fn take(len: usize) -> Option<Slot> {
    current().take(len)
}

/// Whether every byte handed out so far lay in locked pages.
pub(super) fn all_is_locked() -> bool {
    !current().fell_short.load(Ordering::Relaxed)
}

fn current() -> &'static Arena {
    let arena = CURRENT.load(Ordering::Acquire);
    // SAFETY: what `CURRENT` points to was leaked below, so it lives as long as the process.
    if let Some(arena) = unsafe { arena.as_ref() } {
        return arena;
    }
    let fresh = Box::into_raw(Box::new(Arena::new(MAPPED_MAX_BYTES, lock_pages)));
    match CURRENT.compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: never freed from here on.
        Ok(_) => unsafe { &*fresh },
        Err(winner) => {
            // SAFETY: `fresh` came from a box and nobody else saw it; the winner is leaked as above.
            unsafe {
                drop(Box::from_raw(fresh));
                &*winner
            }
        }
    }
}

struct Arena {
    inner: Mutex<Inner>,
    /// Something was handed out that is not locked.
    fell_short: AtomicBool,
    /// [`FORKS`] when this arena was made.
    born: u32,
    mapped_max_bytes: usize,
    /// `mlock`, or in tests one that fails.
    lock_pages: fn(*mut u8, usize) -> bool,
}

#[derive(Default)]
struct Inner {
    /// Free slots of each size. Each list has room for all slots of its size, so that giving one back takes no memory.
    free: [Vec<Address>; SLOT_SIZES.len()],
    slots: [usize; SLOT_SIZES.len()],
    mapped_bytes: usize,
}

/// The start of a free slot.
struct Address(NonNull<u8>);

// SAFETY: an address of memory that nobody else uses.
unsafe impl Send for Address {}

impl Arena {
    fn new(mapped_max_bytes: usize, lock_pages: fn(*mut u8, usize) -> bool) -> Self {
        watch_forks();
        Self {
            inner: Mutex::default(),
            fell_short: AtomicBool::new(false),
            born: FORKS.load(Ordering::Relaxed),
            mapped_max_bytes,
            lock_pages,
        }
    }

    fn take(&'static self, len: usize) -> Option<Slot> {
        let slot = match SLOT_SIZES.iter().position(|&size| len <= size) {
            Some(class) => self.take_slot(class),
            None => self.take_mapping(len),
        };
        if slot.is_none() {
            self.fell_short.store(true, Ordering::Relaxed);
        }
        slot
    }

    fn take_slot(&'static self, class: usize) -> Option<Slot> {
        let mut inner = self.inner();
        if inner.free[class].is_empty() {
            self.grow(&mut inner, class)?;
        }
        let Address(start) = inner.free[class].pop()?;
        Some(Slot {
            arena: self,
            start,
            place: Place::Class(class),
        })
    }

    fn grow(&self, inner: &mut Inner, class: usize) -> Option<()> {
        let bytes = whole_pages(CHUNK_BYTES)?;
        let chunk = self.map(inner, bytes)?;
        let count = bytes / SLOT_SIZES[class];
        inner.slots[class] += count;
        let slots = inner.slots[class];
        let free = &mut inner.free[class];
        free.reserve(slots - free.len());
        for index in (0..count).rev() {
            // SAFETY: `count` slots of this size lie within the chunk.
            free.push(Address(unsafe { chunk.add(index * SLOT_SIZES[class]) }));
        }
        Some(())
    }

    fn take_mapping(&'static self, len: usize) -> Option<Slot> {
        let bytes = whole_pages(len)?;
        let start = self.map(&mut self.inner(), bytes)?;
        Some(Slot {
            arena: self,
            start,
            place: Place::Mapping(bytes),
        })
    }

    /// Maps zeroed pages, locked and undumpable as far as the system grants it.
    fn map(&self, inner: &mut Inner, bytes: usize) -> Option<NonNull<u8>> {
        let total = inner
            .mapped_bytes
            .checked_add(bytes)
            .filter(|&total| total <= self.mapped_max_bytes)?;
        // SAFETY: a fresh private anonymous mapping touches no memory in use.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        inner.mapped_bytes = total;
        // SAFETY: advice on whole pages that were just mapped.
        let undumpable = unsafe { libc::madvise(start, bytes, libc::MADV_DONTDUMP) == 0 };
        if WATCHING_FORKS.load(Ordering::Relaxed) {
            // SAFETY: as above. Should the system refuse it, a child inherits the pages, which is no less sound.
            unsafe { libc::madvise(start, bytes, libc::MADV_DONTFORK) };
        }
        if !(self.lock_pages)(start.cast(), bytes) || !undumpable {
            self.fell_short.store(true, Ordering::Relaxed);
        }
        NonNull::new(start.cast())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No change of the lists can be left half done: a panic in here means that memory ran out while growing one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock_pages(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: locking changes no memory, and the kernel checks the range.
    unsafe { libc::mlock(start.cast_const().cast(), bytes) == 0 }
}

fn whole_pages(bytes: usize) -> Option<usize> {
    // SAFETY: no memory is involved.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })
        .ok()
        .filter(|&page| page > 0)?;
    bytes.checked_next_multiple_of(page)
}

static WATCHING_FORKS: AtomicBool = AtomicBool::new(false);

/// Arranges, once, that a child of `fork()` knows that the pages are not there.
fn watch_forks() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    if !ASKED.swap(true, Ordering::AcqRel) {
        // SAFETY: the handler only stores to two atomics, which is safe after a fork.
        let registered = unsafe { libc::pthread_atfork(None, None, Some(in_the_child)) == 0 };
        WATCHING_FORKS.store(registered, Ordering::Relaxed);
    }
}

/// The parent's arena is left as it is, with its lock in whatever state the fork found it: the child starts another.
unsafe extern "C" fn in_the_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    CURRENT.store(ptr::null_mut(), Ordering::Release);
}

/// Zeroed when taken, zeroed when dropped.
pub(super) struct Slot {
    arena: &'static Arena,
    start: NonNull<u8>,
    place: Place,
}

enum Place {
    /// A slot of this size class.
    Class(usize),
    /// A mapping of so many bytes.
    Mapping(usize),
}

// SAFETY: a slot owns its bytes as a box does; its arena is behind a lock.
unsafe impl Send for Slot {}
// SAFETY: shared access only reads.
unsafe impl Sync for Slot {}

impl Slot {
    pub(super) fn as_slice(&self) -> &[u8] {
        self.check_that_it_is_here();
        // SAFETY: the slot owns these bytes, which are mapped and initialized (pages come zeroed).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.size()) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.check_that_it_is_here();
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.size()) }
    }

    fn size(&self) -> usize {
        match self.place {
            Place::Class(class) => SLOT_SIZES[class],
            Place::Mapping(bytes) => bytes,
        }
    }

    fn is_here(&self) -> bool {
        self.arena.born == FORKS.load(Ordering::Relaxed)
    }

    fn check_that_it_is_here(&self) {
        assert!(
            self.is_here(),
            "a key that was taken before fork() was used in the child, where keys are not inherited: \
             open the store after forking"
        );
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.is_here() {
            return;
        }
        self.as_mut_slice().zeroize();
        let mut inner = self.arena.inner();
        match self.place {
            Place::Class(class) => inner.free[class].push(Address(self.start)),
            Place::Mapping(bytes) => {
                // SAFETY: the slot owned the whole mapping, and is gone.
                unsafe { libc::munmap(self.start.as_ptr().cast(), bytes) };
                inner.mapped_bytes -= bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests;
