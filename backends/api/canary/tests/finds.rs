//! That the allocator finds what it is for: without this, a test that finds nothing says nothing.

use keystead_canary::{Found, WatchingAllocator, found, found_in_live_blocks, search, searched, watch};

#[global_allocator]
static ALLOCATOR: WatchingAllocator = WatchingAllocator;

/// Other bytes for each test: they run at the same time.
fn secret(test: u8) -> Vec<u8> {
    (0..32)
        .map(|at: u8| at.wrapping_mul(73) ^ test.wrapping_mul(31))
        .collect()
}

fn watched(test: u8, name: &str) -> Vec<u8> {
    let secret = secret(test);
    watch(name, &secret);
    secret
}

fn of(name: &str) -> Vec<Found> {
    found().into_iter().filter(|found| found.name == name).collect()
}

fn erased(mut bytes: Vec<u8>) {
    bytes.fill(0);
    frees(bytes);
}

#[inline(never)]
fn frees(bytes: Vec<u8>) {
    drop(std::hint::black_box(bytes));
}

#[test]
fn a_secret_that_is_freed_is_found_with_who_freed_it_and_an_erased_one_is_not() {
    let bytes = watched(1, "freed");
    let copy = bytes.clone();
    erased(copy);
    assert!(of("freed").is_empty());
    frees(bytes);
    let found = of("freed");
    assert_eq!((found.len(), found[0].block_bytes, found[0].at), (1, 32, 0));
    assert!(
        found[0].freed_by.contains("finds::frees"),
        "{}",
        found[0].freed_by
    );
}

#[test]
fn fifteen_bytes_of_it_at_any_place_are_enough() {
    let bytes = watched(2, "part");
    for from in 0..=32 - 15 {
        let mut block = vec![0xEE; 100];
        block[from..from + 15].copy_from_slice(&bytes[from..from + 15]);
        assert_eq!(search(&block), ["part"], "from {from}");
    }
    erased(bytes);
}

#[test]
fn the_old_block_of_a_buffer_that_grows_is_found() {
    let mut bytes = watched(3, "grown");
    bytes.reserve_exact(10_000);
    let found = of("grown");
    assert_eq!((found.len(), found[0].block_bytes), (1, 32));
    erased(bytes);
    assert_eq!(of("grown").len(), 1);
}

#[test]
fn a_block_that_lives_is_found_until_it_is_erased() {
    let mut bytes = watched(4, "live");
    let lives = || found_in_live_blocks().iter().any(|found| found.name == "live");
    assert!(lives());
    bytes.fill(0);
    assert!(!lives(), "the table of what is sought is not found itself");
}

#[test]
fn fresh_blocks_are_zero_and_blocks_of_any_alignment_are_searched() {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let bytes = watched(5, "aligned");
    let mut page = Box::new(Page([0; 4096]));
    assert!(std::ptr::from_ref(&*page).addr().is_multiple_of(4096));
    page.0[4064..].copy_from_slice(&bytes);
    drop(page);
    assert_eq!(of("aligned")[0].at, 4064);
    erased(bytes);
    let before = searched();
    drop(std::hint::black_box(vec![1_u8; 777]));
    let after = searched();
    assert!(after.blocks > before.blocks && after.bytes >= before.bytes + 777);
}

#[test]
#[should_panic(expected = "cannot be told from other bytes")]
fn what_is_everywhere_is_not_watched() {
    watch("zeroes", &[0; 32]);
}
