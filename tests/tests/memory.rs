//! Secrets in the heap: a whole life of a store under an allocator that searches every block that is freed.
//!
//! The test knows every key, since it is the source of the store's randomness: each 32 bytes that the store draws are watched
//! from then on. Values are made of watched bytes. What the test itself holds of either it erases.

mod watched;

use keystead_canary::{Found, WatchingAllocator};
use watched::{Values, WatchedWorld, live, read_everything_well};

#[global_allocator]
static ALLOCATOR: WatchingAllocator = WatchingAllocator;

#[test]
fn no_freed_block_ever_holds_a_value_or_a_key_and_no_live_one_a_key_while_the_store_is_idle_or_closed() {
    // Nothing may be found but what is known not to be secret: shred keys and commitments stand in the file in clear.
    // What was found is not forgotten, so both worlds are there until the end, each with what it wrote in clear.
    let worlds = [true, false].map(|binds_context| (binds_context, WatchedWorld::new(binds_context)));
    let check = |when: &str, found: &[Found]| {
        let public = |found: &&Found| worlds.iter().any(|(_, world)| world.is_on_disk(&found.name));
        let secret: Vec<&Found> = found.iter().filter(|found| !public(found)).collect();
        assert!(secret.is_empty(), "{when}: {} finds\n{secret:#?}", secret.len());
    };
    for (binds_context, world) in &worlds {
        let binds_context = *binds_context;
        let values = Values::new(binds_context);
        let store = world.options().create_on_disk(world.disk()).unwrap();
        live(world, &store, &values);
        // Everything that was read or written is dropped; what is cached is cached, and in locked memory.
        assert!(store.cached_epoch_keys() > 0);
        check("open and idle", &keystead_canary::found_in_live_blocks());
        store.close().unwrap();
        drop(store);
        check("closed", &keystead_canary::found_in_live_blocks());

        // Again from the file, dropped without being closed.
        let store = world.options().open_on_disk(world.disk()).unwrap();
        let acme = store.organization("acme").unwrap();
        read_everything_well(&acme, &values);
        drop((acme, store));
        check("dropped", &keystead_canary::found_in_live_blocks());

        check("freed", &keystead_canary::found());
        let searched = keystead_canary::searched();
        let (keys, derived) = (world.secret_keys(), world.derived_keys());
        println!(
            "{keys} secret keys, {derived} derived from them, and the values watched in {} freed blocks of {} MiB",
            searched.blocks,
            searched.bytes >> 20
        );
        assert!(
            keys >= 25 && derived >= 20 && searched.blocks > 10_000,
            "{keys} keys, {searched:?}"
        );
        assert!(!world.is_on_disk(Values::NAME), "a value is on the disk in clear");
    }
}
