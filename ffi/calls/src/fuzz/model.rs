//! What the calls must answer.

use keystead_ffi::error::{
    KEYSTEAD_OK, KEYSTEAD_SECRET_NOT_FOUND, KEYSTEAD_VERSION_DELETED, KEYSTEAD_VERSION_DESTROYED,
    KEYSTEAD_VERSION_MISMATCH, KEYSTEAD_VERSION_NOT_FOUND,
};
use std::collections::BTreeMap;

/// One organization's secrets.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    secrets: BTreeMap<String, Secret>,
}

#[derive(Debug, Default)]
struct Secret {
    versions: Vec<Version>,
    keep: Option<u32>,
}

#[derive(Debug)]
struct Version {
    value: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Live,
    Deleted,
    Destroyed,
}

/// What a put expects of the latest version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Any,
    New,
    Version(u32),
}

impl Secrets {
    /// What a put of this path is told: a code.
    pub(crate) fn may_put(&self, path: &str, expected: Expected) -> i32 {
        let latest = self
            .secrets
            .get(path)
            .map_or(0, |secret| secret.versions.len() as u32);
        match expected {
            Expected::Any => KEYSTEAD_OK,
            Expected::New if latest == 0 => KEYSTEAD_OK,
            Expected::Version(version) if version == latest => KEYSTEAD_OK,
            Expected::New | Expected::Version(_) => KEYSTEAD_VERSION_MISMATCH,
        }
    }

    /// A put that went through; gives the new version.
    pub(crate) fn put(&mut self, path: &str, value: Vec<u8>) -> u32 {
        let secret = self.secrets.entry(path.to_owned()).or_default();
        secret.versions.push(Version {
            value,
            state: State::Live,
        });
        let latest = secret.versions.len();
        if let Some(keep) = secret.keep {
            for old in &mut secret.versions[..latest.saturating_sub(keep as usize)] {
                old.state = State::Destroyed;
            }
        }
        latest as u32
    }

    /// A version (0: the latest), or the code of why there is none.
    fn version(&self, path: &str, version: u32) -> Result<&Version, i32> {
        let secret = self.secrets.get(path).ok_or(KEYSTEAD_SECRET_NOT_FOUND)?;
        let at = if version == 0 {
            secret.versions.len()
        } else {
            version as usize
        };
        secret.versions.get(at - 1).ok_or(KEYSTEAD_VERSION_NOT_FOUND)
    }

    /// What a get gives: the value, or a code.
    pub(crate) fn get(&self, path: &str, version: u32) -> Result<&[u8], i32> {
        let version = self.version(path, version)?;
        match version.state {
            State::Live => Ok(&version.value),
            State::Deleted => Err(KEYSTEAD_VERSION_DELETED),
            State::Destroyed => Err(KEYSTEAD_VERSION_DESTROYED),
        }
    }

    /// What a change of a version's state is told.
    pub(crate) fn may_change(&self, path: &str, version: u32) -> i32 {
        match self.version(path, version) {
            Err(code) => code,
            Ok(version) if version.state == State::Destroyed => KEYSTEAD_VERSION_DESTROYED,
            Ok(_) => KEYSTEAD_OK,
        }
    }

    /// A change that went through.
    pub(crate) fn change(&mut self, path: &str, version: u32, to: State) {
        if let Some(secret) = self.secrets.get_mut(path) {
            secret.versions[version as usize - 1].state = to;
        }
    }

    pub(crate) fn may_keep(&self, path: &str) -> i32 {
        match self.secrets.contains_key(path) {
            true => KEYSTEAD_OK,
            false => KEYSTEAD_SECRET_NOT_FOUND,
        }
    }

    pub(crate) fn keep(&mut self, path: &str, keep: u32) {
        if let Some(secret) = self.secrets.get_mut(path) {
            secret.keep = (keep > 0).then_some(keep);
        }
    }

    /// The paths that begin with this, each with its latest version.
    pub(crate) fn list(&self, prefix: &str) -> Vec<(String, u32)> {
        let found = self.secrets.iter().filter(|(path, _)| path.starts_with(prefix));
        found
            .map(|(path, secret)| (path.clone(), secret.versions.len() as u32))
            .collect()
    }

    /// The states and sizes of a secret's versions, from the first.
    pub(crate) fn history(&self, path: &str) -> Result<Vec<(State, u64)>, i32> {
        let secret = self.secrets.get(path).ok_or(KEYSTEAD_SECRET_NOT_FOUND)?;
        let versions = secret.versions.iter();
        Ok(versions
            .map(|version| (version.state, version.value.len() as u64))
            .collect())
    }
}
