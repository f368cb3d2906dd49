"""Large values, in parts and in bounded memory."""

from __future__ import annotations

import io
from types import TracebackType
from typing import TYPE_CHECKING, Any

from keystead._native import ffi, lib
from keystead.errors import ClosedError, Code
from keystead.handle import Family, Handle, struct
from keystead.records import VersionInfo, version_info

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self


class SecretWriter(Handle):
    """Writes one value in parts, of up to 64 MiB. The version is there once it is finished, which leaving a `with` block
    does; leaving it by an exception, or dropping the writer, leaves nothing of the value.

        with acme.writer("backups/keyring") as writer:
            for part in parts:
                writer.write(part)
        print(writer.version)
    """

    __slots__ = ("version",)

    version: int | None
    """The number of the version, once it was finished."""

    def __init__(self, pointer: Any, family: Family) -> None:
        super().__init__(pointer, lib.keystead_writer_free)
        self.version = None
        family.add(self)

    def write(self, part: Buffer) -> int:
        """Writes a part, and returns its number of bytes: all of it is taken, or this raises."""
        data = ffi.from_buffer(part)
        self._call(lib.keystead_writer_write, ffi.cast("uint8_t *", data), len(data))
        return len(data)

    def finish(self) -> int:
        """Makes the version; durable when this returns its number."""
        version: int = self._produced(lib.keystead_writer_finish, "uint32_t *")
        self.version = version
        self._forget()
        return version

    def discard(self) -> None:
        """Leaves nothing of the value."""
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        elif self._handle is not None:
            self.finish()


class _Reader(Handle):
    __slots__ = ()

    def __init__(self, pointer: Any, family: Family) -> None:
        super().__init__(pointer, lib.keystead_reader_free)
        family.add(self)


class SecretReader(io.RawIOBase):
    """Reads one value in parts, as a raw binary stream: `io.BufferedReader(reader)` adds a buffer. Every byte that it
    answers is authenticated."""

    def __init__(self, pointer: Any, family: Family) -> None:
        super().__init__()
        self._reader = _Reader(pointer, family)
        item = struct("keystead_version_info")
        self._reader._call(lib.keystead_reader_info, item)
        self.info: VersionInfo = version_info(item)
        """What is known of the version that is being read."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer with the next part, and returns its length; 0 at the value's end."""
        if self.closed:
            raise ClosedError("this reader is closed", Code.CLOSED)
        room = ffi.from_buffer(buffer, require_writable=True)
        if len(room) == 0:
            return 0
        arguments = (ffi.cast("uint8_t *", room), len(room))
        length: int = self._reader._produced(lib.keystead_reader_read, "size_t *", *arguments)
        return length

    def close(self) -> None:
        if not self.closed:
            self._reader._forget()
        super().close()
