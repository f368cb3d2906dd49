//! What a process that may be killed at any moment has done: it follows from a seed and from how many actions each of its runs
//! got done, so that the process and the test that kills it need not tell each other more.

use crate::env::Dice;
use crate::model::{self, Action, Model};
use anyhow::Context;
use keystead::{Backend, Store, StoreOptions};
use keystead_managed::ManagedBackend;
use std::fmt;
use std::path::Path;

/// The runs so far.
#[derive(Debug, Clone)]
pub struct Past {
    seed: u64,
    done: Vec<u32>,
}

impl Past {
    /// Nothing was done yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            done: Vec::new(),
        }
    }

    /// Reads what [`Display`](fmt::Display) writes: the counts of the runs, or `-`.
    ///
    /// # Errors
    ///
    /// What is no count.
    pub fn parse(seed: u64, history: &str) -> anyhow::Result<Self> {
        let counts = history.split(',').filter(|count| *count != "-");
        let done = counts
            .map(|count| count.parse().with_context(|| format!("{count:?} is no count")))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { seed, done })
    }

    /// A run got so many of its actions done.
    pub fn note(&mut self, done: u32) {
        self.done.push(done);
    }

    /// What the store holds now.
    #[must_use]
    pub fn model(&self) -> Model {
        let runs = (0..).zip(&self.done);
        runs.fold(Model::default(), |model, (run, done)| {
            let actions = self.run(run, model.clone()).take(*done as usize);
            actions
                .last()
                .map_or(model, |(before, action)| before.after(&action))
        })
    }

    /// What the next run does, without end: each action with what the store holds before it.
    pub fn future(&self) -> impl Iterator<Item = (Model, Action)> {
        self.run(self.done.len() as u64, self.model())
    }

    fn run(&self, run: u64, mut model: Model) -> impl Iterator<Item = (Model, Action)> + use<> {
        let mut dice = Dice::part(self.seed, run);
        std::iter::from_fn(move || {
            let action = std::iter::repeat_with(|| model.next(&mut dice)).find(is_for_processes)?;
            let before = std::mem::take(&mut model);
            model = before.after(&action);
            Some((before, action))
        })
    }
}

impl fmt::Display for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self.done.iter().map(u32::to_string).collect();
        f.write_str(&if counts.is_empty() {
            "-".to_owned()
        } else {
            counts.join(",")
        })
    }
}

/// What can be done with keys in keyring files, by a process whose end is what opens the store again.
fn is_for_processes(action: &Action) -> bool {
    matches!(
        action,
        Action::CreateOrganization { .. }
            | Action::Put { .. }
            | Action::Stream { .. }
            | Action::Batch { .. }
            | Action::Delete { .. }
            | Action::Undelete { .. }
            | Action::Destroy { .. }
            | Action::AddKey { .. }
            | Action::SetDefault { .. }
            | Action::Rotate { .. }
            | Action::Disable { .. }
            | Action::DisableAll { .. }
            | Action::Rewrap { .. }
            | Action::ForgetEpochKeys
    )
}

/// Does an action; `model` is what the store holds before it.
///
/// # Errors
///
/// What the engine says.
pub fn perform(store: &Store, model: &Model, action: &Action) -> keystead::Result<()> {
    match action {
        Action::AddKey { org, key } => {
            let organization = store.organization(org)?;
            organization
                .keys()
                .add(key, "customer-kms", serde_json::json!({}))?;
            Ok(())
        }
        Action::Disable { org, .. } => {
            // A run that was killed may have left a job that the model does not know of.
            model::run_job(&store.organization(org)?)?;
            model::perform(store, model, action)
        }
        action => model::perform(store, model, action),
    }
}

/// Options of a store with two keyring files in this directory, and small batches: a job is many commits.
#[must_use]
pub fn keyring_options(directory: &Path) -> StoreOptions {
    let keyring =
        |name: &str, file: &str| Backend::new(ManagedBackend::keyring(directory.join(file))).named(name);
    Store::options()
        .backend(keyring("managed", "managed.keyring"))
        .backend(keyring("customer-kms", "customer.keyring"))
        .background_rewrap(false)
        .rewrap_batch(3)
}
