//! Keys, epochs and audit records that are lost, or whose KMS does not answer: what was is named, and the store goes on.

use crate::oracle::{AUDIT, EPOCHS};
use crate::small::{destroy_rows, salvage_of, small};
use crate::world::{BLOCK, Run, add_key, assert_sound, destroy, options};
use keystead::simulation::places;
use keystead::{Error, LossKind, Organization, RewrapState, SalvageOptions};
use keystead_tests::disk::SimulatedDisk;
use keystead_tests::env::Dice;
use keystead_tests::kms::SimulatedKms;

/// Epochs and jobs name keys: a salvaged store did not verify clean when one of those was lost.
#[test]
fn a_lost_key_leaves_its_name() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 20);
    let acme = store.organization("acme").unwrap();
    add_key(&acme).wait_run();
    acme.keys().disable_all().unwrap().wait_run();
    drop(acme);
    store.close().unwrap();
    let mut image = disk.contents();
    let mut dice = Dice::new(1);
    // Wherever it was ever written: its record, and the audit trail's word of it.
    for block in places(disk.clone()).unwrap().blocks {
        let mut bytes = [0; BLOCK];
        assert!(image.read(block, &mut bytes));
        if bytes.windows(12).any(|window| window == b"customer-kms") {
            destroy(&mut image, block, &mut dice);
        }
    }
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default());
    let lost: Vec<LossKind> = report.lost.iter().map(|loss| loss.kind).collect();
    assert!(lost.contains(&LossKind::Key), "{report:#?}");
    let acme = salvaged.organization("acme").unwrap();
    let keys = acme.keys().list().unwrap();
    let own = keys.iter().find(|key| key.name == "own").unwrap();
    assert_eq!(own.state, keystead::KeyState::Disabled);
}

/// The job that has a second key wrap what it does not wrap yet moves nothing, and a salvage took it for one that is over: nothing
/// went on to say that an outage of the first KMS would be the loss of those epochs' values.
#[test]
fn what_a_second_key_does_not_wrap_yet_is_missed_in_the_new_store_too() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 20);
    let acme = store.organization("acme").unwrap();
    add_key(&acme).wait_run();
    let config = serde_json::json!({ "key": "second" });
    acme.keys().add("second", "customer-kms", config).unwrap();
    acme.keys().set_second("second", false).unwrap();
    kms.fail("second", keystead::backend::ErrorCode::Unavailable);
    let status = acme.keys().rotate("own").unwrap().run_here(|_| {}).unwrap();
    assert!(matches!(status.state, RewrapState::Blocked(_)), "{status:?}");
    let missing = |acme: &Organization| acme.keys().second().unwrap().unwrap().missing;
    assert!(missing(&acme) > 0);
    drop(acme);
    store.close().unwrap();
    kms.restore("second");
    let (_, salvaged) = salvage_of(&kms, disk.contents(), &SalvageOptions::default());
    let acme = salvaged.organization("acme").unwrap();
    assert!(missing(&acme) > 0);
    let status = acme.rewrap_job().unwrap().run_here(|_| {}).unwrap();
    assert_eq!(status.state, RewrapState::Done);
    assert_eq!(missing(&acme), 0);
    assert_sound(&salvaged);
}

#[test]
fn an_organization_whose_kms_is_out_of_reach_is_salvaged_by_its_tags() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 10);
    store.close().unwrap();
    kms.fail("managed", keystead::backend::ErrorCode::Unavailable);
    let new = SimulatedDisk::new();
    let report = options(&kms, 6)
        .salvage_on_disks(
            SimulatedDisk::holding(disk.contents()),
            new.clone(),
            &SalvageOptions::default(),
        )
        .unwrap();
    assert!(report.is_complete() && report.unopened.len() == 1, "{report:#?}");
    assert_eq!((report.opened, report.tagged, report.unproven), (0, 10, 0));
    kms.restore("managed");
    let store = options(&kms, 7).open_on_disk(new).unwrap();
    assert_sound(&store);
    assert_eq!(
        store.organization("acme").unwrap().get("s/9").unwrap().value,
        b"value 9"
    );
}

#[test]
fn values_whose_epoch_is_gone_are_lost_by_name_and_a_rotation_makes_the_organization_whole() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 4);
    store.close().unwrap();
    let mut image = disk.contents();
    // The first shred cell: that of the only wrap.
    image.write(8192, &[0x11; 64]);
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default());
    let lost: Vec<_> = report.lost.iter().filter_map(|loss| loss.path.clone()).collect();
    assert_eq!(lost, ["s/0", "s/1", "s/2", "s/3"]);
    assert!(report.lost.iter().any(|loss| loss.kind == LossKind::Epoch));
    let acme = salvaged.organization("acme").unwrap();
    assert!(matches!(acme.get("s/1"), Err(Error::VersionLost { .. })));
    acme.keys().rotate("managed").unwrap();
    acme.put("s/1", "again").unwrap();
    assert_eq!(
        acme.get("s/1").unwrap().version.get(),
        2,
        "no number is given twice"
    );
    assert_sound(&salvaged);
}

#[test]
fn a_lost_epoch_record_and_audit_records_leave_chains_that_say_so() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 200);
    let acme = store.organization("acme").unwrap();
    for _ in 0..3 {
        acme.keys().rotate("managed").unwrap().wait_run();
    }
    let before = acme.audit(0, 10_000).unwrap();
    drop(acme);
    store.close().unwrap();
    drop(store);
    let mut image = disk.contents();
    let middle =
        |row: &keystead::simulation::RowPlace| row.table == AUDIT && row.key.ends_with(&100u64.to_be_bytes());
    destroy_rows(&mut image, &disk, |row| middle(row));
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default());
    assert_eq!(report.versions, 200);
    let acme = salvaged.organization("acme").unwrap();
    let after = acme.audit(0, 10_000).unwrap();
    let kept = report.audit_kept as usize;
    assert!(kept < 100 && after[..kept] == before[..kept]);
    let keystead::AuditEvent::Salvaged {
        old_sequence,
        records_lost,
        ..
    } = &after[kept].event
    else {
        panic!("{:?}", after[kept]);
    };
    assert_eq!(*old_sequence as usize, before.len());
    assert_eq!(
        *records_lost,
        old_sequence - report.audit_kept - report.audit_carried
    );
    let carried: Vec<_> = after[kept + 1..].iter().collect();
    assert_eq!(carried.len() as u64, report.audit_carried);
    for record in carried {
        let keystead::AuditEvent::Carried {
            sequence,
            event,
            at_ms,
            ..
        } = &record.event
        else {
            panic!("{record:?}");
        };
        let old = &before[*sequence as usize - 1];
        assert_eq!((event.event().as_ref(), at_ms), (Some(&old.event), &old.at_ms));
    }

    // A salvaged store that is damaged and salvaged again carries nothing inside of what was carried.
    let mut image = disk.contents();
    destroy_rows(&mut image, &disk, |row| row.table == EPOCHS || middle(row));
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default());
    let epochs = salvaged.organization("acme").unwrap().epochs().unwrap();
    assert_eq!(epochs.len(), 4);
    let lost = report
        .lost
        .iter()
        .filter(|loss| loss.kind == LossKind::Epoch)
        .count();
    println!("{lost} epochs lost, {} values of 200 kept", report.versions);
}
