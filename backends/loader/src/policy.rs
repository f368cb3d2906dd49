//! What may be loaded, as far as the path tells: steps 1 and 2.
//!
//! The path is walked from the root, each component opened from the directory before it without following links, and
//! judged by the descriptor that was opened. So nothing that happens to the path meanwhile leads to another file than the
//! one whose way was checked.
//!
//! The rule for permissions is that of `sshd` for keys (StrictModes) and of `sudo` for its plugins: the file and every
//! directory above it belong to root or to the effective user, and neither group nor others may write. One exception: a
//! world-writable directory with the sticky bit, such as `/tmp`, may lie above (what is below belongs to root or to us, and
//! there only owners may rename), but not hold the plugin itself.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};

use crate::error::Refusal;

const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Opens a file for reading if its path may be trusted, by step 2 of loading: a plugin, or a config file that says which plugins to load
/// and what they are to trust.
///
/// # Errors
///
/// What is wrong with the path, the file, or a directory above it.
pub fn open(path: &Path) -> Result<File, Refusal> {
    open_as(path, rustix::process::geteuid().as_raw())
}

fn open_as(path: &Path, user: u32) -> Result<File, Refusal> {
    let components = components(path)?;
    let (name, parents) = components.split_last().ok_or(Refusal::IndirectPath)?;

    let mut so_far = PathBuf::from("/");
    let mut directory = open_directory(CWD, OsStr::new("/"), &so_far)?;
    check_directory(&directory, &so_far, user, parents.is_empty())?;
    for (index, parent) in parents.iter().enumerate() {
        so_far.push(parent);
        directory = open_directory(&directory, parent, &so_far)?;
        check_directory(&directory, &so_far, user, index + 1 == parents.len())?;
    }

    // Not blocking: a pipe in the plugin's place is refused, not waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&directory, *name, flags, Mode::empty())
        .map_err(|error| explain(&directory, name, path, error))?;
    let stat = rustix::fs::fstat(&file).map_err(|error| Refusal::Read { error: error.into() })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Refusal::NotAFile);
    }
    check_owner(&stat, path, user)?;
    check_mode(&stat, path)?;
    Ok(File::from(file))
}

/// The components of an absolute path that says exactly where a file is.
pub(crate) fn components(path: &Path) -> Result<Vec<&OsStr>, Refusal> {
    let bytes = path.as_os_str().as_bytes();
    let rest = bytes.strip_prefix(b"/").ok_or(Refusal::RelativePath)?;
    // Not `Path::components`, which hides what is to be refused.
    let components: Vec<&OsStr> = rest.split(|&byte| byte == b'/').map(OsStr::from_bytes).collect();
    let direct = |name: &&OsStr| !["", ".", ".."].contains(&name.to_str().unwrap_or("?"));
    if components.iter().all(direct) && CString::new(bytes).is_ok() {
        Ok(components)
    } else {
        Err(Refusal::IndirectPath)
    }
}

fn open_directory(above: impl std::os::fd::AsFd, name: &OsStr, so_far: &Path) -> Result<OwnedFd, Refusal> {
    // A path descriptor needs no right to read the directory, only to pass through it.
    #[cfg(target_os = "linux")]
    let access = OFlags::PATH;
    #[cfg(not(target_os = "linux"))]
    let access = OFlags::RDONLY;
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&above, name, flags, Mode::empty())
        .map_err(|error| explain(&above, name, so_far, error))
}

/// Systems differ in what opening a link without following it fails with; so ask.
fn explain(above: impl std::os::fd::AsFd, name: &OsStr, so_far: &Path, error: rustix::io::Errno) -> Refusal {
    let component = so_far.to_owned();
    match rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
            Refusal::SymbolicLink { component }
        }
        _ => Refusal::Open {
            component,
            error: error.into(),
        },
    }
}

fn check_directory(
    directory: &OwnedFd,
    so_far: &Path,
    user: u32,
    holds_the_plugin: bool,
) -> Result<(), Refusal> {
    let stat = rustix::fs::fstat(directory).map_err(|error| Refusal::Open {
        component: so_far.to_owned(),
        error: error.into(),
    })?;
    check_owner(&stat, so_far, user)?;
    if mode(&stat) & STICKY != 0 && !holds_the_plugin {
        return Ok(());
    }
    check_mode(&stat, so_far)
}

fn check_owner(stat: &Stat, so_far: &Path, user: u32) -> Result<(), Refusal> {
    if stat.st_uid == 0 || stat.st_uid == user {
        return Ok(());
    }
    Err(Refusal::Owner {
        component: so_far.to_owned(),
        owner_uid: stat.st_uid,
    })
}

fn check_mode(stat: &Stat, so_far: &Path) -> Result<(), Refusal> {
    let mode = mode(stat);
    if mode & WRITABLE_BY_OTHERS == 0 {
        return Ok(());
    }
    Err(Refusal::Writable {
        component: so_far.to_owned(),
        mode,
    })
}

#[allow(clippy::useless_conversion)] // 16 bits on some systems
fn mode(stat: &Stat) -> u32 {
    u32::from(stat.st_mode) & 0o7777
}

#[cfg(test)]
mod tests;
