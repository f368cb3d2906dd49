"""A store: opened, closed, shared by threads, and not by processes."""

import gc
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import keystead
from keystead import Code, Store
from keystead._native import ffi, lib


def test_a_store_that_was_closed_is_opened_again_while_old_handles_are_still_held(
    tmp_path: Path, managed: keystead.Backend
) -> None:
    path = tmp_path / "app.keystead"
    with Store.create(path, backends=[managed]) as first:
        acme = first.create_organization("acme")
        acme.put("a", b"1")
        identity = first.id
    with Store.open(path, backends=[managed]) as second:
        assert second.id == identity
        assert second.organization("acme").get("a").value == b"1"
        for use in (lambda: acme.get("a"), lambda: acme.put("a", b""), lambda: first.id, lambda: list(acme.keys)):
            with pytest.raises(keystead.ClosedError):
                use()
        first.close()
        with pytest.raises(keystead.ConflictError) as busy:
            Store.open(path, backends=[managed])
        assert busy.value.code is Code.ALREADY_OPEN


def test_organizations_keep_their_store_open(tmp_path: Path, managed: keystead.Backend) -> None:
    acme = Store.create(tmp_path / "app.keystead", backends=[managed]).create_organization("acme")
    gc.collect()
    acme.put("a", b"1")
    del acme
    gc.collect()
    Store.open(tmp_path / "app.keystead", backends=[managed]).close()


def test_organizations_are_listed_by_name(store: Store) -> None:
    for name in ("zeta", "acme", "müller"):
        store.create_organization(name)
    assert [info.name for info in store.organizations()] == ["acme", "müller", "zeta"]
    assert store.organization("müller").name == "müller"
    with pytest.raises(keystead.ConflictError) as taken:
        store.create_organization("acme")
    assert taken.value.code is Code.ORGANIZATION_EXISTS


@pytest.mark.parametrize("content", [b"", b"something else entirely" * 1000])
def test_a_file_that_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(keystead.IntegrityError) as refused:
        Store.open(path)
    assert refused.value.code is Code.NOT_A_STORE


def test_options_reach_the_store(tmp_path: Path, managed: keystead.Backend) -> None:
    options = {"cache_bytes": 1 << 20, "key_lifetime_ms": 60_000, "kms_timeout_ms": 20_000, "rewrap_batch": 16}
    with Store.create(tmp_path / "app.keystead", backends=[managed], **options) as store:  # type: ignore[arg-type]
        store.create_organization("acme").put("a", b"1")
        assert store.cached_epoch_keys == 1
        store.forget_epoch_keys()
        assert store.cached_epoch_keys == 0
    with pytest.raises(keystead.CallerError):
        Store.open(tmp_path / "app.keystead", backends=[managed, managed])


def test_threads_read_and_write_one_organization(store: Store) -> None:
    acme = store.create_organization("acme")
    failures: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for number in range(40):
                value = b"%d %d" % (name, number)
                version = acme.put(f"thread/{name}", value)
                assert acme.get(f"thread/{name}", version).value == value
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [info.latest for info in acme.list("thread/")] == [40] * 8


def test_other_threads_run_while_a_call_waits(store: Store) -> None:
    """The interpreter's lock is let go of: a thread ticks while another one writes a value that takes time. Of several puts, since
    the machine may have no time for it during one. With the lock held each put has a while without a tick, as long as it computes."""
    acme = store.create_organization("acme")
    ticks: list[float] = []
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.001):
            ticks.append(time.monotonic())

    ticker = threading.Thread(target=tick)
    ticker.start()
    value = b"x" * (32 << 20)
    seen: list[str] = []
    is_shown = False
    try:
        while not is_shown and len(seen) < 20:
            began, computed_before = time.monotonic(), time.thread_time()
            acme.put("large", value)
            computed, ended = time.thread_time() - computed_before, time.monotonic()
            during = [began, *(at for at in list(ticks) if began < at < ended), ended]
            longest = max(later - at for at, later in zip(during, during[1:], strict=False))
            seen.append(f"computed for {computed:.3f} s: {len(during) - 2} ticks, none for {longest:.3f} s")
            is_shown = len(during) - 2 > 5 and longest < 0.8 * computed
    finally:
        over.set()
        ticker.join()
    assert is_shown, seen


def test_a_store_is_closed_under_threads_that_use_it(tmp_path: Path, managed: keystead.Backend) -> None:
    path = tmp_path / "app.keystead"
    store = Store.create(path, backends=[managed])
    acme = store.create_organization("acme")
    acme.put("a", b"1")
    ended: list[BaseException] = []

    def read() -> None:
        try:
            while True:
                assert acme.get("a").value == b"1"
        except keystead.ClosedError as closed:
            ended.append(closed)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    store.close()
    for thread in threads:
        thread.join()
    assert len(ended) == 4
    Store.open(path, backends=[managed]).close()


def test_an_exception_that_is_kept_keeps_no_file_open(tmp_path: Path, managed: keystead.Backend) -> None:
    """Calls that a close came upon raised with the handle among the locals of their traceback."""
    path = tmp_path / "app.keystead"
    store = Store.create(path, backends=[managed])
    acme = store.create_organization("acme")
    # As a call that has begun already finds it.
    assert lib.keystead_store_close(store._handle, ffi.NULL) == 0
    kept: list[keystead.ClosedError] = []
    uses: list[Callable[[], object]] = [lambda: acme.get("a"), lambda: acme.put("a", b"1"), lambda: store.organization("acme")]
    for use in uses:
        with pytest.raises(keystead.ClosedError) as closed:
            use()
        kept.append(closed.value)
    store.close()
    Store.open(path, backends=[managed]).close()
    assert len(kept) == len(uses)


def test_a_store_does_not_go_through_a_fork(store: Store) -> None:
    """The child is told so by every call, and ends without harm to its parent's store."""
    acme = store.create_organization("acme")
    acme.put("a", b"1")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        for use in (lambda: acme.get("a"), lambda: acme.put("a", b"2"), lambda: store.id, store.close):
            try:
                use()
                said.append("nothing")
            except keystead.ForkedError as error:
                said.append(Code(error.code).name)
        os.write(write, " ".join(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"FORKED FORKED FORKED FORKED"
    assert os.waitpid(child, 0)[1] == 0
    assert acme.put("a", b"2") == 2
    assert store.verify(open_values=True).is_clean


def test_a_program_that_forgets_its_store_ends_well(tmp_path: Path) -> None:
    program = (
        "import keystead, sys; from pathlib import Path; d = Path(sys.argv[1])\n"
        "store = keystead.Store.create(d / 's', backends=[keystead.Backend.managed(d / 'k')])\n"
        "acme = store.create_organization('acme'); acme.put('a', b'1')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    managed = keystead.Backend.managed(tmp_path / "k")
    with Store.open(tmp_path / "s", backends=[managed]) as store:
        assert store.organization("acme").get("a").value == b"1"


def test_every_code_of_the_library_has_its_name() -> None:
    states = "VERSION_(LIVE|IS)|KEY_(ENABLED|DISABL|SECOND)|EPOCH_(ACTIVE|LIVE|RETIRED)|REWRAP"
    others = re.compile(f"KEYSTEAD_({states}|BACKEND|CLASS|EXPECT|CAUSE|LOST|LOG_(ERROR|WARN|INFO|DEBUG)|VERIFY|ABI_VERSION|OK$|KMS$)")
    names = [name for name in dir(lib) if name.startswith("KEYSTEAD_") and not others.match(name)]
    assert len(names) > 30
    for name in names:
        assert Code(getattr(lib, name)).name == name.removeprefix("KEYSTEAD_")
    for name in dir(lib):
        if name.startswith("KEYSTEAD_BACKEND_") and 0 < getattr(lib, name) < 15 and name.split("_")[2] not in (
            "ABI", "BINDS", "CAN", "LOG", "KEY",
        ) and not name.endswith(("LEAST", "MOST", "MAX")):
            assert Code(lib.KEYSTEAD_KMS + getattr(lib, name)).name == "KMS_" + name.removeprefix("KEYSTEAD_BACKEND_")


def test_the_version_is_told() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", keystead.__version__)
