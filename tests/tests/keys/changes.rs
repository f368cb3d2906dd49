//! Default, disable, rotate: what each change of an organization's keys moves, and what it leaves.

use crate::common::{Bench, assert_sound, check_filled, fill, key};
use crate::{key_state, states, wrapped_by};
use keystead::backend::ErrorCode;
use keystead::{EpochState, Error, KeyState, Organization, Store};

#[test]
fn set_default_opens_an_epoch_for_new_data_keys_and_leaves_the_others() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    fill(&acme, 10);
    assert_eq!(
        acme.keys()
            .add("two", "customer-kms", key("two"))
            .unwrap()
            .number(),
        None,
        "a second key changes nothing"
    );
    assert_eq!(acme.keys().set_default("two", false).unwrap().number(), None);
    acme.put("new", "x").unwrap();
    assert_eq!(
        states(&acme),
        [
            (1, EpochState::Retired, 0),
            (2, EpochState::Live, 10),
            (3, EpochState::Active, 1)
        ]
    );
    assert_eq!(wrapped_by(&acme, 2), ["one"]);
    acme.keys().set_default("one", true).unwrap().wait().unwrap();
    assert_eq!(
        states(&acme)[1..],
        [
            (2, EpochState::Retired, 0),
            (3, EpochState::Retired, 0),
            (4, EpochState::Active, 11)
        ]
    );
    assert_sound(&store);
}

#[test]
fn disabling_a_key_moves_what_it_holds_to_its_target_and_then_nothing_is_under_it() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    fill(&acme, 50);
    acme.keys().add("two", "customer-kms", key("two")).unwrap();
    let refused = acme.keys().disable("one", "two").unwrap_err();
    assert!(
        matches!(refused, Error::KeyRefused { .. }),
        "the default key is not disabled: {refused}"
    );
    acme.keys().set_default("two", false).unwrap();
    assert!(matches!(
        acme.keys().disable("one", "one"),
        Err(Error::KeyRefused { .. })
    ));
    assert!(matches!(
        acme.keys().disable("one", "three"),
        Err(Error::KeyNotFound { .. })
    ));
    acme.keys().disable("one", "two").unwrap().wait().unwrap();
    assert_eq!(key_state(&acme, "one"), KeyState::Disabled);
    assert_eq!(states(&acme)[2], (3, EpochState::Active, 50));
    bench.kms.fail("one", ErrorCode::KeyNotFound);
    store.forget_epoch_keys();
    check_filled(&acme, 50);
    assert!(matches!(
        acme.keys().set_default("one", false),
        Err(Error::KeyRefused { .. })
    ));
    assert_sound(&store);
}

#[test]
fn disabling_a_key_for_a_target_that_is_not_the_default_leaves_the_default() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    fill(&acme, 20);
    for name in ["two", "three"] {
        acme.keys().add(name, "customer-kms", key(name)).unwrap();
    }
    acme.keys().set_default("two", false).unwrap();
    acme.keys().disable("one", "three").unwrap().wait().unwrap();
    assert_eq!(
        states(&acme)[1..],
        [
            (2, EpochState::Retired, 0),
            (3, EpochState::Active, 0),
            (4, EpochState::Live, 20)
        ]
    );
    assert_eq!(wrapped_by(&acme, 4), ["three"]);
    acme.put("new", "x").unwrap();
    assert_eq!(states(&acme)[2], (3, EpochState::Active, 1));
    assert_sound(&store);
}

#[test]
fn disabling_all_goes_back_to_the_managed_key() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    assert!(acme.keys().disable_all().is_err());
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    acme.keys().add("two", "customer-kms", key("two")).unwrap();
    fill(&acme, 30);
    acme.keys().set_default("two", false).unwrap();
    acme.put("x", "x").unwrap();
    acme.keys().disable_all().unwrap().wait().unwrap();
    assert_eq!(states(&acme).last(), Some(&(4, EpochState::Active, 31)));
    assert_eq!(
        (key_state(&acme, "one"), key_state(&acme, "two")),
        (KeyState::Disabled, KeyState::Disabled)
    );
    bench.kms.fail("one", ErrorCode::KeyNotFound);
    bench.kms.fail("two", ErrorCode::KeyNotFound);
    store.forget_epoch_keys();
    check_filled(&acme, 30);
    // The first own key after that takes over again.
    acme.keys()
        .add("three", "customer-kms", key("three"))
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(states(&acme).last(), Some(&(5, EpochState::Active, 31)));
    assert_sound(&store);
}

#[test]
fn rotating_opens_a_new_epoch_under_the_same_key_at_its_newest_version() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    fill(&acme, 10);
    bench.kms.rotate("one");
    acme.keys().rotate("one").unwrap().wait().unwrap();
    let epochs = acme.epochs().unwrap();
    assert_eq!(
        (epochs[1].kms_key_id.as_str(), epochs[2].kms_key_id.as_str()),
        ("one/1", "one/2")
    );
    assert_eq!(
        states(&acme)[1..],
        [(2, EpochState::Retired, 0), (3, EpochState::Active, 10)]
    );
    store.forget_epoch_keys();
    check_filled(&acme, 10);
}

#[test]
fn a_key_whose_backend_is_not_registered_is_named_with_it_and_administration_goes_on() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 3);
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    drop((store, acme));
    let store = Store::options().open(bench.path()).unwrap();
    let acme = store.organization("acme").unwrap();
    let error = acme.get("s/0").unwrap_err();
    assert!(
        matches!(error, Error::BackendNotRegistered { ref backend, .. } if backend == "customer-kms"),
        "{error}"
    );
    assert_eq!(acme.list("", None, 10).unwrap().items.len(), 3);
    acme.epochs().unwrap();
    acme.destroy("s/0", keystead::Version::new(1).unwrap()).unwrap();
}

#[test]
fn two_organizations_do_not_touch_each_others_keys() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    let other = store.create_organization("other").unwrap();
    fill(&acme, 10);
    fill(&other, 10);
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(states(&other), [(1, EpochState::Active, 10)]);
    bench.kms.fail("one", ErrorCode::AccessDenied);
    store.forget_epoch_keys();
    assert!(acme.get("s/0").unwrap_err().is_revoked());
    check_filled(&other, 10);
}

#[test]
fn an_epoch_that_is_exhausted_takes_no_more_until_its_key_is_rotated() {
    let bench = Bench::new();
    let store = bench
        .options()
        .wraps_per_epoch_max(3)
        .create(bench.path())
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    for n in 0..3 {
        acme.put("a", [n]).unwrap();
    }
    assert!(matches!(acme.put("a", [3]), Err(Error::EpochExhausted { .. })));
    acme.keys().rotate("managed").unwrap();
}

fn open_again(bench: &Bench, store: Store, acme: Organization) -> (Store, Organization) {
    drop((store, acme));
    let store = bench.open();
    let acme = store.organization("acme").unwrap();
    (store, acme)
}

#[test]
fn epochs_are_a_chain_and_survive_reopening() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    acme.keys().rotate("managed").unwrap().wait().unwrap();
    acme.keys().rotate("managed").unwrap().wait().unwrap();
    let before = acme.epochs().unwrap();
    let (store, acme) = open_again(&bench, store, acme);
    assert_eq!(acme.epochs().unwrap(), before);
    assert_eq!(before.len(), 3);
    assert_sound(&store);
}
