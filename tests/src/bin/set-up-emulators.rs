//! Installs what stands for KMSs in tests, so that no test has to wait for that. `cargo xtask test` runs it.

#![allow(clippy::print_stderr, reason = "it says what it does")]

use keystead_tests::emulators::{PEERS, install, install_softhsm};

fn main() -> anyhow::Result<()> {
    for peer in PEERS {
        eprintln!(
            "{}: installing what it needs, unless it is there already (half a minute)",
            peer.name
        );
        let python = install(peer)?;
        eprintln!("{}: ready, run by {}", peer.name, python.display());
    }
    let library = install_softhsm()?;
    eprintln!("softhsm: ready, the library is {}", library.display());
    Ok(())
}
