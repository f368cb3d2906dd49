//! Reading values that are in memory already.

use crate::engines::{Durable, Engine, Keystead, RawRedb, Session};
use crate::fixtures::{Fixture, Fixtures};
use crate::measure::{median, micros, now};
use crate::report::{Line, grouped, time};
use crate::workload::{Order, Picks, belongs, path};
use anyhow::{Result, ensure};
use redb::TableDefinition;

const CASE: &str = "get";
const RATIO_MAX: f64 = 2.0;
const ONE_READ: &str = "redb, one read transaction kept";
/// A cache that holds every page of the larger store.
const LARGE_CACHE: usize = 3 << 30;

pub(crate) fn run(fixtures: &mut Fixtures) -> Result<Vec<Line>> {
    let settings = fixtures.settings.clone();
    let mut lines = measure(fixtures.small()?, settings.cache_bytes, settings.rounds, true)?;
    let large = fixtures.large()?;
    lines.extend(measure(large, settings.cache_bytes, settings.rounds, false)?);
    lines.extend(measure(large, LARGE_CACHE, settings.rounds, false)?);
    Ok(lines)
}

/// Each round takes as many gets from every engine, the same paths in the same order.
fn measure(fixture: &Fixture, cache_bytes: usize, rounds: usize, judged: bool) -> Result<Vec<Line>> {
    crate::progress(&format!(
        "gets from {} secrets, caches of {} MiB",
        fixture.count,
        cache_bytes >> 20
    ));
    let keystead = Keystead::open(&fixture.keystead(), cache_bytes)?;
    let redb = RawRedb::open(&fixture.redb(), cache_bytes, Durable::OnePhase)?;
    #[cfg(feature = "sqlcipher")]
    let sqlcipher = judged.then(|| crate::engines::SqlCipher::at(&fixture.sqlcipher(), cache_bytes));
    let mut sessions: Vec<(&'static str, Box<dyn Session + '_>)> = vec![
        ("Keystead", keystead.session()?),
        ("redb", redb.session()?),
        (ONE_READ, Box::new(OneRead::begin(&redb)?)),
    ];
    #[cfg(feature = "sqlcipher")]
    if let Some(sqlcipher) = &sqlcipher {
        sessions.push(("SQLCipher", sqlcipher.session()?));
    }

    for (_, session) in &mut sessions {
        read_all(session.as_mut(), 0..fixture.count)?;
    }
    let gets = fixture.count.min(100_000);
    let mut times = vec![Vec::new(); sessions.len()];
    for round in 0..rounds {
        let picks: Vec<u64> = Picks::new(round as u64, fixture.count)
            .take(gets as usize)
            .collect();
        for step in 0..sessions.len() {
            let index = (round + step) % sessions.len();
            times[index].push(read_all(sessions[index].1.as_mut(), picks.iter().copied())?);
        }
    }

    let what = format!(
        "warm get, {} secrets, 1 thread, cache {} MiB",
        grouped(fixture.count as f64),
        cache_bytes >> 20
    );
    let mut lines = Vec::new();
    for ((name, _), theirs) in sessions.iter().zip(&times).skip(1) {
        let ratios: Vec<f64> = times[0]
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        let ratio = median(&ratios);
        let line = Line::new(CASE, &what, time(median(&times[0])))
            .beside(name, time(median(theirs)), Some(ratio))
            .figures(serde_json::json!({ "keystead_us": times[0], "beside_us": theirs }));
        lines.push(match judged && *name == "redb" {
            true => line.goal(
                format!("at most {RATIO_MAX} × redb with its own read transaction"),
                ratio <= RATIO_MAX,
            ),
            false => line,
        });
    }
    Ok(lines)
}

/// Reads these secrets, and gives the mean time in microseconds. The paths are made beforehand.
pub(super) fn read_all(session: &mut dyn Session, numbers: impl Iterator<Item = u64>) -> Result<f64> {
    let wanted: Vec<(u64, String)> = numbers
        .map(|number| (number, path(Order::Scattered, number)))
        .collect();
    let mut right = 0;
    let began = now();
    for (number, path) in &wanted {
        session.get(path, &mut |value| right += u64::from(belongs(value, *number)))?;
    }
    let took = began.elapsed();
    ensure!(
        right == wanted.len() as u64,
        "{} gets gave another value than was put",
        wanted.len() as u64 - right
    );
    Ok(micros(took) / wanted.len() as f64)
}

/// redb at its best: one transaction for all reads. It would keep every page that is freed meanwhile.
struct OneRead {
    table: redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl OneRead {
    fn begin(redb: &RawRedb) -> Result<Self> {
        let definition: TableDefinition<'static, &'static [u8], &'static [u8]> =
            TableDefinition::new("secrets");
        Ok(Self {
            table: redb.begin_read()?.open_table(definition)?,
        })
    }
}

impl Session for OneRead {
    fn put(&mut self, _row: &crate::workload::Row) -> Result<()> {
        anyhow::bail!("a read transaction writes nothing")
    }

    fn put_all(&mut self, _rows: &[crate::workload::Row]) -> Result<()> {
        anyhow::bail!("a read transaction writes nothing")
    }

    fn get(&mut self, path: &str, see: &mut dyn FnMut(&[u8])) -> Result<()> {
        use anyhow::Context;
        let value = self
            .table
            .get(path.as_bytes())?
            .context("a secret that was written is not there")?
            .value()
            .to_vec();
        see(&value);
        Ok(())
    }
}
