"""Keys: brought by a plugin, rotated, disabled; epochs, jobs, the audit trail, verify."""

import os
import runpy
import shutil
import sys
from pathlib import Path

import pytest

import keystead
from keystead import Code, EpochCause, EpochState, KeyState, Organization, RewrapState, Store


@pytest.fixture
def customer(plugin: str, tmp_path: Path) -> keystead.Backend:
    return keystead.Backend.load(
        plugin,
        digest=keystead.plugin_digest(plugin),
        name="customer-kms",
        settings={"keyring": str(tmp_path / "customer.keyring")},
    )


@pytest.fixture
def store(tmp_path: Path, managed: keystead.Backend, customer: keystead.Backend):  # type: ignore[no-untyped-def]
    with Store.create(tmp_path / "app.keystead", backends=[managed, customer]) as store:
        yield store


def test_the_first_key_that_is_brought_takes_over_everything(acme: Organization) -> None:
    acme.put_all({f"s/{number}": b"value" for number in range(300)})
    told: list[keystead.RewrapStatus] = []
    job = acme.acting_as("alice@acme", "ticket 4711").keys.add("acme-cmk", "customer-kms")
    status = job.wait(60, told.append)
    assert (status.state, status.remaining, status.done) == (RewrapState.DONE, 0, 300)
    assert told[-1] == status and job.number == status.job
    first, second = acme.epochs()
    assert (first.state, first.data_keys, first.wrapped_by) == (EpochState.RETIRED, 0, ())
    assert (second.state, second.data_keys, second.key) == (EpochState.ACTIVE, 300, "acme-cmk")
    assert (second.actor, second.reason, second.cause) == ("alice@acme", "ticket 4711", EpochCause.FIRST_OWN_KEY)
    assert second.wrapped_by[0].key == "acme-cmk"
    assert str(second) == "2 acme-cmk active, 300 data keys"
    assert acme.get("s/7").value == b"value"
    assert acme.rewrap_status() == status


def test_keys_are_rotated_and_disabled(acme: Organization) -> None:
    acme.put("a", b"1")
    assert acme.rewrap_status() is None
    acme.keys.add("acme-cmk", "customer-kms").wait(60)
    acme.keys.rotate("acme-cmk").wait(60)
    acme.keys.probe("acme-cmk")
    acme.keys.add("second", "customer-kms").wait(60)
    acme.keys.set_default("second", rewrap=True).wait(60)
    acme.keys.disable("acme-cmk", "second").wait(60)
    states = {key.name: (key.state, key.is_default) for key in acme.keys}
    assert states == {
        "acme-cmk": (KeyState.DISABLED, False),
        "managed": (KeyState.ENABLED, False),
        "second": (KeyState.ENABLED, True),
    }
    acme.keys.disable_all().wait(60)
    assert acme.epochs()[-1].key == "managed"
    assert acme.get("a").value == b"1"
    with pytest.raises(keystead.ConflictError) as refused:
        acme.keys.rotate("second")
    assert refused.value.code is Code.KEY_REFUSED
    with pytest.raises(keystead.NotFoundError) as missing:
        acme.rewrap_job()
    assert missing.value.code is Code.NO_JOB


def test_a_second_key_wraps_every_live_epoch_and_is_removed(acme: Organization) -> None:
    acme.put("a", b"1")
    acme.keys.add("acme-cmk", "customer-kms").wait(60)
    acme.keys.add("paris", "customer-kms")
    assert acme.keys.second() is None
    with pytest.raises(keystead.ConflictError) as refused:
        acme.keys.set_second("acme-cmk")
    assert refused.value.code is Code.KEY_REFUSED
    acme.keys.set_second("paris").wait(60)
    assert acme.keys.second() == keystead.SecondKey("paris", False, 1, 0, None, None)
    assert [wrap.key for wrap in acme.epochs()[-1].wrapped_by] == ["acme-cmk", "paris"]
    acme.keys.rotate("acme-cmk").wait(60)
    assert [wrap.key for wrap in acme.epochs()[-1].wrapped_by] == ["acme-cmk", "paris"]
    acme.keys.remove_second()
    acme.keys.set_second("paris", either_opens=True).wait(60)
    second = acme.keys.second()
    assert second is not None and second.either_opens
    assert {key.name: key.state for key in acme.keys}["paris"] is KeyState.SECOND_EITHER
    acme.keys.remove_second()
    assert acme.keys.second() is None
    with pytest.raises(keystead.CallerError):
        acme.keys.remove_second()


def test_a_job_is_done_here_when_nothing_goes_on_in_the_background(
    tmp_path: Path, managed: keystead.Backend, customer: keystead.Backend
) -> None:
    backends = [managed, customer]
    with Store.create(tmp_path / "own.keystead", backends=backends, background_rewrap=False) as store:
        acme = store.create_organization("acme")
        acme.put("a", b"1")
        job = acme.keys.add("acme-cmk", "customer-kms")
        with pytest.raises(keystead.TimedOutError) as late:
            job.wait(0.01)
        assert isinstance(late.value, TimeoutError)

        def refuse(status: keystead.RewrapStatus) -> None:
            raise KeyError(status.job)

        with pytest.raises(KeyError):
            acme.rewrap_job().wait(10, refuse)
        assert job.run_here().state is RewrapState.DONE


def test_the_audit_trail_tells_who_did_what(acme: Organization) -> None:
    alice = acme.acting_as("alice@acme", "ticket 4711")
    alice.put("prod/db/password", b"correct horse")
    records = list(acme.audit())
    assert records[0].event == "OrganizationCreated"
    last = records[-1]
    assert (last.event, last.actor, last.reason) == ("VersionPut", "alice@acme", "ticket 4711")
    assert last.details == {"path": "prod/db/password", "version": 1}
    assert acme.audit_head() == keystead.AuditHead(last.sequence, last.hash)
    assert list(acme.audit(last.sequence - 1)) == [last]


def test_a_store_that_was_rolled_back_is_refused_by_its_checkpoint(tmp_path: Path, managed: keystead.Backend) -> None:
    path, old = tmp_path / "pinned.keystead", tmp_path / "old.keystead"
    with Store.create(path, backends=[managed]) as store:
        acme = store.create_organization("acme")
        acme.put("a", b"1")
    shutil.copy(path, old)
    with Store.open(path, backends=[managed]) as store:
        store.organization("acme").put("a", b"2")
        pinned = store.checkpoint()
    with Store.open(path, backends=[managed], checkpoint=pinned) as store:
        assert store.organization("acme").get("a").version == 2
    with pytest.raises(keystead.IntegrityError) as refused:
        Store.open(old, backends=[managed], checkpoint=pinned)
    assert refused.value.code is Code.BEHIND_CHECKPOINT
    with pytest.raises(keystead.CallerError):
        Store.open(path, backends=[managed], checkpoint="")


def test_a_store_is_verified(store: Store, acme: Organization) -> None:
    acme.put("a", b"1")
    told: list[int] = []
    report = store.verify(open_values=True, progress=told.append)
    assert report.is_clean
    assert (report.organizations, report.secrets, report.values_opened, report.unopened) == (1, 1, 1, ())
    assert report.complete and report.blocks > 0 and report.wraps == 1 and report.chunks == 0
    assert told

    def refuse(looked_at: int) -> None:
        raise KeyError(looked_at)

    with pytest.raises(KeyError):
        store.verify(progress=refuse)


def test_a_plugin_of_another_digest_does_not_run(plugin: str) -> None:
    with pytest.raises(keystead.ConfigError) as refused:
        keystead.Backend.load(plugin, digest="00" * 32)
    assert refused.value.code is Code.PLUGIN_REFUSED
    with pytest.raises(keystead.ConfigError):
        keystead.Backend.load(plugin)
    with pytest.raises(ValueError):
        keystead.Backend.load(plugin, digest="00")


def test_a_plugin_that_waits_for_its_first_use_is_refused_there_and_the_others_are_not_concerned(
    plugin: str, tmp_path: Path, managed: keystead.Backend
) -> None:
    settings = {"keyring": str(tmp_path / "customer.keyring")}
    right = keystead.plugin_digest(plugin)
    with pytest.raises(ValueError):
        keystead.Backend.load(plugin, digest=right, at_first_use=True)
    late = [
        keystead.Backend.load(plugin, digest=digest, name=name, settings=settings, at_first_use=True)
        for name, digest in (("wrong", "00" * 32), ("right", right))
    ]
    assert (late[1].name, late[1].description) == ("right", {})
    with Store.create(tmp_path / "late.keystead", backends=[managed, *late]) as store:
        acme = store.create_organization("acme")
        acme.put("a", b"1")
        with pytest.raises(keystead.ConfigError, match="step 4, digest") as refused:
            acme.keys.add("cmk", "wrong")
        assert refused.value.code is Code.KMS_INVALID_CONFIG
        acme.keys.add("cmk", "right").wait(60)
        assert acme.get("a").value == b"1"


def test_a_plugin_says_what_it_is(customer: keystead.Backend) -> None:
    assert customer.name == "customer-kms"
    assert customer.description["name"] == "managed"


def test_the_example_runs(plugin: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bring_a_key.py", os.path.abspath(plugin)])
    runpy.run_path(str(Path(__file__).parent.parent / "examples" / "bring_a_key.py"), run_name="__main__")
    assert "1 managed retired, 0 data keys\n2 acme-cmk active, 502 data keys" in capsys.readouterr().out
