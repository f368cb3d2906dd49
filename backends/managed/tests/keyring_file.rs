//! Claims about the keyring file: its mode, its sealing, damage, hostile contents, atomic changes.

mod common;

use common::*;
use keystead_backend::{ErrorClass, ErrorCode};
use keystead_managed::{KdfParameters, Keyring, KeyringState, ManagedBackend, Sealing};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

const HEADER_BYTES: usize = 104;

#[test]
fn a_new_keyring_has_mode_0600_and_one_version() {
    let (_directory, path) = directory();
    let keyring = keyring(&path);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(
        keyring
            .versions()
            .unwrap()
            .iter()
            .map(|version| version.number)
            .collect::<Vec<_>>(),
        [1]
    );
    assert!(keyring.versions().unwrap()[0].created_unix_s > 1_700_000_000);
    assert_eq!(keyring.state().unwrap(), KeyringState::Enabled);
    assert_eq!(keyring.id().unwrap().to_string().len(), 32);
}

#[test]
fn the_file_is_as_the_format_draws_it() {
    let (_directory, path) = directory();
    let keyring = keyring(&path);
    keyring.rotate().unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), HEADER_BYTES + 2 * 44 + 16 + 32);
    assert_eq!(&bytes[..8], b"KSKEYRNG");
    assert_eq!(bytes[8..12], [1, 0, 0, 0]);
    assert_eq!(hex(&bytes[12..28]), keyring.id().unwrap().to_string());
    assert_eq!(bytes[28..32], [2, 0, 0, 0]);
    assert!(bytes[32..HEADER_BYTES].iter().all(|&byte| byte == 0));
    assert_eq!(bytes[HEADER_BYTES..HEADER_BYTES + 4], [1, 0, 0, 0]);
    assert_eq!(bytes[HEADER_BYTES + 44..HEADER_BYTES + 48], [2, 0, 0, 0]);
    assert_eq!(
        blake3::hash(&bytes[..bytes.len() - 32]).as_bytes()[..],
        bytes[bytes.len() - 32..]
    );
}

#[test]
fn creating_where_a_file_is_leaves_the_file_alone() {
    let (_directory, path) = directory();
    for content in [&b""[..], b"somebody's notes"] {
        write_private(&path, content);
        assert_eq!(
            code(Keyring::create(&path, Sealing::none())),
            ErrorCode::InvalidConfig
        );
        let error = failure(key_at(&path).wrap(&call(), &context(), &EPOCH_KEY));
        assert_eq!(error.code, ErrorCode::InvalidConfig, "{error}");
        assert!(error.message.contains("not a keyring"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn a_sealed_keyring_opens_with_its_passphrase_alone() {
    let (_directory, path) = directory();
    let created = Keyring::create(&path, cheap("correct horse")).unwrap();
    assert_eq!(
        Keyring::open(&path, cheap("correct horse"))
            .unwrap()
            .id()
            .unwrap(),
        created.id().unwrap()
    );

    let wrong = failure(Keyring::open(&path, cheap("correct horsf")));
    assert_eq!(wrong.code, ErrorCode::Unauthenticated);
    assert!(wrong.message.contains("passphrase is wrong"), "{wrong}");
    assert!(!wrong.message.contains("horsf"), "{wrong}");

    let missing = failure(Keyring::open(&path, Sealing::none()));
    assert_eq!(missing.code, ErrorCode::Unauthenticated);
    assert!(missing.message.contains("passphrase_fd"), "{missing}");
}

#[test]
fn a_sealed_keyring_hides_its_master_keys() {
    let (_directory, path) = directory();
    let sealed = Keyring::create(&path, cheap("correct horse")).unwrap();
    let sealed_bytes = fs::read(&path).unwrap();
    sealed.reseal(Sealing::none()).unwrap();
    let clear_bytes = fs::read(&path).unwrap();
    let master_key = &clear_bytes[HEADER_BYTES + 12..HEADER_BYTES + 44];
    assert!(!sealed_bytes.windows(32).any(|window| window == master_key));
}

#[test]
fn an_unsealed_file_put_in_a_sealed_ones_place_is_refused() {
    let (_directory, path) = directory();
    keyring(&path);
    let error = failure(Keyring::open(&path, cheap("correct horse")));
    assert_eq!(error.code, ErrorCode::InvalidConfig);
    assert!(error.message.contains("not sealed"), "{error}");
}

#[test]
fn resealing_keeps_the_keys_and_shuts_the_old_passphrase_out() {
    let (_directory, path) = directory();
    let old = Keyring::create(&path, cheap("old passphrase")).unwrap();
    let key = open(&ManagedBackend::keyring(&path).sealing(cheap("old passphrase")));
    let wrapped = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();

    let new = old.reseal(cheap("new passphrase")).unwrap();
    assert_eq!(new.id().unwrap().to_string(), wrapped.key_id[8..40]);
    assert_eq!(new.rotate().unwrap(), 2);
    assert_eq!(code(old.rotate()), ErrorCode::Unauthenticated);
    assert_eq!(
        code(key.unwrap(&call(), &context(), &wrapped)),
        ErrorCode::Unauthenticated
    );
    let key = open(&ManagedBackend::keyring(&path).sealing(cheap("new passphrase")));
    assert_eq!(
        key.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
        EPOCH_KEY
    );
}

#[test]
fn any_flipped_byte_and_any_cut_is_an_error() {
    for sealing in [Sealing::none(), cheap("correct horse")] {
        let (_directory, path) = directory();
        Keyring::create(&path, sealing.clone()).unwrap().rotate().unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= mask;
                write_private(&path, &bad);
                assert!(
                    Keyring::open(&path, sealing.clone()).is_err(),
                    "byte {at} flipped by {mask:#x}, {sealing:?}"
                );
            }
            write_private(&path, &good[..at]);
            assert!(
                Keyring::open(&path, sealing.clone()).is_err(),
                "cut to {at} bytes, {sealing:?}"
            );
        }
        write_private(&path, &[&good[..], &[0]].concat());
        assert!(Keyring::open(&path, sealing.clone()).is_err());
        write_private(&path, &good);
        assert!(Keyring::open(&path, sealing).is_ok());
    }
}

#[test]
fn damage_is_named_so_and_is_a_matter_of_integrity() {
    let (_directory, path) = directory();
    keyring(&path);
    let mut bytes = fs::read(&path).unwrap();
    bytes[HEADER_BYTES + 20] ^= 1;
    write_private(&path, &bytes);
    let error = failure(Keyring::open(&path, Sealing::none()));
    assert_eq!(error.code.class(), ErrorClass::Integrity);
    assert!(
        error.message.contains("damaged") && error.message.contains("app.keyring"),
        "{error}"
    );
}

#[test]
fn a_sealed_file_changed_on_purpose_does_not_open_whichever_byte_it_is() {
    let (_directory, path) = directory();
    Keyring::create(&path, cheap("correct horse"))
        .unwrap()
        .disable()
        .unwrap();
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() - 32 {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fix_checksum(&mut bad);
        write_private(&path, &bad);
        assert!(Keyring::open(&path, cheap("correct horse")).is_err(), "byte {at}");
    }
}

#[test]
fn a_sealed_keyring_is_not_enabled_by_changing_its_state_byte() {
    let (_directory, path) = directory();
    Keyring::create(&path, cheap("correct horse"))
        .unwrap()
        .disable()
        .unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[11] = 0;
    fix_checksum(&mut bytes);
    write_private(&path, &bytes);
    let error = failure(Keyring::open(&path, cheap("correct horse")));
    assert_eq!(error.code, ErrorCode::InvalidCiphertext);
    assert!(error.message.contains("changed without it"), "{error}");
}

#[test]
fn any_bytes_with_a_right_checksum_are_read_without_a_panic() {
    // A small xorshift generator; the seed is fixed, so a failure repeats.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (_directory, path) = directory();
    keyring(&path);
    let good = fs::read(&path).unwrap();
    for round in 0..3000 {
        let mut bytes = good.clone();
        // Parameters of a seal stay zero: the cost of Argon2id is not what is looked for here.
        for _ in 0..=next() % 4 {
            let at = usize::try_from(next()).unwrap() % 24 + 8;
            bytes[at] = next().to_le_bytes()[0];
        }
        bytes[10] = 0;
        if round % 3 == 0 {
            bytes.truncate(usize::try_from(next()).unwrap() % bytes.len());
        }
        if bytes.len() >= 32 {
            fix_checksum(&mut bytes);
        }
        write_private(&path, &bytes);
        match Keyring::open(&path, Sealing::none()) {
            Ok(keyring) => assert_eq!(keyring.versions().unwrap().len(), 1),
            Err(error) => assert_ne!(error.code, ErrorCode::Internal, "{error}"),
        }
    }
}

#[test]
fn versions_that_do_not_ascend_are_refused() {
    let (_directory, path) = directory();
    keyring(&path).rotate().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[HEADER_BYTES + 44] = 1;
    fix_checksum(&mut bytes);
    write_private(&path, &bytes);
    assert_eq!(
        code(Keyring::open(&path, Sealing::none())),
        ErrorCode::InvalidCiphertext
    );
}

#[test]
fn hostile_kdf_parameters_are_refused_before_any_memory_is_taken() {
    let (_directory, path) = directory();
    Keyring::create(&path, cheap("correct horse")).unwrap();
    let good = fs::read(&path).unwrap();
    let hostile: [(u32, u32, u32); 8] = [
        (100 << 20, 3, 4),
        (u32::MAX, 1, 1),
        (0, 1, 1),
        (64, 0, 1),
        (64, u32::MAX, 1),
        (64, 1, 0),
        (u32::MAX, u32::MAX, u32::MAX),
        (2 << 20, 3, 1),
    ];
    for (memory_kib, passes, lanes) in hostile {
        let mut bytes = good.clone();
        for (at, number) in [(32, memory_kib), (36, passes), (40, lanes)] {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        fix_checksum(&mut bytes);
        write_private(&path, &bytes);
        let error = failure(Keyring::open(&path, cheap("correct horse")));
        assert_eq!(
            error.code,
            ErrorCode::InvalidConfig,
            "{memory_kib} {passes} {lanes}"
        );
        assert!(error.message.contains("Argon2id"), "{error}");
        let too_dear = cheap("x").with_kdf(KdfParameters {
            memory_kib,
            passes,
            lanes,
        });
        assert_eq!(
            code(Keyring::create(path.with_extension("new"), too_dear)),
            ErrorCode::InvalidConfig
        );
        assert!(!path.with_extension("new").exists());
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (_directory, path) = directory();
    keyring(&path);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    write_private(&path, &bytes);
    let error = failure(Keyring::open(&path, Sealing::none()));
    assert_eq!(error.code, ErrorCode::Unsupported);
    assert!(error.message.contains("format version 2"), "{error}");
}

#[test]
fn a_file_that_others_can_reach_is_refused_until_chmod_600() {
    let (_directory, path) = directory();
    keyring(&path);
    let key = key_at(&path);
    key.status(&call()).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o601, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        for error in [
            failure(Keyring::open(&path, Sealing::none())),
            failure(key.status(&call())),
        ] {
            assert_eq!(error.code, ErrorCode::AccessDenied, "{mode:o}");
            assert!(error.message.contains("chmod 600"), "{error}");
        }
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    key.status(&call()).unwrap();
}

#[test]
fn another_users_file_is_refused() {
    let (_directory, path) = directory();
    keyring(&path);
    if std::os::unix::fs::chown(&path, Some(4711), None).is_err() {
        return; // Only a privileged user can give a file away.
    }
    let error = failure(Keyring::open(&path, Sealing::none()));
    assert_eq!(error.code, ErrorCode::AccessDenied);
    assert!(error.message.contains("4711"), "{error}");
}

#[test]
fn a_link_in_the_files_place_is_not_followed() {
    let (directory, path) = directory();
    let real = directory.path().join("real");
    keyring(&real);
    symlink(&real, &path).unwrap();
    let error = failure(Keyring::open(&path, Sealing::none()));
    assert_eq!(error.code, ErrorCode::InvalidConfig);
    assert!(error.message.contains("link"), "{error}");

    let dangling = directory.path().join("dangling");
    symlink(directory.path().join("nothing"), &dangling).unwrap();
    assert_eq!(
        code(Keyring::create(&dangling, Sealing::none())),
        ErrorCode::InvalidConfig
    );
    assert_eq!(
        code(key_at(&dangling).wrap(&call(), &context(), &EPOCH_KEY)),
        ErrorCode::InvalidConfig
    );
    assert!(!directory.path().join("nothing").exists());
}

#[test]
fn a_directory_and_a_huge_file_are_refused() {
    let (directory, path) = directory();
    assert_eq!(
        code(Keyring::open(directory.path(), Sealing::none())),
        ErrorCode::InvalidConfig
    );
    write_private(&path, &vec![0; 1 << 20]);
    let error = failure(Keyring::open(&path, Sealing::none()));
    assert!(error.message.contains("larger"), "{error}");
}

#[test]
fn a_remnant_of_a_torn_write_harms_nothing_and_is_removed() {
    let (directory, path) = directory();
    let created = keyring(&path);
    let good = fs::read(&path).unwrap();
    let remnant = directory.path().join("app.keyring.tmp");
    // The crash came while the temporary file was written: the old file is untouched, the new one torn.
    fs::write(&remnant, &good[..good.len() / 2]).unwrap();
    assert_eq!(
        Keyring::open(&path, Sealing::none()).unwrap().id().unwrap(),
        created.id().unwrap()
    );
    assert_eq!(created.rotate().unwrap(), 2);
    assert!(!remnant.exists());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_change_is_a_new_file_and_the_old_one_stays_whole_for_who_has_it_open() {
    let (_directory, path) = directory();
    let keyring = keyring(&path);
    let mut old = fs::File::open(&path).unwrap();
    let before = fs::read(&path).unwrap();
    keyring.rotate().unwrap();
    let mut seen = Vec::new();
    std::io::Read::read_to_end(&mut old, &mut seen).unwrap();
    assert_eq!(seen, before);
    assert_ne!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_link_in_the_temporary_files_place_is_replaced_and_not_written_through() {
    let (directory, path) = directory();
    let keyring = keyring(&path);
    let victim = directory.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, directory.path().join("app.keyring.tmp")).unwrap();
    keyring.rotate().unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

#[test]
fn a_failed_change_leaves_the_file_as_it_was() {
    let (directory, path) = directory();
    let keyring = keyring(&path);
    let before = fs::read(&path).unwrap();
    // A directory with something in it cannot be removed, so the temporary file cannot be made.
    fs::create_dir_all(directory.path().join("app.keyring.tmp/in the way")).unwrap();
    assert!(keyring.rotate().is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(keyring.versions().unwrap().len(), 1);
}

#[test]
fn a_keyring_takes_1024_versions_and_no_more() {
    let (_directory, path) = directory();
    let keyring = keyring(&path);
    // Written as the format draws it: a thousand syncs would take their time.
    let mut bytes = fs::read(&path).unwrap();
    let entry = bytes[HEADER_BYTES..HEADER_BYTES + 44].to_vec();
    bytes.truncate(HEADER_BYTES);
    bytes[28..32].copy_from_slice(&1023_u32.to_le_bytes());
    for version in 1..=1023_u32 {
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&entry[4..]);
    }
    bytes.extend_from_slice(&[0; 16 + 32]);
    fix_checksum(&mut bytes);
    write_private(&path, &bytes);

    assert_eq!(keyring.rotate().unwrap(), 1024);
    let error = failure(keyring.rotate());
    assert_eq!(error.code, ErrorCode::Unsupported);
    assert_eq!(keyring.versions().unwrap().len(), 1024);
    assert!(
        key_at(&path)
            .wrap(&call(), &context(), &EPOCH_KEY)
            .unwrap()
            .key_id
            .ends_with(":v1024")
    );
}

#[test]
fn no_secret_is_in_debug() {
    let (_directory, path) = directory();
    let keyring = Keyring::create(&path, cheap("correct horse")).unwrap();
    let backend = ManagedBackend::keyring(&path).passphrase("correct horse");
    let lone = ManagedBackend::master_key(&[0x61; 32]);
    let shown = format!("{keyring:?} {backend:?} {lone:?} {:?}", cheap("correct horse"));
    assert!(
        shown.contains("app.keyring") && !shown.contains("horse"),
        "{shown}"
    );
    assert!(
        !shown.contains("97, 97") && !shown.contains("6161") && !shown.contains("aaaa"),
        "{shown}"
    );
}
