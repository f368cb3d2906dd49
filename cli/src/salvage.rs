//! `salvage`: from a damaged file to a new store, and what was lost on the way.

use crate::args::SalvageArgs;
use crate::exit::{Failure, Outcome};
use crate::open::Session;
use crate::output::{Progress, printable};
use keystead::{Loss, LossKind, SalvageOptions, StoreId};

pub(crate) fn run(session: &Session, arguments: &SalvageArgs) -> Result<Outcome, Failure> {
    let mut options = SalvageOptions::default()
        .open_values(!arguments.without_opening)
        .keep_undecided(arguments.keep_undecided);
    if let Some(id) = &arguments.store_id {
        options = options.store_id(id.parse::<StoreId>()?);
    }
    let progress = Progress::of_phases(session.out);
    let report =
        session
            .salvage_options()?
            .salvage(&arguments.damaged, &arguments.new, &options, |step| {
                progress.tell_salvage(step)
            })?;
    drop(progress);
    session.out.show(&report, |out| {
        writeln!(
            out,
            "{} organizations, {} secrets; {} values: {} opened, {} by their tags, {} unproven; {} destroyed before",
            report.organizations,
            report.secrets,
            report.versions,
            report.opened,
            report.tagged,
            report.unproven,
            report.destroyed
        )?;
        writeln!(
            out,
            "{} audit records kept, {} carried over: pin the audit heads again",
            report.audit_kept, report.audit_carried
        )?;
        for (heading, losses) in [("lost", &report.lost), ("not opened", &report.unopened)] {
            for loss in losses {
                writeln!(out, "{}", printable(&format!("{heading}: {}", line(loss))))?;
            }
        }
        if report.is_complete() {
            writeln!(out, "nothing was lost")
        } else {
            writeln!(
                out,
                "{} losses: keep the damaged file until they are restored from elsewhere",
                report.lost.len()
            )
        }
    })?;
    Ok(if report.is_complete() {
        Outcome::Done
    } else {
        Outcome::Lost
    })
}

/// A loss in one line: whose, where, which, why.
fn line(loss: &Loss) -> String {
    let organization = match (&loss.organization, loss.organization_id) {
        (Some(name), _) => name.clone(),
        (None, Some(id)) => format!("organization number {id}"),
        (None, None) => "the store".to_owned(),
    };
    let secret = match (&loss.path, loss.secret_id) {
        (Some(path), _) => format!(" {path}"),
        (None, Some(id)) => format!(" secret number {id}"),
        (None, None) => String::new(),
    };
    let version = loss
        .version
        .map_or_else(String::new, |version| format!(" version {version}"));
    let undecided = if loss.kind == LossKind::Undecided {
        " (undecided)"
    } else {
        ""
    };
    format!("{organization}{secret}{version}{undecided}: {}", loss.what)
}
