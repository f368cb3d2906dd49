//! The example backend in plain C (`backends/example-c`): built as its Makefile says, with a keyring for it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::emulators::{SKIP_VARIABLE, find, unpacked};
use crate::left_out::leave_out;

const OURS: &str = "the directory is ours";

/// A directory that passes the loader's policy, with a keyring in it.
#[derive(Debug)]
pub struct Place(TempDir);

impl Place {
    /// A place whose keyring has the key `acme` alone, in its version 1.
    ///
    /// # Panics
    ///
    /// Like everything here: when the file cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let this = Self(directory());
        this.write("# keys of a test\nacme 1 enabled ", '1');
        this
    }

    /// The keyring's file.
    #[must_use]
    pub fn keyring(&self) -> PathBuf {
        self.0.path().join("keyring")
    }

    /// Writes the keyring: this text, and a key of this digit at its end.
    pub fn write(&self, text: &str, digit: char) {
        std::fs::write(self.keyring(), format!("{text}{}\n", key_of(digit))).expect(OURS);
        std::fs::set_permissions(self.keyring(), std::fs::Permissions::from_mode(0o600)).expect(OURS);
    }

    /// Settings for the backend.
    #[must_use]
    pub fn settings(&self) -> Value {
        json!({ "keyring": self.keyring() })
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

/// A key as the keyring writes it, all of one digit.
#[must_use]
pub fn key_of(digit: char) -> String {
    std::iter::repeat_n(digit, 64).collect()
}

const HEADER: &str = "/usr/include/openssl/evp.h";

/// True where OpenSSL's headers are neither the system's nor to be fetched; then `what` is said to be left out.
#[must_use]
pub fn is_left_out(what: &str) -> bool {
    let is_skipped =
        !Path::new(HEADER).is_file() && std::env::var_os(SKIP_VARIABLE).is_some_and(|value| value == "1");
    if is_skipped {
        leave_out(
            what,
            &format!("{SKIP_VARIABLE}=1, and OpenSSL's headers are not there"),
        );
    }
    is_skipped
}

/// The plugin, built by `make` with the flags of its Makefile. OpenSSL's headers are the system's or Debian's packages.
///
/// # Panics
///
/// When it cannot be built.
pub fn plugin_file() -> &'static Path {
    static BUILT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &BUILT
        .get_or_init(|| {
            let place = directory();
            let mut build = Command::new("make");
            build
                .arg("--directory")
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../backends/example-c"))
                .arg(format!("BUILD={}", place.path().display()));
            if !Path::new(HEADER).is_file() {
                let root = unpacked("openssl", &["libssl-dev", "libssl3"])
                    .expect("the headers of OpenSSL, of the system or from Debian");
                let of = |name| {
                    let file = find(&root, name).expect("Debian's packages have it");
                    file.parent().expect("a file is in a directory").to_owned()
                };
                build.arg(format!(
                    "CPPFLAGS=-I{} -I{}",
                    root.join("usr/include").display(),
                    of("opensslconf.h").parent().expect("in openssl/").display()
                ));
                build.arg(format!(
                    "LDFLAGS=-L{0} -Wl,-rpath,{0}",
                    of("libcrypto.so").display()
                ));
            }
            let output = build.output().expect("make is there, as a C compiler is");
            assert!(
                output.status.success(),
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            let plugin = place.path().join("libkeystead_example_c.so");
            std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).expect(OURS);
            (place, plugin)
        })
        .1
}

fn directory() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("keystead-example-c-")
        .tempdir_in("/tmp")
        .expect("/tmp is there");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect(OURS);
    directory
}
