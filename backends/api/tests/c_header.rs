//! The C header against real compilers, and the Rust types against the header.

#![allow(unsafe_code)]

use std::mem::{align_of, offset_of, size_of};
use std::path::Path;
use std::process::Command;

use keystead_backend::{ErrorCode, LogLevel, SizeLimits, abi};

fn include_dir() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/include").to_owned()
}

fn compiler(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.to_owned())
}

fn compile(compiler: &str, arguments: &[&str], source: &Path, output: &Path) {
    let mut command = Command::new(compiler);
    command
        .args(arguments)
        .args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-I"])
        .arg(include_dir());
    command.arg("-o").arg(output).arg(source);
    let done = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(
        done.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
fn the_header_compiles_without_a_warning_in_every_language_it_promises_included_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "#include \"keystead_backend.h\"\n#include \"keystead_backend.h\"\n\
                int main(void) { keystead_backend_api api; (void)api; return 0; }\n";
    for (compiler, standards, extension) in [
        (compiler("CC", "cc"), &["c89", "c99", "c11", "c17"][..], "c"),
        (compiler("CXX", "c++"), &["c++11", "c++17"][..], "cc"),
    ] {
        for standard in standards {
            let source = directory.path().join(format!("{standard}.{extension}"));
            std::fs::write(&source, text).expect("written");
            compile(
                &compiler,
                &[&format!("-std={standard}")],
                &source,
                &directory.path().join(standard),
            );
        }
    }
}

#[test]
fn the_header_is_ascii_and_no_line_is_longer_than_120() {
    let text = std::fs::read_to_string(format!("{}/keystead_backend.h", include_dir())).expect("it is there");
    assert!(text.is_ascii());
    for (number, line) in text.lines().enumerate() {
        assert!(
            line.len() <= 120,
            "line {} has {} characters",
            number + 1,
            line.len()
        );
    }
}

/// One line of what both sides must say alike: an expression in C, and its value in Rust.
type Claim = (String, u64);

macro_rules! layout {
    ($claims:ident, $rust:ty, $c:literal, $($field:ident),+) => {
        $claims.push((format!("sizeof({})", $c), size_of::<$rust>() as u64));
        $claims.push((format!("ALIGNOF({})", $c), align_of::<$rust>() as u64));
        // That no field is left out: each one's end is the next one's begin, and the last one's end is the struct's.
        let mut end = 0;
        $(
            assert_eq!(offset_of!($rust, $field), end, "a gap before {}.{}", $c, stringify!($field));
            #[allow(unused_assignments)]
            { end = offset_of!($rust, $field) + field_size(|value: &$rust| &raw const value.$field); }
            $claims.push((
                format!("offsetof({}, {})", $c, stringify!($field)),
                offset_of!($rust, $field) as u64,
            ));
            $claims.push((
                format!("sizeof((({} *)0)->{})", $c, stringify!($field)),
                field_size(|value: &$rust| &raw const value.$field) as u64,
            ));
        )+
        assert_eq!(end, size_of::<$rust>(), "{} has fields that are not compared", $c);
    };
}

fn field_size<S, F>(_field: impl Fn(&S) -> *const F) -> usize {
    size_of::<F>()
}

fn layouts() -> Vec<Claim> {
    let mut claims = Vec::new();
    layout!(claims, abi::Input, "keystead_backend_input", data, len);
    layout!(
        claims,
        abi::Output,
        "keystead_backend_output",
        data,
        capacity,
        len
    );
    layout!(
        claims,
        abi::ContextEntry,
        "keystead_backend_context_entry",
        name,
        value
    );
    layout!(
        claims,
        abi::Context,
        "keystead_backend_context",
        struct_size,
        count,
        entries,
        canonical
    );
    layout!(
        claims,
        abi::Call,
        "keystead_backend_call",
        struct_size,
        timeout_ms,
        request_id,
        is_cancelled,
        cancel_context
    );
    layout!(
        claims,
        abi::Error,
        "keystead_backend_error",
        struct_size,
        code,
        retry_after_ms,
        message
    );
    layout!(
        claims,
        abi::Host,
        "keystead_backend_host",
        struct_size,
        abi,
        context,
        log,
        zero,
        random,
        identity_token
    );
    layout!(
        claims,
        abi::OpenRequest,
        "keystead_backend_open_request",
        struct_size,
        reserved,
        host,
        settings_json,
        config_json
    );
    layout!(
        claims,
        abi::StatusOut,
        "keystead_backend_status_out",
        struct_size,
        reserved,
        key_id,
        detail
    );
    layout!(
        claims,
        abi::Wrapped,
        "keystead_backend_wrapped",
        struct_size,
        reserved,
        blob,
        key_id,
        metadata
    );
    layout!(
        claims,
        abi::WrappedOut,
        "keystead_backend_wrapped_out",
        struct_size,
        reserved,
        blob,
        key_id,
        metadata
    );
    layout!(
        claims,
        abi::Api,
        "keystead_backend_api",
        struct_size,
        abi,
        capabilities,
        backend,
        describe,
        open,
        close,
        status,
        wrap,
        unwrap,
        rewrap,
        interrupt
    );
    claims
}

fn constants() -> Vec<Claim> {
    let mut claims: Vec<Claim> = [
        ("ABI", u64::from(abi::ABI)),
        ("OK", abi::OK as u64),
        ("BUFFER_TOO_SMALL", abi::BUFFER_TOO_SMALL as u64),
        ("INVALID_ARGUMENT", abi::INVALID_ARGUMENT as u64),
        ("UNSUPPORTED_ABI", abi::UNSUPPORTED_ABI as u64),
        ("JSON_MAX", abi::JSON_MAX),
        ("CONTEXT_ENTRIES_MAX", u64::from(abi::CONTEXT_ENTRIES_MAX)),
        ("CONTEXT_MAX", abi::CONTEXT_MAX),
        ("MESSAGE_MAX", abi::MESSAGE_MAX),
        ("TOKEN_MAX", abi::TOKEN_MAX),
        ("PLAINTEXT_MAX_LEAST", u64::from(abi::PLAINTEXT_MAX_RANGE.0)),
        ("PLAINTEXT_MAX_MOST", u64::from(abi::PLAINTEXT_MAX_RANGE.1)),
        ("BLOB_MAX_LEAST", u64::from(abi::BLOB_MAX_RANGE.0)),
        ("BLOB_MAX_MOST", u64::from(abi::BLOB_MAX_RANGE.1)),
        ("KEY_ID_MAX_LEAST", u64::from(abi::KEY_ID_MAX_RANGE.0)),
        ("KEY_ID_MAX_MOST", u64::from(abi::KEY_ID_MAX_RANGE.1)),
        ("METADATA_MAX_LEAST", u64::from(abi::METADATA_MAX_RANGE.0)),
        ("METADATA_MAX_MOST", u64::from(abi::METADATA_MAX_RANGE.1)),
        ("BINDS_CONTEXT", abi::BINDS_CONTEXT),
        ("CAN_REWRAP", abi::CAN_REWRAP),
        ("CAN_INTERRUPT", abi::CAN_INTERRUPT),
        ("LOG_ERROR", LogLevel::Error as u64),
        ("LOG_WARN", LogLevel::Warn as u64),
        ("LOG_INFO", LogLevel::Info as u64),
        ("LOG_DEBUG", LogLevel::Debug as u64),
    ]
    .map(|(name, value)| (format!("KEYSTEAD_BACKEND_{name}"), value))
    .to_vec();
    for code in ErrorCode::ALL {
        // `KeyPendingDeletion` is KEYSTEAD_BACKEND_KEY_PENDING_DELETION.
        let mut name = String::from("KEYSTEAD_BACKEND");
        for letter in format!("{code:?}").chars() {
            if letter.is_ascii_uppercase() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        claims.push((name, code.as_i32() as u64));
    }
    claims
}

#[test]
fn every_struct_and_every_constant_is_the_same_in_rust_and_in_c() {
    let claims: Vec<Claim> = layouts().into_iter().chain(constants()).collect();
    let mut text = String::from(
        "#include \"keystead_backend.h\"\n#include <stddef.h>\n#include <stdio.h>\n\
         #define ALIGNOF(type) offsetof(struct { char first; type second; }, second)\n\
         int main(void) {\n",
    );
    for (expression, _) in &claims {
        text += &format!("  printf(\"%llu\\n\", (unsigned long long)({expression}));\n");
    }
    text += "  return 0;\n}\n";
    let directory = tempfile::tempdir().expect("a directory");
    let (source, program) = (directory.path().join("layout.c"), directory.path().join("layout"));
    std::fs::write(&source, text).expect("written");
    compile(&compiler("CC", "cc"), &["-std=c99"], &source, &program);
    let output = Command::new(&program)
        .output()
        .expect("it was compiled for this machine");
    let said: Vec<u64> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    assert_eq!(said.len(), claims.len());
    for ((expression, value), said) in claims.iter().zip(said) {
        assert_eq!(*value, said, "{expression}: Rust says {value}, C says {said}");
    }
}

#[test]
fn the_header_has_no_constant_for_a_code_that_rust_lacks() {
    let text = std::fs::read_to_string(format!("{}/keystead_backend.h", include_dir())).expect("it is there");
    let from = text.find("Codes. Every function").expect("the section of codes");
    let to = text.find("Limits, in bytes").expect("the section of limits");
    let mut codes: Vec<i32> = text[from..to]
        .lines()
        .filter_map(|line| line.strip_prefix("#define KEYSTEAD_BACKEND_"))
        .map(|line| {
            line.split_whitespace()
                .nth(1)
                .and_then(|value| value.parse().ok())
                .expect("a number")
        })
        .collect();
    codes.sort_unstable();
    let mut known: Vec<i32> = ErrorCode::ALL.iter().map(|code| code.as_i32()).collect();
    known.extend([
        abi::OK,
        abi::BUFFER_TOO_SMALL,
        abi::INVALID_ARGUMENT,
        abi::UNSUPPORTED_ABI,
    ]);
    known.sort_unstable();
    assert_eq!(codes, known);
}

#[test]
fn codes_of_the_interface_itself_read_as_internal() {
    for code in [
        abi::BUFFER_TOO_SMALL,
        abi::INVALID_ARGUMENT,
        abi::UNSUPPORTED_ABI,
        -1,
        15,
        99,
        i32::MAX,
    ] {
        assert_eq!(ErrorCode::from_i32(code), ErrorCode::Internal);
    }
}

#[test]
fn the_default_limits_are_those_that_the_header_names_and_lie_within_its_bounds() {
    let text = std::fs::read_to_string(format!("{}/keystead_backend.h", include_dir())).expect("it is there");
    let SizeLimits {
        plaintext_max_bytes,
        blob_max_bytes,
        key_id_max_bytes,
        metadata_max_bytes,
    } = SizeLimits::default();
    for (name, value, (least, most)) in [
        (
            "plaintext_max_bytes",
            plaintext_max_bytes,
            abi::PLAINTEXT_MAX_RANGE,
        ),
        ("blob_max_bytes", blob_max_bytes, abi::BLOB_MAX_RANGE),
        ("key_id_max_bytes", key_id_max_bytes, abi::KEY_ID_MAX_RANGE),
        ("metadata_max_bytes", metadata_max_bytes, abi::METADATA_MAX_RANGE),
    ] {
        assert!(
            text.contains(&format!("\"{name}\": {value}")),
            "{name} = {value} is not in the header"
        );
        assert!((least..=most).contains(&value));
    }
}

#[test]
fn the_exported_symbol_has_the_type_that_the_header_says() {
    // Assigns the header's function to a pointer of the type that the Rust side calls it by.
    let text = "#include \"keystead_backend.h\"\n\
        typedef int32_t (*get_interface)(uint32_t, uint32_t, const keystead_backend_host *, const keystead_backend_api **);\n\
        get_interface pointer(void) { return keystead_backend_get_interface; }\n";
    let directory = tempfile::tempdir().expect("a directory");
    let source = directory.path().join("symbol.c");
    std::fs::write(&source, text).expect("written");
    compile(
        &compiler("CC", "cc"),
        &["-std=c99", "-c"],
        &source,
        &directory.path().join("symbol.o"),
    );
}
