//! Verifying a whole store, in a process of its own: how long, and with how much memory.

use crate::child::{Verified, finish};
use crate::fixtures::{Fixture, Fixtures};
use crate::report::{Line, grouped};
use anyhow::{Context, Result, ensure};

const CASE: &str = "verify";
/// What it may have in use at its peak, the page cache of 64 MiB included.
const PEAK_MAX_MIB: f64 = 256.0;

pub(crate) fn run(fixtures: &mut Fixtures) -> Result<Vec<Line>> {
    let mut lines = measure(fixtures.small()?)?;
    lines.extend(measure(fixtures.large()?)?);
    Ok(lines)
}

fn measure(fixture: &Fixture) -> Result<Vec<Line>> {
    let size = grouped(fixture.count as f64);
    crate::progress(&format!("verifying {size} secrets in processes of their own"));
    let store = fixture.keystead();
    let store = store.to_str().context("the directory's name is not text")?;
    let mut lines = Vec::new();
    for (what, more) in [
        ("structure and rows", None),
        ("and every value opened", Some("--open-values")),
    ] {
        let arguments: Vec<&str> = ["verify", "--store", store].into_iter().chain(more).collect();
        let verified: Verified = finish(&arguments)?;
        ensure!(
            verified.versions >= fixture.count,
            "only {} versions were looked at",
            verified.versions
        );
        let peak = verified.peak_kib as f64 / 1024.0;
        lines.push(
            Line::new(
                CASE,
                format!("verify of {size} secrets: {what}"),
                format!("{:.1} s", verified.seconds),
            )
            .figures(serde_json::to_value(verified)?),
        );
        lines.push(
            Line::new(
                CASE,
                format!("its peak memory, cache 64 MiB: {what}"),
                format!("{peak:.0} MiB"),
            )
            .goal(format!("at most {PEAK_MAX_MIB} MiB"), peak <= PEAK_MAX_MIB),
        );
    }
    Ok(lines)
}
