//! Each way a command can end has its own exit code, and says what to do.

mod common;

use common::{Place, Ran};
use std::io::Read;
use std::process::Stdio;

fn with_json(place: &Place, arguments: &[&str]) -> Ran {
    let mut all = arguments.to_vec();
    all.push("--json");
    place.run(&all)
}

#[track_caller]
fn refused(place: &Place, arguments: &[&str], exit: i32, class: &str, code: &str) -> String {
    let ran = with_json(place, arguments).ends_with(exit);
    let error = ran.error();
    assert_eq!(error["class"], class);
    assert_eq!(error["code"], code);
    assert_eq!(error["exit_code"], exit);
    assert_eq!(error["retryable"], exit == 6);
    assert!(ran.stdout.is_empty(), "an error leaves standard output empty");
    error["message"].as_str().expect("a message").to_owned()
}

#[test]
fn what_is_not_there_ends_with_3() {
    let place = Place::with_acme();
    place.put("a", b"x");
    refused(&place, &["get", "b"], 3, "not-found", "secret-not-found");
    refused(
        &place,
        &["get", "a", "--version", "9"],
        3,
        "not-found",
        "version-not-found",
    );
    refused(
        &place,
        &["get", "a", "--org", "nobody"],
        3,
        "not-found",
        "organization-not-found",
    );
    refused(
        &place,
        &["key", "probe", "nokey"],
        3,
        "not-found",
        "key-not-found",
    );
    refused(&place, &["rewrap", "run"], 3, "not-found", "no-job");
}

#[test]
fn what_is_in_conflict_with_what_is_there_ends_with_4() {
    let place = Place::with_acme();
    place.put("a", b"x");
    refused(&place, &["init"], 4, "conflict", "store-exists");
    refused(
        &place,
        &["org", "create", "acme"],
        4,
        "conflict",
        "organization-exists",
    );
    refused(
        &place,
        &["key", "add", "managed", "--backend", "customer"],
        4,
        "conflict",
        "key-exists",
    );
    refused(
        &place,
        &["key", "disable", "managed", "--target", "managed"],
        4,
        "conflict",
        "key-refused",
    );
    let mismatch = place
        .feed(&["put", "a", "--expect", "0", "--json"], b"y")
        .ends_with(4);
    assert_eq!(mismatch.error()["code"], "version-mismatch");
    assert_eq!(place.get("a"), b"x");
}

#[test]
fn what_is_not_allowed_ends_with_2() {
    let place = Place::with_acme();
    refused(&place, &["get", "a//b"], 2, "usage", "invalid-path");
    refused(&place, &["org", "create", " acme"], 2, "usage", "invalid-name");
    refused(&place, &["list", "--limit", "0"], 2, "usage", "usage");
    refused(&place, &["nosuch"], 2, "usage", "usage");
    refused(
        &place,
        &["key", "add", "k", "--backend", "nosuch"],
        2,
        "usage",
        "backend-not-registered",
    );
    let config = ["key", "add", "k", "--backend", "customer", "--set", "key_arn=x"];
    let message = refused(&place, &config, 2, "usage", "kms-invalid-config");
    assert!(message.contains("key_arn"), "{message}");
}

#[test]
fn a_disabled_key_ends_with_5_and_a_missing_one_with_6() {
    let place = Place::with_acme();
    place.put("a", b"x");
    let keyring = place.file("app.keyring");
    place.run(&["keyring", "disable", "--keyring", &keyring]).ok();
    refused(&place, &["get", "a"], 5, "revoked", "kms-key-disabled");
    // What needs no data key goes on.
    assert_eq!(place.json(&["list"])["items"][0]["path"], "a");
    place.run(&["delete", "a"]).ok();
    place.run(&["undelete", "a", "--version", "1"]).ok();
    place.run(&["keyring", "enable", "--keyring", &keyring]).ok();
    assert_eq!(place.get("a"), b"x");

    std::fs::rename(&keyring, place.path("away")).expect("renamed");
    refused(&place, &["get", "a"], 6, "unavailable", "kms-unavailable");
    assert!(
        !place.path("app.keyring").exists(),
        "nothing is made in its place"
    );
}

#[test]
fn damaged_bytes_end_with_7_or_are_found_by_verify_with_9() {
    let place = Place::with_acme();
    place.put("a", &[7; 10_000]);
    let path = place.path("app.keystead");
    let whole = std::fs::read(&path).expect("read");
    // A wrap under the managed key, which no other keyring opens.
    place
        .run(&["keyring", "create", "--keyring", &place.file("other.keyring")])
        .ok();
    std::fs::rename(place.path("other.keyring"), place.path("app.keyring")).expect("renamed");
    refused(&place, &["get", "a"], 7, "damaged", "kms-wrong-key");
    let unopened = with_json(&place, &["verify", "--open-values"])
        .ends_with(9)
        .json();
    assert_eq!(unopened["clean"], true);
    assert_eq!(unopened["unopened"][0]["path"], "a");

    // Every page but the first ones, so that the store opens and what it holds does not.
    let mut damaged = whole.clone();
    let from = damaged.len() / 2;
    damaged[from..].iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(&path, &damaged).expect("written");
    let ran = with_json(&place, &["verify"]);
    assert!([7, 9].contains(&ran.code), "{} {}", ran.code, ran.stderr);
}

/// What a verification needs is taken away from it: so the process that verifies ends by a crash, which the one that waits for it
/// survives.
#[test]
fn a_verification_whose_process_crashes_is_a_finding_with_9() {
    let place = Place::with_acme();
    place.put("a", &vec![7; 24 << 20]);
    let verify = |limit_kib: Option<u32>, arguments: &str| {
        let limit = limit_kib.map_or(String::new(), |kib| format!("ulimit -v {kib}; "));
        let line = format!("{limit}exec \"$0\" verify {arguments}");
        let command = place.command(&[]);
        let mut shell = std::process::Command::new("sh");
        shell
            .arg("-c")
            .arg(line)
            .arg(command.get_program())
            .current_dir(place.directory());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                shell.env(name, value);
            }
        }
        shell.output().expect("the shell starts")
    };
    Ran::from(verify(None, "")).ok();
    // Enough to start, too little for the cache of so many pages. How much that is depends on the machine's libraries; with less,
    // the process that waits does not come so far either.
    let crashed = (16..=96)
        .step_by(2)
        .map(|mib| verify(Some(mib << 10), "--json"))
        .filter(|output| output.status.code() == Some(9))
        .map(|output| Ran::from(output).json())
        .find(|report| {
            let what = report["problems"][0]["what"].as_str().expect("a problem");
            what.contains("was ended by signal 6") && what.contains("--memory-mib")
        });
    let report =
        crashed.expect("with one of them, the process that waits starts and the one that verifies crashes");
    assert_eq!(
        (&report["clean"], &report["complete"]),
        (&false.into(), &false.into())
    );
}

#[test]
fn a_store_that_cannot_be_opened_ends_with_8() {
    let place = Place::with_acme();
    let held = keystead::Store::options()
        .open(place.path("app.keystead"))
        .expect("it opens");
    refused(&place, &["list"], 8, "cannot-open", "already-open");
    drop(held);
    place.run(&["list"]).ok();
    refused(
        &place,
        &["list", "--store", "nothing"],
        8,
        "cannot-open",
        "store-not-found",
    );
    std::fs::write(place.path("foreign"), vec![b'x'; 100_000]).expect("written");
    refused(
        &place,
        &["list", "--store", "foreign"],
        8,
        "cannot-open",
        "not-a-store",
    );
}

#[test]
fn a_blocked_job_ends_with_10_and_goes_on_when_the_obstacle_is_gone() {
    let place = Place::with_acme();
    place.put("a", b"x");
    let keyring = place.file("app.keyring");
    place.run(&["keyring", "disable", "--keyring", &keyring]).ok();
    let blocked = with_json(&place, &["key", "add", "own", "--backend", "customer"])
        .ends_with(10)
        .json();
    assert_eq!(blocked["rewrap"]["state"], "blocked");
    assert_eq!(blocked["rewrap"]["phase"], "hand-over");
    let reason = blocked["rewrap"]["blocked_reason"].as_str().expect("a reason");
    assert!(reason.contains("disabled"), "{reason}");
    with_json(&place, &["rewrap", "status"]).ends_with(10);
    with_json(&place, &["rewrap", "run"]).ends_with(10);
    with_json(&place, &["doctor"]).ends_with(9);

    place.run(&["keyring", "enable", "--keyring", &keyring]).ok();
    assert_eq!(place.json(&["rewrap", "run"])["state"], "done");
    assert_eq!(place.get("a"), b"x");
}

#[test]
fn watching_a_blocked_job_goes_on_until_the_obstacle_is_gone() {
    let place = Place::with_acme();
    place.put("a", b"x");
    let keyring = place.file("app.keyring");
    place.run(&["keyring", "disable", "--keyring", &keyring]).ok();
    place
        .run(&["key", "add", "own", "--backend", "customer"])
        .ends_with(10);
    let watching = place
        .command(&["rewrap", "watch", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // The keyring is a file of its own: it is looked after while the store is open.
    std::thread::sleep(std::time::Duration::from_millis(500));
    place.run(&["keyring", "enable", "--keyring", &keyring]).ok();
    let ran = Ran::from(watching.wait_with_output().expect("it ends")).ok();
    assert_eq!(ran.json()["state"], "done");
    assert_eq!(place.get("a"), b"x");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::with_acme();
    place.put("a", &vec![b'x'; 8 << 20]);
    let mut child = place
        .command(&["get", "a"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0; 10]).expect("some bytes");
    drop(stdout);
    let ran = Ran::from(child.wait_with_output().expect("it ends"));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

/// The story: `keystead verify | head -1` wrote into a closed pipe, and so ended with 0 whatever it had found.
#[test]
fn bad_news_keep_their_exit_code_when_the_reader_goes_away() {
    let place = Place::with_acme();
    place.put("a", b"x");
    let keyring = place.file("app.keyring");
    for more in [&[][..], &["--json"]] {
        let run = |arguments: &[&str]| place.run_into_a_closed_pipe(&[arguments, more].concat());
        assert_eq!(run(&["verify", "--open-values"]).ok().stderr, "");
        run(&["doctor"]).ok();
        place.run(&["keyring", "disable", "--keyring", &keyring]).ok();
        run(&["verify", "--open-values"]).ends_with(9);
        let own = format!("own-{}", more.len());
        run(&["key", "add", &own, "--backend", "customer"]).ends_with(10);
        run(&["rewrap", "status"]).ends_with(10);
        run(&["rewrap", "run"]).ends_with(10);
        run(&["doctor"]).ends_with(9);
        place.run(&["keyring", "enable", "--keyring", &keyring]).ok();
        run(&["rewrap", "run"]).ok();
        run(&["key", "disable-all"]).ok();
    }
}

#[test]
fn help_and_the_manual_list_the_exit_codes() {
    let place = Place::empty();
    for arguments in [&["--help"][..], &["man"][..]] {
        let text = place.run(arguments).ok().text();
        assert!(
            text.contains("EXIT CODES") && text.contains("job is blocked"),
            "{text}"
        );
    }
    std::fs::create_dir(place.path("man")).expect("made");
    place.run(&["man", "--dir", "man"]).ok();
    let page =
        std::fs::read_to_string(place.path("man/keystead-key-add.1")).expect("a page for each command");
    assert!(page.contains("probe"), "{page}");
    assert!(
        place
            .run(&["completions", "bash"])
            .ok()
            .text()
            .contains("keystead")
    );
}
