"""A key backend written in Python: what connects Keystead to one kind of KMS.

An application subclasses `KeyBackend` and `KeyInstance` and gives an object of the first to `create` or `open`. The rules
are those of keystead_backend.h; the ones that matter most stand at the methods.
"""

from __future__ import annotations

import enum
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from keystead._native import ffi, lib
from keystead.handle import called_back


class BackendCode(enum.IntEnum):
    """Why a backend did not do what it was asked. It decides what the store does next."""

    INVALID_CONFIG = lib.KEYSTEAD_BACKEND_INVALID_CONFIG
    UNAUTHENTICATED = lib.KEYSTEAD_BACKEND_UNAUTHENTICATED
    ACCESS_DENIED = lib.KEYSTEAD_BACKEND_ACCESS_DENIED
    KEY_DISABLED = lib.KEYSTEAD_BACKEND_KEY_DISABLED
    KEY_PENDING_DELETION = lib.KEYSTEAD_BACKEND_KEY_PENDING_DELETION
    KEY_NOT_FOUND = lib.KEYSTEAD_BACKEND_KEY_NOT_FOUND
    WRONG_KEY = lib.KEYSTEAD_BACKEND_WRONG_KEY
    INVALID_CIPHERTEXT = lib.KEYSTEAD_BACKEND_INVALID_CIPHERTEXT
    THROTTLED = lib.KEYSTEAD_BACKEND_THROTTLED
    UNAVAILABLE = lib.KEYSTEAD_BACKEND_UNAVAILABLE
    TIMEOUT = lib.KEYSTEAD_BACKEND_TIMEOUT
    CANCELLED = lib.KEYSTEAD_BACKEND_CANCELLED
    UNSUPPORTED = lib.KEYSTEAD_BACKEND_UNSUPPORTED
    INTERNAL = lib.KEYSTEAD_BACKEND_INTERNAL


class BackendError(Exception):
    """Raised by a backend in Python. `message` is for people and holds no secret; it is cut at 1,024 bytes."""

    def __init__(self, code: BackendCode, message: str, *, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms


@dataclass(frozen=True)
class Limits:
    """The largest sizes, in bytes, of what a backend takes and answers."""

    plaintext_max_bytes: int = 256
    blob_max_bytes: int = 8192
    key_id_max_bytes: int = 2048
    metadata_max_bytes: int = 1024


@dataclass(frozen=True)
class Call:
    """One call: how long it may take, and its name in logs."""

    timeout_ms: int
    request_id: int
    is_cancelled: Callable[[], bool] = field(repr=False)
    """True once nobody waits for the answer any more. Only until the method returns."""


@dataclass(frozen=True)
class Context:
    """What a wrap is bound to; the same thing in two forms. What is wrapped under one must not unwrap under another."""

    entries: Mapping[str, str]
    canonical: bytes


@dataclass(frozen=True)
class Wrapped:
    """What a wrap answers: the blob, the KMS's name of the key that *this call* used, and what else unwrapping needs."""

    blob: bytes
    key_id: str
    metadata: bytes = b""


@dataclass(frozen=True)
class Status:
    """Health of a key: its id as the KMS names it now (may be empty), and one line for people."""

    key_id: str = ""
    detail: str = ""


class KeyInstance(ABC):
    """One registered key. Called from several threads at once, never after `close`."""

    @abstractmethod
    def wrap(self, call: Call, context: Context, plaintext: bytearray) -> Wrapped:
        """Wraps `plaintext`, bound to `context`. It is a secret, and is overwritten when this returns."""

    @abstractmethod
    def unwrap(self, call: Call, context: Context, wrapped: Wrapped) -> bytes | bytearray:
        """Unwraps what `wrap` answered; `wrapped` comes from a file and is not trusted. A `bytearray` is overwritten
        once its content was taken."""

    def status(self, call: Call) -> Status:
        """Health, and the key's id. Cheap."""
        return Status()

    def close(self) -> None:
        """Nothing is called on this instance afterwards."""


class KeyBackend(ABC):
    """One kind of KMS. An object that was given to a store lives, with its instances' table, as long as the process."""

    name: ClassVar[str]
    """Its own name, of a-z, 0-9 and '-'."""
    version: ClassVar[str]
    binds_context: ClassVar[bool] = False
    """True when the KMS itself authenticates the context. Without, the store frames what it wraps, and checks it."""
    limits: ClassVar[Limits] = Limits()

    @abstractmethod
    def open(self, settings: dict[str, Any], config: dict[str, Any]) -> KeyInstance:
        """Makes an instance for one registered key. `config` comes from a file and is not trusted: refuse, with
        `BackendCode.INVALID_CONFIG` and its name, every field that you do not know."""


# Tables live as long as the process: a call that overran its deadline may still be in one when all else is closed.
_tables: dict[int, tuple[KeyBackend, Any, Any]] = {}
# The instances that are open, by their handles.
_instances: dict[Any, Any] = {}


def table_of(backend: KeyBackend) -> Any:
    """The `keystead_backend_api` table of a backend; made once for each object."""
    known = _tables.get(id(backend))
    if known is not None:
        return known[2]
    handle = ffi.new_handle(backend)
    table = ffi.new("keystead_backend_api *")
    table.struct_size = ffi.sizeof("keystead_backend_api")
    table.abi = lib.KEYSTEAD_BACKEND_ABI
    table.capabilities = lib.KEYSTEAD_BACKEND_BINDS_CONTEXT if backend.binds_context else 0
    table.backend = handle
    table.describe = lib.keystead_py_describe
    table.open = lib.keystead_py_open
    table.close = lib.keystead_py_close
    table.status = lib.keystead_py_status
    table.wrap = lib.keystead_py_wrap
    table.unwrap = lib.keystead_py_unwrap
    _tables[id(backend)] = (backend, handle, table)
    return table


class _TooSmall(Exception):
    """An output has no room; it says itself how much is needed."""


def _bytes(given: Any) -> bytes:
    return bytes(ffi.buffer(given.data, given.len)) if given.len else b""


def _text(given: Any) -> str:
    return _bytes(given).decode("utf-8")


def _answer(out: Any, data: bytes | bytearray) -> None:
    out.len = len(data)
    if len(data) > out.capacity:
        raise _TooSmall
    if data:
        ffi.memmove(out.data, data, len(data))


def _answer_cut(out: Any, text: str) -> None:
    data = text.encode("utf-8", "replace")[: out.capacity].decode("utf-8", "ignore").encode("utf-8")
    _answer(out, data)


def _wipe(data: Any) -> None:
    if isinstance(data, bytearray):
        data[:] = bytes(len(data))


def _call(given: Any) -> Call:
    def is_cancelled() -> bool:
        return bool(given.is_cancelled != ffi.NULL and given.is_cancelled(given.cancel_context))

    return Call(given.timeout_ms, given.request_id, is_cancelled)


def _context(given: Any) -> Context:
    pairs = (given.entries[index] for index in range(given.count))
    entries = {_text(pair.name): _text(pair.value) for pair in pairs}
    return Context(entries, _bytes(given.canonical))


def _guarded(error: Any, work: Callable[[], None]) -> int:
    """Runs what Python does for one call; whatever it raises becomes a code and a message without a secret."""
    retry_after_ms = 0
    try:
        work()
        return int(lib.KEYSTEAD_BACKEND_OK)
    except BackendError as raised:
        code, message, retry_after_ms = int(raised.code), raised.message, raised.retry_after_ms
    except _TooSmall:
        code, message = int(lib.KEYSTEAD_BACKEND_BUFFER_TOO_SMALL), "an answer is longer than the limits of the backend"
    except BaseException as raised:  # nothing may leave this function
        # What it says may hold anything, so only its class is told.
        code, message = int(BackendCode.INTERNAL), f"the backend raised {type(raised).__name__}"
    if error != ffi.NULL:
        error.code = code
        error.retry_after_ms = retry_after_ms
        _answer_cut(error.message, message)
    return code


@ffi.def_extern(error=int(BackendCode.INTERNAL))  # type: ignore[untyped-decorator]
@called_back
def keystead_py_describe(handle: Any, json_out: Any, error: Any) -> int:
    def work() -> None:
        backend: KeyBackend = ffi.from_handle(handle)
        description = {"name": backend.name, "version": backend.version, "limits": vars(backend.limits)}
        _answer(json_out, json.dumps(description).encode())

    return _guarded(error, work)


@ffi.def_extern(error=int(BackendCode.INTERNAL))  # type: ignore[untyped-decorator]
@called_back
def keystead_py_open(handle: Any, request: Any, out: Any, error: Any) -> int:
    def work() -> None:
        backend: KeyBackend = ffi.from_handle(handle)
        settings, config = json.loads(_text(request.settings_json)), json.loads(_text(request.config_json))
        opened = ffi.new_handle(backend.open(settings, config))
        instance = ffi.cast("keystead_backend_instance *", opened)
        _instances[instance] = opened
        out[0] = instance

    return _guarded(error, work)


@ffi.def_extern()  # type: ignore[untyped-decorator]
@called_back
def keystead_py_close(instance: Any) -> None:
    if instance != ffi.NULL:
        opened = ffi.from_handle(ffi.cast("void *", instance))
        _instances.pop(instance, None)
        _guarded(ffi.NULL, opened.close)


def _instance(instance: Any) -> KeyInstance:
    opened: KeyInstance = ffi.from_handle(ffi.cast("void *", instance))
    return opened


@ffi.def_extern(error=int(BackendCode.INTERNAL))  # type: ignore[untyped-decorator]
@called_back
def keystead_py_status(instance: Any, call: Any, out: Any, error: Any) -> int:
    def work() -> None:
        status = _instance(instance).status(_call(call))
        _answer(out.key_id, status.key_id.encode())
        _answer_cut(out.detail, status.detail)

    return _guarded(error, work)


@ffi.def_extern(error=int(BackendCode.INTERNAL))  # type: ignore[untyped-decorator]
@called_back
def keystead_py_wrap(instance: Any, call: Any, context: Any, plaintext: Any, out: Any, error: Any) -> int:
    def work() -> None:
        secret = bytearray(ffi.buffer(plaintext.data, plaintext.len)) if plaintext.len else bytearray()
        try:
            wrapped = _instance(instance).wrap(_call(call), _context(context), secret)
        finally:
            _wipe(secret)
        _answer(out.blob, wrapped.blob)
        _answer(out.key_id, wrapped.key_id.encode())
        _answer(out.metadata, wrapped.metadata)

    return _guarded(error, work)


@ffi.def_extern(error=int(BackendCode.INTERNAL))  # type: ignore[untyped-decorator]
@called_back
def keystead_py_unwrap(instance: Any, call: Any, context: Any, wrapped: Any, out: Any, error: Any) -> int:
    def work() -> None:
        given = Wrapped(_bytes(wrapped.blob), _text(wrapped.key_id), _bytes(wrapped.metadata))
        secret = _instance(instance).unwrap(_call(call), _context(context), given)
        try:
            _answer(out, secret)
        finally:
            _wipe(secret)

    return _guarded(error, work)
