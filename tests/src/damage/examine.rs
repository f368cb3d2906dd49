//! What the engine makes of one image: every query of the sample, a verification, a put, and everything again after the next
//! opening.

use super::sample::{Query, Sample};
use keystead::{Error, Store, VerifyOptions};
use std::collections::BTreeMap;

/// How one image was taken.
#[derive(Debug, Default, Clone)]
pub struct Examined {
    /// It opened.
    pub opened: bool,
    /// Answers that are right.
    pub right: u64,
    /// Queries that were refused, and are answered by the whole file.
    pub refused: u64,
    /// All answers are those of the state before the last record of the journal: as after a torn write.
    pub older: bool,
    /// Verification named something, or could not go on.
    pub verify_found: bool,
    /// A put was acknowledged afterwards.
    pub put: bool,
    /// It opened once more, and answered again.
    pub reopened: bool,
    /// Why it did not open.
    pub refusal: Option<String>,
    /// What was wrong: it must stay empty.
    pub wrong: Vec<String>,
}

/// Which answers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// All of them: the damage was done by chance.
    Everything,
    /// Values alone: somebody who knows the format made the tags right, and may have changed what stands in clear.
    Values,
}

/// Opens an image by `open`, as often as it is called, and looks at it from all sides.
pub fn examine(sample: &Sample, judge: Judge, open: impl Fn() -> keystead::Result<Store>) -> Examined {
    let mut examined = Examined::default();
    let store = match open() {
        Ok(store) => store,
        Err(error) => {
            examined.not_an_absence("opening", &error, judge);
            examined.refusal = Some(error.to_string());
            return examined;
        }
    };
    examined.opened = true;
    examined.ask_all(sample, judge, &store, |_| true);
    let verified = store.verify(VerifyOptions { open_values: true }, |_| {});
    examined.verify_found = !verified.is_ok_and(|report| report.is_clean() && report.unopened.is_empty());

    let (org, path, value) = sample.put_after();
    let put = store.organization(org).and_then(|org| org.put(path, &value));
    examined.put = put.is_ok();
    drop(store);

    let Ok(store) = open() else { return examined };
    examined.reopened = true;
    if examined.put {
        match store.organization(org).and_then(|org| org.get(path)) {
            Ok(secret) if secret.value.as_ref() != value => {
                examined
                    .wrong
                    .push(format!("{path} reads as another value than was just put"));
            }
            Ok(_) => {}
            Err(error) => examined.not_an_absence(path, &error, judge),
        }
    }
    let put = examined.put;
    examined.ask_all(sample, judge, &store, |query| {
        !put || query.is_still_after_a_put_in(org)
    });
    examined
}

impl Examined {
    fn ask_all(&mut self, sample: &Sample, judge: Judge, store: &Store, counts: impl Fn(&Query) -> bool) {
        let mut answers = BTreeMap::new();
        for query in sample.now.keys().filter(|query| counts(query)) {
            match query.ask(store) {
                Ok(answer) => drop(answers.insert(query, answer)),
                Err(error) => {
                    if sample.now[query].is_some() {
                        self.refused += 1;
                        if sample.before[query].is_some() {
                            self.not_an_absence(&format!("{query:?}"), &error, judge);
                        }
                    }
                }
            }
        }
        if judge == Judge::Values {
            for (query, answer) in answers {
                let Some((org, path)) = query.place() else {
                    continue;
                };
                match sample.put.contains(&(org.into(), path.into(), answer.clone())) {
                    true => self.right += 1,
                    false => self.wrong.push(format!("{query:?} was never put so: {answer}")),
                }
            }
            return;
        }
        // One state, as a whole: the newest, or the one before the last record of the journal.
        let same = |state: &BTreeMap<Query, Option<String>>| {
            let differs = |(query, answer): &(&&Query, &String)| state[**query].as_ref() != Some(*answer);
            answers
                .iter()
                .find(differs)
                .map(|(query, answer)| (*query, answer.clone()))
        };
        self.right += answers.len() as u64;
        match (same(&sample.now), same(&sample.before)) {
            (None, _) => {}
            (Some(_), None) => self.older = true,
            (Some((query, answer)), Some(_)) => self.wrong.push(format!(
                "{query:?}: {answer}, not {}",
                sample.now[query].as_deref().unwrap_or("refused")
            )),
        }
    }

    /// "There is no such thing" is an answer, and a wrong one: an application would act on it.
    fn not_an_absence(&mut self, what: &str, error: &Error, judge: Judge) {
        let is_absence = error.is_not_found()
            || matches!(
                error,
                Error::VersionDeleted { .. } | Error::VersionDestroyed { .. } | Error::NoJob { .. }
            );
        if is_absence && judge == Judge::Everything {
            self.wrong
                .push(format!("{what} is there, and the store says: {error}"));
        }
    }
}
