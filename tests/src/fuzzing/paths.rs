//! Paths, prefixes, names, and the names of AWS resources: text is refused, or is what the documentation says of it.

use keystead::simulation::{after_prefix, check_prefix};
use keystead::{
    KeyName, NAME_MAX_BYTES, OrganizationName, PATH_MAX_BYTES, PATH_SEGMENT_MAX_BYTES, SecretPath,
};

#[path = "../../../backends/aws/src/arn.rs"]
#[allow(dead_code, reason = "the whole file, without the SDK behind it")]
mod arn;

/// Input: text.
pub(super) fn run(input: &[u8]) {
    if let Some(end) = after_prefix(input) {
        assert!(input < &end[..], "what is behind a prefix is behind it");
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match text.parse::<SecretPath>() {
        Ok(path) => {
            assert_eq!(path.as_str(), text);
            assert!(!text.is_empty() && text.len() <= PATH_MAX_BYTES);
            let segments = |segment: &str| {
                (1..=PATH_SEGMENT_MAX_BYTES).contains(&segment.len()) && segment != "." && segment != ".."
            };
            assert!(text.split('/').all(segments) && !text.contains(char::is_control));
            for (end, _) in text.char_indices() {
                assert!(
                    check_prefix(&text[..end]).is_ok(),
                    "the beginning of a path is a prefix"
                );
            }
        }
        Err(error) => is_printable(&error.to_string()),
    }
    match text.parse::<OrganizationName>() {
        Ok(_) => assert!((1..=NAME_MAX_BYTES).contains(&text.len()) && text.trim() == text),
        Err(error) => is_printable(&error.to_string()),
    }
    match text.parse::<KeyName>() {
        Ok(_) => assert!(text.is_ascii() && (1..=NAME_MAX_BYTES).contains(&text.len())),
        Err(error) => is_printable(&error.to_string()),
    }
    match arn::KeyArn::parse(text) {
        // The region becomes part of a host name.
        Ok(arn) => assert!(
            arn.region()
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        ),
        Err(why) => is_printable(&why),
    }
    if let Err(why) = arn::check_role_arn(text, "aws") {
        is_printable(&why);
    }
}

fn is_printable(message: &str) {
    assert!(
        !message.contains(char::is_control),
        "{message:?} goes to a terminal"
    );
}
