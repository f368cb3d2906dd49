//! What a store says it holds, and whether its parts agree with each other: values, histories, keys, epochs, audit trail,
//! shred cells.

use crate::contents::Contents;
use crate::model::{OrganizationView, VersionView, View, counts_as_enabled, hash};
use keystead::{
    AuditEvent, Epoch, EpochNumber, EpochState, KeyState, Organization, Store, VerifyOptions, VersionState,
};
use std::collections::{BTreeMap, BTreeSet};

/// Where the first extent of shred cells begins, how many there are, and their size in bytes: format version 1.
const CELLS: (u64, usize, usize) = (8192, 896, 64);
/// More than any test has of anything.
const ALL: usize = 10_000;

/// A wrap that the store lists: organization, epoch, registered key.
pub type ListedWrap = (String, EpochNumber, String);

/// What a store says it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// As a reader sees it.
    pub view: View,
    /// The wraps of its epoch keys.
    pub wraps: BTreeSet<ListedWrap>,
}

/// Reads everything, by the values' bytes. Fails where the audit trail does not tell the same story.
///
/// # Errors
///
/// What does not read, or does not agree.
pub fn observe(store: &Store) -> Result<Observed, String> {
    look(store, true)
}

/// The same without opening a value: all that can be seen while a KMS is down.
///
/// # Errors
///
/// What does not agree.
pub fn observe_shape(store: &Store) -> Result<Observed, String> {
    look(store, false)
}

fn look(store: &Store, open_values: bool) -> Result<Observed, String> {
    let mut view = View::new();
    let mut wraps = BTreeSet::new();
    for info in store
        .organizations(None, ALL)
        .map_err(told("listing organizations"))?
        .items
    {
        let organization = store
            .organization(&info.name)
            .map_err(told("opening an organization"))?;
        let (seen, states) = see(&organization, open_values)?;
        if seen.secrets.len() as u64 != info.secrets {
            return Err(format!(
                "{} counts {} secrets, and lists {}",
                info.name,
                info.secrets,
                seen.secrets.len()
            ));
        }
        let epochs = organization.epochs().map_err(told("listing epochs"))?;
        retell(&organization, &seen, &states, &epochs)?;
        for epoch in epochs {
            let wrapped_by = epoch.wrapped_by.into_iter();
            wraps.extend(wrapped_by.map(|wrap| (info.name.clone(), epoch.number, wrap.key)));
        }
        view.insert(info.name, seen);
    }
    Ok(Observed { view, wraps })
}

fn told(doing: &str) -> impl FnOnce(keystead::Error) -> String {
    move |error| format!("{doing}: {error}")
}

fn see(
    organization: &Organization,
    open_values: bool,
) -> Result<(OrganizationView, BTreeMap<String, KeyState>), String> {
    let mut secrets = BTreeMap::new();
    for info in organization
        .list("", None, ALL)
        .map_err(told("listing secrets"))?
        .items
    {
        let mut versions = Vec::new();
        for version in organization
            .history(&info.path, None, ALL)
            .map_err(told("reading a history"))?
        {
            versions.push(match version.state {
                VersionState::Live if !open_values => VersionView::Live([0; 32]),
                VersionState::Live => {
                    let read = organization.get_version(&info.path, version.version);
                    let secret = read.map_err(|error| {
                        format!("reading {} version {}: {error}", info.path, version.version)
                    })?;
                    VersionView::Live(hash(secret.value.as_ref()))
                }
                VersionState::Deleted { .. } => VersionView::Deleted,
                VersionState::Destroyed { .. } => VersionView::Destroyed,
                VersionState::Lost { .. } => {
                    return Err(format!("{} version {} is lost", info.path, version.version));
                }
            });
        }
        if versions.len() as u32 != info.latest.get() {
            return Err(format!(
                "the history of {} is not as long as its latest version says",
                info.path
            ));
        }
        secrets.insert(info.path, versions);
    }
    let listed = organization.keys().list().map_err(told("listing keys"))?;
    let default = listed.iter().find(|key| key.default);
    let view = OrganizationView {
        secrets,
        default: default
            .map(|key| key.name.clone())
            .ok_or("no key is the default")?,
        keys: listed
            .iter()
            .map(|key| (key.name.clone(), counts_as_enabled(key.state)))
            .collect(),
    };
    Ok((
        view,
        listed.into_iter().map(|key| (key.name, key.state)).collect(),
    ))
}

/// Tells the organization's story from its audit trail alone, and compares it with what is there: a change without its
/// record, or a record without its change, shows.
fn retell(
    organization: &Organization,
    seen: &OrganizationView,
    key_states: &BTreeMap<String, KeyState>,
    listed: &[Epoch],
) -> Result<(), String> {
    let mut secrets: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut keys = BTreeMap::from([("managed".to_owned(), KeyState::Enabled)]);
    let mut default = "managed".to_owned();
    let mut epochs: Vec<Option<Vec<String>>> = Vec::new();
    let mut batches: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    // What a job may still move: each data key that was there when its moves were decided goes once.
    let mut may_move = 0;
    for record in organization
        .audit(0, ALL)
        .map_err(told("reading the audit trail"))?
    {
        let mut set = |path: &String, version: keystead::Version, state: u8| {
            let versions = secrets.entry(path.clone()).or_default();
            if version.get() as usize == versions.len() + 1 {
                versions.push(state);
            } else {
                versions[version.get() as usize - 1] = state;
            }
        };
        match &record.event {
            AuditEvent::VersionPut { path, version } | AuditEvent::VersionUndeleted { path, version } => {
                set(path, *version, b'l');
            }
            AuditEvent::VersionDeleted { path, version } => set(path, *version, b'd'),
            AuditEvent::VersionDestroyed { path, version, .. } => set(path, *version, b'x'),
            AuditEvent::KeyAdded { key, .. } => drop(keys.insert(key.clone(), KeyState::Enabled)),
            AuditEvent::KeyDisabling { key, .. } => drop(keys.insert(key.clone(), KeyState::Disabling)),
            AuditEvent::KeyDisabled { key } => drop(keys.insert(key.clone(), KeyState::Disabled)),
            AuditEvent::SecondKeySet { key, .. } => drop(keys.insert(key.clone(), KeyState::Second)),
            AuditEvent::SecondKeyRemoved { key } => {
                keys.insert(key.clone(), KeyState::Enabled);
                for wraps in epochs.iter_mut().flatten() {
                    wraps.retain(|wrap| wrap != key);
                }
            }
            AuditEvent::DefaultKeySet { key } => default = key.clone(),
            AuditEvent::EpochOpened { epoch, key, .. } => {
                if epoch.get() as usize != epochs.len() + 1 {
                    return Err(format!("epoch {epoch} was opened after {} others", epochs.len()));
                }
                epochs.push(Some(vec![key.clone()]));
            }
            AuditEvent::EpochHandedOver { epoch, from, to } => {
                let wraps = epochs[epoch.get() as usize - 1].get_or_insert_default();
                wraps.retain(|key| !from.contains(key));
                wraps.insert(0, to.clone());
            }
            AuditEvent::EpochWrappedBySecond { epoch, key } => epochs[epoch.get() as usize - 1]
                .get_or_insert_default()
                .push(key.clone()),
            AuditEvent::EpochRetired { epoch } => epochs[epoch.get() as usize - 1] = None,
            AuditEvent::RewrapStarted { .. } => {
                let states = secrets.values().flatten();
                may_move = states.filter(|state| **state != b'x').count() as u64;
            }
            AuditEvent::RewrapBatch {
                job,
                batch,
                moved,
                failed,
            } => {
                let (last, all) = batches.entry(*job).or_default();
                if *batch != *last + 1 || *failed > 0 {
                    return Err(format!(
                        "batch {batch} of job {job}, {failed} failed, follows batch {last}"
                    ));
                }
                (*last, *all) = (*batch, *all + *moved);
                may_move = may_move.checked_sub(*moved).ok_or_else(|| {
                    format!("batch {batch} of job {job}: more data keys were moved than there were")
                })?;
            }
            AuditEvent::RewrapFinished { job, done } => {
                let moved = batches.get(job).map_or(0, |(_, moved)| *moved);
                if moved != *done {
                    return Err(format!(
                        "job {job} says it moved {done} data keys; its batches moved {moved}"
                    ));
                }
            }
            _ => {}
        }
    }
    let seen_secrets: BTreeMap<String, Vec<u8>> = seen
        .secrets
        .iter()
        .map(|(path, versions)| {
            let letters = versions.iter().map(|version| match version {
                VersionView::Live(_) => b'l',
                VersionView::Deleted => b'd',
                VersionView::Destroyed => b'x',
            });
            (path.clone(), letters.collect())
        })
        .collect();
    let name = organization.name();
    if secrets != seen_secrets {
        return Err(format!("the secrets of {name} are not those of its audit trail"));
    }
    if (&keys, &default) != (key_states, &seen.default) {
        return Err(format!(
            "the keys of {name} are {key_states:?}, by its audit trail {keys:?}, {default}"
        ));
    }
    let seen_epochs: Vec<Option<Vec<String>>> = listed
        .iter()
        .map(|epoch| match epoch.state {
            EpochState::Retired => None,
            _ => Some(epoch.wrapped_by.iter().map(|wrap| wrap.key.clone()).collect()),
        })
        .collect();
    if epochs != seen_epochs {
        return Err(format!(
            "the epochs of {name} are {seen_epochs:?}, by its audit trail {epochs:?}"
        ));
    }
    Ok(())
}

/// Fails unless a verification finds nothing: every page, row, chain and count. The values are opened by [`observe`].
///
/// # Errors
///
/// What it found.
pub fn verify(store: &Store) -> Result<(), String> {
    let report = store
        .verify(VerifyOptions { open_values: false }, |_| {})
        .map_err(told("verifying"))?;
    if report.is_clean() {
        Ok(())
    } else {
        Err(format!("{:?}", report.problems))
    }
}

/// The keys in the shred cells that are not erased.
#[must_use]
pub fn live_cells(contents: &Contents) -> BTreeSet<[u8; 64]> {
    let (offset, count, bytes) = CELLS;
    let mut region = vec![0; count * bytes];
    if !contents.read(offset, &mut region) {
        return BTreeSet::new();
    }
    let cells = region
        .chunks_exact(bytes)
        .map(|cell| cell.try_into().expect("chunks of 64 bytes"));
    cells.filter(|cell| *cell != [0; 64]).collect()
}

/// Where the shred cells stand: the one place in which keys are in clear, each until its wrap is dropped.
#[must_use]
pub fn cells_range() -> std::ops::Range<u64> {
    CELLS.0..CELLS.0 + (CELLS.1 * CELLS.2) as u64
}
