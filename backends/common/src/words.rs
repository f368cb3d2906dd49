//! What a service or its client said, fit for an error: short, on one line, nothing that a terminal would obey.

use std::error::Error;

/// The longest piece of a service's own words that goes into a message, in characters.
const WORDS_MAX: usize = 300;

/// How every JSON Web Token begins, and every part of one that is JSON: `{"` in base64.
const TOKEN_BEGINS: &str = "eyJ";

/// So many characters of a token in a row behind that are no chance.
const TOKEN_MIN: usize = 12;

/// The service's own words, fit for a message: their first line, cut, without control characters, and without JSON Web Tokens, whosever
/// they are. Only the first line, because STS explains a wrong signature on the next ones, with the session token in it.
#[must_use]
pub fn words(text: &str) -> String {
    let line = without_web_tokens(text.lines().next().unwrap_or_default());
    let mut short: String = line.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
    if line.chars().count() > WORDS_MAX {
        short.push('…');
    }
    short
}

fn without_web_tokens(line: &str) -> String {
    let is_of_a_token = |c: char| c.is_ascii_alphanumeric() || "-_.=+/".contains(c);
    let (mut kept, mut rest) = (String::with_capacity(line.len()), line);
    while let Some(start) = rest.find(TOKEN_BEGINS) {
        let end = rest[start..].find(|c| !is_of_a_token(c));
        let end = end.map_or(rest.len(), |length| start + length);
        if end - start < TOKEN_BEGINS.len() + TOKEN_MIN {
            kept.push_str(&rest[..end]);
        } else {
            kept.push_str(&rest[..start]);
            kept.push_str("(a token, left out)");
        }
        rest = &rest[end..];
    }
    kept + rest
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_web_token_is_left_out_and_what_stands_around_it_stays() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwb2QifQ.c2lnbmF0dXJl";
        assert_eq!(
            words(&format!("token {token} and \"Bearer {token}\" expired")),
            "token (a token, left out) and \"Bearer (a token, left out)\" expired"
        );
        assert_eq!(words(&token[..20]), "(a token, left out)");
        // Cut at the front: its claims are known by their beginning.
        assert_eq!(words(&token[5..]), "GciOiJSUzI1NiJ9.(a token, left out)");
        for plain in ["", "the eyJafjall glacier", "a key \u{e9} eyJ", "keys/eyJ-1"] {
            assert_eq!(words(plain), plain);
        }
    }
}
