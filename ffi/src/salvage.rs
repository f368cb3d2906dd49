//! From a damaged file to a new store, and what was lost on the way.

#![allow(unsafe_code)]

use crate::error::{Failure, keystead_error};
use crate::guard::{self, invalid};
use crate::list::Items;
use crate::store::{self, keystead_store_options};
use crate::structs::Struct;
use crate::text::{self, Text, keystead_text};
use engine::{Loss, LossKind, SalvageOptions, SalvageProgress, SalvageReport, StoreId};
use std::ffi::{c_char, c_void};

/// What was lost is a value.
pub const KEYSTEAD_LOST_VERSION: i32 = 1;
/// A value that may have been destroyed before: nothing that is left says. See keep_undecided.
pub const KEYSTEAD_LOST_UNDECIDED: i32 = 2;
/// A registered key: its config is gone. Register the KMS key again under another name.
pub const KEYSTEAD_LOST_KEY: i32 = 3;
/// An epoch: its key cannot be had any more, or its record is gone.
pub const KEYSTEAD_LOST_EPOCH: i32 = 4;
/// Audit records.
pub const KEYSTEAD_LOST_AUDIT_RECORDS: i32 = 5;
/// An organization with all that it had: its name is gone.
pub const KEYSTEAD_LOST_ORGANIZATION: i32 = 6;
/// Records of the journal, the newest commits: what they changed is as it was before.
pub const KEYSTEAD_LOST_JOURNAL: i32 = 7;

/// What is salvaged, and how. Begins with its size; what is 0 has its default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_salvage_options {
    /// sizeof(keystead_salvage_options).
    pub struct_size: u32,
    /// Every value whose epoch key can be had is opened, which asks the KMS of each live epoch once, unless this is 1: then a
    /// value is taken for right when the tags of its blocks and rows are.
    pub without_opening: i32,
    /// 1 keeps values of which nothing left says whether they were destroyed. 0: what was destroyed must not come back, so they
    /// are named as lost.
    pub keep_undecided: i32,
    /// 0.
    pub reserved: u32,
    /// The store's id, 16 bytes, for a file of which neither copy of the header is whole. Null: the file says it.
    pub store_id: *const u8,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_salvage_options {
    const FIRST_SIZE: usize = 24;
}

/// How far a salvage is. Valid during the callback. Later versions add fields at the end.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_salvage_step {
    /// How large it is.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// What it is doing, for people.
    pub phase: keystead_text,
    /// How much of it is done: rows, blocks, organizations or versions.
    pub done: u64,
    /// Of how much; 0 where that is not known.
    pub total: u64,
}

/// Told how far a salvage is, on the thread of keystead_salvage(). Throws nothing.
pub type keystead_salvage_progress =
    Option<unsafe extern "C" fn(context: *mut c_void, step: *const keystead_salvage_step)>;

/// What came of a salvage. Freed with keystead_salvage_report_free(). Threads: any, also at once.
#[derive(Debug)]
pub struct keystead_salvage_report {
    report: SalvageReport,
    store_id: StoreId,
    lost: Items<LossItem>,
    unopened: Items<LossItem>,
}

#[derive(Debug)]
struct LossItem {
    kind: i32,
    organization: Option<Text>,
    organization_id: u32,
    path: Option<Text>,
    secret_id: u64,
    version: u32,
    what: Text,
}

impl From<Loss> for LossItem {
    fn from(loss: Loss) -> Self {
        Self {
            kind: match loss.kind {
                LossKind::Version => KEYSTEAD_LOST_VERSION,
                LossKind::Undecided => KEYSTEAD_LOST_UNDECIDED,
                LossKind::Key => KEYSTEAD_LOST_KEY,
                LossKind::Epoch => KEYSTEAD_LOST_EPOCH,
                LossKind::AuditRecords => KEYSTEAD_LOST_AUDIT_RECORDS,
                LossKind::Organization => KEYSTEAD_LOST_ORGANIZATION,
                LossKind::Journal => KEYSTEAD_LOST_JOURNAL,
            },
            organization: text::optional(loss.organization),
            organization_id: loss.organization_id.unwrap_or(0),
            path: text::optional(loss.path),
            secret_id: loss.secret_id.unwrap_or(0),
            version: loss.version.map_or(0, |version| version.get()),
            what: Text::new(loss.what),
        }
    }
}

impl LossItem {
    fn view(&self) -> keystead_loss {
        keystead_loss {
            struct_size: 0,
            kind: self.kind,
            organization_id: self.organization_id,
            version: self.version,
            organization: text::view(&self.organization),
            path: text::view(&self.path),
            secret_id: self.secret_id,
            what: self.what.view(),
        }
    }
}

/// What stands in the new store, and how much was lost.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_salvage_counts {
    /// sizeof(keystead_salvage_counts), set by the caller.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// The id of both stores.
    pub store_id: [u8; 16],
    /// Organizations in the new store.
    pub organizations: u64,
    /// Secrets in it, those included of which no version is left.
    pub secrets: u64,
    /// Versions whose values are in it.
    pub versions: u64,
    /// Of those, the ones that were opened.
    pub opened: u64,
    /// Of those, the ones whose rows all carry their tags, but which were not opened.
    pub tagged: u64,
    /// Of those, the ones that stood in pages which nothing led to, and were not opened: whether they are right shows when they
    /// are read.
    pub unproven: u64,
    /// Versions that were destroyed before: their numbers stay.
    pub destroyed: u64,
    /// Audit records that were kept in their chain.
    pub audit_kept: u64,
    /// Audit records behind a missing one, carried over into the new chain.
    pub audit_carried: u64,
    /// Records of the journal that are missing.
    pub journal_records_lost: u64,
    /// How many losses are listed; 0: nothing was lost.
    pub lost: u64,
    /// How many reasons are listed why values were not opened.
    pub unopened: u64,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_salvage_counts {
    const FIRST_SIZE: usize = 120;
}

/// One thing that was lost, or that was not opened.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_loss {
    /// sizeof(keystead_loss), set by the caller.
    pub struct_size: u32,
    /// KEYSTEAD_LOST_...: what kind of thing.
    pub kind: i32,
    /// Whose, by number; 0: nobody's.
    pub organization_id: u32,
    /// In which version; 0: in none.
    pub version: u32,
    /// Whose, if its name is known.
    pub organization: keystead_text,
    /// At which path; null when it is not of a secret, or its path is gone as well.
    pub path: keystead_text,
    /// The secret's number; 0: not known.
    pub secret_id: u64,
    /// What it was, and why it is lost: for people.
    pub what: keystead_text,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_loss {
    const FIRST_SIZE: usize = 72;
}

struct Watcher {
    progress: keystead_salvage_progress,
    context: *mut c_void,
}

impl Watcher {
    fn tell(&self, step: SalvageProgress) {
        if let Some(progress) = self.progress {
            let phase = Text::new(step.phase);
            let step = keystead_salvage_step {
                struct_size: u32::try_from(size_of::<keystead_salvage_step>()).expect("small"),
                reserved: 0,
                phase: phase.view(),
                done: step.done,
                total: step.total.unwrap_or(0),
            };
            // SAFETY: the caller's function, with what the header says, which lives until it returns.
            unsafe { progress(self.context, &raw const step) };
        }
    }
}

/// Copies whatever is provably right in a damaged store into a new one, and says what is lost, each version by name. A value
/// is copied only to the place for which it was sealed. The damaged file is locked and read, never written; the new one
/// appears, mode 0600, when it is whole. Opened, it verifies clean, and writes and re-wrap jobs go on.
///
/// The new store has the same id, organizations, histories and keys. A lost version keeps its number. Audit records behind a
/// missing one are carried over into a new chain: take a new checkpoint. Both files then hold the keys to their wraps: destroy the
/// damaged one when it is no longer needed.
///
/// options is that of keystead_store_open(), without a checkpoint: its backends open values, and one that does not answer is in the report, not an
/// error. how and progress may be null. Reads the file up to three times; memory: some MiB, and some hundred bytes for
/// each version that is lost. A file that was made to do harm may make it take long, or end the process: one that comes from
/// elsewhere is for the command, `keystead salvage`.
///
/// Errors: KEYSTEAD_STORE_NOT_FOUND, KEYSTEAD_ALREADY_OPEN; KEYSTEAD_NOT_A_STORE or KEYSTEAD_DAMAGED when neither copy of the
/// header is whole and no store_id is given; KEYSTEAD_STORE_EXISTS for the new one; KEYSTEAD_STORAGE,
/// KEYSTEAD_INVALID_ARGUMENT. Threads: any.
///
///     code = keystead_salvage("damaged.keystead", KEYSTEAD_ZERO_TERMINATED, "new.keystead", KEYSTEAD_ZERO_TERMINATED,
///                             &options, NULL, NULL, NULL, &salvaged, &error);
///     if (code == KEYSTEAD_OK) {
///         keystead_loss loss = { sizeof loss };
///         for (i = 0; keystead_salvage_report_lost(salvaged, i, &loss, NULL) == KEYSTEAD_OK; i++) {
///             printf("%s: %s\n", loss.path.data == NULL ? "" : loss.path.data, loss.what.data);
///         }
///     }
///     keystead_salvage_report_free(salvaged);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_salvage(
    damaged_path: *const c_char,
    damaged_path_len: usize,
    new_path: *const c_char,
    new_path_len: usize,
    options: *const keystead_store_options,
    how: *const keystead_salvage_options,
    progress: keystead_salvage_progress,
    context: *mut c_void,
    out: *mut *mut keystead_salvage_report,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let damaged = store::file_path(called, damaged_path, damaged_path_len, "damaged_path")?;
            let new = store::file_path(called, new_path, new_path_len, "new_path")?;
            if !called.options(options, "options")?.checkpoint_json.is_null() {
                return Err(invalid(
                    "a checkpoint is for opening a store: what was lost to damage is not behind or ahead of it"
                        .into(),
                ));
            }
            let options = store::options(called, options)?;
            let how = called.options(how, "how")?;
            let mut chosen = SalvageOptions::default()
                .open_values(how.without_opening == 0)
                .keep_undecided(how.keep_undecided != 0);
            if !how.store_id.is_null() {
                chosen = chosen.store_id(store_id(called.array(how.store_id, 16, "store_id")?)?);
            }
            let watcher = Watcher { progress, context };
            let mut report = options.salvage(damaged, new, &chosen, |step| watcher.tell(step))?;
            let items =
                |losses: &mut Vec<Loss>| Items::whole(std::mem::take(losses).into_iter().map(LossItem::from));
            out.give(keystead_salvage_report {
                lost: items(&mut report.lost),
                unopened: items(&mut report.unopened),
                store_id: report.store_id.parse()?,
                report,
            });
            Ok(())
        })
    }
}

fn store_id(bytes: &[u8]) -> Result<StoreId, Failure> {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(digits.parse()?)
}

/// Writes how much was salvaged and lost to *out, whose struct_size is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_salvage_report_counts(
    report: *const keystead_salvage_report,
    out: *mut keystead_salvage_counts,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let found = called.data(report, "report")?;
            let counts = &found.report;
            called.fill(
                out,
                keystead_salvage_counts {
                    struct_size: 0,
                    reserved: 0,
                    store_id: *found.store_id.as_bytes(),
                    organizations: counts.organizations,
                    secrets: counts.secrets,
                    versions: counts.versions,
                    opened: counts.opened,
                    tagged: counts.tagged,
                    unproven: counts.unproven,
                    destroyed: counts.destroyed,
                    audit_kept: counts.audit_kept,
                    audit_carried: counts.audit_carried,
                    journal_records_lost: counts.journal_records_lost,
                    lost: found.lost.items.len() as u64,
                    unopened: found.unopened.items.len() as u64,
                },
            )
        })
    }
}

/// Writes the loss at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_salvage_report_lost(
    report: *const keystead_salvage_report,
    index: usize,
    out: *mut keystead_loss,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let report = called.data(report, "report")?;
            report.lost.fill(called, index, out, LossItem::view)
        })
    }
}

/// Writes why values were not opened, an epoch whose KMS did not answer, at index (from 0) to *out, whose struct_size is set.
/// What is pointed to belongs to the report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_salvage_report_unopened(
    report: *const keystead_salvage_report,
    index: usize,
    out: *mut keystead_loss,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let report = called.data(report, "report")?;
            report.unopened.fill(called, index, out, LossItem::view)
        })
    }
}

/// Frees a report. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_salvage_report_free(report: *mut keystead_salvage_report) {
    // SAFETY: null or a report that is not used any more, as the header says.
    unsafe { guard::free(report) }
}
