//! Counts passed, failed and skipped tests in what the test runners print.

use std::fmt;
use std::iter::Sum;

/// Which test runner prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    /// The one that cargo brings along: a closing line for each test program.
    Libtest,
    /// One closing line. What it shows of tests that failed has closing lines of libtest in it, which count nothing.
    Nextest,
}

impl Runner {
    /// What one line says, if it is a closing line of this runner.
    pub(crate) fn tally_of(self, line: &str) -> Option<Tally> {
        match self {
            Self::Libtest => Tally::of_libtest(line),
            Self::Nextest => Tally::of_nextest(line),
        }
    }
}

/// How many tests passed, failed, were skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
    fn of_libtest(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        Some(counts.split(';').map(str::trim).filter_map(Self::of_count).sum())
    }

    /// `Summary [   2.3s] 120 tests run: 118 passed (1 slow), 1 failed, 1 timed out, 2 skipped`
    fn of_nextest(line: &str) -> Option<Self> {
        let rest = line.trim_start().strip_prefix("Summary [")?;
        let (run, counts) = rest.split_once(" run: ")?;
        let is_summary = run.ends_with(" tests") || run.ends_with(" test");
        is_summary.then(|| {
            without_parentheses(counts)
                .split(',')
                .map(str::trim)
                .filter_map(Self::of_count)
                .sum()
        })
    }

    fn of_count(text: &str) -> Option<Self> {
        let (number, what) = text.split_once(' ')?;
        let number = number.parse().ok()?;
        let none = Self::default();
        match what.trim() {
            "passed" => Some(Self {
                passed: number,
                ..none
            }),
            "failed" | "timed out" | "exec failed" => Some(Self {
                failed: number,
                ..none
            }),
            "skipped" | "ignored" => Some(Self {
                skipped: number,
                ..none
            }),
            _ => None,
        }
    }

    /// The same with `count` of those that passed counted as skipped: they ended at once, since what they need is left out.
    pub(crate) fn with_left_out(self, count: u64) -> Self {
        let count = count.min(self.passed);
        Self {
            passed: self.passed - count,
            skipped: self.skipped + count,
            ..self
        }
    }
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0_u32;
    let mut kept = String::new();
    for letter in text.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => kept.push(letter),
            _ => {}
        }
    }
    kept
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, next| Self {
            passed: sum.passed + next.passed,
            failed: sum.failed + next.failed,
            skipped: sum.skipped + next.skipped,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u64, failed: u64, skipped: u64) -> Option<Tally> {
        Some(Tally {
            passed,
            failed,
            skipped,
        })
    }

    #[test]
    fn closing_lines_of_libtest_are_counted() {
        let ok =
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(Runner::Libtest.tally_of(ok), tally(12, 0, 1));
        let failed = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.00s";
        assert_eq!(Runner::Libtest.tally_of(failed), tally(3, 2, 0));
    }

    #[test]
    fn closing_lines_of_nextest_are_counted() {
        let ok = "     Summary [   2.345s] 345 tests run: 345 passed, 2 skipped";
        assert_eq!(Runner::Nextest.tally_of(ok), tally(345, 0, 2));
        let bad = "     Summary [  61.0s] 9/12 tests run: 5 passed (1 slow, 1 flaky), 2 failed, 1 exec failed, 1 timed out, 0 skipped";
        assert_eq!(Runner::Nextest.tally_of(bad), tally(5, 4, 0));
        assert_eq!(
            Runner::Nextest.tally_of("     Summary [   0.1s] 1 test run: 1 passed, 0 skipped"),
            tally(1, 0, 0)
        );
    }

    #[test]
    fn what_nextest_shows_of_a_test_that_failed_is_not_counted_again() {
        let shown = "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 4 filtered out; finished in 16.98s";
        assert_eq!(Runner::Nextest.tally_of(shown), None);
        assert_eq!(Runner::Nextest.tally_of(shown.trim()), None);
    }

    #[test]
    fn other_lines_are_not_counted() {
        for line in [
            "running 12 tests",
            "test a ... ok",
            "        PASS [   0.1s] crate 3 passed",
            "Summary",
            "",
        ] {
            assert_eq!(Runner::Nextest.tally_of(line), None, "{line}");
        }
    }

    #[test]
    fn what_is_left_out_is_skipped_and_not_passed() {
        let all = Tally {
            passed: 5,
            failed: 1,
            skipped: 2,
        };
        assert_eq!(
            all.with_left_out(3),
            Tally {
                passed: 2,
                failed: 1,
                skipped: 5
            }
        );
        assert_eq!(all.with_left_out(9).passed, 0);
    }
}
