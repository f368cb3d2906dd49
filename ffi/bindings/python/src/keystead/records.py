"""What the library answers, as plain values."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from keystead._native import ffi, lib
from keystead.handle import call, optional_text, struct, text

_T = TypeVar("_T")
_E = TypeVar("_E", bound=enum.IntEnum)
_BEGIN = datetime(1970, 1, 1, tzinfo=timezone.utc)


class VersionState(enum.IntEnum):
    """Whether a version can be read."""

    LIVE = lib.KEYSTEAD_VERSION_LIVE
    DELETED = lib.KEYSTEAD_VERSION_IS_DELETED
    """It was deleted; `undelete` brings it back."""
    DESTROYED = lib.KEYSTEAD_VERSION_IS_DESTROYED
    """Its data key and its value are gone for good."""
    LOST = lib.KEYSTEAD_VERSION_IS_LOST
    """It was lost to damage of the file, from which the rest was salvaged."""


class KeyState(enum.IntEnum):
    """Whether new epochs may be opened under a key."""

    ENABLED = lib.KEYSTEAD_KEY_ENABLED
    DISABLING = lib.KEYSTEAD_KEY_DISABLING
    """Its data keys are being re-wrapped to another key."""
    DISABLED = lib.KEYSTEAD_KEY_DISABLED
    """No data key is under it, and none will be."""
    SECOND = lib.KEYSTEAD_KEY_SECOND
    """The second key: it wraps every live epoch as well, and opens them while the other KMS is out of reach."""
    SECOND_EITHER = lib.KEYSTEAD_KEY_SECOND_EITHER
    """The same, where revoking one of the two is not enough."""


class EpochState(enum.IntEnum):
    """What an epoch is good for."""

    ACTIVE = lib.KEYSTEAD_EPOCH_ACTIVE
    """New data keys are wrapped under it."""
    LIVE = lib.KEYSTEAD_EPOCH_LIVE
    """Data keys are, or are going to be, wrapped under it."""
    RETIRED = lib.KEYSTEAD_EPOCH_RETIRED
    """No data key refers to it; its wraps are erased."""


class EpochCause(enum.IntEnum):
    """Why an epoch was opened."""

    ORGANIZATION_CREATED = lib.KEYSTEAD_CAUSE_ORGANIZATION_CREATED
    FIRST_OWN_KEY = lib.KEYSTEAD_CAUSE_FIRST_OWN_KEY
    SET_DEFAULT = lib.KEYSTEAD_CAUSE_SET_DEFAULT
    ROTATION = lib.KEYSTEAD_CAUSE_ROTATION
    KEY_DISABLED = lib.KEYSTEAD_CAUSE_KEY_DISABLED
    ALL_KEYS_DISABLED = lib.KEYSTEAD_CAUSE_ALL_KEYS_DISABLED
    RECORD_LOST = lib.KEYSTEAD_CAUSE_RECORD_LOST


class RewrapPhase(enum.IntEnum):
    """What a re-wrap job is doing."""

    HAND_OVER = lib.KEYSTEAD_REWRAP_HAND_OVER
    """Some source epoch is still wrapped by its old KMS alone."""
    MOVING = lib.KEYSTEAD_REWRAP_MOVING
    """Data keys are being moved; no KMS takes part in it."""


class RewrapState(enum.IntEnum):
    """Whether a re-wrap job goes on."""

    RUNNING = lib.KEYSTEAD_REWRAP_RUNNING
    BLOCKED = lib.KEYSTEAD_REWRAP_BLOCKED
    """It waits and tries again; `RewrapStatus.blocked` says for what."""
    DONE = lib.KEYSTEAD_REWRAP_DONE


class Secret:
    """A value that was read. Python keeps `value` until nothing refers to it, and does not erase it; `get_into` is for
    those who do."""

    __slots__ = ("_labels", "content_type", "created_at_ms", "value", "version")

    value: bytes
    version: int
    content_type: str | None
    """What kind of content it is, if its writer said so."""
    created_at_ms: int

    def __init__(
        self, value: bytes, version: int, labels: dict[str, str] | None, content_type: str | None, created_at_ms: int
    ) -> None:
        self.value = value
        self.version = version
        self.content_type = content_type
        self.created_at_ms = created_at_ms
        self._labels = labels

    @property
    def labels(self) -> Mapping[str, str]:
        """What the labels beside it say."""
        return self._labels or {}

    @property
    def created_at(self) -> datetime:
        """When it was written."""
        return _time(self.created_at_ms)

    def __repr__(self) -> str:
        return f"<keystead.Secret version {self.version}, {len(self.value)} bytes>"


@dataclass(frozen=True)
class OrganizationInfo:
    """An organization in a list."""

    id: int
    name: str
    created_at: datetime
    secrets: int


@dataclass(frozen=True)
class SecretInfo:
    """A secret in a list. Nothing of it was decrypted."""

    path: str
    latest: int
    deleted: int
    """How many of its versions are deleted, and can be undeleted."""
    retention: int | None
    """How many versions are kept; `None`: all."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class VersionInfo:
    """A version in a history. Nothing of it was decrypted."""

    version: int
    state: VersionState | int
    state_at: datetime | None
    """When it was deleted, destroyed or lost."""
    created_at: datetime
    size_bytes: int
    content_type: str | None
    labels: Mapping[str, str]


@dataclass(frozen=True)
class KeyInfo:
    """A registered key."""

    name: str
    backend: str
    config: Mapping[str, Any]
    state: KeyState | int
    is_default: bool
    """True for the key under which the active epoch was opened."""
    created_at: datetime


@dataclass(frozen=True)
class StandingIn:
    """One key serves because another does not answer."""

    key: str
    """The one that serves."""
    since: datetime
    because: str
    """What the other one met, in the words of the error."""


@dataclass(frozen=True)
class SecondKey:
    """An organization's second key, and how far it has come."""

    key: str
    either_opens: bool
    """True when revoking one of the two keys is not enough: the other opens the epochs alone."""
    wrapped: int
    """Live epochs that it wraps."""
    missing: int
    """Live epochs that it does not wrap yet; the organization's re-wrap job goes on until there are none."""
    blocked: str | None
    """Why the job waits, if it does."""
    standing_in: StandingIn | None
    """Set while one key serves because another does not answer, as this process last saw it."""


@dataclass(frozen=True)
class WrappedBy:
    """A registered key that wraps an epoch, and the KMS's own id of it."""

    key: str
    kms_key_id: str


@dataclass(frozen=True)
class Epoch:
    """A key epoch, as an organization's owner or auditor sees it."""

    number: int
    key: str
    kms_key_id: str
    wrapped_by: tuple[WrappedBy, ...]
    """The registered keys that wrap it now; empty when it is retired."""
    opened_at: datetime
    actor: str | None
    reason: str | None
    cause: EpochCause | int
    data_keys: int
    """How many data keys refer to it."""
    state: EpochState | int
    retired_at: datetime | None
    hash: str

    def __str__(self) -> str:
        state = self.state.name.lower() if isinstance(self.state, EpochState) else str(self.state)
        noun = "data key" if self.data_keys == 1 else "data keys"
        return f"{self.number} {self.key} {state}, {self.data_keys} {noun}"


@dataclass(frozen=True)
class RewrapSource:
    """One of the epochs that a job moves, and where to."""

    epoch: int
    target: int
    handed_over: bool
    """True once the target's KMS wraps its key."""
    retired: bool


@dataclass(frozen=True)
class RewrapStatus:
    """How a re-wrap job stands. All but `job` and `rate` count data keys, or batches."""

    job: int
    """Its number in its organization; 0 when there was nothing to move."""
    phase: RewrapPhase | int
    state: RewrapState | int
    blocked: str | None
    """Why it is blocked, if it is."""
    total: int
    done: int
    failed: int
    """Data keys that did not open in this pass, and stay where they are."""
    remaining: int
    batches: int
    rate: float
    """Data keys a second; 0 when that is not known yet."""
    sources: tuple[RewrapSource, ...]


@dataclass(frozen=True)
class AuditRecord:
    """One record of the audit trail."""

    sequence: int
    at: datetime
    event: str
    """What happened: `"VersionPut"`, `"KeyAdded"`, `"EpochOpened"`, …"""
    details: Mapping[str, Any]
    actor: str | None
    reason: str | None
    hash: str


@dataclass(frozen=True)
class AuditHead:
    """The newest audit record's place in its chain: noted elsewhere, it shows later that nothing before was changed."""

    sequence: int
    hash: str


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or that could not be opened."""

    organization: str | None
    path: str | None
    version: int | None
    what: str


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found: how much it looked at, and what is wrong."""

    organizations: int
    secrets: int
    versions: int
    values_opened: int
    epochs: int
    audit_records: int
    problems: tuple[Problem, ...]
    unopened: tuple[Problem, ...]
    """Why some values were not opened: a KMS that did not answer, a key that was taken away."""
    blocks: int
    """Blocks of 4 KiB that were read from the disk and compared with their tags."""
    stale_blocks: int
    """Blocks that do not match their tags, and to which nothing refers: a crash in the middle of a commit leaves such
    ones."""
    chunks: int
    """Chunks of large values."""
    wraps: int
    """Wraps of epoch keys that were opened under the shred keys in their cells."""
    complete: bool
    """False when something was so damaged that not all could be looked at: what it was is among the problems."""

    @property
    def is_clean(self) -> bool:
        """True when nothing is wrong with what could be checked."""
        return not self.problems


class LossKind(enum.IntEnum):
    """What kind of thing was lost."""

    VERSION = lib.KEYSTEAD_LOST_VERSION
    """A value."""
    UNDECIDED = lib.KEYSTEAD_LOST_UNDECIDED
    """A value that may have been destroyed before: nothing that is left says."""
    KEY = lib.KEYSTEAD_LOST_KEY
    """A registered key: its config is gone. Register the KMS key again under another name."""
    EPOCH = lib.KEYSTEAD_LOST_EPOCH
    """An epoch: its key cannot be had any more, or its record is gone."""
    AUDIT_RECORDS = lib.KEYSTEAD_LOST_AUDIT_RECORDS
    ORGANIZATION = lib.KEYSTEAD_LOST_ORGANIZATION
    """An organization with all that it had: its name is gone."""
    JOURNAL = lib.KEYSTEAD_LOST_JOURNAL
    """Records of the journal, the newest commits: what they changed is as it was before."""


@dataclass(frozen=True)
class Loss:
    """One thing that was lost, or that was not opened."""

    kind: LossKind | int
    organization: str | None
    organization_id: int | None
    path: str | None
    """`None` when it is not of a secret, or its path is gone as well."""
    secret_id: int | None
    version: int | None
    what: str
    """What it was, and why it is lost."""


@dataclass(frozen=True)
class SalvageStep:
    """How far a salvage is."""

    phase: str
    """What it is doing, for people."""
    done: int
    total: int | None
    """Of how much, where that is known."""


@dataclass(frozen=True)
class SalvageReport:
    """What came of a salvage: what stands in the new store, and what was lost."""

    store_id: bytes
    organizations: int
    secrets: int
    versions: int
    """Versions whose values are in the new store: `opened`, `tagged` and `unproven` ones."""
    opened: int
    tagged: int
    """Those whose rows all carry their tags, but which were not opened."""
    unproven: int
    """Those that stood in pages which nothing led to, and were not opened: whether they are right shows when read."""
    destroyed: int
    """Versions that were destroyed before: their numbers stay."""
    audit_kept: int
    audit_carried: int
    """Audit records behind a missing one, carried over into the new chain."""
    journal_records_lost: int
    lost: tuple[Loss, ...]
    unopened: tuple[Loss, ...]
    """Why values were not opened: an epoch whose KMS did not answer."""

    @property
    def is_complete(self) -> bool:
        """True when nothing was lost."""
        return not self.lost


def items(found: Any, length: int, get: Callable[..., int], kind: str, convert: Callable[[Any], _T]) -> Iterator[_T]:
    """The items of a list of the library, one by one, through one struct."""
    item = struct(kind)
    for index in range(length):
        call(get, found, index, item)
        yield convert(item)


def labels(data: Any, length: int) -> dict[str, str]:
    return {text(data[index].name): text(data[index].value) for index in range(length)}


def _time(milliseconds: int) -> datetime:
    return _BEGIN + timedelta(milliseconds=milliseconds)


def _known(kind: type[_E], value: int) -> _E | int:
    try:
        return kind(value)
    except ValueError:
        return value


def organization_info(item: Any) -> OrganizationInfo:
    return OrganizationInfo(item.id, text(item.name), _time(item.created_at_ms), item.secrets)


def secret_info(item: Any) -> SecretInfo:
    return SecretInfo(
        path=text(item.path),
        latest=item.latest,
        deleted=item.deleted,
        retention=item.retention or None,
        created_at=_time(item.created_at_ms),
        updated_at=_time(item.updated_at_ms),
    )


def version_info(item: Any) -> VersionInfo:
    return VersionInfo(
        version=item.version,
        state=_known(VersionState, item.state),
        state_at=_time(item.state_at_ms) if item.state_at_ms else None,
        created_at=_time(item.created_at_ms),
        size_bytes=item.size_bytes,
        content_type=optional_text(item.content_type),
        labels=labels(item.labels, item.labels_len),
    )


def key_info(item: Any) -> KeyInfo:
    return KeyInfo(
        name=text(item.name),
        backend=text(item.backend),
        config=json.loads(text(item.config_json)),
        state=_known(KeyState, item.state),
        is_default=bool(item.is_default),
        created_at=_time(item.created_at_ms),
    )


def second_key(item: Any) -> SecondKey:
    standing_in = None
    if item.standing_in_since_ms:
        because = text(item.standing_in_because)
        standing_in = StandingIn(text(item.standing_in), _time(item.standing_in_since_ms), because)
    return SecondKey(
        key=text(item.key),
        either_opens=bool(item.either_opens),
        wrapped=item.wrapped,
        missing=item.missing,
        blocked=optional_text(item.blocked),
        standing_in=standing_in,
    )


def epoch(item: Any) -> Epoch:
    wraps = (item.wrapped_by[index] for index in range(item.wrapped_by_len))
    return Epoch(
        number=item.number,
        key=text(item.key),
        kms_key_id=text(item.kms_key_id),
        wrapped_by=tuple(WrappedBy(text(wrap.key), text(wrap.kms_key_id)) for wrap in wraps),
        opened_at=_time(item.opened_at_ms),
        actor=optional_text(item.actor),
        reason=optional_text(item.reason),
        cause=_known(EpochCause, item.cause),
        data_keys=item.data_keys,
        state=_known(EpochState, item.state),
        retired_at=_time(item.retired_at_ms) if item.retired_at_ms else None,
        hash=text(item.hash),
    )


def rewrap_status(item: Any) -> RewrapStatus:
    sources = (item.sources[index] for index in range(item.sources_len))
    return RewrapStatus(
        job=item.job,
        phase=_known(RewrapPhase, item.phase),
        state=_known(RewrapState, item.state),
        blocked=optional_text(item.blocked),
        total=item.total,
        done=item.done,
        failed=item.failed,
        remaining=item.remaining,
        batches=item.batches,
        rate=item.rate,
        sources=tuple(
            RewrapSource(source.epoch, source.target, bool(source.handed_over), bool(source.retired))
            for source in sources
        ),
    )


def audit_record(item: Any) -> AuditRecord:
    return AuditRecord(
        sequence=item.sequence,
        at=_time(item.at_ms),
        event=text(item.event),
        details=json.loads(text(item.details_json)),
        actor=optional_text(item.actor),
        reason=optional_text(item.reason),
        hash=text(item.hash),
    )


def audit_head(item: Any) -> AuditHead:
    return AuditHead(item.sequence, ffi.string(item.hash).decode())


def problem(item: Any) -> Problem:
    return Problem(optional_text(item.organization), optional_text(item.path), item.version or None, text(item.what))
