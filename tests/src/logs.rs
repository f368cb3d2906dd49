//! What is logged, captured at its finest level: by the engine on one thread, and searched for secrets in every way in which one could be
//! printed; or by all of a process, vendors' SDKs too, whether by `tracing` or by `log`.

use crate::checkers::{Failure, Harm};
use crate::env::SimulatedEnv;
use crate::kms::SimulatedKms;
use crate::model::CANARY;
use crate::search::Patterns;
use base64::Engine as _;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// All that a process logs.
#[derive(Debug)]
pub struct Log(Arc<Mutex<String>>);

impl Log {
    /// All that this process logs from now on, whoever does, on whatever thread.
    ///
    /// # Panics
    ///
    /// When it is logged elsewhere already: a process has one such log.
    #[must_use]
    pub fn of_the_process() -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        tracing::subscriber::set_global_default(Capture(Arc::clone(&text))).expect("nobody else subscribed");
        tracing_log::LogTracer::init().expect("nobody else is the logger");
        Self(text)
    }

    /// What was logged so far.
    ///
    /// # Panics
    ///
    /// When what this logs itself does not come here.
    #[must_use]
    pub fn text(&self) -> String {
        tracing::trace!("the log is read");
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(text.contains("the log is read"), "this is not what is logged to");
        text.clone()
    }
}

/// Does `work`, and returns with its outcome all that was logged on this thread meanwhile.
pub fn captured<T>(work: impl FnOnce() -> T) -> (T, Vec<u8>) {
    let text = Arc::new(Mutex::new(String::new()));
    let outcome = tracing::subscriber::with_default(Capture(Arc::clone(&text)), work);
    let text = std::mem::take(&mut *text.lock().unwrap_or_else(PoisonError::into_inner));
    (outcome, text.into_bytes())
}

/// Writes down every event, whatever its level.
struct Capture(Arc<Mutex<String>>);

impl Capture {
    fn fields(&self, record: impl FnOnce(&mut dyn Visit)) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        record(&mut Fields(&mut text));
        text.push('\n');
    }
}

impl Subscriber for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.fields(|fields| span.record(fields));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        self.fields(|fields| values.record(fields));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.fields(|fields| event.record(fields));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Fields<'t>(&'t mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

/// 6: no plaintext, data key or epoch key in logs and errors: as bytes, hexadecimal, base64, or a list of numbers.
///
/// # Errors
///
/// What was found.
pub fn no_secret_in(text: &[u8], kms: &SimulatedKms, env: &SimulatedEnv) -> Result<(), Failure> {
    let mut secrets: Vec<Vec<u8>> = vec![CANARY.to_vec()];
    secrets.extend(kms.all_plaintexts());
    secrets.extend(env.keys().into_iter().map(Vec::from));
    let printed = secrets.iter().flat_map(|secret| {
        let start = &secret[..8];
        let hex: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = format!("{start:?}");
        [
            start.to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
            // Nine bytes are twelve digits, whatever follows; the first eight fill ten of them.
            base64::engine::general_purpose::STANDARD
                .encode(start)
                .into_bytes()[..10]
                .to_vec(),
            list.trim_matches(['[', ']']).as_bytes().to_vec(),
        ]
    });
    match Patterns::new(printed).find_in(text).next() {
        None => Ok(()),
        Some(found) => Err(Failure {
            checker: "no_secret_in_logs",
            harm: Harm::Other,
            story: format!("a secret stands in a log or an error, at {}", found.offset),
        }),
    }
}
