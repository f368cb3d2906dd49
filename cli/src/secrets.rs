//! Secrets: put, get, list, history, delete, undelete, destroy, retention.
//!
//! Only `get` ever writes a value, and a value never comes from the command line, which others on the machine can read.

use crate::args::{
    DeleteArgs, DestroyArgs, GetArgs, HistoryArgs, ListArgs, PutArgs, RetentionArgs, VersionArgs,
};
use crate::exit::{Exit, Failure, Outcome};
use crate::open::Session;
use crate::output::{Columns, or_dash, time};
use crate::value::{self, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use keystead::{Expect, Organization, Page, PutOptions, SecretInfo, Version, VersionInfo, VersionState};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use zeroize::Zeroizing;

#[derive(Serialize)]
struct Changed<'a> {
    path: &'a str,
    version: Version,
}

pub(crate) fn put(session: &Session, arguments: PutArgs) -> Result<Outcome, Failure> {
    if !arguments.value_in_argument.is_empty() {
        return Err(Failure::usage(
            "a value is never given as an argument, where others on this machine can read it: pipe it in, or use --file",
        ));
    }
    let mut options = PutOptions::new().expect(arguments.expect.map_or(Expect::Any, Expect::from_number));
    for label in &arguments.labels {
        let (name, value) = label
            .split_once('=')
            .ok_or_else(|| Failure::usage("a label is NAME=VALUE"))?;
        options = options.label(name, value);
    }
    if let Some(content_type) = &arguments.content_type {
        options = options.content_type(content_type);
    }
    // Before the store is opened, which an application may be waiting for.
    let mut value = Value::read(arguments.file.as_deref())?;
    if arguments.strip_newline {
        value.strip_newline()?;
    }
    let store = session.open_keys()?;
    let organization = session.organization(&store)?;
    let version = value::put_value(&organization, &arguments.path, value, options)?;
    store.close()?;
    let path = arguments.path.as_str();
    session.out.show(&Changed { path, version }, |out| {
        writeln!(out, "version {version}")
    })?;
    Ok(Outcome::Done)
}

#[derive(Serialize)]
struct Got<'a> {
    path: &'a str,
    version: Version,
    created_at_ms: u64,
    size_bytes: u64,
    content_type: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a Path>,
}

pub(crate) fn get(session: &Session, arguments: &GetArgs) -> Result<Outcome, Failure> {
    let store = session.open_keys()?;
    let organization = session.organization(&store)?;
    let mut reader = organization.reader(&arguments.path, arguments.version.and_then(Version::new))?;
    let info = reader.info().clone();
    if let Some(output) = &arguments.output {
        value::write_file(&mut reader, output, arguments.force)?;
        let got = got(&arguments.path, &info, None, Some(output));
        session.out.show(&got, |out| {
            writeln!(
                out,
                "version {} ({} bytes) in {}",
                info.version,
                info.size_bytes,
                output.display()
            )
        })?;
    } else if session.out.is_json() {
        let value = value::read_whole(&mut reader, info.size_bytes)?;
        let encoded = Zeroizing::new(BASE64.encode(&*value));
        let got = got(&arguments.path, &info, Some(&encoded), None);
        let document = serde_json::to_vec(&got)
            .map(Zeroizing::new)
            .map_err(io::Error::from);
        let written = document.and_then(|document| {
            let mut stdout = value::unbuffered(&io::stdout())?;
            stdout.write_all(&document)?;
            stdout.write_all(b"\n")
        });
        written.map_err(|error| Failure::io("writing the value", error))?;
    } else if io::stdout().is_terminal() {
        let value = value::read_whole(&mut reader, info.size_bytes)?;
        if !arguments.force && !value::is_text(&value) {
            return Err(Failure::usage(format!(
                "version {} of {:?} is binary and standard output is a terminal: use --output FILE, pipe it, or --force",
                info.version, arguments.path
            )));
        }
        let mut stdout =
            value::unbuffered(&io::stdout()).map_err(|error| Failure::io("writing the value", error))?;
        // Only on a terminal, where the prompt would stand beside the value.
        let newline: &[u8] = if value.ends_with(b"\n") { b"" } else { b"\n" };
        let written = stdout.write_all(&value).and_then(|()| stdout.write_all(newline));
        written.map_err(|error| Failure::io("writing the value", error))?;
    } else {
        let mut stdout =
            value::unbuffered(&io::stdout()).map_err(|error| Failure::io("writing the value", error))?;
        value::copy(&mut reader, &mut stdout)?;
    }
    store.close()?;
    Ok(Outcome::Done)
}

fn got<'a>(
    path: &'a str,
    info: &'a VersionInfo,
    value_base64: Option<&'a str>,
    output: Option<&'a Path>,
) -> Got<'a> {
    Got {
        path,
        version: info.version,
        created_at_ms: info.created_at_ms,
        size_bytes: info.size_bytes,
        content_type: info.content_type.as_deref(),
        labels: &info.labels,
        value_base64,
        output,
    }
}

pub(crate) fn list(session: &Session, arguments: ListArgs) -> Result<Outcome, Failure> {
    let store = session.open_rows()?;
    let organization = session.organization(&store)?;
    let limit = arguments.paging.limit as usize;
    let mut page: Page<SecretInfo> =
        organization.list(&arguments.prefix, arguments.after.as_deref(), limit)?;
    while arguments.paging.all
        && let Some(after) = page.next.take()
    {
        let more = organization.list(&arguments.prefix, Some(&after), limit)?;
        page.items.extend(more.items);
        page.next = more.next;
    }
    store.close()?;
    session.out.show(&page, |out| {
        let mut columns = Columns::new(["path", "latest", "deleted", "keep", "updated"]).right([1, 2, 3]);
        for secret in &page.items {
            columns.row([
                secret.path.clone(),
                secret.latest.to_string(),
                secret.deleted.to_string(),
                secret
                    .retention
                    .map_or_else(|| "all".to_owned(), |keep| keep.to_string()),
                time(secret.updated_at_ms),
            ]);
        }
        columns.write(out)
    })?;
    if let Some(next) = &page.next {
        session
            .out
            .remark(format!("there are more: --after {next:?}, or --all"));
    }
    Ok(Outcome::Done)
}

#[derive(Serialize)]
struct History<'a> {
    path: &'a str,
    versions: Vec<VersionView>,
    next: Option<Version>,
}

#[derive(Serialize)]
struct VersionView {
    version: Version,
    state: &'static str,
    created_at_ms: u64,
    deleted_at_ms: Option<u64>,
    destroyed_at_ms: Option<u64>,
    size_bytes: u64,
    content_type: Option<String>,
    labels: BTreeMap<String, String>,
}

impl From<VersionInfo> for VersionView {
    fn from(info: VersionInfo) -> Self {
        let (state, deleted_at_ms, destroyed_at_ms) = match info.state {
            VersionState::Live => ("live", None, None),
            VersionState::Deleted { deleted_at_ms } => ("deleted", Some(deleted_at_ms), None),
            VersionState::Destroyed { destroyed_at_ms } => ("destroyed", None, Some(destroyed_at_ms)),
            VersionState::Lost { .. } => ("lost", None, None),
        };
        Self {
            version: info.version,
            state,
            created_at_ms: info.created_at_ms,
            deleted_at_ms,
            destroyed_at_ms,
            size_bytes: info.size_bytes,
            content_type: info.content_type,
            labels: info.labels,
        }
    }
}

pub(crate) fn history(session: &Session, arguments: &HistoryArgs) -> Result<Outcome, Failure> {
    let store = session.open_rows()?;
    let organization = session.organization(&store)?;
    let path = arguments.path.as_str();
    let limit = arguments.paging.limit as usize;
    let mut after = Version::new(arguments.after);
    let mut versions: Vec<VersionView> = Vec::new();
    let next = loop {
        let page = organization.history(path, after, limit)?;
        let full = page.len() == limit;
        versions.extend(page.into_iter().map(VersionView::from));
        after = versions.last().map(|last| last.version).or(after);
        match (full, arguments.paging.all) {
            (true, true) => {}
            (true, false) => {
                break after.filter(|after| organization.info(path).is_ok_and(|info| info.latest > *after));
            }
            (false, _) => break None,
        }
    };
    store.close()?;
    let history = History { path, versions, next };
    session.out.show(&history, |out| {
        let mut columns =
            Columns::new(["version", "state", "bytes", "written", "content type", "labels"]).right([0, 2]);
        for version in &history.versions {
            let labels: Vec<String> = version
                .labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            columns.row([
                version.version.to_string(),
                version.state.to_owned(),
                version.size_bytes.to_string(),
                time(version.created_at_ms),
                or_dash(version.content_type.as_ref()),
                labels.join(" "),
            ]);
        }
        columns.write(out)
    })?;
    if let Some(next) = next {
        session
            .out
            .remark(format!("there are more: --after {next}, or --all"));
    }
    Ok(Outcome::Done)
}

pub(crate) fn delete(session: &Session, arguments: &DeleteArgs) -> Result<Outcome, Failure> {
    change(session, &arguments.path, "deleted", |organization| {
        let version = match arguments.version.and_then(Version::new) {
            Some(version) => version,
            None => organization.info(&arguments.path)?.latest,
        };
        organization.delete(&arguments.path, version)?;
        Ok(version)
    })
}

pub(crate) fn undelete(session: &Session, arguments: &VersionArgs) -> Result<Outcome, Failure> {
    change(session, &arguments.path, "brought back", |organization| {
        let version = arguments.number()?;
        organization.undelete(&arguments.path, version)?;
        Ok(version)
    })
}

pub(crate) fn destroy(session: &Session, arguments: &DestroyArgs) -> Result<Outcome, Failure> {
    let (path, version) = (arguments.which.path.as_str(), arguments.which.number()?);
    if !arguments.yes {
        confirm(&format!(
            "Destroy version {version} of {path:?} for good? Type yes: "
        ))?;
    }
    change(session, path, "destroyed", |organization| {
        organization.destroy(path, version)?;
        Ok(version)
    })
}

impl VersionArgs {
    fn number(&self) -> Result<Version, Failure> {
        Version::new(self.version).ok_or_else(|| Failure::usage("versions are numbered from 1"))
    }
}

fn change(
    session: &Session,
    path: &str,
    done: &str,
    change: impl FnOnce(&Organization) -> Result<Version, Failure>,
) -> Result<Outcome, Failure> {
    let store = session.open_rows()?;
    let version = change(&session.organization(&store)?)?;
    store.close()?;
    session.out.show(&Changed { path, version }, |out| {
        writeln!(out, "version {version} {done}")
    })?;
    Ok(Outcome::Done)
}

/// Asks on the terminal; where there is none, `--yes` must have been given.
fn confirm(question: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage(
            "there is no terminal to ask on: give --yes; nothing was changed",
        ));
    }
    let failed = |error| Failure::io("asking on the terminal", error);
    let mut stderr = io::stderr();
    stderr
        .write_all(crate::output::printable(question).as_bytes())
        .map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "declined", "nothing was changed")),
    }
}

#[derive(Serialize)]
struct Retention<'a> {
    path: &'a str,
    keep: Option<u32>,
}

pub(crate) fn retention(session: &Session, arguments: &RetentionArgs) -> Result<Outcome, Failure> {
    let path = arguments.path.as_str();
    let store = session.open_rows()?;
    let organization = session.organization(&store)?;
    if arguments.keep.is_some() || arguments.keep_all {
        organization.set_retention(path, arguments.keep)?;
    }
    let keep = organization.info(path)?.retention;
    store.close()?;
    session.out.show(&Retention { path, keep }, |out| match keep {
        Some(keep) => writeln!(out, "keeps at most {keep} versions"),
        None => writeln!(out, "keeps all versions"),
    })?;
    Ok(Outcome::Done)
}
