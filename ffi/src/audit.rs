//! The record of every change.

#![allow(unsafe_code)]

use crate::error::keystead_error;
use crate::guard;
use crate::list::Items;
use crate::organization::keystead_organization;
use crate::structs::Struct;
use crate::text::{self, Text, keystead_text};
use engine::AuditRecord;
use std::ffi::c_char;

/// Audit records, oldest first. Freed with keystead_audit_list_free(). Threads: any, also at once.
#[derive(Debug)]
pub struct keystead_audit_list(Items<AuditItem>);

#[derive(Debug)]
struct AuditItem {
    sequence: u64,
    at_ms: u64,
    event: Text,
    details_json: Text,
    actor: Option<Text>,
    reason: Option<Text>,
    hash: Text,
}

impl From<AuditRecord> for AuditItem {
    fn from(record: AuditRecord) -> Self {
        // An event is one name with its details, both in serde's form and in ours.
        let event = serde_json::to_value(&record.event).unwrap_or_default();
        let (name, details) = match event {
            serde_json::Value::Object(fields) => fields.into_iter().next().unwrap_or_default(),
            serde_json::Value::String(name) => (name, serde_json::json!({})),
            _ => Default::default(),
        };
        Self {
            sequence: record.sequence,
            at_ms: record.at_ms,
            event: Text::new(name),
            details_json: Text::new(details.to_string()),
            actor: text::optional(record.by.actor),
            reason: text::optional(record.by.reason),
            hash: Text::new(record.hash),
        }
    }
}

/// One record of the audit trail.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_audit_record {
    /// sizeof(keystead_audit_record), set by the caller.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Its number in the organization's chain, from 1.
    pub sequence: u64,
    /// When it happened: milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened: "VersionPut", "KeyAdded", "EpochOpened", … Later versions may have more.
    pub event: keystead_text,
    /// Its details, a JSON object: {"path":"prod/db/password","version":1}.
    pub details_json: keystead_text,
    /// Who did it, if that was said.
    pub actor: keystead_text,
    /// Why, if that was said.
    pub reason: keystead_text,
    /// The hash that chains it to the record before, as hexadecimal digits.
    pub hash: keystead_text,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_audit_record {
    const FIRST_SIZE: usize = 104;
}

/// The audit records behind number `after` (0: from the first), oldest first, at most limit (1 to 10,000) of them; each is
/// checked to chain to the one before it. Asks no KMS.
///
/// Errors: KEYSTEAD_DAMAGED where the chain is broken. Threads: any.
///
///     code = keystead_audit_list_read(acme, 0, 1000, &list, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_audit_list_read(
    organization: *const keystead_organization,
    after: u64,
    limit: usize,
    out: *mut *mut keystead_audit_list,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(organization)?;
            let records = handle.organization.audit(after, limit)?;
            out.give(keystead_audit_list(Items::whole(
                records.into_iter().map(AuditItem::from),
            )));
            Ok(())
        })
    }
}

/// How many records it has. Null gives 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_audit_list_len(list: *const keystead_audit_list) -> usize {
    // SAFETY: null or a live list, as the header says.
    unsafe { guard::look(list, 0, |list| list.0.items.len()) }
}

/// Writes the item at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_audit_list_get(
    list: *const keystead_audit_list,
    index: usize,
    out: *mut keystead_audit_record,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let list = called.data(list, "list")?;
            list.0.fill(called, index, out, |item| keystead_audit_record {
                struct_size: 0,
                reserved: 0,
                sequence: item.sequence,
                at_ms: item.at_ms,
                event: item.event.view(),
                details_json: item.details_json.view(),
                actor: text::view(&item.actor),
                reason: text::view(&item.reason),
                hash: item.hash.view(),
            })
        })
    }
}

/// Frees a list. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_audit_list_free(list: *mut keystead_audit_list) {
    // SAFETY: null or a list that is not used any more, as the header says.
    unsafe { guard::free(list) }
}

/// The newest audit record's place in its chain: noted elsewhere, it shows later that nothing before was changed.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_audit_head {
    /// sizeof(keystead_audit_head), set by the caller.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Its number.
    pub sequence: u64,
    /// Its hash: 64 hexadecimal digits and zero bytes.
    pub hash: [c_char; 72],
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_audit_head {
    const FIRST_SIZE: usize = 88;
}

/// Writes the newest audit record's number and hash to *out, whose struct_size is set. Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_audit_head_read(
    organization: *const keystead_organization,
    out: *mut keystead_audit_head,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let handle = called.handle(organization)?;
            let head = handle.organization.audit_head()?;
            let mut hash = [0; 72];
            for (to, from) in hash.iter_mut().zip(head.hash.bytes().take(71)) {
                *to = c_char::from_ne_bytes([from]);
            }
            called.fill(
                out,
                keystead_audit_head {
                    struct_size: 0,
                    reserved: 0,
                    sequence: head.sequence,
                    hash,
                },
            )
        })
    }
}
