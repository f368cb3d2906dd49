"""What all handles have in common: calls, errors, and the end."""

from __future__ import annotations

import _thread
import threading
import weakref
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar

from keystead._native import ffi, lib
from keystead.errors import ClosedError, Code, taken

if lib.keystead_abi_version() != lib.KEYSTEAD_ABI_VERSION:
    raise ImportError("libkeystead has another version of its interface than keystead was built for")


def call(function: Callable[..., int], *arguments: Any) -> None:
    """Calls a function of the library with room for its error, and raises what comes back. Other threads go on."""
    error = ffi.new("keystead_error **")
    if function(*arguments, error) != 0:
        raise taken(error[0])


def produced(function: Callable[..., int], kind: str, *arguments: Any) -> Any:
    """The same for a function that gives an object or a number: what it wrote into its last argument before the error."""
    out = ffi.new(kind)
    call(function, *arguments, out)
    return out[0]


def text(value: Any) -> str:
    """A `keystead_text`."""
    return bytes(ffi.buffer(value.data, value.len)).decode("utf-8") if value.len else ""


def optional_text(value: Any) -> str | None:
    """A `keystead_text` that may be missing."""
    return None if value.data == ffi.NULL else text(value)


def given(value: str | None) -> tuple[Any, int]:
    """A text for the library, as pointer and length; None becomes a null pointer."""
    if value is None:
        return ffi.NULL, 0
    data = value.encode("utf-8")
    return data, len(data)


def struct(kind: str) -> Any:
    """A new struct that begins with its size."""
    made = ffi.new(kind + " *")
    made.struct_size = ffi.sizeof(kind)
    return made


_T = TypeVar("_T")


class _Here(threading.local):
    called_back = False


_here = _Here()


def called_back(function: Callable[..., _T]) -> Callable[..., _T]:
    """What the library calls from threads of its own, where a store cannot be freed: see `_end`."""

    @wraps(function)
    def called(*arguments: Any) -> _T:
        before, _here.called_back = _here.called_back, True
        try:
            return function(*arguments)
        finally:
            _here.called_back = before

    return called


def _end(free: Callable[[Any], None], pointer: Any) -> None:
    # Python collects on whatever thread runs. Freeing a store waits for the library's threads: for this one, if it is one
    # of those.
    if _here.called_back:
        _thread.start_new_thread(free, (pointer,))
    else:
        free(pointer)


class Handle:
    """An object of the library.

    `_handle` owns it: the library frees it when nothing in Python holds it any more, a call in flight on another thread
    included. So a handle is closed by forgetting it. What raises lets go of it first: an exception that is kept keeps the
    locals of every frame that it went through, and with them the file of a store.
    """

    __slots__ = ("_handle", "__weakref__")

    def __init__(self, pointer: Any, free: Callable[[Any], None]) -> None:
        self._handle = ffi.gc(pointer, partial(_end, free))

    def _call(self, function: Callable[..., int], *arguments: Any) -> None:
        handle = self._handle
        if handle is None:
            raise closed(self)
        error = ffi.new("keystead_error **")
        if function(handle, *arguments, error) != 0:
            del handle
            raise taken(error[0])

    def _produced(self, function: Callable[..., int], kind: str, *arguments: Any) -> Any:
        out = ffi.new(kind)
        self._call(function, *arguments, out)
        return out[0]

    def _forget(self) -> None:
        self._handle = None


def closed(handle: Handle) -> ClosedError:
    """What is raised when a handle is used after its end."""
    return ClosedError(f"this {type(handle).__name__} is closed", Code.CLOSED)


class Family:
    """The handles of one open store: they end together with it, so that the file is released."""

    def __init__(self) -> None:
        self._members: weakref.WeakSet[Handle] = weakref.WeakSet()

    def add(self, handle: Handle) -> None:
        self._members.add(handle)

    def forget(self) -> None:
        for handle in list(self._members):
            handle._forget()
