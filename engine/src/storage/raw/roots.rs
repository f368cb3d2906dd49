//! Where the trees of the tables begin: in the tree of tables, to which redb's header leads; or, where that header is destroyed, in a
//! leaf of table definitions that is found by looking.

use super::page::{PageNumber, table_root};
use super::{Damaged, Root};
use crate::crypto::PlaceKey;
use crate::error::Result;
use crate::storage::records::{self, HeadRecord};
use crate::storage::tables::{TABLE_COUNT, Table};

type Roots = [Root; TABLE_COUNT];

/// Notes a table's root from its row in the tree of tables; false for what is no such row.
fn note(roots: &mut Roots, name: &[u8], definition: &[u8]) -> bool {
    let table = Table::ALL.iter().find(|table| table.name().as_bytes() == name);
    match (table, table_root(definition)) {
        (Some(table), Some(root)) => {
            roots[*table as usize] = root.map_or(Root::Empty, Root::At);
            true
        }
        _ => false,
    }
}

impl Damaged {
    /// Every table is made with the store: one that is not listed is lost.
    pub(super) fn read_roots(&self, tables: PageNumber) -> Result<Roots> {
        let mut roots = [Root::Lost; TABLE_COUNT];
        self.walk_from(Root::At(tables), &mut |name, definition, _| {
            note(&mut roots, name, definition);
            Ok(())
        })?;
        Ok(roots)
    }

    /// The roots of the newest state, by the leaves of table definitions that are left of all states. Pages of the newest one are
    /// never written over, so what its leaf leads to is what it says. Newer is the one with the later generation of the journal; of the
    /// same generation, the one with more audit records. All lost when there is none, or when some other block is damaged: it may have
    /// been the newest of those leaves, and what an older state has, destroyed versions among it, is not to be taken for current.
    pub(super) fn find_roots(&self) -> Result<Roots> {
        if (1..self.container.page_blocks()).any(|block| self.container.is_block_damaged(block)) {
            return Ok([Root::Lost; TABLE_COUNT]);
        }
        let mut candidates = Vec::new();
        self.leaves(&mut |_| {}, &|_| true, |leaf| {
            let mut roots = [Root::Lost; TABLE_COUNT];
            let all = leaf
                .rows()
                .all(|(name, definition, _)| note(&mut roots, name, definition));
            if all && !roots.contains(&Root::Lost) && !candidates.contains(&roots) {
                candidates.push(roots);
            }
            Ok(())
        })?;
        let mut newest = ((0, 0), [Root::Lost; TABLE_COUNT]);
        for roots in candidates {
            let age = (self.generation(&roots)?, self.audit_records(&roots)?);
            if age > newest.0 {
                newest = (age, roots);
            }
        }
        Ok(newest.1)
    }

    /// The generation of the journal in this state; 0 when it does not say.
    fn generation(&self, roots: &Roots) -> Result<u64> {
        let mut generation = 0;
        self.walk_from(roots[Table::Store as usize], &mut |name, row, _| {
            if let (b"journal_generation", Ok(value)) = (name, row.try_into()) {
                generation = u64::from_le_bytes(value);
            }
            Ok(())
        })?;
        Ok(generation)
    }

    /// Audit records of all organizations in this state, by their heads.
    fn audit_records(&self, roots: &Roots) -> Result<u64> {
        let place = PlaceKey::of_store(&self.container.store_id());
        let mut records: u64 = 0;
        self.walk_from(roots[Table::Heads as usize], &mut |key, row, _| {
            if let Ok(head) = records::decode::<HeadRecord>(&place, key, row) {
                records = records.saturating_add(head.audit_sequence);
            }
            Ok(())
        })?;
        Ok(records)
    }
}
