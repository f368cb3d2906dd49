//! The names by which a key is found: a namespace, a mount, a key. Strict, so that none of them has to be escaped in a URL and
//! none can lead elsewhere.

use std::fmt;

/// The longest path of a namespace or a mount, in bytes.
pub(crate) const PATH_MAX_BYTES: usize = 256;

/// The longest name of a key, in bytes.
pub(crate) const NAME_MAX_BYTES: usize = 128;

/// A key in a Transit engine, without its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPath {
    pub(crate) namespace: Option<String>,
    pub(crate) mount: String,
    pub(crate) name: String,
}

impl fmt::Display for KeyPath {
    /// As the server has it in its URLs: `team/transit/keys/acme`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        write!(f, "{}/keys/{}", self.mount, self.name)
    }
}

impl KeyPath {
    /// The key's id with a version, as it is recorded: `team/transit/keys/acme:3`.
    pub(crate) fn with_version(&self, version: u64) -> String {
        format!("{self}:{version}")
    }

    /// The version in a recorded key id; `None` when it is another key's.
    pub(crate) fn version_in(&self, key_id: &str) -> Option<u64> {
        let (path, version) = key_id.rsplit_once(':')?;
        if path != self.to_string() {
            return None;
        }
        number(version)
    }
}

/// The version under which a ciphertext was made, which stands in it: `vault:v3:…`.
pub(crate) fn version_of(ciphertext: &str) -> Option<u64> {
    let (version, rest) = ciphertext.strip_prefix("vault:v")?.split_once(':')?;
    if rest.is_empty() || !rest.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    number(version)
}

/// A version as both sides write it: from 1, no sign, no leading zero. (The server reads `v0` as `v1`.)
fn number(text: &str) -> Option<u64> {
    text.parse()
        .ok()
        .filter(|n: &u64| *n > 0 && n.to_string() == text)
}

/// Checks the path of a namespace or a mount.
pub(crate) fn check_path(path: &str) -> Result<(), &'static str> {
    if path.split('/').all(is_name) {
        Ok(())
    } else {
        Err("must be names of letters, digits or any of _.- with a / between them, and none before or behind")
    }
}

/// Checks the name of a key.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if is_name(name) {
        Ok(())
    } else {
        Err("must be letters, digits or any of _.- and begin and end with a letter, a digit or _")
    }
}

fn is_name(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|&byte| is_word(byte))
        && bytes.last().is_some_and(|&byte| is_word(byte))
        && bytes
            .iter()
            .all(|&byte| is_word(byte) || byte == b'-' || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: Option<&str>) -> KeyPath {
        KeyPath {
            namespace: namespace.map(str::to_owned),
            mount: "transit".into(),
            name: "acme".into(),
        }
    }

    #[test]
    fn a_key_id_is_the_path_with_the_version_and_no_other_is_this_keys() {
        assert_eq!(key(None).with_version(3), "transit/keys/acme:3");
        let key = key(Some("team/a"));
        assert_eq!(key.with_version(12), "team/a/transit/keys/acme:12");
        assert_eq!(key.version_in("team/a/transit/keys/acme:12"), Some(12));
        for other in [
            "transit/keys/acme:12",
            "team/a/transit/keys/acme",
            "team/a/transit/keys/acme:",
            "team/a/transit/keys/acme:0",
            "team/a/transit/keys/acme:01",
            "team/a/transit/keys/acme:+1",
            "team/a/transit/keys/acme:-1",
            "team/a/transit/keys/acme2:1",
            "",
        ] {
            assert_eq!(key.version_in(other), None, "{other}");
        }
    }

    #[test]
    fn a_ciphertext_says_its_version() {
        assert_eq!(version_of("vault:v1:AAAA"), Some(1));
        assert_eq!(version_of("vault:v20:AA+/"), Some(20));
        for other in [
            "",
            "vault:v0:AAAA",
            "vault:v01:AAAA",
            "vault:v1:",
            "vault:v1",
            "vault:1:AAAA",
            "bao:v1:AAAA",
            "vault:v1:A\nA",
        ] {
            assert_eq!(version_of(other), None, "{other}");
        }
    }

    #[test]
    fn no_name_leads_elsewhere() {
        for path in ["transit", "team/a/transit", "a.b-c_d"] {
            check_path(path).unwrap();
        }
        for path in [
            "", "/transit", "transit/", "a//b", "..", "a/../b", "a/.", "a b", "a?b", "a%2fb", "ä",
        ] {
            assert!(check_path(path).is_err(), "{path}");
        }
        check_name("acme-2026.prod").unwrap();
        for name in ["", "a/b", "..", "-a", "a-", "a:1"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
