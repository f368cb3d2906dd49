//! The tables, and the keys of their rows: bytes that order as the things they name do.
//!
//! Keys are the project's own encoding (big-endian numbers, one after the other), not redb's typed keys, whose encoding
//! may change between its major versions.

use crate::names::{EpochNumber, OrganizationId, Version};

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// A table of the store. Its number stands in journal records and in place tags; its name is redb's.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Table { $($(#[$doc])* $name = $number,)* }

        impl Table {
            pub(crate) const ALL: &'static [Table] = &[$(Table::$name,)*];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Table::$name => $text,)* }
            }

            pub(crate) fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Table::$name),)* _ => None }
            }
        }
    };
}

tables! {
    /// Facts of the whole store, by name.
    Store = 0, "store";
    /// Organization id → name, when created. Never rewritten.
    Organizations = 1, "organizations";
    /// Organization name → id.
    OrganizationNames = 2, "organization_names";
    /// Organization id → what every change of it moves on: audit head, active epoch, counts of references.
    Heads = 3, "heads";
    /// Organization, key name → backend, config, state.
    Keys = 4, "keys";
    /// Organization, epoch → who opened it and why, wraps of its key.
    Epochs = 5, "epochs";
    /// Organization, path → secret id, latest version, settings.
    Secrets = 6, "secrets";
    /// Organization, secret id, version → header, sealed value. Never rewritten but by `destroy`.
    Versions = 7, "versions";
    /// Organization, secret id, version → epoch, sealed data key. Rewritten by re-wrap alone.
    DataKeys = 8, "data_keys";
    /// Organization, value id, index → one sealed chunk of a large value.
    Chunks = 9, "chunks";
    /// Organization, value id → a large value that is being written.
    Uploads = 10, "uploads";
    /// Organization, secret id, version → when it was deleted.
    Deletions = 11, "deletions";
    /// Running or finished, organization → its re-wrap job. Running ones stand first: opening looks at them alone.
    RewrapJobs = 12, "rewrap_jobs";
    /// Organization, sequence → event, chained hash. Never rewritten.
    Audit = 13, "audit";
    /// Shred cells whose wrap is dropped and which are to be overwritten.
    CellsErasing = 14, "cells_erasing";
    /// Shred cells that are overwritten and free.
    CellsFree = 15, "cells_free";
}

pub(crate) const TABLE_COUNT: usize = 16;

/// Identifies a large value: random, so that a writer needs no turn in the queue to get one.
pub(crate) type ValueId = [u8; 16];

pub(crate) fn organization(org: OrganizationId) -> [u8; 4] {
    org.0.to_be_bytes()
}

pub(crate) fn with_name(org: OrganizationId, name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + name.len());
    key.extend_from_slice(&org.0.to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

pub(crate) fn epoch(org: OrganizationId, epoch: EpochNumber) -> [u8; 8] {
    join(org.0.to_be_bytes(), epoch.0.to_be_bytes())
}

pub(crate) fn version(org: OrganizationId, secret_id: u64, version: Version) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&org.0.to_be_bytes());
    key[4..12].copy_from_slice(&secret_id.to_be_bytes());
    key[12..].copy_from_slice(&version.0.to_be_bytes());
    key
}

/// The secret id and version in a key of `Versions`, `DataKeys` or `Deletions`.
pub(crate) fn parse_version(key: &[u8]) -> Option<(OrganizationId, u64, Version)> {
    let key: &[u8; 16] = key.try_into().ok()?;
    let org = u32::from_be_bytes(key[..4].try_into().ok()?);
    let secret_id = u64::from_be_bytes(key[4..12].try_into().ok()?);
    let version = u32::from_be_bytes(key[12..].try_into().ok()?);
    Some((OrganizationId(org), secret_id, Version::new(version)?))
}

pub(crate) fn upload(org: OrganizationId, value_id: &ValueId) -> [u8; 20] {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&org.0.to_be_bytes());
    key[4..].copy_from_slice(value_id);
    key
}

pub(crate) fn chunk(org: OrganizationId, value_id: &ValueId, index: u32) -> [u8; 24] {
    let mut key = [0; 24];
    key[..20].copy_from_slice(&upload(org, value_id));
    key[20..].copy_from_slice(&index.to_be_bytes());
    key
}

pub(crate) fn audit(org: OrganizationId, sequence: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&org.0.to_be_bytes());
    key[4..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// Where an organization's re-wrap job stands while it runs, and where the last one stands when it is finished.
pub(crate) fn rewrap_job(org: OrganizationId, finished: bool) -> [u8; 5] {
    let [a, b, c, d] = org.0.to_be_bytes();
    [u8::from(finished), a, b, c, d]
}

pub(crate) fn cell(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// The smallest key that is greater than every key beginning with `prefix`; `None` when there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn join(a: [u8; 4], b: [u8; 4]) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&a);
    key[4..].copy_from_slice(&b);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_order_as_what_they_name(a in any::<(u32, u64, u32)>(), b in any::<(u32, u64, u32)>()) {
            let key = |(org, secret, number): (u32, u64, u32)| version(OrganizationId(org), secret, Version(number));
            prop_assert_eq!(a.cmp(&b), key(a).cmp(&key(b)));
        }

        #[test]
        fn what_follows_a_prefix_is_the_first_key_beyond_it(prefix in proptest::collection::vec(any::<u8>(), 0..8), tail in any::<Vec<u8>>()) {
            let key = [&prefix[..], &tail[..]].concat();
            if let Some(end) = after_prefix(&prefix) {
                prop_assert!(key < end);
                prop_assert!(end.len() <= prefix.len());
            } else {
                prop_assert!(prefix.iter().all(|byte| *byte == 255));
            }
        }
    }

    #[test]
    fn every_table_is_found_by_its_number() {
        assert_eq!(Table::ALL.len(), TABLE_COUNT);
        for table in Table::ALL {
            assert_eq!(Table::from_number(*table as u8), Some(*table));
        }
    }
}
