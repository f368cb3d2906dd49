//! Each row of the error table, provoked on the way to the token, and what the owner does about a key.

mod common;

use common::{KEY, MECHANISMS, assert_fails, call, config, new_key, open, unwrap, wrap};
use keystead_backend::ErrorCode;
use keystead_tests::emulators::SoftHsm;
use serde_json::{Value, json};

/// Every code that the front page names, where tokens answer it, and what it becomes. Twice, since trouble with the
/// connection is tried a second time.
const ROWS: [(&str, &str, u32, ErrorCode); 57] = [
    (
        "C_EncryptInit",
        "CKR_KEY_FUNCTION_NOT_PERMITTED",
        0x68,
        ErrorCode::KeyDisabled,
    ),
    (
        "C_EncryptInit",
        "CKR_KEY_HANDLE_INVALID",
        0x60,
        ErrorCode::KeyNotFound,
    ),
    (
        "C_GetAttributeValue",
        "CKR_OBJECT_HANDLE_INVALID",
        0x82,
        ErrorCode::KeyNotFound,
    ),
    (
        "C_WrapKey",
        "CKR_WRAPPING_KEY_HANDLE_INVALID",
        0x113,
        ErrorCode::KeyNotFound,
    ),
    (
        "C_UnwrapKey",
        "CKR_UNWRAPPING_KEY_HANDLE_INVALID",
        0xf0,
        ErrorCode::KeyNotFound,
    ),
    (
        "C_EncryptInit",
        "CKR_USER_NOT_LOGGED_IN",
        0x101,
        ErrorCode::Unauthenticated,
    ),
    (
        "C_EncryptInit",
        "CKR_PIN_EXPIRED",
        0xa3,
        ErrorCode::Unauthenticated,
    ),
    (
        "C_EncryptInit",
        "CKR_USER_TYPE_INVALID",
        0x103,
        ErrorCode::Unauthenticated,
    ),
    (
        "C_EncryptInit",
        "CKR_ACTION_PROHIBITED",
        0x1b,
        ErrorCode::AccessDenied,
    ),
    (
        "C_EncryptInit",
        "CKR_FUNCTION_REJECTED",
        0x200,
        ErrorCode::AccessDenied,
    ),
    (
        "C_Decrypt",
        "CKR_ENCRYPTED_DATA_INVALID",
        0x40,
        ErrorCode::InvalidCiphertext,
    ),
    (
        "C_Decrypt",
        "CKR_ENCRYPTED_DATA_LEN_RANGE",
        0x41,
        ErrorCode::InvalidCiphertext,
    ),
    (
        "C_UnwrapKey",
        "CKR_WRAPPED_KEY_INVALID",
        0x110,
        ErrorCode::InvalidCiphertext,
    ),
    (
        "C_UnwrapKey",
        "CKR_WRAPPED_KEY_LEN_RANGE",
        0x112,
        ErrorCode::InvalidCiphertext,
    ),
    (
        "C_EncryptInit",
        "CKR_AEAD_DECRYPT_FAILED",
        0x42,
        ErrorCode::InvalidCiphertext,
    ),
    (
        "C_EncryptInit",
        "CKR_MECHANISM_INVALID",
        0x70,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_EncryptInit",
        "CKR_MECHANISM_PARAM_INVALID",
        0x71,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_EncryptInit",
        "CKR_FUNCTION_NOT_SUPPORTED",
        0x54,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_EncryptInit",
        "CKR_KEY_SIZE_RANGE",
        0x62,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_EncryptInit",
        "CKR_KEY_TYPE_INCONSISTENT",
        0x63,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_WrapKey",
        "CKR_WRAPPING_KEY_SIZE_RANGE",
        0x114,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_WrapKey",
        "CKR_WRAPPING_KEY_TYPE_INCONSISTENT",
        0x115,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_UnwrapKey",
        "CKR_UNWRAPPING_KEY_SIZE_RANGE",
        0xf1,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_UnwrapKey",
        "CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT",
        0xf2,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_WrapKey",
        "CKR_KEY_NOT_WRAPPABLE",
        0x69,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_WrapKey",
        "CKR_KEY_UNEXTRACTABLE",
        0x6a,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_CreateObject",
        "CKR_ATTRIBUTE_SENSITIVE",
        0x11,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_CreateObject",
        "CKR_ATTRIBUTE_READ_ONLY",
        0x10,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_CreateObject",
        "CKR_ATTRIBUTE_TYPE_INVALID",
        0x12,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_CreateObject",
        "CKR_ATTRIBUTE_VALUE_INVALID",
        0x13,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_CreateObject",
        "CKR_TEMPLATE_INCOMPLETE",
        0xd0,
        ErrorCode::InvalidConfig,
    ),
    (
        "C_CreateObject",
        "CKR_TEMPLATE_INCONSISTENT",
        0xd1,
        ErrorCode::InvalidConfig,
    ),
    ("C_Initialize", "CKR_CANT_LOCK", 0xa, ErrorCode::InvalidConfig),
    (
        "C_Initialize",
        "CKR_NEED_TO_CREATE_THREADS",
        0x9,
        ErrorCode::InvalidConfig,
    ),
    ("C_CreateObject", "CKR_SESSION_COUNT", 0xb1, ErrorCode::Throttled),
    (
        "C_FindObjectsInit",
        "CKR_TOKEN_NOT_PRESENT",
        0xe0,
        ErrorCode::Unavailable,
    ),
    (
        "C_FindObjectsInit",
        "CKR_TOKEN_NOT_RECOGNIZED",
        0xe1,
        ErrorCode::Unavailable,
    ),
    (
        "C_FindObjectsInit",
        "CKR_SLOT_ID_INVALID",
        0x3,
        ErrorCode::Unavailable,
    ),
    (
        "C_EncryptInit",
        "CKR_DEVICE_REMOVED",
        0x32,
        ErrorCode::Unavailable,
    ),
    ("C_EncryptInit", "CKR_DEVICE_ERROR", 0x30, ErrorCode::Unavailable),
    ("C_EncryptInit", "CKR_DEVICE_MEMORY", 0x31, ErrorCode::Unavailable),
    ("C_EncryptInit", "CKR_HOST_MEMORY", 0x2, ErrorCode::Unavailable),
    ("C_EncryptInit", "CKR_GENERAL_ERROR", 0x5, ErrorCode::Unavailable),
    (
        "C_EncryptInit",
        "CKR_FUNCTION_FAILED",
        0x6,
        ErrorCode::Unavailable,
    ),
    (
        "C_EncryptInit",
        "the vendor's own error 0x80000382",
        0x8000_0382,
        ErrorCode::Unavailable,
    ),
    (
        "C_EncryptInit",
        "CKR_SESSION_CLOSED",
        0xb0,
        ErrorCode::Unavailable,
    ),
    (
        "C_EncryptInit",
        "CKR_SESSION_HANDLE_INVALID",
        0xb3,
        ErrorCode::Unavailable,
    ),
    (
        "C_EncryptInit",
        "CKR_CRYPTOKI_NOT_INITIALIZED",
        0x190,
        ErrorCode::Unavailable,
    ),
    (
        "C_EncryptInit",
        "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
        0x104,
        ErrorCode::Unavailable,
    ),
    (
        "C_EncryptInit",
        "CKR_USER_TOO_MANY_TYPES",
        0x105,
        ErrorCode::Unavailable,
    ),
    (
        "C_EncryptInit",
        "CKR_OPERATION_ACTIVE",
        0x90,
        ErrorCode::Unavailable,
    ),
    (
        "C_EncryptInit",
        "CKR_OPERATION_NOT_INITIALIZED",
        0x91,
        ErrorCode::Unavailable,
    ),
    (
        "C_EncryptInit",
        "CKR_FIPS_SELF_TEST_FAILED",
        0x1b6,
        ErrorCode::Unavailable,
    ),
    (
        "C_EncryptInit",
        "CKR_LIBRARY_LOAD_FAILED",
        0x1b7,
        ErrorCode::Unavailable,
    ),
    ("C_EncryptInit", "CKR_CANCEL", 0x1, ErrorCode::Cancelled),
    (
        "C_EncryptInit",
        "CKR_FUNCTION_CANCELED",
        0x50,
        ErrorCode::Cancelled,
    ),
    ("C_EncryptInit", "the error 0x7777", 0x7777, ErrorCode::Internal),
];

#[test]
fn every_answer_of_a_token_becomes_its_code_and_names_key_call_and_answer() {
    let Some(hsm) = SoftHsm::shared_or_skip("each error of a token") else {
        return;
    };
    new_key(&hsm, "errors");
    for (count, (function, name, code, meaning)) in ROWS.into_iter().enumerate() {
        let key_wrap = ["C_WrapKey", "C_UnwrapKey", "C_CreateObject"].contains(&function);
        let mechanism = MECHANISMS[usize::from(key_wrap)];
        let mut settings = hsm.settings();
        if function == "C_Initialize" {
            // Another connection, which begins with that call.
            settings["sessions_max"] = json!(100 + count);
        }
        let key = open(&settings, &config("errors", mechanism));
        let opens = ["C_Decrypt", "C_UnwrapKey"].contains(&function);
        let wrapped = opens.then(|| wrap(&*key).unwrap());
        hsm.request(&[&format!("{function} {code:#x} 2")]).unwrap();
        let error = match &wrapped {
            Some(wrapped) => assert_fails(unwrap(&*key, wrapped), meaning, &[name]),
            None => assert_fails(wrap(&*key), meaning, &[name]),
        };
        assert!(
            error.message.contains(&format!("to {function}")) && error.message.contains("errors"),
            "{error}"
        );
        // And it goes on as before.
        hsm.request(&[]).unwrap();
        let wrapped = wrapped.unwrap_or_else(|| wrap(&*key).unwrap());
        assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY, "after {name}");
    }
}

#[test]
fn an_ill_token_is_told_apart_from_a_damaged_blob_though_it_says_the_same() {
    let Some(hsm) = SoftHsm::shared_or_skip("an ill token and a damaged blob") else {
        return;
    };
    new_key(&hsm, "ill");
    for (mechanism, function) in [("aes-gcm", "C_Decrypt"), ("aes-key-wrap", "C_UnwrapKey")] {
        let key = open(&hsm.settings(), &config("ill", mechanism));
        let wrapped = wrap(&*key).unwrap();
        let mut damaged = wrapped.clone();
        damaged.blob[3] ^= 1;
        assert_fails(
            unwrap(&*key, &damaged),
            ErrorCode::InvalidCiphertext,
            &["the same key opens what it wraps now"],
        );
        for code in ["0x5", "0x6", "0x30", "0x80000001"] {
            // For good: also what the key wraps now does not open.
            hsm.request(&[&format!("{function} {code} 99")]).unwrap();
            assert_fails(unwrap(&*key, &wrapped), ErrorCode::Unavailable, &[function]);
            hsm.request(&[]).unwrap();
            assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
        }
    }
}

#[test]
fn an_owner_switches_a_key_off_and_on_and_deletes_it() {
    let Some(hsm) = SoftHsm::shared_or_skip("an owner who switches a key off") else {
        return;
    };
    for (mechanism, [to_wrap, to_unwrap]) in MECHANISMS
        .into_iter()
        .zip([["encrypt", "decrypt"], ["wrap", "unwrap"]])
    {
        let label = format!("switched-{mechanism}");
        new_key(&hsm, &label);
        let key = open(&hsm.settings(), &config(&label, mechanism));
        let wrapped = wrap(&*key).unwrap();
        let switch = |use_of_it: &str, is_on: bool| {
            let uses: Value = json!({ use_of_it: is_on });
            hsm.owner("allow", &json!({ "label": label, "uses": uses }))
                .unwrap();
        };
        switch(to_unwrap, false);
        assert_fails(
            unwrap(&*key, &wrapped),
            ErrorCode::KeyDisabled,
            &["CKR_KEY_FUNCTION_NOT_PERMITTED", &label, "CKA_DECRYPT"],
        );
        assert_fails(key.status(&call()), ErrorCode::KeyDisabled, &[&label]);
        switch(to_wrap, false);
        assert_fails(wrap(&*key), ErrorCode::KeyDisabled, &[&label]);
        switch(to_unwrap, true);
        switch(to_wrap, true);
        assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
        key.status(&call()).unwrap();

        hsm.owner("destroy", &json!({ "label": label })).unwrap();
        assert_fails(unwrap(&*key, &wrapped), ErrorCode::KeyNotFound, &[&label]);
        assert_fails(wrap(&*key), ErrorCode::KeyNotFound, &[&label]);
        assert_fails(key.status(&call()), ErrorCode::KeyNotFound, &[&label]);
    }
}

#[test]
fn a_key_put_in_anothers_place_opens_nothing() {
    let Some(hsm) = SoftHsm::shared_or_skip("a key put in another's place") else {
        return;
    };
    for mechanism in MECHANISMS {
        let label = format!("replaced-{mechanism}");
        new_key(&hsm, &label);
        let key = open(&hsm.settings(), &config(&label, mechanism));
        let wrapped = wrap(&*key).unwrap();
        hsm.owner("destroy", &json!({ "label": label })).unwrap();
        new_key(&hsm, &label);
        assert_fails(
            unwrap(&*key, &wrapped),
            ErrorCode::InvalidCiphertext,
            &["the key was replaced"],
        );
    }
}

#[test]
fn a_module_that_is_not_there_or_none_and_a_token_that_is_not_there_or_twice_say_so() {
    let Some(hsm) = SoftHsm::shared_or_skip("modules and tokens that are not there") else {
        return;
    };
    new_key(&hsm, "there");
    let with = |field: &str, value: Value| {
        let mut settings = hsm.settings();
        settings[field] = value;
        settings
    };
    let no_library = hsm.path("no-library.so");
    std::fs::write(&no_library, "no library").unwrap();
    for (module, words) in [
        (hsm.path("not-there.so"), "cannot be loaded"),
        (no_library, "cannot be loaded"),
    ] {
        let key = open(&with("module", json!(module)), &config("there", "aes-gcm"));
        assert_fails(wrap(&*key), ErrorCode::InvalidConfig, &[words]);
    }
    let pin = json!({ "pin_file": hsm.path("pin") });
    let on = |token: &str, about: &Value| {
        open(
            &with("tokens", json!({ token: about })),
            &json!({ "token": token, "key_label": "there" }),
        )
    };
    assert_fails(
        wrap(&*on("gone", &pin)),
        ErrorCode::Unavailable,
        &["no token with the label \"gone\""],
    );
    assert_fails(
        wrap(&*on(SoftHsm::TWINS, &pin)),
        ErrorCode::InvalidConfig,
        &["2 tokens have the label \"twin\"", "serial"],
    );
    let mut of_another = pin.clone();
    of_another["serial"] = json!("0000000000000000");
    assert_fails(
        wrap(&*on("acme", &of_another)),
        ErrorCode::Unavailable,
        &["serial"],
    );
    assert_fails(
        wrap(&*on(SoftHsm::OTHER, &pin)),
        ErrorCode::KeyNotFound,
        &["\"other\""],
    );
}
