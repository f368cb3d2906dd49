//! What a get of 1 KiB costs more through the C interface than in Rust, and through Python.

use crate::engines::{Engine, Keystead};
use crate::fixtures::Fixtures;
use crate::measure::{median, micros, now};
use crate::report::{Line, time};
use crate::workload::{Order, Row, belongs, rows};
use anyhow::{Context, Result, anyhow, ensure};
use keystead_ffi_calls::Refusal;
use keystead_ffi_calls::client::{Opening, Organization, Store};
use std::path::Path;
use std::process::Command;

const CASE: &str = "languages";
const C_MORE_MAX_US: f64 = 0.3;
const PYTHON_MORE_MAX_US: f64 = 3.0;
/// Few enough to be in the processor's caches: what the languages add is not to be lost in what memory takes.
const SECRETS: u64 = 100;
/// Short turns, and many: what disturbs one does not disturb the next one.
const TURNS: usize = 1_001;
/// The interpreter of an environment that has the package, built for release: `cargo xtask bench` makes one.
const PYTHON: &str = "KEYSTEAD_BENCH_PYTHON";

pub(crate) fn run(fixtures: &mut Fixtures) -> Result<Vec<Line>> {
    crate::progress("gets through C and through Python");
    let dir = fixtures.settings.dir.join(CASE);
    std::fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let rows = rows(Order::Scattered, 0..SECRETS);
    let rust = Keystead::create(&dir.join("rust"), fixtures.settings.cache_bytes)?;
    let store = Store::at(&dir.join("c"), Opening::Create).map_err(said)?;
    let c = store.create_organization("acme").map_err(said)?;
    for row in &rows {
        rust.organization.put(&row.path, &row.value)?;
        c.put(&row.path, &row.value).map_err(said)?;
    }
    let turns = if fixtures.settings.quick {
        TURNS / 10
    } else {
        TURNS
    };
    let (mut in_rust, mut in_c) = (Vec::new(), Vec::new());
    for turn in 0..turns {
        // Either goes first as often as the other.
        if turn.is_multiple_of(2) {
            in_rust.push(through_rust(&rust, &rows)?);
            in_c.push(through_c(&c, &rows)?);
        } else {
            in_c.push(through_c(&c, &rows)?);
            in_rust.push(through_rust(&rust, &rows)?);
        }
    }
    let more: Vec<f64> = in_c.iter().zip(&in_rust).map(|(c, rust)| c - rust).collect();
    let c_more = median(&more);
    let mut lines = vec![
        Line::new(CASE, "warm get of 1 KiB through C", time(median(&in_c)))
            .beside(rust.name(), time(median(&in_rust)), None)
            .goal(
                format!(
                    "at most {:.0} ns more than in Rust; it is {:.0} ns",
                    C_MORE_MAX_US * 1e3,
                    c_more * 1e3
                ),
                c_more <= C_MORE_MAX_US,
            )
            .figures(serde_json::json!({ "c_us": in_c, "rust_us": in_rust })),
    ];
    let what = "warm get of 1 KiB through Python";
    lines.push(match std::env::var_os(PYTHON) {
        Some(interpreter) => {
            let (python, beside) = through_python(Path::new(&interpreter))?;
            // Python's own process measures C beside it; what C costs more than Rust was measured above.
            let more = python - beside + c_more;
            Line::new(CASE, what, time(python))
                .beside("a loop in C", time(beside), None)
                .goal(
                    format!("at most {PYTHON_MORE_MAX_US:.0} µs more than in Rust; it is {more:.2} µs"),
                    more <= PYTHON_MORE_MAX_US,
                )
                .figures(serde_json::json!({ "python_us": python, "c_us": beside }))
        }
        None => Line::new(CASE, what, format!("left out: {PYTHON} is not set")),
    });
    Ok(lines)
}

fn said(refusal: Refusal) -> anyhow::Error {
    anyhow!("code {}: {}", refusal.code, refusal.message)
}

/// Reads every row; the mean time in microseconds.
fn through_rust(keystead: &Keystead, rows: &[Row]) -> Result<f64> {
    let mut right = 0;
    let began = now();
    for (number, row) in (0..).zip(rows) {
        let secret = keystead.organization.get(&row.path)?;
        right += u64::from(belongs(secret.value.as_slice(), number));
    }
    mean(began.elapsed(), right)
}

fn through_c(organization: &Organization, rows: &[Row]) -> Result<f64> {
    let mut right = 0;
    let began = now();
    for (number, row) in (0..).zip(rows) {
        right += organization
            .get(&row.path, |value| u64::from(belongs(value, number)))
            .map_err(said)?;
    }
    mean(began.elapsed(), right)
}

fn mean(took: std::time::Duration, right: u64) -> Result<f64> {
    ensure!(right == SECRETS, "{right} of {SECRETS} gets gave what was put");
    Ok(micros(took) / SECRETS as f64)
}

/// The times of a get through Python, and through C beside it, in microseconds.
fn through_python(interpreter: &Path) -> Result<(f64, f64)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ffi/bindings/python/bench/get.py");
    let output = Command::new(interpreter)
        .arg(&script)
        .arg("--json")
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("running {}", interpreter.display()))?;
    ensure!(output.status.success(), "{} failed", script.display());
    let figures: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("reading the figures of Python")?;
    let figure = |name: &str| figures[name].as_f64().with_context(|| format!("no {name}"));
    Ok((figure("python_us")?, figure("c_us")?))
}
