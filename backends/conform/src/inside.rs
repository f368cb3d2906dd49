//! The inner half: one check, in a process that the plugin may bring down.

use std::path::Path;

use anyhow::Context;
use keystead_loader::{Digest, Plugin, PluginSource, probe::Probe};
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::checks;
use crate::job::Job;
use crate::report::{self, Verdict};

/// The files in a check's directory.
pub(crate) const JOB: &str = "job";
pub(crate) const OUTCOME: &str = "outcome";
pub(crate) const STDOUT: &str = "stdout";
pub(crate) const STDERR: &str = "stderr";
pub(crate) const SECRETS: &str = "secrets";

/// What the inner half tells the outer.
#[derive(Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) backend: Option<String>,
}

/// Why a check ends early.
pub(crate) enum Stop {
    Failed(String),
    /// Something took longer than it should: see [`TIMES_LATE_MAX`].
    Late(String),
    NotChecked(String),
}

/// A check in which something was late is made again, so often in all. A machine that stands still for a moment is late once; a
/// plugin that does not keep its time always is.
const TIMES_LATE_MAX: usize = 3;

/// What a check answers: notes, when it passes.
pub(crate) type Checked<T = Vec<String>> = Result<T, Stop>;

/// Ends a check: it failed, for this reason.
macro_rules! fail {
    ($($text:tt)*) => { return Err($crate::inside::Stop::Failed(format!($($text)*))) };
}
pub(crate) use fail;

/// Makes the check that the directory's job names, and ends the process: what the plugin left running is not waited for.
pub(crate) fn run(directory: &Path) -> anyhow::Result<()> {
    let job = std::fs::read(directory.join(JOB)).context("reading the job")?;
    let (name, job): (String, Job) = serde_json::from_slice(&job)?;
    let again = checks::AGAIN.iter().map(|(_, check)| check);
    let check = checks::ALL
        .iter()
        .chain(again)
        .find(|check| check.name == name)
        .context("there is no such check")?;
    let (verdict, backend) = match load(&job) {
        Ok((plugin, probe)) => {
            let description = plugin.description();
            let backend = format!("{} {}", description.name, description.version);
            let bench = Bench::new(job, plugin, probe, directory);
            let mut checked = (check.run)(&bench);
            for _ in 1..TIMES_LATE_MAX {
                if let Err(Stop::Late(_)) = checked {
                    checked = (check.run)(&bench);
                }
            }
            let verdict = match checked {
                Ok(notes) => Verdict {
                    outcome: report::Outcome::Passed,
                    notes,
                },
                Err(Stop::Failed(what) | Stop::Late(what)) => Verdict::failed(what),
                Err(Stop::NotChecked(why)) => Verdict::not_checked(why),
            };
            (verdict, Some(backend))
        }
        Err(error) => (Verdict::failed(format!("{error:#}")), None),
    };
    // Under another name first: the outer half takes a file that is there for a whole one.
    let unfinished = directory.join("unfinished");
    std::fs::write(&unfinished, serde_json::to_vec(&Outcome { verdict, backend })?)?;
    std::fs::rename(unfinished, directory.join(OUTCOME))?;
    std::process::exit(0)
}

fn load(job: &Job) -> anyhow::Result<(Plugin, Probe)> {
    let mut source = PluginSource::new(&job.plugin);
    for digest in &job.allowed {
        source = source.digest(digest.parse::<Digest>()?);
    }
    if job.allowed.is_empty() {
        source = source.dangerously_without_digest();
    }
    let plugin = Plugin::load(&source)?;
    let probe = Probe::new(&plugin).context("the plugin that was loaded is not found again")?;
    Ok((plugin, probe))
}
