//! What configures a backend: the settings and configs of the managed key, and the command's config file. Text is refused with
//! a reason that does not repeat a secret, or is taken.

use arbitrary::{Arbitrary, Unstructured};

#[path = "../../../cli/src/config.rs"]
#[allow(dead_code, reason = "the whole file, without the command around it")]
mod command;

/// Stands in the input where a secret may have been put by mistake.
const SECRET: &str = "C4n4ry!~";

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    settings: &'a str,
    config: &'a str,
    toml: &'a str,
}

pub(super) fn run(input: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(input)) else {
        return;
    };
    if let Err(error) = keystead_managed::simulation::check(input.settings, input.config) {
        says_no_secret(&error.to_string(), input.settings);
    }
    if let Err(why) = command::Config::parse(input.toml) {
        assert!(
            !why.contains(SECRET) || !input.toml.contains(&format!("= \"{SECRET}\"")),
            "{why}"
        );
    }
}

/// A value in the wrong place may be a secret; a name may not.
fn says_no_secret(message: &str, settings: &str) {
    let value = settings.contains(&format!(": \"{SECRET}\""));
    assert!(!value || !message.contains(SECRET), "{message}");
    assert!(
        !message.contains(char::is_control),
        "{message:?} goes to a terminal"
    );
}
