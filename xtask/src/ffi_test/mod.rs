//! `cargo xtask ffi-test`: libkeystead as its users get it. Built and installed into a prefix of its own by cargo-c, then
//! everything is compiled against that with what pkg-config says alone.
//!
//! | file | what it checks |
//! | --- | --- |
//! | `installed` | the prefix: what is needed for it, how programs are compiled against it and started |
//! | `interface` | the header under every standard, layouts, symbols, the C interface beside the baseline in `ffi/abi/` |
//! | `examples` | the examples in the header's comments and in the guide compile |
//! | `programs` | examples, and programs in C: plain, under AddressSanitizer with LeakSanitizer, under valgrind, under ThreadSanitizer; on a library whose structs have grown |
//! | `nulls` | writes the program that passes NULL for each pointer and nonsense for each length |
//! | `header` | reads the header |
//! | `checks` | the table |

mod checks;
mod examples;
mod header;
mod installed;
mod interface;
mod nulls;
mod programs;

use crate::tools::{cargo, run};
use checks::Checks;
use installed::Installed;
pub(crate) use installed::install;
use std::path::PathBuf;
use std::time::Instant;

/// `bless` writes the lists in `ffi/abi/` instead of comparing them.
pub(crate) fn run_all(bless: bool, prefix: Option<PathBuf>) -> anyhow::Result<bool> {
    let began = Instant::now();
    installed::install_tools()?;
    let installed = Installed::at(prefix)?;
    let mut checks = Checks::default();
    checks.check("the sources: header, layouts, guards, calls, memory", || {
        let packages = ["--package", "keystead-ffi", "--package", "keystead-ffi-calls"];
        run(cargo(&["test"]).args(packages))
    });
    interface::check(&installed, bless, &mut checks);
    programs::check(&installed, &mut checks);
    bindings(&installed, &mut checks);
    Ok(checks.print(began.elapsed()))
}

/// The tests of each binding in `ffi/bindings/`: its `test.sh`.
fn bindings(installed: &Installed, checks: &mut Checks) {
    for binding in ["python", "node", "go"] {
        checks.check(format!("binding: {binding}"), || {
            let test = crate::tools::root()
                .join("ffi/bindings")
                .join(binding)
                .join("test.sh");
            let mut command = installed.start("sh", &[]);
            command.arg(&test).env("KEYSTEAD_PREFIX", &installed.prefix);
            command.env("KEYSTEAD_PLUGIN", &installed.plugin);
            command.env("PKG_CONFIG_PATH", installed.prefix.join("lib/pkgconfig"));
            run(&mut command)
        });
    }
}
