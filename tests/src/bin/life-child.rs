//! A process that works on a store until it is killed, or until its disk is full: the tests' real second process.
//!
//! `life-child create|live|hold|fill STORE DIRECTORY [SEED HISTORY ACTIONS]`; the keyrings are in DIRECTORY. It says on standard
//! output, a line each, what it begins and what was acknowledged:
//!
//! - `create`: makes the store: `creating`, `created`.
//! - `live`: opens the store, does ACTIONS actions by dice, and closes it: `opening`, `open`, `done` for each action, `closing`,
//!   `closed`. Which actions these are follows from SEED and HISTORY alone (see [`keystead_tests::past`]).
//! - `hold`: opens the store, starts a process of its own that outlives it, says `open`, and waits.
//! - `fill`: opens or makes the store and puts until that fails: `open`, `put N` for each, `failed WHY`; then it tries once more:
//!   `refused WHY`. Given a file as a third argument, it deletes that, opens the store again, and checks it: `sound N`.

use keystead::{Error, Store, StoreOptions};
use keystead_tests::past::{Past, keyring_options, perform};
use std::io::Write;
use std::path::{Path, PathBuf};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |at: usize| {
        let given = arguments.get(at).map(String::as_str);
        given.ok_or_else(|| anyhow::anyhow!("missing argument {at}"))
    };
    let (store, directory) = (PathBuf::from(argument(1)?), PathBuf::from(argument(2)?));
    let options = || keyring_options(&directory);
    match argument(0)? {
        "create" => {
            say("creating")?;
            options().create(&store)?;
            say("created")
        }
        "live" => {
            let past = Past::parse(argument(3)?.parse()?, argument(4)?)?;
            live(options(), &store, &past, argument(5)?.parse()?)
        }
        "hold" => {
            let _store = options().open(&store)?;
            // It inherits standard input, and ends with it: after this process.
            let _outlives = std::process::Command::new("cat").spawn()?;
            say("open")?;
            loop {
                std::thread::park();
            }
        }
        "fill" => fill(&options, &store, arguments.get(3).map(Path::new)),
        other => anyhow::bail!("{other:?} is nothing that it can do"),
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn live(options: StoreOptions, path: &Path, past: &Past, actions: u32) -> anyhow::Result<()> {
    say("opening")?;
    let store = options.open(path)?;
    say("open")?;
    for (model, action) in past.future().take(actions as usize) {
        perform(&store, &model, &action)?;
        say("done")?;
    }
    say("closing")?;
    store.close()?;
    say("closed")
}

/// What the `n`-th put writes: more than a page, so that the file grows.
fn value(n: u32) -> Vec<u8> {
    let mut bytes = vec![0; 40_000];
    let mut filler = blake3::Hasher::new();
    filler.update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn fill(options: &dyn Fn() -> StoreOptions, path: &Path, ballast: Option<&Path>) -> anyhow::Result<()> {
    let store = match path.exists() {
        true => options().open(path)?,
        false => options().create(path)?,
    };
    let acme = match store.organization("acme") {
        Err(Error::OrganizationNotFound { .. }) => store.create_organization("acme")?,
        found => found?,
    };
    say("open")?;
    let mut acknowledged = 0;
    let error = loop {
        match acme.put(&format!("fill/{acknowledged}"), value(acknowledged)) {
            Ok(_) => say(&format!("put {acknowledged}"))?,
            Err(error) => break error,
        }
        acknowledged += 1;
    };
    say(&format!("failed {error}"))?;
    match acme.put("one/more", "x") {
        Ok(_) => anyhow::bail!("a put went through after one that failed for want of space"),
        Err(error) => say(&format!("refused {error}"))?,
    }
    let Some(ballast) = ballast else { return Ok(()) };
    drop((acme, store));
    std::fs::remove_file(ballast)?;
    let store = options().open(path)?;
    check_filled(&store, acknowledged)?;
    store.organization("acme")?.put("room/again", "x")?;
    say(&format!("sound {acknowledged}"))
}

/// What was acknowledged is there; of the put that failed, all or nothing; and the whole verifies.
fn check_filled(store: &Store, acknowledged: u32) -> anyhow::Result<()> {
    let acme = store.organization("acme")?;
    for n in 0..acknowledged {
        let found = acme.get(&format!("fill/{n}"))?;
        anyhow::ensure!(found.value == value(n)[..], "put {n} reads differently");
    }
    if let Ok(found) = acme.get(&format!("fill/{acknowledged}")) {
        anyhow::ensure!(
            found.value == value(acknowledged)[..],
            "the put that failed is there by halves"
        );
    }
    keystead_tests::observe::verify(store).map_err(anyhow::Error::msg)
}
