//! What it costs that damage is noticed: the same engine beside itself without the tags of blocks, and without the marks of the
//! journal's end. Only in the build that can leave them out (`cargo xtask bench --checks`).

use super::get::read_all;
use super::put::{Contender, FIRST_NEW, Tally, figures, per_put, shown, take_turn};
use crate::child::{kill_at, opened};
use crate::engines::{Engine, Keystead, Session};
use crate::fixtures::{BULK, Fixtures};
use crate::measure::{OnDisk, median};
use crate::report::{Line, grouped, time};
use crate::workload::{self, Order, Picks, path};
use anyhow::{Context, Result};
use keystead::{Part, leave_out};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

const CASE: &str = "checks";
/// What each contender leaves out, and what it is called. The first one is the engine that ships.
const CONTENDERS: [(Option<Part>, &str); 3] = [
    (None, "Keystead"),
    (Some(Part::BlockTags), "without block tags"),
    (Some(Part::JournalMarks), "without marks"),
];
/// `docs/format.md`: segments begin behind header and journal; the first of a segment's blocks holds the tags of the others.
const SEGMENTS_OFFSET: u64 = (64 << 10) + (4 << 20);
const BLOCK_BYTES: u64 = 4096;
const SEGMENT_BLOCKS: u64 = 256;
/// After how many puts a writer is killed.
const KILLED_AT: [u64; 3] = [90, 200, 255];

pub(crate) fn run(fixtures: &mut Fixtures) -> Result<Vec<Line>> {
    let settings = fixtures.settings.clone();
    let dir = settings.dir.join("checks");
    std::fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let mut stores = Vec::new();
    for (left_out, name) in CONTENDERS {
        crate::progress(&format!("filling a store of {} secrets, {name}", settings.small));
        let store = dir.join(name);
        leave_out(left_out);
        fill(&store, settings.small, settings.cache_bytes)?;
        stores.push(store);
    }
    let mut lines = gets(&stores, &settings)?;
    lines.extend(puts(&stores, &settings)?);
    leave_out(None);
    lines.push(file(&stores[0])?);
    let large = dir.join("large");
    crate::progress(&format!("filling a store of {} secrets", settings.large));
    fill(&large, settings.large, settings.cache_bytes)?;
    lines.extend(open(&large, settings.large)?);
    Ok(lines)
}

fn fill(store: &Path, count: u64, cache_bytes: usize) -> Result<()> {
    let engine = Keystead::create(store, cache_bytes)?;
    let mut session = engine.session()?;
    let mut from = 0;
    while from < count {
        let to = count.min(from + BULK as u64);
        session.put_all(&workload::rows(Order::Scattered, from..to))?;
        from = to;
    }
    Ok(())
}

fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter()
        .zip(theirs)
        .map(|(ours, theirs)| ours / theirs)
        .collect()
}

/// Gets of what is in memory, and gets of which every page comes from the file.
fn gets(stores: &[std::path::PathBuf], settings: &crate::fixtures::Settings) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (cache_bytes, what) in [(settings.cache_bytes, "warm get"), (1 << 20, "get, cache 1 MiB")] {
        crate::progress(what);
        let mut engines = Vec::new();
        for (store, (left_out, _)) in stores.iter().zip(CONTENDERS).take(2) {
            leave_out(left_out);
            let engine = Keystead::open(store, cache_bytes)?;
            read_all(engine.session()?.as_mut(), 0..settings.small)?;
            engines.push(engine);
        }
        let mut times = vec![Vec::new(); engines.len()];
        for round in 0..2 * settings.rounds {
            let picks: Vec<u64> = Picks::new(round as u64, settings.small).take(50_000).collect();
            for step in 0..engines.len() {
                let index = (round + step) % engines.len();
                leave_out(CONTENDERS[index].0);
                let mut session: Box<dyn Session + '_> = engines[index].session()?;
                times[index].push(read_all(session.as_mut(), picks.iter().copied())?);
            }
        }
        let ratio = median(&ratios(&times[0], &times[1]));
        let line = Line::new(CASE, what, time(median(&times[0])))
            .beside(CONTENDERS[1].1, time(median(&times[1])), Some(ratio))
            .figures(serde_json::json!({ "keystead_us": times[0], "beside_us": times[1] }));
        lines.push(match what {
            "warm get" => line.goal("unchanged: within 3 %", (0.97..=1.03).contains(&ratio)),
            _ => line,
        });
        for (engine, (left_out, _)) in engines.into_iter().zip(CONTENDERS) {
            leave_out(left_out);
            drop(engine);
        }
    }
    Ok(lines)
}

fn puts(stores: &[std::path::PathBuf], settings: &crate::fixtures::Settings) -> Result<Vec<Line>> {
    let mut contenders = Vec::new();
    for (store, (left_out, _)) in stores.iter().zip(CONTENDERS) {
        leave_out(left_out);
        contenders.push(Contender {
            engine: Box::new(Keystead::open(store, settings.cache_bytes)?),
            next: AtomicU64::new(FIRST_NEW),
        });
    }
    let mut lines = Vec::new();
    for threads in [1, 8] {
        crate::progress(&format!("durable puts, {threads} threads"));
        let turn = Duration::from_millis(if settings.quick { 200 } else { 700 });
        let mut tallies: Vec<Tally> = contenders.iter().map(|_| Tally::default()).collect();
        for round in 0..3 * settings.rounds {
            for step in 0..contenders.len() {
                let index = (round + step) % contenders.len();
                leave_out(CONTENDERS[index].0);
                take_turn(&contenders[index], threads, turn, &mut tallies[index])?;
            }
        }
        let (ours, others) = tallies.split_first_mut().context("Keystead is the first")?;
        for (theirs, (left_out, name)) in others.iter_mut().zip(&CONTENDERS[1..]) {
            // Time of a put: the other way round than rates.
            let ratio = median(&ratios(&theirs.per_second, &ours.per_second));
            let what = format!("time of a durable put, {threads} threads");
            let figures = serde_json::json!({
                "keystead": figures(ours), "beside": figures(theirs), "time_ratio": ratio,
            });
            let line = Line::new(CASE, what, shown(ours))
                .beside(name, shown(theirs), Some(ratio))
                .figures(figures);
            lines.push(match left_out {
                Some(Part::BlockTags) => line.goal("at most 1.15 ×", ratio <= 1.15),
                _ => line,
            });
            let (our_bytes, their_bytes) = (per_put(ours).1, per_put(theirs).1);
            let bytes = |bytes| format!("{} B", grouped(bytes));
            lines.push(
                Line::new(
                    CASE,
                    format!("handed to write per put, {threads} threads"),
                    bytes(our_bytes),
                )
                .beside(name, bytes(their_bytes), Some(our_bytes / their_bytes)),
            );
        }
    }
    for (contender, (left_out, _)) in contenders.into_iter().zip(CONTENDERS) {
        leave_out(left_out);
        drop(contender);
    }
    Ok(lines)
}

/// The file beside one that had no blocks of tags.
fn file(store: &Path) -> Result<Line> {
    let length = OnDisk::of(&[store])?.length;
    let segments = length
        .saturating_sub(SEGMENTS_OFFSET)
        .div_ceil(SEGMENT_BLOCKS * BLOCK_BYTES);
    let without = length - segments * BLOCK_BYTES;
    let ratio = length as f64 / without as f64;
    let bytes = |bytes: u64| format!("{} B", grouped(bytes as f64));
    Ok(Line::new(CASE, "file", bytes(length))
        .beside("without blocks of tags", bytes(without), Some(ratio))
        .goal("at most 1.02 ×", ratio <= 1.02))
}

fn open(store: &Path, count: u64) -> Result<Vec<Line>> {
    crate::progress("opening it in fresh processes");
    let secret = path(Order::Scattered, 7);
    let mut closed = Vec::new();
    for _ in 0..5 {
        closed.push(opened(store, &secret, &[])?.open_us);
    }
    let mut killed = Vec::new();
    for (turn, until) in KILLED_AT.into_iter().enumerate() {
        let from = (FIRST_NEW + (1 + turn as u64) * 10_000_000).to_string();
        let name = store.to_str().context("the directory's name is not text")?;
        kill_at(&["put", "--store", name, "--from", &from], until)?;
        killed.push(opened(store, &secret, &[])?.open_us);
    }
    let size = grouped(count as f64);
    let line = |what: &str, times: &[f64], most_ms: f64| {
        let worst = times.iter().copied().fold(0.0, f64::max);
        Line::new(CASE, format!("open {what}, {size} secrets, worst"), time(worst))
            .goal(format!("at most {most_ms} ms"), worst / 1e3 <= most_ms)
            .figures(serde_json::json!({ "us": times }))
    };
    Ok(vec![
        line("after close", &closed, 50.0),
        line("after kill -9", &killed, 100.0),
    ])
}
