//! The project's commands: `cargo xtask demo`, `test`, `fuzz`, `damage`, `soak`, `replay`, `mutants`, `bench`,
//! `plugins`, `lint`. People and the continuous integration use the same.
//!
//! | module | what it does |
//! | --- | --- |
//! | `demo` | builds the demonstration and the plugin that it loads, and runs it |
//! | `test` | sets up what tests need, runs all of them, says what was run and what was left out |
//! | `tally` | counts passed, failed and skipped tests in what the test runners print |
//! | `fuzz` | builds the fuzz targets, runs each for a while, says what was executed, covered and found |
//! | `damage` | damages store files, thousands of them, and says what the engine makes of each |
//! | `plugins` | builds every plugin as it is shipped, and prints what each costs |
//! | `ffi_test` | installs libkeystead, and checks it as its users get it |
//! | `bench` | builds the benchmark and runs it, at real-time priority where that is allowed |
//! | `soak` | lives simulated lives of stores, and one of them once more |
//! | `mutants` | builds the engine with its planted bugs, and shows that the suite notices each |
//! | `lint` | formatting, clippy, documentation, house rules |
//! | `house_rules` | what no other tool checks |
//! | `retry` | tries three times what fetches something |
//! | `tools` | runs cargo and others |

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for people")]
#![allow(clippy::disallowed_methods, reason = "it measures how long things take")]

mod bench;
mod damage;
mod demo;
mod error_tables;
mod ffi_test;
mod fuzz;
mod house_rules;
mod lint;
mod mutants;
mod plugins;
mod retry;
mod soak;
mod tally;
mod test;
mod tools;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The project's commands.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows an organization's secrets moving to its own key, without any network service.
    Demo,
    /// Sets up what tests need and runs all of them.
    Test {
        /// Leaves out what needs a peer that stands for a KMS, and lists it at the end.
        #[arg(long)]
        skip_emulators: bool,
        /// Runs each fuzz target for so long, too. (0: only its seeds and former findings, as ordinary tests.)
        #[arg(long, default_value_t = 0)]
        fuzz_seconds: u64,
    },
    /// Runs every fuzz target for a while; prints executions, coverage and findings.
    Fuzz {
        /// For how long each target runs.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// How many run at a time.
        #[arg(long, default_value_t = cores())]
        jobs: usize,
        /// One input, such as a finding: it alone is run, through the one target that is given.
        #[arg(long, requires = "targets")]
        input: Option<std::path::PathBuf>,
        /// Which targets; all unless told otherwise.
        targets: Vec<String>,
    },
    /// Damages a store file in thousands of ways; prints what the engine makes of each, and the zeros.
    Damage {
        /// How many images.
        #[arg(long, default_value_t = 20_000)]
        images: u64,
        /// What all of them follow from.
        #[arg(long)]
        seed: Option<u64>,
        /// This image alone, in one process.
        #[arg(long)]
        image: Option<u64>,
    },
    /// Measures Keystead beside raw redb; everything behind `bench` is given to the benchmark. With --checks first: what checked
    /// reads and the journal's marks cost, beside an engine without them.
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        given: Vec<String>,
    },
    /// Lives simulated lives from fresh seeds on all cores: --minutes, --seed, --profile power|io|lie|lives|threads.
    #[command(disable_help_flag = true)]
    Soak {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        given: Vec<String>,
    },
    /// Lives the life of one seed twice and compares the traces: SEED, --profile.
    #[command(disable_help_flag = true)]
    Replay {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        given: Vec<String>,
    },
    /// Shows that the test suite notices planted bugs: each of them in turn, or the named ones.
    Mutants {
        names: Vec<String>,
        /// Tells what each planted bug does, and the story of how it was noticed.
        #[arg(long)]
        stories: bool,
    },
    /// Installs libkeystead into a prefix of its own, and checks header, symbols, examples, programs and bindings against it.
    FfiTest {
        /// Writes the lists in `ffi/abi/` instead of comparing them.
        #[arg(long)]
        bless: bool,
        /// Checks what is installed in this prefix, instead of building and installing it.
        #[arg(long)]
        prefix: Option<std::path::PathBuf>,
    },
    /// Builds every plugin for release; prints size, time to load, memory and threads of each.
    Plugins,
    /// Checks formatting, clippy, documentation and house rules.
    Lint,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo => demo::run(),
        Command::Test {
            skip_emulators,
            fuzz_seconds,
        } => test::run(skip_emulators, fuzz_seconds),
        Command::Fuzz {
            input: Some(input),
            targets,
            ..
        } => fuzz::replay(&targets[0], &input),
        Command::Fuzz {
            seconds,
            jobs,
            targets,
            ..
        } => fuzz::run(&fuzz::Options {
            seconds,
            jobs,
            targets,
        }),
        Command::Damage { images, seed, image } => damage::run(images, seed, image),
        Command::Bench { given } => bench::run(&given),
        Command::Soak { given } => soak::run("soak", &given),
        Command::Replay { given } => soak::run("replay", &given),
        Command::Mutants { names, stories } => mutants::run_all(&names, stories),
        Command::FfiTest { bless, prefix } => ffi_test::run_all(bless, prefix),
        Command::Plugins => plugins::run(),
        Command::Lint => lint::run(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}
