"""What the library logs, in Python's `logging`."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

import keystead
from keystead import Code, Store


def test_what_happens_is_logged_until_the_log_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app.keystead")
    logger = logging.getLogger("app.keystead")
    with keystead.log_to(logger):
        with pytest.raises(keystead.ConflictError) as taken:
            keystead.log_to()
        assert taken.value.code is Code.LOG_TAKEN
        with Store.create(tmp_path / "a", backends=[keystead.Backend.managed(tmp_path / "a.keyring")]) as store:
            store.create_organization("acme")
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "app.keystead")
    assert record.getMessage().startswith(f"made the keyring {tmp_path}/a.keyring")
    assert record.__dict__["keystead"]["fields"] == {"organization": "acme", "key": "managed"}

    with Store.create(tmp_path / "b", backends=[keystead.Backend.managed(tmp_path / "b.keyring")]) as store:
        store.create_organization("acme")
    assert len(caplog.records) == 1
    with keystead.log_to(logger, level=logging.CRITICAL):
        with Store.create(tmp_path / "c", backends=[keystead.Backend.managed(tmp_path / "c.keyring")]) as store:
            store.create_organization("acme")
    assert len(caplog.records) == 1


def test_a_handler_may_use_the_store_and_a_program_that_forgets_its_log_ends_well(tmp_path: Path) -> None:
    program = (
        "import gc, keystead, logging, sys, threading; from pathlib import Path; d = Path(sys.argv[1])\n"
        "told = threading.Event()\n"
        "class Counts(logging.Handler):\n"
        "    def emit(self, record):\n"
        "        print(sum(1 for _ in store.organizations()), record.levelname, flush=True); gc.collect(); told.set()\n"
        "logging.getLogger('keystead').addHandler(Counts()); keystead.log_to(); gc.collect()\n"
        "store = keystead.Store.create(d / 's', backends=[keystead.Backend.managed(d / 'k')])\n"
        "store.create_organization('acme').put('a', b'1'); told.wait(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("0 WARNING\n", "1 WARNING\n")
