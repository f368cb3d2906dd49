//! What is shown, in order.

mod filling;
mod hand_over;
mod plugin;
mod proof;
mod revocation;
mod rewrap;

use crate::show::Show;
use crate::world::{ACME, GLOBEX};
use keystead::Organization;
use std::path::Path;
use std::process::Command;

/// Shows everything, in `directory`; the show is still to be ended.
pub(crate) fn all(plugin: &Path, directory: &Path) -> anyhow::Result<Show> {
    let mut show = Show::begin();
    show.say(format!(
        "Keystead: an organization's secrets move to its owner's key, while they are read and written.\n\
         {ACME} brings its own key; {GLOBEX} stays with the managed one. No network, no service: the managed key is a\n\
         keyring file, and a second keyring, behind a dynamic plugin, stands for the KMS of {ACME}.\n\
         Everything is in {}, and is removed at the end.",
        directory.display()
    ));
    let world = plugin::prepare(&mut show, plugin, directory)?;
    let before = filling::fill(&mut show, &world)?;
    hand_over::hand_over(&mut show, &world, before)?;
    let written = rewrap::killed(&mut show, &world)?;
    rewrap::resumed(&mut show, &world, &written)?;
    proof::prove(&mut show, &world)?;
    revocation::revoke(&mut show, &world)?;
    Ok(show)
}

/// Prints the epochs of an organization: which key protects what.
fn print_epochs(show: &Show, organization: &Organization) -> anyhow::Result<()> {
    show.say(format!("Epochs of {}:", organization.name()));
    for epoch in organization.epochs()? {
        let wrapped_by: Vec<&str> = epoch.wrapped_by.iter().map(|wrap| wrap.key.as_str()).collect();
        show.say(format!(
            "  {:>2}  opened under {:<9} {:<8} {:>6} data keys   wrapped by: {}",
            epoch.number,
            epoch.key,
            serde_json::to_value(epoch.state)?.as_str().unwrap_or_default(),
            epoch.references,
            if wrapped_by.is_empty() {
                "nothing any more".to_owned()
            } else {
                wrapped_by.join(", ")
            },
        ));
    }
    Ok(())
}

/// This program in another part.
fn another_process(arguments: &[&std::ffi::OsStr]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    Ok(command)
}
