//! The allocator: the system's, with a header before each block that links all live blocks.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Found, windows};

/// To be the `#[global_allocator]` of a test binary.
#[derive(Debug)]
pub struct WatchingAllocator;

/// Stands before each block.
#[repr(C)]
struct Header {
    previous: *mut Header,
    next: *mut Header,
    size: usize,
    /// Taken by this crate itself: not searched.
    own: bool,
}

const HEADER: usize = size_of::<Header>();

/// The first of the live blocks.
struct First(*mut Header);

// SAFETY: the headers are touched under the lock of `LIVE` alone.
unsafe impl Send for First {}

static LIVE: Mutex<First> = Mutex::new(First(ptr::null_mut()));

pub(crate) static BLOCKS: AtomicU64 = AtomicU64::new(0);
pub(crate) static BYTES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// This crate is at work on this thread: what it takes and frees is not searched.
    static UNWATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Does something whose memory is not searched.
pub(crate) fn unwatched<T>(work: impl FnOnce() -> T) -> T {
    let before = UNWATCHED.replace(true);
    let result = work();
    UNWATCHED.set(before);
    result
}

fn live() -> MutexGuard<'static, First> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The layout with the header, and where in it the block begins.
fn with_header(layout: Layout) -> Option<(Layout, usize)> {
    Layout::new::<Header>().extend(layout).ok()
}

// SAFETY: blocks come from the system's allocator, as large and aligned as was asked for, behind a header of their own.
unsafe impl GlobalAlloc for WatchingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps what `alloc` asks, and `alloc_zeroed` asks no more.
        unsafe { self.alloc_zeroed(layout) }
    }

    /// Every block: so that nothing is found in one that its last owner left there, and each byte has a value.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some((whole, offset)) = with_header(layout) else {
            return ptr::null_mut();
        };
        // SAFETY: the layout is not empty, as it holds a header.
        let base = unsafe { System.alloc_zeroed(whole) };
        if base.is_null() {
            return base;
        }
        // SAFETY: the block has `layout.size()` bytes behind the offset, which is at least a header's length.
        let block = unsafe { base.add(offset) };
        // SAFETY: right before the block lies room for a header, aligned, since the block is and the length is a multiple.
        let header = unsafe { block.sub(HEADER) }.cast::<Header>();
        let mut first = live();
        // SAFETY: as above; the neighbour is live, so its header is.
        unsafe {
            header.write(Header {
                previous: ptr::null_mut(),
                next: first.0,
                size: layout.size(),
                own: UNWATCHED.get(),
            });
            if !first.0.is_null() {
                (*first.0).previous = header;
            }
        }
        first.0 = header;
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some((whole, offset)) = with_header(layout) else {
            return;
        };
        // SAFETY: it was put there by `alloc_zeroed`.
        let header = unsafe { block.sub(HEADER) }.cast::<Header>();
        // SAFETY: as above.
        if !unsafe { (*header).own } && !UNWATCHED.get() {
            // SAFETY: the block is whole until the end of this call, nobody else has it, and every byte was given a value.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            BLOCKS.fetch_add(1, Ordering::Relaxed);
            BYTES.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            unwatched(|| windows::search_freed(bytes));
        }
        let mut first = live();
        // SAFETY: its neighbours are live; the list is this thread's under the lock.
        unsafe {
            let Header { previous, next, .. } = header.read();
            if previous.is_null() {
                first.0 = next;
            } else {
                (*previous).next = next;
            }
            if !next.is_null() {
                (*next).previous = previous;
            }
        }
        drop(first);
        // SAFETY: this is where and how it was taken.
        unsafe { System.dealloc(block.sub(offset), whole) };
    }
}

/// Searches all blocks that live now. They are read as they are: a test asks when nobody writes to them.
pub(crate) fn search_live() -> Vec<Found> {
    unwatched(|| {
        windows::searching(|searcher| {
            // No memory is taken while the list is held, or this thread would wait for itself.
            let first = live();
            let mut header = first.0;
            while !header.is_null() {
                // SAFETY: a live block's header, under the lock.
                let Header { next, size, own, .. } = unsafe { header.read() };
                if !own {
                    // SAFETY: the block lies behind its header, is not freed under the lock, and every byte was given a value.
                    let block = unsafe { std::slice::from_raw_parts(header.add(1).cast::<u8>(), size) };
                    searcher.search(block);
                }
                header = next;
            }
        })
    })
}
