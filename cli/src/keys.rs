//! An organization's keys: add, list, set-default, disable, disable-all, rotate, retarget, second, probe.

use crate::args::{KeyAddArgs, KeyCommand, SecondCommand, Waiting};
use crate::exit::{Failure, Outcome};
use crate::open::Session;
use crate::output::{Columns, StatusView, time};
use crate::rewrap;
use keystead::{KeyInfo, KeyState, Keys, Organization, RewrapJob, RewrapState, SecondKey};
use serde::Serialize;
use serde_json::{Map, Value};

pub(crate) fn run(session: &Session, command: KeyCommand) -> Result<Outcome, Failure> {
    match command {
        KeyCommand::Add(arguments) => {
            let config = config(&arguments)?;
            let name = arguments.name.as_str();
            change(session, Some(name), arguments.waiting, |keys, name| {
                keys.add(name, &arguments.backend, config)
            })
        }
        KeyCommand::List => list(session),
        KeyCommand::SetDefault {
            name,
            rewrap,
            waiting,
        } => change(session, Some(&name), waiting, |keys, name| {
            keys.set_default(name, rewrap)
        }),
        KeyCommand::Disable {
            name,
            target,
            waiting,
        } => change(session, Some(&name), waiting, |keys, name| {
            keys.disable(name, &target)
        }),
        KeyCommand::DisableAll { waiting } => {
            change(session, Some(keystead::KeyName::MANAGED), waiting, |keys, _| {
                keys.disable_all()
            })
        }
        KeyCommand::Rotate { name, waiting } => {
            change(session, name.as_deref(), waiting, |keys, name| keys.rotate(name))
        }
        KeyCommand::Retarget { name, waiting } => {
            change(session, Some(&name), waiting, |keys, name| keys.retarget(name))
        }
        KeyCommand::Second(SecondCommand::Set {
            name,
            either_opens,
            waiting,
        }) => change(session, Some(&name), waiting, |keys, name| {
            keys.set_second(name, either_opens)
        }),
        KeyCommand::Second(SecondCommand::Remove) => remove_second(session),
        KeyCommand::Second(SecondCommand::Status) => second(session),
        KeyCommand::Probe { name } => probe(session, name.as_deref()),
    }
}

/// The key's config from the command line.
fn config(arguments: &KeyAddArgs) -> Result<Value, Failure> {
    let Some(text) = &arguments.key_config else {
        let mut fields = Map::new();
        for field in &arguments.fields {
            let (name, text) = field
                .split_once('=')
                .ok_or_else(|| Failure::usage("--set takes FIELD=TEXT"))?;
            fields.insert(name.to_owned(), Value::String(text.to_owned()));
        }
        return Ok(Value::Object(fields));
    };
    let text = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("reading {file}: {error}")))?,
        None => text.clone(),
    };
    match serde_json::from_str(&text) {
        Ok(config @ Value::Object(_)) => Ok(config),
        Ok(_) => Err(Failure::usage(
            "a key's config is a JSON object, such as {\"key_arn\": \"arn:…\"}",
        )),
        Err(error) => Err(Failure::usage(format!(
            "the key's config is not JSON (line {}, column {})",
            error.line(),
            error.column()
        ))),
    }
}

#[derive(Serialize)]
struct Changed<'a> {
    key: &'a str,
    rewrap: Option<StatusView<'a>>,
}

/// Makes a change of the keys, and does the work of the job that it began.
fn change(
    session: &Session,
    name: Option<&str>,
    waiting: Waiting,
    change: impl FnOnce(Keys<'_>, &str) -> keystead::Result<RewrapJob>,
) -> Result<Outcome, Failure> {
    let store = session.open_keys()?;
    let organization = session.organization(&store)?;
    let key = named_or_default(&organization, name)?;
    let job = change(organization.keys(), &key)?;
    let status = match job.number() {
        None => None,
        Some(_) if waiting.no_wait => Some(job.status()?),
        Some(_) => Some(rewrap::work(session, &job)?),
    };
    store.close()?;
    let changed = Changed {
        key: &key,
        rewrap: status.as_ref().map(|status| StatusView::of(Some(status))),
    };
    session.out.show(&changed, |out| match &changed.rewrap {
        Some(status) => writeln!(out, "key {key}: done").and_then(|()| status.write(out)),
        None => writeln!(out, "key {key}: done; there is nothing to re-wrap"),
    })?;
    match status {
        Some(status) if status.state == RewrapState::Running => {
            session.out.remark(
                "the re-wrap rests now that this command ends; it goes on when an application opens the store, or by \
                 `keystead rewrap run`",
            );
            Ok(Outcome::Done)
        }
        Some(status) => Ok(rewrap::outcome(&status)),
        None => Ok(Outcome::Done),
    }
}

fn named_or_default(organization: &Organization, name: Option<&str>) -> Result<String, Failure> {
    match name {
        Some(name) => Ok(name.to_owned()),
        None => {
            let keys = organization.keys().list()?;
            let default = keys.into_iter().find(|key| key.default).map(|key| key.name);
            default.ok_or_else(|| Failure::usage("which key?"))
        }
    }
}

#[derive(Serialize)]
struct Listed {
    keys: Vec<KeyInfo>,
}

fn list(session: &Session) -> Result<Outcome, Failure> {
    let store = session.open_rows()?;
    let listed = Listed {
        keys: session.organization(&store)?.keys().list()?,
    };
    store.close()?;
    session.out.show(&listed, |out| {
        let mut columns = Columns::new(["name", "backend", "state", "default", "added", "config"]);
        for key in &listed.keys {
            let state = match key.state {
                KeyState::Enabled => "enabled",
                KeyState::Disabling => "disabling",
                KeyState::Disabled => "disabled",
                KeyState::Second => "second",
                KeyState::SecondEither => "second, either opens",
            };
            columns.row([
                key.name.clone(),
                key.backend.clone(),
                state.to_owned(),
                if key.default { "yes" } else { "" }.to_owned(),
                time(key.created_at_ms),
                key.config.to_string(),
            ]);
        }
        columns.write(out)
    })?;
    Ok(Outcome::Done)
}

#[derive(Serialize)]
struct Removed {
    removed: bool,
}

fn remove_second(session: &Session) -> Result<Outcome, Failure> {
    let store = session.open_keys()?;
    session.organization(&store)?.keys().remove_second()?;
    store.close()?;
    session.out.show(&Removed { removed: true }, |out| {
        writeln!(out, "the second key is removed; its wraps are erased")
    })?;
    Ok(Outcome::Done)
}

#[derive(Serialize)]
struct Second {
    second: Option<SecondKey>,
}

fn second(session: &Session) -> Result<Outcome, Failure> {
    let store = session.open_rows()?;
    let found = Second {
        second: session.organization(&store)?.keys().second()?,
    };
    store.close()?;
    session.out.show(&found, |out| {
        let Some(second) = &found.second else {
            return writeln!(out, "there is no second key");
        };
        let policy = if second.either_opens {
            "either opens"
        } else {
            "revoked means revoked"
        };
        writeln!(
            out,
            "second key {}: it wraps {} of {} live epochs; {policy}",
            second.key,
            second.wrapped,
            second.wrapped + second.missing
        )?;
        if let Some(reason) = &second.blocked {
            writeln!(out, "the job waits: {reason}")?;
        }
        if let Some(now) = &second.standing_in {
            writeln!(
                out,
                "key {} stands in since {}: {}",
                now.key,
                time(now.since_ms),
                now.because
            )?;
        }
        Ok(())
    })?;
    Ok(Outcome::Done)
}

#[derive(Serialize)]
struct Probed<'a> {
    key: &'a str,
    usable: bool,
}

fn probe(session: &Session, name: Option<&str>) -> Result<Outcome, Failure> {
    let store = session.open_keys()?;
    let organization = session.organization(&store)?;
    let key = named_or_default(&organization, name)?;
    organization.keys().probe(&key)?;
    store.close()?;
    session.out.show(
        &Probed {
            key: &key,
            usable: true,
        },
        |out| {
            writeln!(
                out,
                "key {key}: it wraps, it unwraps, and not under another context"
            )
        },
    )?;
    Ok(Outcome::Done)
}
