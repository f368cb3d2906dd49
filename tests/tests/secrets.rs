//! Secrets: what is put is read back, versions and expectations hold, and bad input changes nothing.

mod common;

use common::{Bench, assert_sound};
use keystead::{Batch, Error, Expect, PutOptions, Version, VersionState};
use std::io::{Read, Write};

fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

#[test]
fn what_is_put_is_read_back_latest_and_by_version_also_after_reopening() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    assert_eq!(acme.put("prod/db/password", b"one").unwrap(), version(1));
    assert_eq!(acme.put("prod/db/password", b"two").unwrap(), version(2));
    let check = |acme: &keystead::Organization| {
        let latest = acme.get("prod/db/password").unwrap();
        assert_eq!(
            (latest.value.as_slice(), latest.version),
            (&b"two"[..], version(2))
        );
        assert_eq!(
            acme.get_version("prod/db/password", version(1)).unwrap().value,
            b"one"
        );
    };
    check(&acme);
    drop((store, acme));
    let store = bench.open();
    check(&store.organization("acme").unwrap());
    assert_sound(&store);
}

#[test]
fn values_of_every_size_are_read_back_whole_and_as_a_stream() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    let sizes = [
        0,
        1,
        1024,
        16_384,
        16_385,
        65_407,
        65_408,
        65_409,
        200_000,
        (1 << 20) - 1,
        1 << 20,
        (1 << 20) + 1,
        5_000_000,
    ];
    for size in sizes {
        let value: Vec<u8> = (0..size).map(|n| (n * 31 + n / 256) as u8).collect();
        let path = format!("size/{size}");
        acme.put(&path, &value).unwrap();
        assert!(acme.get(&path).unwrap().value == value[..], "{size}");
        let mut streamed = Vec::new();
        acme.reader(&path, None)
            .unwrap()
            .read_to_end(&mut streamed)
            .unwrap();
        assert!(streamed == value, "{size}");
        assert_eq!(acme.history(&path, None, 10).unwrap()[0].size_bytes, size as u64);
    }
    assert_sound(&store);
}

#[test]
fn a_value_of_64_mib_is_the_largest() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    let mut writer = acme.writer("large", PutOptions::new()).unwrap();
    let piece = vec![7; 1 << 20];
    for _ in 0..64 {
        writer.write_all(&piece).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), version(1));
    assert_eq!(acme.get("large").unwrap().value.len(), 64 << 20);

    let mut writer = acme.writer("too/large", PutOptions::new()).unwrap();
    for _ in 0..64 {
        writer.write_all(&piece).unwrap();
    }
    assert!(writer.write_all(b"x").is_err());
    drop(writer);
    assert!(matches!(acme.get("too/large"), Err(Error::SecretNotFound { .. })));
    let large = vec![0; (64 << 20) + 1];
    assert!(matches!(
        acme.put("too/large", large),
        Err(Error::TooLarge { .. })
    ));
    assert_sound(&store);
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    let mut writer = acme.writer("half", PutOptions::new()).unwrap();
    writer.write_all(&vec![1; 3 << 20]).unwrap();
    drop(writer);
    assert!(acme.get("half").unwrap_err().is_not_found());
    assert!(acme.list("", None, 10).unwrap().items.is_empty());
    assert_sound(&store);
}

#[test]
fn put_if_goes_through_only_at_the_expected_version() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    assert!(matches!(
        acme.put_if("a", Expect::from_number(1), b"x"),
        Err(Error::VersionMismatch {
            expected: 1,
            actual: 0,
            ..
        })
    ));
    acme.put_if("a", Expect::New, b"one").unwrap();
    assert!(matches!(
        acme.put_if("a", Expect::New, b"x"),
        Err(Error::VersionMismatch {
            expected: 0,
            actual: 1,
            ..
        })
    ));
    acme.put_if("a", Expect::Version(version(1)), b"two").unwrap();
    assert_eq!(acme.get("a").unwrap().value, b"two");
}

#[test]
fn of_eight_threads_that_expect_the_same_version_one_wins() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    for round in 0..20 {
        let wins: usize = std::thread::scope(|threads| {
            let racing: Vec<_> = (0..8)
                .map(|thread| {
                    let acme = &acme;
                    threads.spawn(move || acme.put_if("raced", Expect::from_number(round), [thread]).is_ok())
                })
                .collect();
            racing
                .into_iter()
                .map(|thread| usize::from(thread.join().unwrap()))
                .sum()
        });
        assert_eq!(wins, 1);
    }
    assert_eq!(acme.get("raced").unwrap().version, version(20));
}

#[test]
fn a_batch_is_there_whole_or_not_at_all() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    let batch = Batch::new()
        .put("a", "1")
        .unwrap()
        .put("b", "1")
        .unwrap()
        .put("a", "2")
        .unwrap();
    assert_eq!(acme.commit(batch).unwrap(), [version(1), version(1), version(2)]);
    let failing = Batch::new()
        .put("c", "1")
        .unwrap()
        .put_with("a", "3", PutOptions::new().expect(Expect::Version(version(1))))
        .unwrap();
    assert!(matches!(
        acme.commit(failing),
        Err(Error::VersionMismatch { actual: 2, .. })
    ));
    assert!(acme.get("c").unwrap_err().is_not_found());
    let in_order = Batch::new()
        .put_with("d", "1", PutOptions::new().expect(Expect::New))
        .unwrap()
        .put_with("d", "2", PutOptions::new().expect(Expect::Version(version(1))))
        .unwrap();
    assert_eq!(acme.commit(in_order).unwrap(), [version(1), version(2)]);
    assert_sound(&store);
}

#[test]
fn labels_and_content_type_stand_beside_a_value() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    let options = PutOptions::new()
        .label("owner", "team-db")
        .content_type("text/plain");
    acme.put_with("a", b"x", options).unwrap();
    let secret = acme.get("a").unwrap();
    assert_eq!(secret.labels["owner"], "team-db");
    assert_eq!(secret.content_type.as_deref(), Some("text/plain"));
    let too_many = (0..65).fold(PutOptions::new(), |options, n| options.label(format!("l{n}"), ""));
    assert!(matches!(
        acme.put_with("a", b"x", too_many),
        Err(Error::InvalidArgument { .. })
    ));
}

/// Labels stand in clear in redb's pages. A block inside of a large row could hold what looks like a page to a salvage, but no page is
/// without zeros.
#[test]
fn a_label_may_have_several_lines_and_no_zero_character() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    let lines = PutOptions::new().label("note", "one\n\ttwo\r\n");
    acme.put_with("a", b"x", lines).unwrap();
    let refused = acme.put_with("a", b"x", PutOptions::new().label("note", "a\0b"));
    assert!(matches!(refused, Err(Error::InvalidArgument { .. })));
}

#[test]
fn lists_are_paged_and_ordered_and_stay_inside_of_their_organization_and_prefix() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    let other = store.create_organization("other").unwrap();
    for n in 0..25 {
        acme.put(&format!("p/{n:02}"), "x").unwrap();
    }
    acme.put("q", "x").unwrap();
    acme.put("o", "x").unwrap();
    other.put("p/99", "x").unwrap();
    let unwraps_before = bench.kms.calls().unwraps;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = acme.list("p/", after.as_deref(), 10).unwrap();
        seen.extend(page.items.into_iter().map(|item| item.path));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).map(|n| format!("p/{n:02}")).collect::<Vec<_>>());
    assert_eq!(acme.list("", None, 1000).unwrap().items.len(), 27);
    assert_eq!(bench.kms.calls().unwraps, unwraps_before, "a list opens nothing");
}

#[test]
fn a_deleted_version_comes_back_and_a_destroyed_one_does_not() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    acme.put("a", b"one").unwrap();
    acme.put("a", b"two").unwrap();
    acme.delete("a", version(2)).unwrap();
    acme.delete("a", version(2)).unwrap();
    assert!(matches!(acme.get("a"), Err(Error::VersionDeleted { .. })));
    assert_eq!(acme.get_version("a", version(1)).unwrap().value, b"one");
    acme.undelete("a", version(2)).unwrap();
    assert_eq!(acme.get("a").unwrap().value, b"two");
    acme.delete("a", version(1)).unwrap();
    acme.destroy("a", version(1)).unwrap();
    assert!(matches!(
        acme.get_version("a", version(1)),
        Err(Error::VersionDestroyed { .. })
    ));
    assert!(matches!(
        acme.undelete("a", version(1)),
        Err(Error::VersionDestroyed { .. })
    ));
    assert!(matches!(
        acme.destroy("a", version(1)),
        Err(Error::VersionDestroyed { .. })
    ));
    assert!(matches!(
        acme.delete("a", version(3)),
        Err(Error::VersionNotFound { .. })
    ));
    let states: Vec<_> = acme
        .history("a", None, 10)
        .unwrap()
        .into_iter()
        .map(|info| info.state)
        .collect();
    assert!(matches!(
        states[..],
        [VersionState::Destroyed { .. }, VersionState::Live]
    ));
    assert_eq!(acme.epochs().unwrap()[0].references, 1);
    assert_sound(&store);
}

#[test]
fn a_large_value_is_destroyed_with_all_its_chunks() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    acme.put("large", vec![9; 3 << 20]).unwrap();
    let mut reader = acme.reader("large", None).unwrap();
    let mut some = [0; 10];
    reader.read_exact(&mut some).unwrap();
    acme.destroy("large", version(1)).unwrap();
    let mut rest = Vec::new();
    let error = reader.read_to_end(&mut rest).unwrap_err();
    assert!(error.to_string().contains("destroyed"), "{error}");
    assert!(matches!(acme.get("large"), Err(Error::VersionDestroyed { .. })));
    assert_sound(&store);
}

#[test]
fn retention_keeps_the_newest_versions() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    for n in 0..5 {
        acme.put("a", [n]).unwrap();
    }
    acme.set_retention("a", Some(2)).unwrap();
    assert_eq!(acme.get_version("a", version(1)).unwrap().value, [0]);
    acme.put("a", [5]).unwrap();
    for destroyed in 1..=4 {
        assert!(matches!(
            acme.get_version("a", version(destroyed)),
            Err(Error::VersionDestroyed { .. })
        ));
    }
    assert_eq!(acme.get_version("a", version(5)).unwrap().value, [4]);
    assert_eq!(acme.epochs().unwrap()[0].references, 2);
    assert!(matches!(
        acme.set_retention("a", Some(0)),
        Err(Error::InvalidArgument { .. })
    ));
    assert_sound(&store);
}

#[test]
fn organizations_have_stable_ids_unique_names_and_are_not_renamed() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    let other = store.create_organization("other").unwrap();
    assert_ne!(acme.id(), other.id());
    assert!(matches!(
        store.create_organization("acme"),
        Err(Error::OrganizationExists { .. })
    ));
    assert!(matches!(
        store.organization("nobody"),
        Err(Error::OrganizationNotFound { .. })
    ));
    assert!(matches!(
        acme.rename("umbrella"),
        Err(Error::RenameRefused { .. })
    ));
    acme.put("a", "acme's").unwrap();
    assert!(other.get("a").unwrap_err().is_not_found());
    let (acme_id, other_id) = (acme.id(), other.id());
    drop((store, acme, other));
    let store = bench.open();
    assert_eq!(store.organization("acme").unwrap().id(), acme_id);
    let third = store.create_organization("third").unwrap();
    assert!(third.id() > other_id);
    let names: Vec<_> = store
        .organizations(None, 10)
        .unwrap()
        .items
        .into_iter()
        .map(|info| info.name)
        .collect();
    assert_eq!(names, ["acme", "other", "third"]);
}

#[test]
fn every_change_is_in_the_audit_trail_with_who_and_why() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store
        .create_organization("acme")
        .unwrap()
        .acting_as("alice@acme", "ticket 4711")
        .unwrap();
    acme.put("a", "x").unwrap();
    acme.delete("a", version(1)).unwrap();
    acme.undelete("a", version(1)).unwrap();
    acme.destroy("a", version(1)).unwrap();
    let records = acme.audit(0, 100).unwrap();
    let events: Vec<_> = records
        .iter()
        .map(|record| format!("{:?}", record.event))
        .collect();
    for (event, expected) in events.iter().zip([
        "OrganizationCreated",
        "EpochOpened",
        "VersionPut",
        "VersionDeleted",
        "VersionUndeleted",
        "VersionDestroyed",
    ]) {
        assert!(event.starts_with(expected), "{events:?}");
    }
    assert_eq!(records[2].by.actor.as_deref(), Some("alice@acme"));
    assert_eq!(records[2].by.reason.as_deref(), Some("ticket 4711"));
    assert_eq!(acme.audit(4, 100).unwrap(), records[4..]);
    assert_eq!(acme.audit_head().unwrap().hash, records.last().unwrap().hash);
}

#[test]
fn no_secret_shows_in_debug_output() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    acme.put("a", "CANARY-VALUE").unwrap();
    let secret = acme.get("a").unwrap();
    let batch = Batch::new().put("b", "CANARY-VALUE").unwrap();
    let shown = format!(
        "{store:?} {acme:?} {secret:?} {batch:?} {:?}",
        acme.writer("c", PutOptions::new()).unwrap()
    );
    assert!(!shown.contains("CANARY"), "{shown}");
}
