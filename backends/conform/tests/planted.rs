//! Each planted fault fails the check that is for it, and none beside; without a fault everything passes.

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use common::{Found, conform, directory, file, tool};

struct Bench {
    plugin: PathBuf,
    config: PathBuf,
    other: PathBuf,
    _directory: tempfile::TempDir,
}

fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| {
        let directory = directory();
        Bench {
            plugin: common::planted(directory.path()),
            config: file(directory.path(), "config", r#"{"passphrase":"hunter2"}"#),
            other: file(directory.path(), "other", r#"{"passphrase":"other"}"#),
            _directory: directory,
        }
    })
}

fn command(fault: &str) -> Command {
    let bench = bench();
    let mut command = tool(&bench.plugin);
    command
        .arg("--config")
        .arg(&bench.config)
        .arg("--other-config")
        .arg(&bench.other);
    command.env("KEYSTEAD_PLANTED", fault);
    command
}

/// What is made with each fault beside the checks that must fail: they must not.
const NEIGHBOURS: [&str; 9] = [
    "loads",
    "describe",
    "negotiation",
    "round-trips",
    "context",
    "damaged",
    "key-id",
    "rooms",
    "errors",
];

fn with(fault: &str, failing: &[&str]) -> Found {
    let mut command = command(fault);
    let mut checks: Vec<&str> = failing.to_vec();
    checks.extend(NEIGHBOURS);
    for check in checks {
        command.args(["--only", check]);
    }
    conform(&mut command)
}

#[track_caller]
fn fails(fault: &str, failing: &[&str], because: &str) {
    let found = with(fault, failing);
    let failed = found.with("failed");
    assert!(
        failed.len() == failing.len() && failing.iter().all(|check| failed.contains(check)),
        "{fault}: {failed:?} failed, not {failing:?}: {:#}",
        found.report
    );
    assert_eq!(found.code, 1);
    let notes = found.notes(failing[0]);
    assert!(notes.contains(because), "{fault}: {notes}");
}

#[test]
fn without_a_fault_everything_passes_and_what_cannot_be_checked_is_said() {
    let found = conform(&mut command("none"));
    assert_eq!(found.with("failed"), [""; 0], "{:#}", found.report);
    // Its calls are too short to be cancelled or timed out, and it has no rewrap and no interrupt.
    assert_eq!(
        found.with("not-checked"),
        ["rewrap", "cancel-during", "deadline", "interrupt"],
        "{:#}",
        found.report
    );
    assert_eq!(found.code, 0);
    assert!(found.notes("deadline").contains("--silent-settings"));
    assert_eq!(found.report["backend"], "toy-cipher 0.1.0");
}

#[test]
fn with_complete_what_could_not_be_checked_is_an_exit_code_of_its_own() {
    let found = conform(command("none").args(["--only", "rewrap", "--complete"]));
    assert_eq!((found.code, found.with("not-checked")), (3, vec!["rewrap"]));
}

#[test]
fn a_wrong_key_is_not_checked_unless_another_one_is_given() {
    let bench = bench();
    let found = conform(
        tool(&bench.plugin)
            .arg("--config")
            .arg(&bench.config)
            .args(["--only", "wrong-key"]),
    );
    assert_eq!(found.with("not-checked"), ["wrong-key"]);
}

#[test]
fn an_excepted_check_is_shown_with_what_was_found_and_fails_nothing() {
    let found = conform(command("keeps the key").args(["--only", "memory", "--except", "memory"]));
    assert_eq!((found.code, found.with("excepted")), (0, vec!["memory"]));
    assert!(found.notes("memory").contains("left in memory"));
}

#[test]
fn a_plugin_that_does_not_load_is_not_checked_further() {
    let bench = bench();
    let digest = "0".repeat(64);
    let found = conform(command("none").args(["--digest", &digest, "--only", "loads", "--only", "damaged"]));
    assert_eq!(
        (found.with("failed"), found.with("not-checked")),
        (vec!["loads"], vec!["damaged"])
    );
    assert!(
        found.notes("loads").contains("is not allowed"),
        "{}",
        bench.plugin.display()
    );
}

#[test]
fn what_the_tool_cannot_do_is_exit_code_2() {
    let code = |command: &mut Command| command.output().expect("it starts").status.code();
    assert_eq!(code(command("none").args(["--only", "no-such-check"])), Some(2));
    assert_eq!(
        code(tool(&bench().plugin).args(["--config", "/nowhere/to/be/found"])),
        Some(2)
    );
}

macro_rules! planted {
    ($($name:ident: $fault:literal => [$($check:literal),+], $because:literal;)*) => {
        $(#[test]
        fn $name() {
            fails($fault, &[$($check),+], $because);
        })*
    };
}

planted! {
    one_that_takes_any_version: "takes any version" => ["negotiation"], "UNSUPPORTED_ABI";
    one_that_describes_itself_anew: "describes itself anew each time" => ["describe"], "other words";
    one_that_describes_itself_beyond_its_room: "describes itself beyond its room" => ["describe"], "wrote beyond description";
    one_that_takes_what_is_no_object: "takes whatever is no object" => ["config-object", "errors"], "is taken";
    one_that_takes_unknown_fields: "takes fields that it does not know" => ["config-unknown-field"], "is taken";
    one_that_names_no_field: "names no field" => ["config-unknown-field"], "not by its name";
    one_that_crashes_on_a_deep_config: "crashes on a deep config" => ["config-too-long"], "SIGABRT";
    one_that_guesses_its_key_id: "says another key id in its status" => ["status"], "one of the two is a guess";
    one_that_loses_a_byte: "loses a byte" => ["round-trips"], "other bytes";
    one_that_ignores_the_context: "ignores the context" => ["context"], "under one with another value, was opened";
    one_that_opens_what_is_damaged: "opens what is damaged" => ["context", "damaged", "errors"], "was opened";
    one_that_calls_damage_an_outage: "calls damage an outage" => ["context", "damaged"], "must be INVALID_CIPHERTEXT";
    one_that_looks_at_no_key_id: "looks at no key id" => ["key-id"], "not looked at";
    one_that_says_another_key_id_each_time: "says another key id each time" => ["key-id"], "and from the same instance it is";
    one_that_forgets_its_key: "forgets its key with its process" => ["restart"], "wrong key";
    one_that_re_wraps_another_key: "re-wraps another key" => ["rewrap"], "other bytes";
    one_that_writes_beyond_its_room: "writes beyond the room for a blob" => ["rooms"], "wrote beyond blob";
    one_that_needs_more_room_than_it_says: "needs more room than it says" => ["rooms"], "that it needs 0 bytes";
    one_that_writes_messages_beyond_their_room: "writes messages beyond their room" => ["messages"], "wrote beyond message";
    one_that_contradicts_itself: "contradicts itself" => ["errors", "context", "damaged"], "is written into the error";
    one_that_needs_an_error: "needs an error" => ["nulls"], "SIGSEGV";
    one_that_dies_when_nothing_is_closed: "dies when nothing is closed" => ["nulls"], "SIGABRT";
    one_that_takes_short_structs: "takes short structs" => ["structs"], "somebody else's memory";
    one_that_stays_interrupted: "stays interrupted" => ["interrupt"], "interrupted";
    one_that_shares_a_buffer_between_threads: "shares a buffer between threads" => ["threads"], "with 16 threads at once";
    one_that_closes_its_neighbours: "closes its neighbours" => ["instances"], "somebody closed this";
    one_that_calls_its_host_after_close: "calls its host after close" => ["close"], "after close the host was called";
    one_that_wraps_in_clear: "wraps in clear" => ["secrets"], "stands in a blob";
    one_that_logs_the_key: "logs the key" => ["secrets"], "stands in the log";
    one_that_tells_the_key_in_an_error: "tells the key in an error" => ["secrets"], "stands in a message";
    one_that_prints_the_key: "prints the key" => ["secrets"], "printed to standard output";
    one_that_keeps_the_key: "keeps the key" => ["memory"], "(as they are)";
    one_that_keeps_the_key_as_a_text: "keeps the key as a text" => ["memory"], "(in hexadecimal)";
}

#[test]
fn one_that_hears_no_cancelling_and_knows_no_deadline() {
    let checks = ["cancel-during", "deadline"];
    let mut command = command("hears no cancelling and knows no deadline");
    let found = conform(command.args(checks.iter().flat_map(|check| ["--only", check])));
    assert_eq!(found.with("failed"), checks, "{:#}", found.report);
    assert!(found.notes("deadline").contains("had not returned"));
}

#[test]
fn one_that_never_returns_costs_its_check_the_time_that_it_has() {
    let mut command = command("never returns");
    let found = conform(command.args([
        "--only",
        "round-trips",
        "--only",
        "describe",
        "--check-max-s",
        "15",
    ]));
    assert_eq!(found.with("failed"), ["round-trips"], "{:#}", found.report);
    assert!(found.notes("round-trips").contains("not over after 15 s"));
    assert_eq!(found.with("passed"), ["describe"], "the others go on");
}
