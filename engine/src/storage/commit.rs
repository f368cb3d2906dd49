//! Group commit: writers queue; the first becomes the leader, applies every queued change in one transaction and makes it
//! durable once for all of them.
//!
//! A commit is made durable in one of two ways:
//!
//! - *journaled*, the usual one: the changed rows go to the container's journal as one record (one `fdatasync`, a few KiB),
//!   and redb commits in memory only.
//! - *checkpoint*: redb commits in two phases with its allocator state (`quick_repair`), and the journal starts again. It
//!   happens when the journal has taken [`JOURNALED_COMMITS_MAX`] commits or [`JOURNALED_TOTAL_BYTES_MAX`] bytes, for changes too large for
//!   it or with bytes that could pass for its records, and always before shred cells are erased: what cannot be undone never rests on
//!   the journal alone.
//!
//! Why not redb's commit alone: a store must open at once after a crash, which redb does only after quick-repair commits;
//! one such commit writes over 100 KiB and syncs twice (measured: 0.64 ms against 0.23 ms journaled, for the same 1 KiB put
//! into 100,000). `docs/decisions/0001-journal-beside-redb.md` has the figures.
//!
//! Shred cells, in this order: new cells are written and synced; the transaction becomes durable; dropped cells are
//! overwritten and synced; callers learn of it. The row of a dropped cell stays in `CellsErasing` until a later transaction
//! finds it overwritten, so a crash between is made good at the next open.
//!
//! Readers see a commit only after it is durable: they share a snapshot that is replaced then.

mod queue;
mod recovery;

use self::queue::{Queue, Queued, Turn, TurnState, TypedChange};
use crate::crypto::PlaceKey;
use crate::error::{Error, Result};
use crate::mutant::{Mutant, planted};
use crate::storage::boundary::{Boundary, Guarded};
use crate::storage::container::{CellNumber, Container, ContainerError};
use crate::storage::snapshot::{Rows, Snapshot};
use crate::storage::structure;
use crate::storage::tables::Table;
use crate::storage::transaction::{
    Effects, Transaction, cells_in, cells_used, container_failed, definition, failed,
};
use redb::{Database, Durability, WriteTransaction};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};

/// Journaled commits between two checkpoints: bounds what an open after a crash replays and how long a checkpoint stalls
/// writers (measured: 5 to 8 ms at 100 commits, 12 to 18 ms at 300, in stores of 100,000 and 1,000,000 secrets).
const JOURNALED_COMMITS_MAX: u64 = 256;
/// Bytes in the journal between two checkpoints: bounds the same for large commits (measured beside a re-wrap of 1,000,000: puts
/// wait 17.6 ms at the 99th percentile; 24.6 ms when the journal is let fill up).
const JOURNALED_TOTAL_BYTES_MAX: u64 = 3 << 19;
/// A change whose journal record would be larger than this goes to a checkpoint at once.
const JOURNALED_BYTES_MAX: usize = 1 << 20;
/// Changes that one transaction takes from the queue.
const GROUP_MAX: usize = 256;
/// Shred cells that one transaction stages or drops. Bounds what opening looks at after a crash.
pub(crate) const CELLS_PER_COMMIT_MAX: usize = 4096;
const FACT_GENERATION: &str = "journal_generation";

/// The one writer, its queue, and the snapshot that readers share.
pub(crate) struct Committer {
    boundary: Arc<Boundary>,
    /// Before the container: it goes while the file is still there.
    database: Guarded<Database>,
    container: Container,
    place: Arc<PlaceKey>,
    snapshot: RwLock<Arc<Snapshot>>,
    queue: Mutex<Queue>,
    writer: Mutex<Writer>,
    /// Taken alone by each checkpoint, and shared by whoever needs the durable pages as they are: only a checkpoint writes over one.
    checkpoints: RwLock<()>,
}

/// What only the leader touches.
struct Writer {
    generation: u64,
    journaled_commits: u64,
    sequence: u64,
    /// Overwritten cells whose rows still say that they are to be.
    erased: Vec<CellNumber>,
    /// Why no write is possible any more.
    closed: Option<String>,
}

impl Committer {
    /// Makes the tables of a new store.
    pub(crate) fn create(container: Container, place: PlaceKey, cache_bytes: usize) -> Result<Self> {
        let boundary = Boundary::new();
        let doing = "creating the pages of a new store";
        let database = open_pages(&boundary, &container, cache_bytes, doing)?;
        let transaction = begin_write(&boundary, &database)?;
        boundary.call("creating the tables", || {
            for table in Table::ALL {
                transaction
                    .open_table(definition(*table))
                    .map_err(failed("creating the tables"))?;
            }
            Ok(())
        })?;
        let place = Arc::new(place);
        commit_checkpoint(&boundary, transaction, &place, 1)?;
        container.journal().restart(1);
        Self::start(boundary, database, container, place, 1)
    }

    /// Opens the pages, replays the journal, makes good what a crash left between: cells to be erased and cells of a
    /// commit that never came. Costs what was written since the last checkpoint, whatever the store's size.
    pub(crate) fn open(container: Container, place: PlaceKey, cache_bytes: usize) -> Result<Self> {
        let boundary = Boundary::new();
        let doing = "opening the pages";
        container
            .check_freed_lists()
            .map_err(|error| container_failed(doing, &error))?;
        let database = open_pages(&boundary, &container, cache_bytes, doing)?;
        let place = Arc::new(place);
        let committer = Self::start(boundary, database, container, place, 0)?;
        committer.recover()?;
        Ok(committer)
    }

    fn start(
        boundary: Arc<Boundary>,
        database: Guarded<Database>,
        container: Container,
        place: Arc<PlaceKey>,
        generation: u64,
    ) -> Result<Self> {
        let snapshot = begin_snapshot(&boundary, &database, &place, 0)?;
        Ok(Self {
            boundary,
            database,
            container,
            place,
            snapshot: RwLock::new(Arc::new(snapshot)),
            queue: Mutex::default(),
            writer: Mutex::new(Writer {
                generation,
                journaled_commits: 0,
                sequence: 0,
                erased: Vec::new(),
                closed: None,
            }),
            checkpoints: RwLock::default(),
        })
    }

    /// The newest durable state. Costs a lock and a reference count.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn container(&self) -> &Container {
        &self.container
    }

    /// Queues a change and returns when it is durable, with what the change returned. A change that fails before its
    /// first write costs nothing and changes nothing.
    pub(crate) fn submit<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Transaction<'_>) -> Result<T> + Send + 'static,
    {
        let outcome = Arc::new(Mutex::new(None));
        let turn = Arc::new(Turn::default());
        let change = Box::new(TypedChange {
            apply: change,
            value: None,
            outcome: Arc::clone(&outcome),
        });
        {
            let mut queue = lock(&self.queue);
            queue.waiting.push_back(Queued {
                change,
                turn: Arc::clone(&turn),
            });
            if !queue.led {
                queue.led = true;
                turn.give(TurnState::Leading);
            }
        }
        if turn.wait() == TurnState::Leading {
            self.lead();
        }
        let outcome = lock(&outcome).take();
        outcome.unwrap_or_else(|| {
            Err(Error::Closed {
                reason: "the writer gave up".into(),
            })
        })
    }

    /// Takes what is queued, commits it, and hands the lead to the next in the queue. The caller's own change is the
    /// first of the queue.
    fn lead(&self) {
        let group: Vec<Queued> = {
            let mut queue = lock(&self.queue);
            let take = queue.waiting.len().min(GROUP_MAX);
            queue.waiting.drain(..take).collect()
        };
        // Whatever happens to the leader, nobody waits for ever.
        let mut group = Group {
            committer: self,
            members: group,
        };
        let mut writer = lock(&self.writer);
        group.commit(&mut writer);
    }

    fn hand_over_lead(&self) {
        let mut queue = lock(&self.queue);
        match queue.waiting.front() {
            Some(next) => next.turn.give(TurnState::Leading),
            None => queue.led = false,
        }
    }

    /// Makes a transaction durable, shred cells in their order.
    fn make_durable(
        &self,
        writer: &mut Writer,
        transaction: Guarded<WriteTransaction>,
        effects: Effects,
    ) -> Result<()> {
        if !effects.staged_cells.is_empty() {
            let cells: Vec<_> = effects
                .staged_cells
                .iter()
                .map(|(cell, key)| (*cell, &**key))
                .collect();
            self.container
                .write_cells(&cells)
                .map_err(cells_failed("writing shred cells"))?;
        }
        if planted(Mutant::CellErasedEarly) {
            self.erase(&effects.dropped_cells)?;
        }
        let journal = self.container.journal();
        let is_due = journal.used_bytes() > JOURNALED_TOTAL_BYTES_MAX
            || writer.journaled_commits >= JOURNALED_COMMITS_MAX;
        let journaled = effects.dropped_cells.is_empty()
            && effects.journal.len() <= JOURNALED_BYTES_MAX
            && journal.takes(&effects.journal)
            && (!is_due || self.are_checkpoints_held_off());
        if journaled {
            // The journal first: redb's state must never be ahead of it. (redb writes what it committed in memory when it is
            // dropped; were a change among that which the journal does not have, a replay would undo half of it.)
            let written = journal.append(writer.generation, &[&effects.journal]);
            if !planted(Mutant::CommitErrorSwallowed) {
                written.map_err(|error| container_failed("writing the journal", &error))?;
            }
            transaction.consume("committing", |transaction| {
                transaction.commit().map_err(failed("committing"))
            })?;
            writer.journaled_commits += 1;
        } else {
            self.checkpoint(writer, transaction)?;
        }
        if journaled || !planted(Mutant::SnapshotReused) {
            self.publish(writer)?;
        }
        if !effects.dropped_cells.is_empty() && !planted(Mutant::CellNotErased) {
            self.erase(&effects.dropped_cells)?;
            writer.erased.extend_from_slice(&effects.dropped_cells);
        }
        Ok(())
    }

    fn erase(&self, cells: &[CellNumber]) -> Result<()> {
        let erased = self.container.erase_cells(cells);
        erased.map_err(cells_failed("erasing shred cells"))
    }

    fn checkpoint(&self, writer: &mut Writer, transaction: Guarded<WriteTransaction>) -> Result<()> {
        let _alone = self.checkpoints.write().unwrap_or_else(PoisonError::into_inner);
        commit_checkpoint(&self.boundary, transaction, &self.place, writer.generation + 1)?;
        writer.generation += 1;
        writer.journaled_commits = 0;
        self.container.journal().restart(writer.generation);
        Ok(())
    }

    fn publish(&self, writer: &mut Writer) -> Result<()> {
        writer.sequence += 1;
        let snapshot = begin_snapshot(&self.boundary, &self.database, &self.place, writer.sequence)?;
        let snapshot = Arc::new(snapshot);
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
        Ok(())
    }

    /// Somebody needs the durable pages as they are: as long as the journal has room, no checkpoint is made.
    fn are_checkpoints_held_off(&self) -> bool {
        matches!(self.checkpoints.try_write(), Err(TryLockError::WouldBlock))
    }

    /// Checks the structure of the durable pages, from the disk. Writers go on. Where checkpoints keep coming between, the last try
    /// holds them off: from then on writers fill the journal, and only who needs a checkpoint waits.
    pub(crate) fn check_structure(&self) -> Result<()> {
        for _ in 0..2 {
            let before = lock(&self.writer).generation;
            let checked = structure::check(&self.container);
            if checked.is_ok() || lock(&self.writer).generation == before {
                return checked;
            }
        }
        let _held_off = self.checkpoints.read().unwrap_or_else(PoisonError::into_inner);
        structure::check(&self.container)
    }

    /// Commits what the journal holds into the pages, so that the next open has nothing to replay. No change may be
    /// submitted after it, and nothing is read any more, also through a snapshot that somebody still holds.
    pub(crate) fn close(&self) -> Result<()> {
        let mut writer = lock(&self.writer);
        if let Some(reason) = &writer.closed {
            return Err(Error::Closed {
                reason: reason.clone(),
            });
        }
        let dirty = writer.journaled_commits > 0 || !writer.erased.is_empty();
        let result = if dirty {
            self.checkpoint_now(&mut writer)
        } else {
            Ok(())
        };
        writer.closed = Some("it was closed".into());
        self.boundary.close();
        result
    }

    fn checkpoint_now(&self, writer: &mut Writer) -> Result<()> {
        let transaction = self.begin(writer)?;
        let mut changes = self.changes(&transaction);
        changes.free_cells(&std::mem::take(&mut writer.erased))?;
        drop(changes);
        self.checkpoint(writer, transaction)?;
        self.publish(writer)
    }

    fn begin(&self, writer: &Writer) -> Result<Guarded<WriteTransaction>> {
        if let Some(reason) = &writer.closed {
            return Err(Error::Closed {
                reason: reason.clone(),
            });
        }
        begin_write(&self.boundary, &self.database).map_err(|error| self.explain(error))
    }

    fn changes<'t>(&self, transaction: &'t WriteTransaction) -> Transaction<'t> {
        Transaction::new(&self.boundary, transaction, Arc::clone(&self.place))
    }

    /// redb tells once what failed, and from then on only that something did: the container remembers what it was.
    fn explain(&self, error: Error) -> Error {
        match (error, self.container.failure()) {
            (Error::Closed { .. }, Some(failure)) => Error::Closed {
                reason: format!("{failure}; open it again"),
            },
            (error, _) => error,
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        // What this leaves undone, the journal has.
        if let Err(error) = self.close() {
            tracing::debug!(%error, "the store was dropped without a checkpoint");
        }
    }
}

/// The changes of one commit. Concludes each of them, and passes on the lead, even if the leader's thread unwinds.
struct Group<'c> {
    committer: &'c Committer,
    members: Vec<Queued>,
}

impl Group<'_> {
    fn commit(&mut self, writer: &mut Writer) {
        loop {
            match self.try_commit(writer) {
                Ok(Attempt::Durable) => {
                    for mut member in self.members.drain(..) {
                        member.change.conclude(Ok(()));
                        member.turn.give(TurnState::Done);
                    }
                    return;
                }
                Ok(Attempt::Again) => {}
                Err(error) => {
                    // The change is perhaps durable, perhaps not; what is in memory may differ from the disk: stop here.
                    let reason = error.to_string();
                    if !matches!(error, Error::Closed { .. }) {
                        tracing::error!(%error, "the store closes itself");
                        writer.closed = Some(reason.clone());
                    }
                    let mut first = Some(error);
                    for mut member in self.members.drain(..) {
                        let error = first.take().unwrap_or_else(|| Error::Closed {
                            reason: reason.clone(),
                        });
                        member.change.conclude(Err(error));
                        member.turn.give(TurnState::Done);
                    }
                    return;
                }
            }
            if self.members.is_empty() {
                return;
            }
        }
    }

    /// Applies every member's change and makes them durable. A member that fails is concluded and leaves; if it had
    /// written something, the transaction is thrown away and the others are applied again.
    fn try_commit(&mut self, writer: &mut Writer) -> Result<Attempt> {
        let transaction = self.committer.begin(writer)?;
        let mut changes = self.committer.changes(&transaction);
        changes.free_cells(&writer.erased)?;
        let housekeeping = changes.changes();

        let mut index = 0;
        while index < self.members.len() {
            if changes.journal_bytes() > JOURNALED_BYTES_MAX
                || changes.cell_changes() > CELLS_PER_COMMIT_MAX / 2
            {
                self.requeue_from(index);
                break;
            }
            let before = changes.changes();
            match self.members[index].change.apply(&mut changes) {
                Ok(()) => index += 1,
                Err(error @ (Error::Storage { .. } | Error::StorePanicked { .. } | Error::Closed { .. })) => {
                    return Err(error);
                }
                Err(error) => {
                    let clean = changes.changes() == before;
                    let mut member = self.members.remove(index);
                    member.change.conclude(Err(error));
                    member.turn.give(TurnState::Done);
                    if !clean {
                        drop(changes);
                        abort(transaction)?;
                        return Ok(Attempt::Again);
                    }
                }
            }
        }
        if changes.changes() == housekeeping {
            drop(changes);
            abort(transaction)?;
            return Ok(Attempt::Durable);
        }
        let effects = changes.into_effects();
        let freed = std::mem::take(&mut writer.erased);
        self.committer
            .make_durable(writer, transaction, effects)
            .inspect_err(|_| writer.erased = freed)?;
        Ok(Attempt::Durable)
    }

    /// The transaction is full: the rest of the group goes back to the head of the queue.
    fn requeue_from(&mut self, index: usize) {
        let mut queue = lock(&self.committer.queue);
        for member in self.members.drain(index..).rev() {
            queue.waiting.push_front(member);
        }
    }
}

enum Attempt {
    /// All that is left of the group is durable.
    Durable,
    /// A member failed half way and left.
    Again,
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        for mut member in self.members.drain(..) {
            member.change.conclude(Err(Error::Closed {
                reason: "the writer panicked".into(),
            }));
            member.turn.give(TurnState::Done);
        }
        self.committer.hand_over_lead();
    }
}

fn builder(cache_bytes: usize) -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(cache_bytes);
    builder
}

/// redb's database on the container's pages.
fn open_pages(
    boundary: &Arc<Boundary>,
    container: &Container,
    cache_bytes: usize,
    doing: &'static str,
) -> Result<Guarded<Database>> {
    let database = boundary.call(doing, || {
        builder(cache_bytes)
            .create_with_backend(container.page_file())
            .map_err(failed(doing))
    })?;
    Ok(Guarded::new(boundary, database))
}

fn begin_snapshot(
    boundary: &Arc<Boundary>,
    database: &Database,
    place: &Arc<PlaceKey>,
    sequence: u64,
) -> Result<Snapshot> {
    use redb::ReadableDatabase;
    let doing = "beginning a snapshot";
    let transaction = boundary.call(doing, || database.begin_read().map_err(failed(doing)))?;
    Ok(Snapshot::new(boundary, transaction, Arc::clone(place), sequence))
}

/// A transaction that commits in memory only, unless it is told otherwise.
fn begin_write(boundary: &Arc<Boundary>, database: &Database) -> Result<Guarded<WriteTransaction>> {
    let doing = "beginning a transaction";
    let transaction = boundary.call(doing, || {
        let mut transaction = database.begin_write().map_err(failed(doing))?;
        set_durability(&mut transaction, Durability::None, doing)?;
        Ok(transaction)
    })?;
    Ok(Guarded::new(boundary, transaction))
}

fn set_durability(
    transaction: &mut WriteTransaction,
    durability: Durability,
    doing: &'static str,
) -> Result<()> {
    transaction
        .set_durability(durability)
        .map_err(|error| Error::Storage {
            doing,
            reason: error.to_string(),
        })
}

fn abort(transaction: Guarded<WriteTransaction>) -> Result<()> {
    let doing = "aborting a transaction";
    transaction.consume(doing, |transaction| transaction.abort().map_err(failed(doing)))
}

/// Commits in two phases with the allocator state, under the next generation of the journal.
fn commit_checkpoint(
    boundary: &Arc<Boundary>,
    transaction: Guarded<WriteTransaction>,
    place: &Arc<PlaceKey>,
    generation: u64,
) -> Result<()> {
    Transaction::new(boundary, &transaction, Arc::clone(place)).put_fact(FACT_GENERATION, generation)?;
    transaction.consume("committing", |mut transaction| {
        set_durability(&mut transaction, Durability::Immediate, "committing")?;
        transaction.set_two_phase_commit(!planted(Mutant::CheckpointInOnePhase));
        // (Which would turn on the two phases by itself.)
        transaction.set_quick_repair(!planted(Mutant::CheckpointInOnePhase));
        transaction.commit().map_err(failed("committing"))
    })
}

fn cells_failed(doing: &'static str) -> impl FnOnce(ContainerError) -> Error {
    move |error| container_failed(doing, &error)
}

/// A lock whose holder panicked protects data that is replaced, not mended: it is taken all the same.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
