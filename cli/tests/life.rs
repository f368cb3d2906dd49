//! The whole life of a store, by the command alone.

mod common;

use common::Place;
use serde_json::{Value, json};

#[test]
fn secrets_are_put_read_deleted_brought_back_and_destroyed() {
    let place = Place::with_acme();
    let put = [
        "put",
        "prod/db/password",
        "--label",
        "owner=team-db",
        "--content-type",
        "text/plain",
    ];
    assert_eq!(place.feed(&put, b"correct horse").ok().text(), "version 1\n");
    place
        .feed(
            &["put", "prod/db/password", "--expect", "1", "--strip-newline"],
            b"battery staple\n",
        )
        .ok();
    assert_eq!(place.get("prod/db/password"), b"battery staple");
    assert_eq!(
        place
            .run(&["get", "prod/db/password", "--version", "1"])
            .ok()
            .stdout,
        b"correct horse"
    );

    let listed = place.json(&["list", "prod/"]);
    assert_eq!(listed["items"][0]["path"], "prod/db/password");
    assert_eq!(listed["items"][0]["latest"], 2);
    assert_eq!(listed["next"], Value::Null);
    let history = place.json(&["history", "prod/db/password"]);
    assert_eq!(history["versions"][0]["labels"], json!({ "owner": "team-db" }));
    assert_eq!(history["versions"][0]["size_bytes"], 13);
    assert_eq!(history["versions"][1]["state"], "live");

    place.run(&["delete", "prod/db/password"]).ok();
    place.run(&["get", "prod/db/password"]).ends_with(3);
    assert_eq!(
        place.json(&["history", "prod/db/password"])["versions"][1]["state"],
        "deleted"
    );
    place
        .run(&["undelete", "prod/db/password", "--version", "2"])
        .ok();
    assert_eq!(place.get("prod/db/password"), b"battery staple");

    place
        .run(&["destroy", "prod/db/password", "--version", "1", "--yes"])
        .ok();
    let gone = place
        .run(&["get", "prod/db/password", "--version", "1", "--json"])
        .ends_with(3);
    assert_eq!(gone.error()["code"], "version-destroyed");
    assert_eq!(
        place.json(&["history", "prod/db/password"])["versions"][0]["state"],
        "destroyed"
    );
}

#[test]
fn retention_is_set_shown_and_kept_to() {
    let place = Place::with_acme();
    place.put("a", b"1");
    assert_eq!(place.json(&["retention", "a"])["keep"], Value::Null);
    assert_eq!(place.json(&["retention", "a", "--keep", "1"])["keep"], 1);
    place.put("a", b"2");
    assert_eq!(place.json(&["history", "a"])["versions"][0]["state"], "destroyed");
    assert_eq!(place.json(&["retention", "a", "--keep-all"])["keep"], Value::Null);
}

#[test]
fn lists_longer_than_a_page_go_on_where_they_ended() {
    let place = Place::with_acme();
    for path in ["a", "b", "c"] {
        place.put(path, b"x");
    }
    let first = place.json(&["list", "--limit", "2"]);
    assert_eq!(first["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(first["next"], "b");
    let rest = place.json(&["list", "--limit", "2", "--after", "b"]);
    assert_eq!(rest["items"][0]["path"], "c");
    assert_eq!(rest["next"], Value::Null);
    let all = place.json(&["list", "--limit", "1", "--all"]);
    assert_eq!(all["items"].as_array().map(Vec::len), Some(3));

    for value in [b"y", b"z"] {
        place.put("a", value);
    }
    let first = place.json(&["history", "a", "--limit", "2"]);
    assert_eq!(first["next"], 2);
    let rest = place.json(&["history", "a", "--after", "2", "--limit", "2"]);
    assert_eq!(rest["versions"][0]["version"], 3);
    assert_eq!(place.json(&["history", "a", "--limit", "3"])["next"], Value::Null);
    assert_eq!(
        place.json(&["history", "a", "--limit", "1", "--all"])["versions"]
            .as_array()
            .map(Vec::len),
        Some(3)
    );
}

#[test]
fn an_own_key_takes_everything_over_and_gives_it_back() {
    let place = Place::with_acme();
    place.put("prod/db/password", b"correct horse");
    let added = [
        "key",
        "add",
        "acme-cmk",
        "--backend",
        "customer",
        "--actor",
        "alice@acme",
        "--reason",
        "ticket 4711",
    ];
    let added = place.json(&added);
    assert_eq!(added["key"], "acme-cmk");
    assert_eq!(added["rewrap"]["state"], "done");
    assert_eq!(added["rewrap"]["done"], 1);
    assert_eq!(added["rewrap"]["remaining"], 0);
    assert_eq!(added["rewrap"]["sources"][0]["retired"], true);

    let keys = place.json(&["key", "list"]);
    let of = |name: &str| {
        let keys = keys["keys"].as_array().expect("an array");
        keys.iter()
            .find(|key| key["name"] == name)
            .cloned()
            .expect("the key is listed")
    };
    assert_eq!(
        (&of("acme-cmk")["default"], &of("acme-cmk")["state"]),
        (&json!(true), &json!("enabled"))
    );
    assert_eq!(of("managed")["default"], false);

    // The old key is not needed again: take its keyring away.
    std::fs::rename(place.path("app.keyring"), place.path("away")).expect("renamed");
    assert_eq!(place.get("prod/db/password"), b"correct horse");
    std::fs::rename(place.path("away"), place.path("app.keyring")).expect("renamed");

    assert_eq!(place.json(&["key", "rotate"])["rewrap"]["state"], "done");
    place.run(&["key", "probe"]).ok();
    let resting = place.json(&["key", "disable-all", "--no-wait"]);
    assert_eq!(resting["rewrap"]["state"], "running");
    assert_eq!(place.json(&["rewrap", "status"])["remaining"], 1);
    assert_eq!(place.json(&["rewrap", "run"])["state"], "done");

    let epochs = place.json(&["epochs"]);
    let epochs = epochs["epochs"].as_array().expect("an array");
    let shown: Vec<_> = epochs
        .iter()
        .map(|epoch| (epoch["key"].as_str(), epoch["state"].as_str()))
        .collect();
    let expected = [
        (Some("managed"), Some("retired")),
        (Some("acme-cmk"), Some("retired")),
        (Some("acme-cmk"), Some("retired")),
        (Some("managed"), Some("active")),
    ];
    assert_eq!(shown, expected);
    assert_eq!(epochs[1]["actor"], "alice@acme");
    assert_eq!(epochs[3]["references"], 1);

    let audit = place.json(&["audit"]);
    let records = audit["records"].as_array().expect("an array");
    let added = records
        .iter()
        .find(|record| record["event"] == "key-added")
        .expect("it is in the trail");
    assert_eq!(added["actor"], "alice@acme");
    assert_eq!(added["reason"], "ticket 4711");
    assert_eq!(
        added["details"],
        json!({ "key": "acme-cmk", "backend": "customer" })
    );
    let head = place.json(&["audit", "--head"]);
    assert_eq!(head["sequence"], records.len());
    assert_eq!(head["hash"], records.last().expect("some")["hash"]);

    let verified = place.json(&["verify", "--open-values"]);
    assert_eq!(verified["clean"], true);
    assert_eq!(verified["values_opened"], 1);
}

#[test]
fn a_watched_job_is_done_when_watching_ends() {
    let place = Place::with_acme();
    place.put("a", b"x");
    place
        .run(&["key", "add", "own", "--backend", "customer", "--no-wait"])
        .ok();
    let watched = place.json(&["rewrap", "watch"]);
    assert_eq!((&watched["state"], &watched["done"]), (&json!("done"), &json!(1)));
    place.run(&["rewrap", "watch"]).ends_with(3);
}

#[test]
fn a_large_value_is_streamed_and_reads_back_whole() {
    let place = Place::with_acme();
    let value: Vec<u8> = (0..3_000_001_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    std::fs::write(place.path("value"), &value).expect("written");
    place.run(&["put", "from/file", "--file", "value"]).ok();
    place.feed(&["put", "from/stdin"], &value).ok();
    assert!(place.get("from/file") == value);
    assert!(place.get("from/stdin") == value);

    place.run(&["get", "from/file", "--output", "copy"]).ok();
    assert!(std::fs::read(place.path("copy")).expect("read") == value);
}

#[test]
fn a_value_of_no_bytes_and_one_of_just_a_mebibyte_read_back() {
    let place = Place::with_acme();
    for (path, size) in [
        ("empty", 0),
        ("below", (1 << 20) - 1),
        ("just", 1 << 20),
        ("above", (1 << 20) + 1),
    ] {
        let value = vec![0xA5; size];
        place.put(path, &value);
        assert!(place.get(path) == value, "{path}");
    }
}

#[test]
fn an_output_file_is_closed_to_others_and_not_overwritten_unasked() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::with_acme();
    place.put("a", b"new");
    place.run(&["get", "a", "--output", "out"]).ok();
    assert_eq!(
        std::fs::metadata(place.path("out")).expect("there").mode() & 0o777,
        0o600
    );
    std::fs::write(place.path("out"), "old").expect("written");
    place.run(&["get", "a", "--output", "out"]).ends_with(4);
    assert_eq!(std::fs::read(place.path("out")).expect("read"), b"old");
    place.run(&["get", "a", "--output", "out", "--force"]).ok();
    assert_eq!(std::fs::read(place.path("out")).expect("read"), b"new");
}

#[test]
fn a_sealed_keyring_opens_with_its_passphrase_only() {
    let place = Place::empty();
    std::fs::write(place.path("passphrase"), "correct horse battery staple\n").expect("written");
    let sealed = [
        "--store",
        "s",
        "--keyring",
        "k",
        "--keyring-passphrase-file",
        "passphrase",
    ];
    let with = |more: &[&'static str]| [&sealed[..], more].concat();
    assert!(place.run(&with(&["init"])).ok().text().contains("back it up"));
    place.run(&with(&["org", "create", "acme"])).ok();
    place.feed(&with(&["put", "a"]), b"x").ok();
    assert_eq!(place.run(&with(&["get", "a"])).ok().stdout, b"x");
    place
        .run(&["--store", "s", "--keyring", "k", "get", "a"])
        .ends_with(5);

    let by_env = [
        "--store",
        "s",
        "--keyring",
        "k",
        "--keyring-passphrase-env",
        "WORDS",
        "get",
        "a",
    ];
    let ran = place
        .command(&by_env)
        .env("WORDS", "correct horse battery staple")
        .output()
        .expect("it runs");
    assert_eq!(common::Ran::from(ran).ok().stdout, b"x");
    let status = place.run(&with(&["keyring", "status", "--json"])).ok().json();
    assert_eq!(
        (&status["sealed"], &status["state"]),
        (&json!(true), &json!("enabled"))
    );
}
