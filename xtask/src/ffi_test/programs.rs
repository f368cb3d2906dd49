//! Programs in C and C++ that use the library.

use super::checks::Checks;
use super::installed::{Installed, said};
use super::nulls;
use crate::fuzz::nightly;
use crate::retry::three_times;
use crate::tools::{announce, cargo, is_there, program, root, run, target_directory};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const C: [&str; 3] = ["-std=gnu99", "-g", "-pthread"];
/// With what ThreadSanitizer ends a program in which it saw a race.
const RACE_SEEN: i32 = 66;

pub(super) fn check(installed: &Installed, checks: &mut Checks) {
    for (compiler, standard, source) in [
        ("cc", "-std=c89", "example.c"),
        ("c++", "-std=c++11", "example.cpp"),
    ] {
        checks.check(format!("examples/{source}"), || {
            example(installed, compiler, standard, source)
        });
    }
    let include = format!("-I{}", root().join("ffi/tests/c").display());
    let options = [&C[..], &[&include]].concat();
    for name in ["claims", "hammer", "nulls"] {
        let source = || source(installed, name);
        checks.check(format!("{name}.c"), || {
            let built = installed.compile("cc", &options, &source()?, name)?;
            run(&mut installed.start(built, &[&installed.fresh("store")?]))
        });
        checks.check(
            format!("{name}.c under AddressSanitizer and LeakSanitizer"),
            || {
                let options = [&options[..], &["-fsanitize=address"]].concat();
                let built = installed.compile("cc", &options, &source()?, &format!("{name}-asan"))?;
                let mut under = installed.start(built, &[&installed.fresh("store")?]);
                under.env("ASAN_OPTIONS", "detect_leaks=1:allocator_may_return_null=1");
                run(&mut under)
            },
        );
        checks.check(format!("{name}.c under valgrind"), || valgrind(installed, name));
    }
    checks.check("claims.c, linked with libkeystead.a", || {
        let built = installed.compile_static(&options, &source(installed, "claims")?, "claims-static")?;
        run(&mut program(built, &[&installed.fresh("store")?]))
    });
    for name in ["claims", "hammer"] {
        checks.check(
            format!("{name}.c, as it was built, on a library whose structs have grown"),
            || grown(installed, name),
        );
    }
    checks.check("hammer.c under ThreadSanitizer, the library and std too", || {
        threads(installed, &options)
    });
}

fn example(installed: &Installed, compiler: &str, standard: &str, source: &str) -> anyhow::Result<()> {
    let examples = root().join("ffi/examples");
    let plugin = installed.plugin.display().to_string();
    let digest = installed.compile("cc", &["-std=c89"], &examples.join("digest.c"), "digest")?;
    let digest = said(&mut installed.start(digest, &[&plugin]))?;
    let built = installed.compile(compiler, &[standard], &examples.join(source), "example")?;
    let directory = installed.fresh("store")?;
    let shown = said(&mut installed.start(built, &[&directory, &plugin, digest.trim()]))?;
    print!("{shown}");
    if !shown.contains("epoch 2 acme-cmk") || !shown.contains("1 data keys") {
        bail!("{source} did not show its data key under the key that was brought");
    }
    Ok(())
}

/// The source of a test program; that of `nulls` is written.
fn source(installed: &Installed, name: &str) -> anyhow::Result<PathBuf> {
    if name != "nulls" {
        return Ok(root().join("ffi/tests/c").join(format!("{name}.c")));
    }
    let written = installed.place("nulls.c");
    std::fs::write(&written, nulls::program(&installed.header()?)?)?;
    Ok(written)
}

/// What is reachable at the end is no leak: the library's threads and tables live as long as the process.
fn valgrind(installed: &Installed, name: &str) -> anyhow::Result<()> {
    let options = [
        "--quiet",
        "--error-exitcode=99",
        "--fair-sched=yes",
        "--leak-check=full",
        "--show-leak-kinds=definite,indirect",
        "--errors-for-leak-kinds=definite,indirect",
    ];
    let mut valgrind = installed.start("valgrind", &options);
    run(valgrind.arg(installed.place(name)).arg(installed.fresh("store")?))
}

/// A program that was compiled against the header of today runs with a library of tomorrow.
fn grown(installed: &Installed, name: &str) -> anyhow::Result<()> {
    let build = [
        "rustc",
        "--package",
        "keystead-ffi",
        "--lib",
        "--crate-type",
        "cdylib",
    ];
    run(cargo(&build).args(["--", "--cfg", "keystead_grown"]))?;
    let built = target_directory()?.join("debug/libkeystead_ffi.so");
    let directory = beside(installed, "grown", &built)?;
    let mut command = program(installed.place(name), &[&installed.fresh("store")?]);
    run(command.env("LD_LIBRARY_PATH", directory))
}

/// A directory with this library alone, under the name by which programs ask for the installed one.
fn beside(installed: &Installed, name: &str, library: &Path) -> anyhow::Result<PathBuf> {
    let directory = installed.place(name);
    std::fs::create_dir_all(&directory)?;
    std::fs::copy(library, directory.join(installed.soname()?)).context("copying the library")?;
    Ok(directory)
}

/// The library is built with the standard library, both watched by ThreadSanitizer, so that it sees what locks and atomics order
/// and nothing has to be suppressed. That it sees anything is shown by a program that breaks the rules in one place.
fn threads(installed: &Installed, options: &[&str]) -> anyhow::Result<()> {
    if !is_there(&mut nightly("rustc", &["--version"])) {
        bail!("this needs a nightly compiler; `rustup toolchain install nightly` gets one");
    }
    let sysroot = PathBuf::from(said(&mut nightly("rustc", &["--print", "sysroot"]))?.trim());
    let sources = sysroot.join("lib/rustlib/src/rust/library/std");
    if !sources.exists() {
        let mut add = program(
            "rustup",
            &["component", "add", "rust-src", "--toolchain", "nightly"],
        );
        three_times("fetching rust-src", || run(&mut add)).context(
            "this needs the standard library's sources, to build it watched: the toolchain's component rust-src, \
             which could not be fetched",
        )?;
    }
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let target = target_directory()?.join("tsan");
    let mut build = nightly("cargo", &["rustc", "--package", "keystead-ffi", "--lib"]);
    build.args([
        "--crate-type",
        "cdylib",
        "-Zbuild-std",
        "--target",
        &triple,
        "--target-dir",
    ]);
    run(build.arg(&target).env("RUSTFLAGS", "-Zsanitizer=thread"))?;
    let library = target.join(&triple).join("debug/libkeystead_ffi.so");
    let directory = beside(installed, "tsan", &library)?;
    let runtime = sysroot
        .join("lib/rustlib")
        .join(&triple)
        .join("lib/librustc-nightly_rt.tsan.a");

    let hammer = |name: &str, more: &[&str]| -> anyhow::Result<Command> {
        let object = format!("{name}.o");
        let watched = [options, more, &["-fsanitize=thread", "-c"]].concat();
        let object = installed.compile("cc", &watched, &source(installed, "hammer")?, &object)?;
        // The program brings the compiler's own runtime, which knows what the library calls; the C compiler's does not.
        let out = installed.place(name);
        let mut link = program("cc", &["-rdynamic"]);
        link.arg(&object).arg("-Wl,--whole-archive").arg(&runtime);
        link.arg("-Wl,--no-whole-archive")
            .arg(directory.join(installed.soname()?));
        link.args(["-lpthread", "-ldl", "-lm", "-lrt", "-lresolv", "-o"]);
        run(link.arg(&out))?;
        let mut command = program(&out, &[&installed.fresh("store")?]);
        command.env("LD_LIBRARY_PATH", &directory);
        command.env("TSAN_OPTIONS", format!("exitcode={RACE_SEEN}"));
        Ok(command)
    };
    run(&mut hammer("hammer-tsan", &[])?)?;
    let mut racing = hammer("hammer-race", &["-DPLANTED_RACE"])?;
    announce(&racing);
    let ended = racing.output().context("running what races")?;
    if ended.status.code() != Some(RACE_SEEN) {
        bail!("a race that is there was not seen: {}", ended.status);
    }
    println!("a race that was planted in the program itself was seen");
    Ok(())
}
