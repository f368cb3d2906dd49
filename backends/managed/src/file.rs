//! The keyring file on disk: read with suspicion, written atomically, changed by one process at a time.

use crate::error::{Result, from_io, invalid_config};
use crate::format::FILE_MAX_BYTES;
use keystead_backend::{BackendError, ErrorCode};
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

const OWNER_ONLY: u32 = 0o600;
const LOCK_POLL: Duration = Duration::from_millis(5);

/// What `stat` says of a file, as far as it tells one content from another.
///
/// Every change of a keyring is a new file renamed into place, so the inode alone tells, provided that the file
/// that was read stays open: then its inode is not given to another. Size and times find an edit in place (a backup
/// copied over the file, a `chmod`).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The stamp of what is at `path` now; follows no link. One system call.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        std::fs::symlink_metadata(path)
            .map(|metadata| Self::of(&metadata))
            .map_err(|error| from_io("looking at the file", &error))
    }
}

/// A file that was read: its bytes, its stamp, and the open file that keeps its inode from being reused.
pub(crate) struct ReadFile {
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    pub(crate) stamp: Stamp,
    pub(crate) file: File,
}

/// Reads a keyring file, after checking that it is a regular file of this user's, closed to everybody else.
pub(crate) fn read(path: &Path) -> Result<ReadFile> {
    let failed = |error| from_io("reading the file", &error);
    let file = OpenOptions::new()
        .read(true)
        // Not blocking: a pipe in the file's place must not hang the open.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check_access(&metadata, path)?;
    let stamp = Stamp::of(&metadata);

    // Room for the whole at once (growing would leave copies behind), and for one byte more than is allowed.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_MAX_BYTES + 1));
    (&file)
        .take(FILE_MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > FILE_MAX_BYTES {
        return Err(invalid_config(format!(
            "the file is larger than any keyring ({FILE_MAX_BYTES} bytes); name the keyring file"
        )));
    }
    Ok(ReadFile { bytes, stamp, file })
}

fn check_access(metadata: &Metadata, path: &Path) -> Result<()> {
    if !metadata.is_file() {
        return Err(invalid_config("it is not a regular file; name the keyring file"));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(BackendError::new(
            ErrorCode::AccessDenied,
            format!(
                "its mode is {mode:04o}, so others than its owner can reach the master keys; they are not used until you \
                 run: chmod 600 {}",
                path.display()
            ),
        ));
    }
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(BackendError::new(
            ErrorCode::AccessDenied,
            format!(
                "it belongs to user {owner}, but this process runs as user {user}; run it as the keyring's owner"
            ),
        ));
    }
    Ok(())
}

/// True when there is something at `path`, be it a dangling link.
pub(crate) fn exists(path: &Path) -> Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(from_io("looking at the file", &error)),
    }
}

/// The right to change a keyring: an exclusive lock of the operating system on the file `<keyring>.lock` beside it.
/// Ends when dropped, or with the process.
pub(crate) struct ChangeLock {
    _file: File,
}

impl ChangeLock {
    /// Waits for the lock for no longer than `timeout`.
    pub(crate) fn acquire(path: &Path, timeout: Duration) -> Result<Self> {
        let lock_path = beside(path, ".lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(OWNER_ONLY)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&lock_path)
            .map_err(|error| in_directory(path, "making the lock file beside it", &error))?;
        let mut waited = Duration::ZERO;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if waited < timeout => {
                    std::thread::sleep(LOCK_POLL);
                    waited += LOCK_POLL;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(BackendError::new(
                        ErrorCode::Timeout,
                        format!(
                            "another process has been changing it for {} ms (it holds {}); try again, or see what that \
                             process is doing",
                            waited.as_millis(),
                            lock_path.display()
                        ),
                    ));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(from_io("locking the lock file beside it", &error));
                }
            }
        }
    }

    /// Puts `bytes` in the place of the file, whole or not at all: written under a temporary name, synced, renamed, the
    /// directory synced. A crash before the rename leaves the old file, and a remnant that the next change removes.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let temporary = beside(path, ".tmp");
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(in_directory(
                    path,
                    "removing a remnant of an earlier change beside it",
                    &error,
                ));
            }
            _ => {}
        }
        let failed = |error| in_directory(path, "writing the new file beside it", &error);
        // Exclusive creation follows no link.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(OWNER_ONLY)
            .open(&temporary)
            .map_err(failed)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        let renamed = written.and_then(|()| std::fs::rename(&temporary, path));
        if let Err(error) = renamed {
            // Nothing is lost if this fails: the next change removes it.
            let _ = std::fs::remove_file(&temporary);
            return Err(failed(error));
        }
        File::open(directory(path))
            .and_then(|directory| directory.sync_all())
            .map_err(|error| from_io("syncing its directory (the change may or may not last)", &error))
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn in_directory(path: &Path, doing: &str, error: &std::io::Error) -> BackendError {
    if error.kind() == ErrorKind::NotFound {
        return BackendError::new(
            ErrorCode::Unavailable,
            format!(
                "{doing}: there is no directory {}; make or mount it",
                directory(path).display()
            ),
        );
    }
    from_io(doing, error)
}
