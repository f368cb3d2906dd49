//! What stands on the backends' pages to be copied is taken by the backend: configs, settings, config files of the command, and the JSON
//! of policies is JSON.

use keystead_backend::{BackendError, KeyBackend};
use keystead_loader::Plugin;
use keystead_tests::built::plugin_or_leave_out;
use keystead_tests::direct::try_open;
use keystead_tests::emulators::Kms;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The pages of KMSs.
const PAGES: [(&str, Kms); 5] = [
    ("aws", Kms::Aws),
    ("azure", Kms::AzureVault),
    ("gcp", Kms::Gcp),
    ("transit", Kms::Transit),
    ("pkcs11", Kms::Pkcs11),
];

#[derive(Debug, Default)]
struct Copied {
    configs: Vec<Value>,
    settings: Vec<Value>,
    /// The tables `backends` of config files.
    files: Vec<toml::Table>,
}

fn page(name: &str) -> String {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/backends/{name}.md"));
    std::fs::read_to_string(file).unwrap()
}

/// The fenced blocks in this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let parts: Vec<&str> = page.split("```").collect();
    let inside = parts.iter().skip(1).step_by(2);
    let of = |block: &&'a str| {
        block
            .split_once('\n')
            .filter(|(head, _)| head.starts_with(language))
    };
    inside.filter_map(of).map(|(_, text)| text).collect()
}

/// What is given to `json!` behind each of these words.
fn given_behind(text: &str, words: &str) -> Vec<Value> {
    let places = text.match_indices(words).map(|(at, _)| &text[at..]);
    places
        .map(|rest| {
            let rest = &rest[rest.find("json!(").expect("a config or settings in JSON") + 6..];
            // The first value; what follows it is Rust.
            let mut values = serde_json::Deserializer::from_str(rest).into_iter();
            values
                .next()
                .unwrap()
                .unwrap_or_else(|error| panic!("{error}: {rest}"))
        })
        .collect()
}

/// The objects that stand in the text between backticks, without those that leave something to the reader.
fn in_the_text(page: &str) -> Vec<Value> {
    let outside: String = page.split("```").step_by(2).collect();
    let spans = outside.split('`').skip(1).step_by(2);
    let objects = spans.filter(|span| span.starts_with("{\"") && !span.contains('…'));
    objects
        .map(|span| serde_json::from_str(span).unwrap_or_else(|error| panic!("{error}: {span}")))
        .collect()
}

/// What `--set NAME=VALUE` of a `key add` says.
fn set_by_the_command(page: &str, backend: &str) -> Vec<Value> {
    let of_this = format!("--backend {backend} ");
    let commands = page.split(&of_this).skip(1);
    commands
        .map(|rest| {
            let words = rest.lines().next().unwrap_or_default().split_whitespace();
            let pairs = words.filter_map(|word| word.split_once('='));
            Value::Object(
                pairs
                    .map(|(name, value)| (name.to_owned(), json!(value)))
                    .collect(),
            )
        })
        .collect()
}

fn copied(page: &str, plugin: &Plugin, backend: &str) -> Copied {
    let mut copied = Copied::default();
    let description = plugin.describe();
    let fits = |schema: &Value, object: &Map<String, Value>| {
        object
            .keys()
            .all(|field| schema["properties"].get(field).is_some())
    };
    let mut objects = in_the_text(page);
    for block in blocks(page, "json") {
        objects.push(serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}: {block}")));
    }
    for object in objects {
        let fields = object.as_object().unwrap();
        if fits(&description.config_schema, fields) && fields.keys().any(|field| field.contains("key")) {
            copied.configs.push(object);
        } else if fits(&description.settings_schema, fields) && fields.values().all(Value::is_string) {
            copied.settings.push(object);
        }
        // Else a policy, or a part of a config.
    }
    for block in blocks(page, "rust") {
        copied.settings.extend(given_behind(block, ".settings("));
        copied
            .configs
            .extend(given_behind(block, &format!("\"{backend}\", ")));
    }
    copied.configs.extend(set_by_the_command(page, backend));
    for block in blocks(page, "toml") {
        let file: toml::Table = block.parse().unwrap_or_else(|error| panic!("{error}: {block}"));
        let backends = file["backends"].as_table().unwrap().clone();
        let of_this = backends[backend].as_table().unwrap();
        copied
            .settings
            .push(serde_json::to_value(&of_this["settings"]).unwrap());
        copied.files.push(backends);
    }
    copied
}

fn opens(plugin: &Plugin, settings: &Value, config: &Value) -> Result<(), BackendError> {
    // Opening asks nothing of its host.
    match try_open(plugin, Arc::default(), settings, config) {
        // Where it says "environment" on the page as well.
        Err(error) if !error.message.contains("in the environment") => Err(error),
        _ => Ok(()),
    }
}

#[test]
fn every_config_and_all_settings_on_a_page_are_taken_by_its_backend() {
    for (name, kms) in PAGES {
        let what = "configs and settings of the backends' pages";
        let Some(plugin) = plugin_or_leave_out(&kms.plugin_library(), what) else {
            return;
        };
        let copied = copied(&page(name), &plugin, kms.backend_name());
        assert!(
            copied.configs.len() > 1 && copied.settings.len() > 1,
            "{name}: {copied:?}"
        );
        let refusals = |pairs: Vec<(&Value, &Value)>| -> Vec<String> {
            let tried = pairs
                .into_iter()
                .map(|(settings, config)| opens(&plugin, settings, config));
            let refused: Result<Vec<String>, ()> = tried
                .map(|opened| opened.err().map(|error| error.to_string()).ok_or(()))
                .collect();
            refused.unwrap_or_default()
        };
        for config in &copied.configs {
            let refused = refusals(
                copied
                    .settings
                    .iter()
                    .map(|settings| (settings, config))
                    .collect(),
            );
            assert_eq!(
                refused, [""; 0],
                "{name}: no settings of the page go with {config}"
            );
        }
        for settings in &copied.settings {
            let refused = refusals(copied.configs.iter().map(|config| (settings, config)).collect());
            assert_eq!(
                refused, [""; 0],
                "{name}: no config of the page goes with {settings}"
            );
        }
    }
}

#[test]
fn every_config_file_on_a_page_names_plugin_and_digests_or_what_is_built_in() {
    let names = PAGES
        .iter()
        .map(|(name, _)| *name)
        .chain(["managed", "../writing-a-backend"]);
    for name in names {
        let page = page(name);
        let files = blocks(&page, "toml");
        assert!(!files.is_empty(), "{name} has none");
        for file in files {
            let file: toml::Table = file.parse().unwrap();
            for (backend, said) in file["backends"].as_table().unwrap() {
                let said = said.as_table().unwrap();
                let mut fields: Vec<&str> = said.keys().map(String::as_str).collect();
                fields.sort_unstable();
                let may_be: [&[&str]; 2] = [&["digests", "plugin", "settings"], &["builtin", "settings"]];
                assert!(
                    may_be.contains(&fields.as_slice()),
                    "{name}: {backend} has {fields:?}"
                );
            }
        }
    }
}
