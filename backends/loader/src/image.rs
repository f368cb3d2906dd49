//! The plugin's bytes: read once, digested, and handed to the dynamic linker. Steps 3 to 5.
//!
//! On Linux the bytes go to a memory file as they are read, which is then sealed: nobody, this process included, can change
//! it any more. The dynamic linker opens that file by its descriptor. Elsewhere it opens the path again.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::Digest;
use crate::error::Refusal;

/// What was read of a plugin.
pub(crate) struct Image {
    digest: Digest,
    content: Content,
}

#[cfg(target_os = "linux")]
type Content = std::os::fd::OwnedFd;
#[cfg(not(target_os = "linux"))]
type Content = std::path::PathBuf;

/// A plugin in this process's memory, for good.
#[derive(Clone, Copy)]
pub(crate) struct Linked {
    handle: *mut c_void,
    /// It wrote where it must not, and is not called any more: by nobody, however often it is loaded again.
    stopped: &'static AtomicBool,
}

// SAFETY: the handle of a library that is never closed; looking symbols up in it is thread-safe.
unsafe impl Send for Linked {}
// SAFETY: as above.
unsafe impl Sync for Linked {}

/// The plugins that are linked already. The same bytes are linked once, so an application that loads a plugin for each of
/// its stores has one.
static LINKED: Mutex<Vec<(Digest, Linked)>> = Mutex::new(Vec::new());

impl Image {
    /// Reads the file, once, refusing one that is too large.
    pub(crate) fn read(mut file: File, path: &Path, size_max_bytes: u64) -> Result<Self, Refusal> {
        let read_failed = |error| Refusal::Read { error };
        // Said at once where the size is known; counted below, since it may change.
        if file.metadata().map_err(read_failed)?.len() > size_max_bytes {
            return Err(Refusal::TooLarge { size_max_bytes });
        }
        let mut copy = Copy::begin(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut total: u64 = 0;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let bytes = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => &buffer[..len],
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_failed(error)),
            };
            total += bytes.len() as u64;
            if total > size_max_bytes {
                return Err(Refusal::TooLarge { size_max_bytes });
            }
            // The very bytes that are digested are those that will run.
            hasher.update(bytes);
            copy.write(bytes)?;
        }
        Ok(Self {
            digest: hasher.finalize().into(),
            content: copy.seal()?,
        })
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Hands the image to the dynamic linker, which runs the constructors in it.
    pub(crate) fn link(self) -> Result<Linked, Refusal> {
        let mut linked = LINKED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, already)) = linked.iter().find(|(digest, _)| *digest == self.digest) {
            return Ok(*already);
        }
        let path = self.link_path();
        // SAFETY: constructors of a library run here. Which library that may be was decided by digest, owner and mode;
        // that its code is sound is what the application vouches for by allowing it.
        let library =
            unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| Refusal::Link {
                reason: describe(&error),
            })?;
        // Never closed: see the crate's notes.
        let handle = library.into_raw();
        // Nor is the descriptor: the dynamic linker knows a library by its name, and a descriptor that is closed and given
        // out again would make the name of this one the name of the next.
        std::mem::forget(self.content);
        if linked.iter().any(|(_, other)| std::ptr::eq(other.handle, handle)) {
            // Only if somebody closed descriptors that are not theirs.
            return Err(Refusal::Link {
                reason: "it answered another plugin that was loaded before".to_owned(),
            });
        }
        let new = Linked {
            handle,
            stopped: Box::leak(Box::default()),
        };
        linked.push((self.digest, new));
        Ok(new)
    }
}

impl Linked {
    /// The plugin with these bytes, if it is linked.
    #[cfg(feature = "probe")]
    pub(crate) fn find(digest: Digest) -> Option<Self> {
        let linked = LINKED.lock().unwrap_or_else(PoisonError::into_inner);
        linked
            .iter()
            .find(|(known, _)| *known == digest)
            .map(|(_, linked)| *linked)
    }

    /// Set for good when the plugin is not to be called any more.
    pub(crate) fn stopped(self) -> &'static AtomicBool {
        self.stopped
    }

    /// The address of an exported symbol; none when there is no such symbol, or it is null.
    pub(crate) fn symbol(self, name: &str) -> Option<*mut c_void> {
        // SAFETY: the handle came from a library that was never closed. Not dropped, so that it is not closed here.
        let library = std::mem::ManuallyDrop::new(unsafe { Library::from_raw(self.handle) });
        // SAFETY: only its address is taken here, as a pointer.
        let symbol = unsafe { library.get::<*mut c_void>(name.as_bytes()) }.ok()?;
        Some(symbol.into_raw()).filter(|address| !address.is_null())
    }
}

fn describe(error: &libloading::Error) -> String {
    use std::error::Error as _;
    error
        .source()
        .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(target_os = "linux")]
impl Image {
    fn link_path(&self) -> std::path::PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}", self.content.as_raw_fd()).into()
    }
}

/// The memory file that is being written.
#[cfg(target_os = "linux")]
struct Copy(File);

/// How often sealing is tried, and for how long it rests in between: a second in all, and up to 8.5 with the kernel's waits.
#[cfg(target_os = "linux")]
const SEAL_TRIES: u32 = 50;
#[cfg(target_os = "linux")]
const SEAL_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

#[cfg(target_os = "linux")]
impl Copy {
    /// The name shows in `/proc/<pid>/maps` and in debuggers; it has no other meaning.
    fn begin(path: &Path) -> Result<Self, Refusal> {
        use rustix::fs::{MemfdFlags, memfd_create};
        let name: String = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .chars()
            .take(60)
            .collect();
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // It is mapped, not executed as a program; Linux before 6.3 does not know the flag that says so.
        let file = memfd_create(name.as_str(), flags | MemfdFlags::NOEXEC_SEAL)
            .or_else(|_| memfd_create(name.as_str(), flags))
            .map_err(|error| Refusal::Image { error: error.into() })?;
        Ok(Self(File::from(file)))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        std::io::Write::write_all(&mut self.0, bytes).map_err(|error| Refusal::Image { error })
    }

    /// Tries again while a page is in use elsewhere: the kernel refuses to seal a page that something else holds a
    /// reference to (it could be written through it), waits for it by itself, but only for 150 ms, and takes its own
    /// passing use for it: moving pages while memory is compacted, say.
    fn seal(self) -> Result<Content, Refusal> {
        use rustix::fs::{SealFlags, fcntl_add_seals};
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        let mut tries = 1;
        loop {
            match fcntl_add_seals(&self.0, seals) {
                Ok(()) => return Ok(self.0.into()),
                Err(rustix::io::Errno::BUSY) if tries < SEAL_TRIES => std::thread::sleep(SEAL_PAUSE),
                Err(error) => return Err(Refusal::Image { error: error.into() }),
            }
            tries += 1;
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Image {
    fn link_path(&self) -> std::path::PathBuf {
        self.content.clone()
    }
}

/// Without sealed memory files the path is all there is.
#[cfg(not(target_os = "linux"))]
struct Copy(std::path::PathBuf);

#[cfg(not(target_os = "linux"))]
impl Copy {
    fn begin(path: &Path) -> Result<Self, Refusal> {
        Ok(Self(path.to_owned()))
    }

    fn write(&mut self, _bytes: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }

    fn seal(self) -> Result<Content, Refusal> {
        Ok(self.0)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
