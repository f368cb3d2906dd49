//! Every epoch of an organization.

#![allow(unsafe_code)]

use crate::error::keystead_error;
use crate::guard;
use crate::list::Items;
use crate::organization::keystead_organization;
use crate::structs::Struct;
use crate::text::{self, Text, keystead_text};
use engine::{Epoch, EpochCause, EpochState};

/// New data keys are wrapped under it.
pub const KEYSTEAD_EPOCH_ACTIVE: i32 = 1;
/// Data keys are, or are going to be, wrapped under it.
pub const KEYSTEAD_EPOCH_LIVE: i32 = 2;
/// No data key refers to it; its wraps are erased.
pub const KEYSTEAD_EPOCH_RETIRED: i32 = 3;

/// It was opened when the organization was created.
pub const KEYSTEAD_CAUSE_ORGANIZATION_CREATED: i32 = 1;
/// It was opened when the first customer-managed key was added.
pub const KEYSTEAD_CAUSE_FIRST_OWN_KEY: i32 = 2;
/// It was opened when a key was made the default.
pub const KEYSTEAD_CAUSE_SET_DEFAULT: i32 = 3;
/// It was opened when a key was rotated.
pub const KEYSTEAD_CAUSE_ROTATION: i32 = 4;
/// It was opened to take what a disabled key held.
pub const KEYSTEAD_CAUSE_KEY_DISABLED: i32 = 5;
/// It was opened when all customer-managed keys were disabled.
pub const KEYSTEAD_CAUSE_ALL_KEYS_DISABLED: i32 = 6;
/// Why is not known: its record was lost to damage, and a salvage put another one in its place.
pub const KEYSTEAD_CAUSE_RECORD_LOST: i32 = 7;

/// The epochs of an organization, from the first. Freed with keystead_epoch_list_free(). Threads: any, also at once.
#[derive(Debug)]
pub struct keystead_epoch_list(Items<EpochItem>);

#[derive(Debug)]
struct EpochItem {
    number: u32,
    state: i32,
    cause: i32,
    data_keys: u64,
    opened_at_ms: u64,
    retired_at_ms: u64,
    key: Text,
    kms_key_id: Text,
    actor: Option<Text>,
    reason: Option<Text>,
    hash: Text,
    wrapped_by: Vec<keystead_wrapped_by>,
    _wrapped_by_texts: Vec<[Text; 2]>,
}

/// A registered key that wraps an epoch. This struct does not grow.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_wrapped_by {
    /// The registered key.
    pub key: keystead_text,
    /// The KMS's own key id and version, as that wrap used it.
    pub kms_key_id: keystead_text,
}

/// A key epoch.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_epoch {
    /// sizeof(keystead_epoch), set by the caller.
    pub struct_size: u32,
    /// Its number, from 1.
    pub number: u32,
    /// KEYSTEAD_EPOCH_...: what it is good for.
    pub state: i32,
    /// KEYSTEAD_CAUSE_...: why it was opened. Later versions may have more.
    pub cause: i32,
    /// How many data keys refer to it.
    pub data_keys: u64,
    /// When it was opened: milliseconds since the Unix epoch.
    pub opened_at_ms: u64,
    /// When it was retired: milliseconds since the Unix epoch; 0 when it is not.
    pub retired_at_ms: u64,
    /// The registered key under which it was opened.
    pub key: keystead_text,
    /// The KMS's own key id and version that wrapped it when it was opened.
    pub kms_key_id: keystead_text,
    /// Who opened it, if that was said.
    pub actor: keystead_text,
    /// The reason given, if one was.
    pub reason: keystead_text,
    /// The hash that chains it to the epochs before, as hexadecimal digits.
    pub hash: keystead_text,
    /// The registered keys that wrap it now; none when it is retired.
    pub wrapped_by: *const keystead_wrapped_by,
    /// How many.
    pub wrapped_by_len: usize,
}

// SAFETY: `repr(C)`, size first, no padding, zeros are values.
unsafe impl Struct for keystead_epoch {
    const FIRST_SIZE: usize = 136;
}

impl From<Epoch> for EpochItem {
    fn from(epoch: Epoch) -> Self {
        let texts: Vec<[Text; 2]> = epoch
            .wrapped_by
            .into_iter()
            .map(|by| [Text::new(by.key), Text::new(by.kms_key_id)])
            .collect();
        Self {
            number: epoch.number.get(),
            state: match epoch.state {
                EpochState::Active => KEYSTEAD_EPOCH_ACTIVE,
                EpochState::Live => KEYSTEAD_EPOCH_LIVE,
                EpochState::Retired => KEYSTEAD_EPOCH_RETIRED,
            },
            cause: match epoch.cause {
                EpochCause::OrganizationCreated => KEYSTEAD_CAUSE_ORGANIZATION_CREATED,
                EpochCause::FirstOwnKey => KEYSTEAD_CAUSE_FIRST_OWN_KEY,
                EpochCause::SetDefault => KEYSTEAD_CAUSE_SET_DEFAULT,
                EpochCause::Rotation => KEYSTEAD_CAUSE_ROTATION,
                EpochCause::KeyDisabled => KEYSTEAD_CAUSE_KEY_DISABLED,
                EpochCause::AllKeysDisabled => KEYSTEAD_CAUSE_ALL_KEYS_DISABLED,
                EpochCause::RecordLost => KEYSTEAD_CAUSE_RECORD_LOST,
            },
            data_keys: epoch.references,
            opened_at_ms: epoch.opened_at_ms,
            retired_at_ms: epoch.retired_at_ms.unwrap_or(0),
            key: Text::new(epoch.key),
            kms_key_id: Text::new(epoch.kms_key_id),
            actor: text::optional(epoch.opened_by.actor),
            reason: text::optional(epoch.opened_by.reason),
            hash: Text::new(epoch.hash),
            wrapped_by: texts
                .iter()
                .map(|[key, id]| keystead_wrapped_by {
                    key: key.view(),
                    kms_key_id: id.view(),
                })
                .collect(),
            _wrapped_by_texts: texts,
        }
    }
}

/// Every epoch since the first. Reads the store only: it works while every KMS is down.
///
/// Errors: KEYSTEAD_DAMAGED when the chain of epochs is broken. Threads: any.
///
///     keystead_epoch epoch = { sizeof epoch };
///     code = keystead_epoch_list_read(acme, &list, &error);
///     for (i = 0; i < keystead_epoch_list_len(list); i++) {
///         keystead_epoch_list_get(list, i, &epoch, NULL);
///         printf("%u %s\n", epoch.number, epoch.key.data);
///     }
///     keystead_epoch_list_free(list);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_epoch_list_read(
    organization: *const keystead_organization,
    out: *mut *mut keystead_epoch_list,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let handle = called.handle(organization)?;
            let epochs = handle.organization.epochs()?;
            out.give(keystead_epoch_list(Items::whole(
                epochs.into_iter().map(EpochItem::from),
            )));
            Ok(())
        })
    }
}

/// How many epochs it has. Null gives 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_epoch_list_len(list: *const keystead_epoch_list) -> usize {
    // SAFETY: null or a live list, as the header says.
    unsafe { guard::look(list, 0, |list| list.0.items.len()) }
}

/// Writes the item at index (from 0) to *out, whose struct_size is set. What is pointed to belongs to the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_epoch_list_get(
    list: *const keystead_epoch_list,
    index: usize,
    out: *mut keystead_epoch,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let list = called.data(list, "list")?;
            list.0.fill(called, index, out, |item| keystead_epoch {
                struct_size: 0,
                number: item.number,
                state: item.state,
                cause: item.cause,
                data_keys: item.data_keys,
                opened_at_ms: item.opened_at_ms,
                retired_at_ms: item.retired_at_ms,
                key: item.key.view(),
                kms_key_id: item.kms_key_id.view(),
                actor: text::view(&item.actor),
                reason: text::view(&item.reason),
                hash: item.hash.view(),
                wrapped_by: item.wrapped_by.as_ptr(),
                wrapped_by_len: item.wrapped_by.len(),
            })
        })
    }
}

/// Frees a list. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_epoch_list_free(list: *mut keystead_epoch_list) {
    // SAFETY: null or a list that is not used any more, as the header says.
    unsafe { guard::free(list) }
}
