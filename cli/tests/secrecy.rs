//! No secret leaves the command but by `get`, and none comes in where others can read it.

mod common;

use common::Place;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;

const SECRET: &str = "hunter2-hunter2";

#[test]
fn a_value_in_an_argument_is_refused_without_being_repeated() {
    let place = Place::with_acme();
    let ran = place.run(&["put", "a", SECRET]).ends_with(2);
    assert!(
        ran.stderr.contains("never given as an argument"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains(SECRET), "{}", ran.stderr);
    place.run(&["get", "a"]).ends_with(3);
}

#[test]
fn no_command_but_get_writes_a_value() {
    let place = Place::with_acme();
    let mut seen = Vec::new();
    let put = place.feed(&["put", "a", "-vvv"], SECRET.as_bytes()).ok();
    seen.push(put.text() + &put.stderr);
    let commands: &[&[&str]] = &[
        &["list"],
        &["history", "a"],
        &["audit", "--json"],
        &["epochs", "--json"],
        &["verify", "--open-values", "-vvv"],
        &["doctor", "--probe", "-vvv"],
        &["key", "rotate", "-vvv"],
        &["get", "a", "--output", "out", "-vvv"],
    ];
    for arguments in commands {
        let ran = place.run(arguments).ok();
        seen.push(ran.text() + &ran.stderr);
    }
    for text in seen {
        assert!(!text.contains(SECRET), "{text}");
    }
    assert_eq!(place.get("a"), SECRET.as_bytes());
}

/// A terminal: this side of it, and the side that the command gets.
fn terminal() -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).expect("granted");
    unlockpt(&ours).expect("unlocked");
    let name = ptsname(&ours, Vec::new())
        .expect("a name")
        .into_string()
        .expect("UTF-8");
    let theirs = File::options()
        .read(true)
        .write(true)
        .open(name)
        .expect("it opens");
    (File::from(ours), theirs)
}

/// What the command wrote to the terminal, read when it has ended.
fn read_available(mut ours: File, theirs: File) -> String {
    drop(theirs);
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    // Linux answers EIO when nobody holds the other side any more.
    while let Ok(count @ 1..) = ours.read(&mut buffer) {
        text.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_binary_value_is_not_printed_to_a_terminal_unless_forced() {
    let place = Place::with_acme();
    place.put("text", b"plain words");
    place.put("binary", b"\x1b]0;title\x07\xff\x00");
    for (arguments, code, expected) in [
        (&["get", "text"][..], 0, "plain words"),
        (&["get", "binary"][..], 2, ""),
        (&["get", "binary", "--force"][..], 0, "title"),
    ] {
        let (ours, theirs) = terminal();
        let stdout = Stdio::from(theirs.try_clone().expect("cloned"));
        let mut child = place
            .command(arguments)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        assert_eq!(child.wait().expect("it ends").code(), Some(code), "{arguments:?}");
        let seen = read_available(ours, theirs);
        assert!(
            seen.contains(expected) && (code == 0 || seen.is_empty()),
            "{arguments:?}: {seen:?}"
        );
    }
}

#[test]
fn a_value_typed_on_a_terminal_is_not_shown() {
    let place = Place::with_acme();
    let (mut ours, theirs) = terminal();
    let side = || Stdio::from(theirs.try_clone().expect("cloned"));
    let mut child = place
        .command(&["put", "typed"])
        .stdin(side())
        .stdout(side())
        .stderr(side())
        .spawn()
        .expect("it starts");
    let mut prompt = String::new();
    while !prompt.contains("not shown): ") {
        let mut byte = [0];
        ours.read_exact(&mut byte).expect("a prompt");
        prompt.push(char::from(byte[0]));
    }
    // The prompt is written just before the terminal stops showing what is typed.
    let is_shown = || {
        let modes = rustix::termios::tcgetattr(&theirs)
            .expect("a terminal")
            .local_modes;
        modes.contains(rustix::termios::LocalModes::ECHO)
    };
    while is_shown() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    ours.write_all(format!("{SECRET}\r").as_bytes()).expect("typed");
    assert!(child.wait().expect("it ends").success());
    let seen = read_available(ours, theirs);
    assert!(!seen.contains(SECRET), "{seen:?}");
    assert_eq!(place.get("typed"), SECRET.as_bytes());
}

#[test]
fn destroy_asks_on_a_terminal_and_refuses_without_one() {
    let place = Place::with_acme();
    place.put("a", b"x");
    let refused = place.run(&["destroy", "a", "--version", "1"]).ends_with(2);
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    for (answer, code) in [("no\n", 1), ("yes\n", 0)] {
        let (mut ours, theirs) = terminal();
        ours.write_all(answer.as_bytes()).expect("typed");
        let side = || Stdio::from(theirs.try_clone().expect("cloned"));
        let mut child = place
            .command(&["destroy", "a", "--version", "1"])
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("it starts");
        assert_eq!(child.wait().expect("it ends").code(), Some(code), "{answer:?}");
        let seen = read_available(ours, theirs);
        assert!(seen.contains("Destroy version 1 of \"a\" for good?"), "{seen:?}");
    }
    place.run(&["get", "a"]).ends_with(3);
}

#[test]
fn control_characters_of_labels_do_not_reach_a_terminal() {
    let place = Place::with_acme();
    place
        .feed(&["put", "a", "--label", "title=\x1b]0;x\x07"], b"x")
        .ok();
    let shown = place.run(&["history", "a"]).ok().text();
    assert!(!shown.contains('\x1b') && shown.contains("title="), "{shown:?}");
}
