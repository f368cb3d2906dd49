//! The words of the field as types: a value of one of these has been checked, once, where it came in.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest path of a secret, in bytes.
pub const PATH_MAX_BYTES: usize = 512;
/// The longest segment of a path, in bytes.
pub const PATH_SEGMENT_MAX_BYTES: usize = 128;
/// The longest name of an organization or a key, in bytes.
pub const NAME_MAX_BYTES: usize = 128;

/// A store's random 128-bit id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub(crate) [u8; 16]);

impl StoreId {
    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for StoreId {
    type Err = Error;

    /// 32 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, Error> {
        let number = u128::from_str_radix(text, 16).ok();
        let plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match number {
            Some(number) if plain => Ok(Self(number.to_be_bytes())),
            _ => Err(Error::InvalidArgument {
                what: "a store id",
                reason: "it must be 32 hexadecimal digits".into(),
            }),
        }
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An organization's number in its store: given once, never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OrganizationId(pub(crate) u32);

impl OrganizationId {
    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for OrganizationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A version of a secret: 1 for the first value, and one more for each further one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub(crate) u32);

impl Version {
    /// The version of this number; `None` for 0.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key epoch's number in its organization: from 1, never repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EpochNumber(pub(crate) u32);

impl EpochNumber {
    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for EpochNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                $check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name_type! {
    /// The path of a secret, such as `prod/db/password`.
    ///
    /// 1 to 512 bytes of UTF-8; segments divided by `/`, each of 1 to 128 bytes, none of them `.` or `..`; so no `/` at
    /// either end and none doubled; no control characters. Paths are compared byte by byte: no case is folded, nothing
    /// is normalized. A path is kept in clear.
    ///
    /// # Examples
    ///
    /// ```
    /// use keystead::SecretPath;
    ///
    /// let path: SecretPath = "prod/db/password".parse()?;
    /// assert!("prod//password".parse::<SecretPath>().is_err());
    /// # Ok::<(), keystead::Error>(())
    /// ```
    SecretPath, check_path
}

name_type! {
    /// The name of an organization: 1 to 128 bytes of UTF-8 without control characters, no white space at either end.
    OrganizationName, check_organization_name
}

name_type! {
    /// The name of a registered key, unique in its organization: 1 to 128 of `a`–`z`, `A`–`Z`, `0`–`9`, `.`, `_`, `-`.
    KeyName, check_key_name
}

impl KeyName {
    /// The key that every organization is born with.
    pub const MANAGED: &'static str = "managed";

    pub(crate) fn managed() -> Self {
        Self(Self::MANAGED.into())
    }

    /// A name from a stored record, checked when it was written.
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.into())
    }
}

impl OrganizationName {
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.into())
    }
}

impl SecretPath {
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.into())
    }
}

fn check_path(path: &str) -> Result<(), Error> {
    let refuse = |reason: String| {
        Err(Error::InvalidPath {
            path: printable(path),
            reason,
        })
    };
    if path.is_empty() {
        return refuse("it is empty".into());
    }
    if path.len() > PATH_MAX_BYTES {
        return refuse(format!(
            "it has {} bytes; at most {PATH_MAX_BYTES} are allowed",
            path.len()
        ));
    }
    if path.chars().any(char::is_control) {
        return refuse("it contains a control character".into());
    }
    for segment in path.split('/') {
        if segment.is_empty() {
            return refuse("it has an empty segment: no '/' at either end, none doubled".into());
        }
        if segment.len() > PATH_SEGMENT_MAX_BYTES {
            return refuse(format!(
                "a segment has {} bytes; at most {PATH_SEGMENT_MAX_BYTES} are allowed",
                segment.len()
            ));
        }
        if segment == "." || segment == ".." {
            return refuse("a segment is '.' or '..'".into());
        }
    }
    Ok(())
}

/// A prefix for listing: any beginning of an allowed path, the empty one included.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), Error> {
    let refuse = |reason: &str| {
        Err(Error::InvalidPath {
            path: printable(prefix),
            reason: reason.into(),
        })
    };
    if prefix.len() > PATH_MAX_BYTES {
        return refuse("as a prefix it is longer than any path");
    }
    if prefix.chars().any(char::is_control) {
        return refuse("it contains a control character");
    }
    Ok(())
}

fn check_organization_name(name: &str) -> Result<(), Error> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_MAX_BYTES {
        "it is longer than 128 bytes"
    } else if name.chars().any(char::is_control) {
        "it contains a control character"
    } else if name.trim() != name {
        "it has white space at an end"
    } else {
        return Ok(());
    };
    Err(Error::InvalidName {
        what: "organization",
        name: printable(name),
        reason: reason.into(),
    })
}

fn check_key_name(name: &str) -> Result<(), Error> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_MAX_BYTES {
        "it is longer than 128 bytes"
    } else if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    {
        "only letters, digits, '.', '_' and '-' are allowed"
    } else {
        return Ok(());
    };
    Err(Error::InvalidName {
        what: "key",
        name: printable(name),
        reason: reason.into(),
    })
}

/// Input as it may be shown in a message: control characters replaced, cut at 80 characters.
pub(crate) fn printable(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(80)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(80).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_keeps_the_rules() {
        for good in ["a", "prod/db/password", "ä/ö", "a b/c", "...", &"x".repeat(128)] {
            assert!(good.parse::<SecretPath>().is_ok(), "{good}");
        }
        let long_segment = "x".repeat(129);
        let long_path = vec!["x".repeat(100); 6].join("/");
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            ".",
            "a/../b",
            "a\nb",
            "a\0",
            long_segment.as_str(),
            long_path.as_str(),
        ] {
            assert!(bad.parse::<SecretPath>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refused_name_is_shown_without_its_control_characters() {
        let error = "a\u{1b}[2J".parse::<KeyName>().unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error:?}");
    }
}
