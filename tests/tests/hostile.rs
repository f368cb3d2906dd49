//! Somebody who can write the store's file, and knows its format: what they can do, and what notices it. Each line of the table
//! in `docs/threat-model.md` is a test here; so is what nothing in the file can notice.

mod common;

use common::{Bench, assert_sound, key};
use keystead::{
    Checkpoint, Error, LossKind, Organization, SalvageOptions, Store, VerifyOptions, VerifyReport, Version,
};
use keystead_tests::forge::{Forge, Rows, Table};

/// A store of two organizations; `a` has three versions, `large` is in chunks, `gone` has a destroyed version.
fn store() -> Bench {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    for value in ["first", "second", "third"] {
        acme.put("a", value).unwrap();
    }
    acme.put("b", "b").unwrap();
    acme.put("large", vec![7; 200_000]).unwrap();
    for value in ["old", "new"] {
        acme.put("gone", value).unwrap();
    }
    acme.destroy("gone", version(1)).unwrap();
    acme.delete("b", version(1)).unwrap();
    store
        .create_organization("bolt")
        .unwrap()
        .put("a", "bolt's")
        .unwrap();
    assert_sound(&store);
    store.close().unwrap();
    bench
}

fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

const ACME: [u8; 4] = 1_u32.to_be_bytes();

fn row(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A row without its place tag.
fn body(row: &[u8]) -> Vec<u8> {
    row[..row.len() - 16].to_vec()
}

fn find(rows: &Rows<'_>, table: Table, key: &[u8]) -> Vec<u8> {
    let [(_, row)] = rows.all(table, key).try_into().expect("one row");
    row
}

/// Changes acme's head: the number of secrets, and the data keys that its one live epoch counts, by so much.
fn amend_head(rows: &mut Rows<'_>, secrets: i8, data_keys: i8) {
    let mut head = body(&find(rows, Table::HEADS, &ACME));
    let counts = head.len() - 2;
    head[2] = head[2].strict_add_signed(secrets);
    head[counts] = head[counts].strict_add_signed(data_keys);
    rows.put_record(Table::HEADS, &ACME, &head);
}

/// The number of acme's secret at this path.
fn secret_id(rows: &Rows<'_>, path: &str) -> [u8; 8] {
    let record = find(rows, Table::SECRETS, &row(&[&ACME, path.as_bytes()]));
    u64::from(record[1]).to_be_bytes()
}

fn verify(store: &Store) -> VerifyReport {
    store.verify(VerifyOptions { open_values: true }, |_| {}).unwrap()
}

/// Edits the file, opens it, and returns what verification says, a line for each problem.
fn problems_after(bench: &Bench, edit: impl FnOnce(&mut Rows<'_>)) -> Vec<String> {
    Forge::of(&bench.path()).edit(&bench.path(), edit);
    let report = verify(&bench.open());
    assert!(report.complete, "{report:#?}");
    let line = |problem: &keystead::Problem| {
        format!(
            "{} {} {}: {}",
            problem.organization.as_deref().unwrap_or("-"),
            problem.path.as_deref().unwrap_or("-"),
            problem.version.map_or("-".into(), |version| version.to_string()),
            problem.what
        )
    };
    report.problems.iter().map(line).collect()
}

#[track_caller]
fn assert_named(problems: &[String], words: &[&str]) {
    let named = |line: &String| words.iter().all(|word| line.contains(word));
    assert!(problems.iter().any(named), "{words:?} in {problems:#?}");
}

fn pinned(bench: &Bench) -> Checkpoint {
    let store = bench.open();
    let checkpoint = store.checkpoint().unwrap();
    store.close().unwrap();
    checkpoint
}

fn open_at(bench: &Bench, checkpoint: Checkpoint) -> Result<Store, Error> {
    bench.options().checkpoint(checkpoint).open(bench.path())
}

#[test]
fn an_edit_that_changes_nothing_leaves_a_sound_store() {
    let bench = store();
    let problems = problems_after(&bench, |_| {});
    assert!(problems.is_empty(), "{problems:#?}");
    assert_eq!(
        bench.open().organization("acme").unwrap().get("a").unwrap().value,
        b"third"
    );
}

#[test]
fn a_file_of_yesterday_is_in_perfect_order_and_a_checkpoint_refuses_it() {
    let bench = store();
    let yesterday = std::fs::read(bench.path()).unwrap();
    let before = pinned(&bench);
    let today = bench.open();
    today.organization("acme").unwrap().put("a", "fourth").unwrap();
    drop(today);
    let checkpoint = pinned(&bench);
    let head = |checkpoint: &Checkpoint| checkpoint.organizations["acme"].sequence;
    std::fs::write(bench.path(), yesterday).unwrap();
    assert_sound(&bench.open());
    match open_at(&bench, checkpoint.clone()).map(drop).unwrap_err() {
        Error::BehindCheckpoint {
            organization,
            pinned_sequence,
            found_sequence,
        } => {
            assert_eq!(organization, "acme");
            assert_eq!(
                (pinned_sequence, found_sequence),
                (head(&checkpoint), head(&before))
            );
        }
        other => panic!("{other:?}"),
    }
    // The older one still fits, and the file is free again.
    open_at(&bench, before).unwrap();
}

#[test]
fn a_store_goes_on_from_its_checkpoint_and_opens_at_every_later_state() {
    let bench = store();
    let checkpoint = pinned(&bench);
    for value in ["x", "y"] {
        let store = open_at(&bench, checkpoint.clone()).unwrap();
        store.organization("acme").unwrap().put("a", value).unwrap();
    }
    let text = serde_json::to_string(&checkpoint).unwrap();
    open_at(&bench, serde_json::from_str(&text).unwrap()).unwrap();
}

#[test]
fn a_checkpoint_refuses_another_history_another_store_and_an_organization_that_is_not_there() {
    let bench = store();
    let checkpoint = pinned(&bench);
    let mut other = checkpoint.clone();
    let last = other.organizations.get_mut("acme").unwrap();
    last.hash = last.hash.chars().rev().collect();
    assert!(matches!(
        open_at(&bench, other).map(drop).unwrap_err(),
        Error::NotOfCheckpoint { organization, .. } if organization == "acme"
    ));
    let mut missing = checkpoint.clone();
    let head = missing.organizations["acme"].clone();
    missing.organizations.insert("nobody".into(), head);
    assert!(matches!(
        open_at(&bench, missing).map(drop).unwrap_err(),
        Error::BehindCheckpoint { organization, found_sequence: 0, .. } if organization == "nobody"
    ));
    assert!(matches!(
        open_at(&store(), checkpoint.clone()).map(drop).unwrap_err(),
        Error::CheckpointOfAnotherStore { .. }
    ));
    let fresh = Bench::new();
    assert!(matches!(
        fresh
            .options()
            .checkpoint(checkpoint)
            .create(fresh.path())
            .map(drop)
            .unwrap_err(),
        Error::InvalidArgument { .. }
    ));
    assert!(!fresh.path().exists());
}

#[test]
fn an_audit_trail_that_was_cut_off_with_its_head_is_refused_by_a_checkpoint() {
    let bench = store();
    let checkpoint = pinned(&bench);
    let problems = problems_after(&bench, |rows| {
        let trail = rows.all(Table::AUDIT, &ACME);
        let (last, _) = &trail[trail.len() - 1];
        let (_, before) = &trail[trail.len() - 2];
        rows.remove(Table::AUDIT, last);
        let mut head = body(&find(rows, Table::HEADS, &ACME));
        // next_secret_id, secrets, next_job: a byte each; then the sequence and the hash.
        head[4] -= 1;
        head[5..37].copy_from_slice(&before[before.len() - 32..]);
        rows.put_record(Table::HEADS, &ACME, &head);
    });
    assert!(
        problems.is_empty(),
        "the file itself shows nothing: {problems:#?}"
    );
    assert!(matches!(
        open_at(&bench, checkpoint).map(drop).unwrap_err(),
        Error::BehindCheckpoint { .. }
    ));
}

#[test]
fn an_audit_record_that_was_changed_or_taken_out_is_found_by_reading_and_by_verify() {
    for take_out in [false, true] {
        let bench = store();
        let problems = problems_after(&bench, |rows| {
            let (key, mut record) = rows.all(Table::AUDIT, &ACME).remove(4);
            rows.remove(Table::AUDIT, &key);
            if !take_out {
                record[3] ^= 1;
                rows.put(Table::AUDIT, &key, &record);
            }
        });
        assert_named(&problems, &["acme", "audit record 5"]);
        assert!(
            bench
                .open()
                .organization("acme")
                .unwrap()
                .audit(0, 100)
                .unwrap_err()
                .is_damaged()
        );
    }
}

#[test]
fn a_row_whose_tag_was_not_made_anew_is_damage_at_the_read_that_meets_it() {
    let bench = store();
    let problems = problems_after(&bench, |rows| {
        let at = row(&[&ACME, b"a"]);
        let mut secret = find(rows, Table::SECRETS, &at);
        secret[2] = 1;
        rows.put(Table::SECRETS, &at, &secret);
    });
    assert_named(&problems, &["acme", " a ", "tag does not fit"]);
    assert!(
        bench
            .open()
            .organization("acme")
            .unwrap()
            .get("a")
            .unwrap_err()
            .is_damaged()
    );
}

#[test]
fn a_value_moved_to_another_version_or_path_does_not_open_though_its_tags_fit() {
    let bench = store();
    let problems = problems_after(&bench, |rows| {
        let id = secret_id(rows, "a");
        let at = |version: u32| row(&[&ACME, &id, &version.to_be_bytes()]);
        let older = find(rows, Table::VERSIONS, &at(1));
        let header = u32::from_le_bytes(older[1..5].try_into().unwrap()) as usize;
        // The place tag stands between header and sealed value.
        rows.put_record(Table::VERSIONS, &at(3), &older[..5 + header]);
        let tagged = find(rows, Table::VERSIONS, &at(3));
        rows.put(
            Table::VERSIONS,
            &at(3),
            &row(&[&tagged, &older[5 + header + 16..]]),
        );
        let data_key = find(rows, Table::DATA_KEYS, &at(1));
        rows.put(Table::DATA_KEYS, &at(3), &data_key);
    });
    assert_named(&problems, &["acme a 3", "does not open"]);
    let acme = bench.open().organization("acme").unwrap();
    assert!(acme.get("a").unwrap_err().is_damaged());
    assert_eq!(acme.get_version("a", version(2)).unwrap().value, b"second");
}

#[test]
fn a_secret_put_back_to_an_older_version_is_found_by_verify() {
    let bench = store();
    let point_back = |rows: &mut Rows<'_>| {
        let at = row(&[&ACME, b"a"]);
        let mut secret = body(&find(rows, Table::SECRETS, &at));
        secret[2] = 2;
        rows.put_record(Table::SECRETS, &at, &secret);
    };
    let problems = problems_after(&bench, point_back);
    assert_named(&problems, &["acme a 3", "the latest is 2"]);
    // Nothing at the read: an older value is a whole value.
    assert_eq!(
        bench.open().organization("acme").unwrap().get("a").unwrap().value,
        b"second"
    );

    // With the newer version taken out and every count made to fit, the trail alone remembers.
    let bench = store();
    let problems = problems_after(&bench, |rows| {
        point_back(rows);
        let newest = row(&[&ACME, &secret_id(rows, "a"), &3_u32.to_be_bytes()]);
        rows.remove(Table::VERSIONS, &newest);
        rows.remove(Table::DATA_KEYS, &newest);
        amend_head(rows, 0, -1);
    });
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_named(&problems, &["acme a 3", "was put, as audit record"]);
}

#[test]
fn a_secret_that_was_taken_out_is_found_by_verify_though_every_count_was_made_to_fit() {
    let bench = store();
    let problems = problems_after(&bench, |rows| {
        let id = secret_id(rows, "a");
        for number in 1..=3_u32 {
            let at = row(&[&ACME, &id, &number.to_be_bytes()]);
            rows.remove(Table::VERSIONS, &at);
            rows.remove(Table::DATA_KEYS, &at);
        }
        rows.remove(Table::SECRETS, &row(&[&ACME, b"a"]));
        amend_head(rows, -1, -3);
    });
    assert_named(&problems, &["acme a 3", "the secret is not there, but was put"]);
    assert_eq!(problems.len(), 3, "one for each put: {problems:#?}");
}

#[test]
fn a_destroyed_version_put_back_is_found_by_verify() {
    let bench = store();
    let problems = problems_after(&bench, |rows| {
        // The data key of another version in its place: what stood there is gone.
        let id = secret_id(rows, "gone");
        let live = find(rows, Table::DATA_KEYS, &row(&[&ACME, &id, &2_u32.to_be_bytes()]));
        let at = row(&[&ACME, &id, &1_u32.to_be_bytes()]);
        rows.put(Table::DATA_KEYS, &at, &live);
        let version = find(rows, Table::VERSIONS, &row(&[&ACME, &id, &2_u32.to_be_bytes()]));
        let header = u32::from_le_bytes(version[1..5].try_into().unwrap()) as usize;
        rows.put_record(Table::VERSIONS, &at, &version[..5 + header]);
        amend_head(rows, 0, 1);
    });
    assert_named(&problems, &["acme gone 1", "was destroyed, as audit record"]);
}

/// The file is damaged while the store is open. What is in memory is whole: verify reads the disk all the same.
#[test]
fn a_block_damaged_under_an_open_store_is_named_whatever_is_in_memory() {
    use std::os::unix::fs::FileExt;
    let pages = 65_536 + (4 << 20) + 4096;
    for (cache_bytes, is_cached) in [(64 << 20, true), (0, false)] {
        let bench = store();
        let large = bench.open();
        common::fill(&large.organization("acme").unwrap(), 3000);
        drop(large);
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(bench.path())
            .unwrap();
        let (mut named, mut incomplete) = (0, 0);
        for block in (1..250).step_by(5) {
            let store = bench
                .options()
                .cache_bytes(cache_bytes)
                .open(bench.path())
                .unwrap();
            if is_cached {
                assert_sound(&store);
            }
            let (at, mut byte) = (pages + block * 4096 + 100, [0]);
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            let report = verify(&store);
            // Before closing, which may write this block anew.
            file.write_all_at(&byte, at).unwrap();
            drop(store);
            if report.is_clean() {
                // Nothing refers to the block, or it was never written.
                assert!(report.complete && report.stale_blocks <= 1, "{report:#?}");
                continue;
            }
            let what = format!("block {block} does not match its tag");
            assert!(
                report.problems.iter().any(|problem| problem.what == what),
                "{report:#?}"
            );
            named += 1;
            incomplete += u32::from(!report.complete);
        }
        assert!(named >= 5, "{named} named");
        // From memory, the rows are all there; without, the walk over them ends at the block.
        assert_eq!(
            incomplete > 0,
            !is_cached,
            "{incomplete} of {named}, with {cache_bytes} bytes of cache"
        );
        assert_sound(&bench.open());
    }
}

/// One row taken out or put in, with nothing else made to fit: verify names it.
#[test]
fn anything_missing_and_anything_extra_is_named() {
    type Edit = fn(&mut Rows<'_>);
    let cases: [(&[&str], Edit); 13] = [
        (&["acme a 2", "its row is missing"], |rows| {
            let at = row(&[&ACME, &secret_id(rows, "a"), &2_u32.to_be_bytes()]);
            rows.remove(Table::VERSIONS, &at);
        }),
        (&["acme a 2", "its data key is missing"], |rows| {
            let at = row(&[&ACME, &secret_id(rows, "a"), &2_u32.to_be_bytes()]);
            rows.remove(Table::DATA_KEYS, &at);
        }),
        (&["acme", "counts", "data keys"], |rows| amend_head(rows, 0, 1)),
        (&["acme", "secrets; there are"], |rows| amend_head(rows, 1, 0)),
        (&["acme", "data_keys", "version 9", "not there"], |rows| {
            let from = row(&[&ACME, &secret_id(rows, "a"), &2_u32.to_be_bytes()]);
            let data_key = find(rows, Table::DATA_KEYS, &from);
            let at = row(&[&ACME, &secret_id(rows, "a"), &9_u32.to_be_bytes()]);
            rows.put(Table::DATA_KEYS, &at, &data_key);
        }),
        (&["acme", "versions of secret number 99"], |rows| {
            let from = row(&[&ACME, &secret_id(rows, "a"), &2_u32.to_be_bytes()]);
            let version = find(rows, Table::VERSIONS, &from);
            let at = row(&[&ACME, &99_u64.to_be_bytes(), &1_u32.to_be_bytes()]);
            rows.put(Table::VERSIONS, &at, &version);
        }),
        (&["acme large 1", "chunks"], |rows| {
            let (key, _) = rows.all(Table::CHUNKS, &ACME).remove(1);
            rows.remove(Table::CHUNKS, &key);
        }),
        (&["acme", "chunks are there that belong to no version"], |rows| {
            rows.put(
                Table::CHUNKS,
                &row(&[&ACME, &[0xEE; 16], &0_u32.to_be_bytes()]),
                b"chunk",
            );
        }),
        (&["-", "table versions", "organization 77"], |rows| {
            rows.put(
                Table::VERSIONS,
                &row(&[&77_u32.to_be_bytes(), &[0; 11], &[1], &1_u32.to_be_bytes()]),
                b"row",
            );
        }),
        (&["acme b -", "counts 1 deleted versions; 0 are"], |rows| {
            let (key, _) = rows.all(Table::DELETIONS, &ACME).remove(0);
            rows.remove(Table::DELETIONS, &key);
        }),
        (&["-", "cells_free", "cell 0", "in use"], |rows| {
            rows.put(Table::CELLS_FREE, &0_u64.to_be_bytes(), b"");
        }),
        (&["acme", "default key"], |rows| {
            rows.remove(Table::KEYS, &row(&[&ACME, b"managed"]));
        }),
        (&["-", "fact \"surprise\""], |rows| {
            rows.put(Table::STORE, b"surprise", &[0; 8])
        }),
    ];
    for (words, edit) in cases {
        assert_named(&problems_after(&store(), edit), words);
    }
}

#[test]
fn an_epoch_that_was_changed_does_not_chain() {
    let bench = store();
    let problems = problems_after(&bench, |rows| {
        let (at, epoch) = rows.all(Table::EPOCHS, &ACME).remove(0);
        let mut epoch = body(&epoch);
        // The first byte of the key's name.
        epoch[2] ^= 0x20;
        rows.put_record(Table::EPOCHS, &at, &epoch);
    });
    assert_named(&problems, &["acme", "epoch 1 does not chain"]);
}

/// The other side of the claims above: whoever writes a plain row anew with its tags, and touches neither a value nor what the
/// trail says of versions, is not noticed by anything in the file.
#[test]
fn a_deletion_undone_in_the_file_is_noticed_by_nothing() {
    let bench = store();
    let checkpoint = pinned(&bench);
    let problems = problems_after(&bench, |rows| {
        let (key, _) = rows.all(Table::DELETIONS, &ACME).remove(0);
        rows.remove(Table::DELETIONS, &key);
        let at = row(&[&ACME, b"b"]);
        let mut secret = body(&find(rows, Table::SECRETS, &at));
        secret[3] = 0;
        rows.put_record(Table::SECRETS, &at, &secret);
    });
    assert!(problems.is_empty(), "{problems:#?}");
    let store = open_at(&bench, checkpoint).unwrap();
    let acme: Organization = store.organization("acme").unwrap();
    assert_eq!(acme.get("b").unwrap().value, b"b");
}

#[test]
fn a_key_whose_config_was_changed_in_the_file_is_noticed_by_its_kms_alone() {
    let bench = store();
    let open = bench.open();
    let acme = open.organization("acme").unwrap();
    acme.keys()
        .add("one", "customer-kms", key("one"))
        .unwrap()
        .wait()
        .unwrap();
    drop((acme, open));
    let checkpoint = pinned(&bench);
    Forge::of(&bench.path()).edit(&bench.path(), |rows| {
        let at = row(&[&ACME, b"one"]);
        let mut record = body(&find(rows, Table::KEYS, &at));
        let config = br#"{"key":"one"}"#;
        let from = record
            .windows(config.len())
            .position(|window| window == config)
            .unwrap();
        record[from..from + config.len()].copy_from_slice(br#"{"key":"two"}"#);
        rows.put_record(Table::KEYS, &at, &record);
    });
    let store = open_at(&bench, checkpoint).unwrap();
    let report = store
        .verify(VerifyOptions { open_values: false }, |_| {})
        .unwrap();
    assert!(report.is_clean(), "{report:#?}");
    // The wrap that the honest key made does not open under the other one.
    assert!(matches!(
        store.organization("acme").unwrap().get("a").unwrap_err(),
        Error::Kms { .. }
    ));
}

/// A number in the file said how many epochs and versions there are, and a salvage wrote a row and named a loss for each one that was missing:
/// four thousand million of them. There are no more than the file has room for.
#[test]
fn a_salvage_is_bounded_by_the_file_whatever_its_numbers_say() {
    const MOST: [u8; 5] = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let bench = store();
    Forge::of(&bench.path()).edit(&bench.path(), |rows| {
        // Behind five bytes of numbers and format: the audit hash, "managed", the active epoch, the last one.
        let mut head = body(&find(rows, Table::HEADS, &ACME));
        assert_eq!(head[37..47], *b"\x07managed\x01\x01");
        head.splice(46..47, MOST);
        rows.put_record(Table::HEADS, &ACME, &head);
        let a = row(&[&ACME, b"a"]);
        let mut secret = body(&find(rows, Table::SECRETS, &a));
        assert_eq!(secret[2], 3, "the latest version");
        secret.splice(2..3, MOST);
        rows.put_record(Table::SECRETS, &a, &secret);
    });
    let file_bytes = std::fs::metadata(bench.path()).unwrap().len();
    let new = bench.path().with_extension("salvaged");
    let report = bench
        .options()
        .salvage(bench.path(), &new, &SalvageOptions::default(), |_| {})
        .unwrap();
    assert!(
        (report.lost.len() as u64) < file_bytes / 32,
        "{}",
        report.lost.len()
    );
    let last = u32::MAX.to_string();
    for kind in [LossKind::Epoch, LossKind::Version] {
        let said = |loss: &&keystead::Loss| loss.kind == kind && loss.what.contains(&last);
        assert_eq!(report.lost.iter().filter(said).count(), 1, "{kind:?}");
    }
    let store = bench.options().open(&new).unwrap();
    let acme = store.organization("acme").unwrap();
    assert_eq!(acme.get_version("a", version(3)).unwrap().value, b"third");
    assert_eq!(acme.get("gone").unwrap().value, b"new");
    assert_sound(&store);
}

/// The number of the next organization wrapped to 0, and the next but one was written over organization 1: its record, its head, its keys.
#[test]
fn no_organization_is_written_over_whatever_the_number_of_the_next_one_is() {
    let last = u64::from(u32::MAX);
    let outcomes = [
        (0, [false, false]),
        (2, [false, true]),
        (3, [true, true]),
        (last, [true, false]),
        (last + 1, [false, false]),
        (u64::MAX, [false, false]),
    ];
    for (next, expected) in outcomes {
        let bench = store();
        Forge::of(&bench.path()).edit(&bench.path(), |rows| {
            rows.put(Table::STORE, b"next_organization", &next.to_le_bytes());
        });
        let store = bench.open();
        for (name, expected) in ["one", "two"].into_iter().zip(expected) {
            let created = store.create_organization(name);
            assert_eq!(created.is_ok(), expected, "{next}, {name}");
            assert!(matches!(created, Ok(_) | Err(Error::Damaged { .. })));
        }
        drop(store);
        let store = bench.open();
        for (name, value) in [("acme", "third"), ("bolt", "bolt's")] {
            let found = store.organization(name).unwrap().get("a").unwrap();
            assert_eq!(found.value, value.as_bytes(), "{next}");
        }
    }
}

/// A number that somebody had set to the last one there can be wrapped to 0 with the next secret, epoch or record, which was then written
/// over another one.
#[test]
fn numbers_at_their_end_are_damage_and_nothing_is_written_over() {
    const LAST_U64: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    const LAST_U32: [u8; 5] = [0xff, 0xff, 0xff, 0xff, 0x0f];
    // Where a number stands in the record, behind its format; the last one there can be; for what none is left.
    let cases: [(usize, &[u8], &str); 3] = [
        (1, &LAST_U64, "another secret"),
        (4, &LAST_U64, "another record"),
        (46, &LAST_U32, "another epoch"),
    ];
    for (at, last, said) in cases {
        let bench = store();
        Forge::of(&bench.path()).edit(&bench.path(), |rows| {
            let mut head = body(&find(rows, Table::HEADS, &ACME));
            head.splice(at..=at, last.iter().copied());
            rows.put_record(Table::HEADS, &ACME, &head);
        });
        let store = bench.open();
        let acme = store.organization("acme").unwrap();
        let outcomes = [
            acme.put("new", "x").map(drop),
            acme.keys().rotate("managed").map(drop),
        ];
        let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        let refused: Vec<&Error> = refused.collect();
        assert!(!refused.is_empty(), "{said}");
        for error in refused {
            assert!(
                matches!(error, Error::Damaged { .. }) && error.to_string().contains(said),
                "{error}"
            );
        }
        assert_eq!(acme.get("a").unwrap().value, b"third", "{said}");
    }
}
