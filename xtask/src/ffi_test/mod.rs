//! `cargo xtask ffi-test`: libkeystead as its users get it. Built and installed into a prefix of its own by cargo-c, then
//! everything is compiled against that with what pkg-config says alone.
//!
//! | step | what it shows |
//! | --- | --- |
//! | rust | the committed header is the sources'; every exported function has its guard |
//! | header | compiles as C89, C99, C11, C++11, C++17 without a warning, included twice |
//! | symbols, abi | what is exported is what `ffi/abi/` says; structs and signatures are those of the baseline |
//! | examples | C and C++: put, bring a key by a plugin, wait, read, print the epochs |
//! | claims, hammer, nulls | programs in C, plain, under AddressSanitizer with LeakSanitizer, and under valgrind |
//! | grown | the same program, not built again, on a library whose structs have grown |
//! | bindings | the tests of each binding in `ffi/bindings/`: its `test.sh` |

mod nulls;

use crate::tools::{cargo, human, is_there, program, root, run, target_directory};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The cargo-c that installs the library.
const CARGO_C: &str = "0.10.24+cargo-0.98.0";
const STANDARDS: [(&str, &str); 5] = [
    ("cc", "c89"),
    ("cc", "c99"),
    ("cc", "c11"),
    ("c++", "c++11"),
    ("c++", "c++17"),
];
const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-pedantic", "-Werror"];

/// `bless` writes the lists in `ffi/abi/` instead of comparing them.
pub(crate) fn run_all(bless: bool, prefix: Option<PathBuf>) -> anyhow::Result<bool> {
    let began = Instant::now();
    install_tools()?;
    let installed = Installed::at(prefix)?;
    let mut failed = Vec::new();
    let steps: [(&str, &dyn Fn() -> anyhow::Result<()>); 8] = [
        ("rust", &rust),
        ("header", &|| installed.header()),
        ("symbols", &|| installed.symbols(bless)),
        ("abi", &|| installed.abi(bless)),
        ("examples", &|| installed.examples()),
        ("programs", &|| installed.programs()),
        ("grown", &|| installed.grown()),
        ("bindings", &|| installed.bindings()),
    ];
    for (name, step) in steps {
        let step_began = Instant::now();
        match step() {
            Ok(()) => println!("ffi-test: {name} passed ({})", human(step_began.elapsed())),
            Err(error) => {
                println!("ffi-test: {name} FAILED: {error:#}");
                failed.push(name);
            }
        }
    }
    let took = human(began.elapsed());
    match failed.is_empty() {
        true => println!("\nffi-test: everything passed in {took}"),
        false => println!("\nffi-test: FAILED in {took}: {}", failed.join(", ")),
    }
    Ok(failed.is_empty())
}

/// Debian's packages of what is missing, where this may install them.
fn install_tools() -> anyhow::Result<()> {
    let wanted = [
        ("cc", "gcc"),
        ("c++", "g++"),
        ("pkg-config", "pkg-config"),
        ("valgrind", "valgrind"),
        ("abidiff", "abigail-tools"),
        ("nm", "binutils"),
    ];
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(tool, _)| !is_there(&mut program(tool, &["--version"])))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut install = program("apt-get", &["install", "--yes", "--no-install-recommends"]);
    install.args(&missing);
    run(&mut install).with_context(|| format!("these packages are needed: {}", missing.join(", ")))
}

fn rust() -> anyhow::Result<()> {
    run(&mut cargo(&["test", "--package", "keystead-ffi"]))
}

/// The library in a prefix of its own.
struct Installed {
    prefix: PathBuf,
    work: PathBuf,
    plugin: PathBuf,
}

impl Installed {
    fn at(prefix: Option<PathBuf>) -> anyhow::Result<Self> {
        let target = target_directory()?;
        let work = target.join("ffi-test");
        let _ = std::fs::remove_dir_all(&work);
        let prefix = match prefix {
            Some(given) => given.canonicalize().context("finding the prefix")?,
            None => install(&work.join("prefix"))?,
        };
        run(&mut cargo(&["build", "--package", "keystead-managed-plugin"]))?;
        Ok(Self {
            prefix,
            work,
            plugin: target.join("debug/libkeystead_managed.so"),
        })
    }

    /// A new directory that is closed to others.
    fn fresh(&self, name: &str) -> anyhow::Result<String> {
        use std::os::unix::fs::DirBuilderExt;
        let path = self.work.join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        Ok(path.display().to_string())
    }

    fn library(&self) -> anyhow::Result<PathBuf> {
        let link = self.prefix.join("lib/libkeystead.so");
        link.canonicalize()
            .with_context(|| format!("{} is missing", link.display()))
    }

    /// What pkg-config says, and nothing else.
    fn flags(&self, more: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut ask = program("pkg-config", &["--cflags", "--libs"]);
        ask.args(more).arg("keystead");
        ask.env("PKG_CONFIG_PATH", self.prefix.join("lib/pkgconfig"));
        Ok(said(&mut ask)?.split_whitespace().map(str::to_owned).collect())
    }

    fn compile(
        &self,
        compiler: &str,
        options: &[&str],
        source: &Path,
        name: &str,
    ) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(&self.work)?;
        let out = self.work.join(name);
        let mut compile = program(compiler, options);
        compile
            .args(STRICT)
            .arg(source)
            .args(self.flags(&[])?)
            .arg("-o")
            .arg(&out);
        run(&mut compile)?;
        Ok(out)
    }

    /// A compiled program, which finds the library as installed.
    fn start(&self, path: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
        let mut command = program(path, arguments);
        command.env("LD_LIBRARY_PATH", self.prefix.join("lib"));
        command
    }

    fn header(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.work)?;
        for (compiler, standard) in STANDARDS {
            let source = self
                .work
                .join(format!("twice.{}", if compiler == "cc" { "c" } else { "cpp" }));
            let text = "#include <keystead.h>\n#include <keystead.h>\n\
                        int main(void) { return (int)keystead_abi_version() - KEYSTEAD_ABI_VERSION; }\n";
            std::fs::write(&source, text)?;
            let built = self.compile(compiler, &[&format!("-std={standard}")], &source, "twice")?;
            run(&mut self.start(built, &[]))?;
        }
        Ok(())
    }

    fn symbols(&self, bless: bool) -> anyhow::Result<()> {
        let mut ask = program("nm", &["--dynamic", "--defined-only", "--format=posix"]);
        let said = said(ask.arg(self.library()?))?;
        let mut names: Vec<&str> = said.lines().filter_map(|line| line.split(' ').next()).collect();
        names.sort_unstable();
        compare(
            &root().join("ffi/abi/symbols.txt"),
            &(names.join("\n") + "\n"),
            bless,
        )
    }

    fn abi(&self, bless: bool) -> anyhow::Result<()> {
        let baseline = root().join("ffi/abi/keystead.abi");
        let library = self.library()?;
        if bless {
            let options = [
                "--no-corpus-path",
                "--no-comp-dir-path",
                "--short-locs",
                "--out-file",
            ];
            return run(program("abidw", &options).arg(&baseline).arg(library));
        }
        run(program("abidiff", &["--no-added-syms"])
            .arg(&baseline)
            .arg(library))
        .context(
            "the C interface is not that of the baseline; if that is meant, and old callers work: --bless",
        )
    }

    fn examples(&self) -> anyhow::Result<()> {
        let examples = root().join("ffi/examples");
        let digest = self.compile("cc", &["-std=c89"], &examples.join("digest.c"), "digest")?;
        let plugin = self.plugin.display().to_string();
        let digest = said(&mut self.start(digest, &[&plugin]))?;
        for (compiler, standard, source) in [
            ("cc", "-std=c89", "example.c"),
            ("c++", "-std=c++11", "example.cpp"),
        ] {
            let built = self.compile(
                compiler,
                &[standard],
                &examples.join(source),
                source.trim_end_matches('p'),
            )?;
            let directory = self.fresh("store")?;
            let shown = said(&mut self.start(built, &[&directory, &plugin, digest.trim()]))?;
            print!("{shown}");
            if !shown.contains("epoch 2 acme-cmk") || !shown.contains("1 data keys") {
                bail!("{source} did not show its data key under the key that was brought");
            }
        }
        Ok(())
    }

    fn programs(&self) -> anyhow::Result<()> {
        let sources = root().join("ffi/tests/c");
        let header = std::fs::read_to_string(self.prefix.join("include/keystead.h"))?;
        let written = self.work.join("nulls.c");
        std::fs::create_dir_all(&self.work)?;
        std::fs::write(&written, nulls::program(&header)?)?;
        let include = format!("-I{}", sources.display());
        for (name, source) in [
            ("claims", sources.join("claims.c")),
            ("hammer", sources.join("hammer.c")),
            ("nulls", written),
        ] {
            let plain = ["-std=gnu99", "-g", "-pthread", &include];
            let built = self.compile("cc", &plain, &source, name)?;
            run(&mut self.start(&built, &[&self.fresh("store")?]))?;
            let mut sanitized = plain.to_vec();
            sanitized.push("-fsanitize=address");
            let checked = self.compile("cc", &sanitized, &source, &format!("{name}-asan"))?;
            let mut under = self.start(checked, &[&self.fresh("store")?]);
            under.env("ASAN_OPTIONS", "detect_leaks=1:allocator_may_return_null=1");
            run(&mut under)?;
            if name != "hammer" {
                let mut valgrind = self.start(
                    "valgrind",
                    &["--quiet", "--error-exitcode=99", "--leak-check=full"],
                );
                valgrind.arg("--errors-for-leak-kinds=definite,indirect");
                run(valgrind.arg(built).arg(self.fresh("store")?))?;
            }
        }
        Ok(())
    }

    /// The program was compiled against the header of today, and runs with a library of tomorrow.
    fn grown(&self) -> anyhow::Result<()> {
        let target = target_directory()?;
        let build = [
            "rustc",
            "--package",
            "keystead-ffi",
            "--lib",
            "--crate-type",
            "cdylib",
        ];
        run(cargo(&build).args(["--", "--cfg", "keystead_grown"]))?;
        let directory = self.work.join("grown");
        std::fs::create_dir_all(&directory)?;
        let name = soname(&self.library()?)?;
        std::fs::copy(target.join("debug/libkeystead_ffi.so"), directory.join(&name))?;
        for test in ["claims", "hammer"] {
            let mut command = program(self.work.join(test), &[&self.fresh("store")?]);
            run(command.env("LD_LIBRARY_PATH", &directory))?;
        }
        Ok(())
    }

    fn bindings(&self) -> anyhow::Result<()> {
        let bindings = root().join("ffi/bindings");
        let Ok(entries) = std::fs::read_dir(&bindings) else {
            return Ok(());
        };
        for entry in entries {
            let test = entry?.path().join("test.sh");
            if test.exists() {
                let mut command = self.start("sh", &[]);
                command.arg(&test).env("KEYSTEAD_PREFIX", &self.prefix);
                command.env("KEYSTEAD_PLUGIN", &self.plugin);
                command.env("PKG_CONFIG_PATH", self.prefix.join("lib/pkgconfig"));
                run(&mut command)?;
            }
        }
        Ok(())
    }
}

/// Installs as a distribution does.
fn install(prefix: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(prefix)?;
    let mut install = program(
        cargo_c()?,
        &["cinstall", "--package", "keystead-ffi", "--profile", "dev"],
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
        run(install.arg(&place).current_dir(std::env::temp_dir()))?;
    }
    Ok(tool)
}

/// The name under which programs look for the library.
fn soname(library: &Path) -> anyhow::Result<String> {
    let shown = said(program("objdump", &["-p"]).arg(library))?;
    let name = shown.lines().find_map(|line| line.trim().strip_prefix("SONAME"));
    Ok(name.context("the library has no SONAME")?.trim().to_owned())
}

fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{} failed", crate::tools::spoken(command));
    }
    String::from_utf8(output.stdout).context("it said what is no text")
}

fn compare(committed: &Path, found: &str, bless: bool) -> anyhow::Result<()> {
    if bless {
        return std::fs::write(committed, found).context("writing the list");
    }
    let listed = std::fs::read_to_string(committed)?;
    let differs = |one: &str, other: &str| {
        let other: Vec<&str> = other.lines().collect();
        let missing = one.lines().filter(|line| !other.contains(line));
        missing.map(str::to_owned).collect::<Vec<_>>().join(", ")
    };
    let (new, gone) = (differs(found, &listed), differs(&listed, found));
    if new.is_empty() && gone.is_empty() {
        return Ok(());
    }
    bail!("{}: new: {new}; gone: {gone}", committed.display())
}
