//! An organization brings its own key: the hand-over, the re-wrap, what writers feel of it, what memory it takes, and
//! opening after a kill in the middle of it.

use crate::child::{Rewrapped, finish, kill_at, opened};
use crate::engines::{Keystead, ORGANIZATION, OWN};
use crate::fixtures::{Fixture, Fixtures, Settings};
use crate::kms::{BenchKms, Calls};
use crate::measure::{Latencies, OnDisk, median, micros, millis, now};
use crate::report::{Line, grouped, time};
use crate::workload::{Order, path, row};
use anyhow::{Context, Result, ensure};
use keystead::{Organization, RewrapJob};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const CASE: &str = "rewrap";
const HAND_OVER_MAX_MS: f64 = 100.0;
const RATE_MIN: f64 = 300_000.0;
const FOREGROUND_P99_MAX_MS: f64 = 20.0;
const PEAK_MAX_MIB: f64 = 256.0;
const OPEN_MAX_MS: f64 = 100.0;
/// What each KMS call takes while keys are handed over: so that it shows how the engine's own time is told from it.
const KMS_LATENCY: Duration = Duration::from_millis(2);
/// A foreground writer puts as often as this.
const PACE: Duration = Duration::from_millis(2);
/// Numbers of new secrets begin here.
const FIRST_NEW: u64 = 300_000_000;

pub(crate) fn run(fixtures: &mut Fixtures) -> Result<Vec<Line>> {
    let settings = fixtures.settings.clone();
    let mut lines = measure(fixtures.small()?, &settings, false)?;
    let large = fixtures.large()?;
    lines.extend(measure(large, &settings, true)?);
    lines.extend(in_processes_of_their_own(large, &settings)?);
    Ok(lines)
}

/// One re-wrap: of how many data keys, how fast, what a writer felt meanwhile, what the KMS was asked meanwhile.
struct Run {
    rate: f64,
    calls: Calls,
}

fn measure(fixture: &Fixture, settings: &Settings, judged: bool) -> Result<Vec<Line>> {
    crate::progress(&format!("hand-over and re-wrap of {} secrets", fixture.count));
    let before = OnDisk::of(&[fixture.keystead()])?;
    let kms = BenchKms::default();
    // No renewal of a cached key falls into a re-wrap: it is the KMS calls of the re-wrap itself that are counted.
    let lifetime = Duration::from_secs(3600);
    let store = Keystead::options(&kms)
        .cache_bytes(settings.cache_bytes)
        .key_lifetime(lifetime)
        .open(fixture.keystead())?;
    let acme = store.organization(ORGANIZATION)?;
    acme.get(&path(Order::Scattered, 0))?;
    let mut numbers = FIRST_NEW..;

    let rest = Duration::from_secs(if settings.quick { 1 } else { 4 });
    let mut idle = with_writer(&acme, &mut numbers, || {
        std::thread::sleep(rest);
        Ok(())
    })?
    .1;

    kms.set_latency(KMS_LATENCY);
    let (asked, began) = (kms.calls(), now());
    let job = acme.keys().add(OWN, OWN, serde_json::json!({}))?;
    let took = began.elapsed();
    kms.set_latency(Duration::ZERO);
    let hand_over = kms.calls().since(asked);
    let own_time = took.saturating_sub(hand_over.busy);

    let (mut quiet, mut busy, mut felt) = (Vec::new(), Vec::new(), Latencies::default());
    let (first, latencies) = with_writer(&acme, &mut numbers, || wait(&job, &kms))?;
    busy.push(first);
    felt.merge(&latencies);
    for _ in 0..2 {
        quiet.push(wait(&acme.keys().rotate(OWN)?, &kms)?);
        let job = acme.keys().rotate(OWN)?;
        let (run, latencies) = with_writer(&acme, &mut numbers, || wait(&job, &kms))?;
        busy.push(run);
        felt.merge(&latencies);
    }
    store.close()?;
    drop((acme, store));
    let after = OnDisk::of(&[fixture.keystead()])?;

    let size = grouped(fixture.count as f64);
    let rates = |runs: &[Run]| runs.iter().map(|run| run.rate).collect::<Vec<_>>();
    let (quiet_rates, busy_rates) = (rates(&quiet), rates(&busy));
    let calls: u64 = quiet
        .iter()
        .chain(&busy)
        .map(|run| run.calls.wraps + run.calls.unwraps)
        .sum();
    // Probe: a wrap, an unwrap, an unwrap under another context. Then the new epoch's wrap, and an unwrap and a wrap of the
    // one source.
    let expected_calls = hand_over.wraps == 3 && hand_over.unwraps == 3;
    let mut lines = Vec::new();
    let mut push = |line: Line, goal: String, reached: bool| {
        lines.push(if judged { line.goal(goal, reached) } else { line });
    };
    let asked = format!("{} wraps, {} unwraps", hand_over.wraps, hand_over.unwraps);
    push(
        Line::new(
            CASE,
            format!("hand-over of {size} secrets, beside the KMS's answers"),
            time(micros(own_time)),
        )
        .beside(
            "the KMS's answers",
            format!("{} in {asked}", time(micros(hand_over.busy))),
            None,
        )
        .figures(serde_json::json!({
            "own_ms": millis(own_time), "kms_ms": millis(hand_over.busy),
            "wraps": hand_over.wraps, "unwraps": hand_over.unwraps,
        })),
        format!("at most {HAND_OVER_MAX_MS} ms; 3 wraps, 3 unwraps"),
        millis(own_time) <= HAND_OVER_MAX_MS && expected_calls,
    );
    push(
        Line::new(
            CASE,
            format!("re-wrap of {size} data keys"),
            format!("{} a second, {calls} KMS calls", grouped(median(&quiet_rates))),
        )
        .beside(
            "with a writer meanwhile",
            format!("{} a second", grouped(median(&busy_rates))),
            None,
        )
        .figures(serde_json::json!({
            "per_second": quiet_rates, "per_second_with_writer": busy_rates, "kms_calls": calls,
        })),
        format!("at least {} a second, no KMS call", grouped(RATE_MIN)),
        median(&quiet_rates) >= RATE_MIN && calls == 0,
    );
    push(
        Line::new(CASE, format!("puts during a re-wrap of {size}"), shown(&mut felt))
            .beside("the same without a re-wrap", shown(&mut idle), None)
            .figures(serde_json::json!({ "during": felt.json(), "without": idle.json() })),
        format!("p99 at most {FOREGROUND_P99_MAX_MS} ms"),
        millis(felt.quantile(0.99)) <= FOREGROUND_P99_MAX_MS,
    );
    lines.push(
        Line::new(
            CASE,
            format!("on disk after 5 re-wraps of {size}"),
            format!("{} MiB", after.allocated >> 20),
        )
        .beside(
            "before",
            format!("{} MiB", before.allocated >> 20),
            Some(after.allocated as f64 / before.allocated as f64),
        )
        .figures(serde_json::json!({ "before": before.allocated, "after": after.allocated })),
    );
    Ok(lines)
}

/// From now until the job is done.
fn wait(job: &RewrapJob, kms: &BenchKms) -> Result<Run> {
    let (asked, began) = (kms.calls(), now());
    let status = job.wait()?;
    ensure!(
        status.remaining == 0 && status.failed == 0,
        "the re-wrap left data keys behind: {status:?}"
    );
    Ok(Run {
        rate: status.done as f64 / began.elapsed().as_secs_f64(),
        calls: kms.calls().since(asked),
    })
}

/// What one writer's puts take while `meanwhile` goes on: one put at each tick of the pace, or as soon after as it can.
fn with_writer<T>(
    acme: &Organization,
    numbers: &mut impl Iterator<Item = u64>,
    meanwhile: impl FnOnce() -> Result<T>,
) -> Result<(T, Latencies)> {
    let stop = AtomicBool::new(false);
    // As many as a writer at this pace needs for minutes.
    let rows: Vec<u64> = numbers.take(200_000).collect();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<Latencies> {
            let mut latencies = Latencies::default();
            let mut tick = now();
            for number in rows {
                if stop.load(Relaxed) {
                    break;
                }
                let row = row(Order::Scattered, number);
                let began = now();
                acme.put(&row.path, &row.value)?;
                latencies.add(began.elapsed());
                tick = (tick + PACE).max(now());
                std::thread::sleep(tick.saturating_duration_since(now()));
            }
            Ok(latencies)
        });
        let outcome = meanwhile();
        stop.store(true, Relaxed);
        let latencies = writer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((outcome?, latencies))
    })
}

/// Peak memory, and opening after a kill in the middle.
fn in_processes_of_their_own(fixture: &Fixture, settings: &Settings) -> Result<Vec<Line>> {
    crate::progress("re-wraps in processes of their own: peak memory, and kills in the middle");
    let path_text = fixture.keystead();
    let store = path_text.to_str().context("the directory's name is not text")?;
    let size = grouped(fixture.count as f64);
    let rewrapped: Rewrapped = finish(&["rewrap", "--store", store])?;
    let peak = rewrapped.peak_kib as f64 / 1024.0;

    let secret = path(Order::Scattered, 7);
    let mut worst = Vec::new();
    for turn in 0..if settings.quick { 2 } else { 3 } {
        kill_at(&["rewrap", "--store", store], fixture.count / 4)?;
        // Opening resumes the job: the process ends before it gets far.
        for _ in 0..2 {
            worst.push(opened(&fixture.keystead(), &secret, &["--abandon"])?);
        }
        if turn == 0 {
            crate::progress("a re-wrap was killed");
        }
        let done = finish_job(&fixture.keystead())?;
        ensure!(done, "the killed re-wrap did not come to its end");
    }
    let open_us = worst.iter().map(|opened| opened.open_us).fold(0.0, f64::max);
    Ok(vec![
        Line::new(
            CASE,
            format!("peak memory, re-wrap of {size}, cache 64 MiB"),
            format!("{peak:.0} MiB"),
        )
        .goal(format!("at most {PEAK_MAX_MIB} MiB"), peak <= PEAK_MAX_MIB)
        .figures(serde_json::to_value(rewrapped)?),
        Line::new(
            CASE,
            format!(
                "open after kill -9 in a re-wrap of {size} (worst of {})",
                worst.len()
            ),
            time(open_us),
        )
        .goal(format!("at most {OPEN_MAX_MS} ms"), open_us / 1e3 <= OPEN_MAX_MS)
        .figures(serde_json::json!({ "opened": worst })),
    ])
}

fn finish_job(path: &std::path::Path) -> Result<bool> {
    let store = Keystead::options(&BenchKms::default()).open(path)?;
    let acme = store.organization(ORGANIZATION)?;
    let done = match acme.rewrap_job() {
        Ok(job) => job.wait()?.remaining == 0,
        Err(keystead::Error::NoJob { .. }) => true,
        Err(error) => return Err(error.into()),
    };
    store.close()?;
    Ok(done)
}

fn shown(latencies: &mut Latencies) -> String {
    let mut quantile = |share| time(micros(latencies.quantile(share)));
    format!(
        "p50 {}, p99 {}, worst {}",
        quantile(0.5),
        quantile(0.99),
        quantile(1.0)
    )
}
