//! The `keystead` command: the store of an application, for the people who look after it.
//!
//! | module | what it is |
//! | --- | --- |
//! | `args` | the command line |
//! | `config`, `open` | the config file; from both to backends and an open store |
//! | `secrets`, `keys`, `rewrap`, `ops`, `salvage`, `keyring`, `doctor` | the commands |
//! | `verify` | verification in a child process; checkpoints |
//! | `value` | a value on its way in and out |
//! | `output` | tables for people, JSON for programs, progress bars |
//! | `exit` | the one error, and the exit code that it ends with |

mod args;
mod config;
mod doctor;
mod exit;
mod keyring;
mod keys;
mod open;
mod ops;
mod output;
mod rewrap;
mod salvage;
mod secrets;
mod value;
mod verify;

use crate::args::{Cli, Command};
use crate::exit::{Failure, Outcome};
use crate::open::Session;
use crate::output::Output;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let limits = open::without_core_dumps();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    output::log_to_stderr(cli.global.verbose, &cli.command);
    let json = cli.global.json;
    match run(cli, limits) {
        Ok(outcome) => outcome.into(),
        Err(failure) => failure.report(json),
    }
}

fn run(cli: Cli, limits: open::CoreLimit) -> Result<Outcome, Failure> {
    let out = Output::new(cli.global.json);
    let session = Session::new(cli.global, out);
    match cli.command {
        Command::Init => ops::init(&session),
        Command::Org(command) => ops::organization(&session, command),
        Command::Put(arguments) => secrets::put(&session, arguments),
        Command::Get(arguments) => secrets::get(&session, &arguments),
        Command::List(arguments) => secrets::list(&session, arguments),
        Command::History(arguments) => secrets::history(&session, &arguments),
        Command::Delete(arguments) => secrets::delete(&session, &arguments),
        Command::Undelete(arguments) => secrets::undelete(&session, &arguments),
        Command::Destroy(arguments) => secrets::destroy(&session, &arguments),
        Command::Retention(arguments) => secrets::retention(&session, &arguments),
        Command::Key(command) => keys::run(&session, command),
        Command::Rewrap(command) => rewrap::run(&session, command),
        Command::Epochs => ops::epochs(&session),
        Command::Audit(arguments) => ops::audit(&session, &arguments),
        Command::Salvage(arguments) => salvage::run(&session, &arguments),
        Command::Verify(arguments) => verify::run(&session, &arguments),
        Command::Checkpoint(arguments) => verify::checkpoint(&session, &arguments),
        Command::Backends(arguments) => ops::backends(&session, arguments),
        Command::Keyring(command) => keyring::run(&session, command),
        Command::Doctor(arguments) => doctor::run(&session, &arguments, limits),
        Command::Completions { shell } => ops::completions(&session, shell),
        Command::Man { directory } => ops::man(&session, directory.as_deref()),
    }
}
