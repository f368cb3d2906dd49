//! Programs and libraries of Debian's, for what no Python package brings: unpacked into the cache, without being installed
//! in the system and without the rights for that.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::install::{STAMP, cache, run_quietly};
use crate::retry::three_times;

/// The root under which these packages are unpacked: `usr/lib/…` and so on. Downloads and unpacks them unless they are there
/// already; may be called from many processes at once.
///
/// # Errors
///
/// `apt-get` or `dpkg-deb` is missing or fails: another system, or no package index in reach.
pub fn unpacked(name: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let cache = cache()?;
    let root = cache.join(format!("debian-{name}"));
    if root.join(STAMP).is_file() {
        return Ok(root);
    }
    let lock =
        File::create(cache.join("install.lock")).context("making the lock file of the installation")?;
    lock.lock().context("waiting for another installation")?;
    if !root.join(STAMP).is_file() {
        unpack(&root, packages).with_context(|| {
            format!(
                "fetching Debian's packages {}; or install them with the system's package manager",
                packages.join(", ")
            )
        })?;
    }
    Ok(root)
}

fn unpack(root: &Path, packages: &[&str]) -> anyhow::Result<()> {
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    let archives = root.join("archives");
    fs::create_dir_all(&archives)?;
    // On another system it is not tried again.
    run_quietly(Command::new("apt-get").arg("--version"))?;
    let mut download = Command::new("apt-get");
    download.arg("download").args(packages).current_dir(&archives);
    three_times("apt-get download", || {
        if run_quietly(&mut download).is_err() {
            // A fresh machine knows no packages yet. Without the rights to ask for them the next try says what is wrong.
            let _ = run_quietly(Command::new("apt-get").arg("update"));
            run_quietly(&mut download)?;
        }
        Ok(())
    })?;
    for archive in fs::read_dir(&archives)? {
        run_quietly(Command::new("dpkg-deb").arg("-x").arg(archive?.path()).arg(root))?;
    }
    fs::remove_dir_all(&archives)?;
    fs::write(root.join(STAMP), "")?;
    Ok(())
}

/// The file of this name somewhere under a directory.
///
/// # Errors
///
/// It is not there.
pub fn find(under: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let mut directories = vec![under.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if entry.file_name() == name {
                return Ok(entry.path());
            }
        }
    }
    bail!("{name} is not under {}", under.display())
}
