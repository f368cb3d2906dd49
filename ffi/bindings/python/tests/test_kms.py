"""A KMS written in Python: it wraps and unwraps, and what it raises becomes what the store does."""

import gc
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import keystead
from keystead import BackendCode, BackendError, Call, Code, Context, KeyBackend, KeyInstance, Status, Store, Wrapped


class Room:
    """Where the keys of the KMS are: a machine somewhere else."""

    def __init__(self) -> None:
        self.keys: dict[str, bytes] = {}
        self.fault: BaseException | None = None
        self.calls: list[str] = []
        self.seen: list[bytearray] = []
        self.contexts: list[Context] = []
        self.delay = 0.0
        self.begin: Callable[[], None] = lambda: None
        self.open = 0


class PythonKey(KeyInstance):
    """Seals with a keystream of SHA-256 and a tag of HMAC, both bound to the context: enough for a test."""

    def __init__(self, room: Room, key_id: str) -> None:
        self.room, self.key_id = room, key_id
        room.open += 1

    def wrap(self, call: Call, context: Context, plaintext: bytearray) -> Wrapped:
        self._begin("wrap", call, context)
        self.room.seen.append(plaintext)
        nonce = os.urandom(16)
        blob = self._mask(nonce, bytes(plaintext))
        return Wrapped(nonce + blob + self._tag(context, nonce + blob), self.key_id, b"v1")

    def unwrap(self, call: Call, context: Context, wrapped: Wrapped) -> bytearray:
        self._begin("unwrap", call, context)
        assert wrapped.metadata == b"v1"
        if wrapped.key_id != self.key_id:
            raise BackendError(BackendCode.WRONG_KEY, f"{wrapped.key_id} wrapped it")
        sealed, tag = wrapped.blob[:-32], wrapped.blob[-32:]
        if not hmac.compare_digest(tag, self._tag(context, sealed)):
            raise BackendError(BackendCode.INVALID_CIPHERTEXT, "the tag does not fit")
        return bytearray(self._mask(sealed[:16], sealed[16:]))

    def status(self, call: Call) -> Status:
        return Status(self.key_id, "well")

    def close(self) -> None:
        self.room.open -= 1

    def _begin(self, what: str, call: Call, context: Context) -> None:
        assert call.timeout_ms > 0
        self.room.calls.append(what)
        self.room.contexts.append(context)
        self.room.begin()
        if self.room.delay:
            time.sleep(self.room.delay)
        if self.room.fault is not None:
            raise self.room.fault

    def _mask(self, nonce: bytes, data: bytes) -> bytes:
        key = self.room.keys[self.key_id]
        stream = b"".join(hashlib.sha256(key + nonce + bytes([block])).digest() for block in range(len(data) // 32 + 1))
        return bytes(a ^ b for a, b in zip(data, stream, strict=False))

    def _tag(self, context: Context, data: bytes) -> bytes:
        return hmac.new(self.room.keys[self.key_id], context.canonical + data, hashlib.sha256).digest()


class PythonKms(KeyBackend):
    name = "python-kms"
    version = "1.0.0"
    binds_context = True

    def __init__(self) -> None:
        self.room = Room()

    def open(self, settings: dict[str, Any], config: dict[str, Any]) -> PythonKey:
        if unknown := set(config) - {"key"}:
            raise BackendError(BackendCode.INVALID_CONFIG, f"unknown field {unknown.pop()!r}")
        key_id = config.get("key", "default")
        self.room.keys.setdefault(key_id, os.urandom(32))
        return PythonKey(self.room, key_id)


@pytest.fixture
def kms() -> PythonKms:
    return PythonKms()


@pytest.fixture
def store(tmp_path: Path, managed: keystead.Backend, kms: PythonKms) -> Iterator[Store]:
    options = {"kms_attempts_max": 1, "kms_timeout_ms": 60_000}
    with Store.create(tmp_path / "s", backends=[managed, kms], **options) as store:  # type: ignore[arg-type]
        yield store


@pytest.fixture
def acme(store: Store) -> keystead.Organization:
    acme = store.create_organization("acme")
    acme.put("a", b"correct horse")
    return acme


def test_a_kms_in_python_wraps_and_unwraps(store: Store, acme: keystead.Organization, kms: PythonKms) -> None:
    acme.keys.add("own", "python-kms", {"key": "k1"}).wait(60)
    assert "wrap" in kms.room.calls and "unwrap" in kms.room.calls
    before = len(kms.room.calls)
    store.forget_epoch_keys()
    assert acme.get("a").value == b"correct horse"
    assert kms.room.calls[before:] == ["unwrap"]
    epoch = acme.epochs()[-1]
    assert (epoch.key, epoch.kms_key_id, epoch.data_keys) == ("own", "k1", 1)
    assert any("acme" in context.entries.values() for context in kms.room.contexts) or kms.room.contexts[-1].entries


def test_plaintexts_that_it_was_given_are_overwritten(acme: keystead.Organization, kms: PythonKms) -> None:
    acme.keys.add("own", "python-kms").wait(60)
    assert kms.room.seen
    assert all(set(plaintext) <= {0} for plaintext in kms.room.seen)


def test_it_is_the_managed_key_of_a_store_as_well(tmp_path: Path, kms: PythonKms) -> None:
    backend = keystead.Backend.of(kms, name="managed", settings={"zone": 1})
    with Store.create(tmp_path / "own", backends=[backend]) as store:
        store.create_organization("acme").put("a", b"1")
    with Store.open(tmp_path / "own", backends=[backend]) as store:
        assert store.organization("acme").get("a").value == b"1"
    assert kms.room.open == 0


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (BackendError(BackendCode.KEY_DISABLED, "switched off"), keystead.RevokedError, Code.KMS_KEY_DISABLED),
        (BackendError(BackendCode.ACCESS_DENIED, "no grant"), keystead.RevokedError, Code.KMS_ACCESS_DENIED),
        (BackendError(BackendCode.UNAVAILABLE, "line is cut"), keystead.OutageError, Code.KMS_UNAVAILABLE),
        (BackendError(BackendCode.THROTTLED, "slowly", retry_after_ms=70), keystead.OutageError, Code.KMS_THROTTLED),
        (BackendError(BackendCode.INVALID_CIPHERTEXT, "bits"), keystead.IntegrityError, Code.KMS_INVALID_CIPHERTEXT),
        (ZeroDivisionError("secret horse"), keystead.FaultError, Code.KMS_INTERNAL),
    ],
)
def test_what_it_raises_becomes_what_the_store_does(
    store: Store,
    acme: keystead.Organization,
    kms: PythonKms,
    raised: BaseException,
    kind: type[keystead.Error],
    code: Code,
) -> None:
    acme.keys.add("own", "python-kms").wait(60)
    store.forget_epoch_keys()
    kms.room.fault = raised
    with pytest.raises(kind) as refused:
        acme.get("a")
    assert refused.value.code is code
    assert refused.value.retryable == (kind is keystead.OutageError)
    assert "secret horse" not in str(refused.value)
    if isinstance(raised, BackendError):
        assert raised.message in str(refused.value)
        assert refused.value.retry_after_ms == raised.retry_after_ms
    else:
        assert "ZeroDivisionError" in str(refused.value)
    kms.room.fault = None
    store.forget_epoch_keys()
    time.sleep(1.1)  # a failure is remembered for a second
    assert acme.get("a").value == b"correct horse"


def test_a_config_that_it_does_not_know_is_refused_by_its_name(acme: keystead.Organization) -> None:
    with pytest.raises(keystead.ConfigError) as refused:
        acme.keys.add("own", "python-kms", {"colour": "red"})
    assert "colour" in str(refused.value)
    assert [key.name for key in acme.keys] == ["managed"]


def test_one_that_does_not_bind_the_context_as_it_says_is_not_registered(
    tmp_path: Path, managed: keystead.Backend
) -> None:
    class Careless(PythonKey):
        def _tag(self, context: Context, data: bytes) -> bytes:
            return b"\0" * 32

    class CarelessKms(PythonKms):
        def open(self, settings: dict[str, Any], config: dict[str, Any]) -> PythonKey:
            self.room.keys["k"] = b"k"
            return Careless(self.room, "k")

    with Store.create(tmp_path / "s2", backends=[managed, CarelessKms()]) as store:
        acme = store.create_organization("acme")
        with pytest.raises(keystead.Error):
            acme.keys.add("own", "python-kms")


def test_a_table_against_the_rules_is_refused() -> None:
    class Nameless(PythonKms):
        name = "Not A Name"

    with pytest.raises(keystead.ConfigError) as refused:
        keystead.Backend.of(Nameless())
    assert refused.value.code is Code.PLUGIN_REFUSED


def test_the_application_mints_tokens_for_a_plugin_that_logs_in_with_them(
    tmp_path: Path, managed: keystead.Backend
) -> None:
    plugin = os.environ["KEYSTEAD_MINTING_PLUGIN"]
    minting = keystead.Backend.load(plugin, digest=keystead.plugin_digest(plugin))
    asked: list[keystead.IdentityRequest] = []
    fault: list[Exception] = []

    def mint(request: keystead.IdentityRequest) -> str:
        asked.append(request)
        if fault:
            raise fault[0]
        return f"token for {request.organization}"

    options = {"kms_attempts_max": 1, "identity_token": mint}
    with Store.create(tmp_path / "m", backends=[managed, minting], **options) as store:  # type: ignore[arg-type]
        acme = store.create_organization("acme")
        acme.put("a", b"correct horse")
        acme.keys.add("own", "minting").wait(60)
        assert set(asked) == {keystead.IdentityRequest("keystead:tests", "acme", "own")}
        store.forget_epoch_keys()
        assert acme.get("a").value == b"correct horse"
        for raised, code in [
            (BackendError(BackendCode.ACCESS_DENIED, "no"), Code.KMS_ACCESS_DENIED),
            (ValueError("secret horse"), Code.KMS_UNAVAILABLE),
        ]:
            fault[:] = [raised]
            store.forget_epoch_keys()
            time.sleep(1.1)  # a failure is remembered for a second
            with pytest.raises(keystead.Error) as refused:
                acme.get("a")
            assert refused.value.code is code
            assert "secret horse" not in str(refused.value)


def test_a_store_that_is_collected_while_its_kms_answers_does_not_wait_for_that_answer(
    tmp_path: Path, managed: keystead.Backend, kms: PythonKms
) -> None:
    """Python collects cycles on whatever thread allocates: on one of the library's, within a method of a KMS, as well. A store
    that was freed there waited for its re-wrap job, and that for the method: until the deadline of the call."""
    path, options = tmp_path / "s", {"kms_attempts_max": 1, "kms_timeout_ms": 120_000}
    store = Store.create(path, backends=[managed, kms], **options)  # type: ignore[arg-type]
    acme = store.create_organization("acme")
    acme.put("a", b"1")
    acme.keys.add("own", "python-kms").wait(60)
    store.forget_epoch_keys()
    kms.room.fault = BackendError(BackendCode.UNAVAILABLE, "line is cut")
    job = acme.keys.set_default("managed", rewrap=True)
    status = acme.rewrap_status()
    assert status is not None and status.state is not keystead.RewrapState.DONE
    took: list[float] = []

    def collect() -> None:
        began = time.monotonic()
        gc.collect()
        took.append(time.monotonic() - began)

    gc.disable()
    try:
        cycle: list[object] = [store, acme, job]
        cycle.append(cycle)
        del store, acme, job, cycle
        kms.room.begin = collect
        until = time.monotonic() + 60
        while not took and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        gc.enable()
    assert took and took[0] < 60
    until = time.monotonic() + 60
    while True:
        try:
            return Store.open(path, backends=[managed, kms]).close()
        except keystead.ConflictError:
            assert time.monotonic() < until
            time.sleep(0.05)
