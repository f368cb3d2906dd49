//! Claims about the arena, checked against what the kernel says of the pages.

use super::*;

/// An arena of the test's own, so that tests do not see each other's slots.
fn arena(mapped_max_bytes: usize, lock_pages: fn(*mut u8, usize) -> bool) -> &'static Arena {
    Box::leak(Box::new(Arena::new(mapped_max_bytes, lock_pages)))
}

/// The flags that the kernel shows for the mapping that holds this address.
fn vm_flags(address: usize) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("/proc is mounted");
    let mut inside = false;
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            let parse = |text: &str| usize::from_str_radix(text, 16).expect("an address");
            inside = (parse(start)..parse(end)).contains(&address);
        } else if inside && first == "VmFlags:" {
            return line.split_whitespace().skip(1).map(str::to_owned).collect();
        }
    }
    panic!("no mapping holds {address:#x}");
}

#[test]
fn the_page_of_a_key_is_locked_undumpable_and_not_inherited() {
    for len in [32, 512, 5000] {
        let arena = arena(MAPPED_MAX_BYTES, lock_pages);
        let slot = arena.take(len).expect("there is memory");
        let flags = vm_flags(slot.start.as_ptr() as usize);
        for flag in ["lo", "dd", "dc"] {
            assert!(
                flags.iter().any(|have| have == flag),
                "{len} bytes: no `{flag}` in {flags:?}"
            );
        }
        assert!(!arena.fell_short.load(Ordering::Relaxed));
    }
}

#[test]
fn when_locking_fails_the_bytes_are_still_usable_and_the_arena_says_so() {
    let arena = arena(MAPPED_MAX_BYTES, |_, _| false);
    let mut slot = arena.take(32).expect("memory, if not locked");
    slot.as_mut_slice().fill(9);
    assert_eq!(slot.as_slice(), [9; 64]);
    assert!(arena.fell_short.load(Ordering::Relaxed));
    let flags = vm_flags(slot.start.as_ptr() as usize);
    assert!(
        flags.iter().any(|flag| flag == "dd"),
        "unlocked, but still undumpable: {flags:?}"
    );
}

#[test]
fn the_arena_does_not_grow_beyond_its_bound_and_a_freed_slot_serves_again() {
    let arena = arena(CHUNK_BYTES, lock_pages);
    let mut slots: Vec<Slot> = std::iter::from_fn(|| arena.take(64)).collect();
    assert_eq!(slots.len(), CHUNK_BYTES / 64);
    assert!(arena.take(5000).is_none(), "a mapping of its own counts, too");
    assert!(arena.fell_short.load(Ordering::Relaxed));
    slots.pop();
    assert!(arena.take(64).is_some());
}

#[test]
fn ten_thousand_live_keys_take_less_than_a_mebibyte() {
    let arena = arena(MAPPED_MAX_BYTES, lock_pages);
    let mut slots: Vec<Slot> = (0..10_000).map(|_| arena.take(32).expect("a slot")).collect();
    for (index, slot) in slots.iter_mut().enumerate() {
        slot.as_mut_slice()[..8].copy_from_slice(&(index as u64).to_le_bytes());
    }
    for (index, slot) in slots.iter().enumerate() {
        assert_eq!(slot.as_slice()[..8], (index as u64).to_le_bytes());
    }
    assert!(
        arena.inner().mapped_bytes < 1024 * 1024,
        "{} bytes",
        arena.inner().mapped_bytes
    );
}

#[test]
fn once_warm_taking_and_dropping_keys_asks_the_system_for_nothing() {
    let arena = arena(MAPPED_MAX_BYTES, lock_pages);
    drop(
        (0..1000)
            .map(|_| arena.take(32).expect("a slot"))
            .collect::<Vec<_>>(),
    );
    let held = || {
        let inner = arena.inner();
        (inner.mapped_bytes, inner.free[0].capacity())
    };
    let before = held();
    for _ in 0..100 {
        drop(
            (0..1000)
                .map(|_| arena.take(32).expect("a slot"))
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(held(), before);
}

#[test]
fn a_dropped_key_is_zero_in_memory_at_once() {
    let arena = arena(MAPPED_MAX_BYTES, lock_pages);
    let mut slot = arena.take(32).expect("a slot");
    slot.as_mut_slice().fill(0xEE);
    let start = slot.start;
    drop(slot);
    // SAFETY: the chunk stays mapped for good, and no other thread uses this arena.
    assert_eq!(unsafe { std::slice::from_raw_parts(start.as_ptr(), 64) }, [0; 64]);
}

#[test]
fn a_mapping_of_its_own_is_unmapped_when_dropped() {
    let arena = arena(MAPPED_MAX_BYTES, lock_pages);
    drop(arena.take(100_000).expect("a mapping"));
    assert_eq!(arena.inner().mapped_bytes, 0);
}

#[test]
fn many_threads_take_and_drop_slots_and_none_sees_the_bytes_of_another() {
    let arena = arena(MAPPED_MAX_BYTES, lock_pages);
    std::thread::scope(|scope| {
        for thread in 1..=8u8 {
            scope.spawn(move || {
                for round in 0..2000usize {
                    let mut held: Vec<Slot> = (0..4)
                        .map(|i| arena.take(1 + (round * 7 + i * 131) % 600).expect("a slot"))
                        .collect();
                    for slot in &mut held {
                        assert!(
                            slot.as_slice().iter().all(|&byte| byte == 0),
                            "taken with bytes in it"
                        );
                        slot.as_mut_slice().fill(thread);
                    }
                    std::thread::yield_now();
                    for slot in &held {
                        assert!(
                            slot.as_slice().iter().all(|&byte| byte == thread),
                            "written by another thread"
                        );
                    }
                }
            });
        }
    });
}

/// The exit code of a child whose work panicked.
const PANICKED: i32 = 77;

/// Forks, does `work` in the child, and answers the child's exit code, or the signal that ended it as a negative number.
fn in_a_child(work: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only does `work` and leaves by `_exit`, so no destructor or test runs twice.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0, "fork failed");
        if child == 0 {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(PANICKED);
            libc::_exit(code);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        if libc::WIFEXITED(status) {
            libc::WEXITSTATUS(status)
        } else {
            -libc::WTERMSIG(status)
        }
    }
}

#[test]
fn a_key_from_before_a_fork_panics_in_the_child_instead_of_reading_as_zeroes() {
    let key = crate::LockedBytes::copy_from(&[5; 32]);
    let code = in_a_child(|| {
        std::panic::set_hook(Box::new(|_| {})); // of the child, which ends here
        i32::from(key.as_slice()[0])
    });
    assert_eq!(code, PANICKED);
    assert_eq!(key.as_slice(), [5; 32], "the parent's key is as it was");
}

#[test]
fn a_child_of_a_fork_drops_inherited_keys_harmlessly_and_makes_keys_of_its_own() {
    let inherited = crate::LockedBytes::copy_from(&[5; 32]);
    let large = crate::LockedBytes::copy_from(&[6; 10_000]);
    let code = in_a_child(move || {
        drop(inherited);
        drop(large);
        let own: Vec<_> = (0..100u8)
            .map(|byte| crate::LockedBytes::copy_from(&[byte; 32]))
            .collect();
        let right = own
            .iter()
            .enumerate()
            .all(|(index, key)| key.as_slice() == [index as u8; 32]);
        if right { 42 } else { 1 }
    });
    assert_eq!(code, 42);
}
