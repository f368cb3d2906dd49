//! The hand-over: acme adds its own key, and from then on that key alone opens everything of acme.

use super::filling::ShredKeysBefore;
use super::print_epochs;
use crate::kms::Count;
use crate::show::{Show, human};
use crate::shred;
use crate::world::{
    ACME, ACME_KEY, ACME_SECRETS, CUSTOMER_KMS, GLOBEX, Kmss, World, copy_of, secret_path, secret_value,
};
use keystead::{Backend, Error, Store};
use keystead_managed::ManagedBackend;
use std::time::Instant;

/// Adds the key, and shows what it took and what it changed.
pub(crate) fn hand_over(show: &mut Show, world: &World, before: ShredKeysBefore) -> anyhow::Result<()> {
    show.step(&format!("The hand-over: {ACME} adds its own key"));
    let kmss = Kmss::default();
    // The re-wrap waits until the next step, so that the hand-over is seen alone.
    let store = world
        .options(&kmss)?
        .background_rewrap(false)
        .open(world.store())?;
    let acme = store
        .organization(ACME)?
        .acting_as("alice@acme", "we bring our own key")?;
    let globex = store.organization(GLOBEX)?;
    let began = Instant::now();
    acme.keys().add(ACME_KEY, CUSTOMER_KMS, serde_json::json!({}))?;
    let took = began.elapsed();
    let (managed, customer) = (kmss.managed.take(), kmss.customer.take());
    show.say(format!(
        "Probed, a new epoch opened, the old one handed over, the old wraps erased: {}.",
        human(took)
    ));
    show.say(format!(
        "KMS calls: managed {managed}; customer {customer} (1 wrap and 2 unwraps of them were the probe)."
    ));
    show.claim(
        managed == Count { wraps: 0, unwraps: 1 } && customer == Count { wraps: 3, unwraps: 4 },
        format!("handing over {ACME_SECRETS} secrets took {}: 1 unwrap by the old KMS, 1 wrap by the new one, 1 wrap for the new epoch, and each wrap opened once before anything rests on it", human(took)),
    );
    print_epochs(show, &acme)?;
    let epochs = acme.epochs()?;
    show.claim(
        epochs.len() == 2
            && epochs
                .iter()
                .all(|epoch| epoch.wrapped_by.iter().all(|wrap| wrap.key == ACME_KEY)),
        format!("every epoch of {ACME} is wrapped by {ACME_KEY} alone, before a single data key has moved"),
    );

    let erased = shred::find(&world.store(), &before.0)?.is_empty();
    show.claim(erased, "the shred key of the managed key's wrap is nowhere in the file any more: that wrap is dead, in every copy that the file may hold");

    show.say("Now the managed keyring is moved away, and every epoch key in memory is forgotten.");
    let away = world.directory.join("app.keyring.away");
    std::fs::rename(world.managed_keyring(), &away)?;
    store.forget_epoch_keys();
    let (mut opened, step) = (0, 37);
    for index in (0..ACME_SECRETS).step_by(step) {
        opened += usize::from(acme.get(&secret_path(index))?.value == secret_value(ACME, index).as_bytes());
    }
    show.claim(
        opened == ACME_SECRETS.div_ceil(step),
        format!("without the managed keyring, {opened} of {opened} secrets of {ACME} that are tried open"),
    );
    match globex.get(&secret_path(0)) {
        Ok(_) => show.claim(
            false,
            format!("{GLOBEX}, still under the managed key, cannot be read without it"),
        ),
        Err(error) => {
            show.claim(
                error.is_retryable(),
                format!("{GLOBEX}, still under the managed key, cannot be read without it"),
            );
            show.say(format!("         {error}"));
        }
    }
    std::fs::rename(&away, world.managed_keyring())?;
    show.say("The managed keyring is back in its place.");
    drop((acme, globex));
    store.close()?;
    drop(store);

    let copy = copy_of(&world.store(), "copy-after-hand-over.keystead")?;
    old_key_opens_nothing(show, world, &copy)?;
    show.say(
        "(A copy of the file made before the hand-over still opens with the old key. Destroy such copies.)",
    );
    Ok(())
}

/// Tries the old key on a store, with nothing in its way: alone, and in the place of the customer's KMS.
pub(super) fn old_key_opens_nothing(
    show: &mut Show,
    world: &World,
    store: &std::path::Path,
) -> anyhow::Result<()> {
    let managed = || ManagedBackend::keyring(world.managed_keyring()).create(false);
    let attempts = [
        ("alone", Store::options().backend(managed())),
        (
            "in the place of the customer's KMS",
            Store::options()
                .backend(managed())
                .backend(Backend::new(managed()).named(CUSTOMER_KMS)),
        ),
    ];
    for (how, options) in attempts {
        let store = options.background_rewrap(false).open(store)?;
        let (acme, globex) = (store.organization(ACME)?, store.organization(GLOBEX)?);
        // The keyring is in working order: it opens what is its own.
        globex.get(&secret_path(0))?;
        let mut refused = 0;
        let mut last = None;
        for index in 0..ACME_SECRETS {
            match acme.get(&secret_path(index)) {
                Err(error @ (Error::Kms { .. } | Error::BackendNotRegistered { .. })) => {
                    refused += 1;
                    last = Some(error.to_string());
                }
                Err(error) => last = Some(error.to_string()),
                Ok(_) => {}
            }
        }
        show.claim(
            refused == ACME_SECRETS,
            format!(
                "the old key, {how}, opens {} of {ACME_SECRETS} secrets of {ACME}",
                ACME_SECRETS - refused
            ),
        );
        show.say(format!("         {}", last.unwrap_or_default()));
    }
    Ok(())
}
