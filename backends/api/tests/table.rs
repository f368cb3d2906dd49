//! The table that `export_backend!` makes, used as a host in C would use it, and as a careless one would.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};

use keystead_backend::{
    BackendError, Call, Capabilities, Context, Description, ErrorCode, KeyBackend, KeyInstance, LockedBytes,
    OpenRequest, SizeLimits, Status, Wrapped, abi,
};

/// How often a KMS would have been called, and billed. Each test thread has its own.
fn kms_calls() -> &'static AtomicUsize {
    thread_local!(static CALLS: &'static AtomicUsize = Box::leak(Box::default()));
    CALLS.with(|calls| *calls)
}

struct Counting;

const LIMITS: SizeLimits = SizeLimits {
    plaintext_max_bytes: 64,
    blob_max_bytes: 64,
    key_id_max_bytes: 8,
    metadata_max_bytes: 4,
};

impl KeyBackend for Counting {
    fn describe(&self) -> Description {
        let mut description = Description::new("counting", "1");
        description.limits = LIMITS;
        description.capabilities = Capabilities {
            rewrap: true,
            ..Capabilities::default()
        };
        description
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        match request.config {
            "{}" => Ok(Box::new(Counting)),
            _ => Err(BackendError::new(ErrorCode::InvalidConfig, "größer".repeat(1000))),
        }
    }
}

impl KeyInstance for Counting {
    fn status(&self, _call: &Call) -> Result<Status, BackendError> {
        kms_calls().fetch_add(1, Ordering::Relaxed);
        Ok(Status {
            key_id: "key/1".into(),
            detail: "ä".repeat(600),
        })
    }

    fn wrap(&self, _call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        kms_calls().fetch_add(1, Ordering::Relaxed);
        assert_eq!(context, &Context::new([("epoch", "1"), ("store", "0f")]));
        Ok(Wrapped {
            blob: plaintext.to_vec(),
            key_id: "key/1".into(),
            metadata: vec![1, 2],
        })
    }

    fn unwrap(
        &self,
        _call: &Call,
        _context: &Context,
        wrapped: &Wrapped,
    ) -> Result<LockedBytes, BackendError> {
        kms_calls().fetch_add(1, Ordering::Relaxed);
        assert_eq!(
            (wrapped.key_id.as_str(), wrapped.metadata.as_slice()),
            ("key/1", &[1, 2][..])
        );
        Ok(LockedBytes::copy_from(&wrapped.blob))
    }
}

keystead_backend::export_backend!(Counting);

unsafe extern "C" {
    fn keystead_backend_get_interface(
        abi_min: u32,
        abi_max: u32,
        host: *const abi::Host,
        out: *mut *const abi::Api,
    ) -> i32;
}

fn get(abi_min: u32, abi_max: u32, host: *const abi::Host) -> (i32, *const abi::Api) {
    let mut api = null();
    // SAFETY: as the header says.
    let code = unsafe { keystead_backend_get_interface(abi_min, abi_max, host, &raw mut api) };
    (code, api)
}

unsafe extern "C" fn log(_context: *mut c_void, _level: i32, _message: *const abi::Input) {}
unsafe extern "C" fn zero(_data: *mut c_void, _len: u64) {}
unsafe extern "C" fn random(_context: *mut c_void, _out: *mut u8, _len: u64) -> i32 {
    abi::OK
}
unsafe extern "C" fn identity_token(
    _context: *mut c_void,
    _audience: *const abi::Input,
    _token: *mut abi::Output,
    _error: *mut abi::Error,
) -> i32 {
    ErrorCode::Unsupported.as_i32()
}

fn host() -> abi::Host {
    abi::Host {
        struct_size: abi::struct_size::<abi::Host>(),
        abi: 1,
        context: null_mut(),
        log: Some(log),
        zero: Some(zero),
        random: Some(random),
        identity_token: Some(identity_token),
    }
}

fn api() -> &'static abi::Api {
    let (code, api) = get(1, 1, &host());
    assert_eq!(code, abi::OK);
    // SAFETY: a plugin's table lives as long as the process.
    unsafe { &*api }
}

/// An error with room for a message, and what was written into it.
struct Explained {
    error: abi::Error,
    message: Box<[u8]>,
}

impl Explained {
    fn new() -> Self {
        let mut message = vec![0; 1024].into_boxed_slice();
        Self {
            error: abi::Error::with_room(&mut message),
            message,
        }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.message[..self.error.message.len as usize]).expect("UTF-8")
    }
}

fn open_request(host: &abi::Host, config: &str) -> abi::OpenRequest {
    abi::OpenRequest {
        struct_size: abi::struct_size::<abi::OpenRequest>(),
        reserved: 0,
        host,
        settings_json: abi::Input::of(b"{}"),
        config_json: abi::Input {
            data: config.as_ptr(),
            len: config.len() as u64,
        },
    }
}

/// An open instance; the host's table lives in it.
struct Opened {
    instance: *mut abi::Instance,
    _host: Box<abi::Host>,
}

impl Opened {
    fn new() -> Self {
        let host = Box::new(host());
        let mut instance = null_mut();
        let request = open_request(&host, "{}");
        // SAFETY: as the header says.
        let code = unsafe { api().open.expect("set")(api().backend, &request, &mut instance, null_mut()) };
        assert_eq!(code, abi::OK);
        Self {
            instance,
            _host: host,
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once.
        unsafe { api().close.expect("set")(self.instance) };
    }
}

fn call() -> abi::Call {
    abi::Call {
        struct_size: abi::struct_size::<abi::Call>(),
        timeout_ms: 1000,
        request_id: 1,
        is_cancelled: None,
        cancel_context: null_mut(),
    }
}

fn entry(name: &'static [u8], value: &'static [u8]) -> abi::ContextEntry {
    abi::ContextEntry {
        name: abi::Input::of(name),
        value: abi::Input::of(value),
    }
}

fn context(entries: &[abi::ContextEntry]) -> abi::Context {
    abi::Context {
        struct_size: abi::struct_size::<abi::Context>(),
        count: entries.len() as u32,
        entries: entries.as_ptr(),
        canonical: abi::Input::of(b""),
    }
}

fn pairs() -> [abi::ContextEntry; 2] {
    [entry(b"epoch", b"1"), entry(b"store", b"0f")]
}

fn wrapped_out(blob: &mut [u8], key_id: &mut [u8], metadata: &mut [u8]) -> abi::WrappedOut {
    abi::WrappedOut {
        struct_size: abi::struct_size::<abi::WrappedOut>(),
        reserved: 0,
        blob: abi::Output::of(blob),
        key_id: abi::Output::of(key_id),
        metadata: abi::Output::of(metadata),
    }
}

/// Wraps 32 bytes with all arguments in order but for what `spoil` does to them.
fn wrap(
    spoil: impl FnOnce(&mut abi::Call, &mut abi::Context, &mut abi::Input, &mut abi::WrappedOut),
) -> (i32, abi::WrappedOut, String) {
    let opened = Opened::new();
    let (mut blob, mut key_id, mut metadata) = ([0; 64], [0; 8], [0; 4]);
    let pairs = pairs();
    let (mut call, mut context, mut plaintext) = (call(), context(&pairs), abi::Input::of(&[7; 32]));
    let mut out = wrapped_out(&mut blob, &mut key_id, &mut metadata);
    spoil(&mut call, &mut context, &mut plaintext, &mut out);
    let mut explained = Explained::new();
    // SAFETY: as the header says, but for what was spoiled, which is what is tested.
    let code = unsafe {
        api().wrap.expect("set")(
            opened.instance,
            &call,
            &context,
            &plaintext,
            &mut out,
            &mut explained.error,
        )
    };
    if code != abi::OK {
        assert_eq!(
            explained.error.code, code,
            "the code is written as it is returned"
        );
    }
    (code, out, explained.text().to_owned())
}

#[test]
fn a_table_is_given_for_a_range_that_has_version_1_and_is_always_the_same() {
    let host = host();
    let first = get(1, 1, &host);
    assert_eq!(first.0, abi::OK);
    assert_eq!(get(0, u32::MAX, &host), first);
    for (abi_min, abi_max) in [(0, 0), (2, 9), (u32::MAX, u32::MAX)] {
        assert_eq!(get(abi_min, abi_max, &host), (abi::UNSUPPORTED_ABI, null()));
    }
    assert_eq!(get(2, 1, &host).0, abi::INVALID_ARGUMENT);
    assert_eq!(get(1, 1, null()).0, abi::INVALID_ARGUMENT);
    // SAFETY: a null pointer is what is tested.
    let code = unsafe { keystead_backend_get_interface(1, 1, &host, null_mut()) };
    assert_eq!(code, abi::INVALID_ARGUMENT);
}

#[test]
fn entries_and_bits_follow_the_capabilities() {
    let api = api();
    assert_eq!(api.capabilities, abi::CAN_REWRAP);
    assert!(api.rewrap.is_some() && api.interrupt.is_none());
}

#[test]
fn a_description_without_room_says_how_much_it_takes_and_then_fits() {
    let describe = api().describe.expect("set");
    let mut output = abi::Output::none();
    // SAFETY: as the header says.
    let code = unsafe { describe(api().backend, &mut output, null_mut()) };
    assert_eq!(code, abi::BUFFER_TOO_SMALL);
    let mut room = vec![0; output.len as usize];
    let mut output = abi::Output::of(&mut room);
    // SAFETY: as the header says.
    let code = unsafe { describe(api().backend, &mut output, null_mut()) };
    assert_eq!(code, abi::OK);
    assert_eq!(output.len, output.capacity);
    let description: Description = serde_json::from_slice(&room).expect("JSON");
    assert_eq!(description, Counting.describe());
}

#[test]
fn a_wrapped_key_fills_the_room_as_far_as_it_reaches() {
    let (code, out, _) = wrap(|_, _, _, _| {});
    assert_eq!(
        (code, out.blob.len, out.key_id.len, out.metadata.len),
        (abi::OK, 32, 5, 2)
    );
}

#[test]
fn without_room_for_the_largest_answer_the_kms_is_not_called_and_each_need_is_told() {
    let before = kms_calls().load(Ordering::Relaxed);
    let (code, out, message) = wrap(|_, _, _, out| {
        out.blob.capacity = 63;
        out.metadata.capacity = 0;
    });
    assert_eq!(code, abi::BUFFER_TOO_SMALL);
    assert_eq!((out.blob.len, out.key_id.len, out.metadata.len), (64, 0, 4));
    assert_eq!(message, "there is room for 63 bytes of the blob; it takes 64");

    let opened = Opened::new();
    let (mut room, pairs) = ([0; 63], pairs());
    let mut out = abi::Output::of(&mut room);
    let wrapped = abi::Wrapped {
        struct_size: abi::struct_size::<abi::Wrapped>(),
        reserved: 0,
        blob: abi::Input::of(&[7; 32]),
        key_id: abi::Input::of(b"key/1"),
        metadata: abi::Input::of(&[1, 2]),
    };
    // SAFETY: as the header says.
    let code = unsafe {
        api().unwrap.expect("set")(
            opened.instance,
            &call(),
            &context(&pairs),
            &wrapped,
            &mut out,
            null_mut(),
        )
    };
    assert_eq!((code, out.len), (abi::BUFFER_TOO_SMALL, 64));
    assert_eq!(kms_calls().load(Ordering::Relaxed), before);
}

#[test]
fn arguments_that_break_the_rules_are_refused_before_the_kms_is_called() {
    let before = kms_calls().load(Ordering::Relaxed);
    type Spoil = fn(&mut abi::Call, &mut abi::Context, &mut abi::Input, &mut abi::WrappedOut);
    let spoils: [(&str, Spoil); 14] = [
        ("the call header", |call, _, _, _| call.struct_size -= 1),
        ("the context", |_, context, _, _| context.struct_size = 0),
        ("33 pairs", |_, context, _, _| context.count = 33),
        ("pairs are null", |_, context, _, _| context.entries = null()),
        ("misaligned", |_, context, _, _| {
            context.entries = context.entries.wrapping_byte_add(1)
        }),
        ("ascending order", |_, context, _, _| {
            context.entries = Box::leak(Box::new([entry(b"store", b"0f"), entry(b"epoch", b"1")])).as_ptr();
        }),
        ("ascending order", |_, context, _, _| {
            context.entries = Box::leak(Box::new([entry(b"store", b"0f"), entry(b"store", b"0f")])).as_ptr();
        }),
        ("one is empty", |_, context, _, _| {
            context.entries = Box::leak(Box::new([entry(b"", b"0f"), entry(b"store", b"0f")])).as_ptr();
        }),
        ("UTF-8", |_, context, _, _| {
            context.entries =
                Box::leak(Box::new([entry(b"epoch", b"\xFF"), entry(b"store", b"0f")])).as_ptr();
        }),
        ("the plaintext is null", |_, _, plaintext, _| {
            plaintext.data = null()
        }),
        ("65 bytes, more than 64", |_, _, plaintext, _| plaintext.len = 65),
        ("more than 64", |_, _, plaintext, _| plaintext.len = u64::MAX),
        ("the room for the wrapped key", |_, _, _, out| out.struct_size = 8),
        ("the room for the blob is null", |_, _, _, out| {
            out.blob.data = null_mut()
        }),
    ];
    for (expected, spoil) in spoils {
        let (code, _, message) = wrap(spoil);
        assert_eq!(code, abi::INVALID_ARGUMENT, "{expected}");
        assert!(
            message.contains(expected),
            "`{message}` does not say `{expected}`"
        );
    }
    assert_eq!(kms_calls().load(Ordering::Relaxed), before);
}

#[test]
fn null_pointers_in_every_place_are_refused() {
    let api = api();
    let (wrap, unwrap) = (api.wrap.expect("set"), api.unwrap.expect("set"));
    let (rewrap, status) = (api.rewrap.expect("set"), api.status.expect("set"));
    // SAFETY: null pointers are what is tested.
    unsafe {
        for code in [
            wrap(null_mut(), null(), null(), null(), null_mut(), null_mut()),
            unwrap(null_mut(), null(), null(), null(), null_mut(), null_mut()),
            rewrap(null_mut(), null(), null(), null(), null_mut(), null_mut()),
            status(null_mut(), null(), null_mut(), null_mut()),
            api.describe.expect("set")(null_mut(), null_mut(), null_mut()),
            api.describe.expect("set")(api.backend, null_mut(), null_mut()),
            api.open.expect("set")(null_mut(), null(), null_mut(), null_mut()),
            api.open.expect("set")(api.backend, null(), null_mut(), null_mut()),
        ] {
            assert_eq!(code, abi::INVALID_ARGUMENT);
        }
        api.close.expect("set")(null_mut());
    }
    let opened = Opened::new();
    let (pairs, call) = (pairs(), call());
    let context = context(&pairs);
    let (mut blob, mut key_id, mut metadata) = ([0; 64], [0; 8], [0; 4]);
    let mut out = wrapped_out(&mut blob, &mut key_id, &mut metadata);
    let plaintext = abi::Input::of(&[7; 32]);
    // SAFETY: as above.
    unsafe {
        for code in [
            wrap(
                opened.instance,
                null(),
                &context,
                &plaintext,
                &mut out,
                null_mut(),
            ),
            wrap(opened.instance, &call, null(), &plaintext, &mut out, null_mut()),
            wrap(opened.instance, &call, &context, null(), &mut out, null_mut()),
            wrap(
                opened.instance,
                &call,
                &context,
                &plaintext,
                null_mut(),
                null_mut(),
            ),
            unwrap(
                opened.instance,
                &call,
                &context,
                null(),
                &mut out.blob,
                null_mut(),
            ),
            unwrap(opened.instance, &call, &context, null(), null_mut(), null_mut()),
            rewrap(opened.instance, &call, &context, null(), &mut out, null_mut()),
            status(opened.instance, &call, null_mut(), null_mut()),
        ] {
            assert_eq!(code, abi::INVALID_ARGUMENT);
        }
    }
}

#[test]
fn a_message_is_cut_between_characters_and_a_failed_open_leaves_the_instance_alone() {
    let host = host();
    let untouched: *mut abi::Instance = std::ptr::without_provenance_mut(64);
    let mut instance = untouched;
    let mut explained = Explained::new();
    explained.error.message.capacity = 1021;
    let request = open_request(&host, "{\"unknown\":1}");
    // SAFETY: as the header says.
    let code =
        unsafe { api().open.expect("set")(api().backend, &request, &mut instance, &mut explained.error) };
    assert_eq!(code, ErrorCode::InvalidConfig.as_i32());
    assert_eq!(instance, untouched);
    assert!(explained.text().len() >= 1018 && "größer".repeat(1000).starts_with(explained.text()));
}

#[test]
fn open_refuses_texts_that_are_not_utf8_and_a_host_that_lacks_an_entry() {
    let (whole, mut instance) = (host(), null_mut());
    let mut lacking = host();
    lacking.random = None;
    let mut short = host();
    short.struct_size -= 8;
    let not_utf8 = abi::OpenRequest {
        config_json: abi::Input::of(b"{\xFF}"),
        ..open_request(&whole, "{}")
    };
    for (request, expected) in [
        (not_utf8, "the config is not UTF-8"),
        (
            open_request(&lacking, "{}"),
            "an entry of the host's table is null",
        ),
        (
            open_request(&short, "{}"),
            "the host's table is null, misaligned, or shorter",
        ),
        (
            abi::OpenRequest {
                host: null(),
                ..open_request(&whole, "{}")
            },
            "the host's table is null",
        ),
    ] {
        let mut explained = Explained::new();
        // SAFETY: what is wrong is what is tested.
        let code =
            unsafe { api().open.expect("set")(api().backend, &request, &mut instance, &mut explained.error) };
        assert_eq!(code, abi::INVALID_ARGUMENT);
        assert!(
            explained.text().contains(expected),
            "`{}` does not say `{expected}`",
            explained.text()
        );
    }
}

#[test]
fn a_status_detail_is_cut_to_its_room() {
    let opened = Opened::new();
    let (mut key_id, mut detail) = ([0; 8], [0; 101]);
    let mut out = abi::StatusOut {
        struct_size: abi::struct_size::<abi::StatusOut>(),
        reserved: 0,
        key_id: abi::Output::of(&mut key_id),
        detail: abi::Output::of(&mut detail),
    };
    // SAFETY: as the header says.
    let code = unsafe { api().status.expect("set")(opened.instance, &call(), &mut out, null_mut()) };
    assert_eq!((code, out.key_id.len, out.detail.len), (abi::OK, 5, 100));
}
