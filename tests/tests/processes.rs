//! Real processes and real limits: two that open one file, one that is killed and whose children live on, a file that may not
//! grow, a file system that is full.

#![allow(clippy::disallowed_methods, reason = "it measures how long things take")]

use keystead::{Error, VersionState};
use keystead_tests::left_out::leave_out;
use keystead_tests::observe::verify;
use keystead_tests::past::keyring_options;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const CHILD: &str = env!("CARGO_BIN_EXE_life-child");

/// A refusal that waits for nothing takes less.
const AT_ONCE: Duration = Duration::from_secs(30);

#[test]
fn a_second_process_is_refused_by_name_at_once_and_opens_when_the_first_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.keystead");
    let store = keyring_options(directory.path()).create(&path).unwrap();
    store.create_organization("acme").unwrap().put("a", "x").unwrap();
    store.close().unwrap();
    drop(store);

    // What the child starts holds on to this pipe, and lives until it is closed at the test's end.
    let mut child = Command::new(CHILD)
        .args(["hold".as_ref(), path.as_os_str(), directory.path().as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let held_open = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "open");

    let began = Instant::now();
    let refused = keyring_options(directory.path()).open(&path).unwrap_err();
    assert!(matches!(refused, Error::AlreadyOpen { .. }), "{refused}");
    assert!(refused.to_string().contains("store.keystead"), "{refused}");
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());

    child.kill().unwrap();
    child.wait().unwrap();
    // The killed process's own child lives on; it has not inherited the store.
    let store = keyring_options(directory.path()).open(&path).unwrap();
    let acme = store.organization("acme").unwrap();
    assert_eq!(acme.get("a").unwrap().value, "x");
    drop(held_open);
}

/// Runs `life-child fill` in a process whose files may have so many bytes.
fn fill_up_to(bytes: u64, store: &Path, directory: &Path) -> Output {
    // A signal that is ignored stays ignored in the program that follows: it meets an error instead.
    let limited = r#"trap '' XFSZ; ulimit -f "$1"; shift; exec "$@""#;
    Command::new("sh")
        .args(["-c", limited, "sh", &(bytes / 512).to_string(), CHILD, "fill"])
        .args([store, directory])
        .output()
        .unwrap()
}

#[test]
fn a_file_that_may_not_grow_any_more_keeps_what_was_acknowledged() {
    let mut acknowledged_in_all = 0;
    // From just above an empty store on, in odd steps: each fails in another place.
    for kib in [5200, 5700, 6400, 7333, 9001, 12_500] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.keystead");
        drop(keyring_options(directory.path()).create(&path).unwrap());
        let output = fill_up_to(kib * 1024, &path, directory.path());
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && said.contains("\nfailed ") && said.contains("\nrefused "),
            "{kib} KiB: {said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let acknowledged = said.lines().filter(|line| line.starts_with("put ")).count();
        acknowledged_in_all += acknowledged;

        let store = keyring_options(directory.path()).open(&path).unwrap();
        let acme = store.organization("acme").unwrap();
        for n in 0..acknowledged {
            let history = acme.history(&format!("fill/{n}"), None, 10).unwrap();
            assert!(
                matches!(history[..], [ref only] if only.state == VersionState::Live),
                "{kib} KiB: put {n} was acknowledged"
            );
        }
        assert!(acme.get("one/more").is_err(), "{kib} KiB: it was refused");
        verify(&store).unwrap();
        acme.put("after", "x").unwrap();
    }
    assert!(acknowledged_in_all > 0, "every limit was below the first put");
}

#[test]
fn a_store_for_which_there_is_no_room_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.keystead");
    let output = fill_up_to(1 << 20, &path, directory.path());
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("creating"), "{said}");
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A file system of 16 MiB with 3 MiB of ballast, in a mount namespace of its own; a program in it, given as `$1` with its
/// arguments.
const IN_SMALL_FILE_SYSTEM: &str = r#"
    mount -t tmpfs -o size=16m,mode=700 tmpfs "$1"
    head -c 3145728 /dev/zero > "$1/ballast"
    shift
    exec "$@"
"#;

#[test]
fn a_full_file_system_keeps_what_was_acknowledged_and_goes_on_when_there_is_room_again() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = directory.path().join("small");
    std::fs::create_dir(&mounted).unwrap();
    let namespace = |flags: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(flags)
            .args(["sh", "-ec", IN_SMALL_FILE_SYSTEM, "sh"])
            .arg(&mounted);
        command
    };
    let can = |flags: &&&[&str]| {
        let tried = namespace(flags).arg("true").output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let ways: [&[&str]; 2] = [&["--mount"], &["--map-root-user", "--mount"]];
    let Some(way) = ways.iter().find(can) else {
        return leave_out(
            "a store on a full file system",
            "a small file system cannot be mounted here (unshare, mount)",
        );
    };
    let output = namespace(way)
        .args([CHILD, "fill"])
        .args([
            &mounted.join("store.keystead"),
            directory.path(),
            &mounted.join("ballast"),
        ])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let mut complaints = String::new();
    output.stderr.as_slice().read_to_string(&mut complaints).unwrap();
    assert!(output.status.success(), "{said}\n{complaints}");
    let sound = said.lines().last().and_then(|line| line.strip_prefix("sound "));
    let acknowledged: u32 = sound.expect("it was checked").parse().unwrap();
    assert!(acknowledged > 0, "{said}");
    assert!(said.contains("No space left"), "{said}");
}
