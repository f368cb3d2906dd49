//! Real files: creating, opening, locking.

use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

fn create(path: &Path) -> Container {
    let file = NewFile::begin(path).unwrap();
    let container = Container::create(file.disk(), STORE_ID).unwrap();
    file.publish().unwrap();
    container
}

fn open(path: &Path) -> Result<Container, ContainerError> {
    Container::open(Arc::new(FileDisk::open(path)?))
}

fn names_in(directory: &Path) -> Vec<String> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_published_store_is_there_private_and_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.keystead");
    let container = create(&path);
    assert_eq!(names_in(directory.path()), ["app.keystead"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    container.write_cells(&[(CellNumber(0), &[4; 32])]).unwrap();
    drop(container);
    assert_eq!(
        open(&path).unwrap().read_cell(CellNumber(0)).unwrap().as_slice(),
        [4; 32]
    );
}

#[test]
fn a_store_is_open_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.keystead");
    let created = create(&path);
    assert!(
        matches!(open(&path), Err(ContainerError::AlreadyOpen { .. })),
        "the lock outlives the rename"
    );
    let leaked = created.page_file();
    drop(created);
    let opened = open(&path).unwrap();
    assert!(matches!(open(&path), Err(ContainerError::AlreadyOpen { .. })));
    drop(opened);
    open(&path).unwrap();
    assert!(
        redb::StorageBackend::len(&leaked).is_err(),
        "what redb left has no file"
    );
}

#[test]
fn a_crash_before_publishing_leaves_no_file_at_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.keystead");
    let file = NewFile::begin(&path).unwrap();
    Container::create(file.disk(), STORE_ID).unwrap();
    let [name] = names_in(directory.path()).try_into().unwrap();
    assert!(name.starts_with(".app.keystead.creating-"), "{name}");
    assert!(!path.exists());
    drop(file);
    assert!(
        names_in(directory.path()).is_empty(),
        "and one that is given up leaves nothing at all"
    );
}

#[test]
fn creating_replaces_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.keystead");
    let file = NewFile::begin(&path).unwrap();
    fs::write(&path, b"came first").unwrap();
    assert!(matches!(
        file.publish(),
        Err(ContainerError::AlreadyExists { .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), b"came first");
    assert!(matches!(
        NewFile::begin(&path),
        Err(ContainerError::AlreadyExists { .. })
    ));
    let dangling = directory.path().join("link");
    symlink(directory.path().join("nowhere"), &dangling).unwrap();
    assert!(matches!(
        NewFile::begin(&dangling),
        Err(ContainerError::AlreadyExists { .. })
    ));
    assert!(matches!(
        NewFile::begin(Path::new("/")),
        Err(ContainerError::Io { .. })
    ));
    assert_eq!(names_in(directory.path()).len(), 2);
}

#[test]
fn what_is_no_store_is_refused_by_its_name_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    drop(create(&at("good")));
    let good = fs::read(at("good")).unwrap();

    fs::write(at("empty"), b"").unwrap();
    assert!(matches!(open(&at("empty")), Err(ContainerError::Empty)));
    fs::write(at("foreign"), b"SQLite format 3\0 and more").unwrap();
    assert!(matches!(open(&at("foreign")), Err(ContainerError::Foreign)));
    assert_eq!(fs::read(at("foreign")).unwrap(), b"SQLite format 3\0 and more");
    let mut new = good.clone();
    for copy in [0, 4096] {
        new[copy + 8] = 2;
    }
    fs::write(at("new"), new).unwrap();
    let too_new = open(&at("new")).unwrap_err();
    assert!(matches!(
        too_new,
        ContainerError::TooNew {
            found: 2,
            supported: 1
        }
    ));
    for cut in [100, 5000, 8192, good.len() - 1] {
        fs::write(at("cut"), &good[..cut]).unwrap();
        assert!(
            matches!(open(&at("cut")), Err(ContainerError::Truncated { .. })),
            "cut at {cut}"
        );
    }
    symlink(at("good"), at("link")).unwrap();
    assert!(matches!(open(&at("link")), Err(ContainerError::Symlink { .. })));
    assert!(matches!(
        open(directory.path()),
        Err(ContainerError::NotRegularFile { .. })
    ));
    assert!(matches!(
        open(Path::new("/dev/null")),
        Err(ContainerError::NotRegularFile { .. })
    ));
    assert!(matches!(
        open(&at("missing")),
        Err(ContainerError::NotFound { .. })
    ));
    open(&at("good")).unwrap();
}

#[test]
fn a_store_cut_short_by_one_byte_is_truncated_wherever_it_ends() {
    let (disk, container) = new_container();
    for step in 0..3 {
        match step {
            0 => container.pages().resize(4096 * 300).unwrap(),
            1 => container.write_cells(&[(CellNumber(900), &[1; 32])]).unwrap(),
            _ => container.pages().resize(4096 * 900).unwrap(),
        }
        let bytes = disk.to_bytes();
        open_bytes(bytes.clone()).unwrap();
        let cut = bytes[..bytes.len() - 1].to_vec();
        assert!(matches!(open_bytes(cut), Err(ContainerError::Truncated { .. })));
    }
}
