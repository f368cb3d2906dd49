//! Many organizations in one store: creating them, opening it, and what the first read of one of them costs.

use crate::child::{Opened, opened};
use crate::engines::Keystead;
use crate::fixtures::Fixtures;
use crate::kms::BenchKms;
use crate::measure::{OnDisk, median, now};
use crate::report::{Line, grouped, time};
use crate::workload::{Order, row};
use anyhow::{Context, Result};
use keystead::Store;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const CASE: &str = "organizations";
const THREADS: u64 = 32;
const OPEN_MAX_MS: f64 = 50.0;
const MEMORY_MAX_MIB: f64 = 64.0;
/// The first read in the large store may cost this much of what it costs in a store of one organization.
const FIRST_READ_RATIO_MAX: f64 = 1.25;
/// Every so many organizations, one has a secret.
const STEP: u64 = 100;

pub(crate) fn run(fixtures: &mut Fixtures) -> Result<Vec<Line>> {
    let settings = fixtures.settings.clone();
    let count = settings.organizations;
    crate::progress(&format!("creating {count} organizations by {THREADS} threads"));
    let dir = settings.dir.join("organizations");
    std::fs::create_dir(&dir)?;
    let (many, one) = (dir.join("many"), dir.join("one"));
    let create_seconds = create(&many, count)?;
    create(&one, 1)?;

    crate::progress("opening it in fresh processes");
    let secret = row(Order::Scattered, 0).path;
    let (mut in_many, mut in_one) = (Vec::new(), Vec::new());
    for turn in 0..if settings.quick { 5 } else { 15 } {
        let organization = name(turn * 7 % (count / STEP) * STEP);
        in_many.push(opened(&many, &secret, &["--organization", &organization])?);
        in_one.push(opened(&one, &secret, &["--organization", &name(0)])?);
    }
    let of = |opened: &[Opened], figure: fn(&Opened) -> f64| {
        median(&opened.iter().map(figure).collect::<Vec<_>>())
    };
    let (open_many, open_one) = (of(&in_many, |o| o.open_us), of(&in_one, |o| o.open_us));
    let (read_many, read_one) = (of(&in_many, |o| o.first_get_us), of(&in_one, |o| o.first_get_us));
    let memory = of(&in_many, |o| o.rss_kib as f64 / 1024.0);
    let memory_one = of(&in_one, |o| o.rss_kib as f64 / 1024.0);
    let on_disk = OnDisk::of(&[&many])?;
    let size = grouped(count as f64);
    let figures = serde_json::json!({ "many": in_many, "one": in_one });
    Ok(vec![
        Line::new(
            CASE,
            format!("creating {size} organizations, {THREADS} threads"),
            format!("{} a second", grouped(count as f64 / create_seconds)),
        )
        .beside(
            "on disk",
            format!("{} B each", grouped(on_disk.allocated as f64 / count as f64)),
            None,
        ),
        Line::new(CASE, format!("open with {size} organizations"), time(open_many))
            .beside("with one", time(open_one), Some(open_many / open_one))
            .goal(
                format!("at most {OPEN_MAX_MS} ms"),
                open_many / 1e3 <= OPEN_MAX_MS,
            )
            .figures(figures.clone()),
        Line::new(
            CASE,
            format!("memory of the process with {size} organizations open"),
            format!("{memory:.1} MiB"),
        )
        .beside(
            "with one",
            format!("{memory_one:.1} MiB"),
            Some(memory / memory_one),
        )
        .goal(format!("at most {MEMORY_MAX_MIB} MiB"), memory <= MEMORY_MAX_MIB),
        Line::new(
            CASE,
            format!("first read of one of {size} organizations"),
            time(read_many),
        )
        .beside("of the only one", time(read_one), Some(read_many / read_one))
        .goal(
            format!("at most {FIRST_READ_RATIO_MAX} ×"),
            read_many / read_one <= FIRST_READ_RATIO_MAX,
        )
        .figures(figures),
    ])
}

fn name(number: u64) -> String {
    format!("organization-{number:06}")
}

/// Gives the seconds that creating took.
fn create(path: &Path, count: u64) -> Result<f64> {
    let store = Keystead::options(&BenchKms::default()).create(path)?;
    let began = now();
    each(&store, count, 1, |store, number| {
        store.create_organization(&name(number))?;
        Ok(())
    })?;
    let seconds = began.elapsed().as_secs_f64();
    each(&store, count, STEP, |store, number| {
        let row = row(Order::Scattered, 0);
        store.organization(&name(number))?.put(&row.path, &row.value)?;
        Ok(())
    })?;
    store.close().context("closing the store")?;
    Ok(seconds)
}

/// Has `work` done for every `step`th number below `count`, by all threads.
fn each(store: &Store, count: u64, step: u64, work: impl Fn(&Store, u64) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let number = next.fetch_add(step, Relaxed);
                        if number >= count {
                            return Ok(());
                        }
                        work(store, number)?;
                    }
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}
