//! What can be wrong with the container, each by its name.

use std::io;
use std::path::PathBuf;

use super::CellNumber;

/// Why the container did not do what was asked. No message holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ContainerError {
    /// The file has 0 bytes.
    #[error(
        "opening a store: the file is empty (0 bytes), so it is no store; restore it from a backup or create a new one"
    )]
    Empty,
    /// The file is something else.
    #[error(
        "opening a store: the file is not a Keystead store (it does not begin with the mark of one); check the path"
    )]
    Foreign,
    /// A newer Keystead wrote the file.
    #[error(
        "opening a store: the file has format version {found}, this Keystead reads versions up to {supported}; open it with \
         a newer Keystead"
    )]
    TooNew {
        /// The file's format version.
        found: u32,
        /// The newest that this code reads.
        supported: u32,
    },
    /// Neither header copy is whole.
    #[error("opening a store: both copies of the header are damaged ({why}); restore the file from a backup")]
    DamagedHeader {
        /// What is wrong.
        why: &'static str,
    },
    /// The file ends before what its header says is there.
    #[error(
        "opening a store: the file is truncated: it has {found_bytes} bytes, its header speaks of {expected_bytes}; restore \
         it from a backup"
    )]
    Truncated {
        /// Bytes that there should be at least.
        expected_bytes: u64,
        /// Bytes that there are.
        found_bytes: u64,
    },
    /// Another handle, in this process or another, has the file.
    #[error("opening {}: another handle or process has this store open; close it there first", path.display())]
    AlreadyOpen {
        /// The store file.
        path: PathBuf,
    },
    /// Nothing is there.
    #[error("opening {}: there is no such file; check the path, or create a store", path.display())]
    NotFound {
        /// The store file.
        path: PathBuf,
    },
    /// Something is there already.
    #[error("creating {}: something with this name exists already; choose another name, or open it", path.display())]
    AlreadyExists {
        /// The store file.
        path: PathBuf,
    },
    /// The path names a symbolic link.
    #[error("opening {}: it is a symbolic link, which is refused; give the path of the file itself", path.display())]
    Symlink {
        /// The path that was given.
        path: PathBuf,
    },
    /// The path names a directory, device, pipe or socket.
    #[error("opening {}: it is not a regular file; check the path", path.display())]
    NotRegularFile {
        /// The path that was given.
        path: PathBuf,
    },
    /// A container is created on an empty disk only.
    #[error(
        "creating a store: the disk it is created on holds {found_bytes} bytes already; it must be empty"
    )]
    NotEmpty {
        /// Bytes that there are.
        found_bytes: u64,
    },
    /// A block does not match its tag.
    #[error(
        "reading the store: block {block} is damaged (it does not match its tag); restore the file from a backup"
    )]
    DamagedBlock {
        /// redb's block number.
        block: u64,
    },
    /// A block was asked for that was never written since the file grew to hold it.
    #[error(
        "reading the store: block {block} was never written, yet something refers to it; restore the file from a backup"
    )]
    UnwrittenBlock {
        /// redb's block number.
        block: u64,
    },
    /// A page matches its tag, and cannot have been written by redb: somebody wrote the file on purpose.
    #[error("reading the store: block {block} is damaged ({why}); restore the file from a backup")]
    DamagedPage {
        /// redb's number of the page's first block.
        block: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The container is closed; something of redb's outlived it.
    #[error("reaching the pages: the store is closed")]
    Closed,
    /// A request reaches beyond redb's file.
    #[error("reaching {bytes} bytes at offset {offset} of the pages, which are {length} bytes long")]
    BeyondEnd {
        /// Where the request begins.
        offset: u64,
        /// How much it asks for.
        bytes: u64,
        /// redb's logical length, in bytes.
        length: u64,
    },
    /// A length or write that this container does not keep.
    #[error("storing the pages: {what} is not supported by format version 1 (offset or length {bytes})")]
    Unsupported {
        /// What was asked.
        what: &'static str,
        /// The offset or length.
        bytes: u64,
    },
    /// A cell is neither erased nor whole.
    #[error("reading shred cell {}: it is damaged; restore the file from a backup", cell.0)]
    DamagedCell {
        /// The cell.
        cell: CellNumber,
    },
    /// A cell was asked for that is erased.
    #[error("reading shred cell {}: it is erased; what it protected is gone for good", cell.0)]
    ErasedCell {
        /// The cell.
        cell: CellNumber,
    },
    /// A cell was asked for that is not there.
    #[error("reaching shred cell {}: there are {capacity} cells; the row that names it is damaged", cell.0)]
    NoSuchCell {
        /// The cell.
        cell: CellNumber,
        /// Cells that there are.
        capacity: u64,
    },
    /// The header can list no further cell segment.
    #[error("writing shred cell {}: a store holds at most {most} cells; move organizations to another store", cell.0)]
    NoRoomForCells {
        /// The cell.
        cell: CellNumber,
        /// The most cells a store can hold.
        most: u64,
    },
    /// A record in the middle of the journal is damaged: acknowledged commits would be lost.
    #[error(
        "replaying the journal, generation {generation}: the record {sequence} at {offset} is damaged, and later ones follow \
         it at {later_offset}; restore the file from a backup"
    )]
    DamagedJournal {
        /// The generation that was replayed.
        generation: u64,
        /// The record that is not whole, counted from 0 in its generation.
        sequence: u64,
        /// Where in the journal it should stand, in bytes.
        offset: u64,
        /// Where in the journal a later record of the generation stands, in bytes.
        later_offset: u64,
    },
    /// The record does not fit behind the others.
    #[error(
        "writing the journal: a record of {needed_bytes} bytes does not fit into the {remaining_bytes} left; checkpoint first"
    )]
    JournalFull {
        /// Bytes that the record takes.
        needed_bytes: u64,
        /// Bytes that are left.
        remaining_bytes: u64,
    },
    /// A sector of the record begins as a record does: left in the journal, it could be taken for one.
    #[error("writing the journal: the record holds what could pass for another record; checkpoint instead")]
    ImitatesHeads,
    /// The journal stands at another generation, or at none yet.
    #[error(
        "writing the journal: generation {asked} was asked for, the journal stands at {current:?}; this is a bug in Keystead"
    )]
    WrongGeneration {
        /// The generation asked for.
        asked: u64,
        /// The generation it stands at; `None` before a replay or restart.
        current: Option<u64>,
    },
    /// An earlier write or sync failed; no later one can be trusted.
    #[error(
        "writing to the store: an earlier write failed ({cause}), so nothing is written any more; close the store and open it again"
    )]
    Failed {
        /// The earlier failure.
        cause: String,
    },
    /// The operating system refused.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl ContainerError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// True when bytes in the file are not what was written there: a matter of restoring, not of trying again.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Empty
                | Self::Foreign
                | Self::DamagedHeader { .. }
                | Self::Truncated { .. }
                | Self::DamagedBlock { .. }
                | Self::DamagedPage { .. }
                | Self::UnwrittenBlock { .. }
                | Self::BeyondEnd { .. }
                | Self::DamagedCell { .. }
                | Self::ErasedCell { .. }
                | Self::NoSuchCell { .. }
                | Self::DamagedJournal { .. }
        )
    }
}

/// redb takes `io::Error`: the container's own error rides inside, and comes out again by `get_ref` and a downcast.
impl From<ContainerError> for io::Error {
    fn from(error: ContainerError) -> Self {
        let kind = match &error {
            ContainerError::Io { source, .. } => source.kind(),
            ContainerError::BeyondEnd { .. } => io::ErrorKind::UnexpectedEof,
            ContainerError::Unsupported { .. } => io::ErrorKind::InvalidInput,
            _ if error.is_damage() => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
