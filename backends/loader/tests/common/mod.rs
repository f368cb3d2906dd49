//! What the tests share: plugins built by the system's tools, a directory that a plugin may lie in, a host.

#![allow(dead_code, unreachable_pub)] // each test binary uses some of it

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use keystead_backend::{
    BackendError, Context, ErrorCode, Host, KeyBackend, KeyInstance, LockedBytes, LogLevel, OpenRequest,
};
use keystead_loader::{Plugin, PluginSource, digest_file};

/// A host that remembers what was logged and mints one token.
#[derive(Default)]
pub struct TestHost {
    pub log: Mutex<Vec<(LogLevel, String)>>,
    pub token: Option<Vec<u8>>,
    pub panics: bool,
}

impl Host for TestHost {
    fn log(&self, level: LogLevel, message: &str) {
        assert!(!self.panics, "the host panics");
        self.log
            .lock()
            .expect("no panic under the lock")
            .push((level, message.to_owned()));
    }

    fn random(&self, out: &mut [u8]) -> Result<(), BackendError> {
        assert!(!self.panics, "the host panics");
        getrandom::fill(out).map_err(|error| BackendError::new(ErrorCode::Internal, error.to_string()))
    }

    fn identity_token(&self, audience: &str) -> Result<LockedBytes, BackendError> {
        assert!(!self.panics, "the host panics");
        let token = self.token.as_ref().ok_or_else(|| {
            BackendError::new(
                ErrorCode::Unsupported,
                format!("no tokens are minted for {audience}"),
            )
        })?;
        Ok(LockedBytes::copy_from(token))
    }
}

impl TestHost {
    pub fn logged(&self) -> Vec<String> {
        self.log
            .lock()
            .expect("no panic under the lock")
            .iter()
            .map(|(_, line)| line.clone())
            .collect()
    }
}

pub fn open(plugin: &Plugin, config: &str) -> Result<Box<dyn KeyInstance>, BackendError> {
    open_with(plugin, config, Arc::new(TestHost::default()))
}

pub fn open_with(
    plugin: &Plugin,
    config: &str,
    host: Arc<dyn Host>,
) -> Result<Box<dyn KeyInstance>, BackendError> {
    plugin.open(OpenRequest {
        settings: "{}",
        config,
        host,
    })
}

pub fn context(epoch: &str) -> Context {
    Context::new([("store", "0f"), ("organization", "acme"), ("epoch", epoch)])
}

/// A directory that passes the loader's policy: ours, below the sticky `/tmp`, writable by nobody else.
pub fn directory() -> tempfile::TempDir {
    let directory = tempfile::Builder::new()
        .prefix("keystead-loader-")
        .tempdir_in("/tmp")
        .expect("/tmp is there");
    set_mode(directory.path(), 0o755);
    directory
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours to change");
}

/// Copies a plugin to where it may be loaded from.
pub fn install(plugin: &Path, directory: &Path, name: &str) -> PathBuf {
    let installed = directory.join(name);
    std::fs::copy(plugin, &installed).expect("there is room");
    set_mode(&installed, 0o755);
    installed
}

/// Loads the bytes that are at the path now.
pub fn load(path: &Path) -> Result<Plugin, keystead_loader::LoadError> {
    Plugin::load(&PluginSource::new(path).digest(digest_file(path).expect("readable")))
}

/// The plugin in Rust, of `examples/demonstration_plugin.rs`, built now unless `cargo xtask test` has built everything.
pub fn rust_plugin() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // This binary lies in `<target>/<profile>/deps`.
        let own = std::env::current_exe().expect("known");
        let profile = own.parent().and_then(Path::parent).expect("two levels up");
        let name = format!(
            "{}demonstration_plugin{}",
            std::env::consts::DLL_PREFIX,
            std::env::consts::DLL_SUFFIX
        );
        let plugin = profile.join("examples").join(name);
        if std::env::var_os("KEYSTEAD_ALL_IS_BUILT").is_some() {
            return plugin;
        }
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args([
            "build",
            "--quiet",
            "--package",
            "keystead-loader",
            "--example",
            "demonstration_plugin",
        ]);
        build
            .arg("--target-dir")
            .arg(profile.parent().expect("one more level up"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        run(&mut build);
        plugin
    })
}

/// A plugin in C, of `tests/plugins/<source>.c`, built with these definitions.
pub fn c_plugin(source: &str, definitions: &[&str], directory: &Path) -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let plugin = directory.join(format!("lib{source}.so"));
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut build = Command::new(compiler);
    build.args([
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-pedantic",
        "-Werror",
        "-shared",
        "-fPIC",
        "-g",
    ]);
    build.arg("-I").arg(manifest.join("../api/include"));
    build.args(definitions.iter().map(|definition| format!("-D{definition}")));
    build
        .arg("-o")
        .arg(&plugin)
        .arg(manifest.join(format!("tests/plugins/{source}.c")));
    run(&mut build);
    set_mode(&plugin, 0o755);
    plugin
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
