//! What is measured, and what it is judged by.

mod bulk;
#[cfg(keystead_measured)]
mod checks;
mod disk;
mod get;
mod history;
mod languages;
mod open;
mod organizations;
mod put;
mod rewrap;
mod verify;

use crate::fixtures::Fixtures;
use crate::report::Line;
use anyhow::Result;

type Run = fn(&mut Fixtures) -> Result<Vec<Line>>;

/// Every case, by the name that `--only` takes, in the order in which they run: those that change the filled stores come
/// after those that look at them.
pub(crate) const ALL: &[(&str, Run)] = &[
    #[cfg(keystead_measured)]
    ("checks", checks::run),
    ("bulk", bulk::run),
    ("disk", disk::run),
    ("get", get::run),
    ("history", history::run),
    ("languages", languages::run),
    ("put", put::run),
    ("open", open::run),
    ("verify", verify::run),
    ("rewrap", rewrap::run),
    ("organizations", organizations::run),
];

/// The names of all cases.
pub(crate) fn names() -> Vec<&'static str> {
    ALL.iter().map(|(name, _)| *name).collect()
}
