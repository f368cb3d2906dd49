//! `salvage` on the command line: what it prints, and how it ends.

mod common;

use common::Place;
use std::os::unix::fs::FileExt;

/// Where the second block of redb's pages begins, and the end of the file's fixed part.
const PAGES: u64 = 65_536 + (4 << 20) + 4096;

fn damage(place: &Place, name: &str, wanted: impl Fn(&[u8]) -> bool) {
    let store = std::fs::read(place.path("app.keystead")).expect("the store is there");
    std::fs::write(place.path(name), &store).expect("a copy");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(place.path(name))
        .expect("the copy opens");
    for offset in (PAGES..store.len() as u64 - 4096).step_by(4096) {
        if wanted(&store[offset as usize..offset as usize + 4096]) {
            file.write_all_at(&[0x5a; 4096], offset).expect("it is written");
        }
    }
}

fn holds(block: &[u8], text: &[u8]) -> bool {
    block.windows(text.len()).any(|window| window == text)
}

#[test]
fn salvage_copies_what_is_whole_and_ends_with_11_when_something_is_lost() {
    let place = Place::with_acme();
    for n in 0..3 {
        place.put(&format!("whole/{n}"), b"a value");
    }
    let (whole, new) = (place.file("app.keystead"), place.file("new.keystead"));
    let report = place.json(&["salvage", &whole, &new]);
    assert_eq!((&report["versions"], &report["opened"]), (&3.into(), &3.into()));
    assert_eq!(report["lost"].as_array().map(Vec::len), Some(0));
    let ran = place.run(&["get", "whole/1", "--store", &new]).ok();
    assert_eq!(ran.stdout, b"a value");
    place.run(&["verify", "--open-values", "--store", &new]).ok();
    place.run(&["salvage", &whole, &new]).ends_with(4);

    // Every page that says anything of the secrets' paths: rows of secrets, and the audit trail.
    damage(&place, "damaged.keystead", |block| holds(block, b"whole/"));
    let (damaged, new) = (place.file("damaged.keystead"), place.file("newer.keystead"));
    let before = std::fs::read(&damaged).expect("it is there");
    let ran = place.run(&["salvage", &damaged, &new, "--json"]).ends_with(11);
    let report = ran.json();
    assert_eq!(
        std::fs::read(&damaged).expect("it is there"),
        before,
        "it is never written"
    );
    let unnamed = report["lost"].as_array().expect("a list").iter();
    let unnamed = unnamed
        .filter(|loss| loss["kind"] == "version" && loss["path"].is_null() && !loss["secret_id"].is_null());
    assert_eq!(unnamed.count(), 3, "{report}");
    place.run(&["verify", "--open-values", "--store", &new]).ok();

    let text = place
        .run(&["salvage", &damaged, &place.file("third.keystead")])
        .ends_with(11);
    assert!(text.text().contains("secret number"), "{}", text.text());
    place
        .run_into_a_closed_pipe(&["salvage", &damaged, &place.file("fourth.keystead")])
        .ends_with(11);
}

#[test]
fn a_file_whose_header_is_destroyed_needs_the_stores_id() {
    let place = Place::with_acme();
    place.put("a", b"x");
    let store = place.file("app.keystead");
    let (damaged, new) = (place.file("damaged.keystead"), place.file("new.keystead"));
    let id = {
        let whole = place.json(&["salvage", &store, &place.file("whole.keystead")]);
        whole["store_id"].as_str().expect("an id").to_owned()
    };
    let mut bytes = std::fs::read(&store).expect("it is there");
    bytes[..8192].fill(0xee);
    std::fs::write(&damaged, bytes).expect("it is written");
    place.run(&["salvage", &damaged, &new]).ends_with(8);
    place
        .run(&["salvage", &damaged, &new, "--store-id", "abc"])
        .ends_with(2);
    place.run(&["salvage", &damaged, &new, "--store-id", &id]).ok();
    assert_eq!(place.run(&["get", "a", "--store", &new]).ok().stdout, b"x");
}
