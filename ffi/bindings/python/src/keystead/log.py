"""What the library logs, in Python's `logging`."""

from __future__ import annotations

import atexit
import json
import logging
from types import TracebackType
from typing import TYPE_CHECKING, Any

from keystead._native import ffi, lib
from keystead.handle import Handle, produced, text

if TYPE_CHECKING:
    from typing_extensions import Self

_LEVELS = {
    lib.KEYSTEAD_LOG_ERROR: logging.ERROR,
    lib.KEYSTEAD_LOG_WARN: logging.WARNING,
    lib.KEYSTEAD_LOG_INFO: logging.INFO,
    lib.KEYSTEAD_LOG_DEBUG: logging.DEBUG,
}


class Log(Handle):
    """The log of this process, which goes to a logger until it is closed."""

    __slots__ = ("_kept",)

    def __init__(self, pointer: Any, kept: list[Any]) -> None:
        super().__init__(pointer, lib.keystead_log_free)
        self._kept = kept

    def close(self) -> None:
        """Ends it. What waits is logged first; afterwards nothing is. Doing it twice does nothing."""
        _open.discard(self)
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def log_to(logger: logging.Logger | str = "keystead", *, level: int | None = None) -> Log:
    """Has whatever the library logs, for every store of this process, logged by `logger` until the `Log` is closed, or the
    program ends. There is one in a process: `ConflictError` when there is one already. Call it in the program, after forking.

    `level` is what is asked for, as `logging` has it; without, the logger's own level of now. The message is one line with
    what it is about; `record.keystead` has its parts, `{"target": …, "message": …, "fields": {…}}`. Nothing of it is a
    secret. The logger's handlers run on a thread of the library, and may use it.
    """
    if isinstance(logger, str):
        logger = logging.getLogger(logger)
    wanted = logger.getEffectiveLevel() if level is None else level
    least = max((ours for ours, theirs in _LEVELS.items() if theirs >= wanted), default=lib.KEYSTEAD_LOG_ERROR)
    context = ffi.new_handle(logger)
    pointer = produced(lib.keystead_log_open, "keystead_log **", least, lib.keystead_py_log, context)
    log = Log(pointer, [context, logger])
    _open.add(log)
    return log


# A log that nobody holds goes on. Its thread calls into Python, which it must not once the interpreter goes down.
_open: set[Log] = set()


@atexit.register
def _close() -> None:
    for log in list(_open):
        log.close()


@ffi.def_extern()  # type: ignore[untyped-decorator]
def keystead_py_log(context: Any, record: Any) -> None:
    try:
        logger: logging.Logger = ffi.from_handle(context)
        fields = json.loads(text(record.fields_json))
        parts = {"target": text(record.target), "message": text(record.message), "fields": fields}
        about = " ".join(f"{name}={value}" for name, value in fields.items())
        line = f"{parts['message']} ({about})" if about else parts["message"]
        logger.log(_LEVELS.get(record.level, logging.DEBUG), "%s", line, extra={"keystead": parts})
    except BaseException:  # nothing may leave this function, and there is nobody to raise it to
        return
