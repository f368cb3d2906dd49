//! How far a store has come, to be kept apart from it.

#![allow(unsafe_code)]

use crate::error::{Failure, keystead_error};
use crate::guard::{self, Called, invalid};
use crate::store::keystead_store;
use crate::text::Text;
use engine::Checkpoint;
use std::ffi::c_char;

/// Longer than that of a store with more organizations than are planned for: about 250 bytes for each.
const CHECKPOINT_MAX_BYTES: usize = 256 << 20;

/// How far a store had come: number and hash of the newest audit record of each organization. Freed with
/// keystead_checkpoint_free(). Needs its store no longer. Threads: any, also at once.
#[derive(Debug)]
pub struct keystead_checkpoint {
    json: Text,
}

/// How far every organization of the store has come. Kept where whoever can write the store cannot write, and given to
/// keystead_store_open() as checkpoint_json, it has a store that was rolled back, or whose history was written anew, refused. Take
/// a new one after opening, and from time to time: what happened since is not covered. Asks no KMS; reads two rows for each
/// organization. Threads: any.
///
///     code = keystead_checkpoint_take(store, &checkpoint, &error);
///     printf("%s\n", keystead_checkpoint_json(checkpoint));
///     keystead_checkpoint_free(checkpoint);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_checkpoint_take(
    store: *const keystead_store,
    out: *mut *mut keystead_checkpoint,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            let taken = called.handle(store)?.store.checkpoint()?;
            let json = serde_json::to_string(&taken)
                .map_err(|error| Failure::new(crate::error::KEYSTEAD_OTHER, error.to_string()))?;
            out.give(keystead_checkpoint {
                json: Text::new(json),
            });
            Ok(())
        })
    }
}

/// The checkpoint as text, a JSON object with a zero byte at its end; what `keystead checkpoint` prints is the same. Holds no
/// secret. Belongs to the checkpoint. Null gives "".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_checkpoint_json(checkpoint: *const keystead_checkpoint) -> *const c_char {
    // SAFETY: null or a live checkpoint, as the header says.
    unsafe { guard::look(checkpoint, c"".as_ptr(), |checkpoint| checkpoint.json.as_ptr()) }
}

/// Frees a checkpoint. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_checkpoint_free(checkpoint: *mut keystead_checkpoint) {
    // SAFETY: null or a checkpoint that is not used any more, as the header says.
    unsafe { guard::free(checkpoint) }
}

/// The checkpoint that options give; `None` when they give none.
pub(crate) fn given(
    called: &Called<'_>,
    data: *const c_char,
    len: usize,
) -> Result<Option<Checkpoint>, Failure> {
    const WHAT: &str = "checkpoint_json";
    let Some(bytes) = called.optional_bytes_of_text(data, len, WHAT, CHECKPOINT_MAX_BYTES)? else {
        return Ok(None);
    };
    // What serde_json says may quote the text, which is perhaps something else: only the place is told.
    serde_json::from_slice(bytes).map(Some).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        invalid(format!("{WHAT} is no checkpoint: line {line}, column {column}"))
    })
}
