"""Keystead: an embedded database for secrets whose owners bring their own keys.

    managed = keystead.Backend.managed("app.keyring")
    with keystead.Store.create("app.keystead", backends=[managed]) as store:
        acme = store.create_organization("acme")
        v1 = acme.put("prod/db/password", b"correct horse")  # durable when it returns
        acme.put("prod/db/password", b"battery staple", expect=v1)  # refused if somebody was faster
        assert acme.get("prod/db/password").value == b"battery staple"

Everything may be used from several threads at once; a call into the library lets the others go on. After a `fork`, a store
is its parent's alone: see `Store`.
"""

from keystead._native import ffi as _ffi
from keystead._native import lib as _lib
from keystead.backend import Backend, plugin_digest
from keystead.errors import (
    CallerError,
    ClosedError,
    Code,
    ConfigError,
    ConflictError,
    Error,
    FaultError,
    ForkedError,
    IntegrityError,
    NotFoundError,
    OutageError,
    RevokedError,
    SystemFailureError,
    TimedOutError,
    VersionMismatchError,
)
from keystead.keyring import Keyring, KeyringStatus, KeyVersion
from keystead.kms import (
    BackendCode,
    BackendError,
    Call,
    Context,
    KeyBackend,
    KeyInstance,
    Limits,
    Status,
    Wrapped,
)
from keystead.log import Log, log_to
from keystead.organization import NEW, Batch, Keys, Organization
from keystead.records import (
    AuditHead,
    AuditRecord,
    Epoch,
    EpochCause,
    EpochState,
    KeyInfo,
    KeyState,
    Loss,
    LossKind,
    OrganizationInfo,
    Problem,
    RewrapPhase,
    RewrapSource,
    RewrapState,
    RewrapStatus,
    SalvageReport,
    SalvageStep,
    SecondKey,
    Secret,
    SecretInfo,
    StandingIn,
    VerifyReport,
    VersionInfo,
    VersionState,
    WrappedBy,
)
from keystead.rewrap import RewrapJob
from keystead.salvaging import salvage
from keystead.store import IdentityRequest, Store
from keystead.stream import SecretReader, SecretWriter

__version__: str = _ffi.string(_lib.keystead_version()).decode()
"""The version of the library inside."""

__all__ = [
    "NEW",
    "AuditHead",
    "AuditRecord",
    "Backend",
    "BackendCode",
    "BackendError",
    "Batch",
    "Call",
    "CallerError",
    "ClosedError",
    "Code",
    "ConfigError",
    "ConflictError",
    "Context",
    "Epoch",
    "EpochCause",
    "EpochState",
    "Error",
    "FaultError",
    "ForkedError",
    "IdentityRequest",
    "IntegrityError",
    "KeyBackend",
    "KeyInfo",
    "KeyInstance",
    "KeyState",
    "KeyVersion",
    "Keyring",
    "KeyringStatus",
    "Keys",
    "Limits",
    "Log",
    "Loss",
    "LossKind",
    "NotFoundError",
    "Organization",
    "OrganizationInfo",
    "OutageError",
    "Problem",
    "RevokedError",
    "RewrapJob",
    "RewrapPhase",
    "RewrapSource",
    "RewrapState",
    "RewrapStatus",
    "SalvageReport",
    "SalvageStep",
    "SecondKey",
    "Secret",
    "SecretInfo",
    "SecretReader",
    "SecretWriter",
    "StandingIn",
    "Status",
    "Store",
    "SystemFailureError",
    "TimedOutError",
    "VerifyReport",
    "VersionInfo",
    "VersionMismatchError",
    "VersionState",
    "WrappedBy",
    "Wrapped",
    "log_to",
    "plugin_digest",
    "salvage",
]
