//! What a value needs to be recovered, and where in the file that stands.

use crate::world::Name;
use keystead::simulation::{Places, RowPlace};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers of tables, as the format's page lists them.
pub(crate) const STORE: u8 = 0;
const ORGANIZATIONS: u8 = 1;
const KEYS: u8 = 4;
pub(crate) const EPOCHS: u8 = 5;
const SECRETS: u8 = 6;
const VERSIONS: u8 = 7;
const DATA_KEYS: u8 = 8;
const CHUNKS: u8 = 9;
pub(crate) const AUDIT: u8 = 13;

/// The rows of a store by table and key, for the oracle: what a value needs, and where it stands.
pub(crate) struct Oracle<'w> {
    rows: BTreeMap<(u8, &'w [u8]), &'w RowPlace>,
    pub(crate) organizations: BTreeMap<String, [u8; 4]>,
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 127) << shift;
        shift += 7;
        if byte < 128 {
            return value;
        }
    }
}

impl<'w> Oracle<'w> {
    pub(crate) fn new(places: &'w Places) -> Self {
        let rows: BTreeMap<_, _> = places
            .rows
            .iter()
            .map(|row| ((row.table, row.key.as_slice()), row))
            .collect();
        let organizations = rows
            .range((ORGANIZATIONS, &[][..])..(ORGANIZATIONS + 1, &[][..]))
            .map(|((_, key), row)| {
                let name = &row.row[2..2 + row.row[1] as usize];
                (
                    String::from_utf8(name.to_vec()).unwrap(),
                    (*key).try_into().unwrap(),
                )
            })
            .collect();
        Self { rows, organizations }
    }

    fn prefixed(&self, table: u8, prefix: &[u8]) -> impl Iterator<Item = &'w RowPlace> {
        let prefix = prefix.to_vec();
        self.rows
            .range((table, &[][..])..(table + 1, &[][..]))
            .map(|(_, row)| *row)
            .filter(move |row| row.key.starts_with(&prefix))
    }

    pub(crate) fn secret_id(&self, organization: &str, path: &str) -> u64 {
        let key = [&self.organizations[organization][..], path.as_bytes()].concat();
        varint(&mut &self.rows[&(SECRETS, key.as_slice())].row[1..])
    }

    /// The blocks that a value's rows need: its own, and those of its epoch, keys and organization.
    pub(crate) fn blocks(&self, name: &Name) -> BTreeSet<u64> {
        let organization = &self.organizations[&name.0][..];
        let secret_key = [organization, name.1.as_bytes()].concat();
        let secret_id = self.secret_id(&name.0, &name.1).to_be_bytes();
        let version_key = [organization, &secret_id, &name.2.to_be_bytes()].concat();
        let data_key = self.rows[&(DATA_KEYS, version_key.as_slice())];
        let epoch = u32::from_le_bytes(data_key.row[1..5].try_into().unwrap()).to_be_bytes();
        let epoch_key = [organization, &epoch].concat();
        let version = self.rows[&(VERSIONS, version_key.as_slice())];
        let mut needed = vec![
            self.rows[&(ORGANIZATIONS, organization)],
            self.rows[&(EPOCHS, epoch_key.as_slice())],
            self.rows[&(SECRETS, secret_key.as_slice())],
            version,
            data_key,
        ];
        needed.extend(self.prefixed(KEYS, organization));
        // Header: when, size, no content type, no labels, then the alternative.
        let mut header = &version.row[5..];
        varint(&mut header);
        varint(&mut header);
        assert_eq!(header[..2], [0, 0]);
        if header[2] == 1 {
            let value_id = &header[3 + 32..3 + 32 + 16];
            needed.extend(self.prefixed(CHUNKS, &[organization, value_id].concat()));
        }
        needed
            .into_iter()
            .flat_map(|row| row.blocks.iter().copied())
            .collect()
    }
}
