//! Plugins that do it wrong: each fault is found and named, and none reaches further than the call it is in.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{TestHost, c_plugin, context, directory, load, open, open_with};
use keystead_backend::{Call, ErrorCode, KeyBackend, Wrapped};
use keystead_loader::{LoadError, LoadStep, Plugin, Refusal};

fn build(definitions: &[&str]) -> Result<Plugin, LoadError> {
    let directory = directory();
    load(&c_plugin("faulty", definitions, directory.path()))
}

/// Why a plugin that is built like this does not load.
fn refusal(definitions: &[&str]) -> LoadError {
    build(definitions)
        .err()
        .unwrap_or_else(|| panic!("{definitions:?} was loaded"))
}

fn described(description: &str) -> LoadError {
    refusal(&[&format!("DESCRIPTION={description:?}")])
}

fn call() -> Call {
    Call::with_timeout(Duration::from_secs(5))
}

#[test]
fn without_a_fault_it_loads_and_works() {
    let plugin = build(&[]).expect("no fault");
    let host = Arc::new(TestHost::default());
    let key = open_with(&plugin, "none", host.clone()).expect("opens");
    let wrapped = key.wrap(&call(), &context("1"), &[7; 32]).expect("wraps");
    assert_eq!(
        key.unwrap(&call(), &context("1"), &wrapped)
            .expect("unwraps")
            .as_slice(),
        [7; 32]
    );
    drop(key);
    assert_eq!(host.logged(), ["closed"]);
}

#[test]
fn a_library_without_the_symbol_is_no_plugin() {
    let error = refusal(&["NO_SYMBOL"]);
    assert!(matches!(error.refusal(), Refusal::SymbolMissing), "{error}");
    assert_eq!(error.step(), LoadStep::Interface);
}

#[test]
fn a_plugin_for_another_version_is_refused_as_that() {
    let error = refusal(&["ONLY_ABI=7"]);
    assert!(matches!(error.refusal(), Refusal::AbiRange), "{error}");
    let error = refusal(&["TABLE_ABI=2"]);
    assert!(matches!(error.refusal(), Refusal::TableAbi { abi: 2 }), "{error}");
}

#[test]
fn a_table_that_is_null_misaligned_or_short_is_refused() {
    assert!(matches!(refusal(&["NULL_TABLE"]).refusal(), Refusal::NoTable));
    assert!(matches!(
        refusal(&["MISALIGNED_TABLE"]).refusal(),
        Refusal::NoTable
    ));
    for size in [0, 8, 87] {
        let error = refusal(&[&format!("STRUCT_SIZE={size}")]);
        assert!(
            matches!(error.refusal(), Refusal::ShortTable { struct_size } if *struct_size == size),
            "{error}"
        );
    }
    assert!(matches!(
        refusal(&["INTERFACE_CODE=14"]).refusal(),
        Refusal::InterfaceFailed { code: 14 }
    ));
}

#[test]
fn a_longer_table_of_a_later_minor_version_is_accepted() {
    assert!(build(&["STRUCT_SIZE=4096"]).is_ok());
}

#[test]
fn a_null_entry_is_refused_by_its_name() {
    for entry in ["describe", "open", "close", "status", "wrap", "unwrap"] {
        let error = refusal(&[&format!("NULL_ENTRY={entry}")]);
        assert!(
            matches!(error.refusal(), Refusal::NullEntry { entry: named } if *named == entry),
            "{error}"
        );
        assert!(error.to_string().contains(&format!("`{entry}`")));
    }
}

#[test]
fn an_entry_that_a_capability_promises_must_be_there() {
    let error = refusal(&["CAPABILITIES=2"]);
    assert!(
        matches!(error.refusal(), Refusal::NullEntry { entry: "rewrap" }),
        "{error}"
    );
    let error = refusal(&["NULL_ENTRY=interrupt"]);
    assert!(
        matches!(error.refusal(), Refusal::NullEntry { entry: "interrupt" }),
        "{error}"
    );
    let plugin = build(&["CAPABILITIES=0xFFFFFFF0"]).expect("bits of later versions are ignored");
    assert!(
        !plugin.describe().capabilities.interrupt,
        "an entry without its bit is not used"
    );
}

#[test]
fn a_description_that_fails_or_lies_about_its_length_is_refused() {
    let error = refusal(&["DESCRIBE_FAILS"]);
    assert!(
        error.to_string().contains("internal error: out of ideas"),
        "{error}"
    );
    assert_eq!(error.step(), LoadStep::Description);
    for definition in [
        "DESCRIBE_CLAIMS_TOO_MUCH",
        "DESCRIBE_NEVER_FITS",
        "DESCRIBE_WANTS_EVERYTHING",
    ] {
        let error = refusal(&[definition]);
        assert!(
            matches!(error.refusal(), Refusal::InvalidDescription { .. }),
            "{definition}: {error}"
        );
    }
    assert!(matches!(
        refusal(&["DESCRIBE_AT_LENGTH=1048577"]).refusal(),
        Refusal::InvalidDescription { .. }
    ));
}

#[test]
fn a_description_longer_than_the_first_room_is_asked_for_again() {
    for length in ["65536", "65537", "1048576"] {
        assert!(
            build(&[&format!("DESCRIBE_AT_LENGTH={length}")]).is_ok(),
            "{length}"
        );
    }
}

#[test]
fn a_description_that_overruns_stops_the_plugin_for_good() {
    let directory = directory();
    let path = c_plugin("faulty", &["DESCRIBE_OVERRUNS_ONCE"], directory.path());
    for _ in 0..2 {
        let error = load(&path).expect_err("refused");
        assert!(matches!(error.refusal(), Refusal::Overrun), "{error}");
    }
}

#[test]
fn a_description_that_is_not_what_the_header_says_is_refused_with_the_reason() {
    for (description, expected) in [
        ("", "it is not JSON"),
        ("{", "it is not JSON"),
        ("[]", "it lacks or garbles a member"),
        (r#"{"version":"1"}"#, "missing field `name`"),
        (r#"{"name":"x"}"#, "missing field `version`"),
        (r#"{"name":"Upper","version":"1"}"#, "its name is not"),
        (r#"{"name":"","version":"1"}"#, "its name is not"),
        (r#"{"name":"x","version":""}"#, "its version is not"),
        (
            r#"{"name":"x","version":"1","credentials":["psychic"]}"#,
            "unknown variant `psychic`",
        ),
        (
            r#"{"name":"x","version":"1","capabilities":{"binds_context":true,"rewrap":false,"interrupt":true}}"#,
            "contradict",
        ),
    ] {
        let error = described(description);
        assert!(
            matches!(error.refusal(), Refusal::InvalidDescription { .. }),
            "{description}: {error}"
        );
        assert!(error.to_string().contains(expected), "{description}: {error}");
    }
}

#[test]
fn absurd_sizes_are_refused_by_name() {
    let limits = |plaintext: u64, blob: u64, key_id: u64, metadata: u64| {
        described(&format!(
            r#"{{"name":"x","version":"1","limits":{{"plaintext_max_bytes":{plaintext},"blob_max_bytes":{blob},"key_id_max_bytes":{key_id},"metadata_max_bytes":{metadata}}}}}"#
        ))
    };
    for (error, expected) in [
        (limits(63, 64, 16, 0), "plaintext_max_bytes = 63"),
        (limits(65_537, 64, 16, 0), "plaintext_max_bytes = 65537"),
        (limits(64, 63, 16, 0), "blob_max_bytes = 63"),
        (limits(64, 4_294_967_295, 16, 0), "blob_max_bytes = 4294967295"),
        (limits(64, 64, 0, 0), "key_id_max_bytes = 0"),
        (limits(64, 64, 16_385, 0), "key_id_max_bytes = 16385"),
        (limits(64, 64, 16, 65_537), "metadata_max_bytes = 65537"),
        (limits(4_294_967_296, 64, 16, 0), "it lacks or garbles a member"),
    ] {
        assert!(
            error.to_string().contains(expected),
            "`{error}` does not say `{expected}`"
        );
    }
}

#[test]
fn open_that_answers_no_instance_is_an_internal_error() {
    let plugin = build(&[]).expect("loads");
    let error = open(&plugin, "open answers nothing").err().expect("no instance");
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(error.message.contains("answered no instance"), "{error}");
}

/// The error of a wrap by an instance that misbehaves like this.
fn wrap_error(plugin: &Plugin, fault: &str) -> keystead_backend::BackendError {
    let key = open(plugin, fault).expect("opens");
    key.wrap(&call(), &context("1"), &[7; 32]).expect_err(fault)
}

#[test]
fn lengths_beyond_the_room_and_texts_that_are_none_are_internal_errors_of_the_call_alone() {
    let plugin = build(&[]).expect("loads");
    for fault in [
        "wrap claims too long a blob",
        "wrap claims too long a key id",
        "wrap claims a key id of everything",
        "wrap claims too long metadata",
        "wrap key id is not UTF-8",
        "wrap key id has an escape",
        "wrap answers no key id",
        "wrap answers no blob",
    ] {
        let error = wrap_error(&plugin, fault);
        assert_eq!(error.code, ErrorCode::Internal, "{fault}: {error}");
        assert!(error.message.contains("the plugin faulty"), "{fault}: {error}");
    }
    let key = open(&plugin, "unwrap claims too much").expect("opens");
    let wrapped = key.wrap(&call(), &context("1"), &[7; 32]).expect("wraps");
    let error = key
        .unwrap(&call(), &context("1"), &wrapped)
        .expect_err("too long");
    assert_eq!(error.code, ErrorCode::Internal);
    let key = open(&plugin, "status key id is not UTF-8").expect("opens");
    assert_eq!(
        key.status(&call()).expect_err("not UTF-8").code,
        ErrorCode::Internal
    );
    assert!(
        open(&plugin, "none").expect("opens").status(&call()).is_ok(),
        "the plugin goes on"
    );
}

#[test]
fn an_answer_is_read_from_where_the_host_put_the_room() {
    let plugin = build(&[]).expect("loads");
    let key = open(&plugin, "wrap moves its room").expect("opens");
    let wrapped = key
        .wrap(&call(), &context("1"), &[7; 32])
        .expect("the room is where it was");
    assert_eq!(wrapped.blob, [7 ^ 0x5A; 32]);
}

#[test]
fn unknown_codes_read_as_internal_and_so_does_a_contradiction() {
    let plugin = build(&[]).expect("loads");
    for (fault, expected) in [
        ("unknown code", "the plugin answered code 55: what is this?"),
        ("negative code", "the plugin answered code -1: minus one"),
        ("code of the interface", "the plugin answered code 100: no room"),
        (
            "contradicts itself",
            "the plugin returned code 4 and wrote code 10: come back",
        ),
    ] {
        let error = wrap_error(&plugin, fault);
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::Internal, expected)
        );
    }
}

#[test]
fn messages_are_made_fit_for_people_and_waits_are_bounded() {
    let plugin = build(&[]).expect("loads");
    for (fault, expected) in [
        ("no reason", "the plugin gave no reason"),
        ("message claims too much", "the plugin gave no reason"),
        ("message with escapes", "one two [31m\u{FFFD}"),
    ] {
        let error = wrap_error(&plugin, fault);
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::KeyDisabled, expected)
        );
    }
    let error = wrap_error(&plugin, "waits for ages");
    assert_eq!(
        (error.code, error.retry_after),
        (ErrorCode::Throttled, Some(Duration::from_secs(3600)))
    );
    let status = open(&plugin, "status is not UTF-8")
        .expect("opens")
        .status(&call())
        .expect("for people");
    assert_eq!(status.detail, "a\u{FFFD}z b");
}

/// What must hold after a plugin wrote beyond its room: nothing calls it any more, not even `close`.
fn is_stopped(plugin: &Plugin, host: &TestHost, key: Box<dyn keystead_backend::KeyInstance>) {
    let again = key.status(&call()).expect_err("not called any more");
    assert_eq!(again.code, ErrorCode::Internal);
    assert!(again.message.contains("not called any more"), "{again}");
    assert_eq!(
        open(plugin, "none").err().expect("not opened any more").code,
        ErrorCode::Internal
    );
    key.interrupt();
    drop(key);
    assert!(host.logged().is_empty(), "it was closed");
}

#[test]
fn a_plugin_that_writes_beyond_its_room_is_stopped_whichever_room_it_is() {
    for (variant, fault) in [
        "wrap overruns the blob",
        "wrap overruns the key id",
        "wrap overruns the metadata",
        "wrap overruns the message",
        "wrap overruns the blob and fails",
        "unwrap overruns",
        "status overruns",
    ]
    .iter()
    .enumerate()
    {
        // Each its own bytes: a stopped plugin stays stopped however often it is loaded.
        let directory = directory();
        let path = c_plugin("faulty", &[&format!("VARIANT={}", variant + 1)], directory.path());
        let plugin = load(&path).expect("loads");
        let host = Arc::new(TestHost::default());
        let key = open_with(&plugin, fault, host.clone()).expect("opens");
        let wrapped = Wrapped {
            blob: vec![1; 32],
            key_id: "key/1".into(),
            metadata: Vec::new(),
        };
        let error = match *fault {
            "unwrap overruns" => key.unwrap(&call(), &context("1"), &wrapped).map(drop),
            "status overruns" => key.status(&call()).map(drop),
            _ => key.wrap(&call(), &context("1"), &[7; 32]).map(drop),
        }
        .expect_err(fault);
        assert_eq!(error.code, ErrorCode::Internal);
        assert!(
            error.message.contains("wrote beyond the memory"),
            "{fault}: {error}"
        );
        is_stopped(&plugin, &host, key);
        assert!(matches!(
            load(&path).expect_err("stopped").refusal(),
            Refusal::Overrun
        ));
    }
}

#[test]
fn an_overrun_in_open_stops_the_plugin_too() {
    let plugin = build(&["VARIANT=100"]).expect("loads");
    let error = open(&plugin, "open overruns its message").err().expect("found");
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(error.message.contains("wrote beyond the memory"), "{error}");
    assert!(
        open(&plugin, "none")
            .err()
            .expect("stopped")
            .message
            .contains("not called any more")
    );
}

#[test]
fn a_token_longer_than_one_may_be_is_withheld_whatever_room_the_plugin_has() {
    let plugin = build(&[]).expect("loads");
    let status = |token_bytes: usize| {
        let host = Arc::new(TestHost {
            token: Some(vec![b'x'; token_bytes]),
            ..TestHost::default()
        });
        open_with(&plugin, "asks for a token with too much room", host)
            .expect("opens")
            .status(&call())
    };
    assert!(status(16_384).is_ok());
    let error = status(16_385).expect_err("too long");
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(error.message.contains("longer than a token may be"), "{error}");
}

#[test]
fn interrupt_reaches_the_calls_in_flight() {
    let plugin = build(&[]).expect("loads");
    let key = open(&plugin, "wait").expect("opens");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| key.status(&call()));
        std::thread::sleep(Duration::from_millis(20));
        key.interrupt();
        let error = waiting.join().expect("no panic").expect_err("interrupted");
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::Cancelled, "interrupted")
        );
    });
}

#[test]
fn a_config_beyond_what_json_may_have_is_refused_before_the_plugin_sees_it() {
    let plugin = build(&[]).expect("loads");
    let error = open(&plugin, &" ".repeat(1_048_577)).err().expect("too long");
    assert_eq!(error.code, ErrorCode::InvalidConfig);
}
