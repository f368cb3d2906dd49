//! Secrets in the heap, through the C interface: whatever way a value goes in or comes out, no block that the library frees holds
//! it, or an epoch's key, and after everything was freed no block that lives does.
//!
//! Values are made of watched bytes. Epoch keys are watched by the KMS that wraps them, which is the program's own. What the
//! test itself holds of either it erases.

#![allow(unsafe_code, clippy::print_stdout)]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each passes what lives until its call is over, as the header asks"
)]

use keystead_canary::WatchingAllocator;
use keystead_ffi::batch::{
    keystead_batch_commit, keystead_batch_free, keystead_batch_new, keystead_batch_put,
};
use keystead_ffi::error::{KEYSTEAD_BUFFER_TOO_SMALL, KEYSTEAD_INVALID_PATH, KEYSTEAD_VERSION_MISMATCH};
use keystead_ffi::keys::{keystead_key_add, keystead_key_rotate};
use keystead_ffi::rewrap::{keystead_rewrap_job_free, keystead_rewrap_run_here};
use keystead_ffi::secret::{KEYSTEAD_EXPECT_NEW, keystead_get_into, keystead_put, keystead_put_options};
use keystead_ffi::stream::{
    keystead_reader_free, keystead_reader_open, keystead_reader_read, keystead_writer_finish,
    keystead_writer_free, keystead_writer_open, keystead_writer_write,
};
use keystead_ffi_calls::client::{Opening, Organization, Store, text};
use keystead_ffi_calls::{Owned, Refusal, kms, told};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use zeroize::Zeroizing;

#[global_allocator]
static ALLOCATOR: WatchingAllocator = WatchingAllocator;

/// In a row, in chunks, in several commits.
const SIZES: [usize; 4] = [9, 700, 200_000, 3_000_000];
const UNIT: usize = 32;

static KEYS: AtomicUsize = AtomicUsize::new(0);

/// Watches what the KMS is to wrap: epoch keys. (A probe's random bytes are watched as well: the library erases them, too.)
fn watch(key: &[u8]) {
    let number = KEYS.fetch_add(1, Ordering::SeqCst);
    keystead_canary::watch(&format!("what the KMS wrapped, number {number}"), key);
}

/// A value of this many watched bytes, erased when it is dropped.
fn value(size: usize) -> Zeroizing<Vec<u8>> {
    let mut value = Zeroizing::new(Vec::with_capacity(size));
    value.extend((0..size).map(unit));
    value
}

/// The same 32 bytes over and over, no two alike.
fn unit(at: usize) -> u8 {
    ((at % UNIT) as u8).wrapping_mul(37) ^ 0xc1
}

fn holds(bytes: &[u8], size: usize) -> bool {
    bytes.len() == size && bytes.iter().enumerate().all(|(at, byte)| *byte == unit(at))
}

fn refused(code: i32, told: Result<(), Refusal>) {
    assert_eq!(told.unwrap_err().code, code);
}

fn write_everything(acme: &Organization) {
    for size in SIZES {
        acme.put(&format!("put/{size}"), &value(size)).unwrap();
    }
    let batch = Owned::from_call(keystead_batch_free, |out| {
        told(|error| unsafe { keystead_batch_new(out, error) })
    });
    let batch = batch.unwrap();
    for (path, code) in [
        ("batch/one", 0),
        ("batch//none", KEYSTEAD_INVALID_PATH),
        ("batch/two", 0),
    ] {
        let ((data, len), part) = (text(path), value(5000));
        let told = told(|error| unsafe {
            keystead_batch_put(
                batch.as_ptr(),
                data,
                len,
                part.as_ptr(),
                part.len(),
                ptr::null(),
                error,
            )
        });
        match code {
            0 => told.unwrap(),
            code => refused(code, told),
        }
    }
    told(|error| unsafe { keystead_batch_commit(acme.as_ptr(), batch.as_ptr(), ptr::null_mut(), 0, error) })
        .unwrap();

    for (path, finish) in [("streamed", true), ("dropped", false)] {
        let (data, len) = text(path);
        let writer = Owned::from_call(keystead_writer_free, |out| {
            told(|error| unsafe { keystead_writer_open(acme.as_ptr(), data, len, ptr::null(), out, error) })
        });
        let (writer, whole) = (writer.unwrap(), value(1_500_000));
        for part in whole.chunks(7001) {
            told(|error| unsafe { keystead_writer_write(writer.as_ptr(), part.as_ptr(), part.len(), error) })
                .unwrap();
        }
        if finish {
            told(|error| unsafe { keystead_writer_finish(writer.as_ptr(), ptr::null_mut(), error) }).unwrap();
        }
    }
}

fn read_everything(acme: &Organization) {
    for size in SIZES {
        let path = format!("put/{size}");
        assert!(acme.get(&path, |value| holds(value, size)).unwrap(), "{path}");
        let (data, path_len) = text(&path);
        for room in [size, size - 1] {
            let mut buffer = Zeroizing::new(vec![0; room]);
            let mut len = 0;
            let told = told(|error| unsafe {
                keystead_get_into(
                    acme.as_ptr(),
                    data,
                    path_len,
                    0,
                    buffer.as_mut_ptr(),
                    room,
                    &raw mut len,
                    error,
                )
            });
            assert_eq!(len, size);
            match room == size {
                true => assert!(told.is_ok() && holds(&buffer, size), "{path}"),
                false => refused(KEYSTEAD_BUFFER_TOO_SMALL, told),
            }
        }
    }
    assert!(acme.get("batch/two", |value| holds(value, 5000)).unwrap());

    let (data, path_len) = text("streamed");
    let reader = Owned::from_call(keystead_reader_free, |out| {
        told(|error| unsafe { keystead_reader_open(acme.as_ptr(), data, path_len, 0, out, error) })
    });
    let reader = reader.unwrap();
    let (mut room, mut read) = (Zeroizing::new(vec![0; 70_001]), 0);
    loop {
        let mut len = 0;
        told(|error| unsafe {
            keystead_reader_read(
                reader.as_ptr(),
                room.as_mut_ptr(),
                room.len(),
                &raw mut len,
                error,
            )
        })
        .unwrap();
        if len == 0 {
            break;
        }
        assert!((0..len).all(|at| room[at] == unit(read + at)));
        read += len;
    }
    assert_eq!(read, 1_500_000);
}

/// A put that is refused has its value in hand.
fn refuse(acme: &Organization) {
    let value = value(700);
    // SAFETY: zeros are a value of each field.
    let mut options: keystead_put_options = unsafe { std::mem::zeroed() };
    options.struct_size = u32::try_from(size_of::<keystead_put_options>()).unwrap();
    options.expect = KEYSTEAD_EXPECT_NEW;
    for (path, code) in [
        ("put/700", KEYSTEAD_VERSION_MISMATCH),
        ("no//path", KEYSTEAD_INVALID_PATH),
    ] {
        let (data, len) = text(path);
        let told = told(|error| unsafe {
            keystead_put(
                acme.as_ptr(),
                data,
                len,
                value.as_ptr(),
                value.len(),
                &raw const options,
                ptr::null_mut(),
                error,
            )
        });
        refused(code, told);
    }
}

/// The organization brings its own key, which is rotated; its jobs are done on this thread.
fn change_keys(acme: &Organization) {
    let (name, backend) = (text("cmk"), text("own-kms"));
    for rotation in [false, true] {
        let job = Owned::from_call(keystead_rewrap_job_free, |out| {
            told(|error| unsafe {
                match rotation {
                    true => keystead_key_rotate(acme.as_ptr(), name.0, name.1, out, error),
                    false => keystead_key_add(
                        acme.as_ptr(),
                        name.0,
                        name.1,
                        backend.0,
                        backend.1,
                        ptr::null(),
                        0,
                        out,
                        error,
                    ),
                }
            })
        });
        let (job, none) = (job.unwrap(), ptr::null_mut());
        told(|error| unsafe { keystead_rewrap_run_here(job.as_ptr(), None, none, none.cast(), error) })
            .unwrap();
    }
}

#[test]
fn no_block_that_the_library_frees_holds_a_value_or_an_epoch_key() {
    kms::watch(watch);
    keystead_canary::watch(
        "a value",
        &Zeroizing::new(std::array::from_fn::<u8, UNIT, _>(unit))[..],
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::at(&path, Opening::Create).unwrap();
    let acme = store.create_organization("acme").unwrap();
    write_everything(&acme);
    read_everything(&acme);
    refuse(&acme);
    change_keys(&acme);
    read_everything(&acme);
    // In any order: what is left keeps the store open.
    drop(store);
    read_everything(&acme);
    drop(acme);

    let (freed, live) = (keystead_canary::found(), keystead_canary::found_in_live_blocks());
    assert!(freed.is_empty(), "freed: {freed:#?}");
    assert!(live.is_empty(), "alive: {live:#?}");
    let (keys, searched) = (KEYS.load(Ordering::SeqCst), keystead_canary::searched());
    println!(
        "a value and {keys} keys watched in {} freed blocks of {} MiB",
        searched.blocks,
        searched.bytes >> 20
    );
    assert!(keys >= 4 && searched.blocks > 5_000, "{keys} keys, {searched:?}");

    // It does find what is there.
    drop(value(700).to_vec());
    assert_eq!(keystead_canary::found()[0].name, "a value");
}
