//! Putting and getting secrets, and what there is to see of them.

#![allow(unsafe_code)]

use super::super::model::{Expected, State};
use super::{Read, Told, World, keep, path, size_of_struct, told_well, value, value_of};
use crate::client::text;
use crate::{Owned, told};
use arbitrary::{Result, Unstructured};
use keystead_ffi::error::{KEYSTEAD_BUFFER_TOO_SMALL, KEYSTEAD_OK};
use keystead_ffi::history::{
    KEYSTEAD_VERSION_IS_DELETED, KEYSTEAD_VERSION_IS_DESTROYED, KEYSTEAD_VERSION_LIVE, keystead_history,
    keystead_list, keystead_secret_info, keystead_secret_list_free, keystead_secret_list_get,
    keystead_secret_list_len, keystead_secret_list_next, keystead_version_info, keystead_version_list_free,
    keystead_version_list_get, keystead_version_list_len,
};
use keystead_ffi::secret::{
    KEYSTEAD_EXPECT_ANY, KEYSTEAD_EXPECT_NEW, KEYSTEAD_EXPECT_VERSION, keystead_delete, keystead_destroy,
    keystead_get, keystead_get_into, keystead_put, keystead_put_options, keystead_secret,
    keystead_secret_free, keystead_secret_version, keystead_set_retention, keystead_undelete,
};
use std::ffi::CStr;
use std::ptr;

const PREFIXES: [&str; 4] = ["", "a/", "prod/", "none"];
const PAGE: usize = 2;

impl World {
    pub(super) fn put(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (at, whose) = self.organization(input)?;
        let path = path(input)?;
        let value = value(input)?;
        let expected = match input.arbitrary::<u8>()? % 4 {
            0 => Expected::New,
            1 => Expected::Version(u32::from(input.arbitrary::<u8>()? % 4) + 1),
            _ => Expected::Any,
        };
        // SAFETY: zeros are a value of each field.
        let mut options: keystead_put_options = unsafe { std::mem::zeroed() };
        options.struct_size = size_of_struct(&options);
        (options.expect, options.expect_version) = match expected {
            Expected::Any => (KEYSTEAD_EXPECT_ANY, 0),
            Expected::New => (KEYSTEAD_EXPECT_NEW, 0),
            Expected::Version(version) => (KEYSTEAD_EXPECT_VERSION, version),
        };
        let (data, len) = text(path);
        let mut version = 7;
        // SAFETY: everything lives until the call is over.
        let told = told(|error| unsafe {
            keystead_put(
                self.pointer(at),
                data,
                len,
                value.as_ptr(),
                value.len(),
                &raw const options,
                &raw mut version,
                error,
            )
        });
        let code = self.model[whose].may_put(path, expected);
        match self.agrees("put", told, code) {
            Some(()) => assert_eq!(self.model[whose].put(path, value), version),
            None => assert_eq!(version, 0, "a put that failed gave a version"),
        }
        Ok(())
    }

    pub(super) fn read_secret(&self, at: usize, path: &str, version: u32) -> Told<Owned<keystead_secret>> {
        let (data, len) = text(path);
        Owned::from_call(keystead_secret_free, |out| {
            // SAFETY: everything lives until the call is over.
            told(|error| unsafe { keystead_get(self.pointer(at), data, len, version, out, error) })
        })
    }

    pub(super) fn get(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (at, whose) = self.organization(input)?;
        let path = path(input)?;
        let version = u32::from(input.arbitrary::<u8>()? % 5);
        let told = self.read_secret(at, path, version);
        let expected = self.model[whose].get(path, version).map(<[u8]>::to_vec);
        let code = expected.as_ref().err().copied().unwrap_or(KEYSTEAD_OK);
        if let Some(secret) = self.agrees("get", told, code) {
            let value = expected.expect("it agrees");
            assert_eq!(value_of(&secret), value);
            // SAFETY: a live secret.
            let number = unsafe { keystead_secret_version(secret.as_ptr()) };
            assert!(version == 0 || version == number);
            keep(
                &mut self.secrets,
                Read {
                    secret,
                    version: number,
                    value,
                },
            );
        }
        Ok(())
    }

    pub(super) fn get_into(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (at, whose) = self.organization(input)?;
        let path = path(input)?;
        let capacity = usize::from(input.arbitrary::<u16>()?);
        let (data, path_len) = text(path);
        let mut buffer = vec![0xee; capacity + 1];
        let mut len = 7;
        // SAFETY: the buffer has one byte more than is said.
        let told = told(|error| unsafe {
            keystead_get_into(
                self.pointer(at),
                data,
                path_len,
                0,
                buffer.as_mut_ptr(),
                capacity,
                &raw mut len,
                error,
            )
        });
        let code = match self.model[whose].get(path, 0) {
            Ok(value) if value.len() > capacity => KEYSTEAD_BUFFER_TOO_SMALL,
            Ok(_) => KEYSTEAD_OK,
            Err(code) => code,
        };
        let too_small = told
            .as_ref()
            .is_err_and(|refusal| refusal.code == KEYSTEAD_BUFFER_TOO_SMALL);
        let written = match self.agrees("get_into", told, code) {
            Some(()) => {
                assert_eq!(Ok(&buffer[..len]), self.model[whose].get(path, 0));
                len
            }
            None => 0,
        };
        if too_small {
            assert_eq!(Ok(len), self.model[whose].get(path, 0).map(<[u8]>::len));
        }
        assert!(
            buffer[written..].iter().all(|byte| *byte == 0xee),
            "written beyond what was said"
        );
        Ok(())
    }

    pub(super) fn change(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (at, whose) = self.organization(input)?;
        let path = path(input)?;
        let version = u32::from(input.arbitrary::<u8>()? % 4) + 1;
        let (call, to) = [
            (
                keystead_delete as unsafe extern "C" fn(_, _, _, _, _) -> _,
                State::Deleted,
            ),
            (keystead_undelete, State::Live),
            (keystead_destroy, State::Destroyed),
        ][input.choose_index(3)?];
        let (data, len) = text(path);
        // SAFETY: everything lives until the call is over.
        let told = told(|error| unsafe { call(self.pointer(at).cast_const(), data, len, version, error) });
        let code = self.model[whose].may_change(path, version);
        if self.agrees("change", told, code).is_some() {
            self.model[whose].change(path, version, to);
        }
        Ok(())
    }

    pub(super) fn retention(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (at, whose) = self.organization(input)?;
        let path = path(input)?;
        let keep = u32::from(input.arbitrary::<u8>()? % 4);
        let (data, len) = text(path);
        // SAFETY: everything lives until the call is over.
        let told = told(|error| unsafe { keystead_set_retention(self.pointer(at), data, len, keep, error) });
        let code = self.model[whose].may_keep(path);
        if self.agrees("retention", told, code).is_some() {
            self.model[whose].keep(path, keep);
        }
        Ok(())
    }

    /// Every page, by the names that the pages before it give.
    pub(super) fn list(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (at, whose) = self.organization(input)?;
        let prefix = PREFIXES[input.choose_index(PREFIXES.len())?];
        let (data, len) = text(prefix);
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let (from, from_len) = after.as_deref().map_or((ptr::null(), 0), text);
            let told = Owned::from_call(keystead_secret_list_free, |out| {
                // SAFETY: everything lives until the call is over.
                told(|error| unsafe {
                    keystead_list(self.pointer(at), data, len, from, from_len, PAGE, out, error)
                })
            });
            let Some(list) = self.agrees("list", told, KEYSTEAD_OK) else {
                return Ok(());
            };
            // SAFETY: the list lives, and what it gives belongs to it.
            unsafe {
                for index in 0..keystead_secret_list_len(list.as_ptr()) {
                    let mut info: keystead_secret_info = std::mem::zeroed();
                    info.struct_size = size_of_struct(&info);
                    told_well(|error| keystead_secret_list_get(list.as_ptr(), index, &raw mut info, error));
                    let path = CStr::from_ptr(info.path.data).to_str().expect("UTF-8");
                    found.push((path.to_owned(), info.latest));
                }
                let next = keystead_secret_list_next(list.as_ptr());
                if next.is_null() {
                    break;
                }
                after = Some(CStr::from_ptr(next).to_str().expect("UTF-8").to_owned());
            }
        }
        assert_eq!(found, self.model[whose].list(prefix));
        Ok(())
    }

    pub(super) fn history(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (at, whose) = self.organization(input)?;
        let path = path(input)?;
        let (data, len) = text(path);
        let told = Owned::from_call(keystead_version_list_free, |out| {
            // SAFETY: everything lives until the call is over.
            told(|error| unsafe { keystead_history(self.pointer(at), data, len, 0, 10_000, out, error) })
        });
        let expected = self.model[whose].history(path);
        let code = expected.as_ref().err().copied().unwrap_or(KEYSTEAD_OK);
        let Some(list) = self.agrees("history", told, code) else {
            return Ok(());
        };
        let mut found = Vec::new();
        // SAFETY: the list lives, and what it gives belongs to it.
        unsafe {
            for index in 0..keystead_version_list_len(list.as_ptr()) {
                let mut info: keystead_version_info = std::mem::zeroed();
                info.struct_size = size_of_struct(&info);
                told_well(|error| keystead_version_list_get(list.as_ptr(), index, &raw mut info, error));
                let state = match info.state {
                    KEYSTEAD_VERSION_LIVE => State::Live,
                    KEYSTEAD_VERSION_IS_DELETED => State::Deleted,
                    KEYSTEAD_VERSION_IS_DESTROYED => State::Destroyed,
                    other => panic!("a version is in state {other}"),
                };
                found.push((state, info.size_bytes));
            }
        }
        assert_eq!(Ok(found), expected);
        Ok(())
    }
}
