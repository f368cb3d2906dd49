//! Durable puts: how many, how long each, what each writes.

use crate::engines::{Durable, Engine, Keystead, RawRedb};
use crate::fixtures::Fixtures;
use crate::measure::{Latencies, Written, median, micros, millis, now};
use crate::report::{Line, grouped, time};
use crate::workload::{Order, row};
use anyhow::{Context, Result};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const CASE: &str = "put";
const SAME_DURABILITY: &str = "redb, quick repair";
/// Numbers of new secrets begin here, beyond those that fill the stores.
pub(super) const FIRST_NEW: u64 = 100_000_000;

pub(super) struct Contender {
    pub(super) engine: Box<dyn Engine>,
    pub(super) next: AtomicU64,
}

/// What one engine did with one number of threads.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) per_second: Vec<f64>,
    latencies: Latencies,
    written: Written,
}

pub(crate) fn run(fixtures: &mut Fixtures) -> Result<Vec<Line>> {
    let settings = fixtures.settings.clone();
    let small = fixtures.small()?;
    let two_phase = settings.dir.join("redb-two-phase");
    std::fs::copy(small.redb(), &two_phase).context("copying redb's store")?;
    let cache = settings.cache_bytes;
    #[allow(unused_mut, reason = "SQLCipher may be left out")]
    let mut engines: Vec<Box<dyn Engine>> = vec![
        Box::new(Keystead::open(&small.keystead(), cache)?),
        Box::new(RawRedb::open(&small.redb(), cache, Durable::OnePhase)?),
        Box::new(RawRedb::open(&two_phase, cache, Durable::TwoPhase)?),
        Box::new(RawRedb::open(&small.redb_quick(), cache, Durable::QuickRepair)?),
    ];
    #[cfg(feature = "sqlcipher")]
    engines.push(Box::new(crate::engines::SqlCipher::at(&small.sqlcipher(), cache)));
    let contenders: Vec<Contender> = engines
        .into_iter()
        .map(|engine| Contender {
            engine,
            next: AtomicU64::new(FIRST_NEW),
        })
        .collect();

    let mut lines = Vec::new();
    for threads in [1, 8] {
        crate::progress(&format!(
            "durable puts into {} secrets, {threads} threads",
            small.count
        ));
        let turn = Duration::from_millis(if settings.quick { 300 } else { 1_500 });
        let mut tallies: Vec<Tally> = contenders.iter().map(|_| Tally::default()).collect();
        for round in 0..settings.rounds {
            for step in 0..contenders.len() {
                let index = (round + step) % contenders.len();
                take_turn(&contenders[index], threads, turn, &mut tallies[index])?;
            }
        }
        let names: Vec<&str> = contenders
            .iter()
            .map(|contender| contender.engine.name())
            .collect();
        lines.extend(judge(threads, &names, &mut tallies));
    }
    Ok(lines)
}

pub(super) fn take_turn(
    contender: &Contender,
    threads: usize,
    turn: Duration,
    tally: &mut Tally,
) -> Result<()> {
    let (start, before) = (Barrier::new(threads), Written::by_now()?);
    let began = now();
    let outcomes = std::thread::scope(|scope| {
        let work = || -> Result<Latencies> {
            let mut session = contender.engine.session()?;
            let mut latencies = Latencies::default();
            start.wait();
            let until = now() + turn;
            while now() < until {
                let row = row(Order::Scattered, contender.next.fetch_add(1, Relaxed));
                let began = now();
                session.put(&row)?;
                latencies.add(began.elapsed());
            }
            Ok(latencies)
        };
        let working: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        working
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect::<Result<Vec<_>>>()
    })?;
    let took = began.elapsed();
    let puts: usize = outcomes.iter().map(Latencies::len).sum();
    tally.per_second.push(puts as f64 / took.as_secs_f64());
    tally.written = tally.written.plus(Written::by_now()?.since(before));
    outcomes
        .iter()
        .for_each(|latencies| tally.latencies.merge(latencies));
    Ok(())
}

fn judge(threads: usize, names: &[&str], tallies: &mut [Tally]) -> Vec<Line> {
    let mut lines = Vec::new();
    let (ours, others) = tallies.split_first_mut().expect("Keystead is the first");
    for (name, theirs) in names.iter().skip(1).zip(others.iter_mut()) {
        let ratios: Vec<f64> = ours
            .per_second
            .iter()
            .zip(&theirs.per_second)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        let ratio = median(&ratios);
        let what = format!(
            "durable put, {threads} thread{}",
            if threads == 1 { "" } else { "s" }
        );
        let figures = serde_json::json!({
            "keystead": figures(ours), "beside": figures(theirs), "throughput_ratio": ratio,
        });
        let mut line = Line::new(CASE, what, shown(ours))
            .beside(name, shown(theirs), Some(ratio))
            .figures(figures);
        if threads == 1 && *name == SAME_DURABILITY {
            line = line.goal(
                format!("at most 1.5 × its time (is {:.2})", 1.0 / ratio),
                1.0 / ratio <= 1.5,
            );
        } else if threads > 1 && *name == SAME_DURABILITY {
            line = line.goal("at least 2 × its throughput", ratio >= 2.0);
        } else if threads > 1 && *name == "SQLCipher" {
            line = line.goal("at least 1.3 × its throughput", ratio >= 1.3);
        }
        lines.push(line);
    }
    if threads > 1 {
        let worst = ours.latencies.max();
        lines.push(
            Line::new(
                CASE,
                format!("worst durable put, {threads} threads"),
                time(micros(worst)),
            )
            .goal("at most 50 ms", millis(worst) <= 50.0),
        );
    }
    for (name, theirs) in names.iter().skip(1).zip(others.iter_mut()) {
        let (our_bytes, their_bytes) = (per_put(ours).1, per_put(theirs).1);
        lines.push(
            Line::new(
                CASE,
                format!(
                    "handed to write per durable put, {threads} thread{}",
                    if threads == 1 { "" } else { "s" }
                ),
                format!("{} B", grouped(our_bytes)),
            )
            .beside(
                name,
                format!("{} B", grouped(their_bytes)),
                Some(our_bytes / their_bytes),
            ),
        );
    }
    lines
}

/// Bytes that went to the disk, and bytes handed to `write`, for each put. The first is what the kernel counts, which may
/// count a whole folio of many pages for one dirty page; the table has the second.
pub(super) fn per_put(tally: &Tally) -> (f64, f64) {
    let puts = tally.latencies.len().max(1) as f64;
    (
        tally.written.to_disk as f64 / puts,
        tally.written.handed_over as f64 / puts,
    )
}

pub(super) fn shown(tally: &mut Tally) -> String {
    let latencies = &mut tally.latencies;
    let mut quantile = |share| time(micros(latencies.quantile(share)));
    let (p50, p99, max) = (quantile(0.5), quantile(0.99), quantile(1.0));
    format!(
        "{} a second; p50 {p50}, p99 {p99}, worst {max}",
        grouped(median(&tally.per_second))
    )
}

pub(super) fn figures(tally: &mut Tally) -> serde_json::Value {
    let (to_disk, handed_over) = per_put(tally);
    serde_json::json!({
        "per_second": tally.per_second,
        "latency": tally.latencies.json(),
        "bytes_to_disk_per_put": to_disk,
        "bytes_handed_to_write_per_put": handed_over,
    })
}
