//! The project's commands: `cargo xtask demo`, `test`, `bench`, `lint`. People and the continuous integration use the same.
//!
//! | module | what it does |
//! | --- | --- |
//! | `demo` | builds the demonstration and the plugin that it loads, and runs it |
//! | `test` | sets up what tests need, runs all of them, says what was run and what was left out |
//! | `tally` | counts passed, failed and skipped tests in what the test runners print |
//! | `bench` | builds the benchmark and runs it, at real-time priority where that is allowed |
//! | `lint` | formatting, clippy, documentation, house rules |
//! | `house_rules` | what no other tool checks |
//! | `tools` | runs cargo and others |

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for people")]
#![allow(clippy::disallowed_methods, reason = "it measures how long things take")]

mod bench;
mod demo;
mod house_rules;
mod lint;
mod tally;
mod test;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  demo                            shows an organization's secrets moving to its own key, without any network service
  test [--skip-emulators]         sets up what tests need and runs all of them; with the flag, what needs an AWS emulator
                                  is left out, and listed at the end
  bench [--quick] [--json FILE]   measures Keystead beside raw redb; what follows `bench` is given to it
  lint                            formatting, clippy, documentation, house rules
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["demo"] => demo::run(),
        ["test"] => test::run(false),
        ["test", "--skip-emulators"] => test::run(true),
        ["bench", ref given @ ..] => bench::run(given),
        ["lint"] => lint::run(),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
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
