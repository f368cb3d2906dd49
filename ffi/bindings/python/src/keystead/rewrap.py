"""Re-wrap jobs: to watch, to wait for, to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from keystead._native import ffi, lib
from keystead.errors import Code, Error, TimedOutError
from keystead.handle import Family, Handle, call, struct
from keystead.records import RewrapStatus, rewrap_status

Progress = Callable[[RewrapStatus], object]

# A wait is done in slices, so that signals (Ctrl-C) are heard.
_SLICE_MS = 200


class RewrapJob(Handle):
    """A re-wrap job. It goes on without this."""

    __slots__ = ()

    def __init__(self, pointer: Any, family: Family) -> None:
        super().__init__(pointer, lib.keystead_rewrap_job_free)
        family.add(self)

    @property
    def number(self) -> int | None:
        """Its number in its organization; `None` when the change moved nothing, and there is nothing to wait for."""
        handle = self._handle
        return None if handle is None else lib.keystead_rewrap_job_number(handle) or None

    def wait(self, timeout: float | None = None, progress: Progress | None = None) -> RewrapStatus:
        """Waits until the job is done, at most `timeout` seconds, telling `progress` of every change. A job that is
        blocked goes on trying, and this goes on waiting.

        Raises `TimedOutError`; `ClosedError` when the store is closed meanwhile; what `progress` raises. The job goes on
        in each case.
        """
        until = None if timeout is None else time.monotonic() + timeout
        watcher = _Watcher(progress)
        while True:
            left_ms = _SLICE_MS if until is None else max(0, int((until - time.monotonic()) * 1000))
            try:
                return self._watched(lib.keystead_rewrap_wait, watcher, min(left_ms, _SLICE_MS))
            except TimedOutError:
                if until is not None and time.monotonic() >= until:
                    raise

    def run_here(self, progress: Progress | None = None) -> RewrapStatus:
        """Does the job's work on this thread until it is done or blocked, telling `progress` after every batch. For
        stores that were opened with `background_rewrap=False`."""
        return self._watched(lib.keystead_rewrap_run_here, _Watcher(progress))

    def _watched(self, function: Callable[..., int], watcher: _Watcher, *arguments: Any) -> RewrapStatus:
        callback = lib.keystead_py_rewrap_progress if watcher.progress else ffi.NULL
        context = ffi.new_handle(watcher)
        try:
            status = self._produced(function, "keystead_rewrap_status **", *arguments, callback, context)
        except Error as error:
            if watcher.raised is not None and error.code == Code.STOPPED:
                raise watcher.raised from None
            raise
        if watcher.raised is not None:
            lib.keystead_rewrap_status_free(status)
            raise watcher.raised
        return taken(status)


def taken(status: Any) -> RewrapStatus:
    """A status of the library, which is freed."""
    try:
        item = struct("keystead_rewrap_progress")
        call(lib.keystead_rewrap_status_look, status, item)
        return rewrap_status(item)
    finally:
        lib.keystead_rewrap_status_free(status)


class _Watcher:
    """The caller's callback, what it was told last, and what it raised."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.told: RewrapStatus | None = None
        self.raised: BaseException | None = None


@ffi.def_extern(error=1)  # type: ignore[untyped-decorator]
def keystead_py_rewrap_progress(context: Any, progress: Any) -> int:
    watcher: _Watcher = ffi.from_handle(context)
    try:
        status = rewrap_status(progress)
        if watcher.progress is not None and watcher.raised is None and status != watcher.told:
            watcher.told = status
            watcher.progress(status)
        return 0
    except BaseException as raised:  # nothing may leave this function; it is raised where the wait was asked for
        watcher.raised = raised
        return 1
