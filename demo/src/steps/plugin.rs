//! The plugin through which the customer's KMS is reached: checked before a byte of it runs.

use crate::show::Show;
use crate::world::World;
use anyhow::Context as _;
use keystead_loader::{Plugin, PluginSource, digest_file};
use keystead_managed::{Keyring, Sealing};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Installs the plugin, and shows what the loader refuses and what it loads.
pub(crate) fn prepare(show: &mut Show, built: &Path, directory: &Path) -> anyhow::Result<World> {
    show.step("The customer's KMS is reached through a plugin, which is checked before a byte of it runs");
    let plugin = directory.join("plugins").join("libcustomer_kms.so");
    for made in ["plugins", "customer"] {
        fs::create_dir(directory.join(made))?;
        fs::set_permissions(directory.join(made), Permissions::from_mode(0o700))?;
    }
    fs::copy(built, &plugin).with_context(|| {
        format!(
            "copying the plugin {}; cargo xtask demo builds it",
            built.display()
        )
    })?;
    fs::set_permissions(&plugin, Permissions::from_mode(0o600))?;
    let digest = digest_file(&plugin)?;
    show.say(format!(
        "The application allows the plugin with this BLAKE3 digest, and no other:\n{digest}"
    ));

    let changed = directory.join("plugins").join("one_byte_changed.so");
    let mut bytes = fs::read(&plugin)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&changed, &bytes)?;
    fs::set_permissions(&changed, Permissions::from_mode(0o600))?;
    refused(
        show,
        &PluginSource::new(&changed).digest(digest),
        "with one byte changed",
    );

    fs::set_permissions(&plugin, Permissions::from_mode(0o602))?;
    refused(
        show,
        &PluginSource::new(&plugin).digest(digest),
        "writable by others",
    );
    fs::set_permissions(&plugin, Permissions::from_mode(0o600))?;

    refused(
        show,
        &PluginSource::new("libcustomer_kms.so").digest(digest),
        "by a relative path",
    );

    let world = World {
        directory: directory.to_owned(),
        plugin,
        digest,
    };
    let loaded = world.load_plugin()?;
    show.claim(
        loaded.digest() == digest,
        "as it was built, the plugin loads, and what was checked is what runs",
    );
    Keyring::create(world.customer_keyring(), Sealing::none())
        .context("making the keyring that stands for the KMS")?;
    Ok(world)
}

fn refused(show: &mut Show, source: &PluginSource, how: &str) {
    match Plugin::load(source) {
        Ok(_) => show.claim(false, format!("a plugin {how} is refused")),
        Err(error) => {
            show.claim(true, format!("a plugin {how} is refused"));
            show.say(format!("         {error}"));
        }
    }
}
