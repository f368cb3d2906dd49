//! Revocation: the customer disables its key, in its own KMS, and the application can read nothing of it any more.

use super::another_process;
use crate::show::{Show, human};
use crate::world::{ACME, ACME_KEY, GLOBEX, Kmss, World, secret_path, secret_value};
use anyhow::{Context as _, bail, ensure};
use keystead::backend::ErrorClass;
use keystead::{Error, Organization};
use std::time::{Duration, Instant};

const KEY_LIFETIME: Duration = Duration::from_secs(3);
/// How long reads may stay refused after the key was enabled again. They are tried all the time, so it is the machine that may
/// take so long, not the engine.
const ENABLED_WITHIN: Duration = Duration::from_secs(60);
/// How often a read is tried while something is waited for.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// Disables the customer's key and enables it again.
pub(crate) fn revoke(show: &mut Show, world: &World) -> anyhow::Result<()> {
    show.step(&format!(
        "{ACME} disables its key, and what is under it can be read by nobody"
    ));
    show.say(format!(
        "The application opens the store with a key lifetime of {} (5 minutes unless it says otherwise): no epoch key\n\
         stays in memory for longer, however much it is used.",
        human(KEY_LIFETIME)
    ));
    let store = world
        .options(&Kmss::default())?
        .key_lifetime(KEY_LIFETIME)
        .open(world.store())?;
    let (acme, globex) = (store.organization(ACME)?, store.organization(GLOBEX)?);
    ensure!(
        reads(&acme, ACME).is_ok() && reads(&globex, GLOBEX).is_ok(),
        "reads must work before the key is disabled"
    );

    customer(world, "disable")?;
    let began = Instant::now();
    let (mut served, mut last_served) = (0, Duration::ZERO);
    let error = loop {
        let asked = began.elapsed();
        match reads(&acme, ACME) {
            Ok(()) if asked > KEY_LIFETIME * 2 => break None,
            Ok(()) => (served, last_served) = (served + 1, asked),
            Err(error) => break Some(error),
        }
        std::thread::sleep(TRY_EVERY);
    };
    let took = began.elapsed();
    show.say(format!(
        "Another process, the customer's, has disabled the key. {served} reads were still served from memory."
    ));
    show.claim(
        error.is_some() && last_served <= KEY_LIFETIME,
        format!(
            "reads are refused {} after the key was disabled, within its lifetime of {}",
            human(took),
            human(KEY_LIFETIME)
        ),
    );
    if let Some(error) = &error {
        show.say(format!("         {error}"));
    }
    let named = matches!(&error, Some(Error::Kms { organization, key, source, .. })
        if organization.as_str() == ACME && key.as_str() == ACME_KEY && source.code.class() == ErrorClass::Revoked);
    show.claim(
        named,
        "the error names the organization, the key, and the class: revoked, not an outage",
    );
    let refused = (0..100).filter(|_| reads(&acme, ACME).is_err()).count();
    let refused_write = acme.put("a/new/secret", "value").is_err();
    show.claim(
        refused == 100 && refused_write,
        "it stays so: reads and writes are refused, without a retry loop",
    );
    show.claim(
        reads(&globex, GLOBEX).is_ok(),
        format!("{GLOBEX} is not concerned"),
    );
    let is_administered = acme.list("", None, 10)?.items.len() == 10
        && acme.epochs()?.len() == 2
        && acme.keys().list()?.len() == 2
        && acme.rewrap_status()?.is_some()
        && !acme.audit(0, 10)?.is_empty();
    show.claim(
        is_administered,
        "lists, epochs, keys, status and audit still answer: they need no key",
    );

    show.step(&format!("{ACME} enables its key again"));
    customer(world, "enable")?;
    let began = Instant::now();
    while let Err(error) = reads(&acme, ACME) {
        if began.elapsed() > ENABLED_WITHIN {
            bail!("reads are still refused: {error}");
        }
        std::thread::sleep(TRY_EVERY);
    }
    show.claim(
        true,
        format!("reads work again, {} later", human(began.elapsed())),
    );
    drop((acme, globex));
    store.close()?;
    Ok(())
}

fn reads(organization: &Organization, name: &str) -> keystead::Result<()> {
    let secret = organization.get(&secret_path(7))?;
    match secret.value == secret_value(name, 7).as_bytes() {
        true => Ok(()),
        false => Err(Error::Damaged {
            what: secret_path(7),
            reason: "it has another value than was written".into(),
        }),
    }
}

/// Has the customer do something in its own KMS.
fn customer(world: &World, what: &str) -> anyhow::Result<()> {
    let keyring = world.customer_keyring();
    let status = another_process(&["customer".as_ref(), what.as_ref(), keyring.as_ref()])?
        .status()
        .context("starting the customer's process")?;
    ensure!(
        status.success(),
        "the customer's process could not {what} the key: it ended with {status}"
    );
    Ok(())
}
