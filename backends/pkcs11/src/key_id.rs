//! The key id that is recorded with a wrap: a PKCS#11 URI (RFC 7512) of token, label and CKA_ID.
//!
//! `pkcs11:token=acme;object=cmk;id=%01;type=secret-key`

/// The longest label of a token: the field of PKCS#11 has 32 bytes.
pub(crate) const TOKEN_MAX_BYTES: usize = 32;
/// The longest label of a key, and the longest CKA_ID, that are taken.
pub(crate) const LABEL_MAX_BYTES: usize = 128;
pub(crate) const ID_MAX_BYTES: usize = 64;
/// The longest URI: each byte may be three characters.
pub(crate) const KEY_ID_MAX_BYTES: usize = 64 + 3 * (TOKEN_MAX_BYTES + LABEL_MAX_BYTES + ID_MAX_BYTES);

const START: &str = "pkcs11:token=";
const OBJECT: &str = ";object=";
const ID: &str = ";id=";
const END: &str = ";type=secret-key";

/// One key object on a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyId {
    pub(crate) token: String,
    pub(crate) label: String,
    /// CKA_ID; may be empty.
    pub(crate) id: Vec<u8>,
}

impl KeyId {
    pub(crate) fn to_uri(&self) -> String {
        let mut uri = String::with_capacity(128);
        for (lead, value) in [
            (START, self.token.as_bytes()),
            (OBJECT, self.label.as_bytes()),
            (ID, &self.id),
        ] {
            uri.push_str(lead);
            for &byte in value {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    uri.push(char::from(byte));
                } else {
                    uri.push_str(&format!("%{byte:02X}"));
                }
            }
        }
        uri.push_str(END);
        uri
    }

    /// Reads what [`to_uri`](Self::to_uri) writes, and nothing else.
    pub(crate) fn from_uri(uri: &str) -> Option<Self> {
        let rest = uri.strip_prefix(START)?.strip_suffix(END)?;
        let (token, rest) = rest.split_once(OBJECT)?;
        let (label, id) = rest.split_once(ID)?;
        let this = Self {
            token: String::from_utf8(decoded(token)?).ok()?,
            label: String::from_utf8(decoded(label)?).ok()?,
            id: decoded(id)?,
        };
        (this.to_uri() == uri).then_some(this)
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            out.extend(from_hex(std::str::from_utf8(digits).ok()?)?);
            rest = after;
        } else {
            out.push(first);
            rest = after;
        }
    }
    Some(out)
}

/// Bytes of hexadecimal digits, two for each.
pub(crate) fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| {
            Some(u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).expect("two digits are a byte"))
        })
        .collect()
}

/// How ids are ordered: as numbers, so that 02 is newer than 01, and 0100 newer than ff.
pub(crate) fn order(id: &[u8]) -> (usize, &[u8]) {
    let start = id.iter().position(|&byte| byte != 0).unwrap_or(id.len());
    (id.len() - start, &id[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(label: &str, id: &[u8]) -> KeyId {
        KeyId {
            token: "acme hsm".into(),
            label: label.into(),
            id: id.into(),
        }
    }

    #[test]
    fn a_key_id_is_a_pkcs11_uri_and_reads_back() {
        assert_eq!(
            key("cmk", &[1]).to_uri(),
            "pkcs11:token=acme%20hsm;object=cmk;id=%01;type=secret-key"
        );
        for key in [key("cmk", &[1]), key("", &[]), key(";id=%é=", &[0, 0xff, b'a'])] {
            let uri = key.to_uri();
            assert_eq!(KeyId::from_uri(&uri).as_ref(), Some(&key), "{uri}");
        }
        let longest = KeyId {
            token: "é".repeat(TOKEN_MAX_BYTES / 2),
            label: "é".repeat(LABEL_MAX_BYTES / 2),
            id: vec![0; ID_MAX_BYTES],
        };
        assert!(longest.to_uri().len() <= KEY_ID_MAX_BYTES);
    }

    #[test]
    fn what_this_backend_never_wrote_is_no_key_id() {
        for uri in [
            "",
            "pkcs11:",
            "pkcs11:token=a;object=b;id=%1;type=secret-key",
            "pkcs11:token=a;object=b;id=%zz;type=secret-key",
            "pkcs11:token=a;object=b;id=%c3;type=secret-key",
            "pkcs11:token=%C3;object=b;id=%01;type=secret-key",
            "pkcs11:token=%61;object=b;id=%01;type=secret-key",
            "pkcs11:token=a;object=b;id=%01;type=secret-key;module-path=/tmp/evil.so",
            "arn:aws:kms:eu-west-1:111122223333:key/1",
        ] {
            assert_eq!(KeyId::from_uri(uri), None, "{uri}");
        }
    }

    #[test]
    fn ids_are_ordered_as_numbers() {
        let sorted: [&[u8]; 6] = [&[], &[1], &[2], &[0, 3], &[0xff], &[1, 0]];
        assert!(sorted.windows(2).all(|pair| order(pair[0]) < order(pair[1])));
    }
}
