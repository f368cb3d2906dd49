//! Opening after a crash: the journal is replayed, and what a commit left between its steps is made good.

use super::*;

impl Committer {
    pub(super) fn recover(&self) -> Result<()> {
        let mut writer = lock(&self.writer);
        let snapshot = self.snapshot();
        writer.generation = snapshot.fact(FACT_GENERATION)?;
        drop(snapshot);

        let transaction = begin_write(&self.boundary, &self.database)?;
        let mut changes = self.changes(&transaction);
        let mut outcome = Ok(());
        self.container
            .journal()
            .replay(writer.generation, |payload| {
                if outcome.is_ok() {
                    outcome = changes.apply_journal(payload);
                }
                Ok(())
            })
            .map_err(|error| container_failed("replaying the journal", &error))?;
        outcome?;

        let erasing = cells_in(&changes, Table::CellsErasing, usize::MAX)?;
        if !erasing.is_empty() {
            self.erase(&erasing)?;
            changes.free_cells(&erasing)?;
        }
        self.erase_cells_of_lost_commits(&changes)?;
        if changes.changes() == 0 {
            drop(changes);
            return abort(transaction);
        }
        drop(changes);
        self.checkpoint(&mut writer, transaction)?;
        self.publish(&mut writer)
    }

    /// A commit that never came may have left its staged cells written: they are among the first free ones, and right
    /// behind the last one given out, because cells are taken in that order.
    fn erase_cells_of_lost_commits(&self, rows: &impl Rows) -> Result<()> {
        for cell in cells_in(rows, Table::CellsFree, CELLS_PER_COMMIT_MAX)? {
            self.container
                .erase_unclaimed(cell.0..cell.0 + 1)
                .map_err(cells_failed("erasing shred cells"))?;
        }
        let used = cells_used(rows)?;
        let end = self
            .container
            .cell_capacity()
            .min(used + CELLS_PER_COMMIT_MAX as u64);
        if used < end {
            self.container
                .erase_unclaimed(used..end)
                .map_err(cells_failed("erasing shred cells"))?;
        }
        Ok(())
    }
}
