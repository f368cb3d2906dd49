//! A whole life of a store with watched values: every way in and out, every kind of key change, every kind of refusal.

use super::{Values, WatchedWorld};
use keystead::backend::ErrorCode;
use keystead::{Batch, Expect, Organization, PutOptions, RewrapJob, Store, VerifyOptions, Version};
use std::error::Error;
use std::io::{Read, Write};
use zeroize::Zeroizing;

pub(crate) fn live(world: &WatchedWorld, store: &Store, values: &Values) {
    let acme = store.create_organization("acme").unwrap();
    write_everything(&acme, values);
    read_everything_well(&acme, values);
    fail_in_every_way(world, store, &acme, values);

    // From the managed key to one of the customer's, a rotation, another one, and back.
    let config = |key: &str| serde_json::json!({ "key": key });
    let done = |job: RewrapJob| assert_eq!(job.run_here(|_| {}).unwrap().remaining, 0);
    let keys = acme.keys();
    done(keys.add("first", "customer-kms", config("first")).unwrap());
    read_everything_well(&acme, values);
    done(keys.rotate("first").unwrap());
    done(keys.add("second", "customer-kms", config("second")).unwrap());
    done(keys.set_default("second", true).unwrap());
    done(keys.disable("first", "second").unwrap());
    keys.probe("second").unwrap();
    read_everything_well(&acme, values);
    done(keys.disable_all().unwrap());
    store.forget_epoch_keys();
    read_everything_well(&acme, values);
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

pub(crate) fn read_everything_well(acme: &Organization, values: &Values) {
    read_everything(acme, values, |error| panic!("{error}"));
}

/// Every way in which a value gets out of it. What fails is told.
pub(crate) fn read_everything(acme: &Organization, values: &Values, mut failed: impl FnMut(&dyn Error)) {
    let mut expect = |path: &str, size: usize| match acme.get(path) {
        Ok(secret) => assert!(secret.value == values.of(size)[..], "{path}"),
        Err(error) => failed(&error),
    };
    Values::WHOLE
        .into_iter()
        .for_each(|(path, size)| expect(path, size));
    (0..5).for_each(|n| expect(&format!("batch/{n}"), 3000 * n));

    for (path, size) in [("streamed", 1_500_000), ("labelled", 99)] {
        let mut room = Zeroizing::new(vec![0; size]);
        let read = acme
            .reader(path, None)
            .map_err(Box::<dyn Error>::from)
            .and_then(|mut reader| {
                reader.read_exact(&mut room)?;
                assert_eq!(reader.read(&mut [0; 10])?, 0);
                Ok(())
            });
        match read {
            Ok(()) => assert!(*room == *values.of(size), "{path}"),
            Err(error) => failed(&*error),
        }
    }
    if let Ok(mut dropped) = acme.reader("streamed", None) {
        dropped
            .read_exact(&mut *Zeroizing::new([0; 70_000]))
            .unwrap_or_else(|error| failed(&error));
    }
    let outcomes = [
        acme.get_version("changing", Version::new(3).unwrap()).err(),
        acme.history("changing", None, 10).err(),
        acme.list("", None, 100).err(),
        acme.audit(0, 1000).err(),
        acme.epochs().err(),
    ];
    outcomes.iter().flatten().for_each(|error| failed(error));
}

/// Refusals and failures with a value or a key at hand.
fn fail_in_every_way(world: &WatchedWorld, store: &Store, acme: &Organization, values: &Values) {
    let value = values.of(700);
    world.refused(acme.put_if("changing", Expect::New, &*value));
    world.refused(acme.put("no//path", &*value));
    world.refused(acme.put_with("labelled", &*value, PutOptions::new().label("", "x")));
    world.refused(acme.get("nowhere"));
    world.refused(acme.get_version("changing", Version::new(9).unwrap()));
    world.refused(acme.get_version("changing", Version::new(1).unwrap()));
    world.refused(store.organization("nobody"));
    world.refused(store.create_organization("acme"));
    world.refused(Batch::new().put("fine", &*value).unwrap().put("/not", &*value));
    let conflicting = PutOptions::new().expect(Expect::New);
    let batch = Batch::new().put("fine", &*value).unwrap();
    world.refused(acme.commit(batch.put_with("changing", &*value, conflicting).unwrap()));
    let mut too_large = acme.writer("too large", PutOptions::new()).unwrap();
    let piece = values.of(8 << 20);
    let written = (0..9).try_for_each(|_| too_large.write_all(&piece));
    world.tell(&written.expect_err("more than 64 MiB"));
    drop(too_large);

    for code in ErrorCode::ALL {
        world.kms_fails(Some(*code));
        store.forget_epoch_keys();
        world.refused(acme.put("while it fails", &*value));
        world.refused(acme.get("small"));
        world.refused(
            acme.keys()
                .add("no", "customer-kms", serde_json::json!({ "key": "no" })),
        );
        world.refused(acme.keys().rotate("managed"));
        world.kms_fails(None);
        world.pass_time();
    }
    world.kms_answers_another_key(true);
    store.forget_epoch_keys();
    world.refused(acme.get("small"));
    world.kms_answers_another_key(false);
    world.pass_time();
}
