//! Overwrites what cryptography leaves on the stack: key schedules that were moved, states of hashes, blocks of key stream;
//! and what is left in registers.
//!
//! Left where it is, such a rest is not only there for who reads the stack. It gets into the heap: a large value that is built
//! on the stack later, and has room in it that it does not use (padding, a smaller variant of an enum), takes along what lay
//! there before when it is moved to the heap, and keeps it for as long as it lives. A snapshot of the store was such a value.

/// What is overwritten. The calls below a read or a put take less before they come to the disk.
const WIPED_BYTES: usize = 16 << 10;

/// Does `work` in a frame of its own, and overwrites that frame and those below it when it returned: 16 KiB, about 0.2 µs.
/// What `work` returns must hold its secrets by pointer.
///
/// The compiler gives no promise about stacks; `tests/tests/memory.rs` looks for keys that come through.
pub(crate) fn wiping_stack<T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    wipe();
    result
}

/// The same for a thread that waits afterwards: its registers keep what they held for as long as it waits, and a core dump holds
/// them. A hash of nothing secret goes through most of the vector registers, in which keys are copied.
pub(crate) fn wiping_registers<T>(work: impl FnOnce() -> T) -> T {
    let result = wiping_stack(work);
    std::hint::black_box(blake3::hash(std::hint::black_box(&[0; 64])));
    result
}

#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe() {
    let room = [0_u8; WIPED_BYTES];
    std::hint::black_box(&room);
}
