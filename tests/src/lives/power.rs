//! Power that goes in the middle of a life, and what the store is afterwards.

use super::*;

impl Living {
    pub(super) fn hash_disk(&mut self) {
        let trace = self.disk.recording().trace();
        self.trace.update(trace.as_bytes());
    }

    /// Power goes in the middle of a change, and perhaps once more while the store recovers from it.
    pub(super) fn power_goes(&mut self, dice: &mut Dice) -> Result<(), Failure> {
        let action = self.model.next(dice);
        let was_calm = self.calm();
        let from = self.disk.recorded();
        let before = Arc::clone(&self.model);
        let (acknowledged, after) = match &action {
            Action::Rewrap { .. } => {
                self.rewrap(dice, 2)?;
                (true, Arc::clone(&self.model))
            }
            action => match self.perform(action) {
                Ok(()) => (true, Arc::new(before.after(action))),
                Err(error) if was_calm => {
                    return Err(broken(
                        "a_life_without_faults_goes_on",
                        Harm::Other,
                        error.to_string(),
                    ));
                }
                Err(error) => {
                    self.excuse(&action.to_string(), &error)?;
                    (false, Arc::clone(&before))
                }
            },
        };
        self.note_wraps();
        let to = self.disk.recorded();
        let moment = from + dice.below((to - from) as u64 + 1) as usize;
        let acknowledged = acknowledged && moment == to;
        self.tell(format!(
            "{action}; power goes after {} of its {} operations",
            moment - from,
            to - from
        ));
        let either = if acknowledged {
            vec![after]
        } else {
            vec![before, after]
        };
        self.cut(moment, dice);
        if dice.once_in(3) {
            self.figures.cut_again += 1;
            let from = self.disk.recorded();
            self.open_after_power()?;
            self.store = None;
            let moment = from + dice.below((self.disk.recorded() - from) as u64 + 1) as usize;
            self.tell("and again while it recovers".into());
            self.cut(moment, dice);
        }
        self.open_after_power()?;
        self.settle(&either)
    }

    pub(super) fn cut(&mut self, moment: usize, dice: &mut Dice) {
        let recording = self.disk.recording();
        self.store = None;
        self.hash_disk();
        self.figures.power_cuts += 1;
        let budget = Budget {
            exhaustive_operations: 3,
            subsets: 6,
            torn: 6,
        };
        let cut = recording.cut_at(moment);
        let images = images(&cut, budget, dice);
        self.disk = SimulatedDisk::holding(dice.choose(&images).contents.clone());
        self.unsettle();
    }

    pub(super) fn open_after_power(&mut self) -> Result<(), Failure> {
        let opened = self.options().open_on_disk(self.disk.clone());
        self.store = Some(opened.map_err(|error| broken("acknowledged", Harm::Lost, error.to_string()))?);
        Ok(())
    }

    /// What is there is one of these; the model goes on from it.
    pub(super) fn settle(&mut self, either: &[Arc<Model>]) -> Result<(), Failure> {
        let seen = observe_shape(self.store()).map_err(|story| broken("acknowledged", Harm::Torn, story))?;
        let mut fitting = either.iter().filter(|model| model.shape() == seen.view);
        let Some(first) = fitting.next() else {
            let story = either
                .iter()
                .map(|model| unlike(&model.shape(), &seen.view))
                .collect::<Vec<_>>();
            return Err(broken("acknowledged", Harm::Lost, story.join("; nor ")));
        };
        self.model = match fitting.next() {
            Some(second) => Arc::new(first.or(second)),
            None => Arc::clone(first),
        };
        if self.calm() { self.same_values() } else { Ok(()) }
    }
}
