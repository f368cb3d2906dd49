//! `verify`, in a child process, and checkpoints.
//!
//! A file that somebody made on purpose can end a process that looks at it: by a panic that meets another one, by a stack that
//! overflows, by memory. So the command starts itself again, with a limit on memory, and what ends the child is a finding.

use crate::args::{CheckpointArgs, VerifyArgs};
use crate::exit::{Failure, Outcome};
use crate::open::Session;
use crate::output::{Progress, printable};
use keystead::{Problem, VerifyOptions, VerifyReport};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

#[derive(Serialize)]
struct Verified {
    clean: bool,
    #[serde(flatten)]
    report: VerifyReport,
}

/// Verifies in a child process; says what became of it.
pub(crate) fn run(session: &Session, arguments: &VerifyArgs) -> Result<Outcome, Failure> {
    if arguments.in_this_process {
        limit_memory(arguments.memory_mib);
        return in_this_process(session, arguments);
    }
    let doing = "starting the process that verifies";
    let own = std::env::current_exe().map_err(|error| Failure::io(doing, error))?;
    let status = Command::new(own)
        .args(std::env::args_os().skip(1))
        .arg("--in-this-process")
        .status()
        .map_err(|error| Failure::io(doing, error))?;
    match (status.code(), status.signal()) {
        (Some(PANICKED), _) => crashed(session, "by a panic", arguments.memory_mib),
        (Some(code), _) => Ok(Outcome::Of(u8::try_from(code).unwrap_or(1))),
        (None, signal) => {
            let how = format!("by signal {}", signal.unwrap_or_default());
            crashed(session, &how, arguments.memory_mib)
        }
    }
}

/// What Rust ends a process with when its main thread panics.
const PANICKED: i32 = 101;

/// The child did not come to its end: an abort, a crash, or the system, for want of memory.
fn crashed(session: &Session, how: &str, memory_mib: u64) -> Result<Outcome, Failure> {
    let what = format!(
        "the process that verified was ended {how}: the file makes the storage engine fail, or it needs more than the \
         {memory_mib} MiB of --memory-mib"
    );
    let verified = Verified {
        clean: false,
        report: VerifyReport::ended_early(what),
    };
    show(session, &verified)?;
    Ok(Outcome::Found)
}

/// What is over this fails in the child, and ends it.
fn limit_memory(mib: u64) {
    let before = getrlimit(Resource::As);
    let bytes = mib.saturating_mul(1 << 20);
    let limit = Rlimit {
        current: Some(before.maximum.map_or(bytes, |most| most.min(bytes))),
        maximum: before.maximum,
    };
    if let Err(error) = setrlimit(Resource::As, limit) {
        tracing::warn!(%error, "the memory of this verification has no limit");
    }
}

fn in_this_process(session: &Session, arguments: &VerifyArgs) -> Result<Outcome, Failure> {
    let store = if arguments.open_values {
        session.open_keys()?
    } else {
        session.open_rows()?
    };
    let progress = Progress::of_verify(session.out);
    let options = VerifyOptions {
        open_values: arguments.open_values,
    };
    let report = store.verify(options, |done| progress.tell_verified(&done))?;
    drop(progress);
    let verified = Verified {
        clean: report.is_clean(),
        report,
    };
    // A file that is damaged may not close either: the report says more about it.
    let closed = store.close();
    if verified.clean {
        closed?;
    }
    show(session, &verified)?;
    let found = !verified.clean || !verified.report.unopened.is_empty();
    Ok(if found { Outcome::Found } else { Outcome::Done })
}

fn show(session: &Session, verified: &Verified) -> Result<(), Failure> {
    session.out.show(verified, |out| {
        let report = &verified.report;
        writeln!(
            out,
            "{} blocks, {} organizations, {} secrets, {} versions, {} chunks, {} epochs, {} wraps, {} audit records; {} values opened",
            report.blocks,
            report.organizations,
            report.secrets,
            report.versions,
            report.chunks,
            report.epochs,
            report.wraps,
            report.audit_records,
            report.values_opened
        )?;
        for (kind, found) in [("problem", &report.problems), ("not opened", &report.unopened)] {
            for problem in found {
                writeln!(out, "{}", printable(&line(kind, problem)))?;
            }
        }
        if report.stale_blocks > 0 {
            writeln!(
                out,
                "{} blocks do not match their tags, and nothing refers to them: a crash left them",
                report.stale_blocks
            )?;
        }
        match (report.problems.len(), report.unopened.len()) {
            (0, 0) => writeln!(out, "nothing is wrong"),
            (0, unopened) => writeln!(
                out,
                "nothing is wrong with what was checked; {unopened} values were not opened"
            ),
            (problems, _) => writeln!(out, "{problems} problems: keep this file, restore from a copy"),
        }
    })
}

fn line(kind: &str, problem: &Problem) -> String {
    let place = [
        problem.organization.clone(),
        problem.path.clone(),
        problem.version.map(|version| version.to_string()),
    ];
    let place: Vec<String> = place.into_iter().flatten().collect();
    let place = if place.is_empty() {
        "the store".into()
    } else {
        place.join(" ")
    };
    format!("{kind}: {place}: {}", problem.what)
}

/// Prints how far each organization has come, or writes it into a file.
pub(crate) fn checkpoint(session: &Session, arguments: &CheckpointArgs) -> Result<Outcome, Failure> {
    let store = session.open_rows()?;
    let mut checkpoint = store.checkpoint()?;
    store.close()?;
    if let Some(name) = session.global.org.as_deref() {
        checkpoint
            .organizations
            .retain(|organization, _| organization == name);
        if checkpoint.organizations.is_empty() {
            return Err(Failure::usage(format!(
                "there is no organization {name:?} in this store"
            )));
        }
    }
    let Some(file) = &arguments.output else {
        // It is a document in either case.
        session.out.show(&checkpoint, |out| {
            serde_json::to_writer_pretty(&mut *out, &checkpoint)?;
            writeln!(out)
        })?;
        return Ok(Outcome::Done);
    };
    let failed = |error| Failure::io(format!("writing {}", file.display()), error);
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut whole = tempfile::NamedTempFile::new_in(directory.unwrap_or(".".as_ref())).map_err(failed)?;
    serde_json::to_writer_pretty(&mut whole, &checkpoint).map_err(|error| failed(error.into()))?;
    whole.as_file().sync_all().map_err(failed)?;
    whole.persist(file).map_err(|error| failed(error.error))?;
    session.out.show(
        &serde_json::json!({ "output": file, "organizations": checkpoint.organizations.len() }),
        |out| {
            writeln!(
                out,
                "{} organizations: keep {} apart from the store",
                checkpoint.organizations.len(),
                file.display()
            )
        },
    )?;
    Ok(Outcome::Done)
}
