//! Claims about settings and config: strict, by name, and where secrets come from.

mod common;

use common::*;
use keystead_backend::{ErrorCode, KeyBackend};
use keystead_managed::{ManagedBackend, Sealing};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::{fs, io::Write};

#[track_caller]
fn refused(settings: &str) -> String {
    let error = failure(open_with(&ManagedBackend::default(), settings, "{}"));
    assert_eq!(error.code, ErrorCode::InvalidConfig, "{settings}: {error}");
    error.message
}

#[test]
fn no_settings_at_all_are_refused_with_what_to_set() {
    let message = refused("{}");
    assert!(
        message.contains("`keyring`") && message.contains("master_key_env"),
        "{message}"
    );
}

#[test]
fn an_unknown_setting_is_refused_by_its_name() {
    let message = refused(r#"{"keyring":"/k","keyrign":"/k"}"#);
    assert!(message.contains("`keyrign`"), "{message}");
}

#[test]
fn a_secret_in_the_settings_is_refused_and_not_repeated() {
    for settings in [
        r#"{"keyring":"/k","passphrase":"hunter2"}"#,
        r#"{"keyring":"/k","passphrase_fd":"hunter2"}"#,
        r#"{"keyring":"/k","passphrase_env":"hunter2=hunter2"}"#,
        r#"{"keyring":"/k","create":"hunter2"}"#,
        r#"{"keyring":"/k","passphrase_file":["hunter2"]}"#,
        r#"{"keyring":"/k" hunter2}"#,
        r#""hunter2""#,
    ] {
        let message = refused(settings);
        assert!(!message.contains("hunter2"), "{message}");
    }
    assert!(refused(r#"{"passphrase":"x"}"#).contains("say where to read it"));
}

#[test]
fn contradictions_and_wrong_types_name_their_fields() {
    for (settings, names) in [
        (r#"{"keyring":"relative/path"}"#, &["keyring", "absolute"][..]),
        (r#"{"keyring":"/"}"#, &["keyring"]),
        (r#"{"keyring":""}"#, &["keyring"]),
        (r#"{"keyring":7}"#, &["keyring"]),
        (r#"{"create":true}"#, &["keyring"]),
        (r#"{"passphrase_env":"P"}"#, &["keyring"]),
        (
            r#"{"keyring":"/k","passphrase_env":"P","passphrase_fd":3}"#,
            &["passphrase_env", "passphrase_fd"],
        ),
        (r#"{"keyring":"/k","passphrase_fd":-1}"#, &["passphrase_fd"]),
        (
            r#"{"keyring":"/k","passphrase_fd":4294967296}"#,
            &["passphrase_fd"],
        ),
        (
            r#"{"keyring":"/k","passphrase_file":"relative"}"#,
            &["passphrase_file"],
        ),
        (r#"{"keyring":"/k","create":1}"#, &["create"]),
        (
            r#"{"keyring":"/k","master_key_env":"M"}"#,
            &["keyring", "master key"],
        ),
        (
            r#"{"master_key_env":"M","master_key_fd":3}"#,
            &["master_key_env", "master_key_fd"],
        ),
        (r#"{"master_key_env":"M","create":true}"#, &["create"]),
        (
            r#"{"master_key_env":"KEYSTEAD_NOT_SET_ANYWHERE"}"#,
            &["master_key_env", "KEYSTEAD_NOT_SET_ANYWHERE"],
        ),
        (
            r#"{"keyring":"/k","passphrase_env":"KEYSTEAD_NOT_SET_ANYWHERE"}"#,
            &["not set"],
        ),
        (
            r#"{"keyring":"/k","passphrase_file":"/not/there"}"#,
            &["passphrase_file", "/not/there"],
        ),
        ("[]", &["JSON object"]),
        ("", &["line"]),
    ] {
        let message = refused(settings);
        for name in names {
            assert!(message.contains(name), "{settings}: {message}");
        }
    }
}

#[test]
fn a_config_other_than_empty_is_refused_by_its_name() {
    let (_directory, path) = directory();
    let backend = ManagedBackend::keyring(path);
    for (config, name) in [
        (r#"{"key_arn":"x"}"#, "`key_arn`"),
        ("[]", "JSON object"),
        ("", "line 1"),
    ] {
        let error = failure(open_with(&backend, "{}", config));
        assert_eq!(error.code, ErrorCode::InvalidConfig);
        assert!(error.message.contains(name), "{error}");
    }
}

#[test]
fn settings_from_the_program_and_as_json_at_once_are_refused() {
    let (_directory, path) = directory();
    let error = failure(open_with(
        &ManagedBackend::keyring(path),
        r#"{"keyring":"/k"}"#,
        "{}",
    ));
    assert_eq!(error.code, ErrorCode::InvalidConfig);
}

#[test]
fn a_builder_used_wrongly_says_so_when_opened() {
    let (_directory, path) = directory();
    for backend in [
        ManagedBackend::default().passphrase("x"),
        ManagedBackend::master_key(&[1; 32]).create(false),
        ManagedBackend::keyring(&path).passphrase(""),
        ManagedBackend::keyring(&path).passphrase("x".repeat(5000)),
        ManagedBackend::keyring(&path)
            .passphrase("")
            .sealing(Sealing::none()),
    ] {
        assert_eq!(
            code(open_with(&backend, "{}", "{}")),
            ErrorCode::InvalidConfig,
            "{backend:?}"
        );
    }
    assert!(!path.exists());
}

#[test]
fn a_passphrase_comes_from_a_file_up_to_its_first_newline() {
    let (directory, path) = directory();
    let secret = directory.path().join("passphrase");
    let settings = format!(
        r#"{{"keyring":{:?},"passphrase_file":{:?}}}"#,
        path.to_str().unwrap(),
        secret.to_str().unwrap()
    );
    fs::write(&secret, "correct horse\r\nand a second line").unwrap();
    let key = open_with(&ManagedBackend::default(), &settings, "{}").unwrap();
    let wrapped = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
    let by_builder = open(&ManagedBackend::keyring(&path).passphrase("correct horse"));
    assert_eq!(
        by_builder
            .unwrap(&call(), &context(), &wrapped)
            .unwrap()
            .as_slice(),
        EPOCH_KEY
    );

    for bad in ["", "\nsecond line", &"x".repeat(4097), &"x".repeat(100_000)] {
        fs::write(&secret, bad).unwrap();
        assert_eq!(
            code(open_with(&ManagedBackend::default(), &settings, "{}")),
            ErrorCode::InvalidConfig
        );
    }
    fs::write(&secret, "wrong horse").unwrap();
    let key = open_with(&ManagedBackend::default(), &settings, "{}").unwrap();
    assert_eq!(
        code(key.unwrap(&call(), &context(), &wrapped)),
        ErrorCode::Unauthenticated
    );
}

#[test]
fn a_pipes_passphrase_is_read_once_for_all_organizations() {
    let (_directory, path) = directory();
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"correct horse\n").unwrap();
    drop(writer);
    let settings = format!(
        r#"{{"keyring":{:?},"passphrase_fd":{}}}"#,
        path.to_str().unwrap(),
        reader.as_raw_fd()
    );
    let backend = ManagedBackend::default();
    let first = open_with(&backend, &settings, "{}").unwrap();
    let wrapped = first.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
    let second = open_with(&backend, &settings, "{}").unwrap();
    assert_eq!(
        second.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
        EPOCH_KEY
    );

    // Another backend comes too late, and is told.
    let error = failure(open_with(&ManagedBackend::default(), &settings, "{}"));
    assert_eq!(error.code, ErrorCode::InvalidConfig);
    assert!(error.message.contains("once"), "{error}");
}

#[test]
fn a_closed_descriptor_is_refused_by_its_number() {
    let message = refused(r#"{"keyring":"/k","passphrase_fd":2147483647}"#);
    assert!(
        message.contains("2147483647") && message.contains("passphrase_fd"),
        "{message}"
    );
}

#[test]
fn a_master_key_comes_from_a_descriptor_as_64_digits() {
    let (directory, _path) = directory();
    let file = directory.path().join("master");
    let opened = |digits: &str| {
        fs::write(&file, digits).unwrap();
        let reader = fs::File::open(&file).unwrap();
        open_with(
            &ManagedBackend::default(),
            &format!(r#"{{"master_key_fd":{}}}"#, reader.as_raw_fd()),
            "{}",
        )
    };
    let wrapped = opened(&"0a".repeat(32))
        .unwrap()
        .wrap(&call(), &context(), &EPOCH_KEY)
        .unwrap();
    let same = opened(&format!("{}\n", "0A".repeat(32))).unwrap();
    assert_eq!(
        same.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
        EPOCH_KEY
    );
    assert!(
        open(&ManagedBackend::master_key(&[10; 32]))
            .unwrap(&call(), &context(), &wrapped)
            .is_ok()
    );
    for bad in ["0a".repeat(31), "0a".repeat(33), "0g".repeat(32), "é".repeat(32)] {
        let error = failure(opened(&bad));
        assert_eq!(error.code, ErrorCode::InvalidConfig);
        assert!(
            error.message.contains("64") && !error.message.contains(&bad),
            "{error}"
        );
    }
}

#[test]
fn the_description_names_every_setting_and_needs_none() {
    let description = ManagedBackend::default().describe();
    assert_eq!(description.name, "managed");
    let fields = description.settings_schema["properties"].as_object().unwrap();
    assert_eq!(fields.len(), 7);
    for field in fields.keys() {
        assert!(refused(r#"{"no_such_field":1}"#).contains(field), "{field}");
    }
    assert_eq!(description.config_schema["additionalProperties"], false);
}

/// Runs [`a_child_process_wraps_once`] in a process of its own.
fn child(settings: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "a_child_process_wraps_once",
            "--ignored",
            "--nocapture",
        ])
        .env("KEYSTEAD_TEST_SETTINGS", settings)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a child wrapped: `(key id, blob)`.
fn wrapped_by(child: std::process::Child) -> keystead_backend::Wrapped {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = text
        .lines()
        .find_map(|line| line.split_once("wrapped: "))
        .expect("the child reports its wrap")
        .1;
    let (key_id, blob) = line.split_once(' ').unwrap();
    keystead_backend::Wrapped {
        key_id: key_id.into(),
        blob: unhex(blob),
        metadata: Vec::new(),
    }
}

#[test]
#[ignore = "runs in a child process that the tests below start with settings in its environment"]
fn a_child_process_wraps_once() {
    let settings = std::env::var("KEYSTEAD_TEST_SETTINGS").expect("started by another test");
    let key = open_with(&ManagedBackend::default(), &settings, "{}").unwrap();
    let wrapped = key.wrap(&call(), &context(), &EPOCH_KEY).unwrap();
    assert_eq!(
        key.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
        EPOCH_KEY
    );
    writeln!(
        std::io::stdout(),
        "\nwrapped: {} {}",
        wrapped.key_id,
        hex(&wrapped.blob)
    )
    .unwrap();
}

#[test]
fn a_passphrase_comes_from_the_environment_or_from_standard_input() {
    let (_directory, path) = directory();
    let keyring = path.to_str().unwrap();
    let by_environment = child(&format!(
        r#"{{"keyring":{keyring:?},"passphrase_env":"APP_PASSPHRASE"}}"#
    ))
    .env("APP_PASSPHRASE", "correct horse")
    .spawn()
    .unwrap();
    let first = wrapped_by(by_environment);
    let mut by_descriptor = child(&format!(r#"{{"keyring":{keyring:?},"passphrase_fd":0}}"#))
        .spawn()
        .unwrap();
    // The pipe stays open: the newline ends the passphrase.
    let mut stdin = by_descriptor.stdin.take().unwrap();
    stdin.write_all(b"correct horse\n").unwrap();
    let second = wrapped_by(by_descriptor);
    drop(stdin);
    assert_eq!(first.key_id, second.key_id);
    let key = open(&ManagedBackend::keyring(&path).passphrase("correct horse"));
    for wrapped in [first, second] {
        assert_eq!(
            key.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
            EPOCH_KEY
        );
    }
}

#[test]
fn a_master_key_comes_from_the_environment() {
    let spawned = child(r#"{"master_key_env":"APP_MASTER_KEY"}"#)
        .env("APP_MASTER_KEY", "0b".repeat(32))
        .spawn()
        .unwrap();
    let wrapped = wrapped_by(spawned);
    let key = open(&ManagedBackend::master_key(&[11; 32]));
    assert_eq!(
        key.unwrap(&call(), &context(), &wrapped).unwrap().as_slice(),
        EPOCH_KEY
    );
}

#[test]
fn processes_that_make_a_keyring_at_once_end_with_one() {
    let (_directory, path) = directory();
    let settings = format!(r#"{{"keyring":{:?}}}"#, path.to_str().unwrap());
    let children: Vec<_> = (0..6).map(|_| child(&settings).spawn().unwrap()).collect();
    let wraps: Vec<_> = children.into_iter().map(wrapped_by).collect();
    let key = key_at(&path);
    for wrapped in &wraps {
        assert_eq!(
            key.unwrap(&call(), &context(), wrapped).unwrap().as_slice(),
            EPOCH_KEY
        );
    }
}
