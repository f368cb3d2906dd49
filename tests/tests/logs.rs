//! Secrets in what is written for people: everything that is logged at the most verbose level, every error in each of its
//! forms, every panic, over a whole life of a store and of its damaged copies.
//!
//! The text is decoded rather than the secrets encoded: as it stands, and every run of hexadecimal, of base64 and of numbers in
//! it as the bytes that it would be.

mod watched;

use base64::Engine;
use keystead_tests::logs::Log;
use std::sync::{Arc, Mutex};
use watched::{Values, WatchedWorld, live, read_everything};

#[test]
fn nothing_that_is_logged_and_no_error_and_no_panic_holds_a_value_or_a_key() {
    let log = Log::of_the_process();
    let panics = Arc::new(Mutex::new(String::new()));
    let to = Arc::clone(&panics);
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        to.lock().unwrap().push_str(&format!("{info}\n"));
    }));

    for binds_context in [true, false] {
        let world = WatchedWorld::new(binds_context);
        let values = Values::new(binds_context);
        let store = world.options().create_on_disk(world.disk()).unwrap();
        live(&world, &store, &values);
        let acme = store.organization("acme").unwrap();
        world.tell_debug(&(
            &store,
            &acme,
            acme.get("small").unwrap(),
            acme.reader("streamed", None).unwrap(),
        ));
        drop(acme);
        store.close().unwrap();
        drop(store);
        let damaged = read_damaged(&world, &values);
        assert!(damaged >= 3, "the damage of {damaged} copies was noticed");

        let (told, panics) = (world.told(), panics.lock().unwrap().clone());
        for text in [log.text(), told.clone(), panics.clone()] {
            let found = secrets_in(&text);
            assert!(found.is_empty(), "{found:?}");
        }
        println!(
            "{} lines of log, {} of errors, {} of panics; {damaged} copies with damage that was met",
            log.text().lines().count(),
            told.lines().count(),
            panics.lines().count()
        );
        assert!(log.text().lines().count() > 10 && told.lines().count() > 200);
    }
}

/// Opens and reads copies with one flipped bit each; what fails says so. Answers how many did.
fn read_damaged(world: &WatchedWorld, values: &Values) -> usize {
    let mut dice = keystead_tests::env::Dice::new(keystead_tests::env::seed(4));
    let mut noticed = 0;
    for _ in 0..60 {
        let (byte, bit) = (
            dice.below(world.disk_bytes() as u64) as usize,
            dice.below(8) as u32,
        );
        let sound = world.copy_disk();
        world.flip(byte, bit);
        let mut failures = 0;
        match world.options().open_on_disk(world.disk()) {
            Err(error) => {
                world.tell(&error);
                failures += 1;
            }
            Ok(store) => match store.organization("acme") {
                Err(error) => {
                    world.tell(&error);
                    failures += 1;
                }
                Ok(acme) => read_everything(&acme, values, |error| {
                    world.tell(error);
                    failures += 1;
                }),
            },
        }
        world.restore_disk(sound);
        noticed += usize::from(failures > 0);
    }
    noticed
}

/// The watched secrets in a text, in whatever way they are written.
fn secrets_in(text: &str) -> Vec<String> {
    let mut found = keystead_canary::search(text.as_bytes());
    for run in text
        .split(|char: char| !char.is_ascii_hexdigit())
        .filter(|run| run.len() >= 16)
    {
        for from in [0, 1] {
            let bytes: Vec<u8> = run.as_bytes()[from..]
                .as_chunks::<2>()
                .0
                .iter()
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect();
            found.extend(keystead_canary::search(&bytes));
        }
    }
    let is_base64 = |char: char| char.is_ascii_alphanumeric() || "+/-_".contains(char);
    for run in text
        .split(|char: char| !is_base64(char))
        .filter(|run| run.len() >= 11)
    {
        for from in 0..4 {
            let whole = &run[from..from + (run.len() - from) / 4 * 4];
            let whole = whole.replace('-', "+").replace('_', "/");
            let bytes = base64::engine::general_purpose::STANDARD_NO_PAD
                .decode(whole)
                .unwrap_or_default();
            found.extend(keystead_canary::search(&bytes));
        }
    }
    let numbers: Vec<Option<u8>> = text
        .split(|char: char| char.is_whitespace() || "[],()".contains(char))
        .filter(|word| !word.is_empty())
        .map(|word| word.trim_end_matches("u8").parse().ok())
        .collect();
    for run in numbers.split(Option::is_none).filter(|run| run.len() >= 8) {
        let bytes: Vec<u8> = run.iter().copied().flatten().collect();
        found.extend(keystead_canary::search(&bytes));
    }
    found
}

#[test]
fn a_secret_is_found_however_it_is_written() {
    let secret: Vec<u8> = (0..32_u8).map(|at| at.wrapping_mul(57) ^ 0x5C).collect();
    keystead_canary::watch("written", &secret);
    let base64 = base64::engine::general_purpose::STANDARD.encode(&secret);
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    for text in [
        format!("key={hex};"),
        format!("key=1{}", hex.to_uppercase()),
        format!("{secret:?}"),
        format!("{secret:#?}"),
        format!("token {base64}"),
        format!("xyz{base64}"),
    ] {
        assert!(secrets_in(&text).contains(&"written".to_owned()), "{text}");
    }
    assert!(secrets_in("nothing [1, 2, 3, 4, 5, 6, 7, 8, 9] 0011223344556677889900").is_empty());
}
