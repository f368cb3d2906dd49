//! The file: refused by name when it is not one, whole when it was made, and opened for ever after.

mod common;

use common::{Bench, assert_sound, fill};
use keystead::{Backend, EpochState, Error, Store, Version, VersionState};
use keystead_managed::ManagedBackend;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

#[test]
fn a_store_is_open_once() {
    let bench = Bench::new();
    let store = bench.create();
    assert!(matches!(
        bench.options().open(bench.path()),
        Err(Error::AlreadyOpen { .. })
    ));
    let acme = store.create_organization("acme").unwrap();
    drop(store);
    assert!(
        matches!(bench.options().open(bench.path()), Err(Error::AlreadyOpen { .. })),
        "a handle is a handle"
    );
    drop(acme);
    bench.open();
}

#[test]
fn a_store_is_created_only_where_nothing_is_and_only_its_owner_may_read_it() {
    let bench = Bench::new();
    drop(bench.create());
    let mode = std::fs::metadata(bench.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(
        bench.options().create(bench.path()),
        Err(Error::StoreExists { .. })
    ));
    let missing = bench.directory.path().join("missing");
    assert!(matches!(
        bench.options().open(&missing),
        Err(Error::StoreNotFound { .. })
    ));
    let only: Vec<_> = std::fs::read_dir(bench.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(only, ["store.keystead"], "nothing is left of the creation");
}

#[test]
fn an_empty_a_foreign_a_newer_file_and_a_link_are_each_refused_by_name() {
    let bench = Bench::new();
    drop(bench.create());
    let refused = |bytes: &[u8], word: &str| {
        let path = bench.directory.path().join("other");
        std::fs::write(&path, bytes).unwrap();
        let error = bench.options().open(&path).unwrap_err();
        assert!(matches!(error, Error::NotAStore { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(
            std::fs::read(&path).unwrap(),
            bytes,
            "a refused file is not touched"
        );
    };
    refused(b"", "empty");
    refused(&[7; 20_000], "not a Keystead store");
    let mut newer = std::fs::read(bench.path()).unwrap();
    for copy in [0, 4096] {
        newer[copy + 8..copy + 12].copy_from_slice(&9_u32.to_le_bytes());
    }
    refused(&newer, "version 9");
    let link = bench.directory.path().join("link");
    symlink(bench.path(), &link).unwrap();
    assert!(matches!(
        bench.options().open(&link),
        Err(Error::NotAStore { .. })
    ));
}

#[test]
fn a_truncated_file_is_named_damaged() {
    let bench = Bench::new();
    let store = bench.create();
    fill(&store.create_organization("acme").unwrap(), 100);
    drop(store);
    let whole = std::fs::read(bench.path()).unwrap();
    for keep in [1, 4096, 8192, 65_536, whole.len() / 2, whole.len() - 4096] {
        std::fs::write(bench.path(), &whole[..keep]).unwrap();
        let error = bench.options().open(bench.path()).map(drop).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Damaged { .. } | Error::NotAStore { .. } | Error::Storage { .. }
            ),
            "{keep}: {error}"
        );
    }
    std::fs::write(bench.path(), &whole).unwrap();
    assert_sound(&bench.open());
}

#[test]
fn two_backends_of_one_name_are_refused() {
    let bench = Bench::new();
    let twice = bench
        .options()
        .backend(Backend::new(bench.kms.clone()).named("managed"));
    assert!(matches!(
        twice.create(bench.path()),
        Err(Error::InvalidArgument { .. })
    ));
    assert!(!bench.path().exists());
}

#[test]
fn a_closed_store_says_so_and_what_it_acknowledged_is_there() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 10);
    store.close().unwrap();
    assert!(matches!(acme.put("a", "x"), Err(Error::Closed { .. })));
    drop((store, acme));
    let store = bench.open();
    common::check_filled(&store.organization("acme").unwrap(), 10);
}

/// Only writing was refused: what was read went on to be read, and a KMS was asked for keys that closing had just dropped.
#[test]
fn nothing_is_read_through_what_is_left_of_a_closed_store() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 10);
    acme.put("large", vec![7; 200_000]).unwrap();
    let mut reader = acme.reader("large", None).unwrap();
    store.close().unwrap();
    let refused = [
        acme.get("large").err(),
        acme.list("", None, 10).err(),
        acme.history("large", None, 10).err(),
        acme.keys().list().err(),
        acme.epochs().err(),
        acme.audit(0, 10).err(),
        acme.reader("large", None).err(),
        acme.rewrap_status().err(),
        store.organization("acme").err(),
        store.organizations(None, 10).err(),
    ];
    for (at, refused) in refused.into_iter().enumerate() {
        assert!(
            matches!(refused, Some(Error::Closed { .. })),
            "number {at}: {refused:?}"
        );
    }
    assert!(std::io::Read::read_to_end(&mut reader, &mut Vec::new()).is_err());
    assert_eq!(store.cached_epoch_keys(), 0);
}

/// The checked-in store of format version 1 opens with this code, whole.
#[test]
fn a_store_of_format_1_opens_for_ever_after() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/format-1");
    for name in ["store.keystead", "managed.keyring", "customer.keyring"] {
        let to = directory.path().join(name);
        std::fs::copy(fixture.join(name), &to).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let store = Store::options()
        .backend(
            Backend::new(ManagedBackend::keyring(directory.path().join("managed.keyring"))).named("managed"),
        )
        .backend(
            Backend::new(ManagedBackend::keyring(directory.path().join("customer.keyring")))
                .named("customer-kms"),
        )
        .open(directory.path().join("store.keystead"))
        .unwrap();
    let version = |number| Version::new(number).unwrap();
    let plain = store.organization("plain").unwrap();
    assert_eq!(plain.get("a").unwrap().value, "under the managed key");
    let acme = store.organization("acme").unwrap();
    for n in 0..20 {
        assert_eq!(
            acme.get(&format!("many/{n}")).unwrap().value,
            format!("value {n}")
        );
    }
    let labelled = acme.get("labelled").unwrap();
    assert_eq!(
        (
            labelled.labels["owner"].as_str(),
            labelled.content_type.as_deref()
        ),
        ("team-db", Some("text/plain"))
    );
    assert!(acme.get("empty").unwrap().value.is_empty());
    assert!(acme.get("chunked").unwrap().value == [7; 100_000][..]);
    assert_eq!(acme.get("versions").unwrap().value, "four");
    assert_eq!(acme.get_version("versions", version(1)).unwrap().value, "one");
    let states: Vec<_> = acme
        .history("versions", None, 10)
        .unwrap()
        .into_iter()
        .map(|info| info.state)
        .collect();
    assert!(matches!(
        states[..],
        [
            VersionState::Live,
            VersionState::Deleted { .. },
            VersionState::Destroyed { .. },
            VersionState::Live
        ]
    ));
    assert_eq!(acme.info("versions").unwrap().retention, Some(10));
    let epochs: Vec<_> = acme
        .epochs()
        .unwrap()
        .iter()
        .map(|epoch| (epoch.state, epoch.references))
        .collect();
    assert_eq!(
        epochs,
        [
            (EpochState::Retired, 0),
            (EpochState::Retired, 0),
            (EpochState::Active, 27)
        ]
    );
    assert_eq!(
        acme.audit(0, 100).unwrap()[2].by.actor.as_deref(),
        Some("alice@acme")
    );
    assert_sound(&store);
    acme.put("still", "writable").unwrap();
}
