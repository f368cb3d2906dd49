//! Keys, jobs, and the KMS behind them.

#![allow(unsafe_code)]

use super::{ORGANIZATIONS, Told, World, keep, size_of_struct, told_well};
use crate::client::{BACKENDS, text};
use crate::{Owned, kms, told};
use arbitrary::{Result, Unstructured};
use keystead_backend::{ErrorCode, abi};
use keystead_ffi::audit::{keystead_audit_list_free, keystead_audit_list_len, keystead_audit_list_read};
use keystead_ffi::epochs::{keystead_epoch_list_free, keystead_epoch_list_len, keystead_epoch_list_read};
use keystead_ffi::error::{
    KEYSTEAD_INVALID_ARGUMENT, KEYSTEAD_KEY_EXISTS, KEYSTEAD_KEY_NOT_FOUND, KEYSTEAD_KEY_REFUSED,
    KEYSTEAD_NO_JOB, KEYSTEAD_OK, KEYSTEAD_TIMED_OUT,
};
use keystead_ffi::keys::{
    keystead_key_add, keystead_key_disable, keystead_key_disable_all, keystead_key_list_free,
    keystead_key_list_len, keystead_key_list_read, keystead_key_probe, keystead_key_retarget,
    keystead_key_rotate, keystead_key_set_default,
};
use keystead_ffi::organization::keystead_organization;
use keystead_ffi::rewrap::{
    keystead_rewrap_job_free, keystead_rewrap_job_open, keystead_rewrap_run_here, keystead_rewrap_wait,
};
use keystead_ffi::second::{
    keystead_key_remove_second, keystead_key_set_second, keystead_second_key_free, keystead_second_key_read,
};
use keystead_ffi::store::keystead_store_forget_epoch_keys;
use keystead_ffi::verify::{
    KEYSTEAD_VERIFY_OPEN_VALUES, keystead_verify, keystead_verify_counts, keystead_verify_report_counts,
    keystead_verify_report_free,
};
use std::ptr;

const KEYS: [&str; 4] = ["managed", "one", "two", "none"];

impl World {
    pub(super) fn key(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (at, _) = self.organization(input)?;
        let key = KEYS[input.choose_index(KEYS.len())?];
        let other = KEYS[input.choose_index(KEYS.len())?];
        let (pointer, (name, name_len), (target, target_len)) = (self.pointer(at), text(key), text(other));
        let (backend, backend_len) = text(BACKENDS[1]);
        let what = input.arbitrary::<u8>()? % 11;
        if what == 7 {
            // SAFETY: everything lives until the call is over.
            let told = told(|error| unsafe { keystead_key_probe(pointer, name, name_len, error) });
            self.key_change(told);
            return Ok(());
        }
        if what == 10 {
            self.remove_second(pointer);
            return Ok(());
        }
        let told = Owned::from_call(keystead_rewrap_job_free, |out| {
            // SAFETY: everything lives until the call is over.
            told(|error| unsafe {
                match what {
                    0 | 1 => keystead_key_add(
                        pointer,
                        name,
                        name_len,
                        backend,
                        backend_len,
                        ptr::null(),
                        0,
                        out,
                        error,
                    ),
                    2 => keystead_key_set_default(pointer, name, name_len, 1, out, error),
                    3 => keystead_key_rotate(pointer, name, name_len, out, error),
                    4 => keystead_key_disable(pointer, name, name_len, target, target_len, out, error),
                    5 => keystead_key_disable_all(pointer, out, error),
                    8 | 9 => {
                        keystead_key_set_second(pointer, name, name_len, i32::from(what == 9), out, error)
                    }
                    _ => keystead_key_retarget(pointer, name, name_len, out, error),
                }
            })
        });
        if let Some(job) = self.key_change(told) {
            keep(&mut self.jobs, job);
        }
        Ok(())
    }

    /// The second key, which is there before it is removed and is not there after.
    fn remove_second(&self, organization: *const keystead_organization) {
        let is_there = || {
            let mut second = ptr::null_mut();
            // SAFETY: a live handle, and what is read of it is freed once.
            unsafe {
                let read = told(|error| keystead_second_key_read(organization, &raw mut second, error));
                let is_there = !second.is_null();
                keystead_second_key_free(second);
                read.is_ok() && is_there
            }
        };
        let was_there = is_there();
        // SAFETY: a live handle.
        let told = told(|error| unsafe { keystead_key_remove_second(organization, error) });
        if self.key_change(told).is_some() {
            assert!(was_there, "a second key was removed that was not there");
            assert!(!is_there(), "a second key is there after it was removed");
        }
    }

    /// What is not modelled: which changes of keys go together. That none of them loses or mistakes a value is.
    pub(super) fn key_change<T>(&self, told: Told<T>) -> Option<T> {
        let code = match &told {
            Ok(_) => KEYSTEAD_OK,
            Err(refusal) => {
                let may = [
                    KEYSTEAD_KEY_EXISTS,
                    KEYSTEAD_KEY_NOT_FOUND,
                    KEYSTEAD_KEY_REFUSED,
                    KEYSTEAD_NO_JOB,
                    KEYSTEAD_INVALID_ARGUMENT,
                ];
                may.into_iter()
                    .find(|code| *code == refusal.code)
                    .unwrap_or(KEYSTEAD_OK)
            }
        };
        self.agrees("a change of keys", told, code)
    }

    pub(super) fn job(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if self.jobs.is_empty() || input.arbitrary::<u8>()? % 3 == 0 {
            let (at, _) = self.organization(input)?;
            let told = Owned::from_call(keystead_rewrap_job_free, |out| {
                // SAFETY: everything lives until the call is over.
                told(|error| unsafe { keystead_rewrap_job_open(self.pointer(at), out, error) })
            });
            if let Some(job) = self.key_change(told) {
                keep(&mut self.jobs, job);
            }
            return Ok(());
        }
        let which = input.choose_index(self.jobs.len())?;
        let job = self.jobs[which].as_ptr();
        let none = ptr::null_mut();
        // A failing KMS would be waited for.
        let here = input.arbitrary::<bool>()? && !self.failing;
        // SAFETY: everything lives until the call is over; nobody wants to know how it stands.
        let told = told(|error| unsafe {
            match here {
                true => keystead_rewrap_run_here(job, None, none, none.cast(), error),
                false => keystead_rewrap_wait(job, 0, None, none, none.cast(), error),
            }
        });
        let code = match &told {
            Err(refusal) if !here && refusal.code == KEYSTEAD_TIMED_OUT => KEYSTEAD_TIMED_OUT,
            _ => KEYSTEAD_OK,
        };
        self.agrees("a job", told, code);
        Ok(())
    }

    pub(super) fn look_around(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (at, _) = self.organization(input)?;
        let pointer = self.pointer(at);
        // SAFETY: everything lives until each call is over.
        unsafe {
            let keys = Owned::from_call(keystead_key_list_free, |out| {
                told(|error| keystead_key_list_read(pointer, out, error))
            });
            if let Some(keys) = self.agrees("keys", keys, KEYSTEAD_OK) {
                assert!(keystead_key_list_len(keys.as_ptr()) >= 1);
            }
            let epochs = Owned::from_call(keystead_epoch_list_free, |out| {
                told(|error| keystead_epoch_list_read(pointer, out, error))
            });
            if let Some(epochs) = self.agrees("epochs", epochs, KEYSTEAD_OK) {
                assert!(keystead_epoch_list_len(epochs.as_ptr()) >= 1);
            }
            let audit = Owned::from_call(keystead_audit_list_free, |out| {
                told(|error| keystead_audit_list_read(pointer, 0, 10, out, error))
            });
            if let Some(audit) = self.agrees("audit", audit, KEYSTEAD_OK) {
                assert!(keystead_audit_list_len(audit.as_ptr()) >= 1);
            }
        }
        self.verifies(!self.failing && input.arbitrary()?);
        Ok(())
    }

    pub(super) fn verifies(&self, open_values: bool) {
        let Some(store) = &self.store else { return };
        let flags = if open_values {
            KEYSTEAD_VERIFY_OPEN_VALUES
        } else {
            0
        };
        let none = ptr::null_mut();
        let told = Owned::from_call(keystead_verify_report_free, |out| {
            // SAFETY: everything lives until the call is over.
            told(|error| unsafe { keystead_verify(store.store.as_ptr(), flags, None, none, out, error) })
        });
        if let Some(report) = self.agrees("verify", told, KEYSTEAD_OK) {
            // SAFETY: zeros are a value of each field; the report lives.
            let counts = unsafe {
                let mut counts: keystead_verify_counts = std::mem::zeroed();
                counts.struct_size = size_of_struct(&counts);
                told_well(|error| keystead_verify_report_counts(report.as_ptr(), &raw mut counts, error));
                counts
            };
            assert_eq!((counts.problems, counts.unopened), (0, 0), "{counts:?}");
            assert_eq!(counts.organizations, ORGANIZATIONS.len() as u64);
        }
    }

    /// The KMS fails with some code, or works again; or its keys are forgotten, so that it is asked.
    pub(super) fn kms(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.arbitrary::<u8>()? % 3 {
            0 => {
                let code = ErrorCode::ALL[input.choose_index(ErrorCode::ALL.len())?];
                kms::answer(code.as_i32());
                self.failing = true;
            }
            1 => kms::answer(abi::OK),
            _ => {
                if let Some(store) = &self.store {
                    // SAFETY: a live handle.
                    let told = told(|error| unsafe {
                        keystead_store_forget_epoch_keys(store.store.as_ptr(), error)
                    });
                    self.agrees_without_file("forget", told, KEYSTEAD_OK);
                }
            }
        }
        Ok(())
    }
}
