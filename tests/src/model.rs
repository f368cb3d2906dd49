//! The model: what a store must hold after each acknowledged change, in plain maps; and the actions that make the changes.

use crate::env::Dice;
use crate::gate::Grant;
use keystead::{Batch, KeyState, Organization, PutOptions, Store, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write as _;

/// Stands in every value over and over: it must never be seen in what reaches the disk.
pub const CANARY: [u8; 8] = *b"C4n4ry!~";

/// A version, as a reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionView {
    /// It reads as a value with this hash.
    Live([u8; 32]),
    /// It can be undeleted.
    Deleted,
    /// It is gone.
    Destroyed,
}

/// What of an organization can be seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganizationView {
    /// The versions of each secret, from 1.
    pub secrets: BTreeMap<String, Vec<VersionView>>,
    /// The registered keys. A key on its way to be disabled counts as disabled: when it arrives is the job's business.
    pub keys: BTreeMap<String, bool>,
    /// The default key.
    pub default: String,
}

/// What of a store can be seen from outside, by organization.
pub type View = BTreeMap<String, OrganizationView>;

/// What a store must hold.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// As a reader sees it.
    pub view: View,
    /// The hashes of all values ever put, deleted ones included.
    values: BTreeMap<(String, String, u32), [u8; 32]>,
    /// The KMS keys without which something of an organization could not be opened. No other may be needed.
    pub grants: BTreeSet<Grant>,
    /// Organizations whose re-wrap job may be running.
    running: BTreeSet<String>,
    /// Each organization's second key, where it has one.
    second: BTreeMap<String, String>,
    /// How many keys were ever added to an organization.
    added: BTreeMap<String, u32>,
}

/// A put, and how large.
type Put = (String, usize);

/// Something that an application does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the engine's call of that name")]
pub enum Action {
    CreateOrganization {
        org: String,
    },
    Put {
        org: String,
        put: Put,
    },
    Stream {
        org: String,
        put: Put,
    },
    Batch {
        org: String,
        puts: Vec<Put>,
    },
    Delete {
        org: String,
        path: String,
        version: u32,
    },
    Undelete {
        org: String,
        path: String,
        version: u32,
    },
    Destroy {
        org: String,
        path: String,
        version: u32,
    },
    AddKey {
        org: String,
        key: String,
    },
    SetDefault {
        org: String,
        key: String,
        rewrap: bool,
    },
    Rotate {
        org: String,
        key: String,
    },
    Disable {
        org: String,
        key: String,
        target: String,
    },
    DisableAll {
        org: String,
    },
    Rewrap {
        org: String,
    },
    SetSecond {
        org: String,
        key: String,
    },
    RemoveSecond {
        org: String,
    },
    ForgetEpochKeys,
    Reopen,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateOrganization { org } => write!(f, "create {org}"),
            Self::Put { org, put } => write!(f, "{org}: put {} bytes at {}", put.1, put.0),
            Self::Stream { org, put } => write!(f, "{org}: stream {} bytes to {}", put.1, put.0),
            Self::Batch { org, puts } => {
                let puts: Vec<String> = puts.iter().map(|put| format!("{} at {}", put.1, put.0)).collect();
                write!(f, "{org}: put in one batch {}", puts.join(", "))
            }
            Self::Delete { org, path, version } => write!(f, "{org}: delete {path} version {version}"),
            Self::Undelete { org, path, version } => write!(f, "{org}: undelete {path} version {version}"),
            Self::Destroy { org, path, version } => write!(f, "{org}: destroy {path} version {version}"),
            Self::AddKey { org, key } => write!(f, "{org}: add the key {key}"),
            Self::SetDefault {
                org,
                key,
                rewrap: true,
            } => {
                write!(f, "{org}: make {key} the default, and re-wrap to it")
            }
            Self::SetDefault { org, key, .. } => write!(f, "{org}: make {key} the default"),
            Self::Rotate { org, key } => write!(f, "{org}: rotate {key}"),
            Self::Disable { org, key, target } => write!(f, "{org}: disable {key}, all of it to {target}"),
            Self::DisableAll { org } => write!(f, "{org}: disable all keys, back to the managed one"),
            Self::Rewrap { org } => write!(f, "{org}: re-wrap to the end"),
            Self::SetSecond { org, key } => write!(f, "{org}: make {key} the second key"),
            Self::RemoveSecond { org } => write!(f, "{org}: remove the second key"),
            Self::ForgetEpochKeys => f.write_str("forget the epoch keys"),
            Self::Reopen => f.write_str("close and open"),
        }
    }
}

/// The name of a registered key in the simulated KMS: every organization has its own, save the managed one.
#[must_use]
pub fn kms_key(org: &str, key: &str) -> String {
    if key == "managed" {
        key.into()
    } else {
        format!("{org}-{key}")
    }
}

/// The value of a version: canaries between bytes that follow from its place.
#[must_use]
pub fn value(org: &str, path: &str, version: u32, bytes: usize) -> Vec<u8> {
    let mut filler = blake3::Hasher::new();
    filler.update(format!("{org}/{path}/{version}").as_bytes());
    let mut value = vec![0; bytes];
    filler.finalize_xof().fill(&mut value);
    for piece in value.chunks_mut(2 * CANARY.len()) {
        let len = piece.len().min(CANARY.len());
        piece[..len].copy_from_slice(&CANARY[..len]);
    }
    value
}

/// A view without the values' hashes.
#[must_use]
pub fn shape_of(view: &View) -> View {
    let mut shape = view.clone();
    let organizations = shape.values_mut();
    for version in organizations.flat_map(|org| org.secrets.values_mut().flatten()) {
        if let VersionView::Live(hash) = version {
            *hash = [0; 32];
        }
    }
    shape
}

/// The hash by which values are compared.
#[must_use]
pub fn hash(value: &[u8]) -> [u8; 32] {
    *blake3::hash(value).as_bytes()
}

impl Model {
    fn latest(&self, org: &str, path: &str) -> u32 {
        let versions = self.view.get(org).and_then(|org| org.secrets.get(path));
        versions.map_or(0, Vec::len) as u32
    }

    /// The hash of the value that was put as this version, if one was.
    #[must_use]
    pub fn value_of(&self, org: &str, path: &str, version: u32) -> Option<[u8; 32]> {
        self.values.get(&(org.into(), path.into(), version)).copied()
    }

    /// What holds once the action is acknowledged.
    #[must_use]
    pub fn after(&self, action: &Action) -> Self {
        let mut model = self.clone();
        match action {
            Action::CreateOrganization { org } => {
                let organization = OrganizationView {
                    secrets: BTreeMap::new(),
                    keys: BTreeMap::from([("managed".into(), true)]),
                    default: "managed".into(),
                };
                model.view.insert(org.clone(), organization);
                model.grant(org, "managed");
            }
            Action::Put { org, put } | Action::Stream { org, put } => model.put(org, put),
            Action::Batch { org, puts } => puts.iter().for_each(|put| model.put(org, put)),
            Action::Delete { org, path, version } => {
                *model.version(org, path, *version) = VersionView::Deleted
            }
            Action::Undelete { org, path, version } => {
                let hash = model.values[&(org.clone(), path.clone(), *version)];
                *model.version(org, path, *version) = VersionView::Live(hash);
            }
            Action::Destroy { org, path, version } => {
                *model.version(org, path, *version) = VersionView::Destroyed;
            }
            Action::AddKey { org, key } => {
                let has_second = model.second.contains_key(org);
                let organization = model.organization(org);
                let first = !organization.enabled().any(|name| name != "managed") && !has_second;
                organization.keys.insert(key.clone(), true);
                if first {
                    model.move_all(org, key);
                }
                *model.added.entry(org.clone()).or_default() += 1;
            }
            Action::SetDefault {
                org,
                key,
                rewrap: true,
            } => model.move_all(org, key),
            Action::SetDefault {
                org,
                key,
                rewrap: false,
            } => {
                model.organization(org).default = key.clone();
                model.grant(org, key);
            }
            Action::Rotate { org, key } => {
                model.grant(org, key);
                model.running.insert(org.clone());
            }
            Action::Disable { org, key, target } => {
                model.organization(org).keys.insert(key.clone(), false);
                let held = model.grants.remove(&(org.clone(), kms_key(org, key)));
                if held {
                    model.grant(org, target);
                    model.running.insert(org.clone());
                }
            }
            Action::DisableAll { org } => {
                let keys = &mut model.organization(org).keys;
                keys.iter_mut()
                    .for_each(|(name, enabled)| *enabled = name == "managed");
                model.move_all(org, "managed");
            }
            Action::Rewrap { org } => drop(model.running.remove(org)),
            // The epochs' own keys are asked first: while they answer, the second key is not needed for reading.
            Action::SetSecond { org, key } => {
                model.organization(org).keys.insert(key.clone(), false);
                model.second.insert(org.clone(), key.clone());
            }
            Action::RemoveSecond { org } => {
                let key = model.second.remove(org);
                let key = key.expect("actions remove second keys that are there");
                model.organization(org).keys.insert(key, true);
            }
            Action::ForgetEpochKeys | Action::Reopen => {}
        }
        model
    }

    /// What holds when it cannot be seen whether this holds or `other`: both read the same.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let mut model = other.clone();
        model.grants.extend(self.grants.iter().cloned());
        model.running.extend(self.running.iter().cloned());
        model
    }

    /// The same, once this key may be needed as well.
    #[must_use]
    pub fn granting(&self, org: &str, key: &str) -> Self {
        let mut model = self.clone();
        model.grant(org, key);
        model
    }

    /// The view without the values' hashes: what can be seen while a KMS is down.
    #[must_use]
    pub fn shape(&self) -> View {
        shape_of(&self.view)
    }

    fn organization(&mut self, org: &str) -> &mut OrganizationView {
        self.view
            .get_mut(org)
            .expect("actions name organizations that are there")
    }

    fn version(&mut self, org: &str, path: &str, version: u32) -> &mut VersionView {
        let versions = self.organization(org).secrets.get_mut(path);
        &mut versions.expect("actions name secrets that are there")[version as usize - 1]
    }

    fn put(&mut self, org: &str, (path, bytes): &Put) {
        let version = self.latest(org, path) + 1;
        let hash = hash(&value(org, path, version, *bytes));
        self.values.insert((org.into(), path.clone(), version), hash);
        let secrets = &mut self.organization(org).secrets;
        secrets
            .entry(path.clone())
            .or_default()
            .push(VersionView::Live(hash));
    }

    fn grant(&mut self, org: &str, key: &str) {
        self.grants.insert((org.into(), kms_key(org, key)));
    }

    fn move_all(&mut self, org: &str, key: &str) {
        self.organization(org).default = key.into();
        self.grants.retain(|(other, _)| other != org);
        self.grant(org, key);
        self.running.insert(org.into());
    }

    /// An action that can be done now.
    #[must_use]
    pub fn next(&self, dice: &mut Dice) -> Action {
        let names: Vec<&String> = self.view.keys().collect();
        if names.is_empty() || (names.len() < 3 && dice.once_in(25)) {
            return Action::CreateOrganization {
                org: format!("org{}", names.len()),
            };
        }
        loop {
            let org = (*dice.choose(&names)).clone();
            if let Some(action) = self.next_in(org, dice) {
                return action;
            }
        }
    }

    fn next_in(&self, org: String, dice: &mut Dice) -> Option<Action> {
        let organization = &self.view[&org];
        let running = self.running.contains(&org);
        let enabled: Vec<String> = organization.enabled().cloned().collect();
        let some_version = |dice: &mut Dice, wanted: fn(VersionView) -> bool| {
            let found: Vec<(String, u32)> = organization
                .secrets
                .iter()
                .flat_map(|(path, versions)| versions.iter().zip(1..).map(move |(view, n)| (path, view, n)))
                .filter(|(_, view, _)| wanted(**view))
                .map(|(path, _, number)| (path.clone(), number))
                .collect();
            (!found.is_empty()).then(|| dice.choose(&found).clone())
        };
        Some(match dice.below(42) {
            0..16 => Action::Put {
                org,
                put: some_put(dice),
            },
            16 => Action::Stream {
                org,
                put: (
                    format!("streams/{}", dice.below(4)),
                    *dice.choose(&[100, 70_000, 200_000]),
                ),
            },
            17..20 => Action::Batch {
                org,
                puts: (0..dice.below(8) + 2).map(|_| some_put(dice)).collect(),
            },
            20 | 21 => {
                let (path, version) = some_version(dice, |view| matches!(view, VersionView::Live(_)))?;
                Action::Delete { org, path, version }
            }
            22 => {
                let (path, version) = some_version(dice, |view| view == VersionView::Deleted)?;
                Action::Undelete { org, path, version }
            }
            23..26 => {
                let (path, version) = some_version(dice, |view| view != VersionView::Destroyed)?;
                Action::Destroy { org, path, version }
            }
            26 | 27 => {
                let added = self.added.get(&org).copied().unwrap_or(0);
                (enabled.len() < 4).then(|| Action::AddKey {
                    org,
                    key: format!("k{added}"),
                })?
            }
            28 | 29 => Action::SetDefault {
                org,
                key: dice.choose(&enabled).clone(),
                rewrap: dice.once_in(2),
            },
            30 | 31 => Action::Rotate {
                org,
                key: dice.choose(&enabled).clone(),
            },
            32 => {
                let (key, target) = (dice.choose(&enabled).clone(), dice.choose(&enabled).clone());
                let refused = key == target || key == organization.default || running || key == "managed";
                (!refused).then_some(Action::Disable { org, key, target })?
            }
            33 => (enabled.len() > 1 && !self.second.contains_key(&org))
                .then_some(Action::DisableAll { org })?,
            34..37 => Action::Rewrap { org },
            37 => Action::ForgetEpochKeys,
            38 if self.second.contains_key(&org) => Action::RemoveSecond { org },
            38 | 39 => {
                let free = |key: &&String| {
                    *key != "managed"
                        && **key != organization.default
                        && !self.grants.contains(&(org.clone(), kms_key(&org, key)))
                };
                let free: Vec<String> = enabled.iter().filter(free).cloned().collect();
                let refused = running || self.second.contains_key(&org) || free.is_empty();
                (!refused).then(|| Action::SetSecond {
                    key: dice.choose(&free).clone(),
                    org: org.clone(),
                })?
            }
            _ => Action::Reopen,
        })
    }
}

impl OrganizationView {
    fn enabled(&self) -> impl Iterator<Item = &String> {
        self.keys
            .iter()
            .filter(|(_, enabled)| **enabled)
            .map(|(name, _)| name)
    }
}

fn some_put(dice: &mut Dice) -> Put {
    let bytes = *dice.choose(&[0, 10, 10, 100, 1024, 1024, 4000, 20_000, 70_000]);
    (format!("secrets/{}", dice.below(24)), bytes)
}

/// Does an action; `model` is what the store holds before it. A [`Action::Reopen`] is its caller's.
///
/// # Errors
///
/// What the engine says.
pub fn perform(store: &Store, model: &Model, action: &Action) -> keystead::Result<()> {
    let open = |org: &str| store.organization(org);
    let version = |version: u32| Version::new(version).expect("versions count from 1");
    match action {
        Action::CreateOrganization { org } => drop(store.create_organization(org)?),
        Action::Put {
            org,
            put: (path, bytes),
        } => {
            let number = model.latest(org, path) + 1;
            let put = open(org)?.put(path, value(org, path, number, *bytes))?;
            assert_eq!(put.get(), number, "versions count up one by one");
        }
        Action::Stream {
            org,
            put: (path, bytes),
        } => {
            let number = model.latest(org, path) + 1;
            let mut writer = open(org)?.writer(path, PutOptions::new())?;
            for piece in value(org, path, number, *bytes).chunks(10_000) {
                writer.write_all(piece).map_err(of_the_engine)?;
            }
            let put = writer.finish()?;
            assert_eq!(put.get(), number, "versions count up one by one");
        }
        Action::Batch { org, puts } => {
            let (mut batch, mut model) = (Batch::new(), model.clone());
            for put in puts {
                let number = model.latest(org, &put.0) + 1;
                batch = batch.put(&put.0, value(org, &put.0, number, put.1))?;
                model.put(org, put);
            }
            open(org)?.commit(batch)?;
        }
        Action::Delete {
            org,
            path,
            version: v,
        } => open(org)?.delete(path, version(*v))?,
        Action::Undelete {
            org,
            path,
            version: v,
        } => open(org)?.undelete(path, version(*v))?,
        Action::Destroy {
            org,
            path,
            version: v,
        } => open(org)?.destroy(path, version(*v))?,
        Action::AddKey { org, key } => {
            let config = serde_json::json!({ "key": kms_key(org, key) });
            open(org)?.keys().add(key, "customer-kms", config)?;
        }
        Action::SetDefault { org, key, rewrap } => drop(open(org)?.keys().set_default(key, *rewrap)?),
        Action::Rotate { org, key } => drop(open(org)?.keys().rotate(key)?),
        Action::Disable { org, key, target } => drop(open(org)?.keys().disable(key, target)?),
        Action::DisableAll { org } => drop(open(org)?.keys().disable_all()?),
        Action::Rewrap { org } => run_job(&open(org)?)?,
        Action::SetSecond { org, key } => drop(open(org)?.keys().set_second(key, false)?),
        Action::RemoveSecond { org } => open(org)?.keys().remove_second()?,
        Action::ForgetEpochKeys => store.forget_epoch_keys(),
        Action::Reopen => {}
    }
    Ok(())
}

/// What the engine said, out of the error of a writer of a stream.
fn of_the_engine(error: std::io::Error) -> keystead::Error {
    match error.downcast::<keystead::Error>() {
        Ok(error) => error,
        Err(error) => keystead::Error::Storage {
            doing: "writing a stream",
            reason: error.to_string(),
        },
    }
}

/// Does the running re-wrap job, if there is one, to its end.
///
/// # Errors
///
/// What the engine says.
pub fn run_job(organization: &Organization) -> keystead::Result<()> {
    match organization.rewrap_job() {
        Ok(job) => {
            let status = job.run_here(|_| {})?;
            assert_eq!(
                status.state,
                keystead::RewrapState::Done,
                "no KMS stands in the job's way"
            );
            Ok(())
        }
        Err(keystead::Error::NoJob { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a key counts as enabled in an [`OrganizationView`].
#[must_use]
pub fn counts_as_enabled(state: KeyState) -> bool {
    state == KeyState::Enabled
}
