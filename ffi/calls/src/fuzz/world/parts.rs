//! Several puts at once, and values in parts.

#![allow(unsafe_code)]

use super::{Gathered, Reading, World, Writing, keep, path, told_well, value};
use crate::client::text;
use crate::{Owned, told};
use arbitrary::{Result, Unstructured};
use keystead_ffi::batch::{
    keystead_batch_commit, keystead_batch_free, keystead_batch_len, keystead_batch_new, keystead_batch_put,
};
use keystead_ffi::error::{KEYSTEAD_CLOSED, KEYSTEAD_INVALID_ARGUMENT, KEYSTEAD_OK};
use keystead_ffi::stream::{
    keystead_reader_free, keystead_reader_open, keystead_reader_read, keystead_writer_finish,
    keystead_writer_free, keystead_writer_open, keystead_writer_write,
};
use std::ptr;

impl World {
    pub(super) fn batch(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let what = input.arbitrary::<u8>()? % 4;
        if self.batches.is_empty() || what == 0 {
            let batch = Owned::from_call(keystead_batch_free, |out| {
                // SAFETY: there is room for the handle.
                told(|error| unsafe { keystead_batch_new(out, error) })
            });
            let (batch, puts) = (batch.expect("a batch needs nothing"), Vec::new());
            keep(&mut self.batches, Gathered { batch, puts });
        }
        let which = input.choose_index(self.batches.len())?;
        if what < 3 {
            let path = path(input)?;
            let value = value(input)?;
            let (data, len) = text(path);
            let gathered = &mut self.batches[which];
            // SAFETY: everything lives until the call is over.
            told_well(|error| unsafe {
                keystead_batch_put(
                    gathered.batch.as_ptr(),
                    data,
                    len,
                    value.as_ptr(),
                    value.len(),
                    ptr::null(),
                    error,
                )
            });
            gathered.puts.push((path, value));
            return Ok(());
        }
        self.commit(which, input)
    }

    pub(super) fn commit(&mut self, which: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let (at, whose) = self.organization(input)?;
        let batch = self.batches[which].batch.as_ptr();
        let mut versions = vec![0_u32; self.batches[which].puts.len()];
        // SAFETY: there is as much room as is said.
        let told = told(|error| unsafe {
            keystead_batch_commit(
                self.pointer(at),
                batch,
                versions.as_mut_ptr(),
                versions.len(),
                error,
            )
        });
        let puts = std::mem::take(&mut self.batches[which].puts);
        // The same path twice in one batch is refused, or is two versions: the engine's to say.
        let twice = (1..puts.len()).any(|at| puts[..at].iter().any(|(path, _)| *path == puts[at].0));
        let code = match &told {
            Err(refusal) if refusal.code == KEYSTEAD_INVALID_ARGUMENT && (twice || puts.is_empty()) => {
                KEYSTEAD_INVALID_ARGUMENT
            }
            _ => KEYSTEAD_OK,
        };
        let went = match puts.is_empty() {
            true => self.agrees_without_file("commit of nothing", told, code),
            false => self.agrees("commit", told, code),
        };
        if went.is_some() {
            for ((path, value), version) in puts.into_iter().zip(versions) {
                assert_eq!(self.model[whose].put(path, value), version);
            }
        }
        // SAFETY: a live batch.
        assert_eq!(unsafe { keystead_batch_len(batch) }, 0, "whatever came of it");
        Ok(())
    }

    pub(super) fn write(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let what = input.arbitrary::<u8>()? % 4;
        if self.writers.is_empty() || what == 0 {
            let (at, organization) = self.organization(input)?;
            let path = path(input)?;
            let (data, len) = text(path);
            let told = Owned::from_call(keystead_writer_free, |out| {
                // SAFETY: everything lives until the call is over.
                told(|error| unsafe {
                    keystead_writer_open(self.pointer(at), data, len, ptr::null(), out, error)
                })
            });
            if let Some(writer) = self.agrees_without_file("writer_open", told, KEYSTEAD_OK) {
                let writing = Writing {
                    writer,
                    organization,
                    path,
                    written: Some(Vec::new()),
                };
                keep(&mut self.writers, writing);
            }
            return Ok(());
        }
        let which = input.choose_index(self.writers.len())?;
        let pointer = self.writers[which].writer.as_ptr();
        let ended = self.writers[which].written.is_none();
        let code = if ended {
            KEYSTEAD_INVALID_ARGUMENT
        } else {
            KEYSTEAD_OK
        };
        if what < 3 {
            let part = value(input)?;
            // SAFETY: everything lives until the call is over.
            let told =
                told(|error| unsafe { keystead_writer_write(pointer, part.as_ptr(), part.len(), error) });
            let went = self.agrees_without_file("writer_write", told, code).is_some();
            let written = &mut self.writers[which].written;
            match written {
                Some(written) if went => written.extend(part),
                _ => *written = None,
            }
            return Ok(());
        }
        let mut version = 7;
        // SAFETY: everything lives until the call is over.
        let told = told(|error| unsafe { keystead_writer_finish(pointer, &raw mut version, error) });
        let went = self.agrees("writer_finish", told, code).is_some();
        let Writing {
            organization,
            path,
            written,
            ..
        } = &mut self.writers[which];
        if let (true, Some(value)) = (went, written.take()) {
            assert_eq!(self.model[*organization].put(path, value), version);
        }
        Ok(())
    }

    pub(super) fn read(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if self.readers.is_empty() || input.arbitrary::<u8>()? % 3 == 0 {
            let (at, whose) = self.organization(input)?;
            let path = path(input)?;
            let (data, len) = text(path);
            let told = Owned::from_call(keystead_reader_free, |out| {
                // SAFETY: everything lives until the call is over.
                told(|error| unsafe { keystead_reader_open(self.pointer(at), data, len, 0, out, error) })
            });
            let expected = self.model[whose].get(path, 0).map(<[u8]>::to_vec);
            let code = expected.as_ref().err().copied().unwrap_or(KEYSTEAD_OK);
            if let Some(reader) = self.agrees("reader_open", told, code) {
                let rest = expected.expect("it agrees");
                keep(&mut self.readers, Reading { reader, rest });
            }
            return Ok(());
        }
        let which = input.choose_index(self.readers.len())?;
        let mut room = vec![0_u8; usize::from(input.arbitrary::<u16>()?)];
        let mut len = 7;
        let pointer = self.readers[which].reader.as_ptr();
        // SAFETY: there is as much room as is said.
        let told = told(|error| unsafe {
            keystead_reader_read(pointer, room.as_mut_ptr(), room.len(), &raw mut len, error)
        });
        if room.is_empty() {
            let refusal = told.expect_err("no room is against the rules");
            assert!([KEYSTEAD_INVALID_ARGUMENT, KEYSTEAD_CLOSED].contains(&refusal.code));
        } else if let Err(refusal) = told {
            // A reader keeps what the file had when it was opened, or says that it was changed since, by destroying it.
            let may = self.closed || self.failing || refusal.code != KEYSTEAD_OK;
            assert!(may, "{refusal:?}");
            self.readers.swap_remove(which);
        } else {
            let rest = &mut self.readers[which].rest;
            assert!(
                len <= room.len() && (len > 0 || rest.is_empty()),
                "{len} of {}",
                rest.len()
            );
            assert_eq!(room[..len], rest[..len]);
            rest.drain(..len);
        }
        Ok(())
    }
}
