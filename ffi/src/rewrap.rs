//! Re-wrap jobs: to watch, to wait for, to do.

#![allow(unsafe_code)]

use crate::error::{Failure, KEYSTEAD_STOPPED, KEYSTEAD_TIMED_OUT, keystead_error};
use crate::guard::{self, Handle, Life};
use crate::organization::keystead_organization;
use crate::store::milliseconds;
use crate::structs::Struct;
use crate::text::{self, Text, keystead_text};
use engine::{RewrapJob, RewrapPhase, RewrapState, RewrapStatus};
use std::ffi::c_void;
use std::sync::Arc;
use std::time::Duration;

/// Some source epoch is still wrapped by its old KMS alone.
pub const KEYSTEAD_REWRAP_HAND_OVER: i32 = 1;
/// Data keys are being moved; no KMS takes part in it.
pub const KEYSTEAD_REWRAP_MOVING: i32 = 2;

/// It goes on.
pub const KEYSTEAD_REWRAP_RUNNING: i32 = 1;
/// It waits and tries again; `blocked` says for what.
pub const KEYSTEAD_REWRAP_BLOCKED: i32 = 2;
/// It is done: every source is retired.
pub const KEYSTEAD_REWRAP_DONE: i32 = 3;

/// A re-wrap job, to watch and to wait for; it goes on without this. Freed with keystead_rewrap_job_free(). Threads: any,
/// also at once.
#[derive(Debug)]
pub struct keystead_rewrap_job {
    job: RewrapJob,
    life: Arc<Life>,
}

impl keystead_rewrap_job {
    pub(crate) fn new(job: RewrapJob, organization: &keystead_organization) -> Self {
        Self {
            job,
            life: Arc::clone(&organization.life),
        }
    }
}

impl Handle for keystead_rewrap_job {
    const WHAT: &'static str = "job";

    fn life(&self) -> &Arc<Life> {
        &self.life
    }
}

/// One of the epochs that a job moves. This struct does not grow.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_rewrap_source {
    /// The epoch.
    pub epoch: u32,
    /// Where its data keys go.
    pub target: u32,
    /// 1 once the target's KMS wraps its key, else 0.
    pub handed_over: i32,
    /// 1 once nothing refers to it and its wraps are erased, else 0.
    pub retired: i32,
}

/// How a job stands.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_rewrap_progress {
    /// sizeof(keystead_rewrap_progress), set by the caller; by the library in what a callback gets.
    pub struct_size: u32,
    /// KEYSTEAD_REWRAP_HAND_OVER or KEYSTEAD_REWRAP_MOVING.
    pub phase: i32,
    /// KEYSTEAD_REWRAP_RUNNING, _BLOCKED or _DONE.
    pub state: i32,
    /// 0.
    pub reserved: u32,
    /// The job's number in its organization; 0 when there was nothing to move.
    pub job: u64,
    /// Data keys that it has moved and is still to move.
    pub total: u64,
    /// Data keys that it has moved.
    pub done: u64,
    /// Data keys that did not open in this pass, and stay where they are.
    pub failed: u64,
    /// Data keys that it is still to move.
    pub remaining: u64,
    /// Batches committed so far.
    pub batches: u64,
    /// Data keys a second, since this process began to watch; 0 when that is not known yet.
    pub rate: f64,
    /// Why it is blocked, if it is.
    pub blocked: keystead_text,
    /// The epochs that it moves.
    pub sources: *const keystead_rewrap_source,
    /// How many.
    pub sources_len: usize,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_rewrap_progress {
    const FIRST_SIZE: usize = 104;
}

/// Told how a job stands, on the thread that waits. Returns 0 to go on, anything else to stop waiting (the job goes on).
/// *progress is valid until it returns. Throws nothing; may call the library, but does not free the job.
pub type keystead_rewrap_callback =
    Option<unsafe extern "C" fn(context: *mut c_void, progress: *const keystead_rewrap_progress) -> i32>;

/// How a job stood. Freed with keystead_rewrap_status_free(). Threads: any, also at once.
#[derive(Debug)]
pub struct keystead_rewrap_status {
    status: RewrapStatus,
    blocked: Option<Text>,
    sources: Vec<keystead_rewrap_source>,
}

impl From<RewrapStatus> for keystead_rewrap_status {
    fn from(status: RewrapStatus) -> Self {
        let blocked = match &status.state {
            RewrapState::Blocked(reason) => Some(Text::new(reason.as_str())),
            RewrapState::Running | RewrapState::Done => None,
        };
        let sources = status
            .sources
            .iter()
            .map(|source| keystead_rewrap_source {
                epoch: source.epoch.get(),
                target: source.target.get(),
                handed_over: source.handed_over.into(),
                retired: source.retired.into(),
            })
            .collect();
        Self {
            status,
            blocked,
            sources,
        }
    }
}

impl keystead_rewrap_status {
    fn view(&self) -> keystead_rewrap_progress {
        let status = &self.status;
        keystead_rewrap_progress {
            struct_size: u32::try_from(size_of::<keystead_rewrap_progress>()).expect("small"),
            phase: match status.phase {
                RewrapPhase::HandOver => KEYSTEAD_REWRAP_HAND_OVER,
                RewrapPhase::Rewrap => KEYSTEAD_REWRAP_MOVING,
            },
            state: match status.state {
                RewrapState::Running => KEYSTEAD_REWRAP_RUNNING,
                RewrapState::Blocked(_) => KEYSTEAD_REWRAP_BLOCKED,
                RewrapState::Done => KEYSTEAD_REWRAP_DONE,
            },
            reserved: 0,
            job: status.job,
            total: status.total,
            done: status.done,
            failed: status.failed,
            remaining: status.remaining,
            batches: status.batches,
            rate: status.rate,
            blocked: text::view(&self.blocked),
            sources: self.sources.as_ptr(),
            sources_len: self.sources.len(),
        }
    }
}

/// The caller's callback, and whether it has asked to stop.
struct Watcher {
    callback: keystead_rewrap_callback,
    context: *mut c_void,
    stopped: bool,
}

impl Watcher {
    fn tell(&mut self, status: &RewrapStatus) {
        if let (Some(callback), false) = (self.callback, self.stopped) {
            let status = keystead_rewrap_status::from(status.clone());
            let view = status.view();
            // SAFETY: the caller's function, with what the header says, which lives until it returns.
            self.stopped = unsafe { callback(self.context, &raw const view) } != 0;
        }
    }
}

/// How long a callback's wish to stop may be overheard.
const SLICE: Duration = Duration::from_millis(200);

fn wait(job: &RewrapJob, at_most: Duration, watcher: &mut Watcher) -> Result<RewrapStatus, Failure> {
    let mut left = at_most;
    loop {
        let slice = left.min(SLICE);
        if let Some(done) = job.wait_for(slice, |status| watcher.tell(status))? {
            return Ok(done);
        }
        left -= slice;
        if watcher.stopped {
            let reason = "the callback stopped the wait; the job goes on";
            return Err(Failure::new(KEYSTEAD_STOPPED, reason));
        }
        if left.is_zero() {
            let reason = "the re-wrap job is not done within the time given; it goes on";
            return Err(Failure::new(KEYSTEAD_TIMED_OUT, reason));
        }
    }
}

/// The organization's running re-wrap job, to wait for.
///
/// Errors: KEYSTEAD_NO_JOB when none runs. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_rewrap_job_open(
    organization: *const keystead_organization,
    out: *mut *mut keystead_rewrap_job,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(organization)?;
            let job = handle.organization.rewrap_job()?;
            out.give(keystead_rewrap_job::new(job, handle));
            Ok(())
        })
    }
}

/// The job's number; 0 when the change moved nothing, and there is nothing to wait for. Null gives 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_rewrap_job_number(job: *const keystead_rewrap_job) -> u64 {
    // SAFETY: null or a live job, as the header says.
    unsafe { guard::look(job, 0, |job| job.job.number().unwrap_or(0)) }
}

/// Frees the handle; the job goes on. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_rewrap_job_free(job: *mut keystead_rewrap_job) {
    // SAFETY: null or a job that is not used any more, as the header says.
    unsafe { guard::free_handle(job) }
}

/// Waits until a job is done, at most timeout_ms (KEYSTEAD_FOREVER: without end), telling callback (which may be null) of every
/// change. A job that is blocked goes on trying, and this goes on waiting. *out (which may be null) gets how it stood at the
/// end, when it is done.
///
/// Errors: KEYSTEAD_TIMED_OUT, KEYSTEAD_STOPPED when the callback said so, KEYSTEAD_CLOSED. Threads: any.
///
///     static int32_t show(void *context, const keystead_rewrap_progress *progress) {
///         (void)context;
///         printf("%lu of %lu\n", (unsigned long)progress->done, (unsigned long)progress->total);
///         return 0;
///     }
///     code = keystead_rewrap_wait(job, KEYSTEAD_FOREVER, show, NULL, NULL, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_rewrap_wait(
    job: *const keystead_rewrap_job,
    timeout_ms: u64,
    callback: keystead_rewrap_callback,
    context: *mut c_void,
    out: *mut *mut keystead_rewrap_status,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.optional_out(out, std::ptr::null_mut());
            let handle = called.handle(job)?;
            let mut watcher = Watcher {
                callback,
                context,
                stopped: false,
            };
            let status = wait(&handle.job, milliseconds(timeout_ms), &mut watcher)?;
            if let Some(out) = out {
                out.give(status.into());
            }
            Ok(())
        })
    }
}

/// Does a job's work on the calling thread until it is done or blocked, telling callback (which may be null) after every batch;
/// what the callback returns is not looked at. *out (which may be null) gets how it stands then: a KMS that does not answer is
/// a state, not an error. For stores that were opened without_background_rewrap.
///
/// Errors: those of the store. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_rewrap_run_here(
    job: *const keystead_rewrap_job,
    callback: keystead_rewrap_callback,
    context: *mut c_void,
    out: *mut *mut keystead_rewrap_status,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.optional_out(out, std::ptr::null_mut());
            let handle = called.handle(job)?;
            let mut watcher = Watcher {
                callback,
                context,
                stopped: false,
            };
            let status = handle.job.run_here(|status| {
                watcher.tell(status);
                watcher.stopped = false;
            })?;
            if let Some(out) = out {
                out.give(status.into());
            }
            Ok(())
        })
    }
}

/// How the organization's re-wrap job stands: the running one, or the last. *out is null when there never was one. Asks no
/// KMS. Threads: any.
///
///     code = keystead_rewrap_status_read(acme, &status, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_rewrap_status_read(
    organization: *const keystead_organization,
    out: *mut *mut keystead_rewrap_status,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(organization)?;
            if let Some(status) = handle.organization.rewrap_status()? {
                out.give(status.into());
            }
            Ok(())
        })
    }
}

/// Writes how the job stood to *out, whose struct_size is set. What is pointed to belongs to the status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_rewrap_status_look(
    status: *const keystead_rewrap_status,
    out: *mut keystead_rewrap_progress,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let status = called.data(status, "status")?;
            called.fill(out, status.view())
        })
    }
}

/// Frees a status. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_rewrap_status_free(status: *mut keystead_rewrap_status) {
    // SAFETY: null or a status that is not used any more, as the header says.
    unsafe { guard::free(status) }
}
