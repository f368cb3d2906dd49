//! Everything that can be checked about a store.

#![allow(unsafe_code)]

use crate::error::keystead_error;
use crate::guard;
use crate::list::Items;
use crate::store::keystead_store;
use crate::structs::Struct;
use crate::text::{self, Text, keystead_text};
use engine::{Problem, VerifyOptions, VerifyPhase, VerifyReport};
use std::ffi::c_void;

/// Open every data key and every value, too: asks the KMS of every live epoch.
pub const KEYSTEAD_VERIFY_OPEN_VALUES: u32 = 1;

/// Told how many rows were looked at so far. Called on the thread of keystead_verify(), throws nothing.
pub type keystead_verify_progress = Option<unsafe extern "C" fn(context: *mut c_void, looked_at: u64)>;

/// What a verification found. Freed with keystead_verify_report_free(). Threads: any, also at once.
#[derive(Debug)]
pub struct keystead_verify_report {
    counts: VerifyReport,
    problems: Items<ProblemItem>,
    unopened: Items<ProblemItem>,
}

#[derive(Debug)]
struct ProblemItem {
    organization: Option<Text>,
    path: Option<Text>,
    version: u32,
    what: Text,
}

impl From<Problem> for ProblemItem {
    fn from(problem: Problem) -> Self {
        Self {
            organization: text::optional(problem.organization),
            path: text::optional(problem.path),
            version: problem.version.map_or(0, |version| version.get()),
            what: Text::new(problem.what),
        }
    }
}

impl ProblemItem {
    fn view(&self) -> keystead_problem {
        keystead_problem {
            struct_size: 0,
            version: self.version,
            organization: text::view(&self.organization),
            path: text::view(&self.path),
            what: self.what.view(),
        }
    }
}

/// What was looked at.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_verify_counts {
    /// sizeof(keystead_verify_counts), set by the caller.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Organizations looked at.
    pub organizations: u64,
    /// Secrets looked at.
    pub secrets: u64,
    /// Versions looked at.
    pub versions: u64,
    /// Values that were opened.
    pub values_opened: u64,
    /// Epochs looked at.
    pub epochs: u64,
    /// Audit records looked at.
    pub audit_records: u64,
    /// How many problems are listed, at most 10,000; 0: all is well.
    pub problems: u64,
    /// How many values could not be opened since a KMS did not answer or a key was taken away, at most 10,000.
    pub unopened: u64,
    /// Blocks of 4 KiB that were read from the disk and compared with their tags.
    pub blocks: u64,
    /// Blocks that do not match their tags, and to which nothing refers: a crash in the middle of a commit leaves such ones.
    pub stale_blocks: u64,
    /// Chunks of large values looked at.
    pub chunks: u64,
    /// Wraps of epoch keys that were opened under the shred keys in their cells.
    pub wraps: u64,
    /// 1 when everything was looked at; 0 when something was so damaged that not all could be: what it was is among the problems.
    /// A library that is too old to say leaves it 0.
    pub complete: i32,
    /// 0.
    pub reserved_more: u32,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_verify_counts {
    const FIRST_SIZE: usize = 72;
}

/// One thing that is wrong, or that could not be opened.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_problem {
    /// sizeof(keystead_problem), set by the caller.
    pub struct_size: u32,
    /// In which version; 0: in none.
    pub version: u32,
    /// Whose, if it is somebody's.
    pub organization: keystead_text,
    /// At which path, if at one.
    pub path: keystead_text,
    /// What.
    pub what: keystead_text,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_problem {
    const FIRST_SIZE: usize = 56;
}

/// Checks the whole store: every page, row, chain and count; with KEYSTEAD_VERIFY_OPEN_VALUES in flags also that every value
/// opens. Takes time in proportion to the store, changes nothing, and stops nobody. What is damaged is in the report, not an
/// error. progress may be null. A file that was made to do harm may make it take long, or end the process: of one that comes
/// from elsewhere, ask the command `keystead verify`, which looks at it in a process of its own.
///
/// Errors: KEYSTEAD_CLOSED, KEYSTEAD_STORAGE, KEYSTEAD_INVALID_ARGUMENT for an unknown flag. Threads: any.
///
///     code = keystead_verify(store, 0, NULL, NULL, &report, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_verify(
    store: *const keystead_store,
    flags: u32,
    progress: keystead_verify_progress,
    context: *mut c_void,
    out: *mut *mut keystead_verify_report,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let store = called.handle(store)?;
            if flags & !KEYSTEAD_VERIFY_OPEN_VALUES != 0 {
                return Err(guard::invalid(
                    "flags has a bit that this library does not know".into(),
                ));
            }
            let options = VerifyOptions {
                open_values: flags & KEYSTEAD_VERIFY_OPEN_VALUES != 0,
            };
            let mut counts = store.store.verify(options, |done| {
                if let Some(progress) = progress
                    && done.phase == VerifyPhase::Secrets
                {
                    progress(context, done.done);
                }
            })?;
            let items = |problems: &mut Vec<Problem>| {
                Items::whole(std::mem::take(problems).into_iter().map(ProblemItem::from))
            };
            out.give(keystead_verify_report {
                problems: items(&mut counts.problems),
                unopened: items(&mut counts.unopened),
                counts,
            });
            Ok(())
        })
    }
}

/// Writes what was looked at to *out, whose struct_size is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_verify_report_counts(
    report: *const keystead_verify_report,
    out: *mut keystead_verify_counts,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let report = called.data(report, "report")?;
            let counts = &report.counts;
            called.fill(
                out,
                keystead_verify_counts {
                    struct_size: 0,
                    reserved: 0,
                    organizations: counts.organizations,
                    secrets: counts.secrets,
                    versions: counts.versions,
                    values_opened: counts.values_opened,
                    epochs: counts.epochs,
                    audit_records: counts.audit_records,
                    problems: report.problems.items.len() as u64,
                    unopened: report.unopened.items.len() as u64,
                    blocks: counts.blocks,
                    stale_blocks: counts.stale_blocks,
                    chunks: counts.chunks,
                    wraps: counts.wraps,
                    complete: counts.complete.into(),
                    reserved_more: 0,
                },
            )
        })
    }
}

/// Writes the problem at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_verify_report_problem(
    report: *const keystead_verify_report,
    index: usize,
    out: *mut keystead_problem,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let report = called.data(report, "report")?;
            report.problems.fill(called, index, out, ProblemItem::view)
        })
    }
}

/// Writes the value that could not be opened at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_verify_report_unopened(
    report: *const keystead_verify_report,
    index: usize,
    out: *mut keystead_problem,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let report = called.data(report, "report")?;
            report.unopened.fill(called, index, out, ProblemItem::view)
        })
    }
}

/// Frees a report. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_verify_report_free(report: *mut keystead_verify_report) {
    // SAFETY: null or a report that is not used any more, as the header says.
    unsafe { guard::free(report) }
}
