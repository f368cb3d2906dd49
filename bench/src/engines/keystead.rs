//! Keystead, with the benchmark's KMS.

use crate::engines::{Engine, Session};
use crate::kms::BenchKms;
use crate::workload::Row;
use anyhow::Result;
use keystead::{Backend, Batch, Organization, Store, StoreOptions};
use std::path::Path;

/// The organization that most rows belong to.
pub(crate) const ORGANIZATION: &str = "acme";
/// The key that it is born with.
const MANAGED: &str = "managed";
/// The backend of the key that it brings.
pub(crate) const OWN: &str = "own-kms";

/// One organization of an open store: closed when this is dropped.
pub(crate) struct Keystead {
    pub(crate) organization: Organization,
}

impl Keystead {
    pub(crate) fn options(kms: &BenchKms) -> StoreOptions {
        Store::options()
            .backend(Backend::new(kms.clone()).named(MANAGED))
            .backend(Backend::new(kms.clone()).named(OWN))
    }

    pub(crate) fn create(path: &Path, cache_bytes: usize) -> Result<Self> {
        let store = Self::options(&BenchKms::default())
            .cache_bytes(cache_bytes)
            .create(path)?;
        Ok(Self {
            organization: store.create_organization(ORGANIZATION)?,
        })
    }

    pub(crate) fn open(path: &Path, cache_bytes: usize) -> Result<Self> {
        let store = Self::options(&BenchKms::default())
            .cache_bytes(cache_bytes)
            .open(path)?;
        Ok(Self {
            organization: store.organization(ORGANIZATION)?,
        })
    }
}

impl Engine for Keystead {
    fn name(&self) -> &'static str {
        "Keystead"
    }

    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(KeysteadSession {
            organization: self.organization.clone(),
        }))
    }
}

struct KeysteadSession {
    organization: Organization,
}

impl Session for KeysteadSession {
    fn put(&mut self, row: &Row) -> Result<()> {
        self.organization.put(&row.path, &row.value)?;
        Ok(())
    }

    fn put_all(&mut self, rows: &[Row]) -> Result<()> {
        let mut batch = Batch::new();
        for row in rows {
            batch = batch.put(&row.path, &row.value)?;
        }
        self.organization.commit(batch)?;
        Ok(())
    }

    fn get(&mut self, path: &str, see: &mut dyn FnMut(&[u8])) -> Result<()> {
        see(self.organization.get(path)?.value.as_slice());
        Ok(())
    }
}
