//! The script: which calls meet what. It counts calls and nothing else, so that it does the same each time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use keystead_backend::{BackendError, ErrorCode, Host, LogLevel};
use serde::Deserialize;

use crate::settings::{code, code_name, wrong};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Call {
    Open,
    Status,
    Wrap,
    Unwrap,
    /// In a step: any but `open`.
    Any,
}

/// One step, as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    on: Call,
    #[serde(default = "one")]
    from: u64,
    times: Option<u64>,
    #[serde(default = "one")]
    every: u64,
    #[serde(default)]
    delay_ms: u64,
    error: Option<String>,
    #[serde(default)]
    retry_after_ms: u64,
    #[serde(default)]
    lose_answer: bool,
}

fn one() -> u64 {
    1
}

/// The steps, and how many calls there were of each kind.
pub(crate) struct Script {
    steps: Vec<(Step, Option<Fault>)>,
    counts: Mutex<[u64; 5]>,
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    code: ErrorCode,
    retry_after: Option<Duration>,
    /// The plugin behind is asked all the same.
    pub(crate) has_effect: bool,
}

/// What one call meets.
pub(crate) struct Met {
    call: Call,
    number: u64,
    pub(crate) delay: Duration,
    pub(crate) fault: Option<Fault>,
}

impl Script {
    pub(crate) fn new(steps: Vec<Step>) -> Result<Self, BackendError> {
        let numbered = steps.into_iter().zip(1u32..);
        let steps = numbered.map(|(step, number)| {
            let fault = step.fault(number)?;
            Ok((step, fault))
        });
        Ok(Self {
            steps: steps.collect::<Result<_, BackendError>>()?,
            counts: Mutex::default(),
        })
    }

    /// Counts a call, and says what it meets.
    pub(crate) fn meet(&self, call: Call) -> Met {
        let (number, of_any) = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts[call as usize] += 1;
            if call != Call::Open {
                counts[Call::Any as usize] += 1;
            }
            (counts[call as usize], counts[Call::Any as usize])
        };
        let mut met = Met {
            call,
            number,
            delay: Duration::ZERO,
            fault: None,
        };
        for (step, fault) in &self.steps {
            let number = match step.on {
                Call::Any if call != Call::Open => of_any,
                on if on == call => number,
                _ => continue,
            };
            if step.is_for(number) {
                met.delay = met.delay.saturating_add(Duration::from_millis(step.delay_ms));
                met.fault = met.fault.or(*fault);
            }
        }
        met
    }
}

impl Step {
    fn is_for(&self, number: u64) -> bool {
        let Some(since) = number.checked_sub(self.from) else {
            return false;
        };
        since % self.every == 0 && self.times.is_none_or(|times| since / self.every < times)
    }

    fn fault(&self, number: u32) -> Result<Option<Fault>, BackendError> {
        let wrong = |what: &str| Err(wrong("script", format!("has a step {number} that {what}")));
        if self.from == 0 || self.every == 0 || self.times == Some(0) {
            return wrong("is for no call: `from`, `times` and `every` begin at 1");
        }
        let code = match (&self.error, self.lose_answer) {
            (Some(name), _) => match code(name) {
                Some(code) => Some(code),
                None => return wrong("names an error that does not exist; write it as `key-disabled`"),
            },
            (None, true) => Some(ErrorCode::Unavailable),
            (None, false) => None,
        };
        if code.is_none() && self.retry_after_ms > 0 {
            return wrong("has a `retry_after_ms` and no error");
        }
        if code.is_none() && self.delay_ms == 0 {
            return wrong("does nothing: give it `delay_ms`, `error` or `lose_answer`");
        }
        if self.on == Call::Open && (self.delay_ms > 0 || self.lose_answer) {
            return wrong(
                "delays `open` or loses its answer; `open` has no deadline and no effect, so it can only fail",
            );
        }
        let retry_after = (self.retry_after_ms > 0).then(|| Duration::from_millis(self.retry_after_ms));
        Ok(code.map(|code| Fault {
            code,
            retry_after,
            has_effect: self.lose_answer,
        }))
    }
}

impl Fault {
    pub(crate) fn error(self, call: Call, number: u64) -> BackendError {
        let what = if self.has_effect {
            "loses the answer of"
        } else {
            "refuses"
        };
        let error = BackendError::new(
            self.code,
            format!("the script of the fault shim {what} {} {number}", call.name()),
        );
        match self.retry_after {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }
}

impl Call {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Status => "status",
            Self::Wrap => "wrap",
            Self::Unwrap => "unwrap",
            Self::Any => "call",
        }
    }
}

impl Met {
    /// The error that it fails with, when the plugin behind is not to be asked.
    pub(crate) fn refusal(&self) -> Option<BackendError> {
        let fault = self.fault.filter(|fault| !fault.has_effect)?;
        Some(fault.error(self.call, self.number))
    }

    /// The error that takes the place of an answer.
    pub(crate) fn loss(&self) -> Option<BackendError> {
        let fault = self.fault.filter(|fault| fault.has_effect)?;
        Some(fault.error(self.call, self.number))
    }

    /// Writes to the log what is done to the call, if anything is.
    pub(crate) fn tell(&self, host: &dyn Host) {
        if self.delay.is_zero() && self.fault.is_none() {
            return;
        }
        let delay = match self.delay.as_millis() {
            0 => String::new(),
            ms => format!(" delayed by {ms} ms"),
        };
        let fault = match self.fault {
            None => String::new(),
            Some(fault) if fault.has_effect => format!(" answer lost ({})", code_name(fault.code)),
            Some(fault) => format!(" failed ({})", code_name(fault.code)),
        };
        host.log(
            LogLevel::Info,
            &format!("fault-shim: {} {}:{delay}{fault}", self.call.name(), self.number),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn script(steps: serde_json::Value) -> Result<Script, BackendError> {
        Script::new(serde_json::from_value(steps).expect("steps"))
    }

    #[test]
    fn a_step_is_for_the_calls_that_it_counts() {
        let script = script(json!([
            { "on": "wrap", "from": 3, "times": 2, "every": 2, "error": "throttled", "retry_after_ms": 7 },
            { "on": "any", "from": 2, "times": 1, "delay_ms": 5 },
            { "on": "unwrap", "lose_answer": true },
        ]))
        .expect("right");
        let failing: Vec<u64> = (1..=9)
            .filter(|_| script.meet(Call::Wrap).refusal().is_some())
            .collect();
        assert_eq!(failing, [3, 5], "from the third, two of them, each second one");
        let unwrap = script.meet(Call::Unwrap);
        assert!(unwrap.refusal().is_none() && unwrap.delay.is_zero());
        assert_eq!(
            unwrap.loss().map(|error| error.code),
            Some(ErrorCode::Unavailable)
        );
        assert!(script.meet(Call::Open).fault.is_none());
    }

    #[test]
    fn calls_of_any_kind_are_counted_together() {
        let script =
            script(json!([{ "on": "any", "from": 3, "times": 1, "error": "key-disabled" }])).expect("right");
        let met = [Call::Wrap, Call::Open, Call::Status, Call::Unwrap, Call::Wrap]
            .map(|call| script.meet(call).fault.is_some());
        assert_eq!(met, [false, false, false, true, false]);
    }

    #[test]
    fn a_step_that_makes_no_sense_is_refused_by_its_number() {
        for step in [
            json!({ "on": "wrap" }),
            json!({ "on": "wrap", "error": "no-such-error" }),
            json!({ "on": "wrap", "from": 0, "delay_ms": 1 }),
            json!({ "on": "wrap", "times": 0, "delay_ms": 1 }),
            json!({ "on": "wrap", "every": 0, "delay_ms": 1 }),
            json!({ "on": "wrap", "delay_ms": 1, "retry_after_ms": 1 }),
            json!({ "on": "open", "delay_ms": 1 }),
        ] {
            let fine = json!({ "on": "wrap", "delay_ms": 1 });
            let error = script(json!([fine, step]))
                .err()
                .unwrap_or_else(|| panic!("{step} is taken"));
            assert_eq!(error.code, ErrorCode::InvalidConfig);
            assert!(error.message.contains("a step 2 that"), "{error}");
        }
    }

    #[test]
    fn each_code_has_a_name_of_its_own() {
        for code in ErrorCode::ALL {
            assert_eq!(crate::settings::code(code_name(*code)), Some(*code));
        }
    }
}
