"""The managed key's keyring file, for those who look after it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from keystead._native import ffi, lib
from keystead.backend import Backend
from keystead.handle import Handle, produced, struct, text

_BEGIN = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class KeyVersion:
    """A version of a keyring's master key."""

    number: int
    created_at: datetime
    """When it was made, by the clock of the machine that made it."""


@dataclass(frozen=True)
class KeyringStatus:
    """How a keyring stood."""

    id: str
    """A part of the KMS key id of whatever it wraps."""
    enabled: bool
    sealed: bool
    """True when a passphrase seals it."""
    versions: tuple[KeyVersion, ...]
    """Ascending; the last one wraps."""


class Keyring(Handle):
    """A keyring file. **The keyring is the key: back it up.**

    Every call looks at the file anew, so any number of processes may use and change one keyring at once.

        keyring = keystead.Keyring.create("app.keyring", passphrase=passphrase)
        with keystead.Store.create("app.keystead", backends=[keyring.backend()]) as store: ...
    """

    __slots__ = ("path",)

    path: str

    def __init__(self, pointer: Any, path: str) -> None:
        super().__init__(pointer, lib.keystead_keyring_free)
        self.path = path

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, passphrase: str | bytes | None = None) -> Keyring:
        """Makes a new file, mode 0600, with one master key; its directory is there. `passphrase` seals it. Python keeps
        the passphrase until nothing refers to it, and does not erase it."""
        return cls._begin(lib.keystead_keyring_create, path, passphrase)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, passphrase: str | bytes | None = None) -> Keyring:
        """Opens a file that is there, and checks that the passphrase opens it; `RevokedError` when it does not."""
        return cls._begin(lib.keystead_keyring_open, path, passphrase)

    @classmethod
    def _begin(
        cls, function: Callable[..., int], path: str | os.PathLike[str], passphrase: str | bytes | None
    ) -> Keyring:
        encoded = os.fsencode(path)
        options, held = _sealing(passphrase)
        pointer = produced(function, "keystead_keyring **", encoded, len(encoded), options)
        held.clear()
        return cls(pointer, os.fspath(path))

    def backend(self) -> Backend:
        """The backend `managed` on this keyring, opened as this one was. It makes no file, should this one be gone."""
        return Backend(self._produced(lib.keystead_keyring_backend, "keystead_backend **"))

    def status(self) -> KeyringStatus:
        """How it stands now."""
        pointer = self._produced(lib.keystead_keyring_read, "keystead_keyring_status **")
        found = ffi.gc(pointer, lib.keystead_keyring_status_free)
        info = struct("keystead_keyring_info")
        lib.keystead_keyring_status_look(found, info, ffi.NULL)
        versions = (info.versions[index] for index in range(info.versions_len))
        return KeyringStatus(
            id=text(info.id),
            enabled=bool(info.enabled),
            sealed=bool(info.sealed),
            versions=tuple(
                KeyVersion(version.number, _BEGIN + timedelta(milliseconds=version.created_at_ms))
                for version in versions
            ),
        )

    def rotate(self) -> int:
        """Adds a version of the master key, and returns its number. New wraps use it; older versions stay. To have data
        keys under it, rotate the key `managed` of each organization."""
        return int(self._produced(lib.keystead_keyring_rotate, "uint32_t *"))

    def disable(self) -> None:
        """Disables it: **everything under it is unreadable until `enable`**, in every process, from its next call on."""
        self._call(lib.keystead_keyring_disable)

    def enable(self) -> None:
        """Enables it again."""
        self._call(lib.keystead_keyring_enable)

    def reseal(self, *, passphrase: str | bytes | None) -> Keyring:
        """Puts it under another passphrase; `None`: no sealing any more. Returns the keyring so opened. Whoever has the
        old passphrase, this object and its backends too, gets `RevokedError` from the next call on."""
        options, held = _sealing(passphrase)
        pointer = self._produced(lib.keystead_keyring_reseal, "keystead_keyring **", options)
        held.clear()
        return Keyring(pointer, self.path)

    def __repr__(self) -> str:
        return f"<keystead.Keyring {self.path!r}>"


def _sealing(passphrase: str | bytes | None) -> tuple[Any, list[Any]]:
    """The options of the library, and what they point to."""
    options = struct("keystead_keyring_options")
    if passphrase is None:
        return options, []
    data = ffi.from_buffer("uint8_t[]", passphrase.encode() if isinstance(passphrase, str) else passphrase)
    options.passphrase, options.passphrase_len = data, len(data)
    return options, [data]
