//! The library in a prefix of its own, as a distribution installs it, and programs that are compiled against it.

use crate::retry::three_times;
use crate::tools::{cargo, is_there, program, root, run, spoken, target_directory};
use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The cargo-c that installs the library.
const CARGO_C: &str = "0.10.24+cargo-0.98.0";
const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-pedantic", "-Werror"];
/// What is used, and Debian's package of it.
const TOOLS: [(&str, &str); 7] = [
    ("cc", "gcc"),
    ("c++", "g++"),
    ("pkg-config", "pkg-config"),
    ("valgrind", "valgrind"),
    ("abidiff", "abigail-tools"),
    ("nm", "binutils"),
    ("objdump", "binutils"),
];

/// Debian's packages of what is missing, where this may install them.
pub(super) fn install_tools() -> anyhow::Result<()> {
    let missing: Vec<&str> = TOOLS
        .iter()
        .filter(|(tool, _)| !is_there(&mut program(tool, &["--version"])))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let needed = || format!("these packages are needed: {}", missing.join(", "));
    let mut install = program("apt-get", &["install", "--yes", "--no-install-recommends"]);
    install.env("DEBIAN_FRONTEND", "noninteractive").args(&missing);
    three_times("installing Debian's packages", || {
        run(&mut program("apt-get", &["update", "--quiet"]))?;
        run(&mut install)
    })
    .with_context(needed)
}

pub(super) struct Installed {
    pub(super) prefix: PathBuf,
    /// The plugin of the managed backend.
    pub(super) plugin: PathBuf,
    work: PathBuf,
}

impl Installed {
    pub(super) fn at(prefix: Option<PathBuf>) -> anyhow::Result<Self> {
        let target = target_directory()?;
        let work = target.join("ffi-test");
        if work.exists() {
            std::fs::remove_dir_all(&work).context("emptying the directory of this test")?;
        }
        std::fs::create_dir_all(&work)?;
        let prefix = match prefix {
            Some(given) => given.canonicalize().context("finding the prefix")?,
            None => install(&work.join("prefix"), "dev")?,
        };
        run(&mut cargo(&["build", "--package", "keystead-managed-plugin"]))?;
        Ok(Self {
            prefix,
            work,
            plugin: target.join("debug/libkeystead_managed.so"),
        })
    }

    /// Where what is compiled goes.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// A new directory that is closed to others.
    pub(super) fn fresh(&self, name: &str) -> anyhow::Result<String> {
        use std::os::unix::fs::DirBuilderExt;
        let path = self.work.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        Ok(path.display().to_string())
    }

    pub(super) fn header(&self) -> anyhow::Result<String> {
        std::fs::read_to_string(self.prefix.join("include/keystead.h")).context("reading the header")
    }

    pub(super) fn library(&self) -> anyhow::Result<PathBuf> {
        let link = self.prefix.join("lib/libkeystead.so");
        link.canonicalize()
            .with_context(|| format!("{} is missing", link.display()))
    }

    /// The name under which programs look for the library.
    pub(super) fn soname(&self) -> anyhow::Result<String> {
        let shown = said(program("objdump", &["-p"]).arg(self.library()?))?;
        let name = shown.lines().find_map(|line| line.trim().strip_prefix("SONAME"));
        Ok(name.context("the library has no SONAME")?.trim().to_owned())
    }

    /// What pkg-config says, and nothing else.
    fn flags(&self, more: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut ask = program("pkg-config", &["--cflags", "--libs"]);
        ask.args(more).arg("keystead");
        ask.env("PKG_CONFIG_PATH", self.prefix.join("lib/pkgconfig"));
        Ok(said(&mut ask)?.split_whitespace().map(str::to_owned).collect())
    }

    /// Compiles a program, every warning an error.
    pub(super) fn compile(
        &self,
        compiler: &str,
        options: &[&str],
        source: &Path,
        name: &str,
    ) -> anyhow::Result<PathBuf> {
        self.compile_with(compiler, options, source, name, &[])
    }

    /// The same, linked with what is installed as an archive: needs no library when it runs.
    pub(super) fn compile_static(
        &self,
        options: &[&str],
        source: &Path,
        name: &str,
    ) -> anyhow::Result<PathBuf> {
        self.compile_with("cc", options, source, name, &["--static"])
    }

    fn compile_with(
        &self,
        compiler: &str,
        options: &[&str],
        source: &Path,
        name: &str,
        pkg_config: &[&str],
    ) -> anyhow::Result<PathBuf> {
        let out = self.place(name);
        let mut flags = self.flags(pkg_config)?;
        if !pkg_config.is_empty() {
            // The linker takes the shared one where both are, unless it is told which.
            for flag in &mut flags {
                if flag == "-lkeystead" {
                    *flag = "-l:libkeystead.a".to_owned();
                }
            }
        }
        let mut compile = program(compiler, options);
        compile.args(STRICT).arg(source).args(flags).arg("-o").arg(&out);
        run(&mut compile)?;
        Ok(out)
    }

    /// A compiled program, which finds the library as installed.
    pub(super) fn start(&self, path: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = program(path, arguments);
        command.env("LD_LIBRARY_PATH", self.prefix.join("lib"));
        command
    }
}

/// Installs as a distribution does.
pub(crate) fn install(prefix: &Path, profile: &str) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(prefix)?;
    let mut install = program(
        cargo_c()?,
        &["cinstall", "--package", "keystead-ffi", "--profile", profile],
    );
    install.arg("--prefix").arg(prefix).args(["--libdir", "lib"]);
    install.args(["--library-type", "cdylib", "--library-type", "staticlib"]);
    run(&mut install)?;
    Ok(prefix.to_owned())
}

/// cargo-c, built the first time: some minutes.
fn cargo_c() -> anyhow::Result<PathBuf> {
    let place = root().join(".cache/cargo-c");
    let tool = place.join("bin/cargo-cinstall");
    if !tool.exists() {
        let mut install = cargo(&["install", "cargo-c", "--locked", "--version", CARGO_C, "--root"]);
        install.arg(&place).current_dir(std::env::temp_dir());
        three_times("installing cargo-c", || run(&mut install))?;
    }
    Ok(tool)
}

/// What a program says, which must succeed.
pub(super) fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{} failed", spoken(command));
    }
    String::from_utf8(output.stdout).context("it said what is no text")
}
