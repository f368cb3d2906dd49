//! What can be proven when the re-wrap is done: epochs, audit trail, the old key, every value.

use super::hand_over::old_key_opens_nothing;
use super::print_epochs;
use crate::show::{Show, human};
use crate::world::{ACME, ACME_KEY, ACME_SECRETS, GLOBEX, Kmss, World, copy_of};
use keystead::{AuditEvent, EpochState, Organization, VerifyOptions};
use std::time::Instant;

/// Shows that all of acme is under its own key, and nothing under the old one.
pub(crate) fn prove(show: &mut Show, world: &World) -> anyhow::Result<()> {
    show.step("Which key protects what, and the proof of it");
    let store = world.options(&Kmss::default())?.open(world.store())?;
    let (acme, globex) = (store.organization(ACME)?, store.organization(GLOBEX)?);
    print_epochs(show, &acme)?;
    print_epochs(show, &globex)?;
    let epochs = acme.epochs()?;
    let (retired, active) = (&epochs[0], &epochs[1]);
    show.claim(
        retired.state == EpochState::Retired && retired.references == 0 && retired.wrapped_by.is_empty(),
        "epoch 1 is retired: no data key refers to it, nothing wraps it, and no KMS can open it again",
    );
    show.claim(
        active.state == EpochState::Active
            && active.key == ACME_KEY
            && active.references >= ACME_SECRETS as u64,
        format!(
            "epoch 2, under {ACME_KEY}, has all {} data keys",
            active.references
        ),
    );
    let (batches, moved, is_in_order) = batches(&acme)?;
    show.claim(
        moved == ACME_SECRETS as u64 && is_in_order,
        format!("the audit trail has {batches} batches, numbered without a gap, which moved {moved} data keys: none twice, in spite of the kill"),
    );

    let began = Instant::now();
    let report = store.verify(VerifyOptions { open_values: true }, |_| {})?;
    show.say(format!(
        "Verified in {}: {} secrets, {} values opened, {} epochs, {} audit records; {} blocks of 4 KiB.",
        human(began.elapsed()),
        report.secrets,
        report.values_opened,
        report.epochs,
        report.audit_records,
        report.blocks
    ));
    for problem in report.problems.iter().chain(&report.unopened).take(5) {
        show.say(format!("problem: {} {:?}", problem.what, problem.path));
    }
    show.claim(
        report.is_clean()
            && report.unopened.is_empty()
            && report.values_opened == report.versions
            && report.organizations == 2,
        format!(
            "verification finds nothing wrong, and every one of {} values opens",
            report.values_opened
        ),
    );
    drop((acme, globex));
    store.close()?;
    drop(store);

    let copy = copy_of(&world.store(), "copy-after-rewrap.keystead")?;
    old_key_opens_nothing(show, world, &copy)
}

/// How many batches the audit trail has, how many data keys they moved, and whether they are numbered from 1 without a gap.
fn batches(acme: &Organization) -> anyhow::Result<(u64, u64, bool)> {
    let (mut batches, mut data_keys, mut is_in_order, mut after) = (0, 0, true, 0);
    loop {
        let records = acme.audit(after, 1_000)?;
        let Some(last) = records.last() else {
            return Ok((batches, data_keys, is_in_order));
        };
        after = last.sequence;
        for record in records {
            if let AuditEvent::RewrapBatch { batch, moved, .. } = record.event {
                batches += 1;
                data_keys += moved;
                is_in_order &= batch == batches;
            }
        }
    }
}
