//! Reading the versions of a secret.

use crate::engines::{Durable, Engine, Keystead, RawRedb};
use crate::fixtures::Fixtures;
use crate::measure::{median, micros, now};
use crate::report::{Line, time};
use crate::workload::{Order, Picks, Row, path, row};
use anyhow::{Result, ensure};
use redb::TableDefinition;

const CASE: &str = "history";
const VERSIONS: u32 = 20;
const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("secrets");

pub(crate) fn run(fixtures: &mut Fixtures) -> Result<Vec<Line>> {
    let settings = fixtures.settings.clone();
    let secrets = if settings.quick { 100 } else { 1_000 };
    crate::progress(&format!(
        "histories of {secrets} secrets with {VERSIONS} versions each"
    ));
    let dir = settings.dir.join("history");
    std::fs::create_dir(&dir)?;
    let keystead = Keystead::create(&dir.join("keystead"), settings.cache_bytes)?;
    let redb = RawRedb::create(&dir.join("redb"), settings.cache_bytes, Durable::OnePhase)?;
    fill(&keystead, &redb, secrets)?;

    let mut times = [const { Vec::new() }; 4];
    for round in 0..settings.rounds {
        let picks: Vec<String> = Picks::new(round as u64, secrets)
            .take(20_000)
            .map(|number| path(Order::Scattered, number))
            .collect();
        times[0].push(histories(&keystead, &picks)?);
        times[1].push(raw_histories(&redb, &picks)?);
        times[2].push(old_versions(&keystead, &picks)?);
        times[3].push(raw_old_versions(&redb, &picks)?);
    }
    let line = |what: String, ours: &[f64], theirs: &[f64]| {
        let ratios: Vec<f64> = ours
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        Line::new(CASE, what, time(median(ours)))
            .beside("redb", time(median(theirs)), Some(median(&ratios)))
            .figures(serde_json::json!({ "keystead_us": ours, "beside_us": theirs }))
    };
    Ok(vec![
        line(
            format!("history of {VERSIONS} versions, without their values"),
            &times[0],
            &times[1],
        ),
        line(format!("get of one of {VERSIONS} versions"), &times[2], &times[3]),
    ])
}

fn fill(keystead: &Keystead, redb: &RawRedb, secrets: u64) -> Result<()> {
    let (mut ours, mut theirs) = (keystead.session()?, redb.session()?);
    for version in 1..=VERSIONS {
        let rows: Vec<Row> = (0..secrets).map(|number| row(Order::Scattered, number)).collect();
        ours.put_all(&rows)?;
        let rows: Vec<Row> = rows
            .into_iter()
            .map(|row| Row {
                path: versioned(&row.path, version),
                value: row.value,
            })
            .collect();
        theirs.put_all(&rows)?;
    }
    Ok(())
}

fn versioned(path: &str, version: u32) -> String {
    format!("{path}#{version:08x}")
}

/// Which of its versions is read: the same in both engines.
fn pick_version(index: usize) -> u32 {
    1 + (index as u32 * 7) % VERSIONS
}

fn histories(keystead: &Keystead, paths: &[String]) -> Result<f64> {
    let began = now();
    let mut versions = 0;
    for path in paths {
        versions += keystead
            .organization
            .history(path, None, VERSIONS as usize)?
            .len();
    }
    let took = began.elapsed();
    ensure!(
        versions == paths.len() * VERSIONS as usize,
        "a history is not whole"
    );
    Ok(micros(took) / paths.len() as f64)
}

fn raw_histories(redb: &RawRedb, paths: &[String]) -> Result<f64> {
    let began = now();
    let mut versions = 0;
    for path in paths {
        let table = redb.begin_read()?.open_table(TABLE)?;
        let (from, to) = (versioned(path, 0), versioned(path, u32::MAX));
        for row in table.range::<&[u8]>(from.as_bytes()..=to.as_bytes())? {
            let (_, value) = row?;
            versions += usize::from(!value.value().is_empty());
        }
    }
    let took = began.elapsed();
    ensure!(
        versions == paths.len() * VERSIONS as usize,
        "a history is not whole"
    );
    Ok(micros(took) / paths.len() as f64)
}

fn old_versions(keystead: &Keystead, paths: &[String]) -> Result<f64> {
    let began = now();
    let mut bytes = 0;
    for (index, path) in paths.iter().enumerate() {
        let version = keystead::Version::new(pick_version(index)).expect("versions begin at 1");
        bytes += keystead.organization.get_version(path, version)?.value.len();
    }
    let took = began.elapsed();
    ensure!(
        bytes == paths.len() * crate::workload::VALUE_BYTES,
        "a version is not whole"
    );
    Ok(micros(took) / paths.len() as f64)
}

fn raw_old_versions(redb: &RawRedb, paths: &[String]) -> Result<f64> {
    let mut session = redb.session()?;
    let began = now();
    let mut bytes = 0;
    for (index, path) in paths.iter().enumerate() {
        session.get(&versioned(path, pick_version(index)), &mut |value| {
            bytes += value.len()
        })?;
    }
    let took = began.elapsed();
    ensure!(
        bytes == paths.len() * crate::workload::VALUE_BYTES,
        "a version is not whole"
    );
    Ok(micros(took) / paths.len() as f64)
}
