//! `doctor`: checks what surrounds a store, and says what to do about each thing that is not as it should be.
//!
//! It changes nothing, and a check that fails does not keep the others from being made.

use crate::args::DoctorArgs;
use crate::config::BackendConfig;
use crate::exit::{Exit, Failure, Outcome};
use crate::open::{self, CoreLimit, Session};
use crate::output::printable;
use keystead::backend::{LockedMemoryStatus, locked_memory_status};
use keystead::{Backend, KeyState, Organization, RewrapState, Store};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What an organization's page of the list holds.
const PAGE: usize = 1000;

#[derive(Serialize)]
struct Report {
    result: Finding,
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    check: String,
    result: Finding,
    detail: String,
    /// What to do; nothing when all is well.
    advice: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Finding {
    Ok,
    Warn,
    Fail,
}

pub(crate) fn run(session: &Session, arguments: &DoctorArgs, core: CoreLimit) -> Result<Outcome, Failure> {
    let mut doctor = Doctor {
        session,
        checks: Vec::new(),
        usable: Vec::new(),
    };
    doctor.config();
    doctor.memory();
    doctor.core_dumps(core);
    doctor.keyring();
    doctor.backends();
    doctor.store(arguments.probe);
    let checks = doctor.checks;
    let result = checks
        .iter()
        .map(|check| check.result)
        .max()
        .unwrap_or(Finding::Ok);
    let report = Report { result, checks };
    session.out.show(&report, |out| {
        for check in &report.checks {
            let mark = match check.result {
                Finding::Ok => "ok  ",
                Finding::Warn => "warn",
                Finding::Fail => "FAIL",
            };
            writeln!(
                out,
                "{mark}  {}: {}",
                printable(&check.check),
                printable(&check.detail)
            )?;
            if let Some(advice) = &check.advice {
                writeln!(out, "      -> {}", printable(advice))?;
            }
        }
        Ok(())
    })?;
    Ok(if result == Finding::Fail {
        Outcome::Found
    } else {
        Outcome::Done
    })
}

struct Doctor<'a> {
    session: &'a Session,
    checks: Vec<Check>,
    /// The backends that passed their checks.
    usable: Vec<Backend>,
}

impl Doctor<'_> {
    fn ok(&mut self, check: impl Into<String>, detail: impl Into<String>) {
        self.add(Finding::Ok, check, detail, None);
    }

    fn warn(&mut self, check: impl Into<String>, detail: impl Into<String>, advice: &str) {
        self.add(Finding::Warn, check, detail, Some(advice.to_owned()));
    }

    fn fail(&mut self, check: impl Into<String>, detail: impl Into<String>, advice: &str) {
        self.add(Finding::Fail, check, detail, Some(advice.to_owned()));
    }

    fn add(
        &mut self,
        result: Finding,
        check: impl Into<String>,
        detail: impl Into<String>,
        advice: Option<String>,
    ) {
        self.checks.push(Check {
            check: check.into(),
            result,
            detail: detail.into(),
            advice,
        });
    }

    fn config(&mut self) {
        let Some(path) = &self.session.global.config else {
            return self.ok("config file", "none given");
        };
        match self.session.config() {
            Err(failure) => self.fail(
                "config file",
                failure.message(),
                "correct the file; `keystead --help` says how",
            ),
            Ok(config) => {
                let count = config.backends.len();
                if config.backends.values().any(BackendConfig::has_secret) && is_open_to_others(path) {
                    let advice = "chmod 600: its settings hold a secret";
                    self.fail(
                        "config file",
                        format!("{}: others may read it", path.display()),
                        advice,
                    );
                }
                match &config.other_writers {
                    None => self.ok("config file", format!("{}: {count} backends", path.display())),
                    Some(reason) => {
                        let advice =
                            "let nobody else write to it, or to a directory above it: chmod go-w, chown";
                        self.warn("config file", format!("{}: {reason}", path.display()), advice);
                    }
                }
            }
        }
    }

    fn memory(&mut self) {
        use rustix::process::{Resource, getrlimit};
        let limit = getrlimit(Resource::Memlock).current;
        let limit = limit.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{} KiB", bytes / 1024));
        let detail = |what: &str| format!("{what}; RLIMIT_MEMLOCK is {limit}");
        match locked_memory_status() {
            LockedMemoryStatus::Locked => self.ok("locked memory", detail("keys stay out of swap")),
            LockedMemoryStatus::Partly => self.warn(
                "locked memory",
                detail("the limit is reached: some keys may be swapped out"),
                "raise it (`ulimit -l`, `LimitMEMLOCK=` of systemd): 64 bytes for each cached epoch key",
            ),
            LockedMemoryStatus::Unsupported => {
                self.warn(
                    "locked memory",
                    "this platform does not allow it",
                    "encrypt the swap, or switch it off",
                );
            }
        }
    }

    fn core_dumps(&mut self, core: CoreLimit) {
        match (core.before, core.lowered) {
            (Some(0), _) => self.ok("core dumps", "switched off"),
            (before, lowered) => {
                let limit =
                    before.map_or_else(|| "unlimited".to_owned(), |bytes| format!("up to {bytes} bytes"));
                let own = if lowered {
                    "this command switched them off for itself"
                } else {
                    "also for this command"
                };
                let advice = "switch them off for the application (`ulimit -c 0`, `LimitCORE=0` of systemd): values that it \
                              reads lie in ordinary memory";
                self.warn("core dumps", format!("{limit}; {own}"), advice);
            }
        }
    }

    /// Loads each backend of the config file.
    fn backends(&mut self) {
        let Ok(config) = self.session.config() else { return };
        for (name, backend) in &config.backends {
            let check = format!("backend {name}");
            match open::configured(name, backend) {
                Ok(configured) => {
                    let description = configured.backend.describe();
                    let from = configured.plugin.as_ref().map_or_else(
                        || "part of this command".to_owned(),
                        |plugin| format!("{}, digest as expected", plugin.path().display()),
                    );
                    self.ok(
                        check,
                        format!("{} {} ({from})", description.name, description.version),
                    );
                    self.usable.push(configured.backend);
                }
                Err(failure) => {
                    let advice = "see that the plugin is the one you mean, owned by root or you, closed to other writers; \
                                  `keystead backends digest FILE` prints its digest";
                    self.fail(check, failure.message(), advice);
                }
            }
            if let Some(path) = backend
                .settings
                .get("keyring")
                .and_then(serde_json::Value::as_str)
            {
                let sealed = backend
                    .settings
                    .keys()
                    .any(|field| field.starts_with("passphrase"));
                let created = backend
                    .settings
                    .get("create")
                    .and_then(serde_json::Value::as_bool);
                self.keyring_file(Path::new(path), sealed, created.unwrap_or(true));
            }
        }
        if self.usable.is_empty() {
            self.warn(
                "backends",
                "none",
                "name them in the config file, or give --keyring: nothing can be opened",
            );
        }
    }

    fn keyring(&mut self) {
        match self.session.keyring() {
            Ok(Some((path, sealing))) => {
                let path = path.to_owned();
                self.keyring_file(&path, sealing.is_sealed(), false);
                if let Ok(Some(backend)) = self.session.keyring_backend() {
                    self.usable.push(backend);
                }
            }
            Ok(None) => {}
            Err(failure) => self.fail("keyring", failure.message(), "correct the options"),
        }
    }

    fn keyring_file(&mut self, path: &Path, sealed: bool, created: bool) {
        let check = format!("keyring {}", path.display());
        if created
            && path
                .symlink_metadata()
                .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            let advice = "if it was there before, its disk is not mounted: mount or restore it; once it is there, set `create` \
                          to false";
            return self.warn(check, "not there; the first wrap under it makes it", advice);
        }
        // A backend refuses a keyring of another user; a store of one can be opened.
        if !self.closed_to_others(&check, path, Finding::Fail) || sealed {
            return;
        }
        let store = self
            .session
            .store_path()
            .ok()
            .and_then(|store| std::path::absolute(store).ok());
        let keyring = std::path::absolute(path).ok();
        if store.as_deref().and_then(Path::parent) == keyring.as_deref().and_then(Path::parent) {
            let advice = "seal it with a passphrase, or keep and back it up apart from the store: together they protect nothing";
            self.warn(check, "not sealed, and in the directory of the store", advice);
        }
    }

    /// Checks owner and mode of a file with something to protect; true when it is there.
    fn closed_to_others(&mut self, check: &str, path: &Path, of_another_user: Finding) -> bool {
        let metadata = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                self.fail(
                    check,
                    error.to_string(),
                    "mount or restore it, or correct its path",
                );
                return false;
            }
        };
        let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
        if !metadata.is_file() {
            self.fail(
                check,
                "not a regular file; links are not followed",
                "name the file itself",
            );
        } else if mode & 0o077 != 0 {
            self.fail(check, format!("its mode {mode:04o} lets others in"), "chmod 600");
        } else if owner != rustix::process::geteuid().as_raw() {
            let detail = format!("it belongs to another user (uid {owner})");
            let advice = "run as that user, or chown it";
            self.add(of_another_user, check, detail, Some(advice.to_owned()));
        } else {
            self.ok(check, format!("mode {mode:04o}, {} bytes", metadata.len()));
        }
        true
    }

    fn store(&mut self, probe: bool) {
        let path = match self.session.store_path() {
            Ok(path) => path,
            Err(failure) => return self.warn("store", failure.message(), "give one to have it checked"),
        };
        let check = format!("store {}", path.display());
        if !self.closed_to_others(&check, &path, Finding::Warn) {
            return;
        }
        let store = match self.session.open_with(&self.usable) {
            Ok(store) => store,
            Err(failure) => {
                let advice = match failure.exit() {
                    Exit::CannotOpen => "if an application has it open, stop that to have the store checked",
                    Exit::Damaged => "keep this file; restore from a copy",
                    _ => "see the message",
                };
                return self.fail("open the store", failure.message(), advice);
            }
        };
        self.ok(
            "open the store",
            format!(
                "id {}, in a format that version {} reads",
                store.id(),
                env!("CARGO_PKG_VERSION")
            ),
        );
        if let Err(failure) = self.organizations(&store, probe) {
            self.fail("organizations", failure.message(), "run `keystead verify`");
        }
        if let Err(error) = store.close() {
            self.fail(
                "close the store",
                error.to_string(),
                "look at the disk: space, errors",
            );
        }
    }

    fn organizations(&mut self, store: &Store, probe: bool) -> Result<(), Failure> {
        if self.session.global.org.is_some() {
            let organization = store.organization(self.session.organization_name()?)?;
            return self.organization(&organization, probe);
        }
        let (mut after, mut count) = (None, 0);
        loop {
            let page = store.organizations(after.as_deref(), PAGE)?;
            for item in &page.items {
                count += 1;
                self.organization(&store.organization(&item.name)?, probe)?;
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        self.ok("organizations", format!("{count} looked at"));
        Ok(())
    }

    /// Says what is wrong with an organization; of what is well, only that its key answered.
    fn organization(&mut self, organization: &Organization, probe: bool) -> Result<(), Failure> {
        let name = organization.name();
        let known: BTreeSet<String> = self
            .usable
            .iter()
            .map(|backend| backend.name().to_owned())
            .collect();
        for key in organization.keys().list()? {
            if key.state != KeyState::Disabled && !known.contains(&key.backend) {
                let detail = format!("needs the backend {:?}, which cannot be used here", key.backend);
                let check = format!("key {} of {name}", key.name);
                // The managed key is everybody's, and wraps nothing once an own key took over.
                let advice = "add the backend to the config file under this name";
                if key.default {
                    self.fail(check, detail, advice)
                } else {
                    self.warn(check, detail, advice)
                }
            }
            if probe && key.default && known.contains(&key.backend) {
                let check = format!("default key {} of {name}", key.name);
                match organization.keys().probe(&key.name).map_err(Failure::from) {
                    Ok(()) => self.ok(check, "wraps and unwraps"),
                    Err(failure) => {
                        self.fail(check, failure.message(), "see the message; ask the key's owner")
                    }
                }
            }
        }
        if let Some(status) = organization.rewrap_status()? {
            let check = format!("re-wrap job {} of {name}", status.job);
            match status.state {
                RewrapState::Blocked(reason) => {
                    self.fail(
                        check,
                        format!("blocked: {reason}"),
                        "remove the obstacle, then `keystead rewrap run`",
                    );
                }
                RewrapState::Running => {
                    let detail = format!("{} data keys to go", status.remaining);
                    self.warn(
                        check,
                        detail,
                        "open the store with the application, or `keystead rewrap run`",
                    );
                }
                RewrapState::Done => {}
            }
        }
        Ok(())
    }
}

fn is_open_to_others(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.mode() & 0o077 != 0)
}
