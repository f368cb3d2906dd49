package keystead

/*
#include <keystead.h>
*/
import "C"

import (
	"fmt"
	"time"
)

// Error is why a call did not do what it was asked. Its text is for people, and never holds a secret.
//
// errors.Is tells one by its class or its code:
//
//	if errors.Is(err, keystead.ClassRevoked) { … }       // the owner has taken the key away
//	if errors.Is(err, keystead.CodeVersionMismatch) { … } // somebody was faster
type Error struct {
	Code  Code
	Class Class
	// Retryable is true when the same call may succeed later without anybody's doing.
	Retryable bool
	// RetryAfter is how long a KMS asks to wait before the next try; 0 when it did not say.
	RetryAfter time.Duration
	Message    string
}

// Error is what was being done, to which object, what is wrong, and what to do.
func (e *Error) Error() string {
	return e.Message
}

// Is is true for the code and the class of this error.
func (e *Error) Is(target error) bool {
	switch target := target.(type) {
	case Code:
		return e.Code == target
	case Class:
		return e.Class == target
	}
	return false
}

// Class is what to do about an error. Codes may be added; their classes are among these.
type Class int32

// The classes.
const (
	// ClassCaller: the call is against the rules: a path, a name, an argument, a size.
	ClassCaller Class = C.KEYSTEAD_CLASS_CALLER
	// ClassNotFound: what was asked for is not there.
	ClassNotFound Class = C.KEYSTEAD_CLASS_NOT_FOUND
	// ClassConflict: what is there does not go with what was asked.
	ClassConflict Class = C.KEYSTEAD_CLASS_CONFLICT
	// ClassRevoked: the owner has taken the key away: disabled, deleted, denied.
	ClassRevoked Class = C.KEYSTEAD_CLASS_REVOKED
	// ClassIntegrity: bytes are not what was written. Nothing was guessed.
	ClassIntegrity Class = C.KEYSTEAD_CLASS_INTEGRITY
	// ClassOutage: a KMS is out of reach or throttles, or a time is over.
	ClassOutage Class = C.KEYSTEAD_CLASS_OUTAGE
	// ClassConfig: settings of a backend, or the config of a key, are wrong; a plugin was refused.
	ClassConfig Class = C.KEYSTEAD_CLASS_CONFIG
	// ClassSystem: the disk, the file system or the operating system failed.
	ClassSystem Class = C.KEYSTEAD_CLASS_SYSTEM
	// ClassFault: a fault in the library or in a backend.
	ClassFault Class = C.KEYSTEAD_CLASS_FAULT
)

// Error makes a class a target of errors.Is.
func (c Class) Error() string {
	return fmt.Sprintf("keystead: an error of class %d", int32(c))
}

// Code is what went wrong, exactly. The library's header says more of each.
type Code int32

// The codes.
const (
	CodeInvalidArgument      Code = C.KEYSTEAD_INVALID_ARGUMENT
	CodeInvalidPath          Code = C.KEYSTEAD_INVALID_PATH
	CodeInvalidName          Code = C.KEYSTEAD_INVALID_NAME
	CodeTooLarge             Code = C.KEYSTEAD_TOO_LARGE
	CodeBufferTooSmall       Code = C.KEYSTEAD_BUFFER_TOO_SMALL
	CodeUnsupportedOption    Code = C.KEYSTEAD_UNSUPPORTED_OPTION
	CodeTimedOut             Code = C.KEYSTEAD_TIMED_OUT
	CodeStopped              Code = C.KEYSTEAD_STOPPED
	CodePanicked             Code = C.KEYSTEAD_PANICKED
	CodeForked               Code = C.KEYSTEAD_FORKED
	CodeOther                Code = C.KEYSTEAD_OTHER
	CodeLogTaken             Code = C.KEYSTEAD_LOG_TAKEN
	CodeOrganizationNotFound Code = C.KEYSTEAD_ORGANIZATION_NOT_FOUND
	CodeOrganizationExists   Code = C.KEYSTEAD_ORGANIZATION_EXISTS
	CodeRenameRefused        Code = C.KEYSTEAD_RENAME_REFUSED
	CodeSecretNotFound       Code = C.KEYSTEAD_SECRET_NOT_FOUND
	CodeVersionNotFound      Code = C.KEYSTEAD_VERSION_NOT_FOUND
	CodeVersionDeleted       Code = C.KEYSTEAD_VERSION_DELETED
	CodeVersionDestroyed     Code = C.KEYSTEAD_VERSION_DESTROYED
	CodeVersionMismatch      Code = C.KEYSTEAD_VERSION_MISMATCH
	CodeVersionLost          Code = C.KEYSTEAD_VERSION_LOST
	CodeKeyNotFound          Code = C.KEYSTEAD_KEY_NOT_FOUND
	CodeKeyExists            Code = C.KEYSTEAD_KEY_EXISTS
	CodeKeyRefused           Code = C.KEYSTEAD_KEY_REFUSED
	CodeBackendNotRegistered Code = C.KEYSTEAD_BACKEND_NOT_REGISTERED
	CodeEpochExhausted       Code = C.KEYSTEAD_EPOCH_EXHAUSTED
	CodeNoJob                Code = C.KEYSTEAD_NO_JOB
	CodeStoreExists          Code = C.KEYSTEAD_STORE_EXISTS
	CodeStoreNotFound        Code = C.KEYSTEAD_STORE_NOT_FOUND
	CodeAlreadyOpen          Code = C.KEYSTEAD_ALREADY_OPEN
	CodeNotAStore            Code = C.KEYSTEAD_NOT_A_STORE
	CodeDamaged              Code = C.KEYSTEAD_DAMAGED
	CodeStorage              Code = C.KEYSTEAD_STORAGE
	CodeClosed               Code = C.KEYSTEAD_CLOSED
	CodeRandomness           Code = C.KEYSTEAD_RANDOMNESS
	CodePluginRefused        Code = C.KEYSTEAD_PLUGIN_REFUSED

	CodeBehindCheckpoint         Code = C.KEYSTEAD_BEHIND_CHECKPOINT
	CodeNotOfCheckpoint          Code = C.KEYSTEAD_NOT_OF_CHECKPOINT
	CodeCheckpointOfAnotherStore Code = C.KEYSTEAD_CHECKPOINT_OF_ANOTHER_STORE
)

// The codes of what a KMS, or the backend that speaks to it, answered.
const (
	CodeKMSInvalidConfig      Code = C.KEYSTEAD_KMS + C.KEYSTEAD_BACKEND_INVALID_CONFIG
	CodeKMSUnauthenticated    Code = C.KEYSTEAD_KMS + C.KEYSTEAD_BACKEND_UNAUTHENTICATED
	CodeKMSAccessDenied       Code = C.KEYSTEAD_KMS + C.KEYSTEAD_BACKEND_ACCESS_DENIED
	CodeKMSKeyDisabled        Code = C.KEYSTEAD_KMS + C.KEYSTEAD_BACKEND_KEY_DISABLED
	CodeKMSKeyPendingDeletion Code = C.KEYSTEAD_KMS + C.KEYSTEAD_BACKEND_KEY_PENDING_DELETION
	CodeKMSKeyNotFound        Code = C.KEYSTEAD_KMS + C.KEYSTEAD_BACKEND_KEY_NOT_FOUND
	CodeKMSWrongKey           Code = C.KEYSTEAD_KMS + C.KEYSTEAD_BACKEND_WRONG_KEY
	CodeKMSInvalidCiphertext  Code = C.KEYSTEAD_KMS + C.KEYSTEAD_BACKEND_INVALID_CIPHERTEXT
	CodeKMSThrottled          Code = C.KEYSTEAD_KMS + C.KEYSTEAD_BACKEND_THROTTLED
	CodeKMSUnavailable        Code = C.KEYSTEAD_KMS + C.KEYSTEAD_BACKEND_UNAVAILABLE
	CodeKMSTimeout            Code = C.KEYSTEAD_KMS + C.KEYSTEAD_BACKEND_TIMEOUT
	CodeKMSCancelled          Code = C.KEYSTEAD_KMS + C.KEYSTEAD_BACKEND_CANCELLED
	CodeKMSUnsupported        Code = C.KEYSTEAD_KMS + C.KEYSTEAD_BACKEND_UNSUPPORTED
	CodeKMSInternal           Code = C.KEYSTEAD_KMS + C.KEYSTEAD_BACKEND_INTERNAL
)

// Error makes a code a target of errors.Is.
func (c Code) Error() string {
	return fmt.Sprintf("keystead: an error of code %d", int32(c))
}

// check takes what a call told: its code and its error, which is freed.
func check(code C.int32_t, err *C.keystead_error) error {
	if code == C.KEYSTEAD_OK {
		return nil
	}
	defer C.keystead_error_free(err)
	return &Error{
		Code:       Code(code),
		Class:      Class(C.keystead_error_class(err)),
		Retryable:  C.keystead_error_is_retryable(err) != 0,
		RetryAfter: time.Duration(C.keystead_error_retry_after_ms(err)) * time.Millisecond,
		Message:    C.GoString(C.keystead_error_message(err)),
	}
}

func errClosed(what string) error {
	return &Error{Code: CodeClosed, Class: ClassConflict, Message: "this " + what + " is closed"}
}
