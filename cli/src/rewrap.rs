//! An organization's re-wrap job: status, run, watch.
//!
//! While this command has the store open nobody else has, so the job goes on only in this process: `run` does its work on
//! the spot, `watch` lets the store do it and tries again while it is blocked. Killed at any point, it loses nothing: the
//! next one to open the store goes on after the last committed batch.

use crate::args::RewrapCommand;
use crate::exit::{Failure, Outcome};
use crate::open::Session;
use crate::output::{Progress, StatusView};
use keystead::{RewrapJob, RewrapState, RewrapStatus};

pub(crate) fn run(session: &Session, command: RewrapCommand) -> Result<Outcome, Failure> {
    let status = match command {
        RewrapCommand::Status => {
            let store = session.open_rows()?;
            let status = session.organization(&store)?.rewrap_status()?;
            store.close()?;
            status
        }
        RewrapCommand::Run => {
            let store = session.open_keys()?;
            let status = work(session, &session.organization(&store)?.rewrap_job()?)?;
            store.close()?;
            Some(status)
        }
        RewrapCommand::Watch => {
            let store = session.open_working()?;
            let organization = session.organization(&store)?;
            let job = organization.rewrap_job()?;
            let progress = Progress::of_rewrap(session.out);
            job.wait_with(|status| progress.tell(status))?;
            drop(progress);
            // The last status as it is recorded: the job's own says no more of its sources.
            let status = organization.rewrap_status()?;
            store.close()?;
            status
        }
    };
    let view = StatusView::of(status.as_ref());
    session.out.show(&view, |out| view.write(out))?;
    Ok(status.as_ref().map_or(Outcome::Done, outcome))
}

/// Does a job's work until it is done or blocked, with a progress bar.
pub(crate) fn work(session: &Session, job: &RewrapJob) -> Result<RewrapStatus, Failure> {
    let progress = Progress::of_rewrap(session.out);
    Ok(job.run_here(|status| progress.tell(status))?)
}

/// How a job stands, as an exit code.
pub(crate) fn outcome(status: &RewrapStatus) -> Outcome {
    match status.state {
        RewrapState::Blocked(_) => Outcome::Blocked,
        RewrapState::Running | RewrapState::Done => Outcome::Done,
    }
}
