//! A real file as a disk: opened without following links, locked against a second handle, created under a temporary name.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::NamedTempFile;

use super::disk::Disk;
use super::error::ContainerError;

/// A regular file, locked exclusively for as long as the value lives. Unix only.
#[derive(Debug)]
pub(crate) struct FileDisk {
    file: File,
}

impl FileDisk {
    /// Opens an existing file for reading and writing, and locks it.
    ///
    /// The last component of the path must not be a symbolic link (those before it may be). The lock is an advisory one
    /// of the whole file (`flock`): it keeps out every other `FileDisk`, in this process or another.
    pub(crate) fn open(path: &Path) -> Result<Self, ContainerError> {
        Self::open_for(path, OpenOptions::new().read(true).write(true))
    }

    /// The same for reading alone.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self, ContainerError> {
        Self::open_for(path, OpenOptions::new().read(true))
    }

    fn open_for(path: &Path, options: &mut OpenOptions) -> Result<Self, ContainerError> {
        let owned = || path.to_path_buf();
        let file = options
            // Without O_NONBLOCK, opening some devices would wait; for a regular file it changes nothing.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .map_err(|source| match (source.kind(), source.raw_os_error()) {
                (io::ErrorKind::NotFound, _) => ContainerError::NotFound { path: owned() },
                (_, Some(libc::ELOOP | libc::EMLINK)) => ContainerError::Symlink { path: owned() },
                (_, Some(libc::EISDIR | libc::ENXIO)) => ContainerError::NotRegularFile { path: owned() },
                _ => ContainerError::Io {
                    doing: format!("opening {}", path.display()),
                    source,
                },
            })?;
        let metadata = file
            .metadata()
            .map_err(ContainerError::io(format!("looking at {}", path.display())))?;
        if !metadata.is_file() {
            return Err(ContainerError::NotRegularFile { path: owned() });
        }
        lock(&file, path)?;
        Ok(Self { file })
    }
}

fn lock(file: &File, path: &Path) -> Result<(), ContainerError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => ContainerError::AlreadyOpen {
            path: path.to_path_buf(),
        },
        TryLockError::Error(source) => ContainerError::Io {
            doing: format!("locking {}", path.display()),
            source,
        },
    })
}

impl Disk for FileDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// `fdatasync`, which takes the file's length with it.
    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// A store file in the making. It has a temporary name in the directory where it will stand,
/// `.NAME.creating-XXXXXXXX`, mode 0600, until [`publish`](Self::publish) gives it its own: a crash before that leaves
/// nothing at the path, only a file whose name says what it was. Dropped unpublished, it is removed.
#[derive(Debug)]
pub(crate) struct NewFile {
    temporary: NamedTempFile,
    disk: Arc<FileDisk>,
    path: PathBuf,
    directory: PathBuf,
}

impl NewFile {
    /// Creates the temporary file and locks it. Refuses when anything stands at `path`, be it a dangling link.
    pub(crate) fn begin(path: &Path) -> Result<Self, ContainerError> {
        let doing = || format!("creating {}", path.display());
        let Some(name) = path.file_name() else {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the path ends in no file name");
            return Err(ContainerError::Io {
                doing: doing(),
                source,
            });
        };
        match fs::symlink_metadata(path) {
            Ok(_) => {
                return Err(ContainerError::AlreadyExists {
                    path: path.to_path_buf(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(ContainerError::Io {
                    doing: doing(),
                    source,
                });
            }
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".creating-");
        // tempfile opens with O_EXCL and mode 0600.
        let temporary = tempfile::Builder::new()
            .prefix(&prefix)
            .rand_bytes(8)
            .tempfile_in(&directory)
            .map_err(ContainerError::io(doing()))?;
        lock(temporary.as_file(), path)?;
        // The clone shares the lock: it is released when both are closed.
        let file = temporary
            .as_file()
            .try_clone()
            .map_err(ContainerError::io(doing()))?;
        Ok(Self {
            temporary,
            disk: Arc::new(FileDisk { file }),
            path: path.to_path_buf(),
            directory,
        })
    }

    /// The file as a disk. It stays usable, and locked, after [`publish`](Self::publish).
    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::<FileDisk>::clone(&self.disk)
    }

    /// Gives the file its name: syncs it, renames it without replacing anything, syncs the directory. When this
    /// returns, the store survives a loss of power; when it fails, perhaps nothing stands at the path.
    pub(crate) fn publish(self) -> Result<(), ContainerError> {
        let Self {
            temporary,
            path,
            directory,
            ..
        } = self;
        let doing = || format!("creating {}", path.display());
        temporary
            .as_file()
            .sync_all()
            .map_err(ContainerError::io(doing()))?;
        temporary
            .persist_noclobber(&path)
            .map_err(|failed| match failed.error.kind() {
                io::ErrorKind::AlreadyExists => ContainerError::AlreadyExists { path: path.clone() },
                _ => ContainerError::Io {
                    doing: doing(),
                    source: failed.error,
                },
            })?;
        File::open(&directory)
            .and_then(|directory| directory.sync_all())
            .map_err(ContainerError::io(format!(
                "syncing the directory of {}",
                path.display()
            )))
    }
}
