"""From a damaged file to a new store, and what was lost on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from keystead._native import ffi, lib
from keystead.backend import Backend
from keystead.handle import call, optional_text, produced, struct, text
from keystead.kms import KeyBackend
from keystead.records import Loss, LossKind, SalvageReport, SalvageStep, items
from keystead.store import IdentityToken, _options


def salvage(
    damaged: str | os.PathLike[str],
    new: str | os.PathLike[str],
    *,
    backends: Iterable[Backend | KeyBackend] = (),
    open_values: bool = True,
    keep_undecided: bool = False,
    store_id: bytes | None = None,
    kms_timeout_ms: int = 0,
    identity_token: IdentityToken | None = None,
    progress: Callable[[SalvageStep], object] | None = None,
) -> SalvageReport:
    """Copies whatever is provably right in a damaged store into a new one, and says what is lost, each version by name.

    The damaged file is only read; the new one appears when it is whole, with the same id, organizations, histories and
    keys. Take a new checkpoint, and destroy the damaged file when it is no longer needed: both hold the keys to their
    wraps.

    - `backends`: those that the store is opened with. One that does not answer is in the report, not an exception.
    - `open_values`: opens every value whose epoch key can be had; otherwise a value is taken for right when its tags
      are.
    - `keep_undecided`: keeps values of which nothing left says whether they were destroyed.
    - `store_id`: `Store.id`, for a file of which neither copy of the header is whole.

    A file that comes from elsewhere, and may have been made to do harm, is for the command `keystead salvage`.
    """
    options, held = _options(
        backends=backends, background_rewrap=True, identity_token=identity_token, kms_timeout_ms=kms_timeout_ms
    )
    how = struct("keystead_salvage_options")
    how.without_opening, how.keep_undecided = not open_values, keep_undecided
    if store_id is not None:
        if len(store_id) != 16:
            raise ValueError("the id of a store has 16 bytes")
        held.append(ffi.from_buffer("uint8_t[]", bytes(store_id)))
        how.store_id = held[-1]
    watcher = _Watcher(progress)
    context = ffi.new_handle(watcher)
    callback = lib.keystead_py_salvage_progress if progress else ffi.NULL
    paths = [os.fsencode(path) for path in (damaged, new)]
    arguments = (*(part for path in paths for part in (path, len(path))), options, how, callback, context)
    pointer = produced(lib.keystead_salvage, "keystead_salvage_report **", *arguments)
    held.clear()
    report = ffi.gc(pointer, lib.keystead_salvage_report_free)
    if watcher.raised is not None:
        raise watcher.raised
    counts = struct("keystead_salvage_counts")
    call(lib.keystead_salvage_report_counts, report, counts)
    return SalvageReport(
        store_id=bytes(counts.store_id),
        organizations=counts.organizations,
        secrets=counts.secrets,
        versions=counts.versions,
        opened=counts.opened,
        tagged=counts.tagged,
        unproven=counts.unproven,
        destroyed=counts.destroyed,
        audit_kept=counts.audit_kept,
        audit_carried=counts.audit_carried,
        journal_records_lost=counts.journal_records_lost,
        lost=tuple(items(report, counts.lost, lib.keystead_salvage_report_lost, "keystead_loss", _loss)),
        unopened=tuple(items(report, counts.unopened, lib.keystead_salvage_report_unopened, "keystead_loss", _loss)),
    )


def _loss(item: Any) -> Loss:
    return Loss(
        kind=LossKind(item.kind) if item.kind in _KINDS else item.kind,
        organization=optional_text(item.organization),
        organization_id=item.organization_id or None,
        path=optional_text(item.path),
        secret_id=item.secret_id or None,
        version=item.version or None,
        what=text(item.what),
    )


_KINDS = {int(kind) for kind in LossKind}


class _Watcher:
    def __init__(self, progress: Callable[[SalvageStep], object] | None) -> None:
        self.progress = progress
        self.raised: BaseException | None = None


@ffi.def_extern()  # type: ignore[untyped-decorator]
def keystead_py_salvage_progress(context: Any, step: Any) -> None:
    watcher: _Watcher = ffi.from_handle(context)
    try:
        if watcher.progress is not None and watcher.raised is None:
            watcher.progress(SalvageStep(text(step.phase), step.done, step.total or None))
    except BaseException as raised:  # nothing may leave this function; it is raised by salvage
        watcher.raised = raised
