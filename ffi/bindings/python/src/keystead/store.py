"""A store: one file with the secrets of many organizations, opened by one process at a time."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from keystead._native import ffi, lib
from keystead.backend import Backend
from keystead.errors import Error, taken
from keystead.handle import Family, Handle, call, called_back, given, produced, struct, text
from keystead.kms import BackendError, KeyBackend
from keystead.organization import Organization
from keystead.records import OrganizationInfo, VerifyReport, items, organization_info, problem

if TYPE_CHECKING:
    from typing_extensions import Self

_PAGE = 1000


@dataclass(frozen=True)
class IdentityRequest:
    """For whom a token is asked."""

    audience: str
    """The audience that the key's config names."""
    organization: str
    key: str


IdentityToken = Callable[[IdentityRequest], "str | bytes"]


class Store(Handle):
    """An open store. To be used from any thread.

    It is closed at the end of a `with` block, by `close`, or when nothing refers to it and its organizations any more.
    After a `fork` it is the parent's alone: in the child each call raises `ForkedError`.

        with keystead.Store.open("app.keystead", backends=[managed]) as store:
            print(store.organization("acme").get("prod/db/password").value)
    """

    __slots__ = ("_family", "path")

    path: str

    def __init__(self, pointer: Any, path: str) -> None:
        super().__init__(pointer, lib.keystead_store_free)
        self.path = path
        self._family = Family()
        _open_stores.add(self)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        backends: Iterable[Backend | KeyBackend] = (),
        cache_bytes: int = 0,
        key_lifetime_ms: int = 0,
        kms_timeout_ms: int = 0,
        kms_attempts_max: int = 0,
        epoch_keys_max: int = 0,
        background_rewrap: bool = True,
        rewrap_batch: int = 0,
        wraps_per_epoch_max: int = 0,
        identity_token: IdentityToken | None = None,
    ) -> Self:
        """Creates a store; the file appears when it is whole and synced, mode 0600.

        - `backends`: under their names; one named `managed` wraps the key that every organization is born with.
        - `cache_bytes`: memory for pages of the file (64 MiB).
        - `key_lifetime_ms`: how long an epoch's key stays in memory, the bound of revocation and the grace in an outage
          (5 minutes).
        - `kms_timeout_ms`, `kms_attempts_max`: the deadline of one KMS call (10 seconds), and how often one is tried (3).
        - `epoch_keys_max`: how many epoch keys stay in memory (10,000).
        - `background_rewrap`: whether re-wrap jobs go on by themselves; otherwise in `RewrapJob.run_here` alone.
        - `rewrap_batch`: how many data keys one batch moves (2,048).
        - `wraps_per_epoch_max`: how many data keys an epoch wraps before its key must be rotated (2**30).
        - `identity_token`: mints tokens for backends that log in with them. What it raises is an outage: what is cached
          serves on. A `BackendError` is what its code says, and `ACCESS_DENIED` or the like takes the key away.

        A number of 0 stands for the default.
        """
        options, held = _options(**{name: value for name, value in locals().items() if name not in ("cls", "path")})
        return cls._begin(lib.keystead_store_create, path, options, held)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        backends: Iterable[Backend | KeyBackend] = (),
        cache_bytes: int = 0,
        key_lifetime_ms: int = 0,
        kms_timeout_ms: int = 0,
        kms_attempts_max: int = 0,
        epoch_keys_max: int = 0,
        background_rewrap: bool = True,
        rewrap_batch: int = 0,
        wraps_per_epoch_max: int = 0,
        identity_token: IdentityToken | None = None,
        checkpoint: str | None = None,
    ) -> Self:
        """Opens a store, and lets its re-wrap jobs go on. Asks no KMS. The options are those of `create`, and

        - `checkpoint`: what `Store.checkpoint` said; a store that has not come as far raises `IntegrityError`.
        """
        options, held = _options(**{name: value for name, value in locals().items() if name not in ("cls", "path")})
        return cls._begin(lib.keystead_store_open, path, options, held)

    @classmethod
    def _begin(cls, function: Any, path: str | os.PathLike[str], options: Any, held: list[Any]) -> Self:
        encoded = os.fsencode(path)
        pointer = produced(function, "keystead_store **", encoded, len(encoded), options)
        held.clear()
        return cls(pointer, os.fspath(path))

    def close(self) -> None:
        """Stops the background work, brings the file into its resting state and releases it. Every handle on the store
        raises `ClosedError` from then on. Doing it twice does nothing."""
        handle = self._handle
        if handle is None:
            return
        self._forget()
        self._family.forget()
        error = ffi.new("keystead_error **")
        if lib.keystead_store_close(handle, error) != 0:
            del handle
            raise taken(error[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<keystead.Store {self.path!r}>"

    @property
    def id(self) -> bytes:
        """Its random id, 16 bytes."""
        room = ffi.new("uint8_t[16]")
        self._call(lib.keystead_store_id, room)
        return bytes(ffi.buffer(room))

    def create_organization(self, name: str) -> Organization:
        """Creates an organization, with its first epoch under the key `managed`. One KMS call."""
        pointer = self._produced(lib.keystead_organization_create, "keystead_organization **", *given(name))
        return Organization(pointer, self._family)

    def organization(self, name: str) -> Organization:
        """The organization of this name; `NotFoundError` when there is none."""
        pointer = self._produced(lib.keystead_organization_open, "keystead_organization **", *given(name))
        return Organization(pointer, self._family)

    def organizations(self) -> Iterator[OrganizationInfo]:
        """The organizations, by name; read 1,000 at a time, each time as the store is then. Asks no KMS."""
        after: str | None = None
        while True:
            arguments = (*given(after), _PAGE)
            pointer = self._produced(
                lib.keystead_organization_list_read, "keystead_organization_list **", *arguments
            )
            found = ffi.gc(pointer, lib.keystead_organization_list_free)
            length = lib.keystead_organization_list_len(found)
            get = lib.keystead_organization_list_get
            yield from items(found, length, get, "keystead_organization_info", organization_info)
            following = lib.keystead_organization_list_next(found)
            if following == ffi.NULL:
                return
            after = ffi.string(following).decode()

    def checkpoint(self) -> str:
        """How far every organization of the store has come, as JSON. Kept where whoever can write the store cannot
        write, and given to `open`, it has a store that was rolled back refused."""
        pointer = self._produced(lib.keystead_checkpoint_take, "keystead_checkpoint **")
        checkpoint = ffi.gc(pointer, lib.keystead_checkpoint_free)
        return ffi.string(lib.keystead_checkpoint_json(checkpoint)).decode()  # type: ignore[no-any-return]

    def verify(self, *, open_values: bool = False, progress: Callable[[int], object] | None = None) -> VerifyReport:
        """Checks the whole store: every page, row, chain and count; with `open_values` also that every value opens,
        which asks the KMS of every live epoch. `progress` is told how many rows were looked at so far.

        What is damaged is in the report, not an exception.
        """
        watcher = _Watcher(progress)
        context = ffi.new_handle(watcher)
        callback = lib.keystead_py_verify_progress if progress else ffi.NULL
        arguments = (lib.KEYSTEAD_VERIFY_OPEN_VALUES if open_values else 0, callback, context)
        pointer = self._produced(lib.keystead_verify, "keystead_verify_report **", *arguments)
        report = ffi.gc(pointer, lib.keystead_verify_report_free)
        if watcher.raised is not None:
            raise watcher.raised
        counts = struct("keystead_verify_counts")
        call(lib.keystead_verify_report_counts, report, counts)
        problems = items(report, counts.problems, lib.keystead_verify_report_problem, "keystead_problem", problem)
        unopened = items(report, counts.unopened, lib.keystead_verify_report_unopened, "keystead_problem", problem)
        return VerifyReport(
            organizations=counts.organizations,
            secrets=counts.secrets,
            versions=counts.versions,
            values_opened=counts.values_opened,
            epochs=counts.epochs,
            audit_records=counts.audit_records,
            problems=tuple(problems),
            unopened=tuple(unopened),
            blocks=counts.blocks,
            stale_blocks=counts.stale_blocks,
            chunks=counts.chunks,
            wraps=counts.wraps,
            complete=bool(counts.complete),
        )

    @property
    def cached_epoch_keys(self) -> int:
        """How many epoch keys are in memory now."""
        return int(self._produced(lib.keystead_store_cached_epoch_keys, "size_t *"))

    def forget_epoch_keys(self) -> None:
        """Drops every epoch key from memory: the next use of each asks its KMS."""
        self._call(lib.keystead_store_forget_epoch_keys)


# Threads of the library may call back into Python, which they must not once the interpreter goes down.
_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for store in list(_open_stores):
        try:
            store.close()
        except Error:
            # Of another process, or the disk failed: nothing acknowledged is lost, and nobody is left to be told.
            continue


def _options(
    *,
    backends: Iterable[Backend | KeyBackend],
    background_rewrap: bool,
    identity_token: IdentityToken | None,
    checkpoint: str | None = None,
    **numbers: int,
) -> tuple[Any, list[Any]]:
    """The options of the library, and what they point to."""
    options = struct("keystead_store_options")
    given_backends = [one if isinstance(one, Backend) else Backend.of(one) for one in backends]
    array = ffi.new("keystead_backend *[]", [one._handle for one in given_backends])
    options.backends, options.backends_len = array, len(given_backends)
    options.without_background_rewrap = not background_rewrap
    for name, number in numbers.items():
        setattr(options, name, number)
    if identity_token is not None:
        handle = ffi.new_handle(identity_token)
        _minters.append(handle)
        options.identity_token = lib.keystead_py_identity_token
        options.identity_context = handle
    pinned = ffi.NULL if checkpoint is None else ffi.from_buffer("char[]", checkpoint.encode())
    options.checkpoint_json, options.checkpoint_json_len = pinned, 0 if checkpoint is None else len(pinned)
    return options, [array, given_backends, pinned]


# What mints tokens lives as long as the process, as the library asks for.
_minters: list[Any] = []


@ffi.def_extern(error=int(lib.KEYSTEAD_BACKEND_UNAVAILABLE))  # type: ignore[untyped-decorator]
@called_back
def keystead_py_identity_token(context: Any, request: Any, token: Any, capacity: int, token_len: Any) -> int:
    try:
        mint: IdentityToken = ffi.from_handle(context)
        minted = mint(IdentityRequest(text(request.audience), text(request.organization), text(request.key)))
        data = minted.encode() if isinstance(minted, str) else minted
        if len(data) > capacity:
            return int(lib.KEYSTEAD_BACKEND_BUFFER_TOO_SMALL)
        ffi.memmove(token, data, len(data))
        token_len[0] = len(data)
        return int(lib.KEYSTEAD_BACKEND_OK)
    except BackendError as error:
        return int(error.code)
    except BaseException:  # nothing may leave this function, and what it says may hold anything
        return int(lib.KEYSTEAD_BACKEND_UNAVAILABLE)


class _Watcher:
    def __init__(self, progress: Callable[[int], object] | None) -> None:
        self.progress = progress
        self.raised: BaseException | None = None


@ffi.def_extern()  # type: ignore[untyped-decorator]
def keystead_py_verify_progress(context: Any, looked_at: int) -> None:
    watcher: _Watcher = ffi.from_handle(context)
    try:
        if watcher.progress is not None and watcher.raised is None:
            watcher.progress(looked_at)
    except BaseException as raised:  # nothing may leave this function; it is raised by verify
        watcher.raised = raised
