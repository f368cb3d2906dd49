//! Claims about wrapping and unwrapping: contexts, keyrings, versions, revocation, outage.

mod common;

use common::*;
use keystead_backend::{Call, Context, ErrorClass, ErrorCode, KeyBackend, LockedBytes, OpenRequest, Wrapped};
use keystead_managed::{Keyring, ManagedBackend, Sealing};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn the_first_wrap_makes_the_keyring_with_mode_0600_and_says_so() {
    let (_directory, path) = directory();
    let host = Arc::new(TestHost::default());
    let backend = ManagedBackend::keyring(&path);
    let key = backend
        .open(OpenRequest {
            settings: "{}",
            config: "{}",
            host: host.clone(),
        })
        .unwrap();
    assert_eq!(key.status(&call()).unwrap().key_id, "");
    assert!(!path.exists());

    let wrapped = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(
        key.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
        EPOCH_KEY
    );
    assert_eq!(host.lines.lock().unwrap().len(), 1);
    assert!(host.lines.lock().unwrap()[0].contains("back it up"));
}

#[test]
fn the_key_id_is_the_one_that_the_wrap_used_and_status_tells_the_newest() {
    let (_directory, path) = directory();
    let keyring = keyring(&path);
    let key = key_at(&path);
    let wrapped = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
    assert_eq!(wrapped.key_id, format!("managed:{}:v1", keyring.id().unwrap()));
    assert!(wrapped.metadata.is_empty());
    assert_eq!(key.status(&call()).unwrap().key_id, wrapped.key_id);
    keyring.rotate().unwrap();
    assert_eq!(
        key.status(&call()).unwrap().key_id,
        format!("managed:{}:v2", keyring.id().unwrap())
    );
}

#[test]
fn every_size_up_to_the_limit_wraps_within_the_described_limits() {
    let (_directory, path) = directory();
    let backend = ManagedBackend::keyring(&path);
    let limits = backend.describe().limits;
    let key = open(&backend);
    for size in [0, 1, 31, 32, 33, 255, 256] {
        let plaintext = vec![7; size];
        let wrapped = key.wrap(&call(), &context(), &plaintext).unwrap();
        assert!(wrapped.blob.len() <= limits.blob_max_bytes as usize);
        assert!(wrapped.key_id.len() <= limits.key_id_max_bytes as usize);
        assert_eq!(
            key.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
            plaintext
        );
    }
    assert_eq!(limits.plaintext_max_bytes, 256);
    assert_eq!(
        code(key.wrap(&call(), &context(), &[7; 257])),
        ErrorCode::Unsupported
    );
}

#[test]
fn the_same_plaintext_never_wraps_to_the_same_blob() {
    let (_directory, path) = directory();
    let key = key_at(&path);
    let blobs: std::collections::HashSet<_> = (0..100)
        .map(|_| key.wrap(&call(), &context(), &EPOCH_KEY).unwrap().blob)
        .collect();
    assert_eq!(blobs.len(), 100);
    assert!(
        blobs
            .iter()
            .all(|blob| !blob.windows(32).any(|window| window == EPOCH_KEY))
    );
}

#[test]
fn another_context_is_refused() {
    let (_directory, path) = directory();
    let key = key_at(&path);
    let wrapped = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
    let others = [
        Context::new([("store", "5eed"), ("organization", "acme"), ("epoch", "2")]),
        Context::new([("store", "5eed"), ("organization", "acmf"), ("epoch", "1")]),
        Context::new([("store", "5eed"), ("organization", "acme")]),
        Context::new::<&str, &str>([]),
    ];
    for other in others {
        assert_eq!(
            code(key.unwrap(&call(), &other, &wrapped)),
            ErrorCode::InvalidCiphertext
        );
        assert_eq!(
            code(key.rewrap(&call(), &other, &wrapped)),
            ErrorCode::InvalidCiphertext
        );
    }
}

#[test]
fn any_flipped_byte_and_any_cut_of_a_blob_is_refused() {
    let (_directory, path) = directory();
    let key = key_at(&path);
    let good = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
    let refused = |blob: Vec<u8>, what: &str| {
        let result = key.unwrap(&call(), &context(), &Wrapped { blob, ..good.clone() });
        assert_eq!(code(result), ErrorCode::InvalidCiphertext, "{what}");
    };
    for at in 0..good.blob.len() {
        let mut bad = good.blob.clone();
        bad[at] ^= 0x10;
        refused(bad, &format!("byte {at} flipped"));
        refused(good.blob[..at].to_vec(), &format!("cut to {at} bytes"));
    }
    refused([&good.blob[..], &[0]].concat(), "one byte more");
    refused(vec![1; 1 << 20], "a huge blob");
    let with_metadata = Wrapped {
        metadata: vec![1],
        ..good.clone()
    };
    assert_eq!(
        code(key.unwrap(&call(), &context(), &with_metadata)),
        ErrorCode::InvalidCiphertext
    );
}

#[test]
fn another_keyrings_blob_is_a_wrong_key() {
    let (directory, path) = directory();
    let wrapped = key_at(&path).wrap(&call(), &context(), &EPOCH_KEY).unwrap();
    let other = key_at(&directory.path().join("other.keyring"));
    other.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
    let error = failure(other.unwrap(&call(), &context(), &wrapped));
    assert_eq!(error.code, ErrorCode::WrongKey);
    assert!(error.message.contains(&wrapped.key_id[8..40]), "{error}");
}

#[test]
fn a_key_id_in_any_other_form_is_a_wrong_key() {
    let (_directory, path) = directory();
    let key = key_at(&path);
    let good = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
    let id = &good.key_id[8..40];
    let strange = [
        String::new(),
        "managed:".into(),
        "arn:aws:kms:eu-central-1:1:key/1".into(),
        format!("managed:{id}"),
        format!("managed:{id}:v"),
        format!("managed:{id}:v01"),
        format!("managed:{id}:v+1"),
        format!("managed:{id}:v-1"),
        format!("managed:{id}:v4294967297"),
        format!(
            "managed:{}:v1",
            id.to_uppercase().replace(|c: char| c.is_ascii_digit(), "A")
        ),
        format!("managed:{id}:v1 "),
        format!("managed:{}é:v1", &id[..30]),
    ];
    for key_id in strange {
        let wrapped = Wrapped {
            key_id: key_id.clone(),
            ..good.clone()
        };
        assert_eq!(
            code(key.unwrap(&call(), &context(), &wrapped)),
            ErrorCode::WrongKey,
            "{key_id}"
        );
    }
}

#[test]
fn a_version_that_the_keyring_lacks_is_not_found() {
    let (_directory, path) = directory();
    let keyring = keyring(&path);
    let backup = fs::read(&path).unwrap();
    keyring.rotate().unwrap();
    let key = key_at(&path);
    let wrapped = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
    // Somebody restores the backup from before the rotation.
    write_private(&path, &backup);
    let error = failure(key.unwrap(&call(), &context(), &wrapped));
    assert_eq!(error.code, ErrorCode::KeyNotFound);
    assert!(error.message.contains("version 2"), "{error}");
}

#[test]
fn a_blob_does_not_open_under_another_version() {
    let (_directory, path) = directory();
    let keyring = keyring(&path);
    let key = key_at(&path);
    let wrapped = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
    keyring.rotate().unwrap();
    let moved = Wrapped {
        key_id: wrapped.key_id.replace(":v1", ":v2"),
        ..wrapped
    };
    assert_eq!(
        code(key.unwrap(&call(), &context(), &moved)),
        ErrorCode::InvalidCiphertext
    );
}

#[test]
fn after_a_rotation_by_another_process_old_blobs_open_and_new_ones_use_the_new_version() {
    for sealing in [Sealing::none(), cheap("correct horse")] {
        let (_directory, path) = directory();
        Keyring::create(&path, sealing.clone()).unwrap();
        let key = open(&ManagedBackend::keyring(&path).sealing(sealing.clone()));
        let mut wraps = Vec::new();
        for version in 1..=20 {
            let wrapped = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
            assert!(
                wrapped.key_id.ends_with(&format!(":v{version}")),
                "{}",
                wrapped.key_id
            );
            wraps.push(wrapped);
            assert_eq!(
                Keyring::open(&path, sealing.clone()).unwrap().rotate().unwrap(),
                version + 1
            );
        }
        for wrapped in &wraps {
            assert_eq!(
                key.unwrap(&call(), &context(), wrapped).unwrap().as_slice(),
                EPOCH_KEY
            );
        }
    }
}

#[test]
fn rewrapping_moves_a_blob_to_the_newest_version() {
    let (_directory, path) = directory();
    let keyring = keyring(&path);
    let key = key_at(&path);
    let old = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
    keyring.rotate().unwrap();
    let new = key.rewrap(&call(), &context(), &old).unwrap();
    assert!(new.key_id.ends_with(":v2"));
    assert_eq!(
        key.unwrap(&call(), &context(), &new).unwrap().as_slice(),
        EPOCH_KEY
    );
    assert!(ManagedBackend::default().describe().capabilities.rewrap);
    assert!(ManagedBackend::default().describe().capabilities.binds_context);
}

#[test]
fn a_disabling_by_another_process_holds_from_the_next_call_on_until_enabled() {
    for sealing in [Sealing::none(), cheap("correct horse")] {
        let (_directory, path) = directory();
        let admin = Keyring::create(&path, sealing.clone()).unwrap();
        let key = open(&ManagedBackend::keyring(&path).sealing(sealing));
        let wrapped = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
        // Many times and at once: no clock is coarse enough to hide a change.
        for _ in 0..50 {
            admin.disable().unwrap();
            let error = failure(key.unwrap(&call(), &context(), &wrapped));
            assert_eq!(error.code, ErrorCode::KeyDisabled);
            assert_eq!(error.code.class(), ErrorClass::Revoked);
            assert_eq!(
                code(key.wrap(&call(), &context(), &EPOCH_KEY)),
                ErrorCode::KeyDisabled
            );
            assert_eq!(
                code(key.rewrap(&call(), &context(), &wrapped)),
                ErrorCode::KeyDisabled
            );
            assert_eq!(code(key.status(&call())), ErrorCode::KeyDisabled);
            admin.enable().unwrap();
            assert_eq!(
                key.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
                EPOCH_KEY
            );
        }
    }
}

#[test]
fn the_file_that_was_read_keeps_its_inode_so_that_no_later_file_looks_like_it() {
    let (_directory, path) = directory();
    let keyring = keyring(&path);
    let key = key_at(&path);
    key.status(&call()).unwrap();
    let read = fs::metadata(&path).unwrap().ino();
    // Many file systems give a freed inode to the next file.
    let other = Keyring::open(&path, Sealing::none()).unwrap();
    drop(keyring);
    for _ in 0..20 {
        other.disable().unwrap();
        other.enable().unwrap();
        assert_ne!(fs::metadata(&path).unwrap().ino(), read);
    }
    key.status(&call()).unwrap();
}

#[test]
fn disabling_twice_changes_nothing_and_a_disabled_keyring_still_rotates() {
    let (_directory, path) = directory();
    let keyring = keyring(&path);
    keyring.disable().unwrap();
    let before = fs::metadata(&path).unwrap().ino();
    keyring.disable().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), before);
    assert_eq!(keyring.rotate().unwrap(), 2);
    assert_eq!(code(key_at(&path).status(&call())), ErrorCode::KeyDisabled);
    keyring.enable().unwrap();
    assert_eq!(keyring.versions().unwrap().len(), 2);
    assert!(key_at(&path).status(&call()).unwrap().key_id.ends_with(":v2"));
}

#[test]
fn a_file_that_vanished_is_an_outage_and_nothing_is_made_in_its_place() {
    let (directory, path) = directory();
    let key = key_at(&path);
    let wrapped = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
    let away = directory.path().join("away");
    fs::rename(&path, &away).unwrap();
    for error in [
        failure(key.unwrap(&call(), &context(), &wrapped)),
        failure(key.wrap(&call(), &context(), &EPOCH_KEY)),
        failure(key.status(&call())),
    ] {
        assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
        assert_eq!(error.code.class(), ErrorClass::Retryable);
    }
    // Nor by a process that never saw the file, as long as it only unwraps.
    assert_eq!(
        code(key_at(&path).unwrap(&call(), &context(), &wrapped)),
        ErrorCode::Unavailable
    );
    assert!(!path.exists());
    fs::rename(&away, &path).unwrap();
    assert_eq!(
        key.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
        EPOCH_KEY
    );
}

#[test]
fn without_create_a_missing_keyring_is_an_outage() {
    let (_directory, path) = directory();
    let key = open(&ManagedBackend::keyring(&path).create(false));
    assert_eq!(
        code(key.wrap(&call(), &context(), &EPOCH_KEY)),
        ErrorCode::Unavailable
    );
    assert_eq!(code(key.status(&call())), ErrorCode::Unavailable);
    assert!(!path.exists());
}

#[test]
fn a_missing_directory_is_named() {
    let (directory, _path) = directory();
    let key = key_at(&directory.path().join("not there/app.keyring"));
    let error = failure(key.wrap(&call(), &context(), &EPOCH_KEY));
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("no directory"), "{error}");
}

#[test]
fn threads_that_make_a_keyring_at_once_end_with_one() {
    for _ in 0..10 {
        let (_directory, path) = directory();
        let wraps: Vec<Wrapped> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| key_at(&path).wrap(&call(), &context(), &EPOCH_KEY).unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let key = key_at(&path);
        for wrapped in &wraps {
            assert_eq!(
                key.unwrap(&call(), &context(), wrapped).unwrap().as_slice(),
                EPOCH_KEY
            );
        }
    }
}

/// Rotates, in the end: whoever waits for the file's lock looks again and again and may miss its turn on a busy machine.
fn rotated(keyring: &Keyring) -> u32 {
    let tried = || match keyring.rotate() {
        Err(error) if error.code == ErrorCode::Timeout => None,
        rotated => Some(rotated.unwrap()),
    };
    (0..6)
        .find_map(|_| tried())
        .expect("its turn comes within a minute")
}

#[test]
fn threads_wrap_and_unwrap_while_the_keyring_rotates() {
    let (_directory, path) = directory();
    let keyring = keyring(&path);
    let key = key_at(&path);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let wrapped = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
                    assert_eq!(
                        key.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
                        EPOCH_KEY
                    );
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| (0..20).for_each(|_| assert!(rotated(&keyring) > 1)));
        }
    });
    // No rotation overwrote another.
    assert_eq!(keyring.versions().unwrap().len(), 41);
}

#[test]
fn a_master_key_without_a_file_opens_what_it_wrapped_wherever_it_is() {
    let wrapped = open(&ManagedBackend::master_key(&[9; 32]))
        .wrap(&call(), &context(), &EPOCH_KEY)
        .unwrap();
    let elsewhere = open(&ManagedBackend::master_key(&[9; 32]));
    assert_eq!(
        elsewhere
            .unwrap(&call(), &context(), &wrapped)
            .unwrap()
            .as_slice(),
        EPOCH_KEY
    );
    assert_eq!(elsewhere.status(&call()).unwrap().key_id, wrapped.key_id);
    let other = open(&ManagedBackend::master_key(&[10; 32]));
    assert_eq!(
        code(other.unwrap(&call(), &context(), &wrapped)),
        ErrorCode::WrongKey
    );
}

#[test]
fn a_cancelled_call_and_a_passed_deadline_do_nothing() {
    let (_directory, path) = directory();
    let key = key_at(&path);
    let cancelled = call();
    cancelled.cancel.cancel();
    assert_eq!(
        code(key.wrap(&cancelled, &context(), &EPOCH_KEY)),
        ErrorCode::Cancelled
    );
    let late = Call::with_timeout(Duration::ZERO);
    assert_eq!(code(key.wrap(&late, &context(), &EPOCH_KEY)), ErrorCode::Timeout);
    assert!(!path.exists());
}

#[test]
fn waiting_for_another_process_that_makes_the_keyring_ends_with_the_deadline() {
    let (directory, path) = directory();
    let lock = fs::File::create(directory.path().join("app.keyring.lock")).unwrap();
    lock.lock().unwrap();
    let key = key_at(&path);
    let soon = Call::with_timeout(Duration::from_millis(50));
    let error = failure(key.wrap(&soon, &context(), &EPOCH_KEY));
    assert_eq!(error.code, ErrorCode::Timeout);
    assert!(error.message.contains("another process"), "{error}");
    lock.unlock().unwrap();
    key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
}

#[test]
fn a_host_without_randomness_fails_the_wrap_and_makes_no_keyring() {
    struct Dry;
    impl keystead_backend::Host for Dry {
        fn log(&self, _level: keystead_backend::LogLevel, _message: &str) {}
        fn random(&self, _out: &mut [u8]) -> Result<(), keystead_backend::BackendError> {
            Err(keystead_backend::BackendError::new(
                ErrorCode::Unavailable,
                "the well is dry",
            ))
        }
        fn identity_token(&self, _audience: &str) -> Result<LockedBytes, keystead_backend::BackendError> {
            Err(keystead_backend::BackendError::new(
                ErrorCode::Unsupported,
                "no tokens",
            ))
        }
    }
    let (_directory, path) = directory();
    let backend = ManagedBackend::keyring(&path);
    let key = backend
        .open(OpenRequest {
            settings: "{}",
            config: "{}",
            host: Arc::new(Dry),
        })
        .unwrap();
    assert_eq!(
        code(key.wrap(&call(), &context(), &EPOCH_KEY)),
        ErrorCode::Unavailable
    );
    assert!(!path.exists());
}
