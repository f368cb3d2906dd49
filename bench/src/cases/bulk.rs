//! Many values in one durable commit.

use crate::fixtures::{BULK, Fixture, Fixtures};
use crate::measure::median;
use crate::report::{Line, grouped};
use anyhow::Result;

const CASE: &str = "bulk";

pub(crate) fn run(fixtures: &mut Fixtures) -> Result<Vec<Line>> {
    let mut lines = lines(fixtures.small()?);
    lines.extend(self::lines(fixtures.large()?));
    Ok(lines)
}

fn lines(fixture: &Fixture) -> Vec<Line> {
    let ours = &fixture.bulk["Keystead"];
    let what = format!(
        "bulk put, {} a commit, into {}",
        grouped(BULK as f64),
        grouped(fixture.count as f64)
    );
    let others = fixture.bulk.iter().filter(|(name, _)| **name != "Keystead");
    others
        .map(|(name, theirs)| {
            let ratios: Vec<f64> = ours
                .iter()
                .zip(theirs)
                .map(|(ours, theirs)| ours / theirs)
                .collect();
            Line::new(CASE, &what, format!("{} a second", grouped(median(ours))))
                .beside(name, grouped(median(theirs)), Some(median(&ratios)))
                .figures(serde_json::json!({ "keystead_per_s": ours, "beside_per_s": theirs }))
        })
        .collect()
}
