"""What is raised when a call does not do what it was asked: one exception for each class, `Error` above all of them."""

from __future__ import annotations

import enum
from typing import Any

from keystead._native import ffi, lib


class Code(enum.IntEnum):
    """What went wrong, exactly. Later versions of the library may add codes; their classes are among the known ones."""

    INVALID_ARGUMENT = lib.KEYSTEAD_INVALID_ARGUMENT
    INVALID_PATH = lib.KEYSTEAD_INVALID_PATH
    INVALID_NAME = lib.KEYSTEAD_INVALID_NAME
    TOO_LARGE = lib.KEYSTEAD_TOO_LARGE
    BUFFER_TOO_SMALL = lib.KEYSTEAD_BUFFER_TOO_SMALL
    UNSUPPORTED_OPTION = lib.KEYSTEAD_UNSUPPORTED_OPTION
    TIMED_OUT = lib.KEYSTEAD_TIMED_OUT
    STOPPED = lib.KEYSTEAD_STOPPED
    PANICKED = lib.KEYSTEAD_PANICKED
    FORKED = lib.KEYSTEAD_FORKED
    OTHER = lib.KEYSTEAD_OTHER
    LOG_TAKEN = lib.KEYSTEAD_LOG_TAKEN
    ORGANIZATION_NOT_FOUND = lib.KEYSTEAD_ORGANIZATION_NOT_FOUND
    ORGANIZATION_EXISTS = lib.KEYSTEAD_ORGANIZATION_EXISTS
    RENAME_REFUSED = lib.KEYSTEAD_RENAME_REFUSED
    SECRET_NOT_FOUND = lib.KEYSTEAD_SECRET_NOT_FOUND
    VERSION_NOT_FOUND = lib.KEYSTEAD_VERSION_NOT_FOUND
    VERSION_DELETED = lib.KEYSTEAD_VERSION_DELETED
    VERSION_DESTROYED = lib.KEYSTEAD_VERSION_DESTROYED
    VERSION_MISMATCH = lib.KEYSTEAD_VERSION_MISMATCH
    VERSION_LOST = lib.KEYSTEAD_VERSION_LOST
    KEY_NOT_FOUND = lib.KEYSTEAD_KEY_NOT_FOUND
    KEY_EXISTS = lib.KEYSTEAD_KEY_EXISTS
    KEY_REFUSED = lib.KEYSTEAD_KEY_REFUSED
    BACKEND_NOT_REGISTERED = lib.KEYSTEAD_BACKEND_NOT_REGISTERED
    EPOCH_EXHAUSTED = lib.KEYSTEAD_EPOCH_EXHAUSTED
    NO_JOB = lib.KEYSTEAD_NO_JOB
    STORE_EXISTS = lib.KEYSTEAD_STORE_EXISTS
    STORE_NOT_FOUND = lib.KEYSTEAD_STORE_NOT_FOUND
    ALREADY_OPEN = lib.KEYSTEAD_ALREADY_OPEN
    NOT_A_STORE = lib.KEYSTEAD_NOT_A_STORE
    DAMAGED = lib.KEYSTEAD_DAMAGED
    STORAGE = lib.KEYSTEAD_STORAGE
    CLOSED = lib.KEYSTEAD_CLOSED
    RANDOMNESS = lib.KEYSTEAD_RANDOMNESS
    BEHIND_CHECKPOINT = lib.KEYSTEAD_BEHIND_CHECKPOINT
    NOT_OF_CHECKPOINT = lib.KEYSTEAD_NOT_OF_CHECKPOINT
    CHECKPOINT_OF_ANOTHER_STORE = lib.KEYSTEAD_CHECKPOINT_OF_ANOTHER_STORE
    PLUGIN_REFUSED = lib.KEYSTEAD_PLUGIN_REFUSED
    KMS_INVALID_CONFIG = lib.KEYSTEAD_KMS + lib.KEYSTEAD_BACKEND_INVALID_CONFIG
    KMS_UNAUTHENTICATED = lib.KEYSTEAD_KMS + lib.KEYSTEAD_BACKEND_UNAUTHENTICATED
    KMS_ACCESS_DENIED = lib.KEYSTEAD_KMS + lib.KEYSTEAD_BACKEND_ACCESS_DENIED
    KMS_KEY_DISABLED = lib.KEYSTEAD_KMS + lib.KEYSTEAD_BACKEND_KEY_DISABLED
    KMS_KEY_PENDING_DELETION = lib.KEYSTEAD_KMS + lib.KEYSTEAD_BACKEND_KEY_PENDING_DELETION
    KMS_KEY_NOT_FOUND = lib.KEYSTEAD_KMS + lib.KEYSTEAD_BACKEND_KEY_NOT_FOUND
    KMS_WRONG_KEY = lib.KEYSTEAD_KMS + lib.KEYSTEAD_BACKEND_WRONG_KEY
    KMS_INVALID_CIPHERTEXT = lib.KEYSTEAD_KMS + lib.KEYSTEAD_BACKEND_INVALID_CIPHERTEXT
    KMS_THROTTLED = lib.KEYSTEAD_KMS + lib.KEYSTEAD_BACKEND_THROTTLED
    KMS_UNAVAILABLE = lib.KEYSTEAD_KMS + lib.KEYSTEAD_BACKEND_UNAVAILABLE
    KMS_TIMEOUT = lib.KEYSTEAD_KMS + lib.KEYSTEAD_BACKEND_TIMEOUT
    KMS_CANCELLED = lib.KEYSTEAD_KMS + lib.KEYSTEAD_BACKEND_CANCELLED
    KMS_UNSUPPORTED = lib.KEYSTEAD_KMS + lib.KEYSTEAD_BACKEND_UNSUPPORTED
    KMS_INTERNAL = lib.KEYSTEAD_KMS + lib.KEYSTEAD_BACKEND_INTERNAL


class Error(Exception):
    """A call did not do what it was asked. `str(error)` is for people, and never holds a secret."""

    def __init__(self, message: str, code: int, *, retryable: bool = False, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.code = Code(code) if code in _KNOWN_CODES else code
        """A `Code`, or a number that this version of the package does not know."""
        self.retryable = retryable
        """True when the same call may succeed later without anybody's doing."""
        self.retry_after_ms = retry_after_ms
        """How long a KMS asks to wait before the next try; 0 when it did not say."""


class CallerError(Error, ValueError):
    """The call is against the rules: a path, a name, an argument, a size."""


class ForkedError(CallerError):
    """The handle belongs to the process that forked this one. Open the store anew, after the parent has closed it."""


class NotFoundError(Error, LookupError):
    """What was asked for is not there."""


class ConflictError(Error):
    """What is there does not go with what was asked: it exists already, it is in use, its state does not allow it."""


class VersionMismatchError(ConflictError):
    """The latest version is another one than the caller expected: read it again."""


class ClosedError(ConflictError):
    """The store is closed."""


class RevokedError(Error):
    """The owner has taken the key away: disabled, deleted, denied."""


class IntegrityError(Error):
    """Bytes are not what was written, of the store or of what a KMS wrapped. Nothing was guessed."""


class OutageError(Error):
    """A KMS is out of reach, or throttles."""


class TimedOutError(OutageError, TimeoutError):
    """The time that the caller gave is over; the work goes on."""


class ConfigError(Error):
    """Settings of a backend, or the config of a key, are wrong; a plugin was refused."""


class SystemFailureError(Error):
    """The disk, the file system or the operating system failed."""


class FaultError(Error):
    """A fault in the library or in a backend."""


_KNOWN_CODES = {int(code) for code in Code}
_BY_CODE: dict[int, type[Error]] = {
    Code.FORKED: ForkedError,
    Code.VERSION_MISMATCH: VersionMismatchError,
    Code.CLOSED: ClosedError,
    Code.TIMED_OUT: TimedOutError,
}
_BY_CLASS: dict[int, type[Error]] = {
    lib.KEYSTEAD_CLASS_CALLER: CallerError,
    lib.KEYSTEAD_CLASS_NOT_FOUND: NotFoundError,
    lib.KEYSTEAD_CLASS_CONFLICT: ConflictError,
    lib.KEYSTEAD_CLASS_REVOKED: RevokedError,
    lib.KEYSTEAD_CLASS_INTEGRITY: IntegrityError,
    lib.KEYSTEAD_CLASS_OUTAGE: OutageError,
    lib.KEYSTEAD_CLASS_CONFIG: ConfigError,
    lib.KEYSTEAD_CLASS_SYSTEM: SystemFailureError,
    lib.KEYSTEAD_CLASS_FAULT: FaultError,
}


def taken(error: Any) -> Error:
    """The exception for an error of the library, which is freed."""
    code = lib.keystead_error_code(error)
    kind = _BY_CODE.get(code) or _BY_CLASS.get(lib.keystead_error_class(error), Error)
    message = ffi.string(lib.keystead_error_message(error)).decode("utf-8", "replace")
    retryable = bool(lib.keystead_error_is_retryable(error))
    retry_after_ms = lib.keystead_error_retry_after_ms(error)
    lib.keystead_error_free(error)
    return kind(message, code, retryable=retryable, retry_after_ms=retry_after_ms)
