//! What the tests share: a directory with a store and keyrings, and runs of the real command in it.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses some of it")]

use serde_json::Value;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A directory of its own for one test; nothing of the caller's environment reaches the command.
pub struct Place {
    directory: tempfile::TempDir,
}

/// What one run of the command did.
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("the output is text")
    }

    /// The one JSON document of standard output.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("not one JSON document ({error}): {}{}", self.text(), self.stderr))
    }

    /// The error on standard error, as JSON.
    pub fn error(&self) -> Value {
        let document: Value = serde_json::from_str(self.stderr.trim())
            .unwrap_or_else(|error| panic!("not one JSON document ({error}): {}", self.stderr));
        document["error"].clone()
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        self.ends_with(0)
    }

    #[track_caller]
    pub fn ends_with(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            code,
            "stdout: {}\nstderr: {}",
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("the command ends by itself"),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).expect("messages are text"),
        }
    }
}

impl Place {
    /// An empty directory, closed to others whatever the umask.
    pub fn empty() -> Self {
        let directory = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o700))
            .tempdir();
        Self {
            directory: directory.expect("a temporary directory"),
        }
    }

    /// A store with the organization `acme`, and a config file with two keyrings: `managed` and `customer`.
    pub fn with_acme() -> Self {
        let place = Self::empty();
        place.write_config("");
        place
            .run(&["keyring", "create", "--keyring", &place.file("app.keyring")])
            .ok();
        place.run(&["init"]).ok();
        place.run(&["org", "create", "acme"]).ok();
        place
    }

    pub fn write_config(&self, more: &str) {
        let keyring = |name: &str| serde_json::json!(self.path(name).to_str().expect("UTF-8"));
        let text = format!(
            "store = \"app.keystead\"\n\
             [backends.managed]\nbuiltin = \"managed\"\nsettings = {{ keyring = {}, create = false }}\n\
             [backends.customer]\nbuiltin = \"managed\"\nsettings = {{ keyring = {} }}\n{more}",
            keyring("app.keyring"),
            keyring("customer.keyring"),
        );
        self.write_config_text(&text);
    }

    /// A config file of this text that nobody else may write, whatever the umask: another one would be refused.
    pub fn write_config_text(&self, text: &str) {
        let file = self.path("keystead.toml");
        std::fs::write(&file, text).expect("written");
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("set");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn file(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The command in this place, for the organization `acme`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keystead"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("KEYSTEAD_ORG", "acme");
        if self.path("keystead.toml").exists() {
            command.env("KEYSTEAD_CONFIG", self.path("keystead.toml"));
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.command(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the command starts")
            .into()
    }

    /// The same where nobody reads what it writes.
    pub fn run_into_a_closed_pipe(&self, arguments: &[&str]) -> Ran {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = self.command(arguments);
        let command = command.stdin(Stdio::null()).stdout(writer);
        command.output().expect("the command starts").into()
    }

    /// The same with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut with_json = arguments.to_vec();
        with_json.push("--json");
        self.run(&with_json).ok().json()
    }

    /// A run with these bytes on standard input.
    pub fn feed(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let mut stdin = child.stdin.take().expect("piped");
        // A command that refuses its arguments reads nothing.
        let _ = stdin.write_all(input);
        drop(stdin);
        child.wait_with_output().expect("the command ends").into()
    }

    pub fn put(&self, path: &str, value: &[u8]) {
        self.feed(&["put", path], value).ok();
    }

    pub fn get(&self, path: &str) -> Vec<u8> {
        self.run(&["get", path]).ok().stdout
    }
}
