//! `damage --images N [--seed S] [--image I]`: damages a store N times, and says what the engine made of each image. Each is
//! opened in a child process: an abort or a hang is counted, not suffered. `cargo xtask damage` builds and runs it.
//!
//! `--image I` looks at that one image alone, in this process, and lets it panic.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for people")]

use anyhow::{Context, bail};
use keystead_tests::damage::{child, parent};
use std::process::ExitCode;

const SEED: u64 = 20_260_401;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, seed, from, to] = &arguments[..]
        && first == "--child"
    {
        child::run(
            seed.parse()?,
            from.parse()?..to.parse()?,
            &mut std::io::stdout().lock(),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let (mut images, mut seed, mut only) = (20_000, SEED, None);
    for pair in arguments.chunks(2) {
        let [name, value] = pair else {
            bail!("{} takes a number", pair[0])
        };
        let value: u64 = value.parse().with_context(|| format!("{name} {value}"))?;
        match name.as_str() {
            "--images" => images = value,
            "--seed" => seed = value,
            "--image" => only = Some(value),
            _ => bail!("unknown: {name}; there are --images, --seed, --image"),
        }
    }
    if let Some(image) = only {
        child::run(seed, image..image + 1, &mut std::io::stdout().lock())?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("KEYSTEAD_SEED={seed}: {images} images");
    let report = parent::run(&std::env::current_exe()?, seed, 0..images, |done| {
        eprint!("\r{done} of {images}");
    })?;
    eprintln!();
    println!("{report}");
    for (image, story) in &report.stories {
        println!("image {image} (cargo xtask damage --seed {seed} --image {image}): {story}");
    }
    Ok(match report.is_clean() && report.images() == images {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
