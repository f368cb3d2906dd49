//! The queue of changes: what a caller hands over, and how it waits for its turn to lead or for its change to be done.

use super::lock;
use crate::error::{Error, Result};
use crate::storage::transaction::Transaction;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Queued>,
    pub(super) led: bool,
}

pub(super) struct Queued {
    pub(super) change: Box<dyn Change>,
    pub(super) turn: Arc<Turn>,
}

/// Where a caller waits for its turn to lead, or for its change to be done.
#[derive(Default)]
pub(super) struct Turn {
    state: Mutex<TurnState>,
    moved: Condvar,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnState {
    #[default]
    Waiting,
    Leading,
    Done,
}

impl Turn {
    pub(super) fn give(&self, state: TurnState) {
        *lock(&self.state) = state;
        self.moved.notify_one();
    }

    pub(super) fn wait(&self) -> TurnState {
        let mut state = lock(&self.state);
        while *state == TurnState::Waiting {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        *state
    }
}

/// A queued change: applied by whichever thread leads, perhaps more than once (when another change of the group fails half
/// way, the group is applied again without it).
pub(super) trait Change: Send {
    fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<()>;
    /// Hands the outcome to the caller: what `apply` returned, or why the commit failed.
    fn conclude(&mut self, outcome: Result<(), Error>);
}

pub(super) struct TypedChange<T, F> {
    pub(super) apply: F,
    pub(super) value: Option<T>,
    pub(super) outcome: Arc<Mutex<Option<Result<T>>>>,
}

impl<T: Send, F> Change for TypedChange<T, F>
where
    F: FnMut(&mut Transaction<'_>) -> Result<T> + Send,
{
    fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<()> {
        self.value = Some((self.apply)(transaction)?);
        Ok(())
    }

    fn conclude(&mut self, outcome: Result<(), Error>) {
        let result = match (outcome, self.value.take()) {
            (Ok(()), Some(value)) => Ok(value),
            (Ok(()), None) => Err(Error::Closed {
                reason: "a change was concluded before it was applied".into(),
            }),
            (Err(error), _) => Err(error),
        };
        *lock(&self.outcome) = Some(result);
    }
}
