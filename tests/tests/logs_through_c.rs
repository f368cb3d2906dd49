//! Secrets in what a program in C is told of the log, at its most verbose level, over the same life of a store and of its damaged
//! copies as in `logs`. It is a file of its own since a process has one receiver of what is logged.

mod watched;

use keystead_ffi_calls::log::{DEBUG, Log};
use watched::{Values, WatchedWorld, live, read_damaged, secrets_in};

#[test]
fn nothing_that_the_log_tells_a_program_in_c_holds_a_value_or_a_key() {
    let log = Log::open(DEBUG).unwrap();
    let world = WatchedWorld::new(true);
    let values = Values::new(true);
    let store = world.options().create_on_disk(world.disk()).unwrap();
    live(&world, &store, &values);
    store.close().unwrap();
    drop(store);
    read_damaged(&world, &values, 6);
    let told = log.end();
    let found = secrets_in(&told.join("\n"));
    assert!(found.is_empty(), "{found:?}");
    println!("{} records", told.len());
    assert!(told.len() > 4, "{told:#?}");
}
