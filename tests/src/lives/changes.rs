//! What a life changes: its store by every kind of action, and what is out of order with its KMS.

use super::*;

impl Living {
    pub(super) fn plan(&mut self, dice: &mut Dice) {
        let retryable = [ErrorCode::Throttled, ErrorCode::Unavailable, ErrorCode::Timeout];
        let (words, faults) = match dice.below(8) {
            0 => ("the answer is lost", vec![Fault::LoseAnswer]),
            1 => ("a wrong key is returned", vec![Fault::WrongKey]),
            2 => (
                "an oversized blob is returned",
                vec![Fault::OversizedBlob(1 << 20)],
            ),
            3 => ("a blob of garbage is returned", vec![Fault::GarbageBlob]),
            4 => ("a slow answer", vec![Fault::Slow(Duration::from_secs(5))]),
            5 => (
                "an answer that is too late",
                vec![Fault::Slow(Duration::from_secs(60))],
            ),
            6 => {
                let burst = vec![Fault::Refuse(ErrorCode::Throttled); 2 + dice.below(6) as usize];
                ("a burst of throttling", burst)
            }
            _ => (
                "an outage of one call",
                vec![Fault::Refuse(*dice.choose(&retryable))],
            ),
        };
        self.count_fault(words);
        self.tell(format!("the next KMS calls meet: {words}, {}", faults.len()));
        self.kms.plan(faults);
        self.unsettle();
    }

    pub(super) fn restore_all(&mut self) {
        self.tell("all of the KMS works again".into());
        self.kms.restore_all();
        self.failing.clear();
        self.lying.clear();
        self.noticed.clear();
        self.ill_deed = false;
        // A failure is remembered for a second.
        self.env.advance(Duration::from_secs(2));
        self.unsettle();
    }

    pub(super) fn some_key(&self, dice: &mut Dice) -> Option<String> {
        let keys: Vec<String> = self.model.grants.iter().map(|(_, key)| key.clone()).collect();
        (!keys.is_empty()).then(|| dice.choose(&keys).clone())
    }

    pub(super) fn tell(&mut self, line: String) {
        self.story.push(line);
    }

    pub(super) fn count_fault(&mut self, kind: &str) {
        *self.figures.kms_faults.entry(kind.to_owned()).or_default() += 1;
    }

    /// What was read need not be served any more: the cache may have changed.
    pub(super) fn unsettle(&mut self) {
        self.served.clear();
        self.steady_since = self.env.elapsed();
    }

    pub(super) fn note_wraps(&mut self) {
        let listed = self.store.as_ref().and_then(|store| sealed_wraps(store).ok());
        let mut cells = None;
        for wrap in listed.into_iter().flatten() {
            if self.wraps.iter().any(|known| known.wrap == wrap) {
                continue;
            }
            let cells = cells.get_or_insert_with(|| live_cells(&self.disk.contents()));
            let opens = |cell: &&[u8; 64]| cell.first_chunk().is_some_and(|key| wrap.open(key).is_some());
            if let Some(cell) = cells.iter().find(opens).copied() {
                self.wraps.push(KnownWrap { wrap, cell });
            }
        }
    }

    /// Notes an error, and fails unless it is one of the KMS, with a KMS that is ill.
    pub(super) fn excuse(&mut self, doing: &str, error: &Error) -> Result<(), Failure> {
        self.errors.push(format!("{error} {error:?}"));
        let Error::Kms {
            organization,
            key,
            source,
            ..
        } = error
        else {
            let story = format!("{doing}: not an error of a KMS: {error:?}");
            return Err(broken("errors_name_the_kms", Harm::Other, story));
        };
        if source.code.class() == ErrorClass::Revoked {
            let key = kms_key(organization.as_str(), key.as_str());
            if self
                .failing
                .get(&key)
                .is_some_and(|code| code.class() == ErrorClass::Revoked)
            {
                self.noticed.insert((organization.to_string(), key));
            }
        }
        Ok(())
    }

    /// Does a change, and compares what came of it.
    pub(super) fn change(&mut self, action: Action) -> Result<(), Failure> {
        if let Action::Rewrap { .. } = &action {
            return self.rewrap(&mut Dice::new(0), u64::MAX);
        }
        let was_calm = self.calm();
        let outcome = self.perform(&action);
        match &outcome {
            Ok(()) => {
                self.tell(action.to_string());
                self.figures.acknowledged += 1;
                self.model = Arc::new(self.model.after(&action));
            }
            Err(error) => {
                self.tell(format!("{action}: refused: {error}"));
                self.figures.refused += 1;
                if was_calm {
                    let story = format!("{action}: {error}");
                    return Err(broken("a_life_without_faults_goes_on", Harm::Other, story));
                }
                self.excuse(&action.to_string(), error)?;
            }
        }
        if !matches!(
            action,
            Action::Put { .. } | Action::Batch { .. } | Action::Stream { .. }
        ) || outcome.is_err()
        {
            self.unsettle();
        }
        self.same_shape("what_failed_changed_nothing")
    }

    pub(super) fn perform(&mut self, action: &Action) -> keystead::Result<()> {
        if *action == Action::Reopen {
            self.store = None;
            self.store = Some(self.options().open_on_disk(self.disk.clone())?);
            return Ok(());
        }
        model::perform(self.store(), &self.model, action)
    }

    pub(super) fn same_shape(&mut self, checker: &'static str) -> Result<(), Failure> {
        let seen = observe_shape(self.store()).map_err(|story| broken(checker, Harm::Torn, story))?;
        if seen.view == self.model.shape() {
            return Ok(());
        }
        Err(broken(
            checker,
            Harm::Torn,
            unlike(&self.model.shape(), &seen.view),
        ))
    }
}
