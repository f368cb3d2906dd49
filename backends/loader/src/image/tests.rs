//! What is loaded is what was read.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use super::*;

/// Two libraries that differ in what `which` answers.
fn library(which: u8, directory: &Path) -> std::path::PathBuf {
    let source = directory.join(format!("{which}.c"));
    std::fs::write(&source, format!("const unsigned char which = {which};\n")).expect("written");
    let library = directory.join(format!("{which}.so"));
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let built = std::process::Command::new(compiler)
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .status()
        .expect("there is a C compiler");
    assert!(built.success());
    library
}

fn which(linked: Linked) -> u8 {
    let address = linked.symbol("which").expect("exported");
    // SAFETY: the library above defines it as one byte.
    unsafe { *address.cast::<u8>() }
}

fn read(path: &Path) -> Image {
    Image::read(File::open(path).expect("there"), path, u64::MAX).expect("readable")
}

#[test]
fn a_file_that_is_swapped_or_overwritten_after_it_was_read_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (first, second) = (library(41, directory.path()), library(42, directory.path()));
    let (path, other) = (
        directory.path().join("plugin.so"),
        directory.path().join("other.so"),
    );

    std::fs::copy(&first, &path).expect("copied");
    let image = read(&path);
    assert_eq!(image.digest(), crate::digest_file(&first).expect("readable"));
    std::fs::copy(&second, &path).expect("overwritten in place");
    assert_eq!(which(image.link().expect("links")), 41);

    let image = read(&path);
    std::fs::copy(&first, &other).expect("copied");
    std::fs::rename(&other, &path).expect("swapped");
    assert_eq!(which(image.link().expect("links")), 42);
    assert_eq!(which(read(&path).link().expect("links")), 41);
}

#[test]
fn the_image_cannot_be_written_grown_shrunk_mapped_for_writing_or_unsealed() {
    use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate};
    let directory = tempfile::tempdir().expect("a directory");
    let path = library(43, directory.path());
    let image = read(&path);
    let size = std::fs::metadata(&path).expect("there").len();
    let descriptor = image.content.as_fd();
    let file = File::from(descriptor.try_clone_to_owned().expect("cloned"));
    assert!(file.write_at(b"x", 0).is_err());
    assert!(ftruncate(descriptor, size + 1).is_err());
    assert!(ftruncate(descriptor, size - 1).is_err());
    assert!(fcntl_add_seals(descriptor, SealFlags::FUTURE_WRITE).is_err());
    let seals = fcntl_get_seals(descriptor).expect("sealed");
    assert!(
        seals.contains(SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL),
        "{seals:?}"
    );
    // Opened anew for writing, by the way that is open to whoever may look at our descriptors:
    let again = std::fs::OpenOptions::new()
        .write(true)
        .open(image.link_path())
        .expect("root may open it");
    assert!(again.write_at(b"x", 0).is_err());
}

#[test]
fn a_file_larger_than_the_cap_is_refused_also_when_its_size_is_not_known_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("large");
    std::fs::write(&path, vec![0; 1001]).expect("written");
    let read = |path: &Path, cap| Image::read(File::open(path).expect("there"), path, cap);
    assert!(read(&path, 1001).is_ok());
    assert!(matches!(
        read(&path, 1000).err(),
        Some(Refusal::TooLarge { size_max_bytes: 1000 })
    ));
    // Its metadata says 0 bytes.
    let path = Path::new("/proc/version");
    assert!(matches!(
        read(path, 10).err(),
        Some(Refusal::TooLarge { size_max_bytes: 10 })
    ));
}

#[test]
fn a_file_that_is_no_library_is_refused_by_the_dynamic_linker_in_its_words() {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, content) in [
        ("empty", &b""[..]),
        ("text", b"#!/bin/sh\nexit 0\n"),
        ("half", b"\x7fELF\x02\x01\x01"),
    ] {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("written");
        let error = read(&path).link().err().expect("no library");
        assert!(
            matches!(&error, Refusal::Link { reason } if !reason.is_empty()),
            "{name}: {error}"
        );
    }
}

/// A mapping through which the file could still be written, until it is dropped.
struct Mapped(*mut c_void);

/// Of one page: what the tests below write is shorter.
const MAPPED_BYTES: usize = 4096;

impl Mapped {
    fn of(copy: &Copy) -> Self {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at a place that the kernel chooses; nothing is read or written through it.
        let mapped = unsafe {
            mmap(
                std::ptr::null_mut(),
                MAPPED_BYTES,
                access,
                MapFlags::SHARED,
                &copy.0,
                0,
            )
        };
        Self(mapped.expect("mapped"))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it was mapped above, with this length, and nobody has its address.
        unsafe { rustix::mm::munmap(self.0, MAPPED_BYTES) }.expect("unmapped");
    }
}

// SAFETY: an address that only `drop` uses.
unsafe impl Send for Mapped {}

fn copy_of_something() -> Copy {
    let mut copy = Copy::begin(Path::new("plugin.so")).expect("begun");
    copy.write(b"something").expect("written");
    copy
}

/// A continuous integration run failed to load a plugin that it had loaded many times: the kernel used a page of the image
/// for more than the 150 ms that it waits for by itself, and "device or resource busy" was taken for an answer.
#[test]
fn an_image_that_is_in_use_for_a_moment_is_sealed_all_the_same() {
    let tried = || {
        let copy = copy_of_something();
        let mapped = Mapped::of(&copy);
        let refused = rustix::fs::fcntl_add_seals(&copy.0, rustix::fs::SealFlags::WRITE);
        assert_eq!(refused, Err(rustix::io::Errno::BUSY));
        let is_unused = std::sync::Arc::new(AtomicBool::new(false));
        let user = std::thread::spawn({
            let is_unused = std::sync::Arc::clone(&is_unused);
            move || {
                std::thread::sleep(std::time::Duration::from_millis(100));
                drop(mapped);
                is_unused.store(true, Ordering::SeqCst);
            }
        });
        let sealed = copy.seal();
        let was_unused = is_unused.load(Ordering::SeqCst);
        user.join().expect("no panic");
        match sealed {
            Ok(content) => Some(content),
            // The machine let the user rest for longer than sealing waits: that was no moment.
            Err(_) if !was_unused => None,
            Err(refusal) => panic!("{refusal}"),
        }
    };
    let content = (0..3).find_map(|_| tried()).expect("sealed");
    assert!(File::from(content).write_at(b"x", 0).is_err());
}

#[test]
fn an_image_that_others_could_write_is_never_sealed_and_the_error_says_so() {
    let copy = copy_of_something();
    let _mapped = Mapped::of(&copy);
    let refusal = copy.seal().expect_err("could be written");
    let text = refusal.to_string();
    assert!(text.contains("something else uses its pages"), "{text}");
}
