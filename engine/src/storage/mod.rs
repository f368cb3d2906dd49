//! Ordered tables, snapshots, and one atomic commit: the only user of redb.
//!
//! - [`container`]: the file around redb: header, shred cells, journal, pages with a tag each.
//! - [`boundary`]: what keeps a panic of redb's from going further.
//! - [`raw`]: redb's pages read without redb, for a salvage.
//! - [`structure`]: redb's own integrity check, from the disk.
//! - [`tables`]: which tables there are and how their keys are made.
//! - [`records`]: what stands in their rows.
//! - [`transaction`]: reading a snapshot, and changing rows inside of the one writer.
//! - [`commit`]: group commit, the journal, checkpoints, shred cells in the right order.
//!
//! Above this, a layer sees rows, records and changes; it could stand on another transactional store.

mod boundary;
pub(crate) mod commit;
pub(crate) mod container;
pub(crate) mod raw;
pub(crate) mod records;
pub(crate) mod snapshot;
mod structure;
pub(crate) mod tables;
pub(crate) mod transaction;

pub(crate) use commit::Committer;
pub(crate) use snapshot::{Rows, Snapshot};
pub(crate) use tables::Table;
pub(crate) use transaction::Transaction;
