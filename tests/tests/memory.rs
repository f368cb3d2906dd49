//! Secrets in the heap: a whole life of a store under an allocator that searches every block that is freed.
//!
//! The test knows every key, since it is the source of the store's randomness: each 32 bytes that the store draws are watched
//! from then on. Values are made of watched bytes. What the test itself holds of either it erases.

mod watched;

use keystead::backend::ErrorCode;
use keystead::{Batch, Error, Expect, Organization, PutOptions, Store, VerifyOptions, Version};
use keystead_canary::{Found, WatchingAllocator};
use std::io::{Read, Write};
use watched::{Values, WatchedWorld};
use zeroize::Zeroizing;

#[global_allocator]
static ALLOCATOR: WatchingAllocator = WatchingAllocator;

#[test]
fn no_freed_block_ever_holds_a_value_or_a_key_and_no_live_one_a_key_while_the_store_is_idle_or_closed() {
    for binds_context in [true, false] {
        let world = WatchedWorld::new(binds_context);
        let values = Values::new(binds_context);
        let store = world.options().create_on_disk(world.disk()).unwrap();
        live(&world, &store, &values);
        // Everything that was read or written is dropped; what is cached is cached, and in locked memory.
        assert!(store.cached_epoch_keys() > 0);
        world.check("open and idle", &keystead_canary::found_in_live_blocks());
        store.close().unwrap();
        drop(store);
        world.check("closed", &keystead_canary::found_in_live_blocks());

        // Again from the file, dropped without being closed.
        let store = world.options().open_on_disk(world.disk()).unwrap();
        let acme = store.organization("acme").unwrap();
        read_everything(&acme, &values);
        drop((acme, store));
        world.check("dropped", &keystead_canary::found_in_live_blocks());

        world.check("freed", &keystead_canary::found());
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

fn live(world: &WatchedWorld, store: &Store, values: &Values) {
    let acme = store.create_organization("acme").unwrap();
    write_everything(&acme, values);
    read_everything(&acme, values);
    fail_in_every_way(world, store, &acme, values);

    // From the managed key to one of the customer's, a rotation, another one, and back.
    let config = |key: &str| serde_json::json!({ "key": key });
    let done = |job: keystead::RewrapJob| assert_eq!(job.run_here(|_| {}).unwrap().remaining, 0);
    done(acme.keys().add("first", "customer-kms", config("first")).unwrap());
    read_everything(&acme, values);
    done(acme.keys().rotate("first").unwrap());
    done(
        acme.keys()
            .add("second", "customer-kms", config("second"))
            .unwrap(),
    );
    done(acme.keys().set_default("second", true).unwrap());
    done(acme.keys().disable("first", "second").unwrap());
    acme.keys().probe("second").unwrap();
    read_everything(&acme, values);
    done(acme.keys().disable_all().unwrap());
    store.forget_epoch_keys();
    read_everything(&acme, values);
    let report = store.verify(VerifyOptions { open_values: true }, |_| {}).unwrap();
    assert!(report.is_clean() && report.unopened.is_empty(), "{report:#?}");
}

/// Every way in which a value gets into the store.
fn write_everything(acme: &Organization, values: &Values) {
    for (path, size) in Values::WHOLE {
        acme.put(path, &*values.of(size)).unwrap();
    }
    let labelled = PutOptions::new().label("team", "db").content_type("text/plain");
    acme.put_with("labelled", &*values.of(99), labelled).unwrap();
    let batch = (0..5).fold(Batch::new(), |batch, n| {
        batch.put(&format!("batch/{n}"), &*values.of(3000 * n)).unwrap()
    });
    acme.commit(batch).unwrap();

    let mut writer = acme.writer("streamed", PutOptions::new()).unwrap();
    for piece in values.of(1_500_000).chunks(7001) {
        writer.write_all(piece).unwrap();
    }
    writer.finish().unwrap();
    for size in [1000, 100_000, 2_000_000] {
        let mut dropped = acme.writer("dropped", PutOptions::new()).unwrap();
        dropped.write_all(&values.of(size)).unwrap();
    }

    let version = |number| Version::new(number).unwrap();
    for _ in 0..3 {
        acme.put("changing", &*values.of(500)).unwrap();
    }
    acme.put_if("changing", Expect::Version(version(3)), &*values.of(501))
        .unwrap();
    acme.delete("changing", version(4)).unwrap();
    acme.undelete("changing", version(4)).unwrap();
    acme.destroy("changing", version(1)).unwrap();
    acme.set_retention("changing", Some(2)).unwrap();
}

/// Every way in which a value gets out of it.
fn read_everything(acme: &Organization, values: &Values) {
    for (path, size) in Values::WHOLE {
        assert!(acme.get(path).unwrap().value == values.of(size)[..], "{path}");
    }
    for n in 0..5 {
        assert!(acme.get(&format!("batch/{n}")).unwrap().value == values.of(3000 * n)[..]);
    }
    assert_eq!(acme.history("changing", None, 10).unwrap().len(), 4);
    acme.get_version("changing", Version::new(3).unwrap()).unwrap();
    for (path, size) in [("streamed", 1_500_000), ("labelled", 99)] {
        let mut room = Zeroizing::new(vec![0; size]);
        let mut reader = acme.reader(path, None).unwrap();
        reader.read_exact(&mut room).unwrap();
        assert_eq!(reader.read(&mut [0; 10]).unwrap(), 0);
        assert!(*room == *values.of(size));
    }
    let mut dropped = acme.reader("streamed", None).unwrap();
    dropped.read_exact(&mut *Zeroizing::new([0; 70_000])).unwrap();
    acme.list("", None, 100).unwrap();
}

/// Refusals and failures with a value or a key at hand.
fn fail_in_every_way(world: &WatchedWorld, store: &Store, acme: &Organization, values: &Values) {
    let value = values.of(700);
    assert!(matches!(
        acme.put_if("changing", Expect::New, &*value),
        Err(Error::VersionMismatch { .. })
    ));
    assert!(acme.put("no//path", &*value).is_err());
    assert!(
        Batch::new()
            .put("fine", &*value)
            .unwrap()
            .put("/not", &*value)
            .is_err()
    );
    let batch = Batch::new().put("fine", &*value).unwrap();
    let conflicting = PutOptions::new().expect(Expect::New);
    let batch = batch.put_with("changing", &*value, conflicting).unwrap();
    assert!(acme.commit(batch).is_err());
    for code in [
        ErrorCode::Unavailable,
        ErrorCode::KeyDisabled,
        ErrorCode::WrongKey,
    ] {
        world.kms_fails(Some(code));
        store.forget_epoch_keys();
        assert!(acme.put("while it fails", &*value).is_err());
        assert!(acme.get("small").is_err());
        assert!(
            acme.keys()
                .add("no", "customer-kms", serde_json::json!({"key": "no"}))
                .is_err()
        );
        world.kms_fails(None);
        world.pass_time();
    }
    world.kms_answers_another_key(true);
    store.forget_epoch_keys();
    assert!(acme.get("small").is_err());
    world.kms_answers_another_key(false);
    world.pass_time();
}

impl WatchedWorld {
    /// Nothing was found but what is known not to be secret: shred keys stand in the file in clear.
    fn check(&self, when: &str, found: &[Found]) {
        let secret: Vec<&Found> = found
            .iter()
            .filter(|found| !self.is_on_disk(&found.name))
            .collect();
        assert!(secret.is_empty(), "{when}: {} finds\n{secret:#?}", secret.len());
    }
}
