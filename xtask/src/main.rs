//! The project's commands: `cargo xtask demo`, `test`, `bench`, `soak`, `replay`, `mutants`, `lint`. People and the continuous
//! integration use the same.
//!
//! | module | what it does |
//! | --- | --- |
//! | `demo` | builds the demonstration and the plugin that it loads, and runs it |
//! | `test` | sets up what tests need, runs all of them, says what was run and what was left out |
//! | `tally` | counts passed, failed and skipped tests in what the test runners print |
//! | `bench` | builds the benchmark and runs it, at real-time priority where that is allowed |
//! | `soak` | lives simulated lives of stores, and one of them once more |
//! | `mutants` | builds the engine with its planted bugs, and shows that the suite notices each |
//! | `lint` | formatting, clippy, documentation, house rules |
//! | `house_rules` | what no other tool checks |
//! | `tools` | runs cargo and others |

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for people")]
#![allow(clippy::disallowed_methods, reason = "it measures how long things take")]

mod bench;
mod demo;
mod house_rules;
mod lint;
mod mutants;
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
        /// Leaves out what needs an AWS emulator, and lists it at the end.
        #[arg(long)]
        skip_emulators: bool,
    },
    /// Measures Keystead beside raw redb; everything behind `bench` is given to the benchmark.
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        given: Vec<String>,
    },
    /// Lives simulated lives from fresh seeds on all cores: --minutes, --seed, --profile power|io|lie|lives.
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
    /// Checks formatting, clippy, documentation and house rules.
    Lint,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo => demo::run(),
        Command::Test { skip_emulators } => test::run(skip_emulators),
        Command::Bench { given } => bench::run(&given),
        Command::Soak { given } => soak::run("soak", &given),
        Command::Replay { given } => soak::run("replay", &given),
        Command::Mutants { names, stories } => mutants::run_all(&names, stories),
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
