//! The interface that a C compiler sees, and what of it is exported.

use super::checks::Checks;
use super::installed::{Installed, said};
use super::{examples, header};
use crate::tools::{program, root, run};
use anyhow::{Context, bail};
use std::path::Path;

const STANDARDS: [(&str, &str); 5] = [
    ("cc", "c89"),
    ("cc", "c99"),
    ("cc", "c11"),
    ("c++", "c++11"),
    ("c++", "c++17"),
];

pub(super) fn check(installed: &Installed, bless: bool, checks: &mut Checks) {
    checks.check("installed: libraries, headers, SONAME, pkg-config", || {
        files(installed)
    });
    for (compiler, standard) in STANDARDS {
        checks.check(format!("header, twice: {standard}"), || {
            twice(installed, compiler, standard)
        });
    }
    checks.check("layout of structs in C89", || {
        let source = root().join("ffi/tests/c/layout.c");
        let built = installed.compile("cc", &["-std=c89"], &source, "layout")?;
        run(&mut installed.start(built, &[]))
    });
    checks.check("the manual's examples compile", || manual(installed));
    checks.check("exported symbols", || symbols(installed, bless));
    checks.check("abidiff with the baseline", || abi(installed, bless));
}

fn files(installed: &Installed) -> anyhow::Result<()> {
    let soname = installed.soname()?;
    for file in [
        &format!("lib/{soname}"),
        "lib/libkeystead.so",
        "lib/libkeystead.a",
        "lib/pkgconfig/keystead.pc",
        "include/keystead.h",
        "include/keystead_backend.h",
    ] {
        if !installed.prefix.join(file).exists() {
            bail!("{file} is not in the prefix");
        }
    }
    for (there, ours) in [
        ("keystead.h", "ffi/include/keystead.h"),
        ("keystead_backend.h", "backends/api/include/keystead_backend.h"),
    ] {
        let there = std::fs::read(installed.prefix.join("include").join(there))?;
        if there != std::fs::read(root().join(ours))? {
            bail!("the prefix has another {ours} than the sources");
        }
    }
    println!("SONAME {soname}");
    Ok(())
}

fn twice(installed: &Installed, compiler: &str, standard: &str) -> anyhow::Result<()> {
    let suffix = if compiler == "cc" { "c" } else { "cpp" };
    let source = installed.place(&format!("twice.{suffix}"));
    let text = "#include <keystead.h>\n#include <keystead.h>\n\
                int main(void) { return (int)keystead_abi_version() - KEYSTEAD_ABI_VERSION; }\n";
    std::fs::write(&source, text)?;
    let built = installed.compile(compiler, &[&format!("-std={standard}")], &source, "twice")?;
    run(&mut installed.start(built, &[]))
}

fn manual(installed: &Installed) -> anyhow::Result<()> {
    let guide = std::fs::read_to_string(root().join("docs/embedding.md"))?;
    let source = installed.place("manual.c");
    std::fs::write(&source, examples::program(&installed.header()?, &guide)?)?;
    // `{ sizeof options }` leaves the rest 0, as the guide asks.
    let options = ["-std=c89", "-Wno-missing-field-initializers"];
    installed.compile("cc", &[&options[..], &["-c"]].concat(), &source, "manual.o")?;
    Ok(())
}

fn symbols(installed: &Installed, bless: bool) -> anyhow::Result<()> {
    let mut ask = program("nm", &["--dynamic", "--defined-only", "--format=posix"]);
    let said = said(ask.arg(installed.library()?))?;
    let mut names: Vec<&str> = said.lines().filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    let declared = header::functions(&installed.header()?)?;
    let missing: Vec<&str> = declared
        .iter()
        .map(|function| &*function.name)
        .filter(|name| !names.contains(name))
        .collect();
    if !missing.is_empty() {
        bail!("declared, and not exported: {}", missing.join(", "));
    }
    compare(
        &root().join("ffi/abi/symbols.txt"),
        &(names.join("\n") + "\n"),
        bless,
    )
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

/// Compares what callers were compiled against with the header of today. Both sides are a library that a C compiler makes of
/// the header, with its functions left empty: libkeystead's own debug information tells of the insides of handles, which may
/// change. That libkeystead is what its header says is checked by the header's drift, the layouts and the symbols.
fn abi(installed: &Installed, bless: bool) -> anyhow::Result<()> {
    let source = installed.place("interface.c");
    let mut text =
        "/* Written by `cargo xtask ffi-test` from the header. */\n#include <keystead.h>\n".to_owned();
    for function in header::functions(&installed.header()?)? {
        let arguments = function.arguments.iter();
        let arguments: Vec<String> = arguments.map(|(kind, name)| format!("{kind} {name}")).collect();
        let arguments = match arguments.is_empty() {
            true => "void".to_owned(),
            false => arguments.join(", "),
        };
        let (result, name) = (&function.result, &function.name);
        let body = if result == "void" { "" } else { " return 0;" };
        text += &format!("{result} {name}({arguments}) {{{body} }}\n");
    }
    std::fs::write(&source, text)?;
    let stub = installed.place("libinterface.so");
    let mut compile = program("cc", &["-std=c99", "-g", "-shared", "-fPIC"]);
    compile.arg(format!("-Wl,-soname,{}", installed.soname()?));
    compile.arg(format!("-I{}", installed.prefix.join("include").display()));
    // The baseline tells of the interface, not of the directory in which it was written.
    let directory = source.parent().context("it lies in a directory")?;
    compile.arg(format!("-fdebug-prefix-map={}=.", directory.display()));
    run(compile.arg(&source).arg("-o").arg(&stub))?;

    let baseline = root().join("ffi/abi/keystead.abi");
    if bless {
        let options = ["--no-corpus-path", "--no-comp-dir-path", "--no-show-locs"];
        let mut write = program("abidw", &options);
        return run(write.arg("--out-file").arg(&baseline).arg(&stub));
    }
    // What was added is in the list of symbols; here it is about what old callers use.
    let mut compare = program("abidiff", &["--no-added-syms"]);
    run(compare.arg(&baseline).arg(&stub)).context(
        "the C interface is not that of the baseline; if that is meant, and old callers work: --bless",
    )
}
