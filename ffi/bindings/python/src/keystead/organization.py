"""One tenant's handle: its secrets, keys, epochs, re-wrap job and audit trail."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from keystead._native import ffi, lib
from keystead.errors import taken as taken_error
from keystead.handle import Family, Handle, call, closed, given, optional_text, produced, struct
from keystead.records import (
    AuditHead,
    AuditRecord,
    Epoch,
    KeyInfo,
    RewrapStatus,
    Secret,
    SecondKey,
    SecretInfo,
    VersionInfo,
    audit_head,
    audit_record,
    epoch,
    items,
    key_info,
    second_key,
    secret_info,
    version_info,
)
from keystead.records import labels as labels_of
from keystead.rewrap import RewrapJob, taken
from keystead.stream import SecretReader, SecretWriter

if TYPE_CHECKING:
    from typing_extensions import Buffer

NEW = 0
"""For `expect`: the secret must be new."""

_PAGE = 1000
# Looked up once: a get is what programs do most.
_new, _unpack = ffi.new, ffi.unpack
_got = ffi.typeof("keystead_py_got *")
_get = lib.keystead_py_get
_free = lib.keystead_secret_free


class Organization(Handle):
    """One organization of a store. To be used from any thread; every change is durable when its call returns, and reads
    never wait for writers. What the methods raise is in `keystead.errors`."""

    __slots__ = ("_family", "keys", "name")

    name: str
    keys: Keys
    """Its registered keys, and what can be done with them."""

    def __init__(self, pointer: Any, family: Family) -> None:
        super().__init__(pointer, lib.keystead_organization_free)
        self._family = family
        self.name = ffi.string(lib.keystead_organization_name(pointer)).decode()
        self.keys = Keys(self)
        family.add(self)

    def __repr__(self) -> str:
        return f"<keystead.Organization {self.name!r}>"

    @property
    def id(self) -> int:
        """Its number: given once, never given again."""
        if self._handle is None:
            raise closed(self)
        return int(lib.keystead_organization_id(self._handle))

    def acting_as(self, actor: str | None = None, reason: str | None = None) -> Organization:
        """The same organization, acting for somebody and for a reason: its audit records say so."""
        arguments = (*given(actor), *given(reason))
        pointer = self._produced(lib.keystead_organization_acting_as, "keystead_organization **", *arguments)
        return Organization(pointer, self._family)

    def put(
        self,
        path: str,
        value: Buffer,
        *,
        expect: int | None = None,
        labels: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> int:
        """Writes a new version of a secret, of 0 bytes to 64 MiB, and returns its number when it is durable.

        `expect`: what the latest version must be for it to go through, `NEW` for none; otherwise `VersionMismatchError`.
        Labels and content type are kept in clear, beside the value.
        """
        data = ffi.from_buffer(value)
        options, _held = put_options(expect, labels, content_type)
        arguments = (*given(path), ffi.cast("uint8_t *", data), len(data), options)
        version: int = self._produced(lib.keystead_put, "uint32_t *", *arguments)
        return version

    def put_all(self, puts: Batch | Mapping[str, Buffer] | Iterable[tuple[str, Buffer]]) -> builtins.list[int]:
        """Writes several values in one commit, or none of them, and returns their versions, in order. At most 10,000
        puts with 16 MiB of values together.

            acme.put_all({"db/user": b"app", "db/password": b"correct horse"})
        """
        if not isinstance(puts, Batch):
            batch = Batch()
            for path, value in puts.items() if isinstance(puts, Mapping) else puts:
                batch.put(path, value)
            puts = batch
        count = len(puts)
        versions = ffi.new("uint32_t[]", count or 1)
        self._call(lib.keystead_batch_commit, puts._handle, versions, count)
        return list(versions[0:count])

    def get(self, path: str, version: int = 0) -> Secret:
        """Reads a version of a secret; without a number, the latest. Asks a KMS only when the epoch's key is not in
        memory."""
        handle = self._handle
        if handle is None:
            raise closed(self)
        encoded = path.encode()
        got = _new(_got)
        if _get(handle, encoded, len(encoded), version, got) != 0:
            del handle
            raise taken_error(got.error)
        try:
            value = _unpack(got.data, got.len)
            if got.has_more:
                labels = labels_of(got.labels, got.labels_len)
                return Secret(value, got.version, labels, optional_text(got.content_type), got.created_at_ms)
            return Secret(value, got.version, None, None, got.created_at_ms)
        finally:
            _free(got.secret)

    def get_into(self, path: str, buffer: Buffer, version: int = 0) -> int:
        """Reads a version of a secret into the caller's buffer, and returns its length. The library keeps no copy: who
        erases the buffer leaves none in memory.

        Raises `CallerError` with `Code.BUFFER_TOO_SMALL` when there is not enough room: the buffer is as it was.
        """
        room = ffi.from_buffer(buffer, require_writable=True)
        arguments = (*given(path), version, ffi.cast("uint8_t *", room), len(room))
        length: int = self._produced(lib.keystead_get_into, "size_t *", *arguments)
        return length

    def writer(
        self,
        path: str,
        *,
        expect: int | None = None,
        labels: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> SecretWriter:
        """Begins to write a large value in parts; the options are those of `put`."""
        options, _held = put_options(expect, labels, content_type)
        arguments = (*given(path), options)
        return SecretWriter(self._produced(lib.keystead_writer_open, "keystead_writer **", *arguments), self._family)

    def reader(self, path: str, version: int = 0) -> SecretReader:
        """Begins to read a value in parts, in bounded memory."""
        arguments = (*given(path), version)
        return SecretReader(self._produced(lib.keystead_reader_open, "keystead_reader **", *arguments), self._family)

    def info(self, path: str) -> SecretInfo:
        """What is known of a secret without opening it."""
        pointer = self._produced(lib.keystead_info, "keystead_secret_list **", *given(path))
        found = ffi.gc(pointer, lib.keystead_secret_list_free)
        return next(items(found, 1, lib.keystead_secret_list_get, "keystead_secret_info", secret_info))

    def list(self, prefix: str = "") -> Iterator[SecretInfo]:
        """The secrets whose paths begin with `prefix`, in the order of their bytes. Opens nothing, asks no KMS; read
        1,000 at a time, each time as the store is then."""
        after: str | None = None
        while True:
            arguments = (*given(prefix), *given(after), _PAGE)
            pointer = self._produced(lib.keystead_list, "keystead_secret_list **", *arguments)
            found = ffi.gc(pointer, lib.keystead_secret_list_free)
            length = lib.keystead_secret_list_len(found)
            yield from items(found, length, lib.keystead_secret_list_get, "keystead_secret_info", secret_info)
            following = lib.keystead_secret_list_next(found)
            if following == ffi.NULL:
                return
            after = ffi.string(following).decode()

    def history(self, path: str, after: int = 0) -> Iterator[VersionInfo]:
        """The versions of a secret behind `after`, oldest first. Opens nothing, asks no KMS."""
        while True:
            arguments = (*given(path), after, _PAGE)
            pointer = self._produced(lib.keystead_history, "keystead_version_list **", *arguments)
            found = ffi.gc(pointer, lib.keystead_version_list_free)
            length = lib.keystead_version_list_len(found)
            for version in items(
                found, length, lib.keystead_version_list_get, "keystead_version_info", version_info
            ):
                after = version.version
                yield version
            if length < _PAGE:
                return

    def delete(self, path: str, version: int) -> None:
        """Deletes a version: it is kept, but not read, until it is undeleted. Doing it twice changes nothing."""
        self._call(lib.keystead_delete, *given(path), version)

    def undelete(self, path: str, version: int) -> None:
        """Brings a deleted version back."""
        self._call(lib.keystead_undelete, *given(path), version)

    def destroy(self, path: str, version: int) -> None:
        """Destroys a version: **its data key and its value are gone for good.**"""
        self._call(lib.keystead_destroy, *given(path), version)

    def set_retention(self, path: str, keep: int | None) -> None:
        """Sets how many versions of a secret are kept: every further put **destroys** the oldest ones beyond that.
        `None`, the default, keeps all."""
        if keep is not None and keep < 1:
            raise ValueError("at least one version is kept; None keeps all")
        self._call(lib.keystead_set_retention, *given(path), keep or 0)

    def epochs(self) -> builtins.list[Epoch]:
        """Every epoch since the first. Asks no KMS."""
        pointer = self._produced(lib.keystead_epoch_list_read, "keystead_epoch_list **")
        found = ffi.gc(pointer, lib.keystead_epoch_list_free)
        length = lib.keystead_epoch_list_len(found)
        return [*items(found, length, lib.keystead_epoch_list_get, "keystead_epoch", epoch)]

    def rewrap_status(self) -> RewrapStatus | None:
        """How its re-wrap job stands: the running one, or the last; `None` when there never was one. Asks no KMS."""
        status = self._produced(lib.keystead_rewrap_status_read, "keystead_rewrap_status **")
        return None if status == ffi.NULL else taken(status)

    def rewrap_job(self) -> RewrapJob:
        """Its running re-wrap job, to wait for; `NotFoundError` when none runs."""
        pointer = self._produced(lib.keystead_rewrap_job_open, "keystead_rewrap_job **")
        return RewrapJob(pointer, self._family)

    def audit(self, after: int = 0) -> Iterator[AuditRecord]:
        """The audit records behind number `after`, oldest first; each is checked to chain to the one before it. Asks no
        KMS."""
        while True:
            pointer = self._produced(lib.keystead_audit_list_read, "keystead_audit_list **", after, _PAGE)
            found = ffi.gc(pointer, lib.keystead_audit_list_free)
            length = lib.keystead_audit_list_len(found)
            for record in items(found, length, lib.keystead_audit_list_get, "keystead_audit_record", audit_record):
                after = record.sequence
                yield record
            if length < _PAGE:
                return

    def audit_head(self) -> AuditHead:
        """Number and hash of the newest audit record."""
        head = struct("keystead_audit_head")
        self._call(lib.keystead_audit_head_read, head)
        return audit_head(head)


class Batch(Handle):
    """Several puts that become durable together, or not at all, by `Organization.put_all`; with options for each."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(produced(lib.keystead_batch_new, "keystead_batch **"), lib.keystead_batch_free)

    def put(
        self,
        path: str,
        value: Buffer,
        *,
        expect: int | None = None,
        labels: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> Batch:
        """Adds a put, with the options of `Organization.put`. A path may come more than once."""
        data = ffi.from_buffer(value)
        options, _held = put_options(expect, labels, content_type)
        self._call(lib.keystead_batch_put, *given(path), ffi.cast("uint8_t *", data), len(data), options)
        return self

    def __len__(self) -> int:
        return int(lib.keystead_batch_len(self._handle))


class Keys:
    """The registered keys of an organization. Each change is one atomic commit with its audit records; one that fails at
    a KMS has changed nothing. Those that move data keys answer the job that does, to wait for or not."""

    __slots__ = ("_organization",)

    def __init__(self, organization: Organization) -> None:
        self._organization = organization

    def __iter__(self) -> Iterator[KeyInfo]:
        """Every key, by name. Asks no KMS."""
        pointer = self._organization._produced(lib.keystead_key_list_read, "keystead_key_list **")
        found = ffi.gc(pointer, lib.keystead_key_list_free)
        length = lib.keystead_key_list_len(found)
        return items(found, length, lib.keystead_key_list_get, "keystead_key_info", key_info)

    def add(self, name: str, backend: str, config: Mapping[str, Any] | None = None) -> RewrapJob:
        """Registers a key of the KMS behind `backend`, a name that the store was opened with, after a probe.

        The first customer-managed key becomes the default and takes over everything: its KMS wraps the epochs before
        this returns; re-wrapping the data keys goes on in the background.
        """
        return self._job(lib.keystead_key_add, *given(name), *given(backend), *given(json.dumps(dict(config or {}))))

    def set_default(self, name: str, *, rewrap: bool = False) -> RewrapJob:
        """Opens a new epoch under a key, which takes the new data keys from now on. Existing ones stay where they are
        unless `rewrap` is true."""
        return self._job(lib.keystead_key_set_default, *given(name), int(rewrap))

    def disable(self, name: str, target: str) -> RewrapJob:
        """Disables a key: everything under it is handed over and re-wrapped to `target` first. If its KMS cannot be
        reached, it stays on the way until it can."""
        return self._job(lib.keystead_key_disable, *given(name), *given(target))

    def disable_all(self) -> RewrapJob:
        """Back to the managed key: everything moves there, and all customer-managed keys are disabled."""
        return self._job(lib.keystead_key_disable_all)

    def rotate(self, name: str) -> RewrapJob:
        """Opens a new epoch under the same key, re-wraps to it what the key held, and retires the older epochs."""
        return self._job(lib.keystead_key_rotate, *given(name))

    def retarget(self, name: str) -> RewrapJob:
        """Gives the running re-wrap job another target."""
        return self._job(lib.keystead_key_retarget, *given(name))

    def set_second(self, name: str, *, either_opens: bool = False) -> RewrapJob:
        """Makes a registered key the second key: it wraps every live epoch as well, now and from now on. While one of
        the two KMSs is out of reach, the other opens everything.

        Revoking either key is honoured, as far as it is the one that is asked. With `either_opens` it is not: **then
        both must be revoked to take the data away.** The job moves nothing, and is done when every live epoch is wrapped
        by both.
        """
        return self._job(lib.keystead_key_set_second, *given(name), int(either_opens))

    def remove_second(self) -> None:
        """The second key is one like the others again, and opens nothing: its wraps are erased. Asks no KMS."""
        self._organization._call(lib.keystead_key_remove_second)

    def second(self) -> SecondKey | None:
        """The second key, and how it stands; `None` where there is none. Asks no KMS."""
        found = self._organization._produced(lib.keystead_second_key_read, "keystead_second_key **")
        if found == ffi.NULL:
            return None
        held = ffi.gc(found, lib.keystead_second_key_free)
        standing = struct("keystead_second_key_status")
        call(lib.keystead_second_key_look, held, standing)
        return second_key(standing)

    def probe(self, name: str) -> None:
        """Asks the KMS of a key now, by wrapping and unwrapping random bytes: three KMS calls."""
        self._organization._call(lib.keystead_key_probe, *given(name))

    def _job(self, function: Any, *arguments: Any) -> RewrapJob:
        organization = self._organization
        return RewrapJob(organization._produced(function, "keystead_rewrap_job **", *arguments), organization._family)


def put_options(
    expect: int | None, labels: Mapping[str, str] | None, content_type: str | None
) -> tuple[Any, list[Any]]:
    """Options of a put, and what they point to."""
    if expect is None and not labels and content_type is None:
        return ffi.NULL, []
    options = struct("keystead_put_options")
    held: list[Any] = []

    def keep(value: str) -> tuple[Any, int]:
        data = value.encode()
        memory = ffi.from_buffer("char[]", data)
        held.append(memory)
        return memory, len(data)

    if expect is not None:
        options.expect = lib.KEYSTEAD_EXPECT_VERSION if expect != NEW else lib.KEYSTEAD_EXPECT_NEW
        options.expect_version = expect
    if content_type is not None:
        options.content_type, options.content_type_len = keep(content_type)
    if labels:
        array = ffi.new("keystead_label[]", len(labels))
        held.append(array)
        for item, (name, value) in zip(array, labels.items(), strict=True):
            item.name.data, item.name.len = keep(name)
            item.value.data, item.value.len = keep(value)
        options.labels, options.labels_len = array, len(labels)
    return options, held
