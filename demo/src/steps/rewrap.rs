//! The re-wrap: online, killed in the middle, resumed.

use super::{another_process, print_epochs};
use crate::application::{BATCH, Line};
use crate::kms::Count;
use crate::show::{Show, human};
use crate::traffic::Traffic;
use crate::world::{ACME, ACME_SECRETS, Kmss, World, written_path, written_value};
use anyhow::{Context as _, ensure};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const SIGKILL: i32 = 9;
/// Numbers of writes after the kill begin here: beyond what the killed process wrote.
const FIRST_WRITE_AFTER_KILL: u64 = 1_000_000;

/// How long the customer's KMS may be kept from answering: far longer than a machine that is busy needs to start two threads.
const HELD_MAX: Duration = Duration::from_secs(120);

/// What the killed application had told before it died.
pub(crate) struct Told {
    writes: Vec<u64>,
    moved: u64,
}

/// The application's process, which does not outlive the demonstration.
struct Application(Child);

impl Drop for Application {
    fn drop(&mut self) {
        // It has ended already, unless something went wrong.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Has another process re-wrap, and kills it in the middle.
pub(crate) fn killed(show: &mut Show, world: &World) -> anyhow::Result<Told> {
    show.step("The re-wrap goes on while secrets are read and written, and is killed in the middle");
    show.say(format!(
        "An application, in a process of its own, opens the store; one of its threads re-wraps, while one reads and one\n\
         writes. Re-wrapping {ACME_SECRETS} data keys takes a blink: for this show a batch has {BATCH} data keys instead of\n\
         4,096, each durable before the next one, so that the kill can land in the middle."
    ));
    let digest = world.digest.to_string();
    let mut application = Application(
        another_process(&[
            "application".as_ref(),
            world.directory.as_ref(),
            world.plugin.as_ref(),
            digest.as_ref(),
        ])?
        // Open for as long as this process is there: by that the application knows.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the application")?,
    );
    let child = &mut application.0;
    let output = BufReader::new(child.stdout.take().context("the application has no output")?);
    let mut bar = show.bar(ACME_SECRETS as u64);
    let mut told = Told {
        writes: Vec::new(),
        moved: 0,
    };
    let (mut is_in_the_middle, mut is_killed) = (false, false);
    // What it had said before it died is still in the pipe, and is read to the end.
    for line in output.lines() {
        match Line::parse(&line?) {
            Some(Line::Moved {
                done,
                total,
                reads,
                writes,
            }) => {
                told.moved = done;
                bar.set(done, &format!("{reads} reads, {writes} writes meanwhile"));
                is_in_the_middle = done * 100 >= total * 45;
            }
            Some(Line::Wrote { number }) => told.writes.push(number),
            None => {}
        }
        // What is looked for after the kill is a write that was acknowledged: there must be one.
        if is_in_the_middle && !is_killed && !told.writes.is_empty() {
            child.kill().context("killing the application")?;
            is_killed = true;
        }
    }
    bar.stop();
    let status = child.wait()?;
    ensure!(
        status.signal() == Some(SIGKILL),
        "the application was to be killed in the middle of the re-wrap, but ended before, with {status}"
    );
    show.claim(
        told.moved < ACME_SECRETS as u64,
        format!("the application was killed (SIGKILL) after it had told of {} of {ACME_SECRETS} data keys moved, and of {} writes", told.moved, told.writes.len()),
    );
    Ok(told)
}

/// Opens the store again, shows that nothing acknowledged is lost, and has the re-wrap finish.
pub(crate) fn resumed(show: &mut Show, world: &World, told: &Told) -> anyhow::Result<()> {
    show.step("After the kill: open, see what is there, go on");
    let kmss = Kmss::default();
    let began = Instant::now();
    let store = world
        .options(&kmss)?
        .background_rewrap(false)
        .open(world.store())?;
    show.say(format!(
        "Opened after the kill in {} (the plugin's checks included).",
        human(began.elapsed())
    ));
    let acme = store.organization(ACME)?;
    let status = acme.rewrap_job()?.status()?;
    show.claim(
        status.done >= told.moved && status.remaining > 0 && status.total == ACME_SECRETS as u64,
        format!(
            "the job is where it was: {} data keys moved, {} to go",
            status.done, status.remaining
        ),
    );
    let mut there = 0;
    for number in &told.writes {
        there += usize::from(acme.get(&written_path(*number))?.value == written_value(*number).as_bytes());
    }
    show.claim(
        there == told.writes.len(),
        format!(
            "{there} of the {} writes that were acknowledged are there",
            told.writes.len()
        ),
    );
    print_epochs(show, &acme)?;
    drop(acme);
    store.close()?;
    drop(store);

    show.say("\nOpened once more as an application opens it; the job goes on by itself.");
    kmss.customer.take();
    kmss.managed.take();
    let options = world.options(&kmss)?.rewrap_batch(BATCH).kms_timeout(HELD_MAX);
    // The job, the reader and the writer all need an epoch key first. None of them gets one before all are under way: so the job
    // cannot be over before there is anything to see, however late this thread or one of theirs has its turn.
    let held = kmss.customer.hold();
    let store = options.open(world.store())?;
    let acme = store.organization(ACME)?;
    let job = acme.rewrap_job()?;
    let traffic = Traffic::start(&acme, FIRST_WRITE_AFTER_KILL, |_| {});
    let mut bar = show.bar(ACME_SECRETS as u64);
    let began = Instant::now();
    drop(held);
    let finished = job.wait_with(|progress| {
        let (reads, writes) = traffic.so_far();
        bar.set(
            progress.done,
            &format!("{reads} reads, {writes} writes meanwhile"),
        );
    })?;
    let took = began.elapsed();
    bar.stop();
    let (reader, writer) = traffic.end()?;
    let (managed, customer) = (kmss.managed.take(), kmss.customer.take());
    show.claim(
        finished.remaining == 0 && finished.failed == 0,
        format!("resumed, it finished in {}", human(took)),
    );
    show.say(reader.describe("reads"));
    show.say(writer.describe("durable writes"));
    show.claim(
        reader.errors + writer.errors == 0 && reader.operations() > 0 && writer.operations() > 0,
        format!(
            "{} reads and {} writes went on meanwhile, without an error",
            reader.operations(),
            writer.operations()
        ),
    );
    show.claim(
        managed == Count { wraps: 0, unwraps: 0 } && customer.wraps == 0 && customer.unwraps <= 2,
        format!(
            "for the re-wrap itself no KMS is asked: {customer} since opening, at most one for each epoch"
        ),
    );
    drop(acme);
    store.close()?;
    Ok(())
}
