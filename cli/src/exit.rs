//! How a run of the command ends: the one error that people and programs see, and the exit codes.

use clap::error::ErrorKind;
use keystead::Error;
use keystead::backend::{BackendError, ErrorClass};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// What stands below the options in `--help` and in the manual.
pub(crate) const EXIT_CODES: &str = "\
A FIRST RUN
  export KEYSTEAD_STORE=app.keystead KEYSTEAD_ORG=acme
  keystead --keyring app.keyring init
  keystead --keyring app.keyring org create acme
  printf %s 'correct horse' | keystead --keyring app.keyring put prod/password
  keystead --keyring app.keyring get prod/password

THE CONFIG FILE
  store = \"app.keystead\"           # relative: to this file's directory
  [backends.managed]
  builtin = \"managed\"
  settings = { keyring = \"/var/lib/app/app.keyring\" }
  [backends.aws-kms]
  plugin = \"/usr/lib/keystead/libkeystead_aws_kms.so\"
  digests = [\"…\"]                  # as `keystead backends digest` prints it
  settings = { profile = \"keystead\" }

EXIT CODES
   0  done
   1  failed
   2  the command line, the config file or an argument is not allowed
   3  not there: an organization, a secret, a version, a key, a job
   4  in conflict with what is there: another version, a name that is taken, a key's state
   5  the key is revoked: disabled, deleted, or its use denied
   6  the KMS is out of reach or throttles; the same call may succeed later
   7  bytes of the store or of a wrap are damaged
   8  the store cannot be opened: not there, not a store, or open elsewhere
   9  `verify` or `doctor` found something wrong
  10  a re-wrap job is blocked; the message says by what
  11  `salvage` made a new store, but something was lost

With --json an error is one JSON document on standard error:
  {\"error\": {\"code\", \"class\", \"retryable\", \"message\", \"exit_code\"}}";

/// How a run ended, with the exit code of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Conflict = 4,
    Revoked = 5,
    Unavailable = 6,
    Damaged = 7,
    CannotOpen = 8,
    Found = 9,
    Blocked = 10,
    Lost = 11,
}

impl Exit {
    /// The class of an error, as its JSON has it.
    fn class(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Revoked => "revoked",
            Self::Unavailable => "unavailable",
            Self::Damaged => "damaged",
            Self::CannotOpen => "cannot-open",
            Self::Found => "found",
            Self::Blocked => "blocked",
            Self::Lost => "lost",
        }
    }
}

/// What a command that did not fail came to: a report may hold bad news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Found,
    Blocked,
    Lost,
    /// What a process of our own ended with, which has said why.
    Of(u8),
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Found => Self::from(Exit::Found as u8),
            Outcome::Blocked => Self::from(Exit::Blocked as u8),
            Outcome::Lost => Self::from(Exit::Lost as u8),
            Outcome::Of(code) => Self::from(code),
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    code: String,
    retryable: bool,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, code: &str, message: impl Display) -> Self {
        Self {
            exit,
            code: code.to_owned(),
            retryable: exit == Exit::Unavailable,
            message: message.to_string(),
        }
    }

    /// The command line, or the config file, asks for something that is not allowed.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// An input or output that failed. A reader that went away is no failure.
    pub(crate) fn io(doing: impl Display, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::Failed, BROKEN_PIPE, doing),
            _ => match error.downcast::<Error>() {
                // The engine's own error, on its way through a reader or writer.
                Ok(own) => own.into(),
                Err(error) => Self::new(Exit::Failed, "io", format!("{doing}: {error}")),
            },
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Tells standard error, and gives the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        // Whoever read our output has had enough of it: as a filter ends, quietly.
        if self.code == BROKEN_PIPE {
            return ExitCode::SUCCESS;
        }
        let mut stderr = io::stderr().lock();
        // Where standard error is gone, the exit code is all that can be said.
        let _ = if json {
            let error = Reported {
                code: &self.code,
                class: self.exit.class(),
                retryable: self.retryable,
                message: &self.message,
                exit_code: self.exit as u8,
            };
            writeln!(stderr, "{}", serde_json::json!({ "error": error }))
        } else {
            writeln!(stderr, "keystead: {}", crate::output::printable(&self.message))
        };
        ExitCode::from(self.exit as u8)
    }
}

const BROKEN_PIPE: &str = "broken-pipe";

#[derive(Serialize)]
struct Reported<'a> {
    code: &'a str,
    class: &'a str,
    retryable: bool,
    message: &'a str,
    exit_code: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (exit, code) = classify(&error);
        Self {
            exit,
            code,
            retryable: error.is_retryable(),
            message: error.to_string(),
        }
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        let exit = of_class(error.code.class());
        Self {
            exit,
            code: backend_code(&error),
            retryable: error.code.class() == ErrorClass::Retryable,
            message: error.to_string(),
        }
    }
}

fn classify(error: &Error) -> (Exit, String) {
    let (exit, code) = match error {
        Error::InvalidPath { .. } => (Exit::Usage, "invalid-path"),
        Error::InvalidName { .. } => (Exit::Usage, "invalid-name"),
        Error::InvalidArgument { .. } => (Exit::Usage, "invalid-argument"),
        Error::TooLarge { .. } => (Exit::Usage, "too-large"),
        Error::RenameRefused { .. } => (Exit::Usage, "rename-refused"),
        Error::BackendNotRegistered { .. } => (Exit::Usage, "backend-not-registered"),
        Error::OrganizationNotFound { .. } => (Exit::NotFound, "organization-not-found"),
        Error::SecretNotFound { .. } => (Exit::NotFound, "secret-not-found"),
        Error::VersionNotFound { .. } => (Exit::NotFound, "version-not-found"),
        Error::VersionDeleted { .. } => (Exit::NotFound, "version-deleted"),
        Error::VersionDestroyed { .. } => (Exit::NotFound, "version-destroyed"),
        Error::VersionLost { .. } => (Exit::Damaged, "version-lost"),
        Error::KeyNotFound { .. } => (Exit::NotFound, "key-not-found"),
        Error::NoJob { .. } => (Exit::NotFound, "no-job"),
        Error::OrganizationExists { .. } => (Exit::Conflict, "organization-exists"),
        Error::VersionMismatch { .. } => (Exit::Conflict, "version-mismatch"),
        Error::KeyExists { .. } => (Exit::Conflict, "key-exists"),
        Error::KeyRefused { .. } => (Exit::Conflict, "key-refused"),
        Error::EpochExhausted { .. } => (Exit::Conflict, "epoch-exhausted"),
        Error::StoreExists { .. } => (Exit::Conflict, "store-exists"),
        Error::StoreNotFound { .. } => (Exit::CannotOpen, "store-not-found"),
        Error::AlreadyOpen { .. } => (Exit::CannotOpen, "already-open"),
        Error::NotAStore { .. } => (Exit::CannotOpen, "not-a-store"),
        Error::Damaged { .. } => (Exit::Damaged, "damaged"),
        Error::CheckpointOfAnotherStore { .. } => (Exit::CannotOpen, "checkpoint-of-another-store"),
        Error::BehindCheckpoint { .. } => (Exit::Damaged, "behind-checkpoint"),
        Error::NotOfCheckpoint { .. } => (Exit::Damaged, "not-of-checkpoint"),
        Error::StorePanicked { .. } => (Exit::Damaged, "store-panicked"),
        Error::Storage { .. } => (Exit::Failed, "storage"),
        Error::Closed { .. } => (Exit::Failed, "closed"),
        Error::Randomness(_) => (Exit::Failed, "randomness"),
        Error::Stream { .. } => (Exit::Failed, "io"),
        Error::Kms { source, .. } => return (of_class(source.code.class()), backend_code(source)),
        _ => (Exit::Failed, "failed"),
    };
    (exit, code.to_owned())
}

fn of_class(class: ErrorClass) -> Exit {
    match class {
        ErrorClass::Config => Exit::Usage,
        ErrorClass::Revoked => Exit::Revoked,
        ErrorClass::Integrity => Exit::Damaged,
        ErrorClass::Retryable => Exit::Unavailable,
        ErrorClass::Failed => Exit::Failed,
    }
}

/// The backend's own code, such as `kms-key-disabled`.
fn backend_code(error: &BackendError) -> String {
    format!("kms-{}", error.code.to_string().replace(' ', "-"))
}

/// What the parser of the command line says: help on standard output, a mistake on standard error.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // The parser did not get as far as the flag.
    if std::env::args_os().any(|argument| argument == "--json") {
        return Failure::usage(error.to_string().trim_end()).report(true);
    }
    let _ = error.print();
    ExitCode::from(Exit::Usage as u8)
}
