//! `cargo xtask damage`: builds the program that damages store files as a release, and runs it: redb's debug assertions read every
//! page when a store is opened, and so meet all damage at once.

use crate::tools::{self, cargo, program, succeeds, target_directory};

pub(crate) fn run(images: u64, seed: Option<u64>, image: Option<u64>) -> anyhow::Result<bool> {
    tools::run(&mut cargo(&[
        "build",
        "--release",
        "--package",
        "keystead-tests",
        "--bin",
        "damage",
    ]))?;
    let mut damage = program(target_directory()?.join("release").join("damage"), &[]);
    damage.args(["--images", &images.to_string()]);
    if let Some(seed) = seed {
        damage.args(["--seed", &seed.to_string()]);
    }
    if let Some(image) = image {
        damage.args(["--image", &image.to_string()]);
    }
    succeeds(&mut damage)
}
