//! Strict reading of config and settings.

use keystead_backend::{BackendError, ErrorCode};
use serde_json::{Map, Value};

use crate::bench::{Bench, within};
use crate::inside::{Checked, Stop, fail};
use std::time::Duration;

/// A name that no backend knows.
const FIELD: &str = "keystead_conform_field";
/// A value that must not be repeated: in settings it could be a secret in the wrong place.
const VALUE: &str = "hunter2-must-not-be-shown";

pub(super) fn object(bench: &Bench) -> Checked {
    bench.open()?;
    let wrong = [
        "[]", "null", "7", "true", "\"text\"", "", "{", "{\"a\":}", "nonsense", "{} {}",
    ];
    for text in wrong {
        for (what, settings, config) in [
            ("config", bench.job.settings.as_str(), text),
            ("settings", text, bench.job.config.as_str()),
        ] {
            let error = refused(bench, settings, config, &format!("{text:?} as {what}"))?;
            expect_config(&error, &format!("{text:?} as {what}"))?;
        }
    }
    Ok(Vec::new())
}

pub(super) fn unknown_field(bench: &Bench) -> Checked {
    bench.open()?;
    let with_field = |text: &str| -> Checked<String> {
        let mut fields: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| Stop::Failed(format!("what was given is no JSON object: {error}")))?;
        fields.insert(FIELD.into(), VALUE.into());
        Ok(Value::Object(fields).to_string())
    };
    let (settings, config) = (&bench.job.settings, &bench.job.config);
    for (what, settings, config) in [
        ("config", settings.clone(), with_field(config)?),
        ("settings", with_field(settings)?, config.clone()),
    ] {
        let what = format!("a field of the {what} that nobody knows");
        let error = refused(bench, &settings, &config, &what)?;
        expect_config(&error, &what)?;
        if !error.message.contains(FIELD) {
            fail!("{what} is refused, but not by its name: \"{}\"", error.message);
        }
        if error.message.contains(VALUE) {
            fail!("{what} is refused, and its value repeated, which may be a secret in the wrong place");
        }
    }
    Ok(Vec::new())
}

pub(super) fn too_long(bench: &Bench) -> Checked {
    let long = 1_000_000;
    for (what, value) in [
        (
            "a config with a text of a million bytes",
            format!("\"{}\"", "x".repeat(long)),
        ),
        (
            "a config nested half a million deep",
            format!("{}{}", "[".repeat(long / 2), "]".repeat(long / 2)),
        ),
        (
            "a config nested half a million deep that does not end",
            "{\"a\":".repeat(long / 10),
        ),
    ] {
        let config = format!("{{\"{FIELD}\":{value}}}");
        let (probe, host) = (bench.probe.clone(), bench.host());
        let settings = bench.job.settings.clone();
        let opened = within(
            Duration::from_secs(3),
            &format!("open, with {what},"),
            move || {
                let request = keystead_backend::OpenRequest {
                    settings: &settings,
                    config: &config,
                    host,
                };
                probe.open(&request).map(drop)
            },
        )?;
        match opened {
            Ok(()) => fail!("{what} is taken"),
            Err(error) => expect_config(&error, what)?,
        }
    }
    Ok(Vec::new())
}

fn refused(bench: &Bench, settings: &str, config: &str, what: &str) -> Checked<BackendError> {
    match bench.open_as(settings, config, &bench.host()) {
        Ok(_) => fail!("{what} is taken"),
        Err(error) => Ok(error),
    }
}

fn expect_config(error: &BackendError, what: &str) -> Checked<()> {
    if error.code != ErrorCode::InvalidConfig {
        fail!("{what} is refused as \"{error}\"; the code must be INVALID_CONFIG");
    }
    Ok(())
}
