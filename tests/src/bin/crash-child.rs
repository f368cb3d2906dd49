//! A process that works on a store until it is killed: the tests' real second process.
//!
//! `crash-child STORE KEYRINGS REWRAP_BATCH SHARE RUN` opens the store, goes on with its re-wrap job until that share of its data keys is
//! moved, writes meanwhile and afterwards, and says on standard output, a line each, what was acknowledged: `open`, `put PATH VALUE`,
//! `share` when that share is moved, `done`.

use keystead::{Backend, Store};
use keystead_managed::ManagedBackend;
use std::io::Write;
use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| {
        arguments
            .next()
            .ok_or_else(|| anyhow::anyhow!("missing argument: {what}"))
    };
    let store = PathBuf::from(next("store")?);
    let keyrings = PathBuf::from(next("directory of the keyrings")?);
    let batch: usize = next("re-wrap batch")?.parse()?;
    let share: u64 = next("data keys to move")?.parse()?;
    let run: u64 = next("number of this run")?.parse()?;

    let store = Store::options()
        .backend(Backend::new(ManagedBackend::keyring(keyrings.join("managed.keyring"))).named("managed"))
        .backend(
            Backend::new(ManagedBackend::keyring(keyrings.join("customer.keyring"))).named("customer-kms"),
        )
        .rewrap_batch(batch)
        .background_rewrap(false)
        .open(store)?;
    let acme = store.organization("acme")?;
    say("open")?;
    let job = acme.rewrap_job().ok();
    if let Some(job) = job.clone() {
        let before = job.status()?.done;
        std::thread::spawn(move || {
            job.run_here(|status| {
                if status.done >= before + share {
                    // Nobody reads on, once this process is to be killed.
                    let _ = say("share");
                    loop {
                        std::thread::park();
                    }
                }
            })
        });
    }
    for n in 0_u64.. {
        let (path, value) = (format!("crash/{run}/{n}"), format!("value {run} {n}"));
        acme.put(&path, &value)?;
        say(&format!("put {path} {value}"))?;
        let finished = match &job {
            Some(job) => job.status()?.state == keystead::RewrapState::Done,
            None => true,
        };
        if finished {
            break;
        }
    }
    say("done")?;
    Ok(())
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
