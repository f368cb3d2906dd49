//! A process with an open store whose epoch key is cached, and which then does nothing: for tests that look at its memory.
//!
//! `idle-child STORE SEED` creates the store, puts and reads a value, says `idle`, the store's id and, in hexadecimal, bytes
//! that stand in its heap in clear; at the end of standard input it aborts.

use keystead::{Backend, Store};
use keystead_tests::env::SimulatedEnv;
use keystead_tests::masking::MaskingKms;
use std::io::{Read, Write};
use std::sync::Arc;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, seed] = &arguments[..] else {
        anyhow::bail!("expected: STORE SEED");
    };
    let store = Store::options()
        .backend(Backend::new(MaskingKms::new(true)).named("managed"))
        .env(Arc::new(SimulatedEnv::forgetful(seed.parse()?)))
        .create(path)?;
    let acme = store.create_organization("acme")?;
    acme.put("password", "correct horse")?;
    store.forget_epoch_keys();
    let secret = acme.get("password")?;
    anyhow::ensure!(store.cached_epoch_keys() == 1, "the epoch key is cached");

    // What a dump does hold: the application's own copy, made at run time so that it stands in no read-only page.
    let copy: Vec<u8> = secret
        .value
        .as_slice()
        .iter()
        .map(|byte| byte ^ 0x20)
        .chain(*b"...")
        .collect();
    let hex: String = copy.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(std::io::stdout(), "idle {} {hex}", store.id())?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    std::hint::black_box((&copy, &secret));
    std::process::abort();
}
