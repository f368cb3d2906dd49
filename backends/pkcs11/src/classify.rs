//! Which [`ErrorCode`] an answer of a token is, and what becomes of the connection. Pure: from the answer alone.

use cryptoki::error::{Error, RvError};
use keystead_backend::ErrorCode;

/// Every answer that has a meaning of its own here, by its name in PKCS#11, with that meaning. The crate's front page
/// prints it; a test holds the two together.
pub(crate) const ANSWERS: &[(RvError, &str, ErrorCode)] = &[
    // the key's state
    (
        RvError::KeyFunctionNotPermitted,
        "CKR_KEY_FUNCTION_NOT_PERMITTED",
        ErrorCode::KeyDisabled,
    ),
    (
        RvError::KeyHandleInvalid,
        "CKR_KEY_HANDLE_INVALID",
        ErrorCode::KeyNotFound,
    ),
    (
        RvError::ObjectHandleInvalid,
        "CKR_OBJECT_HANDLE_INVALID",
        ErrorCode::KeyNotFound,
    ),
    (
        RvError::WrappingKeyHandleInvalid,
        "CKR_WRAPPING_KEY_HANDLE_INVALID",
        ErrorCode::KeyNotFound,
    ),
    (
        RvError::UnwrappingKeyHandleInvalid,
        "CKR_UNWRAPPING_KEY_HANDLE_INVALID",
        ErrorCode::KeyNotFound,
    ),
    // who asks, and whether that one may
    (
        RvError::PinIncorrect,
        "CKR_PIN_INCORRECT",
        ErrorCode::Unauthenticated,
    ),
    (RvError::PinInvalid, "CKR_PIN_INVALID", ErrorCode::Unauthenticated),
    (
        RvError::PinLenRange,
        "CKR_PIN_LEN_RANGE",
        ErrorCode::Unauthenticated,
    ),
    (RvError::PinExpired, "CKR_PIN_EXPIRED", ErrorCode::Unauthenticated),
    (RvError::PinLocked, "CKR_PIN_LOCKED", ErrorCode::Unauthenticated),
    (
        RvError::UserPinNotInitialized,
        "CKR_USER_PIN_NOT_INITIALIZED",
        ErrorCode::Unauthenticated,
    ),
    (
        RvError::UserNotLoggedIn,
        "CKR_USER_NOT_LOGGED_IN",
        ErrorCode::Unauthenticated,
    ),
    (
        RvError::UserTypeInvalid,
        "CKR_USER_TYPE_INVALID",
        ErrorCode::Unauthenticated,
    ),
    (
        RvError::ActionProhibited,
        "CKR_ACTION_PROHIBITED",
        ErrorCode::AccessDenied,
    ),
    (
        RvError::FunctionRejected,
        "CKR_FUNCTION_REJECTED",
        ErrorCode::AccessDenied,
    ),
    // the blob
    (
        RvError::EncryptedDataInvalid,
        "CKR_ENCRYPTED_DATA_INVALID",
        ErrorCode::InvalidCiphertext,
    ),
    (
        RvError::EncryptedDataLenRange,
        "CKR_ENCRYPTED_DATA_LEN_RANGE",
        ErrorCode::InvalidCiphertext,
    ),
    (
        RvError::WrappedKeyInvalid,
        "CKR_WRAPPED_KEY_INVALID",
        ErrorCode::InvalidCiphertext,
    ),
    (
        RvError::WrappedKeyLenRange,
        "CKR_WRAPPED_KEY_LEN_RANGE",
        ErrorCode::InvalidCiphertext,
    ),
    (
        RvError::UnknownErrorCode(0x42),
        "CKR_AEAD_DECRYPT_FAILED",
        ErrorCode::InvalidCiphertext,
    ),
    // what was asked of this token and key
    (
        RvError::MechanismInvalid,
        "CKR_MECHANISM_INVALID",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::MechanismParamInvalid,
        "CKR_MECHANISM_PARAM_INVALID",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::FunctionNotSupported,
        "CKR_FUNCTION_NOT_SUPPORTED",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::KeySizeRange,
        "CKR_KEY_SIZE_RANGE",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::KeyTypeInconsistent,
        "CKR_KEY_TYPE_INCONSISTENT",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::WrappingKeySizeRange,
        "CKR_WRAPPING_KEY_SIZE_RANGE",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::WrappingKeyTypeInconsistent,
        "CKR_WRAPPING_KEY_TYPE_INCONSISTENT",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::UnwrappingKeySizeRange,
        "CKR_UNWRAPPING_KEY_SIZE_RANGE",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::UnwrappingKeyTypeInconsistent,
        "CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::KeyNotWrappable,
        "CKR_KEY_NOT_WRAPPABLE",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::KeyUnextractable,
        "CKR_KEY_UNEXTRACTABLE",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::AttributeSensitive,
        "CKR_ATTRIBUTE_SENSITIVE",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::AttributeReadOnly,
        "CKR_ATTRIBUTE_READ_ONLY",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::AttributeTypeInvalid,
        "CKR_ATTRIBUTE_TYPE_INVALID",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::AttributeValueInvalid,
        "CKR_ATTRIBUTE_VALUE_INVALID",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::TemplateIncomplete,
        "CKR_TEMPLATE_INCOMPLETE",
        ErrorCode::InvalidConfig,
    ),
    (
        RvError::TemplateInconsistent,
        "CKR_TEMPLATE_INCONSISTENT",
        ErrorCode::InvalidConfig,
    ),
    (RvError::CantLock, "CKR_CANT_LOCK", ErrorCode::InvalidConfig),
    (
        RvError::NeedToCreateThreads,
        "CKR_NEED_TO_CREATE_THREADS",
        ErrorCode::InvalidConfig,
    ),
    // load
    (RvError::SessionCount, "CKR_SESSION_COUNT", ErrorCode::Throttled),
    // the token or the way to it
    (
        RvError::TokenNotPresent,
        "CKR_TOKEN_NOT_PRESENT",
        ErrorCode::Unavailable,
    ),
    (
        RvError::TokenNotRecognized,
        "CKR_TOKEN_NOT_RECOGNIZED",
        ErrorCode::Unavailable,
    ),
    (
        RvError::SlotIdInvalid,
        "CKR_SLOT_ID_INVALID",
        ErrorCode::Unavailable,
    ),
    (
        RvError::DeviceRemoved,
        "CKR_DEVICE_REMOVED",
        ErrorCode::Unavailable,
    ),
    (RvError::DeviceError, "CKR_DEVICE_ERROR", ErrorCode::Unavailable),
    (RvError::DeviceMemory, "CKR_DEVICE_MEMORY", ErrorCode::Unavailable),
    (RvError::HostMemory, "CKR_HOST_MEMORY", ErrorCode::Unavailable),
    (RvError::GeneralError, "CKR_GENERAL_ERROR", ErrorCode::Unavailable),
    (
        RvError::FunctionFailed,
        "CKR_FUNCTION_FAILED",
        ErrorCode::Unavailable,
    ),
    (
        RvError::SessionClosed,
        "CKR_SESSION_CLOSED",
        ErrorCode::Unavailable,
    ),
    (
        RvError::SessionHandleInvalid,
        "CKR_SESSION_HANDLE_INVALID",
        ErrorCode::Unavailable,
    ),
    (
        RvError::CryptokiNotInitialized,
        "CKR_CRYPTOKI_NOT_INITIALIZED",
        ErrorCode::Unavailable,
    ),
    (
        RvError::UserAnotherAlreadyLoggedIn,
        "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
        ErrorCode::Unavailable,
    ),
    (
        RvError::UserTooManyTypes,
        "CKR_USER_TOO_MANY_TYPES",
        ErrorCode::Unavailable,
    ),
    (
        RvError::OperationActive,
        "CKR_OPERATION_ACTIVE",
        ErrorCode::Unavailable,
    ),
    (
        RvError::OperationNotInitialized,
        "CKR_OPERATION_NOT_INITIALIZED",
        ErrorCode::Unavailable,
    ),
    (
        RvError::FipsSelfTestFailed,
        "CKR_FIPS_SELF_TEST_FAILED",
        ErrorCode::Unavailable,
    ),
    (
        RvError::LibraryLoadFailed,
        "CKR_LIBRARY_LOAD_FAILED",
        ErrorCode::Unavailable,
    ),
    (RvError::Cancel, "CKR_CANCEL", ErrorCode::Cancelled),
    (
        RvError::FunctionCanceled,
        "CKR_FUNCTION_CANCELED",
        ErrorCode::Cancelled,
    ),
];

/// What an answer means.
///
/// A vendor's own code reads as [`ErrorCode::Unavailable`]: vendors use them for what happens on the way to their device,
/// and nothing in them says that the owner took the key away.
pub(crate) fn classify(answer: RvError) -> ErrorCode {
    match ANSWERS.iter().find(|(known, ..)| *known == answer) {
        Some((_, _, meaning)) => *meaning,
        None if matches!(answer, RvError::VendorDefined(_)) => ErrorCode::Unavailable,
        None => ErrorCode::Internal,
    }
}

/// The answer's name in PKCS#11, or its number.
pub(crate) fn name(answer: RvError) -> String {
    match (ANSWERS.iter().find(|(known, ..)| *known == answer), answer) {
        (Some((_, name, _)), _) => (*name).to_owned(),
        (None, RvError::VendorDefined(number)) => format!("the vendor's own error {number:#x}"),
        (None, RvError::UnknownErrorCode(number)) => format!("the error {number:#x}"),
        (None, other) => format!("{other:?}"),
    }
}

/// What a failure leaves of a connection with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aftermath {
    /// It is as it was, but for the session of the call.
    Sound,
    /// Its sessions may be of no use; they can be closed. Another log-in may help.
    Ill,
    /// Its sessions are gone. Their numbers may be somebody else's by now: they are not closed.
    Lost,
}

pub(crate) fn aftermath(error: &Error) -> Aftermath {
    let Error::Pkcs11(answer, _) = error else {
        return Aftermath::Sound;
    };
    match answer {
        RvError::SessionHandleInvalid
        | RvError::SessionClosed
        | RvError::CryptokiNotInitialized
        | RvError::DeviceRemoved
        | RvError::TokenNotPresent
        | RvError::TokenNotRecognized
        | RvError::SlotIdInvalid => Aftermath::Lost,
        RvError::UserNotLoggedIn
        | RvError::GeneralError
        | RvError::FunctionFailed
        | RvError::DeviceError
        | RvError::OperationActive
        | RvError::OperationNotInitialized
        | RvError::VendorDefined(_) => Aftermath::Ill,
        _ => Aftermath::Sound,
    }
}

/// True for what tokens answer to a damaged blob when they have no better word for it, and to other trouble as well.
pub(crate) fn may_be_the_blob(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::GeneralError
                | RvError::FunctionFailed
                | RvError::DeviceError
                | RvError::ArgumentsBad
                | RvError::DataInvalid
                | RvError::DataLenRange
                | RvError::MechanismParamInvalid
                | RvError::TemplateInconsistent
                | RvError::AttributeValueInvalid
                | RvError::VendorDefined(_)
                | RvError::UnknownErrorCode(_),
            _
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_page_has_a_row_for_every_answer_and_each_row_says_what_is_done() {
        let page = include_str!("lib.rs");
        for (answer, name, meaning) in ANSWERS {
            let row = page
                .lines()
                .find(|line| line.starts_with("//! |") && line.contains(&format!("`{name}`")))
                .unwrap_or_else(|| panic!("{name} is not on the front page"));
            assert!(row.contains(&format!("`{meaning:?}`")), "{name}: {row}");
            assert_eq!(classify(*answer), *meaning, "{name} stands there twice");
        }
    }

    #[test]
    fn a_vendors_own_trouble_is_an_outage_and_what_is_unknown_a_fault() {
        assert_eq!(
            classify(RvError::VendorDefined(0x8000_0382)),
            ErrorCode::Unavailable
        );
        assert_eq!(classify(RvError::UnknownErrorCode(0x7777)), ErrorCode::Internal);
        assert_eq!(classify(RvError::StateUnsaveable), ErrorCode::Internal);
    }

    #[test]
    fn nothing_that_revokes_is_read_out_of_trouble_with_the_token() {
        use keystead_backend::ErrorClass;
        for (answer, name, meaning) in ANSWERS {
            let error = Error::Pkcs11(*answer, cryptoki::context::Function::Decrypt);
            if aftermath(&error) == Aftermath::Lost {
                assert_eq!(meaning.class(), ErrorClass::Retryable, "{name}");
            }
        }
    }
}
