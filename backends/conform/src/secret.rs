//! Secrets that must not turn up anywhere, in whatever form they are written.

use std::fmt::Write as _;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use zeroize::Zeroizing;

/// One secret in each of its [forms].
pub(crate) struct Secret(Vec<Zeroizing<Vec<u8>>>);

/// The forms of one secret, each with its name: as it is, in hexadecimal digits, in base64 wherever in a text it begins. No copy of
/// it is left in memory beside them.
pub(crate) fn forms(secret: &[u8]) -> Vec<(&'static str, Zeroizing<Vec<u8>>)> {
    let hex = Zeroizing::new(hex(secret).into_bytes());
    let mut upper = hex.clone();
    upper.make_ascii_uppercase();
    let mut forms = vec![
        ("as they are", Zeroizing::new(secret.to_vec())),
        ("in hexadecimal", upper),
        ("in hexadecimal", hex),
    ];
    for engine in [STANDARD, URL_SAFE] {
        for shift in 0..3 {
            let mut bytes = Zeroizing::new(vec![0; shift + secret.len()]);
            bytes[shift..].copy_from_slice(secret);
            let text = Zeroizing::new(engine.encode(&bytes));
            let text = text.trim_end_matches('=');
            // The first and the last characters have bits of the neighbours in them.
            let from = if shift == 0 { 0 } else { shift + 1 };
            let form = Zeroizing::new(text.as_bytes()[from..text.len() - 1].to_vec());
            // Without a character in which the two alphabets differ they are one.
            if forms.iter().all(|(_, other)| *other != form) {
                forms.push(("in base64", form));
            }
        }
    }
    forms
}

impl Secret {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(forms(secret).into_iter().map(|(_, form)| form).collect())
    }

    /// Whether it stands there in any form.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        self.0
            .iter()
            .any(|form| bytes.windows(form.len()).any(|window| window == form.as_slice()))
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    // Room for all of it at once: what grows leaves pieces behind.
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

/// Notes a secret in a file.
pub(crate) fn note(file: &Path, secret: &[u8]) {
    use std::io::Write;
    let line = format!("{}\n", hex(secret));
    let noted = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    noted.unwrap_or_else(|error| panic!("the scratch directory {}: {error}", file.display()));
}

/// Those that were noted.
pub(crate) fn read_all(file: &Path) -> anyhow::Result<Vec<Secret>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(file)?;
    Ok(text
        .lines()
        .filter_map(unhex)
        .map(|secret| Secret::new(&secret))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_each_form_wherever_it_begins() {
        let bytes: Vec<u8> = (7..39).map(|byte: u8| byte.wrapping_mul(73)).collect();
        let secret = Secret::new(&bytes);
        for before in 0..4 {
            let text = [vec![b'x'; before], bytes.clone(), b"and more".to_vec()].concat();
            for form in [
                text.clone(),
                hex(&text).into_bytes(),
                STANDARD.encode(&text).into(),
                URL_SAFE.encode(&text).into(),
            ] {
                assert!(secret.is_in(&form), "{}", String::from_utf8_lossy(&form));
            }
        }
        assert!(
            !secret.is_in(&bytes[1..]) && !secret.is_in(b"") && !secret.is_in(hex(&bytes[1..]).as_bytes())
        );
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
    }
}
