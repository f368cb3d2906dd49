"""The backends that a store is opened with: plugins, the managed keyring, and KMSs written in Python."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from keystead._native import ffi, lib
from keystead.handle import Handle, call, given, produced, struct
from keystead.kms import KeyBackend, table_of


class Backend(Handle):
    """A connector to one kind of KMS, to be given to `Store.create` and `Store.open`. May serve several stores."""

    __slots__ = ()

    def __init__(self, pointer: Any) -> None:
        super().__init__(pointer, lib.keystead_backend_free)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        digest: str | bytes | Iterable[str | bytes] = (),
        dangerously_without_digest: bool = False,
        size_max_bytes: int = 0,
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
        at_first_use: bool = False,
    ) -> Backend:
        """Loads a plugin after checking its path, owners, modes and digest; nothing of one that fails there runs.

        `path` is absolute. `digest` is the BLAKE3 digest of the allowed bytes as `b3sum` prints it, or as 32 bytes, or
        several of them. `name` is what stored keys refer to; without, the backend's own name. `settings` are the
        application's, trusted and never stored. `size_max_bytes`: a larger file is refused; 0 for 512 MiB.

        `at_first_use`: it is loaded when a key of it is first used, not now, and needs a name; of many that are
        registered, those that no key needs cost nothing. What refuses it is then the error of that use.

        Raises `ConfigError` with the step at which it was refused, and why.
        """
        options = struct("keystead_plugin_options")
        allowed = [digest] if isinstance(digest, str | bytes) else list(digest)
        digests = b"".join(bytes.fromhex(one) if isinstance(one, str) else one for one in allowed)
        if len(digests) != 32 * len(allowed):
            raise ValueError("a BLAKE3 digest has 32 bytes, or 64 hexadecimal digits")
        digests_held = ffi.from_buffer("uint8_t[]", digests)
        name_data, options.name_len = given(name)
        settings_data, options.settings_json_len = given(_json(settings))
        held = [ffi.from_buffer("char[]", data) if data else ffi.NULL for data in (name_data, settings_data)]
        options.digests, options.digests_len = digests_held, len(allowed)
        options.name, options.settings_json = held
        options.dangerously_without_digest = dangerously_without_digest
        options.size_max_bytes = size_max_bytes
        options.at_first_use = at_first_use
        encoded = os.fsencode(path)
        return cls(produced(lib.keystead_backend_load, "keystead_backend **", encoded, len(encoded), options))

    @classmethod
    def managed(
        cls,
        keyring: str | os.PathLike[str],
        *,
        create: bool = True,
        passphrase_env: str | None = None,
        passphrase_file: str | os.PathLike[str] | None = None,
        passphrase_fd: int | None = None,
    ) -> Backend:
        """The managed key, with which every organization is born: a local keyring file. Back it up.

        It is made at the first wrap unless `create` is false. A sealed one takes its passphrase from a variable of the
        environment, a file, or a file descriptor.
        """
        settings: dict[str, Any] = {"keyring": os.path.abspath(os.fspath(keyring)), "create": create}
        if passphrase_env is not None:
            settings["passphrase_env"] = passphrase_env
        if passphrase_file is not None:
            settings["passphrase_file"] = os.path.abspath(os.fspath(passphrase_file))
        if passphrase_fd is not None:
            settings["passphrase_fd"] = passphrase_fd
        return cls(produced(lib.keystead_backend_managed, "keystead_backend **", *given(_json(settings))))

    @classmethod
    def of(
        cls, backend: KeyBackend, *, name: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> Backend:
        """A KMS written in Python. The object lives as long as the process."""
        arguments = (*given(name), *given(_json(settings)))
        return cls(produced(lib.keystead_backend_from_table, "keystead_backend **", table_of(backend), *arguments))

    @property
    def name(self) -> str:
        """The name by which stored keys refer to it."""
        return ffi.string(lib.keystead_backend_name(self._handle)).decode()  # type: ignore[no-any-return]

    @property
    def description(self) -> dict[str, Any]:
        """What it says about itself: its own name, version, limits, schemas. Nothing for a plugin that is loaded at its
        first use."""
        text = ffi.string(lib.keystead_backend_description_json(self._handle))
        return json.loads(text)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<keystead.Backend {self.name!r}>"


def plugin_digest(path: str | os.PathLike[str]) -> str:
    """The BLAKE3 digest of a file, for tools that make an allow-list. It reads whatever is there and checks nothing: be
    sure that the file is the one you mean."""
    encoded = os.fsencode(path)
    digest = ffi.new("uint8_t[32]")
    call(lib.keystead_plugin_digest, encoded, len(encoded), digest)
    return bytes(ffi.buffer(digest)).hex()


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(dict(value))
