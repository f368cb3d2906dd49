//! Key identifiers of Key Vault and Managed HSM, parsed: what is not shaped like one never reaches the SDK.
//!
//! A key identifier is a URL, and the one in a config comes from the store file. Its host is where key material goes, so only
//! hosts of Azure's own domains are let through, unless the application's settings allow another one expressly.

use std::fmt;

use keystead_backend_common::quote;

/// `https://<host>/keys/<name>`, and `/<version>` where it names one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyId {
    text: String,
    host: String,
    name: String,
    version: Option<String>,
}

/// The clouds of Microsoft's, each with domains and a sign-in service of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cloud {
    Public,
    China,
    Government,
    /// A domain that the application's settings allow: Azure Stack Hub, say.
    Other,
}

/// What stands behind a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    KeyVault,
    ManagedHsm,
}

const DOMAINS: [(&str, Cloud, Service); 6] = [
    (".vault.azure.net", Cloud::Public, Service::KeyVault),
    (".managedhsm.azure.net", Cloud::Public, Service::ManagedHsm),
    (".vault.azure.cn", Cloud::China, Service::KeyVault),
    (".managedhsm.azure.cn", Cloud::China, Service::ManagedHsm),
    (".vault.usgovcloudapi.net", Cloud::Government, Service::KeyVault),
    (
        ".managedhsm.usgovcloudapi.net",
        Cloud::Government,
        Service::ManagedHsm,
    ),
];

const SHAPE: &str =
    "https://<vault>.vault.azure.net/keys/<name> or https://<hsm>.managedhsm.azure.net/keys/<name>";

impl KeyId {
    /// Parses a key identifier; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("https://")
            .ok_or_else(|| format!("is not a key identifier; it looks like {SHAPE}"))?;
        let mut parts = rest.split('/');
        let host = parts.next().unwrap_or_default();
        check_host(host)?;
        if parts.next() != Some("keys") {
            return Err(format!("does not name a key; it looks like {SHAPE}"));
        }
        let name = parts.next().unwrap_or_default();
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if name.is_empty() || name.len() > 127 || !name.bytes().all(fits) {
            return Err(format!("has a key name that cannot be one: {}", quote(name)));
        }
        let version = parts.next();
        if let Some(version) = version
            && (version.is_empty()
                || version.len() > 64
                || !version.bytes().all(|b| b.is_ascii_alphanumeric()))
        {
            return Err(format!(
                "has a key version that cannot be one: {}",
                quote(version)
            ));
        }
        if parts.next().is_some() {
            return Err(format!(
                "has more than a name and a version; it looks like {SHAPE}"
            ));
        }
        Ok(Self {
            text: text.into(),
            host: host.into(),
            name: name.into(),
            version: version.map(str::to_owned),
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// `https://<host>`.
    pub(crate) fn vault(&self) -> String {
        format!("https://{}", self.host)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    pub(crate) fn cloud(&self) -> Cloud {
        self.domain().map_or(Cloud::Other, |(cloud, _)| cloud)
    }

    pub(crate) fn service(&self) -> Service {
        match self.domain() {
            Some((_, service)) => service,
            None => Service::KeyVault,
        }
    }

    fn domain(&self) -> Option<(Cloud, Service)> {
        let known = |domain: &str| {
            let label = self.host.strip_suffix(domain);
            label.is_some_and(|label| !label.is_empty() && !label.contains('.'))
        };
        DOMAINS
            .iter()
            .find(|(domain, _, _)| known(domain))
            .map(|(_, cloud, service)| (*cloud, *service))
    }

    /// True when `key`, which must name a version, can be what this identifier stands for: itself, or without a version any
    /// version of the same key. Names of keys have no case.
    pub(crate) fn may_be(&self, key: &KeyId) -> bool {
        let same_version = match &self.version {
            None => key.version.is_some(),
            Some(version) => key.version.as_ref() == Some(version),
        };
        same_version && self.host == key.host && self.name.eq_ignore_ascii_case(&key.name)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn check_host(host: &str) -> Result<(), String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let labels_fit = host.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    if host.len() > 253 || !labels_fit || !host.contains('.') {
        return Err(format!(
            "has a host that cannot be one: {} (lower case, no port)",
            quote(host)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> KeyId {
        KeyId::parse(text).unwrap_or_else(|what| panic!("{text} {what}"))
    }

    #[test]
    fn a_key_identifier_says_its_vault_its_key_and_perhaps_its_version() {
        let key = parse("https://acme.vault.azure.net/keys/keystead");
        assert_eq!(
            (key.vault().as_str(), key.name(), key.version()),
            ("https://acme.vault.azure.net", "keystead", None)
        );
        assert_eq!((key.cloud(), key.service()), (Cloud::Public, Service::KeyVault));
        let key =
            parse("https://acme.managedhsm.usgovcloudapi.net/keys/K-1/0123456789abcdef0123456789abcdef");
        assert_eq!(key.version(), Some("0123456789abcdef0123456789abcdef"));
        assert_eq!(
            (key.cloud(), key.service()),
            (Cloud::Government, Service::ManagedHsm)
        );
        assert_eq!(parse("https://acme.vault.azure.cn/keys/k").cloud(), Cloud::China);
    }

    #[test]
    fn a_host_outside_of_azures_domains_is_seen_to_be_one() {
        for host in [
            "evil.example",
            "acme.vault.azure.net.evil.example",
            "acme-vault.azure.net",
            "a.b.vault.azure.net",
            "vault.azure.net",
            "evilvault.azure.net",
        ] {
            let key = parse(&format!("https://{host}/keys/k"));
            assert_eq!(key.cloud(), Cloud::Other, "{host}");
        }
    }

    #[test]
    fn what_is_not_shaped_like_a_key_identifier_is_refused() {
        for text in [
            "",
            "keystead",
            "http://acme.vault.azure.net/keys/k",
            "https://acme.vault.azure.net",
            "https://acme.vault.azure.net/",
            "https://acme.vault.azure.net/secrets/k",
            "https://acme.vault.azure.net/keys/",
            "https://acme.vault.azure.net/keys/k/",
            "https://acme.vault.azure.net/keys/k/v/x",
            "https://acme.vault.azure.net/keys/k?x=1",
            "https://acme.vault.azure.net/keys/k#x",
            "https://acme.vault.azure.net/keys/../k",
            "https://acme.vault.azure.net:8443/keys/k",
            "https://user@acme.vault.azure.net/keys/k",
            "https://ACME.vault.azure.net/keys/k",
            "https://-acme.vault.azure.net/keys/k",
            "https://.vault.azure.net/keys/k",
            "https://localhost/keys/k",
            "https://[::1]/keys/k",
            "https://evil.example\\@acme.vault.azure.net/keys/k",
            "https://acme.vault.azure.net/keys/k\n",
        ] {
            assert!(KeyId::parse(text).is_err(), "{text:?} passed");
        }
    }

    #[test]
    fn a_key_stands_for_its_versions_and_a_version_for_itself() {
        let key = parse("https://acme.vault.azure.net/keys/keystead");
        let one = parse("https://acme.vault.azure.net/keys/Keystead/1");
        let two = parse("https://acme.vault.azure.net/keys/keystead/2");
        assert!(key.may_be(&one) && key.may_be(&two) && one.may_be(&one));
        assert!(!one.may_be(&two) && !key.may_be(&key) && !one.may_be(&key));
        assert!(!key.may_be(&parse("https://evil.vault.azure.net/keys/keystead/1")));
        assert!(!key.may_be(&parse("https://acme.vault.azure.net/keys/keystead2/1")));
    }
}
