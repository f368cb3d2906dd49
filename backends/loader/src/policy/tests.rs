//! Attempts to get past the path's rules.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};

use super::*;

/// A directory below the sticky `/tmp`, ours, with a plugin's file in it.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("keystead-policy-")
            .tempdir_in("/tmp")
            .expect("/tmp is there");
        let place = Self { directory };
        place.mode("", 0o755);
        place.make("plugin.so");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() {
            self.directory.path().to_owned()
        } else {
            self.directory.path().join(name)
        }
    }

    fn make(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        // Whatever the umask.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path.parent().expect("below the directory"))
            .expect("made");
        std::fs::write(&path, b"plugin").expect("written");
        self.mode(name, 0o644);
        path
    }

    fn mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).expect("ours");
    }

    fn open(&self, name: &str) -> Result<File, Refusal> {
        open(&self.path(name))
    }

    fn refusal(&self, name: &str) -> Refusal {
        self.open(name).expect_err("refused")
    }
}

#[test]
fn a_file_of_ours_in_a_directory_of_ours_below_a_sticky_one_is_opened() {
    assert!(Place::new().open("plugin.so").is_ok());
}

#[test]
fn a_relative_path_is_refused_whatever_lies_there() {
    for path in ["plugin.so", "./plugin.so", "../plugin.so", ""] {
        assert!(
            matches!(open(Path::new(path)), Err(Refusal::RelativePath)),
            "{path}"
        );
    }
}

#[test]
fn a_path_with_detours_is_refused_even_when_it_leads_to_the_file() {
    let place = Place::new();
    let directory = place.path("").display().to_string();
    for path in [
        format!("{directory}/./plugin.so"),
        format!(
            "{directory}/../{}/plugin.so",
            place.path("").file_name().expect("named").display()
        ),
        format!("/{directory}/plugin.so"),
        format!("{directory}//plugin.so"),
        format!("{directory}/plugin.so/"),
        format!("{directory}/plugin.so/."),
        format!("{directory}/plugin.so\0.so"),
        "/".to_owned(),
    ] {
        assert!(
            matches!(open(Path::new(&path)), Err(Refusal::IndirectPath)),
            "{path:?}"
        );
    }
}

#[test]
fn a_symbolic_link_is_refused_as_the_file_and_as_a_parent() {
    let place = Place::new();
    symlink(place.path("plugin.so"), place.path("link.so")).expect("made");
    let refusal = place.refusal("link.so");
    assert!(
        matches!(&refusal, Refusal::SymbolicLink { component } if *component == place.path("link.so")),
        "{refusal}"
    );

    place.make("real/deep/plugin.so");
    symlink(place.path("real"), place.path("linked")).expect("made");
    for name in ["linked/deep/plugin.so", "linked/plugin.so"] {
        let refusal = place.refusal(name);
        assert!(
            matches!(&refusal, Refusal::SymbolicLink { component } if *component == place.path("linked")),
            "{refusal}"
        );
    }
    assert!(place.open("real/deep/plugin.so").is_ok());
}

#[test]
fn a_file_that_its_group_or_others_may_write_is_refused() {
    let place = Place::new();
    for mode in [0o646, 0o664, 0o666, 0o777] {
        place.mode("plugin.so", mode);
        let refusal = place.refusal("plugin.so");
        assert!(
            matches!(refusal, Refusal::Writable { mode: found, .. } if found == mode),
            "{refusal}"
        );
    }
    place.mode("plugin.so", 0o600);
    assert!(place.open("plugin.so").is_ok());
}

#[test]
fn a_directory_anywhere_above_that_its_group_or_others_may_write_is_refused() {
    let place = Place::new();
    place.make("a/b/c/plugin.so");
    for directory in ["a", "a/b", "a/b/c"] {
        for mode in [0o775, 0o757, 0o777] {
            place.mode(directory, mode);
            let refusal = place.refusal("a/b/c/plugin.so");
            let named = matches!(&refusal, Refusal::Writable { component, .. } if *component == place.path(directory));
            assert!(named, "{refusal}");
        }
        place.mode(directory, 0o755);
    }
    assert!(place.open("a/b/c/plugin.so").is_ok());
}

#[test]
fn a_sticky_directory_may_lie_above_but_not_hold_the_plugin() {
    let place = Place::new();
    place.make("shared/own/plugin.so");
    place.make("shared/plugin.so");
    place.mode("shared", 0o1777);
    assert!(place.open("shared/own/plugin.so").is_ok());
    let refusal = place.refusal("shared/plugin.so");
    assert!(
        matches!(refusal, Refusal::Writable { mode: 0o1777, .. }),
        "{refusal}"
    );
}

/// Gives a file away, which only root can. False where there is no such user: in a user namespace without it.
fn is_given_to(owner: u32, path: &Path) -> bool {
    match std::os::unix::fs::chown(path, Some(owner), None) {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
            println!("left out: there is no user {owner} here");
            false
        }
        Err(error) => panic!("root may: {error}"),
    }
}

#[test]
fn what_belongs_to_another_user_is_refused_file_or_directory() {
    let place = Place::new();
    place.make("a/plugin.so");
    let us = rustix::process::geteuid().as_raw();
    let (user, owner) = if us == 0 { (0, 12_345) } else { (us + 1, us) };
    for name in ["a/plugin.so", "a"] {
        if us == 0 && !is_given_to(owner, &place.path(name)) {
            return;
        }
        let refusal = open_as(&place.path("a/plugin.so"), user).expect_err("refused");
        assert!(
            matches!(refusal, Refusal::Owner { owner_uid, .. } if owner_uid == owner),
            "{refusal}"
        );
        if us == 0 {
            assert!(
                open_as(&place.path("a/plugin.so"), owner).is_ok(),
                "root's directories, the user's own file"
            );
            std::os::unix::fs::chown(place.path(name), Some(0), None).expect("root may");
        }
    }
}

#[test]
fn what_is_no_regular_file_is_refused_and_a_pipe_is_not_waited_for() {
    let place = Place::new();
    std::fs::create_dir(place.path("directory.so")).expect("made");
    place.mode("directory.so", 0o755);
    assert!(matches!(place.refusal("directory.so"), Refusal::NotAFile));
    let pipe = place.path("pipe.so");
    let made = std::process::Command::new("mkfifo")
        .arg("-m")
        .arg("600")
        .arg(&pipe)
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
    assert!(matches!(place.refusal("pipe.so"), Refusal::NotAFile));
    // Devices, for which reading has effects or no end.
    for device in ["/dev/null", "/dev/zero"] {
        assert!(
            matches!(open(Path::new(device)), Err(Refusal::NotAFile)),
            "{device}"
        );
    }
    let _socket = std::os::unix::net::UnixListener::bind(place.path("socket.so")).expect("made");
    assert!(matches!(
        place.refusal("socket.so"),
        Refusal::Open { .. } | Refusal::NotAFile
    ));
}

#[test]
fn what_is_not_there_is_named_with_the_component_that_is_missing() {
    let place = Place::new();
    for (name, missing) in [
        ("no/plugin.so", "no"),
        ("no.so", "no.so"),
        ("plugin.so/x/y", "plugin.so"),
    ] {
        let refusal = place.refusal(name);
        assert!(
            matches!(&refusal, Refusal::Open { component, .. } if *component == place.path(missing)),
            "{refusal}"
        );
    }
}

#[test]
fn a_hard_link_is_judged_by_the_owner_and_the_mode_of_the_file_that_it_leads_to() {
    let place = Place::new();
    std::fs::create_dir(place.path("other")).expect("made");
    place.make("other/file");
    std::fs::hard_link(place.path("other/file"), place.path("linked.so")).expect("made");
    assert!(place.open("linked.so").is_ok());
    place.mode("other/file", 0o666);
    assert!(matches!(place.refusal("linked.so"), Refusal::Writable { .. }));
    place.mode("other/file", 0o644);
    // Somebody else's file in our directory: who owns it can write to it.
    let us = rustix::process::geteuid().as_raw();
    if us == 0 {
        if !is_given_to(12_345, &place.path("other/file")) {
            return;
        }
        assert!(matches!(
            place.refusal("linked.so"),
            Refusal::Owner {
                owner_uid: 12_345,
                ..
            }
        ));
    } else {
        assert!(matches!(
            open_as(&place.path("linked.so"), us + 1),
            Err(Refusal::Owner { owner_uid, .. }) if owner_uid == us
        ));
    }
}

#[test]
fn a_file_that_takes_the_checked_ones_place_is_not_the_one_that_was_opened() {
    use std::io::Read;
    let place = Place::new();
    let mut opened = place.open("plugin.so").expect("in order");
    std::fs::write(place.path("evil.so"), b"evil").expect("written");
    std::fs::rename(place.path("evil.so"), place.path("plugin.so")).expect("swapped");
    let mut content = String::new();
    opened.read_to_string(&mut content).expect("readable");
    assert_eq!(content, "plugin");
}
