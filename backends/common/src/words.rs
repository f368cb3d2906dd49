//! What a service or its client said, fit for an error: short, on one line, nothing that a terminal would obey.

use std::error::Error;

/// The longest piece of a service's own words that goes into a message, in characters.
const WORDS_MAX: usize = 300;

/// The service's own words, fit for a message: their first line, cut, without control characters. Only the first
/// line, because STS explains a wrong signature on the next ones, with the session token in it.
#[must_use]
pub fn words(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
    if line.chars().count() > WORDS_MAX {
        short.push('…');
    }
    short
}

/// What lies under an error, outermost first. For errors of the transport only: they carry addresses, not secrets.
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next.filter(|_| said.len() < 8) {
        let text = words(&cause.to_string());
        if !text.is_empty() && said.last() != Some(&text) {
            said.push(text);
        }
        next = cause.source();
    }
    if said.is_empty() {
        "no reason given".into()
    } else {
        said.join(": ")
    }
}

/// A piece of untrusted text for a message: short, and nothing that a terminal would obey.
#[must_use]
pub fn quote(text: &str) -> String {
    let short: String = text.chars().take(200).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("\"{}{dots}\"", short.escape_debug())
}
