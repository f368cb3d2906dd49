//! The store as a whole: init, organizations, epochs, audit, backends; and the command's own manual.

use crate::args::{AuditArgs, BackendsArgs, BackendsCommand, Cli, OrgCommand};
use crate::exit::{Failure, Outcome};
use crate::keyring;
use crate::open::{Configured, Session};
use crate::output::{Columns, or_dash, time};
use clap::CommandFactory;
use keystead::backend::Description;
use keystead::{AuditHead, AuditRecord, Epoch, EpochState, Page, Store};
use serde::Serialize;
use serde_json::Value;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Initialized {
    store: PathBuf,
    store_id: String,
    keyring: Option<PathBuf>,
    keyring_created: bool,
}

pub(crate) fn init(session: &Session) -> Result<Outcome, Failure> {
    let path = session.store_path()?;
    // Before the keyring is made, which a store that is there already would not need.
    if path.symlink_metadata().is_ok() {
        return Err(keystead::Error::StoreExists { path }.into());
    }
    let keyring_created = match session.keyring()? {
        Some((path, sealing)) => keyring::create_missing(path, sealing)?,
        None => false,
    };
    let store = Store::options().create(&path)?;
    let initialized = Initialized {
        store: path,
        store_id: store.id().to_string(),
        keyring: session.global.keyring.clone(),
        keyring_created,
    };
    store.close()?;
    session.out.show(&initialized, |out| {
        writeln!(out, "store {} ({})", initialized.store.display(), initialized.store_id)?;
        match &initialized.keyring {
            Some(keyring) if keyring_created => writeln!(
                out,
                "keyring {}: back it up, apart from the store: without it nothing under the managed key opens",
                keyring.display()
            ),
            Some(keyring) => writeln!(out, "keyring {}: it was there", keyring.display()),
            None => Ok(()),
        }
    })?;
    Ok(Outcome::Done)
}

#[derive(Serialize)]
struct Created<'a> {
    id: u32,
    name: &'a str,
}

pub(crate) fn organization(session: &Session, command: OrgCommand) -> Result<Outcome, Failure> {
    match command {
        OrgCommand::Create { name } => {
            let store = session.open_keys()?;
            let id = store.create_organization(&name)?.id().get();
            store.close()?;
            session.out.show(&Created { id, name: &name }, |out| {
                writeln!(out, "organization {name:?} (number {id})")
            })?;
        }
        OrgCommand::List { after, paging } => {
            let store = session.open_rows()?;
            let limit = paging.limit as usize;
            let mut page = store.organizations(after.as_deref(), limit)?;
            while paging.all
                && let Some(after) = page.next.take()
            {
                let more: Page<_> = store.organizations(Some(&after), limit)?;
                page.items.extend(more.items);
                page.next = more.next;
            }
            store.close()?;
            session.out.show(&page, |out| {
                let mut columns = Columns::new(["number", "name", "secrets", "created"]).right([0, 2]);
                for item in &page.items {
                    let (id, secrets) = (item.id.to_string(), item.secrets.to_string());
                    columns.row([id, item.name.clone(), secrets, time(item.created_at_ms)]);
                }
                columns.write(out)
            })?;
            if let Some(next) = &page.next {
                session
                    .out
                    .remark(format!("there are more: --after {next:?}, or --all"));
            }
        }
    }
    Ok(Outcome::Done)
}

#[derive(Serialize)]
struct Epochs {
    epochs: Vec<Epoch>,
}

pub(crate) fn epochs(session: &Session) -> Result<Outcome, Failure> {
    let store = session.open_rows()?;
    let listed = Epochs {
        epochs: session.organization(&store)?.epochs()?,
    };
    store.close()?;
    session.out.show(&listed, |out| {
        let headings = [
            "epoch",
            "key",
            "state",
            "data keys",
            "opened",
            "cause",
            "by",
            "wrapped by",
        ];
        let mut columns = Columns::new(headings).right([0, 3]);
        for epoch in &listed.epochs {
            let state = match epoch.state {
                EpochState::Active => "active",
                EpochState::Live => "live",
                EpochState::Retired => "retired",
            };
            let wraps: Vec<String> = epoch
                .wrapped_by
                .iter()
                .map(|wrap| format!("{} ({})", wrap.key, wrap.kms_key_id))
                .collect();
            columns.row([
                epoch.number.to_string(),
                epoch.key.clone(),
                state.to_owned(),
                epoch.references.to_string(),
                time(epoch.opened_at_ms),
                text_of(&epoch.cause),
                or_dash(epoch.opened_by.actor.as_ref()),
                if wraps.is_empty() {
                    "nothing: erased".to_owned()
                } else {
                    wraps.join(", ")
                },
            ]);
        }
        columns.write(out)
    })?;
    Ok(Outcome::Done)
}

/// A unit variant as JSON has it, such as `first-own-key`.
fn text_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        _ => String::new(),
    }
}

#[derive(Serialize)]
struct Audit {
    records: Vec<RecordView>,
    next: Option<u64>,
}

#[derive(Serialize)]
struct RecordView {
    sequence: u64,
    at_ms: u64,
    actor: Option<String>,
    reason: Option<String>,
    event: String,
    details: Value,
    hash: String,
}

impl From<AuditRecord> for RecordView {
    fn from(record: AuditRecord) -> Self {
        // Events are open-ended: the names of their kinds and fields come from the engine's own serialization.
        let (event, mut details) = match serde_json::to_value(&record.event) {
            Ok(Value::Object(event)) => event.into_iter().next().unwrap_or_default(),
            Ok(Value::String(event)) => (event, Value::Null),
            _ => Default::default(),
        };
        if let Some(hash) = details.get_mut("hash") {
            let bytes: Vec<u8> = serde_json::from_value(hash.take()).unwrap_or_default();
            *hash = Value::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        Self {
            sequence: record.sequence,
            at_ms: record.at_ms,
            actor: record.by.actor,
            reason: record.by.reason,
            event: kebab(&event),
            details,
            hash: record.hash,
        }
    }
}

/// `VersionPut` as `version-put`.
fn kebab(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.extend(c.to_lowercase());
    }
    out
}

impl RecordView {
    /// The event's details in one line.
    fn line(&self) -> String {
        let Value::Object(details) = &self.details else {
            return String::new();
        };
        let shown = details
            .iter()
            .filter(|(name, value)| *name != "hash" && !value.is_null());
        let words: Vec<String> = shown
            .map(|(name, value)| match value {
                Value::String(text) => format!("{name}={text}"),
                other => format!("{name}={other}"),
            })
            .collect();
        words.join(" ")
    }
}

pub(crate) fn audit(session: &Session, arguments: &AuditArgs) -> Result<Outcome, Failure> {
    let store = session.open_rows()?;
    let organization = session.organization(&store)?;
    let head: AuditHead = organization.audit_head()?;
    if arguments.head {
        store.close()?;
        session
            .out
            .show(&head, |out| writeln!(out, "{} {}", head.sequence, head.hash))?;
        return Ok(Outcome::Done);
    }
    let mut after = arguments.after;
    let mut records: Vec<RecordView> = Vec::new();
    while after < head.sequence && (arguments.paging.all || records.is_empty()) {
        let page = organization.audit(after, arguments.paging.limit as usize)?;
        let Some(last) = page.last() else { break };
        after = last.sequence;
        records.extend(page.into_iter().map(RecordView::from));
    }
    store.close()?;
    let audit = Audit {
        records,
        next: (after < head.sequence).then_some(after),
    };
    session.out.show(&audit, |out| {
        let mut columns = Columns::new(["record", "at", "who", "event", "details", "why"]).right([0]);
        for record in &audit.records {
            columns.row([
                record.sequence.to_string(),
                time(record.at_ms),
                or_dash(record.actor.as_ref()),
                record.event.clone(),
                record.line(),
                or_dash(record.reason.as_ref()),
            ]);
        }
        columns.write(out)
    })?;
    if let Some(next) = audit.next {
        session
            .out
            .remark(format!("there are more: --after {next}, or --all"));
    }
    Ok(Outcome::Done)
}

#[derive(Serialize)]
struct Backends {
    backends: Vec<BackendView>,
}

#[derive(Serialize)]
struct BackendView {
    registered_as: String,
    source: &'static str,
    plugin: Option<PathBuf>,
    digest: Option<String>,
    #[serde(flatten)]
    description: Description,
}

impl From<Configured> for BackendView {
    fn from(configured: Configured) -> Self {
        Self {
            registered_as: configured.backend.name().to_owned(),
            source: if configured.plugin.is_some() {
                "plugin"
            } else {
                "builtin"
            },
            plugin: configured.plugin.as_ref().map(|plugin| plugin.path().to_owned()),
            digest: configured
                .plugin
                .as_ref()
                .map(|plugin| plugin.digest().to_string()),
            description: configured.backend.describe(),
        }
    }
}

#[derive(Serialize)]
struct Digested<'a> {
    file: &'a Path,
    digest: String,
}

pub(crate) fn backends(session: &Session, arguments: BackendsArgs) -> Result<Outcome, Failure> {
    if let Some(BackendsCommand::Digest { file }) = arguments.command {
        let digest = keystead_loader::digest_file(&file)
            .map_err(|error| Failure::io(format!("reading {}", file.display()), error))?
            .to_string();
        let digested = Digested { file: &file, digest };
        session
            .out
            .show(&digested, |out| writeln!(out, "{}", digested.digest))?;
        return Ok(Outcome::Done);
    }
    let listed = Backends {
        backends: session.backends()?.into_iter().map(BackendView::from).collect(),
    };
    session.out.show(&listed, |out| {
        if listed.backends.is_empty() {
            return writeln!(out, "no backend: name some in the config file, or give --keyring");
        }
        for backend in &listed.backends {
            let description = &backend.description;
            let from = backend
                .plugin
                .as_ref()
                .map_or_else(|| backend.source.to_owned(), |path| path.display().to_string());
            writeln!(
                out,
                "{}: {} {} ({from})",
                backend.registered_as, description.name, description.version
            )?;
            if let Some(digest) = &backend.digest {
                writeln!(out, "  digest: {digest}")?;
            }
            let credentials: Vec<String> = description.credentials.iter().map(text_of).collect();
            writeln!(out, "  credentials: {}", credentials.join(", "))?;
            fields(out, "config of a key", &description.config_schema)?;
            fields(out, "settings", &description.settings_schema)?;
        }
        Ok(())
    })?;
    Ok(Outcome::Done)
}

/// The fields that a JSON schema of a backend names.
fn fields(out: &mut dyn Write, what: &str, schema: &Value) -> io::Result<()> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Ok(());
    };
    if properties.is_empty() {
        return writeln!(out, "  {what}: none");
    }
    writeln!(out, "  {what}:")?;
    for (name, field) in properties {
        let text = field
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default();
        writeln!(
            out,
            "{}",
            crate::output::printable(&format!("    {name}: {text}"))
        )?;
    }
    Ok(())
}

pub(crate) fn completions(session: &Session, shell: clap_complete::Shell) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "keystead", &mut script);
    write_text(session, &script)
}

pub(crate) fn man(session: &Session, directory: Option<&Path>) -> Result<Outcome, Failure> {
    match directory {
        Some(directory) => {
            clap_mangen::generate_to(Cli::command(), directory).map_err(|error| {
                Failure::io(format!("writing the manual to {}", directory.display()), error)
            })?;
            Ok(Outcome::Done)
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(|error| Failure::io("writing the manual", error))?;
            write_text(session, &page)
        }
    }
}

/// Text that is for another program anyway, --json or not.
fn write_text(_session: &Session, text: &[u8]) -> Result<Outcome, Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text).and_then(|()| stdout.flush());
    written.map_err(|error| Failure::io("writing the output", error))?;
    Ok(Outcome::Done)
}
