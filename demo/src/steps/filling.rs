//! A store with secrets of two organizations, all under the managed key.

use super::print_epochs;
use crate::show::{Show, human};
use crate::shred::{self, ListeningEnv};
use crate::world::{ACME, ACME_SECRETS, GLOBEX, GLOBEX_SECRETS, Kmss, World, secret_path, secret_value};
use anyhow::ensure;
use keystead::{Batch, Organization};
use keystead_managed::{Keyring, Sealing};
use std::sync::Arc;
use std::time::Instant;

const BATCH: usize = 1_000;

/// Where the shred keys of the managed key's wraps stand in the file, those of acme alone.
pub(crate) struct ShredKeysBefore(pub(crate) Vec<[u8; 32]>);

/// Creates the store and fills it.
pub(crate) fn fill(show: &mut Show, world: &World) -> anyhow::Result<ShredKeysBefore> {
    show.step("A store with 10,000 secrets in two organizations, all under the managed key");
    Keyring::create(world.managed_keyring(), Sealing::none())?;
    let kmss = Kmss::default();
    let env = Arc::new(ListeningEnv::default());
    let store = world
        .options(&kmss)?
        .env(Arc::clone(&env) as _)
        .create(world.store())?;
    let (acme, drawn) = env.listen(|| store.create_organization(ACME));
    let acme = acme?;
    let globex = store.create_organization(GLOBEX)?;
    let began = Instant::now();
    put_secrets(&acme, ACME_SECRETS)?;
    put_secrets(&globex, GLOBEX_SECRETS)?;
    let took = began.elapsed();
    let calls = kmss.managed.take();
    show.say(format!(
        "{} secrets of {ACME} and {} of {GLOBEX}, written in batches of {BATCH}, each durable as one: {}.",
        ACME_SECRETS,
        GLOBEX_SECRETS,
        human(took)
    ));
    show.claim(
        (calls.wraps, calls.unwraps) == (2, 2),
        format!("10,000 secrets, each with a data key of its own, cost the managed KMS {calls}: one for each organization"),
    );
    let mut same = 0;
    for (organization, count) in [(&acme, ACME_SECRETS), (&globex, GLOBEX_SECRETS)] {
        for index in 0..count {
            let expected = secret_value(organization.name().as_str(), index);
            same += usize::from(organization.get(&secret_path(index))?.value == expected.as_bytes());
        }
    }
    show.claim(
        same == ACME_SECRETS + GLOBEX_SECRETS,
        format!("{same} secrets read back as they were written"),
    );
    print_epochs(show, &acme)?;
    print_epochs(show, &globex)?;
    drop((acme, globex));
    store.close()?;
    drop(store);

    let found = shred::find(&world.store(), &drawn)?;
    ensure!(
        !found.is_empty(),
        "no shred key of {ACME}'s wrap stands in the file, so nothing could be shown to be erased"
    );
    for (offset, _) in &found {
        show.say(format!(
            "The shred key of {ACME}'s wrap by the managed key stands in the file at byte {offset}."
        ));
    }
    Ok(ShredKeysBefore(found.into_iter().map(|(_, key)| key).collect()))
}

fn put_secrets(organization: &Organization, count: usize) -> keystead::Result<()> {
    let name = organization.name().as_str();
    for first in (0..count).step_by(BATCH) {
        let mut batch = Batch::new();
        for index in first..count.min(first + BATCH) {
            batch = batch.put(&secret_path(index), secret_value(name, index))?;
        }
        organization.commit(batch)?;
    }
    Ok(())
}
