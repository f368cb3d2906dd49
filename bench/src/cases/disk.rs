//! What a secret of 1 KiB takes on disk.

use crate::fixtures::{Fixture, Fixtures};
use crate::report::{Line, grouped};
use anyhow::Result;

const CASE: &str = "disk";
const RATIO_MAX: f64 = 1.25;

pub(crate) fn run(fixtures: &mut Fixtures) -> Result<Vec<Line>> {
    let mut lines = lines(fixtures.small()?, "paths scattered", true);
    lines.extend(self::lines(fixtures.large()?, "paths scattered", true));
    lines.extend(self::lines(fixtures.ascending()?, "paths ascending", false));
    Ok(lines)
}

/// The goal is judged against redb's plain commits, on what the file system allocated; file lengths are shown beside.
fn lines(fixture: &Fixture, order: &str, judged: bool) -> Vec<Line> {
    let each = |bytes: u64| bytes as f64 / fixture.count as f64;
    let figure = |allocated: u64, length: u64| {
        format!(
            "{} B (length {} B)",
            grouped(each(allocated)),
            grouped(each(length))
        )
    };
    let ours = fixture.on_disk["Keystead"];
    let what = format!("on disk per secret, {}, {order}", grouped(fixture.count as f64));
    let others = fixture.on_disk.iter().filter(|(name, _)| **name != "Keystead");
    others
        .map(|(name, theirs)| {
            let ratio = ours.allocated as f64 / theirs.allocated as f64;
            let line = Line::new(CASE, &what, figure(ours.allocated, ours.length))
                .beside(name, figure(theirs.allocated, theirs.length), Some(ratio))
                .figures(serde_json::json!({
                    "keystead_allocated": ours.allocated, "keystead_length": ours.length,
                    "beside_allocated": theirs.allocated, "beside_length": theirs.length,
                }));
            match judged && name.starts_with("redb, one") {
                true => line.goal(format!("at most {RATIO_MAX} × redb"), ratio <= RATIO_MAX),
                false => line,
            }
        })
        .collect()
}
