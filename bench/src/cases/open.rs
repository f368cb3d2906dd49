//! Opening a store in a fresh process: after it was closed, and after the process that wrote to it was killed.

use crate::child::{Opened, kill_at, opened};
use crate::fixtures::{Fixture, Fixtures};
use crate::measure::median;
use crate::report::{Line, grouped, time};
use crate::workload::{Order, path};
use anyhow::{Context, Result};
use std::path::Path;

const CASE: &str = "open";
const AFTER_KILL_MAX_MS: f64 = 100.0;
/// After how many puts the writer is killed: a checkpoint comes every few hundred, and the journal behind it is replayed.
const KILLED_AT: [u64; 7] = [90, 200, 255, 300, 511, 640, 760];
/// Numbers of new secrets begin here.
const FIRST_NEW: u64 = 200_000_000;

pub(crate) fn run(fixtures: &mut Fixtures) -> Result<Vec<Line>> {
    let quick = fixtures.settings.quick;
    let mut lines = measure(fixtures.small()?, false, quick)?;
    lines.extend(measure(fixtures.large()?, true, quick)?);
    Ok(lines)
}

fn measure(fixture: &Fixture, judged: bool, quick: bool) -> Result<Vec<Line>> {
    crate::progress(&format!(
        "opening stores of {} secrets in fresh processes",
        fixture.count
    ));
    let secret = path(Order::Scattered, 7);
    let size = grouped(fixture.count as f64);
    let (keystead, redb) = (fixture.keystead(), fixture.redb());

    let mut clean = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        clean[0].push(opened(&keystead, &secret, &[])?);
        clean[1].push(opened(&redb, &secret, &["--redb"])?);
    }
    let mut killed = [Vec::new(), Vec::new()];
    for (turn, until) in KILLED_AT.into_iter().enumerate() {
        let from = FIRST_NEW + turn as u64 * 10_000;
        killed[0].push(after_kill(&keystead, &secret, from, until, &[], &[])?);
        killed[1].push(after_kill(&redb, &secret, from, until, &["--redb"], &["--redb"])?);
    }
    let plain_turns = if quick || !judged { 3 } else { 1 };
    let mut plain = Vec::new();
    for turn in 0..plain_turns {
        let from = FIRST_NEW + 1_000_000 + turn * 10_000;
        plain.push(after_kill(
            &redb,
            &secret,
            from,
            200,
            &["--redb-plain"],
            &["--redb"],
        )?);
    }

    let what = format!(
        "open after kill -9, {size} secrets (worst of {})",
        KILLED_AT.len()
    );
    let worst = worst_us(&killed[0]);
    let mut after = Line::new(CASE, &what, time(worst))
        .beside(
            "redb, quick repair",
            time(worst_us(&killed[1])),
            Some(worst / worst_us(&killed[1])),
        )
        .figures(serde_json::json!({ "keystead": killed[0], "beside": killed[1] }));
    if judged {
        after = after.goal(
            format!("at most {AFTER_KILL_MAX_MS} ms"),
            worst / 1e3 <= AFTER_KILL_MAX_MS,
        );
    }
    Ok(vec![
        Line::new(
            CASE,
            format!("open after close, {size} secrets"),
            time(median_us(&clean[0])),
        )
        .beside(
            "redb",
            time(median_us(&clean[1])),
            Some(median_us(&clean[0]) / median_us(&clean[1])),
        )
        .figures(serde_json::json!({ "keystead": clean[0], "beside": clean[1] })),
        after,
        Line::new(CASE, &what, time(worst))
            .beside(
                "redb, one phase",
                time(worst_us(&plain)),
                Some(worst / worst_us(&plain)),
            )
            .figures(serde_json::json!({ "keystead": killed[0], "beside": plain })),
    ])
}

fn after_kill(
    store: &Path,
    secret: &str,
    from: u64,
    until: u64,
    writer: &[&str],
    reader: &[&str],
) -> Result<Opened> {
    let from = from.to_string();
    let mut arguments = vec![
        "put",
        "--store",
        store.to_str().context("the directory's name is not text")?,
        "--from",
        &from,
    ];
    arguments.extend_from_slice(writer);
    kill_at(&arguments, until)?;
    opened(store, secret, reader)
}

fn median_us(opened: &[Opened]) -> f64 {
    median(&opened.iter().map(|opened| opened.open_us).collect::<Vec<_>>())
}

fn worst_us(opened: &[Opened]) -> f64 {
    opened.iter().map(|opened| opened.open_us).fold(0.0, f64::max)
}
