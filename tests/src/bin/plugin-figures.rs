//! Prints what each plugin costs: its size, how long it takes to load, memory and threads once it was used. As lines of the
//! table in `docs/backends/README.md`.
//!
//! ```text
//! cargo build --release -p keystead-aws-kms-plugin …
//! target/release/plugin-figures target/release/libkeystead_aws_kms.so …
//! ```
//!
//! Each one is loaded in a process of its own, and used for a wrap: the managed key's on a keyring of its own, that of PKCS#11 on a
//! token of SoftHSM's, the others on a port where nobody answers, so that their runtimes and clients are started. `cargo xtask
//! plugins` builds and runs all.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for people")]
#![allow(clippy::disallowed_methods, reason = "it measures how long loading takes")]

use anyhow::{Context as _, bail};
use keystead_backend::{Call, Context};
use keystead_loader::{Plugin, PluginSource};
use keystead_tests::direct::{TestHost, never_twice, try_open};
use keystead_tests::emulators::SoftHsm;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Says to this program that it is the process in which one is loaded.
const INSIDE: &str = "--inside";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [inside, plugin] if inside == INSIDE => return measure(Path::new(plugin)),
        [] => bail!("give the plugins' files"),
        _ => {}
    }
    println!("| plugin | size, stripped | loaded in | memory | threads |");
    println!("| --- | --- | --- | --- | --- |");
    for plugin in &arguments {
        let status = Command::new(std::env::current_exe()?)
            .args([INSIDE, plugin])
            .status()?;
        if !status.success() {
            bail!("measuring {plugin} failed");
        }
    }
    Ok(())
}

fn measure(plugin: &Path) -> anyhow::Result<()> {
    let plugin = std::path::absolute(plugin)?;
    let scratch = tempfile::tempdir()?;
    let stripped = scratch.path().join("stripped");
    let strip = Command::new("strip")
        .arg("-o")
        .args([&stripped, &plugin])
        .status();
    let size = match strip {
        Ok(status) if status.success() => std::fs::metadata(&stripped)?.len(),
        _ => bail!("`strip` is needed, to say a size that does not depend on debug information"),
    };
    // Before anything is measured: what belongs to no plugin is set up here.
    let hsm = is_pkcs11(&plugin).then(|| SoftHsm::shared_or_skip("figures of the plugin of PKCS#11"));
    let hsm = hsm.flatten();
    let before = (resident_kib()?, threads()?);
    let began = Instant::now();
    let loaded = Plugin::load(&PluginSource::new(&plugin).dangerously_without_digest())?;
    let took = began.elapsed();
    let name = loaded.description().name.clone();
    let (config, settings) = match &hsm {
        Some(hsm) => {
            hsm.owner("generate", &json!({ "label": "figures", "id": "01" }))?;
            let config = json!({ "token": SoftHsm::TOKEN, "key_label": "figures" });
            (config, hsm.settings())
        }
        None => given(&name, scratch.path())?,
    };
    let host = Arc::new(TestHost::default()).with_random(never_twice);
    let used = match try_open(&loaded, host, &settings, &config) {
        Ok(key) => {
            // Whether it succeeds does not matter: whatever it needs is there afterwards.
            let outcome = key.wrap(
                &Call::with_timeout(Duration::from_secs(2)),
                &Context::new([("epoch", "1")]),
                &[7; 32],
            );
            let used = (resident_kib()?, threads()?);
            match outcome {
                Ok(_) => eprintln!("{name}: wrapped"),
                Err(error) => eprintln!("{name}: {error}"),
            }
            drop(key);
            used
        }
        Err(error) => {
            eprintln!("{name}: loaded, but not used: {error}");
            (resident_kib()?, threads()?)
        }
    };
    println!(
        "| `{name}` | {:.1} MB | {:.0} ms | {:.1} MiB | {} |",
        size as f64 / 1e6,
        took.as_secs_f64() * 1e3,
        used.0.saturating_sub(before.0) as f64 / 1024.0,
        used.1.saturating_sub(before.1)
    );
    // What a plugin left running is not waited for.
    std::process::exit(0)
}

/// A config and settings with which a call goes as far as it can without a KMS.
fn given(name: &str, scratch: &Path) -> anyhow::Result<(Value, Value)> {
    let nobody = "http://127.0.0.1:9";
    let token = scratch.join("token");
    std::fs::write(&token, "e30.e30.e30")?;
    Ok(match name {
        "managed" => (json!({}), json!({ "keyring": scratch.join("a.keyring") })),
        "aws-kms" => (
            json!({ "key_arn": "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab" }),
            json!({ "endpoint_url": nobody, "access_key_id": "none", "secret_access_key": "none" }),
        ),
        "azure-key-vault" => (
            json!({
                "key_id": "https://acme.vault.azure.net/keys/k", "tenant_id": "72f988bf-86f1-41af-91ab-2d7cd011db47",
                "client_id": "0f9b7e31-5d27-4d0c-8f1e-6a2b3c4d5e6f", "workload_identity": { "token_file": true },
            }),
            json!({ "vault_address": "127.0.0.1:9", "token_file": token }),
        ),
        "gcp-kms" => (
            json!({
                "key_name": "projects/p/locations/global/keyRings/r/cryptoKeys/k",
                "workload_identity_provider": "projects/1/locations/global/workloadIdentityPools/pool/providers/provider",
                "web_identity": { "token_file": true },
            }),
            json!({ "endpoint_url": nobody, "sts_token_url": nobody, "token_file": token }),
        ),
        "transit" => (
            json!({ "key": "k" }),
            json!({ "address": nobody, "vault_token_file": token }),
        ),
        other => bail!("it is not known how {other} is used; say it here"),
    })
}

fn is_pkcs11(plugin: &Path) -> bool {
    plugin
        .file_name()
        .is_some_and(|name| name.to_string_lossy().contains("pkcs11"))
}

fn resident_kib() -> anyhow::Result<u64> {
    of_status("VmRSS:")
}

fn threads() -> anyhow::Result<u64> {
    of_status("Threads:")
}

fn of_status(name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading this process's status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("{name} is not in this process's status"))
}
