//! Names of Google Cloud resources, parsed: what is not shaped like one never reaches the client.
//!
//! A key's name becomes part of a URL's path, and it comes from the store file: the characters that are let through
//! cannot leave the segment of the path that they stand in.

use std::fmt;

use keystead_backend_common::quote;

const KEY_SHAPE: &str = "projects/<project>/locations/<location>/keyRings/<ring>/cryptoKeys/<key>";
const PROVIDER_SHAPE: &str =
    "projects/<project number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>";

/// The name of a crypto key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyName(String);

impl KeyName {
    /// Parses the name of a crypto key; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [
                "projects",
                project,
                "locations",
                location,
                "keyRings",
                ring,
                "cryptoKeys",
                key,
            ] => {
                check_project(project)?;
                check("location", location, 63, |b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
                })?;
                check("key ring", ring, 63, is_of_a_key)?;
                check("key", key, 63, is_of_a_key)?;
                Ok(Self(text.into()))
            }
            [.., "cryptoKeyVersions", _] => Err(format!(
                "names one version of a key; name the key, and Cloud KMS takes its primary version: {KEY_SHAPE}"
            )),
            _ => Err(format!(
                "is not the name of a crypto key; it looks like {KEY_SHAPE}"
            )),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of one version of a crypto key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VersionName {
    key: KeyName,
    text: String,
}

impl VersionName {
    /// Parses the name of a key's version; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (key, version) = text.split_once("/cryptoKeyVersions/").ok_or_else(|| {
            format!(
                "is not the name of a key's version; it looks like {KEY_SHAPE}/cryptoKeyVersions/<number>"
            )
        })?;
        let key = KeyName::parse(key)?;
        check("version", version, 20, |b| b.is_ascii_digit())?;
        Ok(Self {
            key,
            text: text.into(),
        })
    }

    pub(crate) fn key(&self) -> &KeyName {
        &self.key
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Checks the name of a workload identity provider.
pub(crate) fn check_provider(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split('/').collect();
    match parts[..] {
        [
            "projects",
            project,
            "locations",
            "global",
            "workloadIdentityPools",
            pool,
            "providers",
            provider,
        ] => {
            check("project number", project, 20, |b| b.is_ascii_digit())?;
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            check("pool", pool, 32, fits)?;
            check("provider", provider, 32, fits)
        }
        _ => Err(format!(
            "is not the name of a workload identity provider; it looks like {PROVIDER_SHAPE}"
        )),
    }
}

/// A project's id, such as `acme-prod`, its number, or `example.com:acme` of old.
fn check_project(text: &str) -> Result<(), String> {
    let (domain, id) = text.rsplit_once(':').unwrap_or(("", text));
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !domain.is_empty() || text.contains(':') {
        check("project", domain, 63, |b| fits(b) || b == b'.')?;
        if domain.starts_with('.') || domain.contains("..") {
            return Err(wrong_part("project", text));
        }
    }
    check("project", id, 63, fits)
}

fn is_of_a_key(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
}

fn check(what: &str, text: &str, max_bytes: usize, fits: impl Fn(u8) -> bool) -> Result<(), String> {
    if text.is_empty() || text.len() > max_bytes || !text.bytes().all(fits) {
        Err(wrong_part(what, text))
    } else {
        Ok(())
    }
}

fn wrong_part(what: &str, text: &str) -> String {
    format!("has a {what} that cannot be one: {}", quote(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "projects/acme-prod/locations/europe-west1/keyRings/Ring_1/cryptoKeys/key-1";

    #[test]
    fn a_keys_name_is_taken_as_it_is() {
        for name in [
            KEY,
            "projects/123456789012/locations/global/keyRings/r/cryptoKeys/k",
            "projects/example.com:acme/locations/global/keyRings/r/cryptoKeys/k",
        ] {
            assert_eq!(KeyName::parse(name).unwrap().as_str(), name);
        }
        let version = VersionName::parse(&format!("{KEY}/cryptoKeyVersions/12")).unwrap();
        assert_eq!(version.key().as_str(), KEY);
    }

    #[test]
    fn nothing_that_could_lead_the_url_elsewhere_passes() {
        let with_key = |key: &str| format!("projects/p/locations/global/keyRings/r/cryptoKeys/{key}");
        for text in [
            String::new(),
            "k".into(),
            format!("{KEY}/"),
            format!("/{KEY}"),
            format!("//cloudkms.googleapis.com/{KEY}"),
            format!("{KEY}/cryptoKeyVersions/1"),
            with_key(""),
            with_key(".."),
            with_key("k:decrypt"),
            with_key("k?x=1"),
            with_key("k#x"),
            with_key("k%2F"),
            with_key("k x"),
            with_key("ключ"),
            with_key(&"k".repeat(64)),
            "projects/../locations/global/keyRings/r/cryptoKeys/k".into(),
            "projects/a..b:c/locations/global/keyRings/r/cryptoKeys/k".into(),
            "projects/:c/locations/global/keyRings/r/cryptoKeys/k".into(),
            "projects/p/locations/EU/keyRings/r/cryptoKeys/k".into(),
            "projects/p/locations/global/keyrings/r/cryptoKeys/k".into(),
        ] {
            assert!(KeyName::parse(&text).is_err(), "{text} passed");
        }
        for text in [
            KEY.to_owned(),
            format!("{KEY}/cryptoKeyVersions/"),
            format!("{KEY}/cryptoKeyVersions/latest"),
            format!("{KEY}/cryptoKeyVersions/1/cryptoKeyVersions/2"),
        ] {
            assert!(VersionName::parse(&text).is_err(), "{text} passed");
        }
    }

    #[test]
    fn a_provider_is_named_by_its_projects_number() {
        let name = |project: &str, pool: &str| {
            format!("projects/{project}/locations/global/workloadIdentityPools/{pool}/providers/oidc")
        };
        check_provider(&name("123456789012", "keystead-pool")).unwrap();
        for text in [
            name("acme-prod", "keystead-pool"),
            name("123456789012", "a/b"),
            name("123456789012", ""),
            format!("//iam.googleapis.com/{}", name("123456789012", "keystead-pool")),
        ] {
            assert!(check_provider(&text).is_err(), "{text} passed");
        }
    }
}
