//! The outcome: a table for people, JSON for programs.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    /// The case that measured it, as `--only` takes it.
    pub(crate) case: &'static str,
    pub(crate) what: String,
    pub(crate) keystead: String,
    /// What stands beside it, and its figure.
    pub(crate) beside: String,
    /// Keystead's figure divided by the other one's.
    pub(crate) ratio: Option<f64>,
    /// In words; empty where there is none.
    pub(crate) goal: String,
    pub(crate) reached: Option<bool>,
    /// Every figure behind the line.
    pub(crate) figures: serde_json::Value,
}

impl Line {
    pub(crate) fn new(case: &'static str, what: impl Into<String>, keystead: impl Into<String>) -> Self {
        Self {
            case,
            what: what.into(),
            keystead: keystead.into(),
            beside: String::new(),
            ratio: None,
            goal: String::new(),
            reached: None,
            figures: serde_json::Value::Null,
        }
    }

    pub(crate) fn beside(mut self, name: &str, figure: impl Into<String>, ratio: Option<f64>) -> Self {
        self.beside = format!("{name}: {}", figure.into());
        self.ratio = ratio;
        self
    }

    pub(crate) fn goal(mut self, goal: impl Into<String>, reached: bool) -> Self {
        self.goal = goal.into();
        self.reached = Some(reached);
        self
    }

    pub(crate) fn figures(mut self, figures: serde_json::Value) -> Self {
        self.figures = figures;
        self
    }
}

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Where and how it ran.
    pub(crate) run: serde_json::Value,
    /// What the reader of the figures must know.
    pub(crate) notes: Vec<String>,
    pub(crate) lines: Vec<Line>,
}

impl Report {
    /// Goals that were missed.
    pub(crate) fn missed(&self) -> usize {
        self.lines
            .iter()
            .filter(|line| line.reached == Some(false))
            .count()
    }

    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table
            .load_preset(presets::ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["what", "Keystead", "beside it", "ratio", "goal", "reached"]);
        for line in &self.lines {
            let ratio = line.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let reached = match line.reached {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            table.add_row([
                line.what.as_str(),
                line.keystead.as_str(),
                line.beside.as_str(),
                ratio.as_str(),
                line.goal.as_str(),
                reached,
            ]);
        }
        let goals = self.lines.iter().filter(|line| line.reached.is_some()).count();
        let notes: String = self.notes.iter().map(|note| format!("\n- {note}")).collect();
        format!(
            "{table}\n\n{} of {goals} goals reached.\n{notes}",
            goals - self.missed()
        )
    }
}

/// `1,234,567`.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digit.is_ascii_digit() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds below one millisecond, milliseconds from there on.
pub(crate) fn time(micros: f64) -> String {
    match micros {
        us if us < 10.0 => format!("{us:.2} µs"),
        us if us < 1_000.0 => format!("{us:.0} µs"),
        us if us < 100_000.0 => format!("{:.2} ms", us / 1e3),
        us => format!("{} ms", grouped(us / 1e3)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(7.4), "7");
        assert_eq!(grouped(1_000.0), "1,000");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
    }

    #[test]
    fn times_have_the_unit_that_is_read_best() {
        assert_eq!(time(1.234), "1.23 µs");
        assert_eq!(time(410.0), "410 µs");
        assert_eq!(time(20_500.0), "20.50 ms");
        assert_eq!(time(1_505_000.0), "1,505 ms");
    }

    #[test]
    fn a_missed_goal_is_counted_and_shown() {
        let lines = vec![
            Line::new("get", "a", "1").goal("at most 2", true),
            Line::new("get", "b", "3").goal("at most 2", false),
            Line::new("get", "c", "4"),
        ];
        let report = Report {
            run: serde_json::Value::Null,
            notes: Vec::new(),
            lines,
        };
        assert_eq!(report.missed(), 1);
        assert!(report.table().contains("1 of 2 goals reached."));
        assert!(
            report
                .table()
                .lines()
                .any(|line| line.contains("| b") && line.contains("NO"))
        );
    }
}
