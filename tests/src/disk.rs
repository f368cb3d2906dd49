//! A simulated disk: in memory, it records every write, change of length and sync, so that what power may leave of them can
//! be made again; and it fails as it is told to.
//!
//! What it takes a disk to do is what the engine's [`Disk`] says: a sync makes everything before it survive; without one,
//! each sector of 512 bytes of a write survives whole or not at all; lengths survive in the order in which they were set.

use crate::contents::Contents;
use keystead::simulation::Disk;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The unit that survives a loss of power whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;
/// One thing that was asked of a disk, and that changes it.
#[derive(Clone, PartialEq, Eq)]
pub enum Operation {
    /// Bytes at an offset.
    Write(u64, Arc<[u8]>),
    /// A length.
    SetLen(u64),
    /// Everything before it is to survive.
    Sync,
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(offset, data) => write!(f, "write {}..{}", offset, offset + data.len() as u64),
            Self::SetLen(len) => write!(f, "set_len {len}"),
            Self::Sync => f.write_str("sync"),
        }
    }
}

impl Operation {
    /// Does it, whole.
    pub fn apply(&self, contents: &mut Contents) {
        match self {
            Self::Write(offset, data) => contents.write(*offset, data),
            Self::SetLen(len) => contents.set_len(*len),
            Self::Sync => {}
        }
    }
}

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The change with this number (from 0; writes, lengths and syncs count) fails and has no effect; the ones after it work.
    ChangeOnce(u64),
    /// That change and every later one fails.
    ChangeForGood(u64),
    /// That write reaches the disk up to the sector in its middle, and fails; every later change fails.
    ShortWrite(u64),
    /// The read with this number (from 0) fails.
    ReadOnce(u64),
    /// There is room for so many bytes of data; then writes to new places fail, for want of space.
    Full(u64),
    /// Lengths beyond so many bytes are refused, for want of space.
    LengthMax(u64),
    /// Syncs return, and do nothing.
    LyingSync,
}

/// The disk. Clones of its `Arc` are the same disk: what one store left when it was dropped, the next one opens.
pub struct SimulatedDisk {
    state: Mutex<State>,
}

struct State {
    base: Contents,
    contents: Contents,
    operations: Vec<Operation>,
    changes: u64,
    reads: u64,
    fault: Option<Fault>,
    /// A change or read has met the fault.
    met: bool,
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedDisk")
    }
}

impl SimulatedDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::holding(Contents::default())
    }

    /// A disk that holds this, durably.
    #[must_use]
    pub fn holding(contents: Contents) -> Arc<Self> {
        Self::after_a_kill(contents, &[])
    }

    /// The disk after the process was killed, and the machine went on: what was pending is there to be read, but a loss of
    /// power may still take it.
    #[must_use]
    pub fn after_a_kill(durable: Contents, pending: &[Operation]) -> Arc<Self> {
        let mut contents = durable.clone();
        pending
            .iter()
            .for_each(|operation| operation.apply(&mut contents));
        let state = State {
            base: durable,
            contents,
            operations: pending.to_vec(),
            changes: 0,
            reads: 0,
            fault: None,
            met: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    /// From now on the disk has this fault; its numbers count from now.
    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut state = self.lock();
        (state.fault, state.met, state.changes, state.reads) = (fault, false, 0, 0);
    }

    /// True when something has met the fault.
    #[must_use]
    pub fn met_the_fault(&self) -> bool {
        self.lock().met
    }

    /// Writes, lengths and syncs since the fault was set, or since the beginning.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Reads since the fault was set, or since the beginning.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// How many operations are recorded.
    #[must_use]
    pub fn recorded(&self) -> usize {
        self.lock().operations.len()
    }

    /// What stands on it now, for whoever reads it while the machine is on.
    #[must_use]
    pub fn contents(&self) -> Contents {
        self.lock().contents.clone()
    }

    /// Everything that was asked of it.
    #[must_use]
    pub fn recording(&self) -> Recording {
        let state = self.lock();
        Recording {
            base: state.base.clone(),
            operations: state.operations.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, operation: Operation) -> io::Result<()> {
        let mut state = self.lock();
        let number = state.changes;
        state.changes += 1;
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let broken = || io::Error::other("the simulated disk is broken");
        let refused = match (state.fault, &operation) {
            (Some(Fault::ChangeOnce(at)), _) if number == at => Some(broken()),
            (Some(Fault::ChangeForGood(at)), _) if number >= at => Some(broken()),
            (Some(Fault::ShortWrite(at)), _) if number > at => Some(broken()),
            (Some(Fault::ShortWrite(at)), Operation::Write(offset, data)) if number == at => {
                let middle = (*offset as usize + data.len() / 2) / SECTOR_BYTES * SECTOR_BYTES;
                let done = middle.saturating_sub(*offset as usize);
                let half = Operation::Write(*offset, data[..done].into());
                half.apply(&mut state.contents);
                state.operations.push(half);
                Some(broken())
            }
            (Some(Fault::LengthMax(most)), Operation::SetLen(len)) if *len > most => Some(full()),
            (Some(Fault::Full(most)), Operation::Write(..)) => {
                let mut after = state.contents.clone();
                operation.apply(&mut after);
                let grows = after.allocated_bytes() > state.contents.allocated_bytes();
                (grows && after.allocated_bytes() > most).then(full)
            }
            (Some(Fault::LyingSync), Operation::Sync) => return Ok(()),
            _ => None,
        };
        if let Some(error) = refused {
            state.met = true;
            return Err(error);
        }
        operation.apply(&mut state.contents);
        state.operations.push(operation);
        Ok(())
    }
}

impl Disk for SimulatedDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().contents.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Operation::SetLen(len))
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.lock();
        let number = state.reads;
        state.reads += 1;
        if state.fault == Some(Fault::ReadOnce(number)) {
            state.met = true;
            return Err(io::Error::other("the simulated disk does not read this"));
        }
        if state.contents.read(offset, out) {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        assert!(end <= self.lock().contents.len(), "a write beyond the length");
        self.change(Operation::Write(offset, data.into()))
    }

    fn sync(&self) -> io::Result<()> {
        self.change(Operation::Sync)
    }
}

/// What was asked of a disk, from a beginning on.
#[derive(Debug, Clone)]
pub struct Recording {
    /// What the disk held, durably, at the beginning.
    pub base: Contents,
    /// What was asked of it since.
    pub operations: Vec<Operation>,
}

impl Recording {
    /// The disk as it was when so many operations had been done, and power went.
    #[must_use]
    pub fn cut_at(&self, operations: usize) -> PowerCut {
        self.cuts(&[operations]).remove(0)
    }

    /// The same for many moments, given in rising order, in one walk.
    #[must_use]
    pub fn cuts(&self, moments: &[usize]) -> Vec<PowerCut> {
        let (mut durable, mut pending, mut done) = (self.base.clone(), Vec::new(), 0);
        let mut cuts = Vec::with_capacity(moments.len());
        for &moment in moments {
            for operation in &self.operations[done..moment] {
                if *operation == Operation::Sync {
                    pending
                        .drain(..)
                        .for_each(|pending: Operation| pending.apply(&mut durable));
                } else {
                    pending.push(operation.clone());
                }
            }
            done = moment;
            cuts.push(PowerCut {
                durable: durable.clone(),
                pending: pending.clone(),
            });
        }
        cuts
    }

    /// A hash of everything that was asked: the same for the same run. Between two syncs the order of writes to different
    /// places is no part of it, because nothing depends on it.
    #[must_use]
    pub fn trace(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut interval: Vec<Vec<u8>> = Vec::new();
        for operation in &self.operations {
            let mut line = format!("{operation:?}").into_bytes();
            if let Operation::Write(_, data) = operation {
                line.extend_from_slice(blake3::hash(data).as_bytes());
            }
            interval.push(line);
            if *operation == Operation::Sync {
                interval.sort();
                for line in interval.drain(..) {
                    hasher.update(&line);
                }
            }
        }
        interval.sort();
        for line in interval {
            hasher.update(&line);
        }
        hasher.finalize()
    }
}

/// A moment at which power went: what is certain to be there, and what may be.
#[derive(Debug, Clone)]
pub struct PowerCut {
    /// What the last sync made durable.
    pub durable: Contents,
    /// What was asked since: writes and lengths.
    pub pending: Vec<Operation>,
}
