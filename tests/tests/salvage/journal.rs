//! What the journal alone has is salvaged, what is missing from it is said, and what is old in it is no news.

use crate::oracle::STORE;
use crate::small::{destroy_rows, salvage_of, small};
use crate::world::BLOCK;
use keystead::{Error, LossKind, SalvageOptions, Version};
use keystead_tests::kms::SimulatedKms;

#[test]
fn what_only_the_journal_has_is_salvaged() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 20);
    store
        .organization("acme")
        .unwrap()
        .destroy("s/3", Version::new(1).unwrap())
        .unwrap();
    // As a process that was killed leaves it.
    let image = disk.contents();
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default());
    assert!(report.is_complete(), "{report:#?}");
    assert_eq!((report.opened, report.destroyed), (19, 1));
    let acme = salvaged.organization("acme").unwrap();
    assert_eq!(acme.get("s/19").unwrap().value, b"value 19");
    assert!(matches!(acme.get("s/3"), Err(Error::VersionDestroyed { .. })));
}

#[test]
fn a_record_missing_from_the_journal_is_said_and_what_follows_it_is_kept() {
    let kms = SimulatedKms::new();
    let (_store, disk) = small(&kms, 6);
    let mut image = disk.contents();
    let mut journal = vec![0; 4 << 20];
    assert!(image.read(65_536, &mut journal));
    // The last two blocks hold marks.
    let records: Vec<usize> = (0..journal.len() - 2 * BLOCK)
        .step_by(512)
        .filter(|at| journal[*at..].starts_with(b"KJRN"))
        .collect();
    image.write(65_536 + records[records.len() - 3] as u64 + 100, &[0xee; 64]);
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default());
    assert_eq!(report.journal_records_lost, 1);
    let kinds: Vec<LossKind> = report.lost.iter().map(|loss| loss.kind).collect();
    assert!(
        kinds.contains(&LossKind::Journal) && kinds.contains(&LossKind::AuditRecords),
        "{report:#?}"
    );
    let acme = salvaged.organization("acme").unwrap();
    for n in [0, 1, 2, 4, 5] {
        assert_eq!(
            acme.get(&format!("s/{n}")).unwrap().value,
            format!("value {n}").as_bytes()
        );
    }
    assert!(acme.get("s/3").is_err());
}

/// The page that says which of the journal's records are news was destroyed, and those from before the last checkpoint were taken for
/// some: they undid that checkpoint.
#[test]
fn records_from_before_the_last_checkpoint_are_no_news() {
    let kms = SimulatedKms::new();
    let (store, disk) = small(&kms, 1);
    let acme = store.organization("acme").unwrap();
    let first = Version::new(1).unwrap();
    let last = (1..2000)
        .find(|n| {
            let path = format!("s/{n}");
            acme.put(&path, "to be destroyed").unwrap();
            let before = disk.changes();
            acme.destroy(&path, first).unwrap();
            // A journaled commit is a record, its mark, and a sync.
            disk.changes() - before > 8
        })
        .expect("one of them is a checkpoint");
    drop(acme);
    store.close().unwrap();
    let mut image = disk.contents();
    destroy_rows(&mut image, &disk, |row| row.table == STORE);
    let (report, salvaged) = salvage_of(&kms, image, &SalvageOptions::default());
    assert!(report.is_complete(), "{report:#?}");
    assert_eq!((report.versions, report.destroyed), (1, last));
    let acme = salvaged.organization("acme").unwrap();
    for n in 1..=last {
        let gone = acme.get(&format!("s/{n}")).unwrap_err();
        assert!(matches!(gone, Error::VersionDestroyed { .. }), "{gone}");
    }
}
