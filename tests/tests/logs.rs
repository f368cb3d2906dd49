//! Secrets in what is written for people: everything that is logged at the most verbose level, every error in each of its
//! forms, every panic, over a whole life of a store and of its damaged copies.
//!
//! The text is decoded rather than the secrets encoded: as it stands, and every run of hexadecimal, of base64 and of numbers in
//! it as the bytes that it would be.

mod watched;

use base64::Engine;
use keystead_tests::logs::Log;
use std::sync::{Arc, Mutex};
use watched::{Values, WatchedWorld, live, read_damaged, secrets_in};

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
        let damaged = read_damaged(&world, &values, 60);
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
