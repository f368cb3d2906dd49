//! What the spectator sees: numbered steps, claims that hold or do not, and a summary.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Prints the demonstration as it goes, and remembers which claims held.
pub(crate) struct Show {
    began: Instant,
    steps: usize,
    claims: Vec<Claim>,
}

struct Claim {
    text: String,
    held: bool,
}

impl Show {
    pub(crate) fn begin() -> Self {
        Self {
            began: Instant::now(),
            steps: 0,
            claims: Vec::new(),
        }
    }

    /// Begins the next step.
    pub(crate) fn step(&mut self, title: &str) {
        self.steps += 1;
        println!("\n{}. {title}\n", self.steps);
    }

    /// Says something.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        for line in text.as_ref().lines() {
            println!("   {line}");
        }
    }

    /// Says what was to be shown, and whether it showed. The demonstration goes on either way, and fails at its end.
    pub(crate) fn claim(&mut self, held: bool, text: impl Into<String>) {
        let text = text.into();
        println!("   {} {text}", if held { "[ok]  " } else { "[FAIL]" });
        self.claims.push(Claim { text, held });
    }

    /// A bar for data keys that move.
    pub(crate) fn bar(&self, total: u64) -> Bar {
        Bar::new(total)
    }

    /// Says what was shown; true if all of it held.
    pub(crate) fn end(self) -> bool {
        println!("\nWhat was shown, in {}:\n", human(self.began.elapsed()));
        for claim in &self.claims {
            println!(
                "   {} {}",
                if claim.held { "[ok]  " } else { "[FAIL]" },
                claim.text
            );
        }
        let failed = self.claims.iter().filter(|claim| !claim.held).count();
        match failed {
            0 => println!("\nAll of it held: {} claims.", self.claims.len()),
            _ => println!("\n{failed} of {} claims did NOT hold.", self.claims.len()),
        }
        failed == 0
    }
}

/// Progress in data keys: a bar on a terminal, a line for each quarter elsewhere.
pub(crate) struct Bar {
    bar: ProgressBar,
    is_drawn: bool,
    quarters_said: u64,
}

impl Bar {
    fn new(total: u64) -> Self {
        let is_drawn = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            Some(total),
            if is_drawn {
                ProgressDrawTarget::stderr()
            } else {
                ProgressDrawTarget::hidden()
            },
        );
        let style = ProgressStyle::with_template("   {bar:40} {pos} of {len} data keys  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            bar,
            is_drawn,
            quarters_said: 0,
        }
    }

    /// So many data keys have moved; `beside` says what went on meanwhile.
    pub(crate) fn set(&mut self, done: u64, beside: &str) {
        self.bar.set_position(done);
        self.bar.set_message(beside.to_owned());
        let total = self.bar.length().unwrap_or(0).max(1);
        let quarters = done * 4 / total;
        if !self.is_drawn && quarters > self.quarters_said {
            self.quarters_said = quarters;
            println!(
                "   {:>3} %: {done} of {total} data keys  {beside}",
                done * 100 / total
            );
        }
    }

    /// Leaves the bar as it stands.
    pub(crate) fn stop(self) {
        self.bar.abandon();
    }
}

/// A duration as people say it.
pub(crate) fn human(duration: Duration) -> String {
    match duration.as_micros() {
        0..1_000 => format!("{} µs", duration.as_micros()),
        1_000..1_000_000 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}
